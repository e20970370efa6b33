"""Take the documentation's pictures anew: ``python -m tests.browser.pictures [NAME...]``.

They are of a real JupyterLab, in which a session is live, has lost its server, and has failed: each view,
light and dark, at 1,200 and 600 pixels. With Pillow installed the images are a third of the size.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

from playwright.sync_api import Browser, Locator, expect, sync_playwright

from tests.browser.conftest import ServerProcess
from tests.browser.lab import CHROMIUM, CHROMIUM_FLAGS, Lab, Notebook, notebook_file

IMAGES = Path(__file__).parents[2] / "docs" / "images"
WATCH = 'import wsmonitor as wm\n\nwm.watch("nightly-etl")'
DASHBOARD = "wm.SessionList()"
PARTS = """import ipywidgets as w

obs = wm.watch("nightly-etl")
w.VBox([wm.ConnectionStatus(obs), wm.Heartbeat(obs), w.HBox([wm.SessionTree(obs), wm.EventLog(obs)])])"""
PROGRAM = Path(__file__).with_name("nightly.py")
# Under a name of its own: a traceback's path is not of interest.
RUN = "import sys; exec(compile(sys.argv[1], 'nightly_etl.py', 'exec'))"
PATIENCE = 60_000  # milliseconds
COLOURS = 256


class Album:
    """Takes pictures of one theme at one width."""

    def __init__(self, notebook: Notebook, suffix: str, wanted: list[str]) -> None:
        self.notebook = notebook
        self.page = notebook.page
        self.suffix = suffix
        self.wanted = wanted

    def take(self, name: str, what: Locator | None = None) -> None:
        """A picture of *what*, or of the page."""
        if self.wanted and name not in self.wanted:
            return
        self.page.mouse.move(5, 5)
        width = (self.page.viewport_size or {})["width"]
        # A part is taken whole, and not what the window shows of it.
        self.page.set_viewport_size({"width": width, "height": 700 if what is None else 1300})
        data = what.screenshot() if what is not None else self.page.screenshot()
        (IMAGES / f"lab-{self.suffix}-{name}.png").write_bytes(small(data))


def small(data: bytes) -> bytes:
    """A PNG with a palette, where Pillow is there to make it (a third of the size); else as it is."""
    if find_spec("PIL") is None:
        return data
    from PIL import Image

    image = (
        Image.open(BytesIO(data))
        .convert("RGB")
        .quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    )
    made = BytesIO()
    image.save(made, "PNG", optimize=True)
    return made.getvalue()


def button(shown: Locator, name: str) -> Locator:
    return shown.get_by_role("button", name=name, exact=True)


def row(shown: Locator, name: str) -> Locator:
    return shown.locator(".wsm-body .wsm-row:visible", has_text=name).first


def live(album: Album, shown: Locator) -> None:
    """The views of a session that runs."""
    expect(shown).to_have_attribute("data-verdict", "live", timeout=PATIENCE)
    expect(row(shown, "window 90d")).to_contain_text("%", timeout=PATIENCE)
    album.take("live" if album.suffix.endswith(("light", "dark")) else "view")
    row(shown, "window 90d").click()
    pane = shown.locator(".wsm-pane")
    expect(pane).to_contain_text("Load next", timeout=PATIENCE)
    album.take("details", shown)
    pane.get_by_role("tab", name="Logs").click()
    expect(pane.locator(".wsm-logline").first).to_be_visible(timeout=PATIENCE)
    album.take("logs", shown)
    button(shown, "Close details").click()
    shown.locator(".wsm-command", has_text="Cancel nightly-etl").click()
    shown.locator(".wsm-log button").first.click()
    album.take("commands", shown)
    button(shown, "No, leave it").click()
    shown.locator(".wsm-log button").first.click()
    album.notebook.run(2)
    parts = album.notebook.cell(2).locator(".jp-OutputArea-child").first
    expect(parts.locator(".wsm-part-tree .wsm-row").nth(3)).to_be_visible(timeout=PATIENCE)
    expect(parts.locator(".wsm-part-heartbeat")).to_contain_text("heard", timeout=PATIENCE)
    album.take("parts", parts)


def gone(album: Album, shown: Locator) -> None:
    """The server is away."""
    expect(shown.locator(".wsm-strip")).to_contain_text("Reconnecting", timeout=PATIENCE)
    expect(shown.locator(".wsm-server")).to_contain_text("old", timeout=PATIENCE)
    album.take("lost")


def failed(album: Album, shown: Locator) -> None:
    """The views of a session that has ended badly."""
    expect(shown).to_have_attribute("data-session-state", "failed", timeout=PATIENCE)
    button(shown, "⇥ First error").click()
    row(shown, "check drift").click()
    expect(shown.locator(".wsm-pane")).to_contain_text("Traceback", timeout=PATIENCE)
    album.take("failed", shown)
    button(shown, "Close details").click()
    shown.locator(".wsm-replay").click()
    slider = shown.get_by_role("slider")
    for _ in range(9):
        slider.press("PageDown")
    expect(shown).to_have_attribute("data-verdict", "replay")
    for _ in range(5):
        slider.press("PageUp")
    album.take("replay", shown)
    button(shown, "Leave replay").click()


def shoot(browser: Browser, folder: Path, wanted: list[str], *, dark: bool) -> None:
    """The pictures of one theme."""
    theme = "dark" if dark else "light"
    server = ServerProcess(folder / "server")
    server.start()
    kernel = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    lab = Lab(folder / "lab", {**server.env(), **kernel}, dark=dark)
    for name in ("wide", "narrow"):
        notebook_file(lab.root / f"{name}.ipynb", WATCH, DASHBOARD, PARTS)
    lab.start()
    program = subprocess.Popen(
        [sys.executable, "-c", RUN, PROGRAM.read_text(encoding="utf-8")],
        env={**os.environ, **server.env("etl", "publish")},
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    albums: list[tuple[Album, Locator]] = []
    try:
        for name, width, suffix in (("wide", 1200, theme), ("narrow", 600, f"{theme}-600")):
            notebook = lab.page(browser, f"{name}.ipynb", width=1200, height=700)
            notebook.page.keyboard.press("Control+b")  # the side bar away
            notebook.page.set_viewport_size({"width": width, "height": 700})
            notebook.run(0)
            albums.append((Album(notebook, suffix, wanted), notebook.observer(0)))

        def each(act: Callable[[Album, Locator], None]) -> None:
            for album, shown in albums:
                album.page.bring_to_front()
                act(album, shown)

        each(live)
        server.kill()
        each(gone)
        server.start()
        for album, shown in albums:
            album.notebook.reconnect(shown)
            expect(shown).to_have_attribute("data-verdict", "live", timeout=PATIENCE)
            # The program has found the server again: what it does from now on is seen.
            expect(shown.locator(".wsm-producer")).to_have_attribute("data-tone", "good", timeout=PATIENCE)
        assert program.stdin is not None
        program.stdin.write("\n")
        program.stdin.flush()
        program.wait(60)
        each(failed)
        for album, _ in albums:
            album.page.bring_to_front()
            album.notebook.run(1)
            board = album.notebook.observer(1)
            expect(board).to_contain_text("nightly-etl", timeout=PATIENCE)
            album.take("sessions", board)
    finally:
        for album, _ in albums:
            album.page.context.close()
        program.kill()
        program.wait(20)
        lab.stop()
        server.stop()


def main() -> None:
    """All of them, or those that are named."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        for dark in (False, True):
            place = Path(folder) / ("dark" if dark else "light")
            place.mkdir()
            shoot(browser, place, sys.argv[1:], dark=dark)
        browser.close()


if __name__ == "__main__":
    main()
