"""A stand-in for the client layer, with a clock of its own."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import threading
from collections.abc import Callable
from typing import Any

import msgspec

import wsmonitor as wm
from wsmonitor.client.types import ConnectionStatus, PublicationListener, Target
from wsmonitor.protocol.changes import (
    ChainChange,
    Change,
    CommandChange,
    LogChange,
    ProblemChange,
    SessionChange,
    StepChange,
)
from wsmonitor.protocol.entities import Command
from wsmonitor.publish.run import Runtime


class FakePublication:
    """Keeps what was submitted; acknowledges when told to."""

    def __init__(self, producer: str, listener: PublicationListener) -> None:
        self.producer = producer
        self.listener = listener
        self.changes: list[Change] = []
        self.values: dict[str, bytes] = {}
        self.room: int | None = None  # how many more changes fit; None for any
        self.acknowledged = 0
        self.closed = False
        self.left = None
        self.records_answers = True  # whether an acceptance is acknowledged by itself
        self.recording: list[threading.Thread] = []
        self.submitted = threading.Condition()

    @property
    def unacknowledged(self) -> int:
        return len(self.changes) - self.acknowledged

    def submit(self, change: Change) -> int | None:
        # What is published must be sendable: the codec has the last word.
        msgspec.json.decode(msgspec.json.encode(change), type=Change)
        if self.room is not None:
            if self.room == 0:
                return None
            self.room -= 1
        with self.submitted:
            self.changes.append(change)
            self.submitted.notify_all()
        if isinstance(change, CommandChange) and change.state == "accepted" and self.records_answers:
            # As from a server: later, and on another thread than the one that submits.
            recording = threading.Thread(target=self.listener.acknowledged, args=(len(self.changes),))
            self.recording.append(recording)
            recording.start()
        return len(self.changes)

    def submit_value(self, data: bytes, sha256: str) -> bool:
        assert hashlib.sha256(data).hexdigest() == sha256
        self.values[sha256] = data
        return True

    def flush(self, timeout: float) -> bool:
        return self.unacknowledged == 0

    def close(self, timeout: float) -> bool:
        self.closed = True
        return self.unacknowledged == 0

    def acknowledge(self) -> None:
        """The server has committed everything."""
        self.acknowledged = len(self.changes)
        self.listener.acknowledged(self.acknowledged)


class Fake:
    """Clock, randomness and connections of one test."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.publications: list[FakePublication] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.soon: list[Callable[[], None]] = []
        self.targets: list[Target] = []
        self.handles_closed = 0
        self._random = itertools.count(1)
        self._commands = itertools.count(1)
        self.runtime = Runtime(
            connect=self._connect,
            monotonic=lambda: self.now,
            wall_ns=lambda: int(self.now * 1e9),
            random_bits=lambda bits: next(self._random),
        )

    # -- what the SDK uses

    def _connect(self, target: Target) -> FakeConnection:
        self.targets.append(target)
        return FakeConnection(self)

    # -- what tests use

    def session(self, name: str = "work", **options: Any) -> wm.Session:
        """A session over this fake."""
        return wm.session(name, runtime=self.runtime, **options)

    @property
    def publication(self) -> FakePublication:
        """The last publication."""
        return self.publications[-1]

    @property
    def changes(self) -> list[Change]:
        """What the last publication was given."""
        return self.publication.changes

    def advance(self, seconds: float) -> None:
        """Let time pass, and timers fire."""
        end = self.now + seconds
        while True:
            due = [timer for timer in self.timers if timer[0] <= end]
            if not due:
                break
            timer = min(due, key=lambda item: item[0])
            self.timers.remove(timer)
            self.now = max(self.now, timer[0])
            timer[1]()
        self.now = end

    def close(self, timeout: float = 0.0) -> None:
        """Confirm what is left, so that nothing waits for the end of the test run."""
        for publication in self.publications:
            publication.room = None
            publication.acknowledge()
        self.run_soon()

    def run_soon(self) -> None:
        """Run what was given to the connection's thread."""
        while self.soon:
            self.soon.pop(0)()

    def wait(self, condition: Callable[[], bool], what: str = "") -> None:
        """Wait until *condition* holds, looking after each change of the last publication."""
        submitted = self.publication.submitted
        with submitted:
            assert submitted.wait_for(condition, 10), what or "it did not happen in time"

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let other tasks run until *condition* holds."""
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - what is waited for is another task's doing
                await asyncio.sleep(0)

    def command(self, name: str, *, chain: str = "", step: str = "", **args: Any) -> str:
        """Deliver a command to the session's owner; its id."""
        ident = f"{next(self._commands):032x}"
        owner = next(item for item in self.publications if item.producer == "main")
        owner.listener.command(
            Command(
                id=ident,
                name=name,
                chain=chain,
                step=step,
                args=args,
                actor="alice",
                deadline="0",
                requested="0",
            )
        )
        for recording in owner.recording:
            recording.join(10)
        return ident

    def answers(self, ident: str) -> list[tuple[str, str]]:
        """What became of a command: states and reasons, in order."""
        return [
            (change.state, change.reason)
            for publication in self.publications
            for change in publication.changes
            if isinstance(change, CommandChange) and change.id == ident
        ]

    def states(self, ident: str) -> list[str]:
        """The states that were published of one entity, in order."""
        found = []
        for change in self.about(ident):
            if isinstance(change.state, str):
                found.append(change.state)
        return found

    def about(self, ident: str) -> list[SessionChange | ChainChange | StepChange]:
        """The changes of one session, chain or step, in order."""
        found: list[SessionChange | ChainChange | StepChange] = []
        for change in self.changes:
            match change:
                case ChainChange() | StepChange() if change.id == ident:
                    found.append(change)
                case SessionChange() if "~" in ident:
                    found.append(change)
        return found

    def entity(self, ident: str) -> dict[str, Any]:
        """All fields of one entity, the last of each."""
        fields: dict[str, Any] = {}
        for change in self.about(ident):
            for field in change.__struct_fields__:
                value = getattr(change, field)
                if value is not msgspec.UNSET:
                    fields[field] = value
        return fields

    def steps(self) -> dict[str, dict[str, Any]]:
        """Steps by name (the last of a name)."""
        idents = dict.fromkeys(change.id for change in self.changes if isinstance(change, StepChange))
        entities = [self.entity(ident) for ident in idents]
        return {entity["name"]: entity for entity in entities}

    def logs(self, ident: str) -> list[str]:
        """The log lines of one step."""
        return [
            record.text
            for change in self.changes
            if isinstance(change, LogChange) and change.step == ident
            for record in change.records
        ]

    def problems(self) -> list[ProblemChange]:
        """The errors of the session that were published."""
        return [change for change in self.changes if isinstance(change, ProblemChange)]


class FakeConnection:
    """A handle on nothing."""

    def __init__(self, world: Fake) -> None:
        self._world = world
        self.status = ConnectionStatus(phase="live")

    def publication(
        self,
        session: str,
        producer: str,
        listener: PublicationListener,
        *,
        agent: str = "",
        keep: bool = False,
    ) -> FakePublication:
        publication = FakePublication(producer, listener)
        self._world.publications.append(publication)
        return publication

    def call_soon(self, fn: Callable[[], None], /) -> bool:
        self._world.soon.append(fn)
        return True

    def call_later(self, delay: float, fn: Callable[[], None], /) -> Callable[[], None]:
        entry = (self._world.now + delay, fn)
        self._world.timers.append(entry)
        return lambda: self._world.timers.remove(entry) if entry in self._world.timers else None

    def close(self, timeout: float = 0.0) -> None:
        self._world.handles_closed += 1
