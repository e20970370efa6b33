"""Pages that open, or are loaded again, while a cell runs: they show the session as it is now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import ServerProcess, server_and_lab
from tests.browser.lab import Lab, Notebook, eventually, notebook_file
from tests.kernels import KERNELS, Kernel, env_of_all
from tests.scale import SCALE
from wsmonitor.client import Connection, Target, connect
from wsmonitor.client.types import PublicationListener
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

LONG = 60_000
"""Milliseconds within which a thing must have happened, on however busy a machine."""

BLOCKS = {
    "sleep": "import pathlib, time\nwhile not pathlib.Path({go!r}).exists(): time.sleep(0.05)\n"
    "pathlib.Path({ended!r}).touch()",
    "await": "import asyncio, pathlib\nwhile not pathlib.Path({go!r}).exists(): await asyncio.sleep(0.05)\n"
    "pathlib.Path({ended!r}).touch()",
}

EVERYDAY = [(KERNELS[0], "lab/tree", "sleep"), (KERNELS[0], "notebooks", "await")]
CASES = [
    (kernel, app, block)
    for kernel in KERNELS
    for app in ("lab/tree", "notebooks")
    for block in BLOCKS
    if SCALE > 1 or (kernel, app, block) in EVERYDAY
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, kernels: Path) -> Iterator[tuple[ServerProcess, Lab]]:
    """A server, and one JupyterLab with all kernels of this run."""
    with server_and_lab(tmp_path_factory.mktemp("busy"), **env_of_all(KERNELS, kernels)) as both:
        yield both


@pytest.fixture
def publisher(place: tuple[ServerProcess, Lab]) -> Iterator[Connection]:
    server = place[0]
    with connect(Target(url=server.url, token=server.token("prog", "publish"))) as handle:
        handle.wait_live(60)
        yield handle


@pytest.fixture
def windows(browser: Browser) -> Iterator[list[Page]]:
    opened: list[Page] = []
    yield opened
    for page in opened:
        page.context.close()


def publish(connection: Connection, name: str) -> Any:
    publication = connection.publication(f"{name}~1", "p1", PublicationListener(), agent="test")
    publication.submit(SessionChange(name=name, state="running"))
    publication.submit(ChainChange(id="c", name="chain", state="running"))
    step(publication, "first")
    return publication


def step(publication: Any, name: str) -> None:
    publication.submit(StepChange(id=name.replace(" ", "-"), chain="c", name=name, state="running"))


def shows(notebook: Notebook, name: str) -> None:
    """The observer in the first cell is live, and has the step *name*."""
    shown = notebook.observer(0)
    expect(shown.locator(".wsm-row", has_text=name)).to_be_visible(timeout=LONG)
    expect(shown).to_have_attribute("data-verdict", "live", timeout=LONG)
    expect(notebook.page.locator(".wsm")).to_have_count(1, timeout=LONG)


@pytest.mark.parametrize(("kernel", "app", "block"), CASES, ids=lambda one: str(one).replace("/tree", ""))
def test_a_page_that_comes_while_a_cell_runs(
    place: tuple[ServerProcess, Lab],
    browser: Browser,
    publisher: Connection,
    windows: list[Page],
    tmp_path: Path,
    kernel: Kernel,
    app: str,
    block: str,
) -> None:
    lab = place[1]
    name = f"{kernel}-{app[:3]}-{block}"
    publication = publish(publisher, name)
    go, ended = tmp_path / "go", tmp_path / "ended"
    cells = [
        f"import wsmonitor as wm\nobs = wm.watch({name!r})\nobs",
        BLOCKS[block].format(go=str(go), ended=str(ended)),
        "obs.close()",
    ]
    notebook_file(lab.root / f"{name}.ipynb", *cells, kernel=kernel.name)
    first = lab.page(browser, f"{name}.ipynb", app=app)
    windows.append(first.page)
    first.run(0)
    shows(first, "first")
    first.save()
    first.run(1, wait=False)
    # Loaded again.
    first.page.reload()
    step(publication, "while loading")
    shows(first, "first")
    shows(first, "while loading")
    # Another window on the same notebook, as after a tab was closed; the first is not disturbed by it.
    step(publication, "while closed")
    second = Notebook(browser.new_context().new_page(), f"{name}.ipynb")
    windows.append(second.page)
    second.page.goto(f"{lab.url}/{app}/{name}.ipynb?token={lab.token}")
    shows(second, "while closed")
    step(publication, "both")
    shows(first, "both")
    shows(second, "both")
    assert not ended.exists()
    go.touch()
    eventually(ended.exists, "the cell did not end", 60)
    # Jupyter finds its widgets now: none is made twice, and they are the kernel's own.
    step(publication, "afterwards")
    shows(first, "afterwards")
    shows(second, "afterwards")
    first.run(2)
    expect(first.page.locator(".wsm")).to_have_count(0, timeout=LONG)
    expect(second.page.locator(".wsm")).to_have_count(0, timeout=LONG)
