"""What the ledger keeps counted about a session's tail, so that no change costs a scan.

Steps by state, each once whatever its attempts; problems and commands in the order they came; which large
values are referred to, how many bytes are kept, and the first failure that stands: all of it follows from
the entities alone. When the tail is thrown away, what it had changed is taken back (`revert`), so that a
commit that fails costs a session with a million steps no more than a small one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TypeGuard

from msgspec.structs import replace

from wsmonitor.protocol.entities import (
    Chain,
    Command,
    Entity,
    Listing,
    Problem,
    Producer,
    Session,
    Step,
)
from wsmonitor.protocol.reducer import SessionState
from wsmonitor.protocol.states import COMMAND_TERMINAL, TERMINAL

from .merge import large_of
from .tally import Tally

_PROBLEM_LENGTH = 200
_WORST = {"": 0, "live": 1, "stale": 2, "lost": 3}


class Facts:
    """Counted facts of one session; `replace` keeps them, entity by entity."""

    def __init__(self, state: SessionState, entity_bytes: int) -> None:
        self.steps: Counter[str] = Counter()  # every attempt
        self.tally = Tally()
        self.problems: dict[str, None] = {}
        self.pending: dict[str, Command] = {}
        self.finished: dict[str, None] = {}
        self.producers: dict[str, Producer] = {}
        self.references: Counter[str] = Counter()
        self._sizes: dict[str, int] = {}
        self.value_bytes = 0
        self.entity_bytes = entity_bytes
        self._reference_changes: list[tuple[str, bool]] = []
        self.session: Session | None = None
        self._failures: dict[tuple[str, str], Session | Chain | Step | Problem] = {}  # the first one first
        self._repaired: dict[tuple[str, str], Step] = {}  # taken out of the failures when found
        self.open_of: dict[
            str, dict[tuple[str, str], None]
        ] = {}  # by producer: what is not in a terminal state
        self.crashed_of: Counter[str] = Counter()  # by producer: how many were declared crashed
        # What `listing` and `attention` said last: most changes change nothing of it.
        self._listed: Listing | None = None
        self._attended: bool | None = None
        for kind, entity in sorted(state, key=lambda item: item[1].seq):
            self.replace(kind, entity.id, None, entity)
        self._reference_changes.clear()

    def take_reference_changes(self) -> list[tuple[str, bool]]:
        """Large values that are referred to since the last call (True), or no longer (False), in order.

        Of what went and came back in between, nothing is said: an entity that is written anew refers to its
        values throughout.
        """
        if not self._reference_changes:
            return []
        changes, self._reference_changes = self._reference_changes, []
        told: dict[str, bool] = {}
        for sha256, referred in changes:
            if told.pop(sha256, None) is None:
                told[sha256] = referred
        return list(told.items())

    def replace(self, kind: str, ident: str, old: Entity | None, new: Entity | None) -> None:
        """*new* stands in the place of *old*; None where there was, or is, none."""
        if _counts_alike(new, old):
            self.tally.renew(new)
            return
        self._listed = self._attended = None
        match new if new is not None else old:
            case Session() | Chain() | Step():
                if isinstance(old, Session | Chain | Step):
                    self._count(kind, old, -1)
                if isinstance(new, Session | Chain | Step):
                    self._count(kind, new, +1)
                    self._fail(kind, new, failed=new.state == "failed")
                else:
                    self._forget(kind, ident)
                    if kind == "session":
                        self.session = None
                if isinstance(old, Step | None) and isinstance(new, Step | None):
                    self.tally.replace(old, new)
                    if new is None and self._repaired:
                        self._judge_again()
            case Command():
                self.pending.pop(ident, None)
                if isinstance(new, Command) and new.state in COMMAND_TERMINAL:
                    self.finished[ident] = None
                    return
                self.finished.pop(ident, None)
                if isinstance(new, Command):
                    self.pending[ident] = new
            case Producer():
                if isinstance(new, Producer):
                    self.producers[ident] = new
                else:
                    self.producers.pop(ident, None)
            case _:
                if isinstance(new, Problem):
                    self.problems[ident] = None
                    self._fail(kind, new, failed=new.severity in ("error", "fatal"))
                else:
                    self._forget(kind, ident)
                    self.problems.pop(ident, None)

    def revert(
        self, written: Iterable[tuple[str, str, Entity | None]], state: SessionState, entity_bytes: int
    ) -> None:
        """Take back what was written since *state*: as if it were built from *state* anew.

        Args:
            written: kind, id, and what stands there now (None where it was dropped).
            entity_bytes: of *state*'s entities.
        """
        for kind, ident, now in written:
            before = state.entities[kind].get(ident)
            if now is not None or before is not None:
                self.replace(kind, ident, now, before)

        def order(kind: str, ids: Iterable[str]) -> list[str]:
            return sorted(ids, key=lambda ident: state.entities[kind][ident].seq)

        # What came back stands at its place, not at the end.
        self.problems = dict.fromkeys(order("error", self.problems))
        self.finished = dict.fromkeys(order("command", self.finished))
        self.pending = {ident: self.pending[ident] for ident in order("command", self.pending)}
        self._judge_again()
        self._reference_changes.clear()
        self.entity_bytes = entity_bytes
        self._listed = self._attended = None

    def _count(self, kind: str, entity: Session | Chain | Step, sign: int) -> None:
        for value in (entity.input, entity.output):
            if value is not None:
                for sha256, size in large_of(value).items():
                    self._refer(sha256, size, sign)
        if entity.state == "crashed":
            self.crashed_of[entity.producer] += sign
        elif entity.state not in TERMINAL:
            if sign > 0:
                self.open_of.setdefault(entity.producer, {})[kind, entity.id] = None
            else:
                left = self.open_of[entity.producer]
                del left[kind, entity.id]
                if not left:
                    del self.open_of[entity.producer]
        if isinstance(entity, Step):
            self.steps[entity.state] += sign
        elif isinstance(entity, Session) and sign > 0:
            self.session = entity

    def _fail(self, kind: str, entity: Session | Chain | Step | Problem, *, failed: bool) -> None:
        key = (kind, entity.id)
        if not failed:
            self._forget(*key)
        elif key not in self._repaired:
            self._failures[key] = entity

    def _forget(self, kind: str, ident: str) -> None:
        self._failures.pop((kind, ident), None)
        if self._repaired.pop((kind, ident), None) is not None:
            self._judge_again()

    def _judge_again(self) -> None:
        """An attempt has gone: what it repaired may stand again."""
        both = {**self._repaired, **self._failures}
        self._failures = dict(sorted(both.items(), key=lambda item: item[1].seq))
        self._repaired.clear()

    @property
    def problem(self) -> str:
        """The message of the first failure that no further attempt has repaired, or ""."""
        while self._failures:
            key, first = next(iter(self._failures.items()))
            if not (isinstance(first, Step) and self.tally.repaired(first)):
                return _message(first)[:_PROBLEM_LENGTH]
            self._repaired[key] = first
            del self._failures[key]
        return ""

    def _refer(self, sha256: str, size: int, sign: int) -> None:
        before = self.references[sha256]
        after = before + sign
        if after:
            self.references[sha256] = after
        else:
            del self.references[sha256]
        if (before == 0) != (after == 0):
            # The first word on the size counts, also when the last reference goes: a sum must not drift.
            self.value_bytes += self._sizes.setdefault(sha256, size) if sign > 0 else -self._sizes.pop(sha256)
            self._reference_changes.append((sha256, sign > 0))

    @property
    def step_count(self) -> int:
        """How many steps are kept, every attempt counted."""
        return self.steps.total()

    @property
    def liveness(self) -> str:
        """The worst liveness of the open producers that still have something to say; "" if there is none."""
        open_ones = [producer.liveness for producer in self.producers.values() if not producer.closed]
        return max(open_ones, key=_WORST.__getitem__, default="")

    @property
    def attention(self) -> bool:
        """Whether somebody must watch the clock for this session."""
        if self._attended is None:
            self._attended = bool(self.pending) or any(
                not producer.closed and (producer.liveness != "lost" or producer.id in self.open_of)
                for producer in self.producers.values()
            )
        return self._attended

    def listing(self, size: int) -> Listing | None:
        """The session's line in the directory; None while there is no session entity."""
        session = self.session
        if session is None:
            return None
        if self._listed is not None:
            return replace(self._listed, size=size)
        self._listed = Listing(
            id=session.id,
            name=session.name,
            run=session.run,
            kind=session.kind,
            state=session.state,
            reason=session.reason[:_PROBLEM_LENGTH],
            liveness=self.liveness,  # type: ignore[arg-type]  # one of the table's words
            counts={state: count for state, count in sorted(self.tally.counts.items()) if count},
            problem=self.problem,
            created=session.created,
            started=session.started,
            ended=session.ended,
            size=size,
        )
        return self._listed


def _counts_alike(new: Entity | None, old: Entity | None) -> TypeGuard[Step]:
    """Whether *new* is a step that counts like *old* in all that is kept here: most changes make such."""
    return (
        type(old) is Step
        and type(new) is Step
        and new.state == old.state
        and new.state != "failed"  # its message may be the session's
        and new.input is old.input
        and new.output is old.output
        and new.producer == old.producer
        and new.chain == old.chain
        and new.parent == old.parent
        and new.step_key == old.step_key
        and new.attempt == old.attempt
    )


def _message(failure: Session | Chain | Step | Problem) -> str:
    if isinstance(failure, Problem):
        return failure.message
    error = failure.error
    return error.message or error.type if error else failure.reason
