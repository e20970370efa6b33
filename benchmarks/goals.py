"""The goals for speed, each with what was measured of it: made from the kept results alone."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .results import FOLDER, rows

NAME: Final = "goals"
OURS: Final = "wsmonitor"
SQLITE: Final = "wsmonitor, SQLite"
BARE: Final = "websockets broadcast()"
BROKERS: Final = ("NATS", "Mosquitto")


class Missing(Exception):
    """A row that a goal needs has not been measured."""


@dataclass(frozen=True)
class Goal:
    """*measured* gives the figure, which has to be at least, or at most, *limit*; *besides* is for people."""

    what: str
    limit: float
    at_least: bool
    unit: str
    measured: Callable[[Results], float]
    besides: Callable[[Results], str] = lambda results: ""


class Results:
    """The kept rows, by what a goal asks for. All methods raise `Missing`."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder

    def fanout(self, scene: str, load: str, server: str, column: str) -> float:
        for row in rows("fanout", self._folder):
            if (row["observers"], row["load"], row["server"]) == (scene, load, server):
                return float(row[column])
        raise Missing

    def ratio(self, scene: str, load: str, server: str, other: str, column: str = "deliveries/s") -> float:
        return self.fanout(scene, load, server, column) / self.fanout(scene, load, other, column)

    def share(self, scene: str, load: str, server: str) -> float:
        """What others had of both cores meanwhile, 0 to 1."""
        for row in rows("fanout", self._folder):
            if (row["observers"], row["load"], row["server"]) == (scene, load, server):
                return float(row["others'"].rstrip("%")) / 100
        raise Missing

    def cpu(self, scene: str, load: str, server: str) -> float:
        return sum(self.fanout(scene, load, server, column) for column in ("user µs", "kernel µs"))

    def median(self, name: str, column: str, **where: object) -> float:
        found = [
            float(row[column])
            for row in rows(name, self._folder)
            if all(row.get(key) == value for key, value in where.items())
        ]
        if not found:
            raise Missing
        return float(statistics.median(found))

    def beside(self, what: str) -> float:
        """The others' p99 beside a heavy reader, to that without: the median of the rounds' ratios."""
        found = rows("neighbours", self._folder)
        alone = [row["others' p99 ms"] for row in found if row["beside"] == "nothing"]
        with_it = [row["others' p99 ms"] for row in found if what in row["beside"]]
        if not alone or len(alone) != len(with_it):
            raise Missing
        return float(statistics.median(one / other for one, other in zip(with_it, alone, strict=True)))


def _median(name: str, column: str, **where: object) -> Callable[[Results], float]:
    return lambda results: results.median(name, column, **where)


def _burst(scene: str, load: str, other: str, server: str = OURS) -> Callable[[Results], float]:
    return lambda results: results.ratio(scene, load, server, other)


def _by_cost(scene: str, load: str, other: str, server: str = OURS) -> Callable[[Results], str]:
    """The same ratio by processor time, which a busy machine disturbs less; and how busy it was."""

    def told(results: Results) -> str:
        ratio = results.cpu(scene, load, other) / results.cpu(scene, load, server)
        return f"by processor time {number(ratio)} ×; {_disturbed(scene, load, server, other)(results)}"

    return told


def _disturbed(scene: str, load: str, *servers: str) -> Callable[[Results], str]:
    def told(results: Results) -> str:
        most = max(results.share(scene, load, server) for server in servers)
        return f"others had {most:.0%} of the cores"

    return told


def _ratio(what: str, limit: float, scene: str, load: str, other: str, server: str = OURS) -> Goal:
    """A goal for deliveries a second, to those of another server."""
    measured, besides = _burst(scene, load, other, server), _by_cost(scene, load, other, server)
    return Goal(what, limit, at_least=True, unit="×", measured=measured, besides=besides)


def _paced(other: str) -> Callable[[Results], float]:
    return lambda results: results.ratio("1000", _PACED, OURS, other, "p99 ms")


def _each(name: str, column: str, one: dict[str, Any], other: dict[str, Any]) -> Callable[[Results], float]:
    return lambda results: results.median(name, column, **one) / results.median(name, column, **other)


def _storm_by_cost(other: str) -> Callable[[Results], str]:
    ratio = _each("storm", "server's CPU s", {"server": OURS}, {"server": other})
    return lambda results: f"by processor time {number(ratio(results))} ×"


def _handshakes_by_cost(one: tuple[str, int], other: tuple[str, int]) -> Callable[[Results], str]:
    def told(results: Results) -> str:
        costs = [
            results.median("connections", "CPU µs", server=server, held=held) for server, held in (other, one)
        ]
        return f"by processor time {number(costs[0] / costs[1])} ×"

    return told


def _client_by_cost(what: str) -> Callable[[Results], str]:
    def told(results: Results) -> str:
        cost = results.median("apply", "CPU µs", what=what)
        return f"{number(1e6 / cost)} in a second of processor time"

    return told


def _flat(results: Results) -> float:
    costs = [
        results.median("publish", "CPU µs", server=OURS, load=f"single changes, {count:,} sessions")
        for count in (10, 10_000)
    ]
    return costs[1] / costs[0]


def _backlog(results: Results) -> float:
    """The worst of the sizes of event."""
    return max(results.median("backlog", "known at KB", server=OURS, event=size) for size in (500, 16_384))


_BURST: Final = "20 under way"
_ONE: Final = "1 under way"
_PACED: Final = "paced 20,000/s"
_CLIENT: Final = "median"

GOALS: Final = (
    _ratio("burst of 20, 1,000 observers: to broadcast()", 10, "1000", _BURST, BARE),
    _ratio("burst of 20, 1,000 observers: to NATS", 1.2, "1000", _BURST, "NATS"),
    _ratio("burst of 20, 5,000 observers: to NATS", 2, "5000", _BURST, "NATS"),
    _ratio("burst of 20, 100 observers: to NATS", 0.9, "100", _BURST, "NATS"),
    _ratio("one event under way, 1,000: to broadcast()", 1.2, "1000", _ONE, BARE),
    _ratio("one event under way, 1,000: to picows", 0.95, "1000", _ONE, "picows"),
    Goal(
        "one event under way: CPU of a delivery to the floor's",
        1.15,
        False,
        "×",
        lambda results: results.cpu("1000", _ONE, OURS) / results.cpu("1000", _ONE, "floor"),
        _disturbed("1000", _ONE, OURS, "floor"),
    ),
    Goal(
        "one event under way: user part of a delivery",
        0.6,
        False,
        "µs",
        lambda results: results.fanout("1000", _ONE, OURS, "user µs"),
        _disturbed("1000", _ONE, OURS),
    ),
    Goal(
        "paced 20,000/s, 1,000 observers: p99 to the floor's",
        1.25,
        False,
        "×",
        _paced("floor"),
        _disturbed("1000", _PACED, OURS, "floor"),
    ),
    *(
        Goal(
            f"paced 20,000/s, 1,000 observers: p99 to that of {broker}",
            1,
            False,
            "×",
            _paced(broker),
            _disturbed("1000", _PACED, OURS, broker),
        )
        for broker in BROKERS
    ),
    Goal(
        "300,000/s offered to 100: p99",
        3,
        False,
        "ms",
        lambda results: results.fanout("100", "paced 300,000/s", OURS, "p99 ms"),
        _disturbed("100", "paced 300,000/s", OURS),
    ),
    _ratio("SQLite, burst of 20, 1,000: to memory", 0.9, "1000", _BURST, OURS, SQLITE),
    _ratio("SQLite, one under way, 1,000: to memory", 0.9, "1000", _ONE, OURS, SQLITE),
    Goal(
        "200 sessions × 10 observers, 20 under way: to broadcast()",
        1,
        True,
        "×",
        _burst("200x10", _BURST, BARE),
    ),
    Goal("cost of an event with 10,000 sessions to that with 10", 1.1, False, "×", _flat),
    Goal(
        "SQLite, arrays of 256",
        30_000,
        True,
        "changes/s",
        _median("publish", "changes/s", server=SQLITE, load="arrays of 256, 4 under way"),
    ),
    Goal(
        "SQLite, 5,000 single changes/s: p99 of the acknowledgement",
        20,
        False,
        "ms",
        _median("publish", "p99 ms", server=SQLITE, load="5,000 single changes/s"),
    ),
    Goal(
        "idle observer, 5,000 held",
        18,
        False,
        "KB",
        _median("connections", "KB each", server=OURS, held=5000),
    ),
    Goal("10,000 connections", 210, False, "MB", _median("connections", "MB", server=OURS, held=10_000)),
    Goal(
        "handshakes with JWT, first 1,000: to the bare library",
        0.5,
        True,
        "×",
        _each("connections", "handshakes/s", {"server": OURS, "held": 1000}, {"server": BARE, "held": 1000}),
        _handshakes_by_cost((OURS, 1000), (BARE, 1000)),
    ),
    Goal(
        "handshakes at 9,000 held to those at 1,000",
        0.85,
        True,
        "×",
        _each("connections", "handshakes/s", {"server": OURS, "held": 9000}, {"server": OURS, "held": 1000}),
        _handshakes_by_cost((OURS, 9000), (OURS, 1000)),
    ),
    Goal(
        "storm, 1,000 × 100 KB: to bare websockets",
        1.3,
        False,
        "×",
        _each("storm", "seconds", {"server": OURS}, {"server": BARE}),
        _storm_by_cost(BARE),
    ),
    Goal(
        "storm, 1,000 × 100 KB: to Socket.IO",
        0.5,
        False,
        "×",
        _each("storm", "seconds", {"server": OURS}, {"server": "Socket.IO"}),
        _storm_by_cost("Socket.IO"),
    ),
    Goal("a reader stops: known when so much waits", 256, False, "KB", _backlog),
    Goal("a stalled reader: the others' p99", 1.1, False, "×", lambda results: results.beside("stopped")),
    Goal(
        "a session of 50,000 steps: first page",
        50,
        False,
        "ms",
        _median("neighbours", "value", beside="a session of 50,000 steps is read"),
    ),
    Goal("… the others' p99", 1.1, False, "×", lambda results: results.beside("50,000 steps")),
    Goal(
        "a value of 100 MB: to the bare library",
        0.5,
        True,
        "×",
        _median("neighbours", "value", beside="a value of 100 MB is read"),
    ),
    Goal("… the others' p99", 1.1, False, "×", lambda results: results.beside("100 MB")),
    Goal(
        "client, from payloads",
        200_000,
        True,
        "events/s",
        _median("apply", _CLIENT, what="payloads"),
        _client_by_cost("payloads"),
    ),
    Goal(
        "client, through a socket",
        100_000,
        True,
        "events/s",
        _median("apply", _CLIENT, what="socket"),
        _client_by_cost("socket"),
    ),
    Goal(
        "client with 100 sessions at rest", 0.5, False, "% of a core", _median("apply", _CLIENT, what="rest")
    ),
    Goal("`import wsmonitor`", 60, False, "ms", _median("start", "median ms", what="import wsmonitor")),
    Goal(
        "server to listening",
        400,
        False,
        "ms",
        _median("start", "median ms", what="server to listening, memory"),
    ),
)


def number(value: float) -> str:
    """Three digits, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(goals: Iterable[Goal] = GOALS, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """A row for each goal. What was not measured is told so."""
    results = Results(folder)
    lines = []
    for goal in goals:
        sign = "≥" if goal.at_least else "≤"
        try:
            value = goal.measured(results)
        except Missing:
            measured, reached, besides = "not measured yet", "", ""
        else:
            besides = goal.besides(results)
            measured = f"{number(value)} {goal.unit}"
            met = value >= goal.limit if goal.at_least else value <= goal.limit
            reached = "yes" if met else "no"
        lines.append(
            {
                "what": goal.what,
                "goal": f"{sign} {number(goal.limit)} {goal.unit}",
                "measured": measured,
                "reached": reached,
                "besides": besides,
            }
        )
    return lines


WHY: Final[dict[str, str]] = {
    "burst of 20, 100 observers: to NATS": (
        "NATS passes bytes on, in compiled code; two thirds of our processor time for a delivery are "
        "here what the event costs once (checked, merged, hashed, committed, acknowledged), shared by "
        "a hundred observers only. Changes that are taken at once in place of a task for each, and "
        "deadlines that are looked at once a turn, brought it here from 0.74; single runs are on both "
        "sides of the goal."
    ),
    "one event under way, 1,000: to picows": (
        "picows does nothing for a frame but send it, in compiled code. Frames are made once and "
        "written past the queue and past asyncio's transport; what is left is the loop over "
        "observers and the call of `write`, which is most of it. It was 0.45; medians of whole runs "
        "are between 0.84 and 0.98, each server's own rounds up to a third apart."
    ),
    "one event under way: CPU of a delivery to the floor's": (
        "the floor is a C program that does nothing but send. Between two calls of the kernel our "
        "loop runs 2.4 µs of Python, and each call takes the kernel up to a µs longer than it takes "
        "for the C program, whose working set is smaller. Only several events in one write cost "
        "less: with 40 under way a delivery is at 0.40 µs."
    ),
    "one event under way: user part of a delivery": (
        "one call of Python is left of fourteen, and the frame goes to `os.write` past asyncio's "
        "transport. The rest is that call, and reading the few objects of each connection from memory "
        "that is in no near cache: one function with the whole loop took no less, nor does uvloop (see "
        "below)."
    ),
    "paced 20,000/s, 1,000 observers: p99 to the floor's": (
        "an event's last observer gets it when a thousand have been written to, one after the other, "
        "so it is the cost of a delivery again (see above). It is better than both brokers'."
    ),
    "300,000/s offered to 100: p99": (
        "3,000 events a second, each by itself, take a third of a core before anybody is written "
        "to, and what comes meanwhile waits. Single runs are on both sides of the goal; on uvloop "
        "it was 3.08 ms in this run, and 3.83 ms at NATS, which is no slower otherwise."
    ),
    "SQLite, burst of 20, 1,000: to memory": (
        "a commit is a thread's work, and the way there and back costs the same however fast the "
        "rest is: the ratio falls as memory gains (18 × `broadcast()` before, 24 × now), while "
        "SQLite itself went from 1,148 to some 1,400 thousand deliveries a second."
    ),
    "SQLite, one under way, 1,000: to memory": (
        "one event under way waits for its commit, which is a thread's work, and all that time nobody "
        "is written to. From 69 to 106 thousand deliveries a second; memory gained more."
    ),
    "200 sessions × 10 observers, 20 under way: to broadcast()": (
        "`broadcast()` passes a frame on. Here each event is a change of another session, which is "
        "read, checked, merged, hashed, committed and acknowledged: some 70 to 100 µs, shared by "
        "ten observers only. It was 0.43; with 200 under way it is nearer to one (see below). What "
        "was done: no task for a change, deadlines once a turn, events as tuples, writing past the "
        "queue, nothing counted anew that a change leaves as it was (340 calls of Python in place "
        "of 450)."
    ),
    "cost of an event with 10,000 sessions to that with 10": (
        "the server's own work is 3 to 5 % more by the profile; what is left is memory that is in "
        "no cache, because a session was touched 10,000 events ago ([decision "
        "0014](decisions/0014-what-a-join-costs.md)). It was 1.26; single runs are from 1.08 to "
        "1.48."
    ),
    "handshakes with JWT, first 1,000: to the bare library": (
        "a new token is 60 µs of PyJWT, and a join has a hello besides the handshake. It is on both "
        "sides of the goal: 0.562 in the run before, by processor time 0.51 in this one. Verifying "
        "without PyJWT would leave it behind, and was not kept ([decision "
        "0014](decisions/0014-what-a-join-costs.md))."
    ),
    "handshakes at 9,000 held to those at 1,000": (
        "what is left is the kernel's and the caches', with more sockets: the bare library's own "
        "ratio is 0.57 in the same run, by processor time 0.56 ([below](#connections))."
    ),
    "storm, 1,000 × 100 KB: to bare websockets": (
        "the bare library sends one frame to whoever asks; ours verifies a token, greets, subscribes "
        "and pages, and what came is compared by digest. One serialisation for all, no task for a "
        "join, two writes in place of four brought it here from 2.2 ([decision "
        "0014](decisions/0014-what-a-join-costs.md))."
    ),
    "SQLite, arrays of 256": (
        "28,700 to 36,500 in the runs of one day on this machine, with the code before and after "
        "measured alike in turns (30,000 to 32,800 and 29,700 to 31,700): on both sides of the goal."
    ),
}
"""Of the goals that are not reached: what stands in the way, what was tried, and where the floor is."""


def reasons(judged: Iterable[dict[str, Any]]) -> str:
    """Of each row of *judged* that is not reached, why."""
    missed = [row for row in judged if row["reached"] == "no"]
    return "".join(
        f"- **{row['what']}**, {row['measured']} of {row['goal']}: {WHY.get(row['what'], 'not known.')}\n"
        for row in missed
    )
