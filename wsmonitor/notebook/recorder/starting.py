"""Starting and ending the recording of this kernel, and what people are told of it."""

from __future__ import annotations

import atexit
import os
import re
import threading
from pathlib import Path, PureWindowsPath
from typing import Any, Final

from traitlets import Bool, Unicode, Union
from traitlets.config import Configurable

from wsmonitor.host import data_dir
from wsmonitor.protocol.errors import UsageError

from .publishing import Recording
from .recorder import Recorder

_ENDING: Final = re.compile(r"\.(ipynb|py|md)$")
_lock = threading.Lock()
_recorder: Recorder | None = None


class WsMonitor(Configurable):
    """``c.WsMonitor`` in IPython's configuration; read as the extension is loaded."""

    record = Union(
        [Bool(), Unicode()],
        default_value=False,
        help="Record every notebook from its start: True, or the name to record under, in which "
        "{notebook} stands for the notebook's.",
    ).tag(config=True)


def current() -> Recorder | None:
    """The recording of this kernel, while there is one."""
    found = _recorder
    return found if found is not None and found.alive else None


def notebook_path(shell: Any = None) -> str:
    """The notebook's path as far as this kernel can know it; "" if it cannot."""
    spaces = getattr(shell, "user_ns", {})
    for found in (os.environ.get("JPY_SESSION_NAME"), spaces.get("__vsc_ipynb_file__")):
        if isinstance(found, str) and found:
            return found
    return ""


def recording_name(wanted: str, path: str) -> str:
    """What the recording is called: *wanted*, with the notebook's name for ``{notebook}``, or that name."""
    last = PureWindowsPath(path).name if "\\" in path else Path(path).name
    stem = _ENDING.sub("", last) or "notebook"
    return wanted.replace("{notebook}", stem).strip() or stem


def start(shell: Any, name: str = "") -> Recorder:
    """Record this kernel from now on.

    Raises:
        UsageError: it is being recorded already, or cannot be.
    """
    global _recorder
    with _lock:
        running = current()
        if running is not None and running.session.removed:
            _recorder = None
            running.stop()
        elif running is not None:
            raise UsageError(
                f"this kernel is being recorded already, as {running.session.name!r}; "
                "%wsmonitor record off ends that"
            )
        path = notebook_path(shell)
        if getattr(shell, "kernel", None) is None:
            raise UsageError("recording needs a Jupyter kernel; this is a terminal")
        recorder = Recorder(shell, Recording(recording_name(name, path), notebook=path))
        recorder.start()
        _recorder = recorder
        # After the client's own hook was registered, so that ours runs before it.
        atexit.register(_at_exit)
        return recorder


def stop(reason: str = "") -> Recorder | None:
    """End the recording; returns what ended, None if there was none."""
    global _recorder
    with _lock:
        recorder, _recorder = current(), None
        atexit.unregister(_at_exit)
    if recorder is not None:
        recorder.stop(reason)
    return recorder


def _at_exit() -> None:
    stop("the kernel was shut down")


def configured(shell: Any) -> None:
    """Do what the configuration says; never raises."""
    wanted = WsMonitor(parent=shell).record
    if not wanted or getattr(shell, "kernel", None) is None or current() is not None:
        return
    try:
        start(shell, wanted if isinstance(wanted, str) else "")
    except Exception as exc:  # noqa: BLE001 - a kernel must start, whatever becomes of its recording
        shell.kernel.log.warning("wsmonitor: not recorded: %s", exc)


def announcement(recorder: Recorder) -> str:
    """What is said when a recording begins."""
    session = recorder.session
    return f"""\
Recording this notebook as {session.name!r} (session {session.id}).
  what     each cell's source, outputs and errors, as they come; not what is typed into input()
  where    {place()}
  kept     {kept()}
  secrets  what looks like a password, token or key is taken out before it is kept: a net, no guarantee
  watch    %wsmonitor watch {_quoted(session.name)}      stop     %wsmonitor record off
  remove   wsmonitor rm {session.id}
"""


def place() -> str:
    """Where a recording goes, in words."""
    from wsmonitor.client.locate import ENV_URL, local_mode

    url = os.environ.get(ENV_URL, "")
    if url:
        return f"the server {url}, which keeps it for whoever may observe it there"
    match local_mode():
        case "process":
            return f"this machine, {_home(data_dir())} (private to you)"
        case "inline":
            return "the memory of this kernel: it is gone when the kernel ends"
    return "nowhere: WSMONITOR_LOCAL=off, and no WSMONITOR_URL"


def kept() -> str:
    """For how long, in words."""
    from wsmonitor.client.locate import ENV_URL, local_mode
    from wsmonitor_server.retention import Retention

    usual = Retention()
    days = f"{usual.max_age / 86_400:g} days after the recording ends"
    if os.environ.get(ENV_URL):
        return f"as that server's [retention] says: {days}, unless it was configured otherwise"
    match local_mode():
        case "process":
            return (
                f"{days}; of more than {usual.max_sessions:,} ended sessions, or "
                f"{usual.max_total_size / 2**30:g} GiB, the oldest go before"
            )
        case "inline":
            return "until the kernel ends"
    return "not at all"


def _home(path: Path) -> str:
    try:
        return str(Path("~") / path.relative_to(Path.home()))
    except (ValueError, RuntimeError):
        return str(path)


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[\w.-]+", name) else f'"{name}"'


def status(recorder: Recorder | None) -> str:
    """What is to be said of the recording now."""
    if recorder is None:
        return "This notebook is not being recorded. %wsmonitor record starts it.\n"
    session = recorder.session
    if session.removed:
        return (
            f"The recording {session.name!r} (session {session.id}) was removed: nothing is recorded now. "
            "%wsmonitor record starts a new one.\n"
        )
    lines = [f"Recording as {session.name!r} (session {session.id}); {recorder.executions:,} executions."]
    if session.unacknowledged:
        lines.append(f"  {session.unacknowledged:,} changes wait for the server")
    lines += [f"  trouble  {words}" for words in dict.fromkeys(session.warnings[-5:])]
    lines += [f"  earlier  {words}; it has come back" for words in dict.fromkeys(session.overcome[-5:])]
    lines += [f"  missed   {words} ({count:,}×)" for words, count in recorder.problems.items()]
    return "\n".join(lines) + "\n"
