"""Take the documentation's pictures anew: ``python -m tests.browser.pictures``.

They are of a real JupyterLab: the demonstration's session live and with the server killed, and a session that
has failed; light and dark.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser.conftest import ServerProcess
from tests.browser.lab import CHROMIUM, CHROMIUM_FLAGS, Lab, notebook_file

IMAGES = Path(__file__).parents[2] / "docs" / "images"
CELL = 'import wsmonitor as wm\n\nwm.watch("stdlib-analysis")'
FAILING = 'wm.watch("nightly-etl")'
PROGRAM = """
import time
import wsmonitor as wm

PARTS = {"part-000": [3, 4, 8], "part-001": [5, 1, 2], "part-002": []}

with wm.session("nightly-etl") as session:
    with session.chain("load") as load:
        for name, rows in PARTS.items():
            with load.step(name, input={"rows": len(rows)}) as step:
                for row in step.track(rows):
                    time.sleep(0.2)
    with session.chain("features") as features:
        for name, rows in PARTS.items():
            with features.step(f"mean of {name}") as step:
                time.sleep(0.5)
                step.output = {"mean": sum(rows) / len(rows)}
"""
RUN = "import sys; exec(compile(sys.argv[1], 'nightly_etl.py', 'exec'))"


def take(browser: Browser, folder: Path, *, dark: bool) -> None:
    """The pictures of one theme."""
    theme = "dark" if dark else "light"
    server = ServerProcess(folder / "server")
    server.start()
    kernel = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    lab = Lab(folder / "lab", {**server.env(), **kernel}, dark=dark)
    notebook_file(lab.root / "analysis.ipynb", CELL, FAILING)
    lab.start()
    workload = subprocess.Popen(
        [sys.executable, "-m", "wsmonitor.demo", "--seconds", "60"],
        env={**os.environ, **server.env("demo", "publish")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        notebook = lab.page(browser, "analysis.ipynb", width=1180, height=620)
        notebook.page.keyboard.press("Control+b")  # the side bar away
        notebook.run(0)
        shown = notebook.observer(0)
        expect(shown).to_have_attribute("data-verdict", "live", timeout=30_000)
        expect(shown.locator(".wsm-counts")).to_contain_text("1", timeout=60_000)
        expect(shown.locator(".wsm-row[data-kind=step] [data-tone=good]").nth(14)).to_be_attached(
            timeout=60_000
        )
        notebook.page.mouse.move(5, 600)
        notebook.page.screenshot(path=IMAGES / f"lab-{theme}-live.png")
        server.kill()
        expect(shown.locator(".wsm-strip")).to_contain_text("attempt 4 in", timeout=30_000)
        notebook.page.screenshot(path=IMAGES / f"lab-{theme}-lost.png")
        server.start()
        subprocess.run(
            [sys.executable, "-c", RUN, PROGRAM],
            env={**os.environ, **server.env("etl", "publish")},
            stderr=subprocess.DEVNULL,
            check=False,
        )
        notebook.reconnect(shown)
        expect(shown).to_have_attribute("data-verdict", "live", timeout=60_000)
        notebook.run(1)
        failed = notebook.observer(1)
        expect(failed).to_have_attribute("data-session-state", "failed", timeout=60_000)
        notebook.page.set_viewport_size({"width": 1180, "height": 900})
        failed.get_by_role("button", name="Show traceback").click()
        expect(failed.locator(".wsm-traceback")).to_contain_text("ZeroDivisionError")
        notebook.page.mouse.move(5, 600)
        notebook.cell(1).screenshot(path=IMAGES / f"lab-{theme}-failed.png")
        notebook.page.context.close()
    finally:
        workload.terminate()
        workload.wait(20)
        lab.stop()
        server.stop()


def main() -> None:
    """All six."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        for dark in (False, True):
            place = Path(folder) / ("dark" if dark else "light")
            place.mkdir()
            take(browser, place, dark=dark)
        browser.close()


if __name__ == "__main__":
    main()
