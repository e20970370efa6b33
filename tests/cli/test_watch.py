"""``wsmonitor watch`` against a real server: JSON lines, plain lines, conditions."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wsmonitor.cli import main
from wsmonitor.cli.failures import Exit
from wsmonitor.cli.feed import Feed, Linked, Lost
from wsmonitor.client import Connection, Target, connect
from wsmonitor.client.types import ConnectionStatus
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange
from wsmonitor_server.embedded import EmbeddedServer, ThreadedServer

from .conftest import Cli, Program, Start


class Watch:
    """``wsmonitor watch`` in a thread of its own, its output line by line."""

    def __init__(self, *arguments: str) -> None:
        self.lines: list[str] = []
        self.status: int | None = None
        self._grown = threading.Condition()
        self._thread = threading.Thread(target=self._run, args=(arguments,))

    def start(self) -> None:
        self._thread.start()

    def _run(self, arguments: tuple[str, ...]) -> None:
        self.status = main(["watch", *arguments])

    def write(self, text: str) -> int:
        with self._grown:
            self.lines += text.splitlines()
            self._grown.notify_all()
        return len(text)

    def flush(self) -> None:
        """As a stream has it; nothing is kept back here."""

    def await_line(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first JSON line that meets *condition*; waits until it has come."""

        def found() -> dict[str, Any] | None:
            return next((line for text in self.lines if condition(line := json.loads(text))), None)

        with self._grown:
            assert self._grown.wait_for(lambda: found() is not None, 20), "\n".join(self.lines)
        line = found()
        assert line is not None
        return line

    def ended(self) -> int:
        """Its exit status; waits for its end."""
        self._thread.join(20)
        assert self.status is not None
        return self.status


@pytest.fixture
def watch(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Watch]]:
    started: list[Watch] = []

    def start(*arguments: str) -> Watch:
        watching = Watch(*arguments)
        # The lines of `--json` go to the stream, whole and at once.
        monkeypatch.setattr(sys, "stdout", watching)
        started.append(watching)
        watching.start()
        return watching

    yield start
    for watching in started:
        watching.ended()


def _finish(program: Program, state: str = "succeeded") -> None:
    program.publish(SessionChange(state=state))  # type: ignore[arg-type]  # a test's word for a literal


def test_every_event_and_every_change_of_the_connection_is_a_line(
    watch: Callable[..., Watch], program: Start
) -> None:
    running = program("etl~1")
    watching = watch("etl", "--json", "--until", "succeeded")
    watching.await_line(lambda line: line["type"] == "subscription" and line["phase"] == "live")
    running.publish(
        ChainChange(id="c", name="load", state="running"),
        StepChange(id="s", chain="c", name="read", state="running"),
        StepChange(id="s", state="succeeded"),
    )
    _finish(running)
    assert watching.ended() == Exit.OK
    told = [json.loads(line) for line in watching.lines]
    kinds = [line["type"] for line in told]
    assert [line["phase"] for line in told if line["type"] == "connection"][-1] == "live"
    assert kinds.index("run") < kinds.index("synced") < kinds.index("event")
    (synced,) = (line for line in told if line["type"] == "synced")
    events = [line for line in told if line["type"] == "event"]
    assert [line["seq"] for line in events] == list(range(synced["seq"] + 1, events[-1]["seq"] + 1))
    steps = [line["entity"]["state"] for line in events if line["kind"] == "step"]
    assert steps == ["running", "succeeded"]
    assert events[-1]["entity"]["state"] == "succeeded"


def test_a_name_without_a_run_is_waited_for(watch: Callable[..., Watch], program: Start) -> None:
    watching = watch("later", "--json", "--until", "running")
    watching.await_line(lambda line: line["type"] == "subscription" and line["phase"] == "absent")
    program("later~1")
    assert watching.ended() == Exit.OK
    assert watching.await_line(lambda line: line["type"] == "run")["session"] == "later~1"


def test_a_name_follows_its_newest_run(watch: Callable[..., Watch], program: Start) -> None:
    program("etl~1")
    watching = watch("etl", "--json", "--until", "succeeded")
    watching.await_line(lambda line: line["type"] == "synced")
    newer = program("etl~2")
    watching.await_line(lambda line: line["type"] == "synced" and line["session"] == "etl~2")
    _finish(newer)
    assert watching.ended() == Exit.OK


def test_the_loss_of_the_server_and_its_return_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, watch: Callable[..., Watch]
) -> None:
    store = f"sqlite:{tmp_path / 'store.sqlite3'}"
    first = EmbeddedServer.in_thread(store=store, data_dir=str(tmp_path))
    with first as server, connect(Target(url=server.url, token=server.token())) as connection:
        monkeypatch.setenv("WSMONITOR_URL", server.url)
        monkeypatch.setenv("WSMONITOR_TOKEN", server.token())
        Program(connection, "etl~1", {}).publish(SessionChange(name="etl", state="running"))
        watching = watch("etl~1", "--json", "--until", "succeeded")
        watching.await_line(lambda line: line["type"] == "subscription" and line["phase"] == "live")
        port, key = server.port, server.key
    watching.await_line(lambda line: line["type"] == "connection" and line["phase"] == "waiting")
    watching.await_line(lambda line: line["type"] == "subscription" and line["phase"] == "waiting")
    with (
        EmbeddedServer.in_thread(store=store, data_dir=str(tmp_path), port=port, key=key) as server,
        connect(Target(url=server.url, token=server.token(sub="other"))) as connection,
    ):
        back = watching.await_line(
            lambda line: line["type"] == "synced" and line["previous"] is not None and line["reset"] == ""
        )
        assert back["session"] == "etl~1"
        again = Program(connection, "etl~1", {})
        again.publication.close(5)
        main(["rm", "etl~1", "--yes"])
        assert watching.ended() == Exit.REFUSED


@pytest.mark.parametrize(
    ("end", "status"), [("succeeded", Exit.OK), ("failed", Exit.FAILED), ("cancelled", Exit.FAILED)]
)
def test_until(cli: Cli, program: Start, end: str, status: int) -> None:
    _finish(program("etl~1"), end)
    done = cli("watch", "etl", "--until", "succeeded")
    assert done.status == status
    assert end in done.out


def test_until_has_a_limit(cli: Cli, program: Start) -> None:
    program("etl~1")
    assert cli("watch", "etl", "--until", "succeeded", "--timeout", "0.3s").status == Exit.TIMEOUT
    assert cli("watch", "etl", "--timeout", "0.3s").status == Exit.OK


def test_on_runs_a_command_with_the_session_in_its_environment(
    cli: Cli, program: Start, tmp_path: Path
) -> None:
    _finish(program("etl~1"), "failed")
    file = tmp_path / "told"
    words = "os.environ['WSMONITOR_SESSION'] + os.environ['WSMONITOR_STATE']"
    code = f"import os; open({str(file)!r}, 'a').write({words})"
    done = cli("watch", "etl", "--until", "failed", "--on", "failed", "--", sys.executable, "-c", code)
    assert done.status == Exit.OK, done.err
    assert file.read_text() == "etl~1failed"


def test_on_tells_when_the_command_failed_or_is_not_there(cli: Cli, program: Start) -> None:
    _finish(program("etl~1"))
    until = ("watch", "etl", "--until", "succeeded", "--on", "succeeded", "--")
    assert "ended with status 3" in cli(*until, sys.executable, "-c", "raise SystemExit(3)").err
    assert "no-such-program-here" in cli(*until, "no-such-program-here").err


@pytest.mark.parametrize(
    "line",
    [
        "watch etl --until done",
        "watch etl --on failed",
        "watch etl -- ls",
        "watch etl --timeout soon",
        "watch",
    ],
)
def test_wrong_usage(cli: Cli, line: str) -> None:
    assert cli(*line.split()).status == Exit.USAGE


def test_plain_lines_tell_the_states(cli: Cli, program: Start) -> None:
    running = program("etl~1", SessionChange(name="etl", state="running", started="1795000000000000000"))
    running.publish(SessionChange(state="succeeded", ended="1795000002500000000"))
    out = cli("watch", "etl~1", "--until", "succeeded").out
    assert "etl run 1  ✓ succeeded 2.5 s" in out
    assert "\x1b" not in out


def test_what_has_ended_is_summed_up_once(cli: Cli, program: Start) -> None:
    _finish(program("etl~1"))
    out = cli("watch", "etl~1", "--until", "succeeded").out
    assert out.count("etl run 1  ✓ succeeded") == 1, out


def test_a_token_that_does_not_cover_the_session(
    cli: Cli, server: ThreadedServer, program: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("etl~1")
    monkeypatch.setenv("WSMONITOR_TOKEN", server.token(sessions=("other-*",)))
    done = cli("watch", "etl~1")
    assert done.status == Exit.REFUSED
    assert "[not_available]" in done.err


def test_a_refused_token_ends_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSMONITOR_TOKEN", "forged")
    done = cli("watch", "etl")
    assert done.status == Exit.REFUSED
    assert "[unauthorized]" in done.err


def test_a_reader_that_is_too_slow_is_told_how_much_it_missed(connection: Connection) -> None:
    feed = Feed(connection, "etl", limit=3)
    for attempt in range(8):
        feed._put(Linked(ConnectionStatus(attempt=attempt)))
    assert feed.next(0) == Lost(5)
    kept = [feed.next(0) for _ in range(3)]
    assert [item.status.attempt for item in kept if isinstance(item, Linked)] == [5, 6, 7]
    assert feed.next(0) is None
