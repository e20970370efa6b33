"""The one thread on which this process's connections live.

A daemon thread with one event loop: it survives an interrupt of the user's program, and never delays the
interpreter's exit. It starts with the first connection and ends with the last, so that nothing
remains after the last `close`.

After a fork the child has neither the thread nor a right to the sockets: there the runner is
forgotten, the inherited file descriptors are pointed at nothing, and the next connection starts a
new runner.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, TypeVar, cast

from .clock import Instant

T = TypeVar("T")

log: Final = logging.getLogger("wsmonitor.client")

EXIT_TIMEOUT: Final = 0.15
"""Seconds that the interpreter's exit may wait for connections to say goodbye."""


class Runner:
    """A thread with an event loop. Use `acquire` to get the process's one."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(_log_exception)
        self._closers: set[Callable[[], None]] = set()
        self.users = 0
        self._thread = threading.Thread(target=self._run, name="wsmonitor-client", daemon=True)
        self._thread.start()

    @property
    def here(self) -> bool:
        """Whether the caller is on this runner's thread."""
        return threading.get_ident() == self._thread.ident

    def call_soon(self, function: Callable[[], None]) -> bool:
        """Run *function* on this thread, soon; from any thread. False when the runner has ended."""
        try:
            if self.here:
                self.loop.call_soon(function)
            else:
                self.loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def call_later(self, delay: float, function: Callable[[], None]) -> Callable[[], None]:
        """Run *function* on this thread after *delay* seconds; gives what cancels it. From any thread."""
        handle: list[asyncio.TimerHandle] = []
        cancelled = threading.Event()

        def arm() -> None:
            if not cancelled.is_set():
                handle.append(self.loop.call_later(delay, function))

        def cancel() -> None:
            cancelled.set()
            self.call_soon(disarm)

        def disarm() -> None:
            for item in handle:
                item.cancel()

        self.call_soon(arm)
        return cancel

    def now(self) -> Instant:
        """The present moment, on this runner's clocks."""
        return Instant(time.monotonic(), time.time())

    def recent(self, last: Instant) -> Instant:
        """The present moment, or *last* where that is no more than a millisecond ago."""
        return last if time.monotonic() - last.mono < 0.001 else self.now()

    def in_thread(self, function: Callable[[], T], name: str) -> asyncio.Future[T]:
        """Run a blocking *function* on a daemon thread of its own, where one can be had.

        A hanging one delays neither the loop nor the interpreter's exit. To be awaited on this thread.
        """
        loop = self.loop
        future: asyncio.Future[T] = loop.create_future()

        def finish(result: T | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(cast(T, result))

        def run() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = function()
            except BaseException as exc:  # noqa: BLE001  # told to the one who waits
                error = exc
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(finish, result, error)

        try:
            threading.Thread(target=run, name=name, daemon=True).start()
        except RuntimeError:
            # From Python 3.12 on no thread begins while the interpreter exits, which is when a short
            # program's changes are sent; and a process may be at its limit of threads. Then it is done here.
            run()
        return future

    def on_exit(self, closer: Callable[[], None]) -> None:
        """Have *closer* called on this thread when the interpreter exits."""
        self._closers.add(closer)

    def forget_exit(self, closer: Callable[[], None]) -> None:
        """Undo `on_exit`."""
        self._closers.discard(closer)

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended. Without effect on the thread itself."""
        if not self.here:
            self._thread.join(timeout)

    def stop(self) -> None:
        """End the loop, and with it the thread."""
        self.call_soon(self.loop.stop)

    def close_all(self) -> None:
        """Close every connection; the last one ends the thread."""

        def close() -> None:
            for closer in tuple(self._closers):
                closer()

        self.call_soon(close)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()


def _log_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.error("%s", context.get("message", "unhandled"), exc_info=context.get("exception"))


_lock = threading.Lock()
_runner: Runner | None = None
_abandoned: list[Runner] = []  # a forked child's inherited ones: never touched, never collected
_fork_callbacks: list[Callable[[], None]] = []


def acquire() -> Runner:
    """The process's runner, started if there is none. Give it back with `release`."""
    global _runner
    with _lock:
        if _runner is None:
            _runner = Runner()
        _runner.users += 1
        return _runner


def release(runner: Runner) -> None:
    """One user less; the last one ends the thread."""
    global _runner
    with _lock:
        runner.users -= 1
        if runner.users > 0:
            return
        if _runner is runner:
            _runner = None
    runner.stop()


def current() -> Runner | None:
    """The process's runner, if there is one."""
    return _runner


def after_fork(callback: Callable[[], None]) -> None:
    """Have *callback* called in every forked child, before anything else of ours runs there."""
    _fork_callbacks.append(callback)


def _forked() -> None:
    global _lock, _runner
    _lock = threading.Lock()
    if _runner is not None:
        _abandoned.append(_runner)
        _runner = None
    for callback in _fork_callbacks:
        callback()


def _exiting() -> None:
    runner = _runner
    if runner is not None:
        runner.close_all()
        runner.join(EXIT_TIMEOUT)


_IMPORTED_ON_USE: Final = (
    "jupyter_core.paths",
    "jwt",
    "urllib.request",
    "wsmonitor.client.local",
    "wsmonitor.client.locate",
    "wsmonitor.client.tokens",
)


def _forking() -> None:
    """A fork in the middle of an import would leave that module locked for ever in the child.

    What the runner's thread imports on use is therefore imported here, which waits for an import under way.
    """
    if _runner is not None:
        for name in _IMPORTED_ON_USE:
            with contextlib.suppress(ImportError):
                import_module(name)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_forking, after_in_child=_forked)
atexit.register(_exiting)
