"""No false crash that stays: programs that fall silent for a while, in every way, are shown as back.

The real server and the real SDK on a virtual clock (see `tests.simulation`). A crash is declared where it has
to be, after the grace; when the program turns out to live, it is superseded, and what it does counts.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any, Final

import pytest

from tests.scale import many
from tests.simulation.actors import Issuer, Tokens
from tests.simulation.disk import KeptDisk
from tests.simulation.network import Network
from tests.simulation.oracle import Oracle
from tests.simulation.programs import Program
from tests.simulation.server_host import ServerHost
from tests.simulation.world import World
from wsmonitor.protocol.defaults import Timing
from wsmonitor_server.authority import Authority

PROGRAMS: Final = 10
PAUSES: Final = 5
RECOVERY: Final = 110.0
"""Seconds after a pause until all is well: the heartbeat timeout, the longest reconnect delay, and some."""

SHORT: Final = Timing().producer_lost + Timing().producer_crashed - 60.0
"""Seconds of a pause after which nobody may be declared crashed: the grace, less the heartbeat before and the
longest reconnect delay after it."""

KINDS: Final = ("GIL held", "suspended", "asleep", "network gap", "half open", "reset", "stalled")


class Patient:
    """A program with a step that goes on all the time, and its pauses."""

    def __init__(self, stage: Stage, number: int) -> None:
        self.stage = stage
        self.rng = random.Random(f"{stage.world.seed} {number}")
        self.program = Program(
            stage.world,
            stage.oracle,
            f"program{number}",
            f"host{number}",
            Tokens(stage.issuer, f"user{number}", "publish", ("session-*",), ttl=1e6, renewable=True),
        )
        self.step: Any = None
        self.beats = 0
        self.last_pause = 0.0
        self.program.do(self._begin)

    def _begin(self) -> None:
        self.program.begin()
        self.step = self.program.session.step("long").start()
        self._beat()
        self._pause_later(PAUSES)

    def _beat(self) -> None:
        """It works: a number that grows."""
        self.beats += 1
        self.step.progress(self.beats, None)
        self.program.process.loop.call_later(7.0, self._beat)

    def _pause_later(self, left: int) -> None:
        if left:
            self.stage.world.later(self.rng.uniform(0.0, 40.0), lambda: self._pause(left))

    def _pause(self, left: int) -> None:
        stage, process = self.stage, self.program.process
        kind = self.rng.choice(KINDS)
        length = 10.0 if kind == "GIL held" else self.rng.choice((0.5, 12.0, 30.0, 50.0, 140.0, 200.0, 400.0))
        stage.counts[kind] += 1
        stage.world.note(process.name, f"{kind} for {length:g} s")
        began = stage.world.now
        after = None
        match kind:
            case "GIL held" | "suspended":
                process.suspend()
                after = lambda: process.resume(clock_stood_still=False)  # noqa: E731  # one of several
            case "asleep":
                process.suspend()
                after = lambda: process.resume(clock_stood_still=True)  # noqa: E731
            case "network gap":
                stage.network.part(process.host, "server")
                after = lambda: stage.network.heal(process.host, "server")  # noqa: E731
            case _:
                for connection in list(stage.network.connections):
                    if connection.client.process is process:
                        if kind == "half open":
                            connection.swallow()
                        elif kind == "reset":
                            connection.reset()
                        else:
                            connection.stall(stage.world.now + length)

        def resume() -> None:
            if after is not None:
                after()
            if process.host != "server":
                stage.oracle.resumed(process)
            stage.world.later(RECOVERY, lambda: self._well(kind, began, length, left))

        stage.world.later(length, resume)

    def _well(self, kind: str, began: float, length: float, left: int) -> None:
        """It has been back for a while: everybody must know."""
        stage, session = self.stage, self.program.session
        line = stage.oracle.lines[session.id]
        (producer,) = line.state.producers.values()
        step = line.state.steps[self.step.id]
        told = f"{self.program.name} after {kind} for {length:g} s"
        assert line.state.session is not None, told
        assert (line.state.session.state, step.state, producer.liveness) == ("running", "running", "live"), (
            told
        )
        assert step.progress is not None
        assert step.progress.done >= self.beats - 2, told
        crashes = [when for who, when in stage.crashes if who == session.id and when >= began]
        if length <= SHORT:
            assert not crashes, f"{told} it was declared crashed"
        stage.counts["crashes superseded"] += len(crashes)
        stage.counts["pauses"] += 1
        self._pause_later(left - 1)


class Stage:
    """One world with a server and its programs."""

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World(seed)
        self.network = self.world.network = Network(self.world)
        self.oracle = Oracle(self.world)
        self.issuer = Issuer(self.world)
        self.counts: Counter[str] = Counter()
        self.crashes: list[tuple[str, float]] = []
        self.disk = KeptDisk(self.world, self.oracle, power=False)
        self.host = ServerHost(self.world, self.oracle, self.disk, timing=Timing())
        real = Authority.crash

        def crash(authority: Authority, producer: str, now_ns: int) -> int:
            self.crashes.append((authority.ledger.session, self.world.now))
            return real(authority, producer, now_ns)

        monkeypatch.setattr(Authority, "crash", crash)
        self.host.start()
        self.patients = [Patient(self, number) for number in range(PROGRAMS)]

    def run(self) -> Counter[str]:
        """Until all pauses are over."""
        wanted = PROGRAMS * PAUSES
        assert self.world.run_until(20_000.0, condition=lambda: self.counts["pauses"] == wanted)
        return self.counts

    def close(self) -> None:
        for patient in self.patients:
            patient.program.forget()
        for process in self.world.processes:
            process.discard()
        self.disk.discard()


# 50 pauses each: 300 every day, 6,000 with --all.
@pytest.mark.parametrize("seed", range(many(6)))
def test_after_a_pause_a_program_is_shown_as_what_it_is(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(seed, monkeypatch)
    try:
        counts = stage.run()
    finally:
        stage.close()
    if seed == 0:
        assert set(KINDS) <= set(counts), "some kind never happened"
        # Long silences were taken for what they could have been, and were corrected.
        assert counts["crashes superseded"] > 0
