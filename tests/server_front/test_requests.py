"""Requests: who may do what, and what bad input is answered with (protocol, rules 1, 13, 14, 17)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any

import pytest

from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.messages import (
    Ack,
    CommandReply,
    Done,
    Error,
    HeartbeatAck,
    HistoryPage,
    LogsPage,
    PublishOpened,
    Removed,
    Resync,
    Status,
    SyncBegin,
    ValueAck,
    ValuePage,
)
from wsmonitor_server.clock import ManualClock
from wsmonitor_server.embedded import EmbeddedServer

from .fakes import FakeEngine
from .wire import Client, client

KEY = "0" * 32
CHANGE = {"op": "chain", "id": "c1", "name": "load"}

REQUESTS: dict[str, dict[str, Any]] = {
    "publish_open": {"producer": "p"},
    "value_put": {"sha256": "0" * 64, "total": 4, "offset": 0, "data": ""},
    "value_get": {"sha256": "0" * 64, "offset": 0},
    "logs_get": {"step": "x"},
    "history_get": {},
    "command": {"key": KEY, "name": "pause"},
    "remove": {},
}
NEEDS = {
    "publish_open": {"publish", "admin"},
    "value_put": {"publish", "admin"},
    "value_get": {"observe", "command", "publish", "admin"},
    "logs_get": {"observe", "command", "publish", "admin"},
    "history_get": {"observe", "command", "publish", "admin"},
    "command": {"command", "admin"},
    "remove": {"admin"},
}


@pytest.mark.parametrize("request_type", REQUESTS)
@pytest.mark.parametrize("role", ["observe", "command", "publish", "admin"])
async def test_each_role_may_do_what_it_is_for(
    server: EmbeddedServer, engine: FakeEngine, request_type: str, role: str
) -> None:
    engine.values["0" * 64] = b"data"
    async with client(server, role=role) as one:
        await one.send(request_type, request=5, session="s1", **REQUESTS[request_type])
        if role in NEEDS[request_type]:
            kinds = PublishOpened | ValueAck | ValuePage | LogsPage | HistoryPage | CommandReply | Done
            assert (await one.expect(kinds)).request == 5  # type: ignore[arg-type, union-attr]
        else:
            assert await one.error() == ("forbidden", 5)
            assert engine.lookups == []


@pytest.mark.parametrize("request_type", REQUESTS)
async def test_outside_the_patterns_nothing_is_looked_up(
    server: EmbeddedServer, engine: FakeEngine, request_type: str
) -> None:
    async with client(server, role="admin", sessions=("mine~*",)) as one:
        await one.send(request_type, request=6, session="theirs", **REQUESTS[request_type])
        assert await one.error() == ("not_available", 6)
        assert engine.lookups == []


async def test_a_forbidden_topic_and_an_absent_one_get_the_same_answer(
    server: EmbeddedServer, engine: FakeEngine
) -> None:
    async with client(server, role="observe", sessions=("removed",)) as one:
        answers = []
        for topic in ("theirs", "removed"):
            await one.send("subscribe", topic=topic, generation=1)
            answers.append(await one.expect(Removed))
        assert [answer.reason for answer in answers] == ["not_available", "not_available"]
        assert engine.lookups == ["removed"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "bad_json"),
        ("", "bad_json"),
        ('{"a":' * 100_000, "bad_json"),
    ],
)
async def test_what_is_not_json_ends_the_connection_with_a_reason(
    server: EmbeddedServer, text: str, code: str
) -> None:
    async with client(server) as bystander, client(server) as one:
        await bystander.subscribe("s1")
        await one.raw(text)
        assert (await one.error())[0] == code
        assert await one.closed() == 4500
        await alive(bystander)


@pytest.mark.parametrize(
    ("text", "code", "request_number"),
    [
        ("[]", "bad_message", None),
        ("null", "bad_message", None),
        ("{}", "bad_message", None),
        ('{"type":1}', "bad_message", None),
        ('{"type":"no_such","request":3}', "unknown_type", 3),
        ('{"type":"welcome","request":3}', "unknown_type", 3),
        ('{"type":"subscribe","topic":5,"generation":1}', "bad_message", None),
        ('{"type":"subscribe","topic":"a\\u0000b","generation":1}', "bad_id", None),
        ('{"type":"subscribe","topic":"a/b","generation":1}', "bad_id", None),
        ('{"type":"subscribe","topic":"","generation":1}', "bad_id", None),
        ('{"type":"sync_next","topic":"s1","generation":1,"page":0}', "unexpected_message", None),
        ('{"type":"publish_open","request":4,"session":"a\\u001bb","producer":"p"}', "bad_id", 4),
        ('{"type":"publish_open","request":4,"session":"s","producer":7}', "bad_message", 4),
        (
            '{"type":"publish","session":"s","producer":"p","producer_epoch":1,"first":1,"changes":[]}',
            "bad_message",
            None,
        ),
        (
            '{"type":"publish","session":"s","producer":"p","producer_epoch":1,"first":1,'
            '"changes":[{"op":"chain","id":"c"}]}',
            "unexpected_message",
            None,
        ),
        ('{"type":"hello","major":1}', "unexpected_message", None),
        ('{"type":"refresh","request":9,"token":"nonsense"}', "unauthorized", 9),
    ],
)
async def test_bad_input_gets_a_coded_error_and_the_connection_stays(
    server: EmbeddedServer, text: str, code: str, request_number: int | None
) -> None:
    async with client(server) as one:
        await one.raw(text)
        assert await one.error() == (code, request_number)
        await alive(one)


async def alive(one: Client) -> None:
    await one.send("heartbeat", n=1)
    assert (await one.expect(HeartbeatAck)).n == 1


async def test_text_that_is_not_utf_8_ends_the_connection(server: EmbeddedServer) -> None:
    async with client(server) as one:
        await one.socket.send(b'{"type":"\xff"}', text=True)
        assert (await one.error())[0] == "bad_json"
        assert await one.closed() == 4500


async def test_binary_messages_are_answered(server: EmbeddedServer) -> None:
    async with client(server) as one:
        await one.raw(b"{}")
        assert (await one.error())[0] == "binary_message"
        await alive(one)


async def test_an_oversize_message_is_named_before_the_end(engine: FakeEngine) -> None:
    async with EmbeddedServer(engine=lambda *_: engine, limits=Limits(message_size=10_000)) as server:
        async with client(server) as one:
            await one.raw('"' + "a" * 20_000 + '"')
            assert (await one.error())[0] == "message_too_large"
            assert await one.closed() == 1009
        async with client(server) as one:

            async def fragments() -> Any:
                for _ in range(30):
                    yield "a" * 1_000

            sending = asyncio.ensure_future(one.socket.send(fragments()))
            assert (await one.error())[0] == "message_too_large"
            assert await one.closed() == 1009
            await asyncio.gather(sending, return_exceptions=True)


async def test_a_fragmented_message_is_put_together(server: EmbeddedServer) -> None:
    async with client(server) as one:
        await one.socket.send(['{"type":"heart', 'beat","n":', "9}"])
        assert (await one.expect(HeartbeatAck)).n == 9


async def test_too_many_messages_end_the_connection(engine: FakeEngine) -> None:
    limits = Limits(message_rate=1.0, message_burst=5)
    async with (
        EmbeddedServer(engine=lambda *_: engine, limits=limits) as server,
        client(server) as one,
    ):
        for number in range(10):
            await one.send("heartbeat", n=number)
        codes = []
        while not codes:
            message = await one.receive()
            if isinstance(message, Error):
                codes.append(message.error.code)
        assert codes == ["rate_limited"]
        assert await one.closed() == 4006


@pytest.mark.parametrize(
    ("major", "minor", "fits"), [(1, 0, True), (1, 7, True), (2, 0, False), (0, 9, False)]
)
async def test_versions(server: EmbeddedServer, major: int, minor: int, fits: bool) -> None:
    async with client(server, hello=False) as one:
        if fits:
            assert (await one.hello(major=major, minor=minor)).major == 1
        else:
            await one.send("hello", major=major, minor=minor)
            assert (await one.error())[0] == "unsupported_version"
            assert await one.closed() == 4503


async def test_hello_comes_first(server: EmbeddedServer) -> None:
    async with client(server, hello=False) as one:
        await one.send("status_get", request=2)
        assert await one.error() == ("unexpected_message", 2)
        await one.hello()


async def test_a_fault_is_told_without_its_details_and_logged(
    server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with client(server) as one:
        await one.send("subscribe", topic="broken", generation=1)
        message = await one.expect(Error)
        assert message.error.code == "internal"
        assert message.error.details == {"topic": "broken"}
        assert "a fault" not in message.error.message.replace("a fault of the server", "")
        record = next(r for r in caplog.records if r.exc_info)
        assert record.__dict__["wsmonitor_fields"]["correlation"] == message.error.correlation
        await alive(one)
        [peer] = server.server.peers
        assert peer.subscriptions == {}


async def test_limits_are_named(engine: FakeEngine) -> None:
    limits = Limits(subscriptions=1, publications=1, uploads=1, page_size=8, value_size=100, batch_changes=1)
    async with (
        EmbeddedServer(engine=lambda *_: engine, limits=limits) as server,
        client(server) as one,
    ):
        await one.subscribe("s1")
        await one.send("subscribe", topic="s2", generation=1)
        error = (await one.expect(Error)).error
        assert (error.code, error.details["topic"], error.details["limit"]) == (
            "limit_exceeded",
            "s2",
            "subscriptions",
        )
        await one.send("publish_open", request=1, session="s", producer="a")
        await one.expect(PublishOpened)
        await one.send("publish_open", request=2, session="s", producer="b")
        assert await one.error() == ("limit_exceeded", 2)
        await one.send(
            "publish", session="s", producer="a", producer_epoch=1, first=1, changes=[CHANGE, CHANGE]
        )
        assert await one.error() == ("limit_exceeded", None)
        for request, total, data in [(3, 101, b""), (4, 50, b"123456789"), (5, 4, b"12345")]:
            await one.send(
                "value_put",
                request=request,
                session="s",
                sha256="0" * 64,
                total=total,
                offset=0,
                data=base64.b64encode(data).decode(),
            )
            assert await one.error() == ("bad_message" if request == 5 else "limit_exceeded", request)
        await one.send(
            "value_put", request=6, session="s", sha256="0" * 64, total=4, offset=0, data="not base64!"
        )
        assert await one.error() == ("bad_message", 6)
        await one.send("value_put", request=9, session="s", sha256="0" * 64, total=4, offset=0, data="é")
        assert await one.error() == ("bad_message", 9)
        for number, expected in [(7, None), (8, "limit_exceeded")]:
            await one.send(
                "value_put", request=number, session="s", sha256=f"{number:064}", total=9, offset=0, data=""
            )
            if expected is None:
                assert (await one.expect(ValueAck)).received == 0
            else:
                assert await one.error() == (expected, number)


async def test_a_value_goes_up_and_down_in_pages(engine: FakeEngine) -> None:
    value = bytes(range(256)) * 10
    sha256 = hashlib.sha256(value).hexdigest()
    async with (
        EmbeddedServer(engine=lambda *_: engine, limits=Limits(page_size=1000)) as server,
        client(server) as one,
    ):
        received, request, complete = 0, 0, False
        while not complete:
            request += 1
            data = base64.b64encode(value[received : received + 1000]).decode()
            await one.send(
                "value_put",
                request=request,
                session="s",
                sha256=sha256,
                total=len(value),
                offset=received,
                data=data,
            )
            ack = await one.expect(ValueAck)
            received, complete = ack.received, ack.complete
        assert received == len(value)
        back = b""
        while len(back) < len(value):
            await one.send("value_get", request=1, session="s", sha256=sha256, offset=len(back), length=9999)
            page = await one.expect(ValuePage)
            assert (page.total, page.offset) == (len(value), len(back))
            back += base64.b64decode(page.data)
        assert back == value
        await one.send("value_get", request=2, session="s", sha256="1" * 64, offset=0)
        assert await one.error() == ("gone", 2)


async def test_the_order_within_a_lane_is_kept_while_others_go_on(
    server: EmbeddedServer, engine: FakeEngine
) -> None:
    async with client(server) as one:
        engine.hold.clear()
        await one.send("subscribe", topic="s1", generation=1)
        await one.send("unsubscribe", topic="s1")
        await alive(one)
        await one.send("status_get", request=1)
        await one.expect(Status)
        assert engine.lookups == ["s1"]
        engine.hold.set()
        assert (await one.expect(SyncBegin)).topic == "s1"
        await one.send("subscribe", topic="s1", generation=2)
        assert (await one.expect(SyncBegin)).generation == 2


async def test_a_generation_has_to_grow(server: EmbeddedServer) -> None:
    async with client(server) as one:
        await one.subscribe("s1", generation=5)
        await one.send("subscribe", topic="s1", generation=5)
        assert (await one.error())[0] == "bad_message"
        await one.subscribe("s1", generation=6)


async def test_goodbye_and_loss_of_a_producer_are_told_apart(
    server: EmbeddedServer, engine: FakeEngine
) -> None:
    async with client(server) as one:
        for producer in ("a", "b"):
            await one.send("publish_open", request=1, session="s", producer=producer)
            await one.expect(PublishOpened)
        await one.send("publish_close", request=2, session="s", producer="a", producer_epoch=1)
        await one.expect(Done)
        await one.send("publish", session="s", producer="b", producer_epoch=1, first=1, changes=[CHANGE])
        await one.expect(Ack)
    closed = [await asyncio.wait_for(engine.closed_handles.get(), 5) for _ in range(2)]
    assert closed == [("s", "a", True), ("s", "b", False)]


async def test_after_the_end_nothing_of_a_connection_is_left(
    server: EmbeddedServer, engine: FakeEngine
) -> None:
    async with client(server) as one:
        for number in range(5):
            await one.subscribe(f"s{number}")
    for _ in range(5):
        await asyncio.wait_for(engine.detached.get(), 5)
    assert all(subscribers == [] for subscribers in engine.attached.values())
    await asyncio.wait_for(server.server.all_gone(), 5)
    assert (server.server.connections, server.server.peers, server.server.tasks) == ({}, {}, set())


async def test_status_tells_counts_to_administrators_only(server: EmbeddedServer) -> None:
    async with client(server, role="admin") as admin, client(server, role="observe") as observer:
        await admin.send("status_get", request=1)
        info = (await admin.expect(Status)).info
        assert (info["connections"], info["engine"]) == (2, {"sessions": 0})
        await observer.send("status_get", request=1)
        assert set((await observer.expect(Status)).info) == {
            "version",
            "protocol",
            "instance",
            "epoch",
            "uptime",
            "draining",
        }


async def test_a_session_that_cannot_be_read_is_asked_for_again(server: EmbeddedServer) -> None:
    async with client(server) as one:
        await one.subscribe("s1")
        for generation in (1, 2):
            await one.send("subscribe", topic="unreadable", generation=generation)
            error = await one.expect(Error)
            assert (error.error.code, error.error.retryable, error.request) == ("store_failed", True, None)
            assert error.error.details == {"topic": "unreadable"}
        await alive(one)


async def test_an_upload_that_went_silent_no_longer_counts(engine: FakeEngine) -> None:
    clock = ManualClock()
    async with (
        EmbeddedServer(engine=lambda *_: engine, limits=Limits(uploads=2), clock=clock) as server,
        client(server) as one,
    ):

        async def put(request: int, value: int) -> None:
            await one.send(
                "value_put", request=request, session="s", sha256=f"{value:064}", total=9, offset=0, data=""
            )

        for number in (1, 2):
            await put(number, number)
            await one.expect(ValueAck)
        clock.advance(40)
        await put(3, 2)
        await one.expect(ValueAck)
        await put(4, 3)
        assert await one.error() == ("limit_exceeded", 4)
        clock.advance(30)
        await put(5, 3)
        assert (await one.expect(ValueAck)).request == 5
        await put(6, 4)
        assert await one.error() == ("limit_exceeded", 6)


async def test_a_sync_that_the_session_side_ended_is_begun_anew(
    server: EmbeddedServer, engine: FakeEngine
) -> None:
    async with client(server) as one:
        await one.send("subscribe", topic="s1", generation=1)
        await one.expect(SyncBegin)
        engine.syncs[0].close()
        await one.send("sync_next", topic="s1", generation=1, page=0)
        resync = await one.expect(Resync)
        assert (resync.topic, resync.reason) == ("s1", "reset")
        await one.subscribe("s1", generation=2)
