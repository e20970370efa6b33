"""Large values on their way in and out: limits, errors, and which uploads are at work."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, TypeVar

from wsmonitor.protocol.defaults import Limits

from .ports import Clock
from .replies import refusal, store_refusal
from .stores.base import Store, StoreError

_T = TypeVar("_T")

UPLOAD_IDLE: Final = 60.0
"""Seconds after which an unfinished upload no longer keeps a server busy, nor counts against ``uploads``."""


class Values:
    """The large values of all sessions. The methods raise `Refusal`."""

    def __init__(self, store: Store, limits: Limits, clock: Clock) -> None:
        self._store = store
        self._limits = limits
        self._clock = clock
        self._uploads: dict[tuple[str, str], float] = {}

    def __len__(self) -> int:
        """How many uploads are at work."""
        return len(self._uploads)

    @property
    def busy(self) -> bool:
        """Whether an upload is at work that was heard of lately."""
        self.sweep()
        return bool(self._uploads)

    def sweep(self) -> None:
        """Forget uploads that went silent."""
        limit = self._clock.monotonic() - UPLOAD_IDLE
        self._uploads = {key: at for key, at in self._uploads.items() if at > limit}

    def forget(self, session: str) -> None:
        """The session is gone."""
        self._uploads = {key: at for key, at in self._uploads.items() if key[0] != session}

    def _check(self, session: str, total: int) -> None:
        if total > self._limits.value_size:
            raise refusal(
                "limit_exceeded",
                f"a value may have {self._limits.value_size:,} bytes, this one has {total:,}",
                session=session,
            )

    async def begin(self, session: str, sha256: str, total: int) -> int:
        self._check(session, total)
        return await _told(session, self._store.value_begin(session, sha256, total))

    async def write(self, session: str, sha256: str, total: int, offset: int, data: bytes) -> bool:
        self._check(session, total)
        key = (session, sha256)
        self._uploads[key] = self._clock.monotonic()
        complete = True  # also when it fails: then it is over, too
        try:
            complete = await _told(session, self._store.value_write(session, sha256, total, offset, data))
        finally:
            if complete:
                self._uploads.pop(key, None)
        return complete

    async def read(self, session: str, sha256: str, offset: int, length: int) -> tuple[bytes, int] | None:
        length = min(length, self._limits.page_size)
        return await _told(session, self._store.value_read(session, sha256, offset, length))


async def _told(session: str, work: Awaitable[_T]) -> _T:
    try:
        return await work
    except StoreError as exc:
        raise store_refusal(exc, session) from exc
