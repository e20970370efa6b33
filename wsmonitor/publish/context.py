"""Where the running code is: the innermost session, chain or step of this task or thread.

Kept in one context variable. Tasks of asyncio, `asyncio.to_thread` and callbacks of a loop inherit it by
themselves. Threads do not (before Python 3.14 at least), so:

- while a session is open, `concurrent.futures.ThreadPoolExecutor.submit` (and with it ``map`` and
  ``loop.run_in_executor``) hands on this one variable, nothing else of the context, from the code that
  submits to the code that runs. ``wm.session(..., threads=False)`` leaves the class alone.
- `wrap` does the same for anything else that takes a function: ``threading.Thread(target=wm.wrap(fn))``.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from .node import Node

P = ParamSpec("P")
R = TypeVar("R")

_current: ContextVar[Node | None] = ContextVar("wsmonitor_current", default=None)


def current() -> Node | None:
    """The innermost open session, chain or step here; None outside."""
    node = _current.get()
    return node if node is not None and node.here else None


def enter(node: Node) -> Token[Node | None]:
    """Make *node* the current one; hand the token to `leave`."""
    return _current.set(node)


def leave(token: Token[Node | None]) -> None:
    """Undo `enter`. A generator may be closed in another context than it was begun in: then do nothing."""
    with contextlib.suppress(ValueError):
        _current.reset(token)


class using:
    """Makes a node the current one within a block."""

    def __init__(self, node: Node | None) -> None:
        self._node = node

    def __enter__(self) -> None:
        self._token = _current.set(self._node)

    def __exit__(self, *exc: object) -> None:
        leave(self._token)


def wrap(fn: Callable[P, R]) -> Callable[P, R]:
    """*fn*, to be run elsewhere (a thread, a callback), as if called here: its steps nest as they would here.

    Raises:
        TypeError: *fn* is not callable.
    """
    if not callable(fn):
        raise TypeError(f"wrap() takes a function, not {type(fn).__name__}")
    node = _current.get()
    if node is None:
        return fn

    @functools.wraps(fn)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with using(node):
            return fn(*args, **kwargs)

    return run


_lock = threading.Lock()
_users = 0
_beneath: Callable[..., Future[Any]] | None = None
"""What `_submit` calls; None while the class is as it was."""


class _Carried:
    """A submitted function with the node it belongs under."""

    __slots__ = ("fn", "node")

    def __init__(self, node: Node, fn: Callable[..., Any]) -> None:
        self.node = node
        self.fn = fn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with using(self.node):
            return self.fn(*args, **kwargs)


def _submit(self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
    beneath = _beneath
    assert beneath is not None
    node = current()
    return beneath(self, fn if node is None or not callable(fn) else _Carried(node, fn), *args, **kwargs)


def carry_into_executors() -> Callable[[], None]:
    """From now on executors hand on the current node. Returns what ends that; the last restores the class."""
    global _users, _beneath
    with _lock:
        if _beneath is None:
            _beneath = ThreadPoolExecutor.submit
            ThreadPoolExecutor.submit = _submit  # type: ignore[method-assign,assignment]
        _users += 1
    done = False

    def stop() -> None:
        nonlocal done
        global _users, _beneath
        with _lock:
            if done:
                return
            done = True
            _users -= 1
            # If somebody wrapped `submit` after us, ours must stay beneath theirs: without a current
            # node it passes everything through.
            if _users == 0 and ThreadPoolExecutor.submit is _submit and _beneath is not None:
                ThreadPoolExecutor.submit = _beneath  # type: ignore[method-assign]
                _beneath = None

    return stop
