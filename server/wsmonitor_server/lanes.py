"""Requests that have to wait, in order: one at a time per lane, all lanes at once.

A lane is a topic, a producer, an upload …: what concerns the same thing keeps its order, and nothing
waits for something else. When too much waits, the owner is asked to stop reading from the socket.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Final

_LOG: Final = logging.getLogger(__name__)

Job = Callable[[], Coroutine[Any, Any, None]]

MAX_WAITING: Final = 256
MAX_WAITING_BYTES: Final = 4 * 1024 * 1024


class Lanes:
    """One connection's lanes.

    Args:
        tasks: where running tasks are kept, so that the server can wait for them.
        pressure: called with True when too much waits, with False when there is room again.
    """

    __slots__ = ("_lanes", "_pressed", "_pressure", "_size", "_tasks", "_waiting")

    def __init__(self, tasks: set[asyncio.Task[None]], pressure: Callable[[bool], None]) -> None:
        self._lanes: dict[Hashable, deque[tuple[int, Job]]] = {}
        self._tasks = tasks
        self._pressure = pressure
        self._pressed = False
        self._waiting = 0
        self._size = 0

    def __bool__(self) -> bool:
        """Whether anything runs or waits."""
        return bool(self._lanes)

    def idle(self, lane: Hashable) -> bool:
        """Whether nothing runs or waits in *lane*."""
        return lane not in self._lanes

    def put(self, lane: Hashable, size: int, job: Job) -> None:
        """Run *job* after those that wait in *lane*. *size*: the bytes that it holds."""
        queue = self._lanes.get(lane)
        if queue is None:
            queue = self._lanes[lane] = deque()
            task = asyncio.get_running_loop().create_task(self._drain(lane, queue))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        queue.append((size, job))
        self._waiting += 1
        self._size += size
        if not self._pressed and (self._waiting > MAX_WAITING or self._size > MAX_WAITING_BYTES):
            self._pressed = True
            self._pressure(True)

    def drop(self) -> None:
        """Forget what waits. What runs goes on to its end, so that the engine is never left half-way."""
        for queue in self._lanes.values():
            queue.clear()
        self._waiting = self._size = 0

    async def _drain(self, lane: Hashable, queue: deque[tuple[int, Job]]) -> None:
        try:
            while queue:
                size, job = queue.popleft()
                self._waiting -= 1
                self._size -= size
                if (
                    self._pressed
                    and self._waiting <= MAX_WAITING // 2
                    and self._size <= MAX_WAITING_BYTES // 2
                ):
                    self._pressed = False
                    self._pressure(False)
                try:
                    await job()
                except Exception:  # noqa: BLE001 - the fault is logged, and the lane must live
                    # Jobs answer their own failures: this is a fault of ours.
                    _LOG.exception("a request's job failed")
        finally:
            del self._lanes[lane]
