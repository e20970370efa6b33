"""Whatever is committed to Redis, it has what a store in memory has: random commits, compared after each."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.redis_server import RedisServer
from tests.scale import many
from wsmonitor.protocol.codec import encode, encode_record
from wsmonitor.protocol.entities import Chain, Command, Listing, LogRecord, Session
from wsmonitor.protocol.messages import Event
from wsmonitor_server.stores.base import Commit, ProducerPosition, Store, StoredSession
from wsmonitor_server.stores.memory import MemoryStore
from wsmonitor_server.stores.redis import reading
from wsmonitor_server.stores.redis.store import RedisStore

SESSIONS = ("s~1", "s~1:e", "ü s")
KEPT = 3

small = st.integers(0, 3)
changes = st.fixed_dictionaries(
    {
        "session": st.sampled_from(SESSIONS),
        "chains": st.lists(st.sampled_from("abcdef"), max_size=6),
        "drops": st.sets(st.sampled_from("abcdef"), max_size=2),
        "trim": st.booleans(),
        "epoch": st.integers(0, 9).map(lambda drawn: drawn == 0),
        "producers": st.dictionaries(st.sampled_from("pq"), small, max_size=2),
        "logs": st.lists(st.sampled_from(["x", "x:h", "y"]), max_size=5),
        "values": st.sets(st.sampled_from(["10", "11", "12"]), max_size=2),
        "released": st.sets(st.sampled_from(["10", "11", "12"]), max_size=2),
        "retired": st.sets(st.sampled_from(["0" * 32, "1" * 32]), max_size=1),
        "listed": st.booleans(),
        "attention": st.booleans(),
        "remove": st.integers(0, 9).map(lambda drawn: drawn == 0),
    }
)


class Twins:
    """The same commits, to both."""

    def __init__(self, redis: RedisStore) -> None:
        self.memory = MemoryStore(log_records=KEPT, token_hex=lambda size: redis.epoch)
        self.redis = redis
        self.heads: dict[str, tuple[str, int, int]] = {}
        self.lines: dict[tuple[str, str], int] = {}
        self.epochs = 0

    async def apply(self, drawn: dict[str, Any]) -> None:
        session = drawn["session"]
        assert isinstance(session, str)
        if drawn["remove"]:
            for store in (self.memory, self.redis):
                await store.remove(session, at=7)
            self.heads.pop(session, None)
            self.lines = {key: n for key, n in self.lines.items() if key[0] != session}
        commit = self.commit(session, drawn)
        for store in (self.memory, self.redis):
            await store.commit([commit])
        self.heads[session] = (
            commit.epoch,
            commit.events[-1][0] if commit.events else commit.expected_head,
            commit.version + 1,
        )

    def commit(self, session: str, drawn: dict[str, Any]) -> Commit:
        epoch, head, version = self.heads.get(session, (self.redis.epoch, 0, 0))
        if drawn["epoch"] and version:
            self.epochs += 1
            epoch = f"epoch{self.epochs}"
        commit = Commit(session, epoch, head, version=version)
        for seq, name in enumerate(["", *drawn["chains"]] if head == 0 else drawn["chains"], head + 1):
            entity: Session | Chain = (
                Chain(id=name, name="ö", seq=seq) if name else Session(id=session, name="s", seq=seq)
            )
            kind = "chain" if name else "session"
            record = encode_record(entity)
            event = Event(topic=session, epoch=epoch, seq=seq, ts="1", kind=kind, entity=record)
            commit.events.append((seq, encode(event)))
            commit.entities[kind, entity.id] = bytes(record)
        names = {ident for _, ident in commit.entities}
        commit.drops = {("chain", one) for one in drawn["drops"] if one not in names}
        commit.producers = {
            one: ProducerPosition(one, "älice", 1, accepted) for one, accepted in drawn["producers"].items()
        }
        for step in drawn["logs"]:
            self.lines[session, step] = number = self.lines.get((session, step), 0) + 1
            commit.logs.append((step, LogRecord(n=number, at="1", text='"n":9 ü')))
        commit.values = set(drawn["values"])
        commit.released = set(drawn["released"])
        for key in drawn["retired"]:
            command = Command(id=key, name="stop", deadline="2", requested="1", state="applied", seq=1)
            commit.retired[key] = bytes(encode_record(command))
        if drawn["trim"]:
            commit.first_kept = max(1, head - 1)
        commit.listing = Listing(id=session, name="s", seq=head) if drawn["listed"] else None
        commit.attention = bool(drawn["attention"])
        return commit

    async def compare(self) -> None:
        for session in SESSIONS:
            assert seen(await self.redis.load(session)) == seen(await self.memory.load(session))
            for step in ("x", "x:h", "y"):
                for first, limit in ((1, 10), (3, 1)):
                    asked = (session, step, first, limit)
                    assert await self.redis.logs(*asked) == await self.memory.logs(*asked)
            for key in ("0" * 32, "1" * 32):
                assert await self.redis.retired_command(session, key) == await self.memory.retired_command(
                    session, key
                )
            assert await self.redis.tombstone(session) == await self.memory.tombstone(session)
        assert await lines(self.redis) == await lines(self.memory)


async def lines(store: Store) -> list[tuple[str, str, bool]]:
    return sorted((one.id, one.state, attention) for one, attention in await store.listings())


def seen(stored: StoredSession | None) -> object:
    """All of it, without the version, which memory does not count."""
    if stored is None:
        return None
    state = stored.state
    return (
        (state.epoch, state.seq, state.digest),
        stored.producers,
        stored.history,
        stored.values,
        stored.size,
        stored.retired,
    )


@settings(max_examples=many(15), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(changes, min_size=1, max_size=12), parts=st.booleans())
def test_it_has_what_memory_has(redis_server: RedisServer, drawn: list[dict[str, Any]], parts: bool) -> None:
    async def run() -> None:
        store = RedisStore(f"{redis_server.url}?prefix={secrets.token_hex(6)}:", log_records=KEPT)
        await store.open()
        try:
            twins = Twins(store)
            for one in drawn:
                await twins.apply(one)
                await twins.compare()
        finally:
            await store.close()

    # Read at once, or in parts, as if every session of two entities were a large one.
    before = reading.AT_ONCE
    reading.AT_ONCE = 1 if parts else before
    try:
        asyncio.run(run())
    finally:
        reading.AT_ONCE = before
