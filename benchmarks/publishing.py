"""Publishing into SQLite: changes a second in arrays, and how long an acknowledgement takes at a given rate.

One publisher, nobody who watches. A change is a step's new attributes; it is acknowledged when it is
committed. Then, in memory, single changes to one of so many sessions after the other: what an event costs
must not depend on how many sessions there are.
"""

from __future__ import annotations

from typing import Any, Final

from .generator import generate
from .peers import PEERS

NAME: Final = "publish"
SESSIONS: Final = (10, 100, 1_000, 10_000)


_LOADS: Final[dict[str, dict[str, float]]] = {
    "arrays of 256, 4 under way": {"batch": 256, "window": 4},
    "5,000 single changes/s": {"batch": 1, "rate": 5000},
    "5,000 changes/s in arrays of 25": {"batch": 25, "rate": 200},
}


def _row(server: str, load: str, got: dict[str, Any]) -> dict[str, Any]:
    used = (got["server_user"] + got["server_kernel"]) / max(1, got["deliveries"])
    return {
        "server": server,
        "load": load,
        "changes/s": round(got["per_second"]),
        "CPU µs": round(1e6 * used, 1),
        "p50 ms": round(got["p50_ms"], 2),
        "p99 ms": round(got["p99_ms"], 2),
        "max ms": round(got["max_ms"], 2),
        "all acknowledged": "yes" if got["complete"] else "no",
    }


def run(*, rounds: int, seconds: float = 3.0) -> list[dict[str, Any]]:
    """A row for each round and load."""
    rows = []
    for _ in range(rounds):
        for name in ("wsmonitor, SQLite", "wsmonitor"):
            with PEERS[name].start(1) as server, generate(server) as load:
                load("publisher")
                for what, arguments in _LOADS.items():
                    rows.append(_row(name, what, load("array", seconds=seconds, **arguments)))
        for count in SESSIONS:
            with PEERS["wsmonitor"].start(1) as server, generate(server) as load:
                load("publisher", topics=count)
                got = load("array", batch=1, window=8, seconds=seconds)
                rows.append(_row("wsmonitor", f"single changes, {count:,} sessions", got))
    return rows
