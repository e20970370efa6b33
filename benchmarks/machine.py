"""What the figures were measured on."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path


def memory_gib() -> float:
    """Memory of the machine in GiB; 0 where the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) / 2**20
    except OSError:
        pass
    return 0.0


def describe() -> str:
    """One line: date, cores, memory, system, Python, library versions."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("wsmonitor", "websockets", "msgspec"))
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return (
        f"{today}; {os.cpu_count()} cores, {memory_gib():.0f} GiB; {platform.system()} {platform.machine()}; "
        f"Python {platform.python_version()}; {libraries}"
    )
