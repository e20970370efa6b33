"""A command is executed once its acceptance is on record, at most once, and never when that was refused."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from wsmonitor.protocol.changes import CommandChange
from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.publish.answers import KEPT_COMMANDS, Answers

from .fake import Fake

EXPIRED = ErrorInfo(code="illegal_transition", message="the command is expired; accepted cannot follow")


@pytest.fixture
def slow(fake: Fake) -> Callable[..., str]:
    """Delivers a command to a session whose acceptances are acknowledged only by the test."""

    def command(name: str, **fields: str) -> str:
        fake.publication.records_answers = False
        return fake.command(name, **fields)

    return command


def refuse(fake: Fake, ident: str) -> None:
    """The server refuses the acceptance of *ident*."""
    changes = fake.changes
    number = next(n for n, one in enumerate(changes, 1) if isinstance(one, CommandChange) and one.id == ident)
    fake.publication.listener.rejected(number, changes[number - 1], EXPIRED)
    fake.publication.acknowledge()  # a refused change has used its number


@pytest.mark.parametrize("refused", [False, True])
def test_a_cancel_takes_effect_when_its_acceptance_is_on_record(
    fake: Fake, slow: Callable[..., str], refused: bool
) -> None:
    with fake.session() as session, session.chain("c") as chain, chain.step("s") as step:
        ident = slow("cancel", step=step.id)
        assert fake.answers(ident) == [("accepted", "")]
        step.checkpoint()
        assert step.state == "running"
        if refused:
            refuse(fake, ident)
            step.checkpoint()  # it is recorded as expired: nothing happens
            assert fake.answers(ident) == [("accepted", "")]
            assert [info.code for info in session.errors] == ["illegal_transition"]
        else:
            fake.publication.acknowledge()
            assert step.state == "cancelling"
            step.end("succeeded")
            assert fake.answers(ident)[-1][0] == "rejected"


def test_commands_take_effect_in_the_order_in_which_they_came(fake: Fake, slow: Callable[..., str]) -> None:
    with fake.session() as session, session.chain("c") as chain, chain.step("s") as step:
        idents = [slow(name) for name in ("pause", "resume", "cancel")]
        # Not refused as "not paused": the pause before it is still to come.
        assert [fake.answers(ident) for ident in idents] == [[("accepted", "")]] * 3
        fake.publication.acknowledge()
        assert [fake.answers(ident)[1:] for ident in idents] == [
            [("rejected", "resumed before it took effect")],
            [("applied", "")],
            [],
        ]
        assert step.state == "cancelling"


def test_a_command_whose_target_ended_meanwhile_is_rejected(fake: Fake, slow: Callable[..., str]) -> None:
    with fake.session() as session, session.chain("c") as chain:
        with chain.step("s") as step:
            ident = slow("pause", step=step.id)
        fake.publication.acknowledge()
        assert fake.answers(ident)[-1] == ("rejected", "there is no such thing here, or it has ended")


@pytest.mark.parametrize("end", ["recorded", "refused", "closed"])
def test_an_own_command_waits_for_its_record(fake: Fake, slow: Callable[..., str], end: str) -> None:
    called = threading.Event()
    with fake.session() as session:
        session.on("reload", called.set)
        ident = slow("reload")
        fake.wait(lambda: fake.answers(ident) == [("accepted", "")])
        assert not called.is_set()
        if end == "recorded":
            fake.publication.acknowledge()
            fake.wait(lambda: fake.answers(ident)[-1][0] == "applied")
        elif end == "refused":
            refuse(fake, ident)
            fake.publication.records_answers = True
            # The next one is served: nobody waits for the one that was refused.
            after = fake.command("reload")
            fake.wait(lambda: fake.answers(after)[-1:] == [("applied", "")])
            assert fake.answers(ident) == [("accepted", "")]
    if end == "closed":
        fake.close()
        for thread in threading.enumerate():
            if thread.name == "wsmonitor-commands":
                thread.join(10)
        assert not called.is_set()


def test_nothing_is_executed_once_another_process_has_taken_over(
    fake: Fake, slow: Callable[..., str]
) -> None:
    with fake.session() as session, session.chain("c") as chain, chain.step("s") as step:
        slow("cancel", step=step.id)
        with pytest.warns(match="taken this session over"):
            fake.publication.listener.fenced(removed=False)
        fake.publication.acknowledge()
        assert step.state == "running"


def test_answers_that_a_restored_server_has_forgotten_are_told_again(fake: Fake) -> None:
    with fake.session() as session, session.chain("c") as chain, chain.step("s"):
        listener = fake.publication.listener
        listener.opened("e1", False)
        done = fake.command("resume")
        assert fake.answers(done) == [("rejected", "it is not paused")]
        pause = fake.command("pause", chain=chain.id)
        resume = fake.command("resume", chain=chain.id)
        fake.publication.acknowledge()
        fake.publication.records_answers = False
        waiting = fake.command("pause", chain=chain.id)
        before = len(fake.changes)
        listener.opened("e2", False)
        told = [change for change in fake.changes[before:] if isinstance(change, CommandChange)]
        assert [(change.id, change.state) for change in told] == [
            (done, "rejected"),
            (pause, "accepted"),
            (pause, "rejected"),
            (resume, "accepted"),
            (resume, "applied"),
        ]
        # What was not committed is still on its way, and takes effect when it is.
        assert fake.answers(waiting) == [("accepted", "")]
        fake.publication.acknowledge()
        assert session._run.control.attention == 1
        fake.command("resume", chain=chain.id)
        fake.publication.acknowledge()


def test_answers_are_kept_for_a_bounded_number_of_commands() -> None:
    sent: list[CommandChange] = []

    def submit(change: CommandChange) -> int:
        sent.append(change)
        return len(sent)

    answers = Answers(submit)
    for number in range(KEPT_COMMANDS + 5):
        answers.tell(CommandChange(id=f"{number:032x}", state="rejected"))
    answers.acknowledged(len(sent))
    sent.clear()
    answers.assert_again()
    assert [change.id for change in sent] == [f"{n:032x}" for n in range(5, KEPT_COMMANDS + 5)]


def test_an_answer_that_can_no_longer_be_sent_is_dropped() -> None:
    answers = Answers(lambda change: None)
    told: list[str] = []
    answers.accept("0" * 32, lambda: told.append("then"), lambda: told.append("dropped"))
    assert told == ["dropped"]
    assert answers.acknowledged(1) == []
