"""The store on Redis: any number of nodes, each of which may take changes of any session.

A node reduces on its own copy of a session, and one script compares and sets: it refuses a commit that was
made for another version, which `MovedError` tells. All commits of a group go in one script: one round trip,
and what Redis refuses as a whole (no memory, a replica) it refuses for all of them.

What Redis acknowledges it may lose: when it dies between two saves, or when a replica takes over that lagged
behind. Neither is silent. Every connection is looked at before it is used; when the Redis at its other end is
not the one that was met last, the store gets a new epoch, and every session one when it is loaded next.

docs/decisions/0011-redis.md has the reasons.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import msgspec

from wsmonitor.protocol.entities import Command, Listing, LogRecord
from wsmonitor.protocol.errors import ConfigurationError
from wsmonitor_server.metrics import Histogram, Value
from wsmonitor_server.stores.base import Commit, MovedError, StoredSession, StoreError
from wsmonitor_server.stores.bus import Committed, Message, People, Regenerated, SessionRemoved, TokenRevoked

from . import reading, records, scripts
from .address import parse
from .bus import BusReader, Pace
from .instance import Instance, UnfitError, facts, refuse_eviction
from .link import Link, advice, library, look
from .values import RedisValues

log = logging.getLogger(__name__)

_START: Final = 3.0
"""Seconds that a Redis may take to be there when a server starts."""

_BUS_TIMEOUT: Final = 2.0
"""Seconds that the bus waits for an answer: who hears nothing for longer takes nothing either."""

_SCAN: Final = 1_000
"""Fields that are read in one go."""

_decode_command: Final = msgspec.json.Decoder(Command).decode
_decode_log: Final = msgspec.json.Decoder(LogRecord).decode


class RedisStore:
    """`bus.Shared` on Redis 7 or later, or Valkey. See the module's text.

    Args:
        url: see `address.parse`.
        log_records: how many log records are kept per step.
        token_hex: random hexadecimal digits, so many bytes.
        clock: monotonic seconds.
        timeout: seconds that one answer may take.
        patience: seconds for which what did not reach Redis, or lost its answer, is asked again.
        uniform: a random number between two.
        wall: seconds since 1970.
        mark: what this server verifies tokens with, in short, to be compared with the others'.

    Raises:
        ConfigurationError: the URL is none.
    """

    def __init__(
        self,
        url: str,
        *,
        log_records: int = 1_000,
        token_hex: Callable[[int], str] = secrets.token_hex,
        clock: Callable[[], float] = time.monotonic,
        timeout: float = 5.0,
        patience: float = 10.0,
        pace: Pace | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
        wall: Callable[[], float] = time.time,
        mark: Callable[[], str] = lambda: "",
    ) -> None:
        self.epoch = ""
        self._address = parse(url)
        self._log_records = log_records
        self._token_hex = token_hex
        self._patience = patience
        self.node = token_hex(8)
        self._prefix = self._address.prefix
        self._about = (self._prefix, self.node)
        self._instance = Instance()
        self._listener: Callable[[Message], None] = lambda message: None
        self._incarnations: dict[str, str] = {}
        self._revocations: dict[str, int] = {}  # all that this node has heard of
        self._revoked_under = ""  # the epoch under which Redis is known to have them
        # One for commits, one for what may take long, one for the bus, which waits.
        self._quick, self._slow, self._waiting = (
            Link(self._address, self._meet, timeout=seconds, patience=patience, clock=clock)
            for seconds in (timeout, timeout, min(timeout, _BUS_TIMEOUT))
        )
        self._values = RedisValues(self._slow, self._about)
        self._loader = reading.Loader(
            self._slow,
            self._about,
            self._address.shown,
            epoch=lambda: self.epoch,
            settle=self._settle,
            token_hex=token_hex,
        )
        self._bus = BusReader(
            self._waiting,
            self._about,
            self._tell,
            epoch=lambda: self.epoch,
            settle=self._settle,
            replication=lambda: self._instance.replid,
            broken=self._doubt,
            errand=self._revoke_again,
            clock=clock,
            pace=pace or Pace(),
            uniform=uniform,
            wall=wall,
            mark=mark,
        )

    # -- which Redis this is

    async def _meet(self, connection: Any) -> None:
        """A new connection: whose is it? Raises `UnfitError`."""
        found = await look(connection, self._address.shown)
        if self.epoch and found.same(self._instance):
            return
        arguments = (*self._about, found.run_id, found.replid, self._token_hex(8), scripts.SCHEMA)
        await connection.send_command("EVAL", scripts.SETTLE.text, 0, *arguments)
        epoch, number, schema = await connection.read_response()
        if not epoch:
            raise UnfitError(
                f"the store was written by a newer wsmonitor (schema {int(schema)}; this one knows up to "
                f"{scripts.SCHEMA}): upgrade, or use another prefix",
                place=self._address.shown,
                lasting=True,
            )
        self._instance = found
        self._adopt(epoch.decode(), int(number))

    async def _settle(self) -> None:
        """Look again at what is there. Raises `StoreError`."""
        self._instance = Instance()
        await self._slow.renew()

    async def _doubt(self) -> None:
        for link in (self._quick, self._slow):
            await link.doubt()

    def _adopt(self, epoch: str, number: int) -> None:
        if epoch == self.epoch:
            return
        first = not self.epoch
        self.epoch = epoch
        self._incarnations.clear()
        self._bus.begin_at(number)
        if not first:
            log.warning("Redis is another, or may have lost something: the store's epoch is now %s", epoch)
            self._tell(Regenerated(epoch))

    def _tell(self, message: Message) -> None:
        if isinstance(message, SessionRemoved):
            self._incarnations.pop(message.session, None)
        elif isinstance(message, TokenRevoked):
            self._revocations[message.jti] = message.expires
        try:
            self._listener(message)
        except Exception:
            # One message's fault must not end the bus.
            log.exception("a fault in taking %r", type(message).__name__)

    # -- life

    async def open(self) -> None:
        """Connect, and be one of the nodes. Raises `ConfigurationError`."""
        library()
        try:
            await self._slow.one("PING", patience=min(_START, self._patience))
            self._revoked_under = self.epoch
            await self._bus.start()
        except StoreError as exc:
            await self.close()
            if isinstance(exc.__cause__, ConfigurationError):
                raise exc.__cause__ from None
            raise ConfigurationError(str(exc)) from exc
        except BaseException:
            await self.close()
            raise
        for one in (*self._instance.advice, *advice(self._address)):
            log.warning("%s: %s", self._address.shown, one)

    async def close(self) -> None:
        """Leave. Closing twice is harmless."""
        await self._bus.stop()
        for link in (self._quick, self._slow, self._waiting):
            await link.close()

    async def check(self, *, room: int = 0) -> None:
        """See `Store.check`. A Redis without ``maxmemory`` has room as long as its machine has."""
        [_, memory] = await self._slow.many(
            [("HSET", f"{self._prefix}meta", "checked", self.node), ("INFO", "memory")], patience=1.0
        )
        try:
            refuse_eviction(facts(memory), self._address.shown)
        except UnfitError:
            # It was not so when the connections were made. New ones refuse what is to be committed, too.
            await self._doubt()
            raise
        if not reading.has_room(memory, room):
            raise StoreError(
                "Redis is at its memory limit (maxmemory)", code="read_only", place=self._address.shown
            )

    def info(self) -> dict[str, str | int]:
        """See `Store.info`."""
        return {
            "kind": "redis",
            "url": self._address.shown,
            "prefix": self._prefix,
            "server": self._instance.version,
            "node": self.node,
        }

    def measures(self) -> dict[str, Value]:
        """See `Measured.measures`."""
        links = {"commit": self._quick, "read": self._slow, "bus": self._waiting}
        return {
            "nodes": self._bus.living,
            "clock_ahead_seconds": self._bus.ahead,
            "keys_differ": int(bool(self._bus.other)),
            "redis_round_trips_total": {name: one.asked for name, one in links.items()},
            "redis_connects_total": {name: one.connects for name, one in links.items()},
            "redis_failures_total": {name: one.failures for name, one in links.items()},
            "redis_seconds": Histogram.joined(self._quick.seconds, self._slow.seconds),
        }

    async def size(self) -> int:
        """Bytes of memory that sessions and values take, by Redis' own estimate."""
        total = await self._values.size()
        async for names in self._scan("dir"):
            commands = [
                ("MEMORY", "USAGE", self._key(name.decode(), what)) for name in names for what in "ec"
            ]
            for first in range(0, len(commands), _SCAN):
                replies = await self._slow.many(commands[first : first + _SCAN])
                total += sum(reply or 0 for reply in replies)
        return total

    async def compact(self) -> None:
        """Nothing to do: Redis gives memory back by itself."""

    def _key(self, session: str, what: str) -> str:
        return f"{self._prefix}s:{session}:{what}"

    async def _scan(self, name: str) -> AsyncIterator[records.Fields]:
        """The fields and values of a large hash, some at a time; some may come twice."""
        cursor = b"0"
        while True:
            cursor, flat = await self._slow.one("HSCAN", f"{self._prefix}{name}", cursor, "COUNT", _SCAN)
            yield records.fields(flat)
            if cursor == b"0":
                return

    # -- sessions

    async def listings(self) -> list[tuple[Listing, bool]]:
        """See `Store.listings`."""
        found: dict[str, Listing] = {}
        async for lines in self._scan("dir"):
            for name, data in lines.items():
                session = name.decode()
                found[session] = reading.listing(session, data)
        wanted = {one.decode() for one in await self._slow.one("SMEMBERS", f"{self._prefix}att")}
        return [(listing, session in wanted) for session, listing in found.items()]

    async def load(self, session: str) -> StoredSession | None:
        """See `Store.load`."""
        loaded = await self._loader.load(session)
        if loaded is None:
            self._incarnations.pop(session, None)
            return None
        stored, self._incarnations[session] = loaded
        return stored

    async def commit(self, commits: Sequence[Commit]) -> None:
        """See `Store.commit`."""
        epoch, ident = self.epoch, self._token_hex(8)
        born = [self._incarnations.get(one.session, "") for one in commits]
        orders = [records.order(commit, one, self.node) for commit, one in zip(commits, born, strict=True)]
        for commit, record in zip(commits, map(records.record_of, orders), strict=True):
            self._bus.keep(ident, commit.session, record)
        reply = await self._quick.one(
            scripts.COMMIT, *self._about, epoch, ident, self._log_records, records.pack(orders)
        )
        moved = []
        for commit, done in zip(commits, reply[1:], strict=True):
            if not done:
                moved.append(commit.session)
            elif not commit.version:
                self._incarnations[commit.session] = ident
        if reply[0].decode() != epoch:
            try:
                await self._settle()
            except StoreError as exc:
                # The bus finds out, too. What became of the group is known.
                log.warning("it cannot be told which Redis this is: %s", exc)
        if moved:
            raise MovedError(moved)

    async def missed(self, session: str, version: int) -> list[Committed] | None:
        """See `Shared.missed`."""
        return await reading.missed(
            self._slow, self._about, session, version, self._incarnations.get(session, "")
        )

    async def retired_command(self, session: str, key: str) -> Command | None:
        """See `Store.retired_command`."""
        data = await self._slow.one("HGET", self._key(session, "r"), key)
        return None if data is None else _decode_command(data)

    async def next_run(self, name: str) -> int:
        """See `Store.next_run`. When an answer is lost, so is its number."""
        return int(await self._slow.one("HINCRBY", f"{self._prefix}runs", name, 1))

    async def remove(self, session: str, *, at: int) -> None:
        """See `Store.remove`."""
        await self._quick.one(scripts.REMOVE, *self._about, session, at)
        self._incarnations.pop(session, None)

    async def tombstone(self, session: str) -> int | None:
        """See `Store.tombstone`."""
        at = await self._quick.one("HGET", f"{self._prefix}tombstones", session)
        return None if at is None else int(at)

    async def forget_tombstones(self, *, before: int) -> None:
        """See `Store.forget_tombstones`."""
        await self._forget("tombstones", lambda at: at < before)

    async def _forget(self, name: str, old: Callable[[int], bool]) -> None:
        async for lines in self._scan(name):
            gone = [part for line in lines.items() if old(int(line[1])) for part in line]
            if gone:
                await self._slow.one(scripts.FORGET, *self._about, name, *gone)

    async def logs(self, session: str, step: str, first: int, limit: int) -> tuple[list[LogRecord], int]:
        """See `Store.logs`."""
        kept, found = await self._slow.one(scripts.LOGS, *self._about, session, step, first, limit)
        return [_decode_log(data.partition(b" ")[2]) for data in found], int(kept)

    # -- large values

    async def value_begin(self, session: str, sha256: str, total: int) -> int:
        """See `Store.value_begin`."""
        return await self._values.begin(session, sha256, total)

    async def value_write(self, session: str, sha256: str, total: int, offset: int, data: bytes) -> bool:
        """See `Store.value_write`."""
        return await self._values.write(session, sha256, total, offset, data)

    async def value_has(self, session: str, sha256: str) -> bool:
        """See `Store.value_has`."""
        return await self._values.has(session, sha256)

    async def value_read(
        self, session: str, sha256: str, offset: int, length: int
    ) -> tuple[bytes, int] | None:
        """See `Store.value_read`."""
        return await self._values.read(session, sha256, offset, length)

    async def value_sweep(self, *, older_than: float) -> int:
        """See `Store.value_sweep`."""
        return await self._values.sweep(older_than)

    # -- tokens

    async def revoke(self, jti: str, expires: int) -> None:
        """See `Store.revoke`."""
        await self._quick.one(scripts.REVOKE, *self._about, jti, expires)
        self._revocations[jti] = expires

    async def revoked(self) -> dict[str, int]:
        """See `Store.revoked`."""
        found: dict[str, int] = {}
        async for lines in self._scan("revoked"):
            found |= {jti.decode(): int(expires) for jti, expires in lines.items()}
        self._revocations |= found
        return found

    async def forget_revocations(self, *, before: int) -> None:
        """See `Store.forget_revocations`."""
        await self._forget("revoked", lambda expires: 0 < expires < before)
        self._revocations = {
            jti: expires for jti, expires in self._revocations.items() if not 0 < expires < before
        }

    async def _revoke_again(self) -> None:
        """A Redis that has lost something must not let tokens come back that are known here to be revoked.

        Raises:
            StoreError: it is tried again.
        """
        epoch, known = self.epoch, dict(self._revocations)
        if self._revoked_under == epoch:
            return
        there = await self.revoked()
        missing = [(scripts.REVOKE, *self._about, *one) for one in known.items() if one[0] not in there]
        for first in range(0, len(missing), _SCAN):
            await self._slow.many(missing[first : first + _SCAN])
        self._revoked_under = epoch

    # -- many nodes

    def listen(self, tell: Callable[[Message], None]) -> None:
        """See `Shared.listen`."""
        self._listener = tell

    def sure(self) -> float:
        """See `Shared.sure`."""
        return self._bus.sure

    def trouble(self) -> str:
        """See `Shared.trouble`."""
        return self._bus.trouble

    async def nodes(self) -> frozenset[str]:
        """See `Shared.nodes`."""
        return frozenset(one.decode() for one in await self._quick.one(scripts.NODES, *self._about))

    async def watching(self, session: str) -> dict[str, People]:
        """See `Shared.watching`."""
        alive, flat = await self._quick.one(scripts.WATCHING, *self._about, session)
        return {
            node.decode(): records.decode_people(data)
            for node, data in records.fields(flat).items()
            if node in alive and node != self.node.encode()
        }

    async def tell_watching(self, session: str, people: People) -> None:
        """See `Shared.tell_watching`. Where Redis cannot be reached, it is told when it can."""
        await self._bus.watch(session, people)
