"""What waits for a slow reader (protocol, rule 9; invariant BOUNDED), as a pure machine."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wsmonitor_server.limiter import TokenBucket
from wsmonitor_server.outbox import Lane, Outbox


def outbox(messages: int = 4, size: int = 100) -> Outbox:
    return Outbox(messages=messages, size=size, control_messages=3, control_size=50)


def test_everything_leaves_in_the_order_in_which_it_came() -> None:
    box, lane = outbox(), Lane()
    box.put_state(lane, b"1")
    box.put_control(b"2")
    box.put_bulk(Lane(bulk=True), b"3")
    box.put_state(lane, b"4")
    assert box.take(100) == [b"1", b"2", b"3", b"4"]
    assert not box


def test_a_chunk_has_its_limit_but_a_large_frame_goes_alone() -> None:
    box, lane = outbox(messages=9, size=10_000), Lane()
    for frame in (b"a" * 60, b"b" * 60, b"c" * 500, b"d"):
        box.put_state(lane, frame)
    assert [len(box.take(130)) for _ in range(4)] == [2, 1, 1, 0]


def test_overflow_by_count_and_by_size_names_the_greediest() -> None:
    box, small, large = outbox(messages=3), Lane(), Lane()
    assert box.put_state(small, b"s")
    assert box.put_state(large, b"l" * 50)
    assert box.put_state(small, b"s")
    assert not box.put_state(small, b"s")
    assert box.victim() is large
    assert box.drop(large) == 1
    assert not box.state_overflow
    assert box.take(100) == [b"s", b"s", b"s"]
    assert not box.put_state(large, b"l" * 101)


def test_what_waits_of_sessions_can_be_held_back() -> None:
    outbox = Outbox(messages=10, size=100, control_messages=10, control_size=100)
    lane, pages = Lane(), Lane(bulk=True)
    outbox.put_state(lane, b"event")
    outbox.put_control(b"answer")
    outbox.put_bulk(pages, b"page")
    outbox.put_control(b"beat")
    assert outbox.take_control() == [b"answer", b"beat"]
    assert outbox.take_control() == []
    assert (outbox.control_count, outbox.control_waiting) == (0, 0)
    assert (outbox.state_count, outbox.bulk_waiting) == (1, 4)
    assert outbox.take(100) == [b"event", b"page"]
    assert not outbox


def test_control_is_never_dropped_with_a_lane() -> None:
    box, lane = outbox(), Lane()
    box.put_control(b"a")
    box.put_state(lane, b"x")
    box.put_control(b"b")
    box.drop(lane)
    assert box.take(100) == [b"a", b"b"]
    assert [box.put_control(b"c") for _ in range(4)] == [True, True, True, False]
    assert box.control_overflow


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("state"), st.integers(0, 2), st.binary(min_size=1, max_size=40)),
            st.tuples(st.just("bulk"), st.integers(3, 4), st.binary(min_size=1, max_size=40)),
            st.tuples(st.just("control"), st.just(0), st.binary(min_size=1, max_size=40)),
            st.tuples(st.just("drop"), st.integers(0, 4), st.just(b"")),
            st.tuples(st.just("take"), st.integers(1, 200), st.just(b"")),
        )
    )
)
def test_the_counts_always_agree_with_what_waits(
    steps: list[tuple[str, int, bytes]],
) -> None:
    box, lanes = outbox(messages=1_000, size=100_000), [Lane(bulk=number > 2) for number in range(5)]
    model: list[tuple[int | None, bytes]] = []
    for what, number, frame in steps:
        if what == "state":
            box.put_state(lanes[number], frame)
            model.append((number, frame))
        elif what == "bulk":
            box.put_bulk(lanes[number], frame)
            model.append((number, frame))
        elif what == "control":
            box.put_control(frame)
            model.append((None, frame))
        elif what == "drop":
            box.drop(lanes[number])
            model = [entry for entry in model if entry[0] != number]
        else:
            taken = box.take(number)
            assert taken == [frame for _, frame in model[: len(taken)]]
            del model[: len(taken)]
        states = [len(frame) for owner, frame in model if owner in (0, 1, 2)]
        assert (box.state_count, box.state_size) == (len(states), sum(states))
        assert box.bulk_waiting == sum(len(frame) for owner, frame in model if owner in (3, 4))
        assert box.control_count == sum(owner is None for owner, _ in model)
        victim = box.victim()
        assert (0 if victim is None else victim.size) == max(lane.size for lane in lanes[:3])
        for index, lane in enumerate(lanes):
            assert lane.size == sum(len(frame) for owner, frame in model if owner == index)
    assert bool(box) == bool(model)


def test_the_bucket_refills_with_time_up_to_its_size() -> None:
    bucket = TokenBucket(rate=2.0, burst=3, now=0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.take(0.5)
    assert not bucket.take(0.5)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]


def test_pages_are_counted_apart_and_leave_in_their_place() -> None:
    box, lane = outbox(messages=100, size=10_000), Lane()
    box.put_state(lane, b"s" * 10)
    box.put_bulk(Lane(bulk=True), b"p" * 50)
    box.put_control(b"c" * 10)
    assert (box.state_size, box.bulk_waiting, box.control_waiting) == (10, 50, 10)
    assert box.take(20) == [b"s" * 10]
    assert (lane.count, box.victim()) == (0, None)
    assert box.take(20) == [b"p" * 50]
    assert box.bulk_waiting == 0
    assert box.take(20) == [b"c" * 10]
    assert not box


def test_what_waits_is_counted_in_each_class_over_several_frames() -> None:
    box, lane, pages = outbox(messages=100, size=30), Lane(), Lane(bulk=True)
    for _ in range(2):
        box.put_bulk(pages, b"p" * 5)
        box.put_control(b"c" * 3)
    assert (box.bulk_waiting, box.control_waiting, box.control_count) == (10, 6, 2)
    assert box.put_state(lane, b"s" * 30)
    assert not box.put_state(lane, b"s")
    assert (lane.count, lane.size) == (2, 31)
    assert box.take(1) == [b"p" * 5]
    assert (box.bulk_waiting, box.control_waiting) == (5, 6)
    assert box.take(3) == [b"c" * 3]
    assert (box.bulk_waiting, box.control_waiting, box.control_count) == (5, 3, 1)


def test_a_frame_larger_than_a_chunk_leaves_by_itself_and_nothing_is_left() -> None:
    box, lane = outbox(size=10_000), Lane()
    box.put_state(lane, b"x" * 500)
    assert box.take(100) == [b"x" * 500]
    assert not box
    assert (box.state_count, box.state_size, lane.count, lane.size, box.victim()) == (0, 0, 0, 0, None)


def test_pages_go_with_their_lane_and_are_no_victims() -> None:
    box, pages, lane = outbox(), Lane(bulk=True), Lane()
    box.put_bulk(pages, b"p" * 90)
    box.put_state(lane, b"s")
    assert box.victim() is lane
    assert (box.bulk_waiting, box.state_size) == (90, 1)
    assert [box.drop(pages), box.drop(pages)] == [1, 0]
    assert (box.bulk_waiting, box.state_size) == (0, 1)
    assert box.take(1) == [b"s"]
