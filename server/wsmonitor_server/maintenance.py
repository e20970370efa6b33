"""What is done now and then: remove what is no longer kept, and give its space back."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Set
from typing import Final

from .directory import Directory
from .ports import Refusal
from .retention import Retention, expired
from .stores.base import Store

log = logging.getLogger(__name__)

_TOMBSTONE_AGE: Final = 90 * 86_400 * 1_000_000_000  # ns: nobody resumes after that


class Maintenance:
    """The looks at one store.

    Args:
        known: the ids of all sessions, kept by the owner.
        unused: whether nobody has anything to do with a session.
        remove: takes a session away, and tells all who watch it. Raises `Refusal`.
    """

    def __init__(
        self,
        store: Store,
        directory: Directory,
        known: Set[str],
        unused: Callable[[str], bool],
        remove: Callable[[str], Awaitable[None]],
    ) -> None:
        self._store = store
        self._directory = directory
        self._known = known
        self._unused = unused
        self._remove = remove
        self._nameless: dict[str, float] = {}  # since when they are known

    async def run(self, retention: Retention, now: float, now_ns: int) -> None:
        """One look. Raises `StoreError`."""
        total = await self._store.size()
        gone = expired(self._directory.listings(), retention, now_ns, total)
        for session in [*gone, *self._nameless_for_long(retention, now)]:
            log.info("session %s is no longer kept", session)
            try:
                await self._remove(session)
            except Refusal as exc:
                log.warning("session %s: %s", session, exc)
        await self._store.value_sweep(older_than=retention.orphan_age)
        await self._tell_quota(retention.max_total_size, total)
        await self._store.compact()
        await self._store.forget_revocations(before=now_ns // 1_000_000_000)
        await self._store.forget_tombstones(before=now_ns - _TOMBSTONE_AGE)

    def _nameless_for_long(self, retention: Retention, now: float) -> list[str]:
        """Sessions that were opened and never named, and that nobody has anything to do with: too old now.

        They are in no list, so that nobody could remove them. Their age counts from when they were seen here.
        """
        named = {listing.id for listing in self._directory.listings()}
        self._nameless = {
            session: self._nameless.get(session, now) for session in sorted(self._known - named)
        }
        return [
            session
            for session, since in self._nameless.items()
            if retention.max_age and now - since > retention.max_age and self._unused(session)
        ]

    async def _tell_quota(self, quota: int, before: int) -> None:
        """What runs is never taken away for want of space: who runs the server has to know."""
        if quota and before > quota and (total := await self._store.size()) > quota:
            log.warning(
                "the store has %s bytes, more than max_total_size (%s), and nothing that has ended is left "
                "to be removed",
                f"{total:,}",
                f"{quota:,}",
            )
