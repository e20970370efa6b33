"""What is written to Redis and read from it, as bytes: commits, messages of the bus. Pure.

A commit is two things. The *order* tells the script what to write where, all of a group's orders in one
MessagePack array, which the script unpacks (Redis' own reader of MessagePack knows texts, and no bytes). The
*record* is what others have to know of it, as JSON: it stands in the session's stream of commits, where it is
its history, and on the bus. Its events are taken into it, and out of it, as the bytes that they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from wsmonitor.protocol.entities import Listing
from wsmonitor_server.stores.base import Commit, ProducerPosition
from wsmonitor_server.stores.bus import (
    Committed,
    Message,
    NodeGone,
    People,
    SessionRemoved,
    TokenRevoked,
    Watching,
)

_pack: Final = msgspec.msgpack.Encoder().encode
_encode: Final = msgspec.json.Encoder().encode
_decode_listing: Final = msgspec.json.Decoder(Listing).decode
_decode_people: Final = msgspec.json.Decoder(People).decode

Fields = dict[bytes, bytes]
"""An entry of a stream."""


class DamagedError(ValueError):
    """Bytes that no program of ours has written."""


class _Record(msgspec.Struct, array_like=True, frozen=True):
    epoch: str
    head: int
    events: list[msgspec.Raw]
    producers: list[ProducerPosition]
    released: list[str]
    retired: int
    listing: Listing | None
    attention: bool
    node: str


_decode_record: Final = msgspec.json.Decoder(_Record).decode


def entity_field(kind: str, ident: str) -> str:
    """The name of an entity's field. No kind has a colon."""
    return f"{kind}:{ident}"


def position(one: ProducerPosition) -> str:
    """A producer's position."""
    return _encode(one).decode()


decode_position: Final = msgspec.json.Decoder(ProducerPosition).decode


def encode_listing(listing: Listing | None) -> str:
    """A line of the directory; empty where there is none."""
    return "" if listing is None else _encode(listing).decode()


def decode_listing(data: bytes) -> Listing | None:
    """The reverse. Raises `DamagedError`."""
    try:
        return _decode_listing(data) if data else None
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise DamagedError(f"a line of the directory: {exc}") from exc


def encode_people(people: People) -> bytes:
    """Who watches; empty where nobody does."""
    return _encode(people) if people else b""


def decode_people(data: bytes) -> People:
    """The reverse. Raises `DamagedError`."""
    try:
        return _decode_people(data) if data else ()
    except msgspec.DecodeError as exc:
        raise DamagedError(f"who watches: {exc}") from exc


def new_head(commit: Commit) -> int:
    """The head after *commit*."""
    return commit.events[-1][0] if commit.events else commit.expected_head


def place(head: int, version: int) -> str:
    """A commit's id in its session's stream: by the head after it, then by the version after it.

    Both only grow, so commits stand in their order, and whatever ends before an event can be cut off there.
    """
    return f"{head}-{version}"


def record(commit: Commit, node: str) -> str:
    """What others have to know of *commit*."""
    text = _encode(
        _Record(
            commit.epoch,
            commit.expected_head,
            [msgspec.Raw(data) for _, data in commit.events],
            list(commit.producers.values()),
            sorted(commit.released),
            len(commit.retired),
            commit.listing,
            commit.attention,
            node,
        )
    )
    return text.decode()


def order(commit: Commit, born: str, node: str) -> list[object]:
    """What the script is to do, in the order in which `scripts.COMMIT` takes it."""
    entities: list[object] = []
    for (kind, ident), data in commit.entities.items():
        entities += (entity_field(kind, ident), bytes(data).decode())
    producers: list[object] = []
    for name, one in commit.producers.items():
        producers += (name, position(one))
    retired: list[object] = []
    for key, data in commit.retired.items():
        retired += (key, bytes(data).decode())
    logs: dict[str, list[str]] = {}
    for step, line in commit.logs:
        logs.setdefault(step, []).append(f"{line.n} {_encode(line).decode()}")
    return [
        commit.session,
        commit.epoch,
        commit.expected_head,
        new_head(commit),
        commit.version,
        born,
        place(new_head(commit), commit.version + 1),
        record(commit, node),
        entities,
        [entity_field(kind, ident) for kind, ident in sorted(commit.drops)],
        producers,
        retired,
        sorted(commit.values),
        sorted(commit.released),
        list(logs.items()),
        commit.first_kept,
        commit.digest,
        encode_listing(commit.listing),
        "1" if commit.attention else "0",
    ]


_RECORD_AT: Final = 7


def record_of(order: Sequence[object]) -> str:
    """The record in an order."""
    found = order[_RECORD_AT]
    assert isinstance(found, str)
    return found


def pack(orders: Sequence[list[object]]) -> bytes:
    """A group's orders, for the script."""
    return _pack(orders)


def committed(session: str, ident: bytes, data: bytes) -> Committed:
    """A commit as its stream and the bus have it. Raises `DamagedError`."""
    try:
        found = _decode_record(data)
        version = int(ident.partition(b"-")[2])
    except (msgspec.DecodeError, ValueError) as exc:
        raise DamagedError(f"a commit of {session!r}: {exc}") from exc
    return Committed(
        session,
        found.epoch,
        version,
        found.head,
        tuple(map(bytes, found.events)),
        {one.producer: one for one in found.producers},
        frozenset(found.released),
        found.retired,
        found.listing,
        found.attention,
        found.node,
    )


def fields(flat: Sequence[bytes]) -> Fields:
    """Names and values in turn, as Redis gives them, by name."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def message(entry: Fields) -> Message | None:
    """What an entry of the bus says; None: a large commit, whose record the session's stream has.

    Raises:
        DamagedError: nothing that we would have written.
    """
    try:
        kind = entry[b"k"]
        if kind == b"c":
            data = entry.get(b"d")
            return None if data is None else committed(entry[b"s"].decode(), entry[b"i"], data)
        if kind == b"r":
            return Committed(
                entry[b"s"].decode(),
                entry[b"e"].decode(),
                int(entry[b"v"]),
                int(entry[b"h"]),
                listing=decode_listing(entry[b"l"]),
                attention=entry[b"a"] == b"1",
                node=entry[b"n"].decode(),
            )
        if kind == b"x":
            return SessionRemoved(entry[b"s"].decode(), int(entry[b"t"]), entry[b"n"].decode())
        if kind == b"t":
            return TokenRevoked(entry[b"j"].decode(), int(entry[b"t"]))
        if kind == b"w":
            return Watching(entry[b"s"].decode(), entry[b"n"].decode(), decode_people(entry[b"p"]))
        if kind == b"g":
            return NodeGone(entry[b"n"].decode())
    except DamagedError:
        raise
    except (KeyError, ValueError) as exc:
        raise DamagedError(f"a message of the bus: {exc!r}") from exc
    raise DamagedError(f"a message of the bus of kind {kind!r}")
