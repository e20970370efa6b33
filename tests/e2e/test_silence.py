"""A real program that stands still: it is shown as such, and as back when it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsmonitor.client import Target, connect
from wsmonitor.protocol.defaults import Timing
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.embedded import EmbeddedServer

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
SHORT = Timing(
    heartbeat_interval=0.2,
    heartbeat_timeout=1.0,
    producer_stale=0.5,
    producer_lost=1.0,
    producer_crashed=1.0,
)

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "SIGSTOP"), reason="not here: no SIGSTOP on this platform"
)

PROGRAM = """
import ctypes, sys, wsmonitor as wm
with wm.session("silent") as session, session.step("long") as step:
    print(session.id, flush=True)
    for line in sys.stdin:
        if line.strip() == "hold":
            # PyDLL calls without letting go of the interpreter: no other thread runs.
            ctypes.PyDLL(None).usleep(3_000_000)
        elif line.strip() == "end":
            break
        step.log(line.strip())
"""


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer.in_thread(timing=SHORT) as running:
        yield running


def states(state: SessionState) -> tuple[str, str, str]:
    """Of the session, its step, and how its producer is heard."""
    (step,) = state.steps.values()
    (producer,) = state.producers.values()
    assert state.session is not None
    return state.session.state, step.state, producer.liveness


def line(state: SessionState) -> str:
    """The last line of the step's log."""
    return next(iter(state.steps.values())).log_last


@pytest.mark.parametrize("how", ["stopped", "GIL held"])
def test_a_program_that_stands_still_for_a_while_is_back_when_it_is_back(
    server: EmbeddedServer, how: str
) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={
            **os.environ,
            "WSMONITOR_URL": server.url,
            "WSMONITOR_TOKEN": server.token(sub="bob", role="publish", sessions=("*",)),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "server")]),
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    observer = Target(url=server.url, token=server.token(sub="o", role="observe", sessions=("*",)))
    try:
        assert program.stdout is not None
        assert program.stdin is not None
        session = program.stdout.readline().strip()
        with connect(observer) as link:
            watching = link.subscribe(session)

            def until(wanted: tuple[str, str, str]) -> None:
                watching.wait(
                    lambda one: one.phase == "live" and bool(one.state.steps) and states(one.state) == wanted,
                    PATIENCE,
                )

            running = ("running", "running", "live")
            until(running)
            if how == "stopped":
                program.send_signal(signal.SIGSTOP)
                until(("crashed", "crashed", "lost"))
                program.send_signal(signal.SIGCONT)
            else:
                # Longer than all the times above. Where the server itself stands still meanwhile,
                # nobody may notice, and that is right as well.
                program.stdin.write("hold\n")
                program.stdin.flush()
                watching.wait(lambda one: bool(one.state.steps) and line(one.state) == "hold", PATIENCE)
            until(running)
            _, errors = program.communicate("still here\nend\n", timeout=PATIENCE)
            assert program.returncode == 0, errors
            until(("succeeded", "succeeded", "live"))
            assert line(watching.state) == "still here"
    finally:
        program.kill()
        program.communicate()
