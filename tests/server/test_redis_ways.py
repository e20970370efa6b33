"""The way to Redis: what is wrong with it is said in words, and what to do."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.redis_server import free_port
from tests.security.certificates import Authority
from wsmonitor.protocol.errors import ConfigurationError
from wsmonitor_server.stores.base import StoreError
from wsmonitor_server.stores.redis.address import parse
from wsmonitor_server.stores.redis.bus import Pace
from wsmonitor_server.stores.redis.words import check_files, explain, transient, unreachable

from .conftest import Join, Start
from .test_shared import a_commit, until


def with_tls(start: Start, folder: Path, *, clients: str = "no", **validity: int) -> tuple[Authority, int]:
    """An authority, and the port of a Redis whose certificate it has signed."""
    authority = Authority(folder)
    certificate, key = authority.certificate("127.0.0.1", **validity)
    port = free_port()
    try:
        start(
            *("--tls-port", str(port), "--tls-auth-clients", clients),
            *(
                "--tls-cert-file",
                certificate,
                "--tls-key-file",
                key,
                "--tls-ca-cert-file",
                str(authority.file),
            ),
        )
    except AssertionError as exc:
        if "TLS support" in str(exc) or "tls-port" in str(exc):
            pytest.skip("needs a redis-server with TLS: apt-get install redis-server")
        raise
    return authority, port


async def refused(join: Join, url: str, **patience: float) -> str:
    """What is said when a server with the store *url* starts."""
    with pytest.raises(ConfigurationError) as caught:
        await join(url, **{"patience": 0.1, "timeout": 30.0} | patience)
    return str(caught.value)


async def test_over_tls_with_an_authority_of_one_s_own(start: Start, join: Join, tmp_path: Path) -> None:
    authority, port = with_tls(start, tmp_path)
    url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority.file}"
    node = await join(url)
    await node.store.commit([a_commit(node.store.epoch)])
    await until(lambda: node.versions == [1])
    wrong = await refused(join, url.replace("127.0.0.1", "localhost"))
    assert "certificate is not accepted: Hostname mismatch" in wrong
    unknown = await refused(join, url.partition("?")[0])
    assert "not accepted: self-signed certificate" in unknown or "unable to get local issuer" in unknown
    assert "checked against the system's authorities (another: ssl_ca_certs=FILE)" in unknown
    plain = await refused(join, url.replace("rediss", "redis").partition("?")[0])
    assert "; perhaps it speaks TLS only (rediss://)" in plain


async def test_a_certificate_that_has_expired(start: Start, join: Join, tmp_path: Path) -> None:
    authority, port = with_tls(start, tmp_path, hours=-24)
    said = await refused(join, f"rediss://127.0.0.1:{port}?ssl_ca_certs={authority.file}")
    assert "not accepted: certificate has expired" in said
    assert f"checked against {authority.file}" in said


async def test_a_redis_that_wants_to_see_a_certificate(start: Start, join: Join, tmp_path: Path) -> None:
    authority, port = with_tls(start, tmp_path, clients="yes")
    certificate, key = authority.certificate("a-client", client=True)
    url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={authority.file}"
    await join(f"{url}&ssl_certfile={certificate}&ssl_keyfile={key}")
    assert "perhaps it wants a client's certificate (ssl_certfile, ssl_keyfile)" in await refused(join, url)


async def test_a_redis_without_tls_does_not_answer_to_it(start: Start, join: Join) -> None:
    port = free_port()
    start(port=port)
    said = await refused(join, f"rediss://127.0.0.1:{port}", timeout=0.2)
    assert "no answer within 0.2 s; to rediss:// a Redis without TLS does not answer either" in said


async def test_nobody_listens_there_or_it_has_no_such_name(join: Join) -> None:
    said = await refused(join, f"redis://127.0.0.1:{free_port()}")
    assert said.endswith("Redis cannot be reached: connection refused")
    assert "its name is not known" in await refused(join, "redis://nobody.invalid")


def test_files_are_looked_at_one_by_one(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "other").mkdir()
    _, other = Authority(tmp_path / "other").certificate("b", client=True)
    certificate, key = authority.certificate("a", client=True)
    junk = tmp_path / "junk.pem"
    junk.write_text("no PEM")
    gone = tmp_path / "gone.pem"
    check_files(
        parse(f"rediss://h?ssl_ca_certs={authority.file}&ssl_certfile={certificate}&ssl_keyfile={key}")
    )
    for options, words in (
        (f"ssl_ca_certs={gone}", f"ssl_ca_certs: cannot read {gone}: No such file"),
        (f"ssl_ca_certs={tmp_path}", f"ssl_ca_certs: cannot read {tmp_path}: Is a directory"),
        (f"ssl_ca_certs={junk}", f"ssl_ca_certs: no PEM certificate in {junk}"),
        (f"ssl_certfile={certificate}&ssl_keyfile={gone}", f"ssl_keyfile: cannot read {gone}"),
        (f"ssl_certfile={certificate}", "not a PEM certificate and its unencrypted key"),
        (f"ssl_certfile={certificate}&ssl_keyfile={other}", "KEY_VALUES_MISMATCH"),
    ):
        with pytest.raises(ConfigurationError, match="rediss://h:6379: ") as caught:
            check_files(parse(f"rediss://h?{options}"))
        assert words in str(caught.value)


async def test_a_password_file_that_is_gone_is_trouble_and_no_fault(
    start: Start, join: Join, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = start("--requirepass", "word")
    file = tmp_path / "password"
    file.write_text("word\n")
    node = await join(f"{server.url}?password_file={file}", pace=Pace(every=0.1, gone=60), patience=0.2)
    epoch = node.store.epoch
    file.unlink()
    server.kill()
    server.start()
    with pytest.raises(StoreError, match="no access to Redis") as caught:
        await node.store.commit([a_commit(epoch)])
    assert str(file) in str(caught.value)
    assert str(file) not in caught.value.message
    await until(lambda: "the bus: the password of" in caplog.text)
    file.write_text("word\n")
    await until(lambda: node.store.epoch != epoch)
    assert "Traceback" not in caplog.text
    file.unlink()
    with pytest.raises(ConfigurationError, match="cannot read"):
        await join(f"{server.url}?password_file={file}")


@pytest.mark.parametrize(
    ("answer", "words", "code", "passing"),
    [
        ("OOM command not allowed", "memory limit", "read_only", False),
        ("READONLY You can't write", "read-only replica", "read_only", True),
        ("MISCONF Redis is configured", "cannot save to its disk", "read_only", False),
        ("NOREPLICAS Not enough", "too few replicas", "read_only", False),
        ("LOADING Redis is loading", "still loading", "store_failed", True),
        ("BUSY Redis is busy running a script.", "busy with somebody's script", "store_failed", True),
        ("NOPERM this user", "does not permit it", "store_failed", False),
        (
            "ACL failure in script: User u has no permissions to run",
            "does not permit it",
            "store_failed",
            False,
        ),
        ("WRONGPASS invalid", "the user or the password", "store_failed", False),
        ("ERR what", "Redis: ERR what", "store_failed", False),
    ],
)
def test_what_redis_answers_in_words(answer: str, words: str, code: str, passing: bool) -> None:
    failure = explain(Exception(answer), "redis://h:1")
    assert words in failure.message
    assert (failure.code, str(failure)) == (code, f"redis://h:1: {failure.message}")
    assert transient(Exception(answer)) is passing


def test_hints_are_given_only_where_there_was_never_a_connection() -> None:
    lost = ConnectionResetError(104, "reset")
    for url in ("redis://h", "rediss://h"):
        first, lasting = unreachable(lost, parse(url), 5, new=True)
        later, _ = unreachable(lost, parse(url), 5, new=False)
        assert "perhaps" in first.message
        assert later.message == "Redis cannot be reached: connection reset by peer"
        assert not lasting
    unix, _ = unreachable(lost, parse("unix:///s"), 5, new=True)
    assert unix.message == "Redis cannot be reached: connection reset by peer"


def test_other_trouble_is_said_as_it_is() -> None:
    for exc, words in (
        (ssl.SSLError(1, "[SSL: NO_CIPHERS] none"), "TLS: "),
        (ConnectionResetError("Connection lost"), "the connection was lost"),
        (ValueError("odd"), "odd"),
        (ValueError(), "ValueError"),
        (TimeoutError(), "no answer within 5 s"),
    ):
        failure, _ = unreachable(exc, parse("redis://h"), 5, new=True)
        assert failure.message.startswith(f"Redis cannot be reached: {words}")
