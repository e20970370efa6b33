"""What happens to a session while the store is asked something for one who wants to write to it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from wsmonitor.protocol.changes import ChainChange, CommandChange, SessionChange
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import CommandSpec
from wsmonitor.protocol.messages import CommandReply, CommandRequest
from wsmonitor_server.clock import ManualClock
from wsmonitor_server.engine import SessionEngine
from wsmonitor_server.ports import Refusal
from wsmonitor_server.session import IDLE

from .support import Publisher, claims, engine_on

S = "etl~1"


class Question:
    """One of the store's methods: its answer is known at once, and is held back until `answer`."""

    def __init__(self, engine: SessionEngine, name: str) -> None:
        self._real = getattr(engine.store, name)
        self._go = asyncio.Event()
        self.asked = asyncio.Event()
        setattr(engine.store, name, self._ask)

    async def _ask(self, *args: Any, **more: Any) -> Any:
        known = await self._real(*args, **more)
        self.asked.set()
        await self._go.wait()
        return known

    def answer(self) -> None:
        self._go.set()


async def begin(engine: SessionEngine) -> Publisher:
    publisher = await Publisher(engine, S).open()
    spec = CommandSpec(name="pause", targets=("session",))
    await publisher.put(SessionChange(name="etl", state="running", commands=(spec,)))
    return publisher


def come_back(engine: SessionEngine) -> asyncio.Task[Publisher]:
    """A producer that has been here before, and that the session does not know any more."""
    return asyncio.create_task(Publisher(engine, S, "back").open(holder="h", held=1))


async def let_go(engine: SessionEngine, clock: ManualClock) -> None:
    """Nobody has used the session for so long that it is in memory no more."""
    clock.advance(IDLE + 1)
    engine.handle_timeout()
    await engine.settle()
    assert S not in engine._sessions


async def test_a_session_that_is_let_go_of_meanwhile_is_read_again() -> None:
    """Else there were two of it in memory, and each took the other's commits for a fault of the store."""
    engine, clock = engine_on()
    await engine.start()
    await (await begin(engine)).handle.close(goodbye=True)
    question = Question(engine, "tombstone")
    opening = come_back(engine)
    await question.asked.wait()
    await let_go(engine, clock)
    other = await Publisher(engine, S, "other").open()
    await other.put(ChainChange(id="c", name="c"))
    question.answer()
    async with asyncio.timeout(60):
        back = await opening
        await back.put(ChainChange(id="d", name="d"))
    assert (back.acks, other.failures, back.failures) == ([1], [], [])
    stored = await engine.store.load(S)
    assert stored is not None
    assert sorted(stored.state.chains) == ["c", "d"]
    assert engine.heads([S]) == {S: (engine.epoch, stored.state.seq, stored.state.digest)}
    await engine.stop()


async def test_who_comes_back_while_his_session_is_removed_does_not_make_it_anew() -> None:
    engine, _ = engine_on()
    await engine.start()
    await begin(engine)
    question = Question(engine, "tombstone")
    opening = come_back(engine)
    await question.asked.wait()
    removing = asyncio.create_task(engine.remove(S))
    await removing
    question.answer()
    with pytest.raises(Refusal, match="removed") as refused:
        async with asyncio.timeout(60):
            await opening
    assert refused.value.info.code == "fenced"
    assert await engine.store.load(S) is None
    await engine.stop()


async def ask(engine: SessionEngine, key: str) -> CommandReply:
    return await engine.command(
        CommandRequest(request=1, session=S, key=key * 32, name="pause", deadline_ms=30_000), claims()
    )


async def test_a_command_to_a_session_that_is_removed_meanwhile_is_answered() -> None:
    engine, _ = engine_on(limits=Limits(commands=1))
    await engine.start()
    publisher = await begin(engine)
    for key in "01":  # the record of the first makes place for the second
        await ask(engine, key)
        await publisher.put(
            *(CommandChange(id=key * 32, state=state) for state in ("delivered", "accepted", "applied"))
        )
    question = Question(engine, "retired_command")
    asking = asyncio.create_task(ask(engine, "2"))
    await question.asked.wait()
    await engine.remove(S)
    question.answer()
    with pytest.raises(Refusal) as refused:
        async with asyncio.timeout(60):
            await asking
    assert refused.value.info.code == "not_available"
    await engine.stop()


async def test_of_two_who_remove_a_session_the_second_is_told_that_there_is_none() -> None:
    engine, _ = engine_on()
    await engine.start()
    await begin(engine)
    question = Question(engine, "remove")
    removing = [asyncio.create_task(engine.remove(S)) for _ in range(2)]
    await question.asked.wait()
    question.answer()
    outcomes = await asyncio.gather(*removing, return_exceptions=True)
    assert [getattr(one, "info", None) and one.info.code for one in outcomes] == [None, "not_available"]
    await engine.stop()
