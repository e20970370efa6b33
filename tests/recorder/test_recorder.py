"""The recorder in a real kernel: which cells become steps, in which state, with which outputs."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.notebook.test_kernel import PATIENCE, Kernel
from wsmonitor.protocol.errors import WsMonitorError

from .conftest import Recorded

pytestmark = pytest.mark.filterwarnings("default")  # jupyter_client's and zmq's own


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def test_a_recording_is_a_session_of_kind_notebook_named_after_it(recorded: Recorded) -> None:
    state = recorded.until(lambda state: state if state.session is not None and state.chains else None)
    assert (state.session.name, state.session.kind) == ("analysis", "notebook")
    (chain,) = state.chains.values()
    assert (chain.name, chain.kind) == ("analysis", "notebook")
    assert [spec.name for spec in state.session.commands] == ["interrupt"]
    first = recorded.until(lambda state: next((s for s in state.steps.values() if s.ended), None))
    assert first.attributes["execution_count"] == 2, "as the kernel counts, not the recording"
    assert "wsmonitor rm" in recorded.text(first)


def test_a_cell_is_a_step_with_source_count_and_outputs(recorded: Recorded) -> None:
    before = recorded.run("0").attributes["execution_count"]
    assert isinstance(before, int)
    step = recorded.run("print('hello')\n6 * 7")
    assert (step.kind, step.state, step.attempt) == ("cell", "succeeded", 1)
    assert step.attributes["execution_count"] == before + 1
    assert step.name == f"[{before + 1}] print('hello')"
    assert step.attributes["notebook"] == "/home/ada/analysis.ipynb"
    assert step.input is not None
    assert (step.input.mime, step.input.text) == ("text/x-python", "print('hello')\n6 * 7")
    assert recorded.outputs(step) == [
        stream("hello\n"),
        {
            "output_type": "execute_result",
            "data": {"text/plain": "42"},
            "metadata": {},
            "execution_count": before + 1,
        },
    ]
    assert int(step.created) <= int(step.started) <= int(step.ended)


@pytest.mark.parametrize(
    ("code", "state", "type_"),
    [
        ("1/0", "failed", "ZeroDivisionError"),
        ("x = (", "failed", "SyntaxError"),
        ("raise KeyboardInterrupt", "cancelled", ""),
        ("import sys; sys.exit()", "succeeded", ""),
        ("import sys; sys.exit(3)", "failed", "SystemExit"),
        ("get_ipython().run_cell('1/0'); None", "succeeded", ""),
        ("%nothing", "failed", "UsageError"),
        ("await __import__('asyncio').sleep(0)", "succeeded", ""),
    ],
)
def test_how_a_cell_ended(recorded: Recorded, code: str, state: str, type_: str) -> None:
    step = recorded.run(code)
    assert (step.state, step.error.type if step.error else "") == (state, type_)
    if step.error is not None and type_ == "ZeroDivisionError":
        assert "\x1b" not in step.error.traceback
        assert "----> 1 1/0" in step.error.traceback
        assert "\x1b[" in recorded.outputs(step)[-1]["traceback"][0]


def test_code_within_a_cell_makes_no_steps_of_its_own(recorded: Recorded) -> None:
    recorded.run("'everything before has arrived'")
    for code in (
        "%%capture out\nprint('captured')",
        "%%time\nprint('timed')",
        "%timeit -n1 -r1 pass",
        "get_ipython().run_cell('print(1)'); print('outer')",
        "%%bash\necho from bash",
        "!echo from a shell",
    ):
        before = len(recorded.state.steps)
        recorded.run(code)
        assert len(recorded.state.steps) == before + 1
    assert recorded.outputs(recorded.run("%%capture out\nprint('captured')")) == []
    assert recorded.outputs(recorded.run("!echo from a shell")) == [stream("from a shell\n")]


def test_of_a_notebook_s_bar_the_text_is_what_it_showed_last(recorded: Recorded) -> None:
    pytest.importorskip("tqdm", reason="tqdm is not installed: it is in the extra `test`")
    step = recorded.run("from tqdm.notebook import tqdm\nfor _ in tqdm(range(30), desc='load'): pass")
    (shown,) = recorded.outputs(step)
    assert shown["data"]["text/plain"].startswith("load: 100%|██████████| 30/30 [")
    assert step.progress is not None
    assert (step.progress.done, step.progress.total) == (30, 30)


def test_what_is_silent_or_without_history_is_no_step(recorded: Recorded) -> None:
    client = recorded.kernel.client
    recorded.kernel.end(client.execute("print('quiet')", silent=True))
    recorded.kernel.end(client.execute("print('no history')", store_history=False))
    recorded.run("'a mark'")
    names = [step.name for step in recorded.steps_of(recorded.state)]
    assert "quiet" not in str(names)
    assert "no history" not in str(names)


def test_displays_pictures_and_updates_also_of_earlier_cells(recorded: Recorded) -> None:
    picture = b"\x89PNG" * 20_000
    step = recorded.run(
        "from IPython.display import Image, HTML, display, update_display, clear_output\n"
        "display(HTML('<b>old</b>'), display_id='later')\n"
        "display(Image(data=b'\\x89PNG' * 20_000, format='png'))\n"
        "display({'application/json': {'a': [1, None]}}, raw=True)"
    )
    assert step.output is not None
    assert list(step.output.parts.values()) == [len(picture)]
    html, png, plain = (item["data"] for item in recorded.outputs(step))
    assert html["text/html"] == "<b>old</b>"
    assert base64.b64decode(png["image/png"]) == picture
    assert plain["application/json"] == {"a": [1, None]}
    recorded.run("update_display(HTML('<i>new</i>'), display_id='later')")

    def updated(state: Any) -> bool:
        return "<i>new</i>" in state.steps[step.id].output.text

    assert recorded.until(updated)
    cleared = recorded.run("print('gone'); clear_output(wait=True); print('kept')")
    assert recorded.outputs(cleared) == [stream("kept\n")]


def test_threads_subprocesses_and_file_descriptors(recorded: Recorded) -> None:
    step = recorded.run(
        "import os, subprocess, sys, threading\n"
        "thread = threading.Thread(target=lambda: print('from a thread'))\n"
        "thread.start(); thread.join()\n"
        "sys.stdout.flush()\n"
        "_ = subprocess.run([sys.executable, '-c', 'print(\"from a process\")'])\n"
        "os.write(1, b'from a descriptor\\n'); print('warned', file=sys.stderr)"
    )

    def all_there(state: Any) -> bool:
        # What comes by the file descriptor passes a pipe, and may arrive after the cell's end.
        text = recorded.text(state.steps[step.id])
        words = ("from a thread", "from a process", "from a descriptor", "warned")
        return all(word in text for word in words)

    assert recorded.until(all_there)


def test_a_pager_s_text_is_recorded_where_a_front_end_shows_it(recorded: Recorded) -> None:
    (output,) = recorded.outputs(recorded.run("len?"))
    assert output["output_type"] == "display_data"
    assert "Return the number of items" in output["data"]["text/plain"]


def test_progress_bars_as_text_and_as_widgets(recorded: Recorded) -> None:
    text = recorded.run(
        "import sys; sys.stderr.write('\\r 45%|████      | 45/100 [00:01<00:01, 44.01files/s]')"
    )
    assert text.progress is not None
    assert (text.progress.done, text.progress.total, text.progress.unit) == (45, 100, "files")
    widget = recorded.run(
        "import ipywidgets; bar = ipywidgets.IntProgress(max=8); display(bar); bar.value = 6"
    )
    assert widget.progress is not None
    assert (widget.progress.done, widget.progress.total) == (6, 8)
    data = recorded.outputs(widget)[0]["data"]
    assert set(data) == {"text/plain", "application/vnd.jupyter.widget-view+json"}


def test_secrets_are_nowhere(recorded: Recorded) -> None:
    step = recorded.run(
        "password = 'hunter2secret'\n"
        "import sys\n"
        "for piece in ('the tok', 'en=abcdef', 'ghijk and more\\n'): print(piece, end='', flush=True)\n"
        "raise ValueError('password=hunter2secret')"
    )
    assert step.error is not None
    told = json.dumps(
        [
            recorded.bytes_of(step.input).decode(),
            recorded.text(step),
            step.error.message,
            step.error.traceback,
        ]
    )
    assert "hunter2secret" not in told
    assert "abcdefghijk" not in told
    assert "and more" in told


def test_what_waits_for_input_is_shown_and_its_value_is_not_recorded(recorded: Recorded) -> None:
    kernel = recorded.kernel
    cell = kernel.client.execute("answer = input('Your name? ')\nprint(len(answer))", allow_stdin=True)
    request = kernel.client.get_stdin_msg(timeout=PATIENCE)
    assert request["content"]["prompt"] == "Your name? "
    waits = recorded.until(
        lambda state: next((s for s in state.steps.values() if s.state == "awaiting_input"), None)
    )
    assert waits.reason == "waits for input: Your name?"
    kernel.client.input("rumpelstiltskin")
    kernel.end(cell)
    step = recorded.step(cell)
    assert step.state == "succeeded"
    assert recorded.outputs(step) == [stream("15\n")]


def test_a_recording_can_be_neither_doubled_nor_waited_for_in_vain(recorded: Recorded) -> None:
    assert "is being recorded already, as 'analysis'" in recorded.kernel.run("%wsmonitor record again")
    assert "Recording as 'analysis'" in recorded.kernel.run("%wsmonitor record status")


def test_forked_processes_record_nothing_twice(recorded: Recorded) -> None:
    recorded.run("'everything before has arrived'")
    before = len(recorded.state.steps)
    step = recorded.run(
        "import os\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try:\n"
        "        get_ipython().run_cell('2 + 2', store_history=True)\n"
        "    finally:\n"
        "        os._exit(0)\n"
        "_ = os.waitpid(pid, 0)"
    )
    assert step.state == "succeeded"
    recorded.run("'a later mark'")
    assert len(recorded.state.steps) == before + 2


TRIPS = """
import ast
class Trips(ast.NodeTransformer):
    def visit(self, node):
        get_ipython().ast_transformers.remove(self)
        raise KeyboardInterrupt
get_ipython().ast_transformers.append(Trips())
"""
"""The next cell is interrupted when its beginning has been told, and its code has not begun."""


HELD = """
import gc
from wsmonitor.notebook.recorder.interrupting import Interrupter
print([len(one._running) for one in gc.get_objects() if type(one) is Interrupter])
"""
"""How many executions are taken to run: those that a command could still be waiting for."""


def test_a_cell_that_is_interrupted_before_its_code_begins_has_ended(recorded: Recorded) -> None:
    """IPython ends it with another record than it began it with."""
    before = recorded.kernel.run(HELD)
    recorded.kernel.run(TRIPS)
    cell = recorded.kernel.begin("1 + 1")
    recorded.kernel.end(cell)
    step = recorded.step(cell)
    assert (step.state, step.reason) == ("cancelled", "interrupted")
    assert recorded.kernel.run(HELD) == before


class TestInterrupt:
    """Needs the kernel's main thread."""

    def test_it_reaches_the_cell_that_it_names(self, recorded: Recorded) -> None:
        cell = recorded.kernel.begin("import time; time.sleep(600)")
        step = recorded.step(cell, ended=False)
        assert step.commands == ("interrupt",)
        recorded.connection.command(recorded.session, "interrupt", step=step.id, via="a test").result(
            PATIENCE
        )
        recorded.kernel.end(cell)
        ended = recorded.step(cell)
        assert (ended.state, ended.reason) == ("cancelled", "interrupted by ada via a test")

        def applied(state: Any) -> Any:
            return next((c for c in state.commands.values() if c.state == "applied"), None)

        assert recorded.until(applied).step == step.id
        assert recorded.run("'the next one is untouched'").state == "succeeded"

    def test_it_is_refused_when_the_cell_has_ended(self, recorded: Recorded) -> None:
        step = recorded.run("'over'")
        with pytest.raises(WsMonitorError, match="has ended"):
            recorded.connection.command(recorded.session, "interrupt", step=step.id).result(PATIENCE)

    def test_from_the_terminal(self, recorded: Recorded) -> None:
        cell = recorded.kernel.begin("import time; time.sleep(600)")
        step = recorded.step(cell, ended=False)
        done = terminal(recorded, "interrupt", "--step", step.id)
        assert done.returncode == 0, done.stderr
        assert "interrupt was applied" in done.stdout
        assert "KeyboardInterrupt" in recorded.kernel.end(cell)
        ended = recorded.step(cell)
        assert (ended.state, ended.reason) == ("cancelled", "interrupted by ada via terminal")
        late = terminal(recorded, "interrupt", "--step", step.id)
        assert late.returncode != 0
        assert "has ended" in late.stderr + late.stdout

    def test_from_another_kernel_s_observer(self, recorded: Recorded) -> None:
        elsewhere = Kernel(environment(recorded))
        try:
            elsewhere.run(f"import wsmonitor as wm\nobs = wm.watch({recorded.session!r})\nobs.wait_live(60)")
            cell = recorded.kernel.begin("import time; time.sleep(600)")
            step = recorded.step(cell, ended=False)
            ask = f"print(obs.command('interrupt', step={step.id!r}).result(60).name)"
            assert elsewhere.run(ask).strip() == "interrupt"
            assert "KeyboardInterrupt" in recorded.kernel.end(cell)
            ended = recorded.step(cell)
            assert ended.state == "cancelled"
            assert ended.reason.startswith("interrupted by ada via "), ended.reason
            assert "has ended" in elsewhere.run(ask)
        finally:
            elsewhere.close()


def environment(recorded: Recorded) -> dict[str, str]:
    """What a process needs to reach the recording's server."""
    return {"WSMONITOR_URL": recorded.server.url, "WSMONITOR_TOKEN": recorded.token}


def terminal(recorded: Recorded, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``wsmonitor command`` about the recording, as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "wsmonitor", "command", recorded.session, *arguments],
        env={**os.environ, **environment(recorded)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_off_leaves_nothing_behind_and_ends_the_session(recorded: Recorded) -> None:
    recorded.off()
    state = recorded.until(lambda state: state if state.session.ended else None)
    assert state.session.state == "succeeded"
    left = (
        "import threading\n"
        "print([t.name for t in threading.enumerate() if t.name.startswith('wsmonitor-rec')],\n"
        "      [f for fs in get_ipython().events.callbacks.values() for f in fs if 'recorder' in repr(f)])"
    )
    assert recorded.kernel.run(left).strip() == "[] []"
    before = len(recorded.state.steps)
    recorded.kernel.run("'not recorded'")
    first = recorded.session
    assert recorded.record("again") != first
    assert recorded.run("'recorded'").state == "succeeded"
    assert before == len(state.steps)
    assert "not recorded" not in str([step.name for step in recorded.steps_of(recorded.state)])
    recorded.kernel.run("%unload_ext wsmonitor")
    recorded.until(lambda state: state.session.ended)
