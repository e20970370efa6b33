"""From a `Target` to the key of its connection and the resolver that finds its server."""

from __future__ import annotations

import os
import threading
from typing import Final
from urllib.parse import urlsplit

from wsmonitor.protocol.errors import ConfigurationError

from .driver import Endpoint, Resolver
from .types import Target, TokenProvider

ENV_URL: Final = "WSMONITOR_URL"
ENV_TOKEN: Final = "WSMONITOR_TOKEN"  # the name of a variable, not a token  # noqa: S105


class FixedResolver:
    """A given address and a given token, or a provider of tokens.

    A provider's token is kept until it is refused or renewed: a provider may be slow, or ask a person.
    """

    def __init__(self, url: str, token: str | TokenProvider, looked: tuple[str, ...]) -> None:
        self._url = url
        self._source = token
        self._looked = looked
        self._token = token if isinstance(token, str) else None
        self._lock = threading.Lock()

    def resolve(self, *, fresh: bool) -> Endpoint:
        renewable = not isinstance(self._source, str)
        with self._lock:
            token = None if fresh and renewable else self._token
        return Endpoint(self._url, token or self.token(), self._looked, renewable)

    def token(self) -> str:
        token = self._source if isinstance(self._source, str) else self._source()
        with self._lock:
            self._token = token
        return token

    def watched(self) -> str | None:
        return None

    def allow_start(self) -> bool:
        return False


def resolver_for(
    target: Target, environ: os._Environ[str] | dict[str, str] | None = None
) -> tuple[object, Resolver]:
    """The key that *target*'s connection is shared by, and what finds its server.

    Raises:
        ConfigurationError: the address is not a WebSocket address, or a token is missing.
    """
    environ = os.environ if environ is None else environ
    url, token, why = target.url, target.token, "given explicitly"
    if url is None and environ.get(ENV_URL):
        url, why = environ[ENV_URL], f"from {ENV_URL}"
        token = token or environ.get(ENV_TOKEN)
    assert url is not None
    assert token is not None
    url = check_url(url)
    return (url, token), FixedResolver(url, token, (f"{url}, {why}",))


def check_url(url: str) -> str:
    """*url*, if it is a WebSocket address without a token in it.

    Raises:
        ConfigurationError: it is not; the message says what would be.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ConfigurationError(f"{url!r} is not a WebSocket address: ws://host:port or wss://host:port")
    if parts.query or parts.fragment or parts.username:
        raise ConfigurationError(
            "a WebSocket address has no query, no fragment and no user: tokens go into the header"
        )
    return url
