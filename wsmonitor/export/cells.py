"""A recorded cell's outputs, as a notebook holds them, and what is to be said about them.

What was published is untrusted: whatever it holds, what comes out is valid nbformat 4.5. What is missing is
said where it is missing, in a line of its own on the cell's ``stderr``, and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from wsmonitor.protocol.entities import LogRecord

from .outputs import Recorded, Reference, as_reference, decode, plain_text
from .recording import Fetch, Logs, Run, whole
from .words import plural, size

MARK: Final = "[wsmonitor] "
"""Begins each line that is ours, so that nobody takes it for the cell's own."""

_JSON_MIME: Final = re.compile(r"application/(.*\+)?json")
_MIME: Final = re.compile(r"[\w.+-]{1,100}/[\w.+-]{1,150}(;.{0,100})?")
STREAMS: Final = ("stdout", "stderr")
_LEVELS: Final = {"info": "stdout", "warning": "stderr"}
_ALIKE: Final = 5
"""So many last lines must be the same for a place in the log to be where the outputs end."""
_DIGEST: Final = re.compile("[0-9a-f]{64}")


@dataclass
class Outputs:
    """What a cell gave.

    Attributes:
        outputs: valid nbformat outputs, in order; `notes` are in it as its last.
        notes: what is missing, or should be known, in words.
        missing: how many pieces are no longer kept, or cannot be read.
        partial: whether it is less than an undisturbed browser would have shown.
    """

    outputs: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: int = 0
    partial: bool = False


def outputs_of(run: Run, fetch: Fetch, logs: Logs, *, source: bool = True) -> Outputs:
    """The outputs of *run*, their large parts fetched.

    Of a cell whose kernel was lost, the log lines add what was printed after the outputs were last written.

    Args:
        source: whether the run's source is known in full.
    """
    made = Outputs()
    if not source:
        _missing(made, "only the beginning of this cell's source is still kept")
    recorded = Recorded()
    if run.output is not None:
        data = whole(run.output, fetch)
        if data is None:
            _missing(made, f"the outputs of this cell ({size(run.output.size)}) are no longer kept")
        else:
            try:
                recorded = decode(data)
            except ValueError as exc:
                _missing(made, f"the outputs of this cell cannot be read: {exc}")
    for raw in recorded.outputs:
        output = _output(raw, run, fetch, made)
        if output is not None:
            made.outputs.append(output)
    for what, count in sorted(recorded.dropped.items()):
        if count > 0:
            made.partial = True
            made.notes.append(f"not recorded, because it was too much: {_amount(what, count)}")
    if run.open:
        made.partial = True
        made.notes.append("the cell was still running when this was read: there may be more to come")
    elif run.cut:
        made.partial = True
        if run.log_count:
            made.outputs += after(made.outputs, logs(run.step, run.log_count))
        made.notes.append("the kernel was lost while this cell ran: this is what was recorded until then")
    if made.notes:
        text = "".join(f"{MARK}{note}\n" for note in made.notes)
        made.outputs.append({"output_type": "stream", "name": "stderr", "text": text})
    made.outputs = _joined(made.outputs)
    return made


def _joined(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Texts of one stream that follow each other as one output, as every front-end keeps them."""
    found: list[dict[str, Any]] = []
    for output in outputs:
        last = found[-1] if found else {}
        stream = output["output_type"] == "stream" and last.get("output_type") == "stream"
        if not stream or last["name"] != output["name"]:
            found.append(output)
            continue
        gap = "\n" if output["text"].startswith(MARK) and not last["text"].endswith("\n") else ""
        found[-1] = {**last, "text": last["text"] + gap + output["text"]}
    return found


def after(outputs: Sequence[Mapping[str, Any]], lines: Iterable[LogRecord]) -> list[dict[str, Any]]:
    """What the log lines of a cell tell beyond its *outputs*, as stream outputs.

    Each stream is logged line by line, ``stderr`` as warnings; where its recorded text ends among these lines
    is found by comparing.
    """
    logged = [(_LEVELS[line.level], line.text) for line in lines if line.level in _LEVELS]
    known: dict[str, int] = {}
    begun: dict[str, str] = {}
    for name in STREAMS:
        text = "".join(str(one["text"]) for one in outputs if one.get("name") == name)
        whole_lines, _, rest = text.rpartition("\n")
        shown = [plain_text(line.rpartition("\r")[2]) for line in whole_lines.split("\n") if line]
        known[name] = _overlap(shown, [line for one, line in logged if one == name])
        begun[name] = plain_text(rest.rpartition("\r")[2])
    newer: list[dict[str, Any]] = []
    for name, line in logged:
        if known[name] > 0:
            known[name] -= 1
            continue
        # The outputs may end in the middle of a line.
        text = line.removeprefix(begun[name])
        begun[name] = ""
        newer.append({"output_type": "stream", "name": name, "text": text + "\n"})
    return newer


def _overlap(shown: Sequence[str], logged: Sequence[str]) -> int:
    """How many of the *logged* lines are among those *shown*: up to where the last of these is logged."""
    if not shown:
        return 0
    for end in range(len(logged), 0, -1):
        common = min(end, len(shown), _ALIKE)
        if list(logged[end - common : end]) == list(shown[-common:]):
            return end
    # The log passes lines over when there are many at a time, perhaps just these.
    there = set(shown)
    return next((end for end in range(len(logged), 0, -1) if logged[end - 1] in there), 0)


def _missing(made: Outputs, note: str) -> None:
    made.missing += 1
    made.partial = True
    made.notes.append(note)


def _amount(what: str, count: int) -> str:
    return (
        size(count)
        if what == "bytes"
        else plural(count, what.replace("_", " ").removesuffix("s") or "output")
    )


def _output(raw: Any, run: Run, fetch: Fetch, made: Outputs) -> dict[str, Any] | None:
    """One output in the form that nbformat 4.5 asks for; None for what is none."""
    kind = raw.get("output_type") if isinstance(raw, dict) else None
    if kind == "stream":
        text = _datum("text/plain", raw.get("text", ""), fetch, made)
        name = "stderr" if raw.get("name") == "stderr" else "stdout"
        return {"output_type": "stream", "name": name, "text": text if isinstance(text, str) else ""}
    if kind == "error":
        lines = raw.get("traceback")
        return {
            "output_type": "error",
            "ename": _string(raw.get("ename")),
            "evalue": _string(raw.get("evalue")),
            "traceback": [_string(line) for line in lines] if isinstance(lines, list) else [],
        }
    if kind in ("display_data", "execute_result"):
        given, metadata = raw.get("data"), raw.get("metadata")
        data = {}
        for mime, datum in (given if isinstance(given, dict) else {}).items():
            if isinstance(mime, str) and _MIME.fullmatch(mime):
                found = _datum(mime, datum, fetch, made)
                if found is not None:
                    data[mime] = found
        output: dict[str, Any] = {
            "output_type": kind,
            "data": data,
            "metadata": metadata if isinstance(metadata, dict) else {},
        }
        if kind == "execute_result":
            count = raw.get("execution_count", run.count)
            known = isinstance(count, int) and not isinstance(count, bool) and count >= 0
            output["execution_count"] = count if known else run.count
        return output
    _missing(made, "an output of a kind that is not known was left out")
    return None


def _string(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _datum(mime: str, datum: Any, fetch: Fetch, made: Outputs) -> Any:
    """What a mime type of an output holds; None if it cannot be had, which is noted."""
    reference = as_reference(datum)
    if reference is not None:
        return _fetched(mime, reference, fetch, made)
    if _JSON_MIME.fullmatch(mime):
        return datum
    if isinstance(datum, list) and all(isinstance(line, str) for line in datum):
        return "".join(datum)
    return _string(datum)


def _fetched(mime: str, reference: Reference, fetch: Fetch, made: Outputs) -> Any:
    """What stood in the output, of a value of its own; None if it cannot be had, which is noted."""
    known = _DIGEST.fullmatch(reference.sha256) and reference.size >= 0
    data = fetch(reference.sha256, reference.size) if known else None
    if data is None:
        _missing(made, f"an output ({mime}, {size(reference.size)}) is no longer kept")
        return None
    try:
        datum = reference.datum(data)
    except ValueError:
        _missing(made, f"an output ({mime}) cannot be read")
        return None
    return datum if isinstance(datum, str) or _JSON_MIME.fullmatch(mime) else _string(datum)
