"""The pages beside the WebSocket: health, readiness, metrics, the local server's proof."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wsmonitor._version import __version__
from wsmonitor.protocol.discovery import CHALLENGE_PATH, proof

from . import http
from .metrics import Histogram, Value, render
from .readiness import Readiness
from .replies import error_info

if TYPE_CHECKING:
    from .app import Server


class Pages:
    """Answers plain requests.

    Args:
        secret: the discovery file's, for a local server's proof; "" for none.
    """

    def __init__(self, server: Server, secret: str) -> None:
        self._server = server
        self._secret = secret
        self.readiness = Readiness(server)
        names = ["/healthz", "/readyz"]
        if server.config.metrics:
            names.append("/metrics")
        if secret:
            names.append(CHALLENGE_PATH)
        self.names = tuple(names)

    async def answer(self, page: http.Page) -> http.Answer:
        """Answer a request for one of `names`."""
        return await _PAGES[page.name](self, page)

    async def _health(self, page: http.Page) -> http.Answer:
        server = self._server
        return http.json_answer(
            200,
            {
                "status": "alive",
                "version": __version__,
                "instance": server.instance,
                "uptime": round(server.uptime, 3),
                "loop_lag": round(server.lag.last, 3),
            },
        )

    async def _ready(self, page: http.Page) -> http.Answer:
        problem, checks = await self.readiness.look()
        if problem is not None:
            return http.json_answer(503, {"status": "not ready", "error": problem, "checks": checks})
        return http.json_answer(200, {"status": "ready", "checks": checks})

    async def _metrics(self, page: http.Page) -> http.Answer:
        return http.Answer(200, render(measures(self._server)), http.TEXT)

    async def _challenge(self, page: http.Page) -> http.Answer:
        server = self._server
        if not http.valid_nonce(page.nonce):
            return http.error_answer(error_info("bad_message", "`nonce` has to be 16 to 128 hex digits"))
        told = proof(self._secret, page.nonce, server.host, server.port)
        return http.json_answer(200, {"proof": told, "instance": server.instance})


_PAGES: Final[dict[str, Callable[[Pages, http.Page], Coroutine[Any, Any, http.Answer]]]] = {
    "/healthz": Pages._health,
    "/readyz": Pages._ready,
    "/metrics": Pages._metrics,
    CHALLENGE_PATH: Pages._challenge,
}

_COUNTERS: Final = (
    "connections_total",
    "opened_total",
    "handshakes_dropped_total",
    "messages_in_total",
    "received_bytes_total",
    "conflated_total",
    "faults_total",
    "log_lines_suppressed_total",
)
"""Those of `Server.counters`: each is told from the beginning, as 0."""

_COUNTED: Final = {
    "closed_total": (),
    "handshakes_refused_total": (),
    "errors_total": (),
    "resyncs_total": ("too_slow", "reset"),
}
"""Those of `Server.counted`, with the labels that are told from the beginning."""


def connection_measures(server: Server) -> dict[str, Value]:
    """Figures of the connection side, by names of `figures.METRICS`."""
    peers = server.peers
    return {
        "connections": len(peers),
        "handshakes": len(server.door),
        "subscriptions": sum(len(peer.subscriptions) for peer in peers),
        "publications": sum(peer.publications for peer in peers),
        "queued_bytes": sum(
            peer.outbox.state_size + peer.outbox.control_waiting + peer.outbox.bulk_waiting for peer in peers
        ),
        **{name: server.counters[name] for name in _COUNTERS},
        **{name: dict.fromkeys(labels, 0) | server.counted[name] for name, labels in _COUNTED.items()},
        "frames_out_total": server.frames_out,
        "sent_bytes_total": server.bytes_out,
        "event_loop_lag_seconds": server.lag.seconds,
    }


def measures(server: Server) -> dict[str, Value]:
    """All that ``/metrics`` tells."""
    who: dict[tuple[str, ...], int | float] = {(__version__, server.instance, server.store_kind): 1}
    return {
        "info": who,
        "uptime_seconds": server.uptime,
        "ready": int(server.pages.readiness.known() is None),
        "draining": int(server.draining),
        **connection_measures(server),
        **server.tenants.measures(),
        **server.engine.measures(),
        **_process(),
    }


def plain(values: Mapping[str, Value]) -> dict[str, Any]:
    """*values* for people: of a histogram its count and sum."""
    return {
        name: value.summary() if isinstance(value, Histogram) else value for name, value in values.items()
    }


def _process() -> dict[str, Value]:
    times = os.times()
    return {
        "process_cpu_seconds_total": times.user + times.system,
        "process_resident_memory_bytes": _resident(),
        "process_open_fds": _open_files(),
        "process_max_fds": open_files(),
    }


def _resident() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:  # a system without /proc
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _open_files() -> int:
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return 0


def open_files() -> int:
    """How many files and sockets the system lets this process have."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return 1_000_000
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_000_000 if soft == resource.RLIM_INFINITY else soft
