"""The SQLite store: one file, one connection, one thread.

WAL with ``synchronous=NORMAL``: what was committed survives the death of the process (kill -9), because
it is in the operating system's hands. It need not survive the loss of power: then the last
commits may be missing. That never happens silently: when the database is opened after an
unclean stop under another boot id, a new epoch is minted, which every observer sees and which makes
producers assert what they own. ``synchronous="full"`` waits for the disk at every commit and
needs no such thing. What somebody has revoked or removed is on the disk before that is said, in any case:
a lost power must not bring it back.

Where nothing can be written when the file is opened (a full disk, a read-only file system), what is there is
served, and every write is refused with ``read_only`` until one succeeds. What the opening itself has to
note (schema, epoch, that the file is in use) is written together with the first write that does.

With each commit goes the digest over the session's entities. What is loaded must have it: a damaged
record is told, and never taken for what was written.

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
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeVar

import msgspec

from wsmonitor import host
from wsmonitor.protocol.entities import Command, Listing, LogRecord
from wsmonitor.protocol.errors import ConfigurationError

from . import filesystem, reading, schema
from .base import Commit, StoredSession, StoreError, UnsuitableDirectoryError
from .blobs import Blobs, FileBlobs
from .failures import WRITE_FAILED, explain, unreadable, unwritten
from .schema import PER_SESSION, SCHEMA_VERSION

_T = TypeVar("_T")

log = logging.getLogger(__name__)

_PAGE_COUNTS: Final = ("page_count", "freelist_count")

_SPARE_PAGES: Final = 500
"""Free pages that are left for what comes next; and how many are given back at a time (2 MB)."""

_encode = msgspec.json.Encoder().encode
_decode_command = msgspec.json.Decoder(Command).decode
_decode_log = msgspec.json.Decoder(LogRecord).decode


@dataclass(frozen=True, slots=True)
class _Opening:
    """What is to be noted in the file by the first write after it was opened.

    Attributes:
        version: the schema's version that was found.
        meta: what the table of that name has to say from now on.
        minted: whether the epoch is a new one.
    """

    version: int
    meta: dict[str, str]
    minted: bool

    def write(self, db: sqlite3.Connection) -> None:
        schema.bring_up_to_date(db, self.version)
        if self.minted:
            # The kept events name the old epoch, and some of its last ones may be missing.
            db.execute("UPDATE sessions SET epoch = ?", (self.meta["epoch"],))
            db.execute("DELETE FROM events")
        db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", self.meta.items())


def _next(parts: Generator[None, None, _T]) -> tuple[bool, _T | None]:
    """Run *parts* to its next pause: whether it has ended, and what it then returned."""
    try:
        next(parts)
    except StopIteration as end:
        return True, end.value
    return False, None


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
        self._opening: _Opening | None = None  # what is still to be noted of the opening
        # The database and the large values have a thread each: 100 MB must not delay a commit.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="wsmonitor-sqlite")
        self._blob_thread = ThreadPoolExecutor(1, thread_name_prefix="wsmonitor-values")

    # -- threads and errors

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)

    async def _read(self, work: Callable[[], _T]) -> _T:
        """`_run`, for what only reads: values of a type that we have not written are damage, too."""

        def read() -> _T:
            try:
                return work()
            except (TypeError, ValueError, msgspec.DecodeError) as exc:
                raise unreadable(self.path, exc) from exc

        return await self._run(read)

    async def _run_blob(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._blob_thread, work)

    def _guarded(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except sqlite3.Error as exc:
            raise explain(exc, self.path) from exc

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError("the store is closed")
        return self._connection

    def _transaction(
        self,
        work: Callable[[sqlite3.Connection], _T],
        nothing_of_it: Callable[[sqlite3.Connection], bool] = lambda db: False,
    ) -> _T:
        """Run *work* in one transaction. A `StoreError` from here says whether its outcome is known.

        *nothing_of_it*: whether the database shows that nothing of *work* is in it.
        """
        db, opening = self._db, self._opening
        try:
            db.execute("BEGIN IMMEDIATE")
            if opening is not None:
                opening.write(db)
            result = work(db)
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        try:
            db.execute("COMMIT")
        except sqlite3.Error as exc:
            error = explain(exc, self.path)
            if db.in_transaction:
                # Nothing was made last.
                db.execute("ROLLBACK")
            elif (getattr(exc, "sqlite_errorname", "") or "").startswith(WRITE_FAILED):
                # A full disk: SQLite has rolled back by itself, and can still be asked.
                error.outcome_known = nothing_of_it(db)
            else:
                error.outcome_known = False
            raise error from exc
        self._opening = None
        return result

    def _for_good(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Run *work* in one transaction that also the loss of power does not undo."""
        self._db.execute("PRAGMA synchronous=FULL")
        try:
            self._transaction(work)
        finally:
            self._db.execute(f"PRAGMA synchronous={self._synchronous.upper()}")

    # -- opening and closing

    async def open(self) -> None:
        """Open or create the database.

        Raises:
            UnsuitableDirectoryError: it is on a network file system.
            ConfigurationError: it is in use, of a newer version, or not a database of ours.
        """
        try:
            await self._read(self._open)
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
        db = self._connection = self._connect()
        version = schema.version_of(db, self.path)
        opening = self._opening = self._decide(db, version)
        self.epoch = opening.meta["epoch"]
        try:
            self._transaction(lambda db: None)
        except (StoreError, sqlite3.Error) as exc:
            error = exc if isinstance(exc, StoreError) else explain(exc, self.path)
            if error.code != "read_only" or version < SCHEMA_VERSION:
                raise error from exc
            log.error("%s. What is there is served; nothing is taken until it can be written.", error)
        schema.check(db, self.path)

    def _connect(self) -> sqlite3.Connection:
        wal = self.path.with_name(self.path.name + "-wal")
        if self.path.exists() and filesystem.is_read_only(self.path):
            if wal.exists() and wal.stat().st_size:
                raise ConfigurationError(
                    f"{self.path} is on a read-only file system and was not closed properly: it cannot be "
                    f"read without being written. Copy it together with {wal.name} to where it can be, or "
                    "have the file system mounted for writing"
                )
            # Nobody can change it, so no locks are needed, which could not be had either.
            return self._connection_to(f"{self.path.absolute().as_uri()}?immutable=1", uri=True)
        new = not self.path.exists()
        if new:
            # Sessions may hold what only their user may read.
            try:
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            except OSError as exc:
                raise ConfigurationError(f"{self.path} cannot be made: {exc.strerror or exc}") from exc
        db = self._connection = self._connection_to(str(self.path), uri=False)
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        if new:
            # Only an empty file can be told so: what is deleted can be given back to the system.
            db.execute("PRAGMA auto_vacuum=INCREMENTAL")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={self._synchronous.upper()}")
        db.execute("PRAGMA cache_size=-16000")
        db.execute("PRAGMA secure_delete=ON")  # what is removed is overwritten, not only unlinked
        return db

    def _connection_to(self, database: str, *, uri: bool) -> sqlite3.Connection:
        return sqlite3.connect(database, uri=uri, isolation_level=None, check_same_thread=False, timeout=2.0)

    def _decide(self, db: sqlite3.Connection, version: int) -> _Opening:
        """What opening the file means, without writing anything."""
        meta = dict(db.execute("SELECT key, value FROM meta").fetchall()) if version else {}
        boot = host.boot_id() if self._boot_id is None else self._boot_id
        unclean = meta.get("clean") == "0"
        may_have_lost = unclean and meta.get("boot_id") != boot and meta.get("synchronous") != "full"
        minted = "epoch" not in meta or may_have_lost
        if minted:
            meta["epoch"] = self._token_hex(8)
        meta.update(clean="0", boot_id=boot, synchronous=self._synchronous)
        return _Opening(version, meta, minted)

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

    async def check(self, *, room: int = 0) -> None:
        def write(db: sqlite3.Connection) -> None:
            # A changed row, so that the transaction really writes.
            db.execute("INSERT INTO meta VALUES ('checked', '1') ON CONFLICT DO UPDATE SET value = value + 1")

        await self._run(lambda: self._transaction(write))
        if room:
            await self._run(lambda: filesystem.find_room(self.path.with_name(self.path.name + ".room"), room))

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

    async def compact(self) -> None:
        def pages() -> tuple[int, int]:
            count, free = (self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in _PAGE_COUNTS)
            return count, free

        count, free = await self._run(pages)
        while free > max(_SPARE_PAGES, count // 4):
            # In small parts, so that commits come in between. Files of before schema 4 give nothing back.
            await self._run(lambda: self._db.execute(f"PRAGMA incremental_vacuum({_SPARE_PAGES})").fetchall())
            before, (count, free) = free, await self._run(pages)
            if free >= before:
                return

    async def listings(self) -> list[tuple[Listing, bool]]:
        return await self._read(lambda: reading.listings(self._db, self.path))

    async def load(self, session: str) -> StoredSession | None:
        parts = self._load(session)
        while True:
            ended, stored = await self._read(partial(_next, parts))
            if ended:
                return stored

    def _load(self, session: str) -> Generator[None, None, StoredSession | None]:
        minted = self._opening is not None and self._opening.minted
        return (
            yield from reading.session(self._db, self.path, session, new_epoch=self.epoch if minted else "")
        )

    async def commit(self, commits: Sequence[Commit]) -> None:
        def write(db: sqlite3.Connection) -> None:
            for commit in commits:
                self._write(db, commit)

        await self._run(lambda: self._transaction(write, lambda db: unwritten(db, commits)))

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
            "INSERT INTO sessions (id, epoch, head, attention, listing, digest) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, head = excluded.head,"
            " attention = excluded.attention, listing = coalesce(excluded.listing, listing),"
            " digest = excluded.digest",
            (
                session,
                commit.epoch,
                new_head,
                commit.attention,
                None if commit.listing is None else _encode(commit.listing),
                commit.digest,
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

        return await self._read(read)

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
            for table in PER_SESSION:
                db.execute(f"DELETE FROM {table} WHERE session = ?", (session,))  # noqa: S608  # our own names

        def delete_for_good() -> None:
            self._for_good(delete)
            # The log of changes still has what was written before. It is removed all the same if that fails.
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

        await self._run(delete_for_good)
        await self._run_blob(lambda: self._blobs.remove_session(session))

    async def tombstone(self, session: str) -> int | None:
        def read() -> int | None:
            row = self._db.execute("SELECT at FROM tombstones WHERE session = ?", (session,)).fetchone()
            return None if row is None else int(row[0])

        return await self._read(read)

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

        return await self._read(read)

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
            lambda: self._for_good(
                lambda db: db.execute("INSERT OR REPLACE INTO revocations VALUES (?, ?)", (jti, expires))
            )
        )

    async def revoked(self) -> dict[str, int]:
        return await self._read(
            lambda: {
                str(jti): int(expires)
                for jti, expires in self._db.execute("SELECT jti, expires FROM revocations")
            }
        )

    async def forget_revocations(self, *, before: int) -> None:
        await self._run(
            lambda: self._transaction(
                lambda db: db.execute("DELETE FROM revocations WHERE 0 < expires AND expires < ?", (before,))
            )
        )
