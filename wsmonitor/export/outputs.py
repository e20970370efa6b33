"""The outputs of a recorded cell, as a value: written, and read again (`collecting` makes them).

Pure. The outputs of a cell are the value of its step's ``output``, of the media type `MIME`::

    {"outputs": [...], "dropped": {"characters": 0, "outputs": 0, "bytes": 0}}

``outputs`` holds records of nbformat 4 in their order (``stream``, ``display_data``, ``execute_result``,
``error``). A large datum of a bundle stands there as a reference to a value of its own::

    "image/png": {"$value": {"sha256": "...", "size": 48211, "mime": "image/png", "form": "base64"}}

``form`` says how the value's bytes become the datum again: ``text`` (UTF-8), ``base64`` and
``base64+newline`` (a string; IPython ends some with a newline, and what is restored should be what was
there), ``json``. ``dropped`` counts what was left out; where text is missing, a line in its place says so.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

MIME: Final = "application/vnd.wsmonitor.outputs+json"
VALUE: Final = "$value"

Fetch = Callable[[str], bytes]
"""The bytes of the value with this sha256."""

_ANSI: Final = re.compile(r"\x1b\[[0-?]{0,32}[ -/]{0,4}[@-~]")


@dataclass(frozen=True, slots=True)
class Reference:
    """A datum that is a value of its own."""

    sha256: str
    size: int
    mime: str
    form: str = "text"

    def datum(self, data: bytes) -> Any:
        """What stood in the output, from the value's bytes.

        Raises:
            ValueError: the bytes are not of this form.
        """
        match self.form:
            case "base64":
                return b64encode(data).decode()
            case "base64+newline":
                return b64encode(data).decode() + "\n"
            case "json":
                return msgspec.json.decode(data)  # its DecodeError is a ValueError
            case _:
                return data.decode()


@dataclass(frozen=True, slots=True)
class Recorded:
    """The outputs of a cell, read.

    Attributes:
        outputs: of nbformat 4, in order; large data are references still (see `resolve`).
        dropped: what was left out: counts by kind, of those that are not 0.
    """

    outputs: list[dict[str, Any]] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)


def encode(outputs: Iterable[Mapping[str, Any]], dropped: Mapping[str, int] | None = None) -> bytes:
    """The value's bytes."""
    counts = {kind: count for kind, count in (dropped or {}).items() if count}
    document = {"outputs": list(outputs), "dropped": counts}
    try:
        return msgspec.json.encode(document)
    except UnicodeEncodeError:  # a lone surrogate: it has no UTF-8 form
        text = json.dumps(document, ensure_ascii=False)
        return text.encode("utf-8", "replace")


def decode(data: bytes | str) -> Recorded:
    """The outputs in a value.

    Raises:
        ValueError: it is not a value of this format.
    """
    try:
        raw = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ValueError(f"not recorded outputs: {exc}") from None
    outputs = raw.get("outputs") if isinstance(raw, dict) else None
    if not isinstance(outputs, list) or not all(isinstance(item, dict) for item in outputs):
        raise ValueError("not recorded outputs: no list of outputs")
    dropped = raw.get("dropped")
    counts = dropped if isinstance(dropped, dict) else {}
    return Recorded(outputs, {str(k): n for k, n in counts.items() if isinstance(n, int) and n})


def references(outputs: Iterable[Mapping[str, Any]]) -> list[Reference]:
    """The data of *outputs* that are values of their own, each once, in order."""
    found: dict[str, Reference] = {}
    for item in outputs:
        data = item.get("data")
        for datum in data.values() if isinstance(data, Mapping) else ():
            reference = as_reference(datum)
            if reference is not None:
                found.setdefault(reference.sha256, reference)
    return list(found.values())


def as_reference(datum: Any) -> Reference | None:
    """The reference that *datum* is, or None if it is a datum itself."""
    if not (isinstance(datum, Mapping) and len(datum) == 1 and VALUE in datum):
        return None
    try:
        return msgspec.convert(datum[VALUE], Reference)
    except msgspec.ValidationError:
        return None


def resolve(outputs: Iterable[Mapping[str, Any]], fetch: Fetch) -> list[dict[str, Any]]:
    """*outputs* of nbformat 4 without references; a value that *fetch* cannot give is named in the text.

    *fetch* raises `LookupError` where there is no such value any more; other errors pass through.
    """
    result = []
    for item in outputs:
        data = item.get("data")
        if not isinstance(data, Mapping):
            result.append(dict(item))
            continue
        plain: dict[str, Any] = {}
        lost = []
        for mime, datum in data.items():
            reference = as_reference(datum)
            if reference is None:
                plain[mime] = datum
                continue
            try:
                plain[mime] = reference.datum(fetch(reference.sha256))
            except (LookupError, ValueError):
                lost.append(f"{mime} of {reference.size:,} bytes")
        if lost and not plain:
            plain["text/plain"] = "recorded, but no longer there: " + ", ".join(lost)
        result.append({**item, "data": plain})
    return result


def plain_text(text: str) -> str:
    """*text* without the colours and styles of a terminal."""
    return _ANSI.sub("", text) if "\x1b" in text else text
