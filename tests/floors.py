"""The lowest versions that pyproject.toml permits, and the tests of what stands on them.

``python -m tests.floors`` installs each dependency in the lowest version that is permitted into a folder of
its own, in front of what is installed, and runs `TESTS` there: what the network, tokens, and the command line
do. Warnings of such old versions about others are not taken as errors; everything else is. Needs pip and the
network; without them it says so, and nothing is shown.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final

from tests.scale import VARIABLE

ROOT = Path(__file__).resolve().parent.parent

TESTS: Final = ("security", "client", "server_front", "server", "protocol", "publish", "cli")

PROBE: Final = "import importlib.metadata as m, sys; [print(m.version(name)) for name in sys.argv[1:]]"


def floors(requirements: list[str]) -> dict[str, str]:
    """Each required distribution's lowest permitted version.

    Raises:
        ValueError: one names none.
    """
    found: dict[str, str] = {}
    for requirement in requirements:
        matched = re.fullmatch(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?>=([0-9.]+)(?:,[^;]*)?", requirement)
        if matched is None:
            raise ValueError(f"{requirement!r} has no lowest version")
        found[matched[1]] = matched[2]
    return found


def required() -> list[str]:
    """What the project depends on, and what its servers may."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = table["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["redis"]]


def check() -> int:
    """Install the lowest versions and run the tests with them; the exit status."""
    lowest = floors(required())
    with tempfile.TemporaryDirectory(prefix="wsmonitor-floors-") as folder:
        packages = Path(folder) / "packages"
        wanted = [f"{name}=={version}" for name, version in lowest.items()]
        # What they need in turn is there already.
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            str(packages),
            *wanted,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(
                f"skipped: pip could not install {', '.join(wanted)} (it needs the network):\n{done.stderr}"
            )
            return 0
        paths = [str(packages), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            VARIABLE: "1",
            "JUPYTER_PLATFORM_DIRS": "1",
        }
        told = subprocess.run(
            [sys.executable, "-c", PROBE, *lowest], env=env, capture_output=True, text=True, check=True
        )
        for (name, version), used in zip(lowest.items(), told.stdout.split(), strict=True):
            assert used == version or used.startswith(f"{version}."), (
                f"{name} {version} is wanted, {used} used"
            )
        print("with " + ", ".join(wanted), flush=True)
        tests = [str(ROOT / "tests" / name) for name in TESTS]
        pytest = [sys.executable, "-m", "pytest", "-q", "-m", "not browser and not slow", "-n", "2", *tests]
        return subprocess.run(
            [*pytest, "-W", "default::DeprecationWarning"], cwd=ROOT, env=env, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(check())
