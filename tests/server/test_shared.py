"""The contract of `stores.bus.Shared`, held against every store that several nodes share."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from wsmonitor.protocol.codec import encode, encode_record
from wsmonitor.protocol.entities import Chain, Listing, Session
from wsmonitor.protocol.messages import Event
from wsmonitor_server.stores.base import Commit, MovedError, ProducerPosition
from wsmonitor_server.stores.bus import (
    Committed,
    Message,
    NodeGone,
    SessionRemoved,
    Shared,
    TokenRevoked,
    WardenChanged,
    Watching,
)
from wsmonitor_server.stores.redis.bus import Pace
from wsmonitor_server.stores.redis.store import RedisStore

from .shared_memory import SharedMemory

LISTING = Listing(id="s~1", name="s", run=1)


class Node:
    """One node, and what it was told."""

    def __init__(self, store: Shared) -> None:
        self.store = store
        self.told: list[Message] = []
        store.listen(self.told.append)

    def of(self, kind: type[Message]) -> list[Any]:
        return [one for one in self.told if isinstance(one, kind)]

    @property
    def versions(self) -> list[int]:
        return [one.version for one in self.of(Committed)]


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until *condition* holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.005)


@dataclass
class Kind:
    """One kind of store.

    Attributes:
        make: a further node of it.
        now: the clock that it goes by, and ``wait`` what makes that go on.
    """

    make: Callable[[], Shared]
    now: Callable[[], float] = time.monotonic
    wait: Callable[[], object] = lambda: None


def redis_nodes(request: pytest.FixtureRequest, fixture: str = "redis_url") -> Kind:
    url = request.getfixturevalue(fixture)
    return Kind(lambda: RedisStore(url, log_records=3, pace=Pace(every=0.1, gone=60)))


def valkey_nodes(request: pytest.FixtureRequest) -> Kind:
    return redis_nodes(request, "valkey_url")


def memory_nodes(request: pytest.FixtureRequest) -> Kind:
    shared, numbers = SharedMemory(), itertools.count(1)
    return Kind(
        lambda: shared.node(f"node{next(numbers)}"), shared.clock.monotonic, lambda: shared.clock.advance(0.1)
    )


IMPLEMENTATIONS = {"memory": memory_nodes, "redis": redis_nodes, "valkey": valkey_nodes}
"""What makes further nodes of one store."""

Join = Callable[[], Awaitable[Node]]


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return IMPLEMENTATIONS[request.param](request)


@pytest.fixture
async def join(kind: Kind) -> AsyncIterator[Join]:
    nodes: list[Node] = []

    async def joined() -> Node:
        node = Node(kind.make())
        await node.store.open()
        nodes.append(node)
        return node

    yield joined
    for node in nodes:
        await node.store.close()


def a_commit(
    epoch: str, head: int = 0, count: int = 1, *, text: str = "", session: str = "s~1", **more: Any
) -> Commit:
    """A commit of *count* events: the session's, and chains."""
    commit = Commit(session, epoch, head, **more)
    for seq in range(head + 1, head + 1 + count):
        entity: Session | Chain = (
            Session(id=session, name="s", seq=seq, reason=text)
            if seq == head + 1
            else Chain(id=f"c{seq}", name="c", seq=seq)
        )
        kind = "session" if isinstance(entity, Session) else "chain"
        record = encode_record(entity)
        event = Event(topic=session, epoch=epoch, seq=seq, ts="1", kind=kind, entity=record)
        commit.events.append((seq, encode(event)))
        commit.entities[kind, entity.id] = bytes(record)
    return commit


async def test_nodes_agree_on_the_epoch_and_know_each_other(join: Join) -> None:
    one, two = await join(), await join()
    assert one.store.epoch == two.store.epoch
    assert one.store.node != two.store.node
    assert await one.store.nodes() == await two.store.nodes() == {one.store.node, two.store.node}
    await two.store.close()
    await until(lambda: NodeGone(two.store.node) in one.told)
    assert await one.store.nodes() == {one.store.node}


async def test_every_commit_is_told_to_every_node_in_its_order(join: Join) -> None:
    one, two = await join(), await join()
    epoch = one.store.epoch
    position = ProducerPosition("p", "alice", 1, 7, "h", one.store.node)
    first = a_commit(epoch, 0, 2, listing=LISTING, attention=True, producers={"p": position}, values={"11"})
    await one.store.commit([first])
    assert await two.store.load("s~1") is not None
    second = a_commit(epoch, 2, 1, version=1, released={"11"}, retired={"0" * 32: b"{}"})
    await two.store.commit([second])
    await one.store.commit([Commit("other~1", epoch, 0, attention=True)])
    expected = [
        Committed(
            "s~1", epoch, 1, 0, tuple(data for _, data in first.events), {"p": position},
            listing=LISTING, attention=True, node=one.store.node,
        ),
        Committed(
            "s~1", epoch, 2, 2, tuple(data for _, data in second.events),
            released=frozenset({"11"}), retired=1, node=two.store.node,
        ),
        Committed("other~1", epoch, 1, 0, attention=True, node=one.store.node),
    ]  # fmt: skip
    for node in (one, two):
        await until(lambda node=node: len(node.of(Committed)) == 3)
        assert node.of(Committed) == expected


async def test_who_comes_later_is_told_what_comes_later(join: Join) -> None:
    one = await join()
    await one.store.commit([a_commit(one.store.epoch)])
    two = await join()
    stored = await two.store.load("s~1")
    assert stored is not None
    assert stored.version == 1
    await two.store.commit([a_commit(two.store.epoch, 1, version=1)])
    await until(lambda: two.versions == [2])
    await until(lambda: one.versions == [1, 2])


@pytest.mark.parametrize("size", [10, 100_000])
async def test_a_commit_of_any_size_is_told(join: Join, size: int) -> None:
    one, two = await join(), await join()
    made = a_commit(one.store.epoch, text="x" * size)
    await one.store.commit([made])
    for node in (one, two):
        await until(lambda node=node: len(node.of(Committed)) == 1)
        assert node.of(Committed)[0].events == (made.events[0][1],)


async def test_of_two_for_one_version_the_second_is_told_so_and_others_are_made(join: Join) -> None:
    one, two = await join(), await join()
    epoch = one.store.epoch
    await one.store.commit([a_commit(epoch)])
    await two.store.load("s~1")
    # Also a commit without an event counts.
    await two.store.commit([Commit("s~1", epoch, 1, version=1, attention=True)])
    with pytest.raises(MovedError) as caught:
        await one.store.commit([a_commit(epoch, 1, version=1), a_commit(epoch, session="t~1")])
    assert caught.value.sessions == {"s~1"}
    assert caught.value.outcome_known
    stored = await one.store.load("s~1")
    assert stored is not None
    assert (stored.version, stored.state.seq) == (2, 1)
    assert await one.store.load("t~1") is not None
    await one.store.commit([a_commit(epoch, 1, version=2)])
    await until(lambda: two.versions == [1, 2, 1, 3])


async def test_two_who_make_a_session_at_once_make_one(join: Join) -> None:
    nodes = [await join() for _ in range(3)]
    made = await asyncio.gather(
        *(node.store.commit([a_commit(node.store.epoch)]) for node in nodes), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in made) == ["MovedError", "MovedError", "NoneType"]
    for node in nodes:
        await until(lambda node=node: node.versions == [1])


async def test_who_writes_against_others_gets_its_turn(join: Join) -> None:
    nodes = [await join() for _ in range(2)]

    async def write(node: Node, times: int) -> None:
        while times:
            stored = await node.store.load("s~1")
            head, version = (stored.state.seq, stored.version) if stored else (0, 0)
            try:
                await node.store.commit([a_commit(node.store.epoch, head, version=version)])
            except MovedError:
                continue
            times -= 1

    await asyncio.gather(*(write(node, 20) for node in nodes))
    for node in nodes:
        await until(lambda node=node: len(node.of(Committed)) == 40)
        assert node.versions == list(range(1, 41))
        assert [one.head for one in node.of(Committed)] == list(range(40))


async def test_what_was_missed_is_kept_one_by_one(join: Join) -> None:
    one, two = await join(), await join()
    epoch = one.store.epoch
    await one.store.commit([a_commit(epoch)])
    await two.store.load("s~1")
    assert await two.store.missed("s~1", 1) == []
    await one.store.commit([a_commit(epoch, 1, version=1)])
    await one.store.commit([Commit("s~1", epoch, 2, version=2)])
    await until(lambda: two.versions == [1, 2, 3])
    assert await two.store.missed("s~1", 1) == two.of(Committed)[1:]
    # Of another history, or none: it has to be loaded.
    assert await two.store.missed("nobody", 0) is None
    await one.store.remove("s~1", at=1)
    assert await two.store.missed("s~1", 3) is None


async def test_a_session_made_again_is_not_taken_for_the_one_before(join: Join) -> None:
    one, two = await join(), await join()
    epoch = one.store.epoch
    await one.store.commit([a_commit(epoch)])
    await two.store.remove("s~1", at=5)
    await two.store.commit([a_commit("another")])
    for node in (one, two):
        await until(lambda node=node: len(node.of(Committed)) == 2)
        assert node.of(SessionRemoved) == [SessionRemoved("s~1", 5, two.store.node)]
    # As many commits as before, and still another one.
    with pytest.raises(MovedError):
        await one.store.commit([a_commit(epoch, 1, version=1)])
    stored = await one.store.load("s~1")
    assert stored is not None
    assert (stored.version, stored.state.epoch) == (1, "another")


async def test_a_removed_session_takes_no_commit(join: Join) -> None:
    one, two = await join(), await join()
    await one.store.commit([a_commit(one.store.epoch)])
    await two.store.remove("s~1", at=5)
    with pytest.raises(MovedError):
        await one.store.commit([a_commit(one.store.epoch, 1, version=1)])
    assert await one.store.load("s~1") is None
    assert await one.store.tombstone("s~1") == 5


async def test_a_revocation_is_told(join: Join) -> None:
    one, two = await join(), await join()
    await one.store.revoke("jti", 77)
    for node in (one, two):
        await until(lambda node=node: node.of(TokenRevoked) == [TokenRevoked("jti", 77)])
    assert await two.store.revoked() == {"jti": 77}


async def test_who_watches_is_told_and_known_as_long_as_its_node_lives(join: Join) -> None:
    one, two = await join(), await join()
    ann, bob = (("1", "Ann"),), (("2", "Bob"), ("3", "Bob"))
    await one.store.tell_watching("s~1", ann)
    await two.store.tell_watching("s~1", bob)
    assert await one.store.watching("s~1") == {two.store.node: bob}
    assert await two.store.watching("s~1") == {one.store.node: ann}
    assert await one.store.watching("t~1") == {}
    await one.store.tell_watching("s~1", ())
    expected = [
        Watching("s~1", one.store.node, ann),
        Watching("s~1", two.store.node, bob),
        Watching("s~1", one.store.node, ()),
    ]
    for node in (one, two):
        await until(lambda node=node: len(node.of(Watching)) == 3)
        assert node.of(Watching) == expected
    assert await two.store.watching("s~1") == {}
    await two.store.close()
    assert await one.store.watching("s~1") == {}
    await until(lambda: NodeGone(two.store.node) in one.told)


async def test_one_node_is_the_warden(join: Join) -> None:
    one = await join()
    await until(lambda: one.of(WardenChanged)[-1:] == [WardenChanged(True)])
    two = await join()
    await two.store.commit([a_commit(two.store.epoch)])
    await until(lambda: two.versions == [1])
    assert WardenChanged(True) not in two.told
    await one.store.close()
    await until(lambda: two.of(WardenChanged)[-1:] == [WardenChanged(True)])


async def test_it_says_until_when_nothing_was_missed(join: Join, kind: Kind) -> None:
    one = await join()
    before = one.store.sure()
    kind.wait()
    await until(lambda: one.store.sure() > before)
    assert one.store.sure() <= kind.now()
    assert not one.of(Committed)


async def test_numbers_of_runs_are_given_once_among_all(join: Join) -> None:
    one, two = await join(), await join()
    numbers = [await node.store.next_run("a") for node in (one, two, one, two)]
    assert numbers == [1, 2, 3, 4]


async def test_an_upload_goes_on_at_another_node(join: Join) -> None:
    one, two = await join(), await join()
    data = bytes(range(256)) * 20
    sha = hashlib.sha256(data).hexdigest()
    assert not await one.store.value_write("s", sha, len(data), 0, data[:3000])
    assert await two.store.value_begin("s", sha, len(data)) == 3000
    assert await two.store.value_write("s", sha, len(data), 3000, data[3000:])
    assert await one.store.value_read("s", sha, 2990, 20) == (data[2990:3010], len(data))


async def test_nothing_is_told_after_the_end(join: Join) -> None:
    one, two = await join(), await join()
    await one.store.close()
    await two.store.commit([a_commit(two.store.epoch)])
    await until(lambda: two.versions == [1])
    assert not one.of(Committed)
