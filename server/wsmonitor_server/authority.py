"""The authority of one session: the one place that turns an accepted change into the next event.

A change is judged against the tail of the session's `Ledger` (what is numbered, and perhaps not committed
yet), and written there as the next complete entity. When the store fails, what is not committed is thrown
away, and the producers send it again from the last acknowledged change.

Rules for changes (protocol, rule 11): exactly the next number of the producer is accepted; a
rejected change uses its number, is reported, and is final; an entity is written only by the
producer that created it. After a session has ended, nothing may begin in it: what exists may still
be finished, logs, errors and command records may come, and an entity may be created
in a terminal state (a record that arrives late, or is asserted again after a new epoch).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice
from typing import Final

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
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import (
    Chain,
    Command,
    ErrorInfo,
    Problem,
    Producer,
    Session,
    Step,
)
from wsmonitor.protocol.errors import CATALOGUE
from wsmonitor.protocol.states import TERMINAL, command_may_follow, may_follow

from .ledger import Ledger
from .merge import ENTITY_KIND, Rejection, Work, WorkChange, context_of, merge, uploads_of
from .stores.base import ProducerPosition

_decode_command = Decoder(Command).decode

_LOG_LAST: Final = 256  # characters of the last log line that a step carries
_LOG_TEXT: Final = 4096  # characters of a log record
_CRASH_AT_ONCE: Final = 2_000  # entities that are declared crashed within one turn of the loop


class Authority:
    """See the module's text. Pure: time comes as an argument.

    Args:
        ledger: where it reads what is, and writes what is next.
        node: the id of this server among those that share its store; empty where it is alone.
    """

    def __init__(self, ledger: Ledger, limits: Limits, *, node: str = "") -> None:
        self.ledger = ledger
        self.limits = limits
        self._node = node

    # -- reading the tail

    def work(self, kind: str, ident: str) -> Work | None:
        """A session, chain or step at the tail."""
        entity = self.ledger.get(kind, ident)
        return entity if isinstance(entity, Session | Chain | Step) else None

    @property
    def over(self) -> bool:
        """Whether the session has ended for good (``crashed`` is not for good)."""
        session = self.ledger.facts.session
        return session is not None and session.state in TERMINAL and session.state != "crashed"

    def owned_open(self, producer: str, limit: int | None = None) -> list[tuple[str, Work]]:
        """What of *producer* is not in a terminal state, at the tail: the session, and *limit* others."""
        keys = self.ledger.facts.open_of.get(producer, {})
        first = ("session", self.ledger.session)
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
            if sha256 not in self.ledger.facts.references
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
        position = self.ledger.position(producer)
        if position is None:
            if self.ledger.producer_count >= self.limits.producers:
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
            seq=self.ledger.tail + 1,
        )
        self.ledger.write("producer", entity, now)
        self.ledger.move(position)
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
        return self.ledger.facts.crashed_of[producer] > 0

    def set_liveness(self, producer: str, liveness: str, now_ns: int, *, closed: bool | None = None) -> None:
        """The server's word on a producer: how it is heard, and whether it said goodbye."""
        old = self.ledger.get("producer", producer)
        if not isinstance(old, Producer):
            return
        shut = old.closed if closed is None else closed
        if old.liveness != liveness or old.closed != shut:
            now = str(now_ns)
            new = replace(old, liveness=liveness, closed=shut, since=now, seq=self.ledger.tail + 1)
            self.ledger.write("producer", new, now)

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
            new = replace(entity, state="crashed", reason=reason, ended=now, seq=self.ledger.tail + 1)
            self.ledger.write(kind, new, now, note=f"crashed: producer {producer} was lost")
        self.abandon_commands(producer, reason, now_ns)
        return len(lost)

    def abandon_commands(self, producer: str, reason: str, now_ns: int) -> None:
        """Who accepted commands as *producer* will not say what became of them: they are ``unknown``."""
        for command in [one for one in self.ledger.facts.pending.values() if one.state == "accepted"]:
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
        position = self.ledger.position(producer)
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
        self.ledger.move(position.at(accepted))
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
        ident = self.ledger.session if isinstance(change, SessionChange) else change.id
        old = self.work(kind, ident)
        if old is None and kind == "step" and self.ledger.facts.step_count >= self.limits.steps:
            raise Rejection("limit_exceeded", f"a session may have {self.limits.steps:,} steps")
        missing = [
            sha
            for sha in uploads_of(change)
            if sha not in uploaded and sha not in self.ledger.facts.references
        ]
        if missing:
            raise Rejection("value_missing", f"the value {missing[0]} was not uploaded")
        merged = merge(
            old,
            ident,
            change,
            producer,
            seq=self.ledger.tail + 1,
            now=now,
            run=run,
            session_over=kind != "session" and self.over,
            inline=self.limits.inline_value,
        )
        if merged is not None:
            self.ledger.write(kind, merged[0], now, note=merged[1], limit=self.limits.event_size)

    def _take_log(self, producer: str, change: LogChange, now: str) -> None:
        step = self.ledger.get("step", change.step)
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
            seq=self.ledger.tail + 1,
        )
        self.ledger.write("step", new, now, limit=self.limits.event_size)
        self.ledger.log(step.id, numbered)

    def _take_command(self, producer: str, change: CommandChange, now: str) -> None:
        command = self.ledger.get("command", change.id)
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
            new = replace(command, state=change.state, reason=change.reason, seq=self.ledger.tail + 1)
            new = replace(new, **{change.state: now})
            self.ledger.write("command", new, now)
        else:
            self.end_command(command, change.state, change.reason, int(now))

    def _take_problem(self, producer: str, change: ProblemChange, now: str) -> None:
        old = self.ledger.get("error", change.id)
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
            session=self.ledger.session,
            **context_of(change),  # type: ignore[arg-type]  # the record's string fields
        )
        self.ledger.reject(producer, number, error)

    # -- what the server writes

    def add_problem(self, problem: Problem, now: str) -> None:
        """Write *problem*; the oldest one beyond the limit is dropped with the same event."""
        drops: list[tuple[str, str]] = []
        if (
            problem.id not in self.ledger.facts.problems
            and len(self.ledger.facts.problems) >= self.limits.problems
        ):
            drops.append(("error", next(iter(self.ledger.facts.problems))))
        self.ledger.write(
            "error",
            replace(problem, seq=self.ledger.tail + 1),
            now,
            drops=drops,
            limit=self.limits.event_size,
        )

    def target(self, command: Command) -> str:
        """The producer that a command is for: the owner of what it names."""
        for kind, ident in (("step", command.step), ("chain", command.chain)):
            if ident and (entity := self.work(kind, ident)) is not None:
                return entity.producer
        session = self.work("session", self.ledger.session)
        return "" if session is None else session.producer

    def add_command(self, command: Command, now_ns: int) -> Command:
        """Write the record of a new command."""
        new = replace(command, seq=self.ledger.tail + 1)
        self.ledger.write("command", new, str(now_ns))
        return new

    def end_command(self, command: Command, state: str, reason: str, now_ns: int) -> None:
        """Bring a command to its end; the same event drops the oldest ended one beyond the limit."""
        drops: list[tuple[str, str]] = []
        oldest = None
        if len(self.ledger.facts.finished) >= self.limits.commands:
            drops.append(("command", next(iter(self.ledger.facts.finished))))
            oldest = self.ledger.get(*drops[0])
        now = str(now_ns)
        new = replace(command, state=state, reason=reason, ended=now, seq=self.ledger.tail + 1)
        self.ledger.write("command", new, now, drops=drops)
        if isinstance(oldest, Command):
            self.ledger.retire(oldest)

    def command(self, key: str) -> Command | None:
        """The command with this key, if its record is at the tail, or on its way out of the state."""
        known = self.ledger.get("command", key)
        if isinstance(known, Command):
            return known
        data = self.ledger.retiring(key)
        return None if data is None else _decode_command(data)


def _fits(change: SkippedChange, number: int) -> bool:
    """Whether *change* can stand in the place of change *number* and those behind it."""
    return change.first == number <= change.last and change.count > 0
