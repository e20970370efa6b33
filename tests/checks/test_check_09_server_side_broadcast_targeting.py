"""Check 9, Server-Side Broadcast Targeting (HIGH).

"Server broadcasts events only to clients subscribed to affected SessionId. Broadcast uses correct
WebSocket message format. Event payload includes all necessary state data. No events lost due to
broadcast failures."
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import jsonschema

from tests.checks.harness import Wire, proxy, scene, until, wire
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import Progress
from wsmonitor.protocol.reducer import SessionState, decode_entity

DOCUMENT: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[2] / "docs" / "asyncapi.json").read_text(encoding="utf-8")
)


def _valid(message: dict[str, Any], schema: str) -> None:
    jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{schema}", "components": DOCUMENT["components"]}
    ).validate(message)


async def _events(bare: Wire, upto: int) -> list[dict[str, Any]]:
    """The live events that come, until the one with seq *upto*."""
    events = []
    while not events or events[-1]["seq"] < upto:
        events.append(await bare.expect("event"))
    return events


async def test_events_are_broadcast_only_to_subscribers_of_the_affected_session() -> None:
    """ "Server broadcasts events only to clients subscribed to affected SessionId." """
    async with scene() as stage, AsyncExitStack() as stack:
        publishers = [await stage.publish(f"job~{number}") for number in range(5)]
        wires = []
        for number in range(5):
            bare = await stack.enter_async_context(wire(stage.server.url, stage.token(f"user {number}")))
            await bare.subscribe(f"job~{number}")
            wires.append(bare)
        idle = await stack.enter_async_context(wire(stage.server.url, stage.token("idle")))
        for number, publisher in enumerate(publishers):
            publisher.step(f"step of {number}")
            await publisher.flush()
        for number, bare in enumerate(wires):
            await _events(bare, stage.head(f"job~{number}")[1])
        for bare in (*wires, idle):
            await bare.send({"type": "status_get", "request": 1})
            await bare.expect("status")
        for number, bare in enumerate(wires):
            topics = {json.loads(text).get("topic") for text in bare.seen}
            assert topics - {None} == {f"job~{number}"}
            others = [f"step of {other}" for other in range(5) if other != number]
            assert not [text for text in bare.seen if any(other in text for other in others)]
        assert {json.loads(text)["type"] for text in idle.seen} <= {"welcome", "heartbeat", "status"}


async def test_broadcast_uses_the_documented_message_format() -> None:
    """ "Broadcast uses correct WebSocket message format.": text, JSON, and as the published schemas say."""
    async with scene() as stage, wire(stage.server.url, stage.token("alice")) as bare:
        publisher = await stage.publish("job~1")
        await bare.subscribe("job~1")
        publisher.step("s1", state="running", progress=Progress(done=1, total=2), metrics={"loss": 0.5})
        publisher.step("s1", state="succeeded")
        await publisher.flush()
        await _events(bare, stage.head("job~1")[1])
        schemas = {
            name: message["payload"]["$ref"].rsplit("/", 1)[1]
            for name, message in DOCUMENT["components"]["messages"].items()
        }
        kinds = set()
        for text in bare.seen:
            message = json.loads(text)
            kinds.add(message["type"])
            _valid(message, schemas[message["type"]])
        assert kinds >= {"welcome", "sync_begin", "sync_page", "synced", "event"}


async def test_the_payload_includes_all_necessary_state_data() -> None:
    """ "Event payload includes all necessary state data.": from the events alone the state can be rebuilt."""
    async with scene() as stage, wire(stage.server.url, stage.token("alice")) as bare:
        begin = await bare.subscribe("job~1")
        assert begin["seq"] == 0
        publisher = await stage.publish("job~1")
        for number in range(10):
            publisher.step(f"s{number}", state="running", attributes={"n": number})
            publisher.step(f"s{number}", progress=Progress(done=number))
        await publisher.flush()
        epoch, head, digest = stage.head("job~1")
        rebuilt = SessionState("job~1", epoch)
        for event in await _events(bare, head):
            assert {"topic", "epoch", "seq", "ts", "kind", "entity"} <= set(event)
            schema = DOCUMENT["components"]["schemas"]["Event"]["properties"]["entity"]["x-entity-kinds"]
            _valid(event["entity"], schema[event["kind"]].rsplit("/", 1)[1])
            entity = decode_entity(event["kind"], json.dumps(event["entity"]).encode())
            assert entity is not None
            assert entity.seq == event["seq"]
            rebuilt.put(event["kind"], entity)
            rebuilt.seq = event["seq"]
        assert (rebuilt.seq, rebuilt.digest) == (head, digest)


async def test_no_events_are_lost_when_a_subscriber_fails() -> None:
    """ "No events lost due to broadcast failures.": a dead and a stalled one cost the others nothing."""
    limits = Limits(outbox_messages=200, outbox_size=200_000)
    async with scene(limits=limits) as stage, proxy(stage.server) as relay:
        publisher = await stage.publish("job~1")
        healthy = [await stage.observe("job~1", f"healthy {number}") for number in range(3)]
        stalled = await stage.observe("job~1", "stalled", url=relay.url)
        start = stage.head("job~1")[1]
        async with wire(stage.server.url, stage.token("dies")) as dying:
            await dying.subscribe("job~1")
            relay.freeze()
            for number in range(3_000):
                publisher.step(f"s{number % 50}", reason=f"{number} " + "x" * 2_000)
                if number == 500:
                    dying.socket.transport.abort()
                if number % 100 == 99:
                    await publisher.flush()
        head = stage.head("job~1")[1]
        await stage.agreed(*healthy)
        for observer in healthy:
            assert observer.live_seqs == list(range(start + 1, head + 1))
            assert observer.sub.counters.syncs == 1
        # The one that stalled is told that it missed something, and gets the whole state.
        relay.thaw()
        await until(lambda: stalled.sub.phase == "live" and (stalled.sub.position or ("", 0))[1] == head)
        await stage.agreed(stalled)
        seqs = stalled.all_seqs
        assert seqs == sorted(set(seqs))


async def test_a_burst_reaches_many_subscribers_completely() -> None:
    """ "No events lost due to broadcast failures.": 50 subscribers, 500 events, every one."""
    async with scene() as stage, AsyncExitStack() as stack:
        publisher = await stage.publish("job~1")
        wires = []
        for number in range(50):
            bare = await stack.enter_async_context(wire(stage.server.url, stage.token(f"user {number}")))
            await bare.subscribe("job~1")
            wires.append(bare)
        start = stage.head("job~1")[1]
        for number in range(500):
            publisher.step(f"s{number % 10}", reason=str(number))
        collecting = [asyncio.ensure_future(_events(bare, start + 500)) for bare in wires]
        await publisher.flush()
        for events in await asyncio.gather(*collecting):
            assert [event["seq"] for event in events] == list(range(start + 1, start + 501))
