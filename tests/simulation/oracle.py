"""The invariants of the architecture, by name, over what the simulated world really did.

The oracle sees three things: what the disk has made last (the truth), what observers and publishers were
told, and the bytes that leave the server. It keeps a model of its own (every committed event, and the state
that the reducer makes of them), so that the server's word is never its own witness.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec

from wsmonitor.client.types import (
    BatchApplied,
    EventApplied,
    EventsReplayed,
    GapFound,
    PhaseChanged,
    SyncCompleted,
    Update,
)
from wsmonitor.protocol.codec import decode_event
from wsmonitor.protocol.entities import Step
from wsmonitor.protocol.errors import StateError
from wsmonitor.protocol.messages import Event
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.stores.base import Commit

from .lines import Line, Seen

if TYPE_CHECKING:
    from .actors import Observer, Publisher
    from .network import Endpoint
    from .server_host import ServerHost
    from .world import Process, World

INVARIANTS: Final = (
    "ORDER",
    "GAPLESS",
    "ONCE",
    "MONOTONE",
    "AGREE",
    "ISOLATED",
    "DURABLE",
    "BOUNDED",
    "CLEAN",
    "HONEST",
    "HARMLESS",
    "EXPIRED",
)

HEARTBEAT_INTERVAL: Final = 15.0
HEARTBEAT_TIMEOUT: Final = 35.0
PROBE: Final = 5.0
"""Seconds for which a client that thinks that it has slept waits for an answer."""

SLACK: Final = 2.0

STALE: Final = 60.0
"""Seconds after which a view that calls itself live shows what is committed: a heartbeat's timeout, an
interval in which the heads are told, and what a sync may take."""

_REMOVED: Final = "it was removed"
"""What the client says of a session that the server says is removed."""


class Violation(AssertionError):
    """An invariant does not hold."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text)
        self.name = name
        self.text = text

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


class Oracle:
    """Checks a world.

    Args:
        world: whose ``failed`` and ``after_step`` are taken.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.violation: Violation | None = None
        self.lines: dict[str, Line] = {}
        self.seen: list[Seen] = []
        self.counts: Counter[str] = Counter()
        self.removals: set[str] = set()  # sessions that somebody has removed
        self.executed: Counter[str] = Counter()  # command id to executions
        self.revoked: dict[str, float] = {}  # jti to when that was acknowledged
        self.secrets: dict[str, bytes] = {}  # session to words that occur in its content alone
        self.connections: list[tuple[Process, Any]] = []  # clients' connections, for HONEST
        self.servers: list[ServerHost] = []
        self.lineage = 0  # how often what is kept went back
        self._resumed: dict[str, float] = {}
        self._jumped: dict[str, float] = {}
        self._next_look = 0.0
        world.failed = self.fail
        world.after_step = self.after_step
        world.network.wrote = self.wrote

    def fail(self, name: str, text: str) -> NoReturn:
        """Say that an invariant is broken; ends the run, also if the code catches this."""
        if self.violation is None:
            self.violation = Violation(name, text)
        raise Violation(name, text)

    # -- the disk

    def line(self, session: str) -> Line | None:
        """What is committed of *session*, if there is any."""
        return self.lines.get(session)

    def committed(self, commits: Sequence[Commit]) -> None:
        """These have become durable, at this moment."""
        for commit in commits:
            line = self.lines.get(commit.session)
            if line is None:
                line = self.lines[commit.session] = Line(SessionState(commit.session, commit.epoch, 0))
            if line.removed is not None and line.state.seq == 0:
                self.counts["sessions begun anew"] += 1
                if commit.epoch == line.state.epoch:
                    self.fail("MONOTONE", f"{commit.session} goes on in {commit.epoch} after it was removed")
            if 0.0 < line.epochs.get(commit.epoch, 0.0) <= self.world.now:
                self.fail(
                    "MONOTONE",
                    f"{commit.session} goes on in {commit.epoch}, which a possible loss has ended",
                )
            if line.state.epoch != commit.epoch:
                line.state.epoch = commit.epoch
                line.record()
                self.counts["epochs begun"] += 1
            if commit.expected_head != line.state.seq:
                self.fail(
                    "DURABLE",
                    f"{commit.session}: a commit on top of {commit.expected_head}, "
                    f"while {line.state.seq} is what was committed",
                )
            for seq, data in commit.events:
                event = decode_event(data)
                if event.seq != seq:
                    self.fail("ORDER", f"{commit.session}: event {event.seq} was stored as {seq}")
                try:
                    entity = line.state.apply(event)
                except StateError as exc:
                    self.fail("ORDER", f"{commit.session}: {exc}")
                line.events[event.epoch, seq] = event
                line.times[event.epoch, seq] = self.world.now
                line.record()
                self.counts["events committed"] += 1
                if isinstance(entity, Step):
                    self._mark(line, entity)
            for _, record in commit.logs:
                line.logs[record.text] += 1
                if line.logs[record.text] > 1:
                    self.fail("ONCE", f"{commit.session}: the log line {record.text!r} was applied twice")

    def removed(self, session: str) -> None:
        """A session is deleted, at this moment."""
        self.removals.add(session)
        old = self.lines.get(session)
        if old is not None:
            self.counts["sessions removed"] += 1
            line = self.lines[session] = Line(SessionState(session, old.state.epoch, 0))
            # What observers have seen of it stays true of its epochs.
            line.events, line.digests = old.events, old.digests
            line.times, line.epochs = old.times, old.epochs
            line.removed = self.world.now

    def _mark(self, line: Line, step: Step) -> None:
        mark = step.metrics.get("mark")
        if mark is None:
            return
        key = (step.producer, step.id)
        before = line.marks.get(key, -1.0)
        if mark < before:
            self.fail(
                "ORDER", f"{line.state.topic}: step {step.id} went from its change {before} back to {mark}"
            )
        line.marks[key] = mark
        line.present.add((step.id, mark))

    def power_lost(self, states: dict[str, SessionState], what: str = "power losses") -> None:
        """The disk, or Redis, went back: *states* is what it has now."""
        self.counts[what] += 1
        for session in list(self.lines):
            state = states.get(session)
            old = self.lines[session]
            line = self.lines[session] = Line(state or SessionState(session, old.state.epoch, 0))
            # What observers have seen of the old epochs stays true of them.
            line.events, line.digests = old.events, old.digests
            line.times, line.epochs = old.times, old.epochs
            if state is None:
                line.removed = old.removed
                continue
            line.record()
            for entity in state.entities["step"].values():
                assert isinstance(entity, Step)
                if "mark" in entity.metrics:
                    line.marks[entity.producer, entity.id] = entity.metrics["mark"]
                    line.present.add((entity.id, entity.metrics["mark"]))
        self.lineage += 1

    def epochs_end(self, after: float = 0.0) -> None:
        """What is kept may have lost something: *after* so many seconds no history goes on under its name."""
        for line in self.lines.values():
            for epoch, ended in line.epochs.items():
                line.epochs[epoch] = ended or self.world.now + after

    def revocations_lost(self, kept: set[str]) -> None:
        """The store has these left. A server that lives and knows of others tells it again, which takes it a
        moment; what no server knows is gone."""
        for jti in set(self.revoked) - kept:
            known = any(
                host.running and host.engine is not None and host.engine.revoked(jti) for host in self.servers
            )
            if known:
                self.revoked[jti] = math.inf
            else:
                del self.revoked[jti]

    def revocation_kept(self, jti: str) -> None:
        """The store has it, again."""
        if self.revoked.get(jti) == math.inf:
            self.revoked[jti] = self.world.now

    # -- publishers

    def acknowledged(
        self, publisher: Publisher, session: str, step: str, mark: float, *, superseded: bool
    ) -> None:
        """A publisher was told that its change is committed.

        *superseded*: it asserted the step anew since, which stands for what was waiting.
        """
        self.counts["changes acknowledged"] += 1
        line = self.lines.get(session)
        if line is not None and line.removed is not None:
            return  # it was there: the answer was under way when all of it was removed
        if line is not None and superseded:
            there = line.marks.get((publisher.producer, step), -1.0) >= mark
        else:
            there = line is not None and (step, mark) in line.present
        if not there:
            self.fail(
                "DURABLE",
                f"{publisher.name} was told that change {mark:g} of {session}/{step} is committed; it is not",
            )

    def log_acknowledged(self, publisher: Publisher, session: str, text: str) -> None:
        """A publisher was told that its log line is committed."""
        line = self.lines.get(session)
        if line is not None and line.removed is not None:
            return
        if line is None or line.logs[text] != 1:
            self.fail("DURABLE", f"{publisher.name} was told that {text!r} is committed; it is not")

    def execute(self, who: str, command: str) -> None:
        """A command is executed."""
        self.executed[command] += 1
        self.counts["commands executed"] += 1
        if self.executed[command] > 1:
            self.fail("ONCE", f"{who} executes the command {command} again")

    def told_removed(self, who: str, session: str) -> None:
        """Somebody was told that the session was removed."""
        if session not in self.removals:
            self.fail("HONEST", f"{who} was told that {session} was removed, which nobody has done")

    # -- observers

    def watch(self, observer: Observer, topic: str, delivery: str) -> Seen:
        """A subscription begins."""
        seen = Seen(observer.name, topic, delivery, observer=observer)
        self.seen.append(seen)
        return seen

    def told(self, seen: Seen, observer: Observer, update: Update) -> None:
        """A subscription's listener is called."""
        if seen.closed:
            self.fail("CLEAN", f"{seen.who} hears of {seen.topic} after it was closed: {update}")
        name = f"{seen.who} of {seen.topic}"
        match update:
            case EventApplied(event):
                self.counts["events applied"] += 1
                seen.events += 1
                if event.epoch != seen.epoch:
                    self.fail("MONOTONE", f"{name}: an event of {event.epoch} within {seen.epoch}")
                if event.seq <= seen.told:
                    self.fail("ONCE", f"{name}: event {event.seq} after {seen.told}")
                if event.seq != seen.told + 1:
                    self.fail("GAPLESS", f"{name}: event {event.seq} after {seen.told}")
                seen.told = event.seq
                self._true(name, event)
                state = observer.state_of(seen)
                if state is not None and state.seq < event.seq:
                    self.fail("ORDER", f"{name}: told of {event.seq} before it was applied: at {state.seq}")
                self._agree(name, seen, observer)
            case EventsReplayed(events):
                for event in events:
                    self.counts["events replayed"] += 1
                    if event.seq <= seen.told:
                        self.fail("ONCE", f"{name}: event {event.seq} replayed after {seen.told}")
                    if event.seq != seen.told + 1:
                        self.fail("GAPLESS", f"{name}: event {event.seq} replayed after {seen.told}")
                    seen.told = event.seq
                    self._true(name, event)
            case GapFound(first, last):
                self.counts["gaps told"] += 1
                if first != seen.told + 1 or last < first:
                    self.fail("GAPLESS", f"{name}: a gap of {first} to {last} after {seen.told}")
                seen.told = last
            case SyncCompleted(epoch, seq, previous, reset):
                self._synced(name, seen, epoch, seq, previous, reset)
                self._agree(name, seen, observer)
            case BatchApplied(seq):
                self.counts["batches applied"] += 1
                if seq <= seen.told:
                    self.fail("MONOTONE", f"{name}: a batch up to {seq} after {seen.told}")
                seen.told = seq
                self._agree(name, seen, observer)
            case PhaseChanged():
                if update.reason == _REMOVED and not seen.topic.startswith("/"):
                    self.told_removed(name, seen.topic)

    def _synced(
        self, name: str, seen: Seen, epoch: str, seq: int, previous: tuple[str, int] | None, reset: str
    ) -> None:
        self.counts["syncs"] += 1
        if seen.told >= 0:
            if previous is not None and not reset:
                if epoch != seen.epoch:
                    self.fail("MONOTONE", f"{name}: {epoch} follows {seen.epoch} without a word")
                if seq < seen.told:
                    self.fail("MONOTONE", f"{name}: back from {seen.told} to {seq}")
                if seq != seen.told and seen.delivery == "all":
                    self.fail("GAPLESS", f"{name}: {seen.told + 1} to {seq} were neither told nor a gap")
            if reset:
                self.counts[f"resets ({reset})"] += 1
                if reset in ("ahead", "diverged") and epoch == seen.epoch:
                    self.fail(
                        "HONEST", f"{name}: had {seen.told}, which the server never committed ({reset})"
                    )
        seen.epoch, seen.told = epoch, seq

    def _true(self, name: str, event: Event) -> None:
        if event.topic.startswith("/"):
            return  # the directory is made of all sessions, and has no line of its own
        line = self.lines.get(event.topic)
        kept = None if line is None else line.events.get((event.epoch, event.seq))
        if kept is None:
            self.fail("HONEST", f"{name}: event {event.epoch}:{event.seq} is not committed")
        elif bytes(kept.entity) != bytes(event.entity) or kept.kind != event.kind:
            self.fail("AGREE", f"{name}: event {event.seq} is not the one that was committed")

    def _agree(self, name: str, seen: Seen, observer: Observer) -> None:
        state = observer.state_of(seen)
        if state is None or seen.topic.startswith("/"):
            return
        line = self.lines.get(seen.topic)
        if line is None:
            if state.seq:
                self.fail("AGREE", f"{name}: shows {state.seq} of a session that is not there")
            return
        wanted = line.digests.get((state.epoch, state.seq))
        if wanted is not None and wanted != state.digest:
            self.fail("AGREE", f"{name}: the digest at {state.epoch}:{state.seq} differs from the committed")
        if wanted is None and state.seq and not line.opens(state.epoch, state.seq, state.digest):
            self.fail("HONEST", f"{name}: shows {state.epoch}:{state.seq}, which was never committed")

    # -- the wire

    def wrote(self, endpoint: Endpoint, data: bytes) -> None:
        """Bytes leave a program."""
        self.counts["bytes written"] += len(data)
        peer = getattr(getattr(endpoint.protocol, "_handler", None), "peer", None)
        if peer is None or data[:1] != b"\x81":
            return
        claims = peer.credential.claims
        process = endpoint.process
        if process.wall() >= claims.exp:
            self.fail("EXPIRED", f"{endpoint.name}: a frame {process.wall() - claims.exp:.3f} s after expiry")
        since = self.revoked.get(claims.jti)
        if since is not None and self.world.now > since + 1.0 and not self._says_only_why(data):
            self.fail("EXPIRED", f"{endpoint.name}: a frame {self.world.now - since:.3f} s after revocation")
        if _OUT_OF_SEQUENCE in data:
            self.fail("ORDER", f"{endpoint.name}: a program is refused as out of order, and sends in order")
        for session, secret in self.secrets.items():
            if secret not in data:
                continue
            if not any(_covers(pattern, session) for pattern in claims.sessions):
                self.fail("ISOLATED", f"{endpoint.name}: content of {session}, outside {claims.sessions}")
            topics = peer.subscriptions
            if session not in topics and not any(topic.startswith("/") for topic in topics):
                self.fail("ISOLATED", f"{endpoint.name}: content of {session}, which it does not watch")

    def _says_only_why(self, data: bytes) -> bool:
        """Whether a server says that it has lost touch, and nothing else: it cannot know of a revocation."""
        return len(self.servers) > 1 and all(
            message["type"] in _OF_NO_SESSION and not message.get("heads") for message in _messages(data)
        )

    # -- every step

    def after_step(self, process: Process | None) -> None:
        """Called by the world after every callback."""
        if self.violation is not None:
            raise Violation(self.violation.name, self.violation.text)
        if self.world.now >= self._next_look:
            self._next_look = self.world.now + 0.5
            self.look()

    def jumped(self, process: Process) -> None:
        """Its wall clock: it may take that for a sleep, and give the server a little more time to answer."""
        self._jumped[process.name] = self.world.now

    def resumed(self, process: Process) -> None:
        """What it shows may be old until it has looked at its clock."""
        self._resumed[process.name] = self.world.now

    def look(self) -> None:
        """What has to hold at any time."""
        for process, shared in self.connections:
            if not process.alive or process.suspended:
                continue
            link = shared.core.link
            if link.status.phase != "live" or link.last_frame is None:
                continue
            silent = process.monotonic() - link.last_frame
            awake = self.world.now - self._resumed.get(process.name, -1e9)
            allowed = HEARTBEAT_TIMEOUT + SLACK
            if self.world.now - self._jumped.get(process.name, -1e9) < HEARTBEAT_INTERVAL + PROBE:
                allowed += PROBE
            if silent > allowed and awake > allowed:
                self.fail("HONEST", f"{process.name} shows a live link after {silent:.1f} s of silence")
        for seen in self.seen:
            self._current(seen)
        for host in self.servers:
            if host.running:
                self._bounded(host)

    def _current(self, seen: Seen) -> None:
        """Who calls itself live shows what was committed a while ago."""
        observer = seen.observer
        line = self.lines.get(seen.topic)
        if observer is None or line is None or seen.closed or not observer.shows_live(seen):
            return
        state = observer.state_of(seen)
        awake = self.world.now - self._resumed.get(observer.process.name, -1e9)
        if state is None or awake <= STALE:
            return
        since = line.epochs.get(state.epoch) or line.times.get((state.epoch, state.seq + 1))
        if since and self.world.now > since + STALE:
            self.fail(
                "HONEST",
                f"{seen.who} calls {seen.topic} live at {state.epoch}:{state.seq}, which was over "
                f"{self.world.now - since:.1f} s ago",
            )

    def _bounded(self, host: ServerHost) -> None:
        server = host.server
        assert server is not None
        limits = server.limits
        for peer in server.peers:
            box = peer.outbox
            if box.state_size > limits.outbox_size + limits.event_size + 4096:
                self.fail("BOUNDED", f"{peer.ident}: {box.state_size:,} bytes of events are queued")
            if box.control_waiting > limits.outbox_size + limits.message_size:
                self.fail("BOUNDED", f"{peer.ident}: {box.control_waiting:,} bytes of replies are queued")
            if len(peer.subscriptions) > limits.subscriptions:
                self.fail("BOUNDED", f"{peer.ident}: {len(peer.subscriptions)} subscriptions")


_OUT_OF_SEQUENCE: Final = b"the next change is number"
"""Of the refusal of changes; the pages of an upload have the same code."""

_OF_NO_SESSION: Final = frozenset({"welcome", "heartbeat", "heartbeat_ack", "error"})


def _messages(frames: bytes) -> Iterator[dict[str, Any]]:
    """The messages in what a server has written: whole frames, without masks."""
    at = 0
    while at < len(frames):
        size, start = frames[at + 1], at + 2
        if size >= 126:
            wide = 2 if size == 126 else 8
            size, start = int.from_bytes(frames[start : start + wide]), start + wide
        at = start + size
        if frames[start : start + 1] == b"{":
            yield msgspec.json.decode(frames[start:at])


def _covers(pattern: str, session: str) -> bool:
    """Whether a token's pattern covers *session*: the oracle's own reading of the rule."""
    start, star, _ = pattern.partition("*")
    return session.startswith(start) if star else session == pattern
