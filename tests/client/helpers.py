"""What the client's tests share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from wsmonitor.client.spool import Spool
from wsmonitor.client.types import ConnectionStatus, PublicationListener, Update
from wsmonitor.protocol.changes import Change
from wsmonitor.protocol.entities import Command, ErrorInfo


def eventually(condition: Callable[[], Any], timeout: float = 10.0, what: str = "") -> Any:
    """Wait until *condition* gives something true, and give that."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, what or "the condition was not reached"
        pause.wait(0.005)


class Updates(list[Update]):
    """A listener that keeps what it was told."""

    def __call__(self, update: Update) -> None:
        self.append(update)

    def of(self, *kinds: type) -> list[Any]:
        return [update for update in self if isinstance(update, kinds)]


class Owner(PublicationListener):
    """A publication's listener that keeps what it was told."""

    def __init__(self) -> None:
        self.openings: list[tuple[str, bool]] = []
        self.acks: list[int] = []
        self.rejections: list[tuple[int, Change | None, ErrorInfo]] = []
        self.overflows: list[int] = []
        self.drains: list[int] = []
        self.commands: list[Command] = []
        self.fences = 0
        self.phases: list[str] = []

    def opened(self, epoch: str, known: bool) -> None:
        self.openings.append((epoch, known))

    def acknowledged(self, number: int) -> None:
        self.acks.append(number)

    def rejected(self, number: int, change: Change | None, error: ErrorInfo) -> None:
        self.rejections.append((number, change, error))

    def overflowed(self, count: int) -> None:
        self.overflows.append(count)

    def drained(self, dropped: int) -> None:
        self.drains.append(dropped)

    def command(self, command: Command) -> None:
        self.commands.append(command)

    def fenced(self, *, removed: bool) -> None:
        self.fences += 1

    def status(self, status: ConnectionStatus) -> None:
        self.phases.append(status.phase)


def adds_up(spool: Spool) -> None:
    """What a spool has counted while entries came and went is what it holds."""
    held = [*spool.entries, *(spool._front or [])]
    counted = [entry for entry in held if entry.counted]
    loaded = [entry for entry in counted if entry.data is not None]
    assert (spool._changes, spool._size) == (len(counted), sum(entry.size for entry in counted))
    assert (spool._loaded, spool._loaded_size) == (len(loaded), sum(entry.size for entry in loaded))
    assert spool._values_size == sum(entry.size for entry in held if entry.is_value)
    assert spool.pending == sum(not entry.is_value and not entry.skipped for entry in held)
    assert spool.kept == sum(entry.pos > 0 for entry in held)
    assert all(entry.data is None or len(entry.data) == entry.size for entry in held)
    assert 0 <= spool.sent <= len(spool.entries)
