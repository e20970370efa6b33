"""A real server, a publishing program, and the command line called as a user calls it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from wsmonitor.cli import main
from wsmonitor.client import Connection, Publication, PublicationListener, Target, connect
from wsmonitor.protocol.changes import Change, CommandChange, SessionChange
from wsmonitor.protocol.entities import Command
from wsmonitor_server.embedded import EmbeddedServer, ThreadedServer


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended."""

    status: int
    out: str
    err: str


Cli = Callable[..., Result]


class Program(PublicationListener):
    """A publishing program that answers commands as it is told to."""

    def __init__(self, connection: Connection, session: str, answers: dict[str, list[CommandChange]]) -> None:
        self.session = session
        self.answers = answers
        self.publication: Publication = connection.publication(session, "p1", self, agent="test.py")
        self.received = threading.Event()

    def publish(self, *changes: Change) -> None:
        """Publish and wait until it is committed."""
        for change in changes:
            self.publication.submit(change)
        assert self.publication.flush(10)

    def command(self, command: Command) -> None:
        for answer in self.answers.get(command.name, []):
            self.publication.submit(CommandChange(id=command.id, state=answer.state, reason=answer.reason))
        self.received.set()


Start = Callable[..., Program]


def answer(*states: str, reason: str = "") -> list[CommandChange]:
    """What a program answers to a command, in order; *reason* with the last."""
    return [
        CommandChange(id="0" * 32, state=state, reason=reason if state == states[-1] else "")  # type: ignore[arg-type]
        for state in states
    ]


@pytest.fixture
def server() -> Iterator[ThreadedServer]:
    with EmbeddedServer.in_thread() as running:
        yield running


@pytest.fixture
def connection(server: ThreadedServer) -> Iterator[Connection]:
    with connect(Target(url=server.url, token=server.token(sub="program"), name="program")) as handle:
        handle.wait_live(10)
        yield handle


@pytest.fixture
def program(connection: Connection) -> Start:
    """Starts a program: its session's id, its first changes, its answers to commands."""

    def start(
        session: str, *changes: Change, answers: dict[str, list[CommandChange]] | None = None
    ) -> Program:
        running = Program(connection, session, answers or {})
        running.publish(*(changes or (SessionChange(name=session.partition("~")[0], state="running"),)))
        return running

    return start


@pytest.fixture
def cli(server: ThreadedServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command line against the server; token and address are in the environment."""
    monkeypatch.setenv("WSMONITOR_URL", server.url)
    monkeypatch.setenv("WSMONITOR_TOKEN", server.token(sub="alice"))

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        status = main(arguments)
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return run
