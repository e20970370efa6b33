"""What a real server tells of itself at ``/metrics``: everything of the catalogue, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.messages import Ack, Error, Event, Rejected
from wsmonitor_server import lag
from wsmonitor_server.embedded import EmbeddedServer
from wsmonitor_server.figures import METRICS

from .raw import get
from .test_draining import until
from .test_real_engine import Publisher, chain
from .wire import client


async def figures(server: EmbeddedServer) -> dict[str, Any]:
    """Families by name, each a dict of samples: by their labels' values, of histograms by suffix."""
    status, headers, body = await get(server, "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    found: dict[str, Any] = {}
    for family in text_string_to_metric_families(body.decode()):
        full = family.name + ("_total" if family.type == "counter" else "")
        assert full not in found
        found[full] = {
            (tuple(one.labels.values()) or one.name.removeprefix(family.name)): one.value
            for one in family.samples
        }
    return found


def one(found: dict[str, Any], name: str) -> float:
    """A figure without labels."""
    [value] = found[f"wsmonitor_{name}"].values()
    return float(value)


async def test_everything_of_the_catalogue_and_nothing_else() -> None:
    async with EmbeddedServer(metrics=True) as server:
        found = await figures(server)
    assert set(found) == {metric.full_name for metric in METRICS.values() if not metric.shared}


async def test_of_several_servers_there_is_more(redis_url: str) -> None:
    async with EmbeddedServer(metrics=True, store=redis_url) as server:
        found = await figures(server)
        assert set(found) == {metric.full_name for metric in METRICS.values()}
        assert (one(found, "node_sure"), one(found, "nodes"), one(found, "epochs_total")) == (1, 1, 0)
        connects = found["wsmonitor_redis_connects_total"]
        assert set(connects) == {("commit",), ("read",), ("bus",)}
        assert max(connects.values()) == 1


async def test_what_is_published_and_watched_is_counted() -> None:
    async with (
        EmbeddedServer(metrics=True) as server,
        client(server, sub="p") as publishing,
        client(server, sub="o") as observing,
        client(server, sub="q") as second,
    ):
        publisher = Publisher(publishing, "s~1")
        await publisher.open()
        await publisher.publish({"op": "session", "name": "s", "state": "running"})
        for watching in (observing, second):
            await watching.subscribe("s~1")
        before = await figures(server)
        await publisher.publish(chain("c"))
        for watching in (observing, second):
            assert (await watching.expect(Event)).kind == "chain"
        await publishing.send(
            "publish",
            session="s~1",
            producer="p",
            producer_epoch=1,
            first=3,
            changes=[{"op": "chain", "id": "d"}],
        )
        await publishing.expect(Rejected)
        await publishing.expect(Ack)
        await observing.send("remove", request=1, session="none~1")
        await observing.expect(Error)
        after = await figures(server)

    def grown(name: str) -> float:
        return one(after, name) - one(before, name)

    assert grown("events_total") == 1
    assert grown("deliveries_total") == 2
    assert grown("rejected_total") == 1
    assert grown("commits_total") == 2
    assert after["wsmonitor_commit_seconds"]["_count"] == one(after, "commits_total")
    assert one(after, "subscriptions") == 2
    assert one(after, "publications") == 1
    assert one(after, "syncs_total") == 2
    assert after["wsmonitor_errors_total"] == {("bad_message",): 1, ("not_available",): 1}
    assert grown("messages_in_total") >= 3
    assert grown("received_bytes_total") > 100
    assert grown("sent_bytes_total") > grown("frames_out_total") > 3


async def test_ends_of_connections_are_counted_by_their_code() -> None:
    """What a client makes up makes no line of its own."""
    async with EmbeddedServer(metrics=True, limits=Limits(message_burst=3, message_rate=0.001)) as server:
        for code in (1000, 3999, 4321):
            async with client(server) as some:
                await some.socket.close(code)
        async with client(server) as flood:
            for number in range(3):
                await flood.send("status", request=number)
            assert await flood.closed() == 4006
        await until(lambda: not server.server.peers)
        found = await figures(server)
        assert found["wsmonitor_closed_total"] == {("1000",): 1, ("other",): 2, ("4006",): 1}


async def test_the_lag_of_the_loop_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "EVERY", 0.001)
    async with EmbeddedServer(metrics=True) as server:
        await until(lambda: server.server.lag.seconds.count >= 3)
        assert server.server.lag.last >= 0
        found = await figures(server)
        assert found["wsmonitor_event_loop_lag_seconds"]["_count"] >= 3
