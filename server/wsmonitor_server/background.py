"""Work that nobody waits for, until the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Background:
    """Tasks that are at work."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do *work* from the next turn of the loop on."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait for what is at work now. Raises what one of them does."""
        tasks = list(self._tasks)
        await asyncio.gather(*tasks)
        # From Python 3.12 on, gathering what is done already returns without a turn of the loop: the
        # tasks' own callbacks would never come to take them away.
        self._tasks.difference_update(tasks)

    async def cancel(self) -> None:
        """End everything."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
