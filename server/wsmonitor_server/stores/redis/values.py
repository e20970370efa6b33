"""Large values in Redis: in chunks under keys of their own, which no command needs to copy as a whole."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from wsmonitor_server.stores.base import StoreError

from .link import Link
from .scripts import CHUNK, VALUE_BEGIN, VALUE_END, VALUE_SWEEP, VALUE_WRITE

_AT_ONCE: Final = 500


class RedisValues:
    """The part of `store.RedisStore` that keeps large values; any node may go on with an upload of another.

    Args:
        link: a link that may be busy for a while.
        about: the first two arguments of every script.
    """

    def __init__(self, link: Link, about: tuple[str, str]) -> None:
        self._link = link
        self._about = about

    def _key(self, session: str, sha256: str) -> str:
        # As `scripts` names it: Lua counts bytes.
        return f"{self._about[0]}v:{len(session.encode())}:{session}:{sha256}"

    async def begin(self, session: str, sha256: str, total: int) -> int:
        """See `Store.value_begin`."""
        received, whole = await self._link.one(VALUE_BEGIN, *self._about, session, sha256)
        if not whole and received and received >= total:
            # The node that took the last page has not come to verify it: this one does.
            return total if await self._verify(session, sha256, received) else 0
        return int(received)

    async def write(self, session: str, sha256: str, total: int, offset: int, data: bytes) -> bool:
        """See `Store.value_write`."""
        # Not asked again when the answer is lost: the page might be there then, and who uploads asks anyway.
        received, whole, misplaced = await self._link.one(
            VALUE_WRITE, *self._about, session, sha256, total, offset, data, again=False
        )
        if whole:
            return True
        if misplaced and offset != received:
            raise StoreError(f"the upload stands at {received}, not at {offset}", code="out_of_sequence")
        if misplaced:
            raise StoreError(f"more than the {total} bytes that were announced", code="value_mismatch")
        if received < total:
            return False
        if not await self._verify(session, sha256, received):
            raise StoreError("the bytes do not have the digest that was named", code="value_mismatch")
        return True

    async def _verify(self, session: str, sha256: str, size: int) -> bool:
        """Compare what is there with its digest; a value that is another is discarded."""
        running = hashlib.sha256()
        key = self._key(session, sha256)
        for chunk in range(-(-size // CHUNK)):
            running.update(await self._link.one("GET", f"{key}:{chunk}") or b"")
        right = running.hexdigest() == sha256
        await self._link.one(VALUE_END, *self._about, session, sha256, "1" if right else "0")
        return right

    async def has(self, session: str, sha256: str) -> bool:
        """See `Store.value_has`."""
        return bool(await self._link.one("HEXISTS", self._key(session, sha256), "whole"))

    async def read(self, session: str, sha256: str, offset: int, length: int) -> tuple[bytes, int] | None:
        """See `Store.value_read`."""
        key = self._key(session, sha256)
        commands: list[tuple[Any, ...]] = [("HMGET", key, "received", "whole")]
        at, end = offset, offset + max(0, length)
        while at < end:
            start, stop = at % CHUNK, min(CHUNK, at % CHUNK + end - at)
            commands.append(("GETRANGE", f"{key}:{at // CHUNK}", start, stop - 1))
            at += stop - start
        [(received, whole), *parts] = await self._link.many(commands)
        return (b"".join(parts), int(received)) if whole else None

    async def sweep(self, older_than: float) -> int:
        """See `Store.value_sweep`. Ages count by Redis' clock."""
        link, touched = self._link, f"{self._about[0]}touched"
        now = (await link.one("TIME"))[0]
        count, skip = 0, 0
        while True:
            members = await link.one(
                "ZRANGEBYSCORE", touched, "-inf", int(now) - int(older_than), "LIMIT", skip, _AT_ONCE
            )
            if not members:
                return count
            gone = await link.one(VALUE_SWEEP, *self._about, int(older_than), *members)
            count += gone
            skip += len(members) - gone  # what stays is referred to

    async def size(self) -> int:
        """Bytes of all values."""
        return int(await self._link.one("GET", f"{self._about[0]}vbytes") or 0)
