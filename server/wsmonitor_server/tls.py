"""TLS on the server's side: its context, and the handshake of one connection.

The handshake is made here rather than by the listener, because a socket has to be known from the moment it is
there: who connects and never begins with TLS takes a place at the door like anybody else.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import TYPE_CHECKING, Final, cast

from wsmonitor.protocol.errors import ConfigurationError

from .config import ServerConfig
from .logs import fields

if TYPE_CHECKING:
    from .app import Server
    from .connection import Connection

_LOG: Final = logging.getLogger(__name__)


def tls_context(config: ServerConfig) -> ssl.SSLContext | None:
    """What the configuration says; None without TLS.

    Raises:
        ConfigurationError: the certificate or its key cannot be read.
    """
    if not config.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigurationError(f"the TLS certificate or its key cannot be read: {exc}") from exc
    return context


class TlsGate(asyncio.Protocol):
    """Shakes hands on a new socket, and then hands it over to *connection*'s transport."""

    def __init__(self, server: Server, connection: Connection, context: ssl.SSLContext) -> None:
        self._server = server
        self._connection = connection
        self._context = context
        self._early: list[bytes] = []
        self._over = False
        self._cause: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        plain = cast(asyncio.Transport, transport)
        # Until TLS listens: what has arrived by then would be lost.
        plain.pause_reading()
        self._connection.knocked(plain.get_extra_info("peername"), plain.abort)
        self._server.shake_hands(self._shake_hands(plain))

    async def _shake_hands(self, plain: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        connection = self._connection
        try:
            secured = await loop.start_tls(
                plain,
                self,
                self._context,
                server_side=True,
                ssl_handshake_timeout=self._server.timing.handshake_timeout,
            )
            if secured is None or plain.is_closing():
                # It was dropped meanwhile, which is no error to asyncio.
                raise ConnectionAbortedError("dropped")
        except (OSError, ssl.SSLError) as exc:
            _LOG.debug("no TLS", extra=fields(connection=connection.ident, error=exc))
            plain.abort()
            connection.lost(1006, "no TLS")
            return
        except BaseException:
            plain.abort()
            connection.lost(1006, "no TLS")
            raise
        inner = connection.transport
        secured.set_protocol(inner)
        inner.connection_made(secured)
        if self._early:
            inner.data_received(b"".join(self._early))
        if self._over:
            inner.connection_lost(self._cause)

    def data_received(self, data: bytes) -> None:
        # Between the end of the handshake and the next turn of the loop.
        self._early.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._over, self._cause = True, exc
