"""Batches, digests, values that come and go, failures and restarts, by way of the authority that writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from msgspec.json import decode as json_decode

from wsmonitor.protocol.changes import (
    Change,
    ProblemChange,
    SkippedChange,
    StepChange,
)
from wsmonitor.protocol.codec import decode_event, encode
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import Command, Producer
from wsmonitor.protocol.errors import ProtocolError
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.authority import Authority
from wsmonitor_server.hub import Feed, Numbered
from wsmonitor_server.ledger import TRIM_STEP, Ledger
from wsmonitor_server.stores.base import ProducerPosition

from .support import check_batch, large_value, text_value
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
    authority, ledger = desk.authority, desk.ledger
    batches = []
    for number, state in enumerate(("running", "failed", "running"), 1):
        authority.publish("p", number, [a_step(state=state), a_step(f"x{number}")], NOW)
        batches.append(ledger.take_batch())
        if number == 1:
            assert ledger.open_size == 0
    digests = []
    for batch in batches:
        assert batch is not None
        ledger.committed(batch)
        digests.append((batch.commit.digest, desk.state.digest))
        position = ledger.position("p")
        assert position is not None
        assert position.accepted == 4
    assert all(committed == head for committed, head in digests)
    assert not ledger._overlay
    assert not ledger._tail_positions


def test_after_a_rollback_digests_begin_at_the_head_again() -> None:
    desk = Desk()
    desk.take(a_session())
    desk.authority.publish("p", 2, [a_step("a"), a_step("b")], NOW)
    desk.ledger.rollback()
    desk.take(a_step("c"))  # its batch is checked against the head
    assert list(desk.state.steps) == ["c"]


def test_what_waits_is_counted_in_bytes_until_it_is_taken() -> None:
    desk = Desk()
    ledger = desk.ledger
    assert (ledger.open, ledger.open_size) == (False, 0)
    desk.authority.publish("p", 1, [a_session(), a_step()], NOW)
    assert ledger.open
    size = ledger.open_size
    batch = ledger.take_batch()
    assert batch is not None
    assert size == sum(len(encoded) for _, encoded in batch.commit.events)
    assert (ledger.open, ledger.open_size, ledger.uncommitted) == (
        False,
        0,
        True,
    )
    ledger.committed(batch)
    assert not ledger.uncommitted


def test_the_store_is_told_to_forget_in_strides() -> None:
    desk = Desk(history_events=3)
    told = []
    for number in range(2 * TRIM_STEP + 10):
        desk.authority.publish("p", number + 1, [a_step(f"s{number}")], NOW)
        batch = desk.commit()
        assert batch is not None
        if batch.commit.first_kept:
            told.append((number, batch.commit.first_kept))
    # Two producers, then steps: before step n is committed, the head is at n + 2; the last three are kept.
    assert told == [(TRIM_STEP + 1, TRIM_STEP + 1), (2 * TRIM_STEP + 1, 2 * TRIM_STEP + 1)]


def releases(desk: Desk, changes: Sequence[Change], uploaded: set[str]) -> list[tuple[int, set[str]]]:
    """Commit *changes* of producer "p" one by one: which of them released what."""
    found = []
    for number, change in enumerate(changes, 1):
        desk.authority.publish("p", number, [change], NOW, uploaded=uploaded)
        batch = desk.commit()
        assert batch is not None
        assert not batch.rejections
        assert not batch.commit.released & desk.ledger.facts.references.keys()
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
    assert desk.ledger._releases._seqs == {}


def test_what_was_committed_of_a_values_coming_and_going_is_remembered_once() -> None:
    desk = Desk()
    value = large_value(b"x" * 9000)
    desk.take(a_step("a"))
    for _ in range(50):
        desk.take(StepChange(id="a", output=value), uploaded={value.sha256})
        desk.take(StepChange(id="a", output=None))
    assert [len(seqs) for seqs in desk.ledger._releases._seqs.values()] == [2]


def test_a_failed_commit_takes_back_that_a_value_went_anew() -> None:
    """It had gone before, and came and went again in what failed: then it is gone since the first time."""
    desk = Desk(history_events=3)
    value = large_value(b"x" * 9000)
    desk.take(a_step("a", output=value), StepChange(id="a", output=None), uploaded={value.sha256})
    again: list[Change] = [StepChange(id="a", output=value), StepChange(id="a", output=None)]
    desk.authority.publish("p", 3, again, NOW, uploaded={value.sha256})
    desk.ledger.rollback()
    released = []
    for number in range(5):
        desk.authority.publish("p", 3 + number, [a_step(f"y{number}")], NOW)
        batch = desk.commit()
        assert batch is not None
        released.append(batch.commit.released)
    assert released == [set(), set(), set(), {value.sha256}, set()]


def test_a_value_that_comes_and_goes_while_it_is_released_is_released_again() -> None:
    desk = Desk(history_events=3)
    authority, ledger = desk.authority, desk.ledger
    value = large_value(b"x" * 9000)
    desk.take(a_step("a", output=value), StepChange(id="a", output=None), uploaded={value.sha256})
    for number in range(3):
        desk.take(a_step(f"y{number}"))
    authority.publish("p", 6, [a_step("z")], NOW)
    batch = ledger.take_batch()
    assert batch is not None
    assert batch.commit.released == {value.sha256}
    ledger.touch()
    twice = ledger.take_batch()
    assert twice is not None
    assert twice.commit.released == {value.sha256}  # who does not know yet that it is done
    again: list[Change] = [StepChange(id="a", output=value), StepChange(id="a", output=None)]
    authority.publish("p", 7, again, NOW, uploaded={value.sha256})
    behind = ledger.take_batch()
    assert behind is not None
    assert (behind.commit.values, behind.commit.released) == ({value.sha256}, set())
    for one in (batch, twice, behind):
        ledger.committed(one)
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
    ledger = Ledger(feed, {}, values=["ab" * 32], retired=3)
    authority = Authority(ledger, Limits())
    assert ledger.retired == 3
    authority.open_producer("p", "alice", "", NOW)
    batch = ledger.take_batch()
    assert batch is not None
    assert batch.commit.released == {"ab" * 32}
    ledger.rollback()  # the store has not released it: it is tried again
    authority.open_producer("p", "alice", "", NOW)
    again = ledger.take_batch()
    assert again is not None
    assert again.commit.released == {"ab" * 32}
    ledger.committed(again)
    ledger.touch()
    last = ledger.take_batch()
    assert last is not None
    assert last.commit.released == set()


def test_defaults_are_none_of_anything() -> None:
    ledger = Ledger(Feed("s", SessionState("s", "e"), Limits()), {})
    authority = Authority(ledger, Limits())
    assert (ledger.retired, ledger.size, ledger.tail, authority.over) == (
        0,
        0,
        0,
        False,
    )
    authority.open_producer("p", "alice", "", NOW)
    assert ledger.position("p") == ProducerPosition("p", "alice", 1, 0, "")
    authority.publish("p", 1, [a_session()], NOW)
    [session] = [entity for kind, entity in [("session", authority.work("session", "s"))] if entity]
    assert session.seq == 2
    assert getattr(session, "run", None) == 0


def test_a_restart_goes_on_from_what_was_loaded() -> None:
    desk = Desk()
    desk.take(a_session(), a_step("a"))
    desk.authority.publish("p", 3, [a_step("uncommitted")], NOW)
    assert desk.ledger.take_batch() is not None
    loaded = SessionState("s", "e2", 1)
    loaded.put("producer", Producer(id="p", subject="alice", since="1", seq=1))
    position = ProducerPosition("p", "alice", 4, 9, "h")
    desk.ledger.restart(loaded, {"p": position}, retired=2, size=123)
    authority, ledger = desk.authority, desk.ledger
    assert (
        ledger.epoch,
        ledger.tail,
        ledger.retired,
        ledger.uncommitted,
    ) == ("e2", 1, 2, False)
    assert (ledger.positions, ledger.position("q")) == ({"p": position}, None)
    assert ledger.facts.entity_bytes == 123
    assert list(ledger.facts.producers) == ["p"]
    assert ledger.get("step", "a") is None
    ledger.rollback()
    assert ledger.facts.entity_bytes == 123
    authority.publish("p", 10, [a_session()], NOW)
    batch = ledger.take_batch()
    assert batch is not None
    assert (batch.commit.epoch, batch.commit.expected_head, batch.commit.first_kept) == ("e2", 1, 0)
    ledger.committed(batch)
    assert ledger.feed.state.digest == batch.commit.digest
    bare = Authority(Ledger(Feed("s", SessionState("s", "e"), Limits()), {}, size=5, retired=5), Limits())
    bare.ledger.restart(SessionState("s", "e2"), {})
    assert (bare.ledger.retired, bare.ledger.facts.entity_bytes) == (0, 0)


def test_an_event_of_exactly_the_limit_is_taken() -> None:
    probe = Desk()
    probe.authority.publish("p", 1, [a_step("a")], NOW)
    size = probe.authority.ledger.open_size
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
    """What was given to the ledger is not written to."""
    given = {"p": ProducerPosition("p", "alice", 1, 0)}
    ledger = Ledger(Feed("s", SessionState("s", "e"), Limits()), given)
    authority = Authority(ledger, Limits())
    authority.open_producer("p", "alice", "", NOW)
    batch = ledger.take_batch()
    assert batch is not None
    ledger.committed(batch)
    assert given == {"p": ProducerPosition("p", "alice", 1, 0)}


class Twin:
    """Two authorities of one session, at two nodes: what the first commits, the second adopts."""

    def __init__(self, **limits: int) -> None:
        self.desk = Desk(**limits)
        self.feed = Feed("s", SessionState("s", "e"), self.desk.limits)
        self.other = Authority(Ledger(self.feed, {}), self.desk.limits)
        self.adopt([kept.encoded for kept in self.desk.feed.history], self.desk.ledger.positions)

    def adopt(
        self, events: list[bytes], producers: dict[str, ProducerPosition], **more: Any
    ) -> list[Numbered]:
        adopted = self.other.ledger.adopt(events, producers, **more)
        assert (self.feed.state.digest, self.feed.state.seq) == (self.desk.state.digest, self.desk.state.seq)
        assert self.other.ledger.positions == self.desk.ledger.positions
        assert not self.other.ledger.uncommitted
        assert self.other.ledger.size == self.desk.ledger.size
        return adopted

    def take(self, *changes: Change) -> None:
        before = self.desk.state.seq
        self.desk.take(*changes)
        events = self.desk.feed.since(before)
        told = self.adopt(events, dict(self.desk.ledger.positions))
        assert [one.encoded for one in told] == events


def test_what_another_node_has_committed_becomes_the_head() -> None:
    twin = Twin()
    twin.take(a_session(), a_step("a"), a_step("b", state="running"))
    twin.take(a_step("a", state="succeeded"), SkippedChange(first=5, last=7, count=3))
    twin.desk.numbers["p"] = 8
    twin.take(a_step("a", state="running"))  # refused: it moves the position, and makes no event
    # From here on it is judged by the same facts: who owns what, and what is open.
    assert twin.other.owned_open("p") == twin.desk.authority.owned_open("p")
    twin.other.publish("p", 9, [a_step("b", state="succeeded")], NOW)
    batch = twin.other.ledger.take_batch()
    assert batch is not None
    check_batch(twin.other.ledger, batch)


def test_values_and_old_commands_that_another_node_has_let_go_of_are_let_go_of() -> None:
    twin = Twin()
    value = large_value(b"x" * 10)
    twin.desk.take(a_session())
    twin.desk.authority.publish("p", 2, [a_step(output=value)], NOW, uploaded={value.sha256})
    twin.desk.commit()
    twin.desk.take(producer="q")
    twin.desk.numbers["p"] = 3
    twin.adopt(twin.desk.feed.since(2), dict(twin.desk.ledger.positions), retired=2)
    assert twin.other.ledger.retired == 2
    twin.take(a_step(output=text_value("small")))
    assert list(twin.other.ledger._releases._seqs) == [value.sha256]
    twin.adopt([], {}, released={value.sha256})
    assert not twin.other.ledger._releases._seqs


def test_what_does_not_follow_the_head_is_not_adopted() -> None:
    twin = Twin()
    twin.desk.take(a_session(), a_step())
    events = twin.desk.feed.since(2)
    before = twin.feed.state.digest
    again = encode(msgspec.structs.replace(decode_event(events[0]), epoch="another"))
    unknown = encode(msgspec.structs.replace(decode_event(events[0]), kind="of a later version"))
    for wrong in (events[1:], [events[0], events[0]], [again], [unknown]):
        with pytest.raises(ProtocolError, match="does not follow"):
            twin.other.ledger.adopt(wrong, {})
        assert not twin.other.ledger.uncommitted
        assert twin.feed.state.digest == before
    twin.adopt(events, dict(twin.desk.ledger.positions))


def test_a_batch_is_on_its_way_until_it_is_committed_or_thrown_away() -> None:
    desk = Desk()
    assert not desk.ledger.committing
    desk.authority.publish("p", 1, [a_session()], NOW)
    assert not desk.ledger.committing
    desk.ledger.take_batch()
    assert desk.ledger.committing
    desk.ledger.rollback()
    assert not desk.ledger.committing


def test_a_command_is_found_while_it_is_on_its_way_out_of_the_state() -> None:
    desk = Desk()
    command = a_command("a" * 32)
    desk.ledger.retire(command)
    waiting = desk.ledger.retiring(command.id)
    batch = desk.ledger.take_batch()
    committing = desk.ledger.retiring(command.id)
    assert waiting is not None
    assert waiting == committing
    assert json_decode(waiting, type=Command) == command
    assert (desk.ledger.retiring("b" * 32), desk.ledger.retired) == (None, 1)
    assert batch is not None
    desk.ledger.committed(batch)
    assert (desk.ledger.retiring(command.id), desk.ledger.retired) == (None, 1)
