"""``wsmonitor demo`` as a newcomer has it: JupyterLab on the first tutorial, run from the top."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.lab import Lab, Notebook, eventually
from wsmonitor.cli.failures import Exit
from wsmonitor.notebook import tutorials

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

__all__ = ["Lab"]  # it takes as long as those that start one: see conftest

LONG = 60_000
WATCH = 3
"""The tutorial's cell that watches the demo's program."""


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, and the address that it prints."""
    (tmp_path / "tmp").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "wsmonitor", "demo", "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
    )
    # Without its address it would be waited for in vain.
    too_late = threading.Timer(120, process.terminate)
    too_late.start()
    assert process.stdout is not None
    said = ""
    while (line := process.stdout.readline()) and "JupyterLab" not in line:
        said += line
    too_late.cancel()
    address = re.search(r"http://\S+", line)
    assert address is not None, said
    yield process, address[0]
    process.terminate()
    process.wait(60)
    process.stdout.close()


def kernel_idle(address: str) -> bool:
    """Whether the JupyterLab at *address* has a kernel that waits for work."""
    asked = urlsplit(address)
    try:
        with urllib.request.urlopen(f"http://{asked.netloc}/api/kernels?{asked.query}", timeout=5) as answer:
            return any(kernel["execution_state"] == "idle" for kernel in json.load(answer))
    except urllib.error.HTTPError:  # 500 while a kernel is being started
        return False


def test_the_first_tutorial_is_open_and_shows_the_demos_session(
    browser: Browser, demo: tuple[subprocess.Popen[str], str], tmp_path: Path
) -> None:
    process, address = demo
    page = browser.new_context(viewport={"width": 1280, "height": 1000}).new_page()
    page.goto(address)
    notebook = Notebook(page, tutorials.names()[0])
    notebook.ready()
    # The page may show an idle kernel that has not been started yet.
    eventually(lambda: kernel_idle(address), "the kernel did not start", 60)
    expect(notebook.panel.locator("h1").first).to_contain_text("Your first session", timeout=LONG)
    expect(page.locator(".jp-DirListing-itemText")).to_contain_text(tutorials.names(), timeout=LONG)
    notebook.run(1)
    notebook.run(WATCH)
    shown = notebook.observer(WATCH)
    expect(shown).to_have_attribute("data-verdict", "live", timeout=LONG)
    expect(shown.locator(".wsm-title")).to_have_text("stdlib-analysis")
    expect(shown.locator(".wsm-row[data-kind=step]").first).to_be_visible(timeout=LONG)
    page.context.close()

    process.send_signal(signal.SIGINT)
    assert process.wait(60) == Exit.OK
    assert list((tmp_path / "tmp").iterdir()) == []
