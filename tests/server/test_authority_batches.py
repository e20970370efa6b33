"""The authority's batches: digests, values that come and go, failures and restarts."""

from __future__ import annotations

from collections.abc import Sequence

from wsmonitor.protocol.changes import (
    Change,
    ProblemChange,
    StepChange,
)
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import Producer
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.authority import _TRIM_STEP, Authority
from wsmonitor_server.hub import Feed
from wsmonitor_server.stores.base import ProducerPosition

from .support import large_value, text_value
from .test_authority import NOW, Desk, a_session, a_step
from .test_authority_exactly import a_command


def test_what_is_dropped_and_comes_back_within_one_commit_is_kept() -> None:
    desk = Desk(problems=1)
    desk.take(ProblemChange(id="a", code="c", message="old"))
    changes = [ProblemChange(id=ident, code="c", message="new") for ident in "ba"]
    assert desk.take(*changes) == []
    assert desk.state.problems["a"].message == "new"
    changes = [ProblemChange(id=ident, code="c", message="newer") for ident in "bab"]
    assert desk.take(*changes) == []
    assert set(desk.state.problems) == {"b"}


def test_two_batches_in_flight_keep_their_digests_apart() -> None:
    desk = Desk()
    authority = desk.authority
    batches = []
    for number, state in enumerate(("running", "failed", "running"), 1):
        authority.publish("p", number, [a_step(state=state), a_step(f"x{number}")], NOW)
        batches.append(authority.take_batch())
        if number == 1:
            assert authority.open_size == 0
    digests = []
    for batch in batches:
        assert batch is not None
        authority.committed(batch)
        digests.append((batch.commit.digest, desk.state.digest))
        position = authority.position("p")
        assert position is not None
        assert position.accepted == 4
    assert all(committed == head for committed, head in digests)
    assert not authority._overlay
    assert not authority._numbers
    assert not authority._tail_positions


def test_after_a_rollback_digests_begin_at_the_head_again() -> None:
    desk = Desk()
    desk.take(a_session())
    desk.authority.publish("p", 2, [a_step("a"), a_step("b")], NOW)
    desk.authority.rollback()
    desk.take(a_step("c"))  # its batch is checked against the head
    assert list(desk.state.steps) == ["c"]


def test_what_waits_is_counted_in_bytes_until_it_is_taken() -> None:
    desk = Desk()
    authority = desk.authority
    assert (authority.open, authority.open_size) == (False, 0)
    desk.authority.publish("p", 1, [a_session(), a_step()], NOW)
    assert authority.open
    size = authority.open_size
    batch = authority.take_batch()
    assert batch is not None
    assert size == sum(len(encoded) for _, encoded in batch.commit.events)
    assert (authority.open, authority.open_size, authority.uncommitted) == (False, 0, True)
    authority.committed(batch)
    assert not authority.uncommitted


def test_the_store_is_told_to_forget_in_strides() -> None:
    desk = Desk(history_events=3)
    told = []
    for number in range(2 * _TRIM_STEP + 10):
        desk.authority.publish("p", number + 1, [a_step(f"s{number}")], NOW)
        batch = desk.commit()
        assert batch is not None
        if batch.commit.first_kept:
            told.append((number, batch.commit.first_kept))
    # Two producers, then steps: before step n is committed, the head is at n + 2; the last three are kept.
    assert told == [(_TRIM_STEP + 1, _TRIM_STEP + 1), (2 * _TRIM_STEP + 1, 2 * _TRIM_STEP + 1)]


def releases(desk: Desk, changes: Sequence[Change], uploaded: set[str]) -> list[tuple[int, set[str]]]:
    """Commit *changes* of producer "p" one by one: which of them released what."""
    found = []
    for number, change in enumerate(changes, 1):
        desk.authority.publish("p", number, [change], NOW, uploaded=uploaded)
        batch = desk.commit()
        assert batch is not None
        assert not batch.rejections
        assert not batch.commit.released & desk.authority.facts.references.keys()
        named = {ident for kept in desk.feed.history for ident in uploaded if ident.encode() in kept.encoded}
        assert not batch.commit.released & named, "an event that is kept refers to it"
        if batch.commit.released:
            found.append((number, batch.commit.released))
    return found


def test_a_value_is_released_once_no_kept_event_names_it() -> None:
    """However often the step was written anew in between, and although it once did without the value.

    Change n is event n + 2, and before it is committed the events from n - 1 on are kept.
    """
    desk = Desk(history_events=3)
    value, other = large_value(b"x" * 9000), large_value(b"y" * 9000)
    small = text_value("small")
    changes = [
        a_step("a", output=value),
        *(StepChange(id="a", metrics={"n": number}) for number in range(5)),
        StepChange(id="a", output=small),
        StepChange(id="a", output=value),
        StepChange(id="a", metrics={"n": 7}),
        StepChange(id="a", output=other),  # event 12: the first without it
        *(a_step(f"y{number}") for number in range(8)),
    ]
    assert releases(desk, changes, {value.sha256, other.sha256}) == [(14, {value.sha256})]
    assert desk.authority._released == {}


def test_what_was_committed_of_a_values_coming_and_going_is_remembered_once() -> None:
    desk = Desk()
    value = large_value(b"x" * 9000)
    desk.take(a_step("a"))
    for _ in range(50):
        desk.take(StepChange(id="a", output=value), uploaded={value.sha256})
        desk.take(StepChange(id="a", output=None))
    assert [len(seqs) for seqs in desk.authority._released.values()] == [2]


def test_a_failed_commit_takes_back_that_a_value_went_anew() -> None:
    """It had gone before, and came and went again in what failed: then it is gone since the first time."""
    desk = Desk(history_events=3)
    value = large_value(b"x" * 9000)
    desk.take(a_step("a", output=value), StepChange(id="a", output=None), uploaded={value.sha256})
    again: list[Change] = [StepChange(id="a", output=value), StepChange(id="a", output=None)]
    desk.authority.publish("p", 3, again, NOW, uploaded={value.sha256})
    desk.authority.rollback()
    released = []
    for number in range(5):
        desk.authority.publish("p", 3 + number, [a_step(f"y{number}")], NOW)
        batch = desk.commit()
        assert batch is not None
        released.append(batch.commit.released)
    assert released == [set(), set(), set(), {value.sha256}, set()]


def test_a_value_that_comes_and_goes_while_it_is_released_is_released_again() -> None:
    desk = Desk(history_events=3)
    authority = desk.authority
    value = large_value(b"x" * 9000)
    desk.take(a_step("a", output=value), StepChange(id="a", output=None), uploaded={value.sha256})
    for number in range(3):
        desk.take(a_step(f"y{number}"))
    authority.publish("p", 6, [a_step("z")], NOW)
    batch = authority.take_batch()
    assert batch is not None
    assert batch.commit.released == {value.sha256}
    authority.touch()
    twice = authority.take_batch()
    assert twice is not None
    assert twice.commit.released == {value.sha256}  # who does not know yet that it is done
    again: list[Change] = [StepChange(id="a", output=value), StepChange(id="a", output=None)]
    authority.publish("p", 7, again, NOW, uploaded={value.sha256})
    behind = authority.take_batch()
    assert behind is not None
    assert (behind.commit.values, behind.commit.released) == ({value.sha256}, set())
    for one in (batch, twice, behind):
        authority.committed(one)
    released = []
    for number in range(5):
        authority.publish("p", 9 + number, [a_step(f"x{number}")], NOW)
        batch = desk.commit()
        assert batch is not None
        released.append(batch.commit.released)
    assert released == [set(), set(), set(), {value.sha256}, set()]


def test_a_loaded_session_releases_what_nothing_refers_to() -> None:
    state = SessionState("s", "e")
    feed = Feed("s", state, Limits())
    authority = Authority(feed, {}, Limits(), values=["ab" * 32], retired=3)
    assert authority.retired == 3
    authority.open_producer("p", "alice", "", NOW)
    batch = authority.take_batch()
    assert batch is not None
    assert batch.commit.released == {"ab" * 32}
    authority.rollback()  # the store has not released it: it is tried again
    authority.open_producer("p", "alice", "", NOW)
    again = authority.take_batch()
    assert again is not None
    assert again.commit.released == {"ab" * 32}
    authority.committed(again)
    authority.touch()
    last = authority.take_batch()
    assert last is not None
    assert last.commit.released == set()


def test_defaults_are_none_of_anything() -> None:
    authority = Authority(Feed("s", SessionState("s", "e"), Limits()), {}, Limits())
    assert (authority.retired, authority.size, authority.tail, authority.over) == (0, 0, 0, False)
    authority.open_producer("p", "alice", "", NOW)
    assert authority.position("p") == ProducerPosition("p", "alice", 1, 0, "")
    authority.publish("p", 1, [a_session()], NOW)
    [session] = [entity for kind, entity in [("session", authority.work("session", "s"))] if entity]
    assert session.seq == 2
    assert getattr(session, "run", None) == 0


def test_a_restart_goes_on_from_what_was_loaded() -> None:
    desk = Desk()
    desk.take(a_session(), a_step("a"))
    desk.authority.publish("p", 3, [a_step("uncommitted")], NOW)
    assert desk.authority.take_batch() is not None
    loaded = SessionState("s", "e2", 1)
    loaded.put("producer", Producer(id="p", subject="alice", since="1", seq=1))
    position = ProducerPosition("p", "alice", 4, 9, "h")
    desk.authority.restart(loaded, {"p": position}, retired=2, size=123)
    authority = desk.authority
    assert (authority.epoch, authority.tail, authority.retired, authority.uncommitted) == ("e2", 1, 2, False)
    assert (authority.positions, authority.position("q")) == ({"p": position}, None)
    assert authority.facts.entity_bytes == 123
    assert list(authority.facts.producers) == ["p"]
    assert authority.get("step", "a") is None
    authority.rollback()
    assert authority.facts.entity_bytes == 123
    authority.publish("p", 10, [a_session()], NOW)
    batch = authority.take_batch()
    assert batch is not None
    assert (batch.commit.epoch, batch.commit.expected_head, batch.commit.first_kept) == ("e2", 1, 0)
    authority.committed(batch)
    assert authority.feed.state.digest == batch.commit.digest
    bare = Authority(Feed("s", SessionState("s", "e"), Limits()), {}, Limits(), size=5, retired=5)
    bare.restart(SessionState("s", "e2"), {})
    assert (bare.retired, bare.facts.entity_bytes) == (0, 0)


def test_an_event_of_exactly_the_limit_is_taken() -> None:
    probe = Desk()
    probe.authority.publish("p", 1, [a_step("a")], NOW)
    size = probe.authority.open_size
    for limit, codes in ((size, []), (size - 1, ["event_too_large"])):
        assert Desk(event_size=limit).take(a_step("a")) == codes


def test_what_the_server_writes_itself_is_never_too_large() -> None:
    desk = Desk(event_size=400)
    desk.take(a_session(), a_step("a", state="running"))
    room = 400 - len(next(kept.encoded for kept in reversed(desk.feed.history)))
    desk.take(StepChange(id="a", kind="k" * max(0, room - 30)))
    desk.authority.add_command(a_command(args={"a": "x" * 900}), NOW)
    desk.authority.crash("p", NOW)
    desk.authority.open_producer("p", "alice", "a" * 256, NOW)
    desk.commit()
    assert desk.state.steps["a"].state == "crashed"


def test_positions_are_records_of_their_own() -> None:
    """What was given to the authority is not written to."""
    given = {"p": ProducerPosition("p", "alice", 1, 0)}
    authority = Authority(Feed("s", SessionState("s", "e"), Limits()), given, Limits())
    authority.open_producer("p", "alice", "", NOW)
    batch = authority.take_batch()
    assert batch is not None
    authority.committed(batch)
    assert given == {"p": ProducerPosition("p", "alice", 1, 0)}
