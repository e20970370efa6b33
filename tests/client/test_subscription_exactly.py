"""The subscription's machine: what exactly it sends, tells, counts, waits for, and finds wrong."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from wsmonitor.client.subscription import CALM_AFTER, SYNC_TIMEOUT, Delivery
from wsmonitor.client.types import (
    BatchApplied,
    EventApplied,
    PhaseChanged,
    PresenceChanged,
    SyncCompleted,
    SyncStarted,
)
from wsmonitor.protocol.codec import encode_record
from wsmonitor.protocol.entities import Step
from wsmonitor.protocol.messages import (
    Batch,
    Event,
    Position,
    Resync,
    Subscribe,
    Synced,
    SyncNext,
    SyncPage,
)

from .pair import Pair

BAD = msgspec.Raw(b'{"no":1}')


def step(ident: str, seq: int, name: str = "x") -> Step:
    return Step(id=ident, chain="c", name=name, seq=seq)


def event(seq: int, ident: str = "a", *, epoch: str = "e1", raw: msgspec.Raw | None = None) -> Event:
    entity = raw if raw is not None else encode_record(step(ident, seq))
    return Event(topic="s", epoch=epoch, seq=seq, ts="1", kind="step", entity=entity)


def at(stage: str, delivery: Delivery = "all") -> Pair:
    """A pair whose machine has come to *stage*, with nothing sent or told yet."""
    pair = Pair(delivery=delivery)
    if stage != "off":
        pair.server.happen("a", "1")
        pair.connect()
        pair.pump({"requested": 0, "pages": 1, "tail": 2}.get(stage, 100))
    if stage == "pausing":
        pair.machine.fault(pair.now, "x")
    elif stage == "over":
        pair.machine.refused("x")
    assert pair.machine.stage == stage
    pair.told.clear()
    pair.sent.clear()
    return pair


def subscribe(
    generation: int, resume: Position | None, delivery: Delivery = "all", ms: int = 1000
) -> Subscribe:
    return Subscribe(topic="s", generation=generation, resume=resume, delivery=delivery, interval_ms=ms)


def here(pair: Pair) -> Position:
    """The replica's position, as a subscription offers it."""
    state = pair.machine.state
    assert state is not None
    return Position(epoch=state.epoch, seq=state.seq, digest=state.digest)


def test_before_anything_happened() -> None:
    machine = Pair().machine
    assert (machine.topic, machine.delivery, machine.interval_ms) == ("s", "all", 1000)
    assert (machine.phase, machine.reason, machine.stage) == ("waiting", "", "off")
    assert machine.presence == PresenceChanged(0, ())
    assert (machine.position, machine.verified, machine.next_deadline()) == (None, False, None)


def test_a_first_sync_from_its_request_to_its_end() -> None:
    pair = Pair(page=1)
    machine, server = pair.machine, pair.server
    server.happen("a", "1")
    server.happen("b", "1")
    pair.connect()
    assert pair.sent == [subscribe(1, None)]
    assert pair.told == [PhaseChanged("syncing")]
    assert machine.next_deadline() == SYNC_TIMEOUT
    pair.now = 10.0
    pair.pump(1)
    assert pair.sent[1:] == [SyncNext(topic="s", generation=1, page=0)]
    assert pair.told[1:] == [SyncStarted(2)]
    assert machine.next_deadline() == 10.0 + SYNC_TIMEOUT
    pair.now = 20.0
    pair.pump(1)
    assert pair.sent[2:] == [SyncNext(topic="s", generation=1, page=1)]
    assert machine.next_deadline() == 20.0 + SYNC_TIMEOUT
    pair.now = 30.0
    late = server.happen("c", "1")
    pair.pump(1)  # the last page; behind it comes the event
    assert machine.stage == "tail"
    assert machine.next_deadline() == 30.0 + SYNC_TIMEOUT
    pair.now = 40.0
    pair.give(late)
    assert machine.next_deadline() == 40.0 + SYNC_TIMEOUT
    assert machine.state is None
    pair.give(Synced(topic="s", generation=1, seq=3, digest=server.state.digest))
    assert pair.told[2:] == [SyncCompleted("e1", 3, None, ""), PhaseChanged("live")]
    assert machine.state is not None
    assert machine.state.topic == "s"
    assert (machine.position, machine.verified, machine.next_deadline()) == (("e1", 3), True, None)
    assert machine.counters.syncs == 1


def test_what_happens_live_is_told_with_its_record() -> None:
    pair = at("live")
    events = [pair.server.happen("b", "1"), pair.server.happen("c", "1")]
    pair.pump()
    state = pair.server.state
    assert pair.told == [
        EventApplied(one, state.steps[ident]) for one, ident in zip(events, "bc", strict=True)
    ]
    assert pair.machine.counters.applied == 2


def test_each_counter_counts_each_time() -> None:
    pair = at("live")
    machine = pair.machine
    for _ in range(2):
        pair.give(pair.server.happen("b", "1"))
        pair.server.outbox.clear()
    for _ in range(2):
        pair.give(event(1))
    assert (machine.counters.applied, machine.counters.duplicates) == (2, 2)
    for _ in range(2):
        pair.cut()
        for _ in range(2):
            pair.server.happen("b", "2")
        pair.connect()
        pair.pump()
    assert (machine.counters.syncs, machine.counters.replayed) == (3, 4)
    for _ in range(2):
        pair.give(event(100))
        pair.wait(1.0)
        pair.pump()
    assert (machine.counters.gaps, machine.counters.syncs) == (2, 5)
    for _ in range(2):
        machine.head(pair.now, "e1", pair.server.state.seq, "f" * 32)
        pair.wait(2.0)
        pair.pump()
    assert machine.counters.mismatches == 2
    machine.close()
    for _ in range(2):
        pair.give(event(100))
        pair.give(Batch(topic="s", epoch="e1", from_=0, to=1, ts="1", entities=[], digest=""))
    assert machine.counters.foreign == 4


def test_batches_are_told_with_what_they_change_and_drop() -> None:
    pair = at("live", "latest")
    machine, server = pair.machine, pair.server
    server.happen("b", "1")
    server.flush_batch()
    pair.pump()
    assert machine.counters.applied == 1
    server.state.drop("step", "a")
    dropped = Batch(
        topic="s",
        epoch="e1",
        from_=2,
        to=3,
        ts="1",
        entities=[],
        drop=[("step", "a")],
        digest=server.state.digest,
    )
    pair.give(dropped)
    assert pair.told == [
        BatchApplied(2, (("step", server.state.steps["b"]),), ()),
        BatchApplied(3, (), (("step", "a"),)),
    ]
    assert machine.counters.applied == 2
    assert machine.state is not None
    assert list(machine.state.steps) == ["b"]
    pair.give(dropped)
    pair.give(dropped)
    assert machine.counters.duplicates == 2


def test_a_batch_that_does_not_agree_is_taken_back_whole() -> None:
    """What it changed, what it brought anew and what it dropped are as they were."""
    pair = at("live", "latest")
    machine = pair.machine
    assert machine.state is not None
    before = dict(machine.state.steps)
    digest = machine.state.digest
    new = ("step", encode_record(step("new", 2)))
    for entities in ([new], [("step", encode_record(step("a", 2))), new]):
        wrong = Batch(
            topic="s",
            epoch="e1",
            from_=1,
            to=2,
            ts="1",
            entities=entities,
            drop=[("chain", "c"), ("of a later version", "x"), ("step", "a")],
            digest="f" * 32,
        )
        pair.give(wrong)
        assert (machine.state.steps, machine.state.digest, machine.position) == (before, digest, ("e1", 1))
        pair.wait(1.0)
        pair.pump()
    assert machine.counters.mismatches == 2
    pair.give(wrong)
    assert machine.reason == "a batch up to 2 does not agree with the server's state"


DIFFERENT = "the state that was received does not agree with the server's"

Fault = Callable[[Pair], None]

FAULTS: dict[str, tuple[str, Delivery, bool, str, Fault]] = {
    "another epoch live": (
        "live",
        "all",
        True,
        "the server began a new history",
        lambda p: p.give(event(2, epoch="e2")),
    ),
    "a lost event": ("live", "all", True, "event 3 came, expected 2", lambda p: p.give(event(3))),
    "an event that is none": (
        "live",
        "all",
        False,
        "event 2 cannot be applied: ",
        lambda p: p.give(event(2, raw=BAD)),
    ),
    "an event in the tail that does not follow": (
        "tail",
        "all",
        True,
        "the events after the sync do not fit: ",
        lambda p: p.give(event(9)),
    ),
    "a page that is none": (
        "pages",
        "all",
        False,
        "a page of the sync cannot be read: ",
        lambda p: p.give(
            SyncPage(topic="s", generation=p.generation, page=0, base=1, entities=[("step", BAD)])
        ),
    ),
    "a history that is none": (
        "pages",
        "all",
        False,
        "a page of the sync cannot be read: ",
        lambda p: p.give(SyncPage(topic="s", generation=p.generation, page=0, base=1, history=[BAD])),
    ),
    "another state at the end of a sync": (
        "tail",
        "all",
        False,
        f"{DIFFERENT} at 1: it was not used",
        lambda p: p.give(Synced(topic="s", generation=p.generation, seq=1, digest="f" * 32)),
    ),
    "another place at the end of a sync": (
        "tail",
        "all",
        False,
        f"{DIFFERENT} at 2: it was not used",
        lambda p: p.give(Synced(topic="s", generation=p.generation, seq=2, digest=p.server.state.digest)),
    ),
    "a batch of another epoch": (
        "live",
        "latest",
        True,
        "the server began a new history",
        lambda p: p.give(Batch(topic="s", epoch="e2", from_=1, to=2, ts="1", entities=[], digest="")),
    ),
    "a lost batch": (
        "live",
        "latest",
        True,
        "a batch begins at 2, expected 1",
        lambda p: p.give(Batch(topic="s", epoch="e1", from_=2, to=3, ts="1", entities=[], digest="")),
    ),
    "a batch that is none": (
        "live",
        "latest",
        False,
        "a batch cannot be read: ",
        lambda p: p.give(
            Batch(topic="s", epoch="e1", from_=1, to=2, ts="1", entities=[("step", BAD)], digest="")
        ),
    ),
    "a batch that does not agree": (
        "live",
        "latest",
        False,
        "a batch up to 2 does not agree with the server's state",
        lambda p: p.give(Batch(topic="s", epoch="e1", from_=1, to=2, ts="1", entities=[], digest="f" * 32)),
    ),
    "too slow": (
        "live",
        "all",
        True,
        "too slow for the rate of events",
        lambda p: p.give(Resync(topic="s", reason="too_slow")),
    ),
    "the server anew": (
        "live",
        "all",
        True,
        "the server began anew",
        lambda p: p.give(Resync(topic="s", reason="reset")),
    ),
    "a head of another epoch": (
        "live",
        "all",
        True,
        "the server began a new history",
        lambda p: p.machine.head(p.now, "e2", 1, ""),
    ),
    "a head beyond": (
        "live",
        "all",
        True,
        "events up to 2 were lost on the way",
        lambda p: p.machine.head(p.now, "e1", 2, ""),
    ),
    "a head before": (
        "live",
        "all",
        True,
        "we are ahead of the server, at 1 against 0",
        lambda p: p.machine.head(p.now, "e1", 0, ""),
    ),
    "a head of another content": (
        "live",
        "all",
        False,
        "our state at 1 differs from the server's",
        lambda p: p.machine.head(p.now, "e1", 1, "f" * 32),
    ),
    "no progress": (
        "pages",
        "all",
        True,
        "the sync made no progress for 30 s",
        lambda p: p.wait(SYNC_TIMEOUT),
    ),
}
"""The stage, the delivery, whether the replica's position may be offered again, the reason, what happens."""


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_and_what_may_be_wrong_is_not_built_upon(name: str) -> None:
    stage, delivery, resume, reason, happen = FAULTS[name]
    pair = at("live", delivery)
    if stage != "live":
        # A replica from before, so that there is a position that could be offered.
        pair.cut()
        pair.connect()
        pair.pump({"pages": 1, "tail": 2}[stage])
    offered = here(pair)
    pair.sent.clear()
    pair.told.clear()
    happen(pair)
    assert pair.machine.reason.startswith(reason)
    assert pair.told == [PhaseChanged("syncing", pair.machine.reason)]
    [again] = pair.sent
    assert isinstance(again, Subscribe)
    assert again.resume == (offered if resume else None)
    assert pair.machine.next_deadline() == pair.now + SYNC_TIMEOUT
    pair.pump()
    assert (pair.machine.phase, pair.machine.reason) == ("live", "")
    pair.cut()
    pair.sent.clear()
    pair.connect()
    assert pair.sent == [subscribe(pair.generation, here(pair), delivery)]


def test_two_sides_that_disagree_do_not_keep_each_other_busy() -> None:
    """Also after the subscription was live for long: one sync at once, the next ones after growing delays."""
    pair = at("live")
    machine = pair.machine
    pair.wait(CALM_AFTER)
    machine.head(pair.now, "e1", 1, "f" * 32)
    delays = []
    for _ in range(4):
        while machine.stage != "pausing":
            message = pair.server.outbox.popleft()
            if isinstance(message, Synced):
                message = msgspec.structs.replace(message, digest="f" * 32)
            pair.give(message)
            assert pair.generation <= 6, "syncs without any delay"
        deadline = machine.next_deadline()
        assert deadline is not None
        delays.append(deadline - pair.now)
        pair.wait(deadline - pair.now)
    assert delays == [1.0, 2.0, 4.0, 8.0]


def test_calm_is_counted_from_the_last_sync() -> None:
    pair = at("live")
    pair.now = 100.0
    pair.cut()
    pair.connect()
    pair.pump()
    pair.give(event(9))  # the one at once
    pair.pump()
    pair.wait(CALM_AFTER - 0.1)
    pair.give(event(9))
    assert pair.machine.stage == "pausing"
    assert pair.machine.next_deadline() == pair.now + 1.0
    pair.wait(1.0)
    pair.pump()
    pair.wait(CALM_AFTER)
    pair.give(event(9))
    assert pair.machine.stage == "requested"
