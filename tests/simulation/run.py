"""One run: from the seed to the verdict."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from wsmonitor.protocol.defaults import Timing

from . import happenings, redis_faults, verdict
from .actors import ADDRESS, PORT, Client, Issuer, Observer, Operator, Publisher, Tokens
from .disk import Disk, KeptDisk, SqliteDisk
from .network import Network
from .node_disk import NodeDisk
from .oracle import Oracle, Violation
from .plan import Happening, Plan, make_plan
from .programs import Flusher, Program
from .redis_host import RedisHost
from .server_host import ServerHost
from .world import Process, World

PEACE: Final = 260.0
"""Seconds after the trouble until everything has to agree: the longest reconnect delay, a lost producer's
grace of 155 s, and some."""

SOON: Final = Timing(producer_lost=20.0, producer_crashed=20.0)
"""Of several servers: each asks Redis four times a second, so virtual time is dear."""

PEACE_OF_NODES: Final = 100.0
"""The same there, where a producer's grace is 40 s."""

TAIL: Final = 60
"""Lines of a trace that a failure shows."""


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        seed: which run.
        violation: the invariant that was broken, and how; None when all is well.
        counts: events, syncs, faults … by kind.
        steps: callbacks that ran.
        seconds: virtual time.
        trace: what happened, as lines.
        print: a digest of the whole trace: the same seed gives the same.
    """

    seed: int
    violation: Violation | None
    counts: Counter[str]
    steps: int
    seconds: float
    trace: list[str] = field(repr=False, default_factory=list)
    print: str = ""

    def report(self, *, whole: bool = False) -> str:
        """For people: what went wrong, and the end of the trace."""
        lines = self.trace if whole else self.trace[-TAIL:]
        left = len(self.trace) - len(lines)
        head = [f"seed {self.seed}: {self.violation or 'all invariants hold'}"]
        if left:
            head.append(f"  ({left} lines before; --trace shows them)")
        return "\n".join([*head, *lines])


def run(seed: int, *, plan: Plan | None = None) -> Outcome:
    """Run *seed* from beginning to end."""
    with tempfile.TemporaryDirectory(prefix="wsmonitor-simulation-") as folder:
        return Simulation(seed, plan or make_plan(seed), Path(folder)).run()


def quiet_run(seed: int, *, shared: bool | None = None) -> Outcome:
    """Run the plan that `make_plan` has for these.

    Without the warnings that a program gets whose server is away, which here is all the time.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run(seed, plan=make_plan(seed, shared=shared))


class Simulation:
    """See the package's text."""

    def __init__(self, seed: int, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self._folder = folder
        self.world = world = World(seed)
        world.network = Network(world)
        world.network.fragment = plan.fragment
        self.oracle = Oracle(world)
        self.issuer = Issuer(world)
        self.disk: Disk
        self.redis: RedisHost | None = None
        self.hosts: list[ServerHost] = []
        if plan.nodes:
            self._nodes()
        else:
            if plan.sqlite:
                self.disk = SqliteDisk(world, self.oracle, folder, power=plan.power)
            else:
                self.disk = KeptDisk(world, self.oracle, power=plan.power)
            self.hosts.append(ServerHost(world, self.oracle, self.disk, timing=Timing()))
        self.observers: list[Observer] = []
        self.publishers: list[Publisher] = []
        self.dead: list[Publisher] = []
        self.programs: list[Program] = []
        self.flushers: list[Flusher] = []
        self.gone: list[Program] = []  # killed
        self.born = 0  # publishers so far
        self.sessions = [f"session-{number}" for number in range(1, plan.sessions + 1)]
        for session in self.sessions:
            self.oracle.secrets[session] = f"secret of {session}.".encode()
        self.keys: list[tuple[str, str]] = []
        self.operator: Operator
        self.peace = False

    # -- the run

    def run(self) -> Outcome:
        """Everything from the beginning to the verdict."""
        violation: Violation | None = None
        with _faults_in_logs(self.oracle), _home(self._folder):
            try:
                self._cast()
                self._trouble()
                self._peace()
                verdict.nothing_remains(self)
            except Violation as exc:
                violation = self.oracle.violation or exc
                self.world.note("oracle", str(violation))
            finally:
                for program in (*self.programs, *self.gone):
                    program.forget()
                for client in self.clients():
                    client.let_go()
                self.world.network.discard()
                for process in self.world.processes:
                    process.discard()
                for host in self.hosts:
                    host.disk.discard()
        trace = [f"{when:10.4f}  {who:<12} {what}" for when, who, what in self.world.trace]
        outcome = Outcome(
            self.plan.seed,
            violation,
            self.oracle.counts,
            self.world.steps,
            self.world.now,
            trace,
        )
        facts = "\n".join([*trace, repr(sorted(self.oracle.counts.items())), str(self.world.steps)])
        outcome.print = sha256(facts.encode()).hexdigest()[:16]
        return outcome

    def _nodes(self) -> None:
        """Several servers behind one address, as behind a proxy, on one Redis."""
        world = self.world
        self.redis = RedisHost(world, self.oracle, lossy=self.plan.power)
        for number in range(1, self.plan.nodes + 1):
            name, address = f"node{number}", f"10.0.0.{number}"
            disk = NodeDisk(self.redis)
            self.hosts.append(ServerHost(world, self.oracle, disk, timing=SOON, name=name, address=address))
            world.network.behind.setdefault((ADDRESS, PORT), []).append((address, PORT))
        self.disk = self.hosts[0].disk
        self.oracle.counts[f"servers: {self.plan.nodes}"] += 1

    def _cast(self) -> None:
        world, plan, rng = self.world, self.plan, self.world.random
        if self.redis is not None:
            self.redis.start()
        for host in self.hosts:
            host.start()
        ttl = 45.0 if plan.short_tokens else 3_600.0
        for number in range(plan.observers):
            # Some may see everything, some one session only; some cannot renew their token.
            patterns = ("session-*",) if rng.random() < 0.6 else (rng.choice(self.sessions),)
            renewable = not plan.short_tokens or rng.random() < 0.8
            observer = Observer(
                world,
                self.oracle,
                f"observer{number + 1}",
                f"o{number + 1}",
                Tokens(self.issuer, f"user{number}", "observe", patterns, ttl=ttl, renewable=renewable),
            )
            self.observers.append(observer)
            for session in self.sessions:
                # Also what is outside of the token's patterns: it must not be given.
                if rng.random() < 0.8:
                    delivery = "latest" if rng.random() < 0.25 else "all"
                    world.later(
                        rng.uniform(0.0, 3.0), lambda o=observer, s=session, d=delivery: o.watch(s, d)
                    )  # type: ignore[misc]
        for session in self.sessions:
            self.publisher(session, "main", ttl)
        for number in range(plan.programs):
            self._program(number + 1)
        for number in range(plan.workers):
            self.publisher(rng.choice(self.sessions), f"worker{number + 1}", ttl)
        self.operator = Operator(
            world,
            self.oracle,
            "operator",
            "op",
            Tokens(self.issuer, "operator", "admin", ("*",), ttl=3_600.0, renewable=True),
        )

    def publisher(self, session: str, producer: str, ttl: float) -> Publisher:
        world = self.world
        self.born += 1
        name = f"{session}-{producer}-{self.born}"
        publisher = Publisher(
            world,
            self.oracle,
            name,
            f"p-{session}-{producer}",
            self._publisher_tokens(session, ttl),
            session=session,
            producer=producer,
        )
        self.publishers.append(publisher)
        publisher.do(publisher.begin)
        return publisher

    def _publisher_tokens(self, session: str, ttl: float) -> Tokens:
        return Tokens(
            self.issuer,
            f"program-{session}",
            "publish",
            (session,),
            ttl=ttl,
            renewable=True,
            keep=self.plan.keep,
        )

    def flush(self, dead: Publisher, after: float) -> None:
        """Somebody delivers what *dead* has left, *after* seconds."""
        path, wanted = dead.kept()
        if path is None:
            return
        flusher = Flusher(
            self.world,
            self.oracle,
            f"flush of {dead.name}",
            dead.process.host,
            self._publisher_tokens(dead.session, 3_600.0),
            path=path,
            dead=dead,
        )
        flusher.wanted = wanted
        self.flushers.append(flusher)
        self.oracle.counts["spools left by the killed"] += 1
        self.world.later(after, lambda: flusher.do(flusher.begin))

    def _program(self, number: int) -> None:
        program = Program(
            self.world,
            self.oracle,
            f"program{number}",
            f"p-program{number}",
            Tokens(self.issuer, f"program{number}", "publish", ("session-*",), ttl=3_600.0, renewable=True),
        )
        self.programs.append(program)

        def begin() -> None:
            program.begin()
            for observer in self.observers:
                if self.world.random.random() < 0.6:
                    observer.do(lambda o=observer: o.watch(program.session.id))  # type: ignore[misc]

        program.do(begin)

    def _trouble(self) -> None:
        world, plan = self.world, self.plan
        for at in plan.work:
            world.at(at, self._work)
        for happening in plan.happenings:
            world.at(happening.at, lambda h=happening: self._happen(h))  # type: ignore[misc]
        world.run_until(plan.trouble)

    def _work(self) -> None:
        someone = self.one(self.working(), self.world.random.getrandbits(31))
        if someone is not None:
            someone.do(someone.work)

    def working(self) -> list[Publisher | Program]:
        """Who publishes; of several servers', also who does not know yet that another took over."""
        before = [one for one in self.dead if self.redis is not None and one.process.alive and not one.fenced]
        return [*self.publishers, *self.programs, *before]

    # -- happenings

    def host(self, happening: Happening) -> ServerHost:
        """The server that it meets."""
        return self.hosts[(happening.number >> 10) % len(self.hosts)]

    def one(self, things: list[Any], number: int) -> Any:
        return things[number % len(things)] if things else None

    def _happen(self, happening: Happening) -> None:
        self.world.note("plan", f"{happening.what} ({happening.length:g} s)")
        self.oracle.counts[f"fault: {happening.what}"] += 1
        happenings.HAPPENINGS[happening.what](self, happening)

    def suspend(self, process: Any, happening: Happening) -> None:
        if process is None or not process.alive or process.suspended:
            return
        process.suspend()

        def resume() -> None:
            if process.alive and process.suspended:
                process.resume(clock_stood_still=bool(happening.number & 1))
                self.oracle.resumed(process)

        self.world.later(happening.length, resume)

    def dies_at_effect(self, process: Process | None, happening: Happening, then: Callable[[], None]) -> None:
        """*process* dies between what it does and what it says, at one of its next effects; *then*."""
        if process is None or not process.alive:
            return
        process.crash_after = happening.number % 40

        def watch() -> None:
            if not process.alive:
                then()
            elif process.crash_after is not None:
                self.world.later(0.2, watch)

        watch()

    # -- peace

    def _peace(self) -> None:
        world = self.world
        world.note("plan", "peace: everything is healed")
        self.peace = True
        faults = self.disk.faults
        faults.full, faults.torn, faults.slow = False, 0, 0.0
        world.network.deaf.clear()
        world.network.latency = (0.0002, 0.003)
        for pair in list(world.network.partitioned):
            world.network.heal(*pair)
        for client in self.clients():
            client.tokens.failing = False
            if client.process.suspended:
                client.process.resume(clock_stood_still=False)
                self.oracle.resumed(client.process)
        if self.redis is not None:
            redis_faults.heal(self)
        for host in self.hosts:
            process = host.process
            if process is not None:
                process.crash_after = None
                if process.suspended:
                    process.resume(clock_stood_still=False)
                    self.oracle.resumed(process)
            host.start()
        world.run_until(world.now + (PEACE_OF_NODES if self.plan.nodes else PEACE))
        verdict.everybody_agrees(self)

    def clients(self) -> list[Client]:
        """Everybody who has a connection, but those who have been replaced."""
        return [*self.observers, *self.publishers, *self.programs, *self.flushers, self.operator]


@contextlib.contextmanager
def _home(folder: Path) -> Iterator[None]:
    """Spools are in *folder*, and nowhere else."""
    before = os.environ.get("WSMONITOR_HOME")
    os.environ["WSMONITOR_HOME"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["WSMONITOR_HOME"]
        else:
            os.environ["WSMONITOR_HOME"] = before


class _Faults(logging.Handler):
    """An exception that the code caught and logged as its own fault is a fault."""

    def __init__(self, oracle: Oracle) -> None:
        super().__init__(logging.ERROR)
        self._oracle = oracle

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            exc = record.exc_info[1]
            if isinstance(exc, Violation):
                raise exc
            self._oracle.fail("CLEAN", f"{record.name}: {record.getMessage()}: {exc!r}")


@contextlib.contextmanager
def _faults_in_logs(oracle: Oracle) -> Iterator[None]:
    handler = _Faults(oracle)
    loggers = [logging.getLogger("wsmonitor_server"), logging.getLogger("wsmonitor")]
    before = [(logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (propagate, level) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate, logger.level = propagate, level
