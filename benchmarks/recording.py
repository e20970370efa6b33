"""What ``%wsmonitor record`` costs: the time of a cell, as a front-end sees it, with and without.

Three kernels, one of them recorded, run the same cells by turns. The time of a cell is from sending the
request until the kernel's reply and its ``idle`` have arrived. The cost is the difference of one quantile
between the recorded kernel and a bare one; the noise is that between the two bare ones. The processor time is
what the recorded kernel's process used besides, during and after the cell.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import Any

import psutil
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
SETTLE = 1.0
"""Seconds after which a recording has nothing left to do."""


class _Kernel:
    def __init__(self, env: dict[str, str]) -> None:
        self.manager = KernelManager()
        paths = os.pathsep.join(path for path in sys.path if path)
        self.manager.start_kernel(env={**os.environ, "PYTHONPATH": paths, **env}, stderr=subprocess.DEVNULL)
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(PATIENCE)

    def cpu(self) -> float:
        """Seconds of processor time that the process has used."""
        used = psutil.Process(self.manager.provisioner.pid).cpu_times()  # type: ignore[union-attr]  # it runs
        return float(used.user + used.system)

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
    """A row for each kind of cell; ``rounds`` times 40 of each, by turns in all kernels."""
    rows = []
    with serve("sqlite") as server:
        token = server.token("recorder", "publish")
        recorded = _Kernel({"WSMONITOR_URL": server.url, "WSMONITOR_TOKEN": token})
        bare, other = (_Kernel({"WSMONITOR_LOCAL": "off"}) for _ in range(2))
        kernels = [recorded, bare, other]
        try:
            recorded.time("%load_ext wsmonitor\n%wsmonitor record benchmark")
            for kernel in kernels:
                kernel.time(SETUP)
            for name, cell in CELLS.items():
                rows.append({"cell": name, **_row(kernels, cell, 40 * rounds)})
        finally:
            for kernel in kernels:
                kernel.close()
    return rows


def _row(kernels: list[_Kernel], cell: str, count: int) -> dict[str, Any]:
    times: dict[_Kernel, list[float]] = {kernel: [] for kernel in kernels}
    for kernel in kernels:
        kernel.time(cell)
    time.sleep(SETTLE)
    used = [-kernel.cpu() for kernel in kernels]
    for number in range(count):
        at = number % len(kernels)
        for kernel in (*kernels[at:], *kernels[:at]):
            times[kernel].append(kernel.time(cell) * 1000)
            time.sleep(0.02)  # nobody runs cells in one another's milliseconds
    time.sleep(SETTLE)
    used = [before + kernel.cpu() for before, kernel in zip(used, kernels, strict=True)]
    (with50, with95), (bare50, bare95), (other50, other95) = (_quantiles(times[one]) for one in kernels)
    return {
        "without p50": _ms(bare50),
        "cost p50": _ms(with50 - bare50),
        "noise p50": _ms(other50 - bare50),
        "without p95": _ms(bare95),
        "cost p95": _ms(with95 - bare95),
        "noise p95": _ms(other95 - bare95),
        "processor time": _ms((used[0] - (used[1] + used[2]) / 2) / count * 1000),
    }


def _ms(value: float) -> str:
    return f"{value:.1f} ms"


def _quantiles(times: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return cuts[49], cuts[94]
