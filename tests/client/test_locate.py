"""Where the server is found, in which order, and what is never trusted."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest

from wsmonitor.client.errors import NoServerError, NotLocatedError
from wsmonitor.client.local import (
    inline_server,
    start_inline_server,
    stop_inline_server,
    stop_older_servers,
)
from wsmonitor.client.locate import local_mode, locate, prove
from wsmonitor.client.resolve import FixedResolver, resolver_for
from wsmonitor.client.tokens import inspect_token, issue_token
from wsmonitor.client.types import Target
from wsmonitor.host import boot_id, discovery_path, process_started, read_discovery, why_stale
from wsmonitor.protocol.discovery import Discovery, file_name
from wsmonitor.protocol.errors import ConfigurationError

PROCESS = {"WSMONITOR_LOCAL": "process"}


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def discovery(**changes: object) -> Discovery:
    fields = {
        "url": "ws://127.0.0.1:9",
        "instance": "i",
        "version": "0",
        "major": 1,
        "minor": 0,
        "pid": os.getpid(),
        "boot_id": boot_id(),
        "started": "1",
        "process_started": process_started(os.getpid()) or 0.0,
        "store": "memory",
        "data_dir": "",
        "log": "",
        "key_file": "",
        "secret": "s" * 32,
    }
    return Discovery(**{**fields, **changes})  # type: ignore[arg-type]


def write(found: Discovery, path: Path | None = None) -> None:
    path = path or discovery_path()
    path.touch(0o600)
    path.write_bytes(msgspec.json.encode(found))


def test_an_explicit_url_comes_first() -> None:
    located = locate("ws://there:1", environ={"WSMONITOR_URL": "ws://other:2"})
    assert (located.url, located.why) == ("ws://there:1", "given explicitly")


def test_then_the_environment() -> None:
    located = locate(environ={"WSMONITOR_URL": "wss://there/path"})
    assert (located.url, located.why) == ("wss://there/path", "from WSMONITOR_URL")
    assert len(located.looked) == 2


@pytest.mark.parametrize(
    "url", ["http://x", "ws://", "x:1", "ws://x:port", "ws://x?token=1", "ws://u:p@x", "ws://x#f"]
)
def test_what_is_no_address_of_a_server(url: str) -> None:
    with pytest.raises(ConfigurationError):
        locate(url, environ={})


def test_without_a_server_it_says_where_it_looked() -> None:
    with pytest.raises(NotLocatedError) as caught:
        locate(environ=PROCESS)
    assert [place.split(":")[0] for place in caught.value.looked] == [
        "an explicit address",
        "WSMONITOR_URL",
        f"the local server's file {discovery_path()}",
    ]


def test_off_means_none() -> None:
    with pytest.raises(NoServerError, match="WSMONITOR_LOCAL is off"):
        locate(environ={"WSMONITOR_LOCAL": "off"}, start=True)


def test_the_mode() -> None:
    assert local_mode({"WSMONITOR_LOCAL": "process", "CI": "true"}) == "process"
    assert local_mode({"CI": "true"}) == "inline"
    assert local_mode({}) == "inline"  # this is pytest
    with pytest.raises(ConfigurationError, match="process, inline or off"):
        local_mode({"WSMONITOR_LOCAL": "yes"})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"boot_id": "another"}, "before this machine was started"),
        ({"pid": 2**22 + 1}, "has ended"),
        ({"process_started": 1.5}, "another has that number"),
        ({"major": 9}, "version 9 of the protocol"),
    ],
)
def test_a_stale_file_is_not_believed(changes: dict[str, object], why: str) -> None:
    write(discovery(**changes))
    found, problem = read_discovery(discovery_path())
    assert found is None
    assert why in problem
    with pytest.raises(NotLocatedError) as caught:
        locate(environ=PROCESS)
    assert why in caught.value.looked[-1]


def test_a_damaged_file_is_not_believed() -> None:
    discovery_path().touch(0o600)
    discovery_path().write_text("{")
    assert "damaged" in read_discovery(discovery_path())[1]


class _Impostor(BaseHTTPRequestHandler):
    """Somebody else on the port: answers the challenge without the secret."""

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))  # type: ignore[attr-defined]
        body = b'{"proof": "00", "instance": "i"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def impostor() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), _Impostor)
    server.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_whoever_cannot_prove_himself_gets_no_token(impostor: HTTPServer) -> None:
    write(discovery(url=f"ws://127.0.0.1:{impostor.server_port}"))
    with pytest.raises(NotLocatedError) as caught:
        locate(environ=PROCESS)
    assert "it gets no token" in caught.value.looked[-1]
    ((path, headers),) = impostor.seen  # type: ignore[attr-defined]
    assert "nonce=" in path
    assert "Authorization" not in headers


def test_a_port_where_nobody_is() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert "nothing answers" in prove(discovery(url=f"ws://127.0.0.1:{taken.getsockname()[1]}"))


def test_a_newer_local_server_is_left_alone(runtime: Path) -> None:
    newer = runtime / file_name(socket.gethostname(), 2)
    write(discovery(major=2, version="9"), newer)
    with pytest.raises(NoServerError, match="upgrade"):
        stop_older_servers()
    newer.unlink()
    assert stop_older_servers() == []


def test_this_process_is_alive() -> None:
    assert why_stale(discovery()) == ""


def test_a_server_inside_this_process() -> None:
    assert inline_server() is None
    with pytest.raises(NotLocatedError, match="publishing starts one"):
        locate(environ={"WSMONITOR_LOCAL": "inline"})
    try:
        located = locate(environ={"WSMONITOR_LOCAL": "inline"}, start=True)
        assert located.why == "the server in this process"
        assert start_inline_server().url == located.url
        assert locate(environ={"WSMONITOR_LOCAL": "inline"}).url == located.url
        _, resolver = resolver_for(Target(), {"WSMONITOR_LOCAL": "inline"})
        endpoint = resolver.resolve(fresh=False)
        assert endpoint.renewable
        assert inspect_token(endpoint.token).claims.role == "admin"
        assert endpoint.token not in repr(endpoint)
    finally:
        stop_inline_server()
    assert inline_server() is None


# -- tokens and what they are sent to


def test_the_environments_token_goes_to_the_environments_server_only() -> None:
    environ = {"WSMONITOR_URL": "wss://a:1", "WSMONITOR_TOKEN": "T", **PROCESS}
    _, resolver = resolver_for(Target(), environ)
    assert resolver.resolve(fresh=False).token == "T"
    _, resolver = resolver_for(Target(url="wss://a:1"), environ)
    assert resolver.resolve(fresh=False).token == "T"
    _, resolver = resolver_for(Target(url="wss://b:1"), environ)
    with pytest.raises(ConfigurationError, match="no token for wss://b:1"):
        resolver.resolve(fresh=False)


def test_connections_are_shared_by_address_and_credentials() -> None:
    def provider() -> str:
        return "T"

    def key(target: Target) -> object:
        return resolver_for(target, PROCESS)[0]

    assert key(Target(url="wss://a:1", token="T")) == key(Target(url="wss://a:1", token="T", name="n"))
    assert key(Target(url="wss://a:1", token="T")) != key(Target(url="wss://a:1", token="U"))
    assert key(Target(url="wss://a:1", token=provider)) == key(Target(url="wss://a:1", token=provider))
    assert key(Target()) == key(Target(start=True))
    assert key(Target()) != key(Target(url="wss://a:1", token="T"))


def test_a_providers_token_is_kept_until_a_fresh_one_is_wanted() -> None:
    given = iter("ABC")
    _, resolver = resolver_for(Target(url="wss://a:1", token=lambda: next(given)), {})
    assert isinstance(resolver, FixedResolver)
    assert [resolver.resolve(fresh=fresh).token for fresh in (False, False, True, False)] == list("AABB")
    assert resolver.token() == "C"
    assert resolver.resolve(fresh=False).token == "C"


def test_tokens(tmp_path: Path) -> None:
    key = b"k" * 32
    file = tmp_path / "key"
    file.touch(0o600)
    file.write_bytes(key + b"\n")
    token = issue_token(file, sub="alice", role="command", sessions=["etl~*"], ttl=60, name="Alice", now=1000)
    info = inspect_token(token, key, now=1010)
    assert (info.verified, info.expires_in, info.problem) == (True, 50, "")
    assert (info.claims.sub, info.claims.role, info.claims.sessions) == ("alice", "command", ("etl~*",))
    assert info.claims.covers("etl~1")
    assert "expired 40 s ago" in inspect_token(token, now=1100).problem
    other = inspect_token(token, b"x" * 32, now=1010)
    assert (other.verified, "signature" in other.problem) == (False, True)
    assert inspect_token(token, now=1010).verified is None
    assert (
        "not for wsmonitor"
        in inspect_token(issue_token(key, sub="a", audience="z", now=1000), now=1000).problem
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": b"short"},
        {"key": "/no/such/file"},
        {"role": "king"},
        {"sub": ""},
        {"ttl": 0},
        {"sessions": "etl"},
        {"sessions": [""]},
    ],
)
def test_what_no_token_is_made_from(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        issue_token(**{"key": b"k" * 32, "sub": "a", **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "x.y.z", "eyJhbGciOiJub25lIn0.e30."])
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(ConfigurationError):
        inspect_token(text)


def test_times_are_present_by_default() -> None:
    info = inspect_token(issue_token(b"k" * 32, sub="a", ttl=60))
    assert abs(info.claims.exp - time.time() - 60) < 5
