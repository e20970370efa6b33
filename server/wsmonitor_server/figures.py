"""Every metric of a server: what it says, and when somebody should look. Pure.

The one place where a metric gets its name; ``python -m wsmonitor_server.figures`` prints the tables of
``docs/reference/metrics.md``. Labels take their values from closed sets (codes, reasons, configured tenants):
what comes from outside never makes a new line.
"""

from __future__ import annotations

import sys
from typing import Final, Literal, NamedTuple

PREFIX: Final = "wsmonitor_"

Kind = Literal["counter", "gauge", "histogram"]


class Metric(NamedTuple):
    """One metric.

    Attributes:
        name: behind `PREFIX`, unless it begins with ``process_``.
        meaning: what it says.
        worry: when somebody should look; "" for never by itself.
        labels: the names of its labels.
        shared: only of servers that share a store.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    worry: str = ""
    labels: tuple[str, ...] = ()
    shared: bool = False

    @property
    def full_name(self) -> str:
        """As it is served."""
        return self.name if self.name.startswith("process_") else PREFIX + self.name


class Section(NamedTuple):
    """Metrics that belong together."""

    title: str
    metrics: tuple[Metric, ...]


SECTIONS: Final[tuple[Section, ...]] = (
    Section(
        "The server itself",
        (
            Metric(
                "info",
                "gauge",
                "1",
                "Always 1; who this is stands in the labels.",
                labels=("version", "server", "store"),
            ),
            Metric(
                "uptime_seconds",
                "gauge",
                "s",
                "Since the server was made.",
                worry="it is small again and again",
            ),
            Metric(
                "ready",
                "gauge",
                "0/1",
                "What `/readyz` said last, or would say for reasons that need no question: not "
                "draining, not full, not `degraded`.",
                worry="0 for a minute",
            ),
            Metric(
                "draining",
                "gauge",
                "0/1",
                "The server stops, and has told its clients when to come back.",
                worry="1 for longer than `drain_timeout`",
            ),
            Metric(
                "event_loop_lag_seconds",
                "histogram",
                "s",
                "How late a timer was that is due every half second. Everything of this server waits "
                "so long.",
                worry="one in a hundred is above 0.1 s",
            ),
            Metric(
                "faults_total",
                "counter",
                "faults",
                "Requests that met a fault of the server: the log has each under its correlation id.",
                worry="ever: it is a bug",
            ),
            Metric(
                "process_cpu_seconds_total",
                "counter",
                "s",
                "CPU time of the process, user and system.",
                worry="its rate is near 1: the loop uses one core",
            ),
            Metric(
                "process_resident_memory_bytes",
                "gauge",
                "bytes",
                "Memory of the process (0 where the system does not tell).",
            ),
            Metric(
                "process_open_fds",
                "gauge",
                "files",
                "Open files and sockets (0 where the system does not tell).",
            ),
            Metric(
                "process_max_fds",
                "gauge",
                "files",
                "How many there may be.",
                worry="`process_open_fds` is above 80 % of it",
            ),
        ),
    ),
    Section(
        "Connections",
        (
            Metric(
                "connections",
                "gauge",
                "connections",
                "Authenticated connections.",
                worry="it is above 80 % of `limits.connections`",
            ),
            Metric(
                "handshakes",
                "gauge",
                "connections",
                "Connections that have shown no token yet.",
                worry="it stays near `limits.handshakes`: strangers",
            ),
            Metric(
                "connections_total",
                "counter",
                "connections",
                "Sockets that were accepted.",
            ),
            Metric(
                "opened_total",
                "counter",
                "connections",
                "Connections whose token and hello were in order.",
            ),
            Metric(
                "closed_total",
                "counter",
                "connections",
                "Authenticated connections that ended, by [close code](../protocol.md#16-close-codes); "
                "`other` for any that is not in that table.",
                worry="4004 (too slow), 4005 (silent) or 4006 (rate limited) come in numbers",
                labels=("code",),
            ),
            Metric(
                "handshakes_refused_total",
                "counter",
                "requests",
                "HTTP requests that were refused, by [error code](errors.md).",
                worry="`unauthorized` rises: a key or a clock is wrong, or somebody tries tokens",
                labels=("code",),
            ),
            Metric(
                "handshakes_dropped_total",
                "counter",
                "connections",
                "Connections without a token that were dropped to make room.",
                worry="it rises",
            ),
            Metric(
                "messages_in_total",
                "counter",
                "messages",
                "WebSocket messages that came in.",
            ),
            Metric(
                "received_bytes_total",
                "counter",
                "bytes",
                "What these messages held.",
            ),
            Metric(
                "frames_out_total",
                "counter",
                "frames",
                "WebSocket messages that were handed to the system: `connections` × rate of events is "
                "the usual figure.",
            ),
            Metric(
                "sent_bytes_total",
                "counter",
                "bytes",
                "What these had, framed.",
            ),
            Metric(
                "queued_bytes",
                "gauge",
                "bytes",
                "Waits in the outboxes of all connections.",
                worry="it stays high: readers are slow, or this server's network is",
            ),
            Metric(
                "errors_total",
                "counter",
                "errors",
                "Errors that clients were told, by [error code](errors.md). A change that is refused "
                "counts as well.",
                worry="`internal`, `store_failed`, `read_only`; `limit_exceeded` and `rate_limited` where "
                "you do not expect them",
                labels=("code",),
            ),
            Metric(
                "log_lines_suppressed_total",
                "counter",
                "lines",
                "Lines about refusals that were left out of the log, because there were too many.",
            ),
        ),
    ),
    Section(
        "Observers",
        (
            Metric(
                "subscriptions",
                "gauge",
                "subscriptions",
                "Of all connections.",
            ),
            Metric(
                "deliveries_total",
                "counter",
                "events",
                "Events times those who watch here: what publishing was multiplied by.",
            ),
            Metric(
                "conflated_total",
                "counter",
                "events",
                'Events that an observer with `delivery="latest"` was spared, because a later one of '
                "the same entity came before its batch.",
            ),
            Metric(
                "resyncs_total",
                "counter",
                "subscriptions",
                "Subscriptions that were told to begin anew: `too_slow` (its queue was full) or "
                "`reset` (another history).",
                worry="`too_slow` rises for many: events are too large or too many for them; `reset`: the "
                "store began a new epoch",
                labels=("reason",),
            ),
            Metric(
                "syncs_total",
                "counter",
                "syncs",
                "Syncs that were begun: who comes, or begins anew.",
            ),
        ),
    ),
    Section(
        "Publishing and the store",
        (
            Metric(
                "publications",
                "gauge",
                "producers",
                "Producers that connections hold.",
            ),
            Metric(
                "events_total",
                "counter",
                "events",
                "Events that were committed by way of this server.",
            ),
            Metric(
                "rejected_total",
                "counter",
                "changes",
                "Changes that were refused, finally.",
                worry="it rises: a program publishes what cannot be taken",
            ),
            Metric(
                "commits_total",
                "counter",
                "groups",
                "Groups of sessions that were committed together.",
            ),
            Metric(
                "commits_failed_total",
                "counter",
                "groups",
                "Groups that the store did not take.",
                worry="it rises",
            ),
            Metric(
                "commit_seconds",
                "histogram",
                "s",
                "From handing a group to the store until it has it.",
                worry="one in a hundred is above 0.1 s: the disk, or Redis, is slow",
            ),
            Metric(
                "commit_sessions",
                "histogram",
                "sessions",
                "Sessions in a group.",
            ),
            Metric(
                "commit_queue_bytes",
                "gauge",
                "bytes",
                "Waits for the next group; at 512 KiB who publishes waits.",
                worry="it stays near 524288: the store is the bottleneck",
            ),
            Metric(
                "degraded",
                "gauge",
                "0/1",
                "No changes are taken, and why: the [error code](errors.md) that publishers get.",
                worry="1",
                labels=("code",),
            ),
            Metric(
                "degraded_seconds_total",
                "counter",
                "s",
                "For how long no changes were taken.",
                worry="it rises",
            ),
            Metric(
                "sessions",
                "gauge",
                "sessions",
                "Sessions that are kept.",
                worry="it is above 80 % of `limits.sessions`",
            ),
            Metric(
                "sessions_loaded",
                "gauge",
                "sessions",
                "Sessions in memory.",
            ),
            Metric(
                "sessions_loading",
                "gauge",
                "sessions",
                "Sessions that are being read from the store.",
                worry="it stays above 0",
            ),
            Metric(
                "directory_views",
                "gauge",
                "lists",
                "Different lists of sessions that are kept up to date.",
            ),
            Metric(
                "commands_pending",
                "gauge",
                "commands",
                "Commands of loaded sessions that have not ended.",
                worry="it only rises: programs do not answer",
            ),
            Metric(
                "uploads",
                "gauge",
                "uploads",
                "Large values that are being uploaded.",
            ),
        ),
    ),
    Section(
        "Tenants",
        (
            Metric(
                "tenant_connections",
                "gauge",
                "connections",
                "Authenticated connections, by tenant: those with a table in the configuration by name, "
                "`(other)` for the others together, `(none)` for tokens without a tenant.",
                labels=("tenant",),
            ),
            Metric(
                "tenant_subscriptions",
                "gauge",
                "subscriptions",
                "Of all its connections.",
                labels=("tenant",),
            ),
            Metric(
                "tenant_sessions",
                "gauge",
                "sessions",
                "Sessions into which it publishes now.",
                labels=("tenant",),
            ),
            Metric(
                "tenant_changes_total",
                "counter",
                "changes",
                "Changes that it has published, before they were judged.",
                labels=("tenant",),
            ),
            Metric(
                "tenant_received_bytes_total",
                "counter",
                "bytes",
                "Bytes of messages with these, and with pages of values.",
                labels=("tenant",),
            ),
            Metric(
                "tenant_refusals_total",
                "counter",
                "refusals",
                "How often it was beyond one of its limits.",
                worry="it rises: the tenant needs more, or has a program that runs wild",
                labels=("tenant",),
            ),
        ),
    ),
    Section(
        "Several servers on one Redis",
        (
            Metric(
                "node_sure",
                "gauge",
                "0/1",
                "This server knows all that was revoked. While it does not, it sends and takes nothing "
                "of sessions.",
                worry="0 for 10 s",
                shared=True,
            ),
            Metric(
                "bus_sure_age_seconds",
                "gauge",
                "s",
                "Since the last look at Redis that left nothing unread began; above 1 s the server is "
                "not sure.",
                worry="above 1",
                shared=True,
            ),
            Metric(
                "bus_messages_total",
                "counter",
                "messages",
                "What the servers told each other, as heard here, its own included: `committed`, "
                "`removed`, `revoked`, `watching`, `node_gone`, `warden`, `lost`, `regenerated`.",
                worry="`lost`: messages were missed, and everything was read again; `regenerated`: a new "
                "epoch",
                labels=("kind",),
                shared=True,
            ),
            Metric(
                "adopted_total",
                "counter",
                "commits",
                "Commits of other servers that sessions loaded here have applied.",
                shared=True,
            ),
            Metric(
                "conflicts_total",
                "counter",
                "sessions",
                "Times that another server had written to a session first, so that what was published "
                "here was judged again behind it.",
                worry="it is a large share of `commits_total`: programs on different servers write to the "
                "same sessions",
                shared=True,
            ),
            Metric(
                "reread_total",
                "counter",
                "sessions",
                "Times that a session's missing commits, or all of it, were read from Redis.",
                worry="it rises without conflicts or restarts",
                shared=True,
            ),
            Metric(
                "repairs_total",
                "counter",
                "repairs",
                "Times that everything which may have been missed was read again.",
                worry="it rises: Redis, or the way to it, fails",
                shared=True,
            ),
            Metric(
                "epochs_total",
                "counter",
                "epochs",
                "Times that Redis was found to be another, or to have lost something: every session "
                "goes on under a new epoch.",
                worry="ever",
                shared=True,
            ),
            Metric(
                "warden",
                "gauge",
                "0/1",
                "This server watches over producers whose server is gone. Of all together it is one.",
                worry="the sum over all servers is not 1 for 10 s",
                shared=True,
            ),
            Metric(
                "nodes",
                "gauge",
                "servers",
                "Servers that are alive, itself included, as Redis knows them.",
                worry="it is not as many as you run",
                shared=True,
            ),
            Metric(
                "keys_differ",
                "gauge",
                "0/1",
                "Another server on this Redis verifies tokens with another key, audience or issuer: what one "
                "takes, the other refuses. Sets of public keys are not compared.",
                worry="1 for longer than it takes to exchange a key everywhere",
                shared=True,
            ),
            Metric(
                "clock_ahead_seconds",
                "gauge",
                "s",
                "How far this machine's clock is ahead of Redis', at least (below 0: behind). It dates what "
                "is published here, and decides when tokens expire.",
                worry="it is above 1 or below -1",
                shared=True,
            ),
            Metric(
                "redis_round_trips_total",
                "counter",
                "questions",
                "Groups of commands that were asked, by link: `commit`, `read`, `bus`.",
                labels=("link",),
                shared=True,
            ),
            Metric(
                "redis_seconds",
                "histogram",
                "s",
                "How long an answer took on the links `commit` and `read` (the bus waits on purpose).",
                worry="one in a hundred is above 0.05 s",
                shared=True,
            ),
            Metric(
                "redis_connects_total",
                "counter",
                "connections",
                "Connections to Redis that were made, by link; each beyond the first of a link is a "
                "reconnect.",
                worry="it rises",
                labels=("link",),
                shared=True,
            ),
            Metric(
                "redis_failures_total",
                "counter",
                "failures",
                "Questions that found no Redis, or lost their answer, by link.",
                worry="it rises",
                labels=("link",),
                shared=True,
            ),
        ),
    ),
)

METRICS: Final[dict[str, Metric]] = {
    metric.name: metric for section in SECTIONS for metric in section.metrics
}


def reference() -> str:
    """The tables of ``docs/reference/metrics.md``."""
    lines: list[str] = []
    for section in SECTIONS:
        lines += [f"## {section.title}", "", "| metric | kind | says | worry when |", "|---|---|---|---|"]
        for metric in section.metrics:
            labels = "{" + ", ".join(metric.labels) + "}" if metric.labels else ""
            kind = {"1": metric.kind, "0/1": f"{metric.kind}, 0 or 1"}.get(
                metric.unit, f"{metric.kind}, {metric.unit}"
            )
            lines.append(f"| `{metric.full_name}{labels}` | {kind} | {metric.meaning} | {metric.worry} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(reference())
