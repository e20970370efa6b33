"""Pause, cancel, questions, own commands: when they take effect, and what is said of them."""

# ruff: noqa: PT012, SIM117 - blocks are what is tested here
from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import pytest

import wsmonitor as wm

from .fake import Fake


def in_thread(work: Callable[[], Any]) -> Future[Any]:
    """Run *work* on a thread of its own."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=run, daemon=True).start()
    return future


class Program:
    """A session with one chain and one step, whose loop goes on only when the test says so."""

    def __init__(self, fake: Fake, items: int = 3) -> None:
        self.fake = fake
        self.at_item = [threading.Event() for _ in range(items)]
        self.go = [threading.Event() for _ in range(items)]
        self.session = fake.session()
        self.chain: wm.Chain
        self.step: wm.Step
        self.done: list[int] = []
        self.result = in_thread(self._run)
        assert self.at_item[0].wait(10)

    def _run(self) -> None:
        with self.session, self.session.chain("c") as self.chain, self.chain.step("s") as self.step:
            for item in self.step.track(range(len(self.go))):
                self.at_item[item].set()
                assert self.go[item].wait(10)
                self.done.append(item)

    def finish(self) -> None:
        for event in self.go:
            event.set()
        self.result.result(10)


def test_every_session_offers_pause_resume_and_cancel(fake: Fake) -> None:
    with fake.session() as session:
        pass
    offered = {spec.name: spec for spec in fake.entity(session.id)["commands"]}
    assert set(offered) == {"pause", "resume", "cancel"}
    assert offered["cancel"].destructive
    assert offered["pause"].targets == ("session", "chain", "step")


@pytest.mark.parametrize("target", ["session", "chain", "step"])
def test_a_pause_takes_effect_at_the_next_item_and_not_before(fake: Fake, target: str) -> None:
    program = Program(fake)
    aim = {
        "session": {},
        "chain": {"chain": program.chain.id},
        "step": {"chain": program.chain.id, "step": program.step.id},
    }[target]
    node = {"session": program.session, "chain": program.chain, "step": program.step}[target]
    pause = fake.command("pause", **aim)
    # HONEST: the program still works on its item, so nothing is paused yet.
    assert fake.answers(pause) == [("accepted", "")]
    assert program.step.state == "running"
    program.go[0].set()
    fake.wait(lambda: ("applied", "") in fake.answers(pause))
    assert program.step.state == "paused"
    assert node.state == "paused"
    assert fake.entity(program.step.id)["reason"] == "paused by alice"
    assert fake.entity(program.step.id)["commands"] == ("resume", "cancel")
    assert not program.at_item[1].is_set()

    again = fake.command("pause", **aim)
    assert fake.answers(again)[-1] == ("applied", "it was paused already")
    resume = fake.command("resume", **aim)
    assert [state for state, _ in fake.answers(resume)] == ["accepted", "applied"]
    assert program.at_item[1].wait(10)
    assert program.step.state == node.state == "running"
    program.finish()
    assert program.done == [0, 1, 2]
    assert fake.states(program.step.id) == ["running", "paused", "running", "succeeded"]
    told = {"session": program.session, "chain": program.chain, "step": program.step}[target]
    began, ended = fake.entity(told.id)["attributes"]["wsmonitor.pauses"]
    assert 0 < began <= ended


def test_a_session_is_paused_only_when_every_running_step_is(fake: Fake) -> None:
    go = {name: threading.Event() for name in "ab"}
    inside = {name: threading.Event() for name in "ab"}
    steps: dict[str, wm.Step] = {}

    def work(name: str) -> None:
        with wm.current_session().chain(name) as chain, chain.step(name) as step:  # type: ignore[union-attr]
            steps[name] = step
            inside[name].set()
            assert go[name].wait(10)
            step.checkpoint()

    with fake.session() as session:
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(work, name) for name in "ab"]
            assert inside["a"].wait(10)
            assert inside["b"].wait(10)
            pause = fake.command("pause")
            go["a"].set()
            fake.wait(lambda: steps["a"].state == "paused")
            assert session.state == "running"
            assert steps["b"].state == "running"
            assert fake.answers(pause) == [("accepted", "")]
            go["b"].set()
            fake.wait(lambda: len(fake.answers(pause)) == 2)
            assert session.state == "paused"
            fake.command("resume")
            for future in futures:
                future.result(10)


def test_a_pause_that_comes_too_late_is_rejected(fake: Fake) -> None:
    program = Program(fake, items=1)
    with fake.publication.submitted:
        pass
    step = program.step
    pause = fake.command("pause", step=step.id)
    program.step.end()
    assert fake.answers(pause)[-1] == ("rejected", "it ended as succeeded before it could be paused")
    program.finish()
    late = fake.command("pause", step=step.id)
    assert fake.answers(late) == [("rejected", "there is no such thing here, or it has ended")]
    assert fake.answers(fake.command("resume")) == [
        ("rejected", "there is no such thing here, or it has ended")
    ]


def test_resuming_what_is_not_paused_is_rejected(fake: Fake) -> None:
    with fake.session():
        assert fake.answers(fake.command("resume")) == [("rejected", "it is not paused")]


def test_a_cancel_is_applied_when_it_was_obeyed(fake: Fake) -> None:
    program = Program(fake)
    cancel = fake.command("cancel")
    assert fake.answers(cancel) == [("accepted", "")]
    assert program.step.state == program.session.state == "cancelling"
    program.go[0].set()
    with pytest.raises(wm.Cancelled, match="cancelled by alice"):
        program.result.result(10)
    assert program.done == [0]
    assert fake.states(program.step.id) == ["running", "cancelling", "cancelled"]
    assert fake.states(program.session.id) == ["running", "cancelling", "cancelled"]
    assert fake.entity(program.step.id)["reason"] == "cancelled by alice"
    assert fake.answers(cancel)[-1] == ("applied", "")


def test_a_cancel_that_was_not_obeyed_is_rejected(fake: Fake) -> None:
    with fake.session() as session, session.chain("c") as chain, chain.step("s"):
        cancel = fake.command("cancel")
    assert session.state == "succeeded"
    assert fake.answers(cancel)[-1] == ("rejected", "it ended as succeeded before it could be cancelled")


def test_a_cancel_wakes_what_is_paused(fake: Fake) -> None:
    program = Program(fake)
    fake.command("pause")
    program.go[0].set()
    fake.wait(lambda: program.step.state == "paused")
    cancel = fake.command("cancel")
    with pytest.raises(wm.Cancelled):
        program.result.result(10)
    assert fake.answers(cancel)[-1] == ("applied", "")


def test_cancelling_one_step_leaves_the_next(fake: Fake) -> None:
    with fake.session() as session, session.chain("c") as chain:
        with pytest.raises(wm.Cancelled):
            with chain.step("one") as one:
                fake.command("cancel", step=one.id)
                one.checkpoint()
        with chain.step("two") as two:
            two.checkpoint()
    assert (one.state, two.state, chain.state, session.state) == (
        "cancelled",
        "succeeded",
        "succeeded",
        "succeeded",
    )


def test_no_step_begins_beneath_what_is_being_cancelled(fake: Fake) -> None:
    with fake.session() as session:
        with pytest.raises(wm.Cancelled):
            with session.chain("c") as chain:
                fake.command("cancel", chain=chain.id)
                waiting = chain.step("never").announce()
                with waiting:
                    raise AssertionError("it must not begin")
    assert waiting.state == "cancelled"
    assert chain.state == "cancelled"


def test_except_exception_does_not_swallow_a_cancellation(fake: Fake) -> None:
    with fake.session() as session, session.chain("c") as chain:
        with pytest.raises(wm.Cancelled):
            with chain.step("s") as step:
                fake.command("cancel", step=step.id)
                try:
                    step.checkpoint()
                except Exception:
                    raise AssertionError("swallowed") from None


async def test_a_coroutine_awaits_while_paused(fake: Fake) -> None:
    order: list[str] = []
    async with fake.session() as session, session.chain("c") as chain, chain.step("s") as step:
        pause = fake.command("pause")

        async def other() -> None:
            # The loop goes on while the step is paused: otherwise nobody could resume it from here.
            await fake.until(lambda: step.state == "paused")
            assert fake.answers(pause)[-1][0] == "applied"
            order.append("resume")
            fake.command("resume")

        task = asyncio.create_task(other())
        await step.checkpoint()
        order.append("on")
        await task
        async for _ in step.track([1, 2]):
            order.append("item")
    assert order == ["resume", "on", "item", "item"]
    assert fake.states(step.id) == ["running", "paused", "running", "succeeded"]


async def test_a_cancelled_task_does_not_stay_blocked(fake: Fake) -> None:
    async with fake.session() as session, session.chain("c") as chain:
        fake.command("pause")

        async def wait() -> None:
            async with chain.step("s"):
                raise AssertionError("paused")

        task = asyncio.create_task(wait())
        await fake.until(lambda: session.state == "paused")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        fake.command("resume")
        assert not session._run.control._wakers
        assert chain._node.blocked == 0


def test_a_point_of_ordinary_code_needs_no_await(fake: Fake) -> None:
    with fake.session() as session:
        assert session.checkpoint().value is None


async def test_a_point_in_a_coroutine_has_no_value_before_it_is_awaited(fake: Fake) -> None:
    async with fake.session() as session:
        point = session.checkpoint()
        with pytest.raises(RuntimeError, match="await it"):
            _ = point.value
        assert await point is None


def test_approval(fake: Fake) -> None:
    with fake.session() as session, session.chain("c") as chain, chain.step("deploy") as step:
        future = in_thread(lambda: step.checkpoint(approve="Deploy to production?"))
        fake.wait(lambda: step.state == "awaiting_input")
        entity = fake.entity(step.id)
        assert entity["reason"] == "Deploy to production?"
        assert entity["commands"] == ("approve", "reject", "cancel")
        assert {"approve", "reject"} <= {spec.name for spec in fake.entity(session.id)["commands"]}
        wrong = fake.command("input", step=step.id, value="x")
        assert fake.answers(wrong)[-1][0] == "rejected"
        approve = fake.command("approve", step=step.id)
        future.result(10)
        assert fake.answers(approve)[-1] == ("applied", "")
        assert step.state == "running"
        late = fake.command("approve", step=step.id)
        assert fake.answers(late) == [("rejected", "nothing of this kind is being asked")]


def test_rejection_raises(fake: Fake) -> None:
    with pytest.raises(wm.Rejected, match="rejected by alice: not on a Friday"):
        with fake.session() as session, session.chain("c") as chain, chain.step("deploy") as step:
            future = in_thread(lambda: step.checkpoint(approve="Deploy?"))
            fake.wait(lambda: step.state == "awaiting_input")
            fake.command("reject", step=step.id, reason="not on a Friday")
            future.result(10)
    assert step.state == "cancelled"


async def test_asking_for_input(fake: Fake) -> None:
    async with fake.session() as session, session.chain("c") as chain, chain.step("s") as step:

        async def answer() -> None:
            await fake.until(lambda: step.state == "awaiting_input")
            refused = fake.command("input", step=step.id, value="purple")
            assert fake.answers(refused)[-1] == ("rejected", "the answer must be one of red, green")
            fake.command("input", step=step.id, value="green")

        task = asyncio.create_task(answer())
        assert await step.ask("Which?", choices=["red", "green"]) == "green"
        await task


async def test_a_question_has_a_time_limit(fake: Fake) -> None:
    async with fake.session() as session:
        with pytest.raises(TimeoutError, match="Anybody there"):
            await session.ask("Anybody there?", timeout=0.0)
        assert session.state == "running"


def test_a_command_of_the_program_s_own(fake: Fake) -> None:
    calls: list[tuple[Any, ...]] = []
    called_on: list[str] = []

    with fake.session() as session:

        @session.on("scale", targets=("session", "step"), destructive=True)
        def scale(
            factor: float, mode: Literal["up", "down"] = "up", count: int | None = None, step: str = ""
        ) -> str:
            """Change the scale.

            More text.
            """
            called_on.append(threading.current_thread().name)
            calls.append((factor, mode, count, step))
            return f"scaled {mode}"

        spec = next(spec for spec in fake.entity(session.id)["commands"] if spec.name == "scale")
        assert spec.description == "Change the scale."
        assert spec.destructive
        assert [(arg.name, arg.type, arg.required, arg.choices) for arg in spec.args] == [
            ("factor", "number", True, ()),
            ("mode", "string", False, ("up", "down")),
            ("count", "integer", False, ()),
        ]
        part = session.step("part").start()
        good = fake.command("scale", step=part.id, factor="2.5", count=3)
        fake.wait(lambda: fake.answers(good)[-1:] == [("applied", "scaled up")])
        assert calls == [(2.5, "up", 3, part.id)]
        assert called_on == ["wsmonitor-commands"]
        for args, why in [
            ({}, "argument 'factor' is missing"),
            ({"factor": "big"}, "argument 'factor' must be number, not 'big'"),
            ({"factor": 1, "mode": "sideways"}, "argument 'mode' must be one of up, down"),
            ({"factor": 1, "size": 2}, "no argument 'size'; there are: factor, mode, count"),
            ({"factor": 1, "count": 1.5}, "argument 'count' must be integer, not '1.5'"),
        ]:
            bad = fake.command("scale", **args)  # type: ignore[arg-type]
            fake.wait(lambda bad=bad, why=why: fake.answers(bad) == [("rejected", why)], why)  # type: ignore[misc]
        unknown = fake.command("explode")
        assert fake.answers(unknown) == [("rejected", "no command 'explode' is taken here")]
    assert len(calls) == 1


def test_a_handler_that_raises_rejects_the_command(fake: Fake) -> None:
    def broken() -> None:
        raise OSError("disk password=hunter2hunter2 full")

    with fake.session() as session:
        session.on("break", broken)
        command = fake.command("break")
        fake.wait(lambda: len(fake.answers(command)) == 2)
        assert fake.answers(command)[-1] == ("rejected", "OSError: disk password=[redacted] full")


async def test_a_coroutine_function_as_handler_runs_on_its_loop(fake: Fake) -> None:
    loops: list[asyncio.AbstractEventLoop] = []
    called = asyncio.Event()

    async def handler() -> None:
        loops.append(asyncio.get_running_loop())
        called.set()

    async with fake.session() as session:
        session.on("here", handler)
        fake.command("here")
        await asyncio.wait_for(called.wait(), 10)
    assert loops == [asyncio.get_running_loop()]


def test_what_cannot_be_a_command(fake: Fake) -> None:
    with fake.session() as session:
        with pytest.raises(wm.UsageError, match="standard command"):
            session.on("pause", lambda: None)
        with pytest.raises(TypeError, match="callable"):
            session.on("x", 3)  # type: ignore[arg-type]
        with pytest.raises(wm.InvalidIdError):
            session.on("a/b", lambda: None)
        with pytest.raises(TypeError, match="targets"):
            session.on("x", lambda: None, targets=("planet",))  # type: ignore[arg-type]

        def takes_a_list(items: list[int]) -> None: ...

        with pytest.raises(TypeError, match="must be a str, int, float, bool"):
            session.on("x", takes_a_list)


async def test_a_coroutine_that_forgets_to_await_a_point_is_warned_where_it_stands(fake: Fake) -> None:
    async with fake.session() as session, session.chain("c") as chain, chain.step("s") as step:
        await step.checkpoint()
        for _ in range(2):
            with pytest.warns(
                wm.WsMonitorWarning, match=r"checkpoint\(\) in a coroutine was not awaited"
            ) as told:
                step.checkpoint()
            assert [item.filename for item in told] == [__file__]
        with pytest.warns(wm.WsMonitorWarning, match=r"ask\(\) in a coroutine was not awaited"):
            step.ask("which?")
    with pytest.warns(wm.WsMonitorWarning, match="was not awaited"):
        wm.checkpoint()


async def test_a_cancellation_that_comes_out_of_a_task_group_is_one(fake: Fake) -> None:
    async def work(chain: wm.Chain) -> None:
        async with chain.step("part") as step:
            async for _ in step.track(endless()):
                at_work.set()

    async def endless() -> Any:
        while True:
            yield 1
            await asyncio.sleep(0)

    at_work = asyncio.Event()
    idents: list[str] = []

    async def ask() -> None:
        await at_work.wait()
        idents.append(fake.command("cancel"))

    asking = asyncio.create_task(ask())
    with pytest.raises(BaseExceptionGroup, match="TaskGroup"):
        async with fake.session() as session, session.chain("c") as chain, asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(work(chain))
    await asking
    assert (session.state, chain.state) == ("cancelled", "cancelled")
    assert fake.answers(idents[0])[-1] == ("applied", "")


@pytest.mark.parametrize(
    ("parts", "state"),
    [
        ([wm.Cancelled("a"), asyncio.CancelledError()], "cancelled"),
        ([wm.Cancelled("a"), BaseExceptionGroup("inner", [wm.Rejected("b")])], "cancelled"),
        ([wm.Cancelled("a"), ValueError("b")], "failed"),
        ([ValueError("b")], "failed"),
    ],
)
def test_a_group_is_cancelled_only_if_all_of_it_is(
    fake: Fake, parts: list[BaseException], state: str
) -> None:
    with pytest.raises(BaseExceptionGroup), fake.session() as session:
        raise BaseExceptionGroup("several", parts)
    assert session.state == state
