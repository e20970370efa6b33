"""The authority of one session: the one place that turns an accepted change into the next event.

It has two heads. The *tail* is what is numbered; the *head* is what is committed. A change is
judged against the tail (an overlay of entities that are not committed yet over the head's state),
becomes the next complete entity, is encoded once, and waits in a `Batch`. Only when the store has
made the batch last does the head advance (`committed`), and only then is anything told to anybody.
When the store fails, everything behind the head is thrown away (`rollback`): the producers send
it again from the last acknowledged change.

::

    take changes ──> overlay, tail ──take_batch()──> store.commit ──committed()──> head, feed, acks
                          ^                              │
                          └────────── rollback() <───────┘ failed

Rules for changes (protocol, rule 11): exactly the next number of the producer is accepted; a
rejected change uses its number, is reported, and is final; an entity is written only by the
producer that created it. After a session has ended, nothing may begin in it: what exists may still
be finished, logs, errors and command records may come, and an entity may be created
in a terminal state (a record that arrives late, or is asserted again after a new epoch).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from msgspec.json import Decoder
from msgspec.structs import replace

from wsmonitor.protocol.changes import (
    ChainChange,
    Change,
    CommandChange,
    LogChange,
    ProblemChange,
    SessionChange,
    SkippedChange,
    StepChange,
    Unreadable,
)
from wsmonitor.protocol.codec import decode_event, encode, encode_record
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.digest import entity_hash, to_hex
from wsmonitor.protocol.entities import (
    Chain,
    Command,
    Entity,
    ErrorInfo,
    Problem,
    Producer,
    Session,
    Step,
)
from wsmonitor.protocol.errors import CATALOGUE, ProtocolError
from wsmonitor.protocol.messages import Event
from wsmonitor.protocol.reducer import SessionState, decode_entity
from wsmonitor.protocol.states import TERMINAL, command_may_follow, may_follow

from .facts import Facts
from .hub import Feed, Numbered
from .merge import ENTITY_KIND, Rejection, Work, WorkChange, context_of, merge, uploads_of
from .stores.base import Commit, ProducerPosition

_decode_command = Decoder(Command).decode

_LOG_LAST = 256  # characters of the last log line that a step carries
_LOG_TEXT = 4096  # characters of a log record
_CRASH_AT_ONCE = 2_000  # entities that are declared crashed within one turn of the loop
_TRIM_STEP = 256  # events that may lie behind the kept history before the store is told to forget them


@dataclass(slots=True)
class Batch:
    """What one commit makes last, and what is to be told when it has.

    Attributes:
        acks: producer to the last number that this batch takes.
        rejections: (producer, number, error), told after the events and before the acknowledgements.
        size: bytes of the events; ``entity_bytes``: of all entities behind them.
        end: the seq behind which the next batch begins.
    """

    commit: Commit
    events: list[Numbered] = field(default_factory=list)
    acks: dict[str, int] = field(default_factory=dict)
    rejections: list[tuple[str, int, ErrorInfo]] = field(default_factory=list)
    size: int = 0
    entity_bytes: int = 0

    @property
    def end(self) -> int:
        return self.commit.expected_head + len(self.events)


class Authority:
    """See the module's text. Pure: time comes as an argument, and the store is somebody else's.

    Attributes:
        feed: the committed head; `committed` advances it.
        facts: what is counted, at the tail.
        tail: the seq of the last numbered event.
    """

    def __init__(
        self,
        feed: Feed,
        producers: dict[str, ProducerPosition],
        limits: Limits,
        *,
        values: Collection[str] = (),
        size: int = 0,
        retired: int = 0,
        node: str = "",
    ) -> None:
        self.session = feed.topic
        self._node = node
        self.feed = feed
        self.limits = limits
        self.positions = dict(producers)
        self._retired = retired  # committed commands whose records were dropped
        # What is not committed yet: the seq that wrote (or dropped) it, and the entity.
        self._overlay: dict[tuple[str, str], tuple[int, Entity | None]] = {}
        # What each of these adds to the digest, and the digest at the tail as a number.
        self._numbers: dict[tuple[str, str], int] = {}
        self._digest = int(feed.state.digest, 16)
        self._tail_positions: dict[str, ProducerPosition] = {}
        self._batch: Batch | None = None
        self._in_flight: list[Batch] = []
        self._store_first = feed.first_kept
        self.tail = feed.state.seq
        self.facts = Facts(feed.state, size)
        self._head_bytes = size  # of the entities at the head
        # Values that nothing refers to any more, and since which seqs: the last one may be taken back.
        self._released = {one: [self.tail] for one in values if one not in self.facts.references}

    # -- reading the tail

    @property
    def epoch(self) -> str:
        return self.feed.state.epoch

    @property
    def uncommitted(self) -> bool:
        return self._batch is not None or bool(self._in_flight)

    @property
    def committing(self) -> bool:
        """Whether a batch is being committed."""
        return bool(self._in_flight)

    @property
    def open(self) -> bool:
        """Whether a batch is being filled (and not only one being committed)."""
        return self._batch is not None

    @property
    def open_size(self) -> int:
        """Bytes of the events that wait for the next commit."""
        return 0 if self._batch is None else self._batch.size

    def get(self, kind: str, ident: str) -> Entity | None:
        """An entity at the tail."""
        written = self._overlay.get((kind, ident))
        if written is not None:
            return written[1]
        return self.feed.state.entities[kind].get(ident)

    def work(self, kind: str, ident: str) -> Work | None:
        """A session, chain or step at the tail."""
        entity = self.get(kind, ident)
        return entity if isinstance(entity, Session | Chain | Step) else None

    def position(self, producer: str) -> ProducerPosition | None:
        """A producer's position at the tail."""
        return self._tail_positions.get(producer) or self.positions.get(producer)

    @property
    def size(self) -> int:
        """Bytes kept for the session: entities, history, large values."""
        return self.facts.entity_bytes + self.facts.value_bytes + self.feed.history_size

    @property
    def over(self) -> bool:
        """Whether the session has ended for good (``crashed`` is not for good)."""
        session = self.facts.session
        return session is not None and session.state in TERMINAL and session.state != "crashed"

    def owned_open(self, producer: str, limit: int | None = None) -> list[tuple[str, Work]]:
        """What of *producer* is not in a terminal state, at the tail: the session, and *limit* others."""
        keys = self.facts.open_of.get(producer, {})
        first = ("session", self.session)
        chosen = [first] if first in keys else []
        chosen += islice((key for key in keys if key != first), limit)
        return [(kind, entity) for kind, ident in chosen if (entity := self.work(kind, ident)) is not None]

    def missing_uploads(self, changes: Sequence[Change | Unreadable]) -> set[str]:
        """SHA-256 of large values that *changes* refer to and that the session does not refer to yet."""
        return {
            sha256
            for change in changes
            if isinstance(change, SessionChange | ChainChange | StepChange)
            for sha256 in uploads_of(change)
            if sha256 not in self.facts.references
        }

    # -- producers

    def open_producer(
        self, producer: str, subject: str, agent: str, now_ns: int, *, holder: str = "", held: int = 0
    ) -> Producer:
        """A holder opens *producer*: its epoch is raised, which fences the holder before.

        Args:
            holder: who opens it; "" for anybody.
            held: the epoch under which this holder held it last; 0 when it never did.

        Raises:
            Rejection: it belongs to another subject, there are too many, or another holder has taken it over
                since this one held it.
        """
        position = self.position(producer)
        if position is None:
            if len(self.positions.keys() | self._tail_positions.keys()) >= self.limits.producers:
                raise Rejection("limit_exceeded", f"a session may have {self.limits.producers} producers")
            position = ProducerPosition(producer, subject, 0, 0)
        elif position.subject != subject:
            raise Rejection("forbidden", "this producer id belongs to another subject")
        elif held > 0 and self._taken_since(position, holder, held):
            # Its numbers and the other's mean different changes: what it has left must not be taken for the
            # other's, nor be acknowledged in its place.
            raise Rejection("fenced", "another holder opened this producer since")
        if position.epoch and position.holder != holder:
            self.abandon_commands(producer, "another process has taken its producer over", now_ns)
        position = ProducerPosition(
            producer, subject, position.epoch + 1, position.accepted, holder, self._node
        )
        now = str(now_ns)
        entity = Producer(
            id=producer,
            subject=subject,
            agent=agent,
            epoch=position.epoch,
            since=now,
            seq=self.tail + 1,
        )
        self._write("producer", entity, now)
        self._move(position)
        return entity

    @staticmethod
    def _taken_since(position: ProducerPosition, holder: str, held: int) -> bool:
        """Whether another than *holder* has it now, whose last epoch was *held*."""
        if position.holder == holder or held > position.epoch:
            return False
        # The same epoch in two hands: the session was removed, and begun anew by the other.
        return held < position.epoch or bool(holder and position.holder)

    def owns_crashed(self, producer: str) -> bool:
        """Whether something of *producer* was declared crashed."""
        return self.facts.crashed_of[producer] > 0

    def set_liveness(self, producer: str, liveness: str, now_ns: int, *, closed: bool | None = None) -> None:
        """The server's word on a producer: how it is heard, and whether it said goodbye."""
        old = self.get("producer", producer)
        if not isinstance(old, Producer):
            return
        shut = old.closed if closed is None else closed
        if old.liveness != liveness or old.closed != shut:
            now = str(now_ns)
            new = replace(old, liveness=liveness, closed=shut, since=now, seq=self.tail + 1)
            self._write("producer", new, now)

    def crash(self, producer: str, now_ns: int) -> int:
        """*producer* stayed lost: what it left open is ``crashed``, what it accepted is ``unknown``.

        Of very much that it left open, a part: the caller comes again when that is committed.

        Returns how many entities that were.
        """
        now = str(now_ns)
        reason = "its producer was lost"
        lost = self.owned_open(producer, _CRASH_AT_ONCE)
        for kind, entity in lost:
            assert may_follow(entity.state, "crashed", by_server=True)
            new = replace(entity, state="crashed", reason=reason, ended=now, seq=self.tail + 1)
            self._write(kind, new, now, note=f"crashed: producer {producer} was lost")
        self.abandon_commands(producer, reason, now_ns)
        return len(lost)

    def abandon_commands(self, producer: str, reason: str, now_ns: int) -> None:
        """Who accepted commands as *producer* will not say what became of them: they are ``unknown``."""
        for command in [one for one in self.facts.pending.values() if one.state == "accepted"]:
            if self.target(command) == producer:
                self.end_command(command, "unknown", reason, now_ns)

    # -- changes

    def publish(
        self,
        producer: str,
        first: int,
        changes: Sequence[Change | Unreadable],
        now_ns: int,
        *,
        run: int = 0,
        uploaded: Collection[str] = (),
    ) -> int:
        """Take changes ``first``, ``first + 1`` … of an open producer.

        What was taken before is passed over (it was sent again); it is acknowledged with the rest.

        Args:
            run: the run number for a session that is created here.
            uploaded: SHA-256 of those `missing_uploads` that the store has.

        Returns:
            the number of the last change that is taken now.

        Raises:
            Rejection: ``out_of_sequence``: a change before these is missing; nothing was taken.
        """
        position = self.position(producer)
        assert position is not None
        if first > position.accepted + 1:
            raise Rejection(
                "out_of_sequence", f"the next change is number {position.accepted + 1}, not {first}"
            )
        number, accepted = first, position.accepted
        for change in changes:
            # Behind a `skipped` that is refused, nothing was dropped.
            last = change.last if isinstance(change, SkippedChange) and _fits(change, number) else number
            if last > accepted:
                try:
                    self._take(producer, number, change, now_ns, run, uploaded)
                except Rejection as rejection:
                    self._reject(producer, number, change, rejection)
                accepted = last
            number = last + 1
        self._move(position.at(accepted))
        return accepted

    def _take(
        self,
        producer: str,
        number: int,
        change: Change | Unreadable,
        now_ns: int,
        run: int,
        uploaded: Collection[str],
    ) -> None:
        now = str(now_ns)
        match change:
            case Unreadable():
                raise Rejection(change.code, change.message)
            case SessionChange() | ChainChange() | StepChange():
                self._take_work(producer, change, now, run, uploaded)
            case LogChange():
                self._take_log(producer, change, now)
            case CommandChange():
                self._take_command(producer, change, now)
            case ProblemChange():
                self._take_problem(producer, change, now)
            case _:
                self._take_skipped(producer, number, change, now)

    def _take_work(
        self, producer: str, change: WorkChange, now: str, run: int, uploaded: Collection[str]
    ) -> None:
        kind = ENTITY_KIND[type(change)]
        ident = self.session if isinstance(change, SessionChange) else change.id
        old = self.work(kind, ident)
        if old is None and kind == "step" and self.facts.step_count >= self.limits.steps:
            raise Rejection("limit_exceeded", f"a session may have {self.limits.steps:,} steps")
        missing = [
            sha for sha in uploads_of(change) if sha not in uploaded and sha not in self.facts.references
        ]
        if missing:
            raise Rejection("value_missing", f"the value {missing[0]} was not uploaded")
        merged = merge(
            old,
            ident,
            change,
            producer,
            seq=self.tail + 1,
            now=now,
            run=run,
            session_over=kind != "session" and self.over,
            inline=self.limits.inline_value,
        )
        if merged is not None:
            self._write(kind, merged[0], now, note=merged[1], bounded=True)

    def _take_log(self, producer: str, change: LogChange, now: str) -> None:
        step = self.get("step", change.step)
        if not isinstance(step, Step):
            raise Rejection("bad_message", f"there is no step {change.step!r} to log to")
        if step.producer != producer:
            raise Rejection("not_owner", f"step {step.id!r} was created by another producer")
        numbered = [
            replace(
                record,
                n=step.log_count + index,
                text=record.text[:_LOG_TEXT],
                truncated=record.truncated or len(record.text) > _LOG_TEXT,
            )
            for index, record in enumerate(change.records, 1)
        ]
        new = replace(
            step,
            log_count=numbered[-1].n,
            log_last=numbered[-1].text[:_LOG_LAST],
            seq=self.tail + 1,
        )
        self._write("step", new, now, bounded=True)
        self._open_batch().commit.logs.extend((step.id, record) for record in numbered)

    def _take_command(self, producer: str, change: CommandChange, now: str) -> None:
        command = self.get("command", change.id)
        if not isinstance(command, Command):
            raise Rejection("bad_message", f"there is no command {change.id}")
        if self.target(command) != producer:
            raise Rejection("not_owner", f"command {change.id} was not for this producer")
        if command.state == change.state:
            return  # told twice: the answer to a command that was delivered twice
        if not command_may_follow(command.state, change.state):
            raise Rejection(
                "illegal_transition", f"command {change.id} is {command.state}; {change.state} cannot follow"
            )
        if change.state in ("delivered", "accepted"):
            new = replace(command, state=change.state, reason=change.reason, seq=self.tail + 1)
            new = replace(new, **{change.state: now})
            self._write("command", new, now)
        else:
            self.end_command(command, change.state, change.reason, int(now))

    def _take_problem(self, producer: str, change: ProblemChange, now: str) -> None:
        old = self.get("error", change.id)
        if isinstance(old, Problem) and old.producer != producer:
            raise Rejection("not_owner", f"error {change.id!r} was reported by another producer")
        self.add_problem(
            Problem(
                id=change.id,
                code=change.code,
                message=change.message,
                severity=change.severity,
                chain=change.chain,
                step=change.step,
                producer=producer,
                at=now,
            ),
            now,
        )

    def _take_skipped(self, producer: str, number: int, change: SkippedChange, now: str) -> None:
        if not _fits(change, number):
            raise Rejection("bad_message", "a `skipped` that does not fit its own number")
        self.add_problem(
            Problem(
                id=f"skipped-{number}-{producer}"[:128].rstrip(),
                code="skipped",
                message=f"the publishing program dropped {change.count:,} changes: its spool was full",
                severity="warning",
                producer=producer,
                at=now,
            ),
            now,
        )

    def _reject(self, producer: str, number: int, change: Change | Unreadable, rejection: Rejection) -> None:
        error = ErrorInfo(
            code=rejection.code,
            message=rejection.message,
            retryable=CATALOGUE[rejection.code].retryable,
            session=self.session,
            **context_of(change),  # type: ignore[arg-type]  # the record's string fields
        )
        self._open_batch().rejections.append((producer, number, error))

    # -- what the server writes

    def add_problem(self, problem: Problem, now: str) -> None:
        """Write *problem*; the oldest one beyond the limit is dropped with the same event."""
        drops: list[tuple[str, str]] = []
        if problem.id not in self.facts.problems and len(self.facts.problems) >= self.limits.problems:
            drops.append(("error", next(iter(self.facts.problems))))
        self._write("error", replace(problem, seq=self.tail + 1), now, drops=drops, bounded=True)

    def target(self, command: Command) -> str:
        """The producer that a command is for: the owner of what it names."""
        for kind, ident in (("step", command.step), ("chain", command.chain)):
            if ident and (entity := self.work(kind, ident)) is not None:
                return entity.producer
        session = self.work("session", self.session)
        return "" if session is None else session.producer

    def add_command(self, command: Command, now_ns: int) -> Command:
        """Write the record of a new command."""
        new = replace(command, seq=self.tail + 1)
        self._write("command", new, str(now_ns))
        return new

    def end_command(self, command: Command, state: str, reason: str, now_ns: int) -> None:
        """Bring a command to its end; the same event drops the oldest ended one beyond the limit."""
        drops: list[tuple[str, str]] = []
        oldest: Entity | None = None
        if len(self.facts.finished) >= self.limits.commands:
            drops.append(("command", next(iter(self.facts.finished))))
            oldest = self.get(*drops[0])
        now = str(now_ns)
        new = replace(command, state=state, reason=reason, ended=now, seq=self.tail + 1)
        self._write("command", new, now, drops=drops)
        if oldest is not None:
            self._open_batch().commit.retired[oldest.id] = bytes(encode_record(oldest))

    def command(self, key: str) -> Command | None:
        """The command with this key, if its record is at the tail, or on its way out of the state."""
        known = self.get("command", key)
        if isinstance(known, Command):
            return known
        for batch in self._uncommitted():
            if (data := batch.commit.retired.get(key)) is not None:
                return _decode_command(data)
        return None

    @property
    def retired(self) -> int:
        """How many commands there were whose records the state no longer has."""
        return self._retired + sum(len(batch.commit.retired) for batch in self._uncommitted())

    def _uncommitted(self) -> list[Batch]:
        return self._in_flight if self._batch is None else [*self._in_flight, self._batch]

    # -- numbering

    def _open_batch(self) -> Batch:
        if self._batch is None:
            self._batch = Batch(Commit(self.session, self.epoch, self.tail))
        return self._batch

    def touch(self) -> None:
        """Have a batch even without events: so that the store learns of a new epoch."""
        self._open_batch()

    def _move(self, position: ProducerPosition) -> None:
        batch = self._open_batch()
        self._tail_positions[position.producer] = position
        batch.commit.producers[position.producer] = position
        batch.acks[position.producer] = position.accepted

    def _write(
        self,
        kind: str,
        entity: Entity,
        now: str,
        *,
        drops: Sequence[tuple[str, str]] = (),
        note: str = "",
        bounded: bool = False,
    ) -> None:
        """Number *entity* (which carries the tail's next seq) as the next event.

        ``bounded``: refuse it with ``event_too_large`` beyond the limit. What the server itself writes
        adds a few bytes to what was accepted, and is never refused.
        """
        seq = self.tail + 1
        raw = encode_record(entity)
        encoded = encode(
            Event(
                topic=self.session,
                epoch=self.epoch,
                seq=seq,
                ts=now,
                kind=kind,
                entity=raw,
                drop=list(drops),
                note=note,
            )
        )
        if bounded and len(encoded) > self.limits.event_size:
            raise Rejection(
                "event_too_large",
                f"{kind} {entity.id!r} would make an event of {len(encoded):,} bytes; "
                f"{self.limits.event_size:,} are allowed",
            )
        self._enter(Numbered(seq, encoded, kind, entity, tuple(drops), entity_hash(entity)), bytes(raw))

    def _enter(self, event: Numbered, raw: bytes) -> None:
        """*event* is the next at the tail; *raw* is its entity, encoded."""
        batch, key = self._open_batch(), (event.kind, event.entity.id)
        assert event.number is not None
        self._replace(*key, event.entity, len(raw))
        self._count(*key, event.number)
        for dropped_kind, ident in event.drops:
            self._replace(dropped_kind, ident, None, 0)
            self._count(dropped_kind, ident, 0)
            self._overlay[dropped_kind, ident] = (event.seq, None)
            batch.commit.entities.pop((dropped_kind, ident), None)
            batch.commit.drops.add((dropped_kind, ident))
        for sha256, referred in self.facts.take_reference_changes():
            if referred:
                batch.commit.values.add(sha256)
            else:
                self._release(sha256, event.seq)
        self._overlay[key] = (event.seq, event.entity)
        batch.commit.entities[key] = raw
        batch.commit.drops.discard(key)
        batch.commit.events.append((event.seq, event.encoded))
        batch.events.append(event)
        batch.size += len(event.encoded)
        self.tail = event.seq

    def _replace(self, kind: str, ident: str, new: Entity | None, size: int) -> None:
        old = self.get(kind, ident)
        self.facts.replace(kind, ident, old, new)
        # Encoding the old one again is cheaper than remembering the length of every entity.
        self.facts.entity_bytes += size - (0 if old is None else len(bytes(encode_record(old))))

    def _release(self, sha256: str, seq: int) -> None:
        """Event *seq* is the first that does not refer to *sha256*, nor does anything else."""
        seqs = self._released.setdefault(sha256, [])
        while len(seqs) > 1 and seqs[1] <= self.feed.state.seq:
            del seqs[0]  # what is committed is not taken back: the last of it is enough
        seqs.append(seq)

    def _count(self, kind: str, ident: str, number: int) -> None:
        """An entity at the tail adds *number* to the digest from now on; 0: there is none any more."""
        key = (kind, ident)
        old = self._numbers.get(key)
        self._digest += number - (self.feed.state.hash_of(kind, ident) if old is None else old)
        self._numbers[key] = number

    # -- committing

    def take_batch(self) -> Batch | None:
        """What is to be committed next, or None. Batches are committed in the order they were taken."""
        batch, self._batch = self._batch, None
        if batch is None:
            return None
        commit = batch.commit
        first = self.feed.first_kept
        if first - self._store_first >= _TRIM_STEP:
            commit.first_kept = first
        # A value stays while an event in history still refers to it.
        commit.released = {
            sha256
            for sha256, seqs in self._released.items()
            if seqs[-1] < first and sha256 not in self.facts.references
        }
        commit.listing = self.facts.listing(self.size)
        commit.attention = self.facts.attention
        commit.digest = to_hex(self._digest)
        batch.entity_bytes = self.facts.entity_bytes
        self._in_flight.append(batch)
        return batch

    def committed(self, batch: Batch) -> None:
        """The store has made *batch* last: the head advances, and subscribers get its events."""
        self._in_flight.remove(batch)
        self._head_bytes = batch.entity_bytes
        for event in batch.events:
            for key in ((event.kind, event.entity.id), *event.drops):
                written = self._overlay.get(key)
                if written is not None and written[0] <= event.seq:
                    del self._overlay[key], self._numbers[key]
        self._retired += len(batch.commit.retired)
        self.positions.update(batch.commit.producers)
        for producer, position in batch.commit.producers.items():
            if self._tail_positions.get(producer) == position:
                del self._tail_positions[producer]
        if batch.commit.first_kept:
            self._store_first = batch.commit.first_kept
        for sha256 in batch.commit.released:
            # What has come and gone behind this batch is to be released again.
            later = [seq for seq in self._released.pop(sha256, ()) if seq > batch.end]
            if later:
                self._released[sha256] = later
        self.feed.append(batch.events)

    def adopt(
        self,
        events: Sequence[bytes],
        producers: Mapping[str, ProducerPosition],
        *,
        released: Collection[str] = (),
        retired: int = 0,
    ) -> list[Numbered]:
        """Another node's commit has become what the store has: the head advances by it, and is told.

        Args:
            events: encoded, from the head's successor on.
            producers: the positions that it moved.
            released: SHA-256 of values that the session no longer keeps.
            retired: how many finished commands it moved out of the state.

        Returns:
            the events. Nothing may wait for a commit here: `rollback` before.

        Raises:
            ProtocolError, StateError: they are not what follows the head.
        """
        assert not self.uncommitted
        numbered = [self._read(encoded, seq) for seq, encoded in enumerate(events, self.tail + 1)]
        for event, raw in numbered:
            self._enter(event, raw)
        for sha256 in released:
            self._released.pop(sha256, None)
        self.positions.update(producers)
        self._retired += retired
        if (batch := self._batch) is not None:
            self._batch = None
            self._in_flight.append(batch)
            batch.entity_bytes = self.facts.entity_bytes
            self.committed(batch)
        return [event for event, _ in numbered]

    def _read(self, encoded: bytes, seq: int) -> tuple[Numbered, bytes]:
        event = decode_event(encoded)
        entity = decode_entity(event.kind, event.entity)
        if entity is None or event.seq != seq or event.epoch != self.epoch:
            raise ProtocolError(
                "bad_message", f"event {event.seq} of {event.epoch} does not follow {seq - 1}"
            )
        numbered = Numbered(seq, encoded, event.kind, entity, tuple(event.drop), entity_hash(entity))
        return numbered, bytes(event.entity)

    def rollback(self) -> None:
        """The store failed, and wrote nothing: everything behind the head is thrown away."""
        written = [(kind, ident, entity) for (kind, ident), (_, entity) in self._overlay.items()]
        self.facts.revert(written, self.feed.state, self._head_bytes)
        self._forget_tail()

    def _forget_tail(self) -> None:
        self._overlay.clear()
        self._numbers.clear()
        self._digest = int(self.feed.state.digest, 16)
        self._tail_positions.clear()
        self._batch = None
        self._in_flight.clear()
        self.tail = self.feed.state.seq
        left = {sha256: [seq for seq in seqs if seq <= self.tail] for sha256, seqs in self._released.items()}
        self._released = {sha256: seqs for sha256, seqs in left.items() if seqs}

    def restart(
        self,
        state: SessionState,
        producers: dict[str, ProducerPosition],
        retired: int = 0,
        size: int = 0,
        *,
        history: Iterable[tuple[int, bytes]] = (),
    ) -> None:
        """Nobody knows what the store has: go on from what was loaded anew, under *state*'s epoch.

        Args:
            retired: how many finished commands the store keeps apart.
            size: bytes of *state*'s entities.
            history: its last events, if it is not of a new epoch.
        """
        self._retired = retired
        self.positions = dict(producers)
        self.feed.restart(state, history)
        self._store_first = self.feed.first_kept
        self._head_bytes = size
        self.facts = Facts(state, size)
        self._forget_tail()


def _fits(change: SkippedChange, number: int) -> bool:
    """Whether *change* can stand in the place of change *number* and those behind it."""
    return change.first == number <= change.last and change.count > 0
