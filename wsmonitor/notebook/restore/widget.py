"""The widget that shows what would be restored, and asks. `restore` makes it."""

from __future__ import annotations

import queue
import secrets
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anywidget
import traitlets

from wsmonitor.export.recording import Recording, recording_of
from wsmonitor.export.words import moment, plural
from wsmonitor.notebook import kernel_channel
from wsmonitor.notebook.bundle import bundle, static, stylesheet
from wsmonitor.notebook.packing import Message
from wsmonitor.notebook.requests import Desk

from .answers import Answers
from .copying import write_copy
from .finding import await_live, find, notebook_path, state_of

if TYPE_CHECKING:
    from wsmonitor.client import Connection
    from wsmonitor.export.notebook import Report
    from wsmonitor.protocol.entities import LogRecord

PATIENCE: Final = 10.0
"""Seconds that the cell waits for the server: a person waits with it."""

PAGE_PATIENCE: Final = 30.0


class Restore(anywidget.AnyWidget):
    """Shows which cells of the open notebook can be given their recorded outputs, and does it when told to.

    Attributes:
        recording: what was found; its outputs are read when they are needed.
        closed: whether `close` was called.
    """

    _token = traitlets.Unicode().tag(sync=True)
    _session = traitlets.Unicode().tag(sync=True)
    _self = traitlets.Unicode().tag(sync=True)
    """This widget's model id: the cell that shows it is left alone."""
    _fallback = traitlets.Unicode().tag(sync=True)
    """The command line that gives the same as a file."""

    closed = False

    _esm = bundle(entry="restore.js")
    _css = stylesheet() + (static() / "restore.css").read_text(encoding="utf-8")

    def __init__(self, connection: Connection, recording: Recording, path: str) -> None:
        self.recording = recording
        self._connection = connection
        self._path = path
        self._bell: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._close_lock = threading.Lock()
        super().__init__(
            _token=secrets.token_hex(12), _session=recording.session, _fallback=command_line(recording)
        )
        self._own_layout = self.layout
        self._self = self.model_id
        answers = Answers(self._read, self._fetch, self._logs, self._own, self._copy)
        self._desk = Desk(answers.questions(), self._answer)
        self.on_msg(_heard(weakref.ref(self)))
        kernel_channel.register(self._token, self)
        # A daemon: a server that does not answer must not delay the kernel's end.
        threading.Thread(
            target=_serve, args=(self._bell, self._desk), name="wsmonitor-restore", daemon=True
        ).start()

    def close(self) -> None:
        """Take the views out of the notebook, and let go of the server. Idempotent."""
        if "_own_layout" not in self.__dict__:
            super().close()  # it never came to life
            return
        with self._close_lock:
            already, self.closed = self.closed, True
        if already:
            return
        kernel_channel.forget(self._token)
        self._bell.put(False)
        self._connection.close()
        super().close()
        # A widget of its own, which ipywidgets makes for each and keeps for ever.
        self._own_layout.close()

    # -- from the browser (any thread)

    def hear(self, message: dict[str, Any], *, live: bool) -> None:
        """The browser asks something. Never blocks."""
        if not self.closed and self._desk.take(message, live):
            self._bell.put(True)

    def _answer(self, message: Message) -> None:
        content, buffers = message
        if not self.closed:
            self.send(content, buffers)

    # -- what the answers are made of (the widget's thread)

    def _read(self) -> Recording:
        state = state_of(self._connection, self.recording.session, PATIENCE)
        return recording_of(state)

    def _fetch(self, sha256: str, size: int) -> bytes | None:
        from wsmonitor.client.whole import read_value

        return read_value(self._connection, self.recording.session, sha256, size, timeout=PAGE_PATIENCE)

    def _logs(self, step: str, count: int) -> Sequence[LogRecord]:
        from wsmonitor.client.whole import read_logs

        return read_logs(self._connection, self.recording.session, step, count, timeout=PAGE_PATIENCE)

    def _own(self, recording: Recording) -> bool:
        welcome = self._connection.status.welcome
        return welcome is not None and recording.subjects == (welcome.subject,)

    def _copy(self, recording: Recording) -> tuple[Path, Report]:
        return write_copy(recording, self._fetch, self._logs, self._path)

    # -- display

    def __repr__(self) -> str:
        return plain(self.recording)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        made = super()._repr_mimebundle_(**kwargs)
        data, metadata = made if isinstance(made, tuple) else (made, {})
        if data is None:
            return None
        return {**data, "text/plain": plain(self.recording)}, metadata


def command_line(recording: Recording) -> str:
    """What to type in a terminal for a restored copy."""
    name = f"{recording.file_name}.ipynb"
    words = ["wsmonitor", "export", recording.session, "-o", f"{recording.file_name}-restored.ipynb"]
    words += ["--into", recording.path or name]
    import shlex

    return shlex.join(words)


def plain(recording: Recording) -> str:
    """What is told where there is no front-end."""
    began = f", begun {moment(recording.began)}" if recording.began else ""
    return (
        f"wsmonitor restore: {recording.name}, run {recording.run}{began}: "
        f"{plural(len(recording.runs), 'execution')} of cells. Where this cannot be shown, a terminal gives "
        f"a restored copy: {command_line(recording)}"
    )


def _serve(bell: queue.SimpleQueue[bool], desk: Desk) -> None:
    """Carry out what was asked, until the widget is closed."""
    while bell.get():
        desk.work()


def _heard(ref: weakref.ref[Restore]) -> Callable[[Any, Any, Any], None]:
    """The comm's handler, which does not keep the widget alive."""

    def hear(widget: Any, content: Any, buffers: Any) -> None:
        found = ref()
        if found is not None and isinstance(content, dict):
            found.hear(content, live=False)

    return hear


# ---------------------------------------------------------------------- one at a time

_lock = threading.Lock()
_current: Restore | None = None


def restore(wanted: str = "", names: dict[str, Any] | None = None) -> Restore:
    """Find the recording, and show what it can give back.

    There is one at a time: the same recording gives the same widget, another one takes its place.

    Args:
        wanted: a session's id or name; "" for the last recording of this notebook.
        names: the user's names in the kernel.

    Raises:
        NotRecordedError: there is no such recording.
        WaitTimeoutError, ConnectionFailedError: no server; the message says where it was looked for.
    """
    from wsmonitor.client import Target, connect

    path = notebook_path(names)
    # Recordings outlive the local server, which ends when nobody needs it: it may be started for them.
    connection = connect(Target(name="%wsmonitor restore", start=True))
    try:
        await_live(connection, PATIENCE)
        recording = find(connection, wanted, path, PATIENCE)
        with _lock:
            found = _current
        if found is not None and not found.closed and found.recording.session == recording.session:
            found.recording = recording
            connection.close()
            return found
        close()
        made = Restore(connection, recording, path)
    except BaseException:
        connection.close()
        raise
    _remember(made)
    return made


def _remember(made: Restore) -> None:
    global _current
    with _lock:
        _current = made


def close() -> None:
    """Close the widget that is open, if there is one."""
    global _current
    with _lock:
        found, _current = _current, None
    if found is not None:
        found.close()
