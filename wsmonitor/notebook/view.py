"""What an observer shows: a session's entities and the link's status, as change sets. Pure.

The format between the kernel and the browser
=============================================

The kernel holds the truth; a browser is told about it in *frames*. A frame has a number ``n``,
one more than the frame before, and ``at``: the kernel's best estimate of the server's clock when
it was made, in milliseconds since 1970 UTC. **All times in a frame are on that one scale**, so
the browser needs a single offset, and its own clock may be wrong.

``{"type": "frame", "n", "at", "due", "beat", "head"?, "rows"?, "on"?, "gone"?, "log"?, "pages"?}``
    A change set, as a custom message. ``head`` has the parts of the head that changed; ``rows``
    (see `rows`) replace the rows with their ids, and ``on`` says on which page each of them is; ``gone``
    are ids of rows to forget; ``log`` are entries to append. When very much changed there are no rows in
    it, but ``pages`` as in a key frame.
``{"type": "alive", "n", "at", "due", "beat"}``
    Nothing changed. ``n`` is that of the last frame: a browser that has another one lost something.
``{"n", "at", "due", "beat", "head", "log", "rows" or "pages"}``
    A key frame: everything, in the trait ``_key``. It is sent soon after a change, now and then, and at
    the end. A browser that finds a gap shows so, drops nothing it has, and heals from the next key frame,
    without reaching Python. Where the rows do not fit into it, ``pages`` has the version of each page (see
    `pages`): the browser has those pages that are not newer than the frames that it has, and is
    given the others, which it also asks for: ``{"do": "pages", "want": [page …]}``.
``{"type": "page", "n", "at", "due", "beat", "pages": [{"p", "part", "last"}]}``
    The rows of pages as of frame ``n``: for each a buffer with their JSON, deflated (zlib). A page that is
    too large for one comes in several parts; rows that were on it and came with none of them are gone.

Long ``rows`` of a frame travel beside it as well: ``packed`` is true, and the one buffer is their JSON,
deflated. No message is larger than 256 kB.

Where nobody seems to look there is one message a minute: a frame with the small parts of the head and
``behind``, the number of rows that have changed and are not told.

``due`` is within how many milliseconds the next message of any kind comes. A browser that has waited
longer says that the kernel is silent: this, and not a flag, is how a view stops looking alive.

``beat`` is how the link to the server is: ``{"rtt", "last", "due"}``, the round-trip in milliseconds,
the time of the last frame from the server, and the time at which its next heartbeat is due.

``head``::

    {"title",
     "link":  {"phase", "attempt", "next", "code", "reason", "lost", "since", "url", "looked", "quiet",
               "covers", "degraded": {"code", "reason", "since"} | null},
     "sub":   {"phase", "reason", "epoch", "seq"},
     "session": {"id", "name", "run", "state", "reason", "start", "end", "error",
                 "done"?, "total"?, "unit"?} | null,
     "counts": {state: n}, "steps", "chains", "shown", "limit",
     "producers": [{"id", "agent", "liveness", "since", "closed"}],
     "watching": {"count", "names"} | null,
     "metrics": {name: number},
     "offers": [{"name", "targets", "args": [{"name", "type", "required", "choices", "description"}],
                 "destructive", "description"}],
     "may": why this observer cannot command now, or "",
     "asked": [{"id", "name", "row", "target", "state", "who", "via", "reason", "at", "took"}],
     "alarms": [{"row", "name", "where", "text", "at", "detail"}], "alarms_more"}

``offers`` are the session's commands (a row's ``cmds`` says which of them it takes now), ``asked`` the
records of the newest commands, the newest first: ``target`` in words, ``took`` milliseconds or null.

A log entry: ``{"n", "at", "tone", "what", "name", "text", "row"?, "replayed"?}``; ``tone`` is one of
``plain good warn bad``; ``what name text`` read as one sentence; ``row`` is the row that it is about.

From the browser to the kernel: ``{"do": "seen" | "hello" | "reconnect", "n"}``: acknowledges a frame,
asks for a key frame, asks for an attempt now; and what is answered: see `requests`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from wsmonitor.client.types import ConnectionStatus, SubscriptionPhase
from wsmonitor.protocol.entities import Chain, Command, Entity, Problem, Producer, Session, Step
from wsmonitor.protocol.messages import Event
from wsmonitor.protocol.states import TERMINAL

from .chronicle import entity_of
from .head import (
    Frame,
    alarms,
    asked,
    bounded,
    link_head,
    may_not,
    metrics_head,
    offers,
    producers_head,
    session_head,
    target_words,
)
from .journal import Journal, Sentence, sentence
from .rows import ROW_LIMIT, Row, Rows, chain_row_id, milliseconds, one_line

__all__ = ["Frame", "Now", "View"]

# Bytes as JSON. A message has a head (`head.HEAD_BYTES`), a log (`journal.LOG_BYTES`) and rows, and 256 kB at
# the very most.
KEY_BYTES: Final = 100_000
FRAME_BYTES: Final = 140_000
FRAME_ROWS: Final = 1_000
GONE_LIMIT: Final = 200

_GLANCE: Final = ("link", "sub", "session", "counts", "steps", "chains", "shown")

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Now:
    """One instant on both clocks.

    Attributes:
        mono: seconds of the monotonic clock.
        wall: seconds since 1970 of this machine's clock.
    """

    mono: float
    wall: float

    def at(self, offset: float | None = None) -> int:
        """This instant on the server's clock, which is *offset* seconds ahead of ours, in milliseconds."""
        return round((self.wall + (offset or 0.0)) * 1000)

    def of(self, mono: float | None, offset: float | None = None) -> int | None:
        """The instant *mono*, likewise."""
        return None if mono is None else round((self.wall + (offset or 0.0) + mono - self.mono) * 1000)

    def known(self, status: ConnectionStatus) -> int:
        """Up to when what the server says is known, on its clock, in milliseconds.

        That is now, unless the link is down, or the server takes no changes.
        """
        if status.degraded is not None and (since := milliseconds(status.degraded.since)) is not None:
            return since
        at = None if status.live else self.of(status.last_frame_at, status.clock_offset)
        return self.at(status.clock_offset) if at is None else at


class View:
    """Everything that one observer shows. Not thread-safe: one thread owns it."""

    def __init__(self, title: str, *, row_limit: int = ROW_LIMIT) -> None:
        self.title = title
        self.rows = Rows(row_limit)
        self.number = 0  # of the last frame
        self._row_limit = row_limit
        self._session: Session | None = None
        self._states: dict[str, str] = {}  # row-independent: "kind id" to state, for the log
        self._producers: dict[str, Producer] = {}
        self._problems: dict[str, Problem] = {}
        self._commands: dict[str, Command] = {}
        self._status = ConnectionStatus()
        self._link: Frame = {}
        self._sub: tuple[SubscriptionPhase, str] = ("waiting", "")
        self._position = ("", 0)
        self._watching: tuple[int, tuple[str, ...]] | None = None
        self._journal = Journal()
        self._log_sent = 0
        self._head: Frame = {}
        self._head_sent: Frame = {}
        self._missed = 0
        self._lost_at: float | None = None

    # -- what happened

    @property
    def offset(self) -> float:
        """Seconds by which the server's clock is ahead of ours, as far as it is known."""
        return self._status.clock_offset or 0.0

    @property
    def session(self) -> Session | None:
        """The session's own record, as far as it is known."""
        return self._session

    @property
    def linked(self) -> bool:
        """Whether the link to the server is up."""
        return self._status.live

    @property
    def may(self) -> str:
        """Why this observer cannot command now, in words; "" when it can."""
        return may_not(self._status, self._sub[0], self._session)

    @property
    def terminal(self) -> bool:
        """Whether what is shown has ended."""
        return self._session is not None and self._session.state in TERMINAL

    def replace(self, entities: Iterable[tuple[str, Entity]], epoch: str, seq: int) -> None:
        """Take a verified replica in the place of all that there was. Nothing of it is logged."""
        previous = self.rows
        self.rows = Rows(self._row_limit)
        self._session = None
        self._producers, self._problems, self._commands, self._states = {}, {}, {}, {}
        for kind, entity in entities:
            self._store(kind, entity)
        self.rows.supersede(previous)
        self._position = (epoch, seq)

    def applied(self, event: Event, entity: Entity | None) -> None:
        """One event was applied live."""
        at = milliseconds(event.ts) or 0
        if entity is not None:
            said = self._sentence(event.kind, entity)
            self._store(event.kind, entity)
            # Afterwards: a step that is new has a row only now.
            if said is not None:
                self._journal.add(at, said, row=self._row_of(entity))
        for kind, ident in event.drop:
            self._forget(kind, ident)
        if event.note:
            self.log(at, "warn", "note", "", event.note)
        self._position = (event.epoch, event.seq)

    def replayed(self, events: Iterable[Event]) -> None:
        """What was missed while away: for the log, marked; the state comes with the sync."""
        for event in events:
            entity = entity_of(event)
            self._missed += 1
            said = None if entity is None else self._sentence(event.kind, entity)
            if entity is not None and said is not None:
                at = milliseconds(event.ts) or 0
                self._journal.add(at, said, row=self._row_of(entity), replayed=True)
                if isinstance(entity, (Session, Chain, Step)):
                    self._states[f"{event.kind} {entity.id}"] = entity.state

    def gap(self, first: int, last: int, now: Now) -> None:
        """The events from *first* to *last* can no longer be had."""
        text = f"events {first:,} to {last:,} are no longer kept: the state is complete, this log is not"
        self.log(now.at(self.offset), "warn", "", "", text)

    def synced(self, epoch: str, seq: int, reset: str, again: bool, now: Now) -> None:
        """A sync completed, and the replica was verified."""
        at = now.at(self.offset)
        if reset:
            why = {
                "epoch": "the server's history is another one",
                "ahead": "the server has fewer events than we saw",
            }
            self.log(at, "warn", "", "", f"history starts anew: {why.get(reset, 'the replicas differed')}")
        missed = f", {self._missed:,} missed events added to this log" if self._missed else ""
        away = f"reconnected after {now.mono - self._lost_at:.1f} s: " if again and self._lost_at else ""
        self.log(at, "good", "", "", f"{away}full state verified at seq {seq:,}{missed}")
        self._missed = 0
        self._lost_at = None
        self._position = (epoch, seq)

    def bound(self, session_id: str, run: int, switched: bool, now: Now) -> None:
        """The name that is watched now means this run."""
        if switched:
            self._missed = 0
            # A run of this very kernel has no number before the server has heard of it.
            which = f"run {run}" if run else "a run that was begun here"
            self.log(now.at(self.offset), "plain", "", "", f"{which} is newer: following it ({session_id})")

    def subscription(self, phase: SubscriptionPhase, reason: str, now: Now) -> None:
        """The subscription's phase is another."""
        if phase == "absent" and self._sub[0] != "absent":
            self.log(now.at(self.offset), "plain", "", "", "no such session yet: waiting for it")
        if phase == "not_available" and self._sub[0] != phase:
            self.log(
                now.at(self.offset),
                "bad",
                "",
                "",
                f"the session is not available: {reason or 'no reason given'}",
            )
        self._sub = (phase, reason)

    def presence(self, count: int, names: tuple[str, ...]) -> None:
        """Who watches."""
        self._watching = (count, names)

    def connection(self, status: ConnectionStatus, now: Now) -> None:
        """The link's status is another."""
        old, self._status = self._status, status
        if status.lost_at is not None and self._lost_at is None and old.live:
            self._lost_at = status.lost_at
        # Made once per status: the same instant must be the same number in every head.
        self._link = self._link_head(now)
        self._told_degraded(old, status, now)
        if status.phase == old.phase and status.attempt == old.attempt:
            return
        at = now.at(self.offset)
        if status.phase == "waiting":
            delay = max(0.0, (status.next_attempt_at or now.mono) - now.mono)
            what = "connection lost" if old.live else f"attempt {max(status.attempt, 1)} failed"
            self.log(
                at, "warn", "", "", f"{what}: {status.reason or 'no reason given'}; next in {delay:.0f} s"
            )
        elif status.phase == "failed":
            self.log(at, "bad", "", "", f"not trying again: {status.reason or status.code}")
        elif status.phase == "live" and not old.live:
            self.log(at, "good", "", "", f"connected to {status.url or 'the server'}")

    def _told_degraded(self, old: ConnectionStatus, status: ConnectionStatus, now: Now) -> None:
        at = now.at(self.offset)
        if status.degraded is not None and old.degraded is None:
            why = one_line(status.degraded.reason or status.degraded.code)
            self.log(at, "warn", "", "", f"the server takes no changes: {why}")
        elif status.live and status.degraded is None and old.degraded is not None:
            self.log(at, "good", "", "", "the server takes changes again")

    # -- the log

    def log(self, at: int, tone: str, what: str, name: str, text: str, *, replayed: bool = False) -> None:
        """Append an entry to the event log."""
        self._journal.add(at, Sentence(tone, what, name, text), replayed=replayed)

    def _sentence(self, kind: str, entity: Entity) -> Sentence | None:
        kept: dict[str, dict[str, Any]] = {
            "command": self._commands, "producer": self._producers, "error": self._problems,
        }  # fmt: skip
        old = kept.get(kind, {}).get(entity.id)
        return sentence(kind, entity, self._states.get(f"{kind} {entity.id}"), old)

    def _row_of(self, entity: Entity) -> str:
        """The row that *entity* is or is about; "" for none."""
        match entity:
            case Chain():
                return chain_row_id(entity.id)
            case Step():
                return self.rows.row_of(entity.id)
            case Command():
                return target_words(entity, self.rows, self._session)[0]
            case Problem(chain=chain, step=step):
                return self.rows.row_of(step) if step else chain_row_id(chain) if chain else ""
            case _:
                return ""

    # -- the entities

    def _store(self, kind: str, entity: Entity) -> None:
        match entity:
            case Session():
                self._session = entity
                self._states[f"{kind} {entity.id}"] = entity.state
            case Chain() | Step():
                self.rows.put(entity)
                self._states[f"{kind} {entity.id}"] = entity.state
            case Producer():
                self._producers[entity.id] = entity
            case Problem():
                self._problems[entity.id] = entity
            case Command():
                self._commands[entity.id] = entity

    def _forget(self, kind: str, ident: str) -> None:
        self.rows.drop(kind, ident)
        self._states.pop(f"{kind} {ident}", None)
        for kept in (
            (self._problems, self._commands, self._producers) if kind not in ("chain", "step") else ()
        ):
            kept.pop(ident, None)

    # -- frames

    def beat(self, now: Now, status: ConnectionStatus | None = None) -> Frame:
        """How the link is at this moment: in every message, because it changes without any change."""
        status = status or self._status
        beat: Frame = {}
        if status.rtt is not None:
            beat["rtt"] = round(status.rtt * 1000, 1)
        for key, mono in (("last", status.last_frame_at), ("due", status.heartbeat_due_at)):
            at = now.of(mono, self.offset)
            if at is not None:
                beat[key] = at
        return beat

    def head(self, now: Now) -> Frame:
        """All but rows and log; see the module's docstring."""
        rows, session = self.rows, self._session
        found, more = alarms(session, rows, reversed(self._problems.values()))
        return {
            "title": self.title,
            "link": self._link or self._link_head(now),
            "sub": {
                "phase": self._sub[0],
                "reason": one_line(self._sub[1]),
                "epoch": self._position[0],
                "seq": self._position[1],
            },
            "session": None if session is None else session_head(session),
            "counts": dict(sorted(rows.counts.items())),
            "steps": rows.total,
            "chains": rows.chains,
            "shown": rows.shown,
            "limit": rows.limit,
            "producers": producers_head(self._producers.values()),
            "watching": None
            if self._watching is None
            else {
                "count": self._watching[0],
                "names": [one_line(name, 80) for name in self._watching[1][:50]],
            },
            "metrics": metrics_head(session),
            "offers": offers(session),
            "may": self.may,
            "asked": asked(self._commands.values(), rows, session),
            "alarms": found,
            "alarms_more": more,
        }

    def _link_head(self, now: Now) -> Frame:
        return link_head(self._status, lambda mono: now.of(mono, self.offset))

    def frame(self, now: Now) -> Frame | None:
        """The change set since the last frame, or None when nothing changed."""
        rows, gone = self.rows.take()
        self._make_head(now)
        changed = {key: part for key, part in self._head.items() if self._head_sent.get(key) != part}
        log = self._journal.newest(self._log_sent)
        body: Frame = {}
        if changed:
            body["head"] = changed
        if rows:
            body["rows"] = rows
        if gone:
            body["gone"] = gone
        if log:
            body["log"] = log
        if not body:
            return None
        self._head_sent, self._log_sent = self._head, self._journal.number
        self.number += 1
        pages = self.rows.pages
        on = [pages.place(row["id"]) for row in rows]
        pages.stamp(self.number)
        if len(gone) > GONE_LIMIT or len(rows) > FRAME_ROWS or _size(rows) > FRAME_BYTES:
            # Too much for one message: the pages that they are on are told instead, and follow.
            body.pop("rows", None)
            body.pop("gone", None)
            body["pages"] = list(pages.versions)
        elif rows:
            body["on"] = on
        return {"type": "frame", "n": self.number, "at": now.at(self.offset), **body}

    def glance(self, now: Now) -> Frame | None:
        """A small frame: how things are on the whole. What rows and log have to tell is kept for later."""
        self._make_head(now)
        parts = {key: self._head[key] for key in _GLANCE if self._head_sent.get(key) != self._head[key]}
        if not parts and not self.rows.waiting:
            return None
        self._head_sent = {**self._head_sent, **parts}
        self.number += 1
        behind = {"behind": self.rows.waiting} if self.rows.waiting else {}
        return {"type": "frame", "n": self.number, "at": now.at(self.offset), "head": parts, **behind}

    def key(self, now: Now) -> Frame:
        """Everything, as of the last frame; of very many rows only the versions of their pages."""
        if not self._head_sent:
            self._make_head(now)
        key: Frame = {
            "n": self.number,
            "at": now.at(self.offset),
            "head": self._head_sent or self._head,
            "log": self._journal.newest(0),
        }
        if self.rows.size > KEY_BYTES:
            return {**key, "pages": list(self.rows.pages.versions)}
        return {**key, "rows": self.rows.all()}

    def page(self, page: int) -> list[Row]:
        """The rows of one page, as of the last frame; none of a page that there is not."""
        return self.rows.page(page) if 0 <= page < len(self.rows.pages) else []

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return len(self.rows.pages)

    def _make_head(self, now: Now) -> None:
        self._head = bounded(self.head(now))


def _size(rows: list[Row]) -> int:
    return len(_encode(rows))
