"""Requests without a socket: those that meet the end of their connection, a limit, or a fault."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from wsmonitor.protocol.changes import ChainChange
from wsmonitor.protocol.close_codes import CloseCode
from wsmonitor.protocol.entities import Command, ErrorInfo
from wsmonitor.protocol.messages import (
    Ack,
    ClientMessage,
    CommandRequest,
    Deliver,
    Done,
    Draining,
    Error,
    Event,
    Fenced,
    Heartbeat,
    HistoryGet,
    HistoryPage,
    Hold,
    HoldChanged,
    LogsGet,
    LogsPage,
    Publish,
    PublishClose,
    PublishOpen,
    Refresh,
    Refreshed,
    Rejected,
    Removed,
    Resync,
    Revoke,
    Status,
    StatusGet,
    Stop,
    Subscribe,
    SyncBegin,
    Synced,
    SyncNext,
    SyncPage,
    Unsubscribe,
    ValueAck,
    ValueGet,
    ValuePage,
    ValuePut,
)
from wsmonitor_server.replies import refusal
from wsmonitor_server.stores.base import StoreError
from wsmonitor_server.tenants import Tenant, TenantLimits
from wsmonitor_server.values import UPLOAD_IDLE

from .machine import Machine

KEY = "0" * 32
OPEN = PublishOpen(request=1, session="s", producer="p")
GOODBYE = PublishClose(request=2, session="s", producer="p", producer_epoch=1)
CHANGES = Publish(
    session="s", producer="p", producer_epoch=1, first=1, changes=[ChainChange(id="c", name="load")]
)
COMMAND = CommandRequest(request=3, session="s", key=KEY, name="pause")


def put(data: bytes, *, of: bytes = b"", offset: int = 0, request: int = 7) -> ValuePut:
    whole = of or data
    return ValuePut(
        request=request,
        session="s",
        sha256=hashlib.sha256(whole).hexdigest(),
        total=len(whole),
        offset=offset,
        data=base64.b64encode(data).decode(),
    )


def once(machine: Machine, name: str, act: Callable[[], Any]) -> None:
    """Let the session side's *name* do *act* when it is asked, before it answers."""
    real: Callable[..., Awaitable[Any]] = getattr(machine.engine, name)

    async def acting(*given: Any, **named: Any) -> Any:
        answer = await real(*given, **named)
        act()
        return answer

    setattr(machine.engine, name, acting)


def failing(machine: Machine, name: str, error: BaseException) -> None:
    async def failing(*given: Any, **named: Any) -> Any:
        raise error

    setattr(machine.engine, name, failing)


def end(machine: Machine) -> Callable[[], None]:
    """The connection goes away."""
    return machine.peer.lost


# ---------------------------------------------------------------------- requests that meet the end


@pytest.mark.parametrize(
    "message",
    [StatusGet(request=1), COMMAND, OPEN, Subscribe(topic="s", generation=1)],
    ids=lambda message: type(message).__name__,
)
async def test_what_waits_when_the_connection_ends_is_not_carried_out(message: ClientMessage) -> None:
    machine = Machine()
    machine.give(message)
    end(machine)()
    await machine.settle()
    assert machine.sent() == []
    assert machine.engine.lookups == []


async def test_what_waits_when_the_token_expires_is_not_carried_out() -> None:
    machine = Machine(exp=1_700_000_010)
    machine.give(COMMAND)
    machine.clock.advance(10)
    await machine.settle()
    assert machine.engine.lookups == []
    assert machine.wire.closed == (CloseCode.TOKEN_EXPIRED, "the token has expired", False)


async def test_a_producer_that_is_opened_while_the_connection_ends_is_closed_and_is_not_gone_in_peace() -> (
    None
):
    machine = Machine()
    once(machine, "open_producer", end(machine))
    machine.give(OPEN)
    await machine.settle()
    assert machine.peer.publications == 0
    assert machine.engine.closed_handles.get_nowait() == ("s", "p", False)


async def test_a_subscription_that_begins_while_the_connection_ends_leaves_nothing() -> None:
    machine = Machine()
    once(machine, "subscribe", end(machine))
    machine.give(Subscribe(topic="s", generation=1))
    await machine.settle()
    assert [sync.closed for sync in machine.engine.syncs] == [True]
    assert machine.engine.detached.empty()


async def test_a_subscription_that_is_reset_while_it_begins_asks_the_client_to_begin_again() -> None:
    machine = Machine()
    once(machine, "subscribe", lambda: machine.peer.subscriptions["s"].reset("s"))
    assert await machine.ask(Subscribe(topic="s", generation=1)) == [Resync(topic="s", reason="reset")]
    assert [sync.closed for sync in machine.engine.syncs] == [True]
    assert machine.peer.subscriptions["s"].phase == "muted"


@pytest.mark.parametrize(
    "message",
    [
        LogsGet(request=1, session="s", step="a"),
        HistoryGet(request=1, session="s"),
        ValueGet(request=1, session="s", sha256="0" * 64, offset=0),
    ],
    ids=lambda message: type(message).__name__,
)
async def test_a_page_that_nobody_waits_for_any_more_is_not_read(message: ClientMessage) -> None:
    machine = Machine()
    turn = asyncio.Event()
    free = machine.wire.bulk

    @asynccontextmanager
    async def busy() -> Any:
        async with free():
            await turn.wait()
            yield

    machine.wire.bulk = busy  # type: ignore[method-assign]
    machine.give(message)
    asking = asyncio.create_task(machine.settle())
    await asyncio.sleep(0)
    end(machine)()
    turn.set()
    await asking
    assert machine.engine.lookups == []


async def test_pages_are_given_while_the_connection_stands() -> None:
    machine = Machine()
    data = b"x" * 10
    await machine.ask(put(data))
    sha256 = hashlib.sha256(data).hexdigest()
    logs, history, value = await machine.ask(
        LogsGet(request=1, session="s", step="a"),
        HistoryGet(request=2, session="s"),
        ValueGet(request=3, session="s", sha256=sha256, offset=4),
    )
    assert isinstance(logs, LogsPage)
    assert isinstance(history, HistoryPage)
    assert isinstance(value, ValuePage)
    assert (base64.b64decode(value.data), value.offset, value.total) == (data[4:], 4, 10)
    gone = await machine.refused(ValueGet(request=4, session="s", sha256="f" * 64, offset=0))
    assert gone.code == "gone"


async def test_a_token_that_arrives_after_the_end_is_of_no_use() -> None:
    machine = Machine()
    before = machine.peer.credential
    machine.services.tokens["T"] = machine.credential(jti="2")
    authenticate = machine.services.authenticate

    async def slow(token: str) -> Any:
        found = await authenticate(token)
        end(machine)()
        return found

    machine.services.authenticate = slow  # type: ignore[method-assign]
    assert await machine.ask(Refresh(request=1, token="T")) == []
    assert machine.peer.credential is before


# ---------------------------------------------------------------------- while the server stops


async def test_while_the_server_stops_nothing_new_begins_and_what_there_is_goes_on() -> None:
    machine = Machine()
    await machine.publish()
    machine.peer.drain(1500)
    machine.peer.drain(9000)
    assert machine.sent() == [Draining(reconnect_ms=1500)], "it is told once"
    for message in (PublishOpen(request=1, session="s", producer="q"), COMMAND):
        assert (await machine.refused(message)).code == "draining"
    [ack] = [one for one in await machine.ask(CHANGES) if isinstance(one, Ack)]
    assert ack.accepted == 1


async def test_nothing_is_announced_to_who_has_not_said_hello() -> None:
    machine = Machine(open=False)
    machine.peer.drain(1500)
    assert machine.sent() == []


async def test_when_the_session_side_is_gone_there_is_nothing_to_detach_from() -> None:
    machine = Machine()
    await machine.watch()
    await machine.publish()
    machine.services.stopped = True
    end(machine)()
    end(machine)()
    await machine.settle()
    assert machine.wire.forgotten == 1
    assert machine.engine.closed_handles.empty()
    assert machine.engine.detached.empty()


# ---------------------------------------------------------------------- what is refused, and how


async def test_a_topic_that_is_too_long_for_an_id_is_refused_and_named() -> None:
    machine = Machine()
    topic = "x" * 200
    error = await machine.refused(Subscribe(topic=topic, generation=1))
    assert (error.code, error.details) == ("bad_id", {"topic": topic})
    assert machine.engine.lookups == []


async def test_a_generation_has_to_be_above_the_one_before() -> None:
    machine = Machine()
    await machine.watch(generation=3)
    error = await machine.refused(Subscribe(topic="s", generation=3))
    assert (error.code, error.details["topic"]) == ("bad_message", "s")
    assert machine.peer.subscriptions["s"].phase == "live"


async def test_the_limit_of_subscriptions_is_told_with_its_name() -> None:
    machine = Machine(limits={"subscriptions": 1})
    await machine.watch("s")
    error = await machine.refused(Subscribe(topic="t", generation=1))
    assert (error.code, error.details["limit"], error.details["topic"]) == (
        "limit_exceeded",
        "subscriptions",
        "t",
    )
    await machine.ask(Unsubscribe(topic="s"), Unsubscribe(topic="s"))
    await machine.watch("t")


async def test_a_store_that_fails_is_told_under_its_own_code() -> None:
    machine = Machine()
    failing(machine, "logs", StoreError("the disk is away"))
    error = await machine.refused(LogsGet(request=9, session="s", step="a"))
    assert (error.code, error.message, error.session) == ("store_failed", "the disk is away", "s")
    assert (error.retryable, error.details) == (True, {})
    assert machine.services.faults == []


async def test_a_fault_in_one_request_is_logged_and_told_and_the_connection_stands() -> None:
    machine = Machine()
    failing(machine, "command", ZeroDivisionError("secret"))
    error = await machine.refused(COMMAND)
    assert (error.code, error.correlation) == ("internal", "4711")
    assert "secret" not in error.message
    assert machine.services.faults == ["CommandRequest"]
    assert machine.wire.closed is None
    assert [type(one) for one in await machine.ask(StatusGet(request=1))] == [Status]


async def test_a_subscription_whose_beginning_fails_is_none() -> None:
    machine = Machine()
    error = await machine.refused(Subscribe(topic="broken", generation=1))
    assert (error.code, error.details) == ("internal", {"topic": "broken"})
    error = await machine.refused(Subscribe(topic="unreadable", generation=1))
    assert error.code == "store_failed", "it is there, and may be readable later"
    assert await machine.ask(Subscribe(topic="removed", generation=1)) == [
        Removed(topic="removed", reason="not_available")
    ]
    assert machine.peer.subscriptions == {}


async def test_what_is_beyond_a_limit_of_size_is_not_to_be_tried_again() -> None:
    machine = Machine(limits={"page_size": 4, "value_size": 8, "batch_size": 100, "batch_changes": 1})
    assert await machine.refused(put(b"xxxxx")) == ErrorInfo(
        code="limit_exceeded",
        message="more than the limit `page_size` of 4",
        session="s",
        details={"limit": "page_size", "value": 4},
    )
    error = await machine.refused(put(b"", of=b"x" * 9))
    assert (error.details["limit"], error.retryable) == ("value_size", False)
    await machine.publish()
    large = Publish(
        session="s", producer="p", producer_epoch=1, first=1, changes=[ChainChange(id="c", name="n" * 100)]
    )
    error = await machine.refused(large)
    assert error.details == {"limit": "batch_size", "value": 100, "producer": "p"}
    machine = Machine(limits={"batch_changes": 1})
    await machine.publish()
    two = Publish(
        session="s",
        producer="p",
        producer_epoch=1,
        first=1,
        changes=[ChainChange(id="c"), ChainChange(id="d")],
    )
    assert (await machine.refused(two)).details["limit"] == "batch_changes"


async def test_a_publication_has_to_be_opened_and_there_are_not_too_many() -> None:
    machine = Machine(limits={"publications": 1})
    error = await machine.refused(CHANGES)
    assert (error.code, error.details) == ("unexpected_message", {"producer": "p"})
    await machine.publish()
    await machine.publish()  # who has it may open it again
    error = await machine.refused(PublishOpen(request=1, session="s", producer="q"))
    assert (error.code, error.details["limit"]) == ("limit_exceeded", "publications")


# ---------------------------------------------------------------------- uploads


async def test_an_upload_goes_on_where_it_was_and_is_complete_when_all_is_there() -> None:
    machine = Machine()
    whole = b"abcdef"
    answers = await machine.ask(
        put(b"", of=whole),
        put(b"abc", of=whole),
        put(b"abc", of=whole),  # told twice: not written twice
        put(b"def", of=whole, offset=3),
        put(b"", of=whole),
    )
    told = [(one.received, one.complete) for one in answers if isinstance(one, ValueAck)]
    assert told == [(0, False), (3, False), (3, False), (6, True), (6, True)]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (ValuePut(request=1, session="s", sha256="0" * 64, total=4, offset=0, data="?"), "not base64"),
        (put(b"abc", of=b"abcd", offset=2), "ends behind `total`"),
    ],
)
async def test_a_page_that_makes_no_sense_is_refused(message: ValuePut, words: str) -> None:
    machine = Machine()
    error = await machine.refused(message)
    assert error.code == "bad_message"
    assert words in error.message
    assert machine.engine.lookups == []


async def test_an_upload_that_failed_or_fell_silent_takes_no_place() -> None:
    machine = Machine(limits={"uploads": 1})
    begin = machine.engine.value_begin
    failing(machine, "value_begin", refusal("store_failed", "the disk is away"))
    assert (await machine.refused(put(b"", of=b"first"))).code == "store_failed"
    machine.engine.value_begin = begin  # type: ignore[method-assign]
    assert len(await machine.ask(put(b"", of=b"second"))) == 1
    error = await machine.refused(put(b"", of=b"third"))
    assert (error.code, error.details["limit"], error.retryable) == ("limit_exceeded", "uploads", True)
    machine.clock.advance(UPLOAD_IDLE)
    [ack] = await machine.ask(put(b"", of=b"third"))
    assert isinstance(ack, ValueAck)


# ---------------------------------------------------------------------- producers


async def test_what_a_producer_is_told_names_it() -> None:
    machine = Machine()
    await machine.publish()
    [handle] = machine.engine.handles
    command = Command(id=KEY, name="pause", deadline="2", requested="1")
    error = ErrorInfo(code="illegal_change", message="no")
    hold = Hold(chain="c", want="pause")
    handle.events.acked("s", "p", 3)
    handle.events.rejected("s", "p", 2, error)
    handle.events.deliver("s", "p", command)
    handle.events.held("s", "p", hold)
    named = {"session": "s", "producer": "p"}
    assert machine.sent() == [
        Ack(accepted=3, **named),
        Rejected(number=2, error=error, **named),
        Deliver(command=command, **named),
        HoldChanged(hold=hold, **named),
    ]


@pytest.mark.parametrize(("removed", "reason"), [(True, "removed"), (False, "taken")])
async def test_a_fenced_producer_is_this_connections_no_more(removed: bool, reason: str) -> None:
    machine = Machine()
    await machine.publish()
    machine.engine.handles[0].events.fenced("s", "p", removed=removed)
    assert machine.sent() == [Fenced(session="s", producer="p", reason=reason)]  # type: ignore[arg-type]
    assert machine.peer.publications == 0


async def test_a_producer_that_cannot_go_on_ends_and_its_connection_does_not() -> None:
    machine = Machine()
    await machine.watch()
    await machine.publish("s", "p")
    await machine.publish("s", "q")
    error = ErrorInfo(code="store_failed", message="m", session="s", details={"why": "disk"})
    machine.engine.handles[0].events.failed("s", "p", error)
    [told] = machine.sent()
    assert isinstance(told, Error)
    assert told.request is None
    assert (told.error.code, told.error.details) == ("store_failed", {"why": "disk", "producer": "p"})
    assert (machine.peer.publications, machine.peer.phase) == (1, "open")


async def test_who_says_goodbye_is_gone_in_peace_and_only_who_holds_the_producer_can() -> None:
    machine = Machine()
    await machine.publish()
    old = PublishClose(request=5, session="s", producer="p", producer_epoch=7)
    unknown = PublishClose(request=6, session="s", producer="q", producer_epoch=1)
    assert await machine.ask(old, unknown) == [Done(request=5), Done(request=6)]
    assert machine.peer.publications == 1
    assert await machine.ask(GOODBYE) == [Done(request=2)]
    assert machine.engine.closed_handles.get_nowait() == ("s", "p", True)
    assert machine.peer.publications == 0


@pytest.mark.parametrize(("epoch", "in_peace"), [(1, True), (7, False)])
async def test_a_goodbye_counts_also_when_the_connection_ends_before_it_is_carried_out(
    epoch: int, in_peace: bool
) -> None:
    machine = Machine()
    await machine.publish()
    machine.give(PublishClose(request=2, session="s", producer="p", producer_epoch=epoch))
    end(machine)()
    await machine.settle()
    assert machine.engine.closed_handles.get_nowait() == ("s", "p", in_peace)
    assert machine.engine.closed_handles.empty()


async def test_a_producers_life_is_told_when_it_was_silent_and_else_only_asked() -> None:
    machine = Machine()
    await machine.publish()
    [handle] = machine.engine.handles
    machine.clock.advance(1)
    machine.give(Heartbeat(n=1))
    assert handle.events.last_heard() == machine.clock.monotonic()
    machine.clock.advance(30)
    assert handle.events.last_heard() == machine.clock.monotonic() - 30
    assert handle.heards == 0
    handle.events.silent()
    for _ in range(3):
        machine.give(Heartbeat(n=2))
    assert handle.heards == 1


# ---------------------------------------------------------------------- a new token


async def refresh(machine: Machine, **claims: Any) -> list[Any]:
    machine.services.tokens["T"] = machine.credential(jti="2", **claims)
    return await machine.ask(Refresh(request=1, token="T"))


async def test_a_token_that_covers_less_ends_what_it_does_not_cover() -> None:
    machine = Machine()
    await machine.watch("s")
    await machine.watch("mine")
    await machine.watch("/directory")
    await machine.publish("s", "p")
    await machine.publish("mine", "p")
    told = await refresh(machine, sessions=("mine",))
    assert [type(one) for one in told] == [Removed, Resync, Error, Refreshed]
    assert (told[0].topic, told[1].topic) == ("s", "/directory")
    assert (told[2].error.code, told[2].error.session) == ("not_available", "s")
    assert set(machine.peer.subscriptions) == {"mine", "/directory"}
    assert machine.peer.publications == 1
    assert machine.engine.closed_handles.get_nowait() == ("s", "p", False)
    assert machine.peer.subscriptions["mine"].claims.sessions == ("mine",)


async def test_a_token_that_may_not_publish_any_more_ends_the_producers() -> None:
    machine = Machine()
    await machine.publish()
    told = await refresh(machine, role="observe")
    assert [type(one) for one in told] == [Error, Refreshed]
    assert machine.peer.publications == 0


async def test_a_token_like_the_one_before_ends_nothing() -> None:
    machine = Machine()
    await machine.watch("s")
    await machine.watch("/directory")
    await machine.publish()
    rearmed = machine.wire.rearmed
    assert await refresh(machine) == [Refreshed(request=1, expires=machine.peer.credential.claims.exp)]
    assert machine.peer.credential.claims.jti == "2"
    assert machine.wire.rearmed == rearmed + 1


async def test_a_token_of_somebody_else_and_one_that_is_none_change_nothing() -> None:
    machine = Machine()
    before = machine.peer.credential
    [other] = await refresh(machine, sub="eve")
    assert other.error.code == "unauthorized"
    assert (await machine.refused(Refresh(request=2, token="?"))).code == "unauthorized"
    assert machine.peer.credential is before


# ---------------------------------------------------------------------- administration


async def test_an_administrator_revokes_stops_and_sees_everything() -> None:
    machine = Machine()
    answers = await machine.ask(Revoke(request=1, jti="x", expires=5), StatusGet(request=2), Stop(request=3))
    assert answers == [Done(request=1), Status(request=2, info={"full": True}), Done(request=3)]
    assert machine.engine.revocations == {"x": 5}
    assert machine.services.stops == 1


async def test_who_is_no_administrator_can_do_neither_and_sees_less() -> None:
    machine = Machine(role="command")
    answers = await machine.ask(Revoke(request=1, jti="x"), Stop(request=2), StatusGet(request=3))
    assert [one.error.code for one in answers[:2]] == ["forbidden", "forbidden"]  # type: ignore[union-attr]
    assert answers[2] == Status(request=3, info={"full": False})
    assert (machine.engine.revocations, machine.services.stops) == ({}, 0)


# ---------------------------------------------------------------------- syncs


async def test_a_page_of_a_sync_that_is_not_the_present_one_is_not_given() -> None:
    machine = Machine()
    error = await machine.refused(SyncNext(topic="s", generation=1, page=0))
    assert (error.code, error.details) == ("unexpected_message", {"topic": "s"})
    await machine.watch(generation=4)
    assert await machine.ask(SyncNext(topic="s", generation=4, page=1)) == [], "it has ended"
    await machine.ask(Subscribe(topic="s", generation=5))
    assert await machine.ask(SyncNext(topic="s", generation=4, page=0)) == [], "it is of an earlier one"


async def test_only_the_last_page_ends_a_sync() -> None:
    machine = Machine()
    await machine.ask(Subscribe(topic="s", generation=1))
    [sync] = machine.engine.syncs
    page = sync.page

    def two(number: int) -> Any:
        return msgspec.structs.replace(page(number), last=number == 1)

    sync.page = two  # type: ignore[method-assign]
    [first] = await machine.ask(SyncNext(topic="s", generation=1, page=0))
    assert isinstance(first, SyncPage)
    assert machine.engine.attached == {}
    last, synced = await machine.ask(SyncNext(topic="s", generation=1, page=1))
    assert isinstance(last, SyncPage)
    assert synced == Synced(topic="s", generation=1, seq=0, digest=machine.engine.state("s").digest)
    assert machine.peer.subscriptions["s"].phase == "live"


async def test_a_sync_that_the_session_side_ended_has_to_be_begun_again() -> None:
    machine = Machine()
    await machine.ask(Subscribe(topic="s", generation=1))
    machine.engine.syncs[0].closed = True
    assert await machine.ask(SyncNext(topic="s", generation=1, page=0)) == [Resync(topic="s", reason="reset")]


async def test_a_page_that_is_refused_is_told() -> None:
    machine = Machine()
    await machine.ask(Subscribe(topic="s", generation=1))
    [sync] = machine.engine.syncs

    def refused(number: int) -> Any:
        raise refusal("store_failed", "no page")

    sync.page = refused  # type: ignore[method-assign]
    error = await machine.refused(SyncNext(topic="s", generation=1, page=0))
    assert (error.code, error.details) == ("store_failed", {"topic": "s"})


async def test_a_page_that_takes_long_is_made_in_turns_with_the_others() -> None:
    machine = Machine()
    await machine.ask(Subscribe(topic="s", generation=1))
    [sync] = machine.engine.syncs
    asked: list[int] = []

    def slowly(number: int) -> bool:
        asked.append(number)
        return len(asked) == 4

    sync.prepare = slowly  # type: ignore[method-assign]
    page, synced = await machine.ask(SyncNext(topic="s", generation=1, page=0))
    assert (type(page), type(synced)) == (SyncPage, Synced)
    assert (asked, machine.wire.turns) == ([0] * 4, 2), "once at once, and the rest as a task"


async def test_a_page_of_which_the_sync_is_given_up_meanwhile_is_not_sent() -> None:
    machine = Machine()
    await machine.ask(Subscribe(topic="s", generation=1))
    [sync] = machine.engine.syncs
    asked: list[int] = []

    def slowly(number: int) -> bool:
        asked.append(number)
        if len(asked) == 2:
            machine.peer.subscriptions["s"].reset("s")
        return False

    sync.prepare = slowly  # type: ignore[method-assign]
    assert await machine.ask(SyncNext(topic="s", generation=1, page=0)) == [Resync(topic="s", reason="reset")]
    assert (asked, machine.engine.attached) == ([0, 0], {})


# ---------------------------------------------------------------------- at once


def test_a_session_in_memory_is_joined_in_the_moment_in_which_it_is_asked_for() -> None:
    machine = Machine()
    machine.engine.at_once = True
    machine.give(Subscribe(topic="s", generation=1))
    assert [type(one) for one in machine.sent()] == [SyncBegin]
    machine.give(SyncNext(topic="s", generation=1, page=0))
    assert [type(one) for one in machine.sent()] == [SyncPage, Synced]
    assert machine.wire.jobs == []
    assert machine.peer.subscriptions["s"].phase == "live"
    machine.give(SyncNext(topic="s", generation=1, page=1))
    assert (machine.sent(), machine.wire.jobs) == ([], []), "it has ended"


async def test_what_comes_behind_something_that_waits_waits_as_well() -> None:
    machine = Machine()
    machine.give(Subscribe(topic="s", generation=1))
    machine.engine.at_once = True
    machine.give(Subscribe(topic="s", generation=2))
    assert machine.sent() == []
    await machine.settle()
    # The first one is void when it gets its turn: it has been begun, and the second has replaced it.
    assert [one.generation for one in machine.sent() if isinstance(one, SyncBegin)] == [1, 2]


async def test_a_page_waits_while_another_waits_to_be_sent() -> None:
    machine = Machine()
    machine.engine.at_once = True
    machine.wire.free = False
    machine.give(Subscribe(topic="s", generation=1), SyncNext(topic="s", generation=1, page=0))
    assert [type(one) for one in machine.sent()] == [SyncBegin]
    await machine.settle()
    assert [type(one) for one in machine.sent()] == [SyncPage, Synced]


def test_what_goes_wrong_at_once_is_told_like_anything_else() -> None:
    machine = Machine(sessions=("mine*",))
    machine.engine.at_once = True
    machine.give(
        Subscribe(topic="other", generation=1),
        Subscribe(topic="*", generation=1),
        SyncNext(topic="mine", generation=1, page=0),
    )
    removed, bad, missing = machine.sent()
    assert removed == Removed(topic="other", reason="not_available")
    assert isinstance(bad, Error)
    assert isinstance(missing, Error)
    assert (bad.error.code, missing.error.code) == ("bad_id", "unexpected_message")
    assert (machine.wire.jobs, machine.engine.lookups) == ([], [])

    def broken(*asked: object) -> Any:
        raise ValueError("a fault")

    machine.engine.subscribe_at_once = broken  # type: ignore[method-assign]
    machine.give(Subscribe(topic="mine", generation=1))
    [fault] = machine.sent()
    assert isinstance(fault, Error)
    assert (fault.error.code, fault.error.correlation) == ("internal", "4711")
    assert (machine.services.faults, machine.peer.subscriptions) == (["Subscribe"], {})


async def test_sessions_that_have_to_be_loaded_are_joined_one_after_the_other() -> None:
    machine = Machine()
    machine.give(Subscribe(topic="s", generation=1), Subscribe(topic="s", generation=2))
    await machine.settle()
    assert [one.generation for one in machine.sent() if isinstance(one, SyncBegin)] == [1, 2]
    assert machine.engine.lookups == ["s", "s"]


def test_a_topic_that_is_not_there_is_told_at_once_as_well() -> None:
    machine = Machine()

    def absent(*asked: object) -> Any:
        raise refusal("not_available", "no such topic")

    machine.engine.subscribe_at_once = absent  # type: ignore[method-assign]
    machine.give(Subscribe(topic="s", generation=1))
    assert machine.sent() == [Removed(topic="s", reason="not_available")]
    assert (machine.wire.jobs, machine.peer.subscriptions) == ([], {})


# -- tenants


async def test_who_is_beyond_what_its_tenant_may_have_is_refused_and_nothing_is_asked() -> None:
    machine = Machine()
    machine.peer.tenant = Tenant("acme", TenantLimits(subscriptions=1, sessions=1, event_rate=0.1), 1_000.0)
    await machine.ask(Subscribe(topic="s", generation=1))
    error = await machine.refused(Subscribe(topic="t", generation=1))
    assert (error.code, error.details["limit"], error.details["topic"]) == (
        "limit_exceeded",
        "tenant.subscriptions",
        "t",
    )
    assert machine.engine.lookups == ["s"]
    await machine.ask(OPEN)
    machine.peer.tenant.publish(2, 0, 1_000.0)
    error = await machine.refused(CHANGES)
    assert (error.details["limit"], error.session) == ("tenant.event_rate", CHANGES.session)
    assert error.details["producer"] == CHANGES.producer
    assert machine.peer.tenant.sessions == {OPEN.session: 1}
    machine.peer.lost()
    assert (machine.peer.tenant.subscriptions, machine.peer.tenant.sessions) == (0, {})


async def test_a_refresh_is_of_the_same_tenant() -> None:
    machine = Machine(tenant="acme")
    machine.services.tokens["T"] = machine.credential(tenant="globex")
    error = await machine.refused(Refresh(request=1, token="T"))
    assert (error.code, error.message) == ("unauthorized", "the new token is another tenant's")
    assert machine.peer.credential.claims.tenant == "acme"


async def test_what_is_done_is_noted() -> None:
    machine = Machine()
    await machine.ask(OPEN)
    [(event, values)] = machine.services.noted
    assert (event, values["session"], values["producer"]) == ("producer opened", OPEN.session, OPEN.producer)


@pytest.mark.parametrize("at_once", [True, False])
async def test_changes_are_taken_at_once_where_nothing_has_to_be_waited_for(at_once: bool) -> None:
    """Also those behind them; and who watches gets them either way."""
    machine = Machine()
    await machine.watch("s")
    await machine.publish()
    machine.engine.takes_at_once = at_once
    about = {"session": "s", "producer": "p", "producer_epoch": 1}
    for number in (1, 2):
        machine.give(Publish(first=number, changes=[ChainChange(id=f"c{number}", name="c")], **about))
    assert len(machine.wire.jobs) == (0 if at_once else 2)
    await machine.settle()
    told = [one for one in machine.sent() if isinstance(one, Ack | Event)]
    assert [one.accepted for one in told if isinstance(one, Ack)] == [1, 2]
    assert [one.seq for one in told if isinstance(one, Event)] == [1, 2]
