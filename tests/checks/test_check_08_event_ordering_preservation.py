"""Check 8, Event Ordering Preservation (HIGH).

"Events from server are received in order (no out-of-order updates). Server timestamps or sequence
numbers preserve event order. Client processes events sequentially, not in parallel. State never
regresses to an earlier version."
"""

from __future__ import annotations

from typing import Any

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from tests.checks.harness import PATIENCE, Observer, blocking, scene, until
from wsmonitor.client import EventApplied, Target, connect
from wsmonitor.protocol.digest import EMPTY
from wsmonitor.protocol.entities import Chain, Step
from wsmonitor.protocol.reducer import SessionState


async def test_events_are_received_in_order() -> None:
    """ "Events from server are received in order (no out-of-order updates)." """
    async with scene() as stage:
        publisher = await stage.publish("etl~1")
        observers = [await stage.observe("etl~1", f"user {number}") for number in range(3)]
        first = stage.head("etl~1")[1] + 1
        for number in range(500):
            publisher.step(f"s{number % 20}", reason=str(number))
        await publisher.flush()
        await stage.agreed(*observers)
        head = stage.head("etl~1")[1]
        assert head >= first + 499
        for observer in observers:
            assert observer.live_seqs == list(range(first, head + 1))


async def test_sequence_numbers_preserve_the_order_of_events() -> None:
    """ "Server timestamps or sequence numbers preserve event order.": the producer's order."""
    async with scene() as stage:
        publisher = await stage.publish("etl~1")
        observer = await stage.observe("etl~1")
        for number in range(200):
            publisher.step("s1", reason=str(number))
        await publisher.flush()
        await stage.agreed(observer)
        told = [
            (update.event.seq, int(update.entity.reason), int(update.event.ts))
            for update in observer.of(EventApplied)
            if isinstance(update.entity, Step)
        ]
        assert [number for _, number, _ in told] == list(range(200))
        seqs = [seq for seq, _, _ in told]
        assert seqs == sorted(set(seqs))
        times = [at for _, _, at in told]
        assert times == sorted(times)


async def test_the_client_processes_events_sequentially() -> None:
    """ "Client processes events sequentially, not in parallel.": one thread, one call at a time."""
    async with scene() as stage:
        publishers = [await stage.publish("etl~1"), await stage.publish("etl~2")]
        observer = await stage.observe("etl~1")
        second = Observer(observer.conn, "etl~2")
        await second.live()
        for number in range(100):
            for publisher in publishers:
                publisher.step(f"s{number}")
        for publisher in publishers:
            await publisher.flush()
        await stage.agreed(observer, second)
        assert observer.overlaps == second.overlaps == 0
        assert len(observer.threads | second.threads) == 1


# -- a server that misbehaves: the client must keep the order all the same


def _event(seq: int, reason: str, epoch: str = "e1") -> dict[str, Any]:
    return {
        "type": "event",
        "topic": "etl~1",
        "epoch": epoch,
        "seq": seq,
        "ts": str(seq),
        "kind": "chain",
        "entity": {"id": "c", "name": "c", "reason": reason, "seq": seq},
    }


def _digest(seq: int, reason: str) -> str:
    state = SessionState("etl~1", "e1")
    state.put("chain", Chain(id="c", name="c", reason=reason, seq=seq))
    return state.digest


class Misbehaving:
    """A server that answers as it should until it is `live`, then sends what it is told to."""

    def __init__(self) -> None:
        self.socket: ServerConnection | None = None
        self.subscribes: list[dict[str, Any]] = []
        self.state: tuple[int, str] = (0, "")

    async def send(self, message: dict[str, Any]) -> None:
        assert self.socket is not None
        await self.socket.send(msgspec.json.encode(message).decode())

    async def handle(self, socket: ServerConnection) -> None:
        self.socket = socket
        async for text in socket:
            message = msgspec.json.decode(text)
            match message["type"]:
                case "hello":
                    await self.send(_welcome())
                case "subscribe":
                    self.subscribes.append(message)
                    self.generation = message["generation"]
                    await self._begin()
                case "sync_next":
                    await self._page()
                case "heartbeat":
                    await self.send({"type": "heartbeat_ack", "n": message["n"], "time": "1"})

    async def _begin(self) -> None:
        seq, _ = self.state
        await self.send(
            {
                "type": "sync_begin",
                "topic": "etl~1",
                "generation": self.generation,
                "epoch": "e1",
                "base": seq,
            }
        )

    async def _page(self) -> None:
        seq, reason = self.state
        entities = [["chain", {"id": "c", "name": "c", "reason": reason, "seq": seq}]] if seq else []
        common = {"topic": "etl~1", "generation": self.generation}
        await self.send(
            {"type": "sync_page", **common, "page": 0, "base": seq, "entities": entities, "last": True}
        )
        digest = _digest(seq, reason) if seq else EMPTY
        await self.send({"type": "synced", **common, "seq": seq, "digest": digest})


def _welcome() -> dict[str, Any]:
    return {
        "type": "welcome",
        "major": 1,
        "minor": 0,
        "server": "test",
        "instance": "i",
        "epoch": "e1",
        "subject": "s",
        "role": "observe",
        "sessions": ["*"],
        "expires": 4_000_000_000,
        "time": "1",
        "heartbeat_interval": 15.0,
        "heartbeat_timeout": 35.0,
        "quiet_after": 3.0,
        "page_size": 262_144,
        "inline_value": 4096,
        "batch_changes": 256,
        "batch_size": 1_048_576,
        "message_size": 2_097_152,
    }


async def test_state_never_regresses_to_an_earlier_version() -> None:
    """ "State never regresses to an earlier version.": nothing old, double or foreign is applied."""
    faulty = Misbehaving()
    async with serve(
        faulty.handle, "127.0.0.1", 0, subprotocols=[Subprotocol("wsmonitor.v1")], ping_interval=None
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with connect(Target(url=f"ws://127.0.0.1:{port}", token="any")) as conn:
            await blocking(conn.wait_live, PATIENCE)
            observer = Observer(conn, "etl~1")
            await observer.live()
            for event in (_event(1, "one"), _event(2, "two"), _event(1, "one"), _event(2, "old two")):
                await faulty.send(event)
            await faulty.send(_event(3, "three"))
            await observer.at(3)
            assert observer.live_seqs == [1, 2, 3]
            assert observer.state().chains["c"].reason == "three"
            assert observer.sub.counters.duplicates == 2

            # A gap is not applied over: the client asks for a sync on the open connection.
            faulty.state = (6, "six")
            await faulty.send(_event(6, "six"))
            await observer.at(6)
            assert observer.live_seqs == [1, 2, 3]
            assert observer.state().chains["c"].reason == "six"
            assert len(faulty.subscribes) == 2
            assert faulty.subscribes[1]["generation"] > faulty.subscribes[0]["generation"]
            resume = faulty.subscribes[1]["resume"]
            assert (resume["epoch"], resume["seq"]) == ("e1", 3)

            # Another history is never mixed into this one.
            await faulty.send(_event(7, "of another history", epoch="e0"))
            await until(lambda: len(faulty.subscribes) == 3)
            await observer.live()
            assert observer.state().chains["c"].reason == "six"

            assert observer.sub.position == ("e1", 6)
            assert conn.status.connections == 1
            await blocking(conn.close)
