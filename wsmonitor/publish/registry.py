"""The sessions that this process has open: superseding, forks, and what happens at exit."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .channel import Channel
    from .session import Session

EXIT_SECONDS: Final = 0.65
"""How long exit waits for what is on its way; HARMLESS promises one second, and the disk and the connections
need their parts (`keeper.DISK_TIMEOUT`, `runner.EXIT_TIMEOUT`)."""

_lock = threading.Lock()
_open: dict[int, Session] = {}
_finishing: dict[int, Channel] = {}
_free: dict[tuple[str, str], list[str]] = {}
"""Worker ids, by address and session, that this process has used and said goodbye with."""
_prepared = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a session was begun, as far as it matters for superseding."""

    url: str
    name: str
    thread: int
    task: int
    cell: int | None  # the notebook's execution count; None outside


def here(url: str, name: str) -> Place:
    """The place of the calling code."""
    task = 0
    with contextlib.suppress(RuntimeError):  # no loop runs in this thread
        task = id(asyncio.current_task())
    return Place(url, name, threading.get_ident(), task, _cell())


def _cell() -> int | None:
    module = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return None if shell is None else int(shell.execution_count)


def supersede(session: Session, wanted: bool | None) -> None:
    """End the open runs that *session* takes the place of: of the same name, or resumed by it."""
    with _lock:
        resumed = [old for old in _open.values() if old.id == session.id]
    for old in resumed:
        old._taken_over()
    new = session._place
    if wanted is False or new is None:
        return
    with _lock:
        others = list(_open.values())
    for old in others:
        place = old._place
        if place is None or old._joined or (place.url, place.name) != (new.url, new.name):
            continue
        # A block that this code stands in is no earlier run: who nests two of one name means both.
        same = (place.thread, place.task) == (new.thread, new.task) and place.cell is None and not old._tokens
        # A re-run cell is in another execution; sessions that one cell opens side by side are meant so.
        rerun = place.cell is not None and place.cell != new.cell
        if wanted or same or rerun:
            old._superseded()


def add(session: Session) -> None:
    """*session* is open."""
    _prepare()
    with _lock:
        _open[id(session)] = session


def discard(session: Session) -> None:
    """*session* has ended; its channel may still have something to send."""
    channel = session._run.channel
    with _lock:
        _open.pop(id(session), None)
        _finishing[id(channel)] = channel
    channel.closed = _closed


def _closed(channel: Channel) -> None:
    with _lock:
        _finishing.pop(id(channel), None)


def worker_id(url: str, session: str, random_bits: Callable[[int], int]) -> str:
    """A producer id for a worker of *session*: one that this process has done with, or a new one.

    A pool's worker may join for each of its tasks; a session has only so many producers.
    """
    with _lock:
        free = _free.get((url, session))
        if free:
            return free.pop()
    return f"w-{random_bits(48):012x}"


def done_with(url: str, session: str, worker: str) -> None:
    """*worker* has said goodbye, and left nothing: its id may be used again."""
    with _lock:
        _free.setdefault((url, session), []).append(worker)


def _prepare() -> None:
    global _prepared
    with _lock:
        if _prepared:
            return
        _prepared = True
    # After the client's own hook was registered, so that ours runs before it closes the connections.
    atexit.register(_at_exit)
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        # Those of its children that a fork server made leave by os._exit, like forked ones.
        flush_at_worker_exit()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork, after_in_parent=_has_forked)


def flush_at_worker_exit() -> None:
    """A forked worker of `multiprocessing` leaves by ``os._exit``: only its own finalizers run."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _at_exit, exitpriority=10)


def _has_forked() -> None:
    for session in list(_open.values()):
        session._guard(session._expect_workers)


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _finishing.clear()
    _free.clear()
    for session in list(_open.values()):
        session._forked()


def _at_exit() -> None:
    """End what is open, give what is left a moment, and say what did not get through."""
    with _lock:
        sessions = list(_open.values())
    failed = getattr(sys, "last_value", None)
    for session in sessions:
        if failed is not None:
            session.end("failed", "the program failed", error=failed)
        else:
            session.end("cancelled", "the program exited before the session ended")
    with _lock:
        channels = list(_finishing.values())
        _finishing.clear()
    deadline = time.monotonic() + EXIT_SECONDS
    left: list[Channel] = []
    for channel in channels:
        # Without the goodbye the server would have to take the silence that follows for a loss.
        if not channel.leave(max(0.0, deadline - time.monotonic())):
            left.append(channel)
    text = what_is_left(left)
    if text:
        # The program is ending: there is no other place to say it.
        print(text, file=sys.stderr)  # noqa: T201


def what_is_left(channels: list[Channel]) -> str:
    """What of *channels* had not reached the server, where it is, and what delivers it; "" if all had."""
    kept: dict[str, int] = {}
    lost: dict[str, int] = {}
    for channel in channels:
        left = channel.left
        if left is not None and left.path is not None:
            folder = str(left.path.parent)
            kept[folder] = kept.get(folder, 0) + left.changes
        else:
            problem = "" if left is None else left.problem
            count = channel.unacknowledged if left is None else left.changes
            lost[problem] = lost.get(problem, 0) + count
    count = sum(kept.values()) + sum(lost.values())
    if not count:
        return ""
    why = dict.fromkeys(channel.trouble for channel in channels if channel.trouble)
    reasons = f": {'; '.join(why)}" if why else ""
    lines = [f"wsmonitor: {_changes(count)} had not reached the server when the program ended{reasons}"]
    for folder, number in kept.items():
        lines.append(f"  {_changes(number)} kept in {folder}; `wsmonitor spool flush` delivers them")
    for problem, number in lost.items():
        if number and (kept or problem):
            lines.append(f"  {_changes(number)} lost{problem and f': {problem}'}")
    return "\n".join(lines)


def _changes(count: int) -> str:
    return f"{count:,} change{'' if count == 1 else 's'}"
