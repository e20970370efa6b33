"""The rows of the session tree: chains and steps as the front-end draws them. Pure.

A row is a plain JSON object. What is at its default is left out.

=========  ==========================================================================
``id``     ``c:`` and the chain's id, or ``s:`` and the id of the step's first known attempt
``kind``   ``chain`` or ``step``
``chain``  a step's chain, as a row id
``parent`` a step's parent, as ``s:`` and the id of *one attempt* of the parent: see ``also``
``also``   the ids of the further attempts that this row stands for: one row, one ``step_key``
``name``   text, untrusted
``label``  the kind that the producer gave, for example ``tool``
``state``  the state of the newest attempt
``attempt`` its number, when it is not 1
``order``  sorts siblings: milliseconds at which it was created, or first started
``start``, ``end``  milliseconds since 1970 UTC, by the producer's clock
``done``, ``total``, ``unit``  progress
``error``  one line: why the newest attempt failed
``err``    the exception's short name, where there is one
``note``   one line: the reason of its state, or the last log line
``logs``   how many log lines the newest attempt has
``cmds``   names of the session's commands that this step takes now
``pauses`` ``[start, end]`` of each pause of the newest attempt, as its producer tells them
           (`PAUSES`); ``end`` is null while it lasts
``bars``   with several attempts: ``[start, end, state]`` of each, oldest first; of very many the
           newest, after one bar of the state ``earlier attempts`` for all the others
=========  ==========================================================================
"""

from __future__ import annotations

from itertools import chain as chain_of
from itertools import islice
from typing import Any, Final, TypeAlias

import msgspec

from wsmonitor.protocol.entities import PAUSES, Chain, Failure, Step

from .pages import Pages

Row: TypeAlias = dict[str, Any]

BROKEN: Final = frozenset({"failed", "crashed"})
ROW_LIMIT: Final = 100_000
"""How many rows a browser is given, if nothing else is said."""

_WELL: Final = frozenset({"succeeded", "skipped"})
_CAUSES: Final = 200
_PAUSE_LIMIT: Final = 32
_PATH_LIMIT: Final = 8
_ATTEMPT_LIMIT: Final = 100
EARLIER: Final = "earlier attempts"
_COMMAND_LIMIT: Final = 16
_LINE: Final = 240  # characters of one line of text; more does not fit any screen's row


_encode = msgspec.json.Encoder().encode


def milliseconds(nanoseconds: str) -> int | None:
    """An entity's time as integer milliseconds, or None when it has not happened."""
    return int(nanoseconds) // 1_000_000 if nanoseconds else None


def one_line(text: str, limit: int = _LINE) -> str:
    """*text* as one line of at most *limit* characters."""
    line = " ".join(text[: limit * 4].split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def failure_line(error: Failure | None) -> str:
    """A failure as one line: ``KeyError: 'segment'``, or "" when there is none."""
    if error is None:
        return ""
    kind = error.type.rpartition(".")[2]
    message = error.message.strip()
    if kind and message.startswith(kind):
        return one_line(message)
    return one_line(": ".join(part for part in (kind, message) if part) or error.code)


def same_failure(first: Failure | None, second: Failure | None) -> bool:
    """Whether one is the other, passed on: tracebacks grow on the way, and are kept once."""
    if first is None or second is None:
        return False
    return (first.type, first.message) == (second.type, second.message)


def chain_row_id(chain: str) -> str:
    """The id of a chain's row."""
    return f"c:{chain}"


def step_row_id(step: str) -> str:
    """The id by which a row may be named that stands for *step*."""
    return f"s:{step}"


def _common(entity: Chain | Step, kind: str, row_id: str) -> Row:
    row: Row = {"id": row_id, "kind": kind, "name": entity.name, "state": entity.state}
    if entity.kind:
        row["label"] = one_line(entity.kind, 40)
    start, end = milliseconds(entity.started), milliseconds(entity.ended)
    created = milliseconds(entity.created)
    order = created if created is not None else start
    if order is not None:
        row["order"] = order
    if start is not None:
        row["start"] = start
    if end is not None:
        row["end"] = end
    if entity.progress is not None:
        row["done"] = entity.progress.done
        if entity.progress.total is not None:
            row["total"] = entity.progress.total
        if entity.progress.unit:
            row["unit"] = one_line(entity.progress.unit, 20)
    if entity.error is not None:
        row["error"] = failure_line(entity.error)
        short = entity.error.type.rpartition(".")[2]
        if short:
            row["err"] = one_line(short, 40)
    pauses = pauses_of(entity.attributes.get(PAUSES))
    if pauses:
        row["pauses"] = pauses
    return row


def pauses_of(told: object) -> list[list[int | None]]:
    """The pauses that an attribute tells; what makes no sense of it (anybody may write it) is left out."""
    if not isinstance(told, list):
        return []
    times = [
        int(at) for at in told if isinstance(at, (int, float)) and not isinstance(at, bool) and 0 < at < 2**53
    ]
    if len(times) != len(told) or times != sorted(times):
        return []
    found: list[list[int | None]] = [
        [start, times[2 * k + 1] if 2 * k + 1 < len(times) else None] for k, start in enumerate(times[::2])
    ]
    return found[-_PAUSE_LIMIT:]


def chain_row(chain: Chain) -> Row:
    """The row of a chain."""
    row = _common(chain, "chain", chain_row_id(chain.id))
    if chain.reason:
        row["note"] = one_line(chain.reason)
    return row


def step_row(attempts: list[Step], row_id: str = "") -> Row:
    """The row of a step: its attempts, sorted by number, of which the last one counts.

    *row_id* is the row's, by default the first attempt's: a later attempt may have been known before.
    """
    first, last = attempts[0], attempts[-1]
    row_id = row_id or step_row_id(first.id)
    row = _common(last, "step", row_id)
    row["chain"] = chain_row_id(last.chain)
    if last.parent:
        row["parent"] = step_row_id(last.parent)
    created = milliseconds(first.created) or milliseconds(first.started)
    if created is not None:
        row["order"] = created
    note = last.reason or last.log_last
    if note:
        row["note"] = one_line(note)
    if last.log_count:
        row["logs"] = last.log_count
    if last.commands:
        row["cmds"] = list(last.commands[:_COMMAND_LIMIT])
    if last.attempt != 1:
        row["attempt"] = last.attempt
    if len(attempts) > 1:
        newest = attempts[-_ATTEMPT_LIMIT:]
        row["also"] = [ident for step in newest if (ident := step_row_id(step.id)) != row_id]
        row["bars"] = [
            [milliseconds(step.started), milliseconds(step.ended), step.state]
            for step in newest
            if step.started
        ]
        if newest[0] is not first and first.started and newest[0].started:
            # One bar for all that came before them.
            row["bars"].insert(0, [milliseconds(first.started), milliseconds(newest[0].started), EARLIER])
    return row


class Rows:
    """All rows of one session, kept up entity by entity, with what changed since the last `take`.

    At most ``limit`` rows are shown: a browser is not a database. When there are more, the
    rows that ended well longest ago make place; ``total`` counts them all the same.

    Attributes:
        size: bytes of all shown rows as JSON.
        pages: on which page each shown row is.
        counts: how many steps are in which state.
        broken: step rows whose newest attempt failed, oldest first.
    """

    def __init__(self, limit: int = ROW_LIMIT) -> None:
        self.limit = limit
        self.size = 0
        self.pages = Pages()
        self._chains: dict[str, Chain] = {}
        self._groups: dict[str, dict[str, Step]] = {}  # row id: the attempts by step id
        self._row_of: dict[str, str] = {}  # step id: row id
        self._row_of_key: dict[tuple[str, str, str], str] = {}  # (chain, parent, step_key): row id
        self._key_of_row: dict[str, tuple[str, str, str]] = {}
        self._states: dict[str, str] = {}  # step rows only
        # What the front-end was told, and nothing else: changed by `take` alone.
        self._shown: dict[str, Row] = {}
        self._sizes: dict[str, int] = {}
        self._well: dict[str, None] = {}  # shown step rows that ended well, longest ago first
        self._others: dict[str, None] = {}  # the other shown step rows
        self._dirty: dict[str, None] = {}
        self._gone: dict[str, None] = {}
        self.counts: dict[str, int] = {}
        self.broken: dict[str, None] = {}

    # -- changing

    def put(self, entity: Chain | Step) -> None:
        """Take a new or changed chain or step."""
        if isinstance(entity, Chain):
            self._chains[entity.id] = entity
            self._dirty[chain_row_id(entity.id)] = None
            return
        row_id = self._row_of.get(entity.id)
        if row_id is None:
            row_id = self._join(entity)
        self._groups[row_id][entity.id] = entity
        self._dirty[row_id] = None
        self._count(row_id, self._newest(row_id).state)

    def drop(self, kind: str, ident: str) -> None:
        """Forget a chain or a step."""
        if kind == "chain" and self._chains.pop(ident, None) is not None:
            self._lose(chain_row_id(ident))
        row_id = self._row_of.pop(ident, None) if kind == "step" else None
        if row_id is None:
            return
        group = self._groups[row_id]
        del group[ident]
        if group:
            self._dirty[row_id] = None
            self._count(row_id, self._newest(row_id).state)
        else:
            del self._groups[row_id]
            key = self._key_of_row.pop(row_id, None)
            if key is not None and self._row_of_key.get(key) == row_id:
                del self._row_of_key[key]
            self._count(row_id, None)
            self._lose(row_id)

    def _join(self, step: Step) -> str:
        key = (step.chain, step.parent, step.step_key)
        row_id = self._row_of_key.get(key) if step.step_key else None
        # The same attempt number twice is not a retry: a loop body with one key is many rows.
        if row_id is not None and any(
            other.attempt == step.attempt for other in self._groups[row_id].values()
        ):
            row_id = None
        if row_id is None:
            row_id = step_row_id(step.id)
            self._groups[row_id] = {}
            if step.step_key:
                self._row_of_key[key] = row_id
                self._key_of_row[row_id] = key
        self._row_of[step.id] = row_id
        return row_id

    def _newest(self, row_id: str) -> Step:
        return max(self._groups[row_id].values(), key=lambda step: step.attempt)

    def _count(self, row_id: str, state: str | None) -> None:
        old = self._states.pop(row_id, None)
        if old is not None:
            self.counts[old] -= 1
            if not self.counts[old]:
                del self.counts[old]
        if state is not None:
            self._states[row_id] = state
            self.counts[state] = self.counts.get(state, 0) + 1
        if state in BROKEN:
            self.broken[row_id] = None
        else:
            self.broken.pop(row_id, None)

    def _lose(self, row_id: str) -> None:
        self._dirty.pop(row_id, None)
        if row_id in self._shown:
            self._gone[row_id] = None

    def supersede(self, previous: Rows) -> None:
        """Take the place of *previous*: what the front-end has of it is not sent again if it is the same."""
        self._shown, self._sizes, self.size = previous._shown, previous._sizes, previous.size
        self.pages = previous.pages
        self._well, self._others = previous._well, previous._others
        self._gone.update((row_id, None) for row_id in self._shown if row_id not in self._dirty)

    # -- reading

    @property
    def total(self) -> int:
        """How many steps there are, each counted once however many attempts it had."""
        return len(self._groups)

    @property
    def shown(self) -> int:
        """How many rows, chains among them, the front-end has."""
        return len(self._shown)

    @property
    def waiting(self) -> int:
        """How many rows have changed and are not told yet."""
        return len(self._dirty) + len(self._gone)

    @property
    def chains(self) -> int:
        return len(self._chains)

    def newest(self, row_id: str) -> Step | None:
        """The newest attempt of a step's row, if there is such a row."""
        return self._newest(row_id) if row_id in self._groups else None

    def row_of(self, step: str) -> str:
        """The id of the row that stands for the step with this id, or ""."""
        return self._row_of.get(step, "")

    def chain(self, row_id: str) -> Chain | None:
        """The chain of a row, if there is one."""
        return self._chains.get(row_id[2:]) if row_id.startswith("c:") else None

    def attempts(self, row_id: str) -> list[Step]:
        """The attempts that a step's row stands for, by their numbers; also by the id of any of them."""
        group = self._groups.get(row_id) or self._groups.get(self._row_of.get(row_id[2:], ""), {})
        return sorted(group.values(), key=lambda step: step.attempt)

    def parent(self, step: Step) -> Step | None:
        """The step that *step* is in, if there is one and it is known."""
        row_id = self._row_of.get(step.parent)
        if not step.parent or row_id is None:
            return None
        return self._groups[row_id].get(step.parent) or self._newest(row_id)

    def causes(self) -> tuple[list[tuple[str, Step]], int]:
        """The rows that have failed, newest first, without those that only pass a failure on from below.

        Of very many the newest are looked at; the second part is how many there are besides.
        """
        newest = list(islice(reversed(self.broken), _CAUSES))
        broken = [(row_id, self._newest(row_id)) for row_id in newest]
        passing = {
            above.id
            for _, step in broken
            if (above := self.parent(step)) is not None and same_failure(above.error, step.error)
        }
        found = [(row_id, step) for row_id, step in broken if step.id not in passing]
        return found, len(self.broken) - len(newest)

    def path(self, step: Step) -> str:
        """Where *step* is, in words: chain, the steps above it, itself; of very many only the nearest."""
        names = [step.name]
        seen = {step.id}
        above = step.parent
        while above and above not in seen:
            seen.add(above)
            row_id = self._row_of.get(above)
            if row_id is None:
                break
            parent = self._groups[row_id].get(above) or self._newest(row_id)
            if len(names) >= _PATH_LIMIT:
                names.append("…")
                break
            names.append(parent.name)
            above = parent.parent
        chain = self._chains.get(step.chain)
        if chain is not None:
            names.append(chain.name)
        return " / ".join(reversed(names))

    def _render(self, row_id: str) -> Row:
        if row_id.startswith("c:"):
            return chain_row(self._chains[row_id[2:]])
        row = step_row(self.attempts(row_id), row_id)
        # A row tells the ids of its newest attempts only: what is in an older one names the row itself.
        above = self._row_of.get(self._newest(row_id).parent)
        if above is not None:
            row["parent"] = above
        return row

    def take(self) -> tuple[list[Row], list[str]]:
        """The rows that changed since the last call, and the ids of those that are no longer shown."""
        changed: dict[str, Row] = {}
        untold: set[str] = set()
        for row_id in self._dirty:
            row = self._render(row_id)
            self._gone.pop(row_id, None)
            if row_id not in self._shown:
                untold.add(row_id)
            if self._shown.get(row_id) != row:
                self._show(row_id, row)
                changed[row_id] = row
            if row["kind"] == "step":
                self._sort(row_id, row["state"])
        self._dirty.clear()
        gone = [row_id for row_id in self._gone if row_id in self._shown]
        self._gone.clear()
        for row_id in gone:
            self._hide(row_id)
        over = len(self._shown) - self.limit
        for row_id in list(islice(chain_of(self._well, self._others), max(0, over))):
            self._hide(row_id)
            changed.pop(row_id, None)
            if row_id not in untold:
                gone.append(row_id)
        return list(changed.values()), gone

    def _show(self, row_id: str, row: Row) -> None:
        size = len(_encode(row)) + 1
        self.size += size - self._sizes.get(row_id, 0)
        self._shown[row_id] = row
        self._sizes[row_id] = size
        self.pages.place(row_id)

    def _hide(self, row_id: str) -> None:
        del self._shown[row_id]
        self.size -= self._sizes.pop(row_id)
        self.pages.remove(row_id)
        self._well.pop(row_id, None)
        self._others.pop(row_id, None)

    def _sort(self, row_id: str, state: str) -> None:
        mine, other = (self._well, self._others) if state in _WELL else (self._others, self._well)
        other.pop(row_id, None)
        mine[row_id] = None

    def all(self) -> list[Row]:
        """Every row that is shown: what a key frame holds. Call `take` first."""
        return list(self._shown.values())

    def page(self, page: int) -> list[Row]:
        """The rows of one page, as they were told last."""
        return [self._shown[row_id] for row_id in self.pages.rows(page)]
