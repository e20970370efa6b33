"""A feed by itself: its head, its history, the snapshots that it shares, and who listens to it."""

from __future__ import annotations

import pytest

from wsmonitor.protocol import messages
from wsmonitor.protocol.access import Claims
from wsmonitor.protocol.codec import decode_event, decode_server, encode, encode_record
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.digest import entity_hash
from wsmonitor.protocol.entities import Step
from wsmonitor.protocol.messages import Event, HistoryPage
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server import hub
from wsmonitor_server.framing import Delivery
from wsmonitor_server.hub import CROWD, KEEP, SHARE_DISTANCE, Feed, Numbered, Presence

from .support import claims


class Ear:
    """A subscriber that remembers what it was told."""

    def __init__(self, name: str = "", instance: str = "") -> None:
        self.claims: Claims = claims()
        self.name = name
        self.instance = instance
        self.heard: list[tuple[object, ...]] = []

    def tell(self, topic: str, seq: int, delivery: Delivery) -> None:
        encoded = delivery.payloads
        for at, one in enumerate(encoded, seq - len(encoded) + 1):
            self.event(topic, at, one)

    def event(self, topic: str, seq: int, encoded: bytes) -> None:
        self.heard.append(("event", topic, seq, encoded))

    def presence(self, topic: str, delivery: Delivery) -> None:
        told = decode_server(delivery.payloads[0])
        assert isinstance(told, messages.Presence)
        self.heard.append(("presence", topic, told.count, tuple(told.names)))

    def removed(self, topic: str, reason: str) -> None:
        self.heard.append(("removed", topic, reason))

    def reset(self, topic: str) -> None:
        self.heard.append(("reset", topic))


class Sync:
    """A running sync."""

    def __init__(self, subscriber: Ear) -> None:
        self.subscriber = subscriber
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def numbered(
    seq: int, ident: str = "a", *, size: int = 0, drops: tuple[tuple[str, str], ...] = ()
) -> Numbered:
    step = Step(id=ident, chain="c", name="n" * (1 + size), seq=seq)
    event = Event(
        topic="s", epoch="e", seq=seq, ts="1", kind="step", entity=encode_record(step), drop=list(drops)
    )
    return Numbered(seq, encode(event), "step", step, drops, entity_hash(step))


def feed(events: int = 0, **limits: int) -> Feed:
    made = Feed("s", SessionState("s", "e"), Limits(**limits))
    made.append([numbered(seq, f"x{seq % 3}") for seq in range(1, events + 1)])
    return made


def listening(made: Feed, ear: Ear) -> Ear:
    sync = Sync(ear)
    made.begin(sync)
    made.attach(sync)
    return ear


def test_an_empty_feed() -> None:
    made = feed()
    assert (made.first_kept, made.history_size, made.used) == (1, 0, False)
    assert made.presence.deadline() is None
    assert made.since(0) == []
    assert made.digest_at(0) == made.state.digest
    assert made.digest_at(1) is None


def test_what_is_appended_is_the_head_is_kept_and_is_told() -> None:
    made = feed()
    ear = listening(made, Ear())
    state = SessionState("s", "e")
    events = [numbered(1, "a"), numbered(2, "b"), numbered(3, "a", drops=(("step", "b"),))]
    made.append(events[:1])
    made.append(events[1:])
    digests = []
    for event in events:
        state.apply(decode_event(event.encoded))
        digests.append(state.digest)
    assert (made.state.seq, made.state.digest) == (3, state.digest)
    assert list(made.state.steps) == ["a"]
    assert ear.heard == [("event", "s", event.seq, event.encoded) for event in events]
    assert [made.digest_at(seq) for seq in range(5)] == [None, *digests, None]
    assert made.history_size == sum(len(event.encoded) for event in events)


def test_the_number_that_was_computed_for_the_digest_is_used() -> None:
    """Else each event would be hashed twice."""
    event = numbered(1)
    made = feed()
    made.append([Numbered(1, event.encoded, "step", event.entity, (), 7)])
    assert made.state.hash_of("step", "a") == 7


def test_history_is_bounded_by_count_and_by_bytes() -> None:
    made = feed(10, history_events=4)
    assert (made.first_kept, len(made.history)) == (7, 4)
    assert made.history_size == sum(len(kept.encoded) for kept in made.history)
    size = len(numbered(1, "x1").encoded)
    for bytes_kept, count in ((3 * size, 3), (3 * size - 1, 2)):
        made = feed(9, history_size=bytes_kept)
        assert len(made.history) == count
        assert made.history_size == count * size
        made.append([numbered(10, "x1", size=1), numbered(11, "x1")])
        assert made.history_size == sum(len(kept.encoded) for kept in made.history) <= bytes_kept
    loaded = Feed(
        "s", SessionState("s", "e", 5), Limits(history_events=2), [(4, b"x"), (5, b"yy"), (6, b"zzz")]
    )
    assert (loaded.first_kept, loaded.history_size) == (5, 5)
    assert loaded.digest_at(6) is None, "of what was loaded, the digest is not known"


def test_what_is_behind_a_seq() -> None:
    made = feed(6, history_events=4)
    kept = [event.encoded for event in made.history]
    assert made.since(6) == []
    assert made.since(4) == kept[2:]
    assert made.since(2) == kept
    assert made.digest_at(2) is None
    assert made.digest_at(3) == made.history[0].digest is not None
    assert made.digest_at(6) == made.state.digest
    assert made.digest_at(7) is None


@pytest.mark.parametrize(
    ("first", "limit", "sizes", "seqs"),
    [
        (1, 10, 100.0, [3, 4, 5, 6]),
        (4, 10, 100.0, [4, 5, 6]),
        (4, 2, 100.0, [4, 5]),
        (7, 10, 100.0, []),
        (1, 10, 0.0, [3]),
        (1, 10, 1.0, [3]),
        (1, 10, 1.999, [3]),
        (1, 10, 2.0, [3, 4]),
        (1, 10, 3.0, [3, 4, 5]),
    ],
)
def test_a_page_of_history(first: int, limit: int, sizes: float, seqs: list[int]) -> None:
    """Up to the limit, and up to the size: of that, one event at least."""
    made = feed(6, history_events=4)
    size = len(made.history[0].encoded)
    page = made.history_page(first, limit, int(size * sizes), 7)
    assert page == HistoryPage(request=7, events=page.events, first_kept=3, head=6)
    assert [decode_event(raw).seq for raw in page.events] == seqs


def test_a_snapshot_is_shared_while_it_is_of_use() -> None:
    made = feed(6, history_events=10_000)
    first = made.snapshot(0)
    assert (first.base, first.epoch) == (6, "e")
    made.append([numbered(7)])
    assert made.snapshot(0) is first
    assert made.snapshot(6) is first
    resumed = made.snapshot(7)
    assert resumed is not first
    assert resumed.base == 7
    made.append([numbered(7 + number) for number in range(1, SHARE_DISTANCE + 1)])
    assert made.snapshot(0) is resumed
    made.append([numbered(8 + SHARE_DISTANCE)])
    assert made.snapshot(0) is not resumed


def test_a_snapshot_is_shared_as_long_as_history_reaches_back_to_it() -> None:
    made = feed(6, history_events=3)
    first = made.snapshot(0)
    made.append([numbered(7), numbered(8), numbered(9)])
    assert made.first_kept == 7
    assert made.snapshot(0) is first
    made.append([numbered(10)])
    assert made.snapshot(0) is not first


def test_a_snapshot_of_another_history_is_not_shared() -> None:
    made = feed(6)
    first = made.snapshot(0)
    made.restart(SessionState("s", "e2", 6))
    assert made.snapshot(0) is not first


def test_who_begins_a_sync_hears_nothing_until_it_is_over() -> None:
    made = feed()
    ear = listening(made, Ear("ada"))
    assert made.presence.dirty
    made.presence.dirty = False
    sync = Sync(ear)
    made.begin(sync)
    assert made.presence.dirty, "who syncs again is away meanwhile"
    made.append([numbered(1)])
    assert ear.heard == []
    assert (made.used, made.syncs, made.subscribers) == (True, {id(ear): sync}, {})
    another = Sync(ear)
    made.begin(another)
    assert (sync.closed, another.closed) == (1, 0)
    made.attach(another)
    made.append([numbered(2)])
    assert [one[2] for one in ear.heard] == [2]
    made.presence.dirty = False
    made.detach(ear)
    assert (made.used, made.presence.dirty) == (False, True)
    made.presence.dirty = False
    made.detach(ear)
    assert not made.presence.dirty


def test_one_that_goes_away_while_it_is_told_does_not_disturb_the_others() -> None:
    made = feed()

    class Leaving(Ear):
        def event(self, topic: str, seq: int, encoded: bytes) -> None:
            super().event(topic, seq, encoded)
            made.detach(self)

        def presence(self, topic: str, delivery: Delivery) -> None:
            super().presence(topic, delivery)
            made.detach(self)

    leaving, staying = listening(made, Leaving()), listening(made, Ear())
    made.append([numbered(1)])
    assert len(leaving.heard) == len(staying.heard) == 1
    leaving, staying = listening(made, Leaving()), listening(made, Ear())
    made.tell_presence(100.0, 1.0)
    assert leaving.heard[-1] == staying.heard[-1] == ("presence", "s", 3, ())


def test_presence_is_told_when_it_changed_and_not_too_often() -> None:
    made = feed()
    ears = [
        listening(made, Ear(name, instance)) for name, instance in (("bo", "1"), ("ada", "2"), ("ada", "2"))
    ]
    assert made.presence.deadline() == 0.0
    made.tell_presence(0.0, 5.0)
    told = ("presence", "s", 2, ("ada", "bo"))
    assert [ear.heard for ear in ears] == [[told]] * 3
    made.tell_presence(1.0, 5.0)
    assert made.presence.deadline() is None
    made.detach(ears[0])
    assert made.presence.deadline() == 5.0
    made.tell_presence(4.9, 5.0)
    made.tell_presence(5.0, 5.0)
    assert ears[1].heard == [told, ("presence", "s", 1, ("ada",))]


def test_people_are_counted_by_their_programs_and_named_in_order_up_to_a_limit() -> None:
    presence = Presence(2)
    nameless = [Ear(), Ear()]
    assert presence.who(nameless) == (2, ())
    people = [Ear("c", "1"), Ear("a", "2"), Ear("b", "3"), Ear("z", "1")]
    assert presence.who(people) == (3, ("a", "b"))


def test_a_history_that_is_broken_is_told_to_all_and_goes_on_elsewhere() -> None:
    made = feed(3)
    ear, syncing = listening(made, Ear()), Sync(Ear())
    made.begin(syncing)
    state = SessionState("s", "e2", 5)
    made.restart(state)
    assert made.state is state
    assert (made.first_kept, made.history_size, made.used, syncing.closed) == (6, 0, False, 1)
    assert ear.heard == syncing.subscriber.heard == [("reset", "s")]


def test_a_topic_that_is_removed_is_told_to_all() -> None:
    made = feed(3)
    ear, syncing = listening(made, Ear()), Sync(Ear())
    made.begin(syncing)
    made.remove()
    assert (made.used, syncing.closed) == (False, 1)
    assert ear.heard == syncing.subscriber.heard == [("removed", "s", "removed")]


def test_who_watches_at_other_nodes_counts_once() -> None:
    presence = Presence(3)
    presence.elsewhere = {
        "n1": (("i1", "ada"), ("i2", "bob")),
        "n2": (("i2", "bob"), ("#0", "eve"), ("#1", "")),
    }
    assert presence.who([Ear("ada", "i1"), Ear("ada", "i3"), Ear("mal")]) == (6, ("ada", "ada", "bob"))
    assert Presence.here([Ear("ada", "i1"), Ear("ada", "i1"), Ear("mal")]) == {"i1": "ada", "#2": "mal"}


def test_who_is_connected_here_is_given_when_it_is_told() -> None:
    made = feed()
    ear = listening(made, Ear("ada", "i1"))
    made.presence.elsewhere = {"n1": (("i2", "bob"),)}
    assert made.tell_presence(0.0, 1.0) == (("i1", "ada"),)
    assert ear.heard == [("presence", "s", 2, ("ada", "bob"))]
    assert made.tell_presence(9.0, 1.0) is None


def test_a_feed_that_begins_anew_with_a_history_goes_on_from_it() -> None:
    source, made = feed(5), feed(2)
    ear = listening(made, Ear())
    made.restart(source.state, [(kept.seq, kept.encoded) for kept in source.history])
    assert ear.heard == [("reset", "s")]
    assert (made.state.seq, made.first_kept) == (5, 1)
    assert made.since(3) == source.since(3)
    assert made.history_size == source.history_size
    made.append([numbered(6)])
    assert made.first_kept == 1


# -- what is kept of a storm


def base_of_the_next(made: Feed) -> int:
    return made.snapshot(0).base


def test_a_snapshot_that_nobody_uses_is_kept_until_it_is_time() -> None:
    made = feed()
    made.append([numbered(1)])
    made.keep_snapshot(0.0)
    assert made.kept_until is None, "there is none"
    assert base_of_the_next(made) == 1
    made.append([numbered(2)])
    assert base_of_the_next(made) == 2, "nobody kept it"
    held = made.snapshot(0)
    made.keep_snapshot(10.0)
    del held
    made.append([numbered(3)])
    assert base_of_the_next(made) == 2
    assert made.kept_until == 10.0 + KEEP
    made.let_go(made.kept_until - 0.001)
    assert base_of_the_next(made) == 2
    made.let_go(made.kept_until)
    assert (base_of_the_next(made), made.kept_until) == (3, None)
    made.let_go(99.0)


def test_the_time_is_not_moved_for_each_of_a_storm() -> None:
    made = feed()
    held = made.snapshot(0)
    for now, until in ((0.0, KEEP), (0.5, KEEP), (0.75, 0.75 + KEEP)):
        made.keep_snapshot(now)
        assert made.kept_until == until
    assert held.base == 0


def test_a_snapshot_that_is_too_large_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "KEEP_ENTITIES", 0)
    made = feed()
    held = made.snapshot(0)
    made.keep_snapshot(0.0)
    assert (made.kept_until, held.count) == (KEEP, 0)
    made.append([numbered(1)])
    made.let_go(KEEP)
    held = made.snapshot(1)
    made.keep_snapshot(0.0)
    assert (made.kept_until, held.count) == (None, 1)


def test_a_crowd_is_told_less_often_who_watches() -> None:
    made = feed()
    ears = [listening(made, Ear(instance=str(number))) for number in range(5)]
    made.tell_presence(0.0, 1.5 * CROWD)
    made.detach(ears[0])
    assert made.presence.deadline() == 5 * CROWD
    made.tell_presence(5 * CROWD, 9.0)
    made.detach(ears[1])
    assert made.presence.deadline() == 5 * CROWD + 9.0
