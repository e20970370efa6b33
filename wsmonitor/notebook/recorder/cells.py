"""One execution of a cell: what it put out, and when that is to be published. No clock, no thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from wsmonitor.export.collecting import OutputLimits, Outputs, Redact
from wsmonitor.export.outputs import encode, plain_text, references
from wsmonitor.publish.redaction import KeyBlocks

from .progress import Progress, tqdm_text

VIEW: Final = "application/vnd.jupyter.widget-view+json"
FIRST: Final = 0.25
"""Seconds from a cell's first output until it is published for the first time."""
INTERVAL: Final = 2.0
LONGEST: Final = 60.0
RATE: Final = 256 * 1024
"""Bytes a second that the outputs of one cell may cost, published anew and anew while it runs."""
LINES: Final = 50
"""Log lines of one cell at a time; of more, the newest (the output has all of them)."""
_PARTIAL: Final = 8 * 1024
_PROBE: Final = "a-value-of-it"
_HELD: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Begin:
    """What the hook tells of an execution as it begins.

    Attributes:
        msg_id: of the request that it executes.
        source: the cell's text.
        cell_id: the front-end's id of the cell; "" if it sent none.
        count: the execution count, as in ``In [count]``; 0 while it is not known.
        at: nanoseconds since 1970 UTC.
    """

    msg_id: str
    source: str
    cell_id: str
    count: int
    at: int


@dataclass(frozen=True, slots=True)
class Failed:
    """An error as IPython showed it."""

    name: str
    message: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Ending:
    """What the hook tells of an execution as it ends.

    Attributes:
        at: nanoseconds since 1970 UTC.
        error: the class name of the exception that ended it; "" if it succeeded.
        message: the exception's message.
        page: the bundle that the front-end's pager shows (``name?``), which no message on IOPub has.
    """

    at: int
    error: str = ""
    message: str = ""
    page: Mapping[str, Any] | None = None


class Lines:
    """The whole lines of one stream, as a log shows them: the newest, and how many were passed over.

    Args:
        redact: takes secrets out of a text of many lines.
    """

    def __init__(self, redact: Redact) -> None:
        self._redact = redact
        self._blocks = KeyBlocks()
        self._partial = ""
        self._lines: deque[str] = deque(maxlen=LINES)
        self._count = 0

    def feed(self, text: str) -> None:
        """More of the stream."""
        whole, newline, rest = text.rpartition("\n")
        if not newline:
            self._partial = (self._partial + text)[-_PARTIAL:]
            return
        whole = self._partial + whole
        self._partial = rest[-_PARTIAL:]
        if self._blocks.concerned(whole):
            shown = self._without_keys(whole.split("\n"))
            self._count += len(shown)
            self._lines.extend(shown)
            return
        # Only the newest can be shown: the others are counted, not looked at.
        parts = whole.rsplit("\n", LINES)
        self._count += whole.count("\n") + 1
        self._lines.extend(parts[1:] if len(parts) > LINES else parts)

    def take(self, *, last: bool = False) -> tuple[list[str], int]:
        """The lines since the last call, and how many more there were. *last*: also one without its end.

        They are redacted together: a secret may stand on the line after its name. A line that waits for
        such a secret is kept for the next call.
        """
        if last and self._partial:
            rest = self._without_keys([self._partial])
            self._lines.extend(rest)
            self._count += len(rest)
            self._partial = ""
        lines = [_overwritten(line) for line in self._lines]
        skipped = self._count - len(lines)
        waits: list[str] = []
        if not last and lines and self._names_a_secret(lines[-1]):
            waits = [self._lines[-1]]
            del lines[-1]
        self._lines = deque(waits, maxlen=LINES)
        self._count = len(waits)
        text = self._redact("\n".join(lines))
        return (text.split("\n") if lines else []), skipped

    def _names_a_secret(self, line: str) -> bool:
        probe = line[-100:] + "\n" + _PROBE
        return line.rstrip().endswith((":", "=", ">")) and _PROBE not in self._redact(probe)

    def _without_keys(self, lines: list[str]) -> list[str]:
        """*lines* without those of key blocks, of which a log might show any part."""
        return [shown for line in lines if (shown := self._blocks.line(line)) is not None]


def _overwritten(line: str) -> str:
    pieces = [piece for piece in line.split("\r") if piece]
    return plain_text(pieces[-1]) if pieces else ""


def _view(content: Mapping[str, Any]) -> str:
    """The id of the widget model that an output shows; "" if it shows none."""
    data = content.get("data")
    view = data.get(VIEW) if isinstance(data, Mapping) else None
    ident = view.get("model_id") if isinstance(view, Mapping) else None
    return ident if isinstance(ident, str) else ""


class Cell:
    """See the module's docstring.

    Attributes:
        begin: what was told as it began.
        outputs: what it put out.
        lines: its streams as log lines, by name.
        progress: the last that one of its bars showed; None if there is none.
        idle: whether the kernel is through with it.
        failed: the last error that it showed.
    """

    def __init__(
        self,
        begin: Begin,
        redact: Redact,
        limits: OutputLimits | None = None,
        *,
        widget: Callable[[str], str] = lambda model_id: "",
    ) -> None:
        self.begin = begin
        self._redact = redact
        self._widget = widget
        self._views = False  # whether it shows widgets
        self.outputs = Outputs(limits, put=self._keep, redact=redact)
        self.lines = {"stdout": Lines(redact), "stderr": Lines(redact)}
        self.progress: Progress | None = None
        self.idle = False
        self.failed: Failed | None = None
        self._held: dict[str, bytes] = {}
        self._published: dict[str, int] = {}
        self._version = 0  # what was published
        self._quiet = 0  # changes that are no reason to publish
        self._weight = 0
        self._due: float | None = None
        self._last = 0.0
        self._began: float | None = None

    def take(self, kind: str, content: Mapping[str, Any], now: float) -> None:
        """A message of the kernel that belongs to this cell."""
        if not self.outputs.add(kind, content):
            return
        if _view(content):
            self._views = True
        if kind == "stream":
            text = content.get("text")
            text = text if isinstance(text, str) else ""
            self.progress = tqdm_text(text) or self.progress
            self.lines["stderr" if content.get("name") == "stderr" else "stdout"].feed(text)
        elif kind == "error":
            trace = content.get("traceback")
            lines = trace if isinstance(trace, list) else []
            self.failed = Failed(
                str(content.get("ename", "")),
                str(content.get("evalue", "")),
                plain_text("\n".join(map(str, lines))),
            )
        self._schedule(now)

    def update(self, content: Mapping[str, Any], now: float, *, quiet: bool) -> None:
        """``update_display_data``. *quiet*: not by itself a reason to publish."""
        if self.outputs.update(content):
            if quiet:
                self._quiet += 1
            else:
                self._schedule(now)

    def widget_changed(self, now: float) -> None:
        """A bar changed, or words beside one, perhaps in a widget that this cell shows."""
        if self._views:
            self.outputs.version += 1
            self._schedule(now)

    def _with_widgets(self, outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """*outputs*, in which the text that stands for a progress bar's widget is what it shows now."""
        made = []
        for output in outputs:
            text = self._widget(_view(output)) if _view(output) else ""
            if text:
                output = {**output, "data": {**output["data"], "text/plain": self._redact(text)}}
            made.append(output)
        return made

    def _schedule(self, now: float) -> None:
        if self._began is None:
            self._began = now
        if self._due is None:
            self._due = max(now + FIRST, self._last + self._interval(now)) if self._last else now + FIRST

    def _interval(self, now: float) -> float:
        """Seconds to the next publication: bytes grow with output and time, not their product."""
        age = now - (self._began if self._began is not None else now)
        slow = min(max(INTERVAL, age / 10), LONGEST)
        weight = self.outputs.weight
        grown = weight >= self._weight * 5 // 4
        return max(slow, weight / RATE * (1 if grown else 8))

    @property
    def due(self) -> float | None:
        """When its outputs are to be published, on the clock of the calls; None while nothing changed."""
        return self._due

    @property
    def changed(self) -> bool:
        """Whether there is something that was not published."""
        return self.outputs.version - self._quiet != self._version

    def _keep(self, data: bytes, mime: str, digest: str) -> bool:
        self._held[digest] = data
        if sum(map(len, self._held.values())) > _HELD:
            self._forget()
        return True

    def _forget(self) -> None:
        # What was displayed and replaced again was never published: nobody needs it.
        shown = {one.sha256 for one in references(self.outputs.outputs())}
        for digest in self._held.keys() - shown:
            del self._held[digest]

    def publication(self, now: float) -> tuple[bytes, dict[str, int], dict[str, bytes]]:
        """The output's value as it is now, the sizes of its parts, and the parts that are new."""
        outputs = self.outputs.outputs()
        if self._views:
            outputs = self._with_widgets(outputs)
        parts = {one.sha256: one.size for one in references(outputs)}
        new = {digest: self._held[digest] for digest in parts if digest in self._held}
        self._held.clear()
        self._published = parts
        self._version = self.outputs.version
        self._quiet = 0
        self._weight = self.outputs.weight
        self._due = None
        self._last = now
        return encode(outputs, self.outputs.dropped), parts, new
