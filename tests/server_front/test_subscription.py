"""One connection's subscription: what is queued, what is folded into batches, and what is told."""

from __future__ import annotations

import msgspec
import pytest

from wsmonitor.protocol.codec import encode, encode_record
from wsmonitor.protocol.entities import Chain
from wsmonitor.protocol.messages import Batch, Event, Presence, Removed, Resync
from wsmonitor_server.framing import Delivery
from wsmonitor_server.subscription import Subscription

from .machine import Machine, watching


def event(seq: int, ident: str = "c", *, name: str = "n", drop: list[tuple[str, str]] | None = None) -> bytes:
    return encode(
        Event(
            topic="s",
            epoch="e1",
            seq=seq,
            ts="1",
            kind="chain",
            entity=encode_record(Chain(id=ident, name=name)),
            drop=drop or [],
        )
    )


def tell(subscription: Subscription, *events: bytes) -> None:
    for seq, encoded in enumerate(events, subscription.seq + 1):
        subscription.tell("s", seq, Delivery((encoded,)))


def batch_of(machine: Machine, subscription: Subscription) -> Batch | None:
    return subscription.batch(("e1", subscription.seq, "d" * 32), "7")


async def test_events_are_queued_as_they_come_while_it_is_live() -> None:
    machine = Machine()
    subscription = await machine.watch()
    tell(subscription, event(1), event(2))
    assert [message.seq for message in machine.sent() if isinstance(message, Event)] == [1, 2]
    assert subscription.seq == 2


@pytest.mark.parametrize("phase", ["syncing", "muted", "over"])
async def test_what_is_not_live_is_told_neither_events_nor_who_watches(phase: str) -> None:
    machine = Machine()
    subscription = await machine.watch()
    match phase:
        case "syncing":
            subscription.begin(2, latest=False, interval=1.0)
        case "muted":
            subscription.mute("too_slow")
        case "over":
            machine.peer.end_subscription(subscription)
    assert subscription.phase == phase
    machine.sent()
    tell(subscription, event(1))
    subscription.presence("s", watching(1, "ada"))
    assert machine.sent() == []


async def test_who_watches_is_told_while_it_is_live() -> None:
    machine = Machine()
    subscription = await machine.watch()
    subscription.presence("s", watching(2, "ada", "grace"))
    assert machine.sent() == [Presence(topic="s", count=2, names=["ada", "grace"])]
    told = watching(1, "ada")
    subscription.presence("s", told)
    framed = told.framed
    subscription.presence("s", told)
    assert framed is told.framed is not None, "framed once, for all who are told"
    assert machine.sent() == [Presence(topic="s", count=1, names=["ada"])] * 2


@pytest.mark.parametrize(("reason", "told"), [("removed", "removed"), ("expired", "not_available")])
async def test_a_topic_that_is_gone_is_told_once_and_forgotten(reason: str, told: str) -> None:
    machine = Machine()
    subscription = await machine.watch()
    tell(subscription, event(1))
    subscription.removed("s", reason)
    subscription.removed("s", reason)
    assert machine.sent() == [Removed(topic="s", reason=told)], "what waited is void"  # type: ignore[arg-type]
    assert machine.peer.subscriptions == {}
    assert machine.engine.attached == {"s": []}


async def test_a_broken_history_is_told_once_until_the_client_asks_again() -> None:
    machine = Machine()
    subscription = await machine.watch()
    tell(subscription, event(1))
    subscription.reset("s")
    subscription.reset("s")
    assert machine.sent() == [Resync(topic="s", reason="reset")]
    await machine.watch(generation=2)
    assert subscription.phase == "live"
    machine.peer.end_subscription(subscription)
    subscription.reset("s")
    assert machine.sent() == []


async def test_a_sync_that_is_given_up_is_closed() -> None:
    machine = Machine()
    await machine.ask_json("subscribe", topic="s", generation=1)
    machine.peer.subscriptions["s"].reset("s")
    [sync] = machine.engine.syncs
    assert sync.closed
    assert machine.peer.subscriptions["s"].sync is None


# ---------------------------------------------------------------------- batches


async def latest(**limits: int) -> tuple[Machine, Subscription]:
    machine = Machine(limits=limits)
    return machine, await machine.watch(delivery="latest", interval_ms=500)


async def test_a_batch_holds_the_last_of_each_entity_from_its_first_event_on() -> None:
    machine, subscription = await latest()
    assert batch_of(machine, subscription) is None, "nothing waits"
    rearmed = machine.wire.rearmed
    tell(subscription, event(1, "a", name="old"), event(2, "b"), event(3, "a", name="new"))
    assert subscription.batch_due == machine.clock.monotonic() + 0.5
    assert machine.wire.rearmed == rearmed + 1, "the connection is told once that it has a deadline"
    assert machine.sent() == []
    batch = batch_of(machine, subscription)
    assert batch is not None
    assert (batch.from_, batch.to, batch.ts, batch.digest) == (0, 3, "7", "d" * 32)
    told = [
        (kind, msgspec.json.decode(raw)["id"], msgspec.json.decode(raw)["name"])
        for kind, raw in batch.entities
    ]
    assert told == [("chain", "b", "n"), ("chain", "a", "new")]
    assert batch.drop == []
    assert subscription.batch_due is None
    tell(subscription, event(4))
    following = batch_of(machine, subscription)
    assert following is not None
    assert (following.from_, following.to) == (3, 4)


@pytest.mark.parametrize("head", [("e1", 2, ""), ("e2", 1, "")])
async def test_a_batch_waits_until_it_ends_where_the_server_is(head: tuple[str, int, str]) -> None:
    _, subscription = await latest()
    tell(subscription, event(1))
    assert subscription.batch(head, "7") is None
    assert subscription.batch_due is not None


async def test_what_goes_and_what_comes_back_stand_in_a_batch_once_as_they_ended() -> None:
    machine, subscription = await latest()
    tell(
        subscription,
        event(1, "gone"),
        event(2, "back"),
        event(3, "x", drop=[("chain", "gone"), ("chain", "back"), ("chain", "never told")]),
        event(4, "back"),
    )
    batch = batch_of(machine, subscription)
    assert batch is not None
    assert [msgspec.json.decode(raw)["id"] for _, raw in batch.entities] == ["x", "back"]
    assert batch.drop == [("chain", "gone"), ("chain", "never told")]


async def test_a_batch_that_grows_beyond_what_may_wait_is_given_up_and_told() -> None:
    machine, subscription = await latest(outbox_size=2_000)
    for seq in range(1, 100):
        subscription.tell("s", seq, Delivery((event(seq, "a", name="x" * 100),)))
    assert subscription.phase == "live", "one entity, however often it changes, is one"
    for seq in range(100, 120):
        subscription.tell("s", seq, Delivery((event(seq, f"b{seq}", name="x" * 100),)))
        subscription.tell("s", seq, Delivery((event(seq, "z", drop=[("chain", f"b{seq}")]),)))
    assert subscription.phase == "live", "what went does not count"
    for seq in range(120, 140):
        subscription.tell("s", seq, Delivery((event(seq, f"b{seq}", name="x" * 100),)))
    assert subscription.phase == "muted"
    assert machine.sent() == [Resync(topic="s", reason="too_slow")]
    assert subscription.batch_due is None


async def test_of_a_batch_exactly_so_many_bytes_may_wait() -> None:
    """Three records of the same length fill it; what goes and what is written anew leaves its room."""
    size = len(encode_record(Chain(id="a", name="n")))
    machine, subscription = await latest(outbox_size=3 * size)
    tell(subscription, event(1, "a"), event(2, "b"), event(3, "c"))
    tell(subscription, event(4, "a"), event(5, "b"), event(6, "b"))
    tell(subscription, event(7, "c", drop=[("chain", "a")]), event(8, "d"))
    assert batch_of(machine, subscription) is not None
    tell(subscription, event(9, "a"), event(10, "b"), event(11, "c"))
    assert subscription.phase == "live"
    tell(subscription, event(12, "d"))
    assert subscription.phase == "muted"


async def test_a_batch_that_was_given_up_leaves_no_bytes_behind() -> None:
    size = len(encode_record(Chain(id="a", name="n")))
    _, subscription = await latest(outbox_size=2 * size)
    for generation in (2, 3):
        tell(subscription, event(1, "a"), event(2, "b"), event(3, "c"))
        assert subscription.phase == "muted"
        subscription.begin(generation, latest=True, interval=0.5)
        subscription.go_live("e1", 0)
    tell(subscription, event(1, "a"), event(2, "b"))
    assert subscription.phase == "live"


async def test_whose_subscription_it_is_and_from_where_on() -> None:
    machine = Machine(sub="ada", sessions=("s*",))
    subscription = await machine.watch()
    assert (subscription.claims, subscription.name) == (machine.peer.credential.claims, "Ada")
    assert machine.peer.hello is not None
    assert subscription.instance == (machine.peer.hello.instance or subscription.instance)
    assert (subscription.epoch, subscription.seq, subscription.told) == ("e1", 0, ("e1", 0))
    assert (subscription.lane.bulk, subscription.pages.bulk) == (False, True)


async def test_a_new_sync_begins_without_what_the_old_one_had_gathered() -> None:
    machine, subscription = await latest()
    tell(subscription, event(1))
    subscription.begin(2, latest=True, interval=0.5)
    assert subscription.batch_due is None
    subscription.go_live("e1", 5)
    tell(subscription, event(6, "b"))
    batch = batch_of(machine, subscription)
    assert batch is not None
    assert (batch.from_, len(batch.entities)) == (5, 1)


async def test_one_telling_may_be_more_than_may_wait() -> None:
    machine, subscription = await latest(outbox_size=2_000)
    subscription.tell("s", 40, Delivery(tuple(event(seq, f"b{seq}", name="x" * 100) for seq in range(1, 41))))
    assert subscription.phase == "muted"
    assert machine.sent() == [Resync(topic="s", reason="too_slow")]
    assert subscription.batch_due is None, "nothing is folded for one that was told to come again"
