"""The rules of commands by themselves: what is recorded, refused in which words, and when it ends."""

from __future__ import annotations

from typing import Any

import pytest

from wsmonitor.protocol.changes import ChainChange, CommandChange, SessionChange, StepChange
from wsmonitor.protocol.entities import Argument, Command, CommandSpec
from wsmonitor.protocol.messages import CommandRequest
from wsmonitor_server import commands
from wsmonitor_server.merge import Rejection

from .test_authority import NOW, Desk

SPECS = (
    CommandSpec(name="pause", targets=("session", "chain", "step")),
    CommandSpec(name="cancel"),
    CommandSpec(name="interrupt", targets=("session", "step")),
    CommandSpec(
        name="scale",
        args=(
            Argument(name="to", type="integer", required=True),
            Argument(name="mode", choices=("slow", "fast")),
            Argument(name="rate", type="number"),
            Argument(name="dry", type="boolean"),
        ),
    ),
)


def desk(specs: tuple[CommandSpec, ...] = SPECS, **limits: int) -> Desk:
    made = Desk(**limits)
    made.take(
        SessionChange(name="s", state="running", commands=specs),
        ChainChange(id="c", name="c", state="running"),
        ChainChange(id="d", name="d", state="running"),
        StepChange(id="open", chain="c", name="o", state="running", commands=("pause", "interrupt")),
        StepChange(id="over", chain="c", name="x", state="failed", commands=("pause", "interrupt")),
        StepChange(id="plain", chain="c", name="p", state="running"),
    )
    return made


def a_request(key: int = 1, name: str = "pause", **more: Any) -> CommandRequest:
    return CommandRequest(request=1, session="s", key=f"{key:032x}", name=name, **more)


def ask(made: Desk, message: CommandRequest, retired: Command | None = None) -> tuple[Command, bool]:
    return commands.request(made.authority, message, "bob", NOW, made.limits, retired)


def refused(
    made: Desk, message: CommandRequest, code: str, words: str, retired: Command | None = None
) -> None:
    tail = made.authority.ledger.tail
    with pytest.raises(Rejection) as caught:
        ask(made, message, retired)
    assert (caught.value.code, caught.value.message) == (code, words)
    assert made.authority.ledger.tail == tail, "nothing was recorded"


def test_what_is_recorded_is_all_that_was_asked() -> None:
    made = desk()
    message = a_request(name="pause", chain="c", step="open", args={}, deadline_ms=1500, via="the notebook")
    command, repeated = ask(made, message)
    assert not repeated
    assert command == Command(
        id=f"{1:032x}",
        name="pause",
        chain="c",
        step="open",
        actor="bob",
        via="the notebook",
        deadline=str(NOW + 1_500_000_000),
        requested=str(NOW),
        seq=made.authority.ledger.tail,
    )
    made.commit()
    assert made.state.commands == {command.id: command}
    scaled, _ = ask(made, a_request(2, name="scale", args={"to": 3}))
    assert scaled.args == {"to": 3}
    made.commit()


def test_a_key_is_one_command_in_every_part() -> None:
    made = desk()
    first, _ = ask(made, a_request(1, name="pause", step="open", chain="c"))
    assert ask(made, a_request(1, name="pause", step="open", chain="c", via="x", deadline_ms=5)) == (
        first,
        True,
    )
    words = f"the key {first.id} was used for another command"
    for other in (
        a_request(1, name="cancel", step="open", chain="c"),
        a_request(1, name="pause", step="open"),
        a_request(1, name="pause", chain="c"),
        a_request(1, name="pause", step="open", chain="c", args={"a": 1}),
    ):
        refused(made, other, "key_conflict", words)
    with pytest.raises(Rejection) as caught:
        commands.request(made.authority, a_request(1, step="open", chain="c"), "eve", NOW, made.limits)
    assert (caught.value.code, caught.value.message) == ("key_conflict", words)
    gone = Command(id=f"{9:032x}", name="pause", actor="bob", deadline="9", requested="1", state="applied")
    assert ask(made, a_request(9), gone) == (gone, True)
    refused(
        made,
        a_request(9, name="cancel"),
        "key_conflict",
        f"the key {gone.id} was used for another command",
        gone,
    )


REFUSED = [
    (
        a_request(name="fly"),
        "command_unsupported",
        "'fly' is not offered (offered: pause, cancel, interrupt, scale)",
    ),
    (a_request(name="cancel", chain="c"), "command_unsupported", "'cancel' is not for a chain"),
    (a_request(name="cancel", chain="c", step="open"), "command_unsupported", "'cancel' is not for a step"),
    (a_request(name="interrupt"), "command_unsupported", "interrupt must name the step that it means"),
    (
        a_request(name="interrupt", chain="c"),
        "command_unsupported",
        "interrupt must name the step that it means",
    ),
    (a_request(name="interrupt", step="over"), "command_unsupported", "step 'over' has ended: it is failed"),
    (a_request(name="pause", chain="x"), "not_available", "there is no chain 'x'"),
    (a_request(name="pause", step="x"), "not_available", "there is no step 'x'"),
    (a_request(name="pause", step="open", chain="d"), "not_available", "step 'open' is not in chain 'd'"),
    (a_request(name="pause", step="plain"), "command_unsupported", "step 'plain' does not take 'pause' now"),
    (a_request(name="scale"), "bad_message", "scale needs the argument 'to'"),
    (a_request(name="scale", args={"to": 1, "x": 1}), "bad_message", "scale has no argument 'x'"),
    (a_request(name="scale", args={"to": "1"}), "bad_message", "the argument 'to' must be: integer"),
    (a_request(name="scale", args={"to": 1.5}), "bad_message", "the argument 'to' must be: integer"),
    (a_request(name="scale", args={"to": True}), "bad_message", "the argument 'to' must be: integer"),
    (
        a_request(name="scale", args={"to": 1, "rate": True}),
        "bad_message",
        "the argument 'rate' must be: number",
    ),
    (
        a_request(name="scale", args={"to": 1, "rate": "1"}),
        "bad_message",
        "the argument 'rate' must be: number",
    ),
    (a_request(name="scale", args={"to": 1, "dry": 1}), "bad_message", "the argument 'dry' must be: boolean"),
    (
        a_request(name="scale", args={"to": 1, "mode": 1}),
        "bad_message",
        "the argument 'mode' must be: string",
    ),
    (a_request(name="scale", args={"to": 1, "mode": "x"}), "bad_message", "'mode' must be one of slow, fast"),
]


@pytest.mark.parametrize(("message", "code", "words"), REFUSED)
def test_what_is_refused_is_told_why(message: CommandRequest, code: str, words: str) -> None:
    refused(desk(), message, code, words)


def test_arguments_of_each_type() -> None:
    made = desk()
    args = {"to": -1, "rate": 2, "dry": False, "mode": "slow"}
    assert ask(made, a_request(1, name="scale", args=args))[0].args == args  # type: ignore[arg-type]
    args = {"to": 0, "rate": 2.5, "dry": True}
    assert ask(made, a_request(2, name="scale", args=args))[0].args == args  # type: ignore[arg-type]


def test_what_is_not_there_or_over_takes_none() -> None:
    refused(Desk(), a_request(), "not_available", "there is no such session")
    refused(desk(()), a_request(), "command_unsupported", "'pause' is not offered (offered: none)")
    made = desk()
    made.take(SessionChange(state="cancelled"))
    refused(made, a_request(), "session_ended", "the session has ended: it is cancelled")


def test_a_step_that_has_ended_may_still_be_what_a_pause_names() -> None:
    command, _ = ask(desk(), a_request(step="over"))
    assert command.step == "over"


def test_how_many_may_wait_and_how_many_there_may_be() -> None:
    made = desk(pending_commands=2)
    for key in (1, 2):
        ask(made, a_request(key))
    refused(made, a_request(3), "limit_exceeded", "2 commands of this session are pending")
    assert ask(made, a_request(2))[1], "what is known is answered all the same"
    made = desk(session_commands=3, commands=1)
    for key in (1, 2):
        command, _ = ask(made, a_request(key))
        made.authority.end_command(command, "expired", "", NOW)
    made.commit()
    assert (made.authority.ledger.retired, len(made.authority.ledger.facts.finished)) == (1, 1)
    ask(made, a_request(3))
    refused(made, a_request(4), "limit_exceeded", "this session has had 3 commands")


def test_who_has_said_goodbye_is_asked_nothing() -> None:
    made = desk()
    made.authority.set_liveness("p", "live", NOW, closed=True)
    words = "the program that would take it has said goodbye"
    refused(made, a_request(step="open"), "command_unsupported", words)
    made.authority.set_liveness("p", "lost", NOW, closed=False)
    ask(made, a_request(step="open"))


def test_when_a_command_is_delivered_and_when_it_has_expired() -> None:
    """At its deadline it is no longer delivered, and expires; what was accepted does neither."""
    made = desk()
    authority = made.authority
    made.authority.publish("q", 1, [StepChange(id="theirs", chain="c", name="t", commands=("pause",))], NOW)
    for key, step in ((1, "open"), (2, "open"), (3, "theirs"), (4, "open")):
        ask(made, a_request(key, step=step, deadline_ms=key))
    made.commit()
    deadline = {key: NOW + key * 1_000_000 for key in range(1, 5)}

    def due(now: int, producer: str = "p") -> list[int]:
        return [int(one.id, 16) for one in commands.deliverable(authority, producer, now)]

    assert due(NOW) == [1, 2, 4]
    assert due(NOW, "q") == [3]
    assert due(deadline[1] - 1) == [1, 2, 4]
    assert due(deadline[1]) == [2, 4]
    assert commands.next_deadline_ns(authority) == deadline[1]
    assert commands.expire(authority, deadline[1] - 1) == 0
    assert commands.expire(authority, deadline[1]) == 1
    made.commit()
    expired = made.state.commands[f"{1:032x}"]
    assert (expired.state, expired.reason) == ("expired", "nobody accepted it before its deadline")
    assert expired.ended == str(deadline[1])
    states = {2: "accepted", 4: "delivered"}
    for key, state in states.items():
        made.take(CommandChange(id=f"{key:032x}", state=state))  # type: ignore[arg-type]
    assert due(NOW) == [4]
    assert commands.next_deadline_ns(authority) == deadline[3]
    assert commands.expire(authority, NOW + 10**12) == 2
    made.commit()
    assert commands.next_deadline_ns(authority) is None
    assert {int(key, 16): one.state for key, one in made.state.commands.items()} == {
        1: "expired", 2: "accepted", 3: "expired", 4: "expired"
    }  # fmt: skip
