"""Kernels of several ipykernel versions, for tests: the installed one every day, all of them with ``--all``.

An older ipykernel is put into a folder of its own that goes before everything else on its kernel's
``PYTHONPATH``; all else is what this environment has. `KERNELS` are the ones that this run uses::

    @pytest.mark.parametrize("kernel", KERNELS, ids=str)
    def test_it(kernel: Kernel, kernels: Path) -> None:
        env = kernel.env(kernels)        # for JupyterLab, jupyter_client or nbval

With that environment the kernel has two names: ``python3``, so that any notebook runs on it
unchanged, and `Kernel.name`. `env_of_all` gives one environment in which all of them can be had by
name, from one JupyterLab.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from filelock import FileLock

from tests.scale import SCALE

FOLDER: Final = "WSMONITOR_TEST_KERNELS"
"""The environment variable that names where the folders are kept; else they are made for this run."""

OTHERS: Final = ("6.31", "7.3", "7.4")
"""The versions that must do, the oldest first."""

NEEDED_BY_OLDER: Final = ("nest-asyncio>=1.4",)
"""What older versions import and the newest does not."""


@dataclass(frozen=True)
class Kernel:
    """A Python kernel with ipykernel *version* (``7.3``); *installed*: the one that this environment has."""

    version: str
    installed: bool = False

    def __str__(self) -> str:
        return f"ipykernel-{self.version}"

    @property
    def name(self) -> str:
        """The name of its kernelspec."""
        return str(self)

    def jupyter_path(self, folder: Path) -> Path:
        """What must be in ``JUPYTER_PATH``; makes it under *folder* if it is not there yet.

        Raises:
            RuntimeError: pip could not install it, or what was installed does not start.
        """
        place = folder / str(self)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{self}.lock"):
            if not (place / "kernels").exists():
                self._make(place)
        return place

    def env(self, folder: Path) -> dict[str, str]:
        """The environment variables with which ``python3``, and its own name, are this kernel."""
        return {"JUPYTER_PATH": str(self.jupyter_path(folder))}

    def _make(self, place: Path) -> None:
        before = []
        if not self.installed:
            packages = place / "packages"
            command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade"]
            wanted = [f"ipykernel=={self.version}.*", *NEEDED_BY_OLDER]
            # A target inside an environment that has other versions: pip's warning about them is expected.
            _checked([*command, "--target", str(packages), *wanted])
            before = [str(packages)]
        # jupyter_client puts the environment's own PYTHONPATH into the braces.
        env = {"PYTHONPATH": os.pathsep.join([*before, "${PYTHONPATH}"])} if before else {}
        probe = "import ipykernel.kernelapp; print(ipykernel.__version__)"
        found = _checked([sys.executable, "-c", probe], before)
        if not found.startswith(f"{self.version}."):
            raise RuntimeError(f"{self} was asked for, and {found} was found")
        launch = [
            sys.executable,
            "-Xfrozen_modules=off",
            "-m",
            "ipykernel_launcher",
            "-f",
            "{connection_file}",
        ]
        spec = {
            "argv": launch,
            "display_name": f"Python ({self})",
            "language": "python",
            "env": env,
            "metadata": {"debugger": True},
        }
        for name in ("python3", self.name):
            _write(place / "made" / name / "kernel.json", spec)
        (place / "made").rename(place / "kernels")


def _write(path: Path, spec: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(spec, indent=1))


def _checked(command: list[str], before: list[str] | None = None) -> str:
    inherited = os.environ.get("PYTHONPATH")
    paths = [*(before or []), *([inherited] if inherited else [])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)} if paths else dict(os.environ)
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return done.stdout.strip()


def _installed() -> Kernel:
    return Kernel(".".join(version("ipykernel").split(".")[:2]), installed=True)


INSTALLED: Final = _installed()

ALL: Final = (INSTALLED, *(Kernel(one) for one in OTHERS if one != INSTALLED.version))

KERNELS: Final = ALL if SCALE > 1 else (INSTALLED,)
"""The kernels of this run."""


def kernels_folder(otherwise: Path | None = None) -> Path:
    """Where kernels are kept: as the environment says, else *otherwise*, else a fresh temporary folder."""
    if os.environ.get(FOLDER):
        return Path(os.environ[FOLDER])
    return otherwise or Path(tempfile.mkdtemp(prefix="wsmonitor-kernels-"))


def env_of_all(kernels: tuple[Kernel, ...], folder: Path) -> dict[str, str]:
    """One environment with all of *kernels*; ``python3`` is the first of them."""
    return {"JUPYTER_PATH": os.pathsep.join(str(kernel.jupyter_path(folder)) for kernel in kernels)}
