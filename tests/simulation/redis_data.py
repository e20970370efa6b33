"""What a Redis keeps, and the commands on it that the store uses: those, and no others.

`tests/simulation/test_redis_data.py` holds it to a real Redis: the same commands, and the store's own
scripts, have the same answers. Answers are what the protocol makes of them: bytes, integers, None, lists,
`Status`, and `Failure`, which is raised.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

T = TypeVar("T")


class Failure(Exception):
    """An error that is an answer; its text begins with a word in capitals."""


class Status(bytes):
    """``+OK`` and the like."""


OK: Final = Status(b"OK")


class Hash(dict[bytes, bytes]):
    """Fields and values."""


class Members(dict[bytes, None]):
    """A set, in the order of insertion: a run must not depend on how strings are hashed."""


class Scores(dict[bytes, float]):
    """A sorted set."""


class Stream:
    """Entries in the order of their ids."""

    def __init__(self) -> None:
        self.entries: list[tuple[tuple[int, int], list[bytes]]] = []
        self.last = (0, 0)


def number(data: bytes) -> float:
    """A score."""
    return float(data)


def spelled(score: float) -> bytes:
    """A score, as Redis writes it."""
    return b"%d" % score if score == int(score) else repr(score).encode()


def ident(entry: tuple[int, int]) -> bytes:
    """The id of a stream's entry."""
    return b"%d-%d" % entry


def parsed(text: bytes, rest: int) -> tuple[int, int]:
    """An id, of which the second part may be missing: then it is *rest*."""
    first, dash, second = text.partition(b"-")
    return int(first), int(second) if dash else rest


_LARGEST: Final = 2**63


class Data:
    """All keys.

    Args:
        clock: seconds since 1970.

    Attributes:
        written: commands that have changed something, in order, since `take` was called.
        limited: whether there is no memory for more.
        read_only: whether this is a replica.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.keys: dict[bytes, Any] = {}
        self.expires: dict[bytes, float] = {}
        self.written: list[tuple[bytes, ...]] = []
        self.limited = False
        self.read_only = False

    # -- as a whole

    def take(self) -> list[tuple[bytes, ...]]:
        """What was written since the last time."""
        written, self.written = self.written, []
        return written

    def saved(self) -> bytes:
        """All of it, as it would be on a disk."""
        return pickle.dumps((self.keys, self.expires))

    def restore(self, saved: bytes | None) -> None:
        """Have what was *saved*, and nothing else."""
        self.keys, self.expires = ({}, {}) if saved is None else pickle.loads(saved)
        self.written.clear()

    def call(self, name: bytes, *arguments: bytes) -> Any:
        """Run one command. Raises `Failure`."""
        command = name.decode().upper()
        function = _COMMANDS.get(command)
        if function is None:
            raise Failure(f"ERR unknown command '{name.decode()}'")
        if command in _WRITES:
            # A script that has written goes on: only its first write is refused.
            if self.read_only:
                raise Failure("READONLY You can't write against a read only replica.")
            if self.limited and command in _GROWS and not self.written:
                raise Failure("OOM command not allowed when used memory > 'maxmemory'.")
            self.written.append((command.encode(), *arguments))
        return function(self, *arguments)

    def find(self, key: bytes, kind: type[T]) -> T | None:
        """What is under *key*. Raises `Failure` when it is of another kind."""
        due = self.expires.get(key)
        if due is not None and due <= self.clock():
            del self.keys[key], self.expires[key]
        value = self.keys.get(key)
        if value is not None and not isinstance(value, kind):
            raise Failure("WRONGTYPE Operation against a key holding the wrong kind of value")
        return value

    def make(self, key: bytes, kind: type[T]) -> T:
        """The same, made where there is none."""
        value = self.find(key, kind)
        if value is None:
            value = self.keys[key] = kind()
        return value

    def tidy(self, key: bytes) -> None:
        """What is empty is not there, but for streams."""
        if not self.keys.get(key, True):
            del self.keys[key]

    # -- keys

    def delete(self, *keys: bytes) -> int:
        for key in keys:
            self.expires.pop(key, None)
        return sum(self.keys.pop(key, None) is not None for key in keys)

    def exists(self, *keys: bytes) -> int:
        return sum(self.find(key, object) is not None for key in keys)

    def flushall(self) -> Status:
        self.keys.clear()
        self.expires.clear()
        return OK

    # -- strings

    def get(self, key: bytes) -> bytes | None:
        return self.find(key, bytes)

    def set(self, key: bytes, value: bytes, *options: bytes) -> Status:
        self.keys[key] = value
        self.expires.pop(key, None)
        if options:
            assert options[0].upper() == b"PX"
            self.expires[key] = self.clock() + int(options[1]) / 1000
        return OK

    def incrby(self, key: bytes, by: bytes = b"1") -> int:
        new = int(self.find(key, bytes) or 0) + int(by)
        self.keys[key] = b"%d" % new
        return new

    def decrby(self, key: bytes, by: bytes) -> int:
        return self.incrby(key, b"%d" % -int(by))

    def append(self, key: bytes, value: bytes) -> int:
        self.keys[key] = new = (self.find(key, bytes) or b"") + value
        return len(new)

    def getrange(self, key: bytes, start: bytes, end: bytes) -> bytes:
        value = self.find(key, bytes) or b""
        return value[int(start) : int(end) + 1]

    # -- hashes

    def hget(self, key: bytes, field: bytes) -> bytes | None:
        return (self.find(key, Hash) or {}).get(field)

    def hmget(self, key: bytes, *fields: bytes) -> list[bytes | None]:
        found = self.find(key, Hash) or {}
        return [found.get(field) for field in fields]

    def hset(self, key: bytes, *pairs: bytes) -> int:
        found = self.make(key, Hash)
        before = len(found)
        found.update(zip(pairs[::2], pairs[1::2], strict=True))
        return len(found) - before

    def hsetnx(self, key: bytes, field: bytes, value: bytes) -> int:
        found = self.make(key, Hash)
        if field in found:
            return 0
        found[field] = value
        return 1

    def hincrby(self, key: bytes, field: bytes, by: bytes) -> int:
        found = self.make(key, Hash)
        new = int(found.get(field, 0)) + int(by)
        found[field] = b"%d" % new
        return new

    def hdel(self, key: bytes, *fields: bytes) -> int:
        found = self.find(key, Hash) or {}
        gone = sum(found.pop(field, None) is not None for field in fields)
        self.tidy(key)
        return gone

    def hgetall(self, key: bytes) -> list[bytes]:
        return [part for pair in (self.find(key, Hash) or {}).items() for part in pair]

    def hvals(self, key: bytes) -> list[bytes]:
        return list((self.find(key, Hash) or {}).values())

    def hlen(self, key: bytes) -> int:
        return len(self.find(key, Hash) or {})

    def hexists(self, key: bytes, field: bytes) -> int:
        return int(field in (self.find(key, Hash) or {}))

    def hscan(self, key: bytes, cursor: bytes, *options: bytes) -> list[Any]:
        return [b"0", self.hgetall(key)]  # a scan may give everything at once

    # -- sets

    def sadd(self, key: bytes, *members: bytes) -> int:
        found = self.make(key, Members)
        before = len(found)
        found.update(dict.fromkeys(members))
        return len(found) - before

    def srem(self, key: bytes, *members: bytes) -> int:
        found = self.find(key, Members) or Members()
        there = [member for member in members if member in found]
        for member in there:
            del found[member]
        self.tidy(key)
        return len(there)

    def smembers(self, key: bytes) -> list[bytes]:
        return list(self.find(key, Members) or ())

    def sismember(self, key: bytes, member: bytes) -> int:
        return int(member in (self.find(key, Members) or ()))

    # -- sorted sets

    def zadd(self, key: bytes, score: bytes, member: bytes) -> int:
        found = self.make(key, Scores)
        fresh = member not in found
        found[member] = number(score)
        return int(fresh)

    def zrem(self, key: bytes, member: bytes) -> int:
        found = self.find(key, Scores) or Scores()
        gone = found.pop(member, None) is not None
        self.tidy(key)
        return int(gone)

    def zscore(self, key: bytes, member: bytes) -> bytes | None:
        score = (self.find(key, Scores) or {}).get(member)
        return None if score is None else spelled(score)

    def zcard(self, key: bytes) -> int:
        return len(self.find(key, Scores) or {})

    def zrangebyscore(self, key: bytes, low: bytes, high: bytes, *options: bytes) -> list[bytes]:
        found = sorted((self.find(key, Scores) or {}).items(), key=lambda one: (one[1], one[0]))
        above, below = _bound(low, lower=True), _bound(high, lower=False)
        members = [member for member, score in found if above(score) and below(score)]
        if options:
            assert options[0].upper() == b"LIMIT"
            members = members[int(options[1]) :][: int(options[2])]
        return members

    # -- lists

    def rpush(self, key: bytes, *values: bytes) -> int:
        found: list[bytes] = self.make(key, list)
        found.extend(values)
        return len(found)

    def ltrim(self, key: bytes, start: bytes, end: bytes) -> Status:
        found: list[bytes] = self.find(key, list) or []
        first, last = _positions(len(found), int(start), int(end))
        found[:] = found[first : last + 1]
        self.tidy(key)
        return OK

    def lindex(self, key: bytes, at: bytes) -> bytes | None:
        found: list[bytes] = self.find(key, list) or []
        return found[int(at)] if -len(found) <= int(at) < len(found) else None

    def lrange(self, key: bytes, start: bytes, end: bytes) -> list[bytes]:
        found: list[bytes] = self.find(key, list) or []
        first, last = _positions(len(found), int(start), int(end))
        return found[first : last + 1]

    # -- streams

    def xadd(self, key: bytes, *arguments: bytes) -> bytes:
        parts = list(arguments)
        kept: int | None = None
        if parts[0].upper() == b"MAXLEN":
            about = parts[1] in (b"~", b"=")
            kept = int(parts[1 + about])
            parts = parts[2 + about :]
        entry = parsed(parts[0], 0)
        stream = self.make(key, Stream)
        if entry <= stream.last:
            raise Failure("ERR The ID specified in XADD is equal or smaller than the target stream top item")
        stream.entries.append((entry, parts[1:]))
        stream.last = entry
        if kept is not None:
            del stream.entries[:-kept]
        return ident(entry)

    def xtrim(self, key: bytes, how: bytes, *arguments: bytes) -> int:
        stream = self.find(key, Stream)
        if stream is None:
            return 0
        before = len(stream.entries)
        if how.upper() == b"MINID":
            first = parsed(arguments[-1], 0)
            stream.entries = [one for one in stream.entries if one[0] >= first]
        else:
            kept = int(arguments[-1])
            stream.entries = stream.entries[-kept:] if kept else []
        return before - len(stream.entries)

    def xrange(self, key: bytes, low: bytes, high: bytes, *options: bytes) -> list[Any]:
        return self._range(key, low, high, options, backwards=False)

    def xrevrange(self, key: bytes, high: bytes, low: bytes, *options: bytes) -> list[Any]:
        return self._range(key, low, high, options, backwards=True)

    def _range(
        self, key: bytes, low: bytes, high: bytes, options: Iterable[bytes], *, backwards: bool
    ) -> list[Any]:
        stream = self.find(key, Stream)
        above, below = _edge(low, lower=True), _edge(high, lower=False)
        entries = [] if stream is None else [one for one in stream.entries if above(one[0]) and below(one[0])]
        if backwards:
            entries.reverse()
        count = [int(one) for one in options if one.upper() != b"COUNT"]
        return [[ident(one), list(fields)] for one, fields in entries[: count[0] if count else None]]

    def xread(self, *arguments: bytes) -> list[Any] | None:
        """One stream; who waits for something new asks again."""
        words = [one.upper() for one in arguments]
        key, after = arguments[words.index(b"STREAMS") + 1 :]
        count = int(arguments[words.index(b"COUNT") + 1]) if b"COUNT" in words else _LARGEST
        stream = self.find(key, Stream)
        if stream is None:
            return None
        last = parsed(after, 0)
        at = len(stream.entries)
        while at and stream.entries[at - 1][0] > last:
            at -= 1
        entries = [[ident(one), list(fields)] for one, fields in stream.entries[at : at + count]]
        return [[key, entries]] if entries else None

    # -- the rest

    def time(self) -> list[bytes]:
        seconds, rest = divmod(self.clock(), 1.0)
        return [b"%d" % seconds, b"%d" % (rest * 1e6)]

    def memory(self, word: bytes, key: bytes) -> int | None:
        value = self.find(key, object)
        return None if value is None else len(pickle.dumps(value))


def _bound(text: bytes, *, lower: bool) -> Callable[[float], bool]:
    exclusive = text.startswith(b"(")
    edge = number(text.removeprefix(b"("))
    if lower:
        return (lambda score: score > edge) if exclusive else (lambda score: score >= edge)
    return (lambda score: score < edge) if exclusive else (lambda score: score <= edge)


def _edge(text: bytes, *, lower: bool) -> Callable[[tuple[int, int]], bool]:
    if text in (b"-", b"+"):
        return lambda entry: True
    exclusive = text.startswith(b"(")
    edge = parsed(text.removeprefix(b"("), 0 if lower else _LARGEST)
    if lower:
        return (lambda entry: entry > edge) if exclusive else (lambda entry: entry >= edge)
    return (lambda entry: entry < edge) if exclusive else (lambda entry: entry <= edge)


def _positions(length: int, first: int, last: int) -> tuple[int, int]:
    return max(0, first + length if first < 0 else first), last + length if last < 0 else last


_COMMANDS: Final[dict[str, Callable[..., Any]]] = {
    "PING": lambda data: Status(b"PONG"),
    "DEL": Data.delete,
    "UNLINK": Data.delete,
    "INCR": Data.incrby,
    **{
        name.upper(): function
        for name, function in vars(Data).items()
        if not name.startswith("_")
        and name not in ("take", "saved", "restore", "call", "find", "make", "tidy", "delete")
    },
}

# Redis' flag ``denyoom``.
_GROWS: Final = frozenset(
    [
        "APPEND",
        "DECRBY",
        "HINCRBY",
        "HSET",
        "HSETNX",
        "INCR",
        "INCRBY",
        "RPUSH",
        "SADD",
        "SET",
        "XADD",
        "ZADD",
    ]
)

_WRITES: Final = _GROWS | frozenset(["DEL", "FLUSHALL", "HDEL", "LTRIM", "SREM", "UNLINK", "XTRIM", "ZREM"])
