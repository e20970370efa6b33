"""Sessions, chains and steps: what is published of them, by a fake connection."""

# ruff: noqa: PT012, PT031, SIM117 - blocks are what is tested here
from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

import wsmonitor as wm
from wsmonitor.client.types import ConnectionStatus
from wsmonitor.protocol.changes import LogChange
from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.publish.channel import INTERVAL

from . import fake as fake_module
from .fake import Fake


def test_the_example_of_the_documentation(fake: Fake) -> None:
    with (
        fake.session("nightly-etl") as session,
        session.chain("load") as chain,
        chain.step("read", input={"path": "data.csv"}) as step,
    ):
        seen = list(step.track(["a", "b", "c"], unit="batches"))
        step.output = {"rows": 3}
    assert seen == ["a", "b", "c"]
    read = fake.steps()["read"]
    assert read["state"] == "succeeded"
    assert read["input"].text == '{"path":"data.csv"}'
    assert read["output"].text == '{"rows":3}'
    assert (read["progress"].done, read["progress"].total, read["progress"].unit) == (3, 3, "batches")
    assert fake.states(chain.id) == ["running", "succeeded"]
    assert fake.states(session.id) == ["running", "succeeded"]
    assert session.errors == []


def test_every_run_has_an_id_of_its_own(fake: Fake) -> None:
    first, second = fake.session("etl"), fake.session("etl")
    assert first.id != second.id
    assert first.id.startswith("etl~")
    assert first.name == second.name == "etl"


def test_the_first_change_of_each_entity_says_what_it_needs(fake: Fake) -> None:
    with fake.session() as session, session.chain("c") as chain, chain.step("s") as step:
        pass
    assert fake.about(session.id)[0].name == "work"
    assert fake.about(chain.id)[0].name == "c"
    first = fake.about(step.id)[0]
    assert first.name == "s"
    assert getattr(first, "chain", None) == chain.id


def test_another_exception_at_the_address_of_one_before_has_its_traceback(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that was caught is freed, and the next one may get its place, and so its id."""
    monkeypatch.setattr("wsmonitor.publish.failures.id", lambda one: 7, raising=False)

    def work(text: str) -> None:
        raise ValueError(text)

    with fake.session() as session, session.chain("in a loop") as chain:
        for name in ("first", "second"):
            with suppress(ValueError), chain.step(name):
                work(name)
    for name in ("first", "second"):
        assert f"ValueError: {name}" in fake.steps()[name]["error"].traceback
    with suppress(ValueError), fake.session() as session, session.chain("around") as around:
        with suppress(ValueError), around.step("inside"):
            work("inside")
        raise ValueError("outside")
    assert "ValueError: outside" in fake.entity(around.id)["error"].traceback


def test_an_exception_is_recorded_and_goes_on_untouched(fake: Fake) -> None:
    error = ValueError("no such column")
    with pytest.raises(ValueError, match="no such column") as caught:
        with fake.session() as session, session.chain("c") as chain, chain.step("s") as step:
            raise error
    assert caught.value is error
    failure = fake.entity(step.id)["error"]
    assert failure.type == "ValueError"
    assert failure.message == "no such column"
    assert "raise error" in failure.traceback
    assert fake.states(step.id)[-1] == fake.states(chain.id)[-1] == fake.states(session.id)[-1] == "failed"
    # The traceback is told once, where it happened.
    assert fake.entity(chain.id)["error"].traceback == ""


@pytest.mark.parametrize(
    ("exception", "state", "reason"),
    [
        (KeyboardInterrupt(), "cancelled", "interrupted from the keyboard"),
        (wm.Cancelled("cancelled by bob"), "cancelled", "cancelled by bob"),
        (wm.Rejected("rejected by bob"), "cancelled", "rejected by bob"),
        (asyncio.CancelledError(), "cancelled", "its task was cancelled"),
        (SystemExit(0), "succeeded", ""),
        (SystemExit(3), "failed", ""),
    ],
)
def test_how_a_step_ends_says_how_it_was_left(
    fake: Fake, exception: BaseException, state: str, reason: str
) -> None:
    with pytest.raises(type(exception)):
        with fake.session() as session, session.chain("c") as chain, chain.step("s") as step:
            raise exception
    assert fake.entity(step.id)["state"] == state
    assert fake.entity(step.id).get("reason", "") == reason


def test_steps_nest_beneath_the_current_step_of_their_chain(fake: Fake) -> None:
    with fake.session() as session:
        one, two = session.chain("one").start(), session.chain("two").start()
        with one.step("outer") as outer:
            with one.step("inner") as inner:
                pass
            with two.step("elsewhere") as elsewhere:
                pass
            with one.step("told", parent=inner) as told:
                pass
            with one.step("top", parent="") as top:
                pass
            with outer.step("explicit") as explicit:
                pass
    parents = {
        step.name: fake.entity(step.id).get("parent", "") for step in (inner, elsewhere, told, top, explicit)
    }
    assert parents == {
        "inner": outer.id,
        "elsewhere": "",
        "told": inner.id,
        "top": "",
        "explicit": outer.id,
    }


async def test_steps_nest_across_tasks(fake: Fake) -> None:
    @wm.step
    async def part(number: int) -> int:
        await asyncio.sleep(0)
        current = wm.current_step()
        assert current is not None
        assert current.name == "part"
        return number

    async with fake.session() as session, session.chain("c") as chain, chain.step("all") as step:
        assert await asyncio.gather(*(part(number) for number in range(3))) == [0, 1, 2]
    entities = [fake.entity(change.id) for change in fake.changes if getattr(change, "name", None) == "part"]
    assert len(entities) == 3
    assert {entity["parent"] for entity in entities} == {step.id}


def test_steps_nest_in_a_thread_pool_of_the_standard_library(fake: Fake) -> None:
    @wm.step
    def part(number: int) -> str:
        return threading.current_thread().name

    before = ThreadPoolExecutor.submit
    with fake.session() as session, session.chain("c") as chain:
        with chain.step("all") as step, ThreadPoolExecutor(2, thread_name_prefix="pool") as pool:
            names = list(pool.map(part, range(4)))
    assert all(name.startswith("pool") for name in names)
    entities = [fake.entity(change.id) for change in fake.changes if getattr(change, "name", None) == "part"]
    assert [entity["parent"] for entity in entities] == [step.id] * 4
    assert ThreadPoolExecutor.submit is before


def test_thread_pools_are_left_alone_on_request(fake: Fake) -> None:
    before = ThreadPoolExecutor.submit
    with fake.session(threads=False) as session, session.chain("c") as chain, chain.step("all") as step:
        assert ThreadPoolExecutor.submit is before
        with session.executor(1) as pool:
            assert pool.submit(wm.current_step).result() is step
        with ThreadPoolExecutor(1) as plain:
            assert plain.submit(wm.current_step).result() is None


def test_wrap_carries_the_current_step_into_a_thread(fake: Fake) -> None:
    found: list[object] = []
    with fake.session() as session, session.chain("c") as chain, chain.step("s") as step:
        thread = threading.Thread(target=wm.wrap(lambda: found.append(wm.current_step())))
        thread.start()
        thread.join()
    assert found == [step]
    assert wm.wrap(len) is len


def test_outside_a_session_nothing_happens() -> None:
    assert wm.current_step() is None
    assert wm.current_session() is None
    wm.log("nobody hears this")
    wm.metric("loss", 0.5)
    wm.checkpoint()
    assert list(wm.track([1, 2, 3])) == [1, 2, 3]


def test_progress_is_coalesced_and_its_last_is_always_sent(fake: Fake) -> None:
    with fake.session() as session, session.chain("c") as chain, chain.step("s") as step:
        before = len(fake.changes)
        for done in range(10_000):
            step.progress(done, 10_000)
        assert len(fake.changes) == before
        fake.advance(INTERVAL)
        assert len(fake.changes) == before + 1
        assert fake.entity(step.id)["progress"].done == 9_999
        fake.advance(10)
        assert len(fake.changes) == before + 1


def test_at_most_twenty_changes_a_second_of_one_step(fake: Fake) -> None:
    with fake.session() as session, session.chain("c") as chain, chain.step("s") as step:
        before = len(fake.changes)
        for done in range(1000):
            step.progress(done)
            step.metrics["loss"] = 1 / (done + 1)
            fake.advance(0.001)
        assert 15 <= len(fake.changes) - before <= 21


def test_a_state_goes_at_once_with_what_was_held_back(fake: Fake) -> None:
    with fake.session() as session, session.chain("c") as chain:
        step = chain.step("s").start()
        step.progress(7, 10)
        step.log("a line")
        step.end()
        last = fake.about(step.id)[-1]
        assert last.state == "succeeded"
        assert fake.entity(step.id)["progress"].done == 7
        assert fake.logs(step.id) == ["a line"]


def test_wrong_types_raise_where_they_are_made(fake: Fake) -> None:
    with pytest.raises(TypeError, match="name must be a string"):
        wm.session(17)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="redact"):
        wm.session("x", redact=3)  # type: ignore[arg-type]
    with fake.session() as session, session.chain("c") as chain, chain.step("s") as step:
        with pytest.raises(TypeError, match="number"):
            step.metrics["loss"] = "low"  # type: ignore[assignment]
        with pytest.raises(TypeError, match="number"):
            step.progress("half")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="tags"):
            step.tags = "one"
        with pytest.raises(TypeError, match="text must be a string"):
            step.log(3)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="level"):
            step.log("x", "loud")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="iterable"):
            step.track(3)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="parent"):
            chain.step("x", parent=3)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="state must be one of"):
            step.end("crashed")  # type: ignore[arg-type]
    assert session.errors == []


def test_names_become_what_the_protocol_takes(fake: Fake) -> None:
    with fake.session("a\nb" + "x" * 500) as session, session.chain("") as chain:
        with chain.step("\u202etoken=abcdef123456 \x00") as step:
            pass
    assert len(fake.entity(session.id)["name"]) == 128
    assert fake.entity(session.id)["name"].startswith("a b")
    assert fake.entity(chain.id)["name"] == "unnamed"
    assert fake.entity(step.id)["name"] == "token=[redacted]"


def test_metrics_attributes_tags_and_links(fake: Fake) -> None:
    with fake.session() as session, session.chain("c") as chain, chain.step("s", tags=["x"]) as step:
        step.metric("rows", 3)
        step.metrics["loss"] = float("nan")
        step.metrics["big"] = 2**60
        step.attributes.update(model="small", api_key="hunter2hunter2", sizes=[1, 2])
        step.tags = [*step.tags, "y", "x"]
        step.link("https://user:pw@example.org/run", rel="dashboard")
        with pytest.raises(TypeError, match="cannot be taken back"):
            del step.metrics["rows"]
        assert dict(step.metrics) == {"rows": 3, "big": float(2**60)}
    entity = fake.entity(step.id)
    assert entity["metrics"] == {"rows": 3, "big": float(2**60)}
    assert entity["attributes"]["metric.loss"] == "NaN"
    assert entity["attributes"]["api_key"] == "[redacted]"
    assert entity["attributes"]["sizes"] == [1, 2]
    assert entity["tags"] == ("x", "y")
    assert "pw" not in entity["links"][0].href


def test_a_large_output_is_uploaded_before_the_change_that_refers_to_it(fake: Fake) -> None:
    with fake.session() as session, session.chain("c") as chain, chain.step("s") as step:
        step.output = "é" * 5_000
        value = step.output
        assert value is not None
        assert fake.publication.values[value.sha256] == ("é" * 5_000).encode()
    value = fake.entity(step.id)["output"]
    assert value.truncated
    assert value.size == 10_000
    assert value.text == "é" * 2_048


def test_ending_a_session_ends_what_is_open_in_it(fake: Fake) -> None:
    session = fake.session().start()
    chain = session.chain("c").start()
    step = chain.step("s").start()
    session.end()
    assert fake.entity(step.id)["state"] == "cancelled"
    assert fake.entity(step.id)["reason"] == "the session ended"
    assert fake.entity(chain.id)["state"] == "cancelled"
    order = [getattr(change, "id", "session") for change in fake.changes if getattr(change, "ended", "")]
    assert order.index(step.id) < order.index(chain.id)


def test_pending_skipped_and_failed_by_hand(fake: Fake) -> None:
    with fake.session() as session, session.chain("c") as chain:
        waiting = chain.step("later").announce()
        assert fake.states(waiting.id) == ["pending"]
        with waiting:
            waiting.skip("nothing new")
        with chain.step("bad") as bad:
            bad.fail("two rows were missing")
    assert fake.states(waiting.id) == ["pending", "running", "skipped"]
    assert fake.entity(bad.id)["error"].message == "two rows were missing"
    assert fake.states(bad.id) == ["running", "failed"]


def test_a_second_run_in_the_same_place_supersedes_the_first(fake: Fake) -> None:
    first = fake.session("etl").start()
    step = first.chain("c").start().step("s").start()
    with fake.session("other"):
        assert first.state == "running"
    with fake.session("etl") as second:
        assert first.state == "cancelled"
        assert first._node.get("reason") == "superseded"
        # The old run's code is told at its next point.
        with pytest.raises(wm.Cancelled, match="superseded"):
            list(step.track([1]))
    assert second.state == "succeeded"


def test_runs_of_one_name_side_by_side_in_threads_are_left_alone(fake: Fake) -> None:
    with fake.session("request") as mine:
        other: list[wm.Session] = []

        def serve() -> None:
            with fake.session("request") as session:
                other.append(session)

        thread = threading.Thread(target=serve)
        thread.start()
        thread.join()
        assert mine.state == "running"
    assert other[0].state == "succeeded"


def test_a_session_can_be_started_once(fake: Fake) -> None:
    with fake.session() as session, pytest.raises(wm.UsageError, match="once"):
        session.start()


def test_the_goodbye_waits_for_the_last_confirmation(fake: Fake) -> None:
    with fake.session():
        pass
    fake.run_soon()
    assert not fake.publication.closed
    fake.publication.acknowledge()
    fake.run_soon()
    assert fake.publication.closed
    assert fake.handles_closed == 1


def test_after_a_new_epoch_everything_is_asserted_again(fake: Fake) -> None:
    with fake.session() as session, session.chain("c") as chain:
        listener = fake.publication.listener
        listener.opened("e1", False)
        with chain.step("done") as done:
            done.output = "x" * 5_000
        running = chain.step("now").start()
        before = len(fake.changes)
        listener.opened("e1", True)
        assert len(fake.changes) == before
        fake.publication.values.clear()
        listener.opened("e2", False)
        again = fake.changes[before:]
        assert {getattr(change, "id", "session") for change in again} == {
            "session",
            chain.id,
            done.id,
            running.id,
        }
        assert all(change.name and change.state for change in again)  # type: ignore[union-attr]
        assert fake.publication.values
        running.end()


def test_lines_that_wait_for_their_turn_are_sent_though_all_is_asserted_again_meanwhile(fake: Fake) -> None:
    """Found by the simulation (seed 7952): they waited until something else happened to the step."""
    with fake.session() as session, session.chain("c") as chain, chain.step("now") as step:
        listener = fake.publication.listener
        listener.opened("e1", False)
        step.log("at once")
        step.log("in its turn")
        listener.opened("e2", False)
        fake.advance(1)
        lines = [
            one.text for change in fake.changes if isinstance(change, LogChange) for one in change.records
        ]
        assert lines == ["at once", "in its turn"]


def test_what_did_not_fit_the_spool_is_made_good(fake: Fake) -> None:
    with pytest.warns(wm.WsMonitorWarning, match="left out"), fake.session() as session:
        chain = session.chain("c").start()
        fake.publication.room = 0
        with chain.step("lost") as lost:
            lost.output = 17
        fake.publication.listener.overflowed(3)
        assert fake.about(lost.id) == []
        fake.publication.room = None
        fake.publication.listener.drained(3)
        assert fake.entity(lost.id)["state"] == "succeeded"
        assert fake.entity(lost.id)["output"].text == "17"
        chain.end()
    assert [info.code for info in session.errors] == ["skipped", "skipped"]
    assert session.errors[-1].message == "3 changes in all were left out; what they were about is sent anew"


def test_a_refused_value_does_not_lose_the_state(fake: Fake) -> None:
    with pytest.warns(wm.WsMonitorWarning, match="refused"), fake.session() as session:
        with session.chain("c") as chain, chain.step("s") as step:
            step.output = "x" * 5_000
        change = fake.about(step.id)[-1]
        info = ErrorInfo(code="value_missing", message="not uploaded")
        fake.publication.listener.rejected(3, change, info)
        entity = fake.entity(step.id)
        assert entity["state"] == "succeeded"
        assert not entity["output"].truncated
        assert "did not take it" in entity["output"].text


def test_run_time_trouble_warns_once_and_strict_raises(fake: Fake) -> None:
    with pytest.warns(wm.WsMonitorWarning) as caught, fake.session() as session:
        with session.chain("c") as chain, chain.step("s") as step:
            for number in range(100):
                step.metrics[f"m{number}"] = number
    assert len(caught) == 1
    assert len(session.errors) == 36
    with (
        fake.session(strict=True) as session,
        session.chain("c") as chain,
        chain.step("s") as step,
        pytest.raises(wm.PublishError, match="metrics"),
    ):
        for number in range(100):
            step.metrics[f"m{number}"] = number


def test_an_unreachable_server_harms_nothing() -> None:
    with wm.session("alone", url="ws://127.0.0.1:9/", token="x") as session:
        with session.chain("c") as chain, chain.step("s") as step:
            step.output = 1
    assert step.state == "succeeded"
    assert not session.flush(0.01)
    session._run.channel.close()


def test_a_wrong_address_warns_and_the_program_goes_on() -> None:
    with pytest.warns(wm.WsMonitorWarning, match="not a WebSocket address"):
        with wm.session("alone", url="http://localhost/", token="x") as session:
            pass
    assert [info.code for info in session.errors] == ["configuration"]
    with pytest.raises(wm.PublishError), wm.session("alone", url="http://localhost/", token="x", strict=True):
        pass


def test_a_worker_adds_to_a_session_and_leaves_its_state_alone(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(wm.ConfigurationError, match="WSMONITOR_SESSION"):
        wm.join(runtime=fake.runtime)
    monkeypatch.setenv("WSMONITOR_SESSION", "etl~01ABC")
    with wm.join(runtime=fake.runtime) as session, session.chain("worker") as chain, chain.step("s"):
        pass
    assert session.id == "etl~01ABC"
    assert fake.publication.producer.startswith("w-")
    kinds = {type(change).__name__ for change in fake.changes}
    assert kinds == {"ChainChange", "StepChange"}


def test_errors_of_the_session(fake: Fake) -> None:
    with fake.session() as session:
        session.error("the disk is nearly full", severity="warning")
    (problem,) = fake.problems()
    assert problem.message == "the disk is nearly full"
    assert problem.severity == "warning"


def test_of_what_was_left_out_only_the_whole_can_follow(fake: Fake) -> None:
    with pytest.warns(wm.WsMonitorWarning, match="come faster than they can be sent") as told:
        with fake.session() as session, session.chain("c") as chain:
            fake.publication.room = 0
            step = chain.step("late").start()
            for count in range(1, 200):
                fake.publication.listener.overflowed(count)
            fake.publication.room = None
            step.end()
            # Its end alone would be refused: the server has never heard of its beginning.
            (change,) = fake.about(step.id)
            assert (change.name, change.state) == ("late", "succeeded")
    # Where the session was made, not where the connection's thread was.
    assert [item.filename for item in told] == [fake_module.__file__]
    assert [info.code for info in session.errors] == ["skipped"]


def test_a_server_that_cannot_be_reached_is_told_once_and_a_lost_link_only_noted(fake: Fake) -> None:
    with fake.session() as session:
        listener = fake.publication.listener
        with pytest.warns(wm.WsMonitorWarning, match=r"cannot be reached yet: nothing listens") as told:
            for phase in ("locating", "connecting", "waiting", "connecting", "waiting"):
                listener.status(ConnectionStatus(phase=phase, reason="nothing listens at x"))  # type: ignore[arg-type]
        assert len(told) == 1
        listener.status(ConnectionStatus(phase="live"))
        listener.status(ConnectionStatus(phase="waiting", reason="it was reset"))
        assert [info.code for info in session.errors] == ["connection_lost", "connection_lost"]
        assert session.errors[-1].message == "the link to the server is down: it was reset"


def test_a_run_within_a_run_of_the_same_name_ends_neither(fake: Fake) -> None:
    with fake.session("job") as outer:
        with fake.session("job") as inner, inner.step("deep"):
            assert (outer.state, inner.state) == ("running", "running")
        assert inner.state == "succeeded"
        with outer.step("after") as step:
            assert step.state == "running"
    assert outer.state == "succeeded"


def test_what_is_begun_outside_its_sessions_life_is_not_lost_in_silence(fake: Fake) -> None:
    session = fake.session()
    with pytest.warns(wm.WsMonitorWarning, match="chain 'early' is not published: its session has not been"):
        session.chain("early").start()
    with session:
        pass
    chain = session.chain("late")
    chain.start()
    assert session.errors[-1].message == "chain 'late' is not published: its session has ended"
    assert chain.state == "pending"


def test_lines_that_are_logged_before_a_step_begins_follow_its_beginning(fake: Fake) -> None:
    with fake.session() as session, session.chain("c") as chain:
        step = chain.step("s")
        step.log("early")
        step.start()
        step.log("late")
        step.end()
        assert fake.logs(step.id) == ["early", "late"]


def test_arguments_are_checked_outside_a_session_too() -> None:
    with pytest.raises(TypeError, match="track\\(\\) takes an iterable, not int"):
        wm.track(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="retries must not be negative"):
        wm.step(retries=-1)(print)
