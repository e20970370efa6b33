"""What the browser says, heard also while a cell runs.

A widget's own messages (comms) reach Python only between cells. The kernel's *control channel*, by which
front-ends interrupt and restart it, is read all the time; a front-end that exposes it can send us
a message of our own on it, over the kernel connection that is there anyway. `install` adds the handler where
the kernel allows it; where not, comms are used and arrive later. The handler runs on the kernel's control
thread and must not block: it looks the observer up and hands over.

What is registered here is also announced to pages that open while a cell runs: see `revival`.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any, Final, Protocol

from .revival import revival

MESSAGE: Final = "wsmonitor_request"
REPLY: Final = "wsmonitor_reply"


class Listener(Protocol):
    """An observer, as the channel sees it."""

    def hear(self, message: dict[str, Any], *, live: bool) -> None:
        """The browser said something. Must not block."""


_lock = threading.Lock()
_listeners: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


def register(token: str, listener: Listener) -> None:
    """Let messages for *token* reach *listener*, for as long as it lives."""
    with _lock:
        _listeners[token] = listener
    install()
    revival.offer(listener)


def forget(token: str) -> None:
    """No longer."""
    with _lock:
        listener = _listeners.pop(token, None)
    if listener is not None:
        revival.withdraw(listener)


def _kernel() -> Any:
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return None
    return getattr(get_ipython(), "kernel", None)


def install() -> bool:
    """Add the handler to this process's kernel, once. Returns whether there is one now."""
    kernel = _kernel()
    handlers = getattr(kernel, "control_handlers", None)
    if not isinstance(handlers, dict):
        return False
    handlers.setdefault(MESSAGE, _handler(kernel))
    return True


def _handler(kernel: Any) -> Any:
    def handle(stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        content = parent.get("content") or {}
        with _lock:
            listener = _listeners.get(str(content.get("token")))
        if content.get("do") == "hello":
            revival.spoke()
        if listener is not None:
            listener.hear(content, live=True)
        reply = {"status": "ok" if listener is not None else "error"}
        kernel.session.send(stream, REPLY, reply, parent, ident=ident)

    return handle
