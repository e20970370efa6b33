"""A session's state, and the pure reducer that applies an event to it.

The very same code runs in the server and in every observer; because it does, the two can be
compared by digest. An event that does not fit raises and leaves the state unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, cast

import msgspec

from .checking import CHECKS
from .digest import entity_hash, to_hex
from .entities import (
    KIND_OF,
    KINDS,
    Chain,
    Command,
    Entity,
    Listing,
    Problem,
    Producer,
    Session,
    Step,
)
from .errors import DigestMismatchError, OutOfOrderError, StateError
from .messages import Event

_READERS: Final = {
    kind: (msgspec.json.Decoder(cls).decode, CHECKS.get(kind, lambda entity: None))
    for kind, cls in KINDS.items()
}

HASHED_LATER: Final = 256
"""How many records may wait for their part of the digest to be computed."""


def decode_entity(kind: str, raw: msgspec.Raw | bytes) -> Entity | None:
    """The record of entity kind *kind*, or None for a kind that this version does not know.

    Raises:
        StateError: the text is not such a record.
    """
    reader = _READERS.get(kind)
    if reader is None:
        return None
    decode, check = reader
    try:
        entity = decode(raw)
        check(entity)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise StateError(f"not a {kind}: {exc}") from exc
    return entity


def convert_entity(kind: str, plain: object) -> Entity:
    """The record of entity kind *kind* from the plain values that its JSON has.

    Raises:
        KeyError: there is no such kind.
        StateError: it is not such a record.
    """
    check = _READERS[kind][1]
    try:
        entity = msgspec.convert(plain, KINDS[kind])
        check(entity)
    except msgspec.ValidationError as exc:
        raise StateError(f"not a {kind}: {exc}") from exc
    return entity


class SessionState:
    """The entities of one topic at one position, with the digest over them.

    A record that an event brings is hashed when `settle` is called, or when more than `HASHED_LATER` wait for
    it: one that was replaced ten times in between is hashed once. Reading changes nothing, so that several
    threads may read what none of them changes.

    Attributes:
        topic: the session's id (or a directory topic).
        epoch: the unbroken history that ``seq`` counts in.
        seq: the last event applied; 0 when nothing has happened yet.
        entities: kind to id to record. Read it, never write it.
    """

    __slots__ = ("_hashes", "_total", "_unhashed", "entities", "epoch", "seq", "topic")

    def __init__(self, topic: str, epoch: str, seq: int = 0) -> None:
        self.topic = topic
        self.epoch = epoch
        self.seq = seq
        self.entities: dict[str, dict[str, Entity]] = {kind: {} for kind in KINDS}
        self._hashes: dict[tuple[str, str], int] = {}
        self._unhashed: dict[
            tuple[str, str], Entity
        ] = {}  # what `_hashes` does not have, or an earlier record's
        self._total = 0  # the sum of `_hashes`; `to_hex` takes the modulus

    # -- reading

    @property
    def digest(self) -> str:
        """The digest over all entities: 32 hexadecimal digits. Dear where there is something to `settle`."""
        total = self._total
        for key, entity in self._unhashed.items():
            total += entity_hash(entity) - self._hashes.get(key, 0)
        return to_hex(total)

    @property
    def session(self) -> Session | None:
        """The session's own record, or None while there is none."""
        for entity in self.entities["session"].values():
            return cast(Session, entity)
        return None

    @property
    def chains(self) -> dict[str, Chain]:
        return cast("dict[str, Chain]", self.entities["chain"])

    @property
    def steps(self) -> dict[str, Step]:
        return cast("dict[str, Step]", self.entities["step"])

    @property
    def commands(self) -> dict[str, Command]:
        return cast("dict[str, Command]", self.entities["command"])

    @property
    def producers(self) -> dict[str, Producer]:
        return cast("dict[str, Producer]", self.entities["producer"])

    @property
    def problems(self) -> dict[str, Problem]:
        return cast("dict[str, Problem]", self.entities["error"])

    @property
    def listings(self) -> dict[str, Listing]:
        return cast("dict[str, Listing]", self.entities["listing"])

    def hash_of(self, kind: str, ident: str) -> int:
        """What this entity adds to the digest; 0 where there is none."""
        waiting = self._unhashed.get((kind, ident))
        return self._hashes.get((kind, ident), 0) if waiting is None else entity_hash(waiting)

    def __len__(self) -> int:
        return sum(map(len, self.entities.values()))

    def __iter__(self) -> Iterator[tuple[str, Entity]]:
        for kind, group in self.entities.items():
            for entity in group.values():
                yield kind, entity

    # -- changing

    def apply(self, event: Event) -> Entity | None:
        """Apply the next event, and return the entity that it brought (None for an unknown kind).

        Raises:
            OutOfOrderError: it is not the next event of this epoch.
            StateError: it cannot be read.
        """
        entity = decode_entity(event.kind, event.entity)
        if event.epoch != self.epoch or event.seq != self.seq + 1:
            raise OutOfOrderError((self.epoch, self.seq + 1), (event.epoch, event.seq))
        if entity is not None:
            ident = entity.id
            self.entities[event.kind][ident] = entity
            self._unhashed[event.kind, ident] = entity
            if len(self._unhashed) > HASHED_LATER:
                self.settle()
        for kind, ident in event.drop:
            self.drop(kind, ident)
        self.seq = event.seq
        return entity

    def put(self, kind: str, entity: Entity, number: int | None = None) -> None:
        """Put *entity* in the place of the one with its id. For syncs and stores: no position is checked.

        Args:
            number: what it adds to the digest, where the caller has computed that already.
        """
        if KIND_OF[type(entity)] != kind:
            raise StateError(f"a {type(entity).__name__} is not a {kind}")
        if number is None:
            number = entity_hash(entity)
        key = (kind, entity.id)
        self.entities[kind][entity.id] = entity
        self._total += number - self._hashes.get(key, 0)
        self._hashes[key] = number
        if self._unhashed:
            self._unhashed.pop(key, None)

    def drop(self, kind: str, ident: str) -> None:
        """Forget an entity. It is not an error that there is none: a drop may be told twice in a sync."""
        group = self.entities.get(kind)
        if group is not None and group.pop(ident, None) is not None:
            self._unhashed.pop((kind, ident), None)
            self._total -= self._hashes.pop((kind, ident), 0)

    def settle(self) -> None:
        """Hash what waits for it, as before the digest is compared. For those who may change the state."""
        hashes = self._hashes
        for key, entity in self._unhashed.items():
            number = entity_hash(entity)
            self._total += number - hashes.get(key, 0)
            hashes[key] = number
        self._unhashed.clear()

    def verify(self, digest: str) -> None:
        """Raise `DigestMismatchError` if *digest* is not this state's."""
        if digest != self.digest:
            raise DigestMismatchError(
                f"{self.topic} at {self.epoch}:{self.seq}: digest {self.digest}, the server's is {digest}"
            )

    def copy(self) -> SessionState:
        """A copy that later events do not change: shallow, because the entities are frozen."""
        other = SessionState(self.topic, self.epoch, self.seq)
        other.entities = {kind: dict(group) for kind, group in self.entities.items()}
        other._hashes = dict(self._hashes)
        other._unhashed = dict(self._unhashed)
        other._total = self._total
        other.settle()
        return other

    @classmethod
    def restore(
        cls, topic: str, epoch: str, seq: int, entities: Iterable[tuple[str, Entity]]
    ) -> SessionState:
        """A state from stored entities."""
        state = cls(topic, epoch, seq)
        for kind, entity in entities:
            state.put(kind, entity)
        return state
