"""Check 12, Large Payload Handling (MEDIUM).

"WebSocket messages with large payloads (e.g., step with large input/output) transmitted without timeout
or truncation. Payloads may be paginated if exceeding threshold, with clear truncation indicators. Large
payloads don't freeze UI."
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time

from tests.checks.harness import PATIENCE, Observer, Publisher, blocking, scene, until, wire
from wsmonitor.client import EventApplied
from wsmonitor.protocol.changes import StepChange
from wsmonitor.protocol.defaults import Limits, Timing
from wsmonitor.protocol.entities import Step, Value

PAGE = Limits().page_size
INLINE = Limits().inline_value


def _payload(size: int) -> bytes:
    """Text that no two pages have in common."""
    line = "{:012d} the quick brown fox jumps over the lazy dog\n"
    count = size // len(line.format(0)) + 1
    return "".join(line.format(number) for number in range(count)).encode()[:size]


def _value(data: bytes) -> Value:
    return Value(
        mime="text/plain",
        text=data[:INLINE].decode(),
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        truncated=True,
    )


def _put(publisher: Publisher, step: str, data: bytes) -> Value:
    value = _value(data)
    assert publisher.publication.submit_value(data, value.sha256)
    publisher.submit(StepChange(id=step, chain="load", name=step, output=value))
    return value


async def _fetch(observer: Observer, value: Value) -> bytes:
    session = observer.sub.topic
    data = bytearray()
    while len(data) < value.size:
        page = await blocking(
            observer.conn.fetch_value(session, value.sha256, len(data), PAGE).result, PATIENCE
        )
        assert 0 < len(page.data) <= PAGE
        assert (page.offset, page.total) == (len(data), value.size)
        data += page.data
    return bytes(data)


async def test_large_payloads_arrive_without_timeout_or_truncation() -> None:
    """ "… large payloads (e.g., step with large input/output) transmitted without timeout or truncation." """
    data = _payload(12 * 1024 * 1024)
    async with scene() as stage:
        publisher = await stage.publish("etl~1")
        observer = await stage.observe("etl~1")
        value = _put(publisher, "big", data)
        await publisher.flush()
        await stage.agreed(observer)
        step = observer.state().steps["big"]
        assert step.output == value
        fetched = await _fetch(observer, value)
        assert len(fetched) == len(data)
        assert hashlib.sha256(fetched).hexdigest() == step.output.sha256
        assert observer.conn.status.connections == 1


async def test_payloads_are_paginated_with_clear_truncation_indicators() -> None:
    """ "Payloads may be paginated if exceeding threshold, with clear truncation indicators." """
    data = _payload(3 * PAGE + 17)
    small = b'{"n": 3}'
    async with scene() as stage, wire(stage.server.url, stage.token("alice")) as bare:
        publisher = await stage.publish("etl~1")
        await bare.subscribe("etl~1")
        value = _put(publisher, "big", data)
        inline = Value(text=small.decode(), size=len(small), sha256=hashlib.sha256(small).hexdigest())
        publisher.submit(StepChange(id="small", chain="load", name="small", output=inline))
        await publisher.flush()
        big_event, small_event = await bare.expect("event"), await bare.expect("event")
        # The indicator, the whole size, and the handle; the preview is a true prefix.
        shown = big_event["entity"]["output"]
        assert shown["truncated"] is True
        assert (shown["size"], shown["sha256"]) == (len(data), value.sha256)
        assert data.decode().startswith(shown["text"])
        assert len(shown["text"].encode()) <= INLINE
        # Below the threshold it is inline, whole, and not marked.
        shown = small_event["entity"]["output"]
        assert shown["text"] == small.decode()
        assert not shown.get("truncated", False)
        # No message is larger than a page and its envelope.
        lengths = []
        for number, offset in enumerate(range(0, len(data), PAGE)):
            await bare.send(
                {
                    "type": "value_get",
                    "request": number,
                    "session": "etl~1",
                    "sha256": value.sha256,
                    "offset": offset,
                    "length": PAGE,
                }
            )
            page = await bare.expect("value_page")
            lengths.append(len(page["data"]) * 3 // 4)
            assert page["total"] == len(data)
        assert len(lengths) == 4
        assert max(len(text) for text in bare.seen) < PAGE * 4 // 3 + 1024
        # What is inline may not exceed the threshold: a larger text is refused, not cut.
        too_long = data[: INLINE + 1]
        whole = Value(text=too_long.decode(), size=len(too_long), sha256=hashlib.sha256(too_long).hexdigest())
        publisher.submit(StepChange(id="too long", chain="load", name="too long", output=whole))
        await publisher.flush()
        [(_, _, error)] = publisher.owner.rejections
        assert error.code == "value_too_large"


async def test_large_payloads_delay_nobodys_events_or_heartbeats() -> None:
    """ "Large payloads don't freeze UI.": while 24 MB go up and down, events come within a second."""
    data = _payload(24 * 1024 * 1024)
    timing = Timing(heartbeat_interval=0.3, heartbeat_timeout=20.0)
    async with scene(timing=timing) as stage:
        publisher = await stage.publish("etl~1")
        busy = Publisher(await stage.connect("busy", "publish"), "etl~1", "p2")
        observer = await stage.observe("etl~1")
        value = _value(data)
        assert busy.publication.submit_value(data, value.sha256)
        busy.submit(StepChange(id="big", chain="load", name="big", output=value))
        sent: dict[str, float] = {}

        async def ticks(prefix: str, over: asyncio.Event) -> None:
            number = 0
            while not over.is_set():
                ident = f"{prefix} {number}"
                sent[ident] = time.monotonic()
                publisher.step(ident)
                number += 1
                await asyncio.sleep(0.005)

        begun = time.monotonic()
        for prefix, work in (("up", busy.flush()), ("down", None)):
            over = asyncio.Event()
            ticking = asyncio.ensure_future(ticks(prefix, over))
            await until(lambda prefix=prefix: f"{prefix} 0" in sent)
            if work is not None:
                await work
                await until(lambda: "big" in observer.state().steps)
            else:
                fetched = await _fetch(observer, value)
                assert hashlib.sha256(fetched).hexdigest() == value.sha256
            over.set()
            await ticking
        took = time.monotonic() - begun
        await publisher.flush()
        await stage.agreed(observer)
        delays = [
            observer.received[update.event.seq] - sent[update.entity.id]
            for update in observer.of(EventApplied)
            if isinstance(update.entity, Step) and update.entity.id in sent
        ]
        # How many there were is the machine's affair: that each phase had some, and none was late, is ours.
        assert len(delays) == len(sent)
        assert {"up 0", "down 0"} <= sent.keys()
        assert max(delays) < max(1.0, took / 4), "a busy machine makes both slower"
        # No heartbeat was missed: nobody's link was lost.
        assert observer.conn.status.connections == 1
        assert busy.publication._connection.status.connections == 1


async def test_a_large_session_comes_in_pages_and_events_go_on() -> None:
    """ "… without timeout or truncation": the snapshot of a large session, too, is pulled in pages."""
    async with scene() as stage:
        publisher = await stage.publish("etl~1")
        for number in range(3_000):
            publisher.step(f"s{number}", reason="x" * 300)
            if number % 500 == 499:
                await publisher.flush()
        await publisher.flush()
        async with wire(stage.server.url, stage.token("bare")) as bare:
            await bare.subscribe("etl~1")
            pages = [text for text in bare.seen if '"sync_page"' in text]
            assert len(pages) > 3
            assert max(map(len, pages)) < Limits().message_size
            shipped = sum(len(json.loads(text).get("entities", [])) for text in pages)
            assert shipped == len(stage.server.engine._sessions["etl~1"].feed.state)  # type: ignore[attr-defined]
        observer = await stage.observe("etl~1")
        await stage.agreed(observer)
        assert len(observer.state().steps) == 3_000
