"""The reckoning: what was acknowledged against what is there, and against what observers were told."""

from __future__ import annotations

import json
import shutil
import sqlite3
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from wsmonitor.protocol.reducer import SessionState, decode_entity

from .watching import Watch, numbers_of


@dataclass(frozen=True, slots=True)
class Ledger:
    """A producer's account: the last change it was going to submit, and the last that was acknowledged."""

    submitted: int
    acked: int

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """The last line of either kind that is complete."""
        last = {"s": 0, "a": 0}
        text = path.read_text("ascii") if path.exists() else ""
        for line in text[: text.rfind("\n") + 1].splitlines():
            last[line[0]] = int(line[2:])
        return cls(last["s"], last["a"])


@dataclass(frozen=True, slots=True)
class Stored:
    """What a database file has of a session."""

    head: int
    epoch: str
    state: SessionState
    whole: str  # what SQLite's integrity check says


def stored(database: Path, session: str) -> Stored:
    """Read a *copy* of the database as it lies there: the file itself is left as the dead server left it."""
    with tempfile.TemporaryDirectory(prefix="wsmonitor-faults-") as folder:
        copy = Path(folder) / database.name
        for suffix in ("", "-wal"):
            source = database.with_name(database.name + suffix)
            if source.exists():
                shutil.copy(source, copy.with_name(copy.name + suffix))
        connection = sqlite3.connect(copy)
        try:
            whole = connection.execute("PRAGMA integrity_check").fetchone()[0]
            row = connection.execute("SELECT head, epoch FROM sessions WHERE id = ?", (session,)).fetchone()
            head, epoch = row or (0, "")
            rows = connection.execute("SELECT kind, data FROM entities WHERE session = ?", (session,))
            found = [(kind, decode_entity(kind, data)) for kind, data in rows]
        finally:
            connection.close()
    entities = [(kind, entity) for kind, entity in found if entity is not None]
    return Stored(head, epoch, SessionState.restore(session, epoch, head, entities), whole)


@dataclass(slots=True)
class Figures:
    """What a run of one kind of fault gave.

    Attributes:
        rounds: how many faults there were.
        acknowledged: changes that were acknowledged, in all.
        told: events that observers were told of, in all.
        lost: acknowledged changes that an observer was not told of, or that the file does not have.
        twice: events or changes that an observer was told of more than once.
        regressions: anything that went back for an observer: seq, a step's number, an epoch without a word.
        disagreements: observers, or the file, with another digest in the end.
        times: what was timed, in seconds.
        notes: each violation in words.
    """

    kind: str
    rounds: int = 0
    acknowledged: int = 0
    told: int = 0
    lost: int = 0
    twice: int = 0
    regressions: int = 0
    disagreements: int = 0
    times: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def time(self, what: str, seconds: float) -> None:
        self.times.setdefault(what, []).append(seconds)

    def check_stored(
        self, database: Path, watches: Iterable[Watch], ledgers: dict[str, dict[str, Path]]
    ) -> None:
        """After a kill, before the next start: the file has all that anybody was told or acknowledged.

        Args:
            ledgers: session to producer to account.
        """
        for session, accounts in ledgers.items():
            kept = stored(database, session)
            if kept.whole != "ok":
                self._note("lost", f"the database is damaged: {kept.whole}")
            for watch in watches:
                if watch.session == session and watch.seen > kept.head:
                    self._note("lost", f"{watch.name} was told of {watch.seen}, the file has {kept.head}")
            numbers = numbers_of(kept.state)
            for producer, path in accounts.items():
                acked = Ledger.read(path).acked
                there = max((n for key, n in numbers.items() if key.startswith(f"{producer}:")), default=0)
                if there < acked:
                    self._note("lost", f"{producer}: {acked} was acknowledged, the file has {there}")

    def judge(self, watch: Watch, ledgers: dict[str, Sequence[Path]], *, killed: bool = False) -> None:
        """At the end: everything acknowledged was told to *watch*, each event once, in order.

        Args:
            ledgers: producer to the accounts of its runs, in order.
            killed: whether producers were killed: what such a run had not been acknowledged may be missing.
        """
        self.told += len(watch.told)
        for words in watch.broken:
            self._note("regressions", f"{watch.name}: {words}")
        for words in (*watch.resets, *map(str, watch.gaps)):
            self._note("regressions", f"{watch.name}: reset or gap: {words}")
        seqs = [one.seq for one in watch.told]
        for before, after in pairwise(seqs):
            if after != before + 1:
                kind = "twice" if after <= before else "lost"
                self._note(kind, f"{watch.name} was told of {after} after {before}")
        for producer, paths in ledgers.items():
            heard = Counter(one.number for one in watch.told if one.producer == producer)
            for number, count in heard.items():
                if count > 1:
                    self._note(
                        "twice", f"{watch.name} was told {count} times of {producer}'s change {number}"
                    )
            for path, first in zip(paths, _firsts(paths), strict=True):
                ledger = Ledger.read(path)
                until = ledger.acked if killed else max(ledger.acked, ledger.submitted)
                missing = [n for n in range(first, until + 1) if n not in heard]
                if missing:
                    self.lost += len(missing) - 1
                    self._note(
                        "lost", f"{watch.name} was not told of {producer}'s {missing[0]} … {missing[-1]}"
                    )

    def check_crashed(self, watch: Watch, gone: Sequence[str]) -> None:
        """The chains of the producers in *gone* have crashed for *watch*, and no others (no false crash)."""
        for name, chain in watch.snapshot().chains.items():
            if (chain.state == "crashed") != (name in gone):
                self._note("regressions", f"{watch.name}: {name} is {chain.state}")

    def agree(self, watches: Sequence[Watch], kept: dict[str, Stored]) -> None:
        """At the end: all observers of a session have the digest that the file has."""
        for watch in watches:
            state, file = watch.snapshot(), kept[watch.session]
            if (state.seq, state.epoch, state.digest) != (file.head, file.epoch, file.state.digest):
                self._note(
                    "disagreements",
                    f"{watch.name} is at {state.epoch}:{state.seq} {state.digest}, "
                    f"the file at {file.epoch}:{file.head} {file.state.digest}",
                )

    def _note(self, kind: str, words: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        self.notes.append(f"{kind}: {words}")

    @property
    def violations(self) -> int:
        return self.lost + self.twice + self.regressions + self.disagreements

    def row(self) -> dict[str, Any]:
        """For the table."""
        row: dict[str, Any] = {
            "fault": self.kind,
            "rounds": self.rounds,
            "acknowledged": f"{self.acknowledged:,}",
            "told": f"{self.told:,}",
            "lost": self.lost,
            "twice": self.twice,
            "regressions": self.regressions,
            "digests that differ": self.disagreements,
        }
        words = []
        for what, times in self.times.items():
            cuts = statistics.quantiles(times, n=100, method="inclusive") if len(times) > 1 else times * 99
            words.append(f"{what}: p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s")
        row["times"] = "; ".join(words)
        return row

    def summary(self) -> str:
        """For people who look for what went wrong."""
        return json.dumps(self.row()) + "".join("\n  " + note for note in self.notes[:20])


def _firsts(paths: Sequence[Path]) -> list[int]:
    """The first number of each run: behind what the run before was going to submit."""
    firsts, behind = [], 0
    for path in paths:
        firsts.append(behind + 1)
        behind = max(behind, Ledger.read(path).submitted)
    return firsts
