"""What nodes that share one store tell each other, and what such a store must do beyond `base.Store`.

Every commit is told on the bus after it was made, in the order in which they were made, to every node,
the one that made it included. A node that has missed something is told so (`Lost`), and reads from the
store what it lacks before it tells anybody anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from wsmonitor.protocol.entities import Listing

from .base import ProducerPosition, Store

People = tuple[tuple[str, str], ...]
"""Who watches at one node: ``(instance, name)`` for each program."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit was made.

    Attributes:
        epoch: of the session from this commit on.
        version: of the session after it.
        head: the seq before the first of its events, or of the head where there are none.
        events: encoded, in order.
        producers: the positions that it moved.
        released: SHA-256 of values that the session no longer keeps.
        retired: how many finished commands it moved out of the state.
        listing: the session's line in the directory; None while there is no session entity.
        attention: as `base.Commit.attention`.
        node: who made it.
    """

    session: str
    epoch: str
    version: int
    head: int
    events: tuple[bytes, ...] = ()
    producers: Mapping[str, ProducerPosition] = field(default_factory=dict)
    released: frozenset[str] = frozenset()
    retired: int = 0
    listing: Listing | None = None
    attention: bool = False
    node: str = ""


@dataclass(frozen=True, slots=True)
class SessionRemoved:
    """A session was removed, ``at`` in nanoseconds UTC."""

    session: str
    at: int
    node: str


@dataclass(frozen=True, slots=True)
class TokenRevoked:
    """A token was revoked; ``expires`` as `base.Store.revoke` has it."""

    jti: str
    expires: int


@dataclass(frozen=True, slots=True)
class Watching:
    """Who watches a session at one node has changed."""

    session: str
    node: str
    people: People


@dataclass(frozen=True, slots=True)
class NodeGone:
    """A node has not renewed its sign of life, or said goodbye."""

    node: str


@dataclass(frozen=True, slots=True)
class WardenChanged:
    """Whether this node is from now on the one that watches over what nobody else does."""

    mine: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """Messages were missed: nothing that was learnt from the bus can be relied on."""


@dataclass(frozen=True, slots=True)
class Regenerated:
    """The store is another, or may have lost what it had: every session goes on under a new epoch."""

    epoch: str


Message = Committed | SessionRemoved | TokenRevoked | Watching | NodeGone | WardenChanged | Lost | Regenerated


class Shared(Store, Protocol):
    """A store that several nodes share.

    `base.Store.commit` compares `base.Commit.version`; `load` gives a new epoch, the same to all nodes, to a
    session that is from before a loss (`Regenerated`).
    """

    node: str
    """This node's id: random, one per process run."""

    def listen(self, tell: Callable[[Message], None]) -> None:
        """Have *tell* called on the loop for every message, from `open` on until `close`. Before `open`."""

    def sure(self) -> float:
        """Until when (monotonic seconds) nothing was missed: when the last answered look began."""

    def trouble(self) -> str:
        """Why messages do not come at present, in words for clients; "" while they do."""

    async def missed(self, session: str, version: int) -> list[Committed] | None:
        """The commits after *version*, in order; None where they are no longer kept one by one."""

    async def nodes(self) -> frozenset[str]:
        """The ids of the nodes that are alive, this one included."""

    async def watching(self, session: str) -> dict[str, People]:
        """Who watches the session, by node; of nodes that are alive, this one left out."""

    async def tell_watching(self, session: str, people: People) -> None:
        """Say who watches the session here."""
