"""The cache folder: compiled programs, and peers that were installed. Nothing in it is needed again."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

NATIVE = Path(__file__).resolve().parent / "native"


def folder() -> Path:
    """``WSMONITOR_BENCH_CACHE``, or ``wsmonitor-bench`` in the user's cache folder; made if missing."""
    base = os.environ.get("WSMONITOR_BENCH_CACHE")
    if base is None:
        base = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wsmonitor-bench")
    path = Path(base)
    path.mkdir(parents=True, exist_ok=True)
    return path


@cache
def compiled(name: str, *sources: str) -> Path | None:
    """The program *name*, compiled from *sources* in ``native/``; None without Linux or a C compiler.

    Raises:
        RuntimeError: the compiler does not take it.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or os.uname().sysname != "Linux":
        return None
    digest = hashlib.sha256()
    for file in sorted(NATIVE.iterdir()):
        digest.update(file.read_bytes())
    target = folder() / f"{name}-{digest.hexdigest()[:16]}"
    if not target.exists():
        partial = target.with_suffix(f".{os.getpid()}")
        command = [compiler, "-O2", "-std=gnu11", "-o", str(partial), *(str(NATIVE / one) for one in sources)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{name} cannot be compiled:\n{done.stderr}")
        partial.replace(target)
    return target
