"""What is left in a notebook when nothing runs any more: read as nbconvert, GitHub and a terminal show it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.notebook.samples import T0, nightly, ns
from wsmonitor.notebook.snapshot import SessionSnapshot, take
from wsmonitor.notebook.trace import BEGIN, END, LEFT, trace
from wsmonitor.protocol.entities import Producer, Session
from wsmonitor.protocol.reducer import SessionState

pytestmark = pytest.mark.timeout(300)

CELLS = [
    "import wsmonitor as wm\nobs = wm.watch('nightly-etl')\nobs",
    "try:\n"
    "    with wm.session('nightly-etl') as session, session.chain('load') as load:\n"
    "        with load.step('read <manifest>'):\n"
    "            pass\n"
    "        with load.step('check drift'):\n"
    "            raise ValueError('no good')\n"
    "except ValueError:\n"
    "    pass\n"
    "obs.wait(60, state='failed').state",
    "import time\nboard = wm.SessionList()\nwhile not board.count:\n    time.sleep(0.05)\nboard",
    "wm.SessionTree(obs)",
    "import ipywidgets as w\nw.VBox([w.HTML('ours:'), "
    "w.HBox([wm.Heartbeat(obs), wm.ConnectionStatus(obs)]), board])",
    "w.VBox([w.HTML('none of ours')])",
    # Until the copies that stand beside them have been sent.
    "while not (board.copies.told and obs.copies.told):\n    time.sleep(0.05)",
]
TIME = r"as of 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC"


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a notebook that was executed; its kernel, server and widgets are gone."""
    folder = tmp_path_factory.mktemp("left")
    cells = [
        {
            "cell_type": "code", "id": f"c{n}", "metadata": {}, "execution_count": None, "outputs": [],
            "source": cell,
        }
        for n, cell in enumerate(CELLS)
    ]  # fmt: skip
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (folder / "run.ipynb").write_text(json.dumps(notebook))
    convert(folder, "run.ipynb", "notebook", "--execute", "--output=left.ipynb")
    return folder


def convert(folder: Path, name: str, form: str, *options: str) -> None:
    env = {
        **os.environ,
        "WSMONITOR_LOCAL": "inline",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "nbconvert", f"--to={form}", *options, name],
        cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def read(text: str) -> str:
    """The words of an HTML text."""
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def test_markdown_tells_the_last_state_with_its_time(left: Path) -> None:
    convert(left, "left.ipynb", "markdown")
    text = (left / "left.md").read_text(encoding="utf-8")
    words = read(text)
    assert len(re.findall(f"Static copy: nightly-etl, run 1, ✕ failed, {TIME}", words)) == 3, (
        "observer, tree, and the box with two parts of one observer"
    )
    assert len(re.findall(f"Static copy: 1 session, {TIME}", words)) == 2
    assert "check drift ✕ failed" in words
    assert "ValueError: no good" in words
    assert "read &lt;manifest&gt;" in text
    assert "<script" not in text
    cells = re.findall(r"<t[hd] ([^>]*style=[^>]*)>", text.split("board", 1)[0])
    assert cells
    assert set(cells) == {LEFT}, "GitHub takes styles away: nothing depends on one"


def test_html_tells_it_without_a_kernel_and_without_the_widgets(left: Path) -> None:
    convert(left, "left.ipynb", "html")
    page = (left / "left.html").read_text(encoding="utf-8")
    without = read(re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.DOTALL))
    assert re.search(f"Static copy: nightly-etl, run 1, ✕ failed, {TIME}", without)
    assert "check drift ✕ failed" in without


def test_the_notebook_has_a_fallback_where_the_widgets_state_was_not_saved(left: Path) -> None:
    notebook = json.loads((left / "left.ipynb").read_text(encoding="utf-8"))
    views = [
        output["data"]
        for cell in notebook["cells"]
        for output in cell["outputs"]
        if "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    ]
    assert ["".join(data["text/plain"]) for data in views] == [
        "Observer('nightly-etl')", "SessionList()", "SessionTree('nightly-etl')",
        "VBox(children=(HTML(value='ours:'), HBox(children=(Heartbeat('nightly-etl'), "
        "ConnectionStatus('nightly-etl')))…",
        "VBox(children=(HTML(value='none of ours'),))",
    ]  # fmt: skip
    for data in views[:3]:
        assert "The live view needs a running kernel: run this cell. A static copy is below." in "".join(
            data["text/html"]
        )


def snapshot(*more: tuple[str, Producer]) -> SessionSnapshot:
    found = take(SessionState.restore("nightly-etl~3", "e", 9, [*nightly(), *more]))
    assert found is not None
    return found


AS_OF = round((T0 + 134) * 1000)


def test_a_copy_made_without_a_link_says_so_and_speaks_in_the_past_tense() -> None:
    words = read(trace(snapshot(), AS_OF, live=False))
    assert "run 3, ▶ was running, as of" in words
    assert "Nothing newer was heard from the server" in words
    assert "window 90d ▶ was running" in words
    assert "validate schema ✓ succeeded" in words
    live = read(trace(snapshot(), AS_OF))
    assert "was running" not in live
    assert "window 90d ▶ running" in live


def test_what_has_ended_has_ended_whatever_is_heard_since() -> None:
    ended = take(
        SessionState.restore("x~1", "e", 9, [("session", Session(id="x~1", name="x", state="failed"))])
    )
    assert ended is not None
    words = read(trace(ended, AS_OF, live=False))
    assert "✕ failed" in words
    assert "was down" not in words


def test_what_goes_on_has_lasted_until_the_copy_was_made_or_its_program_was_heard_last() -> None:
    assert re.search(r"window 90d ▶ running 27 s", read(trace(snapshot(), AS_OF)))
    lost = Producer(id="p1", agent="etl.py", since=ns(120), liveness="lost")
    assert re.search(r"window 90d ▶ was running 13 s", read(trace(snapshot(("producer", lost)), AS_OF)))


def test_a_producer_that_was_lost_is_told() -> None:
    lost = Producer(id="p1", agent="etl.py <1>", since=ns(100), liveness="lost")
    html = trace(snapshot(("producer", lost)), AS_OF)
    assert "The program etl.py &lt;1&gt; was lost since 20" in html
    assert "window 90d ▶ was running" in read(html)


def test_what_changes_from_run_to_run_is_between_the_markers() -> None:
    html = trace(snapshot(), AS_OF)
    outside = html[: html.index(BEGIN)] + html[html.index(END) + len(END) :]
    assert outside == "<details><summary></details>"
