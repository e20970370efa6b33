"""Commands that ask and end: sessions, command, export, rm."""

from __future__ import annotations

import inspect
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from wsmonitor.cli import failures
from wsmonitor.cli.failures import Exit
from wsmonitor.protocol.changes import ChainChange, LogChange, SessionChange, StepChange
from wsmonitor.protocol.entities import Argument, CommandSpec, LogRecord
from wsmonitor.protocol.errors import CATALOGUE
from wsmonitor_server.embedded import ThreadedServer

from .conftest import Cli, Program, Start, answer

SCALE = (Argument(name="factor", type="number"), Argument(name="fast", type="boolean"))
SPECS = (
    CommandSpec(name="pause"),
    CommandSpec(name="scale", args=SCALE),
    CommandSpec(name="retry", targets=("step",)),
)
BEGAN = "1795000000000000000"


def etl(program: Start, ident: str = "etl~1", state: str = "running", **more: Any) -> Program:
    """A program with a chain, a step and a log line; *state* is what its session is left in."""
    last: list[Any] = [SessionChange(state=state)] if state != "running" else []  # type: ignore[arg-type]
    return program(
        ident,
        SessionChange(name="etl", state="running", started=BEGAN, commands=SPECS),
        ChainChange(id="c1", name="load", state="running", started=BEGAN),
        StepChange(id="s1", chain="c1", name="read", state="running", commands=("retry",)),
        LogChange(step="s1", records=(LogRecord(n=0, at=BEGAN, text="a line"),)),
        *last,
        **more,
    )


def ids(cli: Cli, *arguments: str) -> set[str]:
    """The ids that ``sessions`` lists."""
    return {entry["id"] for entry in json.loads(cli("sessions", *arguments, "--json").out)}


# -- sessions


def test_sessions_lists_what_there_is(cli: Cli, program: Start) -> None:
    etl(program)
    program("other~1")
    done = cli("sessions")
    assert done.status == 0, done.err
    assert "▶ running" in done.out
    assert "etl" in done.out
    assert "other" in done.out


def test_sessions_as_json_has_every_field(cli: Cli, program: Start) -> None:
    etl(program)
    deadline = time.monotonic() + 30
    # The directory tells counts at most once a second: the newest may still be on their way.
    while not (listing := json.loads(cli("sessions", "--json").out)[0])["counts"]:
        assert time.monotonic() < deadline, listing
    assert listing["id"] == "etl~1"
    assert listing["run"] == 1
    assert listing["state"] == "running"
    assert listing["counts"] == {"running": 1}
    assert listing["reason"] == ""


def test_sessions_of_one_name_and_of_one_state(cli: Cli, program: Start) -> None:
    etl(program)
    etl(program, "etl~2", state="failed")
    program("other~1")
    assert ids(cli, "etl") == {"etl~1", "etl~2"}
    assert ids(cli, "--state", "failed") == {"etl~2"}


def test_without_sessions_it_says_so(cli: Cli) -> None:
    assert cli("sessions").out == "no sessions\n"
    assert ids(cli) == set()


# -- command


def test_a_command_that_is_applied(cli: Cli, program: Start) -> None:
    etl(program, answers={"pause": answer("accepted", "applied")})
    done = cli("command", "etl", "pause")
    assert done.status == 0, done.err
    assert done.out.startswith("pause was applied in ")


def test_a_command_that_is_rejected_ends_with_1_and_tells_why(cli: Cli, program: Start) -> None:
    etl(program, answers={"pause": answer("accepted", "rejected", reason="not now")})
    done = cli("command", "etl~1", "pause")
    assert done.status == Exit.FAILED
    assert done.out == "pause was rejected: not now\n"


def test_the_record_as_json(cli: Cli, program: Start) -> None:
    etl(program, answers={"scale": answer("accepted", "applied")})
    key = "ab" * 16
    done = cli("command", "etl", "scale", "--arg", "factor=2.5", "--arg", "fast=yes", "--key", key, "--json")
    record = json.loads(done.out)
    assert record["state"] == "applied"
    assert record["args"] == {"factor": 2.5, "fast": True}
    assert record["actor"] == "alice"
    assert record["via"] == "terminal"
    assert record["id"] == key


def test_a_step_may_be_named_by_its_name(cli: Cli, program: Start) -> None:
    etl(program, answers={"retry": answer("accepted", "applied")})
    assert json.loads(cli("command", "etl", "retry", "--step", "read", "--json").out)["step"] == "s1"
    done = cli("command", "etl", "retry", "--step", "nope")
    assert done.status == Exit.REFUSED
    assert "no step 'nope'" in done.err


def test_an_argument_of_the_wrong_type_is_not_sent(cli: Cli, program: Start) -> None:
    running = etl(program)
    done = cli("command", "etl", "scale", "--arg", "factor=much")
    assert done.status == Exit.USAGE
    assert "factor is to be a number" in done.err
    assert not running.received.is_set()


def test_a_command_that_the_session_does_not_take_is_refused(cli: Cli, program: Start) -> None:
    etl(program)
    done = cli("command", "etl", "explode")
    assert done.status == Exit.FAILED
    assert "[command_unsupported]" in done.err


def test_a_command_that_nobody_accepts_expires(cli: Cli, program: Start) -> None:
    etl(program)
    done = cli("command", "etl", "pause", "--deadline", "0.2s")
    assert done.status == Exit.FAILED
    assert "pause expired" in done.out


def test_waiting_can_be_limited(cli: Cli, program: Start) -> None:
    etl(program, answers={"pause": answer("accepted")})
    done = cli("command", "etl", "pause", "--max-wait", "0.3s")
    assert done.status == Exit.TIMEOUT
    assert "[timeout]" in done.err


# -- export


def test_export_json(cli: Cli, program: Start, tmp_path: Path) -> None:
    etl(program)
    file = tmp_path / "etl.json"
    done = cli("export", "etl", "-o", str(file))
    assert done.status == 0, done.err
    document = json.loads(file.read_text())
    assert document["session"]["id"] == "etl~1"
    assert document["origin"]["live"] is True
    assert [line["text"] for line in document["logs"]["s1"]] == ["a line"]
    assert [path.name for path in tmp_path.iterdir()] == ["etl.json"]


def test_export_counts_a_retried_step_once_as_the_page_does(cli: Cli, program: Start, tmp_path: Path) -> None:
    etl(program).publish(
        StepChange(id="a", chain="c1", name="fetch", step_key="fetch", state="failed"),
        StepChange(id="b", chain="c1", name="fetch", step_key="fetch", attempt=2, state="succeeded"),
    )
    done = cli("export", "etl", "-o", str(tmp_path / "etl.html"))
    assert ", 2 steps, event" in done.err
    assert "</b>/2 steps" in (tmp_path / "etl.html").read_text("utf-8")


def test_export_html(cli: Cli, program: Start, tmp_path: Path) -> None:
    etl(program)
    file = tmp_path / "etl.html"
    assert cli("export", "etl~1", "-o", str(file)).status == 0
    assert "a line" in file.read_text(encoding="utf-8")


def test_export_of_no_known_form_is_a_usage_error(cli: Cli, tmp_path: Path) -> None:
    done = cli("export", "etl", "-o", str(tmp_path / "etl.txt"))
    assert done.status == Exit.USAGE
    assert "--format" in done.err


def test_export_into_a_folder_that_is_not_there(cli: Cli, program: Start, tmp_path: Path) -> None:
    etl(program)
    done = cli("export", "etl", "-o", str(tmp_path / "none" / "etl.json"))
    assert done.status == Exit.FAILED
    assert f"{tmp_path / 'none' / 'etl.json'}: No such file or directory" in done.err
    assert "Traceback" not in done.err


# -- rm


def test_rm_by_id(cli: Cli, program: Start) -> None:
    etl(program, state="failed")
    program("other~1")
    done = cli("rm", "etl~1", "--yes")
    assert done.status == 0, done.err
    assert done.out.startswith("removed 1 session")
    assert ids(cli) == {"other~1"}


def test_rm_by_condition_spares_open_sessions(cli: Cli, program: Start) -> None:
    etl(program)
    etl(program, "etl~2", state="failed")
    done = cli("rm", "--older-than", "0s", "--yes", "--json")
    assert json.loads(done.out) == {"removed": ["etl~2"], "failed": [], "would_remove": []}


def test_rm_dry_run_removes_nothing(cli: Cli, program: Start) -> None:
    etl(program, state="failed")
    assert "would remove 1 session" in cli("rm", "--state", "failed", "--dry-run").out
    assert ids(cli) == {"etl~1"}


def test_rm_asks_before_it_removes(cli: Cli, program: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    etl(program, state="failed")
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda prompt: "n")
    assert cli("rm", "etl~1").status == Exit.FAILED
    assert ids(cli) == {"etl~1"}


def test_rm_without_any_condition_is_a_usage_error(cli: Cli) -> None:
    assert cli("rm").status == Exit.USAGE


def test_rm_needs_the_admin_role(
    cli: Cli, server: ThreadedServer, program: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    etl(program, state="failed")
    monkeypatch.setenv("WSMONITOR_TOKEN", server.token(role="observe"))
    done = cli("rm", "etl~1", "--yes")
    assert done.status == Exit.REFUSED
    assert "[forbidden]" in done.err
    assert "token issue --role" in done.err


# -- what goes wrong


@pytest.mark.parametrize(
    "line", ["command ghost pause", "export ghost -o - --format json", "export ghost~1 -o - --format json",
             "rm ghost~1 --yes"],
)  # fmt: skip
def test_a_session_that_is_not_there(cli: Cli, line: str) -> None:
    done = cli(*line.split())
    assert done.status == Exit.REFUSED
    assert "ghost" in done.err
    assert "[not_available]" in done.err
    assert done.out == ""


def test_a_forged_token_is_refused_and_never_echoed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    forged = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2VjcmV0LXNpZ25hdHVyZQ"
    monkeypatch.setenv("WSMONITOR_TOKEN", forged)
    done = cli("sessions")
    assert done.status == Exit.REFUSED
    assert "[unauthorized]" in done.err
    assert forged not in done.err + done.out


def test_no_server_there(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSMONITOR_URL", "ws://127.0.0.1:1")
    done = cli("sessions")
    assert done.status == Exit.NO_SERVER
    assert "127.0.0.1:1" in done.err
    assert "Traceback" not in done.err


def test_a_server_without_a_token_for_it_is_about_the_token(
    cli: Cli, server: ThreadedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WSMONITOR_TOKEN", raising=False)
    monkeypatch.delenv("WSMONITOR_URL", raising=False)
    done = cli("sessions", "--url", server.url)
    assert done.status == Exit.REFUSED
    assert "[unauthorized]" in done.err
    assert "--token-file" in done.err  # what to do about it
    assert "local server starts by itself" not in done.err
    assert cli("status", server.url).status == Exit.REFUSED


@pytest.mark.parametrize("command", [("sessions",), ("rm",), ("watch", "etl", "--until")])
def test_a_state_that_is_none(cli: Cli, command: tuple[str, ...]) -> None:
    option = () if "--until" in command else ("--state",)
    done = cli(*command, *option, "fooled")
    assert done.status == Exit.USAGE
    assert "'fooled' is not a state" in done.err
    assert "awaiting_input" in done.err


def test_every_code_of_the_command_line_is_in_the_catalogue() -> None:
    sources = Path(inspect.getfile(failures)).parent.glob("*.py")
    codes = {code for path in sources for code in re.findall(r'code="(\w+)"', path.read_text("utf-8"))}
    assert {"no_server", "os_error"} <= codes | set(failures.HINTS)
    assert codes | set(failures.HINTS) <= set(CATALOGUE)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8765", "ws://127.0.0.1:1/?token=x", "nonsense"])
def test_an_address_that_is_none(cli: Cli, url: str) -> None:
    done = cli("sessions", "--url", url)
    assert done.status == Exit.USAGE
    assert "[configuration]" in done.err


def test_the_token_may_be_in_a_file(cli: Cli, server: ThreadedServer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(server.token() + "\n")
    assert cli("sessions", "--token-file", str(tmp_path / "token")).status == 0
    (tmp_path / "token").write_text("\n")
    assert cli("sessions", "--token-file", str(tmp_path / "token")).status == Exit.USAGE
    gone = cli("sessions", "--token-file", str(tmp_path / "nowhere"))
    assert gone.status == Exit.USAGE
    assert f"cannot read {tmp_path / 'nowhere'}: No such file" in gone.err
