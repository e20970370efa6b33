"""Databases of all earlier schema versions are taken over, with everything that is in them.

``schemas/N.sql`` is the dump of a database that the program of that time wrote: one session with a
chain, a step, a large value, log records and a finished command; one that was removed; a revocation.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from wsmonitor.protocol.changes import StepChange
from wsmonitor.protocol.entities import Step
from wsmonitor.protocol.errors import ConfigurationError
from wsmonitor_server.stores.base import ProducerPosition
from wsmonitor_server.stores.schema import COLUMNS, PER_SESSION, SCHEMA_VERSION, STEPS
from wsmonitor_server.stores.sqlite import SqliteStore

from .support import Listener, Publisher, engine_on

DUMPS = Path(__file__).parent / "schemas"
EPOCH = "ab" * 8
SHA256 = "834c64d1b8b7fd1b9e9651cd6d99aa3eeef86504cc8066cfa76b89d7f70a7188"


def database(path: Path, version: int) -> Path:
    """A database of an earlier *version*."""
    connection = sqlite3.connect(path)
    connection.executescript((DUMPS / f"{version}.sql").read_text("utf-8"))
    connection.close()
    return path


def test_there_is_a_dump_of_every_version_before_this_one() -> None:
    assert sorted(int(path.stem) for path in DUMPS.glob("*.sql")) == list(range(1, SCHEMA_VERSION))


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
async def test_what_is_in_an_earlier_database_is_taken_over(tmp_path: Path, version: int) -> None:
    store = SqliteStore(database(tmp_path / "store.sqlite3", version), boot_id="boot-1")
    engine, _ = engine_on(store)
    await engine.start()
    try:
        assert engine.epoch == EPOCH
        stored = await store.load("etl~1")
        assert stored is not None
        assert (stored.state.seq, len(stored.history), stored.values) == (9, 9, {SHA256})
        position = stored.producers["p1"]
        assert (position.subject, position.epoch, position.accepted) == ("alice", 1, 7)
        assert len(stored.state.commands) == 1
        assert stored.state.steps["s1"].metrics == {"n": 1.5}
        records, first = await store.logs("etl~1", "s1", 1, 10)
        assert ([record.text for record in records], first) == (["reading", "read"], 1)
        assert await store.revoked() == {"token-7": 2_000_000_000}
        assert await store.tombstone("old~1") == 1_700_000_000_000_000_000
        assert await store.next_run("etl") == 2
        assert [listing.name for listing, _ in await store.listings()] == ["etl"]
        publisher = await Publisher(engine, "etl~1").open()
        assert publisher.opened is not None
        assert (publisher.opened.accepted, publisher.opened.known) == (7, True)
        await publisher.put(StepChange(id="s2", chain="c", name="write"))
        listener = Listener()
        await listener.sync(engine, "etl~1")
        assert listener.replica is not None
        assert listener.replica.seq > 9
    finally:
        await engine.stop()
    again = SqliteStore(tmp_path / "store.sqlite3", boot_id="boot-1")
    await again.open()
    try:
        stored = await again.load("etl~1")
        assert stored is not None
        assert (stored.state.seq, stored.state.digest) == (listener.replica.seq, listener.replica.digest)
        assert isinstance(stored.state.steps["s2"], Step)
    finally:
        await again.close()


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
async def test_a_database_that_is_brought_up_to_date_is_as_a_new_one(tmp_path: Path, version: int) -> None:
    def tables(path: Path) -> dict[str, list[tuple[object, ...]]]:
        connection = sqlite3.connect(path)
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        found = {
            name: connection.execute(f'PRAGMA table_info("{name}")').fetchall() for name in sorted(names)
        }
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        connection.close()
        return found

    for path in (database(tmp_path / "old.sqlite3", version), tmp_path / "new.sqlite3"):
        store = SqliteStore(path)
        await store.open()
        await store.close()
    assert tables(tmp_path / "old.sqlite3") == tables(tmp_path / "new.sqlite3")
    assert {
        name: {str(row[1]) for row in rows} for name, rows in tables(tmp_path / "new.sqlite3").items()
    } == {name: set(columns) for name, columns in COLUMNS.items()}
    assert {name.strip('"') for name in PER_SESSION} < set(COLUMNS)


async def test_a_step_that_fails_leaves_the_earlier_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = database(tmp_path / "store.sqlite3", 1)
    broken = (*STEPS[:2], ("ALTER TABLE producers ADD COLUMN half TEXT", "this is no SQL"), *STEPS[3:])
    monkeypatch.setattr("wsmonitor_server.stores.schema.STEPS", broken)
    with pytest.raises(ConfigurationError, match="syntax error"):
        await SqliteStore(path).open()
    monkeypatch.undo()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert "half" not in str(connection.execute("PRAGMA table_info(producers)").fetchall())
    connection.close()
    store = SqliteStore(path)
    await store.open()
    stored = await store.load("etl~1")
    assert stored is not None
    assert stored.producers["p1"] == ProducerPosition("p1", "alice", 1, 7)
    await store.close()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("DROP TABLE runs", "has no table 'runs'"),
        ("ALTER TABLE sessions DROP COLUMN digest", "has no column 'digest' of 'sessions'"),
    ],
)
async def test_a_database_that_is_not_what_it_says_is_refused(
    tmp_path: Path, damage: str, words: str
) -> None:
    path = tmp_path / "store.sqlite3"
    store = SqliteStore(path)
    await store.open()
    await store.close()
    connection = sqlite3.connect(path)
    connection.execute(damage)
    connection.close()
    with pytest.raises(ConfigurationError, match=words):
        await SqliteStore(path).open()
