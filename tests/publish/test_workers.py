"""Pause and cancel of a session, chain or step reach the processes that work beneath it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wsmonitor.protocol.entities import Command
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.embedded import EmbeddedServer

from .test_real_server import ROOT, Watcher, state_of

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="not here: this platform has no fork")

WORK = (
    "import multiprocessing, os, subprocess, sys, time, wsmonitor as wm\n"
    "from concurrent.futures import ProcessPoolExecutor\n"
    "from multiprocessing.pool import ThreadPool\n"
    "forking = multiprocessing.get_context('fork')\n"
    "def endless():\n"
    "    while True:\n"
    "        yield 1\n"
    "        time.sleep(0.005)\n"
    "@wm.step\n"
    "def part(number):\n"
    "    for _ in wm.track(endless()):\n"
    "        pass\n"
)


class Program:
    """A program of its own, and its session as an observer sees it."""

    def __init__(self, server: EmbeddedServer, body: str, path: Path) -> None:
        token = server.token(sub="bob", role="publish", sessions=("*",))
        self._stderr = (path / "stderr").open("w+")
        self.environ = {
            **os.environ,
            "WSMONITOR_URL": server.url,
            "WSMONITOR_TOKEN": token,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "server")]),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORK + body],
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        assert self.process.stdout is not None
        self.id = self.process.stdout.readline().strip()
        assert self.id, self.stderr()
        self.watcher = Watcher(server, self.id)

    def wait(self, condition: Callable[[SessionState], bool]) -> SessionState:
        """The first state of which *condition* holds."""
        return self.watcher.wait(condition)

    def parts(self, state: str, count: int) -> SessionState:
        """Wait until *count* parts are in *state*."""
        return self.wait(
            lambda now: [step.state for step in now.steps.values() if step.name == "part"] == [state] * count
        )

    def command(self, name: str, **target: Any) -> str:
        """Ask for a command, as soon as it is offered; its id."""
        # A worker's step asks before the session's own process has heard that somebody may be asked.
        self.wait(lambda now: now.session is not None and name in {one.name for one in now.session.commands})
        reply = self.watcher.connection.command(self.id, name, **target).result(10)
        return reply.id if isinstance(reply, Command) else reply.command.id

    def end(self) -> int:
        """Wait for the program's end; its exit status."""
        return self.process.wait(20)

    def stderr(self) -> str:
        """What it wrote there."""
        self._stderr.seek(0)
        return self._stderr.read()

    def close(self) -> None:
        """End it, whatever it does."""
        self.watcher.connection.close()
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self._stderr.close()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    with EmbeddedServer.in_thread() as server, contextlib.ExitStack() as stack:

        def begin(body: str) -> Program:
            program = Program(server, body, tmp_path)
            stack.callback(program.close)
            return program

        yield begin


POOLS = {
    "executor": (
        "    with ProcessPoolExecutor(2, mp_context=forking) as pool:\n"
        "        list(pool.map(part, range(2)))\n"
    ),
    "pool": "    with forking.Pool(2) as pool:\n        pool.map(part, range(2))\n",
    "threads": "    with ThreadPool(2) as pool:\n        pool.map(wm.wrap(part), range(2))\n",
}


@pytest.mark.parametrize("pool", list(POOLS))
def test_a_chain_that_workers_work_for_is_paused_resumed_and_cancelled(
    run: Callable[[str], Program], pool: str
) -> None:
    program = run(
        f"with wm.session('pools') as s, s.chain('c') as c:\n    print(s.id, flush=True)\n{POOLS[pool]}"
    )
    state = program.parts("running", 2)
    (chain,) = state.chains
    program.command("pause", chain=chain)
    program.parts("paused", 2)
    program.command("resume", chain=chain)
    program.parts("running", 2)
    ident = program.command("cancel", chain=chain)
    assert program.end() == 1
    state = program.wait(lambda now: state_of(now) == "cancelled")
    assert {step.state for step in state.steps.values()} == {"cancelled"}
    assert {step.reason for step in state.steps.values()} == {"cancelled by alice"}
    assert (state.commands[ident].state, state.chains[chain].state) == ("applied", "cancelled")
    assert program.stderr().rstrip().endswith("Cancelled: cancelled by alice")
    assert not state.problems


def test_a_worker_that_joins_while_the_session_is_paused_waits_at_its_first_point(
    run: Callable[[str], Program],
) -> None:
    program = run(
        "with wm.session('joins') as s, s.step('first') as first:\n"
        "    print(s.id, flush=True)\n"
        "    first.checkpoint(approve='go on?')\n"
        "    print('went on', flush=True)\n"
    )
    state = program.wait(lambda now: any(step.state == "awaiting_input" for step in now.steps.values()))
    (first,) = state.steps
    ident = program.command("pause")
    program.wait(lambda now: now.commands[ident].state == "applied")
    worker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, threading, wsmonitor as wm\n"
            "inside = threading.Event()\n"
            "def token():\n"  # a worker that knew before would wait where its chain begins, and tell nothing
            "    inside.wait()\n"
            "    return os.environ['WSMONITOR_TOKEN']\n"
            "with wm.join(token=token) as s, s.chain('w') as c, c.step('part') as p:\n"
            "    inside.set()\n"
            "    s.flush(10)\n"  # from here on it knows
            "    p.checkpoint()\n",
        ],
        env={**program.environ, "WSMONITOR_SESSION": program.id},
    )
    try:
        program.parts("paused", 1)
        program.command("approve", step=first)
        # The answer does not lift the pause.
        program.wait(lambda now: now.steps[first].state == "paused")
        program.command("resume")
        program.parts("succeeded", 1)
        assert worker.wait(20) == 0
    finally:
        worker.kill()
        worker.wait()
    assert program.end() == 0


def test_nobody_waits_for_a_pause_whose_session_has_ended(run: Callable[[str], Program]) -> None:
    program = run(
        "def some():\n"
        "    while not wm.current_session()._run.control.attention:\n"
        "        yield 1\n"
        "        time.sleep(0.005)\n"
        "@wm.step\n"
        "def part():\n"
        "    for _ in wm.track(some()):\n"
        "        pass\n"
        "    wm.checkpoint()\n"
        "with wm.session('orphans') as s:\n"
        "    print(s.id, flush=True)\n"
        "    worker = forking.Process(target=part)\n"
        "    worker.start()\n"
        "    sys.stdin.readline()\n"
        "worker.join()\n"
        "print('joined', worker.exitcode, flush=True)\n"
    )
    program.parts("running", 1)
    program.command("pause")
    program.parts("paused", 1)
    assert program.process.stdin is not None
    program.process.stdin.write("\n")
    program.process.stdin.flush()
    assert program.end() == 0
    assert program.process.stdout is not None
    assert program.process.stdout.read() == "joined 0\n"
    program.parts("succeeded", 1)


def test_a_command_for_a_workers_own_step_is_the_workers(run: Callable[[str], Program]) -> None:
    program = run(
        "with wm.session('own') as s, s.chain('c') as c:\n"
        "    print(s.id, flush=True)\n"
        "    worker = forking.Process(target=part, args=(1,))\n"
        "    worker.start()\n"
        "    worker.join()\n"
    )
    state = program.parts("running", 1)
    (step,) = state.steps
    ident = program.command("cancel", step=step)
    assert program.end() == 0
    state = program.wait(lambda now: state_of(now) == "succeeded")
    assert (state.steps[step].state, state.commands[ident].state) == ("cancelled", "applied")


def test_a_question_of_a_workers_step_can_be_answered(run: Callable[[str], Program]) -> None:
    program = run(
        "def work():\n"
        "    with wm.current_session().chain('w') as c, c.step('part') as p:\n"
        "        p.output = p.ask('which?').value\n"
        "with wm.session('asks') as s:\n"
        "    print(s.id, flush=True)\n"
        "    worker = forking.Process(target=work)\n"
        "    worker.start()\n"
        "    worker.join()\n"
    )
    state = program.parts("awaiting_input", 1)
    (step,) = state.steps
    ident = program.command("input", step=step, args={"value": "blue"})
    assert program.end() == 0
    state = program.wait(lambda now: state_of(now) == "succeeded")
    output = state.steps[step].output
    assert output is not None
    assert (output.text, state.commands[ident].state) == ("blue", "applied")
