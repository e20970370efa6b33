"""Two real servers on one Redis: what happens to the one, or to Redis, and what those who watch see of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.faults.server import ServerProcess
from tests.redis_server import RedisServer
from wsmonitor.client import EventApplied, EventsReplayed, Target, Update, connect
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange

from .test_kill import Owner, reached


class Seen:
    """The positions that an observer was told of, in the order of telling."""

    def __init__(self) -> None:
        self.positions: list[tuple[str, int]] = []

    def __call__(self, update: Update) -> None:
        events = update.events if isinstance(update, EventsReplayed) else ()
        for event in (update.event,) if isinstance(update, EventApplied) else events:
            self.positions.append((event.epoch, event.seq))


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always")
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def servers(tmp_path: Path, redis: RedisServer) -> Iterator[list[ServerProcess]]:
    made = [ServerProcess(tmp_path / f"server{n}", store=redis.url) for n in range(2)]
    with ExitStack() as stack:
        for server in made:
            stack.enter_context(server)
        yield made


class Scene:
    """A program that publishes by way of the first server, and an observer at each of them."""

    def __init__(self, servers: list[ServerProcess], stack: ExitStack) -> None:
        def link(server: ServerProcess, name: str) -> Any:
            made = stack.enter_context(connect(Target(url=server.url, token=server.token(name))))
            made.wait_live(60)
            return made

        self.owner = Owner()
        self.links = [link(servers[0], "p"), link(servers[0], "o0"), link(servers[1], "o1")]
        self.publication = self.links[0].publication("s~1", "p", self.owner)
        self.publication.submit(SessionChange(name="s", state="running"))
        self.publication.submit(ChainChange(id="c", name="c", state="running"))
        assert self.publication.flush(60)
        self.seen = [Seen(), Seen()]
        self.watching = [
            one.subscribe("s~1", seen) for one, seen in zip(self.links[1:], self.seen, strict=True)
        ]
        for one in self.watching:
            one.wait(lambda sub: sub.phase == "live", 60)
        self.written = 0

    def write(self, count: int) -> None:
        for _ in range(count):
            self.publication.submit(StepChange(id=f"n{self.written}", chain="c", name="n"))
            self.written += 1

    def settle(self) -> None:
        """Everything was acknowledged, and every observer has it."""
        assert self.publication.flush(90)
        for one in self.watching:
            one.wait(lambda sub: sub.phase == "live" and len(sub.state.steps) == self.written, 90)
        assert self.owner.wrong == []

    def told(self, observer: int, condition: Callable[[Seen], bool]) -> None:
        reached(lambda: condition(self.seen[observer]), 90)


def test_who_is_connected_to_the_other_server_notices_nothing_of_a_kill(servers: list[ServerProcess]) -> None:
    with ExitStack() as stack:
        scene = Scene(servers, stack)
        begun = len(scene.seen[1].positions)
        scene.write(200)
        scene.told(1, lambda seen: len(seen.positions) > begun)
        servers[0].kill()
        scene.write(200)
        servers[0].start()
        for link in scene.links:
            link.reconnect_now()
        scene.settle()
        # One history: no reset, nothing twice, nothing left out, at either server.
        for seen, one in zip(scene.seen, scene.watching, strict=True):
            assert one.position is not None
            assert len({epoch for epoch, _ in seen.positions}) == 1
            seqs = [seq for _, seq in seen.positions]
            assert seqs == list(range(seqs[0], one.position[1] + 1))
            assert (one.counters.mismatches, one.counters.gaps) == (0, 0)
        assert scene.watching[0].position == scene.watching[1].position


def test_two_programs_publish_into_one_session_by_way_of_two_servers(servers: list[ServerProcess]) -> None:
    with ExitStack() as stack:
        scene = Scene(servers, stack)
        other = Owner()
        second = scene.links[2].publication("s~1", "p2", other)
        second.submit(ChainChange(id="c2", name="c2", state="running"))
        begun = [one.position for one in scene.watching]
        for number in range(500):
            scene.write(1)
            second.submit(StepChange(id=f"m{number}", chain="c2", name="m"))
        scene.written += 500
        assert second.flush(90)
        scene.settle()
        assert other.wrong == []
        first, last = (one.position for one in scene.watching)
        assert first == last
        assert len({one.snapshot().digest for one in scene.watching}) == 1
        for seen, one, position in zip(scene.seen, scene.watching, begun, strict=True):
            assert one.position is not None
            assert position is not None
            seqs = [seq for _, seq in seen.positions if seq > position[1]]
            assert seqs == list(range(position[1] + 1, one.position[1] + 1)), "each once, in order"
            assert one.counters.mismatches == 0


def test_a_redis_that_is_killed_is_seen_as_a_reset_and_loses_nothing_that_it_kept(
    servers: list[ServerProcess], redis: RedisServer
) -> None:
    with ExitStack() as stack:
        scene = Scene(servers, stack)
        scene.write(200)
        for observer in range(2):
            scene.told(observer, lambda seen: bool(seen.positions))
        redis.kill()
        scene.write(200)
        redis.start()
        scene.settle()
        scene.write(10)
        scene.settle()
        positions = [one.position for one in scene.watching]
        assert positions[0] == positions[1]
        for seen, one in zip(scene.seen, scene.watching, strict=True):
            assert one.position is not None
            epochs = list(dict.fromkeys(epoch for epoch, _ in seen.positions))
            assert len(epochs) >= 2
            assert epochs[-1] == one.position[0]
            for epoch in epochs:
                seqs = [seq for where, seq in seen.positions if where == epoch]
                assert seqs == sorted(set(seqs)), "each once, in order"
            assert one.counters.mismatches == 0
