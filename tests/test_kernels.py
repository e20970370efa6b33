"""Each kernel of the matrix really is the version that its name says, and imports this checkout."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from tests.kernels import ALL, INSTALLED, KERNELS, Kernel, env_of_all

# jupyter_client's blocking client leaves a loop of its own to the garbage collector.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(300)]


def run(manager: KernelManager, code: str) -> str:
    """Run *code* in a kernel of its own, and return what it printed."""
    printed: list[str] = []

    def hook(message: dict[str, object]) -> None:
        content = message["content"]
        if message["msg_type"] == "stream" and isinstance(content, dict):
            printed.append(content["text"])

    path = os.pathsep.join(path for path in sys.path if path)
    manager.start_kernel(env={**os.environ, "PYTHONPATH": path})
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        reply = client.execute_interactive(code, output_hook=hook, timeout=120)
        assert reply["content"]["status"] == "ok", reply["content"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.context.term()
    return "".join(printed)


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_a_kernel_is_what_its_name_says(
    kernel: Kernel, kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in kernel.env(kernels).items():
        monkeypatch.setenv(name, value)
    for spec in ("python3", kernel.name):
        printed = run(
            KernelManager(kernel_name=spec),
            "import ipykernel, wsmonitor; print(ipykernel.__version__, wsmonitor.__file__)",
        )
        found, place = printed.split(maxsplit=1)
        assert found.startswith(f"{kernel.version}.")
        assert Path(place.strip()).parent == Path(__file__).parent.parent / "wsmonitor"


def test_all_of_a_run_can_be_had_from_one_place(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_PATH", env_of_all(KERNELS, kernels)["JUPYTER_PATH"])
    assert {kernel.name for kernel in KERNELS} <= set(KernelSpecManager().find_kernel_specs())


def test_the_matrix_has_the_installed_kernel_once() -> None:
    assert [kernel for kernel in ALL if kernel.version == INSTALLED.version] == [INSTALLED]
    assert len({str(kernel) for kernel in ALL}) == len(ALL) >= 3
