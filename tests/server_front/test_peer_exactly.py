"""The machine of one connection: what exactly it says, in which words, and when it says nothing more."""

from __future__ import annotations

from typing import Any

import pytest

from wsmonitor import __version__
from wsmonitor.protocol.close_codes import CloseCode
from wsmonitor.protocol.entities import Chain, ErrorInfo
from wsmonitor.protocol.messages import (
    Batch,
    Degraded,
    Error,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Presence,
    Removed,
    Resync,
    ServerMessage,
    StatusGet,
    Welcome,
)

from .machine import Machine


def words(messages: list[ServerMessage]) -> list[tuple[str, str]]:
    return [(one.error.code, one.error.message) for one in messages if isinstance(one, Error)]


def wall(machine: Machine) -> str:
    return str(machine.clock.wall_ns())


def test_a_welcome_in_full() -> None:
    machine = Machine(open=False, limits={"page_size": 5}, timing={"quiet_after": 4.0}, role="observe")
    machine.engine.degraded = Degraded(code="read_only", reason="r", since="1")
    machine.give(Hello(major=1))
    [told] = machine.sent()
    claims, limits, timing = machine.peer.credential.claims, machine.peer.limits, machine.services.timing
    assert told == Welcome(
        major=1,
        minor=0,
        server=__version__,
        instance="i",
        epoch="e1",
        subject="ada",
        role="observe",
        sessions=("*",),
        expires=claims.exp,
        time=wall(machine),
        heartbeat_interval=timing.heartbeat_interval,
        heartbeat_timeout=timing.heartbeat_timeout,
        quiet_after=4.0,
        page_size=5,
        inline_value=limits.inline_value,
        batch_changes=limits.batch_changes,
        batch_size=limits.batch_size,
        message_size=limits.message_size,
        spread=2.0,
        degraded=machine.engine.degraded,
    )
    machine.engine.degraded = None
    healthy = Machine(open=False)
    healthy.give(Hello(major=1))
    [told] = healthy.sent()
    assert isinstance(told, Welcome)
    assert told.degraded is None


def test_another_version_is_told_which_one_is_spoken() -> None:
    machine = Machine(open=False)
    machine.give(Hello(major=9, minor=3))
    [told] = machine.sent()
    assert isinstance(told, Error)
    assert told.error == ErrorInfo(
        code="unsupported_version",
        message=f"this server (wsmonitor {__version__}) speaks protocol 1.0, the client 9.3",
        details={"major": 1, "minor": 0, "server": __version__},
    )
    assert machine.wire.closed == (CloseCode.UNSUPPORTED_VERSION, "unsupported version", True)


def test_what_comes_out_of_turn_is_told_in_words() -> None:
    machine = Machine(open=False)
    machine.give(StatusGet(request=5))
    assert words(machine.sent()) == [("unexpected_message", "the first message has to be `hello`")]
    machine.give(Hello(major=1))
    machine.sent()
    machine.give(Hello(major=1))
    assert words(machine.sent()) == [("unexpected_message", "`hello` was sent already")]
    machine.peer.receive_binary()
    assert words(machine.sent()) == [("binary_message", "this protocol uses text messages only")]
    machine.raw(b'{"type":"value_get","request":7,"session":"s","sha256":"x","offset":0}')
    [told] = machine.sent()
    assert isinstance(told, Error)
    assert (told.request, told.error.code) == (7, "bad_message")
    assert "sha256" in told.error.message


def test_silence_before_hello_is_told_in_words() -> None:
    machine = Machine(open=False, timing={"handshake_timeout": 10.0})
    machine.clock.advance(10)
    machine.peer.handle_timeout()
    assert words(machine.sent()) == [("handshake_timeout", "no `hello` in time")]


def test_why_it_is_closed() -> None:
    for data, code, reason in (
        (b"x" * 65, 1009, "message too large"),
        (b"{", CloseCode.BAD_REQUEST, "bad_json"),
    ):
        machine = Machine(open=False, limits={"message_size": 64})
        machine.raw(data)
        assert machine.wire.closed == (code, reason, True)
    machine = Machine(limits={"message_rate": 1.0, "message_burst": 1})
    machine.give(Heartbeat(n=1))
    assert machine.wire.closed == (CloseCode.RATE_LIMITED, "rate limited", True)
    told = machine.sent()
    assert words(told) == [("rate_limited", "more than 1 messages a second (in a burst 1)")]
    assert len(told) == 1, "what was one too many is not answered"


def closed() -> Machine:
    machine = Machine()
    machine.peer.close(CloseCode.DRAINING, "bye")
    machine.sent()
    return machine


@pytest.mark.parametrize("arrives", ["message", "part", "binary", "time", "nonsense"])
def test_behind_its_end_nothing_is_heard_counted_or_done(arrives: str) -> None:
    """Neither is the token looked at: it could end a second time what has ended for another reason."""
    machine = closed()
    machine.auth.trouble = ErrorInfo(code="token_revoked", message="the token has been revoked")
    reason = machine.wire.closed
    bucket = machine.peer._bucket
    level = [getattr(bucket, name) for name in bucket.__slots__]
    match arrives:
        case "message":
            machine.raw(b'{"type":"heartbeat","n":1}')
        case "part":
            machine.peer.receive_part()
        case "binary":
            machine.peer.receive_binary()
        case "time":
            machine.clock.advance(1000.0)
            machine.peer.handle_timeout()
        case "nonsense":
            machine.raw(b"{")
    assert machine.sent() == []
    assert machine.wire.closed == reason
    assert [getattr(bucket, name) for name in bucket.__slots__] == level


@pytest.mark.parametrize("arrives", ["message", "part", "binary", "time"])
def test_a_token_that_no_longer_holds_ends_it_whatever_comes(arrives: str) -> None:
    machine = Machine()
    machine.auth.trouble = ErrorInfo(code="token_revoked", message="the token has been revoked")
    match arrives:
        case "message":
            machine.raw(b'{"type":"heartbeat","n":1}')
        case "part":
            machine.peer.receive_part()
        case "binary":
            machine.peer.receive_binary()
        case "time":
            machine.peer.handle_timeout()
    assert machine.wire.closed == (CloseCode.UNAUTHORIZED, "the token has been revoked", False)
    assert machine.sent() == []


async def test_the_end_of_the_token_and_silence_are_deadlines_of_an_open_connection() -> None:
    machine = Machine(timing={"heartbeat_interval": 15.0, "heartbeat_timeout": 35.0})
    now = machine.clock.monotonic()
    await machine.watch(delivery="latest", interval_ms=500)
    assert machine.peer.next_deadline() == now + 15
    soon = machine.clock.wall_ns() // 10**9 + 7
    machine.peer.adopt(machine.credential(exp=soon))
    assert machine.peer.next_deadline() == pytest.approx(now + 7)
    machine.engine.emit("s", Chain(id="c", name="n"))
    assert machine.peer.next_deadline() == now + 0.5
    slow = Machine(timing={"heartbeat_interval": 60.0, "heartbeat_timeout": 35.0})
    now = slow.clock.monotonic()
    assert slow.peer.next_deadline() == now + 35
    slow.clock.advance(10)
    slow.peer.heard()
    assert slow.peer.next_deadline() == now + 45


def test_heartbeats_of_both_sides_carry_the_time_and_what_is_degraded() -> None:
    machine = Machine(timing={"heartbeat_interval": 15.0})
    machine.clock.advance(3)
    machine.give(Heartbeat(n=7))
    assert machine.sent() == [HeartbeatAck(n=7, time=wall(machine))]
    machine.engine.degraded = Degraded(code="store_failed", reason="r", since="1")
    machine.clock.advance(12)
    machine.peer.handle_timeout()
    assert machine.sent() == [Heartbeat(n=1, time=wall(machine), heads={}, degraded=machine.engine.degraded)]


def test_two_intervals_late_is_late_and_not_asleep() -> None:
    """A tick that is later yet gives one more interval for an answer."""
    for late, closes in ((30.0, True), (30.1, False)):
        machine = Machine(timing={"heartbeat_interval": 15.0, "heartbeat_timeout": 35.0})
        machine.clock.advance(15.0 + late)
        machine.peer.handle_timeout()
        assert (machine.wire.closed is not None) == closes


async def test_no_heads_are_told_while_nothing_of_sessions_may_be() -> None:
    machine = Machine(timing={"heartbeat_interval": 15.0})
    await machine.watch()
    machine.sent()
    machine.engine.holding = True
    told = {}
    machine.engine.heads = lambda topics, patterns: told  # type: ignore[method-assign,assignment]
    told["t"] = ("e", 10**6, "d")
    machine.clock.advance(15)
    machine.peer.handle_timeout()
    assert [message.heads for message in machine.sent() if isinstance(message, Heartbeat)] == [{}]


async def test_heads_are_asked_for_with_the_tokens_patterns() -> None:
    machine = Machine(timing={"heartbeat_interval": 15.0}, sessions=("s*", "t"))
    asked: list[tuple[list[str], Any]] = []
    real = machine.engine.heads

    def heads(topics: list[str], patterns: tuple[str, ...]) -> Any:
        asked.append((list(topics), patterns))
        return real(topics, patterns)

    machine.engine.heads = heads  # type: ignore[method-assign,assignment]
    await machine.watch()
    machine.clock.advance(15)
    machine.peer.handle_timeout()
    assert asked == [(["s"], ("s*", "t"))]


async def test_batches_of_several_are_looked_at_one_by_one() -> None:
    """The first has nothing waiting, the second is not due, of the third the server knows no head."""
    machine = Machine(timing={"heartbeat_interval": 600.0, "heartbeat_timeout": 900.0})
    await machine.watch("s1")
    await machine.watch("s2", delivery="latest", interval_ms=60_000)
    await machine.watch("s3", delivery="latest", interval_ms=1_000)
    await machine.watch("s4", delivery="latest", interval_ms=1_000)
    for topic in ("s2", "s3", "s4"):
        machine.engine.emit(topic, Chain(id="c", name="n"))
    real = machine.engine.heads
    machine.engine.heads = lambda topics, patterns=(): {  # type: ignore[method-assign]
        topic: head for topic, head in real(topics, patterns).items() if topic != "s3"
    }
    machine.clock.advance(1)
    machine.peer.handle_timeout()
    [batch] = machine.sent()
    assert isinstance(batch, Batch)
    assert (batch.topic, batch.ts) == ("s4", wall(machine))
    assert machine.peer.subscriptions["s3"].batch_due == machine.clock.monotonic() + 1


async def test_what_a_new_token_does_not_cover_is_told_by_topic() -> None:
    machine = Machine()
    await machine.watch("s1")
    await machine.watch("t1")
    await machine.watch("/directory")
    machine.peer.adopt(machine.credential(sessions=("s*",)))
    assert machine.sent() == [
        Removed(topic="t1", reason="not_available"),
        Resync(topic="/directory", reason="reset"),
    ]
    assert machine.wire.rearmed > 0
    machine.peer.adopt(machine.credential(sessions=("s*",)))
    assert machine.sent() == [], "the same patterns: the same list"


async def test_who_watches_is_told_with_names() -> None:
    machine = Machine()
    subscription = await machine.watch()
    machine.peer.queue_loose(subscription, Presence(topic="s", count=1, names=["ada"]))
    assert machine.sent() == [Presence(topic="s", count=1, names=["ada"])]


async def test_at_its_end_what_waits_is_void_and_nobody_is_waited_for() -> None:
    machine = Machine()
    subscription = await machine.watch()
    machine.wire.taking = False
    machine.engine.emit("s", Chain(id="c", name="n"))
    flushes = machine.wire.flushes
    machine.peer.lost()
    machine.peer.forget(subscription)
    assert machine.sent() == []
    assert machine.wire.flushes == flushes
    assert machine.engine.attached == {"s": []}
    machine.peer.lost()
    assert machine.wire.forgotten == 1
