"""The recorder's circumstances: configuration, transport, no server, a kernel's death, its own observer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zmq
from jupyter_client.manager import KernelManager

from tests.browser.conftest import ServerProcess
from tests.notebook.test_kernel import PATIENCE, Kernel
from wsmonitor.notebook.recorder.interrupting import Interrupter
from wsmonitor.notebook.recorder.iopub import Endpoint, Unreadable
from wsmonitor.notebook.recorder.starting import kept, place, recording_name, status
from wsmonitor.protocol.defaults import Timing
from wsmonitor_server.embedded import EmbeddedServer

from .conftest import Recorded, make_recorded

pytestmark = pytest.mark.filterwarnings("default")  # jupyter_client's and zmq's own


def test_by_configuration_a_kernel_is_recorded_from_its_start(server: Any, tmp_path: Path) -> None:
    profile = tmp_path / "profile_default"
    profile.mkdir()
    (profile / "ipython_kernel_config.py").write_text(
        'c.InteractiveShellApp.extensions = ["wsmonitor"]\nc.WsMonitor.record = "lab-{notebook}"\n'
    )
    for recorded in make_recorded(server, IPYTHONDIR=str(tmp_path), JPY_SESSION_NAME="x/first.ipynb"):
        said = recorded.kernel.run("%wsmonitor record status")
        assert "Recording as 'lab-first'" in said
        recorded.session = said.split("(session ")[1].split(")")[0]
        recorded._subscription = recorded.connection.subscribe(recorded.session)
        assert recorded.run("1 + 1").attributes["execution_count"] == 2


@pytest.mark.parametrize(
    ("wanted", "path", "name"),
    [
        ("", "/a/b.ipynb", "b"),
        ("", "C:\\a\\b.ipynb", "b"),
        ("", "", "notebook"),
        ("mine", "/a/b.ipynb", "mine"),
        ("x-{notebook}-y", "b.ipynb", "x-b-y"),
        (" ", "/a/b.ipynb", "b"),
    ],
)
def test_what_a_recording_is_called(wanted: str, path: str, name: str) -> None:
    assert recording_name(wanted, path) == name


def test_where_it_goes_and_for_how_long_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WSMONITOR_HOME", str(tmp_path))
    monkeypatch.setenv("WSMONITOR_LOCAL", "process")
    assert str(tmp_path) in place()
    assert kept().startswith("30 days after the recording ends; of more than 1,000 ended sessions, or 8 GiB")
    monkeypatch.setenv("WSMONITOR_LOCAL", "inline")
    assert "gone when the kernel ends" in place()
    assert kept() == "until the kernel ends"
    monkeypatch.setenv("WSMONITOR_LOCAL", "off")
    assert "nowhere" in place()
    assert kept() == "not at all"
    monkeypatch.setenv("WSMONITOR_URL", "wss://h.example")
    assert "wss://h.example" in place()
    assert "unless it was configured otherwise" in kept()


def test_without_a_server_cells_run_as_ever_and_it_is_told_why() -> None:
    kernel = Kernel({"WSMONITOR_LOCAL": "off"})
    try:
        assert "nowhere" in kernel.run("%load_ext wsmonitor\n%wsmonitor record")
        assert kernel.run("print('as ever')").startswith("as ever")
        deadline = time.monotonic() + PATIENCE
        while "trouble" not in (said := kernel.run("%wsmonitor record status")):
            assert time.monotonic() < deadline, said
        assert "has ended" in kernel.run("%wsmonitor record off")
    finally:
        kernel.close()


def test_a_kernel_that_dies_leaves_what_was_published() -> None:
    timing = Timing(producer_stale=1.0, producer_lost=2.0, producer_crashed=1.0)
    with EmbeddedServer.in_thread(timing=timing) as impatient:
        for recorded in make_recorded(impatient):
            dies(recorded)


def dies(recorded: Recorded) -> None:
    recorded.record("dies")
    cell = recorded.kernel.begin("print('before the end', flush=True)\nimport time; time.sleep(600)")
    step = recorded.step(cell, ended=False)
    recorded.until(lambda state: state.steps[step.id].output)
    pid = recorded.kernel.manager.provisioner.process.pid
    os.kill(pid, signal.SIGKILL)
    ended = recorded.step(cell)
    assert ended.state == "crashed"
    assert "before the end" in recorded.text(ended)


def test_an_observer_of_its_own_recording_does_not_feed_it(server: Any) -> None:
    for recorded in make_recorded(server):
        name = recorded.record("mirror").split("~")[0]
        shown = recorded.run(f"import wsmonitor as wm\nobs = wm.watch({name!r})\nobs")
        recorded.run("obs.wait_live(60) if hasattr(obs, 'wait_live') else None")
        recorded.run("1")
        position = recorded.run("2").seq
        # Each event of the recording makes the observer show it. Nothing of that may be an event again:
        # so after a further cell only that cell's events have been added, whatever time has passed.
        recorded.run("import time; time.sleep(3)")
        last = recorded.run("3")
        assert last.seq - position <= 16, "a cell is a beginning, outputs, an end; and nothing else goes on"
        assert recorded.state.steps[shown.id].ended


class TestEndpoint:
    """Messages are this kernel's, or are not taken; whatever the transport is."""

    @staticmethod
    def kernel(**app: Any) -> Any:
        class Session:
            key = app.pop("key", b"secret")
            digest_mod = __import__("hashlib").sha256

            @staticmethod
            def unpack(data: bytes) -> Any:
                return __import__("json").loads(data)

        class Found:
            session = Session()
            parent = type("App", (), {"ip": "127.0.0.1", "transport": "tcp", "iopub_port": 7, **app})()

        return Found()

    def frames(self, endpoint: Endpoint, content: bytes = b'{"a": 1}', key: bytes = b"secret") -> list[bytes]:
        from jupyter_client.session import Session

        session = Session(key=key)
        parts = [b'{"msg_type": "stream", "msg_id": "m"}', b'{"msg_id": "p"}', b"{}", content]
        return [b"topic", b"<IDS|MSG>", session.sign(parts), *parts]

    @pytest.mark.parametrize(
        ("app", "url"),
        [
            ({}, "tcp://127.0.0.1:7"),
            ({"ip": "0.0.0.0"}, "tcp://127.0.0.1:7"),
            ({"ip": "*"}, "tcp://127.0.0.1:7"),
            ({"ip": "/run/kernel", "transport": "ipc"}, "ipc:///run/kernel-7"),
        ],
    )
    def test_where_a_kernel_publishes(self, app: dict[str, Any], url: str) -> None:
        assert Endpoint.of(self.kernel(**app)).url == url

    def test_signed_messages_are_read_and_others_refused(self) -> None:
        endpoint = Endpoint.of(self.kernel())
        message = endpoint.read(self.frames(endpoint))
        assert (message.kind, message.parent) == ("stream", "p")
        assert endpoint.content(message) == {"a": 1}
        for frames in ([], [b"x"], self.frames(endpoint, key=b"other"), self.frames(endpoint)[:-1]):
            with pytest.raises(Unreadable):
                endpoint.read(frames)
        assert endpoint.content(endpoint.read(self.frames(endpoint, b'{"a": NaN}')))["a"] != 1
        with pytest.raises(Unreadable):
            endpoint.content(endpoint.read(self.frames(endpoint, b"[]")))

    def test_without_a_key_nothing_is_signed(self) -> None:
        endpoint = Endpoint.of(self.kernel(key=b""))
        assert endpoint.read(self.frames(endpoint, key=b"")).kind == "stream"

    @pytest.mark.skipif(not zmq.has("curve"), reason="this build of ZeroMQ has no CurveZMQ")
    def test_an_encrypted_transport_is_heard(self) -> None:
        public, secret = zmq.curve_keypair()
        context: zmq.Context[Any] = zmq.Context()
        try:
            publisher = context.socket(zmq.XPUB)
            publisher.linger = 0
            publisher.curve_secretkey, publisher.curve_publickey = secret, public
            publisher.curve_server = True
            port = publisher.bind_to_random_port("tcp://127.0.0.1")
            endpoint = Endpoint.of(self.kernel(iopub_port=port, curve_publickey=public))
            hears = endpoint.connect(context)
            assert publisher.poll(PATIENCE * 1000)
            assert publisher.recv() == b"\x01", "the subscription has arrived"
            publisher.send_multipart(self.frames(endpoint))
            assert hears.poll(PATIENCE * 1000)
            assert endpoint.read(hears.recv_multipart()).kind == "stream"
        finally:
            context.destroy(linger=0)


def transports() -> list[Any]:
    curve = pytest.mark.skipif(
        "transport_encryption" not in KernelManager.class_trait_names() or not zmq.has("curve"),
        reason="not here: a jupyter_client or a ZeroMQ that cannot encrypt",
    )
    ipc = pytest.mark.skipif(sys.platform == "win32", reason="not here: Windows has no IPC transport")
    return [
        pytest.param({"transport": "ipc"}, id="ipc", marks=ipc),
        pytest.param({"transport_encryption": "required"}, id="curve", marks=curve),
    ]


@pytest.mark.parametrize("options", transports())
def test_whatever_a_kernel_s_transport_is_it_is_recorded(server: Any, options: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:  # a short path: that of a socket has its limit
        if options.get("transport") == "ipc":
            options = {**options, "ip": f"{folder}/k"}
        for recorded in make_recorded(server, options):
            app = recorded.kernel.run(
                "app = get_ipython().kernel.parent\nprint(app.transport, app.curve_publickey)"
            )
            assert app.startswith("ipc") if "ip" in options else "None" not in app
            recorded.record("within")
            assert recorded.text(recorded.run("print('one')")).count("one") == 1
            recorded.off()
            # The same by the transport itself, as where a kernel has no thread to ask for a shorter way.
            recorded.kernel.run(
                "from wsmonitor.notebook.recorder import iopub\niopub.Within.connect = lambda self: None"
            )
            recorded.record("over-the-transport")
            assert recorded.text(recorded.run("print('two')")).count("two") == 1
            assert recorded.run("1 / 0").state == "failed"
            assert "missed" not in recorded.kernel.run("%wsmonitor record status")


class TestInterrupter:
    """With a signal that the test sends itself."""

    def setup_method(self) -> None:
        self.sent = 0
        self.told: list[tuple[str, str]] = []
        self.waited: list[float] = []

    def make(self) -> Interrupter:
        def send() -> None:
            self.sent += 1

        return Interrupter(send, self.waited.append)

    def answer(self, state: str, reason: str) -> None:
        self.told.append((state, reason))

    def test_only_what_runs_is_interrupted(self) -> None:
        interrupter = self.make()
        interrupter.ask("a", "ada", self.answer)
        interrupter.begin("a")
        interrupter.ask("b", "ada", self.answer)
        assert self.told == [("rejected", "this cell has ended")] * 2
        assert self.sent == 0
        interrupter.ask("a", "ada", self.answer)
        assert (self.sent, len(self.told)) == (1, 2)  # nothing more to say before it has ended
        assert interrupter.end("a", interrupted=True) == "ada"
        assert self.told[-1] == ("applied", "KeyboardInterrupt was raised in the cell, and ended it")
        interrupter.ask("a", "ada", self.answer)
        assert (self.sent, self.told[-1][0]) == (1, "rejected")

    def test_a_signal_on_its_way_is_waited_for_at_the_end(self) -> None:
        def arrives(seconds: float) -> None:
            raise KeyboardInterrupt

        interrupter = Interrupter(lambda: None, arrives)
        interrupter.begin("a")
        interrupter.ask("a", "ada", self.answer)
        assert interrupter.end("a", interrupted=False) == ""
        assert self.told[-1] == ("applied", "the signal was sent; the cell went on to its own end")
        interrupter.begin("b")
        assert interrupter.end("b", interrupted=False) == ""

    def test_an_end_waits_only_if_it_was_interrupted(self) -> None:
        interrupter = self.make()
        interrupter.begin("a")
        interrupter.end("a", interrupted=False)
        assert self.waited == []

    def test_a_cell_of_another_thread_is_refused(self) -> None:
        interrupter = self.make()
        thread = threading.Thread(target=interrupter.begin, args=("a",))
        thread.start()
        thread.join()
        interrupter.ask("a", "ada", self.answer)
        assert self.told[0][0] == "rejected"
        assert "subshell" in self.told[0][1]
        assert self.sent == 0


def test_to_reload_the_extension_ends_the_recording_and_it_can_begin_anew(server: Any) -> None:
    for recorded in make_recorded(server):
        first = recorded.record("again")
        recorded.kernel.run("%reload_ext wsmonitor")
        recorded.until(lambda state: state.session.ended)
        assert "not being recorded" in recorded.kernel.run("%wsmonitor record status")
        assert recorded.record("again") != first


def test_status_counts_all_executions_and_tells_what_is_over_from_what_is_not() -> None:
    session = SimpleNamespace(
        name="n", id="n~1", removed=False, unacknowledged=0, warnings=[], overcome=["the link broke"]
    )
    recorder: Any = SimpleNamespace(session=session, executions=1_234, problems={})
    assert status(recorder).splitlines() == [
        "Recording as 'n' (session n~1); 1,234 executions.",
        "  earlier  the link broke; it has come back",
    ]
    session.warnings, session.overcome = session.overcome, []
    assert status(recorder).splitlines()[1:] == ["  trouble  the link broke"]


@pytest.mark.slow
def test_a_server_that_is_killed_midway_has_all_of_it_later(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path / "server")
    process.start()
    try:
        for recorded in make_recorded(process):
            survives(process, recorded)
    finally:
        process.stop()


def survives(process: ServerProcess, recorded: Recorded) -> None:
    recorded.record("survives")
    cell = recorded.kernel.begin(
        "import time\nfor n in range(100): print('line', n, flush=True); time.sleep(0.02)"
    )
    step = recorded.step(cell, ended=False)
    recorded.until(lambda state: state.steps[step.id].output)
    process.kill()
    recorded.kernel.end(cell)
    recorded.kernel.run("print('nobody was there')")
    assert "trouble  the link to the server is down" in recorded.kernel.run("%wsmonitor record status")
    process.start()
    assert recorded.text(recorded.step(cell)).count("line") == 100
    assert recorded.run("'later'").state == "succeeded"
    (away,) = (one for one in recorded.state.steps.values() if "nobody" in one.name)
    assert "nobody was there" in recorded.text(away)
    said = recorded.kernel.run("%wsmonitor record status")
    assert "trouble" not in said
    assert "it has come back" in said
    assert "; 6 executions" in said


def test_a_recording_that_is_removed_says_so_and_a_new_one_can_begin(server: Any) -> None:
    for recorded in make_recorded(server):
        first = recorded.record("gone")
        recorded.run("1")
        done = subprocess.run(
            [sys.executable, "-m", "wsmonitor", "rm", first, "--yes"],
            env={**os.environ, "WSMONITOR_URL": server.url, "WSMONITOR_TOKEN": recorded.token},
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0
        deadline = time.monotonic() + PATIENCE
        while "was removed: nothing is recorded now" not in (
            said := recorded.kernel.run("%wsmonitor record status")
        ):
            assert time.monotonic() < deadline, said
        assert first in said
        assert "taken" not in said
        assert recorded.record("gone") != first
        assert recorded.run("2").state == "succeeded"
