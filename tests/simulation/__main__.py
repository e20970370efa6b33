"""``python -m tests.simulation``: run seeds, and say what was broken and what was covered.

    python -m tests.simulation --seeds 1..1000 --jobs 2
    python -m tests.simulation --seed 4711 --trace
    python -m tests.simulation --nodes --seeds 1..1000    # each on one to three servers that share a Redis
    python -m tests.simulation --planted --seeds 1..100   # every planted fault has to be caught

``--write`` puts the figures into ``docs/reliability.md``.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from benchmarks.__main__ import table, write

from .faults import FAULTS, Fault
from .node_faults import NODE_FAULTS
from .oracle import Violation
from .run import Outcome, quiet_run, run

DOCUMENT: Final = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"

_FAULT: Final = "fault: "


def _seeds(text: str) -> range:
    first, dots, last = text.partition("..")
    try:
        return range(int(first), int(last if dots else first) + 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 1..1000") from None


def outcomes(seeds: Sequence[int], jobs: int, *, shared: bool | None = None) -> Iterator[Outcome]:
    """Run *seeds*, on so many processes at once; in their order. *shared*: as `make_plan` has it."""
    one = functools.partial(quiet_run, shared=shared)
    if jobs <= 1:
        yield from map(one, seeds)
        return
    with get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(one, seeds, chunksize=4)


def violations(fault: Fault, seeds: Sequence[int]) -> Iterator[tuple[int, Violation]]:
    """Which of *seeds* catch *fault*, and by what."""
    with fault.patch():
        for seed in seeds:
            violation = run(seed, plan=fault.plan(seed)).violation
            if violation is not None:
                yield seed, violation


def caught(fault: Fault, seeds: Sequence[int]) -> tuple[int, Violation] | None:
    """The first of *seeds* that catches *fault*, and by what; None when none does."""
    return next(violations(fault, seeds), None)


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module's text. The exit code is 1 when something was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=_seeds, default=range(1, 201), metavar="A..B", help="default: 1..200")
    parser.add_argument("--seed", type=int, metavar="N", help="run this one, and show the end of its trace")
    parser.add_argument("--nodes", action="store_true", help="every seed has several servers on a Redis")
    parser.add_argument("--trace", action="store_true", help="with --seed: the whole trace")
    parser.add_argument("--planted", action="store_true", help="run the planted faults, not the real code")
    parser.add_argument(
        "--first", action="store_true", help="with --planted: only the first that catches each"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at once (default: 1)")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/reliability.md")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        outcome = quiet_run(options.seed, shared=options.nodes or None)
        print(outcome.report(whole=options.trace))
        print(f"{outcome.steps:,} steps, {outcome.seconds:,.0f} s of virtual time, print {outcome.print}")
        return int(outcome.violation is not None)
    command = f"python -m tests.simulation{' --nodes' * options.nodes}"
    command += f" --seeds {options.seeds[0]}..{options.seeds[-1]}"
    if options.planted:
        command += f" --planted{' --first' * options.first} --write"
        return _planted(
            options.seeds, command if options.write else "", nodes=options.nodes, first=options.first
        )
    command += f" --jobs {options.jobs} --write"
    return _many(options.seeds, options.jobs, command if options.write else "", nodes=options.nodes)


def command_of(seed: int, *, nodes: bool) -> str:
    """What runs *seed* again, with its whole trace."""
    return f"python -m tests.simulation --seed {seed}{' --nodes' * nodes} --trace"


def _planted(seeds: Sequence[int], command: str, *, nodes: bool, first: bool) -> int:
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    missed = 0
    for fault in NODE_FAULTS if nodes else FAULTS:
        found = list(itertools.islice(violations(fault, seeds), 1 if first else None))
        by = Counter(violation.name for _, violation in found)
        missed += not found
        row = {
            "planted fault": fault.name,
            **({} if first else {f"caught by, of {len(seeds)} seeds": len(found)}),
            "first seed that catches it" if first else "first": found[0][0] if found else "never",
            "invariants": ", ".join(f"{name} {count}" for name, count in by.most_common()),
        }
        rows.append(row)
        print(*row.values(), sep="; ", flush=True)
    if command:
        write("planted-nodes" if nodes else "planted", command, rows, DOCUMENT)
    return int(missed > 0)


def _many(seeds: Sequence[int], jobs: int, command: str, *, nodes: bool) -> int:
    begun = time.monotonic()
    counts: Counter[str] = Counter()
    within: Counter[str] = Counter()  # seeds in which it happened
    broken = steps = 0
    seconds = 0.0
    for outcome in outcomes(seeds, jobs, shared=nodes or None):
        counts += outcome.counts
        within.update(outcome.counts.keys())
        steps += outcome.steps
        seconds += outcome.seconds
        if outcome.violation is not None:
            broken += 1
            print(outcome.report(), flush=True)
            print(f"again: {command_of(outcome.seed, nodes=nodes)}", flush=True)
    summary = {
        "seeds": f"{len(seeds):,}",
        "violations": broken,
        "steps": f"{steps:,}",
        "virtual time": f"{seconds / 3600:,.0f} h",
        "took": f"{(time.monotonic() - begun) / 60:,.1f} min on {jobs} processes",
    }
    kinds = sorted(counts)
    faults = [kind for kind in kinds if kind.startswith(_FAULT)]
    rest = [kind for kind in kinds if kind not in faults]
    print(table([summary]))
    rows = [
        {
            "what was done to it": first and first.removeprefix(_FAULT),
            "times": f"{counts[first]:,}" if first else "",
            "in seeds": f"{within[first]:,}" if first else "",
            "what came of it": second,
            "times ": f"{counts[second]:,}" if second else "",
            "in seeds ": f"{within[second]:,}" if second else "",
        }
        for first, second in itertools.zip_longest(faults, rest, fillvalue="")
    ]
    print(table(rows))
    if command:
        name = "simulation-nodes" if nodes else "simulation"
        write(name, command, [summary], DOCUMENT)
        write(f"{name}-coverage", command, rows, DOCUMENT)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
