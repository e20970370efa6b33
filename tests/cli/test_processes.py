"""The command line as real processes: serve, the local server, tokens, the demo."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsmonitor.cli import main
from wsmonitor.cli.app import COMMANDS, commands
from wsmonitor.cli.demo import called, environment
from wsmonitor.cli.failures import Exit
from wsmonitor.client.local import start_local_server

RUN = [sys.executable, "-m", "wsmonitor"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user of his own: no server yet, no key, nothing in the environment."""
    for name, folder in {"WSMONITOR_HOME": "data", "JUPYTER_RUNTIME_DIR": "runtime"}.items():
        (tmp_path / folder).mkdir(mode=0o700)
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setenv("WSMONITOR_LOCAL", "process")
    return tmp_path


@pytest.fixture
def local(home: Path) -> Iterator[Path]:
    """The same with a running local server; gives its home."""
    found = start_local_server()
    yield home
    try:
        os.kill(found.pid, signal.SIGTERM)
    except ProcessLookupError:
        return  # a test has stopped it


def run(*arguments: str, timeout: float = 60, **environ: str) -> subprocess.CompletedProcess[str]:
    """A command line as a process of its own."""
    return subprocess.run(
        [*RUN, *arguments], capture_output=True, text=True, timeout=timeout, check=False,
        env={**os.environ, **environ}, stdin=subprocess.DEVNULL,
    )  # fmt: skip


# -- help and how it ends


def test_every_command_has_help_with_an_example_and_the_text_of_the_list(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, (_, text) in COMMANDS.items():
        assert main([name, "--help"]) == Exit.OK
        told = capsys.readouterr().out
        assert told.startswith(f"Usage: wsmonitor {name}")
        command = commands.get_command(None, name)  # type: ignore[arg-type]  # it needs no context
        assert command is not None
        assert command.short_help == text


def test_the_list_of_commands_loads_none_of_them() -> None:
    code = "import sys, wsmonitor.cli as c; c.main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stderr.split())
    assert "watch" in done.stdout
    assert not loaded & {
        "rich",
        "websockets",
        "jwt",
        "ipywidgets",
        "anywidget",
        "wsmonitor_server",
        "msgspec",
    }


def test_a_fault_of_ours_shows_no_traceback_unless_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("oops")

    monkeypatch.setattr("wsmonitor.client.connect", broken)
    assert main(["sessions"]) == Exit.FAILED
    told = capsys.readouterr().err
    assert "RuntimeError: oops [internal]" in told
    assert "Traceback" not in told
    monkeypatch.setenv("WSMONITOR_DEBUG", "1")
    with pytest.raises(RuntimeError, match="oops"):
        main(["sessions"])


def test_ctrl_c_is_130_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("wsmonitor.client.connect", interrupted)
    assert main(["sessions"]) == Exit.INTERRUPTED
    assert capsys.readouterr().err == "\n"


# -- the local server


def test_without_a_server_status_says_where_it_looked(home: Path) -> None:
    done = run("status", "--json")
    assert done.returncode == Exit.NO_SERVER
    report = json.loads(done.stdout)
    assert report["error"]["code"] == "no_server"
    assert any("WSMONITOR_URL: not set" in place for place in report["looked"])
    assert any(str(home / "runtime") in place for place in report["looked"])
    assert "looked at" in run("status").stdout


def test_status_of_the_local_server(local: Path) -> None:
    report = json.loads(run("status", "--json").stdout)
    assert report["error"] is None
    assert report["why"] == "the running local server"
    assert report["local"]["data_dir"] == str(local / "data")
    assert report["server"]["version"] == report["client"]["version"]
    assert report["connection"]["role"] == "admin"
    assert report["directory"]["sessions"] == 0
    text = run("status").stdout
    assert "● it answers" in text
    assert report["url"] in text


def test_in_ci_a_command_still_finds_the_local_server(local: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "WSMONITOR_LOCAL"}
    environ["CI"] = "true"
    done = subprocess.run(
        [*RUN, "sessions"], capture_output=True, text=True, timeout=60, check=False, env=environ
    )
    assert (done.returncode, done.stdout) == (0, "no sessions\n"), done.stderr


def test_stop_and_then_there_is_none(local: Path) -> None:
    done = run("stop")
    assert done.returncode == Exit.OK, done.stderr
    assert done.stdout.startswith("stopped ws://127.0.0.1:")
    assert not list((local / "runtime").glob("wsmonitor-*"))
    again = run("stop")
    assert (again.returncode, again.stdout) == (Exit.OK, "no local server is running\n")


def test_stop_does_not_stop_somebody_elses_server_by_accident(home: Path) -> None:
    done = run("stop", WSMONITOR_URL="ws://127.0.0.1:1")
    assert done.returncode == Exit.USAGE
    assert "--url" in done.stderr


def test_logs(local: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "-n", "1"]) == Exit.OK
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert main(["logs"]) == Exit.OK
    assert "listening" in capsys.readouterr().out


def test_logs_without_a_log(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs"]) == Exit.NO_SERVER
    assert str(home / "data" / "server.log") in capsys.readouterr().err


def test_logs_follow_what_is_added(local: Path) -> None:
    following = subprocess.Popen([*RUN, "logs", "-f"], stdout=subprocess.PIPE, text=True)
    try:
        with (local / "data" / "server.log").open("a") as log:
            log.write("a line from the test\n")
        assert following.stdout is not None
        lines = iter(following.stdout.readline, "")
        assert any("a line from the test" in line for line in lines)
    finally:
        following.send_signal(signal.SIGINT)
        assert following.wait(10) == Exit.INTERRUPTED
        following.stdout.close()  # type: ignore[union-attr]  # a pipe


# -- tokens


def test_a_token_is_issued_inspected_used_and_revoked(local: Path) -> None:
    made = run(
        "token", "issue", "--subject", "bob", "--role", "command", "--session", "nightly-*", "--ttl", "1h"
    )
    token = made.stdout.strip()
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", token)
    told = run("token", "inspect", token, "--json")
    info = json.loads(told.stdout)
    assert (info["claims"]["sub"], info["claims"]["role"]) == ("bob", "command")
    assert info["claims"]["sessions"] == ["nightly-*"]
    assert info["verified"] is True
    assert 3500 < info["expires_in"] <= 3600
    text = run("token", "inspect", token).stdout
    assert "may command, observe" in text
    assert token not in text
    url = json.loads(run("status", "--json").stdout)["url"]
    assert run("sessions", "--url", url, WSMONITOR_TOKEN=token, WSMONITOR_URL=url).returncode == Exit.OK
    assert run("token", "revoke", token).returncode == Exit.OK
    refused = run("sessions", WSMONITOR_TOKEN=token, WSMONITOR_URL=url)
    assert refused.returncode == Exit.REFUSED
    assert "[token_revoked]" in refused.stderr


def test_the_environments_token_goes_to_no_other_server(local: Path) -> None:
    url = json.loads(run("status", "--json").stdout)["url"]
    # Named by --url, it is the local server: its own key makes the token, not the environment's.
    done = run("sessions", "--url", url, WSMONITOR_TOKEN="for-another", WSMONITOR_URL="ws://127.0.0.1:1")
    assert done.returncode == Exit.OK, done.stderr


def test_what_is_no_token(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "inspect", "nonsense"]) == Exit.USAGE
    assert "not a token" in capsys.readouterr().err


def test_without_a_key_no_token_can_be_made(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "issue"]) == Exit.USAGE
    told = capsys.readouterr()
    assert told.out == ""
    assert "--key-file" in told.err


# -- serve


def test_serve_says_where_it_listens_and_how_to_get_a_token(home: Path) -> None:
    server = subprocess.Popen(
        [*RUN, "serve", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        listens, token_line = server.stdout.readline(), server.stdout.readline()
        url = listens.split()[-1]
        assert url.startswith("ws://127.0.0.1:")
        key = token_line.split("--key-file ")[1].split()[0]
        token = run("token", "issue", "--key-file", key).stdout.strip()
        done = run("sessions", WSMONITOR_URL=url, WSMONITOR_TOKEN=token)
        assert (done.returncode, done.stdout) == (0, "no sessions\n"), done.stderr
        taken = run("serve", "--port", url.rpartition(":")[2])
        assert taken.returncode == Exit.USAGE
        assert "port" in taken.stderr
        assert "Traceback" not in taken.stderr
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=15)
    assert server.returncode == Exit.OK


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("serve --host 0.0.0.0", "tokens would travel in clear text"),
        ("serve --store postgres:x", "the store has to be"),
        ("serve --config nowhere.toml", "cannot read nowhere.toml"),
        ("serve --tls-cert cert.pem", "TLS needs both"),
    ],
)
def test_serve_refuses_what_cannot_work(
    home: Path, capsys: pytest.CaptureFixture[str], line: str, words: str
) -> None:
    assert main(line.split()) == Exit.USAGE
    assert words in capsys.readouterr().err


# -- demo


def test_the_demo_shows_a_session_ends_by_itself_and_leaves_nothing(home: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    done = run("demo", "--headless", "--seconds", "8", TMPDIR=str(tmp_path / "tmp"))
    assert done.returncode == Exit.OK, done.stderr
    assert "stdlib-analysis" in done.stdout
    assert re.search(r"chain \S+ succeeded", done.stdout)
    # Whether it comes to its end in this time depends on the machine; that the demo ends does not.
    assert re.search(r"stdlib-analysis run 1  (▶ running|✓ succeeded)", done.stdout)
    assert list((tmp_path / "tmp").iterdir()) == []
    assert list((home / "runtime").iterdir()) == []
    ours = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path / "tmp") not in ours


def test_what_the_demo_tells_one_to_type_works_where_it_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the README's way nothing is activated: ``wsmonitor`` alone would not be found."""
    monkeypatch.setattr("sys.argv", [".venv/bin/wsmonitor", "demo"])
    monkeypatch.setenv("PATH", "/nowhere")
    assert called() == ".venv/bin/wsmonitor"
    monkeypatch.setattr("sys.argv", ["my venv/bin/wsmonitor", "demo"])
    assert called() == "'my venv/bin/wsmonitor'"
    monkeypatch.setattr("sys.argv", ["/somewhere/wsmonitor/__main__.py", "demo"])
    assert called() == "wsmonitor"


def test_the_demo_without_jupyterlab_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["demo"]) == Exit.USAGE
    told = capsys.readouterr().err
    assert "pip install 'wsmonitor[lab]'" in told
    assert "--headless" in told


def test_the_demos_environment_keeps_the_users_kernels_and_takes_none_of_his_servers() -> None:
    home = Path(tempfile.gettempdir()) / "demo"
    told = environment(
        home,
        {
            "WSMONITOR_URL": "ws://x:1",
            "WSMONITOR_TOKEN": "t",
            "JUPYTER_DATA_DIR": "/own",
            "JUPYTER_PATH": "/more",
        },
    )
    assert not {"WSMONITOR_URL", "WSMONITOR_TOKEN"} & set(told)
    assert told["JUPYTER_PATH"].split(os.pathsep) == ["/more", "/own"]
    for name in ("WSMONITOR_HOME", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        assert told[name].startswith(str(home))
