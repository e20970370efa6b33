"""What the log says of each connection, and the ids by which it is found again.

Whoever is refused is told a correlation id, ``SERVER-CONNECTION-NUMBER``: the server's instance (its first
eight digits), the connection's id in its log, and which of that connection's refusals it was. The same stands
in the log's line. Nobody can fill the log: of each connection, and of strangers together, so many lines are
written in a time, and the next one says how many were left out.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

from wsmonitor.protocol.entities import ErrorInfo

from .clock import Clock
from .logs import fields
from .quota import Quota

if TYPE_CHECKING:
    from .connection import Connection
    from .peer import Peer

_LOG: Final = logging.getLogger("wsmonitor_server.connection")

RATE: Final = 1.0
BURST: Final = 20
"""Lines about one connection's requests, per second and at once."""

STRANGERS_RATE: Final = 10.0
STRANGERS_BURST: Final = 100
"""Lines about handshakes that were refused, per second and at once: of all together."""


class _Notes:
    """Of one connection."""

    __slots__ = ("number", "quota")

    def __init__(self, now: float) -> None:
        self.number = 0
        self.quota = Quota(RATE, BURST, now)


class Journal:
    """See the module's text.

    Args:
        instance: the server's.
        counters: where left-out lines are counted.
    """

    def __init__(self, instance: str, clock: Clock, counters: Counter[str]) -> None:
        self._server = instance[:8]
        self._clock = clock
        self._counters = counters
        self._strangers = Quota(STRANGERS_RATE, STRANGERS_BURST, clock.monotonic())
        self._notes: dict[str, _Notes] = {}

    def __len__(self) -> int:
        """Of how many connections there are notes."""
        return len(self._notes)

    def _of(self, peer: Peer) -> _Notes:
        notes = self._notes.get(peer.ident)
        if notes is None:
            notes = _Notes(self._clock.monotonic())
            if peer.phase != "closed":  # else nobody would take it away
                self._notes[peer.ident] = notes
        return notes

    def _next(self, ident: str, notes: _Notes) -> str:
        notes.number += 1
        return f"{self._server}-{ident}-{notes.number}"

    def _write(self, quota: Quota, event: str, **values: object) -> None:
        left_out = quota.take(self._clock.monotonic())
        if left_out is None:
            self._counters["log_lines_suppressed_total"] += 1
        else:
            _LOG.info(event, extra=fields(**values, left_out=left_out or None))

    # -- a connection's requests

    def refused(self, peer: Peer, info: ErrorInfo, request: int | None) -> str:
        """A request of *peer*, or what it sent, was refused: the correlation id that it is told."""
        notes = self._of(peer)
        correlation = self._next(peer.ident, notes)
        self._write(
            notes.quota,
            "refused",
            **who(peer),
            correlation=correlation,
            code=info.code,
            reason=info.message,
            session=info.session,
            producer=info.details.get("producer"),
            topic=info.details.get("topic"),
            request=request,
        )
        return correlation

    def done(self, peer: Peer, event: str, **values: object) -> None:
        """Something was done for *peer* that somebody may ask about later."""
        self._write(self._of(peer).quota, event, **who(peer), **values)

    def fault(self, peer: Peer, what: str) -> str:
        """Log the current exception, whatever the quota; returns the correlation id."""
        correlation = self._next(peer.ident, self._of(peer))
        _LOG.exception("a request failed", extra=fields(**who(peer), request=what, correlation=correlation))
        return correlation

    def closed(self, ident: str) -> int:
        """The connection is gone: how many lines about it were left out since the last one."""
        notes = self._notes.pop(ident, None)
        return 0 if notes is None else notes.quota.left_out

    # -- strangers

    def turned_away(self, connection: Connection, info: ErrorInfo, status: int) -> str:
        """A handshake, or another request over HTTP, was refused: the correlation id."""
        correlation = f"{self._server}-{connection.ident}"
        self.stranger(
            "request refused",
            connection,
            correlation=correlation,
            status=status,
            code=info.code,
            reason=info.message,
        )
        return correlation

    def stranger(self, event: str, connection: Connection, **values: object) -> None:
        """Something happened with a connection that has not got in."""
        where: dict[str, object] = {"connection": connection.ident, "remote": connection.remote}
        if connection.known is not None:
            claims = connection.known.claims
            where |= {"subject": claims.sub, "tenant": claims.tenant}
        self._write(self._strangers, event, **where, **values)


def who(peer: Peer) -> dict[str, object]:
    """The ids by which all lines about one connection are found."""
    claims, hello = peer.credential.claims, peer.hello
    return {
        "connection": peer.ident,
        "subject": claims.sub,
        "tenant": claims.tenant,
        "client": "" if hello is None else hello.instance,
    }
