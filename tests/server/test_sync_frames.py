"""What of a sync is sent: pages as frames, made in slices, and once for all who ask for the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from wsmonitor.protocol import codec
from wsmonitor.protocol.codec import encode
from wsmonitor.protocol.messages import Position, Synced, SyncPage
from wsmonitor_server import snapshot as snapshots
from wsmonitor_server import sync as syncs
from wsmonitor_server.framing import CHUNK, Delivery, frame_text
from wsmonitor_server.ports import Pulled, Refusal
from wsmonitor_server.snapshot import FRAMED, FRAMED_PAGES, SLICE, Snapshot
from wsmonitor_server.sync import TopicSync

from .support import Listener
from .test_sync import Writer
from .test_sync_exactly import writer


class Deaf(Listener):
    """Whom the events after its sync do not interest."""

    def tell(self, topic: str, seq: int, delivery: Delivery) -> None: ...


def a_sync(made: Writer, resume: Position | None = None, *, generation: int = 7, size: int = 1) -> TopicSync:
    return TopicSync(made.feed, Deaf(), generation, resume, page_size=size)


def joined(pulled: Pulled) -> bytes:
    return b"".join(frames for frames, _ in pulled.chunks)


def framed(payloads: Iterable[bytes]) -> bytes:
    return b"".join(map(frame_text, payloads))


def everything(sync: TopicSync) -> list[Pulled]:
    """All that is sent, as a client pulls it."""
    found: list[Pulled] = []
    while not found or found[-1].seq is None:
        while not sync.prepare(len(found)):
            pass
        found.append(sync.pull(len(found)))
    return found


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is encoded from now on: each entity, and each message of a sync."""
    seen: list[str] = []

    def counted(encode: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def one(value: Any) -> Any:
            seen.append(type(value).__name__)
            return encode(value)

        return one

    monkeypatch.setattr(snapshots, "encode_record", counted(codec.encode_record))
    monkeypatch.setattr(syncs, "encode", counted(codec.encode))
    return seen


def test_what_is_pulled_is_what_the_pages_say_and_the_last_one_ends_it() -> None:
    made = writer(2, page_size=1)
    one, other = a_sync(made), a_sync(made)
    made.chain("late")
    pulled = everything(one)
    pages = [other.page(0), other.page(1)]
    synced = Synced(topic="s", generation=7, seq=3, digest=made.feed.state.digest)
    assert [joined(part) for part in pulled] == [
        framed([encode(pages[0])]),
        framed([encode(pages[1]), *made.feed.since(2), encode(synced)]),
    ]
    assert [part.seq for part in pulled] == [None, 3]
    assert one.subscriber in made.feed.subscribers.values()
    with pytest.raises(Refusal) as caught:
        one.pull(2)
    assert caught.value.info.code == "gone"


def test_a_thousand_observers_who_join_together_cost_one_encoding(encoded: list[str]) -> None:
    made = writer(20)
    size = 100_000
    running = [a_sync(made, size=size) for _ in range(1_000)]
    first = everything(running[0])
    assert encoded == ["Chain"] * 20 + ["SyncPage", "Synced"]
    for sync in running[1:]:
        [pulled] = everything(sync)
        assert pulled.chunks[0][0] is first[0].chunks[0][0], "the very same bytes"
    assert encoded == ["Chain"] * 20 + ["SyncPage", "Synced"]
    assert len(made.feed.subscribers) == 1_000


def test_what_differs_is_made_for_each_and_no_entity_is_encoded_twice(encoded: list[str]) -> None:
    made = writer(3)
    kept = a_sync(made, size=1_000)
    for generation in (1, 2, 1):
        [pulled] = everything(a_sync(made, generation=generation, size=1_000))
        assert b'"generation":%d' % generation in joined(pulled)
    assert encoded == ["Chain"] * 3 + ["SyncPage", "Synced"] * 2
    made.chain("late")
    [pulled] = everything(a_sync(made, size=1_000))
    assert pulled.seq == 4
    assert encoded.count("Chain") == 3
    assert joined(pulled).count(b'"late"') == 1, "as an event, behind the page"
    assert kept.begin.base == 3


def test_history_and_gaps_are_each_observers_own(encoded: list[str]) -> None:
    made = writer(4, history_events=2)
    kept = a_sync(made, size=1_000)
    digest = made.feed.digest_at(3)
    assert digest is not None
    missed = a_sync(made, Position(epoch="e", seq=3, digest=digest), size=1_000)
    history, rest = everything(missed)
    assert b'"history":[{' in joined(history)
    assert b'"history"' not in joined(rest)
    [gap] = everything(a_sync(made, Position(epoch="e", seq=1, digest=""), size=1_000))
    assert b'"gap":[2,4]' in joined(gap)
    [whole] = everything(a_sync(made, size=1_000))
    assert b'"gap"' not in joined(whole)
    assert kept.begin.base == 4
    assert encoded.count("Chain") == 4


def test_a_page_is_given_again_as_it_was() -> None:
    made = writer(3, page_size=1)
    sync = a_sync(made)
    first = sync.pull(0)
    assert sync.prepare(0)
    assert sync.pull(0) is first
    assert sync.prepare(7), "it is not there, which `pull` says"
    with pytest.raises(Refusal):
        sync.pull(7)


def test_a_large_page_is_made_a_slice_at_a_time(encoded: list[str]) -> None:
    made = writer(3 * SLICE + 5)
    sync = a_sync(made, size=1_000_000)
    encoded.clear()
    steps = []
    while not sync.prepare(0):
        steps.append(len(encoded))
    assert steps == [SLICE, 2 * SLICE, 3 * SLICE]
    assert len(encoded) == 3 * SLICE + 5
    assert sync.prepare(0)
    assert sync.pull(0).seq == 3 * SLICE + 5
    assert sync.prepare(1), "it is over"


def test_what_follows_the_last_page_is_one_piece_unless_there_is_much_of_it() -> None:
    made = writer(1)
    few, many = a_sync(made, size=1_000), a_sync(made, size=1_000)
    made.chain("late")
    [pulled] = everything(few)
    assert [count for _, count in pulled.chunks] == [3]
    while sum(len(one) for one in made.feed.since(1)) <= CHUNK + 1_000:
        made.chain("more", "x" * 900)
    [pulled] = everything(many)
    assert len(pulled.chunks) > 1
    assert all(len(frames) <= CHUNK for frames, _ in pulled.chunks)
    page = decoded_page(joined(pulled))
    assert page.last
    assert sum(count for _, count in pulled.chunks) == 2 + made.feed.state.seq - 1


def decoded_page(frames: bytes) -> SyncPage:
    length = int.from_bytes(frames[2:4], "big") if frames[1] == 126 else frames[1]
    start = 4 if frames[1] == 126 else 2
    found = codec.decode_server(frames[start : start + length])
    assert isinstance(found, SyncPage)
    return found


def test_frames_are_kept_within_a_bound_the_oldest_goes_first() -> None:
    snapshot = Snapshot(writer(1).feed.state, 1_000)
    made: list[int] = []

    def give(key: int, size: int) -> None:
        def make() -> list[tuple[bytes, int]]:
            made.append(key)
            return [(bytes(size), 1)]

        assert snapshot.framed(key, make) == [(bytes(size), 1)]

    half = FRAMED // 2
    for key in (1, 2, 1, 2):
        give(key, half)
    assert made == [1, 2]
    give(3, 1)
    give(2, half)
    give(1, half)
    assert made == [1, 2, 3, 1]
    give(4, FRAMED + 1)
    give(4, FRAMED + 1)
    assert made == [1, 2, 3, 1, 4, 4], "more than there is room for is not kept"


def test_small_pages_are_kept_in_a_small_number() -> None:
    """One connection that subscribes again and again: another generation each time, and another page."""
    snapshot = Snapshot(writer(1).feed.state, 1_000)
    made: list[int] = []

    def give(generation: int) -> None:
        def make() -> list[tuple[bytes, int]]:
            made.append(generation)
            return [(b"x", 1)]

        snapshot.framed(generation, make)

    for generation in range(FRAMED_PAGES + 5):
        give(generation)
    made.clear()
    for generation in range(5, FRAMED_PAGES + 5):
        give(generation)
    assert made == [], "the last ones are still there"
    give(4)
    assert made == [4], "those before are not"
