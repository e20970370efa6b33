"""What outlasts a process: the store's data, as a crash and as the loss of power leave it.

Two kinds: `KeptStore` is the memory store, kept between processes (fast, and it can take back its last
commits as the loss of power does); or the real `SqliteStore` on a real file. Both go through the same faults.
"""

from __future__ import annotations

import copy
import shutil
import sqlite3
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.stores import reading
from wsmonitor_server.stores.base import Commit, Store, StoredSession, StoreError
from wsmonitor_server.stores.blobs import MemoryBlobs
from wsmonitor_server.stores.memory import MemoryStore
from wsmonitor_server.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from .world import Process, World


class Faults:
    """What the disk does wrong, at the moment."""

    def __init__(self) -> None:
        self.full = False  # nothing can be written, and that is known
        self.torn = 0  # so many next commits end with an error of which nobody knows whether it was written
        self.slow = 0.0  # seconds more for each commit


class Witness(Protocol):
    """Who is told what has become durable, at that moment."""

    def committed(self, commits: Sequence[Commit]) -> None: ...
    def removed(self, session: str) -> None: ...


class Disk(Protocol):
    """A computer's disk, with one server's data on it."""

    faults: Faults
    shared: bool
    """Whether others use it, too."""

    def store(self, process: Process) -> Store:
        """The store, as a new process finds it."""

    def crashed(self) -> None:
        """The process that had it open is dead."""

    def lost_power(self) -> None:
        """The computer is without power: what was not synced is gone."""

    def states(self, sessions: Sequence[str]) -> dict[str, SessionState]:
        """What is there of *sessions*, read without any server."""

    def discard(self) -> None:
        """The run is over."""


class KeptDisk:
    """Memory that outlasts the process.

    Args:
        power: whether this run loses power: only then copies are kept of what has reached the platter.
    """

    shared = False

    def __init__(self, world: World, witness: Witness, *, power: bool) -> None:
        self.faults = Faults()
        self._world = world
        self.witness = witness
        self._blobs = MemoryBlobs(lambda: world.now)
        self._kept = MemoryStore(token_hex=self._hex, blobs=self._blobs)
        self._power = power
        self._synced: MemoryStore | None = self._copy() if power else None

    def _hex(self, count: int) -> str:
        return f"{self._world.random.getrandbits(8 * count):0{2 * count}x}"

    def _copy(self) -> MemoryStore:
        kept = self._kept
        blobs, kept._blobs = kept._blobs, None  # type: ignore[assignment]  # its clock cannot be copied
        try:
            copied = copy.deepcopy(kept)
        finally:
            kept._blobs = blobs
        copied._blobs = blobs
        return copied

    def store(self, process: Process) -> Store:
        return KeptStore(self, process)

    def write(self, commits: Sequence[Commit], work: Callable[[], None]) -> None:
        """Apply *work*, which is *commits*; now and then it also reaches the platter."""
        work()
        self.witness.committed(commits)
        if self._power and self._world.random.random() < 0.1:
            self.sync()

    def sync(self) -> None:
        """Everything so far has reached the platter."""
        if self._power:
            self._synced = self._copy()

    def crashed(self) -> None:
        """What was committed is in the operating system's hands."""

    def lost_power(self) -> None:
        assert self._synced is not None
        self._kept = self._synced
        # Rule 21: opened after an unclean stop under another boot id, it is another epoch.
        self._kept.epoch = self._hex(8)
        for kept in self._kept._sessions.values():
            kept.epoch = self._kept.epoch
            kept.events.clear()
        self._synced = self._copy()

    def states(self, sessions: Sequence[str]) -> dict[str, SessionState]:
        found = {session: at_once(self._kept.load(session)) for session in sessions}
        return {session: stored.state for session, stored in found.items() if stored is not None}

    def discard(self) -> None:
        """Nothing is on a real disk."""


class KeptStore:
    """One process's view of a `KeptDisk`: the memory store's methods, late and with faults."""

    def __init__(self, disk: KeptDisk, process: Process) -> None:
        self._disk = disk
        self._process = process

    @property
    def epoch(self) -> str:
        return self._disk._kept.epoch

    def info(self) -> dict[str, str | int]:
        return self._disk._kept.info()

    async def commit(self, commits: Sequence[Commit]) -> None:
        disk = self._disk
        await self._late(disk.faults.slow)
        if disk.faults.full:
            raise StoreError("the disk is full", outcome_known=True)
        torn = disk.faults.torn > 0
        if torn:
            disk.faults.torn -= 1
            if disk._world.random.random() < 0.5:
                raise StoreError("an error of the disk while committing", outcome_known=False)
        if self._process.effect():
            # The memory store's own commit has no wait in it: it happens at once.
            coroutine = disk._kept.commit(commits)
            disk.write(commits, lambda: at_once(coroutine))
        await self._late(0.0)
        if torn:
            raise StoreError("an error of the disk after committing", outcome_known=False)

    async def _late(self, more: float) -> None:
        loop, random = self._process.loop, self._disk._world.random
        future = loop.create_future()
        loop.call_later(random.uniform(0.0, 0.002) + more, future.set_result, None)
        await future

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._disk._kept, name)
        writes = name in _WRITES

        async def call(*args: Any, **kwargs: Any) -> Any:
            if writes and not self._process.effect():
                await self._process.loop.create_future()
            if writes and self._disk.faults.full and name != "close":
                raise StoreError("the disk is full", outcome_known=True)
            result = await method(*args, **kwargs)
            if name == "remove":
                self._disk.witness.removed(args[0])
            if name in _SYNCED:
                self._disk.sync()
            return result

        return call


_WRITES = frozenset(
    {"next_run", "remove", "value_begin", "value_write", "value_sweep", "revoke", "forget_revocations"}
)


_SYNCED = frozenset({"remove", "revoke"})
"""What the store says only when it is on the platter."""


def at_once(coroutine: Any) -> Any:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the memory store waits")


def _whole(parts: Generator[None, None, StoredSession | None]) -> StoredSession | None:
    """What *parts* returns at its end."""
    while True:
        try:
            next(parts)
        except StopIteration as end:
            return cast("StoredSession | None", end.value)


class SqliteDisk:
    """A real SQLite file."""

    shared = False

    def __init__(self, world: World, witness: Witness, folder: Path, *, power: bool) -> None:
        self.faults = Faults()
        self._world = world
        self.witness = witness
        self._folder = folder
        self._boot = 1
        self.power = power
        self._synced: Path | None = None
        self._blobs = MemoryBlobs(lambda: world.now)
        self._open: SqliteStore | None = None

    def _hex(self, count: int) -> str:
        return f"{self._world.random.getrandbits(8 * count):0{2 * count}x}"

    @property
    def path(self) -> Path:
        return self._folder / "wsmonitor.sqlite3"

    def store(self, process: Process) -> Store:
        disk, world = self, self._world

        class Watched(SqliteStore):
            """The real store; what is committed is told, and a dead process writes nothing."""

            committing: Sequence[Commit] = ()

            async def commit(self, commits: Sequence[Commit]) -> None:
                if disk.faults.slow:
                    future = process.loop.create_future()
                    process.loop.call_later(disk.faults.slow, future.set_result, None)
                    await future
                self.committing = commits
                try:
                    await super().commit(commits)
                finally:
                    self.committing = ()

            async def remove(self, session: str, *, at: int) -> None:
                await super().remove(session, at=at)
                disk.witness.removed(session)
                disk.sync(self)

            async def revoke(self, jti: str, expires: int) -> None:
                await super().revoke(jti, expires)
                disk.sync(self)

            def _transaction(self, work: Any, *unwritten: Any) -> Any:
                process.effect()
                # Of all transactions, only a commit says how to find out whether it was written.
                commits = self.committing if unwritten else ()
                faults = disk.faults
                if faults.full:
                    raise StoreError("the disk is full", outcome_known=True)
                torn = bool(commits) and faults.torn > 0
                if torn:
                    faults.torn -= 1
                    if world.random.random() < 0.5:
                        raise StoreError("an error of the disk while committing", outcome_known=False)
                result = super()._transaction(work, *unwritten)
                if commits:
                    disk.witness.committed(commits)
                    if world.random.random() < 0.1:
                        disk.sync(self)
                if torn:
                    raise StoreError("an error of the disk after committing", outcome_known=False)
                return result

        self._open = Watched(
            self.path,
            token_hex=self._hex,
            blobs=self._blobs,
            boot_id=f"boot {self._boot}",
            mounts="",
        )
        return self._open

    def sync(self, store: SqliteStore) -> None:
        """Everything so far has reached the platter."""
        if not self.power:
            return
        target = self._folder / "synced.sqlite3"
        copied = sqlite3.connect(target)
        store._db.backup(copied)
        copied.close()
        self._synced = target

    def _close(self) -> None:
        # A dead process's lock and files are released by the system; here that is done by hand.
        if self._open is not None and self._open._connection is not None:
            connection = self._open._connection
            self._open._connection = None
            connection.close()
        self._open = None

    def states(self, sessions: Sequence[str]) -> dict[str, SessionState]:
        # A process of its own opens it for a moment, and writes nothing.
        reader = SqliteStore(
            self.path, token_hex=self._hex, blobs=self._blobs, boot_id=f"boot {self._boot}", mounts=""
        )
        try:
            reader._open()
            found = {
                session: _whole(reading.session(reader._db, self.path, session, new_epoch=reader.epoch))
                for session in sessions
            }
        finally:
            if reader._connection is not None:
                reader._connection.close()
        return {session: stored.state for session, stored in found.items() if stored is not None}

    def crashed(self) -> None:
        self._close()

    def lost_power(self) -> None:
        self._close()
        self._boot += 1
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        if self._synced is not None:
            shutil.copy(self._synced, self.path)

    def discard(self) -> None:
        self._close()
