"""Which Redis sessions may live on, by what it says of itself."""

from __future__ import annotations

import pytest

from wsmonitor_server.stores.redis.instance import Instance, UnfitError, facts, judge

INFO = (
    b"# Server\r\nredis_version:7.2.4\r\nrun_id:aa\r\n\r\n"
    b"# Replication\r\nrole:master\r\nmaster_replid:bb\r\n"
    b"# Cluster\r\ncluster_enabled:0\r\nmaxmemory_policy:noeviction\r\nloading:0\r\naof_enabled:1\r\n"
    b"executable:/usr/bin:odd\r\n"
)


def test_what_info_says() -> None:
    said = facts(INFO)
    assert said["executable"] == "/usr/bin:odd"
    assert "# Server" not in said


def test_a_redis_that_is_fit() -> None:
    found = judge(facts(INFO), "here")
    assert found == Instance("aa", "bb", "Redis 7.2.4", ())
    assert found.same(Instance("aa", "bb", "another word"))
    assert not found.same(Instance("aa", "cc"))
    assert not found.same(Instance("cc", "bb"))


def test_a_valkey_is_called_so() -> None:
    assert judge(facts(INFO) | {"valkey_version": "8.0.1"}, "here").version == "Valkey 8.0.1"


def test_one_that_saves_nothing_is_taken_with_advice() -> None:
    [advice] = judge(facts(INFO) | {"aof_enabled": "0"}, "here").advice
    assert "appendonly is off" in advice


@pytest.mark.parametrize(
    ("said", "words", "lasting", "code"),
    [
        ({"cluster_enabled": "1"}, "Redis Cluster, which is not supported", True, "store_failed"),
        ({"redis_version": "6.2.14"}, "Redis 6.2.14 is too old: 7.0 or later", True, "store_failed"),
        ({"redis_version": ""}, "too old", True, "store_failed"),
        ({"maxmemory_policy": "allkeys-lru"}, "set it to noeviction", True, "store_failed"),
        ({"loading": "1"}, "still loading", False, "store_failed"),
        ({"role": "slave"}, "read-only replica", False, "read_only"),
    ],
)
def test_what_is_not_fit_and_whether_waiting_helps(
    said: dict[str, str], words: str, lasting: bool, code: str
) -> None:
    with pytest.raises(UnfitError, match=words) as caught:
        judge(facts(INFO) | said, "redis://h:1")
    assert (caught.value.lasting, caught.value.code) == (lasting, code)
    assert str(caught.value).startswith("redis://h:1: ")


def test_keys_with_a_time_to_live_may_be_evicted() -> None:
    # Of ours only the warden's lease has one.
    assert judge(facts(INFO) | {"maxmemory_policy": "volatile-lru"}, "here").run_id == "aa"
