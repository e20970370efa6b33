"""A computer with the real server on it, which can be killed, drained, and started again."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, cast

from wsmonitor.protocol.defaults import Limits, Timing
from wsmonitor_server.app import Server
from wsmonitor_server.auth import SecretKey
from wsmonitor_server.config import ServerConfig
from wsmonitor_server.engine import SessionEngine
from wsmonitor_server.retention import Retention

from .actors import ADDRESS, LIMITS, PORT, SECRET
from .world import Process

if TYPE_CHECKING:
    from wsmonitor_server.stores.bus import Shared

    from .disk import Disk
    from .oracle import Oracle
    from .world import World


class ServerHost:
    """A computer that runs the server, and starts it again."""

    def __init__(
        self,
        world: World,
        oracle: Oracle,
        disk: Disk,
        *,
        timing: Timing,
        limits: Limits = LIMITS,
        retention: Retention | None = None,
        name: str = "server",
        address: str = ADDRESS,
    ) -> None:
        self.world = world
        self.oracle = oracle
        self.disk = disk
        self.name = name
        self.address = address
        self.timing = timing
        self.limits = limits
        self.retention = retention or Retention()
        self.process: Process | None = None
        self.server: Server | None = None
        self.engine: SessionEngine | None = None
        self.starts = 0
        oracle.servers.append(self)

    @property
    def running(self) -> bool:
        """Whether the server serves."""
        return (
            self.process is not None
            and self.process.alive
            and self.server is not None
            and bool(self.server.port)
            and not self.server.stopped
        )

    def start(self) -> None:
        """Start a server process, unless one is there."""
        if self.process is not None and self.process.alive:
            return
        # Whatever the one before has died of: its files and locks are released before the next one comes.
        self.disk.crashed()
        self.starts += 1
        number = self.starts if self.name == "server" else f" start {self.starts}"
        process = self.process = Process(self.world, f"{self.name}{number}", self.name)
        self.world.note(process.name, "started")
        self.server = None
        process.loop.call_soon(lambda: process.loop.create_task(self._serve(process)))

    async def _serve(self, process: Process) -> None:
        store, shared = self.disk.store(process), self.disk.shared
        engine = SessionEngine(
            store,
            shared=cast("Shared", store) if shared else None,
            timing=self.timing,
            limits=self.limits,
            retention=self.retention,
            clock=process,
            token_hex=lambda count: f"{self.world.random.getrandbits(8 * count):0{2 * count}x}",
        )
        config = ServerConfig(
            host=self.address,
            port=PORT,
            store="memory",
            timing=self.timing,
            limits=self.limits,
            drain_timeout=2.0,
        )
        server = Server(
            config,
            engine,
            SecretKey(SECRET),
            clock=process,
            rng=random.Random(self.world.random.getrandbits(64)),
        )
        self.engine = engine
        try:
            await server.start()
        except Exception as exc:  # as a person would: it is started again a little later
            self.world.note(process.name, f"did not start: {exc}")
            process.kill()
            self.disk.crashed()
            self.world.later(1.0, self.start)
            return
        self.server = server

    def kill(self) -> None:
        """``kill -9``."""
        if self.process is not None and self.process.alive:
            self.process.kill()
            self.disk.crashed()

    def stop(self, restart: float | None = None) -> None:
        """Let it drain, then end the process, and start it again after *restart* seconds."""
        process, server = self.process, self.server
        if process is None or server is None or not process.alive or server.draining:
            return
        self.world.note(process.name, "drains")

        async def drain() -> None:
            await server.drain()
            self.world.later(0.0, end)

        def end() -> None:
            if process.alive:
                self._clean(process, server)
                process.kill()
                self.disk.crashed()
            if restart is not None:
                self.world.later(restart, self.start)

        process.loop.call_soon(lambda: process.loop.create_task(drain()))

    def _clean(self, process: Process, server: Server) -> None:
        left: list[Any] = [task for task in process.loop.tasks if not task.done()]
        left += [
            one
            for connection in self.world.network.connections
            for one in (connection.client, connection.server)
            if one.process is process and not one.is_closing()
        ]
        if left or server.connections or server.peers or server.tasks:
            self.world.failed(
                "CLEAN", f"{process.name} leaves {left}, {server.connections} and {server.tasks} behind"
            )
