"""Processes on cores of their own, and what they used."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any


@cache
def cores() -> tuple[int, int] | None:
    """Two cores, the server's and the generator's; None where the system has one only, or cannot tell."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else None


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Processes started by this thread within the block run on *core* alone; None: anywhere."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def start_on(core: int | None, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """Start *command* on *core* alone, in text mode; *options* are those of `subprocess.Popen`."""
    # Not longer than for the start: whatever this thread starts next is to have its own core.
    with on_core(core):
        return subprocess.Popen(command, text=True, **options)


class Others:
    """How much of the two cores everybody else had since this was made.

    Args:
        pids: the processes that are not others.
    """

    def __init__(self, *pids: int) -> None:
        self._pids = pids
        self._begin = time.monotonic()
        self._used = self._now()

    def share(self) -> float:
        """Of both cores, 0 to 1; 0 where it cannot be told."""
        took = time.monotonic() - self._begin
        return max(0.0, self._now() - self._used) / (2 * took) if cores() and took else 0.0

    def _now(self) -> float:
        pair = cores() or ()
        names = {f"cpu{core}" for core in pair}
        busy = 0
        for line in Path("/proc/stat").read_text("ascii").splitlines() if pair else ():
            name, *fields = line.split()
            if name in names:
                # user, nice, system, and then after idle and waiting: interrupts, and what a host took
                busy += sum(map(int, fields[:3])) + sum(map(int, fields[5:8]))
        return busy / os.sysconf("SC_CLK_TCK") - sum(cpu(pid) for pid in self._pids if pid and pair)


def memory(pid: int) -> int:
    """Bytes of memory that the process has in use (its resident set, without what it shares with files)."""
    fields = Path(f"/proc/{pid}/statm").read_text("ascii").split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


def cpu_exactly(pid: int) -> float:
    """Processor seconds of the process' threads so far, to the microsecond, where the kernel keeps such
    accounts (Linux' schedstat); else as `cpu` has it."""
    try:
        files = [task / "schedstat" for task in Path(f"/proc/{pid}/task").iterdir()]
        return sum(int(file.read_text("ascii").split()[0]) for file in files) / 1e9
    except (OSError, IndexError):
        return cpu(pid)


def cpu(pid: int) -> float:
    """Processor seconds of the process so far, its own and the kernel's for it."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
