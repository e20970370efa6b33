"""The client's side of TLS: an authority of one's own, what is refused, and what people are told.

Servers with real certificates, in this process or in one of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

import wsmonitor as wm
from tests.faults.server import free_port
from wsmonitor.cli.app import commands
from wsmonitor.client import connect
from wsmonitor.client.keeper import spool_folder
from wsmonitor.client.spools import find
from wsmonitor.client.types import ConnectionStatus, Target
from wsmonitor.protocol.errors import ConfigurationError
from wsmonitor_server.embedded import EmbeddedServer, ThreadedServer

from .certificates import Authority

PATIENCE = 60.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """One that nothing on this machine trusts by itself."""
    return Authority(tmp_path, "company")


@contextmanager
def serving(files: tuple[str, str]) -> Iterator[ThreadedServer]:
    cert, key = files
    with EmbeddedServer.in_thread(tls_cert=cert, tls_key=key) as server:
        yield server


def attempt(target: Target) -> ConnectionStatus:
    """How the first attempt ends."""
    with connect(target) as connection:
        return connection.wait_for(lambda now: now.phase in ("live", "waiting", "failed"), PATIENCE)


def published_and_watched(url: str, token: str, trusted: ssl.SSLContext | str | Path) -> None:
    """A session goes there and comes back."""
    with wm.session("s", url=url, token=token, ssl=trusted) as session, session.step("work") as step:
        step.output = 42
    assert not session.errors
    observer = wm.watch(session.id, url=url, token=token, ssl=trusted)
    [found] = observer.wait(timeout=PATIENCE).steps.values()
    assert found.output is not None
    assert found.output.text == "42"
    observer.close()


def test_a_context_of_ones_own(authority: Authority) -> None:
    """Published, watched, listed."""
    with serving(authority.certificate("127.0.0.1")) as server:
        context = ssl.create_default_context(cafile=str(authority.file))
        published_and_watched(server.url, server.token(), context)
        part = wm.SessionTree("s", url=server.url, token=server.token(), ssl=context)
        try:
            assert part.observer.wait(timeout=PATIENCE).state == "succeeded"
        finally:
            part.close()
        listed = wm.SessionList(url=server.url, token=server.token(), ssl=context)
        try:
            assert listed is not None
            until(lambda: len(listed.sessions) == 1)
        finally:
            listed.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("form", [str, Path])
def test_a_file_of_ones_own(authority: Authority, form: type) -> None:
    """The PEM file in place of a context, as text or path, also with a name in place of an address."""
    with serving(authority.certificate("localhost")) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        published_and_watched(url, server.token(), form(authority.file))


def test_a_self_signed_certificate(tmp_path: Path) -> None:
    """The server's own certificate is given as what it is checked against."""
    cert, key = Authority.self_signed(tmp_path, "127.0.0.1")
    with serving((cert, key)) as server:
        assert attempt(Target(url=server.url, token=server.token(), ssl=cert)).phase == "live"
        refused = attempt(Target(url=server.url, token=server.token()))
        assert refused.code == "tls_failed"
        assert "WSMONITOR_CA" in refused.reason


def test_the_variable_names_a_file(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """``WSMONITOR_CA``, for programs that say nothing; what is said in the call goes above it."""
    with serving(authority.certificate("127.0.0.1")) as server:
        monkeypatch.setenv("WSMONITOR_URL", server.url)
        monkeypatch.setenv("WSMONITOR_TOKEN", server.token())
        monkeypatch.setenv("WSMONITOR_CA", str(authority.file))
        assert attempt(Target()).phase == "live"
        nothing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        refused = attempt(Target(ssl=nothing))
        assert refused.code == "tls_failed"
        assert "the context given as ssl=" in refused.reason


def test_an_unknown_authority(authority: Authority, tmp_path: Path) -> None:
    """Told: against what it was checked, and what to give. It is tried again, rarely."""
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "another")
    with serving(authority.certificate("127.0.0.1")) as server:
        status = attempt(Target(url=server.url, token=server.token(), ssl=other.file))
        assert (status.phase, status.code) == ("waiting", "tls_failed")
        assert str(other.file) in status.reason
        assert "authority is not known" in status.reason
        assert status.next_attempt_at is not None
        assert status.lost_at is not None
        assert status.next_attempt_at - status.lost_at > 20
        assert server.call(lambda running: running.counters["opened_total"]) == 0


def test_another_host_s_certificate(authority: Authority) -> None:
    """Told: which name did not match."""
    with serving(authority.certificate("monitor.example.org")) as server:
        status = attempt(Target(url=server.url, token=server.token(), ssl=authority.file))
        assert status.code == "tls_failed"
        assert "it is not for '127.0.0.1'" in status.reason


def test_an_expired_certificate_that_is_renewed(authority: Authority) -> None:
    """Told; and since it can be renewed without us, the link goes on asking."""
    with serving(authority.certificate("127.0.0.1", hours=-24)) as server:
        status = attempt(Target(url=server.url, token=server.token(), ssl=authority.file))
        assert (status.phase, status.code) == ("waiting", "tls_failed")
        assert "it has expired" in status.reason


def test_a_certificate_of_the_future(authority: Authority) -> None:
    """Or of now, and a clock that is wrong."""
    with serving(authority.certificate("127.0.0.1", hours=48, since=24)) as server:
        status = attempt(Target(url=server.url, token=server.token(), ssl=authority.file))
        assert status.code == "tls_failed"
        assert "clock" in status.reason


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_certificate(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, version: ssl.TLSVersion
) -> None:
    """A server that wants one: with a context that has one it goes."""
    from wsmonitor_server import app

    made = app.tls_context

    def demanding(config: object) -> ssl.SSLContext:
        context = made(config)  # type: ignore[arg-type]
        assert context is not None
        context.load_verify_locations(str(authority.file))
        context.verify_mode = ssl.CERT_REQUIRED
        context.maximum_version = version
        return context

    monkeypatch.setattr(app, "tls_context", demanding)
    with serving(authority.certificate("127.0.0.1")) as server:
        context = ssl.create_default_context(cafile=str(authority.file))
        context.load_cert_chain(*authority.certificate("alice", client=True))
        published_and_watched(server.url, server.token(), context)
        without = attempt(Target(url=server.url, token=server.token(), ssl=authority.file))
        assert without.phase == "waiting"
        assert "client certificate" in without.reason


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("shown", [False, True])
def test_no_client_certificate_or_a_strange_one(
    authority: Authority, tmp_path: Path, version: ssl.TLSVersion, shown: bool
) -> None:
    """What a server says with an alert is told; with TLS 1.3 it comes in place of the first answer."""
    demanding = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    demanding.load_cert_chain(*authority.certificate("127.0.0.1"))
    demanding.load_verify_locations(str(authority.file))
    demanding.verify_mode = ssl.CERT_REQUIRED
    demanding.maximum_version = version
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        link, _ = listener.accept()
        with link, link.dup() as spare:
            with contextlib.suppress(ssl.SSLError):
                demanding.wrap_socket(link, server_side=True)
            # What is closed with something unread is reset, and the alert may be lost.
            with contextlib.suppress(OSError):
                spare.shutdown(socket.SHUT_WR)
                while spare.recv(4096):
                    pass

    context = ssl.create_default_context(cafile=str(authority.file))
    if shown:
        (tmp_path / "other").mkdir()
        context.load_cert_chain(*Authority(tmp_path / "other", "another").certificate("eve", client=True))
    thread = threading.Thread(target=answer)
    thread.start()
    try:
        url = f"wss://127.0.0.1:{listener.getsockname()[1]}"
        status = attempt(Target(url=url, token="t", ssl=context))
        assert (status.phase, status.code) == ("waiting", "tls_failed")
        assert ("does not accept the client certificate" in status.reason) is shown
        assert "load_cert_chain" in status.reason
    finally:
        thread.join(PATIENCE)
        listener.close()


def test_old_versions_are_refused(authority: Authority) -> None:
    """1.2 is the least: a context that would take less is not used, and a server that has less is told."""
    context = ssl.create_default_context(cafile=str(authority.file))
    context.options &= ~(ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.raises(ConfigurationError, match=r"minimum_version = ssl\.TLSVersion\.TLSv1_2"):
        connect(Target(url="wss://127.0.0.1:9", token="t", ssl=context))


@pytest.mark.parametrize(
    ("alert", "words"),
    [
        (70, "1.2 and later"),  # protocol_version
        (40, "it may want a client certificate"),  # handshake_failure
        (42, "does not accept the client certificate"),  # bad_certificate
        (80, "no TLS connection to wss://"),  # internal_error
    ],
)
def test_what_a_server_says_in_place_of_a_handshake(authority: Authority, alert: int, words: str) -> None:
    """An old one, one that wants a certificate, one with troubles (RFC 8446, 6)."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        link, _ = listener.accept()
        with link:
            link.recv(4096)
            link.sendall(b"\x15\x03\x01\x00\x02\x02" + bytes([alert]))  # fatal
            link.recv(4096)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        url = f"wss://127.0.0.1:{listener.getsockname()[1]}"
        status = attempt(Target(url=url, token="t", ssl=authority.file))
        assert status.code == "tls_failed"
        assert words in status.reason
    finally:
        thread.join(PATIENCE)
        listener.close()


def test_ssl_without_tls_is_an_error_for_people(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an address of ws://, and where the local server would be taken."""
    monkeypatch.delenv("WSMONITOR_URL", raising=False)
    for url in ("ws://127.0.0.1:9", None):
        with pytest.raises(ConfigurationError, match="wss://"):
            wm.watch("s", url=url, token="t", ssl=str(authority.file))
    with (
        pytest.warns(wm.WsMonitorWarning, match="wss://"),
        wm.session("s", url="ws://127.0.0.1:9", token="t", ssl=str(authority.file)) as session,
    ):
        pass
    assert session.errors[0].code == "configuration"


def test_what_ssl_takes(authority: Authority) -> None:
    """Neither a flag nor a server's context."""
    with pytest.raises(TypeError, match="ssl must be"):
        wm.session("s", url="wss://127.0.0.1:9", token="t", ssl=True)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="insecure must be"):
        wm.join("s~1", url="wss://127.0.0.1:9", token="t", insecure="no")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="a server's"):
        wm.watch("s", url="wss://127.0.0.1:9", token="t", ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


def test_a_file_that_is_none(tmp_path: Path) -> None:
    """It failed for good: the file is named, and from where it was named."""
    wrong = tmp_path / "notes.txt"
    for content in (None, "no certificate"):
        if content is not None:
            wrong.write_text(content)
        status = attempt(Target(url="wss://127.0.0.1:9", token="t", ssl=wrong))
        assert (status.phase, status.code) == ("failed", "configuration")
        assert str(wrong) in status.reason


def test_other_trust_is_another_connection(authority: Authority) -> None:
    """What was checked against one authority is not used by who trusts another one."""
    with serving(authority.certificate("127.0.0.1")) as server:
        token = server.token()
        with connect(Target(url=server.url, token=token, ssl=authority.file)) as first:
            first.wait_live(PATIENCE)
            with connect(Target(url=server.url, token=token)) as second:
                assert second.wait_for(lambda now: bool(now.code), PATIENCE).code == "tls_failed"
                assert first.place == second.place


FORKING = """
import os, ssl, sys
import wsmonitor as wm
url, token, ca = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
with wm.session("s", url=url, token=token, ssl=context) as session, session.chain("c") as chain:
    child = os.fork()
    with chain.step("child" if child == 0 else "parent"):
        pass
    if child == 0:
        session.flush(60)
        os._exit(0)
    os.waitpid(child, 0)
print(session.id)
"""


def test_a_forked_child_has_the_context_too(authority: Authority) -> None:
    """It makes a connection of its own, which is checked against the same."""
    with serving(authority.certificate("127.0.0.1")) as server:
        told = subprocess.run(
            [sys.executable, "-c", FORKING, server.url, server.token(), str(authority.file)],
            stdout=subprocess.PIPE, text=True, timeout=2 * PATIENCE, check=True,
        )  # fmt: skip
        observer = wm.watch(told.stdout.strip(), url=server.url, token=server.token(), ssl=authority.file)
        names = {step.name for step in observer.wait(timeout=PATIENCE).steps.values()}
        assert names == {"child", "parent"}
        observer.close()


def test_a_spool_knows_the_file(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be delivered goes to the same server by the same authority, whoever flushes it."""
    monkeypatch.setenv("WSMONITOR_HOME", str(tmp_path / "home"))
    cert, key = authority.certificate("127.0.0.1")
    secret = b"a secret of thirty-two bytes, and more"
    with EmbeddedServer.in_thread(key=secret, tls_cert=cert, tls_key=key) as other:
        token = other.token()
    port = free_port()
    url = f"wss://127.0.0.1:{port}"
    program = (
        "import sys, wsmonitor as wm\n"
        "with wm.session('s', url=sys.argv[1], token=sys.argv[2], ssl='company.pem'): pass"
    )
    subprocess.run([sys.executable, "-c", program, url, token], cwd=tmp_path, timeout=PATIENCE, check=True)
    [found] = find(spool_folder())
    assert found.facts is not None
    assert (found.facts.url, found.facts.ca) == (url, str(authority.file))
    with EmbeddedServer.in_thread(key=secret, port=port, tls_cert=cert, tls_key=key) as server:
        told = CliRunner().invoke(commands, ["spool", "flush", "--token", token])
        assert told.exit_code == 0, told.output
        observer = wm.watch(found.facts.session, url=url, token=server.token(), ssl=authority.file)
        assert observer.wait(timeout=PATIENCE).state == "succeeded"
        observer.close()


def test_the_command_line(authority: Authority, tmp_path: Path) -> None:
    """Against a server process of its own: ``--ca``, the variable, and without either."""
    cert, key = authority.certificate("127.0.0.1")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WSMONITOR_")}
    command = [
        sys.executable, "-m", "wsmonitor", "serve", "--port", "0", "--data-dir", str(tmp_path / "data"),
        "--tls-cert", cert, "--tls-key", key,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            url = next(word.strip(",.") for word in line.split() if word.startswith("wss://"))
            key_file = str(tmp_path / "data" / "key")

            def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
                return subprocess.run(
                    [sys.executable, "-m", "wsmonitor", *arguments],
                    capture_output=True, text=True, env={**environment, **more}, timeout=PATIENCE,
                )  # fmt: skip

            token = run(
                "token", "issue", "--key-file", key_file, "--role", "observe", "--subject", "a"
            ).stdout
            place = {"WSMONITOR_URL": url, "WSMONITOR_TOKEN": token.strip()}
            file = str(authority.file)
            answered = run("status", "--json", "--ca", file, **place)
            assert answered.returncode == 0, answered.stderr
            assert run("sessions", "--json", WSMONITOR_CA=file, **place).returncode == 0
            refused = run("status", "--json", **place)
            assert refused.returncode == 3
            assert json.loads(refused.stdout)["error"]["code"] == "tls_failed"
            told = run("sessions", **place)
            assert told.returncode == 3
            assert "--ca" in told.stderr
            assert "tls_failed" in told.stderr
            missing = run("sessions", WSMONITOR_CA=str(tmp_path / "none.pem"), **place)
            assert missing.returncode == 2
            assert "none.pem" in missing.stderr
            assert run("sessions", "--ca", str(tmp_path / "none.pem"), **place).returncode == 2
        finally:
            server.terminate()
