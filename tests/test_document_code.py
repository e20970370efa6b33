"""What the documents show is run: their Python, the team's tokens, and the names of commands and options."""

from __future__ import annotations

import itertools
import re
import secrets
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import pytest

import wsmonitor as wm
from wsmonitor.cli import main
from wsmonitor.cli.app import COMMANDS, commands
from wsmonitor.notebook.observer import observers
from wsmonitor_server.embedded import EmbeddedServer

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(document: str, language: str = "python") -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def run(source: str, names: dict[str, Any]) -> dict[str, Any]:
    exec(compile(source, "document", "exec"), names)
    return names


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedServer]:
    """A server that programs find without being told of it."""
    with EmbeddedServer.in_thread() as running:
        monkeypatch.setenv("WSMONITOR_URL", running.url)
        monkeypatch.setenv("WSMONITOR_TOKEN", running.token(sub="ada"))
        yield running
        for observer in observers():
            observer.close()


@contextmanager
def nightly() -> Iterator[None]:
    """The session of which the documents tell runs within this block, and takes commands."""

    def program() -> None:
        with suppress(wm.Cancelled), wm.session("nightly-etl") as session, session.step("read") as step:
            for _ in step.track(itertools.count()):
                pause.wait(0.01)

    pause = threading.Event()
    thread = threading.Thread(target=program)
    thread.start()
    observer = wm.watch("nightly-etl")
    try:
        observer.wait(60, state="running")
        yield
    finally:
        observer.command("cancel").result(60)
        thread.join(60)


@contextmanager
def another_watches() -> Iterator[None]:
    """Within this block somebody else watches it: who watches is counted by programs."""
    program = "import sys, wsmonitor as wm; obs = wm.watch('nightly-etl'); sys.stdin.read(); obs.close()"
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    try:
        yield
    finally:
        process.communicate(timeout=60)


def test_the_readmes_program_is_seen_in_the_readmes_notebook(server: EmbeddedServer) -> None:
    program, notebook = blocks("README.md")
    run(notebook, {})
    [observer] = observers()
    done: list[int] = []
    run(program, {"batches": range(3), "process": done.append})
    final = observer.wait(60)
    assert done == [0, 1, 2]
    assert [(one["name"], one["state"], one["done"]) for one in final.records()] == [("read", "succeeded", 3)]


def test_the_program_in_the_reference_of_publishing(server: EmbeddedServer) -> None:
    first = blocks("docs/reference/publishing.md")[0]
    run(first, {"path": "a.csv", "batches": [1, 2], "summary": {"rows": 2}})
    [step] = wm.watch("nightly-etl").wait(60).steps.values()
    assert (step.input.text, step.output.text) == ('{"path":"a.csv"}', '{"rows":2}')


def test_the_widgets_and_waits_in_the_reference_of_watching(
    server: EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = [block for block in blocks("docs/reference/watching.md") if "last_words" not in block]
    names: dict[str, Any] = {}
    with nightly(), another_watches(), another_watches():
        for block in shown:
            run(block, names)
        assert capsys.readouterr().out == "applied\n"
        assert names["observer"] is names["obs"]
    names["board"].close()


def test_a_token_may_be_given_by_a_function(server: EmbeddedServer, tmp_path: Path) -> None:
    [source] = blocks("docs/how-to/tokens-for-a-team.md")
    held = tmp_path / "token"
    held.write_text(server.token(sub="nightly", role="publish") + "\n", encoding="utf-8")
    names = {"wm": wm, "Path": Path}
    session = eval(source.strip().replace("/run/secrets/wsmonitor-token", str(held)), names)
    with session, session.step("one"):
        pass
    assert wm.watch("nightly-etl").wait(60).state == "succeeded"


def test_the_tokens_of_a_team_are_issued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key").write_text(secrets.token_hex(32), encoding="utf-8")
    (tmp_path / "key").chmod(0o600)
    issued = [
        line for line in blocks("docs/how-to/tokens-for-a-team.md", "bash")[0].splitlines() if " > " in line
    ]
    assert len(issued) == 3
    for line in issued:
        said = line.replace("/var/lib/wsmonitor/key", str(tmp_path / "key")).partition(" > ")[0]
        program, *arguments = shlex.split(said)
        assert program == "wsmonitor"
        assert main(arguments) == 0
        assert capsys.readouterr().out.count(".") == 2


def test_the_proxy_that_is_shown_is_the_one_that_is_tested() -> None:
    tested = (ROOT / "server/deploy/nginx.conf").read_text(encoding="utf-8")
    assert blocks("docs/how-to/behind-a-proxy.md", "nginx") == [tested]


def called(text: str) -> Iterator[list[str]]:
    """The words after each ``wsmonitor`` that is a command: in a block, or between backticks."""
    pieces = re.findall(r"`(?:[A-Z_]+=\S+ )?(wsmonitor [^`\n]+)`", text)
    for block in re.findall(r"```(?:bash|console)\n(.*?)```", text, re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        pieces += [found[0] for line in lines if (found := re.search(r"(?<![\w/.-])wsmonitor [a-z].*", line))]
    for piece in pieces:
        yield re.split(r" [>|#<] |  #|;| && ", piece)[0].split()[1:]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_and_option_that_is_shown_exists(document: Path) -> None:
    for words in called(document.read_text(encoding="utf-8")):
        if words[0] in ("nbval", "pandas") or words[0].startswith("-"):
            continue  # `pip install wsmonitor nbval`; `wsmonitor --help`
        assert words[0] in COMMANDS, words
        command = commands.get_command(click.Context(commands), words[0])
        if isinstance(command, click.Group) and len(words) > 1:
            command = command.commands[words[1]]
        assert command is not None
        options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0].rstrip(".,") in options, words
