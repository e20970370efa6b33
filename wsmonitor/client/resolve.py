"""From a `Target` to the key that its connection is shared by, and to what finds its server.

The server is looked for anew at every attempt: after a restart on another port, a link finds its way.
"""

from __future__ import annotations

import getpass
import os
import threading
from collections.abc import Callable, Mapping
from typing import Final

from wsmonitor.host import ENV_HOME, discovery_path
from wsmonitor.protocol.errors import ConfigurationError

from .driver import Endpoint, Lasting, Resolver
from .errors import NoTokenError
from .locate import ENV_TOKEN, ENV_URL, Located, check_url, local_mode, locate
from .trust import Trust, no_use, refuse_clear_text, trust_for
from .types import Target, TokenProvider

LOCAL_TTL: Final = 3600.0
"""Seconds that a token for the local server is valid; it is renewed in band."""

_LOCAL_PLACES: Final = (ENV_HOME, "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR")


class FixedResolver:
    """A given address and a given token, or a provider of tokens.

    A provider's token is kept until it is refused or renewed: a provider may be slow, or ask a person.

    Args:
        trust: what the server is checked against; None without TLS.
        insecure: whether it was asked for that the token goes there unencrypted.
    """

    def __init__(
        self,
        located: Located,
        token: str | TokenProvider,
        trust: Trust | None = None,
        insecure: bool | None = None,
    ) -> None:
        self._located = located
        self._trust = trust
        self._insecure = insecure
        self._source = token
        self._token = token if isinstance(token, str) else None
        self._lock = threading.Lock()

    def resolve(self, *, fresh: bool) -> Endpoint:
        renewable = not isinstance(self._source, str)
        with self._lock:
            token = None if fresh and renewable else self._token
        # First, because a provider may ask a person.
        context = None if self._trust is None else self._trust.load()
        url, looked = self._located.url, self._located.looked
        return Endpoint(url, token or self.token(), looked, renewable, self._trust, context)

    def token(self) -> str:
        token = self._source if isinstance(self._source, str) else self._source()
        if not token:
            raise ConfigurationError("the token provider gave nothing")
        with self._lock:
            self._token = token
        return token

    def lasting(self) -> Lasting | None:
        file = "" if self._trust is None else self._trust.file
        return Lasting(self._located.url, file, bool(self._insecure))

    def watched(self) -> str | None:
        return None

    def allow_start(self) -> bool:
        return False


class LocalResolver:
    """The local server, wherever it is by now, with tokens made from its key file."""

    def __init__(self, token: str | TokenProvider | None, environ: Mapping[str, str], start: bool) -> None:
        self._given = token
        self._environ = dict(environ)
        self._start = start
        self._mint: Callable[[], str] | None = None
        self._mode = local_mode(environ)

    def resolve(self, *, fresh: bool) -> Endpoint:
        located = locate(start=self._start, environ=self._environ)
        given = self._given
        if isinstance(given, str):
            return Endpoint(located.url, given, located.looked)
        self._mint = given if given is not None else _minter(located)
        return Endpoint(located.url, self._mint(), located.looked, renewable=True)

    def token(self) -> str:
        if self._mint is None:
            raise ConfigurationError("no server has been found yet")
        return self._mint()

    def lasting(self) -> Lasting | None:
        return Lasting() if self._mode == "process" else None

    def watched(self) -> str | None:
        return None if self._mode == "inline" else str(discovery_path())

    def allow_start(self) -> bool:
        new, self._start = not self._start, True
        return new


def _minter(located: Located) -> Callable[[], str]:
    """What makes tokens for a local server."""
    if located.discovery is not None:
        key_file = located.discovery.key_file

        def mint() -> str:
            from .tokens import issue_token

            return issue_token(key_file, sub=local_user(), role="admin", ttl=LOCAL_TTL)

        return mint
    from .local import inline_server

    def mint_inline() -> str:
        server = inline_server()
        if server is None:
            raise ConfigurationError("the server in this process has ended")
        return server.token(sub=local_user(), role="admin", ttl=int(LOCAL_TTL))

    return mint_inline


def local_user() -> str:
    """What the local server is told about who we are."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return f"uid-{os.getuid()}" if hasattr(os, "getuid") else "local"


def resolver_for(
    target: Target, environ: Mapping[str, str] | None = None
) -> tuple[tuple[object, ...], Resolver]:
    """The key of *target*'s connection (its last item the credentials), and what finds its server.

    Quick, and without I/O.

    Raises:
        ConfigurationError: the address is not a WebSocket address, ``WSMONITOR_LOCAL`` is wrong, or ``ssl``
            does not fit the address.
        InsecureError: there is a token, and it would go unencrypted to another machine.
    """
    environ = os.environ if environ is None else environ
    if target.url is None and not environ.get(ENV_URL):
        if target.ssl is not None:
            raise ConfigurationError(no_use(""))
        places = tuple(environ.get(name) for name in _LOCAL_PLACES)
        key = ("local", local_mode(environ), places, target.token)
        return key, LocalResolver(target.token, environ, target.start)
    located = locate(target.url, environ=environ)
    token = target.token
    if token is None and _meant_for(located.url, environ):
        token = environ.get(ENV_TOKEN)
    trust = trust_for(located.url, target.ssl, environ)
    if token:
        refuse_clear_text(located.url, target.insecure, environ)
    resolver = FixedResolver(located, token or _local_provider(located.url), trust, target.insecure)
    return (located.url, (token, trust)), resolver


def _meant_for(url: str, environ: Mapping[str, str]) -> bool:
    # The environment's token is the environment's server's: no other server may see it.
    return environ.get(ENV_URL, url) == url


def _local_provider(url: str) -> TokenProvider:
    """Tokens for an address without a token: of our own local server, if it is that."""

    def provide() -> str:
        from .locate import find_local

        check_url(url)
        looked: list[str] = []
        found = find_local(looked)
        if found is None or found.url.rstrip("/") != url.rstrip("/"):
            raise NoTokenError(
                f"no token for {url}: give one, or set {ENV_TOKEN} ({url} is not your running local server)"
            )
        return _minter(Located(found.url, "", (), found))()

    return provide
