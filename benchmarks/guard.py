"""The regression guard: what a delivery costs our server, beside bare ``websockets`` in the same run.

Processor time is compared, because a busy machine takes it from nobody. The bounds leave three times of
slack to what was measured when they were set: they notice work that came into the path of every delivery, and
not a machine's mood.
"""

from __future__ import annotations

import statistics
from typing import Any, Final

from .fanout import BROADCAST
from .generator import generate
from .peers import PEERS

NAME: Final = "guard"
OBSERVERS: Final = 200
LEAST: Final = {1: 0.2, 20: 1.4}
"""By events under way: how many of our deliveries there have to be for the cost of one of `broadcast()`."""


def cost(name: str, seconds: float) -> dict[int, float]:
    """Processor seconds of the server for one delivery, by events under way.

    Raises:
        RuntimeError: nothing was delivered, or not all of it.
    """
    costs = {}
    with PEERS[name].start(OBSERVERS + 1) as server, generate(server) as load:
        load("publisher")
        load("open", count=OBSERVERS)
        load("calibrate", size=500)
        for under_way in LEAST:
            got = load("closed", window=under_way, seconds=seconds, warm=0.2)
            used = got["server_user"] + got["server_kernel"]
            if not got["complete"] or got["gaps"] or got["bad"] or not used:
                raise RuntimeError(f"{name}, {under_way} under way: {got}")
            costs[under_way] = used / got["deliveries"]
    return costs


def run(*, rounds: int, seconds: float = 0.7) -> list[dict[str, Any]]:
    """A row for each number of events under way, with the median ratio of the rounds.

    Raises:
        SystemExit: a ratio is below its bound.
    """
    ratios: dict[int, list[float]] = {under_way: [] for under_way in LEAST}
    for _ in range(rounds):
        ours, bare = cost("wsmonitor", seconds), cost(BROADCAST, seconds)
        for under_way, all_of_it in ratios.items():
            all_of_it.append(bare[under_way] / ours[under_way])
    rows = [
        {
            "under way": under_way,
            "broadcast()'s cost to ours": round(statistics.median(ratios[under_way]), 2),
            "at least": least,
            "rounds": " ".join(f"{ratio:.2f}" for ratio in ratios[under_way]),
        }
        for under_way, least in LEAST.items()
    ]
    slow = [row for row in rows if row["broadcast()'s cost to ours"] < row["at least"]]  # type: ignore[operator]  # both are numbers
    if slow:
        raise SystemExit(f"deliveries have become too expensive: {slow}")
    return rows
