"""A peer's script, read in Python: the form is described in ``native/script.c``, and is the same."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_ESCAPE: Final = re.compile(rb"\\(r|n|\\|x[0-9a-f]{2})")
_NAMES: Final = (
    "connection|topic|number|page|beat|n|size|varint|wall|token|stamp|pad|body|changes"  # in braces
)
_PLACE: Final = re.compile(rb"\{(" + _NAMES.encode() + rb")\}")
_SEARCHED: Final = 512

Values = Mapping[str, int | bytes]


@dataclass
class Rule:
    """What is answered to a message that has the one and lacks the other."""

    has: bytes
    lacks: bytes
    answer: bytes


@dataclass
class Part:
    """What one kind of connection says: steps (``send``, ``each``, ``wait``, ``wait_each``), and rules."""

    steps: list[tuple[str, bytes]] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    beat: bytes = b""
    beat_every: float = 0.0


@dataclass
class Script:
    """A whole script. Texts are unescaped, and not expanded."""

    texts: dict[str, bytes] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=lambda: {"observer": Part(), "publisher": Part()})


def unescape(text: str) -> bytes:
    """The bytes that *text* stands for."""

    def one(match: re.Match[bytes]) -> bytes:
        what = match[1]
        known = {b"r": b"\r", b"n": b"\n", b"\\": b"\\"}
        return known[what] if what in known else bytes([int(what[1:], 16)])

    return _ESCAPE.sub(one, text.encode())


def read(text: str) -> Script:
    """Raises `ValueError` for a directive that is not known."""
    script = Script()
    for line in filter(None, text.split("\n")):
        name, _, value = line.partition(" ")
        part, _, what = name.partition(".")
        if name in ("path", "headers", "body", "event", "change", "array", "accepted", "bad"):
            script.texts[name] = unescape(value)
        elif name in ("binary", "stream", "offset"):
            script.numbers[name] = int(value)
        elif part not in script.parts:
            raise ValueError(f"unknown directive {name}")
        elif what == "on":
            condition, _, answer = value.partition(" => ")
            has, _, lacks = condition.partition(" ! ")
            script.parts[part].rules.append(Rule(unescape(has), unescape(lacks), unescape(answer)))
        elif what == "beat":
            every, _, beat = value.partition(" ")
            script.parts[part].beat_every, script.parts[part].beat = float(every), unescape(beat)
        elif what in ("send", "each", "wait", "wait_each"):
            script.parts[part].steps.append((what, unescape(value)))
        else:
            raise ValueError(f"unknown directive {name}")
    return script


def varint(number: int) -> bytes:
    """MQTT's form of a length (MQTT 3.1.1, 2.2.3)."""
    made = bytearray()
    while True:
        number, low = divmod(number, 128)
        made.append(low | (128 if number else 0))
        if not number:
            return bytes(made)


def expand(form: bytes, values: Values) -> bytes:
    """*form* with what the names in braces stand for."""

    def one(match: re.Match[bytes]) -> bytes:
        name = match[1].decode()
        if name == "wall":
            return b"%d" % time.time_ns()
        if name == "varint":
            size = values["size"]
            assert isinstance(size, int)
            return varint(size + 8)
        value = values.get(name, 0)
        if isinstance(value, bytes):
            return value
        return b"%0*d" % ({"connection": 6, "topic": 5}.get(name, 1), value)

    return _PLACE.sub(one, form)


def holds(data: bytes, what: bytes) -> bool:
    """Whether a message has *what*: in its first or last bytes, or, after a ``^``, at its beginning."""
    if what.startswith(b"^"):
        return data == what[1:-1] if what.endswith(b"$") else data.startswith(what[1:])
    return what in data[:_SEARCHED] or what in data[-_SEARCHED:]
