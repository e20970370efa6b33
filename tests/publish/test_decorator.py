"""``@wm.step`` on every kind of function, and retries."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import pytest

import wsmonitor as wm

from .fake import Fake
from .test_control import in_thread


def attempts(fake: Fake, name: str) -> list[tuple[int, str]]:
    """Attempt and state of each step of a name."""
    idents = dict.fromkeys(change.id for change in fake.changes if hasattr(change, "step_key"))
    return [
        (entity["attempt"], entity["state"]) for entity in map(fake.entity, idents) if entity["name"] == name
    ]


@wm.step
def double(number: int) -> int:
    """Twice as much."""
    return number * 2


def test_outside_a_session_it_is_just_the_function(fake: Fake) -> None:
    assert double(2) == 4
    assert double.__name__ == "double"
    assert double.__doc__ == "Twice as much."
    assert fake.publications == []


def test_a_call_is_a_step_of_the_current_chain(fake: Fake) -> None:
    with fake.session() as session:
        assert double(1) == 2
        with session.chain("c") as chain:
            assert double(2) == 4
    first, second = (
        fake.entity(change.id) for change in fake.changes if getattr(change, "name", None) == "double"
    )
    assert second["chain"] == chain.id
    assert first["chain"] != chain.id
    main = fake.entity(first["chain"])
    assert (main["name"], main["state"]) == ("main", "succeeded")
    assert "input" not in first


def test_capture_publishes_arguments_and_result(fake: Fake) -> None:
    @wm.step(capture=True, name="sum up", kind="math", tags=("x",))
    def add(left: int, right: int = 1, *, password: str = "") -> int:
        return left + right

    with fake.session():
        assert add(1, password="hunter2") == 2
        with pytest.raises(TypeError):
            add()
    entity = next(item for item in (fake.steps()["sum up"],))
    assert entity["kind"] == "math"
    first = fake.entity(next(change.id for change in fake.changes if getattr(change, "name", "") == "sum up"))
    assert first["input"].text == '{"left":1,"password":"[redacted]"}'
    assert first["output"].text == "2"


def test_methods_of_all_kinds(fake: Fake) -> None:
    class Model:
        @wm.step(capture=True)
        def fit(self, rows: int) -> int:
            return rows

        @wm.step
        @classmethod
        def make(cls) -> type:
            return cls

        @staticmethod
        @wm.step
        def plain() -> str:
            return "plain"

    with fake.session():
        assert Model().fit(3) == 3
        assert Model.make() is Model
        assert Model.plain() == "plain"
    assert fake.steps()["fit"]["input"].text == '{"rows":3}'
    assert {"fit", "make", "plain"} <= set(fake.steps())


def test_what_cannot_be_decorated() -> None:
    with pytest.raises(TypeError, match="functions"):
        wm.step(3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="functions"):
        wm.step(type("X", (), {}))
    with pytest.raises(TypeError, match="int"):
        wm.step(retries="3")(double)  # type: ignore[call-overload]

    def numbers() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="generator cannot be retried"):
        wm.step(retryable=True)(numbers)


def test_a_generator_is_current_while_its_own_code_runs(fake: Fake) -> None:
    seen: list[Any] = []

    @wm.step
    def numbers() -> Generator[int, str, str]:
        for number in range(3):
            seen.append(wm.current_step())
            answer = yield number
            seen.append(answer)
        return "the end"

    with fake.session(), wm.current_session().chain("c") as chain:  # type: ignore[union-attr]
        generator = numbers()
        assert next(generator) == 0
        assert wm.current_step() is None
        assert generator.send("a") == 1
        assert generator.send("b") == 2
        with pytest.raises(StopIteration) as stop:
            generator.send("c")
        assert stop.value.value == "the end"
        assert [item for item in seen if isinstance(item, str)] == ["a", "b", "c"]
        assert {item.name for item in seen if isinstance(item, wm.Step)} == {"numbers"}
        assert chain.state == "running"
    entity = fake.steps()["numbers"]
    assert entity["state"] == "succeeded"
    assert entity["progress"].done == 3


def test_a_generator_closed_early_and_one_that_raises(fake: Fake) -> None:
    @wm.step
    def forever() -> Iterator[int]:
        while True:
            yield 1

    @wm.step
    def breaks() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with fake.session():
        generator = forever()
        next(generator)
        generator.close()  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="broken"):
            list(breaks())
    assert fake.steps()["forever"]["state"] == "succeeded"
    assert fake.steps()["forever"]["reason"] == "closed before its end"
    assert fake.steps()["breaks"]["error"].message == "broken"


def test_what_is_thrown_into_a_generator_reaches_it(fake: Fake) -> None:
    @wm.step
    def patient() -> Generator[str, None, None]:
        try:
            yield "waiting"
        except KeyError:
            yield "caught"

    with fake.session():
        generator = patient()
        next(generator)
        assert generator.throw(KeyError("x")) == "caught"
        generator.close()


async def test_an_async_generator(fake: Fake) -> None:
    @wm.step
    async def pages() -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(0)
            assert wm.current_step() is not None
            yield number

    async with fake.session():
        found = []
        async for page in pages():
            assert wm.current_step() is None
            found.append(page)
    assert found == [0, 1, 2]
    assert fake.steps()["pages"]["state"] == "succeeded"
    assert fake.steps()["pages"]["progress"].done == 3


def test_retries_by_itself(fake: Fake) -> None:
    calls: list[int] = []

    @wm.step(retries=2)
    def flaky() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise OSError("not yet")
        return "there"

    with fake.session():
        assert flaky() == "there"
    assert attempts(fake, "flaky") == [(1, "failed"), (2, "failed"), (3, "succeeded")]
    keys = {entity["step_key"] for entity in map(fake.entity, dict.fromkeys(
        change.id for change in fake.changes if getattr(change, "name", "") == "flaky"))}  # fmt: skip
    assert len(keys) == 1


def test_a_failed_call_can_be_retried_by_command(fake: Fake) -> None:
    done = threading.Event()
    broken = True

    @wm.step(retryable=True, capture=True)
    def load(path: str) -> str:
        if broken:
            raise OSError("no such file")
        done.set()
        return f"rows of {path}"

    with fake.session() as session, session.chain("c") as chain:
        with pytest.raises(OSError, match="no such file"):
            load("data.csv")
        ident = next(change.id for change in fake.changes if getattr(change, "name", "") == "load")
        assert fake.entity(ident)["commands"] == ("retry",)
        assert "retry" in {spec.name for spec in fake.entity(session.id)["commands"]}
        broken = False
        retry = fake.command("retry", chain=chain.id, step=ident)
        assert done.wait(10)
        fake.wait(lambda: attempts(fake, "load") == [(1, "failed"), (2, "succeeded")])
        assert fake.answers(retry) == [("accepted", ""), ("applied", "attempt 2 has begun")]
        assert fake.steps()["load"]["output"].text == "rows of data.csv"
        assert fake.entity(ident)["commands"] == ()
        again = fake.command("retry", step=ident)
        assert fake.answers(again)[-1][0] == "rejected"
    late = fake.command("retry", step=ident)
    assert fake.answers(late)[-1][0] == "rejected"


def test_a_held_call_gets_the_result_of_the_retry(fake: Fake) -> None:
    broken = True

    @wm.step(hold=60)
    def load() -> str:
        if broken:
            raise OSError("no such file")
        return "rows"

    with fake.session():
        future = in_thread(wm.wrap(load))
        fake.wait(lambda: fake.steps().get("load", {}).get("commands") == ("retry",))
        assert not future.done()
        broken = False
        ident = next(change.id for change in fake.changes if getattr(change, "name", "") == "load")
        fake.command("retry", step=ident)
        assert future.result(10) == "rows"
    assert attempts(fake, "load") == [(1, "failed"), (2, "succeeded")]


async def test_an_async_call_is_retried_on_its_loop(fake: Fake) -> None:
    broken = True
    succeeded = asyncio.Event()

    @wm.step(retryable=True)
    async def load() -> None:
        if broken:
            raise OSError("no such file")
        succeeded.set()

    async with fake.session():
        with pytest.raises(OSError, match="no such file"):
            await load()
        broken = False
        ident = next(change.id for change in fake.changes if getattr(change, "name", "") == "load")
        fake.command("retry", step=ident)
        await asyncio.wait_for(succeeded.wait(), 10)


async def test_an_async_call_that_is_held(fake: Fake) -> None:
    broken = True

    @wm.step(hold=60)
    async def load() -> str:
        if broken:
            raise OSError("no such file")
        return "rows"

    async with fake.session():
        task = asyncio.create_task(load())  # type: ignore[arg-type]
        await fake.until(lambda: fake.steps().get("load", {}).get("commands") == ("retry",))
        broken = False
        ident = next(change.id for change in fake.changes if getattr(change, "name", "") == "load")
        fake.command("retry", step=ident)
        assert await task == "rows"


def test_a_cancelled_call_is_not_retried(fake: Fake) -> None:
    calls: list[int] = []

    @wm.step(retries=3)
    def work() -> None:
        calls.append(1)
        step = wm.current_step()
        assert step is not None
        fake.command("cancel", step=step.id)
        wm.checkpoint()

    with fake.session(), pytest.raises(wm.Cancelled):
        work()
    assert calls == [1]
