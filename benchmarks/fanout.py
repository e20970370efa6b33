"""Events to many observers: what the server and its peers deliver, at which times and costs.

The server has one core and the load generator another. *Saturation* is closed-loop: so many events
are under way, and the next is published when one has reached everybody. *Paced* offers a rate, and an
event's time counts from the moment it was due. Peers take turns within each round, so that what else
goes on on the machine meets all of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .generator import generate
from .peers import PEERS, Peer
from .pinned import Others

NAME: Final = "fanout"
FLOOR: Final = "floor"
QUIET: Final = 0.05
"""Of both cores: what others may have of them in a measurement that counts as undisturbed."""
BROADCAST: Final = "websockets broadcast()"


@dataclass(frozen=True)
class Load:
    """One way of publishing.

    Attributes:
        under_way: events under way (closed loop); 0 when it is paced.
        rate: deliveries offered a second; 0 in a closed loop.
        size: bytes of one event as it is delivered.
    """

    under_way: int = 0
    rate: int = 0
    size: int = 500

    @property
    def name(self) -> str:
        size = "" if self.size == 500 else f", {self.size:,} B"
        return (f"{self.under_way} under way" if self.under_way else f"paced {self.rate:,}/s") + size


@dataclass(frozen=True)
class Scene:
    """Observers of *topics* topics in all, and what is published to them, one after the other."""

    name: str
    observers: int
    topics: int
    loads: tuple[Load, ...]


CLOSED: Final = (Load(1), Load(5), Load(20), Load(40))
SCENES: Final = {
    scene.name: scene
    for scene in (
        Scene("100", 100, 1, (*CLOSED, Load(rate=300_000))),
        Scene("1000", 1_000, 1, (*CLOSED, Load(1, size=16_384), Load(20, size=16_384), Load(rate=20_000))),
        Scene("5000", 5_000, 1, CLOSED),
        Scene("200x10", 2_000, 200, (Load(20), Load(200))),
    )
}


def measure(peer: Peer, scene: Scene, seconds: float, patience: int = 1) -> list[dict[str, Any]]:
    """One round of one peer: a fresh server, all loads of the scene.

    What other processes had of the two cores is measured, too. A load that was disturbed is repeated, up to
    *patience* times in all, and the least disturbed counts: its figures are not looked at for that.

    Raises:
        RuntimeError: the server or the generator did not do what it should; the message says what.
    """
    rows = []
    with peer.start(scene.observers + 1) as server, generate(server) as load:
        load("publisher", topics=scene.topics)
        load("open", count=scene.observers)
        for one in scene.loads:
            load("calibrate", size=one.size)
            tries: list[dict[str, Any]] = []
            while len(tries) < patience and (not tries or tries[-1]["others"] > QUIET):
                others = Others(server.pid, load.pid)
                if one.under_way:
                    got = load("closed", window=one.under_way, seconds=seconds)
                else:
                    got = load("paced", rate=one.rate * scene.topics / scene.observers, seconds=seconds)
                tries.append(got | {"others": others.share()})
            quietest = min(tries, key=lambda got: float(got["others"]))
            rows.append({"server": peer.name, "scene": scene.name, "load": one.name} | quietest)
    return rows


def chosen(peers: Sequence[str] | None) -> list[Peer]:
    """The peers that can be run here; of the others the reason is told."""
    found = []
    for peer in PEERS.values():
        if peers and peer.name not in peers:
            continue
        why = peer.available()
        if why:
            sys.stderr.write(f"{peer.name} is left out: {why}\n")
        else:
            found.append(peer)
    return found


def measure_all(
    peers: Iterable[Peer], scenes: Iterable[Scene], rounds: int, seconds: float, patience: int
) -> list[dict[str, Any]]:
    """All rounds, raw; peers by turns. A peer that fails is told of, and the others go on."""
    raw = []
    peers = list(peers)
    for scene in scenes:
        for number in range(rounds):
            for peer in peers[number % len(peers) :] + peers[: number % len(peers)]:
                try:
                    rows = measure(peer, scene, seconds, patience)
                except RuntimeError as exc:
                    sys.stderr.write(f"{peer.name}, {scene.name} observers: {exc}\n")
                    continue
                for row in rows:
                    sys.stderr.write(json.dumps(row) + "\n")
                raw += rows
    return raw


def summary(raw: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over the rounds; a row for each scene, load and server."""
    grouped: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in raw:
        grouped[row["scene"], row["load"], row["server"]].append(row)
    medians = {key: statistics.median(row["per_second"] for row in rows) for key, rows in grouped.items()}
    table = []
    for (scene, load, server), rows in grouped.items():
        per_second = medians[scene, load, server]

        def middle(name: str, rows: list[dict[str, Any]] = rows) -> float:
            return float(statistics.median(row[name] for row in rows))

        def each(name: str, rows: list[dict[str, Any]] = rows) -> float:
            return float(statistics.median(row[name] / max(1, row["deliveries"]) * 1e6 for row in rows))

        def ratio(to: str, scene: str = scene, load: str = load, rate: float = per_second) -> float | None:
            other = medians.get((scene, load, to))
            return round(rate / other, 2) if other and "paced" not in load else None

        rates = [row["per_second"] for row in rows]
        busy = [(row["server_user"] + row["server_kernel"]) / row["seconds"] for row in rows]
        table.append(
            {
                "observers": scene,
                "load": load,
                "server": server,
                "deliveries/s": round(per_second),
                "spread": f"{(max(rates) - min(rates)) / per_second:.0%}" if per_second else "",
                "to the floor": ratio(FLOOR),
                "to broadcast()": ratio(BROADCAST),
                "user µs": round(each("server_user"), 2),
                "kernel µs": round(each("server_kernel"), 2),
                "p50 ms": round(middle("p50_ms"), 2),
                "p99 ms": round(middle("p99_ms"), 2),
                "missing": sum(
                    row["gaps"] + row["bad"] + row["lost"] + (not row["complete"]) for row in rows
                ),
                "server's core": f"{statistics.median(busy):.0%}",
                "generator's core": f"{middle('generator_cpu'):.0%}",
                "others'": f"{middle('others'):.0%}",
                "generator": rows[0]["generator"],
                "rounds": len(rows),
            }
        )
    return table


def document(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """The kept results for people: a table for each scene, with the loads side by side."""
    text = []
    for scene in (one for one in SCENES if one in parts):
        part = parts[scene]
        rows = {(row["server"], row["load"]): row for row in part["rows"]}
        loads = list(dict.fromkeys(load for _, load in rows))
        text.append(f"**{scene.replace('x', ' sessions × ')} observers.** Measured {part['measured']}.")
        text.append(f"Again: `{part['command']}`.\n")
        text.append("| server | " + " | ".join(loads) + " |")
        text.append("|" + " --- |" * (len(loads) + 1))
        for server in dict.fromkeys(server for server, _ in rows):
            cells = [_cell(rows.get((server, load))) for load in loads]
            text.append(f"| {server} | " + " | ".join(cells) + " |")
        text.append("")
    return "\n".join(text) + "\n"


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    times = f"p50 {row['p50 ms']}, p99 {row['p99 ms']} ms"
    missing = f"; {row['missing']} missing" if row["missing"] else ""
    if "paced" in row["load"]:
        return f"{times}{missing}"
    ratio = f" ({row['to broadcast()']}×)" if row["to broadcast()"] is not None else ""
    cost = f"{row['user µs']} + {row['kernel µs']} µs"
    return f"{row['deliveries/s'] / 1000:,.0f} k/s{ratio}; {cost}; p99 {row['p99 ms']} ms{missing}"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes besides."""
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES), help="observers")
    parser.add_argument("--peers", nargs="+", metavar="NAME", help="only these servers")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement (default 2)")
    parser.add_argument(
        "--patience",
        type=int,
        default=3,
        help="measure so often until others leave the cores alone (default 3)",
    )


def run(
    *,
    rounds: int,
    scenes: Sequence[str] = tuple(SCENES),
    peers: Sequence[str] | None = None,
    seconds: float = 2.0,
    patience: int = 3,
) -> list[dict[str, Any]]:
    """*rounds* rounds of all scenes and peers; a row for each scene, load and server."""
    return summary(measure_all(chosen(peers), [SCENES[name] for name in scenes], rounds, seconds, patience))
