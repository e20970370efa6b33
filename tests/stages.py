"""The stages of the test command, each by itself: ``python -m tests.stages NAME``.

`tests.__main__` runs them, each in a process of its own. What follows the name goes to pytest.

Tests in a browser and tests with asyncio do not share a process: they are two stages, each with workers of
its own. The tests of one file stay together, since they share servers, kernels or a JupyterLab; the files
that take longest are begun first (`tests.order`), so that no worker is left alone with one at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests import floors, kernels, notebooks, scale
from wsmonitor.notebook import tutorials

ROOT = Path(__file__).resolve().parent.parent
TOP_LEVEL = {"wsmonitor", "wsmonitor_server"}
NOTHING_COLLECTED = 5  # pytest's exit status
WORKERS = 4
"""Of pytest, for two cores: half of the time the tests wait for processes and real clocks."""
NO_NOTEBOOKS: Final = ("-p", "no:nbval")
"""Of pytest, where no notebooks are tests: importing nbval takes a second in each process."""
BROWSERS = 2
"""Of pytest in a browser, whose pages keep a core busy each."""

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


def _pytest(marks: str, workers: int, arguments: Sequence[str]) -> int:
    everything = scale.SCALE > 1
    status = _tool(
        "pytest", "-m", marks if everything else f"{marks} and not slow",
        "-n", str(workers), "--dist", "loadfile", "--no-loadscope-reorder",
        *NO_NOTEBOOKS, *(("--timeout", str(120 * scale.SCALE)) if everything else ()), *arguments,
    )  # fmt: skip
    # With chosen tests it is no fault that one of the stages has none of them.
    return 0 if status == NOTHING_COLLECTED and arguments else status


def _collect() -> int:
    """Import every test, which writes its bytecode; the workers of the next stages find it."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *NO_NOTEBOOKS],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    print(done.stdout.strip().splitlines()[-1] if done.returncode == 0 else done.stdout + done.stderr)
    return done.returncode


def _coverage() -> int:
    # Which branches are run does not depend on how many examples there are.
    env = {name: value for name, value in os.environ.items() if name != scale.VARIABLE}
    return _run([sys.executable, "-m", "tests.coverage"], env=env)


def _import_contracts() -> int:
    # The module has no `__main__`: the command beside this interpreter belongs to the same environment.
    return _run([str(Path(sys.executable).parent / "lint-imports")])


def _notebooks() -> int:
    """Each tutorial once, or with ``--all`` many times in a row, and then on the other kernels."""
    times = scale.SCALE
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


STAGES: Final[dict[str, Callable[[Sequence[str]], int]]] = {
    "ruff": lambda chosen: _tool("ruff", "check", "."),
    "format": lambda chosen: _tool("ruff", "format", "--check", "."),
    "mypy": lambda chosen: _tool("mypy"),
    "imports": lambda chosen: _import_contracts(),
    "collect": lambda chosen: _collect(),
    "wheel": lambda chosen: _wheel(),
    "tests": lambda chosen: _pytest("not browser", WORKERS, chosen),
    "browser": lambda chosen: _pytest("browser", BROWSERS, chosen),
    "notebooks": lambda chosen: _notebooks(),
    "coverage": lambda chosen: _coverage(),
    "floors": lambda chosen: floors.check(),
    "guard": lambda chosen: _tool("benchmarks", "guard"),
}
"""Each takes what goes to pytest, and gives an exit status."""


def main(arguments: Sequence[str]) -> int:
    """Run the stage that is named first; its exit status."""
    name, *chosen = arguments
    return STAGES[name](chosen)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
