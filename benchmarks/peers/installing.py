"""Peers of PyPI and npm, in the cache folder; of Debian's, the words for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

from benchmarks.cache import folder

FROM_PYPI: Final = ("picows", "uvloop", "python-socketio", "uvicorn", "websockets", "httptools")
FROM_NPM: Final = ("socket.io", "ws")
HOW: Final = "`python -m benchmarks peers --install` gets it"
SERVERS: Final = Path(__file__).resolve().parent / "servers"


def python() -> Path:
    """The peers' own Python."""
    return folder() / "venv" / "bin" / "python"


def modules() -> Path:
    """Node's modules."""
    return folder() / "npm" / "node_modules"


def has_module(name: str) -> bool:
    """Whether the peers' Python has a module of that name at its top level."""
    return any((folder() / "venv").glob(f"lib/python*/site-packages/{name}"))


def install() -> None:
    """Get what can be had without rights. Raises `subprocess.CalledProcessError` if pip or npm fails."""
    if not python().exists():
        venv.create(folder() / "venv", with_pip=True)
    subprocess.run([str(python()), "-m", "pip", "install", "-q", "-U", *FROM_PYPI], check=True)
    npm = shutil.which("npm")
    if npm is None:
        sys.stderr.write("Socket.IO and ws need Node.js with npm: apt install nodejs npm\n")
        return
    modules().parent.mkdir(exist_ok=True)
    subprocess.run(
        [npm, "install", "--no-fund", "--no-audit", "--silent", "--prefix", str(modules().parent), *FROM_NPM],
        check=True,
    )
