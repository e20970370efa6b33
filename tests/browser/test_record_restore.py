"""A recorded notebook whose browser goes away: what the kernel goes on to put out is seen, and given back.

The same notebook is run by a browser that stays: what is restored is compared with that, output by output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import ServerProcess, server_and_lab
from tests.browser.lab import Lab, Notebook, eventually, notebook_file

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

LONG = 120_000
"""Milliseconds within which a thing must have happened, on however busy a machine."""

RECORD = "%load_ext wsmonitor\n%wsmonitor record"
LOOP = """\
import pathlib, sys, time
print("before the browser goes")
pathlib.Path("waiting").touch()
while not pathlib.Path("go").exists():
    time.sleep(0.05)
for n in range({seconds}):
    print("line", n, flush=True)
    if n % 2:
        print("warning", n, file=sys.stderr, flush=True)
    time.sleep({pause})
"""
CELLS = (
    "print('first')\n6 * 7",
    # A picture, a table, a formula: displays of several types.
    "from IPython.display import HTML, Image, Latex, display\nimport base64\n"
    "display(Image(base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kg"
    "AAAABJRU5ErkJggg==')))\ndisplay(HTML('<table><tr><td>1</td></tr></table>'), Latex('$x^2$'))",
    # An error with colours in its traceback; tagged, so that the next cells run all the same.
    "def broken(x):\n    return 1 / x\n\nbroken(0)",
    "!echo from a subprocess\nimport subprocess\nsubprocess.run(['echo', 'and another'])",
    # A progress bar that overwrites its line, and displays that are updated.
    "bar = sys.stderr\nfor n in range(0, 101, 5):\n    bar.write(f'\\r{n:3d}%|{\"#\" * (n // 10):10s}|')\n"
    "bar.write('\\n')\nhandle = display('0 %', display_id='p')\nfor n in range(1, 6):\n"
    "    handle.update(f'{n * 20} %')\nprint('half\\rdone')",
    "from IPython.display import clear_output\nprint('gone')\nclear_output(wait=True)\nprint('x' * 50_000)",
    "import threading\nthread = threading.Thread(target=lambda: print('from a thread'))\n"
    "thread.start()\nthread.join()",
    "pathlib.Path('finished').touch()\n'the end'",
)
ERROR = 4  # the number of the cell that fails, in the notebook


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Lab]]:
    """A server, and one JupyterLab."""
    with server_and_lab(tmp_path_factory.mktemp("record")) as both:
        yield both


def write(folder: Path, loop: str) -> Path:
    """The notebook, in a folder of its own, which its kernel runs in."""
    folder.mkdir()
    path = folder / "work.ipynb"
    notebook_file(path, RECORD, CELLS[0], loop, *CELLS[1:])
    notebook = json.loads(path.read_text())
    notebook["cells"][ERROR]["metadata"]["tags"] = ["raises-exception"]
    path.write_text(json.dumps(notebook))
    return path


def run_all(notebook: Notebook) -> None:
    """Begin the recording, then run all the rest, without waiting for it."""
    notebook.run(0)
    # Not the commands' promise, which waits for the cells.
    notebook.page.evaluate(
        """() => {
             const { shell, commands } = window.jupyterapp;
             shell.currentWidget.content.activeCellIndex = 1;
             commands.execute("notebook:run-all-below");
           }"""
    )


def outputs(path: Path) -> list[Any]:
    """The outputs of a valid notebook file, without what differs from run to run."""
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    text = json.dumps([cell.outputs for cell in notebook.cells[1:]])
    return list(json.loads(text))


@pytest.mark.parametrize(
    ("seconds", "pause"),
    [(6, 0.05), pytest.param(60, 1, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])],
    ids=["short", "minute"],
)
def test_what_a_closed_browser_missed_is_seen_and_given_back(
    browser: Browser, place: tuple[ServerProcess, Lab], tmp_path: Path, seconds: int, pause: float
) -> None:
    server, lab = place
    loop = LOOP.format(seconds=seconds, pause=pause)
    cells = len(CELLS) + 2

    # A browser that stays.
    calm = write(lab.root / f"calm{seconds}", loop)
    (calm.parent / "go").touch()
    stayed = lab.page(browser, str(calm.relative_to(lab.root)))
    run_all(stayed)
    last = stayed.cell(cells - 1).locator(".jp-InputPrompt")
    expect(last).to_have_text(f"[{cells}]:", timeout=LONG)
    stayed.save()
    stayed.page.context.close()
    expected = outputs(calm)
    assert all(expected[at] for at in range(len(expected))), "each cell is to have put out something"

    # A browser that goes while the second cell runs.
    path = write(lab.root / f"left{seconds}", loop)
    name = str(path.relative_to(lab.root))
    left = lab.page(browser, name)
    run_all(left)
    eventually((path.parent / "waiting").exists, "the cell that waits did not begin", 120)
    left.page.context.close()
    (path.parent / "go").touch()
    eventually((path.parent / "finished").exists, "the kernel did not go on", 240)

    # A fresh notebook sees all of it.
    notebook_file(lab.root / f"fresh{seconds}.ipynb", "import wsmonitor as wm\n\nwm.watch('work')")
    fresh = lab.page(browser, f"fresh{seconds}.ipynb")
    fresh.run(0)
    shown = fresh.observer(0)
    expect(shown).to_have_attribute("data-verdict", "live", timeout=LONG)
    expect(shown.locator(".wsm-counts")).to_contain_text(str(cells - 1), timeout=LONG)
    expect(shown.locator(".wsm-counts")).to_contain_text("1 failed", timeout=LONG)
    expect(shown.get_by_text("pathlib.Path('finished').touch()").first).to_be_attached(timeout=LONG)
    fresh.page.context.close()

    # The notebook, opened again, has none of it; and then all.
    back = lab.page(browser, name)
    assert not any(outputs(path)[1:])
    back.page.evaluate(
        """window.jupyterapp.shell.currentWidget.content.model.sharedModel.addCell(
             { cell_type: "code", source: "%wsmonitor restore" })"""
    )
    cell = back.run(cells)
    expect(cell.locator(".wsr[data-phase=ready]")).to_be_visible(timeout=LONG)
    cell.locator(".wsr-go").click()
    expect(cell.locator(".wsr[data-phase=done]")).to_be_visible(timeout=LONG)
    back.save()
    back.page.context.close()
    found = outputs(path)[: len(expected)]
    for at, (wanted, got) in enumerate(zip(expected, found, strict=True), 1):
        assert got == wanted, f"cell {at}"
    counts = [one.execution_count for one in nbformat.read(path, as_version=4).cells[1:cells]]
    assert counts == list(range(2, cells + 1))

    # And so does a file that is made of the recording.
    exported = tmp_path / "exported.ipynb"
    made = subprocess.run(
        [sys.executable, "-m", "wsmonitor", "export", "work", "-o", str(exported)],
        env={**os.environ, **server.env()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert outputs(exported)[: len(expected)] == expected


EDITED = (
    RECORD,
    "print('moved')",
    "print('copied')",
    "print('edited')",
    "print('deleted')",
    "print('alone')",
)


@pytest.mark.slow
@pytest.mark.parametrize("app", ["lab/tree", "notebooks"])
def test_a_notebook_that_was_worked_on_since_gets_only_what_its_cells_made(
    browser: Browser, place: tuple[ServerProcess, Lab], app: str
) -> None:
    _, lab = place
    name = f"since-{app.partition('/')[0]}.ipynb"
    path = lab.root / name
    notebook_file(path, *EDITED)
    gone = lab.page(browser, name, app=app)
    for index in range(len(EDITED)):
        gone.run(index)
    gone.page.context.close()  # without saving

    written = json.loads(path.read_text())
    record, moved, copied, edited, _, alone = written["cells"]
    edited = {**edited, "source": "print('edited again')"}
    copy = {**copied, "id": "pasted"}
    restore = {**record, "id": "back", "source": "%wsmonitor restore"}
    written["cells"] = [record, alone, copy, edited, copied, moved, restore]
    path.write_text(json.dumps(written))

    back = lab.page(browser, name, app=app)
    cell = back.run(6)
    sheet = cell.locator(".wsr[data-phase=ready]")
    expect(sheet).to_be_visible(timeout=LONG)
    expect(sheet.locator(".wsr-go")).to_have_text("Restore 3 cells")
    sheet.locator(".wsr-go").click()
    expect(cell.locator(".wsr[data-phase=done]")).to_be_visible(timeout=LONG)
    back.save()
    back.page.context.close()
    texts = ["".join(one["text"] for one in found) for found in outputs(path)[:5]]
    assert texts == ["alone\n", "", "", "copied\n", "moved\n"]
