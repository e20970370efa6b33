"""``python -m tests.faults``: break real processes and links, and print what became of the promises.

``--write`` puts the figures into ``docs/reliability.md``.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.__main__ import table, write
from benchmarks.machine import describe

from .cluster import FAULTS, Sights, cluster, fail_over, suffer
from .cut_off import cut_off
from .cycles import KINDS
from .isolation import isolate
from .kills import kill_producers, kill_servers
from .leaks import BLOCKS, EXACT
from .leaks import run as run_cycles
from .links import NoNamespacesError, cut_links
from .server import ROOT

DOCUMENT = ROOT / "docs" / "reliability.md"

RUNS = {"server": kill_servers, "producers": kill_producers, "half_open": cut_links}


def log(line: str) -> None:
    """Tell how far it has come."""
    print(line, file=sys.stderr, flush=True)


def broken(options: argparse.Namespace, seed: int) -> tuple[list[dict[str, Any]], int]:
    """The table of what was broken on purpose, and how many promises were, too."""
    rows, violations = [], 0
    for name, run in RUNS.items():
        rounds = getattr(options, name)
        if not rounds:
            continue
        with tempfile.TemporaryDirectory(prefix="wsmonitor-faults-") as folder:
            figures = run(Path(folder), rounds, seed, log)
        rows.append(figures.row())
        violations += figures.violations
        for note in figures.notes:
            print(note)
    return rows, violations


def isolated(deliveries: int, seed: int) -> tuple[list[dict[str, Any]], int]:
    """The table of the bytes that observers received, and how many marks were foreign."""
    with tempfile.TemporaryDirectory(prefix="wsmonitor-faults-") as folder:
        tally, seconds = isolate(Path(folder), 100, 10, deliveries, seed, log=log)
    row = {
        "sessions": 100,
        "observers": 1_000,
        "deliveries": f"{tally.deliveries:,}",
        "bytes": f"{tally.size:,}",
        "marks": f"{tally.marks:,}",
        "connections": f"{tally.connections:,}",
        "changes of the session on a connection": f"{tally.changes:,}",
        "foreign marks": len(tally.foreign),
        "seconds": round(seconds),
    }
    for words in tally.foreign[:20]:
        print(words)
    return [row], len(tally.foreign)


def shared(rounds: int, seed: int) -> tuple[list[dict[str, Any]], int]:
    """The table of what is seen of faults of several servers on one Redis."""
    found: list[Sights] = []
    with tempfile.TemporaryDirectory(prefix="wsmonitor-faults-") as folder:
        with cluster(Path(folder)) as made:
            for kind, fault in FAULTS.items():
                of_its_own = seed + len(found) * rounds
                found.append(suffer(made, Sights(kind), rounds, of_its_own, log, fault=fault()))
        found.append(fail_over(Path(folder), rounds, seed, log))
        try:
            found.append(cut_off(Path(folder), rounds, seed, log, seconds=5.0))
        except NoNamespacesError as exc:
            log(f"cutting a server off is left out: {exc}")
    for sights in found:
        for note in sights.notes:
            print(note)
    return [sights.row() for sights in found], sum(len(sights.notes) for sights in found)


def left(cycles: int) -> tuple[list[dict[str, Any]], int]:
    """The table of what *cycles* cycles of each kind have left, on both sides."""
    rows, wrong = [], 0
    for kind in KINDS:
        for side, figures in run_cycles(kind, cycles // BLOCKS + 1, 400).items():
            exact = {name: figures[name] for name in EXACT if figures.get(name)}
            wrong += sum(exact.values()) + len(figures["wrong"])
            rows.append(
                {
                    "cycles": f"{(cycles // BLOCKS + 1) * BLOCKS:,} times {kind}",
                    "side": side,
                    "memory": f"{figures['memory'] / 1024:+,.0f} KiB",
                    "threads, files, sockets, tasks, subscriptions": exact or 0,
                    "entries per cycle": round(figures["entries"] * BLOCKS / cycles, 2),
                    "callbacks per cycle": round(figures["callbacks"] * BLOCKS / cycles, 2),
                    "complaints of asyncio's debug mode": len(figures["wrong"]),
                }
            )
            log(str(rows[-1]))
    return rows, wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--server", type=int, default=0, metavar="N", help="kill -9 of the server, N times")
    parser.add_argument("--producers", type=int, default=0, metavar="N", help="kill -9 of producers")
    parser.add_argument("--half-open", type=int, default=0, metavar="N", help="links that die (needs root)")
    parser.add_argument("--cluster", type=int, default=0, metavar="N", help="servers on one Redis, N of each")
    parser.add_argument("--isolation", type=int, default=0, metavar="N", help="N deliveries, foreign bytes")
    parser.add_argument("--leaks", type=int, default=0, metavar="N", help="what N cycles of each kind leave")
    parser.add_argument("--seed", type=int, help="of the random moments (default: a new one, which is told)")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/reliability.md")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    print(f"Measured {describe()}; seed {seed}.", flush=True)
    tables: dict[str, tuple[str, list[dict[str, Any]]]] = {}
    violations = 0
    if asked := " ".join(
        f"--{name.replace('_', '-')} {getattr(options, name)}" for name in RUNS if getattr(options, name)
    ):
        rows, found = broken(options, seed)
        violations += found
        tables["faults"] = (f"{asked} --seed {seed}", rows)
    if options.cluster:
        rows, found = shared(options.cluster, seed)
        violations += found
        tables["cluster-faults"] = (f"--cluster {options.cluster} --seed {seed}", rows)
    if options.isolation:
        rows, found = isolated(options.isolation, seed)
        violations += found
        tables["isolation"] = (f"--isolation {options.isolation} --seed {seed}", rows)
    if options.leaks:
        rows, found = left(options.leaks)
        violations += found
        tables["leaks"] = (f"--leaks {options.leaks}", rows)
    for name, (arguments, rows) in tables.items():
        print(table(rows))
        if options.write:
            write(name, f"python -m tests.faults {arguments} --write", rows, DOCUMENT)
    if not tables:
        parser.print_help()
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
