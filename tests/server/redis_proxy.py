"""Between a store and its Redis: passes bytes on, counts questions, and takes answers away."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path


class Proxy:
    """Listens on a Unix socket of its own.

    Attributes:
        requests: all that came, as it came.
        swallow: the next request with this is passed on; its answer, and the connection, are lost.
        then_refuse: after that every new connection is refused.
        refuse: connections end before anything is passed on.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._folder = tempfile.TemporaryDirectory(prefix="wsm-proxy-")
        self.socket = Path(self._folder.name) / "socket"
        self.swallow: bytes | None = None
        self.then_refuse = False
        self.refuse = False
        self.swallowed = 0
        self.requests: list[bytes] = []
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> Proxy:
        self._server = await asyncio.start_unix_server(self._serve, str(self.socket))
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if not self.refuse:
                await self._pass(reader, writer)
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(str(self._target))
        lost = asyncio.Event()

        async def answers() -> None:
            while data := await there.read(1 << 16):
                if lost.is_set():
                    self.swallowed += 1
                    writer.close()
                    return
                writer.write(data)

        answering = asyncio.create_task(answers())
        try:
            while data := await reader.read(1 << 20):
                self.requests.append(data)
                if self.swallow is not None and self.swallow in data:
                    self.swallow = None
                    self.refuse = self.then_refuse
                    lost.set()
                back.write(data)
        except ConnectionError:
            pass
        finally:
            if not lost.is_set():
                answering.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await answering
            back.close()

    def cut(self) -> None:
        """End every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._folder.cleanup()
