"""The subscription's machine: rule by rule, and against a model server under every order of events."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.scale import many
from wsmonitor.client.subscription import CALM_AFTER, SYNC_TIMEOUT, Delivery
from wsmonitor.client.types import (
    BatchApplied,
    EventApplied,
    EventsReplayed,
    GapFound,
    PhaseChanged,
    PresenceChanged,
    SyncCompleted,
    SyncStarted,
)
from wsmonitor.protocol.messages import (
    Batch,
    Event,
    Presence,
    Removed,
    Resync,
    Subscribe,
    SyncBegin,
    Synced,
    SyncPage,
    Unsubscribe,
)
from wsmonitor.protocol.reducer import SessionState

from .pair import Pair


def entities(state: SessionState | None) -> dict[tuple[str, str], object]:
    assert state is not None
    return {(kind, entity.id): entity for kind, entity in state}


def test_the_first_sync_begins_without_a_past() -> None:
    pair = Pair()
    for number in range(5):
        pair.server.happen(f"a{number}", "x")
    assert pair.machine.phase == "waiting"
    pair.connect()
    pair.pump()
    assert [type(update) for update in pair.told] == [PhaseChanged, SyncStarted, SyncCompleted, PhaseChanged]
    assert pair.machine.position == ("e1", 5)
    assert pair.machine.phase == "live"
    subscribe = pair.sent[0]
    assert isinstance(subscribe, Subscribe)
    assert subscribe.resume is None
    assert pair.machine.verified


def test_live_events_are_applied_once_and_in_order() -> None:
    pair = Pair()
    pair.live()
    first = pair.server.happen("a", "1")
    second = pair.server.happen("a", "2")
    pair.pump()
    pair.give(first)
    pair.give(second)
    assert [update.event.seq for update in pair.of(EventApplied)] == [1, 2]
    assert pair.machine.counters.duplicates == 2
    assert pair.machine.state is not None
    assert pair.machine.state.steps["a"].name == "2"  # MONOTONE


def test_what_was_missed_is_told_once_marked_and_not_reduced() -> None:
    pair = Pair()
    pair.live()
    pair.cut()
    assert pair.machine.phase == "waiting"
    for number in range(4):
        pair.server.happen("a", str(number))
    pair.told.clear()
    pair.connect()
    pair.pump()
    (replayed,) = pair.of(EventsReplayed)
    assert [event.seq for event in replayed.events] == [1, 2, 3, 4]
    assert pair.of(EventApplied) == []
    (completed,) = pair.of(SyncCompleted)
    assert (completed.previous, completed.reset) == (("e1", 0), "")
    assert pair.told.index(replayed) < pair.told.index(completed)


def test_what_can_no_longer_be_had_is_one_gap() -> None:
    pair = Pair(keep=3)
    pair.live()
    pair.cut()
    for number in range(9):
        pair.server.happen("a", str(number))
    pair.connect()
    pair.pump()
    assert pair.of(GapFound) == [GapFound(1, 9)]
    assert pair.of(EventsReplayed) == []
    assert pair.machine.position == ("e1", 9)


def test_the_old_view_stays_until_the_new_one_is_verified() -> None:
    pair = Pair(page=1)
    for number in range(3):
        pair.server.happen(f"a{number}", "old")
    pair.live()
    pair.cut()
    for number in range(3):
        pair.server.happen(f"a{number}", "new")
    pair.connect()
    while pair.server.outbox:
        assert pair.machine.state is not None
        names = {step.name for step in pair.machine.state.steps.values()}
        assert names == {"old"}
        assert pair.machine.phase == "syncing"
        pair.pump(1)
    assert pair.machine.state is not None
    assert {step.name for step in pair.machine.state.steps.values()} == {"new"}


def test_events_during_a_sync_come_behind_its_base() -> None:
    pair = Pair(page=1)
    for number in range(3):
        pair.server.happen(f"a{number}", "x")
    pair.connect()
    pair.pump(2)
    pair.server.happen("late", "y")
    pair.pump()
    assert pair.machine.position == ("e1", 4)
    assert pair.machine.phase == "live"


def test_rounds_under_a_rising_base_leave_no_seq_untold() -> None:
    pair = Pair(page=1, keep=2)
    for number in range(3):
        pair.server.happen(f"a{number}", "x")
    pair.live()
    pair.cut()
    pair.server.happen("a0", "y")
    pair.connect()
    pair.pump(2)
    for number in range(6):
        pair.server.happen("b", str(number))
    pair.pump()
    assert pair.machine.position == ("e1", 10)
    covered = [event.seq for update in pair.of(EventsReplayed) for event in update.events]
    for gap in pair.of(GapFound):
        covered.extend(range(gap.first, gap.last + 1))
    assert sorted(covered) == list(range(4, 11))


def test_a_lost_event_is_found_by_the_next_one() -> None:
    pair = Pair()
    pair.live()
    pair.server.happen("a", "1")
    pair.server.outbox.clear()
    pair.server.happen("a", "2")
    pair.pump()
    assert pair.machine.counters.gaps == 1
    assert pair.machine.position == ("e1", 2)
    assert [e.seq for u in pair.of(EventsReplayed) for e in u.events] == [1, 2]


def test_a_lost_event_is_found_by_a_heartbeat() -> None:
    pair = Pair()
    pair.live()
    pair.server.happen("a", "1")
    pair.server.outbox.clear()
    state = pair.server.state
    pair.machine.head(pair.now, state.epoch, state.seq, state.digest)
    pair.pump()
    assert pair.machine.counters.gaps == 1
    assert pair.machine.position == ("e1", 1)


def test_a_head_that_agrees_changes_nothing() -> None:
    pair = Pair()
    pair.live()
    pair.machine.head(pair.now, "e1", 0, pair.server.state.digest)
    pair.machine.head(pair.now, "e1", 0, "")
    assert pair.told == []
    assert pair.sent == []


def test_another_content_at_the_same_place_is_a_visible_reset() -> None:
    pair = Pair()
    pair.server.happen("a", "1")
    pair.live()
    assert pair.machine.state is not None
    pair.machine.state.drop("step", "a")
    pair.machine.head(pair.now, "e1", 1, pair.server.state.digest)
    assert pair.machine.counters.mismatches == 1
    assert any(isinstance(u, PhaseChanged) and "differs" in u.reason for u in pair.told)
    pair.pump()
    assert entities(pair.machine.state) == entities(pair.server.state)


def test_a_new_epoch_is_a_visible_reset() -> None:
    pair = Pair()
    pair.server.happen("a", "1")
    pair.live()
    pair.cut()
    pair.server.begin_anew(keep_entities=False)
    pair.connect()
    pair.pump()
    (completed,) = pair.of(SyncCompleted)
    assert (completed.epoch, completed.previous, completed.reset) == ("e2", ("e1", 1), "epoch")
    assert len(pair.machine.state or ()) == 0


def test_an_event_of_another_epoch_begins_a_sync() -> None:
    pair = Pair()
    pair.live()
    event = pair.server.happen("a", "1")
    pair.server.outbox.clear()
    pair.give(msgspec.structs.replace(event, epoch="other"))
    pair.pump()
    assert pair.machine.position == ("e1", 1)


def test_what_belongs_to_an_earlier_generation_is_dropped() -> None:
    pair = Pair()
    pair.live()
    pair.give(Resync(topic="s", reason="too_slow"))
    event = Event(topic="s", epoch="e1", seq=1, ts="1", kind="step", entity=msgspec.Raw(b"{}"))
    pair.give(event)
    pair.give(SyncBegin(topic="s", generation=1, epoch="e1", base=7))
    pair.give(SyncPage(topic="s", generation=1, page=0, base=7, last=True))
    pair.give(Synced(topic="s", generation=1, seq=7, digest=""))
    assert pair.machine.counters.foreign == 4
    pair.pump()
    assert pair.machine.position == ("e1", 0)


def test_a_shadow_that_does_not_agree_is_not_used_and_syncs_are_spread() -> None:
    pair = Pair()
    pair.server.happen("a", "1")
    pair.connect()
    attempts = []
    for _ in range(4):
        while pair.server.outbox:
            message = pair.server.outbox.popleft()
            if isinstance(message, Synced):
                message = msgspec.structs.replace(message, digest="f" * 32)
            pair.give(message)
        assert pair.machine.state is None
        assert "does not agree" in pair.machine.reason
        deadline = pair.machine.next_deadline()
        assert deadline is not None
        attempts.append(deadline - pair.now)
        pair.wait(deadline - pair.now)
    assert attempts == [1.0, 2.0, 4.0, 8.0]
    pair.pump()
    assert pair.machine.phase == "live"
    assert pair.machine.counters.mismatches == 5


def test_the_first_resync_comes_at_once_and_again_after_some_calm() -> None:
    pair = Pair()
    pair.live()
    pair.give(Resync(topic="s", reason="too_slow"))
    pair.pump()
    assert pair.machine.phase == "live"
    pair.give(Resync(topic="s", reason="too_slow"))
    assert pair.machine.next_deadline() == pair.now + 1.0
    pair.wait(1.0)
    pair.pump()
    pair.wait(CALM_AFTER)
    pair.give(Resync(topic="s", reason="reset"))
    pair.pump()
    assert pair.machine.phase == "live"


def test_a_sync_that_makes_no_progress_is_begun_anew() -> None:
    pair = Pair()
    pair.connect()
    pair.server.outbox.clear()
    pair.wait(SYNC_TIMEOUT)
    pair.pump()
    assert pair.machine.phase == "live"


def test_a_damaged_page_and_a_damaged_event_begin_a_sync() -> None:
    pair = Pair()
    pair.connect()
    pair.pump(1)
    pair.server.outbox.clear()
    bad = msgspec.Raw(b'{"no":1}')
    pair.give(SyncPage(topic="s", generation=1, page=0, base=0, entities=[("step", bad)]))
    assert "cannot be read" in pair.machine.reason
    pair.pump()
    assert pair.machine.phase == "live"
    pair.give(Event(topic="s", epoch="e1", seq=1, ts="1", kind="step", entity=bad))
    assert "cannot be applied" in pair.machine.reason
    assert pair.machine.state is not None
    assert pair.machine.state.seq == 0


def test_a_repeated_page_is_dropped() -> None:
    pair = Pair(page=1)
    for number in range(3):
        pair.server.happen(f"a{number}", "x")
    pair.connect()
    pair.pump(1)
    page = pair.server.outbox[0]
    pair.pump(1)
    pair.give(page)
    assert pair.machine.counters.duplicates == 1
    pair.pump()
    assert pair.machine.phase == "live"


def test_an_absent_session_appears() -> None:
    pair = Pair()
    pair.connect()
    begin = pair.server.outbox.popleft()
    assert isinstance(begin, SyncBegin)
    pair.give(msgspec.structs.replace(begin, absent=True))
    pair.pump()
    assert pair.machine.phase == "absent"
    assert pair.machine.position == ("e1", 0)
    pair.server.happen("a", "1")
    pair.pump()
    assert pair.machine.phase == "live"
    assert isinstance(pair.told[-2], EventApplied)


def test_a_removed_topic_is_over_until_the_next_link() -> None:
    pair = Pair()
    pair.server.happen("a", "1")
    pair.live()
    pair.give(Removed(topic="s", reason="removed"))
    assert pair.machine.phase == "not_available"
    assert pair.machine.state is not None  # the last that was known stays visible
    pair.server.happen("a", "2")
    pair.pump()
    assert pair.machine.position == ("e1", 1)
    pair.cut()
    pair.connect()
    pair.pump()
    assert pair.machine.phase == "live"


def test_an_error_about_the_topic_begins_a_sync() -> None:
    pair = Pair()
    pair.live()
    pair.machine.fault(pair.now, "there is no such subscription")
    assert pair.machine.reason == "there is no such subscription"
    assert pair.sent == []
    pair.wait(1.0)
    pair.pump()
    assert pair.machine.phase == "live"


def test_presence_is_told() -> None:
    pair = Pair()
    pair.live()
    pair.machine.presence_changed(Presence(topic="s", count=2, names=["a", "b"]))
    assert pair.told == [PresenceChanged(2, ("a", "b"))]
    pair.cut()
    pair.told.clear()
    pair.machine.presence_changed(Presence(topic="s", count=3, names=[]))
    assert pair.told == []


def test_closing_unsubscribes_and_is_final() -> None:
    pair = Pair()
    pair.live()
    pair.machine.close()
    assert [type(message) for message in pair.sent] == [Unsubscribe]
    pair.give(Event(topic="s", epoch="e1", seq=1, ts="1", kind="step", entity=msgspec.Raw(b"{}")))
    pair.machine.disconnected(pair.now, "x")
    assert pair.machine.phase == "closed"
    assert pair.told == []


def test_changing_the_delivery_keeps_the_position() -> None:
    pair = Pair()
    pair.server.happen("a", "1")
    pair.live()
    pair.machine.redeliver(pair.now, "all", 1000)
    assert pair.sent == []
    pair.machine.redeliver(pair.now, "latest", 200)
    subscribe = pair.sent[0]
    assert isinstance(subscribe, Subscribe)
    assert (subscribe.delivery, subscribe.interval_ms) == ("latest", 200)
    assert subscribe.resume is not None
    assert subscribe.resume.seq == 1
    pair.pump()
    assert pair.machine.phase == "live"


def test_batches() -> None:
    pair = Pair(delivery="latest")
    pair.live()
    for number in range(4):
        pair.server.happen("a", str(number))
    pair.server.happen("b", "x")
    pair.machine.head(pair.now, "e1", 5, "")  # a batch may still be on its way
    pair.server.flush_batch()
    batch = pair.server.outbox[0]
    pair.pump()
    (applied,) = pair.of(BatchApplied)
    assert applied.seq == 5
    assert sorted(entity.id for _, entity in applied.entities) == ["a", "b"]
    assert pair.machine.position == ("e1", 5)
    pair.give(batch)
    assert pair.machine.counters.duplicates == 1
    pair.machine.head(pair.now, "e1", 5, pair.server.state.digest)
    assert pair.machine.phase == "live"


def test_a_lost_batch_is_found_by_the_next_one_and_by_two_heartbeats() -> None:
    for by_heartbeat in (False, True):
        pair = Pair(delivery="latest")
        pair.live()
        pair.server.happen("a", "1")
        pair.server.flush_batch()
        pair.server.outbox.clear()
        if by_heartbeat:
            pair.machine.head(pair.now, "e1", 1, "")
            pair.machine.head(pair.now, "e1", 1, "")
        else:
            pair.server.happen("a", "2")
            pair.server.flush_batch()
            pair.pump()
        assert pair.machine.counters.gaps == 1
        pair.pump()
        assert entities(pair.machine.state) == entities(pair.server.state)


@pytest.mark.parametrize("what", ["digest", "epoch", "damaged"])
def test_a_batch_that_does_not_fit_leaves_the_verified_state(what: str) -> None:
    pair = Pair(delivery="latest")
    pair.server.happen("a", "1")
    pair.live()
    pair.server.happen("a", "2")
    pair.server.happen("b", "1")
    pair.server.flush_batch()
    batch = pair.server.outbox.popleft()
    assert isinstance(batch, Batch)
    wrong = {
        "digest": msgspec.structs.replace(batch, digest="0" * 32, drop=[("step", "gone")]),
        "epoch": msgspec.structs.replace(batch, epoch="x"),
        "damaged": msgspec.structs.replace(batch, entities=[("step", msgspec.Raw(b"[]"))]),
    }[what]
    before = entities(pair.machine.state)
    pair.give(wrong)
    assert entities(pair.machine.state) == before
    assert pair.machine.state is not None
    pair.machine.state.verify(SessionState.restore("s", "e1", 1, list(pair.machine.state)).digest)
    pair.pump()
    assert entities(pair.machine.state) == entities(pair.server.state)


RARELY = st.sampled_from([False, False, False, True])


class Observing(RuleBasedStateMachine):
    """Any order of events, losses, cuts, new epochs, slow syncs: the invariants hold throughout."""

    def __init__(self) -> None:
        super().__init__()
        self.pair: Pair
        self.reads = 0
        self.last: tuple[str, int] | None = None
        self.account: list[tuple[str, int]] = []  # every (epoch, seq) that was told, as event or in a gap
        self.born: tuple[str, int] | None = None  # the position from which every seq must be told

    @initialize(delivery=st.sampled_from(["all", "latest"]), keep=st.integers(1, 12), page=st.integers(1, 3))
    def begin(self, delivery: Delivery, keep: int, page: int) -> None:
        self.pair = Pair(delivery=delivery, keep=keep, page=page)

    @rule(idents=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5))
    def happen(self, idents: list[str]) -> None:
        for ident in idents:
            self.pair.server.happen(ident, str(self.pair.server.state.seq))

    @precondition(lambda self: not self.pair.linked)
    @rule()
    def connect(self) -> None:
        self.pair.connect()

    @precondition(lambda self: self.pair.linked)
    @rule(really=RARELY)
    def cut(self, really: bool) -> None:
        if really:
            self.pair.cut()

    @rule(count=st.integers(1, 4))
    def deliver(self, count: int) -> None:
        self.pair.pump(count)

    @rule()
    def deliver_all(self) -> None:
        self.pair.pump()

    @precondition(lambda self: self.pair.server.outbox)
    @rule()
    def repeat(self) -> None:
        """The same event twice."""
        message = self.pair.server.outbox[0]
        if isinstance(message, (Event, Batch)):
            self.pair.server.outbox.appendleft(message)

    @precondition(lambda self: self.pair.server.attached and self.pair.server.outbox)
    @rule()
    def lose(self) -> None:
        """An event is lost on the way, though the link lives (a fault somewhere)."""
        if isinstance(self.pair.server.outbox[0], (Event, Batch)) and self.pair.machine.stage == "live":
            self.pair.server.outbox.popleft()

    @rule()
    def flush_batch(self) -> None:
        self.pair.server.flush_batch()

    @precondition(lambda self: self.pair.server.attached and not self.pair.server.outbox)
    @rule()
    def heartbeat(self) -> None:
        state = self.pair.server.state
        self.pair.machine.head(self.pair.now, state.epoch, state.seq, state.digest)

    @rule(keep=st.booleans(), really=RARELY)
    def new_epoch(self, keep: bool, really: bool) -> None:
        if not really:
            return
        if self.pair.linked:
            self.pair.cut()
        self.pair.server.begin_anew(keep_entities=keep)

    @precondition(lambda self: self.pair.server.attached)
    @rule(really=RARELY)
    def too_slow(self, really: bool) -> None:
        if not really:
            return
        self.pair.server.outbox.clear()
        self.pair.server.attached = False
        self.pair.server.outbox.append(Resync(topic="s", reason="too_slow"))

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.pair.wait(seconds)

    @invariant()
    def order_gapless_once_monotone(self) -> None:
        if not hasattr(self, "pair"):
            return
        told, machine = self.pair.told, self.pair.machine
        for update in told[self.reads :]:
            match update:
                case SyncCompleted(epoch, seq, previous, reset):
                    if previous is None or reset:
                        # The one reset that is allowed, and it is visible.
                        self.born = (epoch, seq)
                        self.account = [(epoch, seq)]
                        assert previous is None or reset
                    else:
                        assert self.last is not None
                        assert (epoch, seq) >= self.last, "MONOTONE"
                        assert self.account[-1] == (epoch, seq), "GAPLESS: the sync's past is told in full"
                    self.last = (epoch, seq)
                case EventApplied(event):
                    self._next(event.epoch, event.seq)
                    self.last = (event.epoch, event.seq)
                case EventsReplayed(events):
                    for event in events:
                        self._next(event.epoch, event.seq)
                case GapFound(first, last):
                    epoch, seq = self.account[-1]
                    assert first == seq + 1, "GAPLESS"
                    assert last >= first
                    self.account.append((epoch, last))
                case BatchApplied(seq):
                    epoch, before = self.account[-1]
                    assert seq > before, "ORDER"
                    self.account.append((epoch, seq))
                    self.last = (epoch, seq)
        self.reads = len(told)
        if machine.state is not None and self.last is not None:
            assert machine.position == self.last

    def _next(self, epoch: str, seq: int) -> None:
        assert self.account, "an event before the first sync"
        assert (epoch, seq) == (self.account[-1][0], self.account[-1][1] + 1), "ORDER, GAPLESS, ONCE"
        self.account.append((epoch, seq))

    def teardown(self) -> None:
        """AGREE: when traffic stops, the replica equals the server's state."""
        if not hasattr(self, "pair"):
            return
        pair = self.pair
        if not pair.linked:
            pair.connect()
        for _ in range(200):
            pair.pump()
            pair.server.flush_batch()
            pair.pump()
            state = pair.server.state
            if pair.server.attached and not pair.server.outbox:
                pair.machine.head(pair.now, state.epoch, state.seq, state.digest)
                pair.machine.head(pair.now, state.epoch, state.seq, state.digest)
            if pair.machine.phase == "live" and pair.machine.position == (state.epoch, state.seq):
                break
            pair.wait(31.0)
        assert pair.machine.state is not None
        assert pair.machine.state.digest == pair.server.state.digest, "AGREE"
        assert entities(pair.machine.state) == entities(pair.server.state), "AGREE"
        self.order_gapless_once_monotone()


Observing.TestCase.settings = settings(max_examples=many(200), stateful_step_count=60, deadline=None)
TestObserving = Observing.TestCase
