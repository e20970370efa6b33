"""How many servers and Redis instances a demand takes, what breaks first, and what was measured of it.

A linear model: every cost is a constant that was measured (`Costs`, from the kept results), and what a
process does in a second is a sum of them. Each server has one core, and so has each Redis. Servers that share
a Redis are a *group*; a demand that is too large for one is divided among several, which know nothing of each
other: each session, and who watches it, belongs to one.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from wsmonitor.protocol import defaults

from . import goals, results

NAME: Final = "capacity"
BUSY: Final = 0.6
"""The share of a core that is planned for: what is above it is for what comes unevenly."""

GROUPS: Final = tuple(2**power for power in range(11))
MOST: Final = 4_096  # servers of a group that are tried

Rows = Callable[[str], Iterable[Mapping[str, Any]]]


class Missing(Exception):
    """A measurement that the model needs is not there; says which."""


@dataclass(frozen=True)
class Each:
    """A cost of things that are done together: ``every`` for each of them, ``group`` once for all."""

    every: float
    group: float

    def __call__(self, together: float) -> float:
        """For one, when so many are done together."""
        return self.every + self.group / together

    @classmethod
    def between(cls, alone: float, together: float, count: float) -> Each:
        """From what one costs alone, and as one of *count*."""
        group = max(0.0, alone - together) / (1 - 1 / count)
        return cls(max(0.0, alone - group), group)


@dataclass(frozen=True)
class Costs:
    """Processor time in µs, memory and traffic in bytes.

    Attributes:
        rest: of a server, for a second in which nothing happens.
        idle: of a server, for an observer and second: heartbeats.
        publish: of the server that takes a change, with its commit.
        bus: of every other server, to read it.
        adopt: of a server that has the session in memory, besides.
        deliver: for an observer of it.
        enter: for a client that comes, up to the end of its sync.
        redis_rest: of Redis, for a second and a server.
        redis: of Redis, for a change, with one server.
        redis_more: for each further server.
        sent: to Redis, for a change.
        read: from Redis, for a change and server.
        observer, session: memory in a server.
        kept_session, kept_event: memory in Redis.
    """

    rest: float
    idle: float
    publish: Each
    bus: Each
    adopt: float
    deliver: Each
    enter: float
    redis_rest: float
    redis: Each
    redis_more: Each
    sent: Each
    read: Each
    observer: float
    session: float
    kept_session: float
    kept_event: float


@dataclass(frozen=True)
class Demand:
    """What is wanted.

    Attributes:
        observers: connected, evenly over the sessions.
        sessions: kept.
        rate: changes a second, of all sessions together.
        together: changes that a program sends at once, and that reach an observer in one turn of the loop.
        size: bytes of an event.
        kept: events that each session keeps.
    """

    observers: float
    sessions: float
    rate: float
    together: float = 1.0
    size: float = 500.0
    kept: float = 1_000.0

    def part(self, groups: int) -> Demand:
        """What one of so many groups has of it."""
        return replace(
            self,
            observers=self.observers / groups,
            sessions=self.sessions / groups,
            rate=self.rate / groups,
        )

    @property
    def deliveries(self) -> float:
        """A second."""
        return self.rate * self.observers / max(1.0, self.sessions)


@dataclass(frozen=True)
class Load:
    """What a group of so many servers has to do.

    Attributes:
        server, redis: shares of their cores.
        reading: the part of `server` that goes into reading what the others commit.
        server_memory, redis_memory: bytes.
        server_out, redis_out: bytes a second.
    """

    servers: int
    connections: float
    server: float
    reading: float
    redis: float
    server_memory: float
    redis_memory: float
    server_out: float
    redis_out: float


def load(demand: Demand, costs: Costs, servers: int) -> Load:
    """What each of *servers* servers of one group, and its Redis, do."""
    rate, together = demand.rate, demand.together
    here = demand.observers / servers
    # A session is in memory where somebody watches it, or publishes into it.
    watched = 1 - math.exp(-here / max(1.0, demand.sessions))
    loaded = min(1.0, watched + 1 / servers)
    others = rate * (1 - 1 / servers)
    reading = others * (costs.bus(together) + loaded * costs.adopt)
    deliveries = demand.deliveries / servers
    work = (
        costs.rest
        + here * costs.idle
        + rate / servers * costs.publish(together)
        + reading
        + deliveries * costs.deliver(together)
    )
    redis = servers * costs.redis_rest + rate * (
        costs.redis(together) + (servers - 1) * costs.redis_more(together)
    )
    return Load(
        servers=servers,
        connections=here,
        server=work / 1e6,
        reading=reading / 1e6,
        redis=redis / 1e6,
        server_memory=here * costs.observer + loaded * demand.sessions * costs.session,
        redis_memory=demand.sessions * (costs.kept_session + demand.kept * costs.kept_event),
        server_out=deliveries * demand.size,
        redis_out=rate * servers * costs.read(together),
    )


@dataclass(frozen=True)
class Limits:
    """Of one server, and of one Redis: bytes; shares of a core are limited by `BUSY`."""

    connections: float = defaults.Limits().connections
    server_memory: float = 8e9
    redis_memory: float = 64e9

    def broken(self, one: Load) -> str:
        """What is above its limit, in words; "" when nothing is."""
        for words, over in (
            ("a server's core", one.server > BUSY),
            ("a server's connections", one.connections > self.connections),
            ("Redis' core", one.redis > BUSY),
            ("a server's memory", one.server_memory > self.server_memory),
            ("Redis' memory", one.redis_memory > self.redis_memory),
        ):
            if over:
                return words
        return ""


LIMITS: Final = Limits()


@dataclass(frozen=True)
class Plan:
    """So many groups, each with its Redis, and what each of them does."""

    groups: int
    load: Load

    @property
    def servers(self) -> int:
        return self.groups * self.load.servers


def smallest(demand: Demand, costs: Costs, limits: Limits) -> Load | None:
    """The fewest servers of one group that are enough; None where no number is."""
    for servers in _counts():
        one = load(demand, costs, servers)
        if not limits.broken(one):
            return one
        if one.redis > BUSY or one.redis_memory > limits.redis_memory:
            break  # more servers make that no better
    return None


def plan(demand: Demand, costs: Costs, limits: Limits = LIMITS) -> Plan | None:
    """The plan with the fewest processes; None where none is found."""
    found = [
        Plan(groups, one)
        for groups in GROUPS
        if groups <= demand.sessions  # a session is not divided
        if (one := smallest(demand.part(groups), costs, limits)) is not None
    ]
    return min(found, key=lambda one: (one.servers + one.groups, one.groups), default=None)


def first_to_break(demand: Demand, costs: Costs, limits: Limits = LIMITS) -> tuple[float, str]:
    """How many times *demand* one group can take, with as many servers as help, and what stops it then."""
    fits, breaks = 0.0, 1e-6
    while smallest(_times(demand, breaks), costs, limits) is not None and breaks < 1e12:
        fits, breaks = breaks, 2 * breaks
    for _ in range(40):
        middle = (fits + breaks) / 2
        if smallest(_times(demand, middle), costs, limits) is None:
            breaks = middle
        else:
            fits = middle
    return fits, _stops(_times(demand, breaks), costs, limits)


def _stops(demand: Demand, costs: Costs, limits: Limits) -> str:
    """What is too much, with as many servers as it takes to relieve each of them, if any number does."""
    for servers in _counts():
        one = load(demand, costs, servers)
        if not limits.broken(replace(one, redis=0.0, redis_memory=0.0)):
            busy = f" ({servers} servers, each {one.reading:.0%} busy with reading the others' commits)"
            return limits.broken(one) + busy * (one.redis > BUSY)
    return "every server reads what all others commit"


def _counts() -> Iterator[int]:
    """Numbers of servers to try."""
    servers = 1
    while servers <= MOST:
        yield servers
        servers += max(1, servers // 50)


def _times(demand: Demand, factor: float) -> Demand:
    return replace(
        demand,
        observers=demand.observers * factor,
        sessions=demand.sessions * factor,
        rate=demand.rate * factor,
    )


# -- what was measured

_ALONE: Final = "1 server on Redis"
_SAME: Final = "2 servers, observers at the publisher's"
_OTHER: Final = "2 servers, observers at the other one"
_THREE: Final = "3 servers, observers at all of them"
_TEN: Final = "10 servers, nobody observes"
_FEW: Final = "8 under way to 1 observer at each"
_SINGLE: Final = "single changes to them, 8 under way"
_ARRAY: Final = "arrays of 256 to them, 4 under way"
_PUBLISHER: Final = "publisher's server µs"
_WATCHING: Final = "watching server µs"
_BUS: Final = "other server µs"
_REDIS: Final = "Redis µs"


class Measured:
    """The kept results, by what the model asks for. All methods raise `Missing`.

    Args:
        rows: gives the rows of a benchmark.
    """

    def __init__(self, rows: Rows = results.rows) -> None:
        self._rows = rows

    def median(self, name: str, column: str, **where: object) -> float:
        """Of *column*, in the rows of benchmark *name* that have these values."""
        found = [
            float(row[column])
            for row in self._rows(name)
            if row.get(column) is not None and all(row.get(key) == value for key, value in where.items())
        ]
        if not found:
            raise Missing(f"{name}: {column} where {where}")
        return float(statistics.median(found))

    def node(self, arrangement: str, load: str, column: str) -> float:
        return self.median("nodes", column, arrangement=arrangement, load=load)

    def delivery(self, observers: str, under_way: int) -> float:
        """µs of the server for one delivery."""
        where = {"observers": observers, "load": f"{under_way} under way", "server": "wsmonitor"}
        return sum(self.median("fanout", column, **where) for column in ("user µs", "kernel µs"))

    def costs(self) -> Costs:
        """All that the model needs."""
        node, deliver = self.node, Each.between(self.delivery("1000", 1), self.delivery("1000", 20), 20)
        alone = node("1 server, in memory", "at rest", _PUBLISHER)
        idle = node("1 server, in memory", "3,000 observers, at rest", _PUBLISHER)
        adopt = node(_OTHER, _FEW, _WATCHING) - deliver(1) - node(_SAME, _FEW, _BUS)
        redis = Each.between(node(_ALONE, _SINGLE, _REDIS), node(_ALONE, _ARRAY, _REDIS), 256)
        redis_two = Each.between(node(_SAME, _SINGLE, _REDIS), node(_SAME, _ARRAY, _REDIS), 256)
        sent = "bytes to Redis", "bytes from Redis"
        return Costs(
            rest=node(_ALONE, "at rest", _PUBLISHER),
            idle=max(0.0, idle - alone) / 3_000,
            publish=Each.between(node(_ALONE, _SINGLE, _PUBLISHER), node(_ALONE, _ARRAY, _PUBLISHER), 256),
            bus=Each.between(node(_SAME, _SINGLE, _BUS), node(_SAME, _ARRAY, _BUS), 256),
            adopt=max(0.0, adopt),
            deliver=deliver,
            enter=self.median("connections", "CPU µs", server="wsmonitor", held=5_000),
            redis_rest=node(_THREE, "at rest", _REDIS) / 3,
            redis=redis,
            redis_more=Each(max(0.0, redis_two.every - redis.every), max(0.0, redis_two.group - redis.group)),
            sent=Each.between(node(_ALONE, _SINGLE, sent[0]), node(_ALONE, _ARRAY, sent[0]), 256),
            read=Each.between(
                node(_SAME, _SINGLE, sent[1]) - node(_ALONE, _SINGLE, sent[1]),
                node(_SAME, _ARRAY, sent[1]) - node(_ALONE, _ARRAY, sent[1]),
                256,
            ),
            observer=1_000 * self.median("connections", "KB each", server="wsmonitor", held=5_000),
            session=node(_ALONE, "1,000 sessions, at rest", "server's memory"),
            kept_session=node(_ALONE, "1,000 sessions, at rest", "Redis memory"),
            kept_event=node(_ALONE, _ARRAY, "Redis memory"),
        )

    def checks(self, costs: Costs) -> list[tuple[str, float, float]]:
        """What the model says of points that it was not made from: what, model, measured."""
        node = self.node
        few = node(_ALONE, _FEW, _REDIS)
        more = node(_SAME, _FEW, _REDIS) - few
        return [
            ("µs of a delivery to 1,000, 5 under way", costs.deliver(5), self.delivery("1000", 5)),
            ("µs of a delivery to 1,000, 40 under way", costs.deliver(40), self.delivery("1000", 40)),
            ("µs of a delivery to 5,000, 20 under way", costs.deliver(20), self.delivery("5000", 20)),
            ("µs of a delivery to 100, 20 under way", costs.deliver(20), self.delivery("100", 20)),
            (
                "µs of Redis for a change, 3 servers, 8 under way",
                few + 2 * more,
                node(_THREE, _FEW, _REDIS),
            ),
            (
                "µs of Redis for a change, 10 servers, 8 under way",
                costs.redis(1) + 9 * costs.redis_more(1),
                node(_TEN, _SINGLE, _REDIS),
            ),
            (
                "µs of one of 10 servers that only read, 8 under way",
                costs.bus(1),
                node(_TEN, _SINGLE, _BUS),
            ),
            (
                "µs of one of 3 servers that watch, 8 under way",
                node(_OTHER, _FEW, _WATCHING),
                node(_THREE, _FEW, _WATCHING),
            ),
            (
                "bytes from Redis for a change, 3 servers, 8 under way",
                2 * node(_SAME, _FEW, "bytes from Redis") - node(_ALONE, _FEW, "bytes from Redis"),
                node(_THREE, _FEW, "bytes from Redis"),
            ),
            (
                "MB of 10,000 connections",
                10_000 * costs.observer / 1e6,
                self.median("connections", "MB", server="wsmonitor", held=10_000),
            ),
            (
                "s of a server for a storm of 1,000",
                1_000 * costs.enter / 1e6,
                self.median("storm", "server's CPU s", server="wsmonitor"),
            ),
        ]


# -- the command

EXAMPLES: Final = (
    ("a team: 200 observers, 50 sessions", Demand(200, 50, 50, together=5)),
    ("a department: 5,000 observers, 1,000 sessions", Demand(5_000, 1_000, 1_000, together=5)),
    ("100,000 observers, 10,000 sessions", Demand(100_000, 10_000, 2_000, together=5)),
    ("1,000,000 observers, 100,000 sessions", Demand(1_000_000, 100_000, 2_000, together=5)),
    ("the same, ten times as much published", Demand(1_000_000, 100_000, 20_000, together=5)),
    ("the same, each change by itself", Demand(1_000_000, 100_000, 20_000, together=1)),
    ("one session that a million watch", Demand(1_000_000, 1, 10, together=5)),
)


def row(name: str, demand: Demand, costs: Costs) -> dict[str, Any]:
    """The plan for one demand, for the table."""
    found = plan(demand, costs)
    line: dict[str, Any] = {"demand": name, "changes/s": demand.rate, "together": demand.together}
    line["deliveries/s"] = round(demand.deliveries)
    fits, why = first_to_break(demand, costs)
    if found is None:
        return (
            line
            | dict.fromkeys(_COLUMNS, None)
            | {
                "groups": "none is enough",
                "one group takes": f"{goals.number(fits)} ×",
                "stops one group": why,
            }
        )
    one = found.load
    return line | {
        "groups": found.groups,
        "servers": found.servers,
        "connections of each": round(one.connections),
        "server's core": f"{one.server:.0%}",
        "for reading": f"{one.reading:.1%}",
        "server's memory": f"{one.server_memory / 1e9:.2f} GB",
        "server sends": f"{one.server_out * 8 / 1e6:,.0f} Mbit/s",
        "Redis' core": f"{one.redis:.0%}",
        "Redis' memory": f"{one.redis_memory / 1e9:.1f} GB",
        "Redis sends": f"{one.redis_out * 8 / 1e6:,.0f} Mbit/s",
        "one group takes": f"{goals.number(fits)} ×",
        "stops one group": why,
    }


_COLUMNS: Final = (
    *(
        "groups",
        "servers",
        "connections of each",
        "server's core",
        "for reading",
        "server's memory",
        "server sends",
    ),
    *("Redis' core", "Redis' memory", "Redis sends", "one group takes", "stops one group"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes besides."""
    parser.add_argument("--observers", type=float, help="a demand of your own: how many are connected")
    parser.add_argument("--sessions", type=float, default=1_000, help="that are kept (default 1,000)")
    parser.add_argument("--rate", type=float, default=100, help="changes a second, of all (default 100)")
    parser.add_argument("--together", type=float, default=1, help="changes sent at once (default 1)")
    parser.add_argument("--size", type=float, default=500, help="bytes of an event (default 500)")
    parser.add_argument("--kept", type=float, default=1_000, help="events a session keeps (default 1,000)")


def run(
    *,
    rounds: int = 1,
    observers: float | None = None,
    sessions: float = 1_000,
    rate: float = 100,
    together: float = 1,
    size: float = 500,
    kept: float = 1_000,
) -> list[dict[str, Any]]:
    """A row for each demand: one's own, or the examples."""
    try:
        costs = Measured().costs()
    except Missing as exc:
        raise SystemExit(f"not measured yet: {exc}") from None
    if observers is not None:
        own = Demand(observers, sessions, rate, together, size, kept)
        return [row(f"{observers:,.0f} observers, {sessions:,.0f} sessions", own, costs)]
    return [row(name, demand, costs) for name, demand in EXAMPLES]


def checks() -> list[dict[str, Any]]:
    """A row for each measured point that the model was not made from."""
    measured = Measured()
    return [
        {
            "what": what,
            "model": float(f"{model:.3g}"),
            "measured": float(f"{found:.3g}"),
            "error": f"{model / found - 1:+.0%}",
        }
        for what, model, found in measured.checks(measured.costs())
    ]


def ceilings() -> list[dict[str, Any]]:
    """How many changes a second one core can bear if it does nothing else, for the table."""
    costs = Measured().costs()

    def redis(servers: int) -> Callable[[float], float]:
        return lambda together: costs.redis(together) + (servers - 1) * costs.redis_more(together)

    work: dict[str, Callable[[float], float]] = {
        "a server that takes them": costs.publish,
        "a server that only reads them": costs.bus,
        "a server that reads them, sessions in memory": lambda together: costs.bus(together) + costs.adopt,
        **{f"Redis, of {count} server{'s' * (count > 1)}": redis(count) for count in (1, 2, 3, 10, 30)},
    }
    return [
        {"whose core": whose} | {f"{count} at once": round(1e6 / each(count)) for count in (1, 5, 256)}
        for whose, each in work.items()
    ]


def constants() -> list[dict[str, Any]]:
    """The constants, for the table."""
    costs = Measured().costs()
    units = {"observer": "bytes", "session": "bytes", "kept_session": "bytes", "kept_event": "bytes"}
    units |= {"sent": "bytes", "read": "bytes"}
    lines = []
    for name in Costs.__dataclass_fields__:
        value = getattr(costs, name)
        alone, many = (value(1), value(256)) if isinstance(value, Each) else (value, None)
        lines.append(
            {
                "cost": name.replace("_", " "),
                "unit": units.get(name, "µs"),
                "alone": float(f"{alone:.3g}"),
                "one of 256": None if many is None else float(f"{many:.3g}"),
            }
        )
    return lines
