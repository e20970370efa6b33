"""Take the pictures of ``%wsmonitor restore`` anew: ``python -m tests.browser.restore_pictures``.

A notebook is recorded in a real JupyterLab, its browser goes, and comes back; light and dark.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser.conftest import ServerProcess
from tests.browser.lab import CHROMIUM, CHROMIUM_FLAGS, Lab, notebook_file

IMAGES = Path(__file__).parents[2] / "docs" / "images"
CELLS = (
    "%load_ext wsmonitor\n%wsmonitor record",
    "import pandas as pd\n\nsales = pd.DataFrame({'region': ['north', 'south'], 'sold': [412, 388]})\nsales",
    "for epoch in range(1, 4):\n    print(f'epoch {epoch}: loss {1 / epoch:.3f}')",
    "raise ValueError('no price list for the north')",
    "%wsmonitor restore",
)


def take(browser: Browser, folder: Path, *, dark: bool) -> None:
    """The pictures of one theme: before, and after."""
    theme = "dark" if dark else "light"
    server = ServerProcess(folder / "server")
    server.start()
    kernel = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    lab = Lab(folder / "lab", {**server.env(), **kernel}, dark=dark)
    notebook_file(lab.root / "sales.ipynb", *CELLS)
    lab.start()
    try:
        gone = lab.page(browser, "sales.ipynb")
        for index in range(4):
            gone.run(index)
        gone.page.context.close()  # without saving
        back = lab.page(browser, "sales.ipynb", width=1180, height=860)
        back.page.keyboard.press("Control+b")  # the side bar away
        cell = back.run(4)
        expect(cell.locator(".wsr[data-phase=ready]")).to_be_visible(timeout=60_000)
        back.page.mouse.move(5, 600)
        back.page.screenshot(path=IMAGES / f"restore-{theme}-asks.png")
        cell.locator(".wsr-go").click()
        expect(cell.locator(".wsr[data-phase=done]")).to_be_visible(timeout=60_000)
        back.page.mouse.move(5, 600)
        back.page.screenshot(path=IMAGES / f"restore-{theme}-done.png")
        back.page.context.close()
    finally:
        lab.stop()
        server.stop()


def main() -> None:
    """All four."""
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
