"""Several real servers on one real Redis, each fault a few times: what users see of it, and for how long.

Two servers stand behind one address, as behind a load balancer; programs publish into one session, and
observers watch it, through that address. Their accounts say what was lost or told twice, and each moment at
which something was told or shown.
"""

from __future__ import annotations

import random
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from tests.redis_server import RedisServer, Sentinels, free_port

from .door import Door
from .kills import Log
from .server import ServerProcess
from .watching import PATIENCE, Place
from .witness import DEGRADED, RECONNECTING, Witness, Writer

RATE: Final = 100.0
"""Changes a second of each program."""


@dataclass(slots=True)
class Sights:
    """What was seen of one kind of fault; times in seconds, of each observer in each round.

    Attributes:
        silent: the longest time without news.
        right: from the fault until it was right again: current, and told of something new of each program.
        noticed: from the fault until it was shown as such, where it was.
        reconnecting, degraded: for how long that was shown, where it was.
        epochs: how many were begun.
        lost, twice: promises that were not kept, in words.
        others: further violations.
    """

    kind: str
    rounds: int = 0
    acknowledged: int = 0
    told: int = 0
    silent: list[float] = field(default_factory=list)
    right: list[float] = field(default_factory=list)
    noticed: list[float] = field(default_factory=list)
    reconnecting: list[float] = field(default_factory=list)
    degraded: list[float] = field(default_factory=list)
    epochs: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """All violations, in words."""
        return [*self.lost, *self.twice, *self.others]

    def take(self, witnesses: Sequence[Witness]) -> None:
        """One round is over: every observer is right again."""
        self.rounds += 1
        for one in witnesses:
            self.silent.append(one.silence())
            self.right.append(one.recovery())
            if (noticed := one.notice()) is not None:
                self.noticed.append(noticed)
            for what, times in ((RECONNECTING, self.reconnecting), (DEGRADED, self.degraded)):
                if shown := one.shown(what):
                    times.append(shown)

    def conclude(self, witnesses: Sequence[Witness], writers: Sequence[Writer]) -> None:
        """Traffic has stopped: who was told what?"""
        digests = {}
        for one in witnesses:
            self.told += len(one.told)
            self.lost += one.losses()
            self.twice += one.repeats()
            self.others += [f"{one.name}: {words}" for words in one.broken]
            state = one.snapshot()
            digests[one.name] = (state.epoch, state.seq, state.digest)
            for writer in writers:
                numbers = [
                    int(step.metrics["n"]) for step in state.steps.values() if step.chain == writer.producer
                ]
                if max(numbers, default=0) != writer.submitted:
                    self.lost.append(f"{one.name}: {writer.producer} is at {max(numbers, default=0)}")
        self.epochs += max(len(one.resets) for one in witnesses)
        self.acknowledged += sum(writer.acked for writer in writers)
        if len(set(digests.values())) > 1:
            self.others.append(f"observers differ: {digests}")

    def row(self) -> dict[str, Any]:
        """For the table."""
        return {
            "fault": self.kind,
            "rounds": self.rounds,
            "acknowledged": self.acknowledged,
            "told": self.told,
            "lost": len(self.lost),
            "twice": len(self.twice),
            "epochs begun": self.epochs,
            "without news": _times(self.silent),
            "until right again": _times(self.right),
            "shown after": _times(self.noticed),
            "shown as reconnecting": _times(self.reconnecting),
            "shown as degraded": _times(self.degraded),
        }

    def summary(self) -> str:
        """For people who look for what went wrong."""
        return str(self.row()) + "".join("\n  " + note for note in self.notes[:20])


def _times(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f}, at most {max(seconds):.2f} s" if seconds else "never"


class Scene:
    """Two programs and four observers of one session, at each of *places* in turn."""

    def __init__(self, places: Sequence[Place], session: str) -> None:
        at = [places[number % len(places)] for number in range(4)]
        self.writers = [
            Writer(at[number], session, f"p{number}", RATE, owner=not number) for number in range(2)
        ]
        self.witnesses = [Witness(at[number], session, f"o{number}") for number in range(4)]

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *exc: object) -> None:
        for writer in self.writers:
            writer.close()
        for witness in self.witnesses:
            witness.close()

    def settled(self) -> None:
        """Every observer is current, and knows something new of every program."""
        self.begin(time.monotonic())
        self.expect()
        self.wait_right()

    def begin(self, at: float) -> None:
        for one in self.witnesses:
            one.begin(at)

    def expect(self) -> None:
        """Right is who knows more of each program than it has submitted up to now."""
        goal = {writer.producer: writer.submitted for writer in self.writers}
        for one in self.witnesses:
            one.expect(goal)

    def wait_right(self) -> None:
        for one in self.witnesses:
            one.wait_right()

    def stop(self) -> None:
        """Let the programs end; then every observer has everything."""
        for writer in self.writers:
            writer.stop()
        goal = {writer.producer: writer.submitted - 1 for writer in self.writers}
        for one in self.witnesses:
            one.begin(time.monotonic())
            one.expect(goal)
        self.wait_right()
        seq = max(one.snapshot().seq for one in self.witnesses)
        for one in self.witnesses:
            one.wait(lambda watch: watch.snapshot().seq >= seq, f"the end, seq {seq}")


class Cluster:
    """Two servers behind one address, on one Redis.

    Args:
        url: the store, when it is not at the Redis' own address.
    """

    def __init__(self, folder: Path, redis: RedisServer, url: str = "") -> None:
        self.redis = redis
        self.nodes = [ServerProcess(folder / f"node{number}", store=url or redis.url) for number in range(2)]
        self.door = Door([node.port for node in self.nodes])

    def __enter__(self) -> Cluster:
        with ExitStack() as stack:
            for node in self.nodes:
                stack.callback(node.__exit__, None, None, None)
                node.begin()
            for node in self.nodes:
                node.listening()
            stack.enter_context(self.door)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return self.door.url

    def token(self, sub: str, role: str = "admin") -> str:
        return self.nodes[0].token(sub, role)


Fault: TypeAlias = Callable[[Cluster, Scene, random.Random], Sequence[ServerProcess]]
"""Does it, and ends it; gives the servers that are starting again."""


def kill_node() -> Fault:
    """kill -9 of that server to which everybody is connected (but in the first round), and its start."""
    turn = iter(range(1_000_000))

    def kill(cluster: Cluster, scene: Scene, rng: random.Random) -> Sequence[ServerProcess]:
        node = cluster.nodes[next(turn) % 2]
        node.kill()
        threading.Event().wait(rng.uniform(0.0, 0.5))
        node.begin()
        return [node]

    return kill


def kill_redis(*, kept: bool) -> Fault:
    """kill -9 of Redis, and its start with what it had saved, or with nothing."""

    def kill(cluster: Cluster, scene: Scene, rng: random.Random) -> Sequence[ServerProcess]:
        cluster.redis.kill()
        threading.Event().wait(rng.uniform(0.0, 0.5))
        if not kept:
            shutil.rmtree(cluster.redis.folder / "appendonlydir")
        cluster.redis.start()
        return []

    return kill


def stop_redis(seconds: float) -> Fault:
    """Redis stands still for so long, and until everybody shows it: connections stay, nothing is answered."""

    def stop(cluster: Cluster, scene: Scene, rng: random.Random) -> Sequence[ServerProcess]:
        cluster.redis.pause()
        until = time.monotonic() + seconds
        for one in scene.witnesses:
            one.wait_shown(DEGRADED)
        threading.Event().wait(max(0.0, until - time.monotonic()))
        cluster.redis.resume()
        return []

    return stop


FAULTS: Final[dict[str, Callable[[], Fault]]] = {
    "kill -9 of a server": kill_node,
    "kill -9 of Redis, it starts again with its data": lambda: kill_redis(kept=True),
    "kill -9 of Redis, it starts again without its data": lambda: kill_redis(kept=False),
    "Redis stands still for 5 s": lambda: stop_redis(5.0),
}


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Two servers on a Redis that saves every commit before it acknowledges it."""
    redis = RedisServer(folder / "redis", "--appendonly", "yes", "--appendfsync", "always")
    try:
        with Cluster(folder, redis.start()) as made:
            yield made
    finally:
        redis.close()


def suffer(
    cluster: Cluster,
    sights: Sights,
    rounds: int,
    seed: int,
    log: Log = lambda _: None,
    *,
    fault: Fault,
) -> Sights:
    """Do *fault* to *cluster* so many times, under load; *sights* get more.

    Each time to a session and clients of its own, so that nobody's delays have grown by the time before.
    """
    pause = threading.Event()
    for number in range(rounds):
        rng = random.Random(seed + number)
        with Scene([cluster], f"s~{seed + number}") as scene:
            scene.settled()
            pause.wait(rng.uniform(0.0, 0.5))
            scene.begin(time.monotonic())
            starting = fault(cluster, scene, rng)
            scene.expect()
            scene.wait_right()
            sights.take(scene.witnesses)
            for node in starting:
                node.listening()
            scene.stop()
            sights.conclude(scene.witnesses, scene.writers)
        log(f"{sights.kind}: {number + 1}/{rounds}, {len(sights.notes)} violations")
    return sights


def _leads(redis: RedisServer) -> bool:
    try:
        return "role:master" in redis.say("INFO", "replication")
    except OSError:
        return False  # who makes it the primary ends all its connections


def fail_over(folder: Path, rounds: int, seed: int, log: Log = lambda _: None) -> Sights:
    """kill -9 of a primary, whose replica Sentinels make the primary; everything anew for each round."""
    sights = Sights("kill -9 of Redis' primary, Sentinels make its replica the primary")

    def kill(cluster: Cluster, scene: Scene, rng: random.Random) -> Sequence[ServerProcess]:
        cluster.redis.kill()
        pause, deadline = threading.Event(), time.monotonic() + PATIENCE
        while not _leads(replica):
            assert time.monotonic() < deadline, "the replica has not become the primary"
            pause.wait(0.01)
        return []

    for number in range(rounds):
        inside = folder / f"failover{number}"
        with ExitStack() as stack:
            primary = RedisServer(inside / "primary", "--repl-diskless-sync-delay", "0", port=free_port())
            stack.callback(primary.close)
            primary.start()
            follow = ("--replicaof", "127.0.0.1", str(primary.port))
            replica = RedisServer(inside / "replica", *follow, port=free_port())
            stack.callback(replica.close)
            sentinels = Sentinels(inside, primary, replica.start())
            stack.callback(sentinels.close)
            cluster = stack.enter_context(Cluster(inside, primary, sentinels.start().url))
            suffer(cluster, sights, 1, seed + number, log, fault=kill)
    return sights
