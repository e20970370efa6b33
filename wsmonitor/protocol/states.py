"""The state machines of sessions, chains, steps, commands and producers, as tables.

Two facts are kept apart. *State* is written by the producer only: what its program says that
it does. *Liveness* is written by the server only: whether the producer is heard. The single
exception is ``crashed``, which the server writes when a producer stayed lost beyond the grace
time; and because the server can be wrong about that, ``crashed`` alone may be superseded, by
the same producer.

A table maps each state to the states that may follow. What is not in the table raises and
changes nothing. An entity may be *created* in any state: spans and records can arrive when
they are already finished.

The diagrams in ``docs/reference/states.md`` are generated from these tables.
"""

from __future__ import annotations

from typing import Final, Literal

State = Literal[
    "pending",
    "running",
    "paused",
    "awaiting_input",
    "cancelling",
    "cancelled",
    "succeeded",
    "failed",
    "skipped",
    "crashed",
]
Liveness = Literal["live", "stale", "lost"]
CommandState = Literal["requested", "delivered", "accepted", "applied", "rejected", "expired", "unknown"]

_ENDS: Final = frozenset({"succeeded", "failed", "cancelled", "skipped"})
_ACTIVE: Final = frozenset({"running", "paused", "awaiting_input", "cancelling"})

# `crashed` follows from every non-terminal state, but by the server's hand alone: see `may_follow`.
TRANSITIONS: Final[dict[str, frozenset[str]]] = {
    "pending": _ACTIVE | _ENDS,
    "running": (_ACTIVE | _ENDS) - {"running"},
    "paused": (_ACTIVE | _ENDS) - {"paused", "skipped"},
    "awaiting_input": (_ACTIVE | _ENDS) - {"awaiting_input"},
    # A cancelling step may still succeed or fail: a state write is not a stop.
    "cancelling": frozenset({"cancelled", "succeeded", "failed"}),
    "cancelled": frozenset(),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "skipped": frozenset(),
    "crashed": _ACTIVE | _ENDS,
}

TERMINAL: Final = frozenset({"succeeded", "failed", "cancelled", "skipped", "crashed"})
"""States in which nothing more is expected. All but ``crashed`` are final."""

COMMAND_TRANSITIONS: Final[dict[str, frozenset[str]]] = {
    "requested": frozenset({"delivered", "accepted", "rejected", "expired", "unknown"}),
    "delivered": frozenset({"accepted", "rejected", "expired", "unknown"}),
    # Once accepted it may have run: it never expires, it is applied, rejected, or not known.
    "accepted": frozenset({"applied", "rejected", "unknown"}),
    "applied": frozenset(),
    "rejected": frozenset(),
    "expired": frozenset(),
    "unknown": frozenset(),
}

COMMAND_TERMINAL: Final = frozenset({"applied", "rejected", "expired", "unknown"})

LIVENESS_TRANSITIONS: Final[dict[str, frozenset[str]]] = {
    "live": frozenset({"stale", "lost"}),
    "stale": frozenset({"live", "lost"}),
    "lost": frozenset({"live"}),
}


def may_follow(old: str, new: str, *, by_server: bool = False) -> bool:
    """Whether an entity in state *old* may be put into state *new* by its producer (or by the server).

    Staying in the same state is always allowed: a change need not touch the state.
    """
    if new == old:
        return True
    if by_server:
        return new == "crashed" and old not in TERMINAL
    return new in TRANSITIONS.get(old, frozenset())


def command_may_follow(old: str, new: str) -> bool:
    """Whether a command record in state *old* may go to *new*."""
    return new in COMMAND_TRANSITIONS.get(old, frozenset())
