"""The authority by itself: what it accepts, what it refuses and why, and its two heads."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

from wsmonitor.protocol.changes import (
    ChainChange,
    Change,
    CommandChange,
    LogChange,
    ProblemChange,
    SessionChange,
    SkippedChange,
    StepChange,
    Unreadable,
)
from wsmonitor.protocol.codec import encode_record
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import Command, Link, LogRecord, Progress, Step, Value
from wsmonitor.protocol.reducer import SessionState
from wsmonitor.protocol.states import TRANSITIONS, may_follow
from wsmonitor_server.authority import Authority
from wsmonitor_server.facts import Facts
from wsmonitor_server.hub import Feed
from wsmonitor_server.ledger import Batch, Ledger
from wsmonitor_server.merge import Rejection, _check, context_of

from .support import check_batch, large_value, text_value

NOW = 1_700_000_000_000_000_000


class Desk:
    """An authority with open producers; `take` publishes, `commit` plays the store."""

    def __init__(self, **limits: int) -> None:
        self.limits = Limits(**limits)
        self.feed = Feed("s", SessionState("s", "e"), self.limits)
        self.ledger = Ledger(self.feed, {})
        self.authority = Authority(self.ledger, self.limits)
        self.numbers: dict[str, int] = {}
        for producer in ("p", "q"):
            self.authority.open_producer(producer, "alice", "", NOW)
            self.numbers[producer] = 1
        self.commit()

    def take(self, *changes: Change, producer: str = "p", **more: Any) -> list[str]:
        """Publish and commit; returns the codes of what was rejected."""
        first = self.numbers[producer]
        self.numbers[producer] += len(changes)
        self.authority.publish(producer, first, changes, NOW, **more)
        batch = self.commit()
        return [] if batch is None else [error.code for _, _, error in batch.rejections]

    def commit(self) -> Batch | None:
        batch = self.ledger.take_batch()
        if batch is not None:
            check_batch(self.ledger, batch)
            bytes_before, size_before = self.bytes, self.ledger._head_bytes
            self.ledger.committed(batch)
            assert batch.commit.digest == self.state.digest
            assert batch.entity_bytes - size_before == self.bytes - bytes_before
        return batch

    @property
    def state(self) -> SessionState:
        return self.feed.state

    @property
    def bytes(self) -> int:
        return sum(len(bytes(encode_record(entity))) for _, entity in self.state)


def a_session(**more: Any) -> SessionChange:
    return SessionChange(**{"name": "s", "state": "running", **more})


def a_step(ident: str = "a", **more: Any) -> StepChange:
    return StepChange(**{"id": ident, "chain": "c", "name": ident, **more})


def test_crashed_one_that_is_asserted_as_pending_stays_crashed() -> None:
    desk = Desk()
    desk.take(a_session(), a_step())
    desk.authority.crash("p", NOW)
    desk.commit()
    assert desk.take(a_step(state="pending", kind="new")) == []
    step = desk.state.steps["a"]
    assert (step.state, step.kind) == ("crashed", "new")
    assert desk.take(a_step(state="running")) == []
    assert desk.state.steps["a"].state == "running"


@pytest.mark.parametrize("old", sorted(TRANSITIONS))
def test_transitions_are_those_of_the_table(old: str) -> None:
    for new in sorted(TRANSITIONS):
        desk = Desk()
        desk.take(a_session(), a_step(state="running" if old == "crashed" else old))
        if old == "crashed":
            desk.authority.crash("p", NOW)
            desk.commit()
        before = desk.state.digest
        codes = desk.take(StepChange(id="a", state=new))
        allowed = may_follow(old, new) and new != "crashed"
        if (old, new) == ("crashed", "pending"):
            continue  # see the test above
        assert codes == ([] if allowed else ["illegal_transition"]), (old, new)
        assert desk.state.steps["a"].state == (new if allowed else old)
        if not allowed:
            assert desk.state.digest == before, "an illegal change changes nothing"


def test_creation_needs_what_has_no_default() -> None:
    desk = Desk()
    changes = [SessionChange(state="running"), ChainChange(id="c"), StepChange(id="a", name="a")]
    assert desk.take(*changes) == ["bad_message"] * 3
    assert len(desk.state) == 2


def test_entity_is_written_by_its_creator_alone() -> None:
    desk = Desk()
    assert desk.take(a_session(), ChainChange(id="c", name="c"), a_step()) == []
    theirs: list[Change] = [
        SessionChange(state="succeeded"),
        ChainChange(id="c", name="mine"),
        StepChange(id="a", state="running"),
        LogChange(step="a", records=(LogRecord(n=0, at="1", text="x"),)),
    ]
    assert desk.take(*theirs, producer="q") == ["not_owner"] * 4
    assert desk.take(a_step("b"), producer="q") == []
    assert desk.state.steps["b"].producer == "q"


def test_child_may_come_before_its_parent_and_its_chain() -> None:
    desk = Desk()
    assert desk.take(a_step("child", parent="later", chain="later-too")) == []
    assert desk.state.steps["child"].parent == "later"


def test_fields_that_are_not_named_stay_and_maps_are_merged() -> None:
    desk = Desk()
    desk.take(
        a_step(
            metrics={"rows": 1, "bytes": 2.5},
            attributes={"k": "v"},
            tags=("t",),
            links=(Link(rel="doc", href="https://example.org"),),
            progress=Progress(done=1, total=2),
        )
    )
    desk.take(StepChange(id="a", metrics={"rows": 3}, attributes={"l": [1, 2]}, progress=None))
    step = desk.state.steps["a"]
    assert step.metrics == {"rows": 3, "bytes": 2.5}
    assert step.attributes == {"k": "v", "l": [1, 2]}
    assert (step.tags, step.progress, len(step.links)) == (("t",), None, 1)


def test_assertion_of_what_is_so_makes_no_event() -> None:
    desk = Desk()
    desk.take(a_session(), a_step(state="running", metrics={"a": 1}))
    seq = desk.state.seq
    assert desk.take(a_session(), a_step(state="running", metrics={"a": 1})) == []
    assert desk.state.seq == seq
    assert desk.ledger.positions["p"].accepted == 4


def test_times_are_the_server_s_where_the_producer_names_none() -> None:
    desk = Desk()
    desk.take(a_step(), a_step("b", state="running", created="5", started="6"))
    assert (desk.state.steps["a"].created, desk.state.steps["a"].started) == (str(NOW), "")
    desk.take(StepChange(id="a", state="running"), StepChange(id="b", state="failed", ended="7"))
    step, other = desk.state.steps["a"], desk.state.steps["b"]
    assert (step.started, step.ended) == (str(NOW), "")
    assert (other.created, other.started, other.ended) == ("5", "6", "7")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (a_step(input=text_value("x" * 5000)), "value_too_large"),
        (a_step(input=Value(text="a", size=2, sha256="0" * 64)), "value_mismatch"),
        (a_step(input=Value(text="a", size=1, sha256="0" * 64)), "value_mismatch"),
        (a_step(output=Value(text="a", size=-1, sha256="0" * 64, truncated=True)), "bad_message"),
        (a_step(metrics={"n": 2**53 + 1}), "bad_message"),
        (a_step(metrics={"n": math.inf}), "bad_message"),
        (a_step(metrics={"n": math.nan}), "bad_message"),
        (a_step(progress=Progress(done=2**60)), "bad_message"),
        (a_step(progress=Progress(total=math.inf)), "bad_message"),
        (a_step(attributes={"a": [1, 2**54]}), "bad_message"),
        (a_step(attributes={str(n): "x" * 1000 for n in range(40)}), "event_too_large"),
        (a_step(state="crashed"), "illegal_transition"),
        (LogChange(step="nowhere", records=(LogRecord(n=0, at="1", text="x"),)), "bad_message"),
        (CommandChange(id="0" * 32, state="accepted"), "bad_message"),
        (SkippedChange(first=9, last=10, count=2), "bad_message"),
        (SessionChange(name="another"), "bad_message"),
    ],
)
def test_what_is_refused_changes_nothing(change: Change, code: str) -> None:
    desk = Desk()
    desk.take(a_session())
    before = (desk.state.seq, desk.state.digest, desk.ledger.facts.steps.total())
    assert desk.take(change, uploaded={"0" * 64}) == [code]
    assert (desk.state.seq, desk.state.digest, desk.ledger.facts.steps.total()) == before


def test_boolean_and_safe_integers_are_fine() -> None:
    desk = Desk()
    assert desk.take(a_step(attributes={"b": True, "i": 2**53, "s": "9" * 30}, metrics={"m": -(2**53)})) == []


def test_large_value_must_be_uploaded_first() -> None:
    desk = Desk()
    value = large_value(b"x" * 9000, "x" * 100)
    assert desk.authority.missing_uploads([a_step(output=value)]) == {value.sha256}
    assert desk.take(a_step(output=value)) == ["value_missing"]
    assert desk.take(a_step(output=value), uploaded={value.sha256}) == []
    assert desk.authority.missing_uploads([a_step("b", input=value)]) == set()
    assert desk.take(a_step("b", input=value)) == []
    assert desk.ledger.size > 9000


def test_value_is_released_when_neither_state_nor_history_refers_to_it() -> None:
    desk = Desk(history_events=3)
    value = large_value(b"x" * 9000)
    first = desk.numbers["p"]
    desk.authority.publish("p", first, [a_step(output=value)], NOW, uploaded={value.sha256})
    batch = desk.commit()
    assert batch is not None
    assert batch.commit.values == {value.sha256}
    desk.numbers["p"] += 1
    desk.take(StepChange(id="a", output=text_value("small")))
    for number in range(2):
        desk.take(a_step(f"x{number}"))
    released = []
    for number in range(3):
        desk.authority.publish("p", desk.numbers["p"], [a_step(f"y{number}")], NOW)
        desk.numbers["p"] += 1
        batch = desk.commit()
        assert batch is not None
        released.append(batch.commit.released)
    assert released[-1] == set()
    assert {value.sha256} in released


def test_logs_are_numbered_and_the_step_carries_the_last() -> None:
    desk = Desk()
    desk.take(a_session(), a_step())
    records = tuple(LogRecord(n=99, at="1", text=text) for text in ("one", "y" * 9000))
    desk.authority.publish("p", 3, [LogChange(step="a", records=records)], NOW)
    batch = desk.commit()
    assert batch is not None
    kept = [(step, one.n, len(one.text), one.truncated) for step, one in batch.commit.logs]
    assert kept == [("a", 1, 3, False), ("a", 2, 4096, True)]
    step = desk.state.steps["a"]
    assert (step.log_count, len(step.log_last)) == (2, 256)


def test_problems_are_bounded_oldest_first_out() -> None:
    desk = Desk(problems=2)
    for ident in "abac":
        desk.take(ProblemChange(id=ident, code="c", message="m"))
    assert set(desk.state.problems) == {"b", "c"}


def test_limits_of_steps_and_producers() -> None:
    desk = Desk(steps=1, producers=2)
    assert desk.take(a_step("a"), a_step("b")) == ["limit_exceeded"]
    with pytest.raises(Rejection) as caught:
        desk.authority.open_producer("third", "alice", "", NOW)
    assert caught.value.code == "limit_exceeded"


def test_nothing_begins_in_an_ended_session_but_what_is_there_may_end() -> None:
    desk = Desk()
    desk.take(a_session(), a_step("a", state="running"))
    codes = desk.take(
        SessionChange(state="succeeded"),
        StepChange(id="a", state="succeeded"),
        a_step("b"),
        a_step("c", state="skipped"),
        ProblemChange(id="late", code="c", message="m"),
        SessionChange(state="running"),
    )
    assert codes == ["session_ended", "illegal_transition"]
    assert set(desk.state.steps) == {"a", "c"}


def test_only_the_next_number_is_taken() -> None:
    desk = Desk()
    with pytest.raises(Rejection) as caught:
        desk.authority.publish("p", 2, [a_session()], NOW)
    assert caught.value.code == "out_of_sequence"
    assert not desk.ledger.uncommitted
    desk.take(a_session(), SkippedChange(first=2, last=9, count=8), ChainChange(id="c", name="c"))
    assert desk.ledger.positions["p"].accepted == 10
    # The same again, and one more: only that one is new.
    again: list[Change] = [
        SkippedChange(first=2, last=9, count=8),
        ChainChange(id="c", name="other"),
        a_step("n"),
    ]
    desk.authority.publish("p", 2, again, NOW)
    desk.commit()
    assert desk.ledger.positions["p"].accepted == 11
    assert desk.state.chains["c"].name == "c"
    assert set(desk.state.steps) == {"n"}


def test_change_is_judged_by_what_is_not_committed_yet() -> None:
    desk = Desk()
    authority = desk.authority
    authority.publish("p", 1, [a_session(), a_step(state="running")], NOW)
    first = authority.ledger.take_batch()
    authority.publish("p", 3, [StepChange(id="a", state="failed")], NOW)
    authority.publish("p", 4, [StepChange(id="a", state="running")], NOW)
    assert desk.state.seq == 2, "nothing is committed"
    second = authority.ledger.take_batch()
    assert first is not None
    assert second is not None
    assert [error.code for _, _, error in second.rejections] == ["illegal_transition"]
    authority.ledger.committed(first)
    step = authority.ledger.get("step", "a")
    assert isinstance(step, Step)
    assert (desk.state.steps["a"].state, step.state) == ("running", "failed")
    authority.ledger.committed(second)
    assert desk.state.steps["a"].state == "failed"
    assert not authority.ledger.uncommitted


def test_rollback_forgets_the_tail_and_takes_the_same_again() -> None:
    desk = Desk()
    desk.take(a_session())
    digest, listing = desk.state.digest, desk.ledger.facts.listing(0)
    changes: list[Change] = [a_step(state="running"), ProblemChange(id="e", code="c", message="m")]
    desk.authority.publish("p", 2, changes, NOW)
    assert desk.ledger.take_batch() is not None
    desk.authority.publish("p", 4, [a_step("more")], NOW)
    desk.ledger.rollback()
    assert not desk.ledger.uncommitted
    assert (desk.state.digest, desk.ledger.facts.listing(0)) == (digest, listing)
    assert desk.ledger.position("p") == desk.ledger.positions["p"]
    desk.authority.publish("p", 2, changes, NOW)
    batch = desk.commit()
    assert batch is not None
    assert [event.seq for event in batch.events] == [4, 5]
    assert set(desk.state.steps) == {"a"}


def test_what_a_failed_commit_takes_back_is_as_if_it_had_never_been() -> None:
    """The session itself, steps of all kinds, errors beyond the limit, commands that end and that begin."""
    desk = Desk(problems=2, commands=1)
    authority = desk.authority
    empty = vars(Facts(desk.state, authority.ledger.facts.entity_bytes))
    authority.publish("p", 1, [a_session()], NOW)
    authority.ledger.rollback()
    assert plain_facts(vars(authority.ledger.facts)) == plain_facts(empty)
    keys = [f"{number:032x}" for number in range(4)]

    def command(number: int, state: str = "requested") -> Command:
        return Command(id=keys[number], name="pause", deadline="9", requested="1", state=state)  # type: ignore[arg-type]

    value = large_value(b"x" * 9000)
    desk.take(
        a_session(),
        a_step("a", state="failed", reason="first"),
        a_step("b", state="running", input=value),
        a_step("c", state="failed", step_key="k"),
        ProblemChange(id="1", code="c", message="one"),
        ProblemChange(id="2", code="c", message="two"),
        uploaded={value.sha256},
    )
    authority.crash("q", NOW)
    for number in range(3):
        authority.add_command(command(number), NOW)
    pending = authority.ledger.get("command", keys[0])
    assert isinstance(pending, Command)
    authority.end_command(pending, "expired", "", NOW)
    desk.commit()
    before = vars(Facts(desk.state, authority.ledger.facts.entity_bytes))
    authority.publish(
        "p",
        desk.numbers["p"],
        [
            StepChange(id="a", reason="changed"),
            StepChange(id="b", state="failed", input=None),
            a_step("d", state="running", step_key="k", attempt=2),
            ProblemChange(id="3", code="c", message="three"),
            ProblemChange(id="1", code="c", message="again"),
        ],
        NOW,
    )
    for number in (1, 2):
        ended = authority.ledger.get("command", keys[number])
        assert isinstance(ended, Command)
        authority.end_command(ended, "expired", "", NOW)
    authority.add_command(command(3), NOW)
    authority.crash("p", NOW)
    authority.ledger.rollback()
    assert plain_facts(vars(authority.ledger.facts)) == plain_facts(before)
    assert authority.owned_open("p") == [(kind, desk.authority.work(kind, ident)) for kind, ident in OPEN]
    batch = authority.ledger.take_batch()
    assert batch is None


OPEN = [("session", "s"), ("step", "b")]


def plain_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """*facts* to compare, the order of its maps included."""
    plain = {name: value for name, value in facts.items() if name not in ("tally", "_reference_changes")}
    for name, value in plain.items():
        if isinstance(value, Counter):
            plain[name] = +value
        elif isinstance(value, dict) and name != "open_of":
            plain[name] = list(value.items())
    return {**plain, "counts": +facts["tally"].counts}


def test_what_a_producer_left_open_crashes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much it is, nobody else waits for all of it."""
    monkeypatch.setattr("wsmonitor_server.authority._CRASH_AT_ONCE", 3)
    desk = Desk()
    desk.take(a_session(), *(a_step(f"s{number}", state="running") for number in range(7)))
    counts = []
    while desk.authority.owned_open("p"):
        counts.append(desk.authority.crash("p", NOW))
        desk.commit()
    assert counts == [4, 3, 1]
    assert desk.authority.owns_crashed("p")
    assert {step.state for step in desk.state.steps.values()} == {"crashed"}


def test_facts_follow_from_the_entities() -> None:
    """Counted step by step, or built from the state: the same."""
    desk = Desk(problems=2)
    value = large_value(b"x" * 9000)
    desk.take(
        a_session(),
        a_step("a", state="running", input=value, output=value),
        a_step("b", state="failed", reason="broken"),
        ProblemChange(id="1", code="c", message="first"),
        ProblemChange(id="2", code="c", message="second"),
        ProblemChange(id="3", code="c", message="third"),
        StepChange(id="a", output=None, state="succeeded"),
        uploaded={value.sha256},
    )
    counted = desk.ledger.facts
    built = type(counted)(desk.state, counted.entity_bytes)
    assert (+counted.steps, counted.open_of) == (+built.steps, built.open_of)
    for name in ("problems", "pending", "finished", "references", "value_bytes"):
        assert getattr(counted, name) == getattr(built, name), name
    assert counted.problem == "broken"
    assert counted.value_bytes == 9000
    assert counted.entity_bytes == sum(len(bytes(encode_record(one))) for _, one in desk.state)


def test_what_a_change_is_about() -> None:
    assert context_of(Unreadable(code="bad_id", message="m", context={"step": "x"})) == {"step": "x"}
    assert context_of(ChainChange(id="c")) == {"chain": "c"}
    assert context_of(StepChange(id="x")) == {"step": "x"}
    assert context_of(SessionChange()) == {}


def test_progress_needs_no_total() -> None:
    _check({"progress": Progress(done=3)}, 4_096)
    with pytest.raises(Rejection):
        _check({"progress": Progress(done=3, total=math.inf)}, 4_096)
    with pytest.raises(Rejection):
        _check({"progress": Progress(done=math.nan)}, 4_096)


# ---------------------------------------------------------------------- who writes what


def test_a_producer_id_belongs_to_who_opened_it_first() -> None:
    desk = Desk()
    with pytest.raises(Rejection) as caught:
        desk.authority.open_producer("p", "eve", "", NOW)
    assert caught.value.code == "forbidden"
    assert not desk.ledger.uncommitted


def test_who_comes_back_after_another_holder_is_fenced_and_who_is_the_same_is_not() -> None:
    desk = Desk()
    opened = desk.authority.open_producer("p", "alice", "", NOW, holder="one", held=0)
    assert desk.authority.open_producer("p", "alice", "", NOW, holder="one", held=opened.epoch).epoch == 3
    desk.authority.open_producer("p", "alice", "", NOW, holder="two")
    desk.commit()
    for held in (opened.epoch, 4):
        with pytest.raises(Rejection) as caught:
            desk.authority.open_producer("p", "alice", "", NOW, holder="one", held=held)
        assert caught.value.code == "fenced"
    assert desk.authority.open_producer("p", "alice", "", NOW, holder="one", held=9).epoch == 5


def test_whose_liveness_is_told_has_to_be_a_producer() -> None:
    desk = Desk()
    desk.authority.set_liveness("nobody", "lost", NOW)
    desk.authority.set_liveness("p", "live", NOW)
    assert not desk.ledger.uncommitted, "and has to have changed"
    desk.authority.set_liveness("p", "stale", NOW)
    desk.authority.set_liveness("p", "stale", NOW, closed=True)
    batch = desk.commit()
    assert batch is not None
    assert len(batch.events) == 2
    assert (desk.state.producers["p"].liveness, desk.state.producers["p"].closed) == ("stale", True)


def test_a_problem_is_written_by_who_reported_it_and_may_be_reported_again() -> None:
    desk = Desk()
    assert desk.take(ProblemChange(id="e", code="c", message="one")) == []
    assert desk.take(ProblemChange(id="e", code="c", message="mine"), producer="q") == ["not_owner"]
    assert desk.take(ProblemChange(id="e", code="c", message="two")) == []
    assert desk.state.problems["e"].message == "two"


def test_what_cannot_be_read_is_refused_with_its_own_words_and_has_used_its_number() -> None:
    desk = Desk()
    desk.authority.publish("p", 1, [Unreadable(code="bad_id", message="no id", context={"step": "x"})], NOW)
    batch = desk.commit()
    assert batch is not None
    [(producer, number, error)] = batch.rejections
    assert (producer, number, error.code, error.message, error.step) == ("p", 1, "bad_id", "no id", "x")
    assert (batch.acks, batch.events) == ({"p": 1}, [])


def test_dropped_changes_are_told_as_one_problem_and_take_their_numbers() -> None:
    desk = Desk()
    assert desk.take(SkippedChange(first=1, last=5, count=1234)) == []
    [problem] = desk.state.problems.values()
    assert (problem.severity, problem.code, problem.producer) == ("warning", "skipped", "p")
    assert "1,234 changes" in problem.message
    position = desk.ledger.position("p")
    assert position is not None
    assert position.accepted == 5


def test_a_mark_of_dropped_changes_that_is_wrong_takes_its_own_number_and_no_other() -> None:
    """DURABLE: else what comes behind it would be acknowledged, and lost."""
    wrong = [
        SkippedChange(first=7, last=90, count=1),
        SkippedChange(first=2, last=1, count=1),
        SkippedChange(first=3, last=90, count=0),
    ]
    desk = Desk()
    assert desk.take(*wrong, a_step("behind")) == ["bad_message"] * 3
    assert set(desk.state.steps) == {"behind"}
    assert desk.state.problems == {}
    position = desk.ledger.position("p")
    assert position is not None
    assert position.accepted == 4
    desk.numbers["p"] = 1
    assert desk.take(*wrong, a_step("behind")) == [], "sent again, they are passed over"
    assert desk.ledger.position("p") == position


def test_only_the_commands_that_a_lost_producer_had_accepted_are_unknown() -> None:
    desk = Desk()
    desk.take(a_session(state="running"), a_step("a", state="running"))
    desk.take(a_step("b", state="running"), producer="q")
    targets = [("a", "accepted"), ("b", "accepted"), ("a", "requested")]
    for number, (step, state) in enumerate(targets):
        desk.authority.add_command(
            Command(id=f"{number:032x}", name="x", step=step, deadline="9", requested="1", state=state),
            NOW,  # type: ignore[arg-type]
        )
    desk.commit()
    desk.authority.crash("p", NOW)
    desk.commit()
    assert [one.state for one in desk.state.commands.values()] == ["unknown", "accepted", "requested"]


# ---------------------------------------------------------------------- what the store is told


def test_a_batch_without_events_tells_the_store_of_a_new_epoch() -> None:
    desk = Desk()
    assert not desk.ledger.open
    desk.ledger.touch()
    assert desk.ledger.open
    batch = desk.commit()
    assert batch is not None
    assert (batch.events, batch.commit.epoch) == ([], "e")


def test_the_store_forgets_history_now_and_then_and_not_with_each_event() -> None:
    desk = Desk(history_events=10)
    desk.take(a_session(), a_step())
    told = []
    for number in range(600):
        desk.authority.publish("p", 3 + number, [StepChange(id="a", reason=str(number))], NOW)
        batch = desk.commit()
        assert batch is not None
        if batch.commit.first_kept:
            told.append((batch.commit.first_kept, desk.ledger.tail))
    assert len(told) == 2
    assert told[1][0] - told[0][0] == 256
    for first, tail in told:
        assert first == tail - 10, "what a client may still ask for is kept"


def test_after_a_commit_that_nobody_knows_of_it_goes_on_from_what_the_store_has() -> None:
    desk = Desk()
    desk.take(a_session(), a_step("a", state="running"))
    positions = dict(desk.ledger.positions)
    desk.take(a_step("lost", state="failed"))
    desk.authority.publish("p", 4, [a_step("in flight")], NOW)
    loaded = SessionState("s", "e2")
    for kind, entity in desk.state:
        if entity.id != "lost":
            loaded.put(kind, entity)
    desk.ledger.restart(loaded, positions, retired=7, size=100)
    authority = desk.authority
    assert (authority.ledger.epoch, authority.ledger.tail, authority.ledger.uncommitted) == ("e2", 0, False)
    assert (authority.ledger.retired, authority.ledger.size) == (7, 100)
    assert (set(authority.ledger.facts.steps), authority.ledger.facts.problem) == ({"running"}, "")
    position = authority.ledger.position("p")
    assert position is not None
    assert position.accepted == 2, "what was lost is asked for again"
    authority.publish("p", 3, [a_step("again")], NOW)
    batch = desk.commit()
    assert batch is not None
    assert [event.seq for event in batch.events] == [1]
    assert set(desk.state.steps) == {"a", "again"}


# ---------------------------------------------------------------------- the failure that stands


def test_the_first_failure_that_no_attempt_has_repaired_is_the_problem() -> None:
    desk = Desk()
    desk.take(
        a_session(),
        a_step("a", state="failed", reason="first", step_key="k"),
        a_step("b", state="failed", reason="second"),
    )
    facts = desk.ledger.facts
    assert facts.problem == "first"
    desk.take(a_step("a2", state="succeeded", step_key="k", attempt=2))
    assert facts.problem == "second"
    desk.take(StepChange(id="a", kind="noted"))
    assert facts.problem == "second", "what is repaired stays so, whatever is told of it afterwards"


def test_a_repair_that_is_taken_back_repairs_nothing() -> None:
    desk = Desk()
    desk.take(a_session(), a_step("a", state="failed", reason="first", step_key="k"))
    authority = desk.authority
    repair = a_step("a2", state="succeeded", step_key="k", attempt=2)
    authority.publish("p", 3, [repair], NOW)
    assert authority.ledger.take_batch() is not None
    assert authority.ledger.facts.problem == ""
    authority.ledger.rollback()
    assert authority.ledger.facts.problem == "first"
    # The failure and its repair in one commit that fails.
    both = [
        a_step("b", state="failed", reason="later", step_key="l"),
        a_step("b2", state="succeeded", step_key="l", attempt=2),
    ]
    desk.numbers["p"] = 3
    desk.take(repair)
    authority.publish("p", 4, both, NOW)
    assert authority.ledger.facts.problem == ""
    authority.ledger.rollback()
    anew = Facts(desk.state, authority.ledger.facts.entity_bytes)
    assert (authority.ledger.facts.problem, anew.problem) == ("", "")
    assert plain_facts(vars(authority.ledger.facts)) == plain_facts(vars(anew))


def test_what_is_taken_back_may_have_come_and_gone_meanwhile() -> None:
    desk = Desk(problems=1)
    desk.take(a_session())
    before = plain_facts(vars(Facts(desk.state, desk.ledger.facts.entity_bytes)))
    desk.authority.open_producer("r", "alice", "", NOW)
    desk.authority.publish(
        "p", 2, [ProblemChange(id=ident, code="c", message="m", severity="info") for ident in "xy"], NOW
    )
    assert desk.ledger.facts.problem == "", "what is no error is no failure"
    desk.ledger.rollback()
    assert plain_facts(vars(desk.ledger.facts)) == before
    assert "r" not in desk.ledger.facts.producers
