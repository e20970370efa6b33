"""The local server, seen by those who start it: in a process of its own, or inside this one.

The process gets an operating-system session of its own (a kernel's process group is killed with the
kernel), no inherited file descriptors, and a log file. It ends by itself when it is idle. Which of
several starters wins is decided by the server's own lock; the others find the winner's file.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from wsmonitor.host import data_dir, discovery_path, read_discovery, why_stale
from wsmonitor.protocol.defaults import PROTOCOL_MAJOR
from wsmonitor.protocol.discovery import Discovery, file_name

from .errors import NoServerError, NotLocatedError
from .locate import prove

START_TIMEOUT: Final = 20.0
"""Seconds until a started server must have announced itself."""

STOP_TIMEOUT: Final = 10.0

SERVER_MODULE: Final = "wsmonitor_server"
EMBEDDED_MODULE: Final = "wsmonitor_server.embedded"
"""Named, not imported: the client layer does not depend on the server's code unless it is to run here."""

_LOOK_EVERY: Final = 0.02
_LOG_TAIL: Final = 2_000


class InlineServer(Protocol):
    """A server inside this process."""

    @property
    def url(self) -> str: ...
    @property
    def token(self) -> Callable[..., str]: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


# ---------------------------------------------------------------------- a process of its own


def start_local_server(
    environ: Mapping[str, str] | None = None,
    *,
    arguments: Sequence[str] = (),
    timeout: float = START_TIMEOUT,
) -> Discovery:
    """Start a local server, or find the one that another starter has just started. Blocks until it is proved.

    Args:
        environ: the server's environment; by default this process's.
        arguments: further arguments of ``python -m wsmonitor_server --local``.
        timeout: seconds until it must have announced itself.

    Raises:
        NotLocatedError: it did not start; the message has the end of its log.
        NoServerError: a newer local server runs, which this program cannot speak with.
    """
    environ = os.environ if environ is None else environ
    stop_older_servers()
    folder = data_dir(environ)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Everything that the server says before its own log is open, and if Python itself fails.
        output = folder / "server.out"
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as exc:
        raise NotLocatedError(f"no local server can be started: {exc}") from exc
    path = discovery_path()
    before, _ = read_discovery(path)
    try:
        process = subprocess.Popen(  # noqa: S603  # our own module, by this very interpreter
            [sys.executable, "-m", SERVER_MODULE, "--local", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            close_fds=True,
            start_new_session=True,
            env=dict(environ),
            cwd=folder,
        )
    except OSError as exc:
        raise NotLocatedError(f"no local server can be started: {exc}") from exc
    finally:
        os.close(descriptor)
    _reap_later(process)
    deadline = time.monotonic() + timeout
    while True:
        found, _ = read_discovery(path)
        if found is not None and (before is None or found.instance != before.instance or process.poll() == 3):
            problem = prove(found)
            if not problem:
                if os.name == "posix" and found.pid != process.pid:
                    # Another starter won. Ours would give way, but if the winner were stopped
                    # before ours has come to its lock, it would stay.
                    process.terminate()
                return found
        status = process.poll()
        if status not in (None, 0, 3):
            raise NotLocatedError(f"the local server ended at once, with status {status}.{_tail(folder)}")
        if time.monotonic() >= deadline:
            raise NotLocatedError(
                f"the local server did not announce itself in {timeout:g} s.{_tail(folder)}"
            )
        # A file appears, and no event of this platform says so without a further dependency.
        time.sleep(_LOOK_EVERY)


def stop_older_servers(timeout: float = STOP_TIMEOUT) -> list[int]:
    """Tell this user's local servers of earlier protocol versions to drain and stop; their process ids.

    Raises:
        NoServerError: a local server of a later version runs: this program is the one to be renewed.
    """
    import socket

    here = discovery_path()
    stopped: list[int] = []
    host = socket.gethostname()
    for path in sorted(here.parent.glob(file_name(host, 0).replace("v0", "v*"))):
        if path == here:
            continue
        try:
            found = msgspec.json.decode(path.read_bytes(), type=Discovery)
        except (OSError, msgspec.DecodeError):
            continue
        if why_stale(found):
            continue
        if found.major > PROTOCOL_MAJOR:
            raise NoServerError(
                f"a newer local server ({found.version}) runs in process {found.pid}: upgrade this "
                "environment's wsmonitor, or set WSMONITOR_URL",
                looked=(f"{path}: version {found.major} of the protocol",),
            )
        with contextlib.suppress(OSError):
            os.kill(found.pid, signal.SIGTERM)
            stopped.append(found.pid)
        deadline = time.monotonic() + timeout
        while not why_stale(found) and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY)
    return stopped


def _reap_later(process: subprocess.Popen[bytes]) -> None:
    # The server outlives this process, but if it ends first its status must be taken.
    with contextlib.suppress(RuntimeError):  # no thread begins any more while the interpreter exits
        threading.Thread(target=process.wait, name="wsmonitor-local", daemon=True).start()


def _tail(folder: Path) -> str:
    for name in ("server.out", "server.log"):
        with contextlib.suppress(OSError):
            text = (folder / name).read_bytes()[-_LOG_TAIL:].decode("utf-8", errors="replace").strip()
            if text:
                return f" The end of {folder / name}:\n{text}"
    return f" Nothing is in {folder / 'server.out'}"


# ---------------------------------------------------------------------- inside this process

_inline_lock = threading.Lock()
_inline: InlineServer | None = None


def inline_server() -> InlineServer | None:
    """The server inside this process, if one is running."""
    return _inline


def start_inline_server() -> InlineServer:
    """Start a server inside this process, in memory; give the running one if there is one.

    Raises:
        NoServerError: the server's code is not installed.
    """
    global _inline
    with _inline_lock:
        if _inline is None:
            try:
                module: Any = import_module(EMBEDDED_MODULE)
            except ImportError as exc:
                raise NoServerError(f"the server's code cannot be loaded: {exc}") from exc
            server: InlineServer = module.EmbeddedServer.in_thread()
            server.start()
            _inline = server
        return _inline


def stop_inline_server() -> None:
    """Stop the server inside this process, if there is one; what it held is gone."""
    global _inline
    with _inline_lock:
        server, _inline = _inline, None
    if server is not None:
        server.stop()


def _forked() -> None:
    # The parent's server goes on in the parent, and can be reached from here.
    global _inline_lock
    _inline_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
