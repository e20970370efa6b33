"""A sync by itself: what exactly it begins with, what is on each page, and where it is refused."""

from __future__ import annotations

import pytest
from msgspec import Raw

from wsmonitor.protocol.codec import decode_event, encode_record
from wsmonitor.protocol.entities import Chain, ErrorInfo, Problem
from wsmonitor.protocol.messages import Position, SyncBegin, SyncPage
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.ports import Refusal
from wsmonitor_server.snapshot import Snapshot, pages
from wsmonitor_server.sync import TopicSync

from .support import Listener
from .test_sync import Writer


def writer(chains: int = 3, **limits: int) -> Writer:
    made = Writer(**limits)
    for number in range(chains):
        made.chain(f"c{number}")
    return made


def a_sync(made: Writer, resume: Position | None = None, size: int = 100_000, **more: object) -> TopicSync:
    return TopicSync(made.feed, Listener(), 7, resume, page_size=size, **more)  # type: ignore[arg-type]


async def pulled(sync: TopicSync, first: int = 0) -> list[SyncPage]:
    found: list[SyncPage] = []
    while not found or not found[-1].last:
        found.append(sync.page(first + len(found)))
    assert [page.page for page in found] == list(range(first, first + len(found)))
    return found


def seqs(raws: list[Raw]) -> list[int]:
    return [decode_event(raw).seq for raw in raws]


def position(made: Writer, seq: int, digest: str | None = None, epoch: str = "e") -> Position:
    known = made.feed.digest_at(seq)
    return Position(epoch=epoch, seq=seq, digest=digest if digest is not None else known or "")


async def test_a_first_sync_in_full() -> None:
    made = writer()
    sync = a_sync(made)
    assert sync.begin == SyncBegin(topic="s", generation=7, epoch="e", base=3, entities=3)
    entities = [("chain", encode_record(chain)) for chain in made.feed.state.chains.values()]
    assert sync.page(0) == SyncPage(topic="s", generation=7, page=0, base=3, entities=entities, last=True)
    made.chain("late")
    events, seq, digest = sync.finish()
    assert (seqs([Raw(one) for one in events]), seq, digest) == ([4], 4, made.feed.state.digest)


async def test_an_empty_topic_has_one_empty_page() -> None:
    sync = a_sync(writer(0), absent=True)
    assert sync.begin == SyncBegin(topic="s", generation=7, epoch="e", base=0, absent=True)
    assert sync.page(0) == SyncPage(topic="s", generation=7, page=0, base=0, last=True)


RESUMED = [
    # epoch, seq, digest (None: the right one), reset, what comes as history
    ("e", 5, None, "", []),
    ("e", 3, None, "", [4, 5]),
    ("e", 0, None, "", [1, 2, 3, 4, 5]),
    ("e", 3, "", "", [4, 5]),
    ("e", 3, "f" * 32, "diverged", []),
    ("e", 5, "f" * 32, "diverged", []),
    ("e", 6, "", "ahead", []),
    ("other", 3, "", "epoch", []),
    ("other", 0, "", "", []),
    ("other", 9, "", "epoch", []),
]


@pytest.mark.parametrize(("epoch", "seq", "digest", "reset", "history"), RESUMED)
@pytest.mark.parametrize("tell", [True, False])
async def test_which_position_is_continued(
    epoch: str, seq: int, digest: str | None, reset: str, history: list[int], tell: bool
) -> None:
    made = writer(5)
    sync = a_sync(made, position(made, seq, digest, epoch), tell_reset=tell)
    assert sync.begin.reset == (reset if tell else "")
    found = await pulled(sync)
    assert [one for page in found for one in seqs(page.history)] == history
    assert [page.gap for page in found] == [None] * len(found)
    assert [page.page for page in found] == list(range(len(found)))
    assert sum(len(page.entities) for page in found) == 5


async def test_what_history_no_longer_has_is_one_gap_on_the_first_page() -> None:
    made = writer(8, history_events=3)
    for seq, history, gap in ((5, [6, 7, 8], None), (4, [], (5, 8)), (0, [], (1, 8))):
        found = await pulled(a_sync(made, position(made, seq)))
        assert [one for page in found for one in seqs(page.history)] == history
        assert [page.gap for page in found] == [gap] + [None] * (len(found) - 1)
    found = await pulled(a_sync(made))
    assert [page.gap for page in found] == [None], "who was never there has missed nothing"


@pytest.mark.parametrize(
    ("room", "sizes"), [(3.0, [3, 2]), (2.99, [2, 2, 1]), (1.0, [1] * 5), (0.5, [1] * 5)]
)
async def test_history_comes_in_pages_of_their_size(room: float, sizes: list[int]) -> None:
    made = writer(5)
    length = len(made.feed.history[0].encoded) + 1
    found = await pulled(a_sync(made, position(made, 0), int(room * length)))
    assert [len(page.history) for page in found if page.history] == sizes
    assert [one for page in found for one in seqs(page.history)] == [1, 2, 3, 4, 5]


async def test_a_round_brings_what_changed_since_and_what_is_gone() -> None:
    """History keeps two; behind the first page come four events, so that another round is needed."""
    made = Writer(history_events=2)
    made.put("error", Problem(id="old", code="c", message="m", at="1"))
    made.chain("a")
    sync = a_sync(made, position(made, 2))
    made.put("error", Problem(id="new", code="c", message="m", at="1"), ("error", "old"))
    made.chain("b")
    made.chain("b", "again")
    made.chain("a", "again")
    first, second = await pulled(sync)
    assert (first.base, first.drop, first.gap, first.last) == (2, [], None, False)
    assert second == SyncPage(
        topic="s",
        generation=7,
        page=1,
        base=6,
        entities=[(kind, encode_record(entity)) for kind, entity in made.feed.state if entity.seq > 2],
        drop=[("error", "old")],
        gap=(3, 6),
        last=True,
    )
    assert len(second.entities) == 3
    assert sync.finish() == ([], 6, made.feed.state.digest)


async def test_what_a_round_has_brought_is_known_to_the_next() -> None:
    """Each problem ends the keeping of the one before, while a round of one record a page is under way."""
    made = Writer(history_events=1)
    made.chain("a")
    sync = a_sync(made, size=1)
    shadow = SessionState("s", "e", 1)
    listener = Listener()
    found: list[SyncPage] = []
    before: tuple[tuple[str, str], ...] = ()
    while not found or not found[-1].last:
        if len(found) < 6:
            ident = f"x{len(found)}"
            made.put("error", Problem(id=ident, code="c", message="m", at="1"), *before)
            made.chain("b", ident)
            before = (("error", ident),)
        found.append(sync.page(len(found)))
        listener.take(shadow, found[-1])
    assert shadow.digest == made.feed.state.digest
    assert list(shadow.problems) == ["x5"]
    assert [page.page for page in found] == list(range(len(found)))
    bases = [page.base for page in found]
    assert bases == sorted(bases)
    assert len(set(bases)) > 3
    assert sum(len(page.drop) for page in found) >= 2
    assert [page.gap for page in found] == [None] * len(found), "who was never there has missed nothing"


async def test_an_event_at_the_very_edge_of_history_is_enough() -> None:
    for behind, rounds in ((2, 1), (3, 2)):
        made = writer(3, history_events=2)
        sync = a_sync(made)
        for number in range(behind):
            made.chain(f"n{number}")
        found = await pulled(sync)
        assert len(found) == rounds
        events, seq, _ = sync.finish()
        assert (len(events), seq) == (behind if rounds == 1 else 0, 3 + behind)


async def test_a_page_out_of_turn_and_one_after_the_end_are_refused() -> None:
    sync = a_sync(writer(), size=1)
    for wrong in (1, -1, 5):
        with pytest.raises(Refusal) as caught:
            sync.page(wrong)
        assert caught.value.info == ErrorInfo(
            code="unexpected_message",
            message=f"page {wrong} is not the next one, nor the one before",
            session="s",
        )
    await pulled(sync)
    sync.close()
    with pytest.raises(Refusal) as caught:
        sync.page(3)
    assert caught.value.info == ErrorInfo(
        code="gone", message="this sync is over: subscribe again", retryable=True, session="s"
    )


async def test_a_sync_is_finished_in_the_turn_of_its_last_page_only() -> None:
    made = writer(3, history_events=2)
    attached: list[int] = []
    sync = a_sync(made, on_attach=lambda: attached.append(1))
    with pytest.raises(RuntimeError, match="the loop turn that pulled the last page"):
        sync.finish()
    assert sync.page(0).last
    for number in range(3):
        made.chain(f"n{number}")
    with pytest.raises(RuntimeError, match="the loop turn that pulled the last page"):
        sync.finish()
    assert attached == []
    other = a_sync(made, on_attach=lambda: attached.append(1))
    await pulled(other)
    other.finish()
    assert attached == [1]
    with pytest.raises(RuntimeError, match="after close"):
        other.finish()
    other.close()
    assert list(made.feed.subscribers) == [id(other.subscriber)]


def test_a_sync_that_is_closed_leaves_the_feed_and_not_its_successor() -> None:
    made = writer()
    sync = a_sync(made)
    assert made.feed.used
    sync.close()
    assert not made.feed.used
    listener = Listener()
    first = TopicSync(made.feed, listener, 1, None, page_size=100)
    second = TopicSync(made.feed, listener, 2, None, page_size=100)
    first.close()
    assert made.feed.syncs == {id(listener): second}


def lengths(count: int, size: int) -> list[int]:
    chains = [("chain", Chain(id=f"c{number}", name="n")) for number in range(count)]
    found = list(pages(chains, size))
    assert [last for _, last in found] == [False] * (len(found) - 1) + [True]
    return [len(page) for page, _ in found]


def test_pages_of_entities_are_filled_and_not_overfilled() -> None:
    one = len(bytes(encode_record(Chain(id="c0", name="n")))) + 16
    assert lengths(5, 2 * one) == [2, 2, 1]
    assert lengths(5, 2 * one - 1) == [1] * 5
    assert lengths(5, 3 * one) == [3, 2]
    assert lengths(4, 2 * one) == [2, 2]
    assert lengths(2, 1) == [1, 1]
    assert lengths(0, 1) == [0]


def test_a_snapshot_does_not_follow_its_state() -> None:
    made = writer(2)
    snapshot = Snapshot(made.feed.state, 1)
    made.chain("late")
    made.chain("c0", "other")
    assert (snapshot.base, snapshot.count, snapshot.epoch) == (2, 2, "e")
    assert [[bytes(raw) for _, raw in snapshot.page(number)[0]] for number in (1, 0)] == [
        [bytes(encode_record(Chain(id="c1", name="n", seq=2)))],
        [bytes(encode_record(Chain(id="c0", name="n", seq=1)))],
    ]
    assert (snapshot.page(0)[1], snapshot.page(1)[1]) == (False, True)
