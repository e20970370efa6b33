"""The subscription's machine at each of its stages, and what it tells of the past."""

from __future__ import annotations

import msgspec
import pytest

from wsmonitor.client.subscription import SYNC_TIMEOUT
from wsmonitor.client.types import (
    EventApplied,
    EventsReplayed,
    GapFound,
    PhaseChanged,
    PresenceChanged,
    SyncCompleted,
    SyncStarted,
)
from wsmonitor.protocol.codec import encode_record
from wsmonitor.protocol.messages import (
    Batch,
    Presence,
    Removed,
    Resync,
    Subscribe,
    SyncBegin,
    Synced,
    SyncPage,
    Unsubscribe,
)

from .pair import Pair
from .test_subscription_exactly import at, event, here, step, subscribe

STAGES = ("off", "requested", "pages", "tail", "live", "pausing", "over")


@pytest.mark.parametrize("stage", STAGES)
def test_at_each_stage_what_is_meant_for_another_changes_nothing(stage: str) -> None:
    """Messages of a sync have their stage and their generation; what does not fit is counted."""
    pair = at(stage)
    machine = pair.machine
    phase, deadline = machine.phase, machine.next_deadline()
    others = [
        SyncBegin(topic="s", generation=9, epoch="e1", base=7),
        SyncPage(topic="s", generation=9, page=0, base=7, last=True),
        Synced(topic="s", generation=9, seq=1, digest=pair.server.state.digest),
    ]
    mine = [msgspec.structs.replace(message, generation=pair.generation) for message in others]
    fitting = {"requested": 0, "pages": 1, "tail": 2}.get(stage)
    wrong = others + [message for number, message in enumerate(mine) if number != fitting]
    for message in wrong:
        pair.give(message)
    if stage != "live":
        assert stage != "tail" or machine.state is None
        pair.give(Batch(topic="s", epoch="e1", from_=1, to=2, ts="1", entities=[], digest=""))
        machine.head(pair.now, "e2", 5, "")
    assert machine.counters.foreign == len(wrong) + (stage != "live")
    assert (machine.stage, machine.phase, machine.next_deadline()) == (stage, phase, deadline)
    assert (pair.sent, pair.told) == ([], [])


@pytest.mark.parametrize("stage", STAGES)
def test_at_each_stage_events_find_their_place(stage: str) -> None:
    pair = at(stage)
    pair.give(event(2, "b"))
    assert pair.machine.counters.foreign == (stage not in ("tail", "live"))
    assert [type(one) for one in pair.told] == ([EventApplied] if stage == "live" else [])
    if stage == "tail":
        pair.server.happen("b", "x")
        pair.give(Synced(topic="s", generation=1, seq=2, digest=pair.server.state.digest))
        assert pair.machine.position == ("e1", 2)


@pytest.mark.parametrize("stage", STAGES)
def test_at_each_stage_a_removed_topic_is_over(stage: str) -> None:
    for reason, words in (("removed", "it was removed"), ("not_available", "not available to this token")):
        pair = at(stage)
        pair.give(Removed(topic="s", reason=reason))  # type: ignore[arg-type]
        there = stage not in ("off", "over")
        assert pair.told == ([PhaseChanged("not_available", words)] if there else [])
        assert (pair.machine.stage == "over") == (stage != "off")
        assert pair.machine.next_deadline() is None
        pair.wait(1000.0)
        assert pair.sent == []


@pytest.mark.parametrize("stage", STAGES)
def test_at_each_stage_nobody_listens_any_more(stage: str) -> None:
    pair = at(stage)
    pair.machine.close()
    assert pair.sent == ([] if stage in ("off", "over") else [Unsubscribe(topic="s")])
    assert (pair.machine.phase, pair.machine.next_deadline()) == ("closed", None)
    pair.sent.clear()
    pair.machine.close()
    pair.machine.redeliver(pair.now, "latest", 100)
    pair.machine.fault(pair.now, "x")
    pair.give(Resync(topic="s", reason="too_slow"))
    pair.give(Removed(topic="s", reason="removed"))
    pair.machine.disconnected(pair.now, "x")
    assert (pair.sent, pair.told, pair.machine.phase) == ([], [], "closed")


@pytest.mark.parametrize("stage", STAGES)
def test_at_each_stage_the_delivery_may_change(stage: str) -> None:
    pair = at(stage)
    resume = here(pair) if pair.machine.state is not None else None
    pair.machine.redeliver(pair.now, "latest", 1000)
    asked = [] if stage in ("off", "over") else [subscribe(pair.generation, resume, "latest")]
    assert pair.sent == asked
    pair.machine.redeliver(pair.now, "latest", 1000)
    assert pair.sent == asked


@pytest.mark.parametrize("stage", STAGES)
def test_at_each_stage_the_server_may_have_dropped_events(stage: str) -> None:
    pair = at(stage)
    pair.give(Resync(topic="s", reason="too_slow"))
    concerned = stage in ("pages", "tail", "live")
    assert pair.machine.counters.gaps == concerned
    assert [type(message) for message in pair.sent] == ([Subscribe] if concerned else [])


@pytest.mark.parametrize("stage", STAGES)
def test_at_each_stage_the_server_may_not_have_followed(stage: str) -> None:
    pair = at(stage)
    deadline = pair.machine.next_deadline()
    pair.machine.fault(pair.now, "there is no such subscription")
    assert pair.sent == []
    if stage in ("requested", "pages", "tail", "live"):
        assert (pair.machine.stage, pair.machine.next_deadline()) == ("pausing", pair.now + 1.0)
        assert (pair.machine.phase, pair.machine.reason) == ("syncing", "there is no such subscription")
        resume = here(pair) if stage == "live" else None
        pair.wait(1.0)
        assert pair.sent == [subscribe(2, resume)]
    else:
        assert (pair.machine.stage, pair.machine.next_deadline()) == (stage, deadline)


@pytest.mark.parametrize("stage", STAGES)
def test_at_each_stage_who_watches_is_told_on_a_link_only(stage: str) -> None:
    pair = at(stage)
    pair.machine.presence_changed(Presence(topic="s", count=2, names=["a", "b"]))
    there = PresenceChanged(2, ("a", "b"))
    assert pair.told == ([] if stage in ("off", "over") else [there])
    assert (pair.machine.presence == there) == (stage not in ("off", "over"))


def test_a_lost_link_is_told_with_its_reason_and_ends_what_ran() -> None:
    pair = at("pages")
    pair.cut()
    assert pair.told == [PhaseChanged("waiting", "cut")]
    assert (pair.machine.stage, pair.machine.next_deadline()) == ("off", None)
    pair.connect()
    assert pair.machine.next_deadline() == SYNC_TIMEOUT


def test_a_new_link_has_its_own_sync_at_once_and_its_own_delays() -> None:
    pair = at("live")
    for number in range(3):
        pair.give(event(9))
        assert pair.machine.stage == ("requested" if number == 0 else "pausing")
        pair.wait(5.0)
        pair.pump()
    pair.cut()
    pair.connect()
    pair.pump()
    pair.give(event(9))
    assert pair.machine.stage == "requested"
    pair.pump()
    pair.give(event(9))
    assert pair.machine.next_deadline() == pair.now + 1.0


def test_a_deadline_is_met_when_it_is_due_and_not_before() -> None:
    pair = at("requested")
    pair.wait(SYNC_TIMEOUT - 0.1)
    assert pair.sent == []
    pair.wait(0.1)
    assert pair.sent == [subscribe(2, None)]
    assert pair.machine.next_deadline() == pair.now + SYNC_TIMEOUT


def test_two_heads_beyond_are_a_lost_batch_and_one_that_was_reached_is_not() -> None:
    pair = at("live", "latest")
    machine, server = pair.machine, pair.server
    server.happen("b", "1")
    machine.head(pair.now, "e1", 2, "")
    server.flush_batch()
    pair.pump()
    server.happen("b", "2")
    # The head of the beat before has been reached: the batch up to this one may still be on its way.
    machine.head(pair.now, "e1", 3, "")
    assert machine.counters.gaps == 0
    server.flush_batch()
    pair.pump()
    machine.head(pair.now, "e1", 3, "")
    server.happen("b", "3")
    machine.head(pair.now, "e1", 4, "")
    assert machine.counters.gaps == 0
    machine.head(pair.now, "e1", 4, "")
    assert machine.counters.gaps == 1


def test_pages_may_drop_what_earlier_ones_brought() -> None:
    pair = at("requested")
    state = pair.server.state
    pair.pump(1)
    first = SyncPage(
        topic="s", generation=1, page=0, base=1, entities=[("step", encode_record(step("b", 1)))]
    )
    pair.give(first)
    again = SyncPage(
        topic="s",
        generation=1,
        page=1,
        base=4,
        drop=[("step", "b"), ("step", "unknown")],
        entities=[("step", encode_record(state.steps["a"])), ("of a later version", msgspec.Raw(b"{}"))],
        last=True,
    )
    pair.give(first)
    pair.give(first)
    assert pair.machine.counters.duplicates == 2
    pair.give(again)
    pair.give(Synced(topic="s", generation=1, seq=4, digest=state.digest))
    assert pair.machine.position == ("e1", 4)
    assert pair.machine.state is not None
    assert list(pair.machine.state.steps) == ["a"]


@pytest.mark.parametrize("reset", ["epoch", "ahead", "diverged"])
def test_what_is_not_continued_is_told_whoever_finds_it(reset: str) -> None:
    """The server says why; where it does not, the new position does."""
    for said in (True, False):
        pair = at("live")
        previous = pair.machine.position
        pair.cut()
        pair.connect()
        pair.told.clear()
        epoch, base = {"epoch": ("e2", 1), "ahead": ("e1", 0), "diverged": ("e1", 1)}[reset]
        pair.give(
            SyncBegin(topic="s", generation=2, epoch=epoch, base=base, reset=reset if said else "")  # type: ignore[arg-type]
        )
        history = [encode_record(event(seq)) for seq in range(1, base + 1)]
        pair.give(SyncPage(topic="s", generation=2, page=0, base=base, history=history, last=True))
        pair.give(Synced(topic="s", generation=2, seq=base, digest="0" * 32))
        told = "" if reset == "diverged" and not said else reset
        # After a reset there is no past to tell.
        assert pair.told == [SyncStarted(0), SyncCompleted(epoch, base, previous, told), PhaseChanged("live")]


def test_after_a_reset_by_ourselves_there_is_no_past_to_tell() -> None:
    pair = at("live")
    machine = pair.machine
    machine.head(pair.now, "e1", 1, "f" * 32)
    pair.server.happen("b", "1")
    pair.pump()
    assert [type(update) for update in pair.told] == [PhaseChanged, SyncStarted, SyncCompleted, PhaseChanged]
    pair.cut()
    pair.server.happen("b", "2")
    pair.connect()
    pair.told.clear()
    pair.pump()
    assert [type(update) for update in pair.told] == [
        SyncStarted,
        EventsReplayed,
        SyncCompleted,
        PhaseChanged,
    ]


def test_what_was_missed_is_told_in_runs_between_the_gaps() -> None:
    """Known up to 1; history has 1, 3, 4, one of another epoch and 6, the tail 9; the end is at 11."""
    pair = at("live")
    pair.cut()
    pair.connect()
    pair.told.clear()
    pair.give(SyncBegin(topic="s", generation=2, epoch="e1", base=8))
    seen = [event(1), event(3), event(4), event(5, epoch="old"), event(6), event(6)]
    page = SyncPage(
        topic="s", generation=2, page=0, base=8, history=[encode_record(one) for one in seen], last=True
    )
    pair.give(page)
    tail = event(9)
    pair.give(tail)
    state = pair.server.state.copy()
    state.drop("step", "a")
    state.put("step", step("a", 9))
    pair.give(Synced(topic="s", generation=2, seq=9, digest=state.digest))
    assert pair.told == [
        SyncStarted(0),
        GapFound(2, 2),
        EventsReplayed((event(3), event(4))),
        GapFound(5, 5),
        EventsReplayed((event(6),)),
        GapFound(7, 8),
        EventsReplayed((tail,)),
        SyncCompleted("e1", 9, ("e1", 1), ""),
        PhaseChanged("live"),
    ]
    assert pair.machine.counters.replayed == 4


def test_an_absent_session_is_told_and_its_appearance_once() -> None:
    pair = Pair()
    pair.connect()
    pair.give(SyncBegin(topic="s", generation=1, epoch="e1", base=0, absent=True))
    pair.give(SyncPage(topic="s", generation=1, page=0, base=0, last=True))
    pair.give(Synced(topic="s", generation=1, seq=0, digest="0" * 32))
    assert pair.told[-1] == PhaseChanged("absent")
    pair.told.clear()
    pair.give(event(1))
    pair.give(event(2))
    assert [type(update) for update in pair.told] == [EventApplied, PhaseChanged, EventApplied]
    assert pair.told[1] == PhaseChanged("live")
