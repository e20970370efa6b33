"""discovery: the file's name, the proof, and that the secret is not shown."""

from __future__ import annotations

import hashlib
import hmac

import msgspec

from wsmonitor.protocol import discovery


def _discovery() -> discovery.Discovery:
    return discovery.Discovery(
        url="ws://127.0.0.1:9",
        instance="i",
        version="0.1.0",
        major=1,
        minor=0,
        pid=7,
        boot_id="b",
        started="1",
        process_started=1.5,
        store="memory",
        data_dir="/d",
        log="/d/server.log",
        key_file="/d/key",
        secret="very-secret",
    )


def test_the_file_survives_a_round_trip() -> None:
    written = msgspec.json.encode(_discovery())
    assert msgspec.json.decode(written, type=discovery.Discovery) == _discovery()


def test_the_secret_is_not_in_the_repr() -> None:
    assert "very-secret" not in repr(_discovery())
    assert "ws://127.0.0.1:9" in repr(_discovery())


def test_the_name_holds_host_and_version_and_nothing_unsafe() -> None:
    assert discovery.file_name("node-7.example", 1) == "wsmonitor-v1-node-7.example.json"
    assert discovery.file_name("a/b c", 2) == "wsmonitor-v2-a_b_c.json"


def test_the_proof_is_bound_to_secret_nonce_and_address() -> None:
    text = b"wsmonitor-challenge|00ff|127.0.0.1:9"
    expected = hmac.new(b"s", text, hashlib.sha256).hexdigest()
    assert discovery.proof("s", "00ff", "127.0.0.1", 9) == expected
    assert discovery.proof_agrees(expected, discovery.proof("s", "00ff", "127.0.0.1", 9))
    for other in (
        discovery.proof("t", "00ff", "127.0.0.1", 9),
        discovery.proof("s", "00fe", "127.0.0.1", 9),
        discovery.proof("s", "00ff", "127.0.0.1", 10),
        "",
        "ä",
    ):
        assert not discovery.proof_agrees(expected, other)
