"""A store in memory: it lasts as long as the process, and says so by its fresh epoch."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from wsmonitor.protocol.entities import Command, Listing, LogRecord
from wsmonitor.protocol.reducer import SessionState, decode_entity

from .base import Commit, ProducerPosition, StoredSession, StoreError
from .blobs import Blobs, MemoryBlobs

_AT_ONCE = 2_000  # entities that are decoded within one turn of the loop

_decode_command = msgspec.json.Decoder(Command).decode


@dataclass(slots=True)
class _Kept:
    epoch: str
    head: int = 0
    entities: dict[tuple[str, str], bytes] = field(default_factory=dict)
    events: dict[int, bytes] = field(default_factory=dict)
    producers: dict[str, ProducerPosition] = field(default_factory=dict)
    logs: dict[str, list[LogRecord]] = field(default_factory=dict)
    values: set[str] = field(default_factory=set)
    retired: dict[str, bytes] = field(default_factory=dict)
    listing: Listing | None = None
    attention: bool = False


class MemoryStore:
    """Everything in dictionaries.

    Args:
        log_records: how many log records are kept per step.
        token_hex: random hexadecimal digits for the epoch, so many bytes.
    """

    def __init__(
        self,
        *,
        log_records: int = 1_000,
        token_hex: Callable[[int], str] = secrets.token_hex,
        blobs: Blobs | None = None,
    ) -> None:
        self.epoch = token_hex(8)
        self._log_records = log_records
        self._sessions: dict[str, _Kept] = {}
        self._runs: dict[str, int] = {}
        self._tombstones: dict[str, int] = {}
        self._revoked: dict[str, int] = {}
        self._blobs = MemoryBlobs() if blobs is None else blobs

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def check(self, *, room: int = 0) -> None:
        pass

    def info(self) -> dict[str, str | int]:
        return {"kind": "memory", "sessions": len(self._sessions)}

    async def size(self) -> int:
        kept = self._sessions.values()
        return self._blobs.size() + sum(
            sum(map(len, one.entities.values())) + sum(map(len, one.events.values())) for one in kept
        )

    async def compact(self) -> None:
        pass

    async def listings(self) -> list[tuple[Listing, bool]]:
        return [
            (kept.listing or Listing(id=session, name="", state="absent"), kept.attention)
            for session, kept in self._sessions.items()
        ]

    async def load(self, session: str) -> StoredSession | None:
        kept = self._sessions.get(session)
        if kept is None:
            return None
        state = SessionState(session, kept.epoch, kept.head)
        for index, ((kind, _), data) in enumerate(kept.entities.items(), 1):
            if index % _AT_ONCE == 0:
                await asyncio.sleep(0)
            entity = decode_entity(kind, data)
            assert entity is not None
            state.put(kind, entity)
        size = sum(map(len, kept.entities.values()))
        history = list(kept.events.items())
        return StoredSession(state, dict(kept.producers), history, set(kept.values), size, len(kept.retired))

    async def commit(self, commits: Sequence[Commit]) -> None:
        for commit in commits:
            kept = self._sessions.get(commit.session)
            head = 0 if kept is None else kept.head
            if head != commit.expected_head:
                raise StoreError(f"{commit.session}: the head is {head}, not {commit.expected_head}")
        for commit in commits:
            self._apply(commit)

    def _apply(self, commit: Commit) -> None:
        kept = self._sessions.setdefault(commit.session, _Kept(commit.epoch))
        if kept.epoch != commit.epoch:
            # The kept events name the epoch that has ended.
            kept.events.clear()
            kept.epoch = commit.epoch
        for key in commit.drops:
            kept.entities.pop(key, None)
        kept.entities.update(commit.entities)
        if commit.events:
            kept.events.update(commit.events)
            kept.head = commit.events[-1][0]
        kept.producers.update(commit.producers)
        kept.retired.update(commit.retired)
        for step, record in commit.logs:
            records = kept.logs.setdefault(step, [])
            records.append(record)
            if len(records) > self._log_records:
                del records[0]
        kept.values |= commit.values
        kept.values -= commit.released
        for seq in range(next(iter(kept.events), commit.first_kept), commit.first_kept):
            kept.events.pop(seq, None)
        if commit.listing is not None:
            kept.listing = commit.listing
        kept.attention = commit.attention

    async def retired_command(self, session: str, key: str) -> Command | None:
        kept = self._sessions.get(session)
        data = None if kept is None else kept.retired.get(key)
        return None if data is None else _decode_command(data)

    async def next_run(self, name: str) -> int:
        self._runs[name] = run = self._runs.get(name, 0) + 1
        return run

    async def remove(self, session: str, *, at: int) -> None:
        if self._sessions.pop(session, None) is not None:
            self._tombstones[session] = at
        self._blobs.remove_session(session)

    async def tombstone(self, session: str) -> int | None:
        return self._tombstones.get(session)

    async def forget_tombstones(self, *, before: int) -> None:
        self._tombstones = {session: at for session, at in self._tombstones.items() if at >= before}

    async def logs(self, session: str, step: str, first: int, limit: int) -> tuple[list[LogRecord], int]:
        kept = self._sessions.get(session)
        records = [] if kept is None else kept.logs.get(step, [])
        if not records:
            return [], 0
        start = max(0, first - records[0].n)
        return records[start : start + limit], records[0].n

    async def value_begin(self, session: str, sha256: str, total: int) -> int:
        return self._blobs.begin(session, sha256, total)

    async def value_write(self, session: str, sha256: str, total: int, offset: int, data: bytes) -> bool:
        return self._blobs.write(session, sha256, total, offset, data)

    async def value_has(self, session: str, sha256: str) -> bool:
        return self._blobs.has(session, sha256)

    async def value_read(
        self, session: str, sha256: str, offset: int, length: int
    ) -> tuple[bytes, int] | None:
        return self._blobs.read(session, sha256, offset, length)

    async def value_sweep(self, *, older_than: float) -> int:
        kept = {(session, sha256) for session, one in self._sessions.items() for sha256 in one.values}
        return self._blobs.sweep(kept, older_than)

    async def revoke(self, jti: str, expires: int) -> None:
        self._revoked[jti] = expires

    async def revoked(self) -> dict[str, int]:
        return dict(self._revoked)

    async def forget_revocations(self, *, before: int) -> None:
        self._revoked = {jti: at for jti, at in self._revoked.items() if at == 0 or at >= before}
