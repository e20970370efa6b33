"""The publisher against a real server, over real sockets, and as programs of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import wsmonitor as wm
from wsmonitor.client import Connection, Subscription, Target, connect
from wsmonitor.client.types import Update
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.embedded import EmbeddedServer

ROOT = Path(__file__).parents[2]


class Watcher:
    """Observes one session, and waits for what it becomes."""

    def __init__(self, server: EmbeddedServer, session: str) -> None:
        self.token = server.token(sub="alice", role="admin", sessions=("*",))
        self.connection: Connection = connect(Target(url=server.url, token=self.token))
        self._changed = threading.Condition()
        self.subscription: Subscription = self.connection.subscribe(session, self._told)

    def _told(self, update: Update) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait(self, condition: Callable[[SessionState], bool], what: str = "") -> SessionState:
        """The first state of which *condition* holds."""
        found: list[SessionState] = []

        def holds() -> bool:
            if self.subscription.phase != "live":
                return False
            state = self.subscription.snapshot()
            if state is not None and condition(state):
                found.append(state)
            return bool(found)

        with self._changed:
            assert self._changed.wait_for(holds, 20), what or str(self.subscription.snapshot())
        return found[-1]


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer.in_thread() as running:
        yield running


@pytest.fixture
def watch(server: EmbeddedServer) -> Iterator[Callable[[str], Watcher]]:
    with contextlib.ExitStack() as stack:

        def begin(session: str) -> Watcher:
            watcher = Watcher(server, session)
            stack.callback(watcher.connection.close)
            return watcher

        yield begin


def state_of(state: SessionState) -> str:
    return "" if state.session is None else state.session.state


def test_what_was_published_is_what_observers_see(
    server: EmbeddedServer, watch: Callable[[str], Watcher]
) -> None:
    token = server.token(sub="bob", role="publish", sessions=("*",))
    with wm.session("etl", url=server.url, token=token) as session:
        watcher = watch(session.id)
        with session.chain("load") as chain, chain.step("read", input={"path": "x"}) as step:
            for _ in step.track(range(5_000), unit="rows"):
                pass
            step.output = {"text": "é" * 10_000}
            step.log("half way")
            step.log("password=hunter2", "warning")
    state = watcher.wait(lambda state: state_of(state) == "succeeded")
    seen = state.steps[step.id]
    assert seen.progress is not None
    assert (seen.progress.done, seen.progress.total) == (5_000, 5_000)
    assert (seen.log_count, seen.log_last) == (2, "password=[redacted]")
    assert seen.output is not None
    assert seen.output.truncated
    page = watcher.connection.fetch_value(session.id, seen.output.sha256).result(10)
    assert page.data == ('{"text":"' + "é" * 10_000 + '"}').encode()
    assert session.flush(5)
    assert session.errors == []
    watcher.wait(lambda state: all(producer.closed for producer in state.producers.values()))


def test_an_observer_s_commands_reach_the_program(
    server: EmbeddedServer, watch: Callable[[str], Watcher]
) -> None:
    token = server.token(sub="bob", role="publish", sessions=("*",))
    session = wm.session("loop", url=server.url, token=token)
    stop = threading.Event()
    ended: list[BaseException] = []

    def program() -> None:
        try:
            with session, session.chain("c") as chain, chain.step("s") as step:
                for _ in step.track(iter(int, 1)):
                    stop.wait(0.001)
        except BaseException as exc:
            ended.append(exc)

    thread = threading.Thread(target=program)
    thread.start()
    watcher = watch(session.id)
    watcher.wait(lambda state: bool(state.steps))
    for name, expected in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        command = watcher.connection.command(session.id, name).result(10).command
        state = watcher.wait(
            lambda state, ident=command.id: (  # type: ignore[misc]
                ident in state.commands and state.commands[ident].state in {"applied", "rejected"}
            )
        )
        record = state.commands[command.id]
        assert (record.state, record.actor) == ("applied", "alice")
        watcher.wait(lambda state, expected=expected: state_of(state) == expected)  # type: ignore[misc]
    thread.join(10)
    assert [str(exc) for exc in ended] == ["cancelled by alice"]
    assert {step.state for step in watcher.wait(lambda state: True).steps.values()} == {"cancelled"}


def test_resuming_in_the_same_process(server: EmbeddedServer, watch: Callable[[str], Watcher]) -> None:
    token = server.token(sub="bob", role="publish", sessions=("*",))
    first = wm.session("long", url=server.url, token=token).start()
    step = first.step("early").start()
    assert first.flush(10)
    with wm.session("long", url=server.url, token=token, resume=first.id) as second:
        with pytest.raises(wm.Cancelled, match="resumed elsewhere"):
            step.checkpoint()
        with second.step("late"):
            pass
    state = watch(first.id).wait(lambda state: state_of(state) == "succeeded")
    assert {step.name for step in state.steps.values()} == {"early", "late"}


def run_program(code: str, server: EmbeddedServer | None = None) -> subprocess.CompletedProcess[str]:
    """Run *code* in an interpreter of its own, with the server in its environment."""
    environ = dict(os.environ)
    environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "server")])
    environ["WSMONITOR_URL"] = "ws://127.0.0.1:9" if server is None else server.url
    environ["WSMONITOR_TOKEN"] = (
        "x" if server is None else server.token(sub="bob", role="publish", sessions=("*",))
    )
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environ, timeout=60
    )


def test_a_program_that_ends_at_once_leaves_everything_behind(
    server: EmbeddedServer, watch: Callable[[str], Watcher]
) -> None:
    done = run_program(
        "import wsmonitor as wm\n"
        "with wm.session('short') as s, s.chain('c') as c, c.step('one') as step:\n"
        "    step.output = 'x' * 10_000\n"
        "print(s.id)",
        server,
    )
    assert (done.returncode, done.stderr) == (0, "")
    state = watch(done.stdout.strip()).wait(lambda state: state_of(state) == "succeeded")
    assert [step.state for step in state.steps.values()] == ["succeeded"]
    assert all(producer.closed for producer in state.producers.values())


def test_a_program_that_fails_with_a_session_left_open(
    server: EmbeddedServer, watch: Callable[[str], Watcher]
) -> None:
    done = run_program(
        "import wsmonitor as wm\ns = wm.session('open').start()\nprint(s.id, flush=True)\n1 / 0", server
    )
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")
    state = watch(done.stdout.strip()).wait(lambda state: state_of(state) == "failed")
    assert state.session is not None
    assert state.session.error is not None
    assert state.session.error.type == "ZeroDivisionError"


def test_harmless_without_a_server_the_end_is_hardly_delayed() -> None:
    done = run_program(
        "import atexit, time, wsmonitor as wm\n"
        # Registered first, so it runs last: after everything of ours. The parts of the promised second are
        # added up in test_registry; here, no machine is so slow that waiting for a server would pass.
        "atexit.register(lambda: print(time.monotonic() - begun))\n"
        "with wm.session('alone') as s, s.chain('c') as c, c.step('one'):\n"
        "    pass\n"
        "begun = time.monotonic()",
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 10
    assert done.stderr.startswith("wsmonitor: ")
    assert "had not reached the server" in done.stderr


def test_publishing_to_nobody_costs_the_program_next_to_nothing() -> None:
    with wm.session("alone", url="ws://127.0.0.1:9", token="x") as session, session.chain("c") as chain:
        begun = time.thread_time()  # of this thread alone: what else the machine does is not the publisher's
        with chain.step("s") as step:
            for _ in step.track(range(200_000)):
                pass
        assert time.thread_time() - begun < 2
    session._run.channel.close()


def test_resuming_in_another_process_takes_the_session_over(
    server: EmbeddedServer, watch: Callable[[str], Watcher]
) -> None:
    token = server.token(sub="bob", role="publish", sessions=("*",))
    first = wm.session("long", url=server.url, token=token).start()
    first.chain("morning").start().step("tea").start()
    assert first.flush(10)
    watcher = watch(first.id)
    code = (
        "import wsmonitor as wm\n"
        f"with wm.session('long', resume={first.id!r}) as s, s.chain('evening'):\n"
        "    pass"
    )
    with pytest.warns(wm.WsMonitorWarning, match="taken this session over"):
        done = run_program(code, server)
    assert (done.returncode, done.stderr) == (0, "")
    assert [info.code for info in first.errors] == ["fenced"]
    # What the first one says from now on counts no more.
    first.end("failed")
    state = watcher.wait(
        lambda state: state_of(state) == "succeeded" and all(p.closed for p in state.producers.values())
    )
    assert {chain.name: chain.state for chain in state.chains.values()} == {
        "morning": "cancelled",
        "evening": "succeeded",
    }
    assert {step.state for step in state.steps.values()} == {"cancelled"}
    assert {step.reason for step in state.steps.values()} == {
        "left open by the process before: the session was resumed by another one"
    }
    first._run.channel.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not here: this platform has no fork")
def test_forked_workers_take_part_in_the_session(
    server: EmbeddedServer, watch: Callable[[str], Watcher]
) -> None:
    done = run_program(
        "import multiprocessing, os, wsmonitor as wm\n"
        "@wm.step(capture=True)\n"
        "def part(number):\n"
        "    return os.getpid()\n"
        "with wm.session('forks') as s, s.chain('c') as c, c.step('all'):\n"
        "    forking = multiprocessing.get_context('fork')\n"
        "    workers = [forking.Process(target=part, args=(n,)) for n in range(3)]\n"
        "    [worker.start() for worker in workers]\n"
        "    [worker.join() for worker in workers]\n"
        "    assert [worker.exitcode for worker in workers] == [0, 0, 0]\n"
        "print(s.id)",
        server,
    )
    assert (done.returncode, done.stderr) == (0, "")
    state = watch(done.stdout.strip()).wait(lambda state: state_of(state) == "succeeded")
    (whole,) = [step for step in state.steps.values() if step.name == "all"]
    parts = [step for step in state.steps.values() if step.name == "part"]
    assert [step.state for step in parts] == ["succeeded"] * 3
    assert {step.parent for step in parts} == {whole.id}
    assert len({step.producer for step in parts}) == 3
    assert all(producer.closed for producer in state.producers.values())


def test_a_spawned_worker_joins_by_the_environment(
    server: EmbeddedServer, watch: Callable[[str], Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = server.token(sub="bob", role="publish", sessions=("*",))
    with wm.session("parent", url=server.url, token=token) as session:
        assert session.flush(10)
        for name, value in session.environment().items():
            monkeypatch.setenv(name, value)
        done = run_program(
            "import wsmonitor as wm\nwith wm.join() as s, s.chain('worker') as c, c.step('part'):\n    pass",
            server,
        )
        assert (done.returncode, done.stderr) == (0, "")
        watcher = watch(session.id)
        state = watcher.wait(lambda state: any(step.name == "part" for step in state.steps.values()))
        assert state_of(state) == "running"
    watcher.wait(lambda state: state_of(state) == "succeeded")


def test_a_server_that_lost_everything_is_told_it_again() -> None:
    key = "k" * 40
    with contextlib.ExitStack() as stack:
        with EmbeddedServer.in_thread(key=key) as old:
            port = old.port
            token = old.token(sub="bob", role="publish", sessions=("*",))
            session = stack.enter_context(wm.session("long", url=old.url, token=token))
            with session.chain("c") as chain, chain.step("done") as done:
                done.output = "y" * 9_000
            running = session.step("now").start()
            assert session.flush(10)
        # Another store on the same port: it knows nothing of what was confirmed.
        new = stack.enter_context(EmbeddedServer.in_thread(key=key, port=port))
        running.progress(3, 10)
        watcher = Watcher(new, session.id)
        stack.callback(watcher.connection.close)
        state = watcher.wait(lambda state: len(state.steps) == 2 and state_of(state) == "running")
        assert {step.name: step.state for step in state.steps.values()} == {
            "done": "succeeded",
            "now": "running",
        }
        value = state.steps[done.id].output
        assert value is not None
        assert watcher.connection.fetch_value(session.id, value.sha256).result(10).data == b"y" * 9_000
        running.end()
        session.end()
        watcher.wait(lambda state: state_of(state) == "succeeded")
        assert session.flush(10)
