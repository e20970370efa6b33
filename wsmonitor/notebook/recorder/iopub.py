"""The kernel's IOPub channel, heard from inside the kernel: a subscriber, as any front-end is one.

Within one process ZeroMQ hands messages over instead of sending them, which spares a cell the cost of another
connection: the kernel's publishing socket is given one more address for this, on its own thread and by
ipykernel's public `IOPubThread.schedule`. Where a kernel has no such thread, we connect as others do.
"""

from __future__ import annotations

import contextlib
import hmac
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import zmq

from wsmonitor.protocol.errors import UsageError

_DELIMITER: Final = b"<IDS|MSG>"
_WAITING: Final = 200_000
"""Messages that may wait for us within ZeroMQ; beyond, it drops further ones."""

_PATIENCE: Final = 2.0


class _Header(msgspec.Struct):
    msg_type: str
    msg_id: str = ""


class _Parent(msgspec.Struct):
    msg_id: str = ""


_headers: Final = msgspec.json.Decoder(_Header)
_parents: Final = msgspec.json.Decoder(_Parent)


def _subscriber(context: zmq.Context[Any]) -> zmq.Socket[Any]:
    socket: zmq.Socket[Any] = context.socket(zmq.SUB)
    socket.linger = 0
    socket.rcvhwm = _WAITING
    socket.subscribe(b"")
    return socket


class Within:
    """A kernel's publishing socket, reached within its process.

    Args:
        thread: ipykernel's ``IOPubThread``, or None.
    """

    def __init__(self, thread: Any) -> None:
        self._thread = thread
        self._url = f"inproc://wsmonitor-{uuid.uuid4().hex}"

    def connect(self) -> zmq.Socket[Any] | None:
        """A socket that hears everything; None if this kernel has no such thread."""
        publisher = getattr(self._thread, "socket", None)
        if not isinstance(publisher, zmq.Socket) or not self._do(lambda: publisher.bind(self._url)):
            return None
        socket = _subscriber(publisher.context)
        socket.connect(self._url)
        return socket

    def leave(self) -> None:
        """Take the address away again, once the socket is closed."""
        publisher = getattr(self._thread, "socket", None)
        if isinstance(publisher, zmq.Socket) and not publisher.closed:
            self._do(lambda: publisher.unbind(self._url))

    def _do(self, what: Callable[[], object]) -> bool:
        """Have the thread that owns the socket do this; says whether it has."""
        done = threading.Event()
        worked = False

        def scheduled() -> None:
            nonlocal worked
            with contextlib.suppress(zmq.ZMQError):
                what()
                worked = True
            done.set()

        schedule = getattr(self._thread, "schedule", None)
        if not callable(schedule):
            return False
        schedule(scheduled)
        return done.wait(_PATIENCE) and worked


class Unreadable(Exception):
    """A message is not one of this kernel's, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message on IOPub.

    Attributes:
        kind: its ``msg_type``.
        parent: the ``msg_id`` of the request that it belongs to.
        content: its content, as bytes.
    """

    kind: str
    parent: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a kernel publishes, and what its messages are signed with.

    Attributes:
        url: of ZeroMQ.
        key: of the signature; empty if messages are not signed.
        digest: the signature's hash function.
        curve: the kernel's public key (CurveZMQ) if the transport is encrypted.
        unpack: the kernel's own reading of content, for what is not plain JSON.
    """

    url: str
    key: bytes
    digest: Any
    unpack: Callable[[bytes], Any]
    curve: bytes | None = None

    @classmethod
    def of(cls, kernel: Any) -> Endpoint:
        """That of this process's kernel.

        Raises:
            UsageError: this is no ipykernel, or one without sockets (within another program).
        """
        app: Any = getattr(kernel, "parent", None)
        port = getattr(app, "iopub_port", 0)
        if kernel is None or not port:
            raise UsageError(
                "recording needs a Jupyter kernel of its own: ipykernel, started by Jupyter. This is "
                + ("none" if kernel is None else f"a {type(kernel).__name__} within another program")
            )
        host = "127.0.0.1" if app.ip in ("*", "0.0.0.0", "") else app.ip  # noqa: S104 - read, not bound
        url = f"ipc://{app.ip}-{port}" if app.transport == "ipc" else f"{app.transport}://{host}:{port}"
        session = kernel.session
        return cls(
            url, session.key, session.digest_mod, session.unpack, getattr(app, "curve_publickey", None)
        )

    def connect(self, context: zmq.Context[Any]) -> zmq.Socket[Any]:
        """A socket that hears everything, by the kernel's transport."""
        socket = _subscriber(context)
        socket.ipv6 = "[" in self.url
        if self.curve:
            public, secret = zmq.curve_keypair()
            socket.curve_secretkey, socket.curve_publickey = secret, public
            socket.curve_serverkey = self.curve
        socket.connect(self.url)
        return socket

    def read(self, frames: Sequence[bytes]) -> Message:
        """The message in *frames*.

        Raises:
            Unreadable: it is none, or not signed by this kernel.
        """
        try:
            at = frames.index(_DELIMITER)
            signature, header, parent, metadata, content = frames[at + 1 : at + 6]
        except ValueError:
            raise Unreadable("not a message of Jupyter") from None
        if self.key:
            made = hmac.new(self.key, digestmod=self.digest)
            for part in (header, parent, metadata, content):
                made.update(part)
            if not hmac.compare_digest(made.hexdigest().encode(), signature):
                raise Unreadable("not signed by this kernel")
        try:
            return Message(_headers.decode(header).msg_type, _parents.decode(parent).msg_id, content)
        except msgspec.DecodeError:
            # Not everything that Python's json writes is JSON (NaN): the kernel's own way, then.
            with contextlib.suppress(Exception):
                above = self.unpack(parent)
                return Message(str(self.unpack(header)["msg_type"]), str(above.get("msg_id", "")), content)
            raise Unreadable("its header cannot be read") from None

    def content(self, message: Message) -> dict[str, Any]:
        """A message's content.

        Raises:
            Unreadable: it is not in this kernel's format.
        """
        try:
            found = msgspec.json.decode(message.content)
        except msgspec.DecodeError:
            try:
                found = self.unpack(message.content)
            except Exception:  # noqa: BLE001 - a packer of the user's may raise anything
                raise Unreadable(f"the content of a {message.kind!r} cannot be read") from None
        if not isinstance(found, dict):
            raise Unreadable(f"the content of a {message.kind!r} is no mapping")
        return found
