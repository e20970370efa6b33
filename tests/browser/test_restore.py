"""``%wsmonitor restore`` in a real JupyterLab and in Notebook 7: the open notebook, its file, trust, undo."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, expect

from tests.browser.conftest import ServerProcess, server_and_lab
from tests.browser.lab import Lab, Notebook, notebook_file
from tests.export.recorded import PNG, Values, display, ran, stream
from wsmonitor.client import PublicationListener, Target, connect
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange
from wsmonitor.protocol.entities import Step

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

LONG = 60_000
SCRIPT = "<script>document.body.dataset.hacked = '1'</script><b>bold</b>"
RESTORE = "%load_ext wsmonitor\n%wsmonitor restore"
CELLS = """window.jupyterapp.shell.currentWidget.content.model.cells"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Lab]]:
    """A server, and one JupyterLab for all tests here."""
    with server_and_lab(tmp_path_factory.mktemp("restore")) as both:
        yield both


def publish(server: ServerProcess, subject: str, name: str, values: Values, *steps: Step) -> None:
    """What *subject* recorded as *name*."""
    with connect(Target(url=server.url, token=server.token(subject, "publish"))) as connection:
        publication = connection.publication(f"{name}~1", "p", PublicationListener(), agent="test")
        publication.submit(SessionChange(name=name, kind="notebook", state="running"))
        for digest, data in values.kept.items():
            assert publication.submit_value(data, digest)
        publication.submit(ChainChange(id="nb", name=name, kind="notebook", state="running"))
        names = ("id", "chain", "name", "kind", "state", "input", "output", "attributes", "started", "ended")
        for step in steps:
            publication.submit(StepChange(**{field: getattr(step, field) for field in names}))
        assert publication.flush(60)
        publication.close(10)


def shown(cell: Locator, phase: str) -> Locator:
    sheet = cell.locator(f".wsr[data-phase={phase}]")
    expect(sheet).to_be_visible(timeout=LONG)
    return sheet


def saved(notebook: Notebook, path: Path) -> list[Any]:
    """The cells of the file, saved and found valid."""
    notebook.save()
    found = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(found)
    return list(found.cells)


def test_outputs_go_into_the_open_notebook_and_its_file_and_come_out_again(
    browser: Browser, place: tuple[ServerProcess, Lab]
) -> None:
    server, lab = place
    values = Values()
    error = {"output_type": "error", "ename": "E", "evalue": "no", "traceback": ["\x1b[31mE\x1b[0m: no"]}
    text = "a line of text\n" * 40_000
    recorded = {
        "c0": [stream("hello\n"), stream("oh\n", "stderr"), stream("again\n")],
        "c1": [display(text_html=SCRIPT, text_plain="x"), display(image_png=PNG, text_plain="<Figure>")],
        "c2": [error],
        "c3": [stream(text)],
        "c5": [stream("new\n")],
    }
    sources = {ident: f"f('{ident}')" for ident in recorded}
    publish(
        server, "eve", "lent", values,
        *(ran(values, n, sources[one], recorded[one], cell_id=one) for n, one in enumerate(recorded, 1)),
        ran(values, 9, "edited(0)", [stream("no")], cell_id="c4"),
    )  # fmt: skip
    path = lab.root / "lent.ipynb"
    notebook_file(path, *(sources.get(f"c{n}", "edited(1)") for n in range(6)), RESTORE)
    written = json.loads(path.read_text())
    written["cells"][5]["outputs"] = [stream("old\n")]
    path.write_text(json.dumps(written))

    notebook = lab.page(browser, "lent.ipynb")
    try:
        cell = notebook.run(6)
        sheet = shown(cell, "ready")
        expect(sheet.locator(".wsr-head")).to_contain_text("by eve")
        expect(sheet.locator(".wsr-go")).to_have_text("Restore 5 cells, replacing the outputs of 1")
        sheet.locator(".wsr-go").click()
        shown(cell, "done")
        cells = saved(notebook, path)
        for at, ident in ((0, "c0"), (1, "c1"), (2, "c2"), (3, "c3"), (5, "c5")):
            assert cells[at].outputs == recorded[ident], ident
        assert [one.execution_count for one in cells[:6]] == [1, 2, 3, 4, None, 5]
        assert cells[4].outputs == []
        # Recorded by somebody else: it is shown, and may not act, until the person trusts it.
        expect(notebook.cell(1).locator(".jp-OutputArea-output b")).to_have_text("bold")
        assert notebook.page.evaluate("document.body.dataset.hacked") is None
        assert notebook.page.evaluate(f"{CELLS}.get(1).trusted") is False

        cell.locator(".wsr").get_by_text("Undo").click()
        expect(cell.locator(".wsr-summary")).to_contain_text("5 cells put back")
        cells = saved(notebook, path)
        assert [one.outputs for one in cells[:6]] == [[], [], [], [], [], [stream("old\n")]]
        assert [one.execution_count for one in cells[:6]] == [None] * 6

        cell.locator(".wsr").get_by_text("Write a restored copy").click()
        expect(cell.locator(".wsr-told")).to_contain_text("lent-restored.ipynb", timeout=LONG)
        copied = nbformat.read(lab.root / "lent-restored.ipynb", as_version=nbformat.NO_CONVERT)
        nbformat.validate(copied)
        assert copied.cells[5].outputs == recorded["c5"]
        assert copied.cells[6].source == RESTORE
    finally:
        notebook.page.context.close()


def test_in_notebook_7_what_one_has_recorded_oneself_keeps_its_trust(
    browser: Browser, place: tuple[ServerProcess, Lab]
) -> None:
    server, lab = place
    values = Values()
    shown_once = display(text_html=SCRIPT)
    publish(server, "ada", "own", values, ran(values, 7, "pass", [shown_once], cell_id="c0"))
    path = lab.root / "own.ipynb"
    notebook_file(path, "pass", RESTORE)
    notebook = lab.page(browser, "own.ipynb", app="notebooks")
    try:
        # Jupyter trusts what was run here, and so this notebook.
        notebook.run(0)
        cell = notebook.run(1)
        shown(cell, "ready").locator(".wsr-go").click()
        shown(cell, "done")
        expect(notebook.page.locator("body[data-hacked]")).to_have_count(1, timeout=LONG)
        assert saved(notebook, path)[0].outputs == [shown_once]
        # Looking again finds that there is nothing left to do.
        notebook.run(1)
        expect(shown(cell, "ready").locator(".wsr-summary")).to_have_text(
            "Recorded cells: 1 already as recorded."
        )
    finally:
        notebook.page.context.close()
