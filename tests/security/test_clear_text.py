"""No token leaves the machine unencrypted, unless that was asked for (ASVS 5.0, 4.4.1 and 12.2.1)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import wsmonitor as wm
from wsmonitor.client import connect
from wsmonitor.client.errors import InsecureError
from wsmonitor.client.resolve import resolver_for
from wsmonitor.client.types import Target
from wsmonitor.protocol.errors import ConfigurationError
from wsmonitor_server.config import ServerConfig, validate
from wsmonitor_server.embedded import EmbeddedServer

PATIENCE = 60.0
ELSEWHERE = ["ws://monitor.example.org:8765", "ws://192.0.2.1:1", "ws://[2001:db8::1]:1", "ws://wsmonitor", "ws://0.0.0.0:1",
             "ws://localhost.example.org:1", "ws://127.0.0.1.nip.io:1", "WS://monitor:1"]  # fmt: skip
HERE = ["ws://127.0.0.1:1", "ws://localhost:1", "ws://[::1]:1", "ws://127.9.9.9:1"]


@pytest.mark.parametrize("url", ELSEWHERE)
def test_a_token_does_not_go_to_another_machine(url: str) -> None:
    """Whoever asks, and whether it is a token or what gives one: it is not even asked for."""
    asked: list[str] = []

    def provider() -> str:
        asked.append(url)
        return "t"

    for token in ("t", provider):
        with pytest.raises(InsecureError, match="insecure=True") as caught:
            resolver_for(Target(url=url, token=token), {})
        assert caught.value.code == "insecure"
        with pytest.raises(InsecureError):
            connect(Target(url=url, token=token))
        with pytest.raises(ConfigurationError):
            wm.watch("s", url=url, token=token)
        with pytest.raises(ConfigurationError):
            wm.SessionList(url=url, token=token)
    with pytest.raises(InsecureError):
        resolver_for(Target(), {"WSMONITOR_URL": url, "WSMONITOR_TOKEN": "t"})
    assert not asked


@pytest.mark.parametrize("url", HERE)
def test_this_machine_is_no_other(url: str) -> None:
    resolver_for(Target(url=url, token="t"), {})
    resolver_for(Target(url=url, token="t", insecure=False), {"WSMONITOR_INSECURE": "1"})


@pytest.mark.parametrize("url", ELSEWHERE[:4])
def test_it_can_be_asked_for(url: str) -> None:
    """In the call or by the variable; the call goes above the variable."""
    resolver_for(Target(url=url, token="t", insecure=True), {})
    for word in ("1", "true", "YES", " on "):
        resolver_for(Target(url=url, token="t"), {"WSMONITOR_INSECURE": word})
    for word in ("", "0", "no", "off", "maybe"):
        with pytest.raises(InsecureError):
            resolver_for(Target(url=url, token="t"), {"WSMONITOR_INSECURE": word})
    with pytest.raises(InsecureError):
        resolver_for(Target(url=url, token="t", insecure=False), {"WSMONITOR_INSECURE": "1"})
    resolver_for(Target(url=url.lower().replace("ws://", "wss://"), token="t"), {})


@contextmanager
def eavesdropper() -> Iterator[tuple[str, list[bytes]]]:
    """A plain listener, reached by a name that is not this machine's; and what it was sent."""
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            with link:
                heard.append(link.recv(65536))

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield f"ws://monitor.invalid:{listener.getsockname()[1]}", heard
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(PATIENCE)


def test_a_program_goes_on_and_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """HARMLESS: one warning, an entry in ``errors``, and not a byte on the wire."""
    true = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: true("127.0.0.1", *a, **k))
    with eavesdropper() as (url, heard):
        with (
            pytest.warns(wm.WsMonitorWarning, match="insecure"),
            wm.session("s", url=url, token="t") as session,
        ):
            session.chain("c").start().end()
        assert [error.code for error in session.errors] == ["insecure"]
        assert heard == []


def test_where_it_was_allowed_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server in a container's network, say: published and watched by its name."""
    true = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: true("127.0.0.1", *a, **k))
    with EmbeddedServer.in_thread() as server:
        url, token = server.url.replace("127.0.0.1", "monitor.invalid"), server.token()
        with wm.session("s", url=url, token=token, insecure=True) as session:
            pass
        assert not session.errors
        observer = wm.watch(session.id, url=url, token=token, insecure=True)
        assert observer.wait(timeout=PATIENCE).state == "succeeded"
        observer.close()


def test_the_command_line(tmp_path: Path) -> None:
    """Refused with the code, and what to do; nothing is looked up."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WSMONITOR_")}

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "wsmonitor", *arguments],
            capture_output=True, text=True, env={**clean, **more}, timeout=PATIENCE,
        )  # fmt: skip

    place = {"WSMONITOR_URL": "ws://monitor.invalid:1", "WSMONITOR_TOKEN": "t"}
    refused = run("sessions", **place)
    assert refused.returncode == 2
    assert "insecure" in refused.stderr
    assert "--insecure" in refused.stderr
    report = run("status", "--json", **place)
    assert report.returncode == 2
    assert json.loads(report.stdout)["error"]["code"] == "insecure"
    for allowed in (run("sessions", "--insecure", **place), run("sessions", WSMONITOR_INSECURE="1", **place)):
        assert allowed.returncode == 3  # there is no such host
        assert "connection_lost" in allowed.stderr


def test_a_server_that_is_to_listen_in_clear_text_says_it_alike() -> None:
    """The server's side of the same word."""
    with pytest.raises(ConfigurationError, match="--insecure"):
        validate(ServerConfig(host="0.0.0.0"))
    validate(ServerConfig(host="0.0.0.0", insecure=True))
    with pytest.raises(ConfigurationError, match="tls_cert"):
        validate(ServerConfig(host="0.0.0.0", insecure=True, tls_cert="c", tls_key="k"))
