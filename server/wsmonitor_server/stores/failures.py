"""What went wrong with a SQLite file, in words for people, and what is certain about a failed commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from .base import Commit, StoreError

WRITE_FAILED: Final = ("SQLITE_FULL", "SQLITE_IOERR_WRITE")
"""After these SQLite has rolled back by itself, and can still be asked."""

DAMAGED: Final = "restore it from a copy, or use another file"


def unwritten(db: sqlite3.Connection, commits: Sequence[Commit]) -> bool:
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


def damaged(path: Path, session: str, why: object) -> StoreError:
    """What is stored of one session cannot be what was written."""
    return StoreError(f"what is stored of session {session!r} is damaged ({why}): {DAMAGED}", place=str(path))


def unreadable(path: Path, why: object) -> StoreError:
    """There is something in the file that no program of ours has written."""
    return StoreError(f"the file is damaged ({why}): {DAMAGED}", place=str(path))


def explain(exc: sqlite3.Error, path: Path) -> StoreError:
    """What happened, in words for people. Clients are not told where on the server's disk it was."""
    name = getattr(exc, "sqlite_errorname", "") or ""
    place = str(path)
    if name.startswith("SQLITE_FULL"):
        return StoreError("the disk is full", code="read_only", place=place)
    if name.startswith("SQLITE_IOERR_WRITE"):
        # A quota or a limit on the size of files looks like this, too.
        return StoreError("the system refuses to write the database", code="read_only", place=place)
    if name.startswith("SQLITE_READONLY"):
        return StoreError("the database cannot be written: it is read-only", code="read_only", place=place)
    if name.startswith("SQLITE_CANTOPEN"):
        return StoreError("the database cannot be opened", code="read_only", place=place)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreError("the database is in use by another server", place=place)
    # We violate no constraint. What is no UTF-8 in a text is found by Python, which gives that no name.
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_CONSTRAINT")) or "Could not decode" in str(
        exc
    ):
        return StoreError(f"the file is damaged, or not a database ({exc}): {DAMAGED}", place=place)
    return StoreError(f"the database failed: {exc}" + (f" [{name}]" if name else ""), place=place)
