"""Check 7, Multiple Client Observers (HIGH).

"Multiple clients can connect and observe the same session simultaneously. All clients receive state
updates when any client sends a command. Session state consistent across all connected clients."
"""

from __future__ import annotations

from contextlib import AsyncExitStack

from tests.checks.harness import Observer, blocking, scene, until, wire
from wsmonitor.client import EventApplied
from wsmonitor.protocol.entities import Command, CommandSpec

PAUSE = (CommandSpec(name="pause"),)


def _command_states(observer: Observer, key: str) -> list[str]:
    return [
        update.entity.state
        for update in observer.of(EventApplied)
        if isinstance(update.entity, Command) and update.entity.id == key
    ]


async def test_multiple_clients_observe_the_same_session_simultaneously() -> None:
    """ "Multiple clients can connect and observe the same session simultaneously." """
    async with scene() as stage:
        publisher = await stage.publish("etl~1")
        observers = [await stage.observe("etl~1", f"user {number}") for number in range(8)]
        assert len(stage.server.server.peers) == 9
        for number in range(20):
            publisher.step(f"s{number}", state="running")
        await publisher.flush()
        await stage.agreed(*observers)
        assert all(len(observer.state().steps) == 20 for observer in observers)


async def test_each_client_sees_who_else_watches() -> None:
    """ "Multiple clients … observe the same session simultaneously", and know of each other."""
    async with scene() as stage, AsyncExitStack() as stack:
        await stage.publish("etl~1")
        observer = await stage.observe("etl~1", "alice")
        for name in ("bob", "carol"):
            bare = await stack.enter_async_context(wire(stage.server.url, stage.token(name, name=name)))
            await bare.subscribe("etl~1")
        await until(lambda: observer.sub.presence.count == 3)
        assert set(observer.sub.presence.names) == {"alice", "bob", "carol"}


async def test_all_clients_receive_updates_when_any_client_sends_a_command() -> None:
    """ "All clients receive state updates when any client sends a command." """
    async with scene() as stage:
        publisher = await stage.publish("etl~1", commands=PAUSE)
        observers = [await stage.observe("etl~1", f"user {number}", role="command") for number in range(4)]
        sender = observers[2]
        reply = await blocking(sender.conn.command("etl~1", "pause", via="a test").result, 10)
        for observer in observers:
            await until(lambda one=observer: _command_states(one, reply.command.id)[-1:] == ["applied"])  # type: ignore[misc]
        for observer in observers:
            states = _command_states(observer, reply.command.id)
            assert states[0] == "requested"
            assert states[-2:] == ["accepted", "applied"]
            session = observer.state().session
            assert session is not None
            assert session.state == "paused"
            record = observer.state().commands[reply.command.id]
            assert (record.actor, record.via, record.state) == ("user 2", "a test", "applied")
        assert [command.name for command in publisher.owner.commands] == ["pause"]
        await stage.agreed(*observers)


async def test_a_command_that_is_sent_twice_is_one_command() -> None:
    """ "… when any client sends a command": with the same key it is applied once."""
    async with scene() as stage:
        publisher = await stage.publish("etl~1", commands=PAUSE)
        one, other = (
            await stage.observe("etl~1", "alice", role="command"),
            await stage.observe("etl~1", "bob"),
        )
        key = "0123456789abcdef" * 2
        for expected in (False, True, True):
            reply = await blocking(one.conn.command("etl~1", "pause", key=key).result, 10)
            assert reply.repeated is expected
        await until(lambda: _command_states(other, key)[-1:] == ["applied"])
        assert len(publisher.owner.commands) == 1
        assert _command_states(other, key).count("applied") == 1


async def test_state_is_consistent_across_all_connected_clients() -> None:
    """ "Session state consistent across all connected clients.": early, late, coming and going, by digest."""
    async with scene() as stage:
        publisher = await stage.publish("etl~1", commands=PAUSE)
        observers = [await stage.observe("etl~1", "early")]
        for number in range(5):
            publisher.step(f"s{number}", state="running", metrics={"n": number / 3})
            observers.append(await stage.observe("etl~1", f"comes at {number}"))
        observers[2].sub.close()
        observers.append(await stage.observe("etl~1", "latest", delivery="latest", interval_ms=50))
        for number in range(50):
            publisher.step(f"t{number}", state="succeeded")
        await publisher.flush()
        remaining = [observer for observer in observers if observer.sub.phase != "closed"]
        await stage.agreed(*remaining)
        assert len({observer.state().digest for observer in remaining}) == 1
        assert len(remaining) == 6
