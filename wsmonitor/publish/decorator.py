"""``@wm.step``: a function whose calls are steps.

Sync and async functions, generators and async generators, methods. Outside a session a call is just a call.

Retries: with ``retryable=True`` a failed call's step takes the command ``retry`` as long as its session is
open.
By default the exception goes on at once to whoever called, and a retry runs the function again, with the same
arguments, on a thread of its own (a coroutine function on its loop, if that still runs); its result is shown,
and nobody gets it. ``hold=`` seconds makes the failed call wait for the retry instead: then the caller gets
the result of the attempt that succeeded. ``retries=`` tries again by itself first.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Final, ParamSpec, TypeVar, cast, overload

from wsmonitor.protocol.changes import CommandChange
from wsmonitor.protocol.entities import Command

from . import context
from .node import Node
from .steps import Step, step_beneath
from .work import number_argument, tags_argument, text_argument

P = ParamSpec("P")
R = TypeVar("R")
RETRYABLE_KEPT: Final = 64
"""Failed calls of a session that can be retried: each keeps its arguments alive."""


@overload
def step(fn: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def step(
    fn: None = None,
    /,
    *,
    name: str | None = None,
    kind: str = "",
    capture: bool = False,
    retryable: bool = False,
    retries: int = 0,
    hold: float = 0.0,
    tags: tuple[str, ...] = (),
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def step(
    fn: Any = None,
    /,
    *,
    name: str | None = None,
    kind: str = "",
    capture: bool = False,
    retryable: bool = False,
    retries: int = 0,
    hold: float = 0.0,
    tags: tuple[str, ...] = (),
) -> Any:
    """Make each call of a function a step, beneath the current step.

    Args:
        name: the step's name; the function's by default.
        kind: of a kind of your own.
        capture: publish the arguments as the input and the result as the output.
        retryable: take the command ``retry`` after a failure.
        retries: how many times to try again by itself; implies *retryable*.
        hold: seconds for which a failed call waits for a ``retry`` before the exception goes on; implies
            *retryable*.
        tags: words to find the steps by.

    Raises:
        TypeError: an argument has the wrong type, or what is decorated is not a function.
        ValueError: *retries* is negative.
    """
    if fn is None:
        return lambda function: step_function(function, name, kind, capture, retryable, retries, hold, tags)
    return step_function(fn, name, kind, capture, retryable, retries, hold, tags)


def step_function(
    fn: Any,
    name: str | None,
    kind: str,
    capture: bool,
    retryable: bool,
    retries: int,
    hold: float,
    tags: tuple[str, ...],
) -> Any:
    """The decorated form of *fn*."""
    if isinstance(fn, (staticmethod, classmethod)):
        return type(fn)(step_function(fn.__func__, name, kind, capture, retryable, retries, hold, tags))
    if not callable(fn) or isinstance(fn, type):
        raise TypeError(f"@step decorates functions, not {type(fn).__name__}; use step(name=...) for options")
    if name is not None:
        text_argument(name, "name")
    text_argument(kind, "kind")
    if isinstance(retries, bool) or not isinstance(retries, int):
        raise TypeError(f"retries must be an int, not {type(retries).__name__}")
    if retries < 0:
        raise ValueError(f"retries must not be negative, not {retries}")
    call = _Call(
        fn,
        name or str(getattr(fn, "__name__", type(fn).__name__)),
        kind,
        bool(capture),
        bool(retryable) or retries > 0 or hold > 0,
        retries,
        float(number_argument(hold, "hold")),
        tags_argument(tags),
    )
    inner = inspect.unwrap(fn)
    if inspect.isasyncgenfunction(inner) or inspect.isgeneratorfunction(inner):
        if call.retryable:
            raise TypeError("a generator cannot be retried: what it has given out cannot be taken back")
        return _wrap_asyncgen(call) if inspect.isasyncgenfunction(inner) else _wrap_generator(call)
    return _wrap_async(call) if inspect.iscoroutinefunction(inner) else _wrap_sync(call)


class _Call:
    """What is known of a decorated function."""

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str,
        kind: str,
        capture: bool,
        retryable: bool,
        retries: int,
        hold: float,
        tags: tuple[str, ...],
    ) -> None:
        self.fn = fn
        self.name = name
        self.kind = kind
        self.capture = capture
        self.retryable = retryable
        self.retries = retries
        self.hold = hold
        self.tags = tags
        try:
            self._signature: inspect.Signature | None = inspect.signature(fn)
        except (TypeError, ValueError):
            self._signature = None

    def open(
        self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], key: str = "", attempt: int = 1
    ) -> Step:
        """The step of one call, not started yet."""
        work = step_beneath(node, self.name, kind=self.kind, tags=self.tags, step_key=key, attempt=attempt)
        if self.capture:
            work.input = self._arguments(args, kwargs)
        if self.retryable:
            root = work._root()
            if root is not None:
                work._guard(lambda: root._offer("retry", "step"))
        return work

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        if self._signature is None:
            return {"args": args, **kwargs}
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError:
            return {"args": args, **kwargs}  # the call itself will raise, in the function's own words
        shown = dict(bound.arguments)
        first = next(iter(shown), None)
        if first in {"self", "cls"}:
            del shown[first]
        return shown

    def done(self, work: Step, result: Any) -> None:
        """The call returned."""
        if self.capture:
            work.output = result


class _Retry:
    """A failed call, until it is retried or cannot be any more."""

    def __init__(self, call: _Call, work: Step) -> None:
        self._node = work._node
        self._call = call
        self._wanted: Command | None = None
        self._run_again: Callable[[], None] | None = None

    def register(self, run_again: Callable[[], None] | None) -> None:
        """Take ``retry`` from now on. Without *run_again*, somebody waits for it."""
        run = self._node.run
        with run.lock:
            if not run.open or self._node.foreign:
                return
            self._run_again = run_again
            run.retries[self._node.id] = self._receive
            while len(run.retries) > RETRYABLE_KEPT:
                ident, _ = run.retries.popitem(last=False)
                old = run.channel.kept(ident)
                if old is not None:
                    old.refresh_commands()
            self._node.refresh_commands()

    def withdraw(self) -> None:
        """Take no ``retry`` any more."""
        run = self._node.run
        with run.lock:
            if run.retries.pop(self._node.id, None) is not None and run.open:
                self._node.refresh_commands()

    @property
    def wanted(self) -> bool:
        """Whether the command has come."""
        return self._wanted is not None

    def begun(self) -> None:
        """The next attempt starts now: this is what the command asked for."""
        command = self._wanted
        if command is not None:
            run = self._node.run
            attempt = int(self._node.get("attempt", 1)) + 1
            with run.lock:
                run.channel.command_state(
                    CommandChange(id=command.id, state="applied", reason=f"attempt {attempt} has begun")
                )

    def _receive(self, command: Command) -> None:
        """Its acceptance is on record: on the connection's thread, with the lock held."""
        self._wanted = command
        run = self._node.run
        run.retries.pop(self._node.id, None)
        self._node.refresh_commands()
        if self._run_again is not None:
            self._run_again()
        else:
            run.control.wake()


def _wrap_sync(call: _Call) -> Callable[..., Any]:
    @functools.wraps(call.fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        node = context.current()
        return call.fn(*args, **kwargs) if node is None else attempts(node, args, kwargs, "", 1, None)

    def attempts(
        node: Node,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        key: str,
        attempt: int,
        retry: _Retry | None,
    ) -> Any:
        while True:
            work = call.open(node, args, kwargs, key, attempt)
            key = str(work._node.get("step_key"))
            try:
                with work:
                    if retry is not None:
                        retry.begun()
                    result = call.fn(*args, **kwargs)
                    call.done(work, result)
                return result
            except Exception:
                if not call.retryable or not work._node.announced:
                    raise
                if attempt > call.retries:
                    retry = _Retry(call, work)
                    if not held(work, retry):
                        background(node, args, kwargs, work, retry)
                        raise
                else:
                    retry = None
                attempt += 1

    def held(work: Step, retry: _Retry) -> bool:
        if call.hold <= 0:
            return False
        retry.register(None)
        above = work._node.above or work._node
        try:
            return work._node.run.control.hold(above, lambda: retry.wanted, call.hold)
        finally:
            if not retry.wanted:
                retry.withdraw()

    def background(
        node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], work: Step, retry: _Retry
    ) -> None:
        def again() -> None:
            with context.using(node):
                try:
                    attempts(node, args, kwargs, str(work._node.get("step_key")), work.attempt + 1, retry)
                except BaseException:  # noqa: BLE001 - it is told as the step's failure; nobody else waits for it
                    return

        retry.register(lambda: threading.Thread(target=again, name="wsmonitor-retry", daemon=True).start())

    return run


def _wrap_async(call: _Call) -> Callable[..., Any]:
    @functools.wraps(call.fn)
    async def run(*args: Any, **kwargs: Any) -> Any:
        node = context.current()
        return (
            await call.fn(*args, **kwargs)
            if node is None
            else await attempts(node, args, kwargs, "", 1, None)
        )

    async def attempts(
        node: Node,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        key: str,
        attempt: int,
        retry: _Retry | None,
    ) -> Any:
        while True:
            work = call.open(node, args, kwargs, key, attempt)
            key = str(work._node.get("step_key"))
            try:
                async with work:
                    if retry is not None:
                        retry.begun()
                    result = await call.fn(*args, **kwargs)
                    call.done(work, result)
                return result
            except Exception:
                if not call.retryable or not work._node.announced:
                    raise
                if attempt > call.retries:
                    retry = _Retry(call, work)
                    if not await held(work, retry):
                        background(node, args, kwargs, work, retry)
                        raise
                else:
                    retry = None
                attempt += 1

    async def held(work: Step, retry: _Retry) -> bool:
        if call.hold <= 0:
            return False
        retry.register(None)
        above = work._node.above or work._node
        try:
            return await work._node.run.control.ahold(above, lambda: retry.wanted, call.hold)
        finally:
            if not retry.wanted:
                retry.withdraw()

    def background(
        node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], work: Step, retry: _Retry
    ) -> None:
        loop = asyncio.get_running_loop()

        async def again() -> None:
            with context.using(node):
                try:
                    await attempts(
                        node, args, kwargs, str(work._node.get("step_key")), work.attempt + 1, retry
                    )
                except Exception:  # noqa: BLE001 - it is told as the step's failure; nobody else waits for it
                    return

        def start() -> None:
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(again(), loop)
            else:
                threading.Thread(
                    target=lambda: asyncio.run(again()), name="wsmonitor-retry", daemon=True
                ).start()

        retry.register(start)

    return run


def _wrap_generator(call: _Call) -> Callable[..., Any]:
    @functools.wraps(call.fn)
    def run(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        node = context.current()
        if node is None:
            return (yield from call.fn(*args, **kwargs))
        work = call.open(node, args, kwargs)
        return (yield from _drive(work, call.fn(*args, **kwargs)))

    return run


def _drive(work: Step, generator: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Run *generator* as *work*: current while its own code runs, and not while its consumer's does."""
    work.start()
    count = 0
    advance: Callable[[], Any] = lambda: next(generator)  # noqa: E731 - replaced in every turn
    try:
        while True:
            try:
                with context.using(work._node):
                    item = advance()
            except StopIteration as stop:
                work._guard(lambda: work._finish("succeeded", "", None))
                return stop.value
            count += 1
            work.progress(count)
            try:
                sent = yield item
            except GeneratorExit:
                with context.using(work._node):
                    generator.close()
                raise
            except BaseException as exc:  # noqa: BLE001 - handed on to the generator, as `yield from` does
                advance = functools.partial(generator.throw, exc)
            else:
                advance = functools.partial(generator.send, sent)
    except BaseException as exc:
        work.__exit__(type(exc), exc, exc.__traceback__)
        raise


def _wrap_asyncgen(call: _Call) -> Callable[..., Any]:
    @functools.wraps(call.fn)
    async def run(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        node = context.current()
        generator = cast("AsyncGenerator[Any, Any]", call.fn(*args, **kwargs))
        work = None if node is None else call.open(node, args, kwargs)
        if work is not None and work._node.above is not None:
            await work._abefore_start(work._node.above)
            work._begin()
        count = 0
        advance: Callable[[], Any] = generator.__anext__
        try:
            while True:
                try:
                    with context.using(node if work is None else work._node):
                        item = await advance()
                except StopAsyncIteration:
                    break
                count += 1
                if work is not None:
                    work.progress(count)
                try:
                    sent = yield item
                except GeneratorExit:
                    with context.using(node if work is None else work._node):
                        await generator.aclose()
                    raise
                except BaseException as exc:  # noqa: BLE001 - handed on to the generator
                    advance = functools.partial(generator.athrow, exc)
                else:
                    advance = functools.partial(generator.asend, sent)
        except BaseException as exc:
            if work is not None:
                work.__exit__(type(exc), exc, exc.__traceback__)
            raise
        if work is not None:
            work.__exit__(None, None, None)

    return run
