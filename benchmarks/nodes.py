"""Servers that share a Redis: what the way over it costs, in time and in processor time, beside one without.

All servers and Redis have one core, the load generator the other: so what counts is the processor time of
each process for an event, not how many events go through at once. Redis saves as it should (``appendfsync
everysec``). Arrangements take turns within a round.
"""

from __future__ import annotations

import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .generator import Generator, generate
from .peers import Server
from .peers.ours import CONFIG, OURS
from .pinned import cores, cpu_exactly, memory, start_on

NAME: Final = "nodes"
OBSERVERS: Final = 100
SESSIONS: Final = 1_000
IDLE: Final = 3_000  # observers
RATE: Final = 200  # events a second, where it is paced

_SOON: Final = 15.0
"""Seconds for connections to come up: a server that was held up for a second says that it is degraded, and
the generator, unlike a client, does not ask again."""

_PAD: Final = 300  # so that an event has about 500 bytes


@dataclass(frozen=True)
class Arrangement:
    """Servers, and at which of them the observers are; the publisher is at the first one.

    Attributes:
        watched: the numbers of the servers that have observers, in equal parts.
        observing: whether anything is measured with observers.
        publishing: whether publishing without observers is measured, too.
    """

    name: str
    nodes: int
    redis: bool
    watched: tuple[int, ...] = (0,)
    publishing: bool = False
    observing: bool = True


ARRANGEMENTS: Final = (
    Arrangement("1 server, in memory", 1, redis=False, publishing=True),
    Arrangement("1 server on Redis", 1, redis=True, publishing=True),
    Arrangement("2 servers, observers at the publisher's", 2, redis=True, publishing=True),
    Arrangement("2 servers, observers at the other one", 2, redis=True, watched=(1,)),
    Arrangement("3 servers, observers at all of them", 3, redis=True, watched=(0, 1, 2)),
    Arrangement("10 servers, nobody observes", 10, redis=True, publishing=True, observing=False),
)


class Redis:
    """A Redis of the benchmark's own."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise SystemExit("needs redis-server: apt-get install redis-server")
        self._socket = str(folder / "redis.sock")
        pair = cores()
        self._process = start_on(
            pair[0] if pair else None,
            [
                *(program, "--port", "0", "--unixsocket", self._socket, "--dir", str(folder), "--save", ""),
                *("--appendonly", "yes", "--appendfsync", "everysec"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.pid = self._process.pid
        deadline = time.monotonic() + 30
        while True:
            try:
                self.facts()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def facts(self) -> dict[str, int]:
        """Of ``INFO``: memory, bytes over the network, calls of all commands (those in scripts included)."""
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(self._socket)
            link.sendall(b"INFO everything\r\n")
            text = b""
            while not text.startswith(b"$") or len(text) < int(text[1 : text.index(b"\r\n")]):
                text += link.recv(1 << 20)
        found = {}
        for line in text.decode().splitlines():
            name, _, found[name] = line.partition(":")
        calls = [
            int(value.partition(",")[0].partition("=")[2])
            for name, value in found.items()
            if name.startswith("cmdstat_")
        ]
        return {
            "calls": sum(calls),
            "in": int(found["total_net_input_bytes"]),
            "out": int(found["total_net_output_bytes"]),
            "memory": int(found["used_memory"]),
        }

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)


@dataclass
class Running:
    """An arrangement that runs."""

    servers: list[Server]
    redis: Redis | None

    def used(self) -> list[float]:
        """Processor seconds so far: of each server, and of Redis."""
        return [cpu_exactly(one.pid) for one in self.servers] + [
            cpu_exactly(self.redis.pid) if self.redis else 0.0
        ]


@contextmanager
def running(arrangement: Arrangement) -> Iterator[Running]:
    """Start it; all servers have the same key."""
    pair = cores()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wsmonitor-bench-")))
        redis = Redis(folder) if arrangement.redis else None
        if redis:
            stack.callback(redis.close)
        servers: list[Server] = []
        tokens: Sequence[str] = ()
        for number in range(arrangement.nodes):
            inside = folder / str(number)
            inside.mkdir()
            (inside / "config.toml").write_text(CONFIG, "utf-8")
            if number:
                shutil.copy(folder / "0" / "key", inside / "key")
            command = [sys.executable, "-m", "wsmonitor_server", "--port", "0"]
            command += ["--store", redis.url if redis else "memory"]
            command += ["--config", str(inside / "config.toml"), "--data-dir", str(inside)]
            process = start_on(
                pair[0] if pair else None, command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            stack.enter_context(process)
            stack.callback(process.terminate)
            port = OURS.listening(process)
            tokens = tokens or OURS.tokens(inside, OBSERVERS + 1)
            servers.append(Server(port, process.pid, OURS.script(), tokens))
        yield Running(servers, redis)


class Meter:
    """Runs loads, and says what each cost beyond what the same time costs at rest."""

    def __init__(self, arrangement: Arrangement, run: Running, load: Generator, seconds: float) -> None:
        self._arrangement = arrangement
        self._run = run
        self._load = load
        self._seconds = seconds
        self._rest = [0.0] * (arrangement.nodes + 1)  # processor seconds a second
        self.rows: list[dict[str, Any]] = []

    def rest(self) -> None:
        """What is used when nothing happens."""
        time.sleep(0.5)
        begin, before = time.monotonic(), self._run.used()
        time.sleep(self._seconds)
        took = time.monotonic() - begin
        used = zip(self._run.used(), before, strict=True)
        self._rest = [(now - then) / took for now, then in used]
        self._add("at rest", {}, [1e6 * one for one in self._rest], {})

    def __call__(self, name: str, command: str, each: int = 1, **arguments: float) -> None:
        """Carry out *command*; one of the generator's events is *each* changes."""
        redis = self._run.redis
        facts = redis.facts() if redis else {}
        begin, before = time.monotonic(), self._run.used()
        # Nothing is warmed up: what is used before the count begins would be charged to what is counted.
        got = self._load(command, seconds=self._seconds, warm=0, **arguments)
        took, after = time.monotonic() - begin, self._run.used()
        now = redis.facts() if redis else {}
        events = max(1, got["published"] * each)
        used = [
            1e6 * (end - start - rest * took) / events
            for end, start, rest in zip(after, before, self._rest, strict=True)
        ]
        spent = {what: (now[what] - facts[what]) / events for what in now}
        self._add(name, got | {"rate": events / took}, used, spent)

    def _add(self, load: str, got: dict[str, Any], used: list[float], spent: dict[str, float]) -> None:
        first, *others, redis = used
        watching = [one for at, one in enumerate(others, 1) if at in self._arrangement.watched]
        idle = [one for at, one in enumerate(others, 1) if at not in self._arrangement.watched]
        missing = sum(got.get(name, 0) for name in ("gaps", "bad", "lost")) + (not got.get("complete", True))
        self.rows.append(
            {
                "arrangement": self._arrangement.name,
                "load": load,
                "events/s": got.get("rate"),
                "p50 ms": got.get("p50_ms"),
                "p99 ms": got.get("p99_ms"),
                "publisher's server µs": first,
                "watching server µs": statistics.mean(watching) if watching else None,
                "other server µs": statistics.mean(idle) if idle else None,
                "Redis µs": redis if self._run.redis else None,
                "Redis calls": spent.get("calls"),
                "bytes to Redis": spent.get("in"),
                "bytes from Redis": spent.get("out"),
                "Redis memory": spent.get("memory"),
                "missing": missing,
            }
        )


def measure(arrangement: Arrangement, seconds: float) -> list[dict[str, Any]]:
    """One round of one arrangement, on fresh servers."""
    with running(arrangement) as run, generate(run.servers[0]) as load:
        meter = Meter(arrangement, run, load, seconds)
        load("publisher", timeout=_SOON)
        shares = [run.servers[at] for at in arrangement.watched]
        for server in shares:
            load("open", count=1, port=server.port, timeout=_SOON)
        load("calibrate", size=500)
        meter.rest()
        meter(f"{RATE}/s to 1 observer at each", "paced", rate=RATE)
        meter("8 under way to 1 observer at each", "closed", window=8)
        for server in shares:
            load("open", count=OBSERVERS // len(shares) - 1, port=server.port, timeout=_SOON)
        meter(f"{RATE}/s to {OBSERVERS} observers", "paced", rate=RATE)
        meter(f"20 under way to {OBSERVERS} observers", "closed", window=20)
    return meter.rows


def measure_idle(arrangement: Arrangement, seconds: float) -> list[dict[str, Any]]:
    """What many observers cost while nothing happens: heartbeats."""
    with running(arrangement) as run, generate(run.servers[0]) as load:
        meter = Meter(arrangement, run, load, 2 * seconds)
        load("publisher")
        load("open", count=IDLE)
        meter.rest()
        meter.rows[0]["load"] = f"{IDLE:,} observers, at rest"
    return meter.rows


def measure_publishing(arrangement: Arrangement, seconds: float) -> list[dict[str, Any]]:
    """The same without observers: what so many sessions cost, and what is published into them."""
    with running(arrangement) as run, generate(run.servers[0]) as load:
        server, redis = run.servers[0].pid, run.redis
        before = memory(server), redis.facts()["memory"] if redis else 0
        load("publisher", topics=SESSIONS)
        meter = Meter(arrangement, run, load, seconds)
        meter.rest()
        meter.rows[0] |= {
            "load": f"{SESSIONS:,} sessions, at rest",
            "server's memory": (memory(server) - before[0]) / SESSIONS,
            "Redis memory": (redis.facts()["memory"] - before[1]) / SESSIONS if redis else None,
        }
        meter("single changes to them, 8 under way", "array", batch=1, window=8, pad=_PAD)
        meter("arrays of 256 to them, 4 under way", "array", each=256, batch=256, window=4, pad=_PAD)
    return meter.rows


def patiently(
    measuring: Callable[[Arrangement, float], list[dict[str, Any]]],
    arrangement: Arrangement,
    seconds: float,
    patience: int = 5,
) -> list[dict[str, Any]]:
    """*measuring*, again while a server had to say that it is degraded, or anything is missing.

    Raises:
        RuntimeError: it was so *patience* times.
    """
    for left in reversed(range(patience)):
        try:
            rows = measuring(arrangement, seconds)
        except RuntimeError as exc:
            if not left:
                raise
            sys.stderr.write(f"{arrangement.name}: again, because {exc}\n")
            continue
        if not left or not any(row["missing"] for row in rows):
            return rows
        sys.stderr.write(f"{arrangement.name}: again, because something is missing\n")
    raise AssertionError("patience is at least 1")


_DIGITS: Final = {"p50 ms": 2, "p99 ms": 2, "Redis calls": 2}


def summary(raw: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over the rounds; a row for each arrangement and load."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in raw:
        grouped[row["arrangement"], row["load"]].append(row)
    columns = list(dict.fromkeys(name for row in raw for name in row))
    table = []
    for (arrangement, load), rows in grouped.items():
        line: dict[str, Any] = {"arrangement": arrangement, "load": load}
        for name in columns[2:]:
            values = [row[name] for row in rows if row.get(name) is not None]
            middle = statistics.median(values) if values else None
            digits = _DIGITS.get(name, 1 if "µs" in name else 0)
            line[name] = None if middle is None else round(middle, digits) if digits else round(middle)
        table.append(line)
    return table


def run(*, rounds: int, seconds: float = 1.5) -> list[dict[str, Any]]:
    """A row for each arrangement and load."""
    raw = []
    for number in range(rounds):
        turn = number % len(ARRANGEMENTS)
        for arrangement in ARRANGEMENTS[turn:] + ARRANGEMENTS[:turn]:
            wanted = {
                measure: arrangement.observing,
                measure_publishing: arrangement.publishing,
                measure_idle: not arrangement.redis,
            }
            for measuring in (one for one, asked in wanted.items() if asked):
                rows = patiently(measuring, arrangement, seconds)
                for row in rows:
                    sys.stderr.write(json.dumps(row) + "\n")
                raw += rows
    return summary(raw)
