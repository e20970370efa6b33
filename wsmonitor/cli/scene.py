"""What the terminal view shows, at one moment. Pure: the two clocks are read by the caller.

Two links are told apart: ours to the server, and the producer's. Whatever is not known to be
current is said to be so: `Scene.current` decides the tense, the timers and the colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from wsmonitor.client.types import ConnectionStatus, SubscriptionPhase
from wsmonitor.export.outline import Row, Trouble, outline, present, troubles
from wsmonitor.export.words import NANO, Tone, age
from wsmonitor.protocol.defaults import Timing
from wsmonitor.protocol.entities import Producer
from wsmonitor.protocol.messages import Degraded
from wsmonitor.protocol.reducer import SessionState
from wsmonitor.protocol.states import TERMINAL


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of the event log. ``at`` is nanoseconds UTC; ``where`` is the emphasised part."""

    at: int
    tone: Tone
    where: str
    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A state with what is derived from it: made once per change, not once per frame."""

    state: SessionState
    rows: list[Row]
    troubles: list[Trouble]

    @classmethod
    def of(cls, state: SessionState) -> Picture:
        rows = outline(state)
        return cls(state, rows, troubles(state, rows))


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything one frame is drawn from.

    Attributes:
        target: what the user asked to see.
        picture: the replica's copy; None while nothing was ever received.
        status: how our link is.
        phase: how the subscription is; None while there is none.
        reason: why the subscription is in that phase.
        watching: how many watch, as the server last told; 0 if it has not.
        log: the newest line last.
        now: seconds of the monotonic clock.
        wall: nanoseconds UTC of this machine's clock.
    """

    target: str
    picture: Picture | None
    status: ConnectionStatus
    phase: SubscriptionPhase | None
    now: float
    wall: int
    reason: str = ""
    watching: int = 0
    log: Sequence[LogLine] = field(default=())

    @property
    def quiet_for(self) -> float:
        """Seconds by which the server's heartbeat is overdue; 0 while it is not, or without a link."""
        due = self.status.heartbeat_due_at
        return max(0.0, self.now - due) if self.status.live and due is not None else 0.0

    @property
    def known(self) -> bool:
        """Whether what is shown is what the server says now."""
        welcome = self.status.welcome
        patience = welcome.quiet_after if welcome is not None else Timing().quiet_after
        heard = self.status.live and self.phase in ("live", "absent") and self.quiet_for <= patience
        return heard and self.stalled is None

    @property
    def stalled(self) -> Degraded | None:
        """Why the server takes no changes; None while it does, and where none are to come."""
        state = self.picture.state if self.picture is not None else None
        over = state is not None and state.session is not None and state.session.state in TERMINAL
        return None if over or not self.status.live else self.status.degraded

    @property
    def data_age(self) -> float | None:
        """Seconds since the server was last heard, or took changes; None if it never was heard."""
        if self.stalled is not None and self.stalled.since.isdecimal():
            now = self.wall + int((self.status.clock_offset or 0.0) * NANO)
            return max(0.0, (now - int(self.stalled.since)) / NANO)
        return self.now - self.status.last_frame_at if self.status.last_frame_at is not None else None

    @property
    def as_of(self) -> int:
        """The server's time up to which this is known, nanoseconds: it stands still when the link does."""
        if self.stalled is not None and self.stalled.since.isdecimal():
            return int(self.stalled.since)
        frozen = 0.0 if self.known or self.data_age is None else self.data_age
        return self.wall + int(((self.status.clock_offset or 0.0) - frozen) * NANO)

    @property
    def _present(self) -> tuple[bool, int]:
        state = self.picture.state if self.picture is not None else None
        session, producers = (state.session, state.producers.values()) if state is not None else (None, ())
        return present(session, producers, self.as_of, live=self.known)

    @property
    def current(self) -> bool:
        """Whether what is said to go on does so now: the server is heard, and so are the producers."""
        return self._present[0]

    @property
    def until(self) -> int:
        """The server's time up to which it is known what goes on, nanoseconds."""
        return self._present[1]

    @property
    def headline(self) -> tuple[str, Tone, str]:
        """Icon, tone and words for the state of our own link."""
        status = self.status
        if status.phase == "live":
            if self.phase == "not_available":
                return "✕", "bad", "Not available"
            if self.stalled is not None and self.phase in ("live", "absent"):
                return "◐", "wait", "The server takes no changes"
            if not self.known and self.phase in ("live", "absent"):
                return "◐", "wait", f"No data for {age(self.data_age or 0)}"
            if self.phase in ("live", "absent"):
                return "●", "good", "Live"
            return "◐", "wait", "Syncing"
        if status.phase == "waiting":
            left = max(0.0, (status.next_attempt_at or self.now) - self.now)
            word = "Reconnecting" if status.connections else "Looking for the server"
            return "◐", "wait", f"{word}: attempt {status.attempt + 1} in {left:.0f} s"
        if status.phase == "failed":
            return "✕", "bad", "Not connected"
        words = {
            "idle": "Not connected",
            "locating": "Looking for the server",
            "connecting": "Connecting",
            "authenticating": "Connecting",
            "closed": "Closed",
        }
        return "◐", "wait", words[status.phase]

    @property
    def why(self) -> str:
        """Why what is shown is not known to be current, in words; "" when it is."""
        status = self.status
        if status.phase == "live":
            if self.phase == "not_available":
                return self.reason or "there is no such session, or not for this token"
            if self.phase == "syncing":
                return "receiving the full state; what is shown is the last verified one"
            if self.stalled is not None:
                return f"{self.stalled.reason} [{self.stalled.code}]; what programs report waits with them"
            return "" if self.known else "the server's heartbeat is overdue"
        told = status.reason
        if status.code:
            told = f"{told} [{status.code}]" if told else f"[{status.code}]"
        if status.phase == "failed":
            return f"{told}; it will not be tried again by itself" if told else "it will not be tried again"
        if not status.connections and status.looked and status.phase in ("waiting", "locating"):
            looked = "looked at " + "; ".join(status.looked)
            return f"{told}; {looked}" if told else looked
        return told

    @property
    def producer_words(self) -> tuple[str, Tone]:
        """How the producers are heard, worst first, in words."""
        if not self.known:
            return "producer: not known", "wait"
        if self.picture is None:
            return "producer: none yet", "idle"
        producers = list(self.picture.state.producers.values())
        awake = [producer for producer in producers if not producer.closed]
        if not producers:
            return "producer: none yet", "idle"
        if not awake:
            return "producer finished", "idle"
        worst: Producer = max(awake, key=lambda p: ("live", "stale", "lost").index(p.liveness))
        label = "producer" if len(awake) == 1 else f"{len(awake)} producers"
        if worst.liveness == "live":
            return f"♥ {label}", "good"
        since = age(max(0.0, (self.as_of - int(worst.since)) / NANO))
        word = "silent" if worst.liveness == "stale" else "lost"
        return f"♡ {label} {word} for {since}", "wait" if worst.liveness == "stale" else "bad"
