"""The client's connection as a sans-IO machine: no socket, no clock, no loop.

Theory
------
A link wants to be *live* from `start` until `close`. One attempt goes ``locating`` (where is the
server, and with which token) → ``connecting`` (TCP, TLS, WebSocket) → ``authenticating`` (``hello``
is sent, ``welcome`` is awaited) → ``live``. Whatever breaks leads to ``waiting``, and after the delay
of `Backoff` to the next attempt, for ever. Only what a repetition cannot mend (refused credentials,
another protocol version, a wrong address) leads to ``failed``; from there a person's `reconnect_now`
leads on. A failure of TLS is in between: a certificate can be renewed, but not by us, so it is tried again
at the longest delay.

Every attempt has a number. What the owner reports carries the number of the attempt it is about, and
a report about an earlier attempt is ignored: nothing of an old connection leaks into a new one.

Liveness. Both sides send heartbeats and any frame counts as life. No frame for the timeout:
the transport is aborted, not closed, because closing a half-open TCP connection can hang for minutes.
But a tick that comes late by more than an interval, or a wall clock that ran ahead of the
monotonic one, means that *we* slept: then a probe is sent, and only its silence counts.

Tokens. A renewable token is replaced in band after 80 % of its lifetime, by the wall clock.
After a refusal there is one attempt with a fresh token, then ``failed``: never a loop on 401.

`TRANSITIONS` is the whole machine. What is not in it raises `IllegalTransition` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import msgspec

from wsmonitor.protocol.close_codes import CloseCode, may_reconnect
from wsmonitor.protocol.defaults import PROTOCOL_MAJOR, PROTOCOL_MINOR, Timing
from wsmonitor.protocol.messages import (
    ClientMessage,
    Draining,
    Error,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Refresh,
    Refreshed,
    Welcome,
)

from .actions import Action, Disconnect, FetchToken, Locate, Open, Send
from .backoff import Backoff
from .clock import Instant
from .types import ConnectionStatus, Phase

TRANSITIONS: Final[dict[Phase, dict[str, Phase]]] = {
    "idle": {"start": "locating", "close": "closed"},
    "locating": {"located": "connecting", "broken": "waiting", "fatal": "failed", "close": "closed"},
    "connecting": {
        "opened": "authenticating",
        "broken": "waiting",
        "renew": "locating",
        "fatal": "failed",
        "close": "closed",
    },
    "authenticating": {
        "welcome": "live",
        "broken": "waiting",
        "renew": "locating",
        "fatal": "failed",
        "close": "closed",
    },
    "live": {"broken": "waiting", "fatal": "failed", "close": "closed"},
    "waiting": {"due": "locating", "close": "closed"},
    "failed": {"due": "locating", "close": "closed"},
    "closed": {},
}
"""Phase to input to the next phase."""

LOCATE_TIMEOUT: Final = 60.0
"""Seconds. Starting a local server on a loaded machine, or a token provider that asks a person's browser."""

REFRESH_AT: Final = 0.8
"""The part of a token's lifetime after which it is renewed."""

_REFRESH_PAUSE: Final = 1.0
"""Seconds between two requests for a token, at least, whatever the clocks say."""

ERROR_COUNTS_FOR: Final = 5.0
"""Seconds for which the server's last error is taken as the reason of a close that follows it."""

_OFFSET_SAMPLES: Final = 8


class IllegalTransition(RuntimeError):
    """The machine was given an input that its phase does not take. It is unchanged."""


class Link:
    """One connection to one server, over all its attempts.

    Args:
        emit: takes the actions that the owner is to carry out, in order.
        random: gives numbers in [0, 1), uniformly.
        next_request: gives request numbers that nobody else uses on this connection.
        hello: what to introduce oneself with.
        timing: the times that hold until ``welcome`` names the server's.
    """

    def __init__(
        self,
        emit: Callable[[Action], None],
        *,
        random: Callable[[], float],
        next_request: Callable[[], int],
        hello: Hello | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._emit = emit
        self._next_request = next_request
        self._hello = hello or Hello(major=PROTOCOL_MAJOR, minor=PROTOCOL_MINOR)
        self._timing = timing or Timing()
        self._backoff = Backoff(random)
        self.status = ConnectionStatus()
        self.attempt = 0  # number of the current attempt; never reused
        self.last_frame: float | None = None
        self._deadline: float | None = None  # of the phases before and after live
        self._fresh = False  # the next attempt needs a new token
        self._renewed = False  # a new token was already tried since the last welcome
        self._renewable = False
        self._reconnect_in: float | None = None  # what a draining server asked for
        self._spread = 0.0
        self._last_error: tuple[str, str] | None = None  # code and message of a connection-scoped error
        self._last_error_until = 0.0
        self._seen = Instant(0.0, 0.0)
        # While live:
        self._interval = self._timing.heartbeat_interval
        self._timeout = self._timing.heartbeat_timeout
        self._beat_at = 0.0
        self._beat = 0
        self._beats: dict[int, float] = {}  # number to when it was sent
        self._probe_until: float | None = None
        self._offsets: list[tuple[float, float]] = []  # (rtt, offset), the last few
        self._refresh_wall: float | None = None
        self._refresh_request: int | None = None
        self._lifetime = 0.0
        self._healthy_at: float | None = None

    # ------------------------------------------------------------------ the owner's wishes

    def start(self, now: Instant) -> None:
        """Begin to connect."""
        self._seen = now
        self._go("start", lost_at=now.mono)
        self._locate(now)

    def reconnect_now(self, now: Instant) -> None:
        """Do not wait any longer. Without effect unless the link is waiting or failed."""
        if self.status.phase not in ("waiting", "failed"):
            return
        if self.status.phase == "failed":
            self._fresh, self._renewed = True, False
        self._go("due", next_attempt_at=None)
        self._locate(now)

    def close(self, now: Instant) -> None:
        """End the link. Without effect when it is closed."""
        if self.status.phase == "closed":
            return
        had_transport = self.status.phase in ("connecting", "authenticating", "live")
        self._go("close", next_attempt_at=None, degraded=None, lost_at=self.status.lost_at or now.mono)
        self._deadline = None
        if had_transport:
            self._emit(Disconnect(self.attempt, CloseCode.NORMAL, "closed by the client", abort=False))

    def synced(self, now: Instant) -> None:
        """Everything that was asked for is in sync: after some time of this, delays start anew."""
        if self.status.phase == "live" and self._healthy_at is None:
            self._healthy_at = now.mono + self._timing.healthy_after

    # ------------------------------------------------------------------ reports from the owner

    def located(
        self,
        now: Instant,
        attempt: int,
        url: str,
        token: str,
        *,
        looked: tuple[str, ...] = (),
        renewable: bool = False,
    ) -> None:
        """The server's address and a token are known. ``renewable``: a fresh token can be had."""
        if self._stale(attempt, "locating"):
            return
        self._renewable = renewable
        self._fresh = False
        self._go("located", url=url, looked=looked)
        self._deadline = now.mono + self._timing.handshake_timeout
        self._emit(Open(attempt, url, token))

    def not_located(
        self, now: Instant, attempt: int, code: str, reason: str, *, looked: tuple[str, ...], fatal: bool
    ) -> None:
        """No server, or no token. ``fatal``: trying again cannot help."""
        if self._stale(attempt, "locating"):
            return
        if fatal:
            self._fail(now, code, reason, looked=looked)
        else:
            self._break(now, code, reason, looked=looked)

    def opened(self, now: Instant, attempt: int) -> None:
        """The WebSocket handshake is done."""
        if self._stale(attempt, "connecting"):
            return
        self._go("opened")
        self._last_error = None
        self.frame(now)
        self._deadline = now.mono + self._timing.handshake_timeout
        self._send(self._hello)

    def refused(self, now: Instant, attempt: int, status: int, code: str, reason: str) -> None:
        """The server answered the handshake with an HTTP status instead of the upgrade."""
        if self._stale(attempt, "connecting"):
            return
        if status in (401, 403):
            self._refuse(now, code or "unauthorized", reason)
        elif status in (400, 426) and code:
            # Our own server's word on our own request: the next one would be no different.
            self._fail(now, code, reason)
        else:
            self._break(now, code or "connection_lost", reason)

    def untrusted(self, now: Instant, attempt: int, reason: str) -> None:
        """TLS failed. A certificate can be renewed while we wait, but not by us: it is asked for rarely."""
        if not self._stale(attempt, "connecting"):
            self._break(now, "tls_failed", reason, delay=self._backoff.longest())

    def lost(self, now: Instant, attempt: int, code: int, reason: str) -> None:
        """The WebSocket is gone. *code* is the close code that came, 1006 if none did."""
        if self._stale(attempt, "connecting", "authenticating", "live"):
            return
        # An error of long ago was about something else.
        error = self._last_error if now.mono <= self._last_error_until else None
        word = error[0] if error else "connection_lost"
        text = error[1] if error else reason
        if code in (CloseCode.TOKEN_EXPIRED, CloseCode.UNAUTHORIZED):
            word = (
                error[0]
                if error
                else ("token_expired" if code == CloseCode.TOKEN_EXPIRED else "unauthorized")
            )
            self._refuse(now, word, text)
        elif may_reconnect(code):
            self._break(now, word, text)
        else:
            self._fail(now, word, text)

    def fault(self, now: Instant, attempt: int, reason: str) -> None:
        """The owner cannot go on with this attempt (a fault of the program): drop it and try again."""
        if self._stale(attempt, "locating", "connecting", "authenticating", "live"):
            return
        self._drop(now, "internal", reason)

    def token_fetched(self, now: Instant, attempt: int, token: str | None) -> None:
        """The fresh token that `FetchToken` asked for; None if the provider failed."""
        if self._stale(attempt, "live"):
            return
        if token is None:
            self._retry_refresh(now)
            return
        self._refresh_request = self._next_request()
        self._send(Refresh(request=self._refresh_request, token=token))

    # ------------------------------------------------------------------ frames and messages

    def frame(self, now: Instant) -> None:
        """Any frame arrived: the server lives."""
        self.last_frame = now.mono
        self._probe_until = None

    def welcome(self, now: Instant, message: Welcome) -> None:
        """The server let us in."""
        if self.status.phase != "authenticating":
            return
        if message.major != PROTOCOL_MAJOR:
            self._fail(
                now,
                "unsupported_version",
                f"the server speaks version {message.major}.{message.minor} of the protocol, "
                f"this program {PROTOCOL_MAJOR}.{PROTOCOL_MINOR}",
                disconnect=True,
            )
            return
        self._deadline = None
        self._renewed = False
        self._spread = message.spread
        self._reconnect_in = None
        self._interval = message.heartbeat_interval
        self._timeout = message.heartbeat_timeout
        self._beats.clear()
        self._offsets.clear()
        self._seen = now
        self._plan_refresh(now, message.expires, _seconds(message.time, now.wall))
        self._go(
            "welcome",
            welcome=message,
            lost_at=None,
            connected_at=now.mono,
            connections=self.status.connections + 1,
            heartbeat_due_at=now.mono + self._interval,
            next_attempt_at=None,
            code="",
            reason="",
            rtt=None,
            degraded=message.degraded,
        )
        self._heartbeat(now)

    def heartbeat(self, now: Instant, message: Heartbeat) -> None:
        """The server's heartbeat: answer it."""
        self._send(HeartbeatAck(n=message.n, time=_nanoseconds(now.wall)))
        self._set(heartbeat_due_at=now.mono + self._interval, degraded=message.degraded)

    def heartbeat_ack(self, now: Instant, message: HeartbeatAck) -> None:
        """The answer to ours: measure the round trip, and the offset of the clocks."""
        sent = self._beats.pop(message.n, None)
        if sent is None:
            return
        rtt = max(0.0, now.mono - sent)
        if message.time:
            theirs = _seconds(message.time, now.wall)
            self._offsets = [*self._offsets, (rtt, theirs + rtt / 2 - now.wall)][-_OFFSET_SAMPLES:]
        # The quickest of the last round trips bounds the error of the offset best (as NTP does).
        offset = min(self._offsets)[1] if self._offsets else self.status.clock_offset
        self._set(rtt=rtt, clock_offset=offset)

    def refreshed(self, now: Instant, message: Refreshed) -> None:
        """The new token is in force."""
        if message.request == self._refresh_request:
            self._refresh_request = None
            welcome = self.status.welcome
            assert welcome is not None  # only while live is anything asked for
            self._set(welcome=msgspec.structs.replace(welcome, expires=message.expires))
            server_now = now.wall + (self.status.clock_offset or 0.0)
            # After a jump of a clock the offset is known anew only after some beats, and till then a token
            # that has just been made may seem to be of the past.
            self._plan_refresh(now, message.expires, server_now, at_least=_REFRESH_PAUSE)

    def draining(self, now: Instant, message: Draining) -> None:
        """The server is stopping, and told each client when to come back."""
        self._reconnect_in = message.reconnect_ms / 1000
        self._last_error = ("draining", "the server is stopping")
        self._last_error_until = float("inf")

    def error(self, now: Instant, message: Error) -> bool:
        """An error about the connection, or about a refresh; False when it is somebody else's."""
        if message.request is not None:
            if message.request != self._refresh_request:
                return False
            self._refresh_request = None
            self._retry_refresh(now)
            return True
        self._last_error = (message.error.code, message.error.message)
        self._last_error_until = now.mono + ERROR_COUNTS_FOR
        return False

    # ------------------------------------------------------------------ time

    def next_deadline(self) -> float | None:
        """When `handle_timeout` must be called, in seconds of the monotonic clock; None for never."""
        if self.status.phase != "live":
            return self._deadline
        deadlines = [self._beat_at, self._dead_at()]
        if self._healthy_at is not None:
            deadlines.append(self._healthy_at)
        if self._refresh_wall is not None:
            # Set against the wall clock as it was last seen; each beat looks at it again.
            deadlines.append(self._seen.mono + max(0.0, self._refresh_wall - self._seen.wall))
        return min(deadlines)

    def handle_timeout(self, now: Instant) -> None:
        """Act on the deadlines that have passed."""
        phase = self.status.phase
        if phase == "live":
            self._tick(now)
        elif self._deadline is not None and now.mono >= self._deadline:
            if phase == "waiting":
                self._go("due", next_attempt_at=None)
                self._locate(now)
            elif phase == "locating":
                self._break(now, "connection_lost", f"no server was found within {LOCATE_TIMEOUT:g} s")
            else:
                what = "the WebSocket handshake" if phase == "connecting" else "the server's welcome"
                self._drop(
                    now, "connection_lost", f"{what} took longer than {self._timing.handshake_timeout:g} s"
                )
        self._seen = now

    def _tick(self, now: Instant) -> None:
        slept = (now.wall - self._seen.wall) - (now.mono - self._seen.mono) > 2 * self._interval
        late = now.mono - self._beat_at > self._interval
        if self._probe_until is None and (slept or late):
            self._probe_until = now.mono + min(self._interval, 5.0)
            self._heartbeat(now)
        elif now.mono >= self._dead_at():
            silence = now.mono - (self.last_frame if self.last_frame is not None else now.mono)
            self._drop(now, "connection_lost", f"nothing was heard from the server for {silence:.0f} s")
            return
        elif now.mono >= self._beat_at:
            self._heartbeat(now)
        if self._healthy_at is not None and now.mono >= self._healthy_at:
            self._healthy_at = None
            self._backoff.reset()
            self._set(attempt=0)
        if self._refresh_wall is not None and now.wall >= self._refresh_wall:
            self._refresh_wall = None
            self._emit(FetchToken(self.attempt))

    def _dead_at(self) -> float:
        if self._probe_until is not None:
            return self._probe_until
        heard = self.last_frame if self.last_frame is not None else self._seen.mono
        return heard + self._timeout

    def _heartbeat(self, now: Instant) -> None:
        self._beat += 1
        self._beats[self._beat] = now.mono
        while len(self._beats) > _OFFSET_SAMPLES:
            del self._beats[next(iter(self._beats))]
        self._beat_at = now.mono + self._interval
        self._send(Heartbeat(n=self._beat, time=_nanoseconds(now.wall)))

    def _plan_refresh(self, now: Instant, expires: int, server_now: float, *, at_least: float = 0.0) -> None:
        # Both times are the server's, so that an offset between the clocks does no harm.
        self._lifetime = max(0.0, expires - server_now)
        self._refresh_wall = (
            now.wall + max(at_least, REFRESH_AT * self._lifetime) if self._renewable else None
        )

    def _retry_refresh(self, now: Instant) -> None:
        self._refresh_wall = now.wall + max(_REFRESH_PAUSE, self._lifetime * (1 - REFRESH_AT) / 4)

    # ------------------------------------------------------------------ transitions

    def _go(self, event: str, **changes: object) -> None:
        phase = TRANSITIONS[self.status.phase].get(event)
        if phase is None:
            raise IllegalTransition(f"{event!r} does not fit a link that is {self.status.phase}")
        self.status = replace(self.status, phase=phase, **changes)  # type: ignore[arg-type]  # fields by name

    def _set(self, **changes: object) -> None:
        self.status = replace(self.status, **changes)  # type: ignore[arg-type]  # fields by name

    def _stale(self, attempt: int, *phases: Phase) -> bool:
        return attempt != self.attempt or self.status.phase not in phases

    def _locate(self, now: Instant) -> None:
        self.attempt += 1
        self._set(attempt=self.status.attempt + 1)
        self._deadline = now.mono + LOCATE_TIMEOUT
        self._emit(Locate(self.attempt, self._fresh))

    def _break(
        self,
        now: Instant,
        code: str,
        reason: str,
        *,
        looked: tuple[str, ...] | None = None,
        delay: float | None = None,
    ) -> None:
        """This attempt is over; another follows after *delay*, by default the usual one."""
        if delay is None:
            delay = self._backoff.next_delay(self._spread)
        if self._reconnect_in is not None:
            # The server has spread its clients itself.
            delay, self._reconnect_in = self._reconnect_in, None
        self._spread = 0.0
        self._deadline = now.mono + delay
        self._leave_live()
        self._go(
            "broken",
            code=code,
            reason=reason,
            next_attempt_at=self._deadline,
            lost_at=self.status.lost_at if self.status.lost_at is not None else now.mono,
            looked=self.status.looked if looked is None else looked,
            heartbeat_due_at=None,
            degraded=None,
        )

    def _drop(self, now: Instant, code: str, reason: str) -> None:
        attempt = self.attempt
        self._break(now, code, reason)
        self._emit(Disconnect(attempt, CloseCode.HEARTBEAT_TIMEOUT, reason, abort=True))

    def _fail(
        self,
        now: Instant,
        code: str,
        reason: str,
        *,
        looked: tuple[str, ...] | None = None,
        disconnect: bool = False,
    ) -> None:
        self._deadline = None
        self._leave_live()
        self._go(
            "fatal",
            code=code,
            reason=reason,
            next_attempt_at=None,
            lost_at=self.status.lost_at if self.status.lost_at is not None else now.mono,
            looked=self.status.looked if looked is None else looked,
            heartbeat_due_at=None,
            degraded=None,
        )
        if disconnect:
            self._emit(Disconnect(self.attempt, CloseCode.NORMAL, reason[:100], abort=False))

    def _refuse(self, now: Instant, code: str, reason: str) -> None:
        """The token was refused: one attempt with a fresh one, then stop (rule 13)."""
        if not self._renewable or self._renewed:
            self._fail(now, code, reason)
            return
        self._fresh = self._renewed = True
        if self.status.phase == "live":
            # It was good until now, so the usual delay holds: a server that lets us in and
            # throws us out at once must not be hammered.
            self._renewed = False
            self._break(now, code, reason)
        else:
            self._go("renew", code=code, reason=reason)
            self._locate(now)

    def _leave_live(self) -> None:
        self._healthy_at = None
        self._refresh_wall = None
        self._refresh_request = None
        self._probe_until = None

    def _send(self, message: ClientMessage) -> None:
        self._emit(Send(message))


def _seconds(nanoseconds: str, default: float) -> float:
    return int(nanoseconds) / 1e9 if nanoseconds.isdecimal() else default


def _nanoseconds(seconds: float) -> str:
    return str(int(seconds * 1e9))
