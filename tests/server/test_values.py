"""Large values, logs, history and revocations through the engine."""

from __future__ import annotations

import hashlib

import pytest
from msgspec import structs

from wsmonitor.protocol.changes import ChainChange, LogChange, SessionChange, StepChange
from wsmonitor.protocol.codec import decode_event
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import LogRecord
from wsmonitor_server.clock import ManualClock
from wsmonitor_server.engine import SessionEngine
from wsmonitor_server.ports import Refusal

from .support import Publisher, engine_on, large_value

Running = tuple[SessionEngine, ManualClock]


async def test_value_is_uploaded_then_referred_to_then_read(running: Running) -> None:
    engine, _ = running
    publisher = await Publisher(engine, "s~1").open()
    data = b"0123456789" * 1000
    value = large_value(data, "0123")
    step = StepChange(id="a", chain="c", name="a", output=value)
    await publisher.put(SessionChange(name="s"), ChainChange(id="c", name="c"), step)
    assert publisher.rejections == [(3, "value_missing")]
    assert await engine.value_begin("s~1", value.sha256, len(data)) == 0
    assert not await engine.value_write("s~1", value.sha256, len(data), 0, data[:6000])
    assert engine.busy()
    assert await engine.value_write("s~1", value.sha256, len(data), 6000, data[6000:])
    assert not engine.busy()
    await publisher.put(step)
    assert len(publisher.rejections) == 1
    assert await engine.value_read("s~1", value.sha256, 9990, 100) == (data[9990:], len(data))
    assert await engine.value_read("s~1", "0" * 64, 0, 100) is None


async def test_value_of_an_absent_session_or_beyond_the_limit_is_refused() -> None:
    engine, _ = engine_on(limits=Limits(value_size=10))
    await engine.start()
    sha = hashlib.sha256(b"x" * 11).hexdigest()
    with pytest.raises(Refusal) as caught:
        await engine.value_begin("nobody~1", sha, 5)
    assert caught.value.info.code == "not_available"
    await Publisher(engine, "s~1").open()
    for call in (
        engine.value_begin("s~1", sha, 11),
        engine.value_write("s~1", sha, 11, 0, b"x" * 11),
    ):
        with pytest.raises(Refusal) as caught:
            await call
        assert caught.value.info.code == "limit_exceeded"
    with pytest.raises(Refusal) as caught:
        await engine.value_write("s~1", sha, 5, 0, b"wrong")
    assert caught.value.info.code == "value_mismatch"
    await engine.stop()


async def test_logs_are_read_by_number() -> None:
    engine, _ = engine_on()
    engine.store._log_records = 3  # type: ignore[attr-defined]  # the memory store's
    await engine.start()
    publisher = await Publisher(engine, "s~1").open()
    lines = tuple(LogRecord(n=0, at="1", text=f"line {number}") for number in range(1, 6))
    await publisher.put(
        SessionChange(name="s"), StepChange(id="a", chain="c", name="a"), LogChange(step="a", records=lines)
    )
    page = await engine.logs("s~1", "a", 1, 2, request=9)
    assert [(one.n, one.text) for one in page.records] == [(3, "line 3"), (4, "line 4")]
    assert (page.request, page.first_kept, page.count) == (9, 3, 5)
    with pytest.raises(Refusal) as caught:
        await engine.logs("s~1", "nowhere", 1, 2, request=9)
    assert caught.value.info.code == "not_available"
    await engine.stop()


async def test_history_is_kept_within_its_limit() -> None:
    engine, _ = engine_on(limits=Limits(history_events=5))
    await engine.start()
    publisher = await Publisher(engine, "s~1").open()
    for number in range(600):
        await publisher.put(SessionChange(name="s", reason=str(number)))
    page = await engine.history("s~1", 1, 3, request=1)
    assert (page.first_kept, page.head, len(page.events)) == (597, 601, 3)
    assert [decode_event(raw).seq for raw in page.events] == [597, 598, 599]
    assert (await engine.history("s~1", 601, 10, request=1)).events != []
    stored = await engine.store.load("s~1")
    assert stored is not None
    assert len(stored.history) < 300, "the store forgets, too"
    await engine.stop()


async def test_revocation_is_told_in_the_turn_it_comes_into_force_and_lasts(running: Running) -> None:
    engine, clock = running
    told: list[str] = []
    engine.on_revocation(told.append)
    await engine.revoke("bad", clock.wall_ns() // 10**9 + 100)
    assert (told, engine.revoked("bad"), engine.revoked("good")) == (["bad"], True, False)
    again, _ = engine_on(engine.store, clock=clock)
    await again.start()
    assert again.revoked("bad")
    clock.advance(200.0)
    again.handle_timeout()
    await again.settle()
    assert not again.revoked("bad"), "its token has expired by itself"
    await again.stop()


async def test_number_of_sessions_is_limited() -> None:
    engine, _ = engine_on(limits=Limits(sessions=1))
    await engine.start()
    await Publisher(engine, "a~1").open()
    await Publisher(engine, "a~1", "other").open()
    with pytest.raises(Refusal) as caught:
        await Publisher(engine, "b~1").open()
    assert caught.value.info.code == "limit_exceeded"
    with pytest.raises(Refusal) as caught:
        await Publisher(engine, "with/slash").open()
    assert caught.value.info.code == "bad_id"
    assert engine.status()["sessions"] == 1
    await engine.ready()
    await engine.stop()


async def test_parts_of_a_value_are_asked_for_counted_kept_and_released(running: Running) -> None:
    engine, clock = running
    publisher = await Publisher(engine, "s~1").open()
    picture = b"\x89PNG" * 2000
    part = hashlib.sha256(picture).hexdigest()
    text = '{"$value": 1}'
    value = structs.replace(
        large_value(text.encode(), text), truncated=False, text=text, parts={part: len(picture)}
    )
    step = StepChange(id="a", chain="c", name="a", output=value)
    await publisher.put(SessionChange(name="s"), ChainChange(id="c", name="c"), step)
    assert publisher.rejections == [(3, "value_missing")]
    await engine.value_write("s~1", part, len(picture), 0, picture)
    await publisher.put(step)
    assert len(publisher.rejections) == 1
    clock.advance(2 * 3600)
    await engine.store.value_sweep(older_than=0)
    assert await engine.value_read("s~1", part, 0, 10) == (picture[:10], len(picture))
