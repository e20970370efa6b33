"""What a node of several has in place of a disk: its way to the Redis that all of them share."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from wsmonitor_server.stores.base import Store
from wsmonitor_server.stores.redis.bus import Pace
from wsmonitor_server.stores.redis.store import RedisStore

from .disk import Faults
from .redis_host import URL, RedisHost

if TYPE_CHECKING:
    from wsmonitor.protocol.reducer import SessionState

    from .world import Process


PACE: Final = Pace(block=0.4)
"""Who asks less often costs less, and is sure all the same: two looks take less than `nodes.UNSURE`."""


class NodeDisk:
    """`disk.Disk` for one node: the real `RedisStore` over the simulated network."""

    shared = True

    def __init__(self, redis: RedisHost) -> None:
        self.faults = Faults()
        self._redis = redis
        self._open: RedisStore | None = None

    def store(self, process: Process) -> Store:
        world = process.world
        dice = random.Random(world.random.getrandbits(64))

        def token_hex(count: int) -> str:
            return f"{dice.getrandbits(8 * count):0{2 * count}x}"

        self._open = RedisStore(
            URL,
            token_hex=token_hex,
            clock=process.monotonic,
            uniform=dice.uniform,
            wall=self._redis.data.clock,
            log_records=50,
            pace=PACE,
        )
        return self._open

    def crashed(self) -> None:
        """A dead process's sockets are closed by the system; here its objects must not do it later."""
        if self._open is not None:
            for link in (self._open._quick, self._open._slow, self._open._waiting):
                if link._connection is not None:
                    link._connection._reader = link._connection._writer = None
            self._open = None

    def lost_power(self) -> None:
        """Nothing that matters is on this computer."""

    def states(self, sessions: Sequence[str]) -> dict[str, SessionState]:
        found = self._redis.states()
        return {session: found[session] for session in sessions if session in found}

    def discard(self) -> None:
        self.crashed()
