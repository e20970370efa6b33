"""The one test command: lint, format, types, import contracts, tests, notebooks, the built wheel, and the
regression guard of the benchmarks.

``python -m tests`` runs every stage, also after one has failed, prints a summary, and exits with 0
only if all passed. ``--all`` adds the slow tests, draws twenty times as many examples, runs each
notebook twenty times in a row, asks that the pure modules are run whole by their own tests, and runs
what stands on the dependencies with their lowest versions;
``--only STAGE`` (repeatable) runs some stages; what follows ``--`` goes to pytest, e.g.
``python -m tests --only tests -- tests/protocol -k digest``.

Tests in a browser and tests with asyncio do not share a process: they are two stages, each with
workers of its own. In a browser the tests of one file stay together, since they share a JupyterLab.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests import floors, kernels, notebooks, scale
from wsmonitor.notebook import tutorials

ROOT = Path(__file__).resolve().parent.parent
TOP_LEVEL = {"wsmonitor", "wsmonitor_server"}
NOTHING_COLLECTED = 5  # pytest's exit status
WORKERS = 4
"""Of pytest, for two cores: half of the time the tests wait for processes and real clocks."""
BROWSERS = 2
"""Of pytest in a browser, whose pages keep a core busy each."""

NOT_EVERY_DAY = {"coverage", "floors"}
"""Stages that run with ``--all``, or when they are asked for."""

MAIN_JOB = """
import pathlib, sys, wsmonitor as wm, wsmonitor_server
from wsmonitor.notebook import tutorials
from wsmonitor.notebook.trace import sanitize_file
places = [pathlib.Path(one.__file__).resolve() for one in (wm, wsmonitor_server)]
assert all(pathlib.Path(sys.argv[1]).resolve() in place.parents for place in places), places
observer = wm.watch("from a wheel")
with wm.session("from a wheel") as session, session.chain("c") as chain, chain.step("add") as step:
    step.output = 1 + 1
[found] = observer.wait(timeout=60).steps.values()
assert found.output.text == "2"
assert "add" in observer.to_html("session.html").read_text(encoding="utf-8")
observer.close()
assert sanitize_file().is_file()
assert all(tutorials.path(name).is_file() for name in tutorials.names())
print("a session was published and watched from the wheel:", wm.__version__)
"""
"""What a reader's first program does, with nothing but what the wheel holds."""


def _run(command: Sequence[str], *, cwd: Path = ROOT, env: dict[str, str] | None = None) -> int:
    print("$ " + " ".join(command).replace(sys.executable, "python"), flush=True)
    return subprocess.run(command, cwd=cwd, env=env, check=False).returncode


def _tool(module: str, *arguments: str) -> int:
    return _run([sys.executable, "-m", module, *arguments])


def _pytest(marks: str, workers: int, arguments: Sequence[str], *extra: str) -> int:
    status = _tool("pytest", "-m", marks, "-n", str(workers), *extra, *arguments)
    # With chosen tests it is no fault that one of the stages has none of them.
    return 0 if status == NOTHING_COLLECTED and arguments else status


def _coverage() -> int:
    # Which branches are run does not depend on how many examples there are.
    env = {name: value for name, value in os.environ.items() if name != scale.VARIABLE}
    return _run([sys.executable, "-m", "tests.coverage"], env=env)


def _import_contracts() -> int:
    # The module has no `__main__`: the command beside this interpreter belongs to the same environment.
    return _run([str(Path(sys.executable).parent / "lint-imports")])


def _notebooks(times: int) -> int:
    """Each tutorial *times* times in a row on the installed ipykernel; with ``--all`` also on the others."""
    paths = [notebooks.FOLDER / name for name in tutorials.names()]
    runs: list[kernels.Kernel] = [kernels.INSTALLED] * times
    if times > 1:
        runs += [kernel for kernel in kernels.ALL if not kernel.installed]
    for done, kernel in enumerate(runs):
        status = notebooks.check(paths, kernel)
        if status != 0:
            print(f"on {kernel}, after {done} good runs")
            return status
    print(f"{len(paths)} notebooks passed, {times} times in a row on {kernels.INSTALLED}")
    return 0


def _wheel() -> int:
    with tempfile.TemporaryDirectory(prefix="wsmonitor-wheel-") as folder:
        target = Path(folder)
        built = _tool("pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(target), str(ROOT))
        if built != 0:
            return built
        [wheel] = target.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
        top_level = {name.split("/")[0] for name in names if ".dist-info/" not in name}
        if top_level != TOP_LEVEL:
            print(f"the wheel's top level is {sorted(top_level)}, expected {sorted(TOP_LEVEL)}")
            return 1
        tracked = subprocess.run(
            ["git", "ls-files", "wsmonitor", "server/wsmonitor_server"],
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
        ).stdout.split()
        wanted = {name.removeprefix("server/") for name in tracked if (ROOT / name).is_file()}
        wanted |= {f"wsmonitor/notebook/_tutorials/{name}" for name in tutorials.names()}
        missing = wanted - names
        if missing:
            print("the wheel lacks " + ", ".join(sorted(missing)))
            return 1
        print(f"{wheel.name}: {len(names)} files, top level {', '.join(sorted(top_level))}")
        site = target / "site"
        installed = _tool(
            "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)
        )
        if installed != 0:
            return installed
        program = target / "main_job.py"
        program.write_text(MAIN_JOB, encoding="utf-8")
        # From a folder outside the checkout, with the wheel's files before any editable install.
        return _run(
            [sys.executable, "-W", "error", str(program), str(site)],
            cwd=target,
            env={**notebooks.environment(target), "PYTHONPATH": str(site)},
        )


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
    speed = "" if options.all else " and not slow"
    patience = []
    if options.all:
        os.environ[scale.VARIABLE] = str(scale.ALL)
        patience = ["--timeout", str(120 * scale.ALL)]
        # All stages share the kernels of the matrix, which are made once.
        os.environ.setdefault(kernels.FOLDER, str(kernels.kernels_folder()))
    stages: dict[str, Callable[[], int]] = {
        "ruff": lambda: _tool("ruff", "check", "."),
        "format": lambda: _tool("ruff", "format", "--check", "."),
        "mypy": lambda: _tool("mypy"),
        "imports": _import_contracts,
        "tests": lambda: _pytest(f"not browser{speed}", WORKERS, chosen, *patience),
        "browser": lambda: _pytest(
            f"browser{speed}", BROWSERS, chosen, "--dist", "loadfile", "--no-loadscope-reorder", *patience
        ),
        "notebooks": lambda: _notebooks(scale.ALL if options.all else 1),
        "coverage": _coverage,
        "wheel": _wheel,
        "floors": floors.check,
        "guard": lambda: _tool("benchmarks", "guard"),
    }
    unknown = set(options.only or ()) - set(stages)
    if unknown:
        parser.error(f"no such stage: {', '.join(sorted(unknown))} (there are {', '.join(stages)})")
    results: dict[str, tuple[int, float]] = {}
    for name, stage in stages.items():
        if options.only and name not in options.only:
            continue
        if name in NOT_EVERY_DAY and not (options.all or options.only):
            continue
        print(f"\n=== {name}", flush=True)
        begun = time.monotonic()
        results[name] = (stage(), time.monotonic() - begun)
    print("\n=== summary")
    for name, (status, seconds) in results.items():
        print(f"{name:<10} {'passed' if status == 0 else f'FAILED (exit {status})':<18} {seconds:7.1f} s")
    return 1 if any(status != 0 for status, _ in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
