"""The main job in a real JupyterLab: a real program's session, live; the server dies and comes back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import ServerProcess
from tests.browser.lab import Lab, eventually
from wsmonitor.client import Target, connect
from wsmonitor.client.follow import follow
from wsmonitor.notebook import tutorials
from wsmonitor.protocol.reducer import SessionState

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

NOTEBOOK = "01-first-session.ipynb"
WATCH, OWN, PUBLISH, ASK = 3, 5, 7, 15
SESSION = "stdlib-analysis"
QUESTION = 'shown = wm.watch("stdlib-analysis")\nshown.wait(90)\nprint(shown.session.digest, shown.seq)'


@pytest.fixture
def lab(server: ServerProcess, kernel_env: dict[str, str], tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path / "lab", {**server.env(), **kernel_env})
    tutorial = json.loads(tutorials.path(NOTEBOOK).read_text(encoding="utf-8"))
    question = {"cell_type": "code", "id": "ask", "metadata": {}, "execution_count": None, "outputs": []}
    tutorial["cells"].append({**question, "source": QUESTION})
    assert len(tutorial["cells"]) == ASK + 1
    (lab.root / NOTEBOOK).write_text(json.dumps(tutorial), encoding="utf-8")
    lab.start()
    yield lab
    lab.stop()


@pytest.fixture
def workload(server: ServerProcess, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """What starts the demonstration's program; it must outlive the loss."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        with (tmp_path / "workload.log").open("wb") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "wsmonitor.demo", "--name", SESSION, "--seconds", "35"],
                    env={**os.environ, **server.env("demo", "publish")},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.wait(20)


def servers_state(server: ServerProcess) -> SessionState:
    """The session as the server has it."""
    with connect(Target(url=server.url, token=server.token("judge", "observe"))) as connection:
        watched = follow(connection, SESSION)
        eventually(lambda: watched.phase == "live", "the server shows it")
        state = watched.snapshot()
        assert state is not None
        return state


def test_a_session_is_seen_live_through_the_loss_of_its_server(
    browser: Browser, server: ServerProcess, workload: Callable[[], subprocess.Popen[bytes]], lab: Lab
) -> None:
    notebook = lab.page(browser, NOTEBOOK)
    for index in (1, WATCH):
        notebook.run(index)
    shown = notebook.observer(WATCH)

    # There is nothing yet, and that is said.
    expect(shown).to_have_attribute("data-verdict", "absent", timeout=60_000)
    expect(shown.locator(".wsm-strip")).to_contain_text("no such session yet")

    # Live: the program's session, with its rows, and numbers that move.
    program = workload()
    expect(shown).to_have_attribute("data-verdict", "live", timeout=60_000)
    expect(shown).to_have_attribute("data-session-state", "running", timeout=60_000)
    expect(shown.locator(".wsm-title")).to_have_text(SESSION)
    expect(shown.locator(".wsm-row[data-kind=step]").first).to_be_visible(timeout=60_000)
    expect(shown.locator(".wsm-server")).to_have_text(re.compile(r"♥ server \d"))
    before = int(shown.get_attribute("data-seq") or 0)
    eventually(lambda: int(shown.get_attribute("data-seq") or 0) > before, "events arrive")

    # The server dies without a word.
    server.kill()
    expect(shown).to_have_attribute("data-verdict", "waiting", timeout=60_000)
    strip = shown.locator(".wsm-strip")
    expect(strip).to_contain_text("Reconnecting")
    expect(strip).to_contain_text(re.compile(r"attempt \d+ in \d+ s"))
    expect(strip).to_contain_text(re.compile(r"data \d+ s old"))
    expect(strip).to_contain_text("producer: not known")
    expect(strip).to_contain_text("was running")
    expect(shown).to_have_attribute("data-frozen", "true")
    elapsed = shown.locator(".wsm-elapsed").text_content()
    expect(strip).to_contain_text(re.compile(r"attempt [3-9] in"), timeout=60_000)
    assert shown.locator(".wsm-elapsed").text_content() == elapsed, "timers stand still"
    shown.locator(".wsm-why").click()
    expect(shown.locator(".wsm-reasons")).to_contain_text("The link to the server was lost")

    # It comes back; the reader does not wait for the next attempt.
    server.start()
    notebook.reconnect(shown)
    expect(shown).to_have_attribute("data-verdict", "live", timeout=60_000)
    shown.locator(".wsm-log button").click()
    log = shown.locator(".wsm-log-list")
    expect(log).to_contain_text(re.compile(r"reconnected after \d+\.\d s: full state verified at seq"))
    expect(log).to_contain_text(re.compile(r"attempt \d+ failed: .*; next in \d+ s"))

    # Publishing from the notebook: live above, while the cell below keeps the kernel busy.
    notebook.run(OWN)
    notebook.run(PUBLISH, wait=False)
    own = notebook.observer(OWN)
    expect(own).to_have_attribute("data-session-state", "running", timeout=60_000)
    expect(notebook.cell(PUBLISH).locator(".jp-InputPrompt")).to_have_text("[*]:")
    expect(own).to_have_attribute("data-session-state", "succeeded", timeout=60_000)
    expect(own.locator(".wsm-alarm strong")).to_have_text("no_such_module")

    # The end is the server's.
    expect(shown).to_have_attribute("data-session-state", "succeeded", timeout=90_000)
    assert program.wait(60) == 0
    notebook.run(ASK, timeout=120)
    answer = (notebook.cell(ASK).locator(".jp-OutputArea-output").first.text_content() or "").split()
    state = servers_state(server)
    assert answer == [state.digest, str(state.seq)]
    assert shown.get_attribute("data-seq") == str(state.seq)
    succeeded = sum(step.state == "succeeded" for step in state.steps.values())
    assert succeeded > 20
    expect(shown.locator(".wsm-counts")).to_contain_text("succeeded")
    notebook.close()
