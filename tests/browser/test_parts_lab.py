"""The small widgets and the list of sessions in JupyterLab: composed, linked, heard while a cell blocks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import ServerProcess
from tests.browser.lab import Lab, eventually, notebook_file
from wsmonitor.client import Connection, Target, connect
from wsmonitor.client.types import PublicationListener
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

LONG = 60_000

COMPOSED = """import ipywidgets as w
import wsmonitor as wm
obs = wm.watch("job")
status, tree, label = wm.ConnectionStatus(obs), wm.SessionTree(obs), w.Label()
w.jslink((status, "phase"), (label, "value"))
w.VBox([status, wm.Heartbeat(obs), w.HBox([tree, wm.EventLog(obs)]), label])"""
LISTED = """from pathlib import Path
board = wm.SessionList(open=True)
board.on_select(lambda ident: Path("chosen").write_text(ident))
tree.observe(lambda change: Path("row").write_text(change["new"]), "selected")
board"""
BLOCKED = """import time
while not (Path("chosen").exists() and Path("row").exists()):
    time.sleep(0.05)"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path / "server")
    process.start()
    yield process
    process.stop()


@pytest.fixture
def publisher(server: ServerProcess) -> Iterator[Connection]:
    with connect(Target(url=server.url, token=server.token("prog", "publish"))) as handle:
        handle.wait_live(60)
        yield handle


def test_parts_compose_and_choices_arrive_while_a_cell_blocks(
    browser: Browser, server: ServerProcess, publisher: Connection, tmp_path: Path
) -> None:
    kernel = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    lab = Lab(tmp_path / "lab", {**server.env(), **kernel})
    notebook_file(lab.root / "n.ipynb", COMPOSED, LISTED, BLOCKED)
    lab.start()
    try:
        publication = publisher.publication("job~1", "p1", PublicationListener(), agent="test")
        publication.submit(SessionChange(name="job", state="running"))
        publication.submit(ChainChange(id="c", name="chain", state="running"))
        publication.submit(StepChange(id="s0", chain="c", name="first", state="running"))
        assert publication.flush(60)
        notebook = lab.page(browser, "n.ipynb", width=1180, height=1000)
        composed = notebook.run(0)
        for piece in ("status", "heartbeat", "log", "tree"):
            shown = composed.locator(f".wsm-part-{piece}")
            expect(shown).to_have_attribute("data-verdict", "live", timeout=LONG)
            assert shown.evaluate("el => el.clientWidth") > 200, "it has its share of the row"
        expect(composed.locator(".widget-label")).to_have_text("live", timeout=LONG)
        listed = notebook.run(1)
        row = listed.locator('.wsm-list-row[data-session="job~1"]')
        expect(row).to_be_visible(timeout=LONG)

        notebook.run(2, wait=False)
        composed.locator(".wsm-row", has_text="first").evaluate("row => row.click()")
        row.evaluate("row => row.click()")
        # The blocked cell ends when both choices have been heard, and not before.
        opened = listed.locator(".wsm:not(.wsm-list)")
        expect(opened).to_have_attribute("data-verdict", "live", timeout=LONG)
        eventually(lambda: (lab.root / "chosen").exists() and (lab.root / "row").exists(), "both heard", 60)
        assert (lab.root / "chosen").read_text() == "job~1"
        assert (lab.root / "row").read_text() == "s:s0"

        server.kill()
        for piece in ("status", "heartbeat", "log", "tree"):
            expect(composed.locator(f".wsm-part-{piece}")).to_have_attribute(
                "data-frozen", "true", timeout=LONG
            )
        expect(composed.locator(".widget-label")).not_to_have_text("live", timeout=LONG)
        expect(listed.locator(".wsm-list")).to_have_attribute("data-frozen", "true", timeout=LONG)
        expect(row).to_contain_text("was running")
        notebook.close()
    finally:
        lab.stop()
