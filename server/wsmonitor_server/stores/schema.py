"""The SQLite store's tables: how they are made, brought up to date, and recognised.

``user_version`` in the file's header is the schema's version. A file of an earlier version is
brought up to date in the transaction that opens it: all of it or nothing. One of a later version is
refused, because what this program does not know it would not keep.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from wsmonitor.protocol.errors import ConfigurationError

_FIRST: Final = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE sessions (id TEXT PRIMARY KEY, epoch TEXT NOT NULL, head INTEGER NOT NULL,"
    " attention INTEGER NOT NULL, listing BLOB) WITHOUT ROWID",
    "CREATE TABLE entities (session TEXT, kind TEXT, id TEXT, data BLOB NOT NULL,"
    " PRIMARY KEY (session, kind, id)) WITHOUT ROWID",
    "CREATE TABLE events (session TEXT, seq INTEGER, data BLOB NOT NULL, PRIMARY KEY (session, seq))"
    " WITHOUT ROWID",
    "CREATE TABLE producers (session TEXT, producer TEXT, subject TEXT NOT NULL, epoch INTEGER NOT NULL,"
    " accepted INTEGER NOT NULL, PRIMARY KEY (session, producer)) WITHOUT ROWID",
    "CREATE TABLE logs (session TEXT, step TEXT, n INTEGER, data BLOB NOT NULL,"
    " PRIMARY KEY (session, step, n)) WITHOUT ROWID",
    'CREATE TABLE "values" (session TEXT, sha256 TEXT, PRIMARY KEY (session, sha256)) WITHOUT ROWID',
    "CREATE TABLE runs (name TEXT PRIMARY KEY, run INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE tombstones (session TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE revocations (jti TEXT PRIMARY KEY, expires INTEGER NOT NULL) WITHOUT ROWID",
)

STEPS: Final[tuple[tuple[str, ...], ...]] = (
    _FIRST,
    # 2: the finished commands whose records left the state
    (
        "CREATE TABLE retired_commands (session TEXT, key TEXT, data BLOB NOT NULL,"
        " PRIMARY KEY (session, key)) WITHOUT ROWID",
    ),
    # 3: who opened a producer last
    ("ALTER TABLE producers ADD COLUMN holder TEXT NOT NULL DEFAULT ''",),
    # 4: the digest over the session's entities at its head; '' where none was written yet
    ("ALTER TABLE sessions ADD COLUMN digest TEXT NOT NULL DEFAULT ''",),
)
"""What brings a file from version 0, 1, 2 … to the next."""

SCHEMA_VERSION: Final = len(STEPS)

COLUMNS: Final[dict[str, frozenset[str]]] = {
    "meta": frozenset({"key", "value"}),
    "sessions": frozenset({"id", "epoch", "head", "attention", "listing", "digest"}),
    "entities": frozenset({"session", "kind", "id", "data"}),
    "events": frozenset({"session", "seq", "data"}),
    "producers": frozenset({"session", "producer", "subject", "epoch", "accepted", "holder"}),
    "logs": frozenset({"session", "step", "n", "data"}),
    "values": frozenset({"session", "sha256"}),
    "runs": frozenset({"name", "run"}),
    "tombstones": frozenset({"session", "at"}),
    "revocations": frozenset({"jti", "expires"}),
    "retired_commands": frozenset({"session", "key", "data"}),
}
"""The tables of the latest version. A column that is not needed any more stays, and is not here."""

PER_SESSION: Final = ("entities", "events", "producers", "logs", "retired_commands", '"values"')
"""The tables whose rows go with their session."""


def version_of(db: sqlite3.Connection, path: Path) -> int:
    """The file's version; 0 for a new one.

    Raises:
        ConfigurationError: it is of a newer version, or of another program.
    """
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise ConfigurationError(
            f"{path} was written by a newer wsmonitor (schema {version}; this one knows up to "
            f"{SCHEMA_VERSION}): upgrade, or use another file"
        )
    if version == 0 and db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise ConfigurationError(f"{path} is a database, but not one of wsmonitor's")
    return version


def bring_up_to_date(db: sqlite3.Connection, version: int) -> None:
    """Make what *version* lacks; within the caller's transaction."""
    for step in STEPS[version:]:
        for statement in step:
            db.execute(statement)
    if version < SCHEMA_VERSION:
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def check(db: sqlite3.Connection, path: Path) -> None:
    """Raise `ConfigurationError` where a table or column of the latest version is not there."""
    for table, columns in COLUMNS.items():
        there = {row[1] for row in db.execute(f'PRAGMA table_info("{table}")')}
        if missing := columns - there:
            what = f"table {table!r}" if not there else f"column {sorted(missing)[0]!r} of {table!r}"
            raise ConfigurationError(
                f"{path} says that it is a database of wsmonitor's schema {SCHEMA_VERSION}, but has no "
                f"{what}: restore it, or use another file"
            )
