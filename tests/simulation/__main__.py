"""``python -m tests.simulation``: run seeds, and say what was broken and what was covered.

python -m tests.simulation --seeds 1..1000 --jobs 2
python -m tests.simulation --seed 4711 --trace
python -m tests.simulation --faults          # every planted fault has to be caught
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing import get_context

from .faults import FAULTS, Fault
from .oracle import Violation
from .run import Outcome, run


def _seeds(text: str) -> range:
    first, dots, last = text.partition("..")
    try:
        return range(int(first), int(last if dots else first) + 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 1..1000") from None


def outcomes(seeds: Sequence[int], jobs: int) -> Iterator[Outcome]:
    """Run *seeds*, on so many processes at once; in the order of the seeds."""
    if jobs <= 1:
        yield from map(run, seeds)
        return
    with get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(run, seeds, chunksize=4)


def caught(fault: Fault, seeds: Sequence[int]) -> tuple[int, Violation] | None:
    """The first of *seeds* that catches *fault*, and by what; None when none does."""
    with fault.patch():
        for seed in seeds:
            violation = run(seed, plan=fault.plan(seed)).violation
            if violation is not None:
                return seed, violation
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module's text. The exit code is 1 when something was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=_seeds, default=range(1, 201), metavar="A..B", help="default: 1..200")
    parser.add_argument("--seed", type=int, metavar="N", help="run this one, and show the end of its trace")
    parser.add_argument("--trace", action="store_true", help="with --seed: the whole trace")
    parser.add_argument(
        "--faults", action="store_true", help="run the planted faults instead of the real code"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at once (default: 1)")
    options = parser.parse_args(arguments)
    if options.faults:
        return _faults(options.seeds)
    if options.seed is not None:
        outcome = run(options.seed)
        print(outcome.report(whole=options.trace))
        print(f"{outcome.steps:,} steps, {outcome.seconds:,.0f} s of virtual time, print {outcome.print}")
        return int(outcome.violation is not None)
    return _many(options.seeds, options.jobs)


def _faults(seeds: Sequence[int]) -> int:
    missed = 0
    for fault in FAULTS:
        found = caught(fault, seeds)
        if found is None:
            missed += 1
            print(f"NOT CAUGHT  {fault.name}, by seeds {seeds[0]} to {seeds[-1]}", flush=True)
        else:
            print(f"caught      {fault.name}: seed {found[0]}, {found[1]}", flush=True)
    return int(missed > 0)


def _many(seeds: Sequence[int], jobs: int) -> int:
    begun = time.monotonic()
    counts: Counter[str] = Counter()
    broken: list[Outcome] = []
    steps = 0
    seconds = 0.0
    for outcome in outcomes(seeds, jobs):
        counts += outcome.counts
        steps += outcome.steps
        seconds += outcome.seconds
        if outcome.violation is not None:
            broken.append(outcome)
            print(outcome.report(), flush=True)
    took = time.monotonic() - begun
    print(
        f"{len(seeds):,} seeds, {len(broken)} with a violation; {steps:,} steps, "
        f"{seconds / 3600:,.1f} h of virtual time in {took:,.0f} s"
    )
    for name, count in sorted(counts.items()):
        print(f"  {count:12,}  {name}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
