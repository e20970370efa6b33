"""``%wsmonitor`` as a person meets it: what it says of itself, of a mistake, and on Tab."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter

import wsmonitor as wm
from wsmonitor.notebook import magics, names
from wsmonitor.notebook.subcommands import Call, Subcommand, table
from wsmonitor.protocol.errors import UsageError, WsMonitorError
from wsmonitor_server.embedded import EmbeddedServer


def said(shell: Any, code: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a cell shows a person."""
    capsys.readouterr()
    shell.run_cell(code)
    shown = capsys.readouterr()
    return re.sub(r"\x1b\[[\d;]*m", "", shown.out + shown.err)


@pytest.mark.parametrize("question", ["%wsmonitor", "%wsmonitor ?", "%wsmonitor help", "%wsmonitor --help"])
def test_the_magic_explains_itself(shell: Any, capsys: pytest.CaptureFixture[str], question: str) -> None:
    text = said(shell, question, capsys)
    for command in table().values():
        assert command.usage() in text
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize("question", ["%wsmonitor?", "%%wsmonitor?"])
def test_ipythons_own_question_mark_tells_the_same(
    shell: Any, capsys: pytest.CaptureFixture[str], question: str
) -> None:
    text = said(shell, question, capsys)
    for command in table().values():
        assert command.usage().splitlines()[0].strip() in text


@pytest.mark.parametrize("name", table())
def test_each_subcommand_tells_all_about_itself(
    shell: Any, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    text = said(shell, f"%wsmonitor help {name}", capsys)
    assert text == table()[name].help()
    if table()[name].line:
        assert said(shell, f"%wsmonitor {name} --help", capsys) == text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("wacth x", "has no 'wacth'; it has: watch, sessions, status"),
        ("wacth x", "Did you mean watch?"),
        ("help wacth", "has no 'wacth'"),
        ("watch", "which session"),
        ("watch 'a", 'cannot read "watch \'a": no closing quotation'),
        ("status now", "%wsmonitor status takes no arguments, not 'now'"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_what_would_be_right(
    shell: Any, capsys: pytest.CaptureFixture[str], line: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words.replace("?", r"\?")):
        shell.run_line_magic("wsmonitor", line)
    shown = said(shell, f"%wsmonitor {line}", capsys)
    assert words in shown
    assert shown.startswith("UsageError: ")
    assert len(shown.splitlines()) == 1, "no traceback"


def test_the_wrong_kind_of_magic_is_told(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert "watch is for one line: %wsmonitor watch NAME" in said(shell, "%%wsmonitor watch x\n1\n", capsys)


def test_an_error_keeps_its_class_and_tells_its_code() -> None:
    exc = magics.brief(wm.WaitTimeoutError("no answer"))
    assert isinstance(exc, TimeoutError)
    assert exc._render_traceback_() == ["WaitTimeoutError: no answer [timeout]"]  # type: ignore[attr-defined]


def test_options_may_stand_anywhere_and_wrong_ones_are_told() -> None:
    call = Call("x", ("a", "--live", "b", "--session=s"))
    assert call.options("live", "session=") == ({"live": "", "session": "s"}, ("a", "b"))
    with pytest.raises(UsageError, match="option --live not recognized; it has --session"):
        call.options("session=")
    with pytest.raises(UsageError, match="'c'"):
        Call("x", ("a", "c")).at_most(1)


def test_a_long_synopsis_stands_on_a_line_of_its_own() -> None:
    command = Subcommand("x", "x SOMETHING [--that IS --very LONG]", "does\nit", lambda call: None)
    assert command.usage().splitlines() == [
        "%wsmonitor x SOMETHING [--that IS --very LONG]",
        " " * 27 + "does",
        " " * 27 + "it",
    ]


def completions(shell: Any, text: str) -> list[str]:
    with provisionalcompleter():
        return [found.text for found in shell.Completer.completions(text, len(text))]


def test_tab_offers_subcommands_and_the_names_of_sessions(
    shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedServer.in_thread() as server:
        monkeypatch.setattr(names, "PATIENCE", 30.0)
        where = {"url": server.url, "token": server.token(role="admin")}
        for name in ("nightly-etl", "night shift", "other"):
            with wm.session(name, **where) as session:
                pass
            assert session.flush(30)
        monkeypatch.setenv("WSMONITOR_URL", server.url)
        monkeypatch.setenv("WSMONITOR_TOKEN", where["token"])
        assert completions(shell, "%wsmonitor sta") == ["status"]
        assert set(completions(shell, "%wsmonitor ")) >= {"watch", "sessions", "status"}
        assert completions(shell, "%wsmonitor help sess") == ["sessions"]
        assert completions(shell, "%wsmonitor watch nig") == ["nightly-etl"]
        assert "'night shift'" in completions(shell, "%wsmonitor watch ")
        assert "other" in completions(shell, "%wsmonitor watch ")


def test_tab_without_a_server_offers_what_is_watched_here(
    shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSMONITOR_LOCAL", "off")
    monkeypatch.setattr(names, "PATIENCE", 0.01)
    shell.run_line_magic("wsmonitor", "watch night-train")
    assert completions(shell, "%wsmonitor watch ni") == ["night-train"]
    assert "night-train" not in completions(shell, "%wsmonitor watch night-train x")
    # An address that is refused offers no more and no less.
    monkeypatch.setenv("WSMONITOR_URL", "ws://monitor.invalid:1")
    monkeypatch.setenv("WSMONITOR_TOKEN", "t")
    assert completions(shell, "%wsmonitor watch ni") == ["night-train"]


def test_tab_on_a_line_that_cannot_be_read_offers_nothing() -> None:
    class Event:
        text_until_cursor, symbol, command = "%wsmonitor watch 'a ", "", "%wsmonitor"

    assert magics.complete(None, Event()) == []


def test_unloading_takes_all_of_it_away(shell: Any) -> None:
    shell.run_line_magic("unload_ext", "wsmonitor")
    assert shell.find_line_magic("wsmonitor") is None
    assert shell.find_cell_magic("wsmonitor") is None
    assert completions(shell, "%wsmonitor sta") == []
    shell.run_line_magic("load_ext", "wsmonitor")


def test_every_subcommand_error_is_a_wsmonitor_error(shell: Any) -> None:
    for name, command in table().items():
        if command.line:
            with pytest.raises(WsMonitorError):
                shell.run_line_magic("wsmonitor", f"{name} --no-such-option 'a b' c d e")


def steps(server: Any, name: str) -> list[tuple[str, str, str]]:
    """Name, state and error of the steps of a session, when it has ended."""
    observer = wm.watch(name, url=server.url, token=server.token(role="observe"))
    try:
        observer.wait(60, state=("succeeded", "failed", "cancelled"))
        assert observer.session is not None
        return [(one["name"], one["state"], one["error"]) for one in observer.session.records()]
    finally:
        observer.close()


def test_a_cell_is_a_step_of_a_session_that_goes_on(
    shell: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedServer.in_thread() as server:
        monkeypatch.setenv("WSMONITOR_URL", server.url)
        monkeypatch.setenv("WSMONITOR_TOKEN", server.token())
        shown = said(
            shell, "%%wsmonitor step 'first part' --session cells\nx = 20\nprint('hello')\nx + 1\n", capsys
        )
        assert "hello" in shown
        assert "21" in shown
        assert shell.user_ns["x"] == 20
        shown = said(shell, "%%wsmonitor step second\nx / 0\n", capsys)
        assert shown.count("ZeroDivisionError: division by zero") == 1
        for ours in ("stepping.py", "magics.py"):
            assert ours not in shown, "our own frames are not the user's"
        assert said(shell, "%wsmonitor step --end", capsys) == ""
        assert steps(server, "cells") == [
            ("first part", "succeeded", ""),
            ("second", "failed", "division by zero"),
        ]
        assert "nothing to end" in said(shell, "%wsmonitor step --end", capsys)


def test_a_cell_that_cannot_be_a_step_is_told_why(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert "which name?" in said(shell, "%%wsmonitor step\nx = 1\n", capsys)
    assert "a cell that awaits" in said(
        shell, "%%wsmonitor step a\nimport asyncio\nawait asyncio.sleep(0)\n", capsys
    )
    assert "SyntaxError" in said(shell, "%%wsmonitor step a\nx = = 1\n", capsys)
    assert "is for a whole cell" in said(shell, "%wsmonitor step a", capsys)


def test_nest_says_what_is_missing(
    shell: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nest_asyncio2", None)
    assert "%pip install nest-asyncio2" in said(shell, "%wsmonitor nest", capsys)
