"""The server as a process: how it starts, is refused, and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from wsmonitor.host import read_discovery
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.discovery import CHALLENGE_PATH, Discovery, proof, proof_agrees
from wsmonitor.protocol.errors import ConfigurationError
from wsmonitor_server.auth import issue
from wsmonitor_server.config import load
from wsmonitor_server.local import usable_data_dir
from wsmonitor_server.process import OWN_FILES


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "wsmonitor_server", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
    )


def finish(process: subprocess.Popen[str], how: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    process.send_signal(how)
    _, errors = process.communicate(timeout=20)
    return process.returncode, errors


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_ends_cleanly_on_a_signal(tmp_path: Path, how: signal.Signals) -> None:
    process = start("--port", "0", "--data-dir", str(tmp_path))
    assert process.stdout is not None
    assert process.stdout.readline().startswith("wsmonitor listens at ws://127.0.0.1:")
    status, errors = finish(process, how)
    assert status == 0, errors
    assert "Traceback" not in errors
    assert "hidden" not in errors
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_two_servers_on_one_redis_with_a_key_each_say_so(tmp_path: Path, redis_url: str) -> None:
    processes = []
    for name in ("one", "two"):
        process = start("--port", "0", "--data-dir", str(tmp_path / name), "--store", redis_url)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("wsmonitor listens at ")
        processes.append(process)
    # The second one met the first one's word for its key before it listened.
    for process in reversed(processes):
        status, errors = finish(process)
        assert status == 0, errors
        if process is processes[1]:
            assert "on this store verifies tokens with another key" in errors


def test_it_may_have_as_many_sockets_as_its_limits_say(tmp_path: Path) -> None:
    """Up to what the system allows; where that is too little, the log says so."""
    resource = pytest.importorskip("resource")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = 4_000 if hard == resource.RLIM_INFINITY else min(hard, 4_000)
    for connections in (500, 20_000):
        wanted = connections + Limits().handshakes + OWN_FILES
        config = tmp_path / "server.toml"
        config.write_text(f"data_dir = '{tmp_path}'\n[limits]\nconnections = {connections}\n")
        limited = ["sh", "-c", f'ulimit -Sn 256 && ulimit -Hn {most} && exec "$@"', "sh"]
        process = subprocess.Popen(
            [*limited, sys.executable, "-m", "wsmonitor_server", "--port", "0", "--config", str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline().startswith("wsmonitor listens")
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (min(wanted, most), most)
        status, errors = finish(process)
        assert status == 0
        assert ("fewer than limits.connections needs" in errors) is (most < wanted)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start("--port", str(port), "--data-dir", str(tmp_path))
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert f"port {port} at 127.0.0.1 is in use" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "--behind-proxy"),
        (["--host", "192.0.2.1", "--behind-proxy"], "cannot listen at 192.0.2.1"),
        (["--port", "70000"], "0 to 65535"),
        (["--tls-cert", "x.pem"], "--tls-key"),
        (["--store", "redis"], "`memory`, `sqlite:PATH` or `redis://HOST:PORT`, not 'redis'"),
        (["--store", "mysql://u:hidden@h"], "not 'mysql://…'"),
        (["--store", ""], "the store is empty"),
        (["--store", "redis://u:hidden@h?x=1"], "unknown option 'x'"),
        (["--store", "unix:///does/not/exist"], "Redis cannot be reached"),
        (["--config", "/does/not/exist.toml"], "cannot read"),
    ],
)
def test_what_cannot_work_is_refused_in_words(tmp_path: Path, arguments: list[str], words: str) -> None:
    process = start("--data-dir", str(tmp_path), *arguments)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert words in errors
    assert "Traceback" not in errors


def test_without_a_key_it_does_not_serve() -> None:
    process = start("--port", "0")
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "tokens need a key" in errors


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k" * 64)
    (tmp_path / "key").chmod(0o640)
    process = start("--port", "0", "--data-dir", str(tmp_path))
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "may be read by others (mode 640)" in errors


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot = 1", "prot"),
        ("[limits]\nsubscription = 1", "limits.subscription"),
        ("[timing]\nheartbeat_interval = 40", "heartbeat_timeout"),
        ("[auth]\nalgorithms = ['none']", "none"),
        ("[auth]\njwks_url = 'https://x'\nalgorithms = ['HS256']", "HS256 needs a secret"),
        ("port = 'x'", "port"),
        ("port =", "not TOML"),
        ("origins = ['*']", "no wildcard"),
        ("origins = ['https://hub.example.org/']", "not an origin"),
        ("origins = ['hub.example.org']", "not an origin"),
        ("origins = ['https://Hub.example.org']", "not an origin"),
        ("[timing]\nheartbeat_timeout = nan", "timing.heartbeat_timeout"),
        ("[timing]\nheartbeat_timeout = inf", "timing.heartbeat_timeout"),
        ("[limits]\nmessage_rate = nan", "limits.message_rate"),
        ("[retention]\nmax_age = -1.0", "retention.max_age"),
        ("[retention]\ninterval = 0", "retention.interval"),
        ("drain_timeout = nan", "drain_timeout"),
    ],
)
def test_a_configuration_file_is_read_strictly(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "server.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=words):
        load(path, {})


def test_origins_as_browsers_write_them_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    origins = (
        "https://hub.example.org",
        "http://localhost:8888",
        "http://[::1]:8888",
        "vscode-webview://abc",
    )
    path.write_text(f"origins = {list(origins)}")
    assert load(path, {}).origins == origins


def test_the_command_line_stands_above_the_file(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text("port = 1\nstore = 'memory'\n[limits]\nsubscriptions = 3\n")
    config = load(path, {"port": 2, "store": None})
    assert (config.port, config.store, config.limits.subscriptions) == (2, "memory", 3)


# -- the local server


def local(tmp_path: Path, *more: str) -> subprocess.Popen[str]:
    return start("--local", "--store", "memory", *more, **places(tmp_path))


def places(tmp_path: Path) -> dict[str, str]:
    return {"WSMONITOR_HOME": str(tmp_path / "home"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}


def discovered(tmp_path: Path) -> tuple[Path, Discovery]:
    (path,) = (tmp_path / "runtime").glob("wsmonitor-*.json")
    found, _ = read_discovery(path)
    assert found is not None
    return path, found


def test_of_two_local_servers_one_wins_and_the_other_finds_its_file(tmp_path: Path) -> None:
    both = [local(tmp_path), local(tmp_path)]
    loser = next(iter_finished(both))
    winner = both[0] if loser is both[1] else both[1]
    try:
        assert loser.returncode == 3
        path, found = discovered(tmp_path)
        assert found.pid == winner.pid
        assert path.stat().st_mode & 0o777 == 0o600
        assert winner.poll() is None
    finally:
        status, errors = finish(winner)
        loser.communicate()
    assert status == 0, errors
    assert not path.exists()


def iter_finished(processes: list[subprocess.Popen[str]]) -> Iterator[subprocess.Popen[str]]:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        for process in processes:
            try:
                process.wait(timeout=0.05)
            except subprocess.TimeoutExpired:
                continue
            yield process
            return
    raise AssertionError("neither of two local servers gave up")


def listening(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().startswith("wsmonitor listens at")


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read()


def test_a_local_server_proves_that_it_wrote_the_file(tmp_path: Path) -> None:
    process = local(tmp_path)
    try:
        listening(process)
        _, found = discovered(tmp_path)
        base = found.url.replace("ws://", "http://")
        port = int(base.rpartition(":")[2])
        status, body = get(f"{base}{CHALLENGE_PATH}?nonce=00112233445566778899aabbccddeeff")
        answer = msgspec.json.decode(body)
        assert status == 200
        assert answer["instance"] == found.instance
        expected = proof(found.secret, "00112233445566778899aabbccddeeff", "127.0.0.1", port)
        assert proof_agrees(expected, answer["proof"])
        assert get(f"{base}{CHALLENGE_PATH}?nonce=short")[0] == 400
        assert found.secret not in repr(found)
    finally:
        status, errors = finish(process)
    assert status == 0, errors


def test_after_kill_9_the_next_one_takes_over_with_the_same_key(tmp_path: Path) -> None:
    first = local(tmp_path)
    listening(first)
    path, before = discovered(tmp_path)
    key = Path(before.key_file).read_bytes()
    finish(first, signal.SIGKILL)
    assert path.exists()
    second = local(tmp_path)
    try:
        listening(second)
        _, after = discovered(tmp_path)
        assert (after.pid, after.instance) != (before.pid, before.instance)
        assert after.secret != before.secret
        assert Path(after.key_file).read_bytes() == key
    finally:
        status, errors = finish(second)
    assert status == 0, errors


def test_an_idle_local_server_ends_by_itself(tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text("[timing]\nidle_exit = 0.3\n")
    process = local(tmp_path, "--config", str(config))
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert list((tmp_path / "runtime").glob("wsmonitor-*.json")) == []
    assert "idle for 0.3 s" in (tmp_path / "home" / "server.log").read_text()


def test_a_discovery_file_of_another_server_is_left_alone(tmp_path: Path) -> None:
    process = local(tmp_path)
    listening(process)
    path, found = discovered(tmp_path)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(found, instance="another")))
    status, errors = finish(process)
    assert status == 0, errors
    assert path.exists()


def test_a_network_file_system_is_avoided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsmonitor_server.local.mounts", lambda: f"server:/home {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr("wsmonitor_server.local.FALLBACK", tmp_path / "var-tmp")
    (tmp_path / "var-tmp").mkdir()
    chosen = usable_data_dir(tmp_path / "home")
    assert chosen.parent == tmp_path / "var-tmp"
    assert chosen.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_others_may_write_in_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(0o777)
    with pytest.raises(ConfigurationError, match="make it 700"):
        usable_data_dir(tmp_path / "home")


def test_the_example_configuration_is_valid() -> None:
    example = Path(__file__).parents[2] / "server" / "deploy" / "server.toml"
    config = load(example, {})
    assert config.behind_proxy
    assert config.limits.connections_per_subject == 200


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="not here: no SIGHUP on this platform")
async def test_sighup_reads_the_keys_again_and_voids_the_old_tokens(tmp_path: Path) -> None:
    key = tmp_path / "key"
    first, second = b"1" * 40, b"2" * 40
    key.write_bytes(first)
    key.chmod(0o600)
    process = await asyncio.to_thread(start, "--port", "0", "--data-dir", str(tmp_path))
    try:
        assert process.stdout is not None
        line = await asyncio.to_thread(process.stdout.readline)
        url = line.split()[-1]

        def handshake(secret: bytes) -> connect:
            token = issue(
                secret, sub="a", role="observe", sessions=["*"], issued=int(time.time()), ttl=60, jti="1"
            )
            return connect(
                url,
                additional_headers={"Authorization": f"Bearer {token}"},
                subprotocols=[Subprotocol("wsmonitor.v1")],
                ping_interval=None,
            )

        async with handshake(first) as socket:
            await socket.send('{"type":"hello","major":1}')
            assert b'"welcome"' in await socket.recv(decode=False)
            key.write_bytes(second)
            process.send_signal(signal.SIGHUP)
            with pytest.raises(ConnectionClosed) as closed:
                await asyncio.wait_for(socket.recv(), 10)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4501
        with pytest.raises(InvalidStatus, match="401"):
            await handshake(first)
        async with handshake(second):
            pass
    finally:
        status, errors = await asyncio.to_thread(finish, process)
    assert status == 0, errors


async def test_it_serves_on_uvloop(tmp_path: Path) -> None:
    """From the handshake to an event, and to the end in order."""
    process = start("--port", "0", "--data-dir", str(tmp_path), "--loop", "uvloop")
    assert process.stdout is not None
    line = await asyncio.to_thread(process.stdout.readline)
    url = line.split()[-1]
    now = int(time.time())
    token = issue(
        (tmp_path / "key").read_bytes().strip(),
        sub="me",
        role="admin",
        sessions=("*",),
        issued=now,
        ttl=600,
        jti="1",
    )
    opened = connect(
        url,
        additional_headers={"Authorization": f"Bearer {token}"},
        subprotocols=[Subprotocol("wsmonitor.v1")],
    )
    producer = {"session": "s", "producer": "p"}
    changes = [{"op": "session", "name": "s", "state": "running"}, {"op": "chain", "id": "c", "name": "c"}]

    async def ask(wanted: str, **message: object) -> dict[str, object]:
        await socket.send(msgspec.json.encode(message).decode())
        return await wait(wanted)

    async def wait(wanted: str) -> dict[str, object]:
        async with asyncio.timeout(20):
            while True:
                answer: dict[str, object] = msgspec.json.decode(await socket.recv(decode=False))
                if answer["type"] == wanted:
                    return answer

    async with opened as socket:
        await ask("welcome", type="hello", major=1)
        await ask("sync_begin", type="subscribe", topic="s", generation=1)
        await ask("synced", type="sync_next", topic="s", generation=1, page=0)
        await ask("publish_opened", type="publish_open", request=1, holder="1", **producer)
        await ask("event", type="publish", producer_epoch=1, first=1, changes=changes, **producer)
        # More than a socket takes at once, in both directions.
        large = [{"op": "chain", "id": f"c{n}", "name": "c", "reason": 900 * "x"} for n in range(200)]
        await ask("ack", type="publish", producer_epoch=1, first=3, changes=large, **producer)
        status, errors = await asyncio.to_thread(finish, process)
        assert (await wait("draining"))["type"] == "draining"
    assert status == 0, errors
    assert "Traceback" not in errors


def test_without_uvloop_it_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "uvloop.py").write_text("raise ImportError")
    # Before the installed one, as PYTHONPATH is.
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = start("--port", "0", "--data-dir", str(tmp_path), "--loop", "uvloop", PYTHONPATH=path)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "pip install 'wsmonitor[uvloop]'" in errors
    assert "Traceback" not in errors
