"""Opening a WebSocket: names, proxies, TLS, and why it did not come about, in words for people."""

from __future__ import annotations

import inspect
import ipaddress
import logging
import socket
import ssl
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidMessage, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from wsmonitor._version import __version__
from wsmonitor.host import is_loopback
from wsmonitor.protocol.defaults import SUBPROTOCOL, Limits

from .reading import ReadingConnection
from .runner import Runner

CLOSE_TIMEOUT: Final = 1.0
"""Seconds for a polite close; then the transport is aborted (a half-open close can hang for minutes)."""

# The library logs whole requests at DEBUG, tokens included: this level keeps that out of every log.
_WEBSOCKETS_LOG: Final = logging.getLogger("wsmonitor.client.websockets")
_WEBSOCKETS_LOG.setLevel(logging.WARNING)

_CONNECT_OPTIONS: Final = frozenset(inspect.signature(connect.__init__).parameters)


class _Connection(ReadingConnection):
    """Keeps what the library does not tell of: the error that ended it before the handshake was done.

    A server of TLS 1.3 that wants a client certificate says so in place of its answer.
    """

    ended_by: Exception | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended_by = exc
        super().connection_lost(exc)


class _Connect(connect):
    """Follows a redirect within the server that was named, and to no other one: the token is not for that."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        found = super().process_redirect(exc)
        if isinstance(found, str) and _origin(found) == _origin(self.uri):
            return found
        if isinstance(found, str | ValueError):
            assert isinstance(exc, InvalidStatus), "only an answer redirects"
            target = urljoin(self.uri, exc.response.headers["Location"])
            return InvalidURI(target, "it is another server")
        return found


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "wss" else 80)


async def open_socket(
    url: str, token: str, runner: Runner, context: ssl.SSLContext | None
) -> ReadingConnection:
    """Connect to *url*, and shake hands with *token*. What comes then `ReadingConnection.read` gives.

    Args:
        runner: where names are looked up, which may block.
        context: for TLS; None without.

    Raises:
        InvalidHandshake, InvalidURI, OSError, EOFError: it did not come about; `words` says why.
    """
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    host = parts.hostname or ""
    port = parts.port or (443 if secure else 80)
    options: dict[str, Any] = {} if context is None else {"ssl": context}
    addresses = [host]
    if is_loopback(host) or not _proxied(url):
        addresses = await _look_up(host, port, runner)
        options["port"] = port
        if secure:
            options["server_hostname"] = host
        if "proxy" in _CONNECT_OPTIONS:
            options["proxy"] = None
    made: list[_Connection] = []

    def create(*args: Any, **kwargs: Any) -> _Connection:
        made.append(_Connection(*args, **kwargs))
        return made[-1]

    failure: OSError | None = None
    for address in addresses:
        if "port" in options:
            # With the address given, no pool thread of asyncio's can hang at exit, and the
            # library refuses a redirect to another origin, which must not get the token.
            options["host"] = address
        try:
            connection = await _Connect(
                url,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                additional_headers={"Authorization": f"Bearer {token}"},
                user_agent_header=f"wsmonitor/{__version__}",
                compression=None,
                open_timeout=None,  # the link has its own
                ping_interval=None,  # likewise: heartbeats are the protocol's
                close_timeout=CLOSE_TIMEOUT,
                max_size=4 * Limits().message_size,
                logger=_WEBSOCKETS_LOG,
                create_connection=create,  # type: ignore[arg-type]  # it is only called
                **options,
            )
            assert isinstance(connection, ReadingConnection), "what `create` made"
            return connection
        except OSError as exc:
            failure = exc
        except InvalidMessage as exc:
            if made and made[-1].ended_by is not None:
                raise exc from made[-1].ended_by
            raise
    raise failure or OSError(f"{host} has no address")


def _proxied(url: str) -> bool:
    import urllib.request

    host = urlsplit(url).hostname or ""
    proxies = urllib.request.getproxies()
    return any(key in proxies for key in ("http", "https", "all", "socks")) and not bool(
        urllib.request.proxy_bypass(host)
    )


async def _look_up(host: str, port: int, runner: Runner) -> list[str]:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return [host]
    found = await runner.in_thread(
        lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), "wsmonitor-lookup"
    )
    return list(dict.fromkeys(str(item[4][0]) for item in found))


class _Refusal(msgspec.Struct):
    code: str = ""
    message: str = ""
    correlation: str = ""


class _RefusalBody(msgspec.Struct):
    error: _Refusal | None = None
    code: str = ""
    message: str = ""


def refusal(exc: InvalidStatus) -> tuple[str, str]:
    """The server's own words about a refused handshake: (code, message)."""
    status = exc.response.status_code
    if status == 400 and b"SSL certificate" in (exc.response.body or b""):
        # nginx's own words, after a handshake of TLS that it has let pass.
        return "", "the proxy in front of the server wants another client certificate (ssl=), or one at all"
    try:
        body = msgspec.json.decode(exc.response.body or b"", type=_RefusalBody)
    except msgspec.DecodeError:
        return "", f"the server answered the handshake with HTTP {status}"
    error = body.error or _Refusal(body.code, body.message)
    said = error.message or f"the server answered the handshake with HTTP {status}"
    return error.code, f"{said} (server log: {error.correlation})" if error.correlation else said


def words(exc: BaseException, url: str) -> str:
    """Why no connection to *url* came about, where TLS was not the reason (see `trust.tls_words`)."""
    match exc:
        case ConnectionRefusedError():
            return f"nothing listens at {url}"
        case socket.gaierror():
            return f"the host of {url} is not known"
        case InvalidURI() if exc.uri != url:
            # Web servers do so where a path lacks its last slash; nothing was sent there.
            return f"{url} answers with a redirect to {exc.uri}: is the address complete?"
        case InvalidURI():
            return f"{url} is not a WebSocket address"
        case InvalidMessage() if url.startswith("ws://"):
            return f"what listens at {url} does not answer in HTTP: does it expect TLS, wss://…?"
        case InvalidMessage() | ConnectionResetError() if url.startswith("wss://"):
            return f"{url} ended the connection without an answer: does it want a client certificate (ssl=)?"
        case _:
            return f"{url}: {str(exc) or type(exc).__name__}"
