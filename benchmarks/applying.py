"""What an observer's client can take: events a second, and what it costs while nothing happens.

*Payloads*: events as they are in frames, through the machine of a connection: decoding, order, the reducer,
the update to a callback, and a heartbeat with the digest after every thousand, which is compared (a server
sends one every 15 seconds). *Socket*: the same from a server that sends as fast as it can, 32 events in a
piece or each by itself, through the client's thread, to a callback. *Rest*: a client with a hundred
observed sessions in which nothing happens, and its share of a core.

The goals are about events of 500 bytes that change fifty steps again and again. The other `KINDS` show what
is dearer or cheaper.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from wsmonitor.client import EventApplied, PhaseChanged, PublicationListener, Target, Update, connect
from wsmonitor.client.actions import Call, Open, Tell
from wsmonitor.client.clock import Instant
from wsmonitor.client.core import ClientCore
from wsmonitor.protocol.changes import SessionChange
from wsmonitor.protocol.codec import decode_event
from wsmonitor.protocol.defaults import SUBPROTOCOL
from wsmonitor.protocol.reducer import SessionState

from .fanout import QUIET
from .pinned import Others, cores, cpu, on_core, start_on
from .server_process import serve as serve_ours

NAME: Final = "apply"
EVENTS: Final = 50_000
SESSIONS: Final = 100
_EPOCH: Final = "e"
_NO_DIGEST: Final = 32 * "0"


class Measured(NamedTuple):
    """What one measurement found.

    Attributes:
        rate: events a second.
        cost: the client's processor time for one, in µs.
        others: the share that everybody else had of both cores meanwhile, 0 to 1.
    """

    rate: float
    cost: float
    others: float


def welcome() -> bytes:
    """What a server answers to ``hello``."""
    return msgspec.json.encode(
        {
            "type": "welcome", "major": 1, "minor": 0, "server": "bench", "instance": "i", "epoch": _EPOCH,
            "subject": "bench", "role": "observe", "sessions": ["*"], "expires": int(time.time()) + 3600,
            "time": str(time.time_ns()), "heartbeat_interval": 15.0, "heartbeat_timeout": 35.0,
            "quiet_after": 3.0, "page_size": 262144, "inline_value": 4096, "batch_changes": 256,
            "batch_size": 1048576, "message_size": 2097152, "spread": 0.0,
        }
    )  # fmt: skip


def sync_answers(topic: str, generation: int) -> tuple[bytes, list[bytes]]:
    """The sync of an empty session: what follows ``subscribe``, and what follows ``sync_next``."""
    about = {"topic": topic, "generation": generation}
    begin = {"type": "sync_begin", **about, "epoch": _EPOCH, "base": 0, "entities": 0}
    page = {"type": "sync_page", **about, "page": 0, "base": 0, "last": True, "entities": []}
    done = {"type": "synced", **about, "seq": 0, "digest": _NO_DIGEST}
    return msgspec.json.encode(begin), [msgspec.json.encode(page), msgspec.json.encode(done)]


def _step(seq: int, ident: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": ident, "chain": "c", "name": "step", "state": "running", "producer": "p",
        "created": "1700000000000000000", "started": "1700000000000000000", **fields, "seq": seq,
    }  # fmt: skip


def _numbers(seq: int) -> dict[str, Any]:
    return {"metrics": {"loss": 1 / seq, "n": seq}, "attributes": {"note": 230 * "x"}}


def _chain(seq: int, ident: str) -> dict[str, Any]:
    made = _step(seq, ident, **_numbers(seq))
    del made["chain"]
    return made


def _begun(seq: int) -> dict[str, Any]:
    begun = str(1_700_000_000_000_000_000 + seq)
    return _step(seq, f"s{seq}", **_numbers(seq)) | {"created": begun, "started": begun}


KINDS: Final[dict[str, tuple[str, Callable[[int], dict[str, Any]]]]] = {
    "500 bytes, of 50 steps": ("step", lambda seq: _step(seq, f"s{seq % 50}", **_numbers(seq))),
    "500 bytes, each of a new step": ("step", _begun),
    "500 bytes, of 2,000 chains": ("chain", lambda seq: _chain(seq, f"c{seq % 2000}")),
    "progress of 50 steps": (
        "step",
        lambda seq: _step(seq, f"s{seq % 50}", progress={"done": seq, "total": 100_000, "unit": "rows"}),
    ),
    "a log line of 50 steps": (
        "step",
        lambda seq: _step(seq, f"s{seq % 50}", log_count=seq, log_last=f"line {seq} of what it does"),
    ),
}
"""What happens: the kind of entity, and how the event of a seq leaves it."""

USUAL: Final = next(iter(KINDS))
COMPARED: Final = 1000
"""Events between two heartbeats with the digest."""


def messages(topic: str, what: str, count: int) -> list[bytes]:
    """So many events of a kind of `KINDS`, and the heartbeats between them."""
    kind, entity = KINDS[what]
    state = SessionState(topic, _EPOCH)
    made = []
    for seq in range(1, count + 1):
        event = {
            "type": "event", "topic": topic, "epoch": _EPOCH, "seq": seq, "ts": "1700000000000000000",
            "kind": kind, "entity": entity(seq),
        }  # fmt: skip
        made.append(msgspec.json.encode(event))
        state.apply(decode_event(made[-1]))
        if seq % COMPARED == 0 or seq == count:
            heads = {topic: (_EPOCH, seq, state.digest)}
            made.append(msgspec.json.encode({"type": "heartbeat", "n": len(made), "heads": heads}))
    return made


def from_payloads(what: str, count: int) -> Measured:
    """Events through the machine of a connection, with their updates told."""
    core = ClientCore(random=random.random)
    now = Instant(time.monotonic(), time.time())
    told = 0

    def tell(update: Update) -> None:
        nonlocal told
        if type(update) is EventApplied:
            told += 1

    def carry_out() -> None:
        for action in core.take(now):
            if isinstance(action, Tell):
                action.listener(action.update)
            elif isinstance(action, Call):
                action.function()
            elif isinstance(action, Open):
                core.link.opened(now, action.attempt)

    core.link.start(now)
    core.link.located(now, core.link.attempt, "ws://127.0.0.1/", "token")
    carry_out()
    core.receive(now, welcome())
    carry_out()
    machine = core.subscribe(now, "s", tell)
    carry_out()
    begin, rest = sync_answers("s", 1)
    for data in (begin, *rest):
        core.receive(now, data)
        carry_out()
    payloads = messages("s", what, count)
    others = Others(os.getpid())
    start, used = time.perf_counter(), time.process_time()
    for data in payloads:
        core.receive(now, data)
        carry_out()
    took, used = time.perf_counter() - start, time.process_time() - used
    share = others.share()
    if machine.position != (_EPOCH, count) or told != count or machine.counters.mismatches:
        raise RuntimeError(f"the client is at {machine.position} after {count} events: {machine.counters}")
    return Measured(count / took, used / count * 1e6, share)


def _frame(payload: bytes) -> bytes:
    """An unmasked text frame of less than 64 KiB (RFC 6455, 5.2)."""
    size = len(payload)
    head = bytes((0x81, size)) if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")
    return head + payload


async def _flood(connection: ServerConnection, pieces: list[bytes]) -> None:
    async for text in connection:
        message = json.loads(text)
        match message["type"]:
            case "hello":
                await connection.send(welcome().decode())
            case "subscribe":
                begin, rest = sync_answers(message["topic"], message["generation"])
                await connection.send(begin.decode())
            case "sync_next":
                for data in rest:
                    await connection.send(data.decode())
                for piece in pieces:
                    # Past the library, as our server does: its own sending would be the limit.
                    connection.transport.write(piece)
                    await connection.drain()
            case "heartbeat":
                answer = {"type": "heartbeat_ack", "n": message["n"], "time": str(time.time_ns())}
                await connection.send(json.dumps(answer))


async def flood(what: str, count: int, together: int) -> None:
    """The server's process: whoever subscribes gets *count* events as fast as they go, some *together*."""
    frames = [_frame(data) for data in messages("s", what, count)]
    pieces = [b"".join(frames[at : at + together]) for at in range(0, len(frames), together)]

    async def handle(connection: ServerConnection) -> None:
        await _flood(connection, pieces)

    protocols = [Subprotocol(SUBPROTOCOL)]
    async with serve(
        handle, "127.0.0.1", 0, compression=None, ping_interval=None, subprotocols=protocols
    ) as server:
        print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


def through_socket(what: str, count: int, together: int) -> Measured:
    """Events through a socket to a callback."""
    pair = cores()
    command = [sys.executable, "-m", "benchmarks.applying", "flood", what, str(count), str(together)]
    with start_on(pair[0] if pair else None, command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            done = threading.Event()
            times: list[float] = []
            used: list[float] = []
            shares: list[float] = []
            others = Others()
            seen = 0

            def update(one: Update) -> None:
                nonlocal seen, others
                if isinstance(one, EventApplied):
                    seen += 1
                    if seen in (1, count):
                        times.append(time.perf_counter())
                        used.append(time.process_time())
                        if seen == count:
                            shares.append(others.share())
                            done.set()
                        else:
                            others = Others(os.getpid(), process.pid)

            with (
                on_core(pair[1] if pair else None),
                connect(Target(url=url, token="t")) as connection,
                connection.subscribe("s", update) as subscription,
            ):
                if not done.wait(120):
                    raise RuntimeError(f"{seen} of {count} events arrived")
                counters = subscription.counters
                if counters.mismatches or counters.gaps or counters.syncs != 1:
                    raise RuntimeError(f"something was lost on the way: {counters}")
        finally:
            process.kill()
    return Measured((count - 1) / (times[1] - times[0]), (used[1] - used[0]) / count * 1e6, shares[0])


def least_disturbed(measure: Callable[[], Measured], tries: int = 3) -> Measured:
    """Measure, and again while others had more than `QUIET` of both cores: not what is the fastest counts."""
    found: list[Measured] = []
    while len(found) < tries and not (found and found[-1].others <= QUIET):
        found.append(measure())
    return min(found, key=lambda one: one.others)


def rest(url: str, token: str, topics: int) -> None:
    """The resting client's process: it watches until its standard input ends."""
    live = 0
    ready = threading.Event()

    def update(one: Update) -> None:
        nonlocal live
        if isinstance(one, PhaseChanged) and one.phase == "live":
            live += 1
            if live == topics:
                ready.set()

    with connect(Target(url=url, token=token)) as connection:
        kept = [connection.subscribe(f"rest~{number}", update) for number in range(topics)]
        if not ready.wait(60):
            raise RuntimeError(f"{live} of {topics} subscriptions are live")
        print("ready", flush=True)
        sys.stdin.read()
        for one in kept:
            one.close()


@contextmanager
def sessions(url: str, tokens: Sequence[str], count: int) -> Iterator[None]:
    """So many sessions, in which nothing happens, with their producers alive: a connection for each token."""
    with ExitStack() as stack:
        holders = [stack.enter_context(connect(Target(url=url, token=token))) for token in tokens]
        for number in range(count):
            holder = holders[number % len(holders)]
            publication = holder.publication(f"rest~{number}", f"p{number}", PublicationListener())
            publication.submit(SessionChange(name="rest", state="running"))
            publication.flush(30)
        yield


def at_rest(seconds: float) -> float:
    """The share of a core that a client with a hundred observed sessions needs."""
    # A connection may hold 64 producers, so there are two.
    with (
        serve_ours("memory") as server,
        sessions(server.url, [server.token(name, "publish") for name in ("p", "q")], SESSIONS),
    ):
        command = [sys.executable, "-m", "benchmarks.applying", "rest", server.url, str(SESSIONS)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(server.token("o", "observe") + "\n")
            process.stdin.flush()
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("the resting client did not get live")
            time.sleep(2)  # what getting there cost is not what rest costs
            before = cpu(process.pid)
            time.sleep(seconds)
            return (cpu(process.pid) - before) / seconds


def run(*, rounds: int, seconds: float = 45.0) -> list[dict[str, Any]]:
    """Medians over the rounds. A rest of *seconds* has three heartbeats each way."""
    plans: list[tuple[str, str, Callable[[], Measured]]] = [
        (
            "payloads" if what == USUAL else f"payloads: {what}",
            what,
            partial(from_payloads, what, EVENTS),
        )
        for what in KINDS
    ]
    plans += [
        (name, f"{what}; {together} in a piece", partial(through_socket, what, EVENTS, together))
        for name, what, together in (
            ("socket", USUAL, 32),
            ("socket: one by one", USUAL, 1),
            ("socket: each of a new step", "500 bytes, each of a new step", 32),
        )
    ]
    found: dict[str, list[Measured]] = {name: [] for name, _, _ in plans}
    for _ in range(rounds):  # all of them by turns
        for name, _, measure in plans:
            found[name].append(least_disturbed(measure))
    resting = [at_rest(seconds) for _ in range(rounds)]

    def row(what: str, values: list[float], unit: str, besides: str, **more: Any) -> dict[str, Any]:
        return {
            "what": what,
            "median": float(f"{statistics.median(values):.4g}"),
            "least": float(f"{min(values):.4g}"),
            "most": float(f"{max(values):.4g}"),
            "unit": unit,
            "CPU µs": more.get("cost", ""),
            "others'": more.get("others", ""),
            "besides": besides,
        }

    rows = []
    for name, what, _ in plans:
        cost = round(statistics.median(one.cost for one in found[name]), 2)
        others = f"{statistics.median(one.others for one in found[name]):.0%}"
        rows.append(row(name, [one.rate for one in found[name]], "events/s", what, cost=cost, others=others))
    shares = [100 * share for share in resting]
    rows.append(row("rest", shares, "% of a core", f"{SESSIONS} sessions observed"))
    return rows


if __name__ == "__main__":
    if sys.argv[1] == "flood":
        asyncio.run(flood(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    else:
        rest(sys.argv[2], sys.stdin.readline().strip(), int(sys.argv[3]))
