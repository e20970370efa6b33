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
    """One line: date, cores and what else kept them busy, memory, system, Python, library versions."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("wsmonitor", "websockets", "msgspec"))
    load = f" (load {os.getloadavg()[2]:.1f} over 15 minutes)" if hasattr(os, "getloadavg") else ""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return (
        f"{today}; {os.cpu_count()} cores{load}, {memory_gib():.0f} GiB; "
        f"{platform.system()} {platform.machine()}; Python {platform.python_version()}; {libraries}"
    )
