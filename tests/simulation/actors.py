"""Those who act: the real server, real publishers, real observers, and what their users do with them."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from wsmonitor.client.clock import Instant
from wsmonitor.client.connection import Connection
from wsmonitor.client.driver import Endpoint as Place
from wsmonitor.client.driver import Lasting
from wsmonitor.client.entries import Append
from wsmonitor.client.errors import NotLocatedError
from wsmonitor.client.handles import Subscription
from wsmonitor.client.publishing import Publication
from wsmonitor.client.runner import Runner
from wsmonitor.client.shared import SharedConnection
from wsmonitor.client.types import PublicationListener, Update
from wsmonitor.protocol.changes import (
    ChainChange,
    Change,
    CommandChange,
    LogChange,
    SessionChange,
    StepChange,
)
from wsmonitor.protocol.defaults import Limits, Timing
from wsmonitor.protocol.entities import Command, CommandSpec, ErrorInfo, LogRecord
from wsmonitor.protocol.messages import Remove, Revoke
from wsmonitor_server.auth import issue

from .world import Process

if TYPE_CHECKING:
    from .lines import Seen
    from .oracle import Oracle
    from .world import World

T = TypeVar("T")

ADDRESS: Final = "127.0.0.1"
PORT: Final = 8765
URL: Final = f"ws://{ADDRESS}:{PORT}"
SECRET: Final = b"a secret of the simulation, 32 bytes and more"

LIMITS: Final = Limits(
    # Small, so that every limit is met within a short run.
    history_events=60,
    history_size=64 * 1024,
    outbox_messages=48,
    outbox_size=48 * 1024,
    page_size=4 * 1024,
    batch_changes=16,
    batch_size=32 * 1024,
    message_size=64 * 1024,
    event_size=8 * 1024,
    log_records=50,
    commands=8,
)


class SimulatedRunner(Runner):
    """The client's runner in a simulated process: its thread is the process's loop."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.loop = process.loop  # type: ignore[assignment]  # no more of it is used than there is
        self.users = 1
        self._closers = set()

    @property
    def here(self) -> bool:
        return asyncio._get_running_loop() is self.loop

    def now(self) -> Instant:
        return Instant(self.process.monotonic(), self.process.wall())

    def in_thread(self, function: Callable[[], T], name: str) -> asyncio.Future[T]:
        return self.process.loop.run_in_executor(None, function)

    def join(self, timeout: float) -> None:
        """There is no thread to wait for."""

    def stop(self) -> None:
        """The process ends by itself."""


class Issuer:
    """Makes tokens, by a clock that is right."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._numbers = itertools.count(1)

    def token(self, subject: str, role: str, sessions: tuple[str, ...], ttl: float) -> tuple[str, str]:
        """A token and its ``jti``."""
        from .world import WALL

        jti = f"{subject}-{next(self._numbers)}"
        issued = int(WALL + self._world.now)
        text = issue(
            SECRET, sub=subject, role=role, sessions=sessions, issued=issued, ttl=max(1, int(ttl)), jti=jti
        )
        return text, jti


class Tokens:
    """What finds the server for one client, and gets its tokens: a `client.driver.Resolver`.

    Args:
        ttl: seconds that each token is valid.
        renewable: whether fresh ones can be had.
        keep: whether what cannot be delivered is kept on disk.
    """

    def __init__(
        self,
        issuer: Issuer,
        subject: str,
        role: str,
        sessions: tuple[str, ...],
        *,
        ttl: float,
        renewable: bool,
        keep: bool = False,
    ) -> None:
        self.sessions = sessions
        self.keep = keep
        self._issue = lambda: issuer.token(subject, role, sessions, ttl)
        self._renewable = renewable
        self._token, self.jti = self._issue()
        self.jtis = [self.jti]
        self.failing = False  # the provider is not to be reached

    def _fresh(self) -> None:
        self._token, self.jti = self._issue()
        self.jtis.append(self.jti)

    def resolve(self, *, fresh: bool) -> Place:
        if self.failing:
            raise NotLocatedError("the provider of tokens does not answer", looked=())
        if fresh and self._renewable:
            self._fresh()
        return Place(URL, self._token, (), self._renewable)

    def token(self) -> str:
        if self.failing:
            raise OSError("the provider of tokens does not answer")
        if self._renewable:
            self._fresh()
        return self._token

    def allow_start(self) -> bool:
        return False

    def lasting(self) -> Lasting | None:
        return Lasting(URL) if self.keep else None

    def watched(self) -> str | None:
        return None


class Client:
    """A client process: one connection, as a program has it."""

    def __init__(
        self, world: World, oracle: Oracle, name: str, host: str, tokens: Tokens, timing: Timing | None = None
    ) -> None:
        self.world = world
        self.oracle = oracle
        self.name = name
        self.tokens = tokens
        self.process = Process(world, name, host)
        self.random = random.Random(world.random.getrandbits(64))
        self.runner = SimulatedRunner(self.process)
        self.ended = False
        self.shared = SharedConnection(
            (name, "credentials"),
            tokens,
            name,
            timing,
            runner=self.runner,
            release_runner=self._released,
            random=self.random.random,
            instance=f"{self.random.getrandbits(64):016x}",
        )
        self.shared.users = 1
        self.connection = Connection(self.shared)
        oracle.connections.append((self.process, self.shared))

    def _released(self, runner: Runner) -> None:
        self.ended = True

    def do(self, function: Callable[[], object]) -> None:
        """Run *function* as the user's program would, on the client's own thread."""
        if self.process.alive:
            self.process.loop.call_soon(function)

    def kill(self) -> None:
        """``kill -9``."""
        self.process.kill()
        self.let_go()

    def let_go(self) -> None:
        """The operating system closes a dead process's files; here that is done by hand."""
        for publication in self.connection._publications:
            keeper = publication._keeper
            if keeper is not None:
                keeper._closed = True
                if keeper._file is not None:
                    keeper._file.close()

    def close(self) -> None:
        """Close the connection as a program does at its end."""
        self.do(lambda: self.connection.close(0))

    def check_clean(self) -> None:
        """Nothing may remain after `close`."""
        if not self.process.alive:
            return
        left = [task for task in self.process.loop.tasks if not task.done()]
        timers = self.world.waiting(self.process)
        if not self.ended or left or timers:
            self.world.failed("CLEAN", f"{self.name} leaves {left} and {timers} behind, ended: {self.ended}")


class Observer(Client):
    """Watches sessions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.subscriptions: list[tuple[Subscription, Seen]] = []

    def watch(self, topic: str, delivery: Any = "all") -> None:
        """Subscribe to *topic*."""
        if not self.process.alive or self.connection.closed:
            return
        seen = self.oracle.watch(self, topic, delivery)
        holder: list[Subscription] = []

        def listener(update: Update) -> None:
            self.oracle.told(seen, self, update)

        subscription = self.connection.subscribe(topic, listener, delivery=delivery, interval_ms=500)
        holder.append(subscription)
        self.subscriptions.append((subscription, seen))

    def leave(self, number: int) -> None:
        """End one subscription."""
        if not self.subscriptions or self.connection.closed:
            return
        subscription, seen = self.subscriptions.pop(number % len(self.subscriptions))
        subscription.close()
        # What is under way on the loop may still be told; after `closed` nothing is.
        self.do(lambda: setattr(seen, "closed", True))

    def shows_live(self, seen: Seen) -> bool:
        """Whether a view of it would call itself live."""
        return (
            self.process.alive
            and not self.process.suspended
            and not self.connection.closed
            and self.connection.status.current
            and any(other is seen and one.phase == "live" for one, other in self.subscriptions)
        )

    def state_of(self, seen: Seen) -> Any:
        """The replica that *seen* is about."""
        for subscription, other in self.subscriptions:
            if other is seen:
                return subscription.state
        return None


class Publisher(Client):
    """Publishes a session by the client's own means, and takes commands."""

    def __init__(self, *args: Any, session: str, producer: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.session = session
        self.producer = producer
        self.owner = producer == "main"
        self.publication: Publication | None = None
        self.epoch = ""
        self.lineage = 0
        self.mark = 0
        self.open = False
        self.steps: dict[str, StepChange] = {}  # everything that is asserted, whole
        self.tickets: dict[int, tuple[str, str, float]] = {}  # ticket to (kind, step or text, mark)
        self.told = 0
        self.asserted: dict[str, int] = {}  # step to the ticket of its last assertion
        self.unsent: set[str] = set()  # steps of which the spool had no room for the newest change
        self.rejections: list[ErrorInfo] = []
        self.fenced = False
        self.since = 0.0  # when it was opened first
        self.accepting: dict[int, Command] = {}  # ticket of the acceptance to the command
        self.accepted: dict[str, None] = {}  # commands that it has begun
        self.inherited: list[Publisher] = []  # whose producer it has taken over

    # -- the program

    def begin(self) -> None:
        """Open the session."""
        self.publication = self.connection.publication(
            self.session,
            self.producer,
            _Listener(self),
            agent=self.name,
            limit_changes=400,
            keep=self.tokens.keep,
        )
        self.open = True
        if self.owner:
            self._submit(self._session_change("running"))
        self._submit(ChainChange(id=f"chain-{self.producer}", name=self._secret("chain"), state="running"))

    def _secret(self, word: str) -> str:
        return f"{word} {self.oracle.secrets[self.session].decode()}"

    def _session_change(self, state: Any) -> SessionChange:
        return SessionChange(
            name=self._secret("session"), state=state, commands=(CommandSpec(name="do"),), tags=("simulated",)
        )

    def work(self) -> None:
        """One thing that a program does."""
        if not self.open:
            return
        chance = self.random.random()
        running = [change for change in self.steps.values() if change.state == "running"]
        if not running or (chance < 0.25 and len(self.steps) < 60):
            ident = f"{self.name}-{len(self.steps) + 1}"
            self._step(
                StepChange(
                    id=ident,
                    chain=f"chain-{self.producer}",
                    name=self._secret(ident),
                    state="running",
                    metrics={},
                    attributes={"size": "x" * self.random.choice((1, 1, 50, 2_000))},
                )
            )
        elif chance < 0.7:
            self._step(self.random.choice(running))
        elif chance < 0.85:
            step = self.random.choice(running)
            self.mark += 1
            text = f"line {self.mark} of {self.name}"
            record = LogRecord(at=str(self.process.wall_ns()), text=text)
            ticket = self._submit(LogChange(step=step.id, records=(record,)))
            if ticket is not None:
                self.tickets[ticket] = ("log", text, self.mark)
        else:
            step = self.random.choice(running)
            self._step(_with(step, state=self.random.choice(("succeeded", "failed"))))

    def finish(self) -> None:
        """End what is open, then say goodbye."""
        if not self.open:
            return
        for step in list(self.steps.values()):
            if step.state == "running":
                self._step(_with(step, state="succeeded"))
        self._submit(ChainChange(id=f"chain-{self.producer}", name=self._secret("chain"), state="succeeded"))
        if self.owner:
            self._submit(self._session_change("succeeded"))

    def _step(self, change: StepChange) -> None:
        self.mark += 1
        change = _with(change, metrics={"mark": self.mark})
        self.steps[change.id] = change
        ticket = self._submit(change)
        if ticket is not None:
            self.tickets[ticket] = ("step", change.id, self.mark)
        else:
            self.unsent.add(change.id)

    def _submit(self, change: Change) -> int | None:
        assert self.publication is not None
        return self.publication.submit(change)

    def kept(self) -> tuple[Path | None, list[tuple[str, str, float]]]:
        """The file in which it has what it could not deliver, and what of that it would miss."""
        publication = self.publication
        keeper = None if publication is None else publication._keeper
        if publication is None or keeper is None or keeper._file is None:
            return None, []
        spool = publication._machine.spool
        ordered = {id(one) for order in spool.orders if isinstance(order, Append) for one in order.entries}
        tickets = [one.ticket for one in spool.entries if one.pos and id(one) not in ordered]
        return keeper._file.path, [self.tickets[ticket] for ticket in tickets if ticket in self.tickets]

    # -- what it is told

    def opened(self, epoch: str, known: bool) -> None:
        """Assert everything again where the server does not go on from what it had."""
        if not self.since:
            self.since = self.world.now
        earlier, self.epoch = self.epoch, epoch
        for before in self.inherited:
            self._end_what_was_left(before)
        self.inherited.clear()
        if earlier and (earlier != epoch or not known):
            self.world.note(self.name, f"asserts {len(self.steps)} steps again")
            self.oracle.counts["assertions"] += 1
            if self.owner:
                self._submit(self._session_change("running"))
            self._submit(
                ChainChange(id=f"chain-{self.producer}", name=self._secret("chain"), state="running")
            )
            for step in list(self.steps.values()):
                self._again(step)

    def _end_what_was_left(self, before: Publisher) -> None:
        for command in [*before.accepted, *(one.id for one in before.accepting.values())]:
            self._submit(CommandChange(id=command, state="unknown", reason="its process was taken over"))
        for step in before.steps.values():
            if step.state == "running":
                self._submit(StepChange(id=step.id, state="cancelled"))

    def _again(self, step: StepChange) -> None:
        self.unsent.discard(step.id)
        self._step(step)
        self.asserted[step.id] = self.mark

    def drained(self) -> None:
        """The spool has room again: what did not fit is asserted, whole."""
        for ident in sorted(self.unsent):
            self._again(self.steps[ident])

    def acknowledged(self, number: int) -> None:
        lineage = self.oracle.lineage
        for ticket in [ticket for ticket in self.tickets if ticket <= number]:
            kind, what, mark = self.tickets.pop(ticket)
            if lineage != self.lineage:
                continue  # some of what was acknowledged is gone with the power, which everybody was told
            if kind == "log":
                self.oracle.log_acknowledged(self, self.session, what)
            else:
                self.oracle.acknowledged(
                    self, self.session, what, mark, superseded=self.asserted.get(what, 0) >= mark
                )
        for ticket in [ticket for ticket in self.accepting if ticket <= number]:
            command = self.accepting.pop(ticket)
            self.accepted[command.id] = None
            self.process.loop.call_later(self.random.uniform(0.0, 2.0), self._execute, command)
        self.told = max(self.told, number)
        if not self.tickets:
            self.lineage = lineage

    def rejected(self, number: int, change: Change | None, error: ErrorInfo) -> None:
        self.world.note(self.name, f"rejected {number}: {error.code} {error.message}")
        self.oracle.counts[f"rejected ({error.code})"] += 1
        if self.accepting.pop(number, None) is None:
            self.rejections.append(error)
        self.tickets.pop(number, None)

    def command(self, command: Command) -> None:
        """Accept it; when that is recorded, do it and say so."""
        ticket = self._submit(CommandChange(id=command.id, state="accepted"))
        if ticket is not None:
            self.accepting[ticket] = command

    def _execute(self, command: Command) -> None:
        if self.open and not self.fenced:
            self.oracle.execute(self.name, command.id)
            self._submit(CommandChange(id=command.id, state="applied"))
            del self.accepted[command.id]


def _with(change: StepChange, **fields: Any) -> StepChange:
    import msgspec

    return msgspec.structs.replace(change, **fields)


class _Listener(PublicationListener):
    def __init__(self, owner: Publisher) -> None:
        self._owner = owner

    def opened(self, epoch: str, known: bool) -> None:
        self._owner.opened(epoch, known)

    def acknowledged(self, number: int) -> None:
        self._owner.acknowledged(number)

    def rejected(self, number: int, change: Change | None, error: ErrorInfo) -> None:
        self._owner.rejected(number, change, error)

    def drained(self, dropped: int) -> None:
        self._owner.drained()

    def command(self, command: Command) -> None:
        self._owner.command(command)

    def fenced(self, *, removed: bool) -> None:
        self._owner.fenced = True
        if removed:
            self._owner.oracle.told_removed(self._owner.name, self._owner.session)


class Operator(Client):
    """Sends commands, and revokes tokens."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asked: dict[str, str] = {}

    def command(self, session: str, key: str) -> None:
        """Ask *session*'s producer to do something; with the same key again, it is the same command."""
        if self.connection.closed or not self.process.alive:
            return
        self.asked[key] = session
        future = self.connection.command(session, "do", key=key, deadline=20.0, timeout=10.0)
        future.add_done_callback(lambda done: self._answered(key, done))

    def _answered(self, key: str, future: Future[Any]) -> None:
        exc = future.exception()
        self.oracle.counts["commands answered" if exc is None else "commands refused or lost"] += 1

    def revoke(self, jti: str) -> None:
        """Revoke a token."""
        if self.connection.closed or not self.process.alive:
            return
        future = self.connection.request(lambda request: Revoke(request=request, jti=jti), 10.0)
        future.add_done_callback(lambda done: self._revoked(jti, done))

    def remove(self, session: str) -> None:
        """Delete a session, and all that is kept of it."""
        if not self.connection.closed and self.process.alive:
            self.connection.request(lambda request: Remove(request=request, session=session), 10.0)

    def _revoked(self, jti: str, future: Future[Any]) -> None:
        if future.exception() is None:
            self.oracle.counts["tokens revoked"] += 1
            self.oracle.revoked.setdefault(jti, self.world.now)
