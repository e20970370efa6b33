"""The load generator in Python, for where there is no C compiler: the same commands as ``native/load.c``.

It is several times slower, so that it, and not the server, may set the pace: results say which one it was.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from .python_client import Client
from .script import Script, expand, holds, read

RING: Final = 8192


class Load:
    """The generator: its connections, and what a command makes of them."""

    def __init__(self, script: Script, tokens: list[bytes], port: int, pid: int) -> None:
        self.script = script
        self.tokens = tokens
        self.topics = 0
        self.clock = 0
        self.gaps = self.duplicates = self.bad = self.lost = 0
        self.opening: list[int] = []
        self._port = port
        self._pid = pid
        self._clients: list[Client] = []
        self._publisher: Client | None = None
        self._observers: list[int] = []
        self._published: list[int] = []
        self._left: dict[tuple[int, int], int] = {}
        self._unacknowledged: deque[tuple[int, int]] = deque()
        self._deliveries = self.bytes = self._events = 0
        self._latencies: list[int] = []
        self._recording = False
        self._window = self._batch = self._turn = self._due = self._interval = 0
        self._pad = b""
        self._change = asyncio.Event()

    # -- what connections tell

    def changed(self) -> None:
        self._change.set()

    def delivered(self, topic: int, number: int, sent: int, size: int) -> None:
        self._deliveries += 1
        self.bytes += size
        if self._recording:
            self._latencies.append(self.clock - sent)
        left = self._left.get((topic, number), 0) - 1
        if left > 0:
            self._left[topic, number] = left
        elif self._left.pop((topic, number), None) is not None:
            self._pump()

    def told(self, client: Client, payload: bytes) -> None:
        bad, mark = self.script.texts.get("bad"), self.script.texts.get("accepted")
        if bad and holds(payload, bad):
            self.bad += 1
        if client is not self._publisher or not self._batch or not mark or mark not in payload:
            return
        digits = re.match(rb"\d+", payload[payload.index(mark) + len(mark) :])
        upto = int(digits[0]) if digits else 0
        while self._unacknowledged and (self.topics > 1 or self._unacknowledged[0][0] <= upto):
            _, sent = self._unacknowledged.popleft()
            self._deliveries += self._batch
            self._events += 1
            if self._recording:
                self._latencies.append(self.clock - sent)
            if self.topics > 1:
                break
        self._pump()

    # -- publishing

    def _under_way(self) -> int:
        return len(self._unacknowledged) if self._batch else len(self._left)

    def _publish(self, stamped: int) -> None:
        assert self._publisher is not None
        topic, self._turn = self._turn, (self._turn + 1) % self.topics
        number = self._published[topic]
        values = {
            **self._publisher.values(),
            "topic": topic,
            "number": number + self.script.numbers.get("offset", 0) + 1,
            "stamp": b"bench:%019d:%010d:" % (stamped, number),
            "pad": self._pad,
        }
        texts = self.script.texts
        if self._batch:
            values["changes"] = b",".join(
                expand(texts["change"], {**values, "n": number + one}) for one in range(self._batch)
            )
            self._published[topic] += self._batch
            last = self._published[topic] + self.script.numbers.get("offset", 0)
            self._unacknowledged.append((last, stamped))
            self._publisher.say(texts["array"], values)
            return
        body = expand(texts["body"], values)
        self._published[topic] += 1
        self._events += 1
        if self._observers[topic]:
            self._left[topic, number] = self._observers[topic]
        self._publisher.say(texts["event"], {**values, "body": body, "size": len(body)})

    def _pump(self) -> None:
        while self._window and self._under_way() < self._window:
            self._publish(time.monotonic_ns())
        while self._interval and self._due <= time.monotonic_ns() and self._under_way() < RING:
            self._publish(self._due)
            self._due += self._interval
        if not self._under_way():
            self.changed()

    async def _pace(self) -> None:
        while self._interval:
            self._pump()
            await asyncio.sleep(max(0.0, (self._due - time.monotonic_ns()) / 1e9))

    async def beats(self) -> None:
        """Heartbeats, each connection at its own time of the interval."""
        every, turn = self.script.parts["observer"].beat_every, 0
        while every:
            await asyncio.sleep(every / 100)
            for client in self._clients[turn::100]:
                client.beat()
            turn = (turn + 1) % 100

    # -- commands

    async def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end and not self.lost:
            self._change.clear()
            try:
                await asyncio.wait_for(self._change.wait(), 0.05)
            except TimeoutError:
                continue
        return condition()

    async def _connect(self, clients: list[Client], concurrency: int, timeout: float) -> dict[str, Any]:
        self.opening.clear()
        self.lost = 0
        begin, loop = time.monotonic(), asyncio.get_running_loop()
        waiting = deque(clients)

        async def one_by_one() -> None:
            while waiting:
                client = waiting.popleft()
                client.began = time.monotonic_ns()
                try:
                    await loop.create_connection(lambda client=client: client, "127.0.0.1", client.port)  # type: ignore[misc]  # mypy cannot infer it
                except OSError as exc:
                    sys.stderr.write(f"connection {client.number} ended before it was live: {exc}\n")
                    self.lost += 1
                    continue
                await client.ready.wait()

        async with asyncio.timeout(timeout):
            await asyncio.gather(*(one_by_one() for _ in range(min(concurrency, len(clients)))))
        took = time.monotonic() - begin
        live = sum(client.live for client in self._clients)
        return {
            "live": live, "wanted": len(self._clients), "lost": self.lost, "seconds": took,
        } | _times(self.opening)  # fmt: skip

    def _make_topics(self, count: int) -> None:
        if not self.topics:
            self.topics = count
            self._observers, self._published = [0] * count, [0] * count

    async def open(self, options: dict[str, float]) -> dict[str, Any]:
        self._make_topics(int(options.get("topics", 1)))
        new, port = [], int(options.get("port", self._port))
        for number in range(int(options.get("count", 1))):
            new.append(Client(self, len(self._clients), "observer", number % self.topics, port))
            self._clients.append(new[-1])
            self._observers[number % self.topics] += 1
        return await self._connect(new, int(options.get("concurrency", 64)), options.get("timeout", 60))

    async def publisher(self, options: dict[str, float]) -> dict[str, Any]:
        self._make_topics(int(options.get("topics", 1)))
        port = int(options.get("port", self._port))
        self._publisher = Client(self, len(self._clients), "publisher", 0, port)
        self._clients.append(self._publisher)
        return await self._connect([self._publisher], 1, options.get("timeout", 60))

    async def calibrate(self, options: dict[str, float]) -> dict[str, Any]:
        self._pad, seen = b"", 0
        for number in range(2):
            bytes_before, before = self.bytes, self._deliveries
            self._turn = 0
            self._publish(time.monotonic_ns())
            if not await self._until(lambda: not self._under_way(), 20) or self._deliveries == before:
                return {"error": f"the first event did not reach all: {self._under_way()} under way"}
            seen = (self.bytes - bytes_before) // (self._deliveries - before)
            if number == 0:
                self._pad = b"x" * max(0, int(options.get("size", 500)) - seen)
        return {"size": seen, "pad": len(self._pad)}

    async def closed(self, options: dict[str, float]) -> dict[str, Any]:
        self._window = int(options.get("window", 1))
        return await self._measure(options)

    async def paced(self, options: dict[str, float]) -> dict[str, Any]:
        self._interval = int(1e9 / options.get("rate", 20))
        self._due = time.monotonic_ns() + self._interval
        return await self._measure(options)

    async def array(self, options: dict[str, float]) -> dict[str, Any]:
        self._batch = int(options.get("batch", 256))
        self._pad = b"x" * int(options.get("pad", 0))
        rate = options.get("rate", 0)
        self._window = 0 if rate else int(options.get("window", 1))
        self._interval = int(1e9 / rate) if rate else 0
        self._due = time.monotonic_ns() + self._interval
        result = await self._measure(options)
        self._batch = 0
        return result

    async def storm(self, options: dict[str, float]) -> dict[str, Any]:
        again = []
        for at, client in enumerate(self._clients):
            if client.role == "observer" and client.live:
                client.drop()
                self._clients[at] = Client(self, client.number, client.role, client.topic, client.port)
                again.append(self._clients[at])
        await asyncio.sleep(options.get("pause", 1))
        user, kernel = self._server_cpu()
        own, begin = time.process_time(), time.monotonic()
        got = await self._connect(again, int(options.get("concurrency", 64)), options.get("timeout", 60))
        after = self._server_cpu()
        took = time.monotonic() - begin
        share = (time.process_time() - own) / took
        used = {"server_user": after[0] - user, "server_kernel": after[1] - kernel, "generator_cpu": share}
        return got | used

    async def stall(self, options: dict[str, float]) -> dict[str, Any]:
        done = 0
        for client in self._clients:
            if client.role == "observer" and client.transport is not None and done < options.get("count", 1):
                client.transport.pause_reading()
                self._observers[client.topic] -= 1
                done += 1
        return {"stalled": done}

    async def _measure(self, options: dict[str, float]) -> dict[str, Any]:
        pacing = asyncio.create_task(self._pace())  # its first step comes at the next pause
        if warm := options.get("warm", 0.5):
            self._pump()
            await asyncio.sleep(warm)
        self.gaps = self.duplicates = self.bad = self.lost = 0
        self._deliveries = self.bytes = self._events = 0
        self._latencies, self._recording = [], True
        self._pump()
        user, kernel = self._server_cpu()
        own, begin = time.process_time(), time.monotonic()
        await asyncio.sleep(options.get("seconds", 3))
        took = time.monotonic() - begin
        after = self._server_cpu()
        share = (time.process_time() - own) / took
        self._recording = False
        deliveries, size, events = self._deliveries, self.bytes, self._events
        offered = 1e9 / self._interval if self._interval else 0.0
        behind = max(0, time.monotonic_ns() - self._due) // self._interval if self._interval else 0
        self._window = self._interval = 0
        complete = await self._until(lambda: not self._under_way(), 20)
        pacing.cancel()
        return {
            "generator": "Python", "seconds": took, "events": events, "deliveries": deliveries,
            "per_second": deliveries / took, "offered": offered, "behind": behind,
            "size": size // deliveries if deliveries else 0, "gaps": self.gaps, "duplicates": self.duplicates,
            "bad": self.bad, "lost": self.lost, "complete": complete, "generator_cpu": share,
            "server_user": after[0] - user, "server_kernel": after[1] - kernel,
            "published": self._events, "delivered": self._deliveries,
        } | _times(self._latencies)  # fmt: skip

    def _server_cpu(self) -> tuple[float, float]:
        try:
            fields = Path(f"/proc/{self._pid}/stat").read_text("ascii").rpartition(")")[2].split()
        except OSError:
            return 0.0, 0.0
        ticks = os.sysconf("SC_CLK_TCK")
        return int(fields[11]) / ticks, int(fields[12]) / ticks


def _times(nanoseconds: list[int]) -> dict[str, float]:
    ordered = sorted(nanoseconds) or [0]

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e6

    return {
        "p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "p999_ms": at(0.999),
        "max_ms": ordered[-1] / 1e6, "mean_ms": sum(ordered) / len(ordered) / 1e6,
    }  # fmt: skip


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--script", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tokens", type=Path)
    parser.add_argument("--pid", type=int, default=0)
    options = parser.parse_args()
    tokens = options.tokens.read_bytes().split() if options.tokens else []
    load = Load(read(options.script.read_text("utf-8")), tokens, options.port, options.pid)
    commands = {
        one.__name__: one
        for one in (
            load.open, load.publisher, load.calibrate, load.closed, load.paced, load.array, load.storm,
            load.stall,
        )
    }  # fmt: skip
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    beating = asyncio.create_task(load.beats())
    while line := (await reader.readline()).decode().split():
        if line[0] == "quit":
            break
        arguments = {name: float(value) for name, _, value in (one.partition("=") for one in line[1:])}
        print(json.dumps(await commands[line[0]](arguments)), flush=True)
    beating.cancel()


if __name__ == "__main__":
    asyncio.run(main())
