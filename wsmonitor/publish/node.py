"""One session, chain or step as its producer keeps it: every field, and what is still to be sent.

Internal: the classes that users hold are in `work`, `steps` and `session`. All methods take the run's lock
where they change something, so that the order of submission is the order of the changes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Literal

from msgspec import structs

from wsmonitor.protocol.changes import ChainChange, Change, SessionChange, StepChange
from wsmonitor.protocol.entities import PAUSES, Failure, LogRecord, Progress, Value
from wsmonitor.protocol.states import TERMINAL, State, may_follow

from .channel import LOG_HELD
from .control import Question, Request
from .redaction import KeyBlocks
from .values import TEXT, cut

if TYPE_CHECKING:
    from .run import Run
    from .work import Work

NodeKind = Literal["session", "chain", "step"]
MAX_METRICS: Final = 64
PAUSE_TIMES: Final = 32  # beginnings and ends that are kept
MAX_ATTRIBUTES: Final = 64
ATTRIBUTES_SIZE: Final = 6 * 1024  # characters of keys and values together: an event holds 32 KiB in all
LOG_LENGTH: Final = 4096
_SAFE: Final = 1 << 53


class Node:
    """See the module's docstring.

    Attributes:
        above: what encloses it: a step's parent or chain, a chain's session.
        announced: whether observers know of it.
        foreign: another process owns it: nothing may be written.
        blocked: how many threads or tasks wait at a point of it.
        open_children: announced and not ended nodes directly beneath it.
    """

    __slots__ = (
        "_blocks", "_dirty", "_fields", "_logs", "_logs_lost", "above", "announced", "blocked",
        "cancel_request", "face", "foreign", "id", "kind", "live", "live_held", "open_children",
        "pause_request", "question", "run", "sent_at", "state", "tracked",
    )  # fmt: skip

    def __init__(
        self, run: Run, kind: NodeKind, ident: str, above: Node | None, fields: dict[str, Any]
    ) -> None:
        self.run = run
        self.kind = kind
        self.id = ident
        self.above = above
        self.face: Work | None = None
        self.state: State = "pending"
        self.announced = False
        self.foreign = False
        self.blocked = 0
        self.open_children = 0
        self.pause_request: Request | None = None
        self.cancel_request: Request | None = None
        self.question: Question | None = None
        self.sent_at = -math.inf
        self.live: tuple[int | float, int | float | None, str] | None = None
        self.live_held = False
        self.tracked = False
        self._fields: dict[str, Any] = {
            key: value for key, value in fields.items() if value not in (None, "", ())
        }
        self._dirty: set[str] = set()
        self._logs: list[LogRecord] = []
        self._logs_lost = 0
        self._blocks = KeyBlocks()

    # -- reading

    @property
    def is_step(self) -> bool:
        return self.kind == "step"

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL

    @property
    def here(self) -> bool:
        """Whether code beneath this node is still watched (or must learn that it was superseded)."""
        return self.run.open or bool(self.run.control.stopped)

    @property
    def chain_id(self) -> str:
        """The id of the chain it belongs to, or ""."""
        if self.kind == "chain":
            return self.id
        return str(self._fields.get("chain", ""))

    def get(self, field: str, default: Any = None) -> Any:
        """What was last set for *field*."""
        return self._fields.get(field, default)

    # -- changing

    def set(self, *, urgent: bool = False, **fields: Any) -> None:
        """Set fields, and have them sent if observers know of the node."""
        with self.run.lock:
            if self.foreign:
                return
            self._fields.update(fields)
            if not self.announced:
                return
            self._dirty.update(fields)
            self.run.channel.touch(self, urgent=urgent)

    def announce(self, state: State, at: str = "") -> None:
        """Let observers know of the node, in *state*, since *at* (nanoseconds; now)."""
        run = self.run
        with run.lock:
            if self.announced or self.foreign:
                return
            if not run.open:
                if not run.control.stopped:  # then its code is told at its next point
                    why = "has ended" if run.ended else "has not been started"
                    run.report(
                        "session_ended",
                        f"{self.kind} {self.get('name')!r} is not published: its session {why}",
                        node=self,
                    )
                return
            run.ensure_open()
            now = at or run.now()
            self.announced = True
            self.state = state
            self._fields.update(state=state, created=now)
            if state == "running":
                self._fields["started"] = now
            if self.is_step:
                self._fields["commands"] = self._takes()
            self._dirty.update(self._fields)
            run.nodes[self.id] = self
            if self.above is not None:
                self.above.open_children += 1
            run.channel.touch(self, urgent=True)

    def move(self, state: State, reason: str, at: str = "") -> bool:
        """Go to *state* (as of *at*: nanoseconds; now), if that may follow; says whether it did."""
        run = self.run
        with run.lock:
            if not self.announced or self.foreign or self.state == state or not may_follow(self.state, state):
                return False
            fields: dict[str, Any] = {"state": state, "reason": run.capture.text(reason, 1024)}
            if "paused" in (state, self.state):
                fields["attributes"] = self._attributes_with_pause(state == "paused")
            self.state = state
            if "started" not in self._fields and state != "cancelled":
                fields["started"] = run.now()
            if state in TERMINAL:
                fields["ended"] = at or run.now()
            if self.is_step:
                fields["commands"] = self._takes()
            self.set(urgent=True, **fields)
            return True

    def _attributes_with_pause(self, begins: bool) -> dict[str, Any]:
        """The attributes, in which a pause begins or ends now: no entity keeps the history of its states."""
        attributes = dict(self._fields.get("attributes", {}))
        told = attributes.get(PAUSES)
        times = list(told) if isinstance(told, list) else []
        if len(times) % 2 == (0 if begins else 1):
            times.append(int(self.run.now()) // 1_000_000)
        attributes[PAUSES] = times[-PAUSE_TIMES:] if len(times) % 2 == 0 else times[-PAUSE_TIMES - 1 :]
        return attributes

    def end(self, state: State, reason: str = "", failure: Failure | None = None, at: str = "") -> bool:
        """Go to the terminal *state*; says whether it did (an ended node stays as it is)."""
        run = self.run
        with run.lock:
            if not self.announced or self.foreign or self.ended:
                return False
            if not may_follow(self.state, state):
                # Only `skipped` can be impossible here: a paused one goes on first, a cancelling one is
                # cancelled.
                if self.state == "cancelling":
                    state = "cancelled"
                else:
                    self.move("running", "")
            if failure is not None:
                self._fields["error"] = failure
                self._dirty.add("error")
            self.move(state, reason, at)
            run.nodes.pop(self.id, None)
            if self.above is not None:
                self.above.open_children -= 1
            run.channel.ended(self)
            run.control.ended(self)
            return True

    def value(self, field: Literal["input", "output"], obj: object) -> None:
        """Take *obj* as the input or output: converted now, on the caller's thread."""
        self.record(field, *self.run.capture.value(obj))

    def record(self, field: Literal["input", "output"], value: Value, data: bytes | None) -> None:
        """Take what `Capture.value` or `Capture.encoded` made."""
        with self.run.lock:
            if self.foreign:
                return
            if data is not None:
                self.run.keep_value(data, value.sha256)
            if field == "input":
                self.set(input=value)
            else:
                self.set(output=value)

    def metric(self, name: str, value: int | float) -> None:
        """Set one metric. A number that JSON does not have goes to the attributes, as a word."""
        name = self.run.capture.text(name, 200)
        if not math.isfinite(value):
            self.attribute(f"metric.{name}", value)
            return
        number = int(value) if isinstance(value, int) and -_SAFE <= value <= _SAFE else float(value)
        with self.run.lock:
            metrics = dict(self._fields.get("metrics", {}))
            if name not in metrics and len(metrics) >= MAX_METRICS:
                self.run.report(
                    "limit_exceeded", f"more than {MAX_METRICS} metrics: {name!r} is left out", node=self
                )
                return
            metrics[name] = number
            self.set(metrics=metrics)

    def attribute(self, name: str, obj: object) -> None:
        """Set one attribute."""
        capture = self.run.capture
        name = capture.text(name, 200)
        value = capture.scalar(name, obj)
        with self.run.lock:
            attributes = dict(self._fields.get("attributes", {}))
            attributes[name] = value
            size = sum(len(key) + len(str(item)) for key, item in attributes.items())
            if len(attributes) > MAX_ATTRIBUTES or size > ATTRIBUTES_SIZE:
                self.run.report(
                    "limit_exceeded",
                    f"more than {MAX_ATTRIBUTES} attributes, or {ATTRIBUTES_SIZE:,} characters of them: "
                    f"{name!r} is left out",
                    node=self,
                )
                return
            self.set(attributes=attributes)

    def tag(self, tags: tuple[str, ...]) -> None:
        """Set the tags."""
        clean = tuple(dict.fromkeys(self.run.capture.text(tag, 200) for tag in tags))[:64]
        self.set(tags=clean)

    def progress(self, done: int | float, total: int | float | None, unit: str) -> None:
        """Say how far it is. Cheap: a number is noted, and sent when its turn comes."""
        self.live = (done, total, unit)
        if not self.live_held:
            with self.run.lock:
                self.live_held = True
                if self.announced and not self.foreign:
                    self.run.channel.touch(self, urgent=False)

    def log(self, text: str, level: Literal["debug", "info", "warning", "error"]) -> None:
        """Append a log line."""
        capture = self.run.capture
        if capture.redactor.finds_keys and self._blocks.concerned(text):
            lines = [shown for line in text.split("\n") if (shown := self._blocks.line(line)) is not None]
            if not lines:
                return
            text = "\n".join(lines)
        shown = capture.text(text, LOG_LENGTH)
        record = LogRecord(n=0, at=self.run.now(), level=level, text=shown, truncated=len(text) > LOG_LENGTH)
        with self.run.lock:
            if self.foreign or not self.run.open:
                return
            if len(self._logs) >= LOG_HELD:
                self._logs_lost += 1
                return
            self._logs.append(record)
            if self.announced:  # else it is sent after the beginning
                self.run.channel.touch(self, urgent=False)

    def disown(self) -> None:
        """The process was forked: the node is the parent's."""
        self.foreign = True
        self.pause_request = self.cancel_request = None

    def refresh_commands(self) -> None:
        """Say again which commands this step takes now."""
        with self.run.lock:
            self.set(urgent=True, commands=self._takes())

    # -- for the channel; the run's lock is held

    def take_change(self) -> Change | None:
        """What is to be sent, or None."""
        self._take_live()
        if not self._dirty:
            return None
        fields = {key: self._fields[key] for key in self._dirty}
        self._dirty.clear()
        return self._make(fields)

    def full_change(self) -> Change:
        """All fields: creates the entity where it is not there, and changes nothing where it is."""
        self._take_live()
        self._dirty.clear()
        for field in ("input", "output"):
            value = self._fields.get(field)
            if isinstance(value, Value) and value.truncated and self.run.kept_value(value.sha256) is None:
                self._fields[field] = value = _beginning(value, "the rest is no longer kept")
            if isinstance(value, Value) and value.parts:
                kept = {
                    one: size for one, size in value.parts.items() if self.run.kept_value(one) is not None
                }
                self._fields[field] = structs.replace(value, parts=kept)
        return self._make(dict(self._fields))

    def kept_values(self) -> list[tuple[bytes, str]]:
        """The large values it refers to, for uploading them again."""
        found = []
        for field in ("input", "output"):
            value = self._fields.get(field)
            if not isinstance(value, Value):
                continue
            for sha256 in (*value.parts, *((value.sha256,) if value.truncated else ())):
                data = self.run.kept_value(sha256)
                if data is not None:
                    found.append((data, sha256))
        return found

    def strip_values(self) -> None:
        """The server would not take the values: keep their beginning, inline, and say so."""
        for field in ("input", "output"):
            value = self._fields.get(field)
            if isinstance(value, Value) and (value.truncated or value.parts or value.size > 1000):
                self._fields[field] = _beginning(value, "the server did not take it")
        error = self._fields.get("error")
        if isinstance(error, Failure):
            self._fields["error"] = Failure(
                code=error.code,
                message=cut(error.message, 500),
                type=error.type,
                traceback=error.traceback[-2000:],
            )

    @property
    def has_logs(self) -> bool:
        """Whether log lines wait."""
        return bool(self._logs) or self._logs_lost > 0

    def take_logs(self) -> list[LogRecord]:
        """The log lines that wait."""
        records, self._logs = self._logs, []
        if self._logs_lost:
            text = f"({self._logs_lost:,} further lines came too fast and were left out)"
            records.append(LogRecord(n=0, at=self.run.now(), level="warning", text=text))
            self._logs_lost = 0
        return records

    def _take_live(self) -> None:
        # In this order: what is set after the flag was cleared makes its setter touch the node again.
        self.live_held = False
        live = self.live
        if live is not None:
            progress = Progress(done=live[0], total=live[1], unit=live[2])
            if progress != self._fields.get("progress"):
                self._fields["progress"] = progress
                self._dirty.add("progress")

    def _make(self, fields: dict[str, Any]) -> Change:
        if self.kind == "session":
            return SessionChange(**fields)
        return (ChainChange if self.kind == "chain" else StepChange)(id=self.id, **fields)

    def _takes(self) -> tuple[str, ...]:
        if self.state == "failed":
            return ("retry",) if self.id in self.run.retries else ()
        if self.state == "awaiting_input" and self.question is not None:
            return ("approve", "reject", "cancel") if self.question.kind == "approve" else ("input", "cancel")
        return self.run.takes.get(self.state, ())


def _beginning(value: Value, why: str) -> Value:
    """An inline value in the place of one whose bytes cannot be had."""
    from hashlib import sha256

    text = f"{value.text[:1000]}\n… {value.size:,} bytes in all; {why}"
    data = text.encode()
    return Value(mime=TEXT, text=text, size=len(data), sha256=sha256(data).hexdigest())
