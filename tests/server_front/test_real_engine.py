"""Connection side and session side together, over real sockets and both stores."""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from wsmonitor.protocol.defaults import Limits, Timing
from wsmonitor.protocol.messages import (
    Ack,
    Batch,
    CommandReply,
    Deliver,
    Error,
    Event,
    Fenced,
    Presence,
    PublishOpened,
    Rejected,
    Removed,
    Resync,
    SyncBegin,
    Synced,
    SyncPage,
    ValueAck,
    ValuePage,
)
from wsmonitor.protocol.reducer import SessionState, decode_entity
from wsmonitor_server.embedded import EmbeddedServer

from .wire import Client, client

pytestmark = pytest.mark.parametrize("store", ["memory", "sqlite", "redis"])


@pytest.fixture
def where(store: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The setting that leads to a store of this kind."""
    if store == "redis":
        url: str = request.getfixturevalue("redis_url")
        return url
    return "memory" if store == "memory" else f"sqlite:{tmp_path / 'store.sqlite3'}"


@pytest.fixture
async def server(where: str) -> AsyncIterator[EmbeddedServer]:
    timing = Timing(presence_interval=0.05)
    async with EmbeddedServer(store=where, timing=timing) as server:
        yield server


class Publisher:
    """A producer over a bare connection."""

    def __init__(self, one: Client, session: str, producer: str = "p") -> None:
        self.one, self.session, self.producer, self.next, self.epoch = one, session, producer, 1, 0

    async def open(self) -> PublishOpened:
        await self.one.send("publish_open", request=1, session=self.session, producer=self.producer)
        opened = await self.one.expect(PublishOpened)
        self.epoch, self.next = opened.producer_epoch, opened.accepted + 1
        return opened

    async def publish(self, *changes: dict[str, Any]) -> None:
        await self.one.send(
            "publish",
            session=self.session,
            producer=self.producer,
            producer_epoch=self.epoch,
            first=self.next,
            changes=changes,
        )
        self.next += len(changes)
        while (await self.one.expect(Ack)).accepted < self.next - 1:
            pass


def chain(ident: str) -> dict[str, Any]:
    return {"op": "chain", "id": ident, "name": ident}


async def replica(one: Client, topic: str, generation: int = 1) -> SessionState:
    """Subscribe, and build a verified state as a client would."""
    await one.send("subscribe", topic=topic, generation=generation)
    begin = await one.expect(SyncBegin)
    state = SessionState(topic, begin.epoch, begin.base)
    number, last = 0, False
    while not last:
        await one.send("sync_next", topic=topic, generation=generation, page=number)
        page = await one.expect(SyncPage)
        for kind, entity in page.entities:
            decoded = decode_entity(kind, entity)
            assert decoded is not None
            state.put(kind, decoded)
        for kind, ident in page.drop:
            state.drop(kind, ident)
        state.seq = page.base
        number, last = number + 1, page.last
    while not isinstance(message := await one.receive(), Synced):
        assert isinstance(message, Event)
        state.apply(message)
    assert (state.seq, state.digest) == (message.seq, message.digest)
    return state


def steps(count: int, name: str = "step") -> list[dict[str, Any]]:
    return [
        {"op": "step", "id": f"{name}{number}", "name": f"{name} {number}", "chain": "c", "state": "running"}
        for number in range(count)
    ]


async def test_observers_agree_with_the_server(server: EmbeddedServer) -> None:
    async with client(server) as one, client(server, sub="early", role="observe") as early:
        publisher = Publisher(one, "s~1")
        await publisher.open()
        first = await replica(early, "s~1")
        await publisher.publish({"op": "session", "name": "s"}, {"op": "chain", "id": "c", "name": "chain"})
        await publisher.publish(*steps(200))
        head = server.engine.heads(["s~1"])["s~1"]
        while first.seq < head[1]:
            first.apply(await early.expect(Event))
        assert (first.epoch, first.seq, first.digest) == head
        async with client(server, sub="late", role="observe") as late:
            second = await replica(late, "s~1")
            assert second.digest == first.digest
            assert len(second.entities["step"]) == 200


async def test_an_absent_session_goes_live_when_it_appears(server: EmbeddedServer) -> None:
    async with client(server, role="observe", sub="w") as watcher, client(server) as one:
        await watcher.send("subscribe", topic="s~1", generation=1)
        assert (await watcher.expect(SyncBegin)).absent
        await watcher.send("sync_next", topic="s~1", generation=1, page=0)
        await watcher.expect(SyncPage)
        assert (await watcher.expect(Synced)).seq == 0
        publisher = Publisher(one, "s~1")
        await publisher.open()
        await publisher.publish({"op": "session", "name": "s"})
        assert (await watcher.expect(Event)).seq == 1


async def test_the_directory_shows_what_the_token_covers(server: EmbeddedServer) -> None:
    async with client(server) as one, client(server, role="observe", sessions=("mine~*",)) as watcher:
        listed = await replica(watcher, "/directory")
        for session in ("mine~1", "theirs~1"):
            publisher = Publisher(one, session)
            await publisher.open()
            await publisher.publish({"op": "session", "name": session.partition("~")[0], "state": "running"})
        while "mine~1" not in listed.listings or listed.listings["mine~1"].state != "running":
            listed.apply(await watcher.expect(Event))
        assert set(listed.listings) == {"mine~1"}


async def test_a_rejected_change_is_told_and_final(server: EmbeddedServer) -> None:
    async with client(server) as one:
        publisher = Publisher(one, "s~1")
        await publisher.open()
        await publisher.publish(
            {"op": "session", "name": "s"}, {"op": "chain", "id": "c", "name": "c", "state": "succeeded"}
        )
        await one.send(
            "publish",
            session="s~1",
            producer="p",
            producer_epoch=publisher.epoch,
            first=publisher.next,
            changes=[{"op": "chain", "id": "c", "state": "running"}],
        )
        rejected = await one.expect(Rejected)
        assert (rejected.number, rejected.error.code) == (publisher.next, "illegal_transition")


async def test_a_newer_holder_fences_the_older(server: EmbeddedServer) -> None:
    async with client(server, sub="me") as old, client(server, sub="me") as new:
        await Publisher(old, "s~1").open()
        assert (await Publisher(new, "s~1").open()).producer_epoch == 2
        assert (await old.expect(Fenced)).producer == "p"


async def test_a_command_reaches_the_producer_once(server: EmbeddedServer) -> None:
    async with client(server) as one, client(server, sub="boss", role="command") as boss:
        publisher = Publisher(one, "s~1")
        await publisher.open()
        await publisher.publish(
            {"op": "session", "name": "s", "state": "running", "commands": [{"name": "pause"}]}
        )
        for request in (1, 2):
            await boss.send("command", request=request, session="s~1", key="a" * 32, name="pause")
            reply = await boss.expect(CommandReply)
            assert (reply.request, reply.repeated, reply.command.actor) == (request, request == 2, "boss")
        delivered = await one.expect(Deliver)
        assert (delivered.command.id, delivered.command.name) == ("a" * 32, "pause")


async def test_a_removed_session_ends_its_subscriptions(server: EmbeddedServer) -> None:
    async with client(server) as one, client(server, role="observe", sub="w") as watcher:
        publisher = Publisher(one, "s~1")
        await publisher.open()
        await publisher.publish({"op": "session", "name": "s", "state": "succeeded"})
        await watcher.subscribe("s~1")
        async with client(server, sub="root") as admin:
            await admin.send("remove", request=1, session="s~1")
        while not isinstance(message := await watcher.receive(), Removed):
            assert isinstance(message, Event | Presence)
        assert (message.topic, message.reason) == ("s~1", "removed")


async def test_who_watches_is_told(server: EmbeddedServer) -> None:
    async with client(server, hello=False) as a, client(server, hello=False) as b:
        await a.hello(name="Ada", instance="i1")
        await b.hello(name="Bob", instance="i2")
        await a.subscribe("s~1")
        await b.subscribe("s~1")
        while not (isinstance(message := await a.receive(), Presence) and message.count == 2):
            pass
        assert message.names == ["Ada", "Bob"]


async def test_the_name_of_a_token_is_above_what_its_holder_says(server: EmbeddedServer) -> None:
    async with (
        client(server, hello=False, name="Ada L.") as a,
        client(server, hello=False, sub="plain") as b,
    ):
        await a.hello(name="Bob", instance="i1")
        await b.hello(name="", instance="i2")
        await a.subscribe("s~1")
        await b.subscribe("s~1")
        while not (isinstance(message := await a.receive(), Presence) and message.count == 2):
            pass
        assert message.names == ["Ada L.", "plain"]


async def test_batches_against_the_real_head(server: EmbeddedServer) -> None:
    async with client(server) as one, client(server, role="observe", sub="w") as watcher:
        publisher = Publisher(one, "s~1")
        await publisher.open()
        position = (await watcher.subscribe("s~1", delivery="latest", interval_ms=50)).seq
        await publisher.publish({"op": "session", "name": "s"}, {"op": "chain", "id": "c", "name": "c"})
        await publisher.publish(*steps(50))
        epoch, seq, digest = server.engine.heads(["s~1"])["s~1"]
        while position < seq:
            batch = await watcher.expect(Batch)
            assert batch.from_ == position
            position = batch.to
        assert (batch.epoch, batch.digest) == (epoch, digest)


async def test_a_large_value_comes_back_as_it_was(server: EmbeddedServer) -> None:
    value = "wörtlich ".encode() * 60_000
    sha256 = hashlib.sha256(value).hexdigest()
    async with client(server) as one:
        publisher = Publisher(one, "s~1")
        await publisher.open()
        await publisher.publish({"op": "session", "name": "s"}, {"op": "chain", "id": "c", "name": "c"})
        received = 0
        while received < len(value):
            page = value[received : received + 200_000]
            await one.send(
                "value_put",
                request=2,
                session="s~1",
                sha256=sha256,
                total=len(value),
                offset=received,
                data=b64encode(page).decode(),
            )
            ack = await one.expect(ValueAck)
            received = ack.received
        assert ack.complete
        output = {
            "mime": "text/plain",
            "text": "wört",
            "size": len(value),
            "sha256": sha256,
            "truncated": True,
        }
        await publisher.publish({"op": "step", "id": "x", "name": "x", "chain": "c", "output": output})
        back = b""
        while len(back) < len(value):
            await one.send("value_get", request=3, session="s~1", sha256=sha256, offset=len(back))
            back += b64decode((await one.expect(ValuePage)).data)
        assert back == value


async def test_a_slow_reader_syncs_and_agrees_again(where: str) -> None:
    limits = Limits(outbox_messages=64, outbox_size=64 * 1024, history_events=100)
    async with (
        EmbeddedServer(store=where, limits=limits) as server,
        client(server) as one,
        client(server, role="observe", sub="slow") as slow,
    ):
        publisher = Publisher(one, "s~1")
        await publisher.open()
        await publisher.publish({"op": "session", "name": "s"}, {"op": "chain", "id": "c", "name": "c"})
        await replica(slow, "s~1")
        slow.socket.transport.pause_reading()
        text = "x" * 3_000
        peer = next(p for p in server.server.peers if p.credential.claims.sub == "slow")
        round_ = 0
        while peer.subscriptions["s~1"].phase == "live":
            round_ += 1
            await publisher.publish(*[{**step, "reason": text} for step in steps(100, f"r{round_}-")])
        slow.socket.transport.resume_reading()
        while not isinstance(message := await slow.receive(), Resync):
            assert isinstance(message, Event | Presence)
        again = await replica(slow, "s~1", generation=2)
        assert (again.epoch, again.seq, again.digest) == server.engine.heads(["s~1"])["s~1"]


async def test_after_a_restart_the_session_is_still_there(store: str, where: str) -> None:
    if store == "memory":
        async with EmbeddedServer() as server, client(server) as one:
            assert (await replica(one, "s~1")).seq == 0
        return
    key = "k" * 32
    async with EmbeddedServer(store=where, key=key) as server, client(server) as one:
        publisher = Publisher(one, "s~1")
        await publisher.open()
        await publisher.publish({"op": "session", "name": "kept"})
        before = server.engine.heads(["s~1"])["s~1"]
        token = server.token()
    async with EmbeddedServer(store=where, key=key) as server, client(server, token) as one:
        state = await replica(one, "s~1")
        assert state.epoch == before[0]
        assert state.seq >= before[1]
        assert state.session is not None
        assert state.session.name == "kept"


async def test_a_page_that_was_not_asked_for_in_order_is_refused(server: EmbeddedServer) -> None:
    async with client(server) as one:
        await one.send("subscribe", topic="s~1", generation=1)
        await one.expect(SyncBegin)
        await one.send("sync_next", topic="s~1", generation=1, page=5)
        refused = (await one.expect(Error)).error
        assert (refused.code, refused.details) == ("unexpected_message", {"topic": "s~1"})
        await one.send("sync_next", topic="s~1", generation=1, page=0)
        assert (await one.expect(SyncPage)).last


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({"op": "of_tomorrow", "id": "c2"}, "bad_message"),
        ({"op": "chain", "id": "a\u001bb", "name": "c2"}, "bad_id"),
        ({"op": "chain", "id": "c2", "name": 5}, "bad_message"),
        ({"op": "chain", "id": "c2", "state": "done"}, "bad_message"),
        ("chain", "bad_message"),
    ],
)
async def test_one_bad_change_is_rejected_alone(server: EmbeddedServer, bad: Any, code: str) -> None:
    async with client(server) as one, client(server) as observer:
        publisher = Publisher(one, "s~1")
        await publisher.open()
        await publisher.publish({"op": "session", "name": "s"})
        message = {
            "session": "s~1",
            "producer": "p",
            "producer_epoch": 1,
            "first": 2,
            "changes": [
                {"op": "chain", "id": "c1", "name": "c1"},
                bad,
                {"op": "chain", "id": "c3", "name": "c3"},
            ],
        }
        await one.send("publish", **message)
        rejected = await one.expect(Rejected)
        assert (rejected.number, rejected.error.code, rejected.error.session) == (3, code, "s~1")
        assert (await one.expect(Ack)).accepted == 4
        # Sent again, it is passed over: the refusal was final, and is told once.
        await one.send("publish", **message)
        assert (await one.expect(Ack)).accepted == 4
        publisher.next = 5
        await publisher.publish(chain("c5"))
        assert set((await replica(observer, "s~1")).chains) == {"c1", "c3", "c5"}


async def test_a_message_above_the_batch_size_is_refused_and_takes_no_number(store: str) -> None:
    async with EmbeddedServer(limits=Limits(batch_size=600)) as server, client(server) as one:
        publisher = Publisher(one, "s~1")
        await publisher.open()
        await publisher.publish({"op": "session", "name": "s"})
        changes = [chain(f"c{n}") for n in range(20)]
        await one.send("publish", session="s~1", producer="p", producer_epoch=1, first=2, changes=changes)
        error = (await one.expect(Error)).error
        assert (error.code, error.retryable, error.session) == ("limit_exceeded", False, "s~1")
        assert error.details == {"limit": "batch_size", "value": 600, "producer": "p"}
        await publisher.publish(*changes[:5])
