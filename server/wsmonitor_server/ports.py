"""The seams of the server: what the connection side asks of the session side, and the reverse.

The session side (``engine`` and what it owns: authorities, directory, hub, store) knows sessions and
no sockets. The connection side (``app``, ``transport``, ``peer``, ``outbox``) knows sockets and no
sessions. Everything here is called on the server's one event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from wsmonitor.protocol.access import Claims
from wsmonitor.protocol.changes import Change, Unreadable
from wsmonitor.protocol.entities import Command, ErrorInfo
from wsmonitor.protocol.messages import (
    CommandReply,
    CommandRequest,
    Degraded,
    HistoryPage,
    Hold,
    LogsPage,
    Position,
    PublishOpen,
    PublishOpened,
    SyncBegin,
)

from .framing import Delivery
from .metrics import Value


class Clock(Protocol):
    """Where the time comes from."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970 UTC."""


class Refusal(Exception):
    """A request is refused: the answer that goes to the one who asked."""

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(info.message)
        self.info = info


class Subscriber(Protocol):
    """One connection's subscription to one topic, as the hub sees it. Implemented by the connection side."""

    claims: Claims
    name: str  # for the presence list
    instance: str  # one per process, so that two subscriptions of one process count once

    def tell(self, topic: str, seq: int, delivery: Delivery) -> None:
        """Send or queue committed events, the last of which is *seq*. All subscribers are given the same
        *delivery*. Must not raise and must not block."""

    def presence(self, topic: str, delivery: Delivery) -> None:
        """Send or queue who watches: one message, the same for all subscribers."""

    def removed(self, topic: str, reason: str) -> None: ...
    def reset(self, topic: str) -> None:
        """The topic's history was broken (new epoch): tell the client to subscribe again."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """A page of a sync as it is sent, the same bytes for all who ask for the same page.

    Attributes:
        chunks: joined frames, each with the number of frames in it.
        seq: None but with the last page: then the events up to it and ``synced`` follow the page, and the
            subscriber is attached and gets live events.
    """

    chunks: Sequence[tuple[bytes, int]]
    seq: int | None


class Sync(Protocol):
    """A running sync of one subscription: pages are pulled; nothing is queued meanwhile."""

    begin: SyncBegin

    def prepare(self, number: int) -> bool:
        """Work a short while at what page *number* needs. True: `pull` has all it needs."""

    def pull(self, number: int) -> Pulled:
        """Page *number*: the next one, or the one before again.

        Raises `Refusal`: another number (``unexpected_message``), or the sync was ended (``gone``).
        """

    def close(self) -> None:
        """Give up; nothing stays attached."""


class ProducerHandle(Protocol):
    """An open producer of one session on one connection."""

    session: str
    producer: str
    epoch: int

    async def publish(self, producer_epoch: int, first: int, changes: Sequence[Change | Unreadable]) -> None:
        """Take changes in order. Returns when they are queued for commit (this is the backpressure).

        What stands in the place of an unreadable change is rejected as that change.

        Acknowledgements and rejections arrive through the callbacks given at opening.
        Not to be called again before it returned. Raises `Refusal`: ``out_of_sequence`` (a change before
        these is missing), ``fenced``, or what `ProducerEvents.failed` told; nothing was taken then.
        """

    def publish_now(self, producer_epoch: int, first: int, changes: Sequence[Change | Unreadable]) -> bool:
        """`publish`, if nothing has to be waited for. False: it has, and nothing was taken.

        Not to be called while a `publish` is running.
        """

    def heard(self) -> None:
        """A frame arrived on the connection of which it was said that it is `ProducerEvents.silent`."""

    async def close(self, *, goodbye: bool) -> None:
        """The producer said goodbye, or (not *goodbye*) its connection went away."""


class ProducerEvents(Protocol):
    """What an open producer hears. Implemented by the connection side; must not raise, must not block."""

    def last_heard(self) -> float:
        """When anything arrived on the connection last (monotonic seconds).

        It is asked before a producer counts as silent, so that nobody need be told of each frame."""

    def silent(self) -> None:
        """A producer counts as silent: the next message is to be told to `ProducerHandle.heard`."""

    def acked(self, session: str, producer: str, accepted: int) -> None: ...
    def rejected(self, session: str, producer: str, number: int, error: ErrorInfo) -> None: ...
    def deliver(self, session: str, producer: str, command: Command) -> None: ...
    def held(self, session: str, producer: str, hold: Hold) -> None:
        """What is wanted of its work beneath something that another producer owns has changed."""

    def fenced(self, session: str, producer: str, *, removed: bool) -> None:
        """Another holder took over, or the session was *removed*: nothing more is taken from this one."""

    def failed(self, session: str, producer: str, error: ErrorInfo) -> None:
        """The store failed, and kept nothing after the last acknowledged change (protocol, rule 3).

        The handle is dead. The connection side tells the client (``error``, which names the
        producer), and the connection stays. The client opens the producer again with its backoff
        and sends again what was not acknowledged. Nothing is lost, and no store is hammered.
        """


class Engine(Protocol):
    """Everything that the connection side may ask of the session side.

    The caller has decided from the token's claims that the request is allowed *before* it asks
    (no look-up precedes the decision); the engine refuses for reasons of state only, with `Refusal`.
    """

    node: str
    """This server's id among those that share its store; "" where it is alone."""

    @property
    def epoch(self) -> str:
        """The store's history, as it goes on now."""

    async def start(self) -> None: ...
    async def stop(self) -> None:
        """Commit what was accepted, then close the store."""

    async def subscribe(
        self,
        topic: str,
        generation: int,
        resume: Position | None,
        subscriber: Subscriber,
    ) -> Sync:
        """Begin a sync of *topic* (replacing this subscriber's earlier one on it)."""

    def subscribe_at_once(
        self,
        topic: str,
        generation: int,
        resume: Position | None,
        subscriber: Subscriber,
    ) -> Sync | None:
        """`subscribe`, if nothing has to be waited for; None if something has."""

    def unsubscribe(self, topic: str, subscriber: Subscriber) -> None: ...

    def heads(self, topics: Sequence[str], patterns: tuple[str, ...] = ()) -> dict[str, tuple[str, int, str]]:
        """Topic to (epoch, committed seq, digest), for those that are in memory.

        A directory topic is another list for each set of token *patterns*: those of the subscriber's claims.
        """

    async def open_producer(
        self, message: PublishOpen, claims: Claims, events: ProducerEvents
    ) -> tuple[PublishOpened, ProducerHandle]:
        """Become the holder of a producer. Commands that wait for it are delivered in a later loop turn."""

    async def command(self, message: CommandRequest, claims: Claims) -> CommandReply: ...
    async def logs(self, session: str, step: str, first: int, limit: int, request: int) -> LogsPage: ...
    async def history(self, session: str, first: int, limit: int, request: int) -> HistoryPage: ...
    async def value_begin(self, session: str, sha256: str, total: int) -> int: ...
    async def value_write(self, session: str, sha256: str, total: int, offset: int, data: bytes) -> bool: ...
    async def value_read(
        self, session: str, sha256: str, offset: int, length: int
    ) -> tuple[bytes, int] | None: ...
    def value_bytes(self, sessions: Collection[str], uploads: Mapping[tuple[str, str], int]) -> int:
        """Bytes of the large values that *sessions* refer to, those of them that are in memory; and of
        *uploads* (session and SHA-256 to size) those to which nothing refers yet."""

    async def remove(self, session: str) -> None: ...
    async def revoke(self, jti: str, expires: int) -> None: ...

    def revoked(self, jti: str) -> bool: ...
    def on_revocation(self, callback: Callable[[str], None]) -> None:
        """Be told of each revoked jti, in the turn in which it comes into force."""

    @property
    def degraded(self) -> Degraded | None:
        """Why no changes are taken at present; None while they are."""

    @property
    def holding(self) -> bool:
        """Whether nothing of sessions may be sent now: one of several servers that cannot know what was
        revoked meanwhile. While it is so, nothing is taken either (``store_failed``)."""

    def on_degraded(self, callback: Callable[[], None]) -> None:
        """Be told when `degraded`, or `holding`, is another."""

    async def ready(self) -> None:
        """Raise when the server could not take a write now."""

    def status(self) -> dict[str, Any]:
        """Facts for ``wsmonitor status``: sessions, events, commits, store, pending commands …"""

    def measures(self) -> dict[str, Value]:
        """Figures by names of `figures.METRICS`."""

    def busy(self) -> bool:
        """Whether a command or an upload is pending (the idle exit waits for them)."""
