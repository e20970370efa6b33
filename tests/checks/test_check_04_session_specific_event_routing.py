"""Check 4, Session-Specific Event Routing (HIGH).

"Events from one session only broadcast to clients subscribed to that session. Client subscriptions
filtered by SessionId on server. No cross-session event leakage occurs. Event routing handles multiple
subscribers correctly."
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from tests.checks.harness import scene, wire
from wsmonitor.client import EventApplied
from wsmonitor.protocol.changes import ProblemChange

SECRET = "only-for-those-who-watch-blue"


async def test_events_go_only_to_the_clients_subscribed_to_that_session() -> None:
    """ "Events from one session only broadcast to clients subscribed to that session." """
    async with scene() as stage:
        red, blue = await stage.publish("red~1"), await stage.publish("blue~1")
        watches_red, watches_blue = (
            await stage.observe("red~1", "alice"),
            await stage.observe("blue~1", "bob"),
        )
        for number in range(20):
            red.step(f"r{number}")
            blue.step(f"b{number}")
        await red.flush()
        await blue.flush()
        await stage.agreed(watches_red, watches_blue)
        assert {update.event.topic for update in watches_red.of(EventApplied)} == {"red~1"}
        assert {update.event.topic for update in watches_blue.of(EventApplied)} == {"blue~1"}
        assert set(watches_red.state().steps) == {f"r{number}" for number in range(20)}
        assert set(watches_blue.state().steps) == {f"b{number}" for number in range(20)}


async def test_subscriptions_are_filtered_by_session_id_on_the_server() -> None:
    """ "Client subscriptions filtered by SessionId on server.": what is not subscribed is never sent."""
    async with scene() as stage:
        red, blue = await stage.publish("red~1"), await stage.publish("blue~1")
        async with wire(stage.server.url, stage.token("alice")) as bare:
            # Connected, but subscribed to nothing: no event comes.
            blue.step("before", reason=SECRET)
            await blue.flush()
            assert (await bare.subscribe("red~1"))["type"] == "synced"
            blue.step("b1", reason=SECRET)
            await blue.flush()
            red.step("r1")
            await red.flush()
            event = await bare.expect("event")
            assert event["topic"] == "red~1"
            # After unsubscribing nothing more comes, though the connection stays.
            await bare.send({"type": "unsubscribe", "topic": "red~1"})
            await bare.send({"type": "status_get", "request": 1})
            await bare.expect("status")
            before = len([text for text in bare.seen if '"event"' in text])
            red.step("r2")
            await red.flush()
            await bare.send({"type": "status_get", "request": 2})
            await bare.expect("status")
            assert len([text for text in bare.seen if '"event"' in text]) == before
            assert not [text for text in bare.seen if SECRET in text or "blue~1" in text]


async def test_no_cross_session_leakage() -> None:
    """ "No cross-session event leakage occurs.": not by guessing ids, not by errors, not by heartbeats."""
    async with scene() as stage:
        blue = await stage.publish("blue~1")
        blue.step("b1", reason=SECRET)
        await blue.flush()
        async with wire(stage.server.url, stage.token("mallory", "admin", ("red~*",))) as bare:
            answers = []
            for topic in ("blue~1", "no-such-session~1"):
                answer = await bare.subscribe(topic)
                answers.append({key: value for key, value in answer.items() if key != "topic"})
                asked = {
                    "history_get": {},
                    "logs_get": {"step": "b1"},
                    "value_get": {"sha256": "0" * 64, "offset": 0},
                    "command": {"key": "0" * 32, "name": "pause"},
                    "publish_open": {"producer": "p9"},
                    "remove": {},
                }
                for number, (type_, fields) in enumerate(asked.items()):
                    await bare.send({"type": type_, "request": number, "session": topic, **fields})
                    error = (await bare.expect("error"))["error"]
                    answers.append({key: value for key, value in error.items() if key != "session"})
            # The session that exists and the one that does not are answered word for word alike.
            assert answers[: len(answers) // 2] == answers[len(answers) // 2 :]
            assert answers[0] == {"type": "removed", "reason": "not_available"}
            assert {answer["code"] for answer in answers[1:7]} == {"not_available"}
            # The directory shows what the token covers, and no more.
            synced = await bare.subscribe("/directory")
            assert synced["type"] == "synced"
            blue.submit(ProblemChange(id="e1", code="producer_error", message=SECRET))
            await blue.flush()
            await bare.send({"type": "status_get", "request": 99})
            await bare.expect("status")
            assert not [text for text in bare.seen if SECRET in text or '"b1"' in text]


async def test_routing_handles_multiple_subscribers() -> None:
    """ "Event routing handles multiple subscribers correctly." """
    async with scene() as stage, AsyncExitStack() as stack:
        publishers = {topic: await stage.publish(topic) for topic in ("red~1", "blue~1", "green~1")}
        wanted = [("red~1",), ("blue~1",), ("red~1", "blue~1"), ("red~1", "green~1"), ("red~1",)]
        wires = []
        for number, topics in enumerate(wanted):
            bare = await stack.enter_async_context(wire(stage.server.url, stage.token(f"user {number}")))
            for topic in topics:
                await bare.subscribe(topic)
            wires.append(bare)
        for publisher in publishers.values():
            for number in range(10):
                publisher.step(f"s{number}")
        await asyncio.gather(*(publisher.flush() for publisher in publishers.values()))
        heads = {topic: stage.head(topic)[1] for topic in publishers}
        for bare, topics in zip(wires, wanted, strict=True):
            got: dict[str, list[int]] = {topic: [] for topic in topics}
            while any(not seqs or seqs[-1] < heads[topic] for topic, seqs in got.items()):
                event = await bare.expect("event")
                got[event["topic"]].append(event["seq"])
            for topic, seqs in got.items():
                assert seqs == list(range(heads[topic] - 9, heads[topic] + 1))
