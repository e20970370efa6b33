"""kill -9 of the server, and of producers, at random moments under load."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from .account import Figures, Ledger, stored
from .producer import Task, arguments
from .server import ROOT, TIMING, ServerProcess, environment
from .watching import PATIENCE, Watch

RATE: Final = 150.0
"""Changes a second of each producer."""

_EARLY: Final = 0.2
"""The share of kills that come while the server still starts, or its clients come back."""

Log = Callable[[str], None]


class Program:
    """A producer's process.

    Args:
        server: where it publishes.
        first: the number of its first change.
        handshake_timeout: seconds that an attempt to connect may take.
    """

    def __init__(
        self,
        server: ServerProcess,
        account: Path,
        session: str,
        producer: str,
        *,
        owner: bool = False,
        first: int = 1,
        rate: float = RATE,
        handshake_timeout: float = TIMING["handshake_timeout"],
    ) -> None:
        self.session = session
        self.producer = producer
        self.account = account
        task = Task(
            url=server.url,
            token=server.token(producer, "publish"),
            session=session,
            producer=producer,
            owner=owner,
            first=first,
            rate=rate,
            account=str(account),
            healthy_after=TIMING["healthy_after"],
            handshake_timeout=handshake_timeout,
        )
        self.process = subprocess.Popen(
            [sys.executable, *arguments(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(),
        )
        assert self.process.stdin is not None
        self.process.stdin.write(task.token + "\n")
        self.process.stdin.flush()

    def ready(self) -> None:
        """Wait until it is about to publish."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> Ledger:
        """kill -9; what it has on its account."""
        self.process.kill()
        self.process.communicate()
        return Ledger.read(self.account)

    def stop(self) -> dict[str, Any]:
        """Let it publish what it has left, and end; what it says of that."""
        out, _ = self.process.communicate("stop\n", timeout=3 * PATIENCE)
        told: dict[str, Any] = json.loads(out)
        return told

    def close(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def settle(figures: Figures, programs: list[Program]) -> None:
    """Let *programs* end, each with everything acknowledged."""
    for program in programs:
        told = program.stop()
        figures.acknowledged += told["acked"]
        assert told["flushed"], f"{program.producer} could not publish what it had: {told}"
        assert told["acked"] == told["submitted"], told
        assert not told["trouble"], told


def conclude(figures: Figures, server: ServerProcess, watches: list[Watch]) -> None:
    """Traffic has stopped: everybody agrees, also with what the file has after a proper end."""
    sessions = {watch.session for watch in watches}
    kept = {session: stored(server.database, session) for session in sessions}
    for watch in watches:
        head = kept[watch.session].head
        watch.wait(
            lambda one, head=head: one.subscription.phase == "live" and one.seen >= head,  # type: ignore[misc]
            f"the end, seq {head}",
        )
    assert server.stop() == 0, server.words()[-2000:]
    figures.agree(watches, {session: stored(server.database, session) for session in sessions})


def kill_servers(folder: Path, rounds: int, seed: int, log: Log = lambda _: None) -> Figures:
    """Kill the server *rounds* times while three producers publish into two sessions that four watch."""
    rng = random.Random(seed)
    pause = threading.Event()
    figures = Figures("kill -9 of the server")
    with ExitStack() as stack:
        server = stack.enter_context(ServerProcess(folder / "server"))
        places = {"p0": "s~0", "p1": "s~0", "p2": "s~1"}
        watches = [Watch(server, f"s~{n % 2}", f"o{n}") for n in range(4)]
        for watch in watches:
            stack.callback(watch.close)
            watch.wait(lambda one: one.subscription.phase == "absent", "the first sync")
        accounts = {name: folder / f"{name}.account" for name in places}
        ledgers = {
            session: {name: accounts[name] for name, place in places.items() if place == session}
            for session in ("s~0", "s~1")
        }
        programs = [
            Program(server, accounts[name], session, name, owner=name != "p1")
            for name, session in places.items()
        ]
        for program in programs:
            stack.callback(program.close)
            program.ready()
        for watch in watches:
            watch.wait(lambda one: one.seen > 100, "the first hundred events")
        while figures.rounds < rounds:
            early = rng.random() < _EARLY
            pause.wait(rng.uniform(0.02, 1.0))
            killed = time.monotonic()
            server.kill()
            figures.rounds += 1
            figures.check_stored(server.database, watches, ledgers)
            server.begin()
            if early and figures.rounds < rounds:
                # While it starts, or while its clients come back.
                pause.wait(rng.uniform(0.0, 1.5))
                server.kill()
                figures.rounds += 1
                figures.check_stored(server.database, watches, ledgers)
                server.begin()
            server.listening()
            begun = time.monotonic()
            for watch in watches:
                watch.wait_past(server.started_ns)
            now = time.monotonic()
            figures.time("from the kill to everybody current", now - killed)
            figures.time("from listening again to everybody current", now - begun)
            log(f"{figures.rounds}/{rounds} {now - killed:.2f} s {figures.violations} violations")
        settle(figures, programs)
        conclude(figures, server, watches)
        for watch in watches:
            figures.judge(watch, {name: [path] for name, path in ledgers[watch.session].items()})
    return figures


class _Runs:
    """The runs of the producers of one session, with the account of each."""

    def __init__(self, server: ServerProcess, folder: Path, session: str, stack: ExitStack) -> None:
        self.accounts: dict[str, list[Path]] = {}
        self._server = server
        self._folder = folder
        self._session = session
        self._stack = stack

    def begin(self, producer: str, *, owner: bool = False) -> Program:
        """Another run of *producer*; its numbers go on behind what the runs before were going to submit."""
        paths = self.accounts.setdefault(producer, [])
        first = self.submitted(producer) + 1
        paths.append(self._folder / f"{producer}.{len(paths)}.account")
        program = Program(self._server, paths[-1], self._session, producer, owner=owner, first=first)
        self._stack.callback(program.close)
        return program

    def submitted(self, producer: str) -> int:
        """The last number that any run of *producer* was going to submit."""
        return max((Ledger.read(path).submitted for path in self.accounts[producer]), default=0)


def kill_producers(folder: Path, rounds: int, seed: int, log: Log = lambda _: None) -> Figures:
    """Kill one of a session's two workers, *rounds* times; by turns the same one comes back, or another."""
    rng = random.Random(seed)
    pause = threading.Event()
    figures = Figures("kill -9 of a producer")
    with ExitStack() as stack:
        server = stack.enter_context(ServerProcess(folder / "server"))
        watches = [Watch(server, "s~0", f"o{n}") for n in range(3)]
        for watch in watches:
            stack.callback(watch.close)
            watch.wait(lambda one: one.subscription.phase == "absent", "the first sync")
        runs = _Runs(server, folder, "s~0", stack)
        steady = runs.begin("steady", owner=True)
        workers = [runs.begin(f"w{slot}.0") for slot in range(2)]
        for program in (steady, *workers):
            program.ready()
        gone: list[str] = []
        while figures.rounds < rounds:
            slot = rng.randrange(2)
            victim = workers[slot]
            for watch in watches:
                watch.wait_beyond(victim.producer, 0)
            pause.wait(rng.uniform(0.0, 0.6))
            killed = time.monotonic()
            victim.kill()
            figures.rounds += 1
            for watch in watches:
                watch.wait_not_live(victim.producer)
            figures.time("from the kill to every observer showing it", time.monotonic() - killed)
            if rng.random() < 0.5:
                heard = runs.submitted(victim.producer)
                successor = runs.begin(victim.producer)
            else:
                gone.append(victim.producer)
                heard = 0
                successor = runs.begin(f"w{slot}.{figures.rounds}")
            workers[slot] = successor
            successor.ready()
            for watch in watches:
                watch.wait_beyond(successor.producer, heard)
            figures.time("from the kill to its successor's first change", time.monotonic() - killed)
            log(f"{figures.rounds}/{rounds} {figures.violations} violations")
        # What is gone for good is declared so, and nothing else is.
        for watch in watches:
            watch.wait(
                lambda one: all(one.snapshot().chains[name].state == "crashed" for name in gone),
                "what was killed for good has crashed",
            )
            figures.check_crashed(watch, gone)
        settle(figures, [steady, *workers])
        conclude(figures, server, watches)
        figures.acknowledged = sum(
            Ledger.read(path).acked for paths in runs.accounts.values() for path in paths
        )
        for watch in watches:
            figures.judge(watch, dict(runs.accounts), killed=True)
    return figures
