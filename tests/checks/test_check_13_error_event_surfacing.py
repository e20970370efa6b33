"""Check 13, Error Event Surfacing (HIGH).

"When an error occurs on server, error event is sent to connected clients. Error includes error code,
message, and context (SessionId, ChainId, StepId if applicable). Client UI displays error in
user-friendly manner."
"""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.checks.harness import PATIENCE, blocking, scene, until, wire
from wsmonitor.client import EventApplied
from wsmonitor.notebook import watch
from wsmonitor.notebook.feed import now
from wsmonitor.protocol.changes import ProblemChange, StepChange
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import CommandSpec, Failure, Problem, Step, Value
from wsmonitor.protocol.errors import CATALOGUE, RequestError
from wsmonitor_server.engine import SessionEngine

BROKEN = Failure(
    message="division by zero",
    type="ZeroDivisionError",
    traceback='Traceback (most recent call last):\n  File "etl.py", line 3\nZeroDivisionError',
)


async def test_an_error_event_is_sent_to_all_connected_clients() -> None:
    """ "When an error occurs on server, error event is sent to connected clients." """
    async with scene() as stage:
        publisher = await stage.publish("etl~1")
        other = await stage.publish("other~1")
        observers = [await stage.observe("etl~1", f"user {number}") for number in range(3)]
        stranger = await stage.observe("other~1", "stranger")
        publisher.step("s1", state="running")
        publisher.submit(
            ProblemChange(
                id="e1", code="producer_error", message="the disk is full", chain="load", step="s1"
            ),
            StepChange(id="s1", state="failed", error=BROKEN),
        )
        await publisher.flush()
        other.step("t1")
        await other.flush()
        await stage.agreed(*observers, stranger)
        for observer in observers:
            [problem] = [u.entity for u in observer.of(EventApplied) if isinstance(u.entity, Problem)]
            assert (problem.code, problem.message) == ("producer_error", "the disk is full")
            assert (problem.chain, problem.step) == ("load", "s1")
            failed = [u.entity for u in observer.of(EventApplied) if isinstance(u.entity, Step)][-1]
            assert failed.state == "failed"
            assert failed.error == BROKEN
        # An error carries nothing into another session.
        assert stranger.state().problems == {}


async def test_a_fault_of_the_server_is_told_to_the_one_who_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """ "When an error occurs on server …": a fault inside is coded, traceable, and local."""
    async with scene() as stage, wire(stage.server.url, stage.token("alice")) as bare:
        publisher = await stage.publish("etl~1")
        observer = await stage.observe("etl~1")

        async def fault(*args: Any) -> None:
            raise RuntimeError("a secret detail of the inside")

        monkeypatch.setattr(SessionEngine, "history", fault)
        await bare.send({"type": "history_get", "request": 5, "session": "etl~1"})
        answer = await bare.expect("error")
        assert answer["request"] == 5
        error = answer["error"]
        assert error["code"] == "internal"
        assert error["message"]
        assert error["session"] == "etl~1"
        assert error["correlation"]
        assert "secret detail" not in str(answer)
        # The connection and everybody else's go on.
        await bare.send({"type": "status_get", "request": 6})
        await bare.expect("status")
        publisher.step("s1")
        await publisher.flush()
        await stage.agreed(observer)
        assert observer.conn.status.connections == 1


async def test_errors_include_code_message_and_context() -> None:
    """ "Error includes error code, message, and context (SessionId, ChainId, StepId if applicable)." """
    async with scene() as stage:
        publisher = await stage.publish("etl~1", commands=(CommandSpec(name="pause"),))
        publisher.step("s1", state="succeeded")
        sha = hashlib.sha256(b"never uploaded").hexdigest()
        publisher.submit(
            StepChange(id="s1", state="running"),
            StepChange(id="s2"),
            StepChange(id="s1", output=Value(text="n", size=14, sha256=sha, truncated=True)),
        )
        await publisher.flush()
        await until(lambda: len(publisher.owner.rejections) == 3)
        errors = [error for _, _, error in publisher.owner.rejections]
        assert [error.code for error in errors] == ["illegal_transition", "bad_message", "value_missing"]
        for error, step in zip(errors, ("s1", "s2", "s1"), strict=True):
            assert error.code in CATALOGUE
            assert error.message
            assert (error.session, error.step) == ("etl~1", step)
        assert "succeeded" in errors[0].message
        assert "running" in errors[0].message
        commander = await stage.observe("etl~1", "commander", role="command")
        with pytest.raises(RequestError) as info:
            await blocking(commander.conn.command("etl~1", "explode").result, PATIENCE)
        assert (info.value.code, info.value.info.session) == ("command_unsupported", "etl~1")
        assert "pause" in info.value.info.message


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[]", "bad_message"),
        ('{"type":"subscribe","topic":5,"generation":1}', "bad_message"),
        ('{"type":"of_tomorrow","request":1}', "unknown_type"),
        ('{"type":"unsubscribe","topic":"a\\u0007b"}', "bad_id"),
        ('{"type":"hello","major":1}', "unexpected_message"),
    ],
)
async def test_bad_input_is_answered_and_disturbs_nothing_else(text: str, code: str) -> None:
    """ "Error includes error code, message …": for what a client does wrong, on a connection that stays."""
    async with scene() as stage, wire(stage.server.url, stage.token("alice")) as bare:
        await bare.socket.send(text)
        answer = await bare.expect("error")
        assert answer["error"]["code"] == code
        assert answer["error"]["message"]
        await bare.send({"type": "status_get", "request": 9})
        assert (await bare.expect("status"))["request"] == 9


async def test_unreadable_input_ends_its_own_connection_only() -> None:
    """ "Error includes error code, message …": the code comes first, then the close."""
    async with scene() as stage, wire(stage.server.url, stage.token("bystander")) as bystander:
        too_large = '{"type":"status_get","request":1,"x":"' + "x" * Limits().message_size + '"}'
        for text, code, closed in (("{", "bad_json", 4500), (too_large, "message_too_large", 1009)):
            async with wire(stage.server.url, stage.token("alice")) as bare:
                await bare.socket.send(text)
                error = (await bare.expect("error"))["error"]
                assert error["code"] == code
                assert error["message"]
                assert await bare.closed() == closed
        await bystander.send({"type": "status_get", "request": 9})
        assert (await bystander.expect("status"))["request"] == 9


async def test_the_view_displays_errors_in_words() -> None:
    """ "Client UI displays error in user-friendly manner.": what and where, in words."""
    async with scene() as stage:
        publisher = await stage.publish("etl~1")
        publisher.step("parse")
        publisher.submit(
            StepChange(id="parse", state="failed", error=BROKEN),
            ProblemChange(id="e1", code="producer_error", message="the disk is full"),
        )
        await publisher.flush()
        view = await blocking(lambda: watch("etl~1", url=stage.server.url, token=stage.token("viewer")))
        try:
            alarms: dict[str, Any] = {}

            def shown() -> bool:
                alarms.update((alarm["name"], alarm) for alarm in view.view.head(now())["alarms"])
                return len(alarms) >= 2

            await until(shown)
            assert set(alarms) == {"parse", "producer_error"}
            assert "division by zero" in alarms["parse"]["text"]
            assert "load" in alarms["parse"]["where"]
            assert alarms["parse"]["detail"] == BROKEN.traceback
            assert alarms["producer_error"]["text"] == "the disk is full"
        finally:
            await blocking(view.close)


async def test_a_connection_error_is_shown_with_its_reason() -> None:
    """ "Client UI displays error in user-friendly manner.": also why there is nothing to see."""
    async with scene() as stage:
        view = await blocking(lambda: watch("etl~1", url=stage.server.url, token="not.a.token"))
        try:
            await until(lambda: view.connection.phase == "failed")
            await until(lambda: view.view.head(now())["link"]["phase"] == "failed")
            link = view.view.head(now())["link"]
            assert link["code"] == "unauthorized"
            assert link["reason"]
        finally:
            await blocking(view.close)
