"""Batches that are made for one listener: the newest of each entity, at most once per interval."""

from __future__ import annotations

from wsmonitor.client.conflate import Conflation
from wsmonitor.client.types import BatchApplied, EventApplied
from wsmonitor.protocol.codec import encode_record
from wsmonitor.protocol.entities import Step
from wsmonitor.protocol.messages import Event


def a_batch(seq: int, *names: str, dropped: tuple[str, ...] = ()) -> BatchApplied:
    entities = tuple(("step", Step(id=name, chain="c", name=name, seq=seq)) for name in names)
    return BatchApplied(seq, entities, tuple(("step", name) for name in dropped))


def test_the_first_is_told_at_once_and_then_the_newest_once_per_interval() -> None:
    gathered = Conflation(2.0)
    assert gathered.add(10.0, a_batch(1, "a")) == 0.0
    assert gathered.take(10.0) == a_batch(1, "a")
    assert gathered.take(10.0) is None
    assert gathered.add(10.5, a_batch(2, "a")) == 1.5
    assert gathered.add(11.0, a_batch(3, "b")) == 1.0
    assert gathered.add(11.5, a_batch(4, "a")) == 0.5
    told = gathered.take(12.0)
    assert told is not None
    assert told.seq == 4
    assert [(kind, entity.id, entity.seq) for kind, entity in told.entities] == [
        ("step", "a", 4),
        ("step", "b", 3),
    ]
    assert gathered.add(20.0, a_batch(5, "a")) == 0.0


def test_what_was_dropped_is_not_told_as_changed_and_what_came_back_not_as_dropped() -> None:
    gathered = Conflation(1.0)
    gathered.add(0.0, a_batch(1, "a", "b"))
    gathered.add(0.0, a_batch(2, dropped=("a",)))
    gathered.add(0.0, a_batch(3, dropped=("b",)))
    gathered.add(0.0, a_batch(4, "b"))
    told = gathered.take(0.0)
    assert told is not None
    assert [entity.id for _, entity in told.entities] == ["b"]
    assert told.dropped == (("step", "a"),)


def test_what_a_sync_has_told_is_not_told_again() -> None:
    gathered = Conflation(1.0)
    gathered.add(0.0, a_batch(1, "a"))
    gathered.clear()
    assert gathered.take(5.0) is None


def test_single_events_are_gathered_like_batches() -> None:
    gathered = Conflation(2.0)
    step = Step(id="a", chain="c", name="a", seq=7)
    event = Event(
        topic="s", epoch="e", seq=7, ts="1", kind="step", entity=encode_record(step), drop=[("step", "b")]
    )
    gathered.add(0.0, EventApplied(event, step))
    unknown = Event(topic="s", epoch="e", seq=8, ts="1", kind="later", entity=encode_record(step))
    gathered.add(0.0, EventApplied(unknown, None))
    assert gathered.take(0.0) == BatchApplied(8, (("step", step),), (("step", "b"),))
