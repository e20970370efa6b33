"""Commands: recorded, deduplicated, delivered at most once for execution, and always ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from wsmonitor.protocol.changes import ChainChange, CommandChange, SessionChange, StepChange
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import Argument, CommandSpec
from wsmonitor.protocol.messages import CommandReply, CommandRequest, Hold
from wsmonitor_server.clock import ManualClock
from wsmonitor_server.engine import SessionEngine
from wsmonitor_server.ports import Refusal
from wsmonitor_server.stores.base import Commit
from wsmonitor_server.stores.memory import MemoryStore
from wsmonitor_server.stores.sqlite import SqliteStore

from .support import Listener, Publisher, claims, engine_on
from .test_liveness import pass_time, state_of


class HeldStore(MemoryStore):
    """Its commits wait until they may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.going = asyncio.Event()
        self.going.set()
        self.waiting = asyncio.Event()

    async def commit(self, commits: Sequence[Commit]) -> None:
        if not self.going.is_set():
            self.waiting.set()
        await self.going.wait()
        await super().commit(commits)


Running = tuple[SessionEngine, ManualClock]

SPECS = (
    CommandSpec(name="pause", targets=("session", "step")),
    CommandSpec(name="cancel"),
    CommandSpec(name="interrupt", targets=("step",)),
    CommandSpec(name="tune", targets=("step",)),
    CommandSpec(
        name="scale",
        args=(
            Argument(name="to", type="integer", required=True),
            Argument(name="mode", choices=("slow", "fast")),
        ),
    ),
)


async def published(engine: SessionEngine, *more: Any) -> Publisher:
    publisher = await Publisher(engine, "s~1").open()
    await publisher.put(
        SessionChange(name="s", state="running", commands=SPECS),
        ChainChange(id="c", name="c", state="running"),
        StepChange(id="open", chain="c", name="open", state="running", commands=("pause", "interrupt")),
        StepChange(id="over", chain="c", name="over", state="failed", commands=("pause", "interrupt")),
        *more,
    )
    assert publisher.rejections == []
    return publisher


def a_request(key: int = 1, name: str = "pause", **more: Any) -> CommandRequest:
    return CommandRequest(request=1, session="s~1", key=f"{key:032x}", name=name, **more)


async def ask(engine: SessionEngine, message: CommandRequest, sub: str = "bob") -> CommandReply:
    return await engine.command(message, claims(sub))


async def test_command_is_recorded_delivered_and_applied(running: Running) -> None:
    engine, _ = running
    publisher = await published(engine)
    listener = Listener()
    await listener.sync(engine, "s~1")
    reply = await ask(engine, a_request(args={}))
    assert (reply.command.state, reply.command.actor, reply.repeated) == ("requested", "bob", False)
    assert [one.id for one in publisher.delivered] == [reply.command.id]
    for state in ("delivered", "accepted", "applied"):
        await publisher.put(CommandChange(id=reply.command.id, state=state, reason=f"is {state}"))
    assert listener.replica is not None
    record = listener.replica.commands[reply.command.id]
    assert (
        record.state,
        record.reason,
        bool(record.delivered),
        bool(record.accepted),
        bool(record.ended),
    ) == (
        "applied",
        "is applied",
        True,
        True,
        True,
    )
    assert [event.kind for event in listener.events] == ["command"] * 4


async def test_same_key_is_the_same_command(running: Running) -> None:
    engine, _ = running
    publisher = await published(engine)
    first = await ask(engine, a_request())
    again = await ask(engine, a_request())
    assert again.repeated
    assert again.command == first.command
    assert len(publisher.delivered) == 1
    for message, sub in ((a_request(name="interrupt"), "bob"), (a_request(), "eve")):
        with pytest.raises(Refusal) as caught:
            await ask(engine, message, sub)
        assert caught.value.info.code == "key_conflict"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (a_request(name="fly"), "command_unsupported"),
        (a_request(chain="c"), "command_unsupported"),
        (a_request(name="interrupt"), "command_unsupported"),
        (a_request(name="interrupt", step="over"), "command_unsupported"),
        (a_request(step="nowhere"), "not_available"),
        (a_request(step="open", chain="other"), "not_available"),
        (a_request(step="open", chain="c2"), "not_available"),
        (a_request(name="tune", step="open"), "command_unsupported"),
        (a_request(name="scale"), "bad_message"),
        (a_request(name="scale", args={"to": "3"}), "bad_message"),
        (a_request(name="scale", args={"to": True}), "bad_message"),
        (a_request(name="scale", args={"to": 3, "mode": "warp"}), "bad_message"),
        (a_request(name="scale", args={"to": 3, "what": 1}), "bad_message"),
    ],
)
async def test_what_is_not_offered_is_refused(running: Running, message: CommandRequest, code: str) -> None:
    engine, _ = running
    publisher = await published(engine, ChainChange(id="c2", name="another", state="running"))
    with pytest.raises(Refusal) as caught:
        await ask(engine, message)
    assert caught.value.info.code == code
    assert publisher.delivered == []
    assert (await state_of(engine, "s~1")).commands == {}


async def test_step_takes_what_it_names(running: Running) -> None:
    engine, _ = running
    publisher = await published(engine)
    await ask(engine, a_request(name="interrupt", step="open"))
    await ask(engine, a_request(2, name="scale", args={"to": 3, "mode": "fast"}))
    assert [one.name for one in publisher.delivered] == ["interrupt", "scale"]


async def test_ended_session_takes_none(running: Running) -> None:
    engine, _ = running
    await published(engine, SessionChange(state="succeeded"))
    with pytest.raises(Refusal) as caught:
        await ask(engine, a_request())
    assert caught.value.info.code == "session_ended"
    with pytest.raises(Refusal) as caught:
        await engine.command(CommandRequest(request=1, session="no~1", key="0" * 32, name="x"), claims())
    assert caught.value.info.code == "not_available"


async def test_delivered_again_after_a_reconnect_but_never_once_accepted(running: Running) -> None:
    engine, _ = running
    publisher = await published(engine)
    kept = (await ask(engine, a_request(1))).command.id
    taken = (await ask(engine, a_request(2))).command.id
    await publisher.put(CommandChange(id=kept, state="delivered"), CommandChange(id=taken, state="accepted"))
    await publisher.handle.close(goodbye=False)
    publisher.delivered.clear()
    await publisher.open()
    await pass_time(running, 1)
    assert [one.id for one in publisher.delivered] == [kept]
    # The answer to a command that was delivered twice is no error.
    await publisher.put(CommandChange(id=kept, state="delivered"))
    assert publisher.rejections == []


async def test_waits_for_an_absent_program_until_its_deadline(running: Running) -> None:
    engine, _ = running
    publisher = await published(engine)
    await publisher.handle.close(goodbye=False)
    early = (await ask(engine, a_request(1, deadline_ms=5_000))).command.id
    late = (await ask(engine, a_request(2, deadline_ms=60_000))).command.id
    assert engine.busy()
    await pass_time(running, 6)
    assert (await state_of(engine, "s~1")).commands[early].state == "expired"
    await publisher.open()
    await pass_time(running, 1)
    assert [one.id for one in publisher.delivered] == [late]
    await publisher.put(CommandChange(id=early, state="accepted"))
    assert publisher.rejections == [(5, "illegal_transition")]


async def test_accepted_is_unknown_when_the_program_dies(running: Running) -> None:
    engine, _ = running
    publisher = await published(engine)
    command = (await ask(engine, a_request())).command.id
    await publisher.put(CommandChange(id=command, state="accepted"))
    await publisher.handle.close(goodbye=False)
    await pass_time(running, 160)
    record = (await state_of(engine, "s~1")).commands[command]
    assert (record.state, record.reason) == ("unknown", "its producer was lost")
    assert not engine.busy()


async def test_accepted_is_unknown_when_another_process_takes_the_producer_over(running: Running) -> None:
    """Found by the simulation (seed 6483): the successor is not given it, and nobody else can answer."""
    engine, _ = running
    first = await published(engine)
    await first.open(holder="first", held=1)
    for key in (1, 2):
        await ask(engine, a_request(key))
    await first.put(CommandChange(id=f"{1:032x}", state="accepted"))
    await first.open(holder="first", held=2)  # it has only connected again
    listener = Listener()
    await listener.sync(engine, "s~1")
    assert listener.replica is not None
    assert listener.replica.commands[f"{1:032x}"].state == "accepted"
    second = await Publisher(engine, "s~1").open(holder="second")
    await asyncio.sleep(0)
    record = listener.replica.commands[f"{1:032x}"]
    assert (record.state, record.reason) == ("unknown", "another process has taken its producer over")
    assert [one.id for one in second.delivered] == [f"{2:032x}"], "what nobody accepted is the successor's"


async def test_accepted_is_unknown_when_the_program_says_goodbye_without_an_answer(running: Running) -> None:
    engine, _ = running
    publisher = await published(engine)
    await ask(engine, a_request())
    await publisher.put(CommandChange(id=f"{1:032x}", state="accepted"))
    await publisher.handle.close(goodbye=True)
    record = (await state_of(engine, "s~1")).commands[f"{1:032x}"]
    assert (record.state, record.reason) == ("unknown", "its program said goodbye without an answer")


async def test_only_the_addressed_producer_answers(running: Running) -> None:
    engine, _ = running
    publisher = await published(engine)
    worker = await Publisher(engine, "s~1", "p2").open()
    await worker.put(
        ChainChange(id="w", name="w"),
        StepChange(id="mine", chain="w", name="mine", state="running", commands=("pause",)),
    )
    command = (await ask(engine, a_request(step="mine"))).command.id
    assert (publisher.delivered, [one.id for one in worker.delivered]) == ([], [command])
    await publisher.put(CommandChange(id=command, state="accepted"))
    assert publisher.rejections == [(5, "not_owner")]


async def test_records_are_bounded() -> None:
    engine, _ = engine_on(limits=Limits(commands=2, pending_commands=2))
    await engine.start()
    publisher = await published(engine)
    for number in range(1, 5):
        command = (await ask(engine, a_request(number))).command.id
        await publisher.put(CommandChange(id=command, state="rejected", reason="no"))
    assert set((await state_of(engine, "s~1")).commands) == {f"{number:032x}" for number in (3, 4)}
    await ask(engine, a_request(5))
    await ask(engine, a_request(6))
    with pytest.raises(Refusal) as caught:
        await ask(engine, a_request(7))
    assert caught.value.info.code == "limit_exceeded"
    await engine.stop()


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_key_is_known_as_long_as_the_session(restarted: bool, tmp_path: Path) -> None:
    limits = Limits(commands=2, session_commands=6)
    engine, _ = engine_on(SqliteStore(tmp_path / "s.sqlite3"), limits=limits)
    await engine.start()
    publisher = await published(engine)
    for number in range(1, 6):
        command = (await ask(engine, a_request(number))).command.id
        await publisher.put(CommandChange(id=command, state="rejected", reason=f"no {number}"))
    if restarted:
        await engine.stop()
        engine, _ = engine_on(SqliteStore(tmp_path / "s.sqlite3"), limits=limits)
        await engine.start()
        await Publisher(engine, "s~1").open()
    head = (await state_of(engine, "s~1")).seq
    for number in range(1, 6):
        reply = await ask(engine, a_request(number))
        assert (reply.repeated, reply.command.state, reply.command.reason) == (
            True,
            "rejected",
            f"no {number}",
        )
        with pytest.raises(Refusal) as caught:
            await ask(engine, a_request(number, name="cancel"))
        assert caught.value.info.code == "key_conflict"
    assert (await state_of(engine, "s~1")).seq == head, "nothing was recorded"
    await ask(engine, a_request(6))
    with pytest.raises(Refusal) as caught:
        await ask(engine, a_request(7))
    assert caught.value.info.code == "limit_exceeded"
    assert (await ask(engine, a_request(6))).repeated
    await engine.stop()


async def test_a_key_is_known_while_its_record_is_on_its_way_out() -> None:
    store = HeldStore()
    engine, _ = engine_on(store, limits=Limits(commands=1))
    await engine.start()
    publisher = await published(engine)
    for number in (1, 2):
        await ask(engine, a_request(number))
    await publisher.put(CommandChange(id=f"{1:032x}", state="rejected", reason="no"))
    store.going.clear()
    await publisher.handle.publish(
        publisher.handle.epoch, publisher.next, [CommandChange(id=f"{2:032x}", state="rejected", reason="no")]
    )
    asked = asyncio.create_task(ask(engine, a_request(1)))
    await store.waiting.wait()
    store.going.set()
    assert (await asked).repeated
    await engine.stop()


async def test_other_producers_are_told_what_holds_beneath_what_is_not_theirs(running: Running) -> None:
    engine, _ = running
    publisher = await published(engine)
    specs = tuple(CommandSpec(name=name, targets=("chain",)) for name in ("pause", "resume"))
    await publisher.put(SessionChange(commands=specs))
    worker = await Publisher(engine, "s~1", "w1").open()
    assert worker.opened is not None
    assert worker.opened.holds == []
    paused = (await ask(engine, a_request(1, chain="c"))).command.id
    await publisher.put(CommandChange(id=paused, state="delivered"))
    assert worker.holds == []
    await publisher.put(CommandChange(id=paused, state="accepted"))
    pause = Hold(chain="c", want="pause", reason="paused by bob")
    assert worker.holds == [pause]
    await publisher.put(CommandChange(id=paused, state="applied"))
    assert worker.holds == [pause]
    assert (await Publisher(engine, "s~1", "w2").open()).opened.holds == [pause]  # type: ignore[union-attr]
    assert publisher.holds == []
    assert worker.delivered == []
    resumed = (await ask(engine, a_request(2, "resume", chain="c"))).command.id
    await publisher.put(CommandChange(id=resumed, state="accepted"))
    assert worker.holds == [pause, Hold(chain="c")]
    assert (await Publisher(engine, "s~1", "w3").open()).opened.holds == []  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("end", "held"),
    [("succeeded", ["cancel", "run"]), ("failed", ["cancel", "run"]), ("cancelled", ["cancel"])],
)
async def test_a_cancel_holds_until_the_target_has_ended_otherwise(
    running: Running, end: Any, held: list[str]
) -> None:
    engine, _ = running
    publisher = await published(engine)
    worker = await Publisher(engine, "s~1", "w1").open()
    ident = (await ask(engine, a_request(1, "cancel"))).command.id
    await publisher.put(CommandChange(id=ident, state="accepted"))
    await publisher.put(SessionChange(state=end))
    await publisher.put(CommandChange(id=ident, state="applied" if end == "cancelled" else "rejected"))
    assert [hold.want for hold in worker.holds] == held


async def test_a_pause_holds_no_longer_than_its_target_is_open(running: Running) -> None:
    engine, _ = running
    publisher = await published(engine)
    worker = await Publisher(engine, "s~1", "w1").open()
    ident = (await ask(engine, a_request(1))).command.id
    await publisher.put(CommandChange(id=ident, state="accepted"), CommandChange(id=ident, state="applied"))
    await publisher.put(SessionChange(state="failed"))
    assert [hold.want for hold in worker.holds] == ["pause", "run"]
    assert (await Publisher(engine, "s~1", "w2").open()).opened.holds == []  # type: ignore[union-attr]


async def test_a_program_that_has_said_goodbye_is_asked_nothing(running: Running) -> None:
    engine, _ = running
    publisher = await published(engine)
    await publisher.handle.close(goodbye=True)
    await engine.settle()
    with pytest.raises(Refusal, match="goodbye"):
        await ask(engine, a_request())


async def test_an_argument_that_is_not_required_may_be_left_out(running: Running) -> None:
    engine, _ = running
    publisher = await published(engine)
    await ask(engine, a_request(name="scale", args={"to": 3}))
    assert [command.args for command in publisher.delivered] == [{"to": 3}]
