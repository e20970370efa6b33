"""Tenants: who shares a server, and how much of it each may have. Pure: the time is passed in.

A tenant is what a claim of the token says (``auth.tenant_claim``); tokens without it belong to one that has
no name. What a tenant may have is counted on this server alone: of several servers, each gives as much.
Nobody but a tenant's own connections is ever refused for what that tenant does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec

from wsmonitor.protocol.entities import ErrorInfo

from .metrics import Value
from .replies import error_info

BURST: Final = 10.0
"""Seconds' worth of a rate that may be used at once."""

COME_AGAIN: Final = 10.0
"""Seconds after which it is worth trying again, where something has to end first."""

KEPT: Final = 10_000
"""How many tenants without a connection are remembered, for what they have used of their rates."""

UPLOADS: Final = 10_000
"""How many values of one tenant there may be that nothing refers to yet."""

UPLOAD_AGE: Final = 3_600.0
"""Seconds after which such a value no longer counts: it has been removed (``retention.orphan_age``)."""

UNNAMED: Final = "(none)"
OTHERS: Final = "(other)"
"""What metrics call the tenant without a name, and all that the configuration does not name."""


class TenantLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one tenant may have of one server; 0 for no limit.

    Attributes:
        connections: at once.
        subscriptions: at once, of all its connections.
        sessions: into which its connections publish at once.
        event_rate: changes published per second, `BURST` seconds' worth at once.
        byte_rate: bytes per second of messages that publish changes and values.
        value_bytes: bytes of large values in the sessions into which it publishes.
    """

    connections: int = 0
    subscriptions: int = 0
    sessions: int = 0
    event_rate: float = 0.0
    byte_rate: float = 0.0
    value_bytes: int = 0


class Allowance:
    """So much per second, in the long run. What is beyond it is refused until the debt is paid off.

    A single message may be larger than what is left: it makes the debt. So whatever a message may have
    by other limits passes some time.

    Args:
        rate: per second; 0 for no limit.
        now: when `BURST` seconds' worth is there (monotonic seconds).
    """

    __slots__ = ("_at", "_left", "_rate")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._left = rate * BURST
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until something may be taken; 0.0 for now."""
        if not self._rate:
            return 0.0
        self._left = min(self._rate * BURST, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        return 0.0 if self._left > 0 else -self._left / self._rate + 1 / self._rate

    def take(self, amount: float) -> None:
        """Take *amount*, which `wait` has allowed."""
        self._left -= amount

    def full(self, now: float) -> bool:
        """Whether nothing of it is used."""
        return self.wait(now) == 0.0 and self._left >= self._rate * BURST


class Tenant:
    """One tenant on this server.

    Attributes:
        name: "" for the one without a name.
        connections, subscriptions: how many there are.
        sessions: those into which it publishes, with how many producers.
        changes, received, refused: how many changes and bytes it has published, and how often it was refused.
    """

    __slots__ = (
        "_bytes",
        "_events",
        "_uploads",
        "changes",
        "connections",
        "limits",
        "name",
        "received",
        "refused",
        "sessions",
        "subscriptions",
    )

    def __init__(self, name: str, limits: TenantLimits, now: float) -> None:
        self.name = name
        self.limits = limits
        self.connections = self.subscriptions = 0
        self.changes = self.received = self.refused = 0
        self.sessions: Counter[str] = Counter()
        self._events = Allowance(limits.event_rate, now)
        self._bytes = Allowance(limits.byte_rate, now)
        self._uploads: dict[tuple[str, str], tuple[int, float]] = {}

    def unused(self, now: float) -> bool:
        """Whether forgetting it would change nothing."""
        return not (self.connections or self.sessions) and self._events.full(now) and self._bytes.full(now)

    # -- what is counted while it is there

    def connect(self) -> ErrorInfo | None:
        """Whether one more connection may come; None when it may."""
        return self._counted("connections", self.connections)

    def subscribe(self) -> ErrorInfo | None:
        """Whether one more subscription may begin."""
        return self._counted("subscriptions", self.subscriptions)

    def open(self, session: str) -> ErrorInfo | None:
        """Whether it may publish into *session*."""
        return None if session in self.sessions else self._counted("sessions", len(self.sessions))

    def opened(self, session: str) -> None:
        """A connection holds a producer of *session*."""
        self.sessions[session] += 1

    def closed(self, session: str) -> None:
        """A connection no longer holds a producer of *session*."""
        self.sessions[session] -= 1
        if self.sessions[session] <= 0:
            del self.sessions[session]

    def _counted(self, name: str, there: int) -> ErrorInfo | None:
        limit: int = getattr(self.limits, name)
        if not limit or there < limit:
            return None
        return self._beyond(name, limit, COME_AGAIN)

    # -- what is published

    def publish(self, changes: int, size: int, now: float) -> ErrorInfo | None:
        """Take a message of *size* bytes with so many changes; None when it may be carried out."""
        wait_events, wait_bytes = self._events.wait(now), self._bytes.wait(now)
        if changes and wait_events > 0:
            return self._beyond("event_rate", self.limits.event_rate, wait_events)
        if wait_bytes > 0:
            return self._beyond("byte_rate", self.limits.byte_rate, wait_bytes)
        self._events.take(changes)
        self._bytes.take(size)
        self.changes += changes
        self.received += size
        return None

    def upload(
        self,
        session: str,
        sha256: str,
        total: int,
        now: float,
        stored: Callable[[Collection[str], Mapping[tuple[str, str], int]], int],
    ) -> ErrorInfo | None:
        """Whether a value that is not there yet may be uploaded.

        Args:
            stored: how many bytes the values of these sessions have, and of these uploads those to which
                nothing refers.
        """
        limit = self.limits.value_bytes
        key = (session, sha256)
        if not limit or key in self._uploads:
            return None
        self._uploads = {one: it for one, it in self._uploads.items() if now - it[1] < UPLOAD_AGE}
        there = stored({*self.sessions, session}, {one: size for one, (size, _) in self._uploads.items()})
        if there + total > limit or len(self._uploads) >= UPLOADS:
            # A value above the limit by itself will never pass: it is not to be tried again.
            return self._beyond("value_bytes", limit, COME_AGAIN, again=total <= limit)
        self._uploads[key] = (total, now)
        return None

    def _beyond(self, name: str, limit: float, wait: float, *, again: bool = True) -> ErrorInfo:
        self.refused += 1
        whose = f"the tenant {self.name!r}" if self.name else "those without a tenant"
        info = error_info(
            "limit_exceeded",
            f"the limit `{name}` of {limit:,} for {whose} is reached on this server",
            details={
                "limit": f"tenant.{name}",
                "value": limit,
                "tenant": self.name,
                "retry_after": round(wait, 3),
            },
        )
        return info if again else msgspec.structs.replace(info, retryable=False)


class Tenants:
    """All tenants of this server.

    Args:
        default: the limits of those that are not named.
        named: limits by name.
    """

    def __init__(
        self, default: TenantLimits | None = None, named: Mapping[str, TenantLimits] | None = None
    ) -> None:
        self._default = default or TenantLimits()
        self._named = dict(named or {})
        self._there: dict[str, Tenant] = {}
        # What the forgotten have counted, by label: counters never go back.
        self._gone: Counter[tuple[str, str]] = Counter()

    def __len__(self) -> int:
        return len(self._there)

    def of(self, name: str, now: float) -> Tenant:
        """The tenant *name*, at *now* (monotonic seconds)."""
        tenant = self._there.get(name)
        if tenant is None:
            if len(self._there) >= KEPT:
                self._make_room(now)
            tenant = self._there[name] = Tenant(name, self._named.get(name, self._default), now)
        return tenant

    def _make_room(self, now: float) -> None:
        """Forget those whose being forgotten changes nothing; if all have used something, who came first."""
        idle = [one for one in self._there.values() if not (one.connections or one.sessions)]
        for one in [one for one in idle if one.unused(now)] or idle[:1]:
            del self._there[one.name]
            for name in ("changes", "received", "refused"):
                self._gone[self._label(one.name), name] += getattr(one, name)

    def _label(self, name: str) -> str:
        if name in self._named:
            return name or UNNAMED
        return OTHERS if name else UNNAMED

    def measures(self) -> dict[str, Value]:
        """Figures of `figures.METRICS`, by tenant: only those that are configured have a name there."""
        found: dict[str, Counter[str]] = {
            name: Counter(dict.fromkeys([UNNAMED, OTHERS, *filter(None, self._named)], 0))
            for name in _FIGURES.values()
        }
        for tenant in self._there.values():
            label = self._label(tenant.name)
            for attribute, name in _FIGURES.items():
                value = getattr(tenant, attribute)
                found[name][label] += value if isinstance(value, int) else len(value)
        for (label, attribute), number in self._gone.items():
            found[_FIGURES[attribute]][label] += number
        return dict(found)


_FIGURES: Final = {
    "connections": "tenant_connections",
    "subscriptions": "tenant_subscriptions",
    "sessions": "tenant_sessions",
    "changes": "tenant_changes_total",
    "received": "tenant_received_bytes_total",
    "refused": "tenant_refusals_total",
}
