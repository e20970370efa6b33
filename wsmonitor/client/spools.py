"""All spools of this user: what lies there, delivering it, and removing it. Everything here blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from wsmonitor.protocol.changes import Change
from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.protocol.errors import WaitTimeoutError

from .spoolfile import DAMAGED, SUFFIX, Facts, SpoolDamagedError, SpoolError, SpoolFile, in_use, read_facts
from .types import PublicationListener

if TYPE_CHECKING:
    from .connection import Connection

AGE_LIMIT: Final = 30 * 86_400
"""Seconds for which a spool that was left behind is kept."""

_LOOK: Final = 0.5
_NANO: Final = 1_000_000_000

State = Literal["left", "in use", "damaged", "unreadable"]
"""left: by a process that has ended; in use: its process is still running; damaged: set aside."""


@dataclass(frozen=True, slots=True)
class Found:
    """One spool.

    Attributes:
        path: its file.
        facts: whose it is; None if that cannot be read.
        changes: how many changes wait in it, those that were dropped for want of room included.
        size: bytes of the files.
        problem: why it cannot be read.
    """

    path: Path
    state: State
    facts: Facts | None = None
    changes: int = 0
    size: int = 0
    problem: str = ""

    @property
    def id(self) -> str:
        """What it is called: the file's name without its end."""
        return self.path.name.split(".")[0]


def find(folder: Path) -> list[Found]:
    """The spools in *folder*, the oldest first. Those that were left behind empty are removed."""
    found: list[Found] = []
    for path in sorted(folder.glob(f"*{SUFFIX}*")) if folder.is_dir() else []:
        if path.name.endswith(DAMAGED):
            found.append(Found(path, "damaged", size=_size(path), problem="it was damaged, and set aside"))
        elif path.name.endswith(SUFFIX):
            one = look_at(path)
            if one.state == "left" and not one.changes and one.facts is not None:
                with contextlib.suppress(SpoolError):
                    SpoolFile.take(path).close(delete=True)
            else:
                found.append(one)
    return found


def look_at(path: Path) -> Found:
    """One spool, without touching it."""
    state: State = "in use" if in_use(path) else "left"
    size = _size(path)
    try:
        facts, changes, _ = read_facts(path)
    except SpoolDamagedError as exc:
        return Found(path, "damaged", size=size, problem=str(exc))
    except SpoolError as exc:
        return Found(path, "unreadable" if state == "left" else state, size=size, problem=str(exc))
    return Found(path, state, facts, changes, size)


def remove(path: Path) -> None:
    """Remove a spool, and what is in it, for good.

    Raises:
        SpoolInUseError: its process is still running.
        OSError: it cannot be removed.
    """
    if path.name.endswith(DAMAGED):
        for end in ("", "-wal", "-shm"):
            Path(f"{path}{end}").unlink(missing_ok=True)
        return
    try:
        SpoolFile.take(path).close(delete=True)
    except SpoolDamagedError:
        SpoolFile.take_damaged(path).close(delete=True)


def remove_expired(folder: Path, now_ns: int, limit: float = AGE_LIMIT) -> list[str]:
    """Remove what was left behind more than *limit* seconds ago; says in words what that was."""
    told: list[str] = []
    for one in find(folder):
        facts = one.facts
        if one.state != "left" or facts is None or now_ns - facts.created < limit * _NANO:
            continue
        with contextlib.suppress(SpoolError, OSError):
            remove(one.path)
            told.append(
                f"{one.changes:,} changes of {facts.session} were removed: left behind more than "
                f"{limit / 86_400:g} days ago"
            )
    return told


@dataclass(slots=True)
class Outcome:
    """What became of a spool.

    Attributes:
        delivered: how many changes the server has committed now that it had not before, or had: it counts.
        refused: how many of them it refused, finally.
        reasons: its words, each once, at most 10.
        left: how many are still in the spool.
        problem: why not all were delivered; "" if they were.
        code: of the problem, from the catalogue.
    """

    session: str
    delivered: int = 0
    refused: int = 0
    left: int = 0
    reasons: list[str] | None = None
    problem: str = ""
    code: str = ""


class _Listener(PublicationListener):
    def __init__(self) -> None:
        self.refused = 0
        self.reasons: dict[str, None] = {}
        self.fences = ""
        self.final: ErrorInfo | None = None
        self.trouble = ""

    def rejected(self, number: int, change: Change | None, error: ErrorInfo) -> None:
        if change is None and not error.retryable:
            self.final = error
        self.refused += change is not None
        if len(self.reasons) < 10:
            self.reasons[f"{error.message} [{error.code}]"] = None

    def fenced(self, *, removed: bool) -> None:
        self.fences = "the session was removed" if removed else "another process has taken the session over"

    def unkept(self, words: str) -> None:
        self.trouble = words


def flush(
    path: Path,
    connect: Callable[[Facts], Connection],
    *,
    patience: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Deliver what a process had left behind in the spool *path*, each change once.

    Args:
        connect: makes the connection to deliver it by.
        patience: seconds without any progress after which it is given up, for another time.
        progress: called now and then with how many changes of how many are delivered.

    Raises:
        SpoolInUseError: its process is still running: that will deliver it by itself.
        SpoolDamagedError: it was damaged; it is set aside.
        SpoolError: it cannot be read now.
        ConfigurationError: the address is wrong.
    """
    try:
        file = SpoolFile.take(path)
        rows = file.rows()
    except SpoolDamagedError as exc:
        aside = SpoolFile.take_damaged(path).set_aside()
        raise SpoolDamagedError(f"{exc}; it was set aside as {aside}") from exc
    facts = file.facts
    total = sum(1 for row in rows if not row.sha256)
    outcome = Outcome(facts.session)
    if not rows:
        file.close(delete=True)
        return outcome
    listener = _Listener()
    try:
        connection = connect(facts)
    except BaseException:
        file.close()
        raise
    with connection:
        if not facts.session_epoch and (taken := _held_by_another(connection, facts, patience)):
            file.close()
            return Outcome(facts.session, left=total, problem=taken, code="fenced")
        publication = connection.publish_kept(file, listener)
        left, still = total, 0.0
        while not publication.flush(_LOOK) and publication.stage not in ("fenced", "refused"):
            now = publication.unacknowledged
            still = 0.0 if now != left else still + _LOOK
            left = now
            progress(total - left, total)
            if still >= patience or connection.status.phase == "failed":
                break
        done = publication.stage not in ("fenced", "refused") and publication.unacknowledged == 0
        if done and facts.ended:
            # Its program had ended in order: without the goodbye it would be taken for lost.
            publication.close(patience)
        status = connection.status
        outcome.left = 0 if done else publication.unacknowledged
        publication.leave_kept(ended=facts.ended)
    progress(total - outcome.left, total)
    outcome.delivered = total - outcome.left
    outcome.refused, outcome.reasons = listener.refused, list(listener.reasons)
    if listener.fences:
        outcome.problem, outcome.code = listener.fences, "fenced"
    elif not done and listener.final is not None:
        outcome.problem, outcome.code = listener.final.message, listener.final.code
    elif not done:
        outcome.problem = status.reason or "the server does not answer"
        outcome.code = status.code or "connection_lost"
    return outcome


def _held_by_another(connection: Connection, facts: Facts, patience: float) -> str:
    """Why the producer must not be opened although this spool's process never held it; "" if it may be.

    A process that resumed a session may have been killed before it got through, and another may have
    resumed it since, and be at it.
    """
    with connection.subscribe(facts.session) as watching:
        try:
            watching.wait(lambda one: one.phase not in ("waiting", "syncing"), patience)
        except WaitTimeoutError:
            return ""  # the publication will find out why
        state = watching.state
        producer = None if state is None else state.producers.get(facts.producer)
        if producer is None or producer.closed or producer.liveness == "lost":
            return ""
        return f"another process publishes this session now: {producer.agent}"


def _size(path: Path) -> int:
    size = 0
    for end in ("", "-wal"):
        with contextlib.suppress(OSError):
            size += Path(f"{path}{end}").stat().st_size
    return size
