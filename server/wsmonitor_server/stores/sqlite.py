"""The SQLite store: one file, one connection, one thread.

WAL with ``synchronous=NORMAL``: what was committed survives the death of the process (kill -9), because
it is in the operating system's hands. It need not survive the loss of power: then the last
commits may be missing. That never happens silently: when the database is opened after an
unclean stop under another boot id, a new epoch is minted, which every observer sees and which makes
producers assert what they own. ``synchronous="full"`` waits for the disk at every commit and
needs no such thing.

``locking_mode=EXCLUSIVE``: a second server on the same file is refused; the operating system
releases the lock when the process dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final, Literal, TypeVar

import msgspec

from wsmonitor import host
from wsmonitor.protocol.entities import Command, Listing, LogRecord
from wsmonitor.protocol.errors import ConfigurationError
from wsmonitor.protocol.reducer import SessionState, decode_entity

from . import filesystem
from .base import Commit, ProducerPosition, StoredSession, StoreError, UnsuitableDirectoryError
from .blobs import Blobs, FileBlobs

_T = TypeVar("_T")

log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 3

_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (
    id TEXT PRIMARY KEY, epoch TEXT NOT NULL, head INTEGER NOT NULL, attention INTEGER NOT NULL,
    listing BLOB) WITHOUT ROWID;
CREATE TABLE entities (
    session TEXT, kind TEXT, id TEXT, data BLOB NOT NULL, PRIMARY KEY (session, kind, id)) WITHOUT ROWID;
CREATE TABLE events (session TEXT, seq INTEGER, data BLOB NOT NULL, PRIMARY KEY (session, seq)) WITHOUT ROWID;
CREATE TABLE producers (
    session TEXT, producer TEXT, subject TEXT NOT NULL, epoch INTEGER NOT NULL, accepted INTEGER NOT NULL,
    PRIMARY KEY (session, producer)) WITHOUT ROWID;
CREATE TABLE logs (
    session TEXT, step TEXT, n INTEGER, data BLOB NOT NULL, PRIMARY KEY (session, step, n)) WITHOUT ROWID;
CREATE TABLE "values" (session TEXT, sha256 TEXT, PRIMARY KEY (session, sha256)) WITHOUT ROWID;
CREATE TABLE runs (name TEXT PRIMARY KEY, run INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE tombstones (session TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE revocations (jti TEXT PRIMARY KEY, expires INTEGER NOT NULL) WITHOUT ROWID;
"""

_RETIRED: Final = """
CREATE TABLE retired_commands (
    session TEXT, key TEXT, data BLOB NOT NULL, PRIMARY KEY (session, key)) WITHOUT ROWID
"""

_HOLDERS: Final = "ALTER TABLE producers ADD COLUMN holder TEXT NOT NULL DEFAULT ''"

_PER_SESSION: Final = ("entities", "events", "producers", "logs", "retired_commands", '"values"')

_encode = msgspec.json.Encoder().encode
_decode_command = msgspec.json.Decoder(Command).decode
_decode_log = msgspec.json.Decoder(LogRecord).decode
_decode_listing = msgspec.json.Decoder(Listing).decode


class SqliteStore:
    """See the module's text.

    Args:
        path: the database file; its directory is made if need be (private to the user).
        log_records: how many log records are kept per step.
        synchronous: "normal", or "full" to survive the loss of power without a new epoch.
        blobs: where large values lie; files in ``values`` beside the database by default.
        boot_id, mounts: facts of the operating system, given by tests.
    """

    def __init__(
        self,
        path: Path,
        *,
        log_records: int = 1_000,
        synchronous: Literal["normal", "full"] = "normal",
        token_hex: Callable[[int], str] = secrets.token_hex,
        blobs: Blobs | None = None,
        boot_id: str | None = None,
        mounts: str | None = None,
    ) -> None:
        self.epoch = ""
        self.path = path
        self._log_records = log_records
        self._synchronous = synchronous
        self._token_hex = token_hex
        self._blobs = FileBlobs(path.parent / "values") if blobs is None else blobs
        self._boot_id = boot_id
        self._mounts = mounts
        self._connection: sqlite3.Connection | None = None
        # The database and the large values have a thread each: 100 MB must not delay a commit.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="wsmonitor-sqlite")
        self._blob_thread = ThreadPoolExecutor(1, thread_name_prefix="wsmonitor-values")

    # -- threads and errors

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)

    async def _run_blob(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._blob_thread, work)

    def _guarded(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except sqlite3.Error as exc:
            raise _explain(exc, self.path) from exc

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError("the store is closed")
        return self._connection

    def _transaction(
        self,
        work: Callable[[sqlite3.Connection], _T],
        unwritten: Callable[[sqlite3.Connection], bool] = lambda db: False,
    ) -> _T:
        """Run *work* in one transaction. A `StoreError` from here says whether its outcome is known.

        *unwritten*: whether the database shows that nothing of *work* is in it.
        """
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            result = work(db)
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        try:
            db.execute("COMMIT")
        except sqlite3.Error as exc:
            error = _explain(exc, self.path)
            if db.in_transaction:
                # Nothing was made last.
                db.execute("ROLLBACK")
            elif (getattr(exc, "sqlite_errorname", "") or "").startswith(_WRITE_FAILED):
                # A full disk: SQLite has rolled back by itself, and can still be asked.
                error.outcome_known = unwritten(db)
            else:
                error.outcome_known = False
            raise error from exc
        return result

    # -- opening and closing

    async def open(self) -> None:
        """Open or create the database.

        Raises:
            UnsuitableDirectoryError: it is on a network file system.
            ConfigurationError: it is in use, of a newer version, or not a database of ours.
        """
        try:
            await self._run(self._open)
        except StoreError as exc:
            await self.close()
            raise ConfigurationError(str(exc)) from exc
        except BaseException:
            await self.close()
            raise

    def _open(self) -> None:
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as exc:
            raise ConfigurationError(f"{folder} cannot be made: {exc.strerror or exc}") from exc
        mounts = filesystem.mounts() if self._mounts is None else self._mounts
        kind = filesystem.network_type(folder.resolve(), mounts)
        if kind is not None:
            raise UnsuitableDirectoryError(
                f"{folder} is on a network file system ({kind}); the SQLite store needs a local directory"
            )
        if not self.path.exists():
            # Sessions may hold what only their user may read.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=2.0)
        self._connection = db
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={self._synchronous.upper()}")
        db.execute("PRAGMA cache_size=-16000")
        db.execute("PRAGMA secure_delete=ON")  # what is removed is overwritten, not only unlinked
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise ConfigurationError(
                f"{self.path} was written by a newer wsmonitor (schema {version}; this one knows up to "
                f"{SCHEMA_VERSION}): upgrade, or use another file"
            )
        self._transaction(self._prepare)

    def _prepare(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            if db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                raise ConfigurationError(f"{self.path} is a database, but not one of wsmonitor's")
            for statement in _SCHEMA.split(";"):
                if statement.strip():
                    db.execute(statement)
        if version < SCHEMA_VERSION:
            if version < 2:
                db.execute(_RETIRED)
            db.execute(_HOLDERS)
            db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
        boot = host.boot_id() if self._boot_id is None else self._boot_id
        unclean = meta.get("clean") == "0"
        may_have_lost = unclean and meta.get("boot_id") != boot and meta.get("synchronous") != "full"
        if "epoch" not in meta or may_have_lost:
            meta["epoch"] = self._token_hex(8)
            # The kept events name the old epoch, and some of its last ones may be missing.
            db.execute("UPDATE sessions SET epoch = ?", (meta["epoch"],))
            db.execute("DELETE FROM events")
        meta.update(clean="0", boot_id=boot, synchronous=self._synchronous)
        db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())
        self.epoch = meta["epoch"]

    async def close(self) -> None:
        """Close, and note that it was done properly. Closing twice is harmless."""
        if self._connection is not None:
            try:
                await self._run(self._close)
            finally:
                self._connection = None
                self._shutdown()
        else:
            self._shutdown()

    def _shutdown(self) -> None:
        self._thread.shutdown()
        self._blob_thread.shutdown()

    def _close(self) -> None:
        with closing(self._db):
            if self.epoch:  # else it was never open
                try:
                    self._transaction(
                        lambda db: db.execute("UPDATE meta SET value = '1' WHERE key = 'clean'")
                    )
                except (StoreError, sqlite3.Error) as exc:
                    # Nothing is lost by that: at worst the next start takes this for an unclean stop.
                    log.warning("%s: closing could not be noted: %s", self.path, exc)

    async def check(self) -> None:
        def write(db: sqlite3.Connection) -> None:
            # A changed row, so that the transaction really writes.
            db.execute("INSERT INTO meta VALUES ('checked', '1') ON CONFLICT DO UPDATE SET value = value + 1")

        await self._run(lambda: self._transaction(write))

    def info(self) -> dict[str, str | int]:
        return {
            "kind": "sqlite",
            "path": str(self.path),
            "synchronous": self._synchronous,
            "bytes": self._file_size(),
        }

    def _file_size(self) -> int:
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    async def size(self) -> int:
        def used() -> int:
            page, count, free = (
                self._db.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_size", "page_count", "freelist_count")
            )
            return int(page * (count - free))

        return await self._run(used) + await self._run_blob(self._blobs.size)

    # -- sessions

    async def listings(self) -> list[tuple[Listing, bool]]:
        def read() -> list[tuple[Listing, bool]]:
            rows = self._db.execute("SELECT id, listing, attention FROM sessions").fetchall()
            return [
                (
                    Listing(id=session, name="", state="absent") if data is None else _decode_listing(data),
                    bool(attention),
                )
                for session, data, attention in rows
            ]

        return await self._run(read)

    async def load(self, session: str) -> StoredSession | None:
        return await self._run(lambda: self._load(session))

    def _load(self, session: str) -> StoredSession | None:
        db = self._db
        row = db.execute("SELECT epoch, head FROM sessions WHERE id = ?", (session,)).fetchone()
        if row is None:
            return None
        state = SessionState(session, row[0], row[1])
        size = 0
        for kind, data in db.execute("SELECT kind, data FROM entities WHERE session = ?", (session,)):
            entity = decode_entity(kind, data)
            if entity is None:
                raise StoreError(f"{session}: an entity of kind {kind!r}, which is not known")
            state.put(kind, entity)
            size += len(data)
        producers = {
            row[0]: ProducerPosition(*row)
            for row in db.execute(
                "SELECT producer, subject, epoch, accepted, holder FROM producers WHERE session = ?",
                (session,),
            )
        }
        events = db.execute("SELECT seq, data FROM events WHERE session = ? ORDER BY seq", (session,))
        history = [(seq, bytes(data)) for seq, data in events]
        values = {row[0] for row in db.execute('SELECT sha256 FROM "values" WHERE session = ?', (session,))}
        retired = db.execute("SELECT count(*) FROM retired_commands WHERE session = ?", (session,)).fetchone()
        return StoredSession(state, producers, history, values, size, retired[0])

    async def commit(self, commits: Sequence[Commit]) -> None:
        def write(db: sqlite3.Connection) -> None:
            for commit in commits:
                self._write(db, commit)

        await self._run(lambda: self._transaction(write, lambda db: _unwritten(db, commits)))

    def _write(self, db: sqlite3.Connection, commit: Commit) -> None:
        session = commit.session
        row = db.execute("SELECT epoch, head FROM sessions WHERE id = ?", (session,)).fetchone()
        epoch, head = row or (commit.epoch, 0)
        if head != commit.expected_head:
            raise StoreError(f"{session}: the head is {head}, not {commit.expected_head}")
        if epoch != commit.epoch:
            # The kept events name the epoch that has ended.
            db.execute("DELETE FROM events WHERE session = ?", (session,))
        new_head = commit.events[-1][0] if commit.events else head
        db.execute(
            "INSERT INTO sessions VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE"
            " SET epoch = excluded.epoch, head = excluded.head, attention = excluded.attention,"
            " listing = coalesce(excluded.listing, listing)",
            (
                session,
                commit.epoch,
                new_head,
                commit.attention,
                None if commit.listing is None else _encode(commit.listing),
            ),
        )
        db.executemany(
            "INSERT INTO events VALUES (?, ?, ?)", [(session, seq, data) for seq, data in commit.events]
        )
        if commit.drops:
            db.executemany(
                "DELETE FROM entities WHERE session = ? AND kind = ? AND id = ?",
                [(session, kind, ident) for kind, ident in commit.drops],
            )
        db.executemany(
            "INSERT OR REPLACE INTO entities VALUES (?, ?, ?, ?)",
            [(session, kind, ident, data) for (kind, ident), data in commit.entities.items()],
        )
        db.executemany(
            "INSERT OR REPLACE INTO producers VALUES (?, ?, ?, ?, ?, ?)",
            [
                (session, one.producer, one.subject, one.epoch, one.accepted, one.holder)
                for one in commit.producers.values()
            ],
        )
        if commit.retired:
            db.executemany(
                "INSERT OR REPLACE INTO retired_commands VALUES (?, ?, ?)",
                [(session, key, data) for key, data in commit.retired.items()],
            )
        if commit.logs:
            self._write_logs(db, session, commit.logs)
        if commit.values:
            db.executemany(
                'INSERT OR IGNORE INTO "values" VALUES (?, ?)', [(session, one) for one in commit.values]
            )
        if commit.released:
            db.executemany(
                'DELETE FROM "values" WHERE session = ? AND sha256 = ?',
                [(session, one) for one in commit.released],
            )
        if commit.first_kept:
            db.execute("DELETE FROM events WHERE session = ? AND seq < ?", (session, commit.first_kept))

    def _write_logs(self, db: sqlite3.Connection, session: str, logs: list[tuple[str, LogRecord]]) -> None:
        db.executemany(
            "INSERT OR REPLACE INTO logs VALUES (?, ?, ?, ?)",
            [(session, step, record.n, _encode(record)) for step, record in logs],
        )
        last = {step: record.n for step, record in logs}
        db.executemany(
            "DELETE FROM logs WHERE session = ? AND step = ? AND n <= ?",
            [(session, step, n - self._log_records) for step, n in last.items() if n > self._log_records],
        )

    async def retired_command(self, session: str, key: str) -> Command | None:
        def read() -> Command | None:
            row = self._db.execute(
                "SELECT data FROM retired_commands WHERE session = ? AND key = ?", (session, key)
            ).fetchone()
            return None if row is None else _decode_command(row[0])

        return await self._run(read)

    async def next_run(self, name: str) -> int:
        def count(db: sqlite3.Connection) -> int:
            row = db.execute(
                "INSERT INTO runs VALUES (?, 1) ON CONFLICT DO UPDATE SET run = run + 1 RETURNING run",
                (name,),
            ).fetchone()
            return int(row[0])

        return await self._run(lambda: self._transaction(count))

    async def remove(self, session: str, *, at: int) -> None:
        def delete(db: sqlite3.Connection) -> None:
            if db.execute("DELETE FROM sessions WHERE id = ?", (session,)).rowcount:
                db.execute("INSERT OR REPLACE INTO tombstones VALUES (?, ?)", (session, at))
            for table in _PER_SESSION:
                db.execute(f"DELETE FROM {table} WHERE session = ?", (session,))  # noqa: S608  # our own names

        def delete_for_good() -> None:
            self._transaction(delete)
            # The log of changes still has what was written before. It is removed all the same if that fails.
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

        await self._run(delete_for_good)
        await self._run_blob(lambda: self._blobs.remove_session(session))

    async def tombstone(self, session: str) -> int | None:
        def read() -> int | None:
            row = self._db.execute("SELECT at FROM tombstones WHERE session = ?", (session,)).fetchone()
            return None if row is None else int(row[0])

        return await self._run(read)

    async def forget_tombstones(self, *, before: int) -> None:
        await self._run(
            lambda: self._transaction(lambda db: db.execute("DELETE FROM tombstones WHERE at < ?", (before,)))
        )

    async def logs(self, session: str, step: str, first: int, limit: int) -> tuple[list[LogRecord], int]:
        def read() -> tuple[list[LogRecord], int]:
            where = "FROM logs WHERE session = ? AND step = ?"
            oldest = self._db.execute(f"SELECT min(n) {where}", (session, step)).fetchone()[0]  # constant
            rows = self._db.execute(
                f"SELECT data {where} AND n >= ? ORDER BY n LIMIT ?",  # constant
                (session, step, first, limit),
            )
            return [_decode_log(data) for (data,) in rows], oldest or 0

        return await self._run(read)

    # -- large values

    async def value_begin(self, session: str, sha256: str, total: int) -> int:
        return await self._run_blob(lambda: self._blobs.begin(session, sha256, total))

    async def value_write(self, session: str, sha256: str, total: int, offset: int, data: bytes) -> bool:
        return await self._run_blob(lambda: self._blobs.write(session, sha256, total, offset, data))

    async def value_has(self, session: str, sha256: str) -> bool:
        return await self._run_blob(lambda: self._blobs.has(session, sha256))

    async def value_read(
        self, session: str, sha256: str, offset: int, length: int
    ) -> tuple[bytes, int] | None:
        return await self._run_blob(lambda: self._blobs.read(session, sha256, offset, length))

    async def value_sweep(self, *, older_than: float) -> int:
        def referenced() -> set[tuple[str, str]]:
            return set(self._db.execute('SELECT session, sha256 FROM "values"').fetchall())

        kept = await self._run(referenced)
        return await self._run_blob(lambda: self._blobs.sweep(kept, older_than))

    # -- tokens

    async def revoke(self, jti: str, expires: int) -> None:
        await self._run(
            lambda: self._transaction(
                lambda db: db.execute("INSERT OR REPLACE INTO revocations VALUES (?, ?)", (jti, expires))
            )
        )

    async def revoked(self) -> dict[str, int]:
        return await self._run(
            lambda: dict(self._db.execute("SELECT jti, expires FROM revocations").fetchall())
        )

    async def forget_revocations(self, *, before: int) -> None:
        await self._run(
            lambda: self._transaction(
                lambda db: db.execute("DELETE FROM revocations WHERE 0 < expires AND expires < ?", (before,))
            )
        )


_WRITE_FAILED: Final = ("SQLITE_FULL", "SQLITE_IOERR_WRITE")


def _unwritten(db: sqlite3.Connection, commits: Sequence[Commit]) -> bool:
    """Whether *db*, which has all or nothing of *commits*, has nothing. False where nothing proves it."""
    for commit in commits:
        if commit.events:
            row = db.execute("SELECT head FROM sessions WHERE id = ?", (commit.session,)).fetchone()
            return (0 if row is None else row[0]) == commit.expected_head
        for one in commit.producers.values():
            row = db.execute(
                "SELECT epoch, accepted FROM producers WHERE session = ? AND producer = ?",
                (commit.session, one.producer),
            ).fetchone()
            if row != (one.epoch, one.accepted):
                return True
    return False


def _explain(exc: sqlite3.Error, path: Path) -> StoreError:
    """What happened, in words for people."""
    name = getattr(exc, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_FULL"):
        return StoreError(f"the disk is full ({path})", code="read_only")
    if name.startswith("SQLITE_READONLY"):
        return StoreError(f"{path} cannot be written: it is read-only", code="read_only")
    if name.startswith("SQLITE_CANTOPEN"):
        return StoreError(f"{path} cannot be opened", code="read_only")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreError(f"{path} is in use by another server")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return StoreError(f"{path} is damaged, or not a database ({exc}): restore it, or use another file")
    return StoreError(f"{path}: {exc}" + (f" [{name}]" if name else ""))
