"""Facts about this machine that clients and the local server must see alike.

Where the local server of this user keeps its files and announces itself, whether the process that
wrote an announcement can still be there, and which addresses stay on this machine.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from wsmonitor.protocol.defaults import PROTOCOL_MAJOR
from wsmonitor.protocol.discovery import Discovery, file_name

ENV_HOME: Final = "WSMONITOR_HOME"

_MAX_PRIVATE: Final = 65_536
"""Bytes of the longest private file."""


class NotPrivateError(Exception):
    """Others may read a file that holds a secret, or may have put it there. The message says which."""


def boot_id() -> str:
    """The operating system's boot id; "" where there is none."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return ""


def process_started(pid: int) -> float | None:
    """When process *pid* started, in seconds since boot; None when it is gone or that cannot be told."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    if fields[0] in ("Z", "X"):
        return None  # it has ended, and nobody has asked for its status yet
    # proc(5): the name, in parentheses, may hold spaces; the start time is field 22, the name field 2.
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def why_stale(discovery: Discovery) -> str:
    """Why the process that wrote *discovery* cannot be there any more; "" when it may be."""
    here = boot_id()
    if discovery.boot_id and here and discovery.boot_id != here:
        return "written before this machine was started"
    if sys.platform.startswith("linux"):
        started = process_started(discovery.pid)
        if started is None:
            return f"its process {discovery.pid} has ended"
        if discovery.process_started and started != discovery.process_started:
            return f"its process {discovery.pid} has ended, and another has that number"
        return ""
    if os.name == "posix":
        try:
            os.kill(discovery.pid, 0)
        except ProcessLookupError:
            return f"its process {discovery.pid} has ended"
        except PermissionError:
            return f"process {discovery.pid} is another user's"
    return ""


def data_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Where the local server keeps key, database and log.

    ``$WSMONITOR_HOME``, or ``wsmonitor`` in Jupyter's data directory.
    """
    environ = os.environ if environ is None else environ
    home = environ.get(ENV_HOME)
    if home:
        return Path(home).expanduser()
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir()) / "wsmonitor"


def discovery_path(major: int = PROTOCOL_MAJOR) -> Path:
    """Where this user's local server on this host announces itself."""
    from jupyter_core.paths import jupyter_runtime_dir

    return Path(jupyter_runtime_dir()) / file_name(socket.gethostname(), major)


def read_private(path: Path, *, link: bool = True) -> bytes:
    """What is in a file that holds a secret, if it is its owner's alone.

    The checks are made on the open file, so that it cannot be exchanged in between. They have no meaning
    where files have no owner and mode (Windows), and are not made there.

    Args:
        path: the file.
        link: whether *path* may be a symbolic link, as secrets that a container mounts are.

    Raises:
        OSError: it cannot be read.
        NotPrivateError: it is no plain file, belongs neither to this user nor to root, may be read or
            written by others, or lies where everybody may exchange it.
    """
    # Without waiting: a pipe in its place must not hold us up.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    if os.name != "posix":
        return path.read_bytes()[:_MAX_PRIVATE]
    owners = {os.geteuid(), 0}
    if path.is_symlink():
        if not link:
            raise NotPrivateError("it is a symbolic link")
        if path.lstat().st_uid not in owners:
            raise NotPrivateError("it is another user's symbolic link")
    handle = os.open(path, flags)
    try:
        found = os.fstat(handle)
        mode = stat.S_IMODE(found.st_mode)
        if not stat.S_ISREG(found.st_mode):
            raise NotPrivateError("it is not a plain file")
        if found.st_uid not in owners:
            raise NotPrivateError(f"it belongs to another user (uid {found.st_uid})")
        if mode & 0o077:
            raise NotPrivateError(f"it may be read by others (mode {mode:03o})")
        folder = path.parent.stat()
        if folder.st_mode & stat.S_IWOTH and not folder.st_mode & stat.S_ISVTX:
            raise NotPrivateError(f"it may be exchanged by others, who may write in {path.parent}")
        with open(handle, "rb", closefd=False) as file:
            return file.read(_MAX_PRIVATE)
    finally:
        os.close(handle)


def read_discovery(path: Path) -> tuple[Discovery | None, str]:
    """The discovery file, and what is wrong with it if it cannot be used."""
    try:
        found = msgspec.json.decode(read_private(path, link=False), type=Discovery)
    except FileNotFoundError:
        return None, "there is none"
    except NotPrivateError as exc:
        return None, f"it is not believed: {exc}"
    except OSError as exc:
        return None, f"it cannot be read: {exc.strerror or exc}"
    except msgspec.DecodeError as exc:
        return None, f"it is damaged: {exc}"
    if found.major != PROTOCOL_MAJOR:
        return None, f"its server speaks version {found.major} of the protocol, this program {PROTOCOL_MAJOR}"
    stale = why_stale(found)
    return (None, stale) if stale else (found, "")


def is_loopback(host: str) -> bool:
    """Whether *host*, a name or an address, can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
