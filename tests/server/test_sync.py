"""Syncs on a feed: pages, shared snapshots, rounds when history falls behind, gaps; and presence."""

from __future__ import annotations

import pytest

from wsmonitor.protocol.codec import decode_event, encode, encode_record
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import Chain, Problem, Session
from wsmonitor.protocol.messages import Event, Position, SyncPage
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.hub import Feed, Numbered
from wsmonitor_server.ports import Refusal
from wsmonitor_server.sync import TopicSync

from .support import Listener


class Writer:
    """Appends events to a feed, as the authority would."""

    def __init__(self, **limits: int) -> None:
        self.limits = Limits(**limits)
        self.feed = Feed("s", SessionState("s", "e"), self.limits)

    def put(self, kind: str, entity: object, *drops: tuple[str, str]) -> None:
        seq = self.feed.state.seq + 1
        made = type(entity)(
            **{f: getattr(entity, f) for f in entity.__struct_fields__ if f != "seq"},  # type: ignore[attr-defined]  # a record
            seq=seq,
        )
        event = Event(
            topic="s", epoch="e", seq=seq, ts="1", kind=kind, entity=encode_record(made), drop=list(drops)
        )
        self.feed.append([Numbered(seq, encode(event), kind, made, drops)])

    def chain(self, ident: str, name: str = "n") -> None:
        self.put("chain", Chain(id=ident, name=name))

    def sync(self, listener: Listener, resume: Position | None = None) -> TopicSync:
        return TopicSync(self.feed, listener, 1, resume, page_size=self.limits.page_size)


async def test_pages_are_bounded_and_the_page_before_can_be_had_again() -> None:
    writer = Writer(page_size=200)
    for number in range(20):
        writer.chain(f"c{number}")
    listener = Listener()
    sync = writer.sync(listener)
    assert sync.begin.entities == 20
    shadow = SessionState("s", "e")
    number = 0
    pages: list[SyncPage] = []
    while not pages or not pages[-1].last:
        pages.append(sync.page(number))
        assert sync.page(number) is pages[-1]
        listener.take(shadow, pages[-1])
        number += 1
    assert len(pages) > 3
    assert all(sum(len(bytes(raw)) for _, raw in page.entities) <= 200 for page in pages)
    for wrong in (number, 0):
        with pytest.raises(Refusal) as caught:
            sync.page(wrong)
        assert caught.value.info.code == "unexpected_message"
    assert sync.finish() == ([], 20, shadow.digest)


async def test_syncs_share_one_snapshot_while_it_is_in_use() -> None:
    writer = Writer()
    writer.chain("a")
    first = writer.sync(Listener("1"))
    writer.chain("b")
    second = writer.sync(Listener("2"))
    assert (first.begin.base, second.begin.base) == (1, 1)
    one, two = first.page(0), second.page(0)
    assert one.entities[0][1] is two.entities[0][1], "encoded once"
    for sync in (first, second):
        events, seq, _ = sync.finish()
        assert (len(events), seq) == (1, 2)
    del first, second, sync
    assert writer.sync(Listener("3")).begin.base == 2


async def test_snapshot_is_never_older_than_what_a_client_has() -> None:
    writer = Writer()
    writer.chain("a")
    kept = writer.sync(Listener("1"))
    writer.chain("b")
    sync = writer.sync(Listener("2"), Position(epoch="e", seq=2, digest=writer.feed.state.digest))
    assert (kept.begin.base, sync.begin.base) == (1, 2)


async def test_history_that_falls_behind_makes_another_round() -> None:
    writer = Writer(page_size=100, history_events=4)
    writer.put("session", Session(id="s", name="s"))
    writer.put("error", Problem(id="gone", code="c", message="m", at="1"))
    for number in range(10):
        writer.chain(f"c{number}")
    listener = Listener()
    sync = writer.sync(listener)
    shadow = SessionState("s", "e")
    bases = []
    number = 0
    while True:
        page = sync.page(number)
        bases.append(page.base)
        listener.take(shadow, page)
        if page.last:
            break
        number += 1
        if number < 8:
            writer.chain(f"c{number}", "changed")
            writer.put("error", Problem(id="new", code="c", message="m", at="1"), ("error", "gone"))
    assert bases == sorted(bases)
    assert bases[-1] > bases[0], "a second round was needed"
    events, seq, digest = sync.finish()
    for encoded in events:
        shadow.apply(decode_event(encoded))
    assert (shadow.seq, shadow.digest) == (seq, digest)
    assert set(shadow.problems) == {"new"}


async def test_history_is_complete_or_one_gap() -> None:
    writer = Writer(history_events=5)
    for number in range(10):
        writer.chain(f"c{number}")
    for resume, missed, gaps in ((6, [7, 8, 9, 10], []), (5, [6, 7, 8, 9, 10], []), (4, [], [(5, 10)])):
        listener = Listener()
        sync = writer.sync(listener, Position(epoch="e", seq=resume))
        await listener.finish(sync)
        assert ([event.seq for event in listener.missed], listener.gaps) == (missed, gaps)


async def test_no_event_while_syncing_and_each_one_once_afterwards() -> None:
    writer = Writer()
    writer.chain("a")
    listener = Listener()
    sync = writer.sync(listener)
    writer.chain("b")
    assert listener.events == []
    await listener.finish(sync)
    writer.chain("c")
    assert [event.seq for event in listener.events] == [3]
    assert listener.replica is not None
    assert listener.replica.digest == writer.feed.state.digest


async def test_subscribing_again_ends_what_was_before() -> None:
    writer = Writer()
    listener = Listener()
    old = writer.sync(listener)
    new = writer.sync(listener)
    with pytest.raises(Refusal) as caught:
        old.page(0)
    assert caught.value.info.code == "gone"
    await listener.finish(new)
    assert (len(writer.feed.subscribers), len(writer.feed.syncs)) == (1, 0)
    writer.feed.detach(listener)
    assert not writer.feed.used


async def test_finish_before_the_last_page_is_a_misuse() -> None:
    sync = Writer().sync(Listener())
    with pytest.raises(RuntimeError):
        sync.finish()


async def test_broken_history_resets_everybody() -> None:
    writer = Writer()
    live, syncing = Listener("live"), Listener("syncing")
    await live.finish(writer.sync(live))
    running = writer.sync(syncing)
    writer.feed.restart(SessionState("s", "other"))
    assert (live.resets, syncing.resets, writer.feed.used) == (1, 1, False)
    with pytest.raises(Refusal):
        running.page(0)


async def test_presence_counts_people_and_is_told_at_most_once_a_second() -> None:
    writer = Writer(presence_names=2)
    listeners = [Listener(name) for name in ("ann", "bob", "ann", "cem")]
    for listener in listeners:
        await listener.finish(writer.sync(listener))
    writer.feed.tell_presence(10.0, 1.0)
    assert listeners[0].present == [(3, ["ann", "bob"])]
    writer.feed.detach(listeners[3])
    writer.feed.tell_presence(10.5, 1.0)
    assert len(listeners[0].present) == 1
    assert writer.feed.presence.deadline() == 11.0
    writer.feed.tell_presence(11.0, 1.0)
    writer.feed.tell_presence(20.0, 1.0)
    assert listeners[0].present[1:] == [(2, ["ann", "bob"])]


async def test_history_that_falls_behind_again_and_again_makes_a_round_and_a_gap_each_time() -> None:
    writer = Writer(page_size=100, history_events=2)
    for number in range(4):
        writer.chain(f"c{number}")
    writer.chain("c0", "missed")
    listener = Listener()
    sync = writer.sync(listener, Position(epoch="e", seq=4))
    shadow, bases, number = SessionState("s", "e"), [], 0
    while True:
        page = sync.page(number)
        bases.append(page.base)
        listener.take(shadow, page)
        if page.last:
            break
        number += 1
        for change in range(3 if len(set(bases)) < 4 else 0):
            writer.chain(f"c{change}", f"changed {number}")
    assert len(set(bases)) >= 4
    told = [event.seq for event in listener.missed]
    for first, last in listener.gaps:
        told += range(first, last + 1)
    assert told == list(range(5, writer.feed.state.seq + 1)), "each one is told, or is in a gap"
    _, seq, digest = sync.finish()
    assert (shadow.seq, shadow.digest) == (seq, digest)


async def test_what_was_missed_comes_in_pages_of_their_size() -> None:
    writer = Writer(page_size=400)
    for number in range(12):
        writer.chain(f"c{number}")
    listener = Listener()
    sync = writer.sync(listener, Position(epoch="e", seq=2))
    shadow, pages, number = SessionState("s", "e"), [], 0
    while not pages or not pages[-1].last:
        pages.append(sync.page(number))
        listener.take(shadow, pages[-1])
        number += 1
    told = [[decode_event(raw).seq for raw in page.history] for page in pages if page.history]
    assert [seq for chunk in told for seq in chunk] == list(range(3, 13))
    assert len(told) > 2
    assert all(sum(len(bytes(raw)) for raw in page.history) <= 400 for page in pages)


async def test_an_event_larger_than_a_page_is_a_page() -> None:
    writer = Writer(page_size=50)
    for number in range(3):
        writer.chain(f"c{number}")
    sync = writer.sync(Listener(), Position(epoch="e", seq=0))
    for number in range(3):
        assert len(sync.page(number).history) == 1


async def test_a_sync_is_finished_once_and_closed_as_often_as_one_likes() -> None:
    writer = Writer()
    listener = Listener()
    sync = writer.sync(listener)
    await listener.finish(sync)
    with pytest.raises(RuntimeError, match="after close"):
        sync.finish()
    sync.close()
    assert list(writer.feed.subscribers.values()) == [listener]
    given_up = writer.sync(Listener())
    given_up.close()
    given_up.close()
    assert not writer.feed.syncs
    with pytest.raises(RuntimeError, match="after close"):
        given_up.finish()
