"""The observer against a real server: traits, waiting, callbacks, loss and recovery, cleaning up."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.notebook.samples import T0, ns
from wsmonitor.client import Connection, Target, connect, connections
from wsmonitor.client.own import own_runs
from wsmonitor.client.types import PublicationListener
from wsmonitor.notebook import Observer, watch
from wsmonitor.notebook.observer import observers
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange
from wsmonitor.protocol.entities import CommandSpec, Failure
from wsmonitor.protocol.errors import SessionFailed, UsageError, WaitTimeoutError
from wsmonitor_server.embedded import EmbeddedServer

Look = Callable[..., Observer]


def eventually(condition: Callable[[], Any], what: str, timeout: float = 10.0) -> Any:
    """Wait until *condition* gives something true, and give that."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not (result := condition()):
        assert time.monotonic() < deadline, what
        pause.wait(0.005)
    return result


@pytest.fixture
def server() -> Iterator[Any]:
    with EmbeddedServer.in_thread() as running:
        yield running


@pytest.fixture
def publisher(server: Any) -> Iterator[Connection]:
    with connect(Target(url=server.url, token=server.token(sub="prog", role="publish"))) as handle:
        handle.wait_live(10)
        yield handle


@pytest.fixture
def look(server: Any) -> Iterator[Look]:
    token = server.token(sub="ada", role="command")

    def make(target: Any, **options: Any) -> Observer:
        return watch(target, **{"url": server.url, "token": token, "name": "Ada", **options})

    yield make
    for observer in observers():
        observer.close()


class Program:
    """A small publishing program."""

    def __init__(self, connection: Connection, ident: str, name: str) -> None:
        self.publication = connection.publication(ident, "p1", PublicationListener(), agent="test")
        self.say(
            SessionChange(name=name, state="running", commands=(CommandSpec(name="pause"),), started=ns(0))
        )
        self.say(ChainChange(id="c", name="chain", state="running", started=ns(0)))

    def say(self, change: Any) -> None:
        assert self.publication.submit(change)

    def steps(self, count: int) -> None:
        for n in range(count):
            self.say(
                StepChange(
                    id=f"s{n}", chain="c", name=f"step {n}", state="succeeded", started=ns(n), ended=ns(n + 1)
                )
            )

    def end(self, state: str = "succeeded") -> None:
        error = Failure(type="ValueError", message="no good") if state == "failed" else None
        self.say(SessionChange(state=state, ended=ns(9), error=error))  # type: ignore[arg-type]
        assert self.publication.flush(10)


def test_watch_returns_at_once_and_shows_what_there_is(publisher: Connection, look: Look) -> None:
    observer = look("job")
    assert (observer.session, observer.state, observer.seq) == (None, "", 0)
    program = Program(publisher, "job~1", "job")
    program.steps(3)
    program.end()
    snapshot = observer.wait(10)
    assert snapshot is observer.session
    assert (observer.state, observer.run, snapshot.id) == ("succeeded", 1, "job~1")
    assert snapshot.counts == {"succeeded": 3}
    assert observer.connection.live
    assert observer.seq == snapshot.seq > 0


def test_the_same_call_is_the_same_observer_until_it_is_closed(look: Look) -> None:
    first = look("job")
    assert look("job") is first
    assert look("job", row_limit=10) is not first
    other = look("job", new=True)
    assert other is not first
    assert look("job") is first
    first.close()
    assert look("job") is not first


def test_an_id_is_pinned_and_a_name_follows_the_newest_run(publisher: Connection, look: Look) -> None:
    pinned, following = look("job~1"), look("job")
    Program(publisher, "job~1", "job").end()
    assert following.wait(10).id == "job~1"
    Program(publisher, "job~2", "job")
    eventually(lambda: following.run == 2, "it follows")
    assert following.state == "running"
    assert pinned.wait(10).id == "job~1"
    assert any("newer" in entry["text"] for entry in following.view.key(following_now())["log"])


def following_now() -> Any:
    from wsmonitor.notebook.feed import now

    return now()


def test_a_failed_session_raises_with_its_reason(publisher: Connection, look: Look) -> None:
    observer = look("job")
    Program(publisher, "job~1", "job").end("failed")
    with pytest.raises(SessionFailed, match="'job~1' ended as failed: no good") as caught:
        observer.wait(10)
    assert caught.value.state == "failed"
    assert (observer.state, observer.session.terminal) == ("failed", True), "who catches it looks there next"
    other = look("job", new=True)
    with pytest.raises(SessionFailed):
        asyncio.run(other.wait_async(10))
    assert other.state == "failed"
    assert observer.wait(10, state="failed").state == "failed", "who asks for it, gets it"
    with pytest.raises(SessionFailed, match="never reached paused"):
        observer.wait(10, state="paused")


def test_waiting_for_a_seq_or_a_state(publisher: Connection, look: Look) -> None:
    observer = look("job")
    program = Program(publisher, "job~1", "job")
    program.steps(5)
    assert observer.wait(10, state="running").state == "running"
    assert observer.wait(10, seq=7).seq >= 7
    with pytest.raises(UsageError, match="no such state: runing"):
        observer.wait(1, state="runing")


def test_a_timeout_says_what_is_known(look: Look) -> None:
    with pytest.raises(WaitTimeoutError, match=r"nobody: not reached within 0\.05 s: no such session yet"):
        look("nobody").wait(0.05)
    with pytest.raises(TimeoutError):
        look("nobody").wait(0.05)


async def test_wait_async(publisher: Connection, look: Look) -> None:
    observer = look("job")
    with pytest.raises(WaitTimeoutError):
        await observer.wait_async(0.05)
    Program(publisher, "job~1", "job").end()
    assert (await observer.wait_async(10)).state == "succeeded"
    assert observer.feed.watch.waiting == 0


def test_callbacks_run_in_order_on_one_thread_and_their_errors_are_kept(
    publisher: Connection, look: Look
) -> None:
    observer = look("job")
    seen: list[tuple[str, int, str]] = []

    def bad(change: Any) -> None:
        raise ZeroDivisionError("mine")

    def good(change: Any) -> None:
        seen.append((threading.current_thread().name, change["new"], observer.state))

    observer.observe(bad, "seq")
    observer.observe(good, "seq")
    program = Program(publisher, "job~1", "job")
    program.steps(20)
    program.end()
    observer.wait(10)
    assert [seq for _, seq, _ in seen] == sorted({seq for _, seq, _ in seen})
    assert {thread for thread, _, _ in seen} == {"wsmonitor-callbacks"}
    assert seen[-1][2] == "succeeded", "the traits fit together"
    errors = eventually(lambda: [e for e in observer.errors if e.code == "callback_failed"], "it is told")
    assert errors[0].message == "ZeroDivisionError: mine"
    assert "in bad" in errors[0].details["traceback"]
    observer.unobserve(good, "seq")


def test_waiting_in_a_callback_is_refused(publisher: Connection, look: Look) -> None:
    observer = look("job")
    observer.observe(lambda change: observer.wait(1), "state")
    Program(publisher, "job~1", "job").end()
    observer.wait(10)
    assert eventually(lambda: observer.errors, "it is told")[0].message.startswith(
        "UsageError: wait() in a callback"
    )


def test_a_command_is_recorded(publisher: Connection, look: Look) -> None:
    observer = look("job")
    with pytest.raises(UsageError, match="no session to command"):
        observer.command("pause")
    Program(publisher, "job~1", "job")
    observer.wait(10, state="running")
    record = observer.command("pause").result(10)
    assert (record.name, record.actor, record.via) == ("pause", "ada", "Ada")
    eventually(lambda: record.id in observer.session.commands, "everybody sees the record")


def test_a_command_right_after_a_refused_run_of_the_same_name_reaches_the_run_that_there_is(
    publisher: Connection, look: Look
) -> None:
    observer = look("job")
    Program(publisher, "job~1", "job")
    observer.wait(10, state="running")
    # What a program in this process does whose token does not suffice: begun here, and then refused.
    own_runs.begun(publisher.place, "job", "job~never")
    eventually(lambda: not observer.feed.watch.facts.session_id, "it waits for the run that is begun here")
    withdrawn = threading.Event()
    publisher.call_soon(lambda: withdrawn.wait(10) and None)
    own_runs.withdrawn(publisher.place, "job", "job~never")
    asked = observer.command("pause")
    withdrawn.set()
    record = asked.result(10)
    assert record.name == "pause"
    observer.wait(10, state="running")
    eventually(lambda: record.id in observer.session.commands, "it went to the run that is shown")


def test_the_snapshot_is_a_copy_that_cannot_be_changed(publisher: Connection, look: Look) -> None:
    observer = look("job")
    program = Program(publisher, "job~1", "job")
    first = observer.wait(10, seq=2)
    with pytest.raises(AttributeError):
        first.seq = 3
    with pytest.raises(TypeError):
        first.steps["x"] = 1  # type: ignore[index]
    program.steps(2)
    program.end()
    assert len(observer.wait(10).steps) == 2
    assert len(first.steps) <= 1


def test_no_server_is_waited_for_and_told(look: Look) -> None:
    observer = look("job", url="ws://127.0.0.1:9", token="x" * 20)
    eventually(lambda: observer.connection.phase == "waiting", "it waits")
    assert eventually(lambda: observer.errors, "it is told")[0].retryable
    with pytest.raises(WaitTimeoutError, match="not verified: the link is"):
        observer.wait(0.05)


def test_the_html_page_stands_alone(publisher: Connection, look: Look, tmp_path: Any) -> None:
    observer = look("job")
    with pytest.raises(UsageError, match="nothing to write"):
        observer.to_html(tmp_path / "x.html")
    program = Program(publisher, "job~1", "job")
    program.steps(2)
    program.end()
    observer.wait(10)
    text = observer.to_html(tmp_path / "x.html").read_text(encoding="utf-8")
    assert "step 1" in text
    assert "<script src" not in text


def test_the_steps_as_a_pandas_table(publisher: Connection, look: Look) -> None:
    pd = pytest.importorskip("pandas", reason="pandas is not installed: it is in the extra `test`")
    observer = look("job")
    with pytest.raises(UsageError, match="no session yet"):
        observer.to_frame()
    program = Program(publisher, "job~1", "job")
    empty = observer.wait(10, seq=1) and observer.to_frame()
    program.steps(3)
    program.say(StepChange(id="w", chain="c", name="waits", state="pending"))
    program.end()
    observer.wait(10)
    frame = observer.to_frame()
    assert list(frame.columns) == list(empty.columns)
    assert len(empty) == 0
    assert frame["name"].tolist() == ["step 0", "step 1", "step 2", "waits"]
    assert frame["started"][0] == pd.Timestamp(T0, unit="s", tz="UTC")
    assert frame["seconds"][1] == 1.0
    assert frame["started"].isna().tolist() == [False, False, False, True]
    assert frame.groupby("state").size().to_dict() == {"pending": 1, "succeeded": 3}


def test_without_pandas_the_error_says_what_to_install(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"to_frame\(\) needs pandas.*pip install pandas"):
        look("job").to_frame()


def test_what_is_displayed_is_the_same_whatever_the_session_does(publisher: Connection, look: Look) -> None:
    observer = look("job")
    before = observer._repr_mimebundle_()[0]
    Program(publisher, "job~1", "job").end()
    observer.wait(10)
    after = observer._repr_mimebundle_()[0]
    assert before["text/plain"] == after["text/plain"] == repr(observer) == "Observer('job')"
    assert before["text/html"] == after["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in after


def test_nothing_remains_after_close(publisher: Connection, look: Look) -> None:
    observer = look("job")
    waiter: list[BaseException] = []

    def wait() -> None:
        try:
            observer.wait()
        except UsageError as exc:
            waiter.append(exc)

    thread = threading.Thread(target=wait)
    thread.start()
    eventually(lambda: observer.feed.watch.waiting == 1, "it waits")
    observer.close()
    observer.close()
    thread.join(10)
    assert "closed" in str(waiter[0])
    assert observers() == []
    assert connections() == 1, "the publisher's"
    eventually(
        lambda: not {t.name for t in threading.enumerate()} & {"wsmonitor-sender", "wsmonitor-callbacks"},
        "threads end",
    )


@pytest.mark.parametrize("target", [3, None, object()])
def test_a_target_of_another_type_is_an_error(target: Any) -> None:
    with pytest.raises(TypeError, match="name or id"):
        watch(target)


@pytest.mark.parametrize("target", ["", "a\nb", " a", "x" * 200])
def test_a_target_that_can_be_no_name_is_an_error(target: str) -> None:
    with pytest.raises(UsageError, match="not a session's name"):
        watch(target)


def test_an_observer_that_joins_others_is_told_where_things_stand(publisher: Connection, look: Look) -> None:
    first = look("job")
    Program(publisher, "job~1", "job").end()
    first.wait(10)
    for _ in range(20):
        another = look("job", new=True)
        assert another.wait(10).seq == first.seq
        another.close()


def test_the_end_of_an_older_run_is_never_taken_for_that_of_the_run_begun_here(
    publisher: Connection, look: Look
) -> None:
    Program(publisher, "job~1", "job").end()
    observer = look("job")
    assert observer.wait(10).id == "job~1"
    for number in range(2, 12):
        program = Program(publisher, f"job~{number}", "job")
        with pytest.raises(WaitTimeoutError):
            observer.wait(0.001)
        program.end()
        assert observer.wait(10).id == f"job~{number}"
        assert look("job", new=True).wait(10).id == f"job~{number}"


def test_nor_while_the_link_is_down(look: Look) -> None:
    with EmbeddedServer.in_thread() as server:
        place = {"url": server.url, "token": server.token(sub="ada", role="admin")}
        with connect(Target(**place)) as publisher:
            Program(publisher, "job~1", "job").end()
            observer = look("job", **place)
            assert observer.wait(10).id == "job~1"
            server.stop()
            eventually(lambda: not observer.connection.live, "the loss is seen")
            Program(publisher, "job~2", "job")
            with pytest.raises(WaitTimeoutError, match="no such session yet; not verified"):
                observer.wait(0.01)
            observer.close()


def test_publishing_and_watching_with_the_public_names(server: Any, look: Look) -> None:
    """As the tutorial does it, on a server that remembers earlier runs."""
    import wsmonitor as wm

    place = {"url": server.url, "token": server.token(sub="ada", role="admin")}
    for number in (1, 2, 3):
        observer = look("words", **place)
        with wm.session("words", **place) as session, session.chain("count") as chain, chain.step("one"):
            pass
        snapshot = observer.wait(timeout=20)
        assert (snapshot.id, snapshot.run) == (session.id, number)
        states: list[str] = []
        again = look("words", **place, new=True)
        again.observe(lambda change, states=states: states.append(change["new"]), "state")
        assert again.wait(timeout=20).id == session.id
        assert states == ["succeeded"]
        again.close()
