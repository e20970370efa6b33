"""Waiting until a condition is true: judged where traits are written, told where one waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

import wsmonitor as wm
from tests.notebook.test_observer import eventually
from wsmonitor.notebook.observer import Observer, observers
from wsmonitor.notebook.until import Conditions
from wsmonitor.protocol.errors import ConnectionFailedError, UsageError, WaitTimeoutError
from wsmonitor_server.embedded import EmbeddedServer

Look = Callable[..., Observer]


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer.in_thread() as running:
        yield running


@pytest.fixture
def place(server: EmbeddedServer) -> dict[str, str]:
    return {"url": server.url, "token": server.token(sub="ada", role="admin")}


@pytest.fixture
def look(place: dict[str, str]) -> Iterator[Look]:
    def make(target: str, **options: Any) -> Observer:
        return wm.watch(target, **{**place, **options})

    yield make
    for observer in observers():
        observer.close()


def test_it_gives_what_the_condition_returned(place: dict[str, str], look: Look) -> None:
    observer = look("given")

    def done(obs: Observer) -> list[str]:
        steps = obs.session.steps.values() if obs.session else ()
        return [step.name for step in steps if step.state == "succeeded"]

    with wm.session("given", **place) as session, session.chain("c") as chain:
        with chain.step("first"):
            pass
        assert observer.wait_until(done, 60) == ["first"]
        with chain.step("second"):
            pass
    assert observer.wait_until(lambda obs: len(done(obs)) == 2 and done(obs), 60) == ["first", "second"]
    assert observer._conditions.waiting == 0


def test_presence_and_the_link_can_be_waited_for_too(look: Look) -> None:
    observer = look("nobody publishes this")
    observer.wait_until(lambda obs: obs.connection.live, 60)
    assert observer.session is None


def test_what_a_session_does_after_its_end_is_no_reason_to_give_up(place: dict[str, str], look: Look) -> None:
    observer = look("ended")
    with pytest.raises(ZeroDivisionError), wm.session("ended", **place):
        _ = 1 / 0
    closed = observer.wait_until(
        lambda obs: obs.session and all(one.closed for one in obs.session.producers.values()), 60
    )
    assert closed
    assert observer.state == "failed"


def test_too_late_says_what_is_known_and_what_was_waited_for(place: dict[str, str], look: Look) -> None:
    def enough(obs: Observer) -> bool:
        return obs.watching > 100

    observer = look("late")
    with pytest.raises(WaitTimeoutError, match=r"^late: enough\(\) was not true within 0\.05 s: "):
        observer.wait_until(enough, 0.05)
    with wm.session("late", **place):
        observer.wait(60, state="running")
        with pytest.raises(TimeoutError, match=r"the condition was not true within 0\.05 s: running at seq"):
            observer.wait_until(lambda obs: False, 0.05)
    assert observer._conditions.waiting == 0


def test_what_the_condition_raises_is_raised_where_one_waits(look: Look) -> None:
    observer = look("raises")
    with pytest.raises(AttributeError, match="'steps'"):
        observer.wait_until(lambda obs: obs.session.steps, 60)  # there is none

    def own(obs: Observer) -> bool:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match=r"^mine$"):
        observer.wait_until(own, 60)
    with pytest.raises(TimeoutError, match=r"^mine$"):
        asyncio.run(observer.wait_until_async(own, 60))

    def leaves(obs: Observer) -> bool:
        raise SystemExit("not the thread's end")

    with pytest.raises(SystemExit):
        observer.wait_until(leaves, 60)
    observer.wait_until(lambda obs: obs.connection.live, 60)  # others are served as before


def test_only_a_plain_function_is_a_condition(look: Look) -> None:
    async def later(obs: Observer) -> bool:
        return False

    observer = look("plain")
    with pytest.raises(TypeError, match="without async"):
        observer.wait_until(later, 60)
    with pytest.raises(TypeError, match="not str"):
        observer.wait_until("running", 60)  # type: ignore[arg-type]
    observer.close()
    with pytest.raises(UsageError, match="closed"):
        observer.wait_until(lambda obs: True, 60)


async def test_a_loop_goes_on_meanwhile(place: dict[str, str], look: Look) -> None:
    observer = look("loop")
    waiting = asyncio.create_task(
        observer.wait_until_async(lambda obs: obs.session and obs.session.terminal, 60)
    )
    await asyncio.sleep(0)  # it has begun to wait
    with wm.session("loop", **place):
        pass
    assert await waiting is True
    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(WaitTimeoutError, match="the condition was not true"):
        await observer.wait_until_async(lambda obs: False, 0.05)
    given_up = asyncio.create_task(observer.wait_until_async(lambda obs: False))
    await asyncio.to_thread(eventually, lambda: observer._conditions.waiting == 1, "it waits", 60)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert observer._conditions.waiting == 0


def test_a_link_that_is_down_for_good_ends_it_unless_that_is_what_was_waited_for(look: Look) -> None:
    observer = look("refused", token="made up by somebody")
    assert observer.wait_until(lambda obs: obs.connection.phase == "failed" and obs.connection.code, 60)
    with pytest.raises(ConnectionFailedError):
        observer.wait_until(lambda obs: obs.session, 60)


def test_to_close_the_observer_ends_it(look: Look) -> None:
    observer = look("closing")
    ended: list[str] = []

    def wait() -> None:
        try:
            observer.wait_until(lambda obs: False)
        except UsageError as exc:
            ended.append(str(exc))

    thread = threading.Thread(target=wait)
    thread.start()
    eventually(lambda: observer._conditions.waiting == 1, "it waits", 60)
    observer.close()
    thread.join(60)
    assert ended == ["the observer was closed"]


def test_in_a_callback_it_would_wait_for_itself(look: Look) -> None:
    observer = look("callback")
    with pytest.raises(UsageError, match="in a callback"):
        observer.wait_until(lambda obs: obs.wait_until(lambda again: True), 60)


def test_the_end_of_the_run_before_is_not_taken_for_that_of_the_new_one(
    place: dict[str, str], look: Look
) -> None:
    observer = look("runs")
    for _ in range(5):
        with wm.session("runs", **place) as session:
            pass
        ended = observer.wait_until(lambda obs: obs.session and obs.session.terminal and obs.session.id, 60)
        assert ended == session.id


def test_each_is_settled_once_and_none_is_kept() -> None:
    conditions: Conditions[list[int]] = Conditions()
    ready: Future[int] = Future()
    never: Future[int] = Future()
    cancelled: Future[int] = Future()
    for future, condition in ((ready, lambda seen: len(seen) == 1), (never, lambda seen: False)):
        conditions.enter(future, condition)
    cancelled.cancel()
    conditions.enter(cancelled, lambda seen: True)
    conditions.judge([])
    assert not ready.done()
    conditions.judge([1])
    assert ready.result(0) is True  # type: ignore[comparison-overlap]
    conditions.judge([1, 2])
    assert conditions.waiting == 1
    conditions.judge([], UsageError("no more"))
    with pytest.raises(UsageError, match="no more"):
        never.result(0)
    conditions.end(UsageError("over"))
    late: Future[int] = Future()
    conditions.enter(late, lambda seen: True)
    with pytest.raises(UsageError, match="over"):
        late.result(0)
    assert conditions.waiting == 0
