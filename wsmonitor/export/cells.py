"""A recorded cell's outputs, as a notebook holds them, and what is to be said about them.

What was published is untrusted: whatever it holds, what comes out is valid nbformat 4.5. What is missing is
said where it is missing, in a line of its own on the cell's ``stderr``, and counted.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from .recording import Fetch, Run, document_of, whole
from .words import plural, size

MARK: Final = "[wsmonitor] "
"""Begins each line that is ours, so that nobody takes it for the cell's own."""

_JSON_MIME: Final = re.compile(r"application/(.*\+)?json")
_MIME: Final = re.compile(r"[\w.+-]{1,100}/[\w.+-]{1,150}(;.{0,100})?")
_BASE64: Final = ("image/", "audio/", "video/", "application/pdf", "application/octet-stream")


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


def outputs_of(run: Run, fetch: Fetch, *, source: bool = True) -> Outputs:
    """The outputs of *run*, their large parts fetched. *source*: whether its source is known in full."""
    made = Outputs()
    if not source:
        _missing(made, "only the beginning of this cell's source is still kept")
    document: dict[str, Any] = {"outputs": []}
    if run.output is not None:
        data = whole(run.output, fetch)
        if data is None:
            _missing(made, f"the outputs of this cell ({size(run.output.size)}) are no longer kept")
        else:
            try:
                document = document_of(data)
            except ValueError as exc:
                _missing(made, str(exc))
    for raw in document["outputs"]:
        output = _output(raw, run, fetch, made)
        if output is not None:
            made.outputs.append(output)
    for what, count in _counts(document.get("dropped")):
        made.partial = True
        made.notes.append(f"{plural(count, what)} could not be recorded, or were too much to keep")
    if run.open:
        made.partial = True
        made.notes.append("the cell was still running when this was read: there may be more to come")
    elif run.state == "crashed":
        made.partial = True
        made.notes.append("the kernel was lost while this cell ran: this is what was recorded until then")
    if made.notes:
        text = "".join(f"{MARK}{note}\n" for note in made.notes)
        made.outputs.append({"output_type": "stream", "name": "stderr", "text": text})
    return made


def _missing(made: Outputs, note: str) -> None:
    made.missing += 1
    made.partial = True
    made.notes.append(note)


def _counts(dropped: Any) -> list[tuple[str, int]]:
    if not isinstance(dropped, dict):
        return []
    return [
        (str(what).replace("_", " ").removesuffix("s") or "output", int(count))
        for what, count in dropped.items()
        if isinstance(count, int) and not isinstance(count, bool) and count > 0
    ]


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
    reference = datum.get("$value") if isinstance(datum, dict) and len(datum) == 1 else None
    if isinstance(reference, dict):
        sha256, count = reference.get("sha256"), reference.get("size")
        data = None
        if isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256) and isinstance(count, int):
            data = fetch(sha256, count)
        if data is None:
            amount = f", {size(count)}" if isinstance(count, int) else ""
            _missing(made, f"an output ({mime}{amount}) is no longer kept")
            return None
        return _decoded(mime, data, made)
    if _JSON_MIME.fullmatch(mime):
        return datum
    if isinstance(datum, list) and all(isinstance(line, str) for line in datum):
        return "".join(datum)
    return _string(datum)


def _decoded(mime: str, data: bytes, made: Outputs) -> Any:
    """The bytes of a value that was uploaded apart, as a notebook holds that type."""
    if _JSON_MIME.fullmatch(mime):
        try:
            return msgspec.json.decode(data)
        except msgspec.DecodeError:
            _missing(made, f"an output ({mime}) cannot be read")
            return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        if mime.startswith(_BASE64):
            return base64.b64encode(data).decode("ascii")
        return data.decode("utf-8", "replace")
