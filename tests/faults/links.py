"""Half-open links: between two network namespaces, packets are dropped and nobody is told.

The server lives in one namespace, all its clients in another; iptables drops what goes between them, both
ways or one way. No end of the connection hears of it: what the operating system has to send it tries to
send for many minutes. What notices is the protocol's heartbeat, on both sides.

``python -m tests.faults.links`` is the clients' program, run inside of the second namespace.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from wsmonitor.client import Target, connect

from .account import Figures
from .kills import Log, Program, conclude, settle
from .server import ROOT, ServerProcess, environment
from .watching import PATIENCE, Watch

SERVER: Final = "10.213.0.1"
CLIENTS: Final = "10.213.0.2"
PORT: Final = 20_000
RATE: Final = 100.0

_RULES: Final = {
    "to the server": [["INPUT", "--dport"]],
    "to the clients": [["OUTPUT", "--sport"]],
    "both ways": [["INPUT", "--dport"], ["OUTPUT", "--sport"]],
}


class NoNamespacesError(Exception):
    """Network namespaces or packet filters cannot be made here; says what is missing."""


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Names of the two."""

    server: str
    clients: str

    def inside(self, name: str) -> list[str]:
        """What to put before a command."""
        return ["ip", "netns", "exec", name]


def _ip(*arguments: str) -> None:
    try:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise NoNamespacesError("needs the command `ip` (apt install iproute2)") from None
    except subprocess.CalledProcessError as exc:
        raise NoNamespacesError(f"needs root and NET_ADMIN: ip says {exc.stderr.strip()!r}") from None


@contextmanager
def namespaces() -> Iterator[Namespaces]:
    """Two network namespaces with a link between them, and nothing else.

    Raises:
        NoNamespacesError: that is not possible here.
    """
    names = Namespaces(f"wsmonitor-{os.getpid()}-s", f"wsmonitor-{os.getpid()}-c")
    ends = (f"wsms{os.getpid()}", f"wsmc{os.getpid()}")
    try:
        for name in (names.server, names.clients):
            _ip("netns", "add", name)
        peer = ["peer", "name", ends[1], "netns", names.clients]
        _ip("link", "add", ends[0], "netns", names.server, "type", "veth", *peer)
        for name, end, address in zip((names.server, names.clients), ends, (SERVER, CLIENTS), strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", end)
            _ip("-n", name, "link", "set", end, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        try:
            subprocess.run(
                [*names.inside(names.server), "iptables", "-L", "-n"], check=True, capture_output=True
            )
        except (FileNotFoundError, subprocess.CalledProcessError):
            raise NoNamespacesError("needs `iptables`, which works (apt install iptables)") from None
        yield names
    finally:
        for name in (names.server, names.clients):
            with suppress(NoNamespacesError):
                _ip("netns", "delete", name)


class Filter:
    """Packets between the namespaces, dropped or not."""

    def __init__(self, names: Namespaces) -> None:
        self._command = [*names.inside(names.server), "iptables"]

    def drop(self, way: str) -> None:
        for chain, port in _RULES[way]:
            rule = ["-A", chain, "-p", "tcp", port, str(PORT), "-j", "DROP"]
            subprocess.run([*self._command, *rule], check=True, capture_output=True)

    def let_through(self) -> None:
        subprocess.run([*self._command, "-F"], check=True, capture_output=True)


def cut_links(
    folder: Path, rounds: int, seed: int, log: Log = lambda _: None, *, timeout: float = 2.5
) -> Figures:
    """Cut all links *rounds* times while two producers publish and three observers watch.

    Args:
        timeout: of the heartbeats, on both sides, and of an attempt to connect, in seconds.

    Raises:
        NoNamespacesError: that is not possible here.
    """
    with namespaces() as names:
        task = {"folder": str(folder), "rounds": rounds, "seed": seed, "timeout": timeout, **asdict(names)}
        with subprocess.Popen(
            [*names.inside(names.clients), sys.executable, "-m", "tests.faults.links", json.dumps(task)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(),
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    return Figures(**json.loads(line))
                log(line.rstrip())
    raise AssertionError("the clients' program ended without figures")


def _cut(folder: Path, rounds: int, seed: int, timeout: float, names: Namespaces) -> Figures:
    """`cut_links`, inside of the clients' namespace."""
    rng = random.Random(seed)
    pause = threading.Event()
    figures = Figures("half-open links")
    link = Filter(names)
    with ExitStack() as stack:
        server = stack.enter_context(
            ServerProcess(
                folder / "server",
                host=SERVER,
                port=PORT,
                prefix=names.inside(names.server),
                settings={
                    "": {"insecure": True},
                    "timing": {"heartbeat_timeout": timeout, "handshake_timeout": timeout},
                },
            )
        )
        watches = [Watch(server, "s~0", f"o{number}", handshake_timeout=timeout) for number in range(3)]
        for watch in watches:
            stack.callback(watch.close)
            watch.wait(lambda one: one.subscription.phase == "absent", "the first sync")
        accounts = {name: folder / f"{name}.account" for name in ("p0", "p1")}
        programs = [
            Program(server, path, "s~0", name, owner=name == "p0", rate=RATE, handshake_timeout=timeout)
            for name, path in accounts.items()
        ]
        for program in programs:
            stack.callback(program.close)
            program.ready()
        while figures.rounds < rounds:
            for watch in watches:
                watch.wait_past(time.time_ns())
            pause.wait(rng.uniform(0.0, 0.5))
            way = rng.choice(list(_RULES))
            link.drop(way)
            cut = time.monotonic()
            figures.rounds += 1
            for watch in watches:
                watch.wait(lambda one: not one.connection.status.live, f"noticing the cut {way}")
            figures.time("from the cut to every observer knowing it", time.monotonic() - cut)
            pause.wait(rng.uniform(0.0, 1.5))
            link.let_through()
            healed, healed_ns = time.monotonic(), time.time_ns()
            for watch in watches:
                watch.wait_past(healed_ns)
            figures.time("from the healing to everybody current", time.monotonic() - healed)
            print(f"{figures.rounds}/{rounds} cut {way}, {figures.violations} violations", flush=True)
        settle(figures, programs)
        with connect(Target(url=server.url, token=server.token("admin"), insecure=True)) as admin:
            # Half of a connection is no connection: the server has given up those that nobody answers on.
            deadline = time.monotonic() + PATIENCE
            while (count := _connections(admin)) != len(watches) + 1:
                assert time.monotonic() < deadline, f"the server still holds {count} connections"
                pause.wait(0.1)
        conclude(figures, server, watches)
        for watch in watches:
            figures.judge(watch, {name: [path] for name, path in accounts.items()})
    return figures


def _connections(admin: Any) -> int:
    return int(admin.server_status(timeout=PATIENCE).result()["connections"])


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory(dir=told["folder"]) as inside:
        result = _cut(
            Path(inside),
            told["rounds"],
            told["seed"],
            told["timeout"],
            Namespaces(told["server"], told["clients"]),
        )
    print(json.dumps(asdict(result)), flush=True)
