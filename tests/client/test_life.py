"""Loss and recovery over real sockets, real processes; forks, the end of a process, and what remains."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from wsmonitor.client import (
    BatchApplied,
    Connection,
    EventApplied,
    SyncCompleted,
    Target,
    connect,
    connections,
)
from wsmonitor.client import runner as runners
from wsmonitor.client.clock import Instant
from wsmonitor.client.errors import NotLocatedError, RequestTimeoutError
from wsmonitor.client.local import start_local_server
from wsmonitor.client.locate import locate
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange
from wsmonitor.protocol.defaults import Timing
from wsmonitor.protocol.entities import Value
from wsmonitor.protocol.errors import ConnectionFailedError, UsageError, WaitTimeoutError
from wsmonitor_server.embedded import EmbeddedServer

from .helpers import Owner, Updates, eventually

KEY = b"k" * 32


@pytest.fixture
def server() -> Iterator[Any]:
    with EmbeddedServer.in_thread(key=KEY) as running:
        yield running


def _stopped(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    eventually(lambda: _ended(pid))


def _ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second: it went while it was being read
        return True


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of its own for local servers; those that run at the end are stopped."""
    monkeypatch.setenv("WSMONITOR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("WSMONITOR_LOCAL", "process")
    yield tmp_path
    with contextlib.suppress(NotLocatedError):
        found = locate().discovery
        assert found is not None
        _stopped(found.pid)
    # A thread waits for each server that was started here: none may be left running.
    eventually(lambda: not [t for t in threading.enumerate() if t.name == "wsmonitor-local"])


@pytest.mark.skipif(sys.platform != "linux", reason="not here: needs /proc")
def test_a_local_server_is_started_killed_and_found_again_on_another_port(local: Path) -> None:
    observer = connect(Target())
    waiting = observer.wait_for(lambda s: s.phase == "waiting", 10)
    assert "no local server is running" in waiting.reason
    assert any("file" in place for place in waiting.looked)
    with observer, connect(Target(start=True)) as publisher:
        first = publisher.wait_live(30)
        told = Updates()
        sub = observer.subscribe("job~1", told)
        owner = Owner()
        pub = publisher.publication("job~1", "p1", owner)
        pub.submit(SessionChange(name="job", state="running"))
        assert pub.flush(10)
        before = locate().discovery
        assert before is not None
        os.kill(before.pid, signal.SIGKILL)
        lost = observer.wait_for(lambda s: not s.live, 10)
        assert lost.lost_at is not None
        pub.submit(ChainChange(id="c", name="published while there was no server"))
        publisher.reconnect_now()
        assert pub.flush(30)
        second = publisher.wait_live(1)
        after = locate().discovery
        assert after is not None
        assert after.pid != before.pid
        assert second.url != first.url
        assert second.connections == 2
        sub.wait(lambda s: s.phase == "live" and s.state is not None and "c" in s.state.chains, 20)
        # The store is the same one, so nothing was asserted again and no seq is missing or told twice.
        assert owner.openings[1:] == [(owner.openings[0][0], True)]
        assert [update.reset for update in told.of(SyncCompleted)] == ["", ""]
        assert pub.close(10)


def test_who_starts_a_server_in_vain_hears_the_end_of_its_log(local: Path) -> None:
    with pytest.raises(NotLocatedError, match=r"(?s)status 2.*--no-such-option"):
        start_local_server(arguments=["--no-such-option"])


@pytest.mark.skipif(sys.platform != "linux", reason="not here: needs /proc")
def test_of_two_starters_both_find_the_one_server(local: Path) -> None:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(start_local_server())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert len(found) == 2
    assert found[0].instance == found[1].instance
    # It has an operating-system session of its own: a kernel's end does not take it along.
    assert os.getsid(found[0].pid) != os.getsid(0)


async def test_a_restart_of_the_server_is_survived_with_everything_told_once() -> None:
    server = EmbeddedServer(key=KEY)
    await server.start()
    port = server.port
    told, owner = Updates(), Owner()
    with connect(Target(url=server.url, token=server.token())) as conn:
        sub = conn.subscribe("job~1", told)
        pub = conn.publication("job~1", "p1", owner)
        pub.submit(SessionChange(name="job", state="running"))
        await asyncio.to_thread(pub.flush, 10)
        await server.drain()
        await asyncio.to_thread(conn.wait_for, lambda s: not s.live, 10)
        assert conn.status.code == "draining"
        # A memory store: what comes back knows nothing, and says so by its epoch.
        async with EmbeddedServer(key=KEY, port=port):
            conn.reconnect_now()
            await asyncio.to_thread(conn.wait_live, 20)
            await asyncio.to_thread(sub.wait, lambda s: len(told.of(SyncCompleted)) == 2, 20)
            assert told.of(SyncCompleted)[1].reset == "epoch"
            await asyncio.to_thread(eventually, lambda: len(owner.openings) == 2)
            assert owner.openings[1][1] is False
            await asyncio.to_thread(conn.close)


def test_a_server_that_falls_silent_is_left_and_the_link_heals() -> None:
    """Half-open TCP: nothing arrives, nothing is refused."""
    timing = Timing(heartbeat_interval=0.2, heartbeat_timeout=0.6)
    with EmbeddedServer.in_thread(key=KEY, timing=timing) as server:
        proxy = _Proxy(server.port)
        try:
            with connect(Target(url=f"ws://127.0.0.1:{proxy.port}", token=server.token())) as conn:
                conn.wait_live(10)
                proxy.silent = True
                lost = conn.wait_for(lambda s: s.phase == "waiting", 60)
                assert "nothing was heard" in lost.reason
                proxy.silent = False
                conn.reconnect_now()
                assert conn.wait_for(lambda s: s.connections >= 2 and s.live, 60).live
        finally:
            proxy.close()


class _Proxy:
    """Passes bytes on, or keeps them to itself."""

    def __init__(self, target: int) -> None:
        self.silent = False
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self._thread.start()
        assert self._started.wait(10)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(
            *(task for task in asyncio.all_tasks() if task is not asyncio.current_task()),
            return_exceptions=True,
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, up_writer}
        await asyncio.gather(self._pass(reader, up_writer), self._pass(up_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                if not self.silent:
                    writer.write(data)
        writer.transport.abort()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)


def test_refused_credentials_fail_with_the_servers_words_and_do_not_loop(server: Any) -> None:
    with connect(Target(url=server.url, token="not.a.token")) as conn:
        with pytest.raises(ConnectionFailedError) as caught:
            conn.wait_live(10)
        assert caught.value.code == "unauthorized"
        assert conn.status.phase == "failed"
        with pytest.raises(ConnectionFailedError):
            conn.server_status().result(5)


def test_an_expiring_token_is_renewed_in_band(server: Any) -> None:
    given: list[str] = []

    def provider() -> str:
        given.append(server.token(ttl=5))
        return given[-1]

    with connect(Target(url=server.url, token=provider)) as conn:
        expires = conn.wait_live(10).welcome.expires  # type: ignore[union-attr]
        status = conn.wait_for(lambda s: s.welcome is not None and s.welcome.expires > expires, 30)
        assert status.connections == 1
        assert len(given) == 2


def test_a_token_provider_that_raises_is_shown_and_asked_again(server: Any) -> None:
    calls: list[int] = []

    def provider() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("the key server is away")
        return str(server.token())

    with connect(Target(url=server.url, token=provider)) as conn:
        status = conn.wait_for(lambda s: s.phase == "waiting", 10)
        assert "the key server is away" in status.reason
        conn.reconnect_now()
        conn.wait_live(10)


def test_a_raising_listener_harms_nobody(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    def broken(update: object) -> None:
        raise RuntimeError("in a listener")

    told = Updates()
    with connect(Target(url=server.url, token=server.token())) as conn:
        conn.subscribe("job~1", broken)
        conn.listen(broken)
        sub = conn.subscribe("job~1", told)
        pub = conn.publication("job~1", "p1", Owner())
        pub.submit(SessionChange(name="job"))
        assert pub.flush(10)
        sub.wait(lambda s: bool(told.of(EventApplied)), 10)
        assert conn.status.connections == 1
    assert "in a listener" in caplog.text


def test_values_travel_both_ways_in_pages(server: Any) -> None:
    data = os.urandom(700_000)
    sha = hashlib.sha256(data).hexdigest()
    with connect(Target(url=server.url, token=server.token())) as conn:
        owner = Owner()
        pub = conn.publication("job~1", "p1", owner)
        pub.submit(SessionChange(name="job"))
        assert pub.submit_value(data, sha)
        value = Value(mime="application/octet-stream", size=len(data), sha256=sha, truncated=True)
        pub.submit(SessionChange(output=value))
        assert pub.flush(20)
        assert owner.rejections == []
        read = b""
        while len(read) < len(data):
            page = conn.fetch_value("job~1", sha, len(read)).result(10)
            assert page.total == len(data)
            assert base64.b64encode(page.data)
            read += page.data
        assert read == data


def test_latest_delivery_agrees_with_all(server: Any) -> None:
    target = Target(url=server.url, token=server.token())
    told = Updates()
    with connect(target) as conn, connect(Target(url=server.url, token=server.token(sub="b"))) as other:
        latest = conn.subscribe("job~1", told, delivery="latest", interval_ms=50)
        every = other.subscribe("job~1")
        # What is published before the first sync comes with it, and not in batches.
        latest.wait(lambda s: s.phase == "absent", 10)
        pub = other.publication("job~1", "p1", Owner())
        pub.submit(SessionChange(name="job", state="running"))
        pub.submit(ChainChange(id="c", name="c"))
        for number in range(300):
            pub.submit(StepChange(id="s", chain="c", name="s", reason=str(number)))
        assert pub.flush(10)
        every.wait(lambda s: _reason(s) == "299", 10)
        latest.wait(lambda s: _reason(s) == "299", 10)
        mine, theirs = latest.snapshot(), every.snapshot()
        assert mine is not None
        assert theirs is not None
        assert mine.digest == theirs.digest  # AGREE
        assert 0 < len(told.of(BatchApplied)) < 100
        assert told.of(EventApplied) == []


def test_one_who_wants_the_latest_gets_batches_also_beside_one_who_wants_all(server: Any) -> None:
    told, all_told = Updates(), Updates()
    with connect(Target(url=server.url, token=server.token())) as conn:
        latest = conn.subscribe("job~1", told, delivery="latest", interval_ms=200)
        every = conn.subscribe("job~1", all_told)
        pub = conn.publication("job~1", "p1", Owner())
        pub.submit(SessionChange(name="job", state="running"))
        pub.submit(ChainChange(id="c", name="c"))
        for number in range(300):
            pub.submit(StepChange(id="s", chain="c", name="s", reason=str(number)))
        assert pub.flush(10)
        every.wait(lambda s: _reason(s) == "299", 10)
        latest.wait(
            lambda s: bool(told.of(BatchApplied)) and told.of(BatchApplied)[-1].seq == s.state.seq, 10
        )
        assert len(all_told.of(EventApplied)) >= 300
        assert told.of(EventApplied) == []
        assert 0 < len(told.of(BatchApplied)) < 30
        newest = {entity.id: entity for batch in told.of(BatchApplied) for _, entity in batch.entities}
        assert newest["s"].reason == "299"


def _reason(sub: Any) -> str:
    step = None if sub.state is None else sub.state.steps.get("s")
    return "" if step is None else step.reason


def test_a_request_without_a_link_times_out_and_says_why() -> None:
    with connect(Target(url="ws://127.0.0.1:1", token="T")) as conn:
        with pytest.raises(RequestTimeoutError, match="nothing listens"):
            conn.request(lambda n: pytest.fail("sent"), timeout=0.3).result(10)
        with pytest.raises(WaitTimeoutError, match="nothing listens"):
            conn.wait_live(0.1)


def test_a_redirect_is_named() -> None:
    class Redirect(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(301)
            self.send_header("Location", "http://127.0.0.1/monitor/")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Redirect) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        try:
            url = f"ws://127.0.0.1:{web.server_port}/monitor"
            with connect(Target(url=url, token="T")) as conn:
                status = conn.wait_for(lambda s: s.phase == "waiting", 10)
            assert "redirect to http://127.0.0.1/monitor/" in status.reason
        finally:
            web.shutdown()
            thread.join()


def test_nothing_may_block_on_the_runners_thread(server: Any) -> None:
    with connect(Target(url=server.url, token=server.token())) as conn:
        caught: list[BaseException] = []
        done = threading.Event()

        def blocking() -> None:
            try:
                conn.wait_live(1)
            except BaseException as exc:
                caught.append(exc)
            done.set()

        conn.call_soon(blocking)
        assert done.wait(10)
        assert isinstance(caught[0], UsageError)


def test_call_later_and_its_cancellation(server: Any) -> None:
    with connect(Target(url=server.url, token=server.token())) as conn:
        order: list[str] = []
        done = threading.Event()
        cancel = conn.call_later(0.05, lambda: order.append("cancelled"))
        conn.call_later(0.1, lambda: (order.append("called"), done.set())[0])
        cancel()
        assert done.wait(10)
        assert order == ["called"]


def test_a_hundred_connections_leave_nothing(server: Any) -> None:
    target = Target(url=server.url, token=server.token())
    for _ in range(30):
        with connect(target) as conn:
            sub = conn.subscribe("job~1")
            sub.wait(lambda s: s.phase == "absent", 10)
    assert connections() == 0
    assert not [t for t in threading.enumerate() if t.name == "wsmonitor-client"]
    gc.collect()
    assert not [o for o in gc.get_objects() if type(o) is Connection and not o.closed]


def test_closing_while_the_connection_is_being_made_leaves_nothing() -> None:
    import socket

    with socket.socket() as deaf:  # accepts, and never answers
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        conn = connect(Target(url=f"ws://127.0.0.1:{deaf.getsockname()[1]}", token="T"))
        conn.wait_for(lambda s: s.phase == "connecting", 10)
        began = time.monotonic()
        conn.close()
        assert time.monotonic() - began < 5  # the attempt itself would go on for ten seconds
    assert not [t for t in threading.enumerate() if t.name == "wsmonitor-client"]


def _run(code: str, *arguments: str, timeout: float = 60) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not here: no fork")
def test_a_forked_child_connects_anew_and_leaves_the_parents_link_alone(server: Any) -> None:
    out = _run(
        """
        import os, sys, warnings
        from wsmonitor.client import *
        from wsmonitor.protocol.changes import SessionChange
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        target = Target(url=sys.argv[1], token=sys.argv[2])
        conn = connect(target)
        conn.wait_live(10)
        pub = conn.publication("job~1", "p1", PublicationListener())
        sub = conn.subscribe("job~1")
        pid = os.fork()
        if pid == 0:
            assert conn.closed and conn.status.phase == "closed", conn.status
            assert "parent" in conn.status.reason
            assert pub.submit(SessionChange(name="child")) is None
            assert not pub.flush(1) and not pub.close(1)
            conn.close()
            with connect(target) as own:
                own.wait_live(10)
                mine = own.publication("job~1", "child", PublicationListener())
                mine.submit(SessionChange(name="job"))
                assert mine.flush(10)
                assert mine.close(10)
            print("child done", flush=True)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        sub.wait(lambda s: s.state is not None and s.state.session is not None, 10)
        assert conn.status.live and conn.status.connections == 1
        conn.close()
        print("parent done")
        """,
        server.url,
        server.token(),
    )
    assert out == "child done\nparent done\n"


@pytest.mark.parametrize("alive", [True, False])
def test_the_end_of_the_interpreter_is_not_delayed(server: Any, alive: bool) -> None:
    out = _run(
        """
        import atexit, sys, time
        began = []
        atexit.register(lambda: print(f"{time.monotonic() - began[0]:.2f}"))  # runs last
        from wsmonitor.client import *
        from wsmonitor.protocol.changes import SessionChange
        conn = connect(Target(url=sys.argv[1], token=sys.argv[2]))
        if sys.argv[3] == "True":
            conn.wait_live(10)
        pub = conn.publication("job~1", "p1", PublicationListener())
        pub.submit(SessionChange(name="job"))
        sub = conn.subscribe("job~1")
        began.append(time.monotonic())
        """,
        server.url if alive else "ws://127.0.0.1:1",
        server.token(),
        str(alive),
    )
    assert float(out) < 5.0


def test_importing_costs_next_to_nothing() -> None:
    out = _run(
        """
        import sys
        import wsmonitor.client
        heavy = {"websockets", "jwt", "msgspec", "asyncio"}
        print(sorted(m for m in sys.modules if m.split(".")[0] in heavy))
        assert dir(wsmonitor.client) == sorted(wsmonitor.client.__all__)
        for name in wsmonitor.client.__all__:
            getattr(wsmonitor.client, name)
        try:
            wsmonitor.client.nothing
        except AttributeError as exc:
            print(exc)
        """
    )
    assert out == "[]\nmodule 'wsmonitor.client' has no attribute 'nothing'\n"


def test_a_moment_of_just_now_is_recent() -> None:
    runner = runners.Runner()
    try:
        ahead = Instant(time.monotonic() + 3600, 0.0)  # whatever the machine does meanwhile
        assert runner.recent(ahead) is ahead
        long_ago = runner.now()._replace(mono=runner.now().mono - 1)
        later = runner.recent(long_ago)
        assert later.mono >= long_ago.mono + 1
        assert later.wall > 0
    finally:
        runner.stop()
        runner.join(60)
