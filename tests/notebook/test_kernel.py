"""Real kernels, spoken to as a front-end does: what is heard while a cell runs, magics, and what remains.

The kernel is the installed one; with ``--all`` each supported ipykernel takes its turn.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from tests.kernels import KERNELS
from tests.notebook.samples import ns
from wsmonitor.client import Connection, Target, connect
from wsmonitor.client.types import PublicationListener
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange
from wsmonitor_server.embedded import EmbeddedServer

pytestmark = pytest.mark.filterwarnings("default")  # jupyter_client's and zmq's own

PATIENCE = 60.0
"""Seconds within which anything must have happened, on however busy a machine."""


class Kernel:
    """A kernel, and the messages that a front-end would see. *options*: of its `KernelManager`."""

    def __init__(self, env: dict[str, str], specs: Path | None = None, **options: Any) -> None:
        manager = KernelSpecManager(kernel_dirs=[str(specs)]) if specs is not None else KernelSpecManager()
        self.manager = KernelManager(kernel_spec_manager=manager, **options)
        paths = os.pathsep.join(path for path in sys.path if path)
        self.manager.start_kernel(env={**os.environ, "PYTHONPATH": paths, **env})
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(PATIENCE)
        self.seen: list[dict[str, Any]] = []
        self.began: dict[str, int] = {}
        """Of each cell how many messages had been seen when it was sent."""
        self.reply: dict[str, Any] = {}
        """The newest on the shell channel."""

    def next(self, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next message on IOPub of which *until* is true; the others are kept in ``seen``."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except Empty:
                continue
            self.seen.append(message)
            if until(message):
                return message
        raise AssertionError(f"not seen: {[m['msg_type'] for m in self.seen[-20:]]}")

    def begin(self, code: str) -> str:
        """Start a cell, and return when the kernel has begun with it."""
        ident: str = self.client.execute(code)
        self.began[ident] = len(self.seen)
        self.next(lambda m: m["msg_type"] == "execute_input" and m["parent_header"].get("msg_id") == ident)
        return ident

    def end(self, ident: str) -> str:
        """Wait for the cell's end; what it printed, returned and displayed, or its error."""
        mine: list[dict[str, Any]] = []

        def idle(message: dict[str, Any]) -> bool:
            if message["parent_header"].get("msg_id") != ident:
                return False
            mine.append(message)
            return bool(message["msg_type"] == "status" and message["content"]["execution_state"] == "idle")

        if not any(idle(message) for message in self.seen[self.began.get(ident, len(self.seen)) :]):
            self.next(idle)
        # As front-ends do. A request that comes while the reply of the one before is being sent may never be
        # read by ipykernel 7.0 to 7.3: they send on a socket whose readable edge the send uses up.
        while self.reply.get("parent_header", {}).get("msg_id") != ident:
            self.reply = self.client.get_shell_msg(timeout=PATIENCE)
        text = ""
        for message in mine:
            content = message["content"]
            if message["msg_type"] == "stream":
                text += content["text"]
            elif message["msg_type"] in ("execute_result", "display_data"):
                text += content["data"].get("text/plain", "")
            elif message["msg_type"] == "error":
                text += f"{content['ename']}: {content['evalue']}"
        return text

    def run(self, code: str) -> str:
        return self.end(self.begin(code))

    def control(self, **content: Any) -> dict[str, Any]:
        """Say something on the control channel, as the view does; the reply's content."""
        message = self.client.session.msg("wsmonitor_request", content)
        self.client.control_channel.send(message)
        while True:
            reply = self.client.get_control_msg(timeout=PATIENCE)
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                assert reply["msg_type"] == "wsmonitor_reply"
                found: dict[str, Any] = reply["content"]
                return found

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


@pytest.fixture(scope="module", params=KERNELS, ids=str)
def ipykernel(request: pytest.FixtureRequest) -> Any:
    """The kernel whose turn it is. Each has a server of its own, and so sessions of its own."""
    return request.param


@pytest.fixture(scope="module")
def server(ipykernel: Any) -> Iterator[Any]:
    with EmbeddedServer.in_thread() as running:
        yield running


@pytest.fixture
def publisher(server: Any) -> Iterator[Connection]:
    with connect(Target(url=server.url, token=server.token(sub="prog", role="publish"))) as handle:
        handle.wait_live(PATIENCE)
        yield handle


@pytest.fixture(scope="module")
def kernel(ipykernel: Any, kernels: Path, server: Any) -> Iterator[Kernel]:
    env = {"WSMONITOR_URL": server.url, "WSMONITOR_TOKEN": server.token(sub="ada", role="admin")}
    found = Kernel(env, ipykernel.jupyter_path(kernels) / "kernels")
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def watching(kernel: Kernel) -> Iterator[Callable[[str], str]]:
    """Watch a session as ``obs`` in the kernel; gives the observer's token for the control channel."""

    def watch(name: str) -> str:
        code = f"import wsmonitor as wm\nobs = wm.watch({name!r})\nprint(obs._token)"
        return kernel.run(code).strip()

    yield watch
    kernel.run("obs.close()")


def publish(connection: Connection, name: str) -> Any:
    publication = connection.publication(f"{name}~1", "p1", PublicationListener(), agent="test")
    publication.submit(SessionChange(name=name, state="running", started=ns(0)))
    publication.submit(ChainChange(id="c", name="chain", state="running", started=ns(0)))
    return publication


def test_the_control_channel_is_heard_while_a_cell_runs(
    kernel: Kernel, watching: Callable[[str], str], publisher: Connection
) -> None:
    token = watching("busy")
    publication = publish(publisher, "busy")
    cell = kernel.begin("obs.wait(60).state")
    began = time.monotonic()
    assert kernel.control(do="hello", token=token, n=-1) == {"status": "ok"}
    assert kernel.control(do="seen", token=token, n=1) == {"status": "ok"}
    took = time.monotonic() - began
    # Downwards too, while the cell runs: a change set, or a key frame with what was published.
    publication.submit(StepChange(id="s", chain="c", name="now", state="running", started=ns(1)))

    def tells(message: dict[str, Any]) -> bool:
        return message["msg_type"] == "comm_msg" and "'name': 'now'" in str(message["content"]["data"])

    kernel.next(tells)
    idle = [m for m in kernel.seen if m["parent_header"].get("msg_id") == cell and m["msg_type"] == "status"]
    assert [m["content"]["execution_state"] for m in idle] in ([], ["busy"]), "the cell still runs"
    publication.submit(SessionChange(state="succeeded", ended=ns(2)))
    assert kernel.end(cell) == "'succeeded'"
    assert took < PATIENCE
    assert float(kernel.run("print(obs.browser_heard)")) < 2 * PATIENCE


@pytest.mark.parametrize(
    "content", [{}, {"token": "wrong"}, {"token": 3, "do": ["x"]}, {"do": "reconnect", "token": None}]
)
def test_what_the_control_channel_does_not_know_is_answered_and_harms_nothing(
    kernel: Kernel, watching: Callable[[str], str], content: dict[str, Any]
) -> None:
    watching("harmless")
    assert kernel.control(**content) == {"status": "error"}
    assert kernel.run("print(obs.browser_heard)").strip() == "None"


def test_a_word_that_an_observer_does_not_know_is_no_fault(
    kernel: Kernel, watching: Callable[[str], str]
) -> None:
    token = watching("unknown-word")
    assert kernel.control(token=token, do={"deep": 1}, n="x") == {"status": "ok"}
    assert kernel.control(token=token, do="reconnect") == {"status": "ok"}
    assert kernel.run("print(obs.errors)").strip() == "()"


def test_what_the_browser_says_does_not_make_a_busy_kernel_look_idle(
    kernel: Kernel, watching: Callable[[str], str], publisher: Connection
) -> None:
    token = watching("busy-light")
    publication = publish(publisher, "busy-light")
    since = len(kernel.seen)
    cell = kernel.begin("obs.wait(60).state")
    for content in ({"do": "hello"}, {"do": "seen", "n": 1}, {"do": "reconnect"}):
        assert kernel.control(**content, token=token) == {"status": "ok"}
    publication.submit(SessionChange(state="succeeded", ended=ns(2)))
    assert kernel.end(cell) == "'succeeded'"
    said = [m["content"]["execution_state"] for m in kernel.seen[since:] if m["msg_type"] == "status"]
    assert said == ["busy", "idle"]


def test_other_control_messages_go_the_way_they_always_went(
    kernel: Kernel, watching: Callable[[str], str]
) -> None:
    watching("others")
    session = kernel.client.session
    for kind in ("no_such_request", "interrupt_request"):
        message = session.msg(kind, {})
        ident = message["header"]["msg_id"]
        cell = ""
        if kind == "interrupt_request":
            cell = kernel.begin("import time\nprint('asleep', flush=True)\ntime.sleep(60)")
            # An interrupt that comes before the cell's own code runs hits ipykernel's, and is only logged.
            kernel.next(lambda m: m["msg_type"] == "stream" and "asleep" in m["content"]["text"])
        kernel.client.control_channel.send(message)
        said: list[str] = []
        while said != ["busy", "idle"]:
            status = kernel.next(lambda m, ident=ident: m["parent_header"].get("msg_id") == ident)
            said.append(status["content"]["execution_state"])
        if cell:
            assert kernel.end(cell).startswith("asleep\nKeyboardInterrupt")
            assert kernel.client.get_control_msg(timeout=PATIENCE)["msg_type"] == "interrupt_reply"
    forged = session.msg("wsmonitor_request", {"do": "hello"})
    key, session.key = session.key, b"wrong"
    kernel.client.control_channel.send(forged)
    session.key = key
    assert kernel.control() == {"status": "error"}, "it hears on"


def test_a_question_is_answered_while_a_cell_runs_and_once(
    kernel: Kernel, watching: Callable[[str], str], publisher: Connection
) -> None:
    token = watching("asking")
    publication = publish(publisher, "asking")
    cell = kernel.begin("obs.wait(60).state")
    received: dict[str, Any] = {}
    while received.get("ok") is not True:  # the view may still have no session
        ident = secrets.token_hex(16)
        assert kernel.control(do="details", id=ident, token=token, row="c:c") == {"status": "ok"}
        told = kernel.next(lambda m, ident=ident: answer_of(m).get("to") == ident)
        received = answer_of(told)
    assert received["details"]["name"] == "chain"
    for n in range(5):
        assert kernel.control(do="details", id=f"more-{n}", token=token, row="c:c") == {"status": "ok"}
        kernel.next(lambda m, n=n: answer_of(m).get("to") == f"more-{n}")
    publication.submit(SessionChange(state="succeeded", ended=ns(2)))
    assert kernel.end(cell) == "'succeeded'"
    # Nothing of it is kept: ipykernel 7.4 remembers messages of a certain form until they are answered.
    kept = "print([name for name, value in vars(obs.comm).items() if isinstance(value, dict) and value])"
    assert kernel.run(kept).strip() == "[]"


def answer_of(message: dict[str, Any]) -> dict[str, Any]:
    """The answer that a message on IOPub holds, or {}."""
    data = message["content"].get("data", {}) if message["msg_type"] == "comm_msg" else {}
    found = data.get("content") if data.get("method") == "custom" else None
    return found if isinstance(found, dict) and found.get("type") == "answer" else {}


def test_an_interrupt_ends_a_wait_and_harms_nothing(
    kernel: Kernel, watching: Callable[[str], str], publisher: Connection
) -> None:
    watching("interrupted")
    publication = publish(publisher, "interrupted")
    kernel.run("obs.wait(60, state='running')")
    cell = kernel.begin("print('begins', flush=True)\nobs.wait()")
    kernel.next(lambda m: m["msg_type"] == "stream" and "begins" in m["content"]["text"])
    kernel.manager.interrupt_kernel()
    assert "KeyboardInterrupt" in kernel.end(cell)
    assert kernel.run("print(obs.errors, obs.state)").split() == ["()", "running"]
    deadline = time.monotonic() + PATIENCE
    while kernel.run("print(obs.feed.watch.waiting)").strip() != "0":
        assert time.monotonic() < deadline, "nobody waits any more"
    awaiting = kernel.begin("(await obs.wait_async(60)).state")
    publication.submit(SessionChange(state="succeeded", ended=ns(2)))
    assert kernel.end(awaiting) == "'succeeded'"
    assert kernel.run("obs.wait(60).state") == "'succeeded'"


def test_waiting_for_the_end_of_ones_own_recording_is_refused(
    kernel: Kernel, watching: Callable[[str], str]
) -> None:
    kernel.run("%load_ext wsmonitor")
    kernel.run("%wsmonitor record own-notebook")
    try:
        watching("own-notebook")
        kernel.run("obs.wait(60, state='running')")
        for code in ("obs.wait(60)", "await obs.wait_async(60)", "obs.wait(60, state='failed')"):
            assert kernel.run(code).startswith("UsageError: this would wait for ever"), code
    finally:
        kernel.run("%wsmonitor record off")
    assert kernel.run("obs.wait(60).state") == "'succeeded'"


def subscriptions(server: Any) -> int:
    """How many subscriptions the server has."""
    with connect(Target(url=server.url, token=server.token(sub="boss", role="admin"))) as admin:
        found: int = admin.server_status().result(PATIENCE)["subscriptions"]
        return found


def test_a_cell_that_is_run_a_hundred_times_leaves_one_observer_and_nothing_else(
    kernel: Kernel, watching: Callable[[str], str], publisher: Connection, server: Any
) -> None:
    publish(publisher, "again")
    first = watching("again")
    kernel.run("obs.wait(60, state='running')")
    measure = (
        "import asyncio, gc, os, psutil, threading\n"
        "from comm import get_comm_manager\n"
        "from ipywidgets.widgets.widget import _instances\n"
        "from wsmonitor.notebook import kernel_channel, live\n"
        "def measured():\n"
        "    gc.collect()\n"
        "    process = psutil.Process()\n"
        "    counts = (sorted(t.name for t in threading.enumerate()), len(process.net_connections()),\n"
        "        process.num_fds(), len(asyncio.all_tasks()), len(_instances),\n"
        "        len(get_comm_manager().comms),\n"
        "        len(kernel_channel._listeners), len(live.sender._outlets), len(live.caller._subjects))\n"
        "    return counts, process.memory_info().rss\n"
    )
    for _ in range(20):
        kernel.run("obs = wm.watch('again')\nobs")
    kernel.run(f"{measure}before = measured()")
    subscribed = subscriptions(server)
    for _ in range(100):
        kernel.run("obs = wm.watch('again')\nobs")
    assert watching("again") == first
    deadline = time.monotonic() + PATIENCE
    # Not more than before; it may be less, because what earlier tests left may have gone by now.
    compare = (
        "after = measured()\n"
        "more = [pair for pair in zip(after[0][1:], before[0][1:]) if pair[0] > pair[1]]\n"
        "print(not more and set(after[0][0]) <= set(before[0][0]) or (before[0], after[0]))"
    )
    while (told := kernel.run(compare).strip()) != "True":  # a thread of Jupyter's own may be on its way out
        assert time.monotonic() < deadline, told
    grown = int(kernel.run("print(after[1] - before[1])"))
    assert grown <= 5_000_000, f"{grown:,} bytes"
    assert subscriptions(server) == subscribed
    probe = (
        "import threading\nfrom wsmonitor.notebook.observer import observers\n"
        "from ipywidgets.widgets.widget import _instances\n"
        "ours = sum(type(w).__name__ == 'Observer' for w in _instances.values())\n"
        "names = [t.name for t in threading.enumerate() if t.name.startswith('wsmonitor')]\n"
        "print(len(observers()), ours, len(names) == len(set(names)))"
    )
    assert kernel.run(probe).split() == ["1", "1", "True"]


def test_close_leaves_nothing_in_the_kernel(kernel: Kernel, watching: Callable[[str], str]) -> None:
    token = watching("closing")
    kernel.run("obs")
    kernel.run("obs.close()")
    probe = (
        "import threading, time\n"
        "from comm import get_comm_manager\n"
        "from ipywidgets.widgets.widget import _instances\n"
        "from wsmonitor.client import connections\n"
        "from wsmonitor.notebook import kernel_channel\n"
        "from wsmonitor.notebook.observer import observers\n"
        "def threads():\n"
        "    return [t.name for t in threading.enumerate() if t.name.startswith('wsmonitor')]\n"
        "deadline = time.monotonic() + 30\n"
        "while threads() and time.monotonic() < deadline:\n"
        "    threading.Event().wait(0.01)\n"
        "print(threads(), connections(), observers(), len(_instances), len(get_comm_manager().comms),"
        " len(kernel_channel._listeners))"
    )
    assert kernel.run(probe).strip() == "[] 0 [] 0 0 0"
    assert kernel.control(do="hello", token=token) == {"status": "error"}
    assert "'closing'" in kernel.run("obs")


def test_the_magics_in_a_real_kernel(
    kernel: Kernel, watching: Callable[[str], str], publisher: Connection
) -> None:
    publication = publish(publisher, "magic")
    publication.submit(SessionChange(state="succeeded", ended=ns(2)))
    assert publication.flush(PATIENCE)
    watching("magic")
    kernel.run("%load_ext wsmonitor")
    assert "succeeded" in kernel.run("%wsmonitor sessions")
    status = kernel.run("%wsmonitor status")
    assert "from WSMONITOR_URL" in status or "WSMONITOR_URL: ws://" in status
    assert "live" in status
    assert "no front-end has answered yet" in status
    assert "%wsmonitor watch NAME" in kernel.run("%wsmonitor")
    assert kernel.run("%wsmonitor wach magic").startswith("UsageError: %wsmonitor has no 'wach'")
    assert "Observer('magic')" in kernel.run("%wsmonitor watch magic")
    assert kernel.run("print(wm.watch('magic') is obs)").strip() == "True"


def test_nest_lets_a_cell_run_a_loop_and_loses_no_message(server: Any) -> None:
    env = {"WSMONITOR_URL": server.url, "WSMONITOR_TOKEN": server.token(sub="ada", role="command")}
    kernel = Kernel(env)
    try:
        nested = "import asyncio\nasync def later():\n    await asyncio.sleep(0.01)\n    return 42\n"
        assert "RuntimeError" in kernel.run(f"{nested}asyncio.run(later())")
        kernel.run("%load_ext wsmonitor")
        assert "until the kernel is restarted" in kernel.run("%wsmonitor nest")
        assert kernel.run("asyncio.run(later())") == "42"
        # A widget whose kernel-side callback a front-end calls while the nested loop turns.
        kernel.run(
            "import ipywidgets, threading, os, pathlib, tempfile\n"
            "slider = ipywidgets.IntSlider(); heard = []\n"
            "slider.observe(lambda change: heard.append(change['new']), 'value')\n"
            "flag = pathlib.Path(tempfile.mkdtemp(), 'go')"
        )
        comm, flag = kernel.run("print(slider.comm.comm_id, flag)").split()
        cell = kernel.begin(
            "async def wait():\n"
            "    while not flag.exists():\n"
            "        await asyncio.sleep(0.01)\n"
            "    return list(heard)\n"
            "asyncio.run(wait())"
        )
        for value in range(1, 21):
            data = {"method": "update", "state": {"value": value}, "buffer_paths": []}
            message = kernel.client.session.msg("comm_msg", {"comm_id": comm, "data": data})
            kernel.client.shell_channel.send(message)
        with open(flag, "w"):  # noqa: PTH123 - as short as it can be said
            pass
        assert kernel.end(cell) == "[]", "callbacks come after the cell"
        assert kernel.run("print(heard)").strip() == str(list(range(1, 21))), "and all of them come"
    finally:
        kernel.close()
