"""A producer's spool on disk: one SQLite file per publication of a process, and a lock file beside it.

The file belongs to one process at a time, which holds the lock for as long as it lives; the system takes the
lock from a process that ends, however it ends. So a file whose lock is free was left behind, and may be
flushed by another process.

Everything here blocks, and is called on threads that may wait. No SQLite connection crosses a fork: before
one the files are closed, and a child leaves them alone (https://www.sqlite.org/howtocorrupt.html, 2.6).

Durability: WAL with ``synchronous=NORMAL``. What was written survives the death of the process by any signal.
After a power failure the last transactions may be missing; the file is whole all the same, and what had been
delivered from it is not delivered again, because the server counts.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec

from wsmonitor.protocol.errors import WsMonitorError

from .entries import Append, Drop, Opened, Order, Recount, Reorder, Row

FORMAT: Final = 1
"""Of the tables below; a file of another format is left alone."""

_APPLICATION: Final = 0x77736D53  # "wsmS"

_TABLES: Final = f"""
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {FORMAT};
CREATE TABLE facts (one INTEGER PRIMARY KEY CHECK (one = 1), facts TEXT NOT NULL);
CREATE TABLE entries (
    pos INTEGER PRIMARY KEY,
    number INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    skipped INTEGER NOT NULL,
    counted INTEGER NOT NULL,
    size INTEGER NOT NULL,
    data BLOB NOT NULL
);
"""

FETCHED_ROWS: Final = 4_000
FETCHED_BYTES: Final = 4 * 1024 * 1024
# SQLite takes 32,766 parameters in a statement, 999 before version 3.32.
_AT_ONCE: Final = 1_000 if sqlite3.sqlite_version_info >= (3, 32) else 140
SUFFIX: Final = ".sqlite3"
DAMAGED: Final = ".damaged"
_BESIDE: Final = ("", "-wal", "-shm")


class SpoolError(WsMonitorError):
    """The spool cannot be written or read now; it may be possible later."""

    code = "spool_unavailable"


class SpoolInUseError(SpoolError):
    """The process that the spool belongs to is still running."""

    code = "spool_in_use"


class SpoolDamagedError(SpoolError):
    """The file is no spool, or a damaged one."""

    code = "spool_damaged"


class Facts(msgspec.Struct, kw_only=True):
    """What a spool says of the publication that it belongs to.

    Attributes:
        url: the server's address; "" for this user's local server.
        ca: the PEM file that the server was checked against; "" for none that can be named.
        insecure: whether it was said that tokens may go there unencrypted.
        accepted: the last wire number that was known as accepted by the server.
        ended: whether the program ended in order: then the producer is to say goodbye.
        created: nanoseconds since 1970 UTC.
    """

    session: str
    producer: str
    holder: str
    agent: str = ""
    url: str = ""
    ca: str = ""
    insecure: bool = False
    host: str = ""
    pid: int = 0
    created: int = 0
    producer_epoch: int = 0
    session_epoch: str = ""
    accepted: int = 0
    dropped: int = 0
    ended: bool = False


_facts: Final = msgspec.json.Decoder(Facts)


class SpoolFile:
    """An open spool of this process. Its methods may be called from any thread.

    Attributes:
        path: the SQLite file.
        facts: what it says of its publication.
    """

    def __init__(self, path: Path, facts: Facts, lock: int) -> None:
        self.path = path
        self.facts = facts
        self._lock = lock
        self._access = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._closed = False
        with _guard:
            _open_files.add(self)

    @classmethod
    def create(cls, path: Path, facts: Facts) -> SpoolFile:
        """Make a new spool, in a folder that is made if need be.

        Raises:
            SpoolError: that cannot be done.
        """
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _lock(path)
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
                made = cls(path, facts, lock)
            except BaseException:
                os.close(lock)
                raise
        except OSError as exc:
            raise SpoolError(f"no spool can be made at {path}: {exc.strerror or exc}") from exc
        try:
            with made._using() as db:
                db.executescript(_TABLES)
                db.execute("INSERT INTO facts VALUES (1, ?)", (_encoded(facts),))
        except SpoolError:
            made.close(delete=True)
            raise
        return made

    @classmethod
    def take(cls, path: Path) -> SpoolFile:
        """Take a spool over that was left behind.

        Raises:
            SpoolInUseError: its process is still running.
            SpoolDamagedError: it cannot be read.
            SpoolError: it cannot be opened now.
        """
        taken = cls.take_damaged(path)
        try:
            taken.facts = taken._check()
        except BaseException:
            taken.close()
            raise
        return taken

    @classmethod
    def take_damaged(cls, path: Path) -> SpoolFile:
        """Take a spool over that was left behind, without looking into it: to remove it, or set it aside.

        Raises:
            SpoolInUseError: its process is still running.
            SpoolError: there is none.
        """
        if not path.exists():
            raise SpoolError(f"there is no spool {path}")
        try:
            lock = _lock(path)
        except OSError as exc:
            raise SpoolInUseError(f"the process that {path.name} belongs to is still running") from exc
        return cls(path, Facts(session="", producer="", holder=""), lock)

    # -- writing

    def carry_out(self, orders: Sequence[Order]) -> None:
        """Carry *orders* out, all or none.

        Raises:
            SpoolDamagedError: the file is damaged.
            SpoolError: it cannot be done now (the disk is full, say); nothing was.
        """
        facts = msgspec.structs.replace(self.facts)
        with self._using() as db, _transaction(db):
            for order in orders:
                match order:
                    case Append(_, rows):
                        _insert(db, rows)
                    case Drop(pos, accepted):
                        db.execute("DELETE FROM entries WHERE pos <= ?", (pos,))
                        facts.accepted = accepted
                    case Recount(pos, skipped):
                        db.execute("UPDATE entries SET skipped = ? WHERE pos = ?", (skipped, pos))
                    case Reorder(moved, accepted):
                        _reorder(db, moved)
                        facts.accepted = accepted
                    case Opened(producer_epoch, session_epoch):
                        facts.producer_epoch = producer_epoch
                        facts.session_epoch = session_epoch
            if facts != self.facts:
                db.execute("UPDATE facts SET facts = ?", (_encoded(facts),))
        self.facts = facts

    def say(self, **changes: Any) -> None:
        """Change facts. Raises `SpoolError`."""
        facts = msgspec.structs.replace(self.facts, **changes)
        with self._using() as db, _transaction(db):
            db.execute("UPDATE facts SET facts = ?", (_encoded(facts),))
        self.facts = facts

    # -- reading

    def rows(self) -> list[Row]:
        """All entries, in order, without their bytes. Raises `SpoolError`."""
        with self._using() as db:
            found = db.execute(
                "SELECT pos, number, sha256, skipped, counted, size, NULL FROM entries ORDER BY pos"
            )
            return [Row(*row)._replace(counted=bool(row[4])) for row in found]

    def fetch(self, pos: int) -> list[tuple[int, bytes]]:
        """The bytes of the entry at *pos*; if it is a change, of some behind it too. Raises `SpoolError`."""
        with self._using() as db:
            one = db.execute("SELECT sha256, data FROM entries WHERE pos = ?", (pos,)).fetchone()
            if one is None:
                raise SpoolDamagedError(f"{self.path} lacks the entry {pos}")
            if one[0]:
                return [(pos, one[1])]
            found: list[tuple[int, bytes]] = []
            size = 0
            for place, sha256, data in db.execute(
                "SELECT pos, sha256, data FROM entries WHERE pos >= ? ORDER BY pos LIMIT ?",
                (pos, FETCHED_ROWS),
            ):
                size += len(data)
                if sha256 or (found and size > FETCHED_BYTES):
                    break
                found.append((place, data))
            return found

    def _check(self) -> Facts:
        with self._using() as db:
            kind = db.execute("PRAGMA application_id").fetchone()[0]
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if kind != _APPLICATION or version != FORMAT:
                raise SpoolDamagedError(f"{self.path} is no spool of this version of wsmonitor")
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise SpoolDamagedError(f"{self.path} is damaged: {verdict}")
            row = db.execute("SELECT facts FROM facts").fetchone()
        try:
            return _facts.decode(row[0] if row else "")
        except msgspec.DecodeError as exc:
            raise SpoolDamagedError(f"{self.path} is damaged: {exc}") from exc

    # -- the end

    def close(self, *, delete: bool = False) -> None:
        """Let go of the file; with *delete*, remove it."""
        with self._access:
            if self._closed:
                return
            self._closed = True
            self._disconnect()
            if delete:
                for end in _BESIDE:
                    with contextlib.suppress(OSError):
                        Path(f"{self.path}{end}").unlink()
            # The lock file goes too: nobody else can be waiting for it but to find the spool gone.
            if delete or not self.path.exists():
                with contextlib.suppress(OSError):
                    _lock_path(self.path).unlink()
            os.close(self._lock)
        with _guard:
            _open_files.discard(self)

    def set_aside(self) -> Path:
        """Close a damaged file and give it another name, which is returned."""
        with self._access:
            aside = self.path.with_name(self.path.name + DAMAGED)
            self._disconnect()
            for end in _BESIDE:
                with contextlib.suppress(OSError):
                    Path(f"{self.path}{end}").rename(f"{aside}{end}")
        self.close()
        return aside

    # -- inside

    @contextlib.contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._access:
            if self._closed:
                raise SpoolError(f"{self.path} is closed")
            try:
                if self._db is None:
                    self._db = _connect(self.path)
                yield self._db
            except sqlite3.OperationalError as exc:
                self._disconnect()
                raise SpoolError(f"the spool {self.path} cannot be used now: {exc}") from exc
            except sqlite3.DatabaseError as exc:
                self._disconnect()
                raise SpoolDamagedError(f"{self.path} is damaged: {exc}") from exc

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    def _before_fork(self) -> None:
        self._access.acquire()
        self._disconnect()

    def _after_fork(self) -> None:
        self._access.release()

    def _in_child(self) -> None:
        # The lock is the parent's: closing this copy of its descriptor does not give it up there.
        self._access = threading.RLock()
        self._closed = True
        os.close(self._lock)


def read_facts(path: Path) -> tuple[Facts, int, int]:
    """Look at a spool that may be another process's: its facts, how many changes wait, and their bytes.

    Raises:
        SpoolError: it cannot be read, now or at all.
    """
    db: sqlite3.Connection | None = None
    try:
        db = sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True, timeout=2)
        row = db.execute("SELECT facts FROM facts").fetchone()
        count, size = db.execute(
            "SELECT COALESCE(SUM(CASE WHEN sha256 = '' THEN MAX(skipped, 1) END), 0), COALESCE(SUM(size), 0)"
            " FROM entries"
        ).fetchone()
        return _facts.decode(row[0] if row else ""), count, size
    except sqlite3.OperationalError as exc:
        raise SpoolError(f"{path} cannot be read now: {exc}") from exc
    except (sqlite3.DatabaseError, msgspec.DecodeError) as exc:
        raise SpoolDamagedError(f"{path} is damaged: {exc}") from exc
    finally:
        if db is not None:
            db.close()


def in_use(path: Path) -> bool:
    """Whether the process that the spool belongs to is still running."""
    try:
        os.close(_lock(path))
    except OSError:
        return True
    return False


def _connect(path: Path) -> sqlite3.Connection:
    # Not `sqlite3.connect(path)`: a file that somebody removed must not come back empty.
    db = sqlite3.connect(
        f"file:{_quoted(path)}?mode=rw", uri=True, timeout=2, isolation_level=None, check_same_thread=False
    )
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.Error:
        db.close()
        raise
    return db


def _quoted(path: Path) -> str:
    return quote(str(path))


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def _insert(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    # Many rows by one statement: after each, the interpreter's lock has to be had again, for which a program
    # that computes lets other threads wait five milliseconds.
    for start in range(0, len(rows), _AT_ONCE):
        some = rows[start : start + _AT_ONCE]
        places = ", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * len(some))
        db.execute(f"INSERT INTO entries VALUES {places}", [value for row in some for value in row])  # noqa: S608  # places only


def _reorder(db: sqlite3.Connection, moved: Sequence[tuple[int, Row]]) -> None:
    # New places are behind all old ones, so that nothing is overwritten on the way.
    db.executemany(
        "UPDATE entries SET pos = ?, number = ? WHERE pos = ?",
        [(row.pos, row.number, before) for before, row in moved if before],
    )
    _insert(db, [row for before, row in moved if not before])
    first = min((row.pos for _, row in moved), default=None)
    if first is None:
        db.execute("DELETE FROM entries")
    else:
        db.execute("DELETE FROM entries WHERE pos < ?", (first,))


def _encoded(facts: Facts) -> str:
    return msgspec.json.encode(facts).decode()


# ---------------------------------------------------------------------- locks


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _lock(path: Path) -> int:
    """Take the lock of the spool at *path*: a descriptor that holds it until it is closed.

    Raises:
        OSError: another process, or this one, holds it.
    """
    name = str(_lock_path(path))
    with _guard:
        if any(name == str(_lock_path(one.path)) for one in _open_files):
            # By POSIX a process's own locks do not exclude it, and closing any descriptor gives them up.
            raise OSError(f"{name} is held by this process")
    descriptor = os.open(name, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            # Not `flock`, which a forked child would share: this lock is the process's own.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


# Held during a fork, and by nobody who waits for a file.
_guard = threading.RLock()
_open_files: set[SpoolFile] = set()


def _before_fork() -> None:
    _guard.acquire()
    for one in _open_files:
        one._before_fork()


def _in_parent() -> None:
    for one in _open_files:
        one._after_fork()
    _guard.release()


def _in_child() -> None:
    global _guard
    _guard = threading.RLock()
    for one in _open_files:
        one._in_child()
    _abandoned.extend(_open_files)
    _open_files.clear()


_abandoned: Final[list[SpoolFile]] = []  # in a forked child: the parent's

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
