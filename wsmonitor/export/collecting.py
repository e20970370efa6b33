"""What a recorded cell puts out, collected from a kernel's messages. Pure; the format is that of `outputs`.

How messages become outputs follows JupyterLab 4 (``OutputAreaModel``): streams of one name that follow one
another are one output; ``\\r`` goes back to the line's beginning, ``\\b`` takes a character away;
``clear_output(wait=True)`` clears when the next output comes; ``update_display_data`` replaces what was
displayed under its id.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any, Final

import msgspec

from .matching import REDACTED
from .outputs import VALUE, as_reference, encode, plain_text, references

Redact = Callable[[str], str]
Put = Callable[[bytes, str, str], bool]
"""Keep these bytes of this media type under this sha256; says whether they are kept."""

_CONTROL: Final = re.compile(r"[\n\r\b]")
_LONGEST_LINE: Final = 1 << 20
_DEPTH: Final = 100
_KEYS: Final = 1_000
_PROBE: Final = "a-value-of-it"


class OutputLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of one cell's outputs is kept.

    Attributes:
        text: characters of all its streams; of more, the beginning and the end are kept.
        outputs: how many outputs; an error is kept besides.
        inline: bytes of one datum that stands in the record itself; a larger one becomes a value of its own.
        datum: bytes of the largest datum.
        total: bytes of all data together.
        values: how many data are values of their own; further ones stand in the record itself.
    """

    text: int = 8 * 1024 * 1024
    outputs: int = 50_000
    inline: int = 16 * 1024
    datum: int = 32 * 1024 * 1024
    total: int = 48 * 1024 * 1024
    values: int = 128


class _Stream:
    """The text of one stream output, as a terminal of one line would show it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._settled: list[str] = []
        self._line = ""
        self._cursor = 0
        self._length = 0
        self._head: str | None = None  # once the middle is left out
        self.lost = 0

    def __len__(self) -> int:
        return self._length + len(self._line)

    def _settle(self, text: str) -> None:
        self._settled.append(text)
        self._length += len(text)

    def write(self, text: str) -> None:
        """Take *text* as JupyterLab's ``processText`` does."""
        at = 0
        if "\r" not in text and "\b" not in text and self._cursor == len(self._line):
            # The everyday case, in one step: whole lines are settled at once.
            end = text.rfind("\n") + 1
            if end:
                self._settle(self._line + text[:end])
                self._line, self._cursor = "", 0
            self._put(text[end:])
            return
        for match in _CONTROL.finditer(text):
            self._put(text[at : match.start()])
            at = match.end()
            match match[0]:
                case "\r":
                    self._cursor = 0
                case "\n":
                    self._settle(self._line + "\n")
                    self._line, self._cursor = "", 0
                case _ if self._cursor:
                    self._cursor -= 1
                    self._line = self._line[: self._cursor] + self._line[self._cursor + 2 :]
        self._put(text[at:])

    def _put(self, text: str) -> None:
        if not text:
            return
        self._line = self._line[: self._cursor] + text + self._line[self._cursor + len(text) :]
        self._cursor += len(text)
        if len(self._line) > _LONGEST_LINE:
            self._settle(self._line)
            self._line, self._cursor = "", 0

    def keep(self, limit: int) -> None:
        """Leave out the middle, so that about *limit* characters remain."""
        text = "".join(self._settled)
        if self._head is None:
            self._head = text[: limit // 2]
            text = text[limit // 2 :]
        tail = text[max(len(text) - limit // 4, 0) :]
        self.lost += len(text) - len(tail)
        self._settled = [tail]
        self._length = len(self._head) + len(tail)

    def text(self) -> str:
        rest = "".join(self._settled) + self._line
        if self._head is None:
            return rest
        if not self.lost:
            return self._head + rest
        return f"{self._head}\n… {self.lost:,} characters not recorded …\n{rest}"


class Outputs:
    """The outputs of one cell while it runs.

    Args:
        limits: how much is kept.
        put: keeps large data as values of their own; None leaves them in the record.
        redact: applied to every text before it is kept or handed to *put*.

    Attributes:
        version: grows with every change.
        dropped: counts of what was left out, by kind.
    """

    def __init__(
        self, limits: OutputLimits | None = None, *, put: Put | None = None, redact: Redact | None = None
    ) -> None:
        self.version = 0
        self.dropped: dict[str, int] = {}
        self._limits = limits or OutputLimits()
        self._put = put
        self._redact = redact
        self._items: list[dict[str, Any] | _Stream] = []
        self._displays: dict[str, list[int]] = {}
        self._clear_next = False
        self._bytes = 0
        self._text = 0
        self._values = 0
        self._secret: dict[str, bool] = {}  # what is known of keys

    # -- what the kernel says

    def add(self, kind: str, content: Mapping[str, Any]) -> bool:
        """One message of the kernel, by its ``msg_type`` and content; says whether the outputs changed.

        ``update_display_data`` of an id that another cell displayed changes nothing here: ask `update` of
        every cell.
        """
        match kind:
            case "stream":
                return self._stream(str(content.get("name", "stdout")), _joined(content.get("text")))
            case "display_data" | "execute_result":
                return self._display(kind, content)
            case "update_display_data":
                return self.update(content)
            case "error":
                return self._error(content)
            case "clear_output":
                return self.clear(wait=bool(content.get("wait")))
            case _:
                return False

    def clear(self, *, wait: bool = False) -> bool:
        """Take all outputs away, now or when the next one comes."""
        if wait:
            self._clear_next = True
            return False
        changed = bool(self._items)
        self._items.clear()
        self._displays.clear()
        self._bytes = self._text = self._values = 0
        self._clear_next = False
        self.version += changed
        return changed

    def update(self, content: Mapping[str, Any]) -> bool:
        """Replace what was displayed under the message's display id, if it was here."""
        places = self._displays.get(display_id(content), ())
        if not places:
            return False
        for at in places:
            old = self._items[at]
            assert not isinstance(old, _Stream)
            self._bytes -= _weight(old)
            self._values -= len(references([old]))
        # What goes makes room for what comes.
        new: dict[str, Any] = {"output_type": "display_data", **self._bundle(content)}
        for at in places:
            self._items[at] = new
            self._bytes += _weight(new)
        self._values += (len(places) - 1) * len(references([new]))  # the first was counted when it was kept
        self.version += 1
        return True

    def has(self, ident: str) -> bool:
        """Whether something was displayed here under this display id."""
        return ident in self._displays

    def drop(self, kind: str, count: int = 1) -> None:
        """Count what was left out."""
        self.dropped[kind] = self.dropped.get(kind, 0) + count
        self.version += 1

    def _ready(self) -> None:
        if self._clear_next:
            self.clear()

    def _stream(self, name: str, text: str) -> bool:
        if not text:
            return False
        self._ready()
        last = self._items[-1] if self._items else None
        if not (isinstance(last, _Stream) and last.name == name):
            if len(self._items) >= self._limits.outputs:
                self.drop("outputs")
                return True
            last = _Stream(name)
            self._items.append(last)
        before = len(last)
        last.write(text)
        self._text += len(last) - before
        if self._text > self._limits.text:
            self._shorten()
        self.version += 1
        return True

    def _shorten(self) -> None:
        # From the longest: one loud stream should not cost the others their text.
        longest = max((item for item in self._items if isinstance(item, _Stream)), key=len)
        before, lost = len(longest), longest.lost
        longest.keep(max(min(self._limits.text, before) * 3 // 4, 1024))
        self._text += len(longest) - before
        if longest.lost > lost:
            self.drop("characters", longest.lost - lost)

    def _display(self, kind: str, content: Mapping[str, Any]) -> bool:
        self._ready()
        # An execute_result is a cell's last word: not to be lost to what came before it.
        if len(self._items) >= self._limits.outputs and kind == "display_data":
            self.drop("outputs")
            return True
        item: dict[str, Any] = {"output_type": kind, **self._bundle(content)}
        if kind == "execute_result":
            item["execution_count"] = content.get("execution_count")
        ident = display_id(content)
        if ident:
            self._displays.setdefault(ident, []).append(len(self._items))
        self._items.append(item)
        self._bytes += _weight(item)
        self.version += 1
        return True

    def _error(self, content: Mapping[str, Any]) -> bool:
        self._ready()
        traceback = content.get("traceback")
        lines = [str(line) for line in traceback] if isinstance(traceback, (list, tuple)) else []
        self._items.append(
            {
                "output_type": "error",
                "ename": str(content.get("ename", "")),
                "evalue": self._clean(str(content.get("evalue", ""))),
                "traceback": [self._clean(line) for line in lines],
            }
        )
        self.version += 1
        return True

    # -- data

    def _clean(self, text: str) -> str:
        return redacted(text, self._redact)

    def _cleaned(self, datum: Any, depth: int = 0) -> Any:
        """The texts in a datum of JSON's types, and the values under keys that tell of a secret, redacted."""
        if self._redact is None:
            return datum
        if isinstance(datum, str):
            return self._clean(datum)
        if depth >= _DEPTH and isinstance(datum, (dict, list)):
            return "… nested too deep"
        if isinstance(datum, list):
            return [
                self._cleaned(item, depth + 1) if isinstance(item, (str, list, dict)) else item
                for item in datum
            ]
        if isinstance(datum, dict):
            return {
                self._clean(str(key)): self._member(str(key), item, depth + 1) for key, item in datum.items()
            }
        return datum

    def _member(self, key: str, item: Any, depth: int) -> Any:
        if isinstance(item, str) and item:
            secret = self._secret.get(key)
            if secret is None:
                # Under a key such as password, any text is secret: asked as the text that JSON would be.
                secret = _PROBE not in self._clean(f'"{key[:128]}": "{_PROBE}"')
                if len(self._secret) < _KEYS:
                    self._secret[key] = secret
            return REDACTED if secret else self._clean(item)
        return self._cleaned(item, depth)

    def _bundle(self, content: Mapping[str, Any]) -> dict[str, Any]:
        data = content.get("data")
        metadata = content.get("metadata")
        kept: dict[str, Any] = {}
        lost: list[str] = []
        for mime, datum in (data if isinstance(data, Mapping) else {}).items():
            mime = str(mime)
            if not _binary(mime):
                datum = self._cleaned(datum)
            kept[mime] = self._datum(mime, datum, lost)
            if kept[mime] is None and datum is not None:
                del kept[mime]
        if lost and not kept:
            kept["text/plain"] = "not recorded: " + ", ".join(lost)
        about = self._cleaned(dict(metadata)) if isinstance(metadata, Mapping) else {}
        return {"data": kept, "metadata": about}

    def _datum(self, mime: str, datum: Any, lost: list[str]) -> Any:
        data, form = _bytes_of(mime, datum, self._limits.inline)
        if len(data) <= self._limits.inline and self._bytes + len(data) <= self._limits.total:
            return datum
        if len(data) > self._limits.datum or self._bytes + len(data) > self._limits.total:
            self.drop("bytes", len(data))
            lost.append(f"{mime} of {len(data):,} bytes")
            return None
        if self._put is None or self._values >= self._limits.values:
            return datum
        digest = sha256(data).hexdigest()
        if not self._put(data, mime, digest):
            self.drop("bytes", len(data))
            lost.append(f"{mime} of {len(data):,} bytes")
            return None
        self._values += 1
        return {VALUE: {"sha256": digest, "size": len(data), "mime": mime, "form": form}}

    # -- reading

    def __len__(self) -> int:
        return len(self._items)

    @property
    def weight(self) -> int:
        """About how many bytes `document` has."""
        return self._text + self._bytes + 64 * len(self._items)

    def outputs(self) -> list[dict[str, Any]]:
        """The outputs as they are now, of nbformat 4. Not to be changed."""
        return [
            {"output_type": "stream", "name": item.name, "text": self._clean(item.text())}
            if isinstance(item, _Stream)
            else item
            for item in self._items
        ]

    def document(self) -> bytes:
        """What `decode` reads."""
        return encode(self.outputs(), self.dropped)


def outputs_from_messages(
    messages: Iterable[Mapping[str, Any]], limits: OutputLimits | None = None
) -> list[dict[str, Any]]:
    """The outputs that these messages of one cell (``msg_type`` or ``header``, and ``content``) lead to."""
    outputs = Outputs(limits)
    for message in messages:
        kind = message.get("msg_type") or message.get("header", {}).get("msg_type", "")
        outputs.add(str(kind), message.get("content", {}))
    return outputs.outputs()


def redacted(text: str, redact: Redact | None) -> str:
    """*text* after *redact*, which sees it without colours: they may stand between a name and its secret.

    Where something was taken out, the colours are lost.
    """
    if redact is None:
        return text
    once = redact(text)
    if "\x1b" not in text:
        return once
    plain = plain_text(text)
    again = redact(plain)
    return once if again == plain else again


def display_id(content: Mapping[str, Any]) -> str:
    """The display id of a message's content, or ``""``."""
    transient = content.get("transient")
    ident = transient.get("display_id") if isinstance(transient, Mapping) else None
    return ident if isinstance(ident, str) else ""


def _joined(text: Any) -> str:
    return "".join(map(str, text)) if isinstance(text, (list, tuple)) else str(text or "")


def _binary(mime: str) -> bool:
    kind = mime.partition("/")[0]
    return (kind in ("image", "audio", "video") and "svg" not in mime) or mime == "application/pdf"


def _bytes_of(mime: str, datum: Any, inline: int) -> tuple[bytes, str]:
    """The bytes that stand for *datum*, and their form."""
    if not isinstance(datum, str):
        return json.dumps(datum, ensure_ascii=False).encode("utf-8", "replace"), "json"
    text = datum.encode("utf-8", "replace")
    if len(text) > inline and _binary(mime):
        try:
            raw = b64decode(text, validate=False)
        except binascii.Error:
            return text, "text"
        again = b64encode(raw)
        if again == text:
            return raw, "base64"
        if again + b"\n" == text:
            return raw, "base64+newline"
    return text, "text"


def _weight(item: Mapping[str, Any]) -> int:
    data = item.get("data", {})
    total = 0
    for datum in data.values():
        total += len(datum) if isinstance(datum, str) else 160 if as_reference(datum) else 512
    return total
