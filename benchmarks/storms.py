"""A storm: a thousand clients have dropped and come back at once, and each gets a snapshot of 100 KB.

Ours come with their tokens, and pull the session page by page, up to the verified end of the sync. At the
peers a client asks, and is sent 100 KB. At most 64 handshakes are under
way, so that no accept queue runs over.
"""

from __future__ import annotations

import argparse
from typing import Any, Final

from .fanout import chosen
from .generator import generate
from .pinned import Others

NAME: Final = "storm"
CLIENTS: Final = 1_000


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peers", nargs="+", metavar="NAME", help="only these servers")


def run(*, rounds: int, peers: list[str] | None = None) -> list[dict[str, Any]]:
    """A row for each round and server; peers by turns."""
    rows = []
    found = [peer for peer in chosen(peers) if peer.storm_script()]
    for number in range(rounds):
        for peer in found[number % len(found) :] + found[: number % len(found)]:
            with peer.start(CLIENTS + 1, peer.storm_script()) as server, generate(server) as load:
                load("publisher")
                load("open", count=CLIENTS)
                others = Others(server.pid, load.pid)
                got = load("storm")
                share = others.share()
            rows.append(
                {
                    "server": peer.name,
                    "clients": CLIENTS,
                    "seconds": round(got["seconds"], 3),
                    "server's CPU s": round(got["server_user"] + got["server_kernel"], 2),
                    "p50 ms": round(got["p50_ms"], 1),
                    "p99 ms": round(got["p99_ms"], 1),
                    "others'": f"{share:.0%}",
                    "generator": f"{got['generator_cpu']:.0%}",
                }
            )
    return rows
