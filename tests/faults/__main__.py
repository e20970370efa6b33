"""``python -m tests.faults``: break real processes and links, and print what became of the promises.

``--write`` puts the figures into ``docs/reliability.md``.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from benchmarks.__main__ import table, write
from benchmarks.machine import describe

from .kills import kill_producers, kill_servers
from .links import cut_links
from .server import ROOT

DOCUMENT = ROOT / "docs" / "reliability.md"

RUNS = {"server": kill_servers, "producers": kill_producers, "half_open": cut_links}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--server", type=int, default=0, metavar="N", help="kill -9 of the server, N times")
    parser.add_argument("--producers", type=int, default=0, metavar="N", help="kill -9 of producers")
    parser.add_argument("--half-open", type=int, default=0, metavar="N", help="links that die (needs root)")
    parser.add_argument("--seed", type=int, help="of the random moments (default: a new one, which is told)")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/reliability.md")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    rows, violations = [], 0
    print(f"Measured {describe()}; seed {seed}.", flush=True)
    for name, run in RUNS.items():
        rounds = getattr(options, name)
        if rounds:
            with tempfile.TemporaryDirectory(prefix="wsmonitor-faults-") as folder:
                figures = run(Path(folder), rounds, seed, lambda line: print(line, file=sys.stderr))
            rows.append(figures.row())
            violations += figures.violations
            for note in figures.notes:
                print(note)
    print(table(rows) if rows else parser.format_help())
    if options.write and rows:
        asked = " ".join(
            f"--{name.replace('_', '-')} {getattr(options, name)}" for name in RUNS if getattr(options, name)
        )
        write("faults", f"python -m tests.faults {asked} --seed {seed} --write", rows, DOCUMENT)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
