"""A command pressed in the view while its own notebook's cell runs: applied meanwhile, and exactly once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

import wsmonitor as wm
from tests.browser.conftest import ServerProcess, server_and_lab
from tests.browser.lab import Lab, Notebook, eventually, notebook_file
from tests.kernels import KERNELS, Kernel, env_of_all
from tests.scale import SCALE

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

LONG = 60_000
"""Milliseconds within which a thing must have happened, on however busy a machine."""

LIVE_COMMS = {"7.0", "7.1", "7.2", "7.3"}
"""The ipykernel versions that hear a widget's own messages on a thread of their own while a cell runs."""

EVERYDAY = [(KERNELS[0], "lab/tree"), (KERNELS[0], "notebooks")]
CASES = [(kernel, app) for kernel in KERNELS for app in ("lab/tree", "notebooks")]


def cases(*wanted: tuple[Kernel, str]) -> pytest.MarkDecorator:
    """All of them with ``--all``, else those *wanted*."""
    chosen = CASES if SCALE > 1 else wanted
    return pytest.mark.parametrize(("kernel", "app"), chosen, ids=lambda one: str(one).removesuffix("/tree"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, kernels: Path) -> Iterator[tuple[ServerProcess, Lab]]:
    with server_and_lab(tmp_path_factory.mktemp("commands"), **env_of_all(KERNELS, kernels)) as both:
        yield both


@dataclass
class Scene:
    """A session with a command of its own, a notebook that watches it, and a cell that blocks it."""

    lab: Lab
    notebook: Notebook
    shown: Locator
    go: Path
    ended: Path
    done: list[str] = field(default_factory=list)

    def block(self) -> None:
        self.notebook.run(1, wait=False)
        eventually(lambda: self.go.with_suffix(".began").exists(), "the cell did not start", 60)

    def release(self) -> None:
        self.go.touch()
        eventually(self.ended.exists, "the cell did not end", 60)

    def press(self) -> None:
        self.shown.locator(".wsm-command", has_text="Mark").click(timeout=LONG)

    @property
    def kernel_state(self) -> str:
        """What the Jupyter server says of the notebook's kernel."""
        found = next(one for one in self.lab.api("sessions") if one["path"] == self.notebook.path)
        return str(found["kernel"]["execution_state"])

    @property
    def record(self) -> Locator:
        return self.shown.locator(".wsm-command-record")

    def output(self, index: int) -> str:
        """Run a cell, and give what it printed."""
        cell = self.notebook.run(index)
        return cell.locator(".jp-OutputArea-output").last.inner_text()


BLOCK = (
    "import pathlib, time\npathlib.Path({began!r}).touch()\n"
    "while not pathlib.Path({go!r}).exists(): time.sleep(0.05)\npathlib.Path({ended!r}).touch()"
)
RECORDS = "print([(c.name, c.state) for c in obs.session.commands.values()])"
DEAF = "get_ipython().kernel.control_handlers.pop('wsmonitor_request')"


@pytest.fixture
def scene(
    place: tuple[ServerProcess, Lab], browser: Browser, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[Kernel, str], Scene]]:
    server, lab = place
    name = re.sub(r"\W+", "-", request.node.name).strip("-")
    pages: list[Page] = []
    session = wm.session(name, url=server.url, token=server.token("prog", "publish"))

    def make(kernel: Kernel, app: str) -> Scene:
        go = tmp_path / "go"
        ended = tmp_path / "ended"
        began = go.with_suffix(".began")
        block = BLOCK.format(began=str(began), go=str(go), ended=str(ended))
        cells = [f"import wsmonitor as wm\nobs = wm.watch({name!r})\nobs", block, RECORDS, DEAF]
        notebook_file(lab.root / f"{name}.ipynb", *cells, kernel=kernel.name)
        notebook = lab.page(browser, f"{name}.ipynb", app=app)
        pages.append(notebook.page)
        notebook.run(0)
        shown = notebook.observer(0)
        expect(shown).to_have_attribute("data-verdict", "live", timeout=LONG)
        found = Scene(lab, notebook, shown, go, ended)

        def mark() -> str:
            found.done.append("marked")
            return "marked it"

        session.on("mark", mark)
        return found

    with session, session.chain("load") as chain, chain.step("read", input={"path": "data.csv"}):
        yield make
        for page in pages:
            page.context.close()


@cases(*EVERYDAY)
def test_it_is_applied_while_the_cell_runs(
    scene: Callable[[Kernel, str], Scene], kernel: Kernel, app: str
) -> None:
    at = scene(kernel, app)
    at.block()
    at.press()
    eventually(lambda: at.done, "the command did not arrive while the cell ran", 60)
    expect(at.record).to_contain_text("applied", timeout=LONG)
    assert "queued" not in at.record.inner_text()
    # What a step was given is to be seen as well.
    at.shown.locator(".wsm-row", has_text="read").click()
    at.notebook.page.keyboard.press("Enter")
    pane = at.shown.get_by_role("complementary")
    pane.get_by_role("tab", name="Input").click(timeout=LONG)
    expect(pane).to_contain_text("data.csv", timeout=LONG)
    # What was said to the kernel meanwhile has not made Jupyter show it as idle.
    assert at.kernel_state == "busy"
    assert not at.ended.exists()
    at.release()
    assert at.output(2).strip() == "[('mark', 'applied')]"
    assert at.done == ["marked"]


MUTE = """() => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  kernel.sendControlMessage = undefined;
}"""
"""A front-end that does not let a page speak on the control channel."""


@pytest.mark.parametrize("lacks", ["kernel", "page"] if SCALE > 1 else ["page"])
@cases(EVERYDAY[0])
def test_without_the_control_channel_it_says_so_and_is_applied_once(
    scene: Callable[[Kernel, str], Scene], kernel: Kernel, app: str, lacks: str
) -> None:
    at = scene(kernel, app)
    if lacks == "kernel":
        at.notebook.run(3)
    else:
        at.notebook.page.evaluate(MUTE)
    at.block()
    at.press()
    if kernel.version in LIVE_COMMS:
        eventually(lambda: at.done, "the command did not arrive while the cell ran", 60)
    else:
        expect(at.record).to_contain_text("queued: kernel busy", timeout=LONG)
        # With what to do instead.
        expect(at.record).to_contain_text("wsmonitor command")
        assert at.done == []
    assert not at.ended.exists()
    at.release()
    eventually(lambda: at.done, "the command did not arrive after the cell", 60)
    expect(at.record).to_contain_text("applied", timeout=LONG)
    assert at.output(2).strip() == "[('mark', 'applied')]"
    assert at.done == ["marked"]


RECORDED = (
    "%load_ext wsmonitor\n%wsmonitor record {name}",
    "import wsmonitor as wm\nobs = wm.watch({name!r})\nobs",
    "# takes long\nimport pathlib, time\npathlib.Path({began!r}).touch()\ntime.sleep(600)",
    "print([one.reason for one in obs.session.steps.values() if one.state == 'cancelled'])",
)


def test_a_recorded_cell_is_interrupted_from_the_view_in_its_own_notebook(
    place: tuple[ServerProcess, Lab], browser: Browser, tmp_path: Path
) -> None:
    _, lab = place
    began = tmp_path / "began"
    name = "stopped-from-the-view"
    cells = [cell.format(name=name, began=str(began)) for cell in RECORDED]
    notebook_file(lab.root / f"{name}.ipynb", *cells)
    notebook = lab.page(browser, f"{name}.ipynb")
    notebook.run(0)
    notebook.run(1)
    shown = notebook.observer(1)
    expect(shown).to_have_attribute("data-verdict", "live", timeout=LONG)
    notebook.run(2, wait=False)
    eventually(began.exists, "the cell did not start", 60)
    shown.locator(".wsm-row", has_text="takes long").click(timeout=LONG)
    shown.locator(".wsm-command", has_text="Interrupt").click(timeout=LONG)
    asked = shown.locator(".wsm-confirm")
    expect(asked).to_contain_text("Interrupt", timeout=LONG)
    asked.get_by_role("button", name="Yes, interrupt").click(timeout=LONG)
    record = shown.locator(".wsm-command-record")
    expect(record).to_contain_text("applied", timeout=LONG)
    cell = notebook.cell(2)
    expect(cell).to_contain_text("KeyboardInterrupt", timeout=LONG)
    expect(cell.locator(".jp-InputPrompt").first).to_have_text("[3]:", timeout=LONG)
    # It is over, so nothing offers to interrupt it; and the next one runs.
    expect(shown.locator(".wsm-command", has_text="Interrupt")).to_have_count(0, timeout=LONG)
    notebook.run(3)
    expect(notebook.cell(3)).to_contain_text("['interrupted by ada via ", timeout=LONG)
    notebook.page.context.close()
