"""The contract of `stores.base`, held against every store."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from wsmonitor.protocol.codec import encode, encode_record
from wsmonitor.protocol.entities import Chain, Command, Listing, LogRecord, Session
from wsmonitor.protocol.messages import Event
from wsmonitor_server.stores.base import Commit, MovedError, ProducerPosition, Store, StoreError
from wsmonitor_server.stores.memory import MemoryStore
from wsmonitor_server.stores.redis.store import RedisStore
from wsmonitor_server.stores.sqlite import SqliteStore


def make(kind: str, request: pytest.FixtureRequest) -> Store:
    if kind == "memory":
        return MemoryStore(log_records=3)
    if kind in ("redis", "valkey"):
        return RedisStore(request.getfixturevalue(f"{kind}_url"), log_records=3)
    return SqliteStore(request.getfixturevalue("tmp_path") / "store.sqlite3", log_records=3)


@pytest.fixture(params=["memory", "sqlite", "redis", "valkey"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    made = make(request.param, request)
    await made.open()
    yield made
    await made.close()


def an_event(epoch: str, kind: str, entity: Session | Chain) -> tuple[int, bytes]:
    event = Event(topic="s~1", epoch=epoch, seq=entity.seq, ts="1", kind=kind, entity=encode_record(entity))
    return entity.seq, encode(event)


def a_commit(store: Store, head: int = 0, count: int = 2, **more: Any) -> Commit:
    commit = Commit("s~1", store.epoch, head, **more)
    session = Session(id="s~1", name="s", seq=head + 1)
    commit.events.append(an_event(store.epoch, "session", session))
    commit.entities["session", "s~1"] = bytes(encode_record(session))
    for seq in range(head + 2, head + 1 + count):
        chain = Chain(id=f"c{seq}", name="c", seq=seq)
        commit.events.append(an_event(store.epoch, "chain", chain))
        commit.entities["chain", chain.id] = bytes(encode_record(chain))
    return commit


async def test_unknown_session_is_not_loaded(store: Store) -> None:
    assert await store.load("nobody") is None
    assert await store.listings() == []


async def test_retired_commands_are_kept_as_long_as_the_session(store: Store) -> None:
    command = Command(id="0" * 32, name="pause", deadline="2", requested="1", state="applied", seq=1)
    encoded = bytes(encode_record(command))
    await store.commit([a_commit(store, retired={command.id: encoded})])
    await store.commit([a_commit(store, head=2, version=1)])
    stored = await store.load("s~1")
    assert stored is not None
    assert stored.retired == 1
    assert await store.retired_command("s~1", command.id) == command
    assert await store.retired_command("s~1", "1" * 32) is None
    assert await store.retired_command("s~2", command.id) is None
    await store.remove("s~1", at=1)
    assert await store.retired_command("s~1", command.id) is None


async def test_what_is_committed_is_loaded(store: Store) -> None:
    listing = Listing(id="s~1", name="s", run=1)
    position = ProducerPosition("p", "alice", 1, 7)
    await store.commit([a_commit(store, listing=listing, attention=True, producers={"p": position})])
    stored = await store.load("s~1")
    assert stored is not None
    assert (stored.state.epoch, stored.state.seq) == (store.epoch, 2)
    assert set(stored.state.chains) == {"c2"}
    assert stored.producers == {"p": position}
    assert stored.history == a_commit(store).events
    assert stored.size > 0
    assert await store.listings() == [(listing, True)]


async def test_commit_on_another_head_changes_nothing(store: Store) -> None:
    await store.commit([a_commit(store)])
    other = a_commit(store)
    other.session = "other~1"
    with pytest.raises(StoreError) as caught:
        await store.commit([other, a_commit(store, head=1, version=1)])
    assert caught.value.outcome_known
    if isinstance(caught.value, MovedError):
        # Nodes that share a store may have their sessions' tails refused one by one.
        assert caught.value.sessions == {"s~1"}
        made = await store.load("other~1")
        assert made is not None
        assert made.state.seq == 2
    else:
        assert await store.load("other~1") is None
    stored = await store.load("s~1")
    assert stored is not None
    assert stored.state.seq == 2


async def test_drops_trims_and_a_new_epoch(store: Store) -> None:
    await store.commit([a_commit(store, count=4)])
    await store.commit([Commit("s~1", store.epoch, 4, drops={("chain", "c2")}, first_kept=3, version=1)])
    stored = await store.load("s~1")
    assert stored is not None
    assert set(stored.state.chains) == {"c3", "c4"}
    assert [seq for seq, _ in stored.history] == [3, 4]
    await store.commit([Commit("s~1", "another", 4, version=2)])
    stored = await store.load("s~1")
    assert stored is not None
    assert (stored.state.epoch, stored.state.seq, stored.history) == ("another", 4, [])


async def test_logs_are_bounded_per_step(store: Store) -> None:
    records = [("a", LogRecord(n=n, at="1", text=f"line {n}")) for n in range(1, 6)]
    await store.commit([a_commit(store, logs=[*records, ("b", LogRecord(n=1, at="1", text="other"))])])
    kept, first = await store.logs("s~1", "a", 1, 10)
    assert ([one.n for one in kept], first) == ([3, 4, 5], 3)
    kept, first = await store.logs("s~1", "a", 4, 1)
    assert ([one.text for one in kept], first) == (["line 4"], 3)
    assert await store.logs("s~1", "none", 1, 10) == ([], 0)


async def test_run_numbers_are_given_once(store: Store) -> None:
    assert [await store.next_run("a"), await store.next_run("a"), await store.next_run("b")] == [1, 2, 1]


async def test_removal_leaves_a_tombstone_and_nothing_else(store: Store) -> None:
    data = b"x" * 10
    sha = hashlib.sha256(data).hexdigest()
    await store.value_write("s~1", sha, 10, 0, data)
    await store.commit([a_commit(store, values={sha}, logs=[("a", LogRecord(n=1, at="1", text="t"))])])
    await store.remove("s~1", at=5)
    assert await store.load("s~1") is None
    assert await store.tombstone("s~1") == 5
    assert await store.logs("s~1", "a", 1, 10) == ([], 0)
    assert not await store.value_has("s~1", sha)
    await store.remove("never", at=6)
    assert await store.tombstone("never") is None
    await store.forget_tombstones(before=5)
    assert await store.tombstone("s~1") == 5
    await store.forget_tombstones(before=6)
    assert await store.tombstone("s~1") is None


async def test_value_comes_in_pages_and_is_verified(store: Store) -> None:
    data = bytes(range(256)) * 4
    sha = hashlib.sha256(data).hexdigest()
    assert await store.value_begin("s", sha, len(data)) == 0
    assert not await store.value_write("s", sha, len(data), 0, data[:600])
    assert not await store.value_has("s", sha)
    assert await store.value_read("s", sha, 0, 10) is None
    assert await store.value_begin("s", sha, len(data)) == 600
    with pytest.raises(StoreError) as caught:
        await store.value_write("s", sha, len(data), 0, data[:600])
    assert caught.value.code == "out_of_sequence"
    assert await store.value_write("s", sha, len(data), 600, data[600:])
    assert await store.value_has("s", sha)
    assert await store.value_read("s", sha, 1000, 100) == (data[1000:], len(data))
    assert await store.value_begin("s", sha, len(data)) == len(data)


async def test_value_is_its_session_s_alone(store: Store) -> None:
    data = b"secret"
    sha = hashlib.sha256(data).hexdigest()
    await store.value_write("mine", sha, len(data), 0, data)
    assert not await store.value_has("other", sha)
    assert await store.value_read("other", sha, 0, 10) is None


async def test_value_that_is_another_is_discarded(store: Store) -> None:
    sha = hashlib.sha256(b"right").hexdigest()
    for data in (b"wrong", b"too long"):
        with pytest.raises(StoreError) as caught:
            await store.value_write("s", sha, 5, 0, data)
        assert caught.value.code == "value_mismatch"
        assert await store.value_begin("s", sha, 5) == 0


async def test_sweep_deletes_what_nothing_refers_to(store: Store) -> None:
    kept, orphan = b"kept", b"orphan"
    shas = [hashlib.sha256(data).hexdigest() for data in (kept, orphan)]
    for sha, data in zip(shas, (kept, orphan), strict=True):
        await store.value_write("s~1", sha, len(data), 0, data)
    await store.commit([a_commit(store, values={shas[0]})])
    assert await store.value_sweep(older_than=3600) == 0
    assert await store.value_sweep(older_than=-1) == 1
    assert [await store.value_has("s~1", sha) for sha in shas] == [True, False]
    await store.commit([Commit("s~1", store.epoch, 2, released={shas[0]}, version=1)])
    assert await store.value_sweep(older_than=-1) == 1


async def test_revocations(store: Store) -> None:
    await store.revoke("a", 100)
    await store.revoke("b", 200)
    await store.revoke("c", 0)
    await store.forget_revocations(before=150)
    assert await store.revoked() == {"b": 200, "c": 0}


async def test_check_and_size(store: Store) -> None:
    await store.check()
    await store.commit([a_commit(store)])
    assert await store.size() > 0
    assert store.info()["kind"] in ("memory", "sqlite", "redis")
