"""What a program could not deliver while the server was away is delivered once, whatever happened to it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.scale import many
from wsmonitor.client import Target, connect
from wsmonitor.client.spools import Found, find
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.auth import issue

ROOT = Path(__file__).parents[2]
KEY = b"k" * 64
PATIENCE = 60.0

# Each step has one line of log: a change that was taken twice would make it two.
PROGRAM = """
import sys, wsmonitor as wm
count, ends = int(sys.argv[1]), sys.argv[2]
session = wm.session("away").start()
chain = session.chain("c").start()
for number in range(count):
    with chain.step(f"s{number}") as step:
        step.log(str(number))
print(session.id, session.unacknowledged, flush=True)
if ends == "waits":
    sys.stdin.readline()
if ends != "open":
    session.end("succeeded")
"""


def eventually(condition: Callable[[], Any], what: str = "") -> Any:
    deadline, pause = time.monotonic() + PATIENCE, threading.Event()
    while not (found := condition()):
        assert time.monotonic() < deadline, what or "it did not happen in time"
        pause.wait(0.02)
    return found


def free_port() -> int:
    """A port below those that the system gives out by itself: nobody else gets it before the server does."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class World:
    """A machine with a home for spools, a port at which the server is or is not, and programs."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.home = folder / "home"
        self.data = folder / "server"
        self.data.mkdir()
        (self.data / "key").write_bytes(KEY)
        (self.data / "key").chmod(0o600)
        self._stack = stack
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}"
        self.environ = {
            **{name: value for name, value in os.environ.items() if name != "CI"},
            "WSMONITOR_HOME": str(self.home),
            "WSMONITOR_URL": self.url,
            "WSMONITOR_TOKEN": self.token("program"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "server")]),
            "PYTHONWARNINGS": "ignore",  # that there is no server is what is tested
        }

    @staticmethod
    def token(sub: str) -> str:
        return issue(KEY, sub=sub, role="admin", sessions=["*"], issued=int(time.time()), ttl=3600, jti=sub)

    def start(self, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *command],
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._stack.callback(self.end, process)
        return process

    @staticmethod
    def end(process: subprocess.Popen[str]) -> None:
        process.kill()
        process.communicate()

    def serve(self) -> subprocess.Popen[str]:
        store = f"sqlite:{self.data / 'store.sqlite3'}"
        server = self.start(
            "-m", "wsmonitor_server", "--port", str(self.port), "--data-dir", str(self.data), "--store", store
        )
        assert server.stdout is not None
        assert server.stdout.readline().startswith("wsmonitor listens at")
        return server

    def publish(self, count: int, ends: str) -> tuple[subprocess.Popen[str], str, int]:
        """A program that publishes *count* steps; its session, and how many changes wait in it then."""
        program = self.start("-c", PROGRAM, str(count), ends)
        assert program.stdout is not None
        ident, waiting = program.stdout.readline().split()
        return program, ident, int(waiting)

    def spools(self) -> list[Found]:
        return find(self.home / "spool")

    def waiting(self) -> int:
        """How many changes lie in spools."""
        return sum(one.changes for one in self.spools())

    def all_on_disk(self, changes: int) -> Found:
        """Wait until so many changes are on disk."""
        eventually(lambda: self.waiting() >= changes)
        return self.spools()[0]

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "wsmonitor", *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def flush(self) -> dict[str, Any]:
        """Run ``wsmonitor spool flush``; what became of the one spool."""
        done = self.command("spool", "flush", "--json", "--timeout", f"{PATIENCE}s")
        assert done.returncode == 0, done.stderr
        (outcome,) = json.loads(done.stdout)["flushed"]
        return dict(outcome)

    def state(self, session: str, holds: Callable[[SessionState], bool]) -> SessionState:
        """The session as an observer sees it, once *holds*."""
        with connect(Target(url=self.url, token=self.token("observer"))) as link:
            watching = link.subscribe(session)
            watching.wait(lambda one: one.phase == "live" and holds(one.state), PATIENCE)
            found = watching.snapshot()
        assert found is not None
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, stack)


def complete(count: int) -> Callable[[SessionState], bool]:
    return lambda state: (
        len(state.steps) == count and all(s.state == "succeeded" for s in state.steps.values())
    )


def assert_once(state: SessionState, count: int) -> None:
    """All steps are there, each with its one line; nothing was refused, nothing left out."""
    assert {step.log_last for step in state.steps.values()} == {str(number) for number in range(count)}
    assert {step.log_count for step in state.steps.values()} == {1}
    assert not state.problems


@pytest.mark.timeout(900)  # with --all
@pytest.mark.parametrize("deaths", [0, 2])
def test_what_a_killed_program_left_is_delivered_once(world: World, deaths: int) -> None:
    count = many(1700)  # with --all more than 100,000 changes: three for each step
    program, session, waiting = world.publish(count, "waits")
    spool = world.all_on_disk(waiting)
    assert (spool.state, spool.facts and spool.facts.session) == ("in use", session)
    world.end(program)
    assert [one.state for one in world.spools()] == ["left"]
    world.serve()
    for _ in range(deaths):
        # Nor does it matter when the one that delivers is killed.
        before = world.waiting()
        flushing = world.start("-m", "wsmonitor", "spool", "flush")
        if not before:
            break  # a machine so fast that the one before had delivered all
        eventually(lambda before=before: world.waiting() < before)  # type: ignore[misc]
        world.end(flushing)
    if world.waiting():
        outcome = world.flush()
        assert (outcome["refused"], outcome["left"], outcome["problem"]) == (0, 0, "")
    state = world.state(session, complete(count))
    assert_once(state, count)
    # The program did not end in order: it is the server that judges what it left open.
    assert state.session is not None
    assert (state.session.state, [one.closed for one in state.producers.values()]) == ("running", [False])
    assert world.spools() == []
    assert world.command("spool").stdout.startswith("nothing waits in ")


@pytest.mark.timeout(900)  # with --all
def test_a_program_that_is_killed_while_it_delivers(world: World) -> None:
    count = many(1500)
    program, session, waiting = world.publish(count, "waits")
    world.all_on_disk(waiting)
    world.serve()
    with connect(Target(url=world.url, token=world.token("observer"))) as link:
        watching = link.subscribe(session)
        watching.wait(lambda one: one.state is not None and len(one.state.steps) > 0, PATIENCE)
        world.end(program)
    if world.spools():
        world.flush()
    assert_once(world.state(session, complete(count)), count)


def test_a_program_that_lives_on_delivers_by_itself_and_leaves_nothing(world: World) -> None:
    count = many(500)
    program, session, waiting = world.publish(count, "waits")
    world.all_on_disk(waiting)
    refused = world.command("spool", "flush", session)
    assert refused.returncode == 1
    assert "still running [spool_in_use]" in refused.stderr
    world.serve()
    assert_once(world.state(session, complete(count)), count)
    eventually(lambda: world.spools() == [])
    _, errors = program.communicate("\n", timeout=PATIENCE)
    assert (program.returncode, errors) == (0, "")


@pytest.mark.parametrize("ends", ["succeeded", "open"])
def test_a_program_that_ends_while_the_server_is_away_says_so_and_ends_properly_later(
    world: World, ends: str
) -> None:
    program, session, _ = world.publish(20, ends)
    _, errors = program.communicate(timeout=PATIENCE)
    assert program.returncode == 0
    told = re.fullmatch(
        r"wsmonitor: (\d+) changes had not reached the server when the program ended: "
        r"nothing listens at \S+\n"
        r"  \1 changes kept in (.+); `wsmonitor spool flush` delivers them\n",
        errors,
    )
    assert told is not None, errors
    assert told[2] == str(world.home / "spool")
    (spool,) = world.spools()
    assert (spool.changes, spool.state) == (int(told[1]), "left")
    assert (world.home / "spool").stat().st_mode & 0o777 == 0o700
    assert {one.stat().st_mode & 0o777 for one in (world.home / "spool").iterdir()} == {0o600}
    world.serve()
    world.flush()
    state = world.state(session, lambda state: all(one.closed for one in state.producers.values()))
    assert_once(state, 20)
    assert state.session is not None
    # Nothing is left for the server to take for lost.
    assert state.session.state == ("succeeded" if ends == "succeeded" else "cancelled")


def test_a_server_that_accepts_and_never_answers_delays_the_end_hardly(world: World) -> None:
    with socket.create_server(("127.0.0.1", world.port)):
        program, _, _ = world.publish(20, "succeeded")
        _, errors = program.communicate(timeout=PATIENCE)
    assert program.returncode == 0
    assert "`wsmonitor spool flush` delivers them" in errors
    assert world.spools()[0].changes > 0


def test_without_a_spool_what_is_left_is_counted_as_lost(world: World) -> None:
    world.environ["WSMONITOR_SPOOL"] = "off"
    program, _, _ = world.publish(2, "succeeded")
    _, errors = program.communicate(timeout=PATIENCE)
    assert "changes had not reached the server" in errors
    assert "kept" not in errors
    assert not (world.home / "spool").exists()


def test_a_flush_without_a_server_keeps_everything_and_says_why(world: World) -> None:
    program, session, _ = world.publish(5, "succeeded")
    program.communicate(timeout=PATIENCE)
    (before,) = world.spools()
    done = world.command("spool", "flush", "--timeout", "1s")
    assert done.returncode == 3
    assert f"wsmonitor: {session}: nothing listens at {world.url}" in done.stderr
    assert world.spools()[0].changes == before.changes
    listed = json.loads(world.command("spool", "status", "--json").stdout)["spools"]
    assert [(one["session"], one["changes"], one["state"]) for one in listed] == [
        (session, before.changes, "left")
    ]
    assert world.command("spool", "rm", session, "--yes").stdout == "removed 1 spool\n"
    assert world.spools() == []


def test_large_values_are_kept_too_and_no_secret_reaches_the_disk(world: World) -> None:
    program = world.start(
        "-c",
        "import sys, wsmonitor as wm\n"
        "with wm.session('values') as s, s.step('big') as step:\n"
        "    step.input = {'api_key': 'sk-planted-0123456789abcdef', 'url': 'http://u:hunter22@h/'}\n"
        "    step.output = 'x' * 1_000_000\n"
        "print(s.id, flush=True)\n"
        "sys.stdin.readline()\n",
    )

    def stored() -> bytes:
        found = b""
        for one in (world.home / "spool").glob("*"):
            with contextlib.suppress(FileNotFoundError):  # what SQLite has beside it comes and goes
                found += one.read_bytes()
        return found

    assert program.stdout is not None
    session = program.stdout.readline().strip()
    # Not at its end, for which a program does not wait long, however slow the disk is.
    eventually(lambda: b"x" * 3000 in stored())
    program.communicate("\n", timeout=PATIENCE)
    assert b"planted" not in stored()
    assert b"hunter22" not in stored()
    world.serve()
    world.flush()
    state = world.state(session, lambda state: len(state.steps) == 1)
    (step,) = state.steps.values()
    assert step.output is not None
    assert step.output.size == 1_000_000
    with connect(Target(url=world.url, token=world.token("observer"))) as link:
        page = link.fetch_value(session, step.output.sha256, offset=step.output.size - 10).result(PATIENCE)
    assert page.data.rstrip(b'"') == b"x" * len(page.data.rstrip(b'"'))
    assert page.total == step.output.size


def test_a_damaged_spool_is_told_and_set_aside(world: World) -> None:
    program, _, _ = world.publish(5, "succeeded")
    program.communicate(timeout=PATIENCE)
    (spool,) = world.spools()
    torn = spool.path.read_bytes()
    spool.path.write_bytes(torn[: len(torn) // 3])
    world.serve()
    done = world.command("spool", "flush")
    assert done.returncode == 1
    assert "[spool_damaged]" in done.stderr
    assert "set aside" in done.stderr
    (aside,) = world.spools()
    assert (aside.state, aside.path.name) == ("damaged", f"{spool.path.name}.damaged")
    assert "damaged" in world.command("spool").stdout
    assert world.command("spool", "rm", aside.id, "--yes").returncode == 0
    assert world.spools() == []


def test_what_another_process_has_taken_over_is_not_delivered_in_its_name(world: World) -> None:
    program, session, _ = world.publish(5, "waits")
    server = world.serve()
    world.state(session, complete(5))
    world.end(server)
    assert program.stdin is not None
    program.communicate("\n", timeout=PATIENCE)
    (left,) = world.spools()
    assert left.changes > 0
    world.serve()
    other = world.start(
        "-c",
        f"import wsmonitor as wm\nwith wm.session('away', resume={session!r}) as s, s.chain('late'): pass",
    )
    assert other.communicate(timeout=PATIENCE) == ("", "")
    done = world.command("spool", "flush")
    assert done.returncode == 1
    assert "another process has taken the session over [fenced]" in done.stderr
    state = world.state(session, lambda state: state.session is not None and state.session.ended != "")
    assert len(state.chains) == 2


def test_a_program_and_its_forked_workers_have_spools_of_their_own(world: World) -> None:
    program = world.start(
        "-c",
        "import os, sys, wsmonitor as wm\n"
        "with wm.session('forks') as s, s.chain('c') as c, c.step('outer') as outer:\n"
        "    for number in range(50):\n"
        "        with outer.step('mine') as step: step.log(f'm{number}')\n"
        "    for worker in range(3):\n"
        # In the middle of writing to the parent's spool.
        "        while not s._run.channel._publication._machine.spool.kept: pass\n"
        "        if not os.fork():\n"
        "            for number in range(50):\n"
        "                with outer.step('theirs') as step: step.log(f'{worker}.{number}')\n"
        "            sys.exit(0)\n"
        "    for worker in range(3): os.wait()\n"
        "print(s.id)\n",
    )
    out, errors = program.communicate(timeout=PATIENCE)
    assert program.returncode == 0, errors
    session = out.strip()
    spools = world.spools()
    assert [one.state for one in spools] == ["left"] * 4
    assert {one.facts and one.facts.session for one in spools} == {session}
    world.serve()
    done = world.command("spool", "flush")
    assert (done.returncode, done.stderr) == (0, "")
    assert "refused" not in done.stdout
    state = world.state(session, lambda state: all(one.closed for one in state.producers.values()))
    assert state.session is not None
    assert state.session.state == "succeeded"
    lines = sorted(step.log_last for step in state.steps.values() if step.name != "outer")
    assert lines == sorted([f"m{n}" for n in range(50)] + [f"{w}.{n}" for w in range(3) for n in range(50)])
    assert {step.log_count for step in state.steps.values() if step.name != "outer"} == {1}
    assert not state.problems


RESUME = """
import sys, wsmonitor as wm
with wm.session("away", resume=sys.argv[1]) as session, session.chain(sys.argv[2]):
    print("begun", flush=True)
    sys.stdin.readline()
"""


def test_a_flush_does_not_take_a_session_from_who_publishes_it_now(world: World) -> None:
    server = world.serve()
    program, session, _ = world.publish(1, "waits")
    world.state(session, complete(1))
    world.end(program)
    world.end(server)
    # It resumes the session, never gets through, and is killed; then another one does.
    second = world.start("-c", RESUME, session, "second")
    world.all_on_disk(2)
    world.end(second)
    world.serve()
    third = world.start("-c", RESUME, session, "third")
    world.state(session, lambda state: any(chain.name == "third" for chain in state.chains.values()))
    done = world.command("spool", "flush")
    assert done.returncode == 1
    assert "another process publishes this session now" in done.stderr
    assert len(world.spools()) == 1
    _, errors = third.communicate("\n", timeout=PATIENCE)
    assert (third.returncode, errors) == (0, "")
    # Now nobody does.
    assert world.flush()["refused"] == 2  # the session has ended: nothing more is taken
    state = world.state(session, lambda state: len(state.chains) > 1)
    assert {chain.name for chain in state.chains.values()} == {"c", "third"}
