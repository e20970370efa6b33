"""The local server of one user: its lock, its discovery file, where it lives.

One at a time: an operating-system lock on the data directory is held for life, so that it ends with the
process however that ends. Of two starters one wins; the other waits until the winner's discovery file
is there, and gives up with `AlreadyRunning`. The file is written after the socket listens, in one step,
readable by the user alone; it is removed at a clean end, if it is still ours.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import msgspec

from wsmonitor import host
from wsmonitor._version import __version__
from wsmonitor.host import boot_id, discovery_path, process_started, read_discovery
from wsmonitor.protocol.defaults import PROTOCOL_MAJOR, PROTOCOL_MINOR
from wsmonitor.protocol.discovery import Discovery
from wsmonitor.protocol.errors import ConfigurationError

from .config import ServerConfig
from .keys import read_or_make_key
from .stores.filesystem import mounts, network_type

if TYPE_CHECKING:
    from filelock import BaseFileLock

_LOG: Final = logging.getLogger(__name__)

STARTING_TIMEOUT: Final = 15.0
"""Seconds that the loser of a race waits for the winner's discovery file."""

FALLBACK: Final = Path("/var/tmp")  # noqa: S108 - a private folder is made in it, and checked
"""Where the data directory is made when the wanted one is on a network file system; outlasts a reboot."""

LOG_FILE: Final = "server.log"

LONGEST_DRAIN: Final = 5.0
"""Seconds: ``wsmonitor stop`` waits for 10."""

_RETRY: Final = 0.05


class AlreadyRunning(Exception):
    """Another local server holds the data directory, and its discovery file is there."""


class LocalHome:
    """What a running local server holds.

    Attributes:
        config: the given one, with port, store, key file and data directory filled in.
        secret: the discovery file's, for the proof.
    """

    def __init__(self, config: ServerConfig, lock: BaseFileLock, discovery_file: Path) -> None:
        self.config = config
        self.secret = secrets.token_hex(32)
        self.discovery_file = discovery_file
        self._lock = lock

    @classmethod
    def open(cls, config: ServerConfig) -> Self:
        """Find the directories, take the lock, make or read the key.

        Raises:
            AlreadyRunning: another one is there.
            ConfigurationError: a directory or the key cannot be used.
        """
        data_dir = usable_data_dir(Path(config.data_dir) if config.data_dir else host.data_dir())
        discovery_file = discovery_path()
        lock = _take_lock(data_dir / "server.lock", discovery_file)
        try:
            key_file = data_dir / "key"
            read_or_make_key(key_file)
            auth = config.auth
            if not (auth.key_file or auth.jwks_file or auth.jwks_url):
                auth = msgspec.structs.replace(auth, key_file=str(key_file))
            store = config.store or f"sqlite:{data_dir / 'store.sqlite3'}"
            drain = min(config.drain_timeout, LONGEST_DRAIN)
            full = msgspec.structs.replace(
                config, port=0, data_dir=str(data_dir), store=store, auth=auth, drain_timeout=drain
            )
            found, _ = read_discovery(discovery_file)
            if found is None:
                # What a server that was killed has left behind leads nowhere.
                discovery_file.unlink(missing_ok=True)
            return cls(full, lock, discovery_file)
        except BaseException:
            lock.release()
            raise

    def publish(self, url: str, instance: str) -> None:
        """Write the discovery file: from now on the server is found."""
        from jupyter_core.paths import secure_write

        data_dir = Path(self.config.data_dir)
        discovery = Discovery(
            url=url,
            instance=instance,
            version=__version__,
            major=PROTOCOL_MAJOR,
            minor=PROTOCOL_MINOR,
            pid=os.getpid(),
            boot_id=boot_id(),
            started=str(time.time_ns()),
            process_started=process_started(os.getpid()) or 0.0,
            store=self.config.store,
            data_dir=str(data_dir),
            log=str(data_dir / LOG_FILE),
            key_file=self.config.auth.key_file,
            secret=self.secret,
        )
        self.discovery_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self.discovery_file.with_name(f".{self.discovery_file.name}.{instance}")
        try:
            with secure_write(str(temporary)) as file:
                file.write(msgspec.json.encode(discovery).decode())
            temporary.replace(self.discovery_file)
        finally:
            temporary.unlink(missing_ok=True)

    def retract(self, instance: str) -> None:
        """Remove the discovery file, if it is still ours."""
        found, _ = read_discovery(self.discovery_file)
        if found is not None and found.instance == instance:
            self.discovery_file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


def usable_data_dir(wanted: Path) -> Path:
    """*wanted*, made if it is not there; on a network file system a local directory in its place.

    Raises:
        ConfigurationError: it cannot be made, or belongs to somebody else.
    """
    _make_private(wanted)
    kind = network_type(wanted.resolve(), mounts())
    if kind is None:
        return wanted
    base = FALLBACK if FALLBACK.is_dir() else Path(tempfile.gettempdir())
    local = base / f"wsmonitor-{os.getuid() if hasattr(os, 'getuid') else os.getlogin()}"
    _make_private(local)
    _LOG.warning("%s is on a network file system (%s): the database is in %s", wanted, kind, local)
    return local


def _make_private(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as exc:
        raise ConfigurationError(f"cannot make the data directory {path}: {exc.strerror or exc}") from exc
    if hasattr(os, "getuid") and not path.is_symlink() and found.st_uid != os.getuid():
        raise ConfigurationError(f"the data directory {path} belongs to another user")
    if hasattr(os, "getuid") and stat.S_IMODE(path.stat().st_mode) & 0o022:
        raise ConfigurationError(f"others may write in the data directory {path}: make it 700")


def _take_lock(path: Path, discovery_file: Path) -> BaseFileLock:
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    end = time.monotonic() + STARTING_TIMEOUT
    while True:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            found, _ = read_discovery(discovery_file)
            if found is not None:
                raise AlreadyRunning(
                    f"a local server runs already: {found.url} (process {found.pid})"
                ) from None
        else:
            return lock
        if time.monotonic() > end:
            raise ConfigurationError(
                f"another process holds {path} and does not announce a server at {discovery_file}"
            )
        # The holder is about to write its file, or to go: neither can be waited for but by looking.
        time.sleep(_RETRY)
