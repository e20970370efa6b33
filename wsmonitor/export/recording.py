"""A recorded notebook, read from a session's state: which cells ran, in which order, with what.

A recording is a session of the kind ``notebook``; each execution of a cell is a step of the kind ``cell``
(see docs/how-to/record-and-restore.md). The state holds the records; what is larger than a record may be
(long sources, most outputs) is a value, which the caller fetches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Final, TypeAlias

from wsmonitor.protocol.entities import Attributes, LogRecord, Step, Value
from wsmonitor.protocol.errors import NotRecordedError
from wsmonitor.protocol.reducer import SessionState
from wsmonitor.protocol.states import TERMINAL

from .outputs import MIME

SESSION_KIND: Final = "notebook"
CELL_KIND: Final = "cell"
OUTPUTS: Final = MIME
"""The type of a cell's output: ``{"outputs": [nbformat 4 outputs], "dropped": {what: count}}``."""

Fetch: TypeAlias = Callable[[str, int], bytes | None]
"""Gives the bytes of a value by its SHA-256 and size; None if it is no longer kept."""

Logs: TypeAlias = Callable[[str, int], Sequence[LogRecord]]
"""Gives the log lines that are kept of a step, by its id and how many it wrote, oldest first."""

_OWN_MAGIC: Final = re.compile(r"\s*%(?:load_ext\s+wsmonitor\b|wsmonitor\s+(?:record|restore)\b)")


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a cell.

    Attributes:
        step: the step's id.
        cell_id: the cell's id in its notebook; "" where the front-end told none.
        count: the execution count, the number in ``[ ]``; None where it is not known.
        source: what ran, with secrets taken out.
        output: what came out; None while there is nothing.
        log_count: how many log lines the server was given.
        state: the step's state.
        reason: why it is in this state.
        cut: whether its kernel was lost while it ran.
    """

    step: str
    cell_id: str
    count: int | None
    source: Value | None
    output: Value | None
    log_count: int
    state: str
    reason: str
    started: str
    ended: str
    cut: bool = False

    @property
    def open(self) -> bool:
        """Whether it still runs, as far as is known."""
        return self.state not in TERMINAL and not self.cut


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded notebook.

    Attributes:
        session: the session's id.
        name: the session's name.
        run: 1 for the first recording of this name …
        state: the session's state.
        path: the notebook's path as the recorder knew it; "" if it did not.
        runs: the executions, in the order in which they began.
        subjects: whose tokens wrote it.
        kernel: the kernel's name for a notebook's metadata; "" if the recorder told none.
        language: the same for the language.
        began: when the recording began, nanoseconds.
    """

    session: str
    name: str
    run: int
    state: str
    path: str
    runs: tuple[Run, ...]
    subjects: tuple[str, ...]
    kernel: str
    language: str
    began: str

    @property
    def file_name(self) -> str:
        """The notebook's file name without folder and ending; the session's name where it is not known."""
        return stem(self.path) or self.name

    def worth_restoring(self) -> bool:
        """Whether more was recorded than the cells that began the recording, or asked for an old one."""
        return any(run.source is None or not is_own_magic(run.source.text) for run in self.runs)


def stem(path: str) -> str:
    """The file name of a notebook's path, of any system, without its ending."""
    name = PureWindowsPath(path).name if "\\" in path else PurePosixPath(path).name
    return name.removesuffix(".ipynb")


def is_own_magic(source: str) -> bool:
    """Whether a cell does nothing but load the extension, record or restore."""
    lines = [line for line in source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return bool(lines) and all(_OWN_MAGIC.match(line) for line in lines)


def recording_of(state: SessionState) -> Recording:
    """The recording that *state* holds.

    Raises:
        NotRecordedError: the session is not there, or is no recorded notebook.
    """
    session = state.session
    if session is None:
        raise NotRecordedError(f"there is no session {state.topic!r}")
    cells = [step for step in state.steps.values() if step.kind == CELL_KIND]
    if session.kind != SESSION_KIND and not cells:
        raise NotRecordedError(
            f"session {session.id!r} is no recorded notebook"
            + (f" (it is of the kind {session.kind!r})" if session.kind else "")
            + ": only what %wsmonitor record has recorded has cells and their outputs"
        )
    attributes = dict(session.attributes)
    chain = next((chain for chain in state.chains.values() if chain.kind == SESSION_KIND), None)
    if chain is not None:
        attributes = {**chain.attributes, **attributes}
    # A kernel that died says nothing of it: the server waits some minutes before it calls its cells crashed.
    heard = any(one.liveness == "live" and not one.closed for one in state.producers.values())
    runs = tuple(run_of(step, heard) for step in sorted(cells, key=_began))
    paths = [_text(attributes, "notebook")]
    paths += [_text(step.attributes, "notebook") for step in cells]
    return Recording(
        session=session.id,
        name=session.name,
        run=session.run,
        state=session.state,
        path=next((path for path in paths if path), ""),
        runs=runs,
        subjects=tuple(sorted({producer.subject for producer in state.producers.values()})),
        kernel=_text(attributes, "kernel"),
        language=_text(attributes, "language"),
        began=session.started or session.created,
    )


def _began(step: Step) -> tuple[int, int, str]:
    return int(step.started or step.created or 0), _count(step.attributes) or 0, step.id


def run_of(step: Step, heard: bool) -> Run:
    """The execution that *step*, of the kind `CELL_KIND`, records. *heard*: whether its kernel is."""
    return Run(
        step=step.id,
        cell_id=_text(step.attributes, "cell_id"),
        count=_count(step.attributes),
        source=step.input,
        output=step.output,
        log_count=step.log_count,
        state=step.state,
        reason=step.reason,
        started=step.started or step.created,
        ended=step.ended,
        cut=step.state == "crashed" or (step.state not in TERMINAL and not heard),
    )


def _text(attributes: Attributes, key: str) -> str:
    found = attributes.get(key, "")
    return found if isinstance(found, str) else ""


def _count(attributes: Attributes) -> int | None:
    found = attributes.get("execution_count")
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None


def whole(value: Value | None, fetch: Fetch) -> bytes | None:
    """A value's bytes, fetched where the record has only their beginning; None if they are not kept."""
    if value is None:
        return None
    return fetch(value.sha256, value.size) if value.truncated else value.text.encode()


def source_of(run: Run, fetch: Fetch) -> str | None:
    """What ran, in full; None if only its beginning (``run.source.text``) is known, or nothing."""
    data = whole(run.source, fetch)
    return None if data is None else data.decode("utf-8", "replace")
