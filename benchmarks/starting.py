"""How long it takes to import the package, and to start a server until it listens."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any, Final

from .server_process import serve

NAME: Final = "start"


def _seconds(code: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - begin


def run(*, rounds: int) -> list[dict[str, Any]]:
    """Medians over *rounds* times 7 starts, by turns; the import without what Python itself needs."""
    times: dict[str, list[float]] = {}

    def note(what: str, seconds: float) -> None:
        times.setdefault(what, []).append(seconds * 1e3)

    for _ in range(7 * rounds):
        bare = _seconds("pass")
        note("import wsmonitor", _seconds("import wsmonitor") - bare)
        for store in ("memory", "sqlite"):
            begin = time.perf_counter()
            with serve(store):
                note(f"server to listening, {store}", time.perf_counter() - begin)
    return [
        {
            "what": what,
            "median ms": round(statistics.median(all_of_it), 1),
            "least ms": round(min(all_of_it), 1),
            "most ms": round(max(all_of_it), 1),
            "starts": len(all_of_it),
        }
        for what, all_of_it in times.items()
    ]
