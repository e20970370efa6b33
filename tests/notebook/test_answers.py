"""What a browser may ask of an observer, against a real server."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.notebook.samples import ns
from wsmonitor.client import Connection, Target, connect
from wsmonitor.client.types import PublicationListener
from wsmonitor.notebook import Observer, watch
from wsmonitor.notebook.answers import LOG_BYTES, LOG_LINES, VALUE_LENGTH
from wsmonitor.notebook.values import PAGE
from wsmonitor.protocol.changes import ChainChange, LogChange, SessionChange, StepChange
from wsmonitor.protocol.entities import Argument, Command, CommandSpec, LogRecord, Value
from wsmonitor.protocol.errors import RequestError, WaitTimeoutError
from wsmonitor_server.embedded import EmbeddedServer

PATIENCE = 30.0


class Browser:
    """What a browser would hear of an observer, and how it asks."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self._heard = threading.Condition()
        self._answers: list[tuple[dict[str, Any], list[bytes]]] = []
        send = observer.send_message

        def spy(message: dict[str, Any], buffers: list[bytes] | None = None) -> None:
            send(message, buffers)
            with self._heard:
                if message["type"] == "answer":
                    self._answers.append((message, buffers or []))
                self._heard.notify_all()

        observer.send_message = spy  # type: ignore[method-assign]

    def say(self, do: str, ident: str, **fields: Any) -> None:
        self.observer.hear({"do": do, "id": ident, **fields}, live=True)

    def ask(self, do: str, ident: str = "", **fields: Any) -> tuple[dict[str, Any], list[bytes]]:
        ident = ident or secrets.token_hex(16)
        self.say(do, ident, **fields)
        return self.answer(ident)

    def answer(self, ident: str, count: int = 1) -> tuple[dict[str, Any], list[bytes]]:
        """The answer number *count* to the request *ident*."""

        def found() -> list[tuple[dict[str, Any], list[bytes]]]:
            return [one for one in self._answers if one[0]["to"] == ident]

        with self._heard:
            assert self._heard.wait_for(lambda: len(found()) >= count, PATIENCE), "no answer"
            return found()[count - 1]

    def code(self, do: str, **fields: Any) -> str:
        """The code with which it is refused."""
        message, _ = self.ask(do, **fields)
        assert not message["ok"], message
        assert message["text"]
        return str(message["code"])


@pytest.fixture
def server() -> Iterator[Any]:
    with EmbeddedServer.in_thread() as running:
        yield running


class Taker(PublicationListener):
    """A program that notes which commands it was given."""

    def __init__(self) -> None:
        self.given: list[Command] = []

    def command(self, command: Command) -> None:
        self.given.append(command)


class Program:
    """A publishing program with one step."""

    def __init__(self, connection: Connection) -> None:
        self.taker = Taker()
        self.publication = connection.publication("job~1", "p1", self.taker, agent="test")
        specs = (
            CommandSpec(name="pause", targets=("session", "step")),
            CommandSpec(name="tune", targets=("session",), args=(Argument(name="rate", type="number"),)),
        )
        self.publication.submit(
            SessionChange(name="job", state="running", commands=specs, started=ns(0), metrics={"loss": 0.5})
        )
        self.publication.submit(ChainChange(id="c", name="chain", state="running", started=ns(0)))
        self.step()

    def step(self, **fields: Any) -> None:
        self.publication.submit(
            StepChange(
                id="s", chain="c", name="load", state="running", started=ns(1), commands=("pause",), **fields
            )
        )
        assert self.publication.flush(PATIENCE)


@pytest.fixture
def program(server: Any) -> Iterator[Program]:
    with connect(Target(url=server.url, token=server.token(sub="prog", role="publish"))) as handle:
        handle.wait_live(PATIENCE)
        yield Program(handle)


@pytest.fixture
def look(server: Any) -> Iterator[Callable[..., Browser]]:
    made: list[Observer] = []

    def make(role: str = "command") -> Browser:
        token = server.token(sub="ada", role=role)
        observer = watch("job", url=server.url, token=token, name="Ada", new=True)
        made.append(observer)
        browser = Browser(observer)
        observer.wait(PATIENCE, state="running")
        # The view follows on the sender's thread.
        deadline = time.monotonic() + PATIENCE
        while browser.ask("details", row="")[0].get("code") == "gone":
            assert time.monotonic() < deadline
        return browser

    yield make
    for observer in made:
        observer.close()


def test_a_large_value_is_read_page_by_page(program: Program, look: Callable[..., Browser]) -> None:
    data = secrets.token_bytes(VALUE_LENGTH * 2 + 17)
    digest = hashlib.sha256(data).hexdigest()
    assert program.publication.submit_value(data, digest)
    program.step(output=Value(mime="application/octet-stream", size=len(data), sha256=digest, truncated=True))
    browser = look()
    got = b""
    while len(got) < len(data):
        message, buffers = browser.ask("value", sha256=digest, offset=len(got), length=10**9)
        assert (message["ok"], message["size"], message["offset"]) == (True, len(data), len(got))
        assert 0 < len(buffers[0]) <= VALUE_LENGTH
        got += buffers[0]
    assert got == data


def test_a_value_is_had_in_python_by_what_the_details_copy(
    server: Any, program: Program, look: Callable[..., Browser]
) -> None:
    data = secrets.token_bytes(PAGE * 2 + 17)
    digest, short = hashlib.sha256(data).hexdigest(), hashlib.sha256(b'"small"').hexdigest()
    assert program.publication.submit_value(data, digest)
    program.step(
        input=Value(text='"small"', size=7, sha256=short),
        output=Value(mime="application/octet-stream", size=len(data), sha256=digest, truncated=True),
    )
    observer = look().observer
    assert observer.value(digest) == data
    assert observer.value(short) == b'"small"'
    with pytest.raises(RequestError):
        observer.value("00" * 32)
    with pytest.raises(WaitTimeoutError, match="not come in time"):
        observer.value(digest, timeout=0)
    late = watch("job", url=server.url, token=server.token(sub="bob", role="observe"), new=True)
    assert late.value(digest, timeout=PATIENCE) == data, "it waits for the session that it does not know yet"
    late.close()


def test_log_lines_come_from_the_end_backwards(program: Program, look: Callable[..., Browser]) -> None:
    for start in range(0, 700, 100):
        lines = tuple(LogRecord(n=0, at=ns(2), text=f"line {n}") for n in range(start + 1, start + 101))
        program.publication.submit(LogChange(step="s", records=lines))
    assert program.publication.flush(PATIENCE)
    browser = look()
    newest, _ = browser.ask("logs", row="s:s", limit=10**6)
    assert [line["n"] for line in newest["lines"]] == list(range(201, 701))
    assert newest["lines"][-1]["text"] == "line 700"
    assert (newest["first"], newest["last"], newest["count"]) == (1, 700, 700)
    assert len(newest["lines"]) == LOG_LINES
    older, _ = browser.ask("logs", row="s:s", before=201, limit=50)
    assert [line["n"] for line in older["lines"]] == list(range(151, 201))
    assert browser.ask("logs", row="s:s", before=1)[0]["lines"] == []


def test_log_lines_of_one_answer_are_bounded_in_bytes(program: Program, look: Callable[..., Browser]) -> None:
    for _ in range(20):
        lines = tuple(LogRecord(n=0, at=ns(2), text="🐘" * 900) for _ in range(5))
        program.publication.submit(LogChange(step="s", records=lines))
    assert program.publication.flush(PATIENCE)
    browser = look()
    found, _ = browser.ask("logs", row="s:s")
    assert found["lines"][-1]["n"] == 100
    assert sum(len(line["text"].encode()) for line in found["lines"]) <= LOG_BYTES
    seen = [line["n"] for line in found["lines"]]
    while seen[0] > 1:
        found, _ = browser.ask("logs", row="s:s", before=seen[0])
        seen = [line["n"] for line in found["lines"]] + seen
    assert seen == list(range(1, 101)), "the rest is reached by asking further"


def test_a_command_said_again_by_every_way_is_given_once(
    program: Program, look: Callable[..., Browser]
) -> None:
    browser = look()
    first, _ = browser.ask("command", "6f1c-77", name="pause", row="s:s", args={})
    assert first["ok"], first
    record = first["command"]
    assert (record["name"], record["row"], record["target"]) == ("pause", "s:s", "load")
    assert (record["who"], record["via"]) == ("ada", "Ada")
    browser.say("command", "6f1c-77", name="pause", row="s:s", args={})
    assert browser.answer("6f1c-77", 2)[0] == first
    # Another observer of the same person sends the very same: the server knows the key.
    again, _ = look().ask("command", "6f1c-77", name="pause", row="s:s", args={})
    assert again["command"]["id"] == record["id"]
    done, _ = browser.ask("command", name="tune", args={"rate": 0.5})
    assert done["command"]["target"] == "job"
    deadline = time.monotonic() + PATIENCE
    while len(program.taker.given) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [(c.name, c.step, c.args) for c in program.taker.given] == [
        ("pause", "s", {}),
        ("tune", "", {"rate": 0.5}),
    ]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"name": "dance"}, "command_unsupported"),
        ({"name": "tune", "args": {"rate": "fast"}}, "bad_message"),
        ({"name": "tune", "args": {"rate": [1]}}, "bad_message"),
        ({"name": 3}, "bad_message"),
        ({"name": "pause", "row": "s:none"}, "gone"),
        ({"name": "pause", "row": "c:none"}, "command_unsupported"),
    ],
)
def test_a_command_that_cannot_be_is_refused_in_words(
    program: Program, look: Callable[..., Browser], fields: dict[str, Any], code: str
) -> None:
    assert look().code("command", **fields) == code
    assert program.taker.given == []


def test_who_may_not_command_is_told_why(program: Program, look: Callable[..., Browser]) -> None:
    browser = look("observe")
    message, _ = browser.ask("command", name="pause")
    assert (message["code"], message["text"]) == (
        "not_allowed",
        "your token has the role 'observe': commanding needs 'command'",
    )


@pytest.mark.parametrize(
    ("do", "fields", "code"),
    [
        ("value", {"sha256": "0" * 64}, "gone"),
        ("value", {"sha256": "x"}, "bad_message"),
        ("value", {"sha256": "0" * 64, "offset": -1}, "bad_message"),
        ("value", {"sha256": "0" * 64, "offset": "3"}, "bad_message"),
        ("logs", {"row": "s:none"}, "gone"),
        ("logs", {}, "gone"),
        ("logs", {"row": "s:s", "limit": 0}, "bad_message"),
        ("details", {"row": "s:none"}, "gone"),
        ("dance", {}, "unknown_request"),
    ],
)
def test_what_cannot_be_had_is_refused_in_words(
    program: Program, look: Callable[..., Browser], do: str, fields: dict[str, Any], code: str
) -> None:
    assert look().code(do, **fields) == code


def test_what_needs_the_link_is_refused_while_it_is_down(
    program: Program, look: Callable[..., Browser], server: Any
) -> None:
    browser = look()
    server.stop()
    deadline = time.monotonic() + PATIENCE
    while not (message := browser.ask("value", sha256="0" * 64)[0])["text"].startswith("the link"):
        assert time.monotonic() < deadline, message
    assert message["code"] == "connection_lost"
    assert browser.code("command", name="pause") == "not_allowed"
    assert browser.ask("details", row="s:s")[0]["ok"], "what is known is told all the same"


def test_the_head_tells_what_may_be_commanded(program: Program, look: Callable[..., Browser]) -> None:
    from wsmonitor.notebook.feed import now

    browser = look()
    head = browser.observer.view.head(now())
    assert [offer["name"] for offer in head["offers"]] == ["pause", "tune"]
    assert head["offers"][1]["args"][0]["type"] == "number"
    assert head["metrics"] == {"loss": 0.5}
    assert head["may"] == ""
    browser.ask("command", name="pause")
    deadline = time.monotonic() + PATIENCE
    while not (asked := browser.observer.view.head(now())["asked"]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert (asked[0]["name"], asked[0]["target"], asked[0]["row"]) == ("pause", "job", "")
