"""Live widgets are announced to whoever begins to listen to a busy kernel, and to nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from tests.browser.lab import eventually
from tests.kernels import KERNELS
from tests.kernels import Kernel as Version
from tests.notebook.test_kernel import Kernel
from wsmonitor.notebook.revival import AFTER, LIMIT, Due, announcements

pytestmark = pytest.mark.filterwarnings("default")  # jupyter_client's and zmq's own


def test_a_newcomer_is_told_a_few_times_unless_a_page_speaks() -> None:
    due = Due()
    assert due.next() is None
    assert not due.take(100.0)
    due.came(100.0)
    assert due.next() == 100.0 + AFTER[0]
    assert not due.take(100.0)
    assert due.take(100.0 + AFTER[0])
    assert due.next() == 100.0 + AFTER[1]
    due.spoke()
    assert due.next() is None
    assert not due.take(200.0)


def test_newcomers_that_come_together_are_told_together() -> None:
    due = Due()
    for _ in range(1000):
        due.came(10.0)
    told = 0
    while (at := due.next()) is not None:
        told += due.take(at)
    assert told <= len(AFTER)


class Model:
    """As much of a widget as an announcement looks at."""

    def __init__(self, ident: str, size: int) -> None:
        self.model_id = ident
        self.keys = ["_esm", "_key", "_token"]
        self._state = {"_esm": "code " * 1000, "_key": {"rows": "large"}, "_token": "x" * size}
        self.layout: Any = None

    def get_state(self, key: set[str]) -> dict[str, Any]:
        return {name: value for name, value in self._state.items() if name in key}


def widgets(count: int, size: int) -> list[Model]:
    made = []
    for number in range(count):
        model = Model(f"m{number}", size)
        model.layout = Model(f"l{number}", 1)
        made.append(model)
    return made


def test_an_announcement_has_the_code_once_and_no_key_frame() -> None:
    [(models, texts)] = announcements(widgets(3, 10))
    assert [model["id"] for model in models] == ["l0", "m0", "l1", "m1", "l2", "m2"]
    assert texts == ["code " * 1000]
    states = [model["state"] for model in models if model["id"][0] == "m"]
    assert states == [{"_token": "x" * 10, "_esm": {"text": 0}}] * 3


def test_announcements_are_of_a_bounded_size() -> None:
    parts = list(announcements(widgets(10, LIMIT // 3)))
    assert len(parts) > 1
    assert [m["id"] for models, _ in parts for m in models if m["id"][0] == "m"] == [
        f"m{n}" for n in range(10)
    ]
    assert all(len(str(part)) < 1.2 * LIMIT for part in parts)
    # Each stands for itself.
    assert all(texts == ["code " * 1000] for _, texts in parts)


@pytest.fixture(params=KERNELS, ids=str)
def kernel(
    request: pytest.FixtureRequest, kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Kernel]:
    for name, value in request.param.env(kernels).items():
        monkeypatch.setenv(name, value)
    started = Kernel({"WSMONITOR_LOCAL": "inline"})
    version: Version = request.param
    found = started.end(started.begin("import ipykernel; print(ipykernel.__version__)"))
    assert found.startswith(f"{version.version}.")
    yield started
    started.close()


def announced(message: dict[str, Any]) -> bool:
    """Whether *message* is the announcement."""
    state = message["content"].get("data", {}).get("state", {})
    return bool(message["msg_type"] == "comm_open" and "_models" in state)


def test_a_busy_kernel_announces_its_widgets_to_a_new_listener(kernel: Kernel, tmp_path: Path) -> None:
    ident = kernel.end(
        kernel.begin("import wsmonitor as wm; obs = wm.watch('x'); print(obs.model_id)")
    ).strip()
    go = tmp_path / "go"
    code = f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.02)"
    cell = kernel.begin(code)
    # With a session of its own: one that shares the first client's would take its place.
    other = BlockingKernelClient(connection_file=kernel.manager.connection_file)
    other.load_connection_file()
    other.start_channels()
    try:
        message = kernel.next(announced)
        models = {model["id"]: model["state"] for model in message["content"]["data"]["state"]["_models"]}
        assert models[ident]["_token"]
        assert models[ident]["layout"].removeprefix("IPY_MODEL_") in models
    finally:
        other.stop_channels()
        go.touch()
    kernel.end(cell)
    # With the last widget it is taken back.
    closed = message["content"]["comm_id"]
    kernel.begin("obs.close()")
    kernel.next(lambda m: m["msg_type"] == "comm_close" and m["content"]["comm_id"] == closed)


def test_nothing_of_it_stays_when_the_last_widget_is_closed(kernel: Kernel) -> None:
    threads = (
        "import threading, time\n"
        "def left(): return [t.name for t in threading.enumerate() if t.name == 'wsmonitor-revival']\n"
        "def settles(count):\n"
        "    until = time.monotonic() + 60\n"
        "    while len(left()) != count and time.monotonic() < until: time.sleep(0.02)\n"
        "    return len(left())\n"
    )
    kernel.end(kernel.begin("import wsmonitor as wm\n" + threads))
    assert kernel.end(kernel.begin("obs = wm.watch('x'); print(settles(1))")).strip() == "1"
    assert kernel.end(kernel.begin("obs.close(); print(settles(0))")).strip() == "0"
    # And anew, several times over.
    again = "for _ in range(5):\n    obs = wm.watch('x'); obs.close()\nobs = wm.watch('x'); print(settles(1))"
    assert kernel.end(kernel.begin(again)).strip() == "1"
    assert kernel.end(kernel.begin("obs.close(); print(settles(0))")).strip() == "0"


def test_a_kernel_with_a_widget_ends_when_it_is_asked_to(kernel: Kernel) -> None:
    # Context termination waits for every socket, and the monitor is one.
    kernel.end(kernel.begin("import wsmonitor as wm; obs = wm.watch('x')"))
    kernel.manager.request_shutdown()
    eventually(lambda: not kernel.manager.is_alive(), "the kernel did not end", 60)
