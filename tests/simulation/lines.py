"""What the oracle remembers: of each session what was committed, of each subscription what was told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wsmonitor.protocol.messages import Event
from wsmonitor.protocol.reducer import SessionState

if TYPE_CHECKING:
    from .actors import Observer


@dataclass
class Line:
    """What is committed of one session."""

    state: SessionState
    events: dict[tuple[str, int], Event] = field(default_factory=dict)
    digests: dict[tuple[str, int], str] = field(default_factory=dict)
    times: dict[tuple[str, int], float] = field(default_factory=dict)  # of the events
    marks: dict[tuple[str, str], float] = field(default_factory=dict)  # (producer, step) to its newest mark
    present: set[tuple[str, float]] = field(default_factory=set)  # (step, mark) that some event carried
    logs: Counter[str] = field(default_factory=Counter)  # (text of a log line) to how often it was committed
    removed: float | None = None  # when it was removed; it may have begun anew since
    epochs: dict[str, float] = field(default_factory=dict)  # to when each ended; 0 while it goes on

    def opens(self, epoch: str, seq: int, digest: str) -> bool:
        """Whether *epoch* may begin with this state: it was committed in another, nothing in this one yet.

        A server that loads a session anew names a fresh epoch at once, and makes it last with the next
        commit: what it shows until then is the committed state all the same. By the time an observer
        has it, there may have been that commit.
        """
        known = [
            (named, at) for (named, at), kept in self.digests.items() if named == epoch or kept == digest
        ]
        return any(named != epoch and at == seq for named, at in known) and not any(
            named == epoch and at <= seq for named, at in known
        )

    def record(self) -> None:
        self.epochs.setdefault(self.state.epoch, 0.0)
        self.digests[self.state.epoch, self.state.seq] = self.state.digest


@dataclass
class Seen:
    """What one subscription was told."""

    who: str
    topic: str
    delivery: str
    epoch: str = ""
    told: int = -1  # up to which seq everything was accounted for; -1 before the first sync
    observer: Observer | None = None
    events: int = 0
    closed: bool = False
