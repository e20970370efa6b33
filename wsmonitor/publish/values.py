"""Turning a Python object into what observers see of it: at assignment, on the caller's thread.

JSON where the object is made of plain things, else the text of its ``repr``, or the head of its HTML
representation (data frames). Nothing is pickled, and a data frame is never copied: only its first rows
are rendered. The work is bounded in depth, items, time and bytes; what was left out is said in words.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import os
import re
import uuid
from collections import deque
from collections.abc import Callable, KeysView, Mapping, ValuesView
from hashlib import sha256
from itertools import islice
from typing import Any, Final

import msgspec

from wsmonitor.protocol.entities import Scalar, Value

from .redaction import REDACTED, Redactor

_SAFE: Final = 1 << 53
_PREVIEW_ROWS: Final = 20
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""What text does not hold: all control characters but tab and line ends."""
_KEY_LENGTH: Final = 256
_MARGIN: Final = 4096
"""Characters that are read beyond a cut, so that a secret which it would cut through is recognised."""

JSON: Final = "application/json"
TEXT: Final = "text/plain"
HTML: Final = "text/html"
BINARY: Final = "application/octet-stream"


class ValueLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a value is taken.

    Attributes:
        inline: bytes sent within the event itself (the protocol's rule 10).
        size: bytes of the largest value that is uploaded; of larger ones the beginning is shown.
        items: containers' members in all.
        depth: of nesting.
        seconds: time for the conversion of one value.
        text: characters of the ``repr`` of an object that is not plain.
    """

    inline: int = 4 * 1024
    size: int = 64 * 1024 * 1024
    items: int = 1_000_000
    depth: int = 24
    seconds: float = 0.5
    text: int = 64 * 1024


_SEQUENCES: Final = (list, tuple, set, frozenset, deque, range, KeysView, ValuesView)


class _TooMuch(Exception):
    """A limit was reached while converting; the message says which."""


def clean(text: str) -> str:
    """*text* with lone surrogates replaced: they have no UTF-8 form."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def cut(text: str, length: int) -> str:
    """*text*, or its beginning and an ellipsis, in at most *length* characters."""
    return text if len(text) <= length else text[: max(length - 1, 0)] + "…"


def safe_repr(obj: object, length: int = 1000) -> str:
    """``repr(obj)``, shortened; raises nothing but an interrupt from the keyboard."""
    try:
        return clean(cut(repr(obj), length))
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # noqa: BLE001 - a user's __repr__ may do anything, even exit
        return f"<{type(obj).__qualname__} object, its repr raised {type(exc).__name__}>"


class _Hidden:
    """Stands for something that is not shown."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


class Capture:
    """Converts values for one session.

    Args:
        redactor: applied to keys and to texts.
        monotonic: the clock that bounds the time, in seconds.
        limits: what is taken at most.
    """

    def __init__(
        self, redactor: Redactor, monotonic: Callable[[], float], limits: ValueLimits | None = None
    ) -> None:
        self.redactor = redactor
        self.limits = limits or ValueLimits()
        self._monotonic = monotonic

    def value(self, obj: object) -> tuple[Value, bytes | None]:
        """The value's record, and its bytes where they must be uploaded (None where they are inline)."""
        try:
            mime, data = self._encode(obj)
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # noqa: BLE001 - a user's object may do anything when it is looked at
            mime, data = TEXT, self._unreadable(obj, exc).encode()
        return self._record(mime, data)

    def encoded(self, mime: str, data: bytes, parts: Mapping[str, int]) -> tuple[Value, bytes | None]:
        """The same for what is encoded and redacted already; *parts* are those of `Value`."""
        value, upload = self._record(mime, data)
        if parts and value.mime == mime:  # else it was too large, and its references are not in what is sent
            value = msgspec.structs.replace(value, parts=dict(parts))
        return value, upload

    def text(self, text: str, length: int) -> str:
        """A short text (name, message, reason): cleaned, redacted, cut."""
        return cut(self.redactor.text(clean(text[: length + _MARGIN])), length)

    def repr(self, obj: object, length: int = 1000) -> str:
        """`safe_repr`, redacted before it is cut."""
        return self.text(safe_repr(obj, length + _MARGIN), length)

    def scalar(self, key: str, obj: object) -> Scalar | list[Scalar]:
        """An attribute's value: a scalar or a list of scalars, as OpenTelemetry has it."""
        if self.redactor.secret_key(key) and not isinstance(obj, bool):
            return REDACTED
        try:
            if isinstance(obj, (list, tuple)):
                return [self._attribute(item) for item in obj[:64]]
            return self._attribute(obj)
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # noqa: BLE001 - as in `value`
            return self._unreadable(obj, exc)

    def _unreadable(self, obj: object, exc: BaseException) -> str:
        return f"<{type(obj).__qualname__} object, which cannot be read: it raised {type(exc).__name__}>"

    def _attribute(self, obj: object) -> Scalar:
        if isinstance(obj, bool):
            return obj
        if isinstance(obj, str):
            return self.text(obj, 1024)
        if isinstance(obj, (Mapping, *_SEQUENCES)) and len(obj) > 100:
            return self.text(_shallow(obj, self), 1024)  # its repr has no bound on time
        plain = self._leaf(obj)
        if isinstance(plain, str):
            return cut(plain, 1024)
        if isinstance(plain, (int, float)):
            return plain
        return self.repr(self._masked(obj), 1024)

    # -- the record

    def _record(self, mime: str, data: bytes) -> tuple[Value, bytes | None]:
        limits = self.limits
        size = len(data)
        if size > limits.size:
            head = _prefix(data, limits.inline - 200).decode() if mime != BINARY else ""
            note = f"{head}\n… not sent: {size:,} bytes, the limit is {limits.size:,}"
            mime, data = TEXT, note.encode()
            size = len(data)
        digest = sha256(data).hexdigest()
        if size <= limits.inline and mime != BINARY:
            return Value(mime=mime, text=data.decode(), size=size, sha256=digest), None
        text = "" if mime == BINARY else _prefix(data, limits.inline).decode()
        return Value(mime=mime, text=text, size=size, sha256=digest, truncated=True), data

    # -- the conversion

    def _encode(self, obj: object) -> tuple[str, bytes]:
        limits = self.limits
        if isinstance(obj, str):
            if len(obj) > limits.size:
                return TEXT, self._too_long(self.text(obj, limits.inline // 2), f"{len(obj):,} characters")
            return TEXT, self.redactor.text(clean(obj)).encode()
        if isinstance(obj, (bytes, bytearray, memoryview)):
            return self._binary(obj)
        rich = self._html(obj)
        if rich is not None:
            return HTML, rich.encode()
        if not _is_plain(obj):
            return TEXT, self.repr(self._masked(obj), limits.text).encode()
        walk = _Walk(self, self._monotonic() + limits.seconds, self._monotonic)
        try:
            return JSON, msgspec.json.encode(walk.plain(obj, 0))
        except _TooMuch as exc:
            return TEXT, self._too_long(_shallow(obj, self), str(exc))
        except RuntimeError as exc:  # the container was changed by another thread meanwhile
            return TEXT, self._too_long(_shallow(obj, self), str(exc))

    def _binary(self, obj: bytes | bytearray | memoryview) -> tuple[str, bytes]:
        size = obj.nbytes if isinstance(obj, memoryview) else len(obj)
        if size > self.limits.size:
            return TEXT, f"{size:,} bytes, not sent: the limit is {self.limits.size:,}".encode()
        data = bytes(obj)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            return BINARY, data
        # Bytes that are text may hold secrets like any text, also where they hold control characters.
        return (BINARY if _CONTROL.search(text) else TEXT), self.redactor.text(text).encode()

    def _too_long(self, head: str, why: str) -> bytes:
        return self.redactor.text(f"{clean(head)}\n… only the beginning is shown: {why}").encode()

    def _html(self, obj: object) -> str | None:
        """The HTML of the object's first rows, if it has any; None to show it otherwise."""
        try:
            if isinstance(obj, type) or not callable(getattr(obj, "_repr_html_", None)):
                return None
            shape = getattr(obj, "shape", None)
            obj = self._masked(obj)
            head = getattr(obj, "head", None)
            note = ""
            shown: Any = obj
            if callable(head) and isinstance(shape, tuple) and shape and isinstance(shape[0], int):
                if shape[0] > _PREVIEW_ROWS:
                    shown = head(_PREVIEW_ROWS)  # of what was masked there are no more
                    note = f"<p>first {_PREVIEW_ROWS} of {shape[0]:,} rows</p>"
            elif hasattr(obj, "__len__") and len(obj) > 10_000:
                return None  # unknown kind of table: its HTML may have no bound
            html = shown._repr_html_()
        except Exception:  # noqa: BLE001 - a user's object may do anything; its repr is shown instead
            return None
        if not isinstance(html, str) or len(html) > 4 * self.limits.text:
            return None
        return self.redactor.text(clean(html + note))

    def _leaf(self, obj: object) -> str | int | float | bool | None:
        """A scalar in the form that JSON and JavaScript keep exactly; else the object's text."""
        if obj is None or isinstance(obj, bool):
            return obj
        if isinstance(obj, str):
            return self.redactor.text(clean(str(obj)))
        if isinstance(obj, int):
            return int(obj) if -_SAFE <= obj <= _SAFE else _big(obj)
        if isinstance(obj, float):
            return float(obj) if math.isfinite(obj) else _special(obj)
        if isinstance(obj, (datetime.datetime, datetime.date, datetime.time)):
            return obj.isoformat()
        if isinstance(obj, (decimal.Decimal, uuid.UUID, fractions.Fraction, complex, datetime.timedelta)):
            return str(obj)
        if isinstance(obj, os.PathLike):
            return self.redactor.text(clean(str(obj)))
        if isinstance(obj, (bytes, bytearray)):
            return self.text(bytes(obj[: 1024 + _MARGIN]).decode("utf-8", "backslashreplace"), 1024)
        if isinstance(obj, re.Pattern):
            return clean(str(obj.pattern))
        if isinstance(obj, type):
            return obj.__qualname__
        number = _array_scalar(obj)
        if number is not None:
            return self._leaf(number)
        return self.repr(self._masked(obj))

    def _masked(self, obj: Any) -> Any:
        """*obj*; of a table with secret columns or rows its first rows without them, of a secret column its
        name."""
        try:
            if isinstance(obj, type) or not callable(getattr(obj, "head", None)):
                return obj
            columns = self._secret_labels(getattr(obj, "columns", None))
            rows = self._secret_labels(getattr(obj, "index", None))
            name = getattr(obj, "name", None)
        except Exception:  # noqa: BLE001 - a user's object may do anything; then it is no table
            return obj
        if isinstance(name, str) and self.redactor.secret_key(name):
            return _Hidden(f"{name}: {REDACTED}")
        if not columns and not rows:
            return obj
        try:
            shown = obj.head(_PREVIEW_ROWS)
            if columns:
                shown = shown.assign(**dict.fromkeys(columns, REDACTED))
            if rows:
                shown = shown.astype(object)
                shown.loc[shown.index.isin(rows)] = REDACTED
            return shown
        except Exception:  # noqa: BLE001 - a table of another library
            what = "columns" if columns else "rows"
            hidden = ", ".join(map(str, columns or rows))
            return _Hidden(f"<{type(obj).__qualname__} with secret {what} ({hidden}), not shown>")

    def _secret_labels(self, labels: Any) -> list[Any]:
        """Those of a table's *labels* that tell of a secret, of several levels those of which a part does."""
        if labels is None or callable(labels):
            return []
        return [
            label
            for label in islice(labels, 10_000)
            for part in (label if isinstance(label, tuple) else (label,))
            if isinstance(part, str) and self.redactor.secret_key(part)
        ]


class _Walk:
    """One conversion of a container to plain JSON types, with what is left of its limits."""

    def __init__(self, capture: Capture, deadline: float, monotonic: Callable[[], float]) -> None:
        self._capture = capture
        self._deadline = deadline
        self._monotonic = monotonic
        self._left = capture.limits.items
        self._bytes = capture.limits.size
        self._open: set[int] = set()

    def plain(self, obj: Any, depth: int) -> Any:
        kind = type(obj)
        if kind is int and -_SAFE <= obj <= _SAFE:
            return obj
        if kind is bool or obj is None:
            return obj
        if kind is float:
            return obj if math.isfinite(obj) else _special(obj)
        if kind is str:
            self._bytes -= len(obj)
            if self._bytes < 0:
                raise _TooMuch(f"more than {self._capture.limits.size:,} bytes")
            return self._capture._leaf(obj) if len(obj) >= 6 or not obj.isascii() else obj
        if isinstance(obj, enum.Enum):
            return self.plain(obj.value, depth)
        members = _members(obj)
        if members is not None:
            return self._inside(obj, depth, lambda: self._map(members, depth))
        if isinstance(obj, _SEQUENCES):
            return self._inside(obj, depth, lambda: self._list(obj, depth))
        return self._capture._leaf(obj)

    def _inside(self, obj: object, depth: int, convert: Callable[[], Any]) -> Any:
        if depth >= self._capture.limits.depth:
            return f"… {type(obj).__name__}, nested more than {self._capture.limits.depth} deep"
        if id(obj) in self._open:
            return f"… {type(obj).__name__}, contains itself"
        self._open.add(id(obj))
        try:
            return convert()
        finally:
            self._open.discard(id(obj))

    def _spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise _TooMuch(f"more than {self._capture.limits.items:,} items")
        if not self._left & 0xFF and self._monotonic() > self._deadline:
            raise _TooMuch(f"converting it took more than {self._capture.limits.seconds:g} s")

    def _map(self, members: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        redactor = self._capture.redactor
        result: dict[str, Any] = {}
        for key, item in members.items():
            self._spend()
            if isinstance(key, enum.Enum):
                key = key.value
            name = cut(str(self._capture._leaf(key)), _KEY_LENGTH)
            while name in result:  # 1 and "1", or two long keys with one beginning
                name += "′"
            if isinstance(key, str) and redactor.secret_key(key) and not _unsecret(item):
                result[name] = REDACTED
            else:
                result[name] = self.plain(item, depth + 1)
        return result

    def _list(self, items: Any, depth: int) -> list[Any]:
        result = []
        for item in items:
            self._spend()
            result.append(self.plain(item, depth + 1))
        if isinstance(items, (set, frozenset)):
            # A set's order differs from run to run; what is published should not.
            result.sort(key=lambda item: (type(item).__name__, str(item)))
        return result


def _unsecret(item: object) -> bool:
    """Under a secret key, only what cannot be a secret is shown: flags, absence, small counts."""
    return item is None or isinstance(item, (bool, float)) or (type(item) is int and abs(item) < 1_000_000)


def _members(obj: Any) -> Mapping[Any, Any] | None:
    """The object's named members, if it is a mapping or a record; None otherwise."""
    if isinstance(obj, Mapping):
        return obj
    if isinstance(obj, type):
        return None
    if isinstance(obj, tuple) and hasattr(obj, "_fields"):
        return dict(zip(obj._fields, obj, strict=False))
    names: list[str] | None = None
    if dataclasses.is_dataclass(obj):
        names = [field.name for field in dataclasses.fields(obj) if field.repr]
    elif isinstance(obj, msgspec.Struct):
        names = list(obj.__struct_fields__)
    elif hasattr(type(obj), "__attrs_attrs__"):
        names = [field.name for field in type(obj).__attrs_attrs__ if field.repr]
    if names is None:
        return None
    return {name: getattr(obj, name) for name in names if hasattr(obj, name)}


def _is_plain(obj: Any) -> bool:
    if obj is None or isinstance(
        obj,
        (
            bool, int, float, complex, *_SEQUENCES, enum.Enum, Mapping, os.PathLike,
            uuid.UUID, datetime.datetime, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal,
            fractions.Fraction,
        ),
    ):  # fmt: skip
        return True
    return _members(obj) is not None or _array_scalar(obj) is not None


def _array_scalar(obj: Any) -> bool | int | float | str | None:
    """The Python scalar in a NumPy scalar (or a zero-dimensional array of any library); None if it is none.

    By its shape, not by its class: NumPy need not be imported, and must not be for this.
    """
    try:
        item = getattr(obj, "item", None)
        if isinstance(obj, type) or not callable(item) or getattr(obj, "shape", None) != ():
            return None
        result = item()
    except Exception:  # noqa: BLE001 - an array on a device that is gone; its repr is shown instead
        return None
    return result if isinstance(result, (bool, int, float, str)) else None


def _big(number: int) -> str:
    # Python refuses to write out integers of more than 4,300 digits, to save time: so do we.
    return str(number) if number.bit_length() < 10_000 else f"an integer of {number.bit_length():,} bits"


def _special(number: float) -> str:
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _prefix(data: bytes, length: int) -> bytes:
    """The longest prefix of UTF-8 *data* within *length* bytes that ends at a character's boundary."""
    if len(data) <= length:
        return data
    while length > 0 and data[length] & 0xC0 == 0x80:
        length -= 1
    return data[:length]


def _shallow(obj: Any, capture: Capture) -> str:
    """The beginning of a container that is too much to convert."""
    try:
        size = len(obj)
        if isinstance(obj, Mapping):
            parts = []
            for key, item in obj.items():
                secret = isinstance(key, str) and capture.redactor.secret_key(key)
                parts.append(f"{capture.repr(key, 80)}: {REDACTED if secret else _brief(item, capture)}")
                if len(parts) == 20:
                    break
        else:
            parts = []
            for item in obj:
                parts.append(_brief(item, capture))
                if len(parts) == 20:
                    break
        return f"{type(obj).__name__} of {size:,}: " + ", ".join(parts)
    except Exception:  # noqa: BLE001 - not sized, not iterable, or changed meanwhile
        return f"<{type(obj).__qualname__} object>"


def _brief(item: object, capture: Capture) -> str:
    if isinstance(item, (str, int, float, bool)) or item is None:
        return capture.repr(item[: 100 + _MARGIN] if isinstance(item, str) else item, 100)
    # A container's repr has no bound on time.
    return f"<{type(item).__qualname__}>"
