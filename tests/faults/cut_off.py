"""One of two servers is cut off from Redis, and nobody is told: packets are dropped, connections stay.

The server lives in a network namespace of its own; Redis, the other server and all clients in a second one.
Who is connected to the server that is cut off still reaches it.

``python -m tests.faults.cut_off`` is the program that runs inside of the second namespace.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Final

from tests.redis_server import RedisServer

from .cluster import Scene, Sights
from .kills import Log
from .links import CLIENTS, PORT, SERVER, Namespaces, namespaces
from .server import ROOT, ServerProcess, environment
from .watching import PATIENCE
from .witness import DEGRADED

_REDIS: Final = 16_379
_MORE: Final = 30
"""Changes that the others are told of at least while one server is cut off."""


def cut_off(
    folder: Path, rounds: int, seed: int, log: Log = lambda _: None, *, seconds: float = 0.0
) -> Sights:
    """Cut one server off *rounds* times, for so many seconds at least.

    Raises:
        NoNamespacesError: that is not possible here.
    """
    with namespaces() as names:
        task = {"folder": str(folder), "rounds": rounds, "seed": seed, "seconds": seconds, **asdict(names)}
        command = [sys.executable, "-m", "tests.faults.cut_off", json.dumps(task)]
        with subprocess.Popen(
            [*names.inside(names.clients), *command],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(),
        ) as process:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if not line.startswith("{"):
                    log(line.rstrip())
        if process.returncode == 0 and lines:
            return Sights(**json.loads(lines[-1]))
    raise AssertionError(f"the program in the namespace ended with {process.returncode}")


class _Way:
    """From the server to Redis, as iptables has it."""

    def __init__(self, names: Namespaces) -> None:
        self._command = [*names.inside(names.server), "iptables"]

    def cut(self) -> None:
        for chain, port in (("OUTPUT", "--dport"), ("INPUT", "--sport")):
            rule = ["-A", chain, "-p", "tcp", port, str(_REDIS), "-j", "DROP"]
            subprocess.run([*self._command, *rule], check=True, capture_output=True)

    def heal(self) -> None:
        subprocess.run([*self._command, "-F"], check=True, capture_output=True)


def _suffer(folder: Path, rounds: int, seed: int, seconds: float, names: Namespaces) -> Sights:
    """`cut_off`, inside of the second namespace."""
    sights = Sights("a server is cut off from Redis (no packet comes through)")
    pause, way = threading.Event(), _Way(names)
    store = f"redis://{CLIENTS}:{_REDIS}"
    settings = ("--appendonly", "yes", "--bind", CLIENTS, "--protected-mode", "no")
    with ExitStack() as stack:
        redis = RedisServer(folder / "redis", *settings, port=_REDIS)
        stack.callback(redis.close)
        redis.start()
        apart = ServerProcess(
            folder / "apart",
            host=SERVER,
            port=PORT,
            prefix=names.inside(names.server),
            store=store,
            settings={"": {"insecure": True}},
        )
        nodes = [stack.enter_context(one) for one in (apart, ServerProcess(folder / "other", store=store))]
        for number in range(rounds):
            scene = stack.enter_context(Scene(nodes, f"s~{seed + number}"))
            scene.settled()
            here, there = scene.witnesses[::2], scene.witnesses[1::2]
            scene.begin(time.monotonic())
            until = time.monotonic() + seconds
            way.cut()
            for one in here:
                one.wait_shown(DEGRADED)
            writer = scene.writers[0]
            writer.connection.wait_for(lambda status: status.degraded is not None, PATIENCE)
            # On each of these connections what was told and acknowledged before came before that word.
            told, acked = [len(one.told) for one in here], writer.acked
            goal = scene.writers[1].submitted + _MORE
            for one in there:
                one.wait(lambda watch, goal=goal: watch.last("p1") >= goal, "more")  # type: ignore[misc]
            pause.wait(max(0.0, until - time.monotonic()))
            if [len(one.told) for one in here] != told:
                sights.others.append("who was connected to it was told of something while it was degraded")
            if writer.acked != acked:
                sights.others.append("it acknowledged something while it was degraded")
            scene.expect()
            way.heal()
            scene.wait_right()
            sights.take(scene.witnesses)
            scene.stop()
            sights.conclude(scene.witnesses, scene.writers)
            print(f"{sights.kind}: {number + 1}/{rounds}, {len(sights.notes)} violations", flush=True)
    return sights


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory(dir=given["folder"]) as inside:
        result = _suffer(
            Path(inside),
            given["rounds"],
            given["seed"],
            given["seconds"],
            Namespaces(given["server"], given["clients"]),
        )
    print(json.dumps(asdict(result)), flush=True)
