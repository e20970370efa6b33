"""The one test command: lint, format, types, import contracts, tests, notebooks, the built wheel, and the
regression guard of the benchmarks.

``python -m tests`` runs every stage, also after one has failed, prints a summary, and exits with 0
only if all passed. ``--all`` adds the slow tests, draws twenty times as many examples, runs each
notebook twenty times in a row, asks that the pure modules are run whole by their own tests, and runs
what stands on the dependencies with their lowest versions;
``--only STAGE`` (repeatable) runs some stages; what follows ``--`` goes to pytest, e.g.
``python -m tests --only tests -- tests/protocol -k digest``.

Stages that keep one core busy, and time nothing, run two at a time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Final

from tests import kernels, scale, stages

NOT_EVERY_DAY: Final = {"coverage", "floors"}
"""Stages that run with ``--all``, or when they are asked for."""

BESIDE: Final = ("mypy", "collect", "wheel", "imports", "format", "ruff")
"""Stages that run two at a time before all others, the longest first."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a stage ended: its exit status, how long it took, and the processor time of all its processes."""

    status: int
    seconds: float
    processor: float

    def __str__(self) -> str:
        how = "passed" if self.status == 0 else f"FAILED (exit {self.status})"
        return f"{how:<18} {self.seconds:7.1f} s {self.processor:7.1f} s of processor time"


def environment(*, everything: bool) -> dict[str, str]:
    """What the stages see."""
    env = dict(os.environ)
    # Hundreds of processes import the same modules, and pytest rewrites thousands of assertions: without
    # files to keep the bytecode in, that is a quarter of all processor time.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    if everything:
        env[scale.VARIABLE] = str(scale.ALL)
        # All stages share the kernels of the matrix, which are made once.
        env.setdefault(kernels.FOLDER, str(kernels.kernels_folder()))
    return env


def run(name: str, chosen: Sequence[str], env: Mapping[str, str], output: IO[bytes] | None = None) -> Result:
    """Run one stage in a process of its own, which writes to *output*."""
    begun = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "tests.stages", name, *chosen],
        cwd=stages.ROOT,
        env=env,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return Result(process.returncode, time.monotonic() - begun, usage.ru_utime + usage.ru_stime)


def run_beside(names: Sequence[str], env: Mapping[str, str]) -> Iterator[tuple[str, Result]]:
    """Run stages two at a time, in this order; print what each said, and yield its result."""

    def one(name: str) -> tuple[str, Result, bytes]:
        with tempfile.TemporaryFile() as output:
            result = run(name, (), env, output)
            output.seek(0)
            return name, result, output.read()

    with ThreadPoolExecutor(2) as pool:
        for name, result, said in pool.map(one, names):
            print(f"\n=== {name}\n{said.decode(errors='replace')}", end="", flush=True)
            yield name, result


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stages; return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    chosen: list[str] = []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, chosen = arguments[:at], arguments[at + 1 :]
    parser = argparse.ArgumentParser(prog="python -m tests", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--all", action="store_true", help="also the slow ones, and many more examples")
    parser.add_argument("--only", action="append", metavar="STAGE", help="run this stage (repeatable)")
    options = parser.parse_args(arguments)
    unknown = set(options.only or ()) - set(stages.STAGES)
    if unknown:
        parser.error(f"no such stage: {', '.join(sorted(unknown))} (there are {', '.join(stages.STAGES)})")
    left_out = set() if options.all else NOT_EVERY_DAY
    wanted = options.only or [name for name in stages.STAGES if name not in left_out]
    env = environment(everything=options.all)
    begun = time.monotonic()
    results = dict(run_beside([name for name in BESIDE if name in wanted], env))
    for name in stages.STAGES:
        if name in wanted and name not in BESIDE:
            print(f"\n=== {name}", flush=True)
            results[name] = run(name, chosen, env)
    print("\n=== summary")
    for name in stages.STAGES:
        if name in results:
            print(f"{name:<10} {results[name]}")
    print(f"together, in {time.monotonic() - begun:.0f} s")
    return 1 if any(result.status != 0 for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
