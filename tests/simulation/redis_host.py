"""A computer with a Redis on it: a process that speaks Redis' protocol over the simulated network.

It can be killed, and started again as another one: with all that it had, with what its disk or its replica
had a moment before, or with nothing. What it takes is told to a `Ledger` at that moment.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from .ledger import Ledger, states
from .redis_data import OK, Data, Failure, Status
from .redis_scripts import Scripts
from .world import Process

if TYPE_CHECKING:
    from wsmonitor.protocol.reducer import SessionState

    from .oracle import Oracle
    from .world import World

HOST: Final = "redis"
PORT: Final = 6379
URL: Final = f"redis://{HOST}:{PORT}"

NOTICED: Final = 10.0
"""Seconds until every server that can reach Redis knows that it has another replication id."""

SAVED: Final = 0.1
"""The part of writes after which its disk, and its replica, have everything so far."""


class RedisHost:
    """See the module's text.

    Args:
        lossy: whether this run takes data away: only then copies are kept of what was saved.

    Attributes:
        slow: seconds that an answer takes longer.
        full: whether there is no memory for more.
        loading: until when (the world's time) it says that it is loading.
        losses: how often it went back.
    """

    def __init__(self, world: World, oracle: Oracle, *, lossy: bool) -> None:
        self.world = world
        self.oracle = oracle
        self.ledger = Ledger(oracle)
        self.process: Process | None = None
        self.data = Data(self._wall)
        self.scripts = Scripts(self.data)
        self.clients: dict[_Client, None] = {}
        self.slow = 0.0
        self.loading = 0.0
        self.run_id = self.replid = ""
        self._lossy = lossy
        self._starts = 0
        self._saved: deque[bytes | None] = deque([None], maxlen=6)

    @property
    def full(self) -> bool:
        return self.data.limited

    @full.setter
    def full(self, full: bool) -> None:
        self.data.limited = full

    def _wall(self) -> float:
        assert self.process is not None
        return self.process.wall()

    def _hex(self) -> str:
        return f"{self.world.random.getrandbits(160):040x}"

    # -- its life

    def start(self) -> None:
        """Start it with what there is, unless it runs. It is another Redis from now on."""
        if self.process is not None and self.process.alive:
            return
        self._starts += 1
        self.run_id = self._hex()
        if not self.replid or self.world.random.random() < 0.5:
            self.replid = self._hex()  # a Redis that finds its history on the disk may go on with its id
        self.scripts.known.clear()
        process = self.process = Process(self.world, f"redis{self._starts}", HOST)
        self.world.note(process.name, "started")
        self.world.network.listen(process, lambda: _Client(self, process), HOST, PORT)

    def kill(self) -> None:
        """``kill -9``. Who comes next may not have the same: what it acknowledged counts no more."""
        if self.process is not None and self.process.alive:
            self.process.kill()
            self.clients.clear()
            self.oracle.epochs_end()

    def forget(self, number: int) -> None:
        """While it does not run: only what was saved a while ago is left, or nothing."""
        self.lost(self._saved[number % len(self._saved)])

    def lost(self, saved: bytes | None) -> None:
        """Only what was *saved* is left."""
        before = {session: state.digest for session, state in self.states().items()}
        self.data.restore(saved)
        self._saved = deque([saved], maxlen=6)
        after = self.states()
        self.world.note(HOST, f"has {sum(state.seq for state in after.values())} events left")
        revoked = {jti.decode() for jti in self.data.hgetall(b"wsm:revoked")[::2]}
        if before != {session: state.digest for session, state in after.items()} or not saved:
            self.oracle.power_lost(after, "losses of acknowledged data")
        self.oracle.revocations_lost(revoked)

    def flush(self) -> None:
        """Somebody empties it while it runs."""
        if self.process is not None and self.process.alive:
            self.oracle.epochs_end()
            self.lost(None)

    def save(self) -> None:
        """Everything so far is on its disk, and at its replica."""
        if self._lossy:
            self._saved.append(self.data.saved())

    def replaced(self) -> None:
        """From now on it has another replication id, as after a failover."""
        self.replid = self._hex()
        # Who is connected notices by its next sign of life, and nothing was lost meanwhile.
        self.oracle.epochs_end(after=NOTICED)

    def states(self) -> dict[str, SessionState]:
        """What is there of all sessions, read without any server."""
        return states(self.data)

    # -- what it is asked

    def ask(self, command: Sequence[bytes]) -> Any:
        """Run one command. Raises `Failure`."""
        name = command[0].upper()
        if name == b"CLIENT":
            return OK
        if name == b"INFO":
            return self._info()
        if self.world.now < self.loading:
            raise Failure("LOADING Redis is loading the dataset in memory")
        try:
            if name == b"EVAL":
                return self.scripts.run(self.scripts.load(command[1]), command[3:])
            if name == b"EVALSHA":
                return self.scripts.run(command[1], command[3:])
            if name == b"SCRIPT" and command[1].upper() == b"LOAD":
                return self.scripts.load(command[2])
            return self.data.call(*command)
        finally:
            written = self.data.take()
            if written:
                self.ledger.wrote(written)
                if self.world.random.random() < SAVED:
                    self.save()

    def _info(self) -> bytes:
        facts = {
            "redis_version": "7.0.15",
            "run_id": self.run_id,
            "role": "slave" if self.data.read_only else "master",
            "master_replid": self.replid,
            "loading": int(self.world.now < self.loading),
            "aof_enabled": 1,
            "maxmemory": int(self.full),
            "used_memory": 1,
            "maxmemory_policy": "noeviction",
            "cluster_enabled": 0,
        }
        return "".join(f"{name}:{value}\r\n" for name, value in facts.items()).encode()

    def news(self) -> None:
        """Something was written: who waits for that looks again."""
        for client in list(self.clients):
            client.look()


class _Client(asyncio.Protocol):
    """One connection, as Redis has it."""

    transport: Any

    def __init__(self, host: RedisHost, process: Process) -> None:
        self._host = host
        self._loop = process.loop
        self._read = b""
        self._asked: deque[list[bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._waits = False  # for something new, in a stream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._host.clients[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._host.clients.pop(self, None)
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def data_received(self, data: bytes) -> None:
        commands, self._read = _commands(self._read + data)
        self._asked.extend(commands)
        if self._timer is None:
            self._later() if self._host.slow else self._go_on()

    def _later(self) -> None:
        self._timer = self._loop.call_later(self._host.slow, self._late)

    def _late(self) -> None:
        self._timer = None
        self._go_on()

    def _go_on(self) -> None:
        answers = []
        wrote = False
        while self._asked and self._timer is None:
            command = self._asked[0]
            before = self._host.ledger.count
            try:
                answer = self._host.ask(command)
            except Failure as exc:
                answer = exc
            wrote = wrote or self._host.ledger.count != before
            if answer is None and b"BLOCK" in command:
                self._waits = True
                milliseconds = int(command[command.index(b"BLOCK") + 1])
                self._timer = self._loop.call_later(milliseconds / 1000, self._nothing)
                break
            self._asked.popleft()
            answers.append(_encoded(answer))
        if wrote:
            self._host.news()
        if answers:
            self.transport.write(b"".join(answers))

    def _nothing(self) -> None:
        self._timer, self._waits = None, False
        self._asked.popleft()
        self.transport.write(b"*-1\r\n")
        self._go_on()

    def look(self) -> None:
        """What it waits for may be there; if not, it waits no longer for that."""
        if self._waits and self._host.ask(self._asked[0]) is not None:
            self._stop_timer()
            self._waits = False
            self._go_on()


def _commands(data: bytes) -> tuple[list[list[bytes]], bytes]:
    """The commands in *data*, and what is left of it."""
    found = []
    at = 0
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return found, data[at:]
        command: list[bytes] = []
        here = end + 2
        for _ in range(int(data[at + 1 : end])):
            end = data.find(b"\r\n", here)
            if end < 0:
                return found, data[at:]
            start, here = end + 2, end + 4 + int(data[here + 1 : end])
            if here > len(data):
                return found, data[at:]
            command.append(data[start : here - 2])
        found.append(command)
        at = here


def _encoded(answer: Any) -> bytes:
    match answer:
        case None:
            return b"$-1\r\n"
        case Failure():
            return f"-{answer}\r\n".encode()
        case Status():
            return b"+%b\r\n" % answer
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(answer), answer)
        case int():
            return b":%d\r\n" % answer
        case list():
            return b"*%d\r\n%b" % (len(answer), b"".join(map(_encoded, answer)))
    raise TypeError(f"{answer!r} is no answer")
