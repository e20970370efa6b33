"""The Redis store when Redis, or the way to it, fails: nothing is done twice, and no loss is silent."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.redis_server import RedisServer, Sentinels, free_port, users
from wsmonitor.protocol.errors import ConfigurationError
from wsmonitor_server.stores.base import Commit, MovedError, StoreError
from wsmonitor_server.stores.bus import (
    Committed,
    Lost,
    NodeGone,
    Regenerated,
    SessionRemoved,
    TokenRevoked,
    WardenChanged,
    Watching,
)
from wsmonitor_server.stores.redis import scripts
from wsmonitor_server.stores.redis.bus import Pace
from wsmonitor_server.stores.redis.store import RedisStore

from .conftest import Join, Start
from .redis_proxy import Proxy
from .test_shared import a_commit, until

COMMIT = scripts.COMMIT.sha.encode()
BEAT = scripts.BEAT.sha.encode()


@pytest.fixture
async def proxy(redis_server: RedisServer) -> AsyncIterator[Proxy]:
    made = await Proxy(redis_server.socket).start()
    yield made
    await made.close()


def through(proxy: Proxy, redis_url: str) -> str:
    """The same store, by way of the proxy."""
    return re.sub(r"^unix://[^?]+", f"unix://{proxy.socket}", redis_url)


# -- lost answers


async def test_a_commit_whose_answer_was_lost_is_made_once(join: Join, proxy: Proxy, redis_url: str) -> None:
    other = await join(redis_url)
    node = await join(through(proxy, redis_url))
    for version in range(3):
        proxy.swallow = COMMIT
        await node.store.commit([a_commit(node.store.epoch, version, version=version)])
        assert proxy.swallowed == version + 1
    await until(lambda: other.versions == [1, 2, 3])
    await until(lambda: node.versions == [1, 2, 3])
    stored = await node.store.load("s~1")
    assert stored is not None
    assert (stored.version, stored.state.seq) == (3, 3)
    assert not node.of(Regenerated)


async def test_what_others_did_meanwhile_does_not_hide_that_it_was_made(
    join: Join, proxy: Proxy, redis_url: str
) -> None:
    other = await join(redis_url)
    node = await join(through(proxy, redis_url))
    epoch = node.store.epoch
    await node.store.commit([a_commit(epoch)])
    proxy.swallow, proxy.then_refuse = COMMIT, True
    committing = asyncio.create_task(node.store.commit([a_commit(epoch, 1, version=1)]))
    await until(lambda: 2 in other.versions)
    await other.store.load("s~1")
    await other.store.commit([a_commit(epoch, 2, version=2)])
    proxy.refuse = False
    await committing
    await until(lambda: node.versions == [1, 2, 3])


async def test_when_nobody_knows_that_is_said(join: Join, proxy: Proxy, redis_url: str) -> None:
    node = await join(through(proxy, redis_url), patience=0.2)
    await node.store.commit([a_commit(node.store.epoch)])
    proxy.swallow, proxy.then_refuse = COMMIT, True
    with pytest.raises(StoreError, match="cannot be reached") as caught:
        await node.store.commit([a_commit(node.store.epoch, 1, version=1)])
    assert not caught.value.outcome_known
    assert not isinstance(caught.value, MovedError)
    proxy.refuse = False
    stored = await node.store.load("s~1")
    assert stored is not None
    assert stored.state.seq == 2


async def test_what_never_reached_redis_is_known_not_to_be_there(
    join: Join, proxy: Proxy, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    node = await join(through(proxy, redis_url), patience=0.2)
    await node.store.commit([a_commit(node.store.epoch)])
    proxy.refuse = True
    proxy.cut()
    # The bus finds out, and from then on no link trusts its connection.
    await until(lambda: "the bus: " in caplog.text)
    with pytest.raises(StoreError, match="cannot be reached") as caught:
        await node.store.commit([a_commit(node.store.epoch, 1, version=1)])
    assert caught.value.outcome_known
    proxy.refuse = False
    await node.store.commit([a_commit(node.store.epoch, 1, version=1)])


async def test_a_redis_that_stands_still_is_not_waited_for_without_end(start: Start, join: Join) -> None:
    server = start()
    node = await join(server.url, patience=0.1, timeout=2.0)
    await node.store.commit([a_commit(node.store.epoch)])
    server.pause()
    with pytest.raises(StoreError, match="no answer within") as caught:
        await node.store.commit([a_commit(node.store.epoch, 1, version=1)])
    assert not caught.value.outcome_known
    sure = node.store.sure()
    server.resume()
    await until(lambda: node.store.sure() > sure)
    # It had read the question, and did it when it went on.
    await until(lambda: node.versions == [1, 2])
    assert not node.of(Lost)


# -- the bus


async def test_after_a_cut_nothing_was_missed(join: Join, proxy: Proxy, redis_url: str) -> None:
    other = await join(redis_url)
    node = await join(through(proxy, redis_url))
    proxy.refuse = True
    proxy.cut()
    for version in range(3):
        await other.store.commit([a_commit(other.store.epoch, version, version=version)])
    proxy.refuse = False
    await until(lambda: node.versions == [1, 2, 3])
    assert not node.of(Lost)
    assert not node.of(Regenerated)


async def test_messages_that_were_cut_off_are_told_as_lost(
    join: Join, proxy: Proxy, redis_server: RedisServer, redis_url: str
) -> None:
    other = await join(redis_url)
    node = await join(through(proxy, redis_url))
    proxy.refuse = True
    proxy.cut()
    epoch = other.store.epoch
    for version in range(3):
        await other.store.commit([a_commit(epoch, version, version=version)])
    prefix = redis_url.partition("prefix=")[2]
    redis_server.say("XTRIM", f"{prefix}bus", "MAXLEN", "1")
    proxy.refuse = False
    await until(lambda: Lost() in node.told)
    await until(lambda: node.versions == [3])
    assert node.told.index(Lost()) < node.told.index(node.of(Committed)[0])
    await node.store.load("s~1")
    assert [one.version for one in await node.store.missed("s~1", 0) or ()] == [1, 2, 3]


async def test_a_large_commit_that_could_not_be_fetched_is_fetched_again(
    join: Join, proxy: Proxy, redis_url: str
) -> None:
    other = await join(redis_url)
    node = await join(through(proxy, redis_url))
    proxy.swallow = b"XRANGE"
    made = a_commit(other.store.epoch, text="x" * 100_000)
    await other.store.commit([made])
    await until(lambda: node.versions == [1])
    assert node.of(Committed)[0].events == (made.events[0][1],)
    assert proxy.swallow is None
    assert not node.of(Lost)


async def test_a_large_commit_that_is_gone_when_it_is_fetched_was_lost(
    join: Join, proxy: Proxy, redis_url: str
) -> None:
    other = await join(redis_url)
    node = await join(through(proxy, redis_url))
    proxy.refuse = True
    proxy.cut()
    await other.store.commit([a_commit(other.store.epoch, text="x" * 100_000)])
    await other.store.remove("s~1", at=1)
    proxy.refuse = False
    await until(lambda: len(node.of(SessionRemoved)) == 1)
    assert node.of(Lost) == [Lost()]


async def test_a_bus_that_somebody_has_deleted_goes_on(
    join: Join, redis_server: RedisServer, redis_url: str
) -> None:
    node = await join(redis_url)
    for version in range(3):
        await node.store.commit([a_commit(node.store.epoch, version, version=version)])
    await until(lambda: node.versions == [1, 2, 3])
    prefix = redis_url.partition("prefix=")[2]
    redis_server.say("DEL", f"{prefix}bus", f"{prefix}bus:n")
    await until(lambda: Lost() in node.told)
    await node.store.commit([a_commit(node.store.epoch, 3, version=3)])
    await until(lambda: node.versions == [1, 2, 3, 4])


async def test_a_damaged_message_is_one_that_was_lost(
    join: Join, redis_server: RedisServer, redis_url: str
) -> None:
    node = await join(redis_url)
    await node.store.commit([a_commit(node.store.epoch)])
    await until(lambda: node.versions == [1])
    prefix = redis_url.partition("prefix=")[2]
    number = redis_server.say("INCR", f"{prefix}bus:n").strip(":\r\n")
    redis_server.say("XADD", f"{prefix}bus", f"{number}-0", "k", "nonsense")
    await until(lambda: Lost() in node.told)
    await node.store.commit([a_commit(node.store.epoch, 1, version=1)])
    await until(lambda: node.versions == [1, 2])


async def test_a_listener_s_fault_does_not_end_the_bus(
    join: Join, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    node = await join(redis_url)
    told: list[int] = []

    def faulty(message: object) -> None:
        if isinstance(message, Committed):
            told.append(message.version)
            raise RuntimeError("a fault of the listener's")

    node.store.listen(faulty)
    for version in range(2):
        await node.store.commit([a_commit(node.store.epoch, version, version=version)])
    await until(lambda: told == [1, 2])
    assert "a fault of the listener's" in caplog.text


async def test_a_node_that_falls_silent_is_gone_and_comes_back_with_who_watches(
    join: Join, proxy: Proxy, redis_url: str
) -> None:
    pace = Pace(every=0.05, gone=1.0)
    node = await join(through(proxy, redis_url), pace=pace)
    await until(lambda: node.of(WardenChanged)[-1:] == [WardenChanged(True)])
    other = await join(redis_url, pace=pace)
    people = (("1", "Ann"),)
    await node.store.tell_watching("s~1", people)
    await until(lambda: Watching("s~1", node.store.node, people) in other.told)
    proxy.refuse = True
    proxy.cut()
    await until(lambda: NodeGone(node.store.node) in other.told)
    await until(lambda: other.of(WardenChanged)[-1:] == [WardenChanged(True)])
    # The one that was cut off gives its office up by itself.
    await until(lambda: node.of(WardenChanged)[-1] == WardenChanged(False))
    assert await other.store.watching("s~1") == {}
    assert node.store.node not in await other.store.nodes()
    await node.store.tell_watching("t~1", people)
    proxy.refuse = False
    for session in ("s~1", "t~1"):
        told = Watching(session, node.store.node, people)
        await until(lambda told=told: told in other.told[other.told.index(NodeGone(node.store.node)) :])


# -- another Redis, or one that has lost something


@pytest.mark.parametrize("kept", [True, False])
async def test_a_redis_that_was_killed_begins_a_new_epoch(start: Start, join: Join, kept: bool) -> None:
    server = start(*(("--appendonly", "yes", "--appendfsync", "always") if kept else ()))
    one, two = await join(server.url), await join(server.url)
    epoch = one.store.epoch
    await one.store.commit([a_commit(epoch, 0, 3)])
    await two.store.load("s~1")
    server.kill()
    server.start()
    for node in (one, two):
        await until(lambda node=node: len(node.of(Regenerated)) == 1)
    assert one.store.epoch == two.store.epoch != epoch
    assert one.of(Regenerated) == two.of(Regenerated) == [Regenerated(one.store.epoch)]
    with pytest.raises(MovedError):
        await one.store.commit([a_commit(epoch, 3, version=1)])
    loaded = [await node.store.load("s~1") for node in (one, two)]
    if not kept:
        assert loaded == [None, None]
        return
    first, second = loaded
    assert first is not None
    assert second is not None
    # All agree on the session's new epoch; nothing of the history of the old one is in it.
    assert first.state.epoch == second.state.epoch != epoch
    assert (first.state.seq, first.history, first.version) == (3, [], 2)
    assert first.state.digest == second.state.digest
    await until(lambda: two.versions[-1:] == [2])
    await two.store.commit([a_commit(second.state.epoch, 3, version=2)])
    await until(lambda: one.versions[-1:] == [3])


async def test_what_was_revoked_does_not_come_back_with_a_redis_that_forgot_it(
    start: Start, join: Join
) -> None:
    server = start()
    one = await join(server.url)
    await one.store.revoke("before", 7)
    two = await join(server.url)
    assert await two.store.revoked() == {"before": 7}
    await one.store.revoke("now", 8)
    await one.store.revoke("old", 1)
    await until(lambda: len(two.of(TokenRevoked)) == 2)
    for node in (one, two):
        await node.store.forget_revocations(before=5)
    server.kill()
    server.start()
    await until(lambda: len(two.of(Regenerated)) == 1)
    told = {TokenRevoked("before", 7), TokenRevoked("now", 8)}
    await until(lambda: told <= set(two.of(TokenRevoked)[2:]))
    assert await two.store.revoked() == {"before": 7, "now": 8}


async def test_a_commit_that_met_the_kill_is_made_once_or_not_at_all(start: Start, join: Join) -> None:
    server = start("--appendonly", "yes", "--appendfsync", "always")
    node = await join(server.url)
    epoch = node.store.epoch
    await node.store.commit([a_commit(epoch)])
    server.pause()
    committing = asyncio.create_task(node.store.commit([a_commit(epoch, 1, version=1)]))
    await asyncio.sleep(0)
    server.kill()
    server.start()
    try:
        await committing
    except MovedError:
        made = False
    else:
        made = True
    stored = await node.store.load("s~1")
    assert stored is not None
    assert (stored.state.seq == 2) == made
    assert stored.state.epoch != epoch


async def test_a_session_from_before_a_loss_is_not_confused_with_what_came_after(
    start: Start, join: Join
) -> None:
    server = start("--appendonly", "no")
    one, two = await join(server.url), await join(server.url)
    epoch = one.store.epoch
    await one.store.commit([a_commit(epoch)])
    server.say("SAVE")
    await one.store.commit([a_commit(epoch, 1, version=1)])
    server.kill()
    server.start()
    for node in (one, two):
        await until(lambda node=node: len(node.of(Regenerated)) == 1)
    stored = await two.store.load("s~1")
    assert stored is not None
    # Version 2 again, after the loss of the first one.
    assert (stored.version, stored.state.seq) == (2, 1)
    with pytest.raises(MovedError):
        await one.store.commit([a_commit(epoch, 2, version=2)])


async def test_a_store_that_was_flushed_is_a_new_one(start: Start, join: Join) -> None:
    server = start()
    one, two = await join(server.url), await join(server.url)
    epoch = one.store.epoch
    await one.store.commit([a_commit(epoch)])
    server.say("FLUSHALL")
    for node in (one, two):
        await until(lambda node=node: len(node.of(Regenerated)) == 1)
    assert one.store.epoch == two.store.epoch != epoch
    assert await one.store.load("s~1") is None
    await one.store.commit([a_commit(one.store.epoch)])
    await until(lambda: two.versions[-1:] == [1])


async def test_scripts_that_were_flushed_are_loaded_again(start: Start, join: Join) -> None:
    server = start()
    node = await join(server.url)
    for version in range(3):
        await node.store.commit([a_commit(node.store.epoch, version, version=version)])
        server.say("SCRIPT", "FLUSH")
    await until(lambda: node.versions == [1, 2, 3])
    assert not node.of(Regenerated)


async def test_a_replica_takes_over(start: Start, join: Join, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "wsmonitor_server.stores.redis")
    port = free_port()
    primary = start("--repl-diskless-sync-delay", "0", port=port)
    replica = start("--replicaof", "127.0.0.1", str(port))
    await until(lambda: "master_link_status:up" in replica.say("INFO", "replication"))
    node = await join(primary.url, patience=0.5)
    epoch = node.store.epoch
    await node.store.commit([a_commit(epoch)])
    await until(lambda: replica.say("EXISTS", "wsm:s:s~1:h").startswith(":1"))
    with pytest.raises(ConfigurationError, match="read-only replica: give its primary's address"):
        await join(replica.url)
    primary.kill()
    # The address leads to the other one now, as a proxy or a name would have it.
    primary.socket.unlink(missing_ok=True)
    primary.socket.symlink_to(replica.socket)
    await until(lambda: "read-only replica" in caplog.text)
    with pytest.raises(StoreError, match="read-only replica") as caught:
        await node.store.commit([a_commit(epoch, 1, version=1)])
    assert (caught.value.code, caught.value.outcome_known) == ("read_only", True)
    replica.say("REPLICAOF", "NO", "ONE")
    await until(lambda: len(node.of(Regenerated)) == 1)
    stored = await node.store.load("s~1")
    assert stored is not None
    assert stored.state.epoch != epoch
    await node.store.commit([a_commit(stored.state.epoch, 1, version=stored.version)])


@pytest.fixture
def watched(start: Start, tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer, Sentinels]]:
    """A primary, its replica, and three Sentinels over them."""
    primary = start("--repl-diskless-sync-delay", "0", port=free_port())
    replica = start("--replicaof", "127.0.0.1", str(primary.port), port=free_port())
    sentinels = Sentinels(tmp_path / "sentinels", primary, replica)
    try:
        yield primary, replica, sentinels.start()
    finally:
        sentinels.close()


async def test_sentinels_say_where_the_primary_is_also_after_a_failover(
    watched: tuple[RedisServer, RedisServer, Sentinels], join: Join
) -> None:
    primary, replica, sentinels = watched
    node, other = await join(sentinels.url), await join(primary.url)
    epoch = node.store.epoch
    await node.store.commit([a_commit(epoch)])
    await until(lambda: other.versions == [1])
    await until(lambda: replica.say("EXISTS", "wsm:s:s~1:h").startswith(":1"))
    primary.kill()
    await until(lambda: bool(node.of(Regenerated)))
    stored = await node.store.load("s~1")
    assert stored is not None
    assert stored.state.epoch != epoch
    await node.store.commit([a_commit(stored.state.epoch, 1, version=stored.version)])
    assert replica.say("EXISTS", "wsm:s:s~1:h").startswith(":1")
    late = await join(sentinels.url)
    assert late.store.epoch == node.store.epoch


async def test_of_sentinels_who_know_nothing_each_is_told(
    watched: tuple[RedisServer, RedisServer, Sentinels], join: Join
) -> None:
    _, _, sentinels = watched
    words = "no Sentinel names a primary 'other'.*knows none"
    with pytest.raises(ConfigurationError, match=words) as caught:
        await join(sentinels.url.replace("/main", "/other"), patience=0.1)
    assert all(str(port) in str(caught.value) for port in sentinels.ports)
    nobody = f"redis+sentinel://127.0.0.1:{free_port()}/main"
    with pytest.raises(ConfigurationError, match=r"cannot be asked .*Connect"):
        await join(nobody, patience=0.1)
    # One that answers is enough.
    await join(sentinels.url.replace("//", f"//127.0.0.1:{free_port()},"))


async def test_a_primary_that_is_made_a_replica_and_primary_again_is_another(
    start: Start, join: Join
) -> None:
    port = free_port()
    server, other = start(), start("--repl-diskless-sync-delay", "0", port=port)
    node = await join(server.url)
    server.say("REPLICAOF", "127.0.0.1", str(port))
    await until(lambda: "master_link_status:up" in server.say("INFO", "replication"))
    server.say("REPLICAOF", "NO", "ONE")
    other.kill()
    await until(lambda: len(node.of(Regenerated)) == 1)


async def test_a_session_whose_head_somebody_has_deleted_can_be_removed(start: Start, join: Join) -> None:
    server = start()
    one, two = await join(server.url), await join(server.url)
    await one.store.commit([a_commit(one.store.epoch)])
    server.say("DEL", "wsm:s:s~1:h")
    assert await one.store.load("s~1") is None
    await one.store.remove("s~1", at=1)
    await until(lambda: bool(two.of(SessionRemoved)))
    assert await two.store.tombstone("s~1") == 1
    assert "s~1" not in server.say("KEYS", "*")


# -- what a server knows of the others


async def test_who_is_alive_is_counted_also_before_anything_is_published(redis_url: str, join: Join) -> None:
    nodes = [await join(redis_url, pace=Pace(every=0.05, gone=60)) for _ in range(3)]
    for node in nodes:
        await until(lambda node=node: node.store.measures()["nodes"] == 3)
    await nodes.pop().store.close()
    for node in nodes:
        await until(lambda node=node: node.store.measures()["nodes"] == 2)


@pytest.mark.parametrize(("off", "words"), [(180.0, "ahead of Redis'"), (-180.0, "behind Redis'")])
async def test_a_clock_that_is_out_of_step_is_told(
    redis_url: str, caplog: pytest.LogCaptureFixture, off: float, words: str
) -> None:
    caplog.set_level("INFO")
    offset = [off]
    store = RedisStore(redis_url, pace=Pace(every=0.05), wall=lambda: time.time() + offset[0])
    await store.open()
    try:
        ahead = store.measures()["clock_ahead_seconds"]
        # As far as it can be told, however long the answer took: never more than it is.
        assert isinstance(ahead, float)
        assert 0 < ahead / off <= 1.001
        assert re.search(rf"this machine's clock is \d+\.\d s {words}: it dates what", caplog.text)
        offset[0] = 0.0
        await until(lambda: "in step with Redis' again" in caplog.text)
        assert abs(store.measures()["clock_ahead_seconds"]) < 2  # type: ignore[arg-type]  # a gauge is a number
        assert caplog.text.count("this machine's clock") == 2
    finally:
        await store.close()


async def test_servers_that_verify_tokens_with_other_keys_say_so(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    marks = {"one": "a", "two": "b", "three": ""}
    pace = Pace(every=0.05, gone=60)
    stores = {
        name: RedisStore(redis_url, pace=pace, mark=lambda name=name: marks[name])  # type: ignore[misc]  # bound now
        for name in marks
    }
    try:
        for store in stores.values():
            await store.open()

        def differ(*names: str) -> Callable[[], bool]:
            return lambda: {one for one in marks if stores[one].measures()["keys_differ"]} == set(names)

        # Both say so; one that has nothing to compare is nobody's trouble.
        await until(differ("one", "two"))
        for name, other in (("one", "two"), ("two", "one")):
            assert (
                f"server {stores[other].node} on this store verifies tokens with another key" in caplog.text
            ), name
        marks["two"] = "a"
        await until(differ())
        assert caplog.text.count("the same again") == 2
        marks["one"] = "c"
        await until(differ("one", "two"))
        await stores["two"].close()
        await until(lambda: not stores["one"].measures()["keys_differ"])
    finally:
        for store in stores.values():
            await store.close()


# -- what Redis refuses


async def test_no_memory_is_told_and_nothing_was_done(start: Start, join: Join) -> None:
    server = start()
    node = await join(server.url)
    epoch = node.store.epoch
    await node.store.commit([a_commit(epoch)])
    await node.store.check(room=1 << 20)
    server.say("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreError, match="memory limit") as caught:
        await node.store.commit([a_commit(epoch, session="t~1"), a_commit(epoch, 1, version=1)])
    assert (caught.value.code, caught.value.outcome_known) == ("read_only", True)
    with pytest.raises(StoreError, match="memory limit"):
        await node.store.check(room=1 << 20)
    with pytest.raises(StoreError, match="memory limit"):
        await node.store.check()
    stored = await node.store.load("s~1")
    assert stored is not None
    assert stored.state.seq == 1
    server.say("CONFIG", "SET", "maxmemory", "0")
    assert await node.store.load("t~1") is None
    await node.store.commit([a_commit(epoch, session="t~1"), a_commit(epoch, 1, version=1)])


async def test_without_memory_the_servers_go_on_hearing_each_other(start: Start, join: Join) -> None:
    server = start()
    one = await join(server.url, pace=Pace(every=0.1, gone=60))
    await one.store.commit([a_commit(one.store.epoch)])
    server.say("CONFIG", "SET", "maxmemory", "1")
    sure = one.store.sure()
    await until(lambda: one.store.sure() > sure)
    # A server that starts then serves what is there; what frees memory, and what must not wait, is done.
    two = await join(server.url, pace=Pace(every=0.1, gone=60))
    assert two.store.epoch == one.store.epoch
    await two.store.revoke("jti", 2**40)
    await two.store.tell_watching("s~1", (("ada", "Ada"),))
    await two.store.remove("s~1", at=1)
    for kind in (TokenRevoked, Watching, SessionRemoved):
        await until(lambda kind=kind: one.of(kind))
    await two.store.close()
    await until(lambda: one.of(NodeGone))
    assert await one.store.load("s~1") is None
    with pytest.raises(StoreError, match="memory limit"):
        await one.store.check()


async def test_a_policy_that_would_throw_sessions_away_is_noticed_later_too(start: Start, join: Join) -> None:
    server = start()
    node = await join(server.url)
    epoch = node.store.epoch
    await node.store.check()
    server.say("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
    with pytest.raises(StoreError, match=r"maxmemory-policy is allkeys-lfu: .* set it to noeviction"):
        await node.store.check()
    with pytest.raises(StoreError, match="allkeys-lfu") as caught:
        await node.store.commit([a_commit(epoch)])
    assert caught.value.outcome_known
    server.say("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await node.store.check()
    await node.store.commit([a_commit(epoch)])
    assert node.store.epoch == epoch


async def test_room_is_looked_for_and_not_only_a_write(start: Start, join: Join) -> None:
    server = start("--maxmemory", "64mb")
    node = await join(server.url)
    await node.store.check(room=1 << 20)
    await node.store.check()
    with pytest.raises(StoreError, match="memory limit"):
        await node.store.check(room=1 << 30)


async def test_a_store_of_a_later_version_is_left_alone(
    join: Join, redis_server: RedisServer, redis_url: str
) -> None:
    await join(redis_url)
    prefix = redis_url.partition("prefix=")[2]
    redis_server.say("HSET", f"{prefix}meta", "schema", "2")
    with pytest.raises(ConfigurationError, match=r"newer wsmonitor .schema 2; this one knows up to 1"):
        await join(redis_url)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("--cluster-enabled", "yes"), "Redis Cluster, which is not supported"),
        (("--maxmemory-policy", "allkeys-lru"), "set it to noeviction"),
        (("--requirepass", "right"), "refuses the user or the password"),
    ],
)
async def test_what_is_not_fit_is_refused_at_the_start(
    start: Start, join: Join, settings: tuple[str, ...], words: str
) -> None:
    server = start(*settings)
    with pytest.raises(ConfigurationError, match=words) as caught:
        await join(server.url.replace("unix://", "unix://:wrong@") if "right" in settings else server.url)
    assert str(server.socket) in str(caught.value)
    assert "wrong" not in str(caught.value)


async def test_a_missing_password_is_told(start: Start, join: Join) -> None:
    with pytest.raises(ConfigurationError, match=r"refuses the user or the password .*required"):
        await join(start("--requirepass", "right").url)


async def test_the_right_password_a_user_and_a_database(start: Start, join: Join, tmp_path: Path) -> None:
    server = start()
    server.say("ACL", "SETUSER", "wsm", "on", ">pa~ss", "~wsm:*", "+@all", "-@dangerous", "+info")
    server.say("ACL", "SETUSER", "default", "off")
    (tmp_path / "password").write_text("pa~ss\n")
    urls = [
        server.url.replace("unix://", "unix://wsm:pa%7Ess@") + "?db=3",
        server.url.replace("unix://", "unix://wsm@") + f"?db=3&password_file={tmp_path / 'password'}",
    ]
    one, two = [await join(url) for url in urls]
    await one.store.commit([a_commit(one.store.epoch)])
    await until(lambda: two.versions == [1])


async def test_who_waits_behind_others_for_a_redis_that_is_gone_does_not_wait_twice(
    start: Start, join: Join
) -> None:
    server = start()
    node = await join(server.url, patience=0.1, timeout=2.0)
    await node.store.commit([a_commit(node.store.epoch)])
    server.pause()
    asked = [asyncio.create_task(node.store.tombstone(f"s~{number}")) for number in range(100)]
    # One after the other they would take a minute.
    done, waiting = await asyncio.wait(asked, timeout=30)
    assert not waiting
    for one in done:
        with pytest.raises(StoreError, match="cannot be reached"):
            one.result()
    server.resume()
    assert await node.store.tombstone("s~1") is None


async def test_where_there_is_none_it_says_so(join: Join, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be reached"):
        await join(f"unix://{tmp_path / 'nobody'}", patience=0.1)


@pytest.mark.parametrize("url", ["redis://localhost:1", "redis+sentinel://localhost:1/primary"])
async def test_without_redis_py_it_says_how_to_get_it(
    join: Join, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in {"redis", "redis.asyncio", *(one for one in sys.modules if one.startswith("redis."))}:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigurationError, match=r"pip install 'wsmonitor\[redis\]'"):
        await join(url)


async def test_a_permission_that_is_lacking_is_named(start: Start, join: Join) -> None:
    server = start()
    server.say("ACL", "SETUSER", "default", "-hset")
    with pytest.raises(ConfigurationError, match="does not permit it"):
        await join(server.url)


# -- cost, and large sessions


async def test_a_group_is_one_round_trip(join: Join, proxy: Proxy, redis_url: str) -> None:
    node = await join(through(proxy, redis_url), pace=Pace(every=3600))
    epoch = node.store.epoch
    await node.store.commit([Commit("warm~1", epoch, 0)])
    proxy.requests.clear()
    await node.store.commit([a_commit(epoch, session=f"s~{number}") for number in range(5)])
    asked = [request for request in proxy.requests if b"XREAD" not in request]
    assert len(asked) == 1
    assert asked[0].count(b"EVALSHA") == 1


async def test_a_large_session_is_read_in_parts_while_it_changes(join: Join, redis_url: str) -> None:
    one, two = await join(redis_url), await join(redis_url)
    epoch = one.store.epoch
    made = a_commit(epoch, 0, 5_000)
    entities = dict(made.entities)
    await one.store.commit([made])
    loading = asyncio.create_task(two.store.load("s~1"))
    head, version = 5_000, 1
    while not loading.done():
        made = a_commit(epoch, head, 3, version=version, first_kept=max(1, head - 1000))
        await one.store.commit([made])
        entities |= made.entities
        head, version = head + 3, version + 1
    stored = await loading
    assert stored is not None
    assert 1 <= stored.version <= version
    assert len(stored.state) == 1 + stored.state.seq - stored.version
    last = await two.store.load("s~1")
    assert last is not None
    assert (last.version, last.state.seq) == (version, head)
    assert last.history[-1][0] == head
    assert last.history[0][0] >= head - 3 - 1000
    assert [seq for seq, _ in last.history] == list(range(last.history[0][0], head + 1))
    assert last.size == sum(map(len, entities.values()))


async def test_with_the_users_of_the_guide_nothing_is_lost_when_redis_starts_again(
    start: Start, join: Join, tmp_path: Path
) -> None:
    # From the append-only file many versions replay transactions, which scripts are, with the permissions of
    # the default user; what those do not allow is passed over (redis/redis#14541, valkey-io/valkey#3983).
    (tmp_path / "users.acl").write_text(users("word"))
    server = start("--appendonly", "yes", "--aclfile", str(tmp_path / "users.acl"))
    assert "NOAUTH" in server.say("GET", "wsm:meta")
    url = server.url.replace("unix://", "unix://wsmonitor:word@")
    node = await join(url)
    await node.store.commit([a_commit(node.store.epoch)])
    await node.store.close()
    server.stop()
    server.start()
    again = await join(url)
    stored = await again.store.load("s~1")
    assert stored is not None
    assert stored.state.seq == 1


async def test_a_damaged_session_is_told_and_not_taken(
    join: Join, redis_server: RedisServer, redis_url: str
) -> None:
    node = await join(redis_url)
    prefix = redis_url.partition("prefix=")[2]
    for session in ("a", "b", "c"):
        await node.store.commit([a_commit(node.store.epoch, 0, 2, session=session)])
    redis_server.say("HSET", f"{prefix}s:a:e", "chain:c2", "{")
    redis_server.say("HSET", f"{prefix}s:b:h", "digest", "0" * 32)
    redis_server.say("HSET", f"{prefix}s:c:e", "riddle:1", "{}")
    for session, why in (("a", "chain"), ("b", "digest"), ("c", "riddle")):
        with pytest.raises(StoreError, match=f"damaged.*{why}"):
            await node.store.load(session)
