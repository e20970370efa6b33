"""The messages of ``wsmonitor.v1``: two closed unions of typed records.

JSON text messages, one object each; ``type`` names the record. A client ignores fields and
event kinds that it does not know; the server answers an unknown ``type`` with an error.

``request`` is a number that the client chooses; the reply, or the error, repeats it.
``topic`` is a session's id, or a directory topic (see ``ids``).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw

from .changes import Change
from .entities import Command, ErrorInfo, LogRecord, Record, Scalar
from .ids import Id, Key128, LaterTopic, Natural, OptionalId, SessionId, Sha256, Topic

Request = Natural
Count = Natural


class _Message(Record, frozen=True, kw_only=True, tag_field="type"):
    pass


class Position(Record, frozen=True, kw_only=True):
    """A place in one unbroken history: after event ``seq`` of ``epoch``.

    Epoch and seq are one value: they are stored, sent and compared as a pair. Example: a client
    that has applied events 1 to 41 of epoch ``7f3a…`` is at ``7f3a…:41``; the next event it
    can apply is 42 of the same epoch, and nothing else.
    """

    epoch: str
    seq: Count
    digest: str = ""


class Degraded(Record, frozen=True, kw_only=True):
    """Why the server takes no changes at present: what a session's state says then stands still.

    ``code`` is ``read_only`` (a full or read-only disk), or ``store_failed``; others may follow. ``reason``
    is for people; ``since`` the server's time, in nanoseconds UTC.
    """

    code: str
    reason: str = ""
    since: str = ""


# ------------------------------------------------------------------ client to server


class Hello(_Message, frozen=True, kw_only=True, tag="hello"):
    """The first message of a client."""

    major: Natural
    minor: Natural = 0
    agent: Annotated[str, Meta(max_length=256)] = ""  # program and version
    name: Annotated[str, Meta(max_length=128)] = ""  # what others see in the presence list
    instance: Annotated[str, Meta(max_length=64)] = ""  # one per process, so that presence counts people once


class Heartbeat(_Message, frozen=True, kw_only=True, tag="heartbeat"):
    """Life and time, in both directions; answered by ``heartbeat_ack`` with the same ``n``.

    The server's carries the heads that changed since the last one, topic to
    ``[epoch, seq, digest]``, in the order of the events around it: a subscriber that is behind
    has proof of a loss. ``degraded`` is there as long as it takes no changes; when that
    begins or ends, a heartbeat goes out at once.
    """

    n: Count
    time: str = ""  # nanoseconds UTC of the sender's clock
    heads: dict[str, tuple[str, Count, str]] = {}
    degraded: Degraded | None = None


class HeartbeatAck(_Message, frozen=True, kw_only=True, tag="heartbeat_ack"):
    """The answer to ``heartbeat``."""

    n: Count
    time: str = ""


class Refresh(_Message, frozen=True, kw_only=True, tag="refresh"):
    """A new token in place of the connection's current one; answered by ``refreshed``."""

    request: Request
    token: Annotated[str, Meta(max_length=16384)]

    def __repr__(self) -> str:
        # A token must not appear in a log or a traceback.
        return f"Refresh(request={self.request})"


class Subscribe(_Message, frozen=True, kw_only=True, tag="subscribe"):
    """Watch a topic. A subscription that exists is begun anew: this is how a client asks for a sync.

    ``generation`` is larger than that of any earlier subscribe to this topic on this connection;
    until the ``sync_begin`` with the same number, what arrives for the topic is dropped.
    """

    topic: Topic
    generation: Count
    resume: Position | None = None
    delivery: Literal["all", "latest"] = "all"
    interval_ms: Annotated[int, Meta(ge=50, le=60_000)] = 1000  # of ``batch``, with delivery "latest"


class SyncNext(_Message, frozen=True, kw_only=True, tag="sync_next"):
    """Pull page number ``page`` of a running sync."""

    topic: Topic
    generation: Count
    page: Count


class Unsubscribe(_Message, frozen=True, kw_only=True, tag="unsubscribe"):
    """Stop watching a topic."""

    topic: Topic


class PublishOpen(_Message, frozen=True, kw_only=True, tag="publish_open"):
    """Become the holder of a producer of a session; answered by ``publish_opened``.

    An existing producer id must belong to the token's subject. Opening it again raises its
    epoch and fences the holder before. ``holder`` is random, and the same for all openings of one
    process run; ``producer_epoch`` is the one under which it last held the producer, 0 when it never
    did. Who comes back after another holder has taken the producer over, or after the session was removed, is
    refused as ``fenced``; in the second case ``details`` has the ``reason`` ``removed``.
    """

    request: Request
    session: SessionId
    producer: Id
    agent: Annotated[str, Meta(max_length=256)] = ""
    holder: Annotated[str, Meta(max_length=64)] = ""
    producer_epoch: Count = 0


class Publish(_Message, frozen=True, kw_only=True, tag="publish"):
    """Changes ``first``, ``first + 1`` … of a producer; answered by ``ack`` after commit, or ``rejected``.

    The server reads the changes one by one: one that cannot be read is ``rejected`` alone, by its number.
    """

    session: SessionId
    producer: Id
    producer_epoch: Annotated[int, Meta(ge=1)]
    first: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    changes: Annotated[list[Change], Meta(min_length=1)]


class PublishClose(_Message, frozen=True, kw_only=True, tag="publish_close"):
    """The producer says goodbye: from here its silence is expected."""

    request: Request
    session: SessionId
    producer: Id
    producer_epoch: Natural


class ValuePut(_Message, frozen=True, kw_only=True, tag="value_put"):
    """Upload a page of a large value: base64 of the bytes from ``offset``; answered by ``value_ack``.

    The first page (offset 0, possibly empty data) asks how much is there: an upload that
    was broken off goes on at ``received``.
    """

    request: Request
    session: SessionId
    sha256: Sha256
    total: Count
    offset: Count
    data: str


class ValueGet(_Message, frozen=True, kw_only=True, tag="value_get"):
    """Read a page of a large value; answered by ``value_page`` or the error ``gone``."""

    request: Request
    session: SessionId
    sha256: Sha256
    offset: Count
    length: Annotated[int, Meta(ge=1)] = 262_144


class LogsGet(_Message, frozen=True, kw_only=True, tag="logs_get"):
    """Read log records of a step, from number ``first``; answered by ``logs_page``."""

    request: Request
    session: SessionId
    step: Id
    first: Annotated[int, Meta(ge=1)] = 1
    limit: Annotated[int, Meta(ge=1, le=1000)] = 256


class HistoryGet(_Message, frozen=True, kw_only=True, tag="history_get"):
    """Read kept events of a session, from ``first``; answered by ``history_page``."""

    request: Request
    session: SessionId
    first: Annotated[int, Meta(ge=1)] = 1
    limit: Annotated[int, Meta(ge=1, le=1000)] = 256


class CommandRequest(_Message, frozen=True, kw_only=True, tag="command"):
    """Ask a session's producer to do something; answered by ``command_reply`` once it is recorded.

    ``key`` makes it safe to send again: the same key is the same command.
    """

    request: Request
    session: SessionId
    key: Key128
    name: Id
    chain: OptionalId = ""
    step: OptionalId = ""
    args: dict[str, Scalar] = {}
    deadline_ms: Annotated[int, Meta(ge=1, le=86_400_000)] = 30_000
    via: Annotated[str, Meta(max_length=128)] = ""


class Remove(_Message, frozen=True, kw_only=True, tag="remove"):
    """Delete a session and everything kept for it (role ``admin``); answered by ``done``."""

    request: Request
    session: SessionId


class Revoke(_Message, frozen=True, kw_only=True, tag="revoke"):
    """Revoke a token by its ``jti`` (role ``admin``); answered by ``done`` once it is in force."""

    request: Request
    jti: Annotated[str, Meta(min_length=1, max_length=128)]
    expires: Count = 0  # seconds since 1970: after this the token has expired anyway


class StatusGet(_Message, frozen=True, kw_only=True, tag="status_get"):
    """Ask for the server's state; answered by ``status``."""

    request: Request


class Stop(_Message, frozen=True, kw_only=True, tag="stop"):
    """Ask the server to drain and stop (role ``admin``); answered by ``done``."""

    request: Request


ClientMessage = (
    Hello
    | Heartbeat
    | HeartbeatAck
    | Refresh
    | Subscribe
    | SyncNext
    | Unsubscribe
    | PublishOpen
    | Publish
    | PublishClose
    | ValuePut
    | ValueGet
    | LogsGet
    | HistoryGet
    | CommandRequest
    | Remove
    | Revoke
    | StatusGet
    | Stop
)


# ------------------------------------------------------------------ server to client


class Welcome(_Message, frozen=True, kw_only=True, tag="welcome"):
    """The answer to ``hello``: who the server is, and what it allows."""

    major: int
    minor: int
    server: str  # version
    instance: str  # one per server process
    epoch: str  # the store's
    subject: str
    role: str
    sessions: tuple[str, ...]  # the token's patterns
    expires: int  # the token's, in seconds since 1970
    time: str  # nanoseconds UTC
    heartbeat_interval: float
    heartbeat_timeout: float
    quiet_after: float
    page_size: int
    inline_value: int
    batch_changes: int
    batch_size: int
    message_size: int
    spread: float = 0.0  # seconds, to be added at random to the first reconnect delay
    degraded: Degraded | None = None  # as in ``heartbeat``


class Refreshed(_Message, frozen=True, kw_only=True, tag="refreshed"):
    """The new token is in force."""

    request: Request
    expires: int


class SyncBegin(_Message, frozen=True, kw_only=True, tag="sync_begin"):
    """A sync starts: pages of the state at ``base`` can be pulled with ``sync_next``.

    ``absent``: there is no such session yet; the state at seq 0 is empty, and the
    subscription goes live when it appears. ``reset`` says why an offered position was not
    resumed, and is empty when there is nothing to tell a person.
    """

    topic: Topic
    generation: Count
    epoch: str
    base: Count
    entities: Count = 0  # how many the pages will bring: for a progress display
    absent: bool = False
    reset: Literal["", "epoch", "ahead", "diverged"] = ""


class SyncPage(_Message, frozen=True, kw_only=True, tag="sync_page"):
    """One page. Entities and drops are put into the shadow replica; ``history`` is never reduced.

    ``base`` is the seq that the shadow will be at when the last page of this round is in. When
    a round is over and history no longer reaches back to it, the next round brings the
    entities that changed since, under a higher ``base``. ``last``: no more pages; the events after
    ``base`` and then ``synced`` follow by themselves.
    """

    topic: Topic
    generation: Count
    page: Count
    base: Count
    entities: list[tuple[str, Raw]] = []  # [kind, entity]
    drop: list[tuple[str, str]] = []  # [kind, id]
    history: list[Raw] = []  # event messages (old, first base], in order
    gap: tuple[Count, Count] | None = None  # [from, to]: seqs that history no longer has
    last: bool = False


class Synced(_Message, frozen=True, kw_only=True, tag="synced"):
    """The sync is complete at ``seq``: if the shadow's digest is ``digest``, it becomes the replica."""

    topic: Topic
    generation: Count
    seq: Count
    digest: str


class Event(_Message, frozen=True, kw_only=True, gc=False, tag="event"):
    """One thing that happened: the complete new state of the entity that it concerns.

    The very same bytes go to every subscriber, into history, and into the store.
    ``ts`` is the server's time, for display: it never orders anything.
    """

    topic: LaterTopic
    epoch: str
    seq: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    ts: str
    kind: str
    entity: Raw
    drop: list[tuple[str, str]] = []  # [kind, id] of entities that this event ends the keeping of
    note: str = ""  # for the audit, e.g. "crashed was superseded"


class Batch(_Message, frozen=True, kw_only=True, tag="batch"):
    """With delivery ``latest``: what changed after ``from_`` up to ``to``, each entity once."""

    topic: Topic
    epoch: str
    from_: Count = msgspec.field(name="from")
    to: Count
    ts: str
    entities: list[tuple[str, Raw]]
    drop: list[tuple[str, str]] = []
    digest: str


class Resync(_Message, frozen=True, kw_only=True, tag="resync"):
    """Live events of this topic were dropped for this connection: subscribe again."""

    topic: Topic
    reason: Literal["too_slow", "reset"]


class Removed(_Message, frozen=True, kw_only=True, tag="removed"):
    """The topic is no longer there for this connection; the subscription is over."""

    topic: Topic
    reason: Literal["removed", "not_available"]


class Presence(_Message, frozen=True, kw_only=True, tag="presence"):
    """Who watches this topic: at most one a second, unnumbered, outside the digest."""

    topic: Topic
    count: Count
    names: list[str]


class Hold(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a command to one producer's session, chain or step means for the other producers' work beneath it.

    ``chain`` or ``step`` names the target; without both it is the session.
    """

    chain: OptionalId = ""
    step: OptionalId = ""
    want: Literal["run", "pause", "cancel"] = "run"
    reason: str = ""


class PublishOpened(_Message, frozen=True, kw_only=True, tag="publish_opened"):
    """The producer is open: continue with change ``accepted + 1``."""

    request: Request
    session: SessionId
    producer: Id
    producer_epoch: int
    accepted: Count
    epoch: str  # the session's: a new one asks the producer to re-assert what it owns
    known: bool  # whether the session has anything of this producer
    holds: list[Hold] = []  # all that are in force; what is not named here may run


class HoldChanged(_Message, frozen=True, kw_only=True, tag="hold"):
    """A hold changed. For producers that do not own its target; nothing is answered."""

    session: SessionId
    producer: Id
    hold: Hold


class Ack(_Message, frozen=True, kw_only=True, tag="ack"):
    """All changes up to ``accepted`` are committed (or were rejected, and told so)."""

    session: SessionId
    producer: Id
    accepted: Count


class Rejected(_Message, frozen=True, kw_only=True, tag="rejected"):
    """One change was refused. It has used its number; this is final."""

    session: SessionId
    producer: Id
    number: Count
    error: ErrorInfo


class Fenced(_Message, frozen=True, kw_only=True, tag="fenced"):
    """The producer is no longer this connection's: what is sent on it is refused.

    ``reason``: another connection opened it (``taken``), or the session was ``removed``.
    """

    session: SessionId
    producer: Id
    reason: Literal["taken", "removed"] = "taken"


class Deliver(_Message, frozen=True, kw_only=True, tag="deliver"):
    """A command for the producer. It answers with ``command`` changes."""

    session: SessionId
    producer: Id
    command: Command


class ValueAck(_Message, frozen=True, kw_only=True, tag="value_ack"):
    """So many bytes of the upload are there; ``complete`` when its digest was verified."""

    request: Request
    received: Count
    complete: bool = False


class ValuePage(_Message, frozen=True, kw_only=True, tag="value_page"):
    """A page of a large value: base64 of the bytes from ``offset``."""

    request: Request
    sha256: Sha256
    offset: Count
    total: Count
    mime: str = ""
    data: str


class LogsPage(_Message, frozen=True, kw_only=True, tag="logs_page"):
    """Log records of a step. ``first_kept`` is the oldest number there still is."""

    request: Request
    records: list[LogRecord]
    first_kept: Count
    count: Count


class HistoryPage(_Message, frozen=True, kw_only=True, tag="history_page"):
    """Kept events, in order. ``first_kept`` is the oldest seq there still is."""

    request: Request
    events: list[Raw]
    first_kept: Count
    head: Count


class CommandReply(_Message, frozen=True, kw_only=True, tag="command_reply"):
    """The command is recorded (or was already): its record is in the session's state lane."""

    request: Request
    command: Command
    repeated: bool = False


class Done(_Message, frozen=True, kw_only=True, tag="done"):
    """The request was carried out."""

    request: Request


class Status(_Message, frozen=True, kw_only=True, tag="status"):
    """The server's state, for people and dashboards."""

    request: Request
    info: dict[str, Any]


class Error(_Message, frozen=True, kw_only=True, tag="error"):
    """A request failed (``request`` set), or something is wrong with the connection."""

    error: ErrorInfo
    request: Request | None = None


class Draining(_Message, frozen=True, kw_only=True, tag="draining"):
    """The server is stopping: the connection will be closed; reconnect after ``reconnect_ms``."""

    reconnect_ms: Count


ServerMessage = (
    Welcome
    | Heartbeat
    | HeartbeatAck
    | Refreshed
    | SyncBegin
    | SyncPage
    | Synced
    | Event
    | Batch
    | Resync
    | Removed
    | Presence
    | PublishOpened
    | Ack
    | Rejected
    | Fenced
    | Deliver
    | HoldChanged
    | ValueAck
    | ValuePage
    | LogsPage
    | HistoryPage
    | CommandReply
    | Done
    | Status
    | Error
    | Draining
)
