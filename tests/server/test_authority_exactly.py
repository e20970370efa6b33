"""The authority by itself: what exactly it writes, keeps, refuses and says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

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
from wsmonitor.protocol.codec import decode_event
from wsmonitor.protocol.entities import Command, ErrorInfo, LogRecord, Problem, Producer
from wsmonitor_server.merge import Rejection
from wsmonitor_server.stores.base import ProducerPosition

from .support import large_value
from .test_authority import NOW, Desk, a_session, a_step

KEY = "0" * 32


def refusals(desk: Desk, changes: Sequence[Change | Unreadable], producer: str = "p") -> list[ErrorInfo]:
    """Publish *changes* and commit: what was refused, in full."""
    first = desk.numbers[producer]
    desk.numbers[producer] += len(changes)
    desk.authority.publish(producer, first, changes, NOW)
    batch = desk.commit()
    assert batch is not None
    assert all(who == producer for who, _, _ in batch.rejections)
    return [error for _, _, error in batch.rejections]


def test_what_a_refusal_says_in_full() -> None:
    desk = Desk(event_size=2000)
    desk.take(
        a_session(),
        a_step("mine"),
        ChainChange(id="c", name="c"),
        ProblemChange(id="e", code="x", message="m"),
    )
    desk.authority.add_command(a_command(), NOW)
    theirs = ProblemChange(id="e", code="x", message="m")
    found = refusals(
        desk,
        [
            Unreadable(code="bad_id", message="an id that is none", context={"step": "x"}),
            LogChange(step="mine", records=(LogRecord(n=0, at="1", text="x"),)),
            LogChange(step="nowhere", records=(LogRecord(n=0, at="1", text="x"),)),
            CommandChange(id="1" * 32, state="accepted"),
            CommandChange(id=KEY, state="accepted"),
            theirs,
            SkippedChange(first=99, last=99, count=1),
            ChainChange(id="c", name="d"),
            a_step("big", attributes={"a": "x" * 3000}),
        ],
        producer="q",
    )
    assert found[:-1] == [
        ErrorInfo(code="bad_id", message="an id that is none", session="s", step="x"),
        ErrorInfo(
            code="not_owner", message="step 'mine' was created by another producer", session="s", step="mine"
        ),
        ErrorInfo(
            code="bad_message", message="there is no step 'nowhere' to log to", session="s", step="nowhere"
        ),
        ErrorInfo(
            code="bad_message", message=f"there is no command {'1' * 32}", session="s", command="1" * 32
        ),
        ErrorInfo(
            code="not_owner", message=f"command {KEY} was not for this producer", session="s", command=KEY
        ),
        ErrorInfo(code="not_owner", message="error 'e' was reported by another producer", session="s"),
        ErrorInfo(code="bad_message", message="a `skipped` that does not fit its own number", session="s"),
        ErrorInfo(
            code="not_owner", message="chain 'c' was created by another producer", session="s", chain="c"
        ),
    ]
    too_large = found[-1]
    assert (too_large.code, too_large.step) == ("event_too_large", "big")
    assert too_large.message.startswith("step 'big' would make an event of 3,")
    assert too_large.message.endswith("bytes; 2,000 are allowed")


def a_command(key: str = KEY, **more: Any) -> Command:
    return Command(**{"id": key, "name": "pause", "deadline": "9", "requested": "1", **more})


def test_limits_and_orders_are_named_with_their_numbers() -> None:
    desk = Desk(steps=1, producers=2)
    desk.take(a_session(), a_step("a"))
    value = large_value(b"x" * 9000)
    [steps, missing] = refusals(desk, [a_step("b"), StepChange(id="a", output=value)])
    assert (steps.code, steps.message) == ("limit_exceeded", "a session may have 1 steps")
    assert (missing.code, missing.message) == ("value_missing", f"the value {value.sha256} was not uploaded")
    refused(desk, "limit_exceeded", "a session may have 2 producers", "third", "alice")
    with pytest.raises(Rejection) as caught:
        desk.authority.publish("p", 7, [a_session()], NOW)
    assert (caught.value.code, caught.value.message) == (
        "out_of_sequence",
        "the next change is number 5, not 7",
    )
    [illegal] = command_refusals(desk)
    assert (illegal.code, illegal.message) == (
        "illegal_transition", f"command {KEY} is applied; accepted cannot follow"
    )  # fmt: skip


def command_refusals(desk: Desk) -> list[ErrorInfo]:
    desk.authority.add_command(a_command(), NOW)
    return refusals(
        desk, [CommandChange(id=KEY, state="accepted"), CommandChange(id=KEY, state="applied"),
               CommandChange(id=KEY, state="accepted")],
    )  # fmt: skip


def refused(desk: Desk, code: str, message: str, producer: str, subject: str, **more: Any) -> None:
    before = desk.ledger.position(producer)
    with pytest.raises(Rejection) as caught:
        desk.authority.open_producer(producer, subject, "", NOW, **more)
    assert (caught.value.code, caught.value.message) == (code, message)
    assert desk.ledger.position(producer) == before
    assert not desk.ledger.uncommitted


def test_a_producer_is_one_subjects() -> None:
    desk = Desk()
    refused(desk, "forbidden", "this producer id belongs to another subject", "p", "bob")
    desk.authority.open_producer("new", "bob", "", NOW)
    refused_before_commit = desk.ledger.position("new")
    with pytest.raises(Rejection):
        desk.authority.open_producer("new", "alice", "", NOW)
    assert desk.ledger.position("new") == refused_before_commit


TAKEN = [
    # epoch and holder there, holder and epoch of who comes: is it another's now?
    (3, "a", "a", 3, False),
    (3, "a", "a", 1, False),
    (3, "a", "b", 2, True),
    (3, "a", "b", 1, True),
    (3, "a", "b", 0, False),  # it never held it: it may take it over
    (3, "a", "b", 4, False),  # of a history that the store has lost
    (3, "a", "b", 3, True),  # the session was removed, and begun anew by the other
    (3, "", "b", 3, False),  # who has it has no name: nobody can tell
    (3, "a", "", 3, False),
    (3, "a", "", 2, True),
    (3, "", "b", 2, True),
]


@pytest.mark.parametrize(("epoch", "there", "holder", "held", "taken"), TAKEN)
def test_who_comes_back_after_another_is_fenced(
    epoch: int, there: str, holder: str, held: int, taken: bool
) -> None:
    desk = Desk()
    desk.ledger.positions["p"] = ProducerPosition("p", "alice", epoch, 7, there)
    if taken:
        message = "another holder opened this producer since"
        refused(desk, "fenced", message, "p", "alice", holder=holder, held=held)
    else:
        desk.authority.open_producer("p", "alice", "", NOW, holder=holder, held=held)
        assert desk.ledger.position("p") == ProducerPosition("p", "alice", epoch + 1, 7, holder)


def test_what_an_opening_writes_and_keeps() -> None:
    desk = Desk()
    entity = desk.authority.open_producer("n", "bob", "train.py", 5, holder="h")
    expected = Producer(id="n", subject="bob", agent="train.py", epoch=1, since="5", seq=3)
    assert entity == expected
    batch = desk.commit()
    assert batch is not None
    assert desk.state.producers["n"] == expected
    assert decode_event(batch.events[0].encoded).ts == "5"
    position = ProducerPosition("n", "bob", 1, 0, "h")
    assert batch.commit.producers == {"n": position}
    assert desk.ledger.positions["n"] == position
    desk.numbers["n"] = 1
    desk.take(a_step("x"), producer="n")
    assert desk.ledger.positions["n"] == ProducerPosition("n", "bob", 1, 1, "h")
    assert desk.authority.open_producer("n", "bob", "", 6).epoch == 2
    assert desk.ledger.position("n") == ProducerPosition("n", "bob", 2, 1, "")


@pytest.mark.parametrize(("holder", "abandoned"), [("other", True), ("h", False)])
def test_another_process_does_not_know_what_the_first_one_accepted(holder: str, abandoned: bool) -> None:
    desk = Desk()
    desk.authority.open_producer("p", "alice", "", NOW, holder="h")
    desk.take(a_session(), a_step("theirs"))
    desk.numbers["q"] = 1
    desk.take(a_step("others"), producer="q")
    commands = [a_command(), a_command("1" * 32), a_command("2" * 32, step="others")]
    for command in commands:
        desk.authority.add_command(command, NOW)
    desk.take(CommandChange(id=KEY, state="accepted"))
    desk.take(CommandChange(id="2" * 32, state="accepted"), producer="q")
    desk.authority.open_producer("p", "alice", "", 77, holder=holder)
    desk.commit()
    found = desk.state.commands
    assert [one.state for one in found.values()] == [
        "unknown" if abandoned else "accepted",
        "requested",
        "accepted",
    ]
    if abandoned:
        assert (found[KEY].reason, found[KEY].ended) == ("another process has taken its producer over", "77")


def test_liveness_is_written_when_it_is_another() -> None:
    desk = Desk()
    authority = desk.authority
    authority.set_liveness("nobody", "lost", 5)
    authority.set_liveness("p", "live", 5)
    authority.set_liveness("p", "live", 5, closed=False)
    assert not authority.ledger.uncommitted
    before = desk.state.producers["p"]
    authority.set_liveness("p", "stale", 6)
    desk.commit()
    stale = replace(before, liveness="stale", since="6", seq=3)
    assert desk.state.producers["p"] == stale
    authority.set_liveness("p", "stale", 7, closed=True)
    desk.commit()
    closed = replace(stale, closed=True, since="7", seq=4)
    assert desk.state.producers["p"] == closed
    authority.set_liveness("p", "live", 8)
    batch = desk.commit()
    assert desk.state.producers["p"] == replace(closed, liveness="live", since="8", seq=5)
    assert batch is not None
    assert decode_event(batch.events[0].encoded).ts == "8"


def test_what_is_left_open_crashes_with_its_reason_and_a_note() -> None:
    desk = Desk()
    desk.take(a_session(), a_step("a", state="running"), a_step("b", state="succeeded"))
    desk.take(a_step("theirs", state="running"), producer="q")
    before = desk.state.steps["a"]
    assert desk.authority.crash("p", 99) == 2
    batch = desk.commit()
    assert batch is not None
    assert desk.state.steps["a"] == replace(
        before, state="crashed", reason="its producer was lost", ended="99", seq=8
    )
    events = [decode_event(event.encoded) for event in batch.events]
    assert [(event.kind, event.ts, event.note) for event in events] == [
        ("session", "99", "crashed: producer p was lost"),
        ("step", "99", "crashed: producer p was lost"),
    ]
    assert {step.id: step.state for step in desk.state.steps.values()} == {
        "a": "crashed", "b": "succeeded", "theirs": "running"
    }  # fmt: skip
    assert (desk.authority.owns_crashed("p"), desk.authority.owns_crashed("q")) == (True, False)
    desk.take(StepChange(id="a", state="running"))
    assert desk.authority.owns_crashed("p")  # the session still is
    desk.take(SessionChange(state="running"))
    assert not desk.authority.owns_crashed("p")


def test_who_supersedes_what_was_declared_crashed_leaves_a_note() -> None:
    desk = Desk()
    desk.take(a_step("a", state="running"))
    desk.authority.crash("p", NOW)
    desk.commit()
    desk.authority.publish("p", 2, [StepChange(id="a", state="succeeded")], NOW)
    batch = desk.commit()
    assert batch is not None
    assert decode_event(batch.events[0].encoded).note == "crashed was superseded by succeeded"


def test_log_records_as_they_are_kept() -> None:
    desk = Desk()
    desk.take(a_step("a"))
    exact, longer = "x" * 4096, "y" * 4097
    records = (
        LogRecord(n=5, at="1", text=exact),
        LogRecord(n=5, at="1", text=longer),
        LogRecord(n=5, at="1", text="cut before", truncated=True),
    )
    desk.authority.publish("p", 2, [LogChange(step="a", records=records)], 55)
    batch = desk.commit()
    assert batch is not None
    assert batch.commit.logs == [
        ("a", LogRecord(n=1, at="1", text=exact)),
        ("a", LogRecord(n=2, at="1", text=longer[:4096], truncated=True)),
        ("a", LogRecord(n=3, at="1", text="cut before", truncated=True)),
    ]
    step = desk.state.steps["a"]
    assert (step.log_count, step.log_last, step.seq) == (3, "cut before", 4)
    assert decode_event(batch.events[0].encoded).ts == "55"


def test_a_step_that_has_grown_to_the_limit_takes_no_log_line() -> None:
    desk = Desk(event_size=1000)
    desk.take(a_step("a", attributes={"a": "x" * 650}))
    assert set(desk.state.steps) == {"a"}
    long = LogChange(step="a", records=(LogRecord(n=1, at="1", text="l" * 300),))
    assert desk.take(long) == ["event_too_large"]
    assert desk.state.steps["a"].log_count == 0


def test_problems_as_they_are_kept() -> None:
    desk = Desk()
    change = ProblemChange(id="e", code="x", message="m", severity="fatal", chain="c", step="t")
    desk.authority.publish("p", 1, [change], 55)
    batch = desk.commit()
    expected = Problem(
        id="e", code="x", message="m", severity="fatal", chain="c", step="t", producer="p", at="55", seq=3
    )
    assert desk.state.problems == {"e": expected}
    assert batch is not None
    assert decode_event(batch.events[0].encoded).ts == "55"
    desk.numbers["p"] = 2
    assert desk.take(ProblemChange(id="e", code="y", message="m")) == []  # its own may be told anew
    assert desk.state.problems["e"].code == "y"


def test_a_problem_beyond_the_size_of_an_event_is_refused() -> None:
    desk = Desk(event_size=1000)
    assert desk.take(ProblemChange(id="e", code="x", message="m" * 1000)) == ["event_too_large"]
    assert desk.state.problems == {}


def test_a_problem_that_is_told_anew_drops_none() -> None:
    desk = Desk(problems=2)
    for ident in "abb":
        desk.take(ProblemChange(id=ident, code="c", message="m"))
    assert set(desk.state.problems) == {"a", "b"}


def test_a_spool_that_was_full_is_a_problem_of_the_session() -> None:
    desk = Desk()
    desk.authority.publish("p", 1, [SkippedChange(first=1, last=1200, count=1200)], 55)
    desk.commit()
    assert desk.state.problems == {
        "skipped-1-p": Problem(
            id="skipped-1-p",
            code="skipped",
            message="the publishing program dropped 1,200 changes: its spool was full",
            severity="warning",
            producer="p",
            at="55",
            seq=3,
        )
    }
    assert desk.ledger.positions["p"].accepted == 1200


def test_the_id_of_such_a_problem_is_an_id_whatever_the_producers_is() -> None:
    producer = "p" * 117 + " x" + "y" * 8
    desk = Desk()
    desk.authority.open_producer(producer, "alice", "", NOW)
    desk.authority.publish(producer, 1, [SkippedChange(first=1, last=1, count=1)], NOW)
    desk.commit()
    [ident] = desk.state.problems
    assert ident == "skipped-1-" + "p" * 117


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (SkippedChange(first=1, last=1, count=1), None),
        (SkippedChange(first=1, last=3, count=1), None),
        (SkippedChange(first=1, last=3, count=0), "bad_message"),
        (SkippedChange(first=1, last=0, count=1), "bad_message"),
        (SkippedChange(first=2, last=9, count=8), "bad_message"),
        (SkippedChange(first=0, last=9, count=8), "bad_message"),
    ],
)
def test_a_mark_of_dropped_changes_moves_the_numbers_only_where_it_fits(
    change: SkippedChange, code: str | None
) -> None:
    """One that is refused has used its own number, as any change that is refused."""
    desk = Desk()
    assert desk.take(change, a_step("next")) == ([] if code is None else [code])
    accepted = (1 if code else change.last) + 1
    assert desk.ledger.positions["p"].accepted == accepted
    assert list(desk.state.steps) == ["next"]


def test_a_command_from_request_to_end() -> None:
    desk = Desk()
    desk.take(a_session())
    added = desk.authority.add_command(a_command(), 50)
    assert added == a_command(seq=4)
    first = desk.commit()
    assert first is not None
    assert decode_event(first.events[0].encoded).ts == "50"
    assert desk.state.commands[KEY] == added
    for state, now, reason in (("delivered", 51, ""), ("accepted", 52, "soon"), ("applied", 53, "done")):
        desk.authority.publish(
            "p",
            desk.numbers["p"],
            [CommandChange(id=KEY, state=state, reason=reason)],
            now,  # type: ignore[arg-type]
        )
        desk.numbers["p"] += 1
        desk.commit()
        assert (desk.state.commands[KEY].state, desk.state.commands[KEY].reason) == (state, reason)
    assert desk.state.commands[KEY] == a_command(
        state="applied", delivered="51", accepted="52", ended="53", reason="done", seq=7
    )
    seq = desk.state.seq
    assert desk.take(CommandChange(id=KEY, state="applied", reason="again")) == []
    assert desk.state.seq == seq


def test_whom_a_command_is_for() -> None:
    desk = Desk()
    authority = desk.authority
    assert authority.target(a_command()) == ""
    desk.take(a_session(), ChainChange(id="c", name="c"))
    desk.take(a_step("t"), producer="q")
    assert authority.target(a_command()) == "p"
    assert authority.target(a_command(chain="c")) == "p"
    assert authority.target(a_command(chain="c", step="t")) == "q"
    assert authority.target(a_command(chain="gone", step="gone")) == "p"


def test_work_is_work_alone() -> None:
    desk = Desk()
    desk.take(a_session(), ProblemChange(id="e", code="c", message="m"))
    assert desk.authority.work("session", "s") == desk.state.session
    assert desk.authority.work("producer", "p") is None
    assert desk.authority.work("error", "e") is None
    assert desk.authority.work("step", "e") is None


def test_a_commands_record_is_found_on_its_way_out() -> None:
    desk = Desk(commands=1)
    authority = desk.authority
    desk.take(a_session())
    for key in (KEY, "1" * 32):
        authority.add_command(a_command(key), NOW)
    authority.end_command(a_command(), "expired", "too late", 60)
    desk.commit()
    assert authority.ledger.retired == 0
    authority.end_command(a_command("1" * 32), "rejected", "", 61)
    assert authority.command("2" * 32) is None
    gone = authority.command(KEY)
    assert gone is not None
    assert (gone.state, gone.reason, gone.ended) == ("expired", "too late", "60")
    assert (authority.ledger.get("command", KEY), authority.ledger.retired) == (None, 1)
    batch = authority.ledger.take_batch()
    assert batch is not None
    assert authority.command(KEY) == gone
    authority.ledger.touch()  # another one is being filled meanwhile
    assert (authority.command(KEY), authority.ledger.retired) == (gone, 1)
    authority.ledger.committed(batch)
    assert (authority.command(KEY), authority.ledger.retired) == (None, 1)
    assert set(desk.state.commands) == {"1" * 32}
