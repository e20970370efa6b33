"""Reads of Redis that take more than one command: a session as it was committed, and what somebody missed.

A small session is read by one script, as a whole. A large one is read in parts, so that Redis serves
others in between; what was committed meanwhile is then laid over it: each event has the whole of its entity.
The digest over all entities, which stands in the head, says whether the result is what was committed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wsmonitor.protocol.codec import decode_event
from wsmonitor.protocol.entities import Listing
from wsmonitor.protocol.errors import ProtocolError, StateError
from wsmonitor.protocol.reducer import SessionState, decode_entity
from wsmonitor_server.stores.base import StoredSession, StoreError
from wsmonitor_server.stores.bus import Committed

from . import records
from .instance import facts
from .link import Link
from .scripts import LOAD, MISSED

log = logging.getLogger(__name__)

AT_ONCE: Final = 2_000
"""Entities that are read, and decoded, in one go."""

_ATTEMPTS: Final = 3
_ALL: Final = 2**53

_DAMAGED: Final = "restore it from a copy, or remove it"


@dataclass(frozen=True, slots=True)
class _Head:
    version: int
    seq: int
    epoch: str
    digest: str
    first: int
    born: str


@dataclass(frozen=True, slots=True)
class _Answer:
    """What `scripts.LOAD` found of a session."""

    head: _Head
    entities: dict[bytes, bytes] | None
    producers: list[bytes]
    values: list[bytes]
    retired: int
    commits: list[Committed]

    def history(self) -> list[tuple[int, bytes]]:
        """The kept events up to the head, without a hole."""
        kept: list[tuple[int, bytes]] = []
        expected = self.head.seq
        for commit in reversed(self.commits):
            if commit.epoch != self.head.epoch or commit.head + len(commit.events) != expected:
                break
            numbered = enumerate(commit.events, commit.head + 1)
            kept[:0] = [(seq, data) for seq, data in numbered if seq >= self.head.first]
            expected = commit.head
        return kept


def damaged(place: str, session: str, why: object) -> StoreError:
    """What is stored of a session cannot be what was committed."""
    return StoreError(f"what is stored of session {session!r} is damaged ({why}): {_DAMAGED}", place=place)


def _answer(session: str, reply: Sequence[Any]) -> _Answer:
    flat, entities, producers, values, retired, entries = reply
    head = {name.decode(): value.decode() for name, value in records.fields(flat).items()}
    return _Answer(
        _Head(
            int(head["version"]),
            int(head["seq"]),
            head["epoch"],
            head.get("digest", ""),
            int(head.get("first", 0)),
            head["born"],
        ),
        None if entities is None else records.fields(entities),
        producers,
        values,
        retired,
        [records.committed(session, ident, data[1]) for ident, data in entries],
    )


class Loader:
    """Loads sessions.

    Args:
        epoch: the store's epoch as this node knows it.
        settle: finds out what the epoch is; called when it turns out to be another.
        token_hex: random hexadecimal digits, so many bytes.
    """

    def __init__(
        self,
        link: Link,
        about: tuple[str, str],
        place: str,
        *,
        epoch: Callable[[], str],
        settle: Callable[[], Awaitable[None]],
        token_hex: Callable[[int], str],
    ) -> None:
        self._link = link
        self._about = about
        self._place = place
        self._epoch = epoch
        self._settle = settle
        self._token_hex = token_hex

    async def load(self, session: str) -> tuple[StoredSession, str] | None:
        """The session and its incarnation. Raises `StoreError`."""
        try:
            for attempt in range(_ATTEMPTS + 1):
                last = attempt == _ATTEMPTS
                answer = await self._ask(session, _ALL if last else AT_ONCE)
                if answer is None:
                    return None
                if answer.entities is not None:
                    return await self._stored(session, answer, answer.entities), answer.head.born
                found = await self._parts(session, answer)
                if found is not None:
                    return found
            raise AssertionError("the last attempt takes all at once")
        except (records.DamagedError, ProtocolError, StateError, KeyError, ValueError) as exc:
            raise damaged(self._place, session, exc) from exc

    async def _ask(self, session: str, most: int) -> _Answer | None:
        for _ in range(_ATTEMPTS):
            epoch = self._epoch()
            reply = await self._link.one(LOAD, *self._about, epoch, session, self._token_hex(8), most)
            if reply[0].decode() == epoch == self._epoch():
                return _answer(session, reply[1:]) if len(reply) > 1 else None
            await self._settle()
        raise StoreError("Redis is another at every look", place=self._place)

    async def _parts(self, session: str, before: _Answer) -> tuple[StoredSession, str] | None:
        """A large session; None where it changed in a way that its events do not tell."""
        encoded: dict[bytes, bytes] = {}
        cursor = b"0"
        while True:
            key = f"{self._about[0]}s:{session}:e"
            cursor, flat = await self._link.one("HSCAN", key, cursor, "COUNT", AT_ONCE)
            encoded |= records.fields(flat)
            if cursor == b"0":
                break
        after = await self._ask(session, -1)
        if after is None or after.head.born != before.head.born:
            return None
        if after.head.version != before.head.version:
            told = [data for seq, data in after.history() if seq > before.head.seq]
            if after.head.epoch != before.head.epoch or len(told) != after.head.seq - before.head.seq:
                return None
            for data in told:
                event = decode_event(data)
                entity = decode_entity(event.kind, event.entity)
                if entity is not None:
                    encoded[records.entity_field(event.kind, entity.id).encode()] = bytes(event.entity)
                for kind, ident in event.drop:
                    encoded.pop(records.entity_field(kind, ident).encode(), None)
        return await self._stored(session, after, encoded), after.head.born

    async def _stored(self, session: str, answer: _Answer, encoded: dict[bytes, bytes]) -> StoredSession:
        head = answer.head
        state = SessionState(session, head.epoch, head.seq)
        for number, (name, data) in enumerate(encoded.items(), 1):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            kind = name.partition(b":")[0].decode()
            entity = decode_entity(kind, data)
            if entity is None:
                raise records.DamagedError(f"an entity of kind {kind!r}, which is not known")
            state.put(kind, entity)
        if head.digest and head.digest != state.digest:
            raise records.DamagedError(f"its digest is {state.digest}, and was {head.digest}")
        positions = [records.decode_position(data) for data in answer.producers]
        return StoredSession(
            state,
            {one.producer: one for one in positions},
            answer.history(),
            {sha256.decode() for sha256 in answer.values},
            sum(map(len, encoded.values())),
            answer.retired,
            head.version,
        )


async def missed(
    link: Link, about: tuple[str, str], session: str, version: int, born: str
) -> list[Committed] | None:
    """See `Shared.missed`; *born*: the incarnation that the caller has.

    Raises:
        StoreError: Redis cannot say.
    """
    reply = await link.one(MISSED, *about, session, version)
    if not reply or reply[1].decode() != born:
        return None
    try:
        found = [records.committed(session, ident, data) for ident, data in reversed(reply[2])]
    except records.DamagedError as exc:
        log.error("what was missed of session %s cannot be read: %s", session, exc)
        return None
    versions = [one.version for one in found]
    return found if versions == list(range(version + 1, int(reply[0]) + 1)) else None


def listing(session: str, data: bytes) -> Listing:
    """A session's line in the directory; without name and ``absent`` where there is none."""
    try:
        found = records.decode_listing(data)
    except records.DamagedError as exc:
        # It comes again with the session's next commit.
        log.error("the line of session %r in the directory is damaged: %s", session, exc)
        found = None
    return found or Listing(id=session, name="", state="absent")


def has_room(memory: bytes, wanted: int) -> bool:
    """Whether *wanted* bytes more are below Redis' limit. *memory*: what ``INFO memory`` said."""
    said = facts(memory)
    limit = int(said.get("maxmemory", 0))
    return not limit or int(said.get("used_memory", 0)) + wanted <= limit
