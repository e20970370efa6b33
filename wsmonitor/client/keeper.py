"""Keeping on disk what waits to be published, while it cannot be delivered.

One keeper per publication. As long as the server acknowledges, nothing is written. Once there is no link, or
nothing has been acknowledged for `PATIENCE`, everything that waits goes to a `SpoolFile`, and what comes
later too, until all of it is delivered; then the file is removed. A process that is killed meanwhile leaves
its file behind, for ``wsmonitor spool flush``.

`look` and what it starts live on the runner's thread; the writing is done on threads of their own.
`finish` may be called from any thread, and writes there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wsmonitor.host import data_dir

from .spoolfile import SUFFIX, Facts, SpoolDamagedError, SpoolError, SpoolFile

if TYPE_CHECKING:
    from .driver import Lasting
    from .publication import PublicationMachine
    from .shared import SharedConnection

PATIENCE: Final = 1.0
"""Seconds without an acknowledgement, after which what waits is written to disk although there is a link."""

GATHER: Final = 0.02
"""Seconds between two writes."""

RETRY: Final = 5.0
"""Seconds after which a disk that took nothing is tried again."""

DISK_TIMEOUT: Final = 0.15
"""Seconds that the end of a program waits for a write that is under way."""

FOLDER_SIZE: Final = 2 * 1024 * 1024 * 1024
"""Bytes of all spools of a user together; beyond, no new one is begun."""


def spool_folder() -> Path:
    """Where this user's spools are: ``$WSMONITOR_HOME/spool``, or in Jupyter's data directory."""
    return data_dir() / "spool"


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left when a publication ends.

    Attributes:
        changes: how many changes were not acknowledged.
        path: where they are kept; None if they are not.
        problem: why they are not kept; "" if they are.
    """

    changes: int
    path: Path | None = None
    problem: str = ""


class Keeper:
    """Keeps one publication's spool.

    Args:
        machine: whose spool.
        shared: its connection: lock, runner, link.
        place: where the server is, for the file.
        trouble: called on the runner's thread, with words for people, when something cannot be kept.
        file: what an earlier process had left, and this one goes on with.
        folder: where spools are made.
    """

    def __init__(
        self,
        machine: PublicationMachine,
        shared: SharedConnection,
        place: Lasting,
        trouble: Callable[[str], None],
        *,
        file: SpoolFile | None = None,
        folder: Callable[[], Path] = spool_folder,
    ) -> None:
        self._machine = machine
        self._shared = shared
        self._place = place
        self._trouble = trouble
        self._file = file
        self._folder = folder
        self._io = threading.Lock()  # taking orders and carrying them out is one thing
        self._task: asyncio.Task[None] | None = None
        self._cancel_timer: Callable[[], None] | None = None
        self._front: tuple[float, int] = (0.0, 0)  # since when, and which ticket is the oldest
        self._told = ""
        self._closed = False

    # -- on the runner's thread

    def look(self) -> None:
        """Something may have changed: write what is to be written."""
        if self._closed:
            return
        spool = self._machine.spool
        with self._shared.lock:
            fenced = self._machine.stage == "fenced"
            if not fenced and (spool.kept or self._due()):
                spool.keep()
            over = self._file is not None and (fenced or not spool.kept)
            busy = bool(spool.orders or spool.wanted or over)
            waits = not spool.kept and not self._machine.empty and not fenced
        if busy and self._task is None:
            self._task = self._shared.runner.loop.create_task(self._work())
            self._task.add_done_callback(self._worked)
        if waits and self._cancel_timer is None:
            self._cancel_timer = self._shared.runner.call_later(PATIENCE, self._look_again)

    def _look_again(self) -> None:
        self._cancel_timer = None
        self.look()

    def _due(self) -> bool:
        """Whether what waits has waited for too long."""
        oldest = self._machine.spool.entries[0].ticket if self._machine.spool.entries else 0
        now = self._shared.runner.now().mono
        if oldest != self._front[1]:
            self._front = (now, oldest)
        if not oldest or self._machine.empty:
            return False
        phase = self._shared.core.link.status.phase
        return phase in ("waiting", "failed") or now - self._front[0] >= PATIENCE

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._tell(f"the spool failed: {type(error).__name__}: {error}")
            return
        # Between the task's last look and this call, something may have been wanted.
        self.look()

    async def _work(self) -> None:
        runner, spool = self._shared.runner, self._machine.spool
        while not self._closed:
            try:
                more = await runner.in_thread(self._store, "wsmonitor-spool")
            except SpoolDamagedError as exc:
                self._give_up(exc)
                return
            except SpoolError as exc:
                self._tell(str(exc))
                with self._shared.lock:
                    spool.keeping = False
                self._go_on_without()
                await asyncio.sleep(RETRY)
                continue
            self._told = ""
            self._shared.driver.input(lambda now: self._machine.pump(now.mono))
            with self._shared.lock:
                if spool.kept:
                    spool.keep()
            if not more and not spool.orders and spool.wanted is None:
                return
            await asyncio.sleep(GATHER)

    def _tell(self, words: str) -> None:
        if words != self._told:
            self._told = words
            self._trouble(words)

    def _go_on_without(self) -> None:
        """The disk takes nothing while the server is there: if all is in memory too, do without the file."""
        spool = self._machine.spool
        with self._shared.lock:
            if not spool.holding or spool.away:
                return
            spool.unkeep()
        file, self._file = self._file, None
        if file is not None:
            file.close(delete=True)
        self._shared.driver.input(lambda now: self._machine.pump(now.mono))

    def _give_up(self, error: SpoolDamagedError) -> None:
        file, self._file = self._file, None
        aside = "" if file is None else f"; it was set aside as {file.set_aside()}"
        with self._shared.lock:
            lost = self._machine.spool.unkeep()
        words = f"; {lost:,} changes that were only there are lost" if lost else ""
        self._tell(f"{error}{aside}{words}")
        self._shared.driver.input(lambda now: self._machine.pump(now.mono))

    # -- on threads that may wait

    def _store(self) -> bool:
        """Carry out the orders, and fetch what is wanted; whether there was anything to do."""
        spool = self._machine.spool
        with self._io:
            if self._closed:
                return False
            with self._shared.lock:
                orders = spool.take_orders()
                wanted = spool.wanted
                idle = not spool.kept or self._machine.stage == "fenced"
            if idle:
                # All is delivered, or never will be.
                file, self._file = self._file, None
                if file is not None:
                    file.close(delete=True)
                with self._shared.lock:
                    spool.done(orders)
                    spool.keeping = False
                    spool.wanted = None
                return False
            try:
                if orders:
                    self._open().carry_out(orders)
            except BaseException:
                with self._shared.lock:
                    spool.orders[:0] = orders
                raise
            with self._shared.lock:
                spool.done(orders)
            if wanted is None:
                return bool(orders)
            found = self._open().fetch(wanted.pos)
            with self._shared.lock:
                spool.loaded(found)
            return True

    def _open(self) -> SpoolFile:
        if self._file is None:
            folder = self._folder()
            size = _size_of(folder)
            if size > FOLDER_SIZE:
                raise SpoolError(
                    f"nothing more is kept on disk: the spools in {folder} have {size:,} bytes already; see "
                    "`wsmonitor spool`"
                )
            from .spools import remove_expired

            for words in remove_expired(folder, time.time_ns()):
                self._trouble(words)
            machine = self._machine
            name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
            self._file = SpoolFile.create(
                folder / name,
                Facts(
                    session=machine.session,
                    producer=machine.producer,
                    holder=machine.holder,
                    agent=machine.agent,
                    url=self._place.url,
                    ca=self._place.ca,
                    insecure=self._place.insecure,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    created=time.time_ns(),
                    producer_epoch=machine.producer_epoch,
                    session_epoch=machine.session_epoch,
                    accepted=machine.spool.accepted,
                ),
            )
        return self._file

    def finish(self, *, ended: bool) -> Kept:
        """The publication ends: keep what is left, on the calling thread.

        Args:
            ended: whether the program ended in order, so that its producer is to say goodbye.
        """
        machine, spool = self._machine, self._machine.spool
        self._closed = True
        if self._cancel_timer is not None:
            self._cancel_timer()
        if not self._io.acquire(timeout=DISK_TIMEOUT):
            return Kept(spool.pending, problem="the disk does not answer")
        try:
            with self._shared.lock:
                left, fenced = spool.pending, machine.stage == "fenced"
                over = fenced or machine.empty
                if not over:
                    spool.keep()
                orders = spool.take_orders()
            file = self._file
            if over:
                if file is not None:
                    file.close(delete=True)
                return Kept(left, problem="another process has taken over" if fenced else "")
            try:
                file = self._open()
                file.carry_out(orders)
                file.say(ended=ended, dropped=spool.dropped)
            except SpoolError as exc:
                return Kept(left, problem=str(exc))
            finally:
                if file is not None:
                    file.close()
            return Kept(left, file.path)
        finally:
            self._io.release()


def _size_of(folder: Path) -> int:
    size = 0
    with contextlib.suppress(OSError), os.scandir(folder) as found:
        for one in found:
            with contextlib.suppress(OSError):
                size += one.stat().st_size
    return size
