"""The kernel's IOPub channel, heard from inside the kernel: a subscriber as any front-end is one."""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import zmq

from wsmonitor.protocol.errors import UsageError

_DELIMITER: Final = b"<IDS|MSG>"
_WAITING: Final = 200_000
"""Messages that may wait for us within ZeroMQ; beyond, it drops further ones."""


class _Header(msgspec.Struct):
    msg_type: str
    msg_id: str = ""


class _Parent(msgspec.Struct):
    msg_id: str = ""


_headers: Final = msgspec.json.Decoder(_Header)
_parents: Final = msgspec.json.Decoder(_Parent)


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
        """A socket that hears everything."""
        socket: zmq.Socket[Any] = context.socket(zmq.SUB)
        socket.linger = 0
        socket.rcvhwm = _WAITING
        socket.ipv6 = "[" in self.url
        if self.curve:
            public, secret = zmq.curve_keypair()
            socket.curve_secretkey, socket.curve_publickey = secret, public
            socket.curve_serverkey = self.curve
        socket.subscribe(b"")
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
