"""Virtual time, and processes that live in it.

Every process has an event loop of its own, so that a crash is what it is in reality: its callbacks never run
again, wherever they stood, without a word, while the others go on. A step of the world is one
callback of one process. Callbacks of one process run in the order that asyncio promises; which process comes
next is decided by the time, and among equals by the order of asking.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .network import Network

START: Final = 1_000.0
"""Seconds on every process's monotonic clock at the beginning."""

WALL: Final = 1_700_000_000.0
"""Seconds since 1970 at the beginning."""


class World:
    """The one queue of everything that will happen.

    Args:
        seed: all randomness of a run comes from it.

    Attributes:
        now: seconds since the beginning.
        steps: callbacks that have run.
        trace: what happened, as lines for people.
        after_step: called after every step, for the invariants.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now = 0.0
        self.steps = 0
        self.processes: list[Process] = []
        self.network: Network
        self.trace: list[tuple[float, str, str]] = []
        self.after_step: Callable[[Process | None], None] = lambda process: None
        self.failed: Callable[[str, str], None] = lambda name, text: None
        self._queue: list[tuple[float, int, Process | None, Callable[[], None], asyncio.Handle | None]] = []
        self._number = 0

    def note(self, who: str, what: str) -> None:
        """Put a line into the trace."""
        self.trace.append((self.now, who, what))

    def at(self, when: float, function: Callable[[], None]) -> None:
        """Call *function* at *when*, on nobody's loop: the world's own doing."""
        self._push(when, None, function, None)

    def later(self, delay: float, function: Callable[[], None]) -> None:
        """Call *function* in *delay* seconds."""
        self._push(self.now + delay, None, function, None)

    def push(self, when: float, process: Process, handle: asyncio.Handle) -> None:
        """Run *handle* on *process*'s loop at *when*."""
        self._push(when, process, handle._run, handle)

    def _push(
        self,
        when: float,
        process: Process | None,
        function: Callable[[], None],
        handle: asyncio.Handle | None,
    ) -> None:
        self._number += 1
        heapq.heappush(self._queue, (max(when, self.now), self._number, process, function, handle))

    def waiting(self, process: Process) -> list[str]:
        """What *process* still has to run, in words."""
        return [
            repr(handle)
            for _, _, owner, _, handle in self._queue
            if owner is process and handle is not None and not handle.cancelled()
        ]

    def run_until(self, end: float, *, condition: Callable[[], bool] | None = None) -> bool:
        """Let everything happen up to *end*; sooner when *condition* holds. Says whether it did."""
        while self._queue and self._queue[0][0] <= end:
            if condition is not None and condition():
                return True
            self._step()
        self.now = max(self.now, end) if condition is None else self.now
        return condition is not None and condition()

    def _step(self) -> None:
        when, _, process, function, handle = heapq.heappop(self._queue)
        self.now = max(self.now, when)
        if process is None:
            function()
        elif not process.alive or (handle is not None and handle.cancelled()):
            return
        elif process.suspended:
            assert handle is not None
            process.put_off.append(handle)
            return
        elif isinstance(handle, asyncio.TimerHandle) and handle.when() > process.monotonic() + 1e-9:
            # Its clock stood still meanwhile.
            self.push(process.moment(handle.when()), process, handle)
            return
        else:
            process.run(function)
        self.steps += 1
        self.after_step(process)


class Process:
    """One operating-system process: an event loop, clocks, a life.

    Args:
        host: where it runs; a network fault is between hosts.
    """

    def __init__(self, world: World, name: str, host: str) -> None:
        self.world = world
        self.name = name
        self.host = host
        self.alive = True
        self.suspended = False
        self.put_off: list[asyncio.Handle] = []
        self.wall_offset = 0.0
        self._stood_still = 0.0
        self.loop = SimulatedLoop(self)
        self.crash_after: int | None = None  # effects on the outer world until it dies
        world.processes.append(self)

    # -- its clocks

    def monotonic(self) -> float:
        """Seconds; stands still while the computer sleeps."""
        return START + self.world.now - self._stood_still

    def wall(self) -> float:
        """Seconds since 1970; may jump."""
        return WALL + self.world.now + self.wall_offset

    def wall_ns(self) -> int:
        """Nanoseconds since 1970."""
        return round(self.wall() * 1e9)

    def moment(self, monotonic: float) -> float:
        """The world's time at *monotonic* of this process, if nothing stops it before."""
        return self.world.now + (monotonic - self.monotonic())

    # -- its life

    def run(self, function: Callable[[], None]) -> None:
        """Run *function* as a callback of this process's loop."""
        asyncio._set_running_loop(self.loop)
        try:
            function()
        finally:
            asyncio._set_running_loop(None)

    def effect(self) -> bool:
        """Something is about to leave this process. False when it is not to happen: the process is dead."""
        if not self.alive:
            return False
        if self.crash_after is not None:
            self.crash_after -= 1
            if self.crash_after < 0:
                # Dead first: what the code does on its way out (`finally`, `except`) has no effect any more.
                self.kill()
                raise Crashed
        return True

    def kill(self) -> None:
        """End at once, without a word. The operating system closes its sockets."""
        if self.alive:
            self.world.note(self.name, "killed")
            self.alive = False
            self.put_off.clear()
            self.world.network.died(self)

    def discard(self) -> None:
        """The run is over: nothing of this process is to be told by the garbage collector later."""
        self.alive = False
        asyncio._set_running_loop(self.loop)  # what ends may ask which loop it is on
        try:
            for task in self.loop.tasks:
                with contextlib.suppress(BaseException):
                    task.get_coro().close()  # type: ignore[union-attr]  # a coroutine
        finally:
            asyncio._set_running_loop(None)

    def suspend(self) -> None:
        """Stop running, as a debugger or a sleeping computer has it."""
        self.world.note(self.name, "suspended")
        self.suspended = True
        self._since = self.world.now

    def resume(self, *, clock_stood_still: bool) -> None:
        """Go on. *clock_stood_still*: the monotonic clock did not count (Linux's does not, asleep)."""
        self.world.note(self.name, "resumed")
        self.suspended = False
        if clock_stood_still:
            self._stood_still += self.world.now - self._since
        put_off, self.put_off = self.put_off, []
        for handle in put_off:
            self.world.push(self.world.now, self, handle)


class Crashed(BaseException):
    """The process is gone: nothing of it runs any more."""


class SimulatedLoop(asyncio.AbstractEventLoop):
    """What asyncio needs of an event loop, on the world's queue."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self.tasks: set[asyncio.Task[Any]] = set()

    # -- time and callbacks

    def time(self) -> float:
        return self._process.monotonic()

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._world.push(self._world.now, self._process, handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        # No real clock is as fine as a float, and none stands still: a timer takes a microsecond at least.
        moment = max(self._process.moment(when), self._world.now + 1e-6)
        self._world.push(moment, self._process, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """The world skips cancelled handles by itself."""

    # -- tasks

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **kwargs: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, **kwargs)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def get_task_factory(self) -> None:
        return None

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """A thread's work: done at one moment, and told a little later."""
        future = self.create_future()
        random = self._world.random
        start, end = random.uniform(0.0, 0.002), random.uniform(0.0, 0.002)

        def work() -> None:
            result: Any = None
            error: BaseException | None = None
            try:
                result = func(*args)
            except Crashed:
                raise
            except BaseException as exc:  # told to the one who waits
                error = exc
            self.call_later(end, finish, result, error)

        def finish(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call_later(start, work)
        return future

    # -- the network

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        return self._world.network.listen(self._process, protocol_factory, host, port)

    async def create_connection(
        self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any
    ) -> Any:
        return await self._world.network.connect(self._process, protocol_factory, host, port)

    # -- the rest

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        if isinstance(exc, Crashed) or not self._process.alive:
            return
        self._world.failed("CLEAN", f"{self._process.name}: {context.get('message')}: {exc!r}")

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return not self._process.alive
