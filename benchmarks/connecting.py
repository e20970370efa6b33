"""What connections cost: handshakes a second with few and with many held, and memory of idle ones.

At ours a connection comes with its token, says hello, and watches a session up to the verified end of
the sync; at the peers it subscribes. Memory is what the process has in use besides what it had before.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, Final

from .fanout import chosen
from .generator import generate
from .pinned import cpu, memory

NAME: Final = "connections"
BATCH: Final = 1_000
STEPS: Final = (1_000, 5_000, 9_000, 10_000)  # connections held after each step


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peers", nargs="+", metavar="NAME", help="only these servers")


def run(*, rounds: int, peers: list[str] | None = None) -> list[dict[str, Any]]:
    """A row for each round, server and number of connections."""
    rows: list[dict[str, Any]] = []
    found = chosen(peers)
    for number in range(rounds):
        for peer in found[number % len(found) :] + found[: number % len(found)]:
            with peer.start(STEPS[-1] + 1) as server, generate(server) as load:
                load("publisher")
                load("open", count=1)
                before, held = memory(server.pid), 0
                for target in STEPS:
                    while held < target:
                        spent = cpu(server.pid)
                        got = load("open", count=BATCH, timeout=120)
                        spent = cpu(server.pid) - spent
                        held += BATCH
                    time.sleep(2)  # what is freed with a delay is not the connections'
                    used = memory(server.pid) - before
                    rows.append(
                        {
                            "server": peer.name,
                            "held": held,
                            "handshakes/s": round(BATCH / got["seconds"]),
                            "CPU µs": round(spent / BATCH * 1e6),
                            "p99 ms": round(got["p99_ms"], 1),
                            "KB each": round(used / held / 1000, 1),
                            "MB": round(used / 1e6, 1),
                        }
                    )
    return rows
