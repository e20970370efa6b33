"""What happens in a run: drawn from the seed before it begins, so that a trace can be read from the top.

A plan has a cast, a time of trouble with work and faults mixed, and then peace: everything is healed, and
what has to hold in the end is looked at.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

LOCAL: Final = frozenset({"lose power", "disk full", "disk error of unknown outcome", "slow disk"})
"""What happens to a server's own disk alone."""

LOSSES: Final = frozenset(
    {"Redis goes back", "Redis starts empty", "a replica takes over", "Redis is emptied"}
)
"""What takes data away that Redis had acknowledged."""

SHARED: Final[dict[str, float]] = {
    "cut a node off from Redis": 3.0,
    "a node does not hear Redis": 2.0,
    "Redis does not hear a node": 1.5,
    "reset a connection to Redis": 3.0,
    "Redis stands still": 1.5,
    "Redis is slow": 1.0,
    "Redis is full": 0.7,
    "Redis is killed": 1.5,
    "Redis dies at an effect": 2.0,
    "Redis goes back": 1.0,
    "Redis starts empty": 0.5,
    "Redis is emptied": 0.4,
    "a replica takes over": 1.2,
    "another replication id": 0.5,
    "messages are cut off": 1.5,
    "scripts are forgotten": 0.5,
}
"""What happens besides where several servers share a Redis."""

FAULTS: Final[dict[str, float]] = {
    "kill server": 3.0,
    "crash server at an effect": 3.0,
    "stop server": 1.5,
    "lose power": 1.0,
    "disk full": 1.0,
    "disk error of unknown outcome": 1.5,
    "slow disk": 0.7,
    "reset a connection": 3.0,
    "reset at a byte": 3.0,
    "half-open connection": 2.0,
    "stall a connection": 2.0,
    "partition an observer": 1.5,
    "partition a publisher": 1.0,
    "suspend an observer": 1.5,
    "suspend the server": 1.0,
    "suspend a publisher": 1.0,
    "wall clock jumps": 0.7,
    "kill a publisher": 1.0,
    "kill a program": 0.5,
    "a program ends": 0.5,
    "take a producer over": 0.7,
    "revoke a token": 1.0,
    "token provider fails": 0.7,
    "slow network": 0.7,
    "subscription churn": 3.0,
    "command": 4.0,
    "the same command again": 1.5,
    "burst": 2.0,
    "remove a session": 0.7,
    "watch the directory": 1.0,
}
"""What may happen besides work, and how often against the others."""


_BEGINNING: Final = 5.0  # seconds

DRAWN: Final = 1 / 25
"""The part of the seeds that have a Redis."""


@dataclass(frozen=True)
class Happening:
    """One thing that happens."""

    at: float
    what: str
    number: int  # a random number, to choose whom it meets
    length: float  # seconds, for what lasts


@dataclass
class Plan:
    """A run's cast and happenings."""

    seed: int
    sessions: int
    workers: int
    programs: int
    observers: int
    sqlite: bool
    power: bool  # whether acknowledged data may be taken away
    short_tokens: bool
    keep: bool  # whether producers keep on their disk what they cannot deliver
    fragment: float
    trouble: float  # seconds
    nodes: int = 0  # servers on one Redis; 0: one server on its own disk
    work: list[float] = field(default_factory=list)  # when somebody works
    happenings: list[Happening] = field(default_factory=list)

    def silence(self) -> None:
        """Let programs be silent but for the beginning: what is known of them is what others say."""
        self.work = [at for at in self.work if at < _BEGINNING]


def make_plan(seed: int, *, only: frozenset[str] | None = None, shared: bool | None = None) -> Plan:
    """The plan of *seed*.

    Args:
        only: what may happen; everything when it is None.
        shared: whether there is a Redis, and one to three servers; drawn from the seed when it is None.
    """
    rng = random.Random(f"plan {seed}")
    power = rng.random() < 0.25 or (only is not None and "lose power" in only)
    dice = random.Random(f"nodes {seed}")  # of its own: plans of one server stay what they were
    if shared if shared is not None else dice.random() < DRAWN:
        return _shared(seed, rng, dice, only)
    plan = Plan(
        seed,
        sessions=rng.randint(1, 3),
        workers=rng.choice((0, 0, 1)),
        programs=rng.choice((0, 1, 1, 2)),
        observers=rng.randint(1, 4),
        sqlite=rng.random() < 0.15,
        power=power,
        short_tokens=rng.random() < 0.3,
        keep=rng.random() < 0.4,
        fragment=rng.choice((0.0, 0.1, 0.5)),
        trouble=rng.choice((20.0, 40.0, 80.0)),
    )
    kinds = [kind for kind in FAULTS if (power or kind != "lose power") and (only is None or kind in only)]
    # Each run has its favourites, so that rare things also meet each other.
    chosen = rng.sample(kinds, k=min(len(kinds), rng.randint(3, 9)))
    return _filled(plan, rng, chosen, busy=only is not None)


def _shared(seed: int, rng: random.Random, dice: random.Random, only: frozenset[str] | None) -> Plan:
    """Several servers on one Redis."""
    lossy = dice.random() < 0.4 or (only is not None and bool(only & LOSSES))
    plan = Plan(
        seed,
        sessions=rng.randint(1, 2),
        workers=rng.choice((0, 1, 2)),  # who publish into the sessions of others, at other servers
        programs=rng.choice((0, 1, 1)),
        observers=rng.randint(1, 4),
        sqlite=False,
        power=lossy,
        short_tokens=rng.random() < 0.3,
        keep=rng.random() < 0.4,
        fragment=rng.choice((0.0, 0.1, 0.5)),
        trouble=rng.choice((20.0, 40.0, 60.0)),
        nodes=dice.choice((1, 2, 2, 2, 3)),
    )
    here = [kind for kind in SHARED if (lossy or kind not in LOSSES) and (only is None or kind in only)]
    rest = [kind for kind in FAULTS if kind not in LOCAL and (only is None or kind in only)]
    chosen = rng.sample(here, k=min(len(here), rng.randint(2, 5)))
    chosen += rng.sample(rest, k=min(len(rest), rng.randint(1, 6)))
    _filled(plan, rng, chosen, busy=only is not None)
    if dice.random() < 0.2:
        plan.silence()
    return plan


def _filled(plan: Plan, rng: random.Random, chosen: list[str], *, busy: bool) -> Plan:
    """*plan*, with work, and with happenings of the *chosen* kinds; more of them when it is *busy*."""
    weights = {**FAULTS, **SHARED}
    # A plan that is after something has more of it.
    for _ in range(rng.randint(4, 16) * (3 if busy else 1)):
        plan.happenings.append(
            Happening(
                rng.uniform(1.0, plan.trouble),
                rng.choices(chosen, [weights[kind] for kind in chosen])[0],
                rng.getrandbits(31),
                rng.choice((0.5, 2.0, 8.0, 20.0, 50.0)),
            )
        )
    plan.happenings.sort(key=lambda happening: happening.at)
    plan.work = sorted(rng.uniform(0.2, plan.trouble) for _ in range(rng.randint(30, 150)))
    return plan


Happen = Callable[[Happening], None]
