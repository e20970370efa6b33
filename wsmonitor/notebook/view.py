"""What an observer shows: a session's entities and the link's status, as change sets. Pure.

The format between the kernel and the browser
=============================================

The kernel holds the truth; a browser is told about it in *frames*. A frame has a number ``n``,
one more than the frame before, and ``at``: the kernel's best estimate of the server's clock when
it was made, in milliseconds since 1970 UTC. **All times in a frame are on that one scale**, so
the browser needs a single offset, and its own clock may be wrong.

``{"type": "frame", "n", "at", "due", "beat", "head"?, "rows"?, "gone"?, "log"?}``
    A change set, as a custom message. ``head`` replaces the head, if there is one; ``rows``
    (see `rows`) replace the rows with their ids; ``gone`` are ids of rows to forget;
    ``log`` are entries to append.
``{"type": "alive", "n", "at", "due", "beat"}``
    Nothing changed. ``n`` is that of the last frame: a browser that has another one lost something.
``{"n", "at", "due", "beat", "head", "rows", "log"}``
    A key frame: everything, in the trait ``_key``. It is bounded (rows and log have limits), and is
    sent soon after a change, now and then, and at the end. A browser that finds a gap
    shows so, drops nothing it has, and heals from the next key frame, without reaching Python.

``due`` is within how many milliseconds the next message of any kind comes. A browser that has waited
longer says that the kernel is silent: this, and not a flag, is how a view stops looking alive.

``beat`` is how the link to the server is: ``{"rtt", "last", "due"}``, the round-trip in milliseconds,
the time of the last frame from the server, and the time at which its next heartbeat is due.

``head``::

    {"title",
     "link":  {"phase", "attempt", "next", "code", "reason", "lost", "since", "url", "looked", "quiet",
               "covers"},
     "sub":   {"phase", "reason", "epoch", "seq"},
     "session": {"id", "name", "run", "state", "reason", "start", "end", "error",
                 "done"?, "total"?, "unit"?} | null,
     "counts": {state: n}, "steps", "chains", "shown", "limit",
     "producers": [{"id", "agent", "liveness", "since", "closed"}],
     "watching": {"count", "names"} | null,
     "alarms": [{"row", "name", "where", "text", "at", "detail"}], "alarms_more"}

A log entry: ``{"n", "at", "tone", "what", "name", "text", "replayed"?}``; ``tone`` is one of
``plain good warn bad``; ``what name text`` read as one sentence.

From the browser to the kernel: ``{"do": "seen" | "hello" | "reconnect", "n"}``: acknowledges a frame,
asks for a key frame, asks for an attempt now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from wsmonitor.client.types import ConnectionStatus, SubscriptionPhase
from wsmonitor.protocol.entities import Chain, Command, Entity, Problem, Producer, Session, Step
from wsmonitor.protocol.messages import Event
from wsmonitor.protocol.reducer import decode_entity
from wsmonitor.protocol.states import TERMINAL

from .rows import BROKEN, Rows, failure_line, milliseconds, one_line, same_failure

Frame: TypeAlias = dict[str, Any]

LOG_LIMIT: Final = 300
ALARM_LIMIT: Final = 3
_DETAIL: Final = 12_000  # characters of a traceback
_COMMAND_TONES: Final = {"applied": "good", "requested": "plain", "delivered": "plain", "accepted": "plain"}


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


class View:
    """Everything that one observer shows. Not thread-safe: one thread owns it."""

    def __init__(self, title: str, *, row_limit: int = 5_000) -> None:
        self.title = title
        self.rows = Rows(row_limit)
        self.number = 0  # of the last frame
        self._row_limit = row_limit
        self._session: Session | None = None
        self._states: dict[str, str] = {}  # row-independent: "kind id" to state, for the log
        self._producers: dict[str, Producer] = {}
        self._problems: dict[str, Problem] = {}
        self._commands: dict[str, str] = {}
        self._status = ConnectionStatus()
        self._link: Frame = {}
        self._sub: tuple[SubscriptionPhase, str] = ("waiting", "")
        self._position = ("", 0)
        self._watching: tuple[int, tuple[str, ...]] | None = None
        self._log: deque[Frame] = deque(maxlen=LOG_LIMIT)
        self._log_number = 0
        self._log_sent = 0
        self._head_sent: Frame | None = None
        self._missed = 0
        self._lost_at: float | None = None

    # -- what happened

    @property
    def offset(self) -> float:
        """Seconds by which the server's clock is ahead of ours, as far as it is known."""
        return self._status.clock_offset or 0.0

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
            self._tell(event.kind, entity, at)
            self._store(event.kind, entity)
        for kind, ident in event.drop:
            self._forget(kind, ident)
        if event.note:
            self.log(at, "warn", "note", "", event.note)
        self._position = (event.epoch, event.seq)

    def replayed(self, events: Iterable[Event]) -> None:
        """What was missed while away: for the log, marked; the state comes with the sync."""
        for event in events:
            entity = decode_entity(event.kind, event.entity)
            self._missed += 1
            if entity is not None:
                self._tell(event.kind, entity, milliseconds(event.ts) or 0, replayed=True)

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

    # -- the log

    def log(self, at: int, tone: str, what: str, name: str, text: str, *, replayed: bool = False) -> None:
        """Append an entry to the event log."""
        self._log_number += 1
        entry: Frame = {
            "n": self._log_number,
            "at": at,
            "tone": tone,
            "what": what,
            "name": name,
            "text": text,
        }
        if replayed:
            entry["replayed"] = True
        self._log.append(entry)

    def _tell(self, kind: str, entity: Entity, at: int, *, replayed: bool = False) -> None:
        match entity:
            case Session() | Chain() | Step():
                if self._states.get(f"{kind} {entity.id}") == entity.state:
                    return
                tone, text = _state_words(entity)
                self.log(at, tone, kind, entity.name, text, replayed=replayed)
                if replayed:
                    self._states[f"{kind} {entity.id}"] = entity.state
            case Command():
                if self._commands.get(entity.id) != entity.state:
                    who = entity.via or entity.actor
                    text = " ".join(part for part in (f"from {who}" if who else "", entity.state) if part)
                    if entity.reason:
                        text += f": {one_line(entity.reason)}"
                    self.log(
                        at,
                        _COMMAND_TONES.get(entity.state, "warn"),
                        "command",
                        entity.name,
                        text,
                        replayed=replayed,
                    )
            case Producer():
                old = self._producers.get(entity.id)
                if old is not None and old.liveness != entity.liveness:
                    words = {"live": "is heard again", "stale": "is not heard", "lost": "is lost"}
                    tone = "good" if entity.liveness == "live" else "warn"
                    agent = one_line(entity.agent, 60)
                    self.log(at, tone, "producer", agent, words[entity.liveness], replayed=replayed)
            case Problem():
                if entity.id not in self._problems:
                    tone = "warn" if entity.severity in ("info", "warning") else "bad"
                    self.log(at, tone, "", entity.code, one_line(entity.message), replayed=replayed)
            case _:
                pass

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
                self._commands[entity.id] = entity.state
            case _:
                pass

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
        rows = self.rows
        alarms, more = self._alarms()
        return {
            "title": self.title,
            "link": self._link or self._link_head(now),
            "sub": {
                "phase": self._sub[0],
                "reason": self._sub[1],
                "epoch": self._position[0],
                "seq": self._position[1],
            },
            "session": None if self._session is None else _session_head(self._session),
            "counts": dict(sorted(rows.counts.items())),
            "steps": rows.total,
            "chains": rows.chains,
            "shown": rows.shown,
            "limit": rows.limit,
            "producers": [
                {
                    "id": producer.id,
                    "agent": one_line(producer.agent, 80),
                    "liveness": producer.liveness,
                    "since": milliseconds(producer.since),
                    "closed": producer.closed,
                }
                for producer in list(self._producers.values())[:20]
            ],
            "watching": None
            if self._watching is None
            else {"count": self._watching[0], "names": list(self._watching[1])[:50]},
            "alarms": alarms,
            "alarms_more": more,
        }

    def _link_head(self, now: Now) -> Frame:
        status = self._status
        covers = [one_line(pattern, 80) for pattern in status.welcome.sessions[:12]] if status.welcome else []
        return {
            "phase": status.phase,
            "attempt": status.attempt,
            "next": now.of(status.next_attempt_at, self.offset),
            "code": status.code,
            "reason": one_line(status.reason, 400),
            "lost": now.of(status.lost_at, self.offset),
            "since": now.of(status.connected_at, self.offset),
            "url": status.url or "",
            "looked": [one_line(place, 300) for place in status.looked[:12]],
            "quiet": round((status.welcome.quiet_after if status.welcome else 3.0) * 1000),
            "covers": [] if covers == ["*"] else covers,
        }

    def _alarms(self) -> tuple[list[Frame], int]:
        found: list[Frame] = []
        count = 0
        session = self._session
        causes = self.rows.causes()
        if session is not None and session.error is not None and session.state in BROKEN:
            count += 1
            # The step that brought the session down is not another alarm, but where this one leads to.
            cause = next((item for item in causes if same_failure(item[1].error, session.error)), None)
            traceback = session.error.traceback
            if cause is not None:
                causes.remove(cause)
                traceback = traceback or (cause[1].error.traceback if cause[1].error else "")
            found.append(
                {
                    "row": "" if cause is None else cause[0],
                    "name": session.name,
                    "where": session.reason if cause is None else self.rows.path(cause[1]),
                    "text": f"{session.state}: {failure_line(session.error)}",
                    "at": milliseconds(session.ended),
                    "detail": traceback[-_DETAIL:],
                }
            )
        for row_id, step in causes:
            count += 1
            if len(found) < ALARM_LIMIT:
                error = step.error
                reason = failure_line(error) or one_line(step.reason)
                found.append(
                    {
                        "row": row_id,
                        "name": step.name,
                        "where": self.rows.path(step),
                        "text": f"{step.state}: {reason}" if reason else step.state,
                        "at": milliseconds(step.ended),
                        "detail": error.traceback[-_DETAIL:] if error is not None else "",
                    }
                )
        for problem in reversed(self._problems.values()):
            if problem.severity in ("info", "warning"):
                continue
            count += 1
            if len(found) < ALARM_LIMIT:
                found.append(
                    {
                        "row": "",
                        "name": problem.code,
                        "where": "",
                        "text": one_line(problem.message),
                        "at": milliseconds(problem.at),
                        "detail": "",
                    }
                )
        return found, count - len(found)

    def frame(self, now: Now) -> Frame | None:
        """The change set since the last frame, or None when nothing changed."""
        rows, gone = self.rows.take()
        head = self.head(now)
        log = [entry for entry in self._log if entry["n"] > self._log_sent]
        body: Frame = {}
        if head != self._head_sent:
            body["head"] = head
        if rows:
            body["rows"] = rows
        if gone:
            body["gone"] = gone
        if log:
            body["log"] = log
        if not body:
            return None
        self._head_sent, self._log_sent = head, self._log_number
        self.number += 1
        return {"type": "frame", "n": self.number, "at": now.at(self.offset), **body}

    def key(self, now: Now) -> Frame:
        """Everything, as of the last frame."""
        return {
            "n": self.number,
            "at": now.at(self.offset),
            "head": self._head_sent or self.head(now),
            "rows": self.rows.all(),
            "log": list(self._log),
        }


def _state_words(entity: Session | Chain | Step) -> tuple[str, str]:
    """Tone and words of a state change, for the log."""
    if entity.state in BROKEN:
        reason = failure_line(entity.error) or one_line(entity.reason)
        return "bad", f"{entity.state}: {reason}" if reason else entity.state
    text = entity.state.replace("_", " ")
    if isinstance(entity, Step) and entity.attempt > 1:
        text += f", attempt {entity.attempt}"
    if entity.reason:
        text += f": {one_line(entity.reason)}"
    tone = "good" if entity.state == "succeeded" and isinstance(entity, Session) else "plain"
    return tone, text


def _session_head(session: Session) -> Frame:
    head: Frame = {
        "id": session.id,
        "name": session.name,
        "run": session.run,
        "state": session.state,
        "reason": one_line(session.reason),
        "start": milliseconds(session.started) or milliseconds(session.created),
        "end": milliseconds(session.ended),
        "error": failure_line(session.error),
    }
    if session.progress is not None:
        head |= {
            "done": session.progress.done,
            "total": session.progress.total,
            "unit": session.progress.unit,
        }
    return head
