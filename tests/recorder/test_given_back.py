"""A real recording as a notebook file: of a kernel that goes on, and of one that is killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import nbformat
import pytest

from wsmonitor.cli import main
from wsmonitor.export.cells import MARK
from wsmonitor.protocol.defaults import Timing
from wsmonitor_server.embedded import EmbeddedServer

from .conftest import Recorded, make_recorded

pytestmark = pytest.mark.filterwarnings("default")  # jupyter_client's and zmq's own


def exported(recorded: Recorded, path: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> Any:
    """The recording as a notebook, found valid."""
    monkeypatch.setenv("WSMONITOR_URL", recorded.server.url)
    monkeypatch.setenv("WSMONITOR_TOKEN", recorded.server.token(sub="ada"))
    assert main(["export", recorded.session, "-o", str(path), "--timeout", "60s", *more]) == 0
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    return notebook


def test_what_ran_becomes_a_notebook_and_goes_into_one(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = (
        "print('first')\n'result'",
        "from IPython.display import Image, display\nimport os\n"
        "display(Image(data=b'\\x89PNG\\r\\n\\x1a\\n' + os.urandom(100_000), format='png'))",
        "password = 'hunter2-hunter2'\nprint('y' * 400_000)",
        "1 / 0",
    )
    for recorded in make_recorded(server, JPY_SESSION_NAME="/home/ada/mine.ipynb"):
        recorded.record("")
        steps = [recorded.run(source) for source in sources]
        wanted = [recorded.outputs(step) for step in steps]
        notebook = exported(recorded, tmp_path / "out.ipynb", monkeypatch)
        assert [cell.outputs for cell in notebook.cells[-4:]] == wanted
        assert [cell.execution_count for cell in notebook.cells[-4:]] == [2, 3, 4, 5]
        assert notebook.cells[-3].outputs[0].data["image/png"]
        assert len(notebook.cells[-2].outputs[0].text) == 400_001
        assert "hunter2" not in notebook.cells[-2].source

        # By source, and though a secret was taken out of what was recorded.
        cells = [
            {
                "cell_type": "code", "id": f"x{number}", "metadata": {}, "execution_count": None,
                "outputs": [], "source": source,
            }
            for number, source in enumerate(reversed(sources))
        ]  # fmt: skip
        original = tmp_path / "mine.ipynb"
        original.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
        into = exported(recorded, tmp_path / "into.ipynb", monkeypatch, "--into", str(original))
        assert [cell.outputs for cell in into.cells] == wanted[::-1]
        assert [cell.source for cell in into.cells] == list(sources[::-1])


def test_of_a_killed_kernel_all_that_reached_the_server_is_there_and_the_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing = Timing(producer_stale=1.0, producer_lost=2.0, producer_crashed=1.0)
    with EmbeddedServer.in_thread(timing=timing) as impatient:
        for recorded in make_recorded(impatient):
            killed(recorded)
            (last,) = exported(recorded, tmp_path / "out.ipynb", monkeypatch).cells[-1:]
            text = "".join(output.text for output in last.outputs)
            assert text.startswith("early\n" + "".join(f"line {n}\n" for n in range(20)))
            assert f"{MARK}the kernel was lost while this cell ran" in last.outputs[-1].text
            assert last.metadata.wsmonitor.state == "crashed"


def killed(recorded: Recorded) -> None:
    """Have the kernel killed while a cell runs, when the server has its log lines."""
    recorded.record("killed")
    cell = recorded.kernel.begin(
        "import sys, time\nprint('early', flush=True)\ntime.sleep(3)\n"
        "for n in range(20):\n    print('line', n, flush=True)\ntime.sleep(600)"
    )
    step = recorded.step(cell, ended=False)
    # Log lines are sent at once, the outputs seldom: what is killed now has more of the first.
    recorded.until(lambda state: state.steps[step.id].log_count >= 21)
    os.kill(recorded.kernel.manager.provisioner.process.pid, signal.SIGKILL)
    assert recorded.step(cell).state == "crashed"
