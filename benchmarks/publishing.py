"""Publishing into SQLite: changes a second in arrays, and how long an acknowledgement takes at a given rate.

One publisher, nobody who watches. A change is a step's new attributes; it is acknowledged when it is
committed. In the second part each change is a message of its own.
"""

from __future__ import annotations

from typing import Any, Final

from .generator import generate
from .peers import PEERS

NAME: Final = "publish"


def run(*, rounds: int, seconds: float = 3.0) -> list[dict[str, Any]]:
    """A row for each round and load."""
    rows = []
    for _ in range(rounds):
        for name in ("wsmonitor, SQLite", "wsmonitor"):
            with PEERS[name].start(1) as server, generate(server) as load:
                load("publisher")
                for what, arguments in (
                    ("arrays of 256, 4 under way", {"batch": 256, "window": 4}),
                    ("5,000 single changes/s", {"batch": 1, "rate": 5000}),
                    ("5,000 changes/s in arrays of 25", {"batch": 25, "rate": 200}),
                ):
                    got = load("array", seconds=seconds, **arguments)
                    rows.append(
                        {
                            "server": name,
                            "load": what,
                            "changes/s": round(got["per_second"]),
                            "CPU µs": round(
                                1e6 * (got["server_user"] + got["server_kernel"]) / max(1, got["deliveries"]),
                                1,
                            ),
                            "p50 ms": round(got["p50_ms"], 2),
                            "p99 ms": round(got["p99_ms"], 2),
                            "max ms": round(got["max_ms"], 2),
                            "all acknowledged": got["complete"],
                        }
                    )
    return rows
