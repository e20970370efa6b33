"""What the browser says, heard also while a cell runs.

A widget's own messages (comms) reach Python only between cells. The kernel's *control channel*, by which
front-ends interrupt and restart it, is read all the time; a front-end that exposes it can send us
a message of our own on it, over the kernel connection that is there anyway. `install` adds the handler where
the kernel allows it; where not, comms are used and arrive later. The handler runs on the kernel's control
thread and must not block: it looks the observer up and hands over.

Around each control message ipykernel publishes "busy" and "idle", and that idle, in the middle of a cell, is
what JupyterLab's indicator and the Jupyter server's own record of the kernel then say: a lie that our
acknowledgements would tell every few seconds. So where the kernel has a control stream our messages are
taken from it before ipykernel sees them, and nothing is published; all others go the way they always went.

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
    with _lock:
        if MESSAGE in handlers:
            return True
        handler = handlers[MESSAGE] = _handler(kernel)
    stream = getattr(kernel, "control_stream", None)
    loop = getattr(stream, "io_loop", None)
    if callable(getattr(kernel, "dispatch_control", None)) and loop is not None:
        # A stream belongs to its loop's thread. Until it has come there, ipykernel calls the handler.
        loop.add_callback(_take_ours, kernel, stream, handler)
    return True


def _take_ours(kernel: Any, stream: Any, handler: Any) -> None:
    def received(frames: list[Any]) -> Any:
        message = _ours(kernel, frames) if kernel.control_handlers.get(MESSAGE) is handler else None
        if message is None:
            return kernel.dispatch_control(frames)
        idents, parent = message
        try:
            handler(stream, idents, parent)
        except Exception:  # the channel is also the way to interrupt this kernel
            kernel.log.exception("wsmonitor could not take a control message")
        return None

    stream.on_recv(received, copy=False)


def _ours(kernel: Any, frames: list[Any]) -> tuple[Any, dict[str, Any]] | None:
    """Who sent a message, and the message, if it is for us. What is not right in any way is ipykernel's."""
    session = kernel.session
    try:
        idents, parts = session.feed_identities(frames, copy=False)
        if session.unpack(parts[1].bytes).get("msg_type") != MESSAGE:
            return None
        return idents, session.deserialize(parts, content=True, copy=False)
    except Exception:  # noqa: BLE001 - a bad signature, or no message at all: it is refused and logged there
        return None


def _handler(kernel: Any) -> Any:
    def handle(stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        content = parent.get("content")
        content = content if isinstance(content, dict) else {}
        with _lock:
            listener = _listeners.get(str(content.get("token")))
        if content.get("do") == "hello":
            revival.spoke()
        if listener is not None:
            listener.hear(content, live=True)
        reply = {"status": "ok" if listener is not None else "error"}
        kernel.session.send(stream, REPLY, reply, parent, ident=ident)

    return handle
