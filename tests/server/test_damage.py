"""What became of the file behind the server's back: told in words, never taken for what was written."""

from __future__ import annotations

import asyncio
import os
import random
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.scale import many
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange
from wsmonitor.protocol.errors import ConfigurationError
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.engine import SessionEngine
from wsmonitor_server.ports import Refusal
from wsmonitor_server.retention import Retention
from wsmonitor_server.stores.base import StoreError
from wsmonitor_server.stores.sqlite import SqliteStore

from .support import Listener, Publisher, engine_on

SESSIONS = ("a~1", "b~1", "c~1")


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A database with three sessions of forty steps each, properly closed."""
    file = tmp_path / "store.sqlite3"
    engine, _ = engine_on(SqliteStore(file))
    await engine.start()
    for session in SESSIONS:
        publisher = await Publisher(engine, session).open()
        await publisher.put(SessionChange(name=session[0], state="running"), ChainChange(id="c", name="c"))
        await publisher.put(
            *(StepChange(id=f"s{n}", chain="c", name=f"step {n} {'x' * 80}") for n in range(40))
        )
        await publisher.handle.close(goodbye=True)
    await engine.stop()
    return file


def change(path: Path, statement: str, *values: object) -> None:
    """Change the file as no program of ours does."""
    connection = sqlite3.connect(path)
    assert connection.execute(statement, values).rowcount > 0
    connection.commit()
    connection.close()


async def watched(engine: SessionEngine, session: str) -> SessionState | str:
    """What an observer sees, or the code of the refusal."""
    listener = Listener()
    refused: Refusal | None = None
    try:
        await listener.sync(engine, session)
    except Refusal as exc:
        refused = exc
    if refused is not None:
        assert "store.sqlite3" not in refused.info.message, "clients need not know the server's folders"
        return refused.info.code
    assert listener.replica is not None
    return listener.replica


async def seen(engine: SessionEngine, session: str) -> int | str:
    """How many steps an observer sees, or the code of the refusal."""
    state = await watched(engine, session)
    return state if isinstance(state, str) else len(state.steps)


async def digest(engine: SessionEngine, session: str) -> str:
    """The digest of what an observer sees, or the code of the refusal."""
    state = await watched(engine, session)
    return state if isinstance(state, str) else state.digest


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE entities SET data = replace(data, 'step 7 ', 'step 8 ') WHERE session = 'b~1'",
        "UPDATE entities SET data = X'00' WHERE session = 'b~1' AND id = 's7'",
        "DELETE FROM entities WHERE session = 'b~1' AND id = 's7'",
        "UPDATE entities SET kind = 'dance' WHERE session = 'b~1' AND id = 's7'",
        "UPDATE sessions SET digest = 'ffffffffffffffffffffffffffffffff' WHERE id = 'b~1'",
    ],
)
async def test_a_session_that_is_not_what_was_written_is_refused_and_the_others_are_served(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    change(path, damage.replace("replace(data", "replace(CAST(data AS TEXT)"))
    engine, _ = engine_on(SqliteStore(path))
    await engine.start()
    assert [await seen(engine, session) for session in SESSIONS] == [40, "store_failed", 40]
    with pytest.raises(Refusal, match=r"b~1.*is damaged.*restore it") as caught:
        await Publisher(engine, "b~1").open()
    assert caught.value.info.code == "store_failed"
    await engine.stop()


async def test_a_damaged_session_with_an_open_producer_does_not_keep_the_server_from_starting(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change(path, "UPDATE sessions SET attention = 1, digest = 'f' WHERE id = 'b~1'")
    engine, _ = engine_on(SqliteStore(path))
    await engine.start()
    await engine.attended()
    assert "session b~1 cannot be loaded" in caplog.text
    assert await seen(engine, "a~1") == 40
    await engine.stop()


async def test_a_damaged_line_of_the_directory_is_told_and_comes_again(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change(path, "UPDATE sessions SET listing = X'7B7B' WHERE id = 'b~1'")
    engine, _ = engine_on(SqliteStore(path))
    await engine.start()
    assert "the line of session 'b~1' in the directory is damaged" in caplog.text

    async def listed() -> set[str]:
        listener = Listener()
        await listener.sync(engine, "/directory")
        assert listener.replica is not None
        return set(listener.replica.listings)

    assert await listed() == {"a~1", "c~1"}
    assert await seen(engine, "b~1") == 40
    publisher = await Publisher(engine, "b~1").open()
    await publisher.put(SessionChange(name="b", reason="goes on"))
    assert await listed() == set(SESSIONS)
    await engine.stop()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE events SET data = X'7B7D' WHERE session = 'b~1' AND seq = 30",
        "UPDATE events SET data = substr(data, 1, 20) WHERE session = 'b~1' AND seq = 30",
        "DELETE FROM events WHERE session = 'b~1' AND seq = 30",
    ],
)
async def test_a_damaged_event_ends_the_history_before_it_and_who_missed_it_is_told_of_a_gap(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine, _ = engine_on(SqliteStore(path))
    await engine.start()
    listener = Listener()
    await listener.sync(engine, "b~1")
    position = listener.position()
    await engine.stop()
    change(path, damage)
    engine, _ = engine_on(SqliteStore(path))
    await engine.start()
    page = await engine.history("b~1", 1, 1_000, 1)
    assert (page.first_kept, len(page.events)) == (31, position.seq - 30)
    assert "event 30 of session 'b~1' is damaged" in caplog.text
    behind = Listener()
    await behind.sync(engine, "b~1", type(position)(epoch=position.epoch, seq=10, digest=""))
    assert (behind.gaps, behind.position()) == ([(11, position.seq)], position)
    await engine.stop()


def rubbish(data: bytearray, rng: random.Random) -> None:
    """A page of the file is overwritten."""
    page = rng.randrange(len(data) // 4096)
    data[page * 4096 : (page + 1) * 4096] = rng.randbytes(4096)


def flip(data: bytearray, rng: random.Random) -> None:
    """A bit of a record is another, which SQLite does not notice."""
    record = rng.choice(list(re.finditer(rb'\{"id":"[^}]*\}', bytes(data))))
    data[rng.randrange(record.start(), record.end())] ^= 1 << rng.randrange(8)


@pytest.mark.parametrize("spoil", [rubbish, flip])
async def test_whatever_happens_to_the_file_a_session_is_as_it_was_written_or_refused(
    path: Path, tmp_path: Path, spoil: Callable[[bytearray, random.Random], None]
) -> None:
    rng = random.Random(20_261_123)
    whole = path.read_bytes()  # noqa: ASYNC240  # nothing else runs on this loop
    engine, _ = engine_on(SqliteStore(path))
    await engine.start()
    digests = {session: await digest(engine, session) for session in SESSIONS}
    await engine.stop()
    outcomes: list[str] = []
    for trial in range(many(12)):
        data = bytearray(whole)
        spoil(data, rng)
        file = tmp_path / f"{trial}.sqlite3"
        file.write_bytes(bytes(data))
        engine, _ = engine_on(SqliteStore(file))
        words = ""
        try:
            await engine.start()
        except ConfigurationError as exc:
            words = str(exc)
        if words:
            assert "damaged" in words
            continue
        for session in SESSIONS:
            outcome = await digest(engine, session)
            assert outcome in (digests[session], "store_failed"), (trial, session)
            outcomes.append(outcome)
        await engine.stop()
    assert set(digests.values()) <= set(outcomes)
    if spoil is rubbish:
        assert "store_failed" in outcomes


@contextmanager
def no_file_grows_beyond(size: int) -> Iterator[None]:
    """What a full disk does to programs, without one: writes beyond *size* bytes of any file fail."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


limited = pytest.mark.skipif(os.name != "posix", reason="not here: needs resource limits")


@limited
@pytest.mark.parametrize("boot", ["one", "two"])
async def test_a_server_that_starts_on_a_full_disk_shows_what_is_there_and_goes_on_when_there_is_room(
    path: Path, boot: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Read-only service: observers see everything; publishers are refused with a code, and lose nothing."""
    if boot == "two":
        # It was not closed properly, under another boot of the system: its last commits may be missing.
        change(path, "UPDATE meta SET value = '0' WHERE key = 'clean'")
        change(path, "UPDATE meta SET value = 'one' WHERE key = 'boot_id'")
    connection = sqlite3.connect(path)
    [(before,)] = connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchall()
    connection.close()
    engine, _ = engine_on(SqliteStore(path, boot_id=boot))
    with no_file_grows_beyond(0):
        await engine.start()
        assert "What is there is served" in caplog.text
        assert [await seen(engine, session) for session in SESSIONS] == [40, 40, 40]
        epoch = engine.heads(["a~1"])["a~1"][0]
        assert (epoch == before) is (boot == "one")
        with pytest.raises(Refusal) as caught:
            await Publisher(engine, "a~1").open()
        assert (caught.value.info.code, caught.value.info.retryable) == ("read_only", True)
        with pytest.raises(StoreError):
            await engine.ready()
        with pytest.raises(Refusal, match="refuses to write"):
            await engine.revoke("token", 1)
        assert not engine.revoked("token"), "what was not kept is not acknowledged"
    await engine.ready()
    publisher = await Publisher(engine, "a~1").open()
    await publisher.put(StepChange(id="later", chain="c", name="later"))
    assert engine.heads(["a~1"])["a~1"][0] == epoch, "the epoch that observers were told stays"
    await engine.stop()
    again = SqliteStore(path, boot_id=boot)
    await again.open()
    stored = await again.load("a~1")
    assert stored is not None
    assert (stored.state.epoch, "later" in stored.state.steps) == (epoch, True)
    await again.close()


@limited
async def test_a_new_database_needs_room(tmp_path: Path) -> None:
    with no_file_grows_beyond(0), pytest.raises(ConfigurationError, match="refuses to write"):
        await SqliteStore(tmp_path / "new.sqlite3").open()


async def test_a_large_session_is_made_ready_in_a_thread_and_is_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsmonitor_server.sessions._LARGE", 1)
    engine, _ = engine_on(SqliteStore(path))
    await engine.start()
    both = await asyncio.gather(seen(engine, "a~1"), seen(engine, "a~1"))
    assert both == [40, 40]
    publisher = await Publisher(engine, "a~1").open()
    await publisher.put(StepChange(id="more", chain="c", name="more"))
    assert await seen(engine, "a~1") == 41
    await engine.stop()


async def test_the_file_shrinks_when_what_filled_it_is_removed(tmp_path: Path) -> None:
    file = tmp_path / "store.sqlite3"
    engine, clock = engine_on(SqliteStore(file), retention=Retention(max_sessions=1, interval=60.0))
    await engine.start()
    for number in range(2):
        publisher = await Publisher(engine, f"s~{number}").open()
        steps = 4_000 if number == 0 else 10
        await publisher.put(SessionChange(name="s", state="running"), ChainChange(id="c", name="c"))
        for begin in range(0, steps, 200):
            await publisher.put(
                *(
                    StepChange(id=f"s{n}", chain="c", name="x" * 100, reason="y" * 1_000)
                    for n in range(begin, min(steps, begin + 200))
                )
            )
        await publisher.put(SessionChange(state="succeeded"))
        await publisher.handle.close(goodbye=True)
        clock.advance(1)
    store = engine.store
    assert isinstance(store, SqliteStore)
    await store._run(lambda: store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
    large = file.stat().st_size
    clock.advance(61)
    engine.handle_timeout()
    await engine.settle()
    assert [listing.id for listing, _ in await store.listings()] == ["s~1"]
    await store._run(lambda: store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
    assert file.stat().st_size < large / 2
    assert await seen(engine, "s~1") == 10
    await engine.stop()
