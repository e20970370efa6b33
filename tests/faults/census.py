"""What a process holds: memory, threads, files, sockets, objects, and the entries of all its containers."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_CONTAINERS: Final = (dict, list, set, deque, OrderedDict)
_OURS: Final = ("wsmonitor", "asyncio", "_asyncio", "socket", "threading", "websockets", "ipywidgets", "comm")


def resident() -> int:
    """Bytes of memory that the process has in use (resident, without what it shares with files)."""
    fields = Path("/proc/self/statm").read_text("ascii").split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


class Census:
    """Counts on demand; what was wrong meanwhile (asyncio's debug mode, the log, destructors) is kept.

    Args:
        loop: the loop whose tasks and timers are counted; none in a program whose loops come and go.
    """

    def __init__(self, loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        self.wrong: list[str] = []
        self._loop = loop
        handler = _Keep(self.wrong)
        logging.getLogger().addHandler(handler)
        sys.unraisablehook = lambda fault: self.wrong.append(f"{fault.err_msg}: {fault.exc_value!r}")
        threading.excepthook = lambda fault: self.wrong.append(f"thread {fault.thread}: {fault.exc_value!r}")

    def take(self) -> dict[str, Any]:
        """The figures of this moment."""
        for _ in range(3):
            gc.collect()
        objects: Counter[str] = Counter()
        entries = callbacks = 0
        for one in gc.get_objects():
            kind = type(one)
            if kind in _CONTAINERS:
                entries += len(one)
            elif kind.__name__ in ("function", "method", "builtin_function_or_method", "cell", "partial"):
                callbacks += 1
            elif str(kind.__module__).partition(".")[0] in _OURS:
                objects[f"{kind.__module__}.{kind.__qualname__}"] += 1
        scheduled: list[Any] = [] if self._loop is None else self._loop()._scheduled  # type: ignore[attr-defined]
        objects.pop("asyncio.events.TimerHandle", None)
        figures: dict[str, Any] = {
            "memory": resident(),
            "threads": threading.active_count(),
            "files": sum(1 for _ in Path("/proc/self/fd").iterdir()),
            # What was cancelled stays among the timers for a while: asyncio's own matter.
            "entries": entries - len(scheduled),
            "callbacks": callbacks,
            "objects": dict(objects),
            "wrong": list(self.wrong),
        }
        if self._loop is not None:
            figures["tasks"] = len(asyncio.all_tasks(self._loop()))
            figures["timers"] = sum(not timer.cancelled() for timer in scheduled)
        return figures


class _Keep(logging.Handler):
    def __init__(self, wrong: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._wrong = wrong

    def emit(self, record: logging.LogRecord) -> None:
        words = f"{record.name}: {record.getMessage()}"
        if not words.startswith("asyncio: Executing"):  # it took long: a slow machine is no fault
            self._wrong.append(words)


def grown(before: dict[str, Any], after: dict[str, Any]) -> dict[str, int]:
    """By how much each figure has grown; objects only where they have."""
    figures = {
        name: after[name] - before[name]
        for name in before
        if isinstance(before[name], int) and not isinstance(before[name], bool)
    }
    for kind, count in after["objects"].items():
        if (more := count - before["objects"].get(kind, 0)) > 0:
            figures[kind] = more
    return figures
