"""A storm of reconnects, simulated: 100,000 clients with the client's own backoff, on a virtual clock.

A server lets one client in after the other, at the processor time that was measured (`connections`: from
the handshake to the end of the sync). Behind it waits who has come, up to `ROOM`; then the oldest is refused
for each newcomer, which takes time as well (`bursts`), and its client waits as after any failure. A client
gives up after its ``handshake_timeout``; what is done for it then is in vain. New connections go to the
servers in turn.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import statistics
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from wsmonitor.client.backoff import Backoff
from wsmonitor.protocol.defaults import Limits, Timing
from wsmonitor_server.app import BACKLOG, MAX_SPREAD, SPREAD_PER_CONNECTION

from . import bursts, connecting, curves, results

NAME: Final = "stampede"
ROOM: Final = BACKLOG + Limits().handshakes
"""Who may wait at a server: in the operating system's queue, and at the door."""

HELD: Final = 5_000
"""Connections that a server held when it was measured what one more costs."""

TIMEOUT: Final = Timing().handshake_timeout


@dataclass(frozen=True)
class Costs:
    """Seconds of a server's core for letting a client in, and for refusing one."""

    handshake: float
    refusal: float


@dataclass(frozen=True)
class Storm:
    """What happens to whom.

    Attributes:
        clients: of all servers, spread evenly.
        kind: ``killed`` (one server, and it stays away), ``drained`` (one server, which tells its clients
            when to come back), or ``away`` (all servers; connections are refused at once).
        spread: whether clients were told over how long they should spread their return.
        away: for how many seconds all servers are.
    """

    clients: int
    servers: int
    kind: str
    spread: bool = True
    away: float = 0.0

    @property
    def name(self) -> str:
        what = {
            "killed": f"1 of {self.servers} servers is killed",
            "drained": f"1 of {self.servers} servers is drained",
            "away": f"all {self.servers} servers are away for {self.away:.0f} s",
        }[self.kind]
        return what + ("" if self.spread else ", nobody was told to spread")


@dataclass
class Course:
    """What came of it. Times are seconds since the beginning.

    Attributes:
        came: attempts in each second, as far as they reached a server.
        back: when each client was back, in order.
        waiting: the most that waited at one server.
        refused: attempts that had to make room for others.
        late: attempts that were given up while they waited.
        attempts: of each client.
    """

    came: Counter[int] = field(default_factory=Counter)
    back: list[float] = field(default_factory=list)
    waiting: int = 0
    refused: int = 0
    late: int = 0
    attempts: list[int] = field(default_factory=list)

    def until(self, share: float) -> float:
        """When so many were back."""
        return self.back[max(0, round(share * len(self.back)) - 1)]


class _Server:
    """One handshake after the other."""

    def __init__(self, costs: Costs) -> None:
        self.queue: deque[tuple[int, float]] = deque()  # client, and when it gives up
        self.busy_until = 0.0
        self.serving = False
        self._costs = costs

    def begin(self, now: float) -> float:
        """Take the first of the queue; when it will be done, if nothing comes between."""
        self.serving = True
        self.busy_until = max(now, self.busy_until) + self._costs.handshake
        return self.busy_until

    def refuse(self, now: float) -> int:
        """Refuse the oldest, which takes time, too; whose it was."""
        self.busy_until = max(now, self.busy_until) + self._costs.refusal
        return self.queue.popleft()[0]


class _Play:
    """The course of a storm: see `simulate`."""

    def __init__(self, storm: Storm, costs: Costs, rng: random.Random) -> None:
        self.course = Course()
        self._storm = storm
        self._rng = rng
        self._held = storm.clients // storm.servers
        away = storm.kind == "away"
        self._gone = self._held * storm.servers if away else self._held
        self._servers = [_Server(costs) for _ in range(storm.servers - (not away))]
        self._backoffs = [Backoff(rng.random) for _ in range(self._gone)]
        self._numbers = itertools.count()  # so that what happens at the same time has an order
        # When, the tie-break, and who: a client that comes, or (below 0) a server that is done.
        self._heap: list[tuple[float, int, int]] = []
        self._turn = 0

    def _at(self, when: float, who: int) -> None:
        heapq.heappush(self._heap, (when, next(self._numbers), who))

    def _fail(self, client: int, now: float) -> None:
        self._at(now + self._backoffs[client].next_delay(), client)

    def run(self) -> Course:
        storm, course = self._storm, self.course
        course.attempts = [0] * self._gone
        for client in range(self._gone):
            self._at(self._first(client), client)
        while self._heap:
            now, _, who = heapq.heappop(self._heap)
            if who < 0:
                self._done(self._servers[-who - 1], who, now)
                continue
            course.attempts[who] += 1
            if now < storm.away:
                self._fail(who, now)
            else:
                course.came[int(now)] += 1
                self._come(who, now)
        course.back.sort()
        return course

    def _first(self, client: int) -> float:
        storm, held = self._storm, self._held
        if storm.kind == "drained":
            whole = min(MAX_SPREAD, SPREAD_PER_CONNECTION * held) if storm.spread else 0.0
            return 0.1 + whole * self._rng.random()
        # Told when it connected, by how many there were: they have come one after the other.
        told = min(MAX_SPREAD, SPREAD_PER_CONNECTION * (client % held + 1)) if storm.spread else 0.0
        return self._backoffs[client].next_delay(told)

    def _come(self, client: int, now: float) -> None:
        at = self._turn = (self._turn + 1) % len(self._servers)
        server = self._servers[at]
        server.queue.append((client, now + TIMEOUT))
        if len(server.queue) > ROOM:
            self.course.refused += 1
            self._fail(server.refuse(now), now)
        self.course.waiting = max(self.course.waiting, len(server.queue))
        if not server.serving:
            self._at(server.begin(now), -at - 1)

    def _done(self, server: _Server, who: int, now: float) -> None:
        if now < server.busy_until:
            self._at(server.busy_until, who)  # refusals came between
            return
        client, deadline = server.queue.popleft()
        if now <= deadline:
            self.course.back.append(now)
        else:
            self.course.late += 1
            self._at(max(now, deadline + self._backoffs[client].next_delay()), client)
        server.serving = False
        if server.queue:
            self._at(server.begin(now), who)


def simulate(storm: Storm, costs: Costs, rng: random.Random) -> Course:
    """The course of *storm*, to the return of the last client."""
    return _Play(storm, costs, rng).run()


def row(storm: Storm, costs: Costs, course: Course) -> dict[str, Any]:
    """For the table."""
    servers = storm.servers - (storm.kind != "away")
    return {
        "what happens": storm.name,
        "clients that lose their link": len(course.back),
        "clients a second that the servers can let in": round(servers / costs.handshake),
        "most attempts in a second": max(course.came.values()),
        "most waiting at a server": course.waiting,
        "refused": course.refused,
        "given up while waiting": course.late,
        "attempts, mean": round(statistics.fmean(course.attempts), 1),
        "attempts, most": max(course.attempts),
        "half back s": round(course.until(0.5), 1),
        "99% back s": round(course.until(0.99), 1),
        "all back s": round(course.back[-1], 1),
    }


def measured() -> Costs:
    """The costs, from the kept results."""
    entering = [
        float(row["CPU µs"]) / 1e6
        for row in results.rows(connecting.NAME)
        if row["server"] == "wsmonitor" and row["held"] == HELD
    ]
    refusing = results.rows(bursts.NAME)
    if not entering or not refusing:
        raise SystemExit("first: python -m benchmarks connections --write, and bursts --write")
    return Costs(statistics.median(entering), bursts.costs(refusing)[1])


def storms(clients: int, servers: Sequence[int]) -> list[Storm]:
    """All kinds, with so many servers each."""
    return [
        storm
        for count in servers
        for storm in (
            Storm(clients, count, "killed"),
            Storm(clients, count, "killed", spread=False),
            Storm(clients, count, "drained"),
            Storm(clients, count, "away", away=5.0),
            Storm(clients, count, "away", away=60.0),
        )
    ]


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes besides."""
    parser.add_argument("--clients", type=int, default=100_000, help="in all (default 100,000)")
    parser.add_argument("--servers", type=int, nargs="+", default=[20, 5], help="(default 20, and then 5)")
    parser.add_argument("--picture", type=Path, help="draw it into this file")


def run(
    *,
    rounds: int = 1,
    clients: int = 100_000,
    servers: Sequence[int] = (20, 5),
    seed: int = 20_261_123,
    picture: Path | None = None,
) -> list[dict[str, Any]]:
    """A row for each storm; one round says it all, because the clock is virtual."""
    rows, panels, costs = [], [], measured()
    for number, storm in enumerate(storms(clients, servers)):
        course = simulate(storm, costs, random.Random(seed + number))
        rows.append(row(storm, costs, course))
        panels.append(panel(storm, course))
    if picture is not None:
        picture.write_text(curves.draw("Clients that come back", panels, columns=5), "utf-8")
    return rows


def panel(storm: Storm, course: Course) -> curves.Panel:
    """Attempts a second, and how many are back."""
    end = int(course.back[-1]) + 2
    back, at = [], 0
    for second in range(end):
        while at < len(course.back) and course.back[at] <= second:
            at += 1
        back.append((float(second), float(at)))
    came = [(second + 0.5, float(course.came[second])) for second in range(end)]
    return curves.Panel(
        storm.name,
        f"seconds ({len(course.back):,} clients)",
        [curves.Line("back", back, "#0b62c4", wide=True), curves.Line("attempts a second", came, "#c43d0b")],
    )
