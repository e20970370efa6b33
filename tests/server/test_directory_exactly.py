"""The list of sessions by itself: what its views are told, and when; and which sessions go by themselves."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from wsmonitor.protocol.codec import decode_event
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import ErrorInfo, Listing
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.deadlines import Deadlines
from wsmonitor_server.directory import CONFLATE, UNUSED, Directory
from wsmonitor_server.framing import Delivery
from wsmonitor_server.hub import Feed
from wsmonitor_server.replies import error_info, not_available, refusal
from wsmonitor_server.retention import Retention, expired

from .support import counting_hex

ALL = "/directory"


class Ear:
    """A subscriber that remembers the events' bytes."""

    def __init__(self) -> None:
        self.name = self.instance = "x"
        self.heard: list[bytes] = []

    def tell(self, topic: str, seq: int, delivery: Delivery) -> None:
        encoded = delivery.payloads
        assert {decode_event(one).topic for one in encoded} == {topic}
        self.heard.extend(encoded)

    def presence(self, topic: str, delivery: Delivery) -> None: ...
    def removed(self, topic: str, reason: str) -> None: ...
    def reset(self, topic: str) -> None: ...


class Sync:
    def __init__(self, ear: Ear) -> None:
        self.subscriber = ear

    def close(self) -> None: ...


def directory() -> Directory:
    mint = counting_hex()
    return Directory(Limits(), lambda: mint(4))


def listening(feed: Feed) -> Ear:
    ear = Ear()
    sync = Sync(ear)
    feed.begin(sync)  # type: ignore[arg-type]  # of a subscriber, what a feed uses
    feed.attach(sync)  # type: ignore[arg-type]
    return ear


def a_line(ident: str = "a~1", **more: Any) -> Listing:
    return Listing(**{"id": ident, "name": ident[0], "state": "running", "created": "1", **more})


def told(ear: Ear) -> list[Listing]:
    """What was told since the last call; every event is checked for its form."""
    found = []
    replica = SessionState(ALL, decode_event(ear.heard[0]).epoch) if ear.heard else None
    for encoded in ear.heard:
        event = decode_event(encoded)
        assert replica is not None
        replica.seq = event.seq - 1
        entity = replica.apply(event)
        assert isinstance(entity, Listing)
        assert (event.kind, entity.seq) == ("listing", event.seq)
        found.append(replace(entity, seq=0))
    ear.heard.clear()
    return found


def test_counts_are_told_once_a_second_and_news_at_once() -> None:
    made = directory()
    ear = listening(made.view(ALL, ("*",)))
    first = a_line(counts={"running": 1})
    made.update(first, 10.0, 100)
    assert decode_event(ear.heard[0]).ts == "100"
    assert told(ear) == [first]
    for number in range(2, 5):
        made.update(a_line(counts={"running": number}), 10.0 + number / 10, 101)
    assert (told(ear), made.next_deadline()) == ([], 10.0 + CONFLATE)
    made.handle_timeout(10.9, 102)
    assert told(ear) == []
    made.handle_timeout(11.0, 103)
    assert decode_event(ear.heard[0]).ts == "103"
    assert (told(ear), made.next_deadline()) == ([a_line(counts={"running": 4})], None)
    made.update(a_line(size=5, counts={"running": 4}), 11.5, 104)
    assert made.next_deadline() == 11.0 + CONFLATE
    news = a_line(state="failed", size=6)
    made.update(news, 11.6, 105)
    assert decode_event(ear.heard[0]).ts == "105"
    assert (told(ear), made.next_deadline()) == ([news], None)
    counted = a_line(state="failed", size=7)
    made.update(counted, 12.6, 106)
    assert (told(ear), made.next_deadline()) == ([counted], None), "a whole second later it is told at once"
    made.update(counted, 99.0, 107)
    assert (told(ear), made.listings()) == ([], [counted])


def test_what_came_back_to_what_was_told_is_not_told_again() -> None:
    made = directory()
    ear = listening(made.view(ALL, ("*",)))
    made.update(a_line(), 10.0, 1)
    told(ear)
    made.update(a_line(size=5), 10.1, 2)
    made.update(a_line(), 10.2, 3)
    made.handle_timeout(11.0, 4)
    assert (told(ear), made.next_deadline()) == ([], None)
    made.update(a_line(size=6), 10.9, 5)
    assert made.next_deadline() == 11.0, "nothing was told since ten"


def test_a_line_that_was_there_at_the_start_is_told_with_its_first_change() -> None:
    made = directory()
    made.load(a_line())
    assert (len(made), made.listings()) == (1, [a_line()])
    ear = listening(made.view(ALL, ("*",)))
    made.update(a_line(size=5), 0.0, 1)
    assert told(ear) == [a_line(size=5)]


def test_a_view_begins_with_what_it_covers_and_numbers_it() -> None:
    made = directory()
    for ident in ("a~1", "b~1", "a~2"):
        made.load(a_line(ident))
    made.update(a_line("a~3"), 0.0, 1)
    made.view(f"{ALL}/x", ("*",))
    made.update(a_line("a~3", size=9), 0.1, 2)  # not told yet
    feed = made.view(ALL, ("a*",))
    assert (feed.topic, feed.state.topic, feed.state.epoch) == (ALL, ALL, "00000002")
    assert feed.state.listings == {
        "a~1": a_line("a~1", seq=1), "a~2": a_line("a~2", seq=2), "a~3": a_line("a~3", seq=3)
    }  # fmt: skip
    assert (feed.state.seq, feed.first_kept) == (3, 4)
    assert made.view(ALL, ("a*", "a*")) is feed
    assert made.existing(ALL, ("a*",)) is feed
    assert made.existing(ALL, ("b*",)) is None
    named = made.view(f"{ALL}/b", ("*",))
    assert list(named.state.listings) == ["b~1"]
    assert named.state.epoch == "00000003"
    empty = made.view(ALL, ())
    assert (empty.state.seq, len(empty.state), made.view_count) == (0, 0, 4)


def test_while_nobody_looks_nothing_waits_to_be_told() -> None:
    made = directory()
    assert not made.update(a_line(), 10.0, 1)
    assert not made.update(a_line(size=5), 10.1, 2)
    assert (made.next_deadline(), made.listings()) == (None, [a_line(size=5)])
    feed = made.view(ALL, ("*",))
    assert feed.state.listings == {"a~1": a_line(size=5, seq=1)}
    ear = listening(feed)
    assert made.update(a_line(size=6), 10.2, 3)
    assert (told(ear), made.next_deadline()) == ([], 10.1 + CONFLATE)
    made.handle_timeout(10.1 + CONFLATE, 4)
    assert told(ear) == [a_line(size=6)]


def test_what_is_removed_is_told_to_those_who_had_it() -> None:
    made = directory()
    made.update(a_line(), 0.0, 1)
    here, there = listening(made.view(ALL, ("a*",))), listening(made.view(ALL, ("b*",)))
    made.update(a_line(size=4), 0.5, 2)
    made.remove("a~1", 77)
    event = decode_event(here.heard[0])
    assert (event.ts, event.drop) == ("77", [("listing", "a~1")])
    assert (told(here), told(there)) == ([a_line(state="absent")], [])
    assert (len(made), made.next_deadline()) == (0, None)
    made.remove("a~1", 78)
    made.handle_timeout(99.0, 79)
    assert told(here) == []


def test_a_view_is_kept_for_a_while_after_the_last_has_gone() -> None:
    made = directory()
    feed = made.view(ALL, ("*",))
    ear = listening(feed)
    made.sweep(5.0)
    assert made.next_deadline() is None
    made.detach(f"{ALL}/x", ear)
    assert feed.used
    made.detach(ALL, ear)
    made.sweep(10.0)
    made.sweep(20.0)
    assert made.next_deadline() == 10.0 + UNUSED
    made.handle_timeout(9.9 + UNUSED, 1)
    assert made.view_count == 1
    assert made.view(ALL, ("*",)) is feed, "who is back in time goes on"
    assert made.next_deadline() is None
    made.sweep(200.0)
    again = listening(feed)
    made.handle_timeout(200.0 + UNUSED, 1)
    assert made.view_count == 1, "somebody came without asking for the view"
    made.sweep(201.0 + UNUSED)
    assert made.next_deadline() is None
    feed.detach(again)  # type: ignore[arg-type]
    made.sweep(500.0)
    made.handle_timeout(500.0 + UNUSED, 1)
    assert made.view_count == 0


# -- the small ones beside it

NOW = 10**18
NONE = Retention(max_age=0.0, max_sessions=0, max_session_size=0, max_total_size=0)


def over(ident: str, age: float = 10.0, size: int = 1, **more: Any) -> Listing:
    ended = str(NOW - int(age * 1e9))
    return a_line(ident, **{"state": "failed", "liveness": "lost", "ended": ended, "size": size, **more})


def test_only_what_has_ended_and_is_not_heard_goes() -> None:
    policy = replace(NONE, max_age=1.0)
    lines = [
        over("a"), over("b", liveness=""), over("c", liveness="live"), over("d", liveness="stale"),
        over("e", state="running"), over("f", state="crashed"), over("g", state="paused"),
    ]  # fmt: skip
    assert expired(lines, policy, NOW, 0) == ["a", "b", "f"]
    assert expired(lines, NONE, NOW, 10**12) == []


def test_the_bounds_of_what_is_kept() -> None:
    assert expired(
        [over("a", 9.0), over("b", 10.0), over("c", 10.5)], replace(NONE, max_age=10.0), NOW, 0
    ) == ["c"]
    sizes = [over("a", size=9), over("b", size=10), over("c", size=11)]
    assert expired(sizes, replace(NONE, max_session_size=10), NOW, 0) == ["c"]
    aged = [over("new", 1.0), over("old", 3.0), over("middle", 2.0)]
    assert expired(aged, replace(NONE, max_sessions=3), NOW, 0) == []
    assert expired(aged, replace(NONE, max_sessions=1), NOW, 0) == ["old", "middle"]
    quota = replace(NONE, max_total_size=100)
    big = [replace(one, size=10) for one in aged]
    assert expired(big, quota, NOW, 100) == []
    assert expired(big, quota, NOW, 101) == ["old"]
    assert expired(big, quota, NOW, 111) == ["old", "middle"]


def test_without_an_end_the_beginning_counts() -> None:
    lines = [
        over("a", 5.0),
        over("b", ended="", created=str(NOW - 20 * 10**9)),
        over("c", ended="", created=""),
    ]
    assert expired(lines, replace(NONE, max_sessions=1), NOW, 0) == ["c", "b"]
    assert expired(lines, replace(NONE, max_age=19.0), NOW, 0) == ["c", "b"]


def test_a_deadline_is_due_at_its_time_and_set_once() -> None:
    made = Deadlines()
    made.set("a", 5.0)
    made.set("a", 5.0)
    made.set("b", 5.0)
    assert made.due(4.99) == []
    assert made.due(5.0) == ["a", "b"]
    assert (made.due(5.0), len(made)) == ([], 0)


def test_many_deadlines_that_do_not_move_are_left_in_peace() -> None:
    """Each that is moved to the front leaves an entry; when most are outdated, they are thrown out."""
    made = Deadlines()
    for number in range(100):
        made.set(f"k{number}", 1_000.0 + number)
    for number in range(300):
        made.set("k0", 999.0 - number)
    assert len(made._heap) == 400
    made.set("k0", 1.0)
    assert len(made._heap) == 100
    made.set("k0", 5_000.0)
    assert len(made._heap) == 100
    assert made.due(1_098.0) == [f"k{number}" for number in range(1, 99)]
    assert made.next() == 1_099.0


def test_a_refusal_says_whether_to_try_again() -> None:
    assert error_info("store_failed", "m") == ErrorInfo(code="store_failed", message="m", retryable=True)
    assert error_info("bad_message", "m", step="t") == ErrorInfo(code="bad_message", message="m", step="t")
    assert error_info("unheard_of", "m") == ErrorInfo(code="unheard_of", message="m")
    assert refusal("store_failed", "m", session="s").info == error_info("store_failed", "m", session="s")


def test_what_is_not_there_and_what_is_not_ones_own_look_the_same() -> None:
    assert not_available("s~1").info == ErrorInfo(
        code="not_available", message="no such session, or not for this token", session="s~1"
    )
