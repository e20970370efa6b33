"""Reading a session back from the SQLite store, and seeing to it that it is what was written.

SQLite notices a page that cannot be one; it does not notice a changed byte inside a record. So
what is read must be records, and have the digest that was committed with them.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Generator
from pathlib import Path
from typing import Final

import msgspec

from wsmonitor.protocol.codec import decode_event
from wsmonitor.protocol.entities import Listing
from wsmonitor.protocol.errors import ProtocolError, StateError
from wsmonitor.protocol.reducer import SessionState, decode_entity

from .base import ProducerPosition, StoredSession
from .failures import damaged

log = logging.getLogger(__name__)

AT_ONCE: Final = 2_000
"""Entities that are read in one go (20 ms): what others want of the database meanwhile comes between."""

_WITH_ENTITIES: Final = """
WITH RECURSIVE found (session) AS (
    SELECT min(session) FROM entities
    UNION ALL
    SELECT (SELECT min(session) FROM entities WHERE session > found.session) FROM found
    WHERE found.session IS NOT NULL)
SELECT session FROM found WHERE session IS NOT NULL
"""
"""From one session to the next by the index: it costs nothing that a session has a million entities."""

_ENTITIES: Final = """
SELECT kind, id, data FROM entities
WHERE session = ? AND (kind, id) > (?, ?) ORDER BY kind, id LIMIT ?
"""

_decode_listing: Final = msgspec.json.Decoder(Listing).decode


def session(
    db: sqlite3.Connection, path: Path, ident: str, *, new_epoch: str = ""
) -> Generator[None, None, StoredSession | None]:
    """The session *ident* as it was committed; None where there is none.

    A generator, to be run in parts: a million entities take many seconds. Nobody may write the same session
    before it has ended; what is done to others in between does not matter.

    Args:
        path: the file, for the log.
        new_epoch: a new epoch that the file may not have yet; no history is taken over into it.

    Raises:
        StoreError: what is stored cannot be what was committed.
    """
    row = db.execute("SELECT epoch, head, digest FROM sessions WHERE id = ?", (ident,)).fetchone()
    if row is None:
        if db.execute("SELECT 1 FROM entities WHERE session = ? LIMIT 1", (ident,)).fetchone():
            raise damaged(path, ident, "its own record is missing")
        return None
    epoch, head, digest = row
    state = SessionState(ident, new_epoch or epoch, head)
    size = 0
    last = ("", "")
    while rows := db.execute(_ENTITIES, (ident, *last, AT_ONCE)).fetchall():
        for kind, _, data in rows:
            try:
                entity = decode_entity(kind, data)
            except StateError as exc:
                raise damaged(path, ident, exc) from exc
            if entity is None:
                raise damaged(path, ident, f"an entity of kind {kind!r}, which is not known")
            state.put(kind, entity)
            size += len(data)
        last = rows[-1][:2]
        if len(rows) < AT_ONCE:
            break
        yield
    if digest and digest != state.digest:
        raise damaged(path, ident, f"its digest is {state.digest}, and was {digest}")
    producers = {
        row[0]: ProducerPosition(*row)
        for row in db.execute(
            "SELECT producer, subject, epoch, accepted, holder FROM producers WHERE session = ?", (ident,)
        )
    }
    kept = [] if new_epoch else history(db, path, ident, epoch, head)
    values = {row[0] for row in db.execute('SELECT sha256 FROM "values" WHERE session = ?', (ident,))}
    retired = db.execute("SELECT count(*) FROM retired_commands WHERE session = ?", (ident,)).fetchone()
    return StoredSession(state, producers, kept, values, size, retired[0])


def history(db: sqlite3.Connection, path: Path, ident: str, epoch: str, head: int) -> list[tuple[int, bytes]]:
    """The kept events up to *head*, without a hole: of what a damaged one precedes, nothing is taken."""
    kept: list[tuple[int, bytes]] = []
    rows = db.execute("SELECT seq, data FROM events WHERE session = ? ORDER BY seq DESC", (ident,))
    for expected, (seq, data) in zip(range(head, 0, -1), rows, strict=False):
        try:
            event = decode_event(data)
            whole = seq == expected and (event.topic, event.epoch, event.seq) == (ident, epoch, seq)
        except (ProtocolError, TypeError):
            whole = False
        if not whole:
            log.error("%s: event %d of session %r is damaged: no history up to it", path, expected, ident)
            break
        kept.append((seq, bytes(data)))
    kept.reverse()
    return kept


def listings(db: sqlite3.Connection, path: Path) -> list[tuple[Listing, bool]]:
    """Every session's line, and whether it needs attention; also of those whose own record is missing."""
    rows = db.execute("SELECT id, listing, attention FROM sessions").fetchall()
    found = [(listing(path, ident, data), bool(attention)) for ident, data, attention in rows]
    for ident in {ident for (ident,) in db.execute(_WITH_ENTITIES)} - {ident for ident, _, _ in rows}:
        log.error("%s: the record of session %r is missing", path, ident)
        found.append((Listing(id=ident, name="", state="absent"), False))
    return found


def listing(path: Path, ident: str, data: bytes | None) -> Listing:
    """The session's line in the directory; without name and ``absent`` where there is none."""
    if data is not None:
        try:
            return _decode_listing(data)
        except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as exc:
            # It comes again with the session's next commit.
            log.error("%s: the line of session %r in the directory is damaged: %s", path, ident, exc)
    return Listing(id=ident, name="", state="absent")
