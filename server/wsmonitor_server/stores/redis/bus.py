"""The bus's reader: what all nodes are told, in order, and the node's own sign of life.

One task with a link of its own. Each turn asks, in one round trip, for what is new on the stream
(``XREAD BLOCK``), and once a second also says that the node is alive. The messages are numbered without a
hole, so a message that was cut off before it was read is noticed (`Lost`); after a broken connection the
reader goes on where it was.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from wsmonitor_server.stores.base import StoreError
from wsmonitor_server.stores.bus import Lost, Message, People, SessionRemoved, WardenChanged

from . import records
from .instance import facts
from .link import FIRST_DELAY, LONGEST_DELAY, Command, Link
from .scripts import BEAT, INLINE, LEAVE, WATCH

log = logging.getLogger(__name__)

_OUT_OF_STEP: Final = 2.0
"""Seconds between this machine's clock and Redis' from which on it is said."""

_AT_ONCE: Final = 100  # messages in one answer


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds.

    Attributes:
        every: between two signs of life.
        gone: without one, until a node counts as gone.
        block: that Redis keeps a question for news before it answers that there are none.
    """

    every: float = 1.0
    gone: float = 5.0
    block: float = 0.25


class BusReader:
    """See the module's text.

    Args:
        about: the first two arguments of every script: prefix and node.
        tell: called for every message.
        epoch: the store's epoch as this node knows it.
        settle: finds out what Redis this is and what that means; called when that may have changed.
        replication: the replication id of the Redis that was met last.
        broken: called when Redis could not be asked.
        errand: called after each answer; raises `StoreError`.
        uniform: a random number between two.
        wall: seconds since 1970, by this machine's clock.
        mark: what tokens are verified with here, in short; "" where that is not to be compared.

    Attributes:
        living: how many nodes are alive, this one included.
        other: a node that verifies tokens with something else; "" for none.
        ahead: seconds that this machine's clock is ahead of Redis', at least; below 0 it is behind.
        trouble: why nothing can be read at present; "" while it can.
    """

    def __init__(
        self,
        link: Link,
        about: tuple[str, str],
        tell: Callable[[Message], None],
        *,
        epoch: Callable[[], str],
        settle: Callable[[], Awaitable[None]],
        replication: Callable[[], str],
        broken: Callable[[], Awaitable[None]],
        errand: Callable[[], Awaitable[None]],
        clock: Callable[[], float],
        pace: Pace,
        uniform: Callable[[float, float], float] = random.uniform,
        wall: Callable[[], float] = time.time,
        mark: Callable[[], str] = lambda: "",
    ) -> None:
        self._link = link
        self._about = about
        self._tell = tell
        self._epoch = epoch
        self._settle = settle
        self._replication = replication
        self._broken = broken
        self._errand = errand
        self._clock = clock
        self._pace = pace
        self._uniform = uniform
        self._wall = wall
        self._mark = mark
        self.other = ""
        self.trouble = ""
        self.living = 1
        self.ahead = 0.0
        self._out_of_step = False
        self._position = 0
        self._moved = 0  # how often the position was set from outside
        self._beaten = float("-inf")
        self._sure = float("-inf")
        self._warden = False
        self._people: dict[str, People] = {}
        self._untold: set[str] = set()
        self._own: dict[tuple[str, bytes], bytes] = {}
        self._task: asyncio.Task[None] | None = None
        self._lease: asyncio.TimerHandle | None = None

    # -- life

    async def start(self) -> None:
        """Be one of the nodes, and read from now on. Raises `StoreError`."""
        await self._turn(block=0.0)
        self._task = asyncio.create_task(self._run(), name="wsmonitor bus")

    async def stop(self) -> None:
        """Read nothing more, and say goodbye if Redis can be reached."""
        if self._task is None:
            return
        if self._lease is not None:
            self._lease.cancel()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        try:
            await self._link.one(LEAVE, *self._about, patience=0)
        except StoreError as exc:
            log.info("the other nodes find out by themselves that this one has gone: %s", exc)

    def begin_at(self, number: int) -> None:
        """What comes after message *number* is what is to be told from now on."""
        self._position = number
        self._moved += 1
        self._own.clear()

    @property
    def sure(self) -> float:
        """When the last answered look began that left nothing unread."""
        return self._sure

    def keep(self, ident: str, session: str, record: str) -> None:
        """Remember a commit of this node's own that will not stand on the bus itself."""
        data = record.encode()
        if len(data) > INLINE:
            self._own[session, ident.encode()] = data
            if len(self._own) > _AT_ONCE:
                del self._own[next(iter(self._own))]

    # -- who watches

    async def watch(self, session: str, people: People) -> None:
        """Say who watches *session* here: now, or when Redis can be reached again."""
        if people:
            self._people[session] = people
        else:
            self._people.pop(session, None)
        self._untold.add(session)
        try:
            await self._tell_people()
        except StoreError as exc:
            log.info("who watches is told later: %s", exc)

    async def _tell_people(self) -> None:
        while self._untold:
            taken = list(self._untold)[:_AT_ONCE]
            self._untold.difference_update(taken)
            commands = [
                (WATCH, *self._about, one, records.encode_people(self._people.get(one, ()))) for one in taken
            ]
            try:
                await self._link.many(commands, patience=0)
            except BaseException:
                self._untold.update(taken)
                raise

    # -- reading

    async def _run(self) -> None:
        delay, said = FIRST_DELAY, ""
        while True:
            try:
                await self._turn(block=self._pace.block)
                await self._tell_people()
                await self._errand()
                delay, said, self.trouble = FIRST_DELAY, "", ""
                continue
            except StoreError as exc:
                self.trouble = exc.message
                if str(exc) != said:
                    said = str(exc)
                    log.warning("the bus: %s", said)
                await self._broken()
            except Exception:
                # The bus outlives every fault; what was not read is read again, or told as lost.
                log.exception("the bus: a fault")
            await asyncio.sleep(delay * self._uniform(0.5, 1.0))
            delay = min(LONGEST_DELAY, 2 * delay)

    def _renew_lease(self, began: float, *, mine: bool) -> None:
        """Be the warden, or not, until Redis may give the lease to another: by the clock that runs here."""
        if self._lease is not None:
            self._lease.cancel()
            self._lease = None
        if mine:
            left = self._pace.gone - (self._clock() - began)
            self._lease = asyncio.get_running_loop().call_later(max(0.0, left), self._end_lease)
        self._set_warden(mine=mine)

    def _end_lease(self) -> None:
        self._lease = None
        self._set_warden(mine=False)

    def _set_warden(self, *, mine: bool) -> None:
        if mine != self._warden:
            self._warden = mine
            self._tell(WardenChanged(mine))

    async def _turn(self, *, block: float) -> None:
        began, moved = self._clock(), self._moved
        beat = began - self._beaten >= self._pace.every
        commands: list[Command] = []
        if beat:
            milliseconds = round(self._pace.gone * 1000)
            commands += [
                (BEAT, *self._about, milliseconds, milliseconds, self._mark()),
                ("INFO", "replication"),
                ("TIME",),
            ]
        read: list[Any] = ["XREAD", "COUNT", _AT_ONCE]
        if block:
            read += ["BLOCK", round(block * 1000)]
        position = self._position
        commands.append((*read, "STREAMS", f"{self._about[0]}bus", f"{position}-0"))
        asked = self._wall()
        replies = await self._link.many(commands, patience=0)
        if beat:
            self._compare(asked, [int(part) for part in replies[2]])
        if beat and not await self._beat(began, replies[0], replies[1]):
            return
        if moved != self._moved:
            return  # what was read was asked for before the store became another
        streams = replies[-1]
        entries = streams[0][1] if streams else []
        for ident, flat in entries:
            await self._entry(int(ident.partition(b"-")[0]), records.fields(flat))
            if moved != self._moved:
                return
        if len(entries) < _AT_ONCE:
            self._sure = began

    async def _beat(self, began: float, reply: list[Any], replication: bytes) -> bool:
        """What the sign of life found. False: what was read with it is of another history."""
        fresh, mine, epoch, number, self.living, other = reply
        if epoch.decode() != self._epoch() or facts(replication)["master_replid"] != self._replication():
            await self._settle()
            return False
        self._beaten = began
        self._verifies_otherwise(other.decode())
        if int(number) < self._position:
            log.error("the bus: somebody has deleted its keys")
            self.begin_at(int(number))
            self._tell(Lost())
            return False
        if fresh:
            # The others took this node for gone, or never knew it.
            self._untold.update(self._people)
        self._renew_lease(began, mine=bool(mine))
        return True

    def _verifies_otherwise(self, other: str) -> None:
        """*other* is a node that takes other tokens; "" for none."""
        if other and not self.other:
            log.warning(
                "server %s on this store verifies tokens with another key, audience or issuer: what one of "
                "the two takes, the other refuses. Give all the same [auth], and the same key_file",
                other,
            )
        elif self.other and not other:
            log.info("all servers on this store verify tokens with the same again")
        self.other = other

    def _compare(self, asked: float, told: list[int]) -> None:
        """Redis' clock, read between *asked* and now, with this machine's."""
        seconds = told[0] + told[1] / 1e6
        self.ahead = max(0.0, asked - seconds) + min(0.0, self._wall() - seconds)
        if (abs(self.ahead) >= _OUT_OF_STEP) != self._out_of_step:
            self._out_of_step = not self._out_of_step
            if self._out_of_step:
                log.warning(
                    "this machine's clock is %.1f s %s Redis': it dates what is published here, and decides "
                    "when tokens expire",
                    abs(self.ahead),
                    "ahead of" if self.ahead > 0 else "behind",
                )
            else:
                log.info("this machine's clock is in step with Redis' again")

    async def _entry(self, number: int, entry: records.Fields) -> None:
        if number != self._position + 1:
            log.warning("the bus: messages %d to %d are gone", self._position + 1, number - 1)
            self._tell(Lost())
            self._position = number - 1
        if entry.get(b"k") == b"n":
            # The store is another: the position is set with its epoch, if this node did not know it yet.
            moved = self._moved
            await self._settle()
            if moved == self._moved:
                self._position = number
            return
        try:
            message = records.message(entry) or await self._large(entry)
        except records.DamagedError as exc:
            log.error("the bus: %s", exc)
            message = Lost()
        if isinstance(message, SessionRemoved):
            self._people.pop(message.session, None)
        # Only now: what could not be fetched is to be read again.
        self._position = number
        self._tell(message)

    async def _large(self, entry: records.Fields) -> Message:
        """A commit whose record stands in its session's stream."""
        session, place = entry[b"s"].decode(), entry[b"i"]
        data = self._own.pop((session, entry[b"o"]), None)
        if data is None:
            found = await self._link.one("XRANGE", f"{self._about[0]}s:{session}:c", place, place, patience=0)
            if not found:
                return Lost()
            data = found[0][1][1]
        return records.committed(session, place, data)
