"""What ``%wsmonitor record`` costs: the time of a cell, as a front-end sees it, with and without.

Two kernels, one of them recorded, run the same cells by turns. The time of a cell is from sending the request
until the kernel's reply and its ``idle`` have arrived. The cost is the difference of the same quantile.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from .server_process import serve

NAME = "recording"
CELLS = {
    "pass": "pass",
    "one line": "print('x')",
    "an error": "1/0",
    "1,000 lines, 10 kB": "for i in range(1000): print('0123456789')",
    "1 MB in 1,000 prints": "for i in range(1000): print('x' * 1000)",
    "1 MB in 20,000 lines": "for i in range(20_000): print('x' * 50)",
    "1 MB in one print": "print('x' * 1_000_000)",
    "a picture of 1 MB": "display({'image/png': PICTURE}, raw=True)",
    "HTML of 1 MB": "display({'text/html': '<p>x</p>' * 125_000}, raw=True)",
    "500 displays": "for i in range(500): display(i)",
}
SETUP = "import base64, os\nPICTURE = base64.b64encode(os.urandom(750_000)).decode()"
PATIENCE = 60.0


class _Kernel:
    def __init__(self, env: dict[str, str]) -> None:
        self.manager = KernelManager()
        paths = os.pathsep.join(path for path in sys.path if path)
        self.manager.start_kernel(env={**os.environ, "PYTHONPATH": paths, **env}, stderr=subprocess.DEVNULL)
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(PATIENCE)

    def time(self, cell: str) -> float:
        """Seconds that the cell takes, to the idle kernel."""
        began = time.perf_counter()
        ident = self.client.execute(cell, stop_on_error=False)
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            if (
                message["parent_header"].get("msg_id") == ident
                and message["msg_type"] == "status"
                and message["content"]["execution_state"] == "idle"
            ):
                break
        while self.client.get_shell_msg(timeout=PATIENCE)["parent_header"].get("msg_id") != ident:
            pass
        return time.perf_counter() - began

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def run(rounds: int) -> list[dict[str, Any]]:
    """A row for each kind of cell; ``rounds`` times 40 of each, by turns in both kernels."""
    rows = []
    with serve("sqlite") as server:
        token = server.token("recorder", "publish")
        recorded = _Kernel({"WSMONITOR_URL": server.url, "WSMONITOR_TOKEN": token})
        bare = _Kernel({"WSMONITOR_LOCAL": "off"})
        try:
            recorded.time("%load_ext wsmonitor\n%wsmonitor record benchmark")
            for kernel in (recorded, bare):
                kernel.time(SETUP)
            for name, cell in CELLS.items():
                times: dict[_Kernel, list[float]] = {bare: [], recorded: []}
                for kernel in (bare, recorded):
                    kernel.time(cell)
                for _ in range(40 * rounds):
                    for kernel in (bare, recorded):
                        times[kernel].append(kernel.time(cell) * 1000)
                        time.sleep(0.02)  # nobody runs cells in one another's milliseconds
                without, with_ = (_quantiles(times[kernel]) for kernel in (bare, recorded))
                rows.append(
                    {
                        "cell": name,
                        "without_p50_ms": round(without[0], 1),
                        "with_p50_ms": round(with_[0], 1),
                        "cost_p50_ms": round(with_[0] - without[0], 1),
                        "without_p95_ms": round(without[1], 1),
                        "with_p95_ms": round(with_[1], 1),
                        "cost_p95_ms": round(with_[1] - without[1], 1),
                    }
                )
        finally:
            recorded.close()
            bare.close()
    return rows


def _quantiles(times: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return cuts[49], cuts[94]
