"""Where is the server? Looked for in one order, and every place is told.

1. an explicit URL;
2. ``WSMONITOR_URL``, with ``WSMONITOR_TOKEN``;
3. the discovery file of a running local server;
4. else, for publishers only, a local server is started (see `local`).

``WSMONITOR_LOCAL`` says what 3 and 4 may do: ``process`` (the default) uses a local server in a process
of its own; ``inline`` (the default when ``CI`` is set, or under pytest) one inside this process, in memory,
and looks for no other; ``off`` none.

A discovered server is proved before a token is sent to it: it answers a challenge with the discovery file's
secret. Another user who holds that port now learns nothing.

Everything here may block for a moment and is meant for a thread of its own.
"""

from __future__ import annotations

import http.client
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from wsmonitor.host import discovery_path, read_discovery
from wsmonitor.protocol.discovery import CHALLENGE_PATH, Discovery, proof, proof_agrees
from wsmonitor.protocol.errors import ConfigurationError

from .errors import NoServerError, NotLocatedError

ENV_URL: Final = "WSMONITOR_URL"
ENV_TOKEN: Final = "WSMONITOR_TOKEN"  # noqa: S105  # a variable's name
ENV_LOCAL: Final = "WSMONITOR_LOCAL"

PROOF_TIMEOUT: Final = 3.0
"""Seconds that a local server may take to prove itself."""

LocalMode = Literal["process", "inline", "off"]


@dataclass(frozen=True, slots=True)
class Located:
    """Where the server is.

    Attributes:
        url: its address.
        why: why this one, in words.
        looked: every place that was looked at, in order, with what was found.
        discovery: what a local server says of itself; None for another one.
    """

    url: str
    why: str
    looked: tuple[str, ...]
    discovery: Discovery | None = None


def local_mode(environ: Mapping[str, str] | None = None) -> LocalMode:
    """What ``WSMONITOR_LOCAL`` says, or its default.

    Raises:
        ConfigurationError: it says something else than process, inline or off.
    """
    environ = os.environ if environ is None else environ
    value = environ.get(ENV_LOCAL, "").strip().lower()
    match value:
        case "":
            # A notebook's kernel under nbval has the first sign only.
            signs = ("PYTEST_VERSION", "PYTEST_CURRENT_TEST")
            under_test = "pytest" in sys.modules or any(sign in environ for sign in signs)
            return "inline" if environ.get("CI") or under_test else "process"
        case "process" | "inline" | "off":
            return value
    raise ConfigurationError(f"{ENV_LOCAL} is {value!r}; it may be process, inline or off")


def prove(discovery: Discovery, timeout: float = PROOF_TIMEOUT) -> str:
    """Ask the server for its proof; "" if it is the one that wrote the file, else why it is not used."""
    parts = urlsplit(discovery.url)
    host, port = parts.hostname or "", parts.port or 0
    nonce = secrets.token_hex(32)
    link = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        link.request("GET", f"{CHALLENGE_PATH}?nonce={nonce}")
        answer = link.getresponse()
        body = answer.read(65_536)
    except (OSError, http.client.HTTPException) as exc:
        return f"nothing answers at {discovery.url}: {str(exc) or type(exc).__name__}"
    finally:
        link.close()
    try:
        given = msgspec.json.decode(body, type=dict[str, str]).get("proof", "")
    except msgspec.DecodeError:
        given = ""
    if answer.status != 200 or not proof_agrees(proof(discovery.secret, nonce, host, port), given):
        return f"what listens at {discovery.url} is not the server that wrote the file: it gets no token"
    return ""


def find_local(looked: list[str]) -> Discovery | None:
    """The running local server, proved; None if there is none. What was found is added to *looked*."""
    path = discovery_path()
    found, problem = read_discovery(path)
    if found is not None:
        problem = prove(found)
    if found is None or problem:
        looked.append(f"the local server's file {path}: {problem}")
        return None
    looked.append(f"the local server's file {path}: {found.url}, process {found.pid}")
    return found


def locate(
    url: str | None = None, *, start: bool = False, environ: Mapping[str, str] | None = None
) -> Located:
    """Find the server, in the order of this module's docstring. May block for some seconds.

    Args:
        url: an explicit address.
        start: whether a local server may be started.

    Raises:
        NotLocatedError: none is there at present.
        NoServerError: with these settings none will be.
        ConfigurationError: a setting is wrong.
    """
    environ = os.environ if environ is None else environ
    if url is not None:
        return Located(check_url(url), "given explicitly", (f"the given address {url}",))
    looked = ["an explicit address: none is given"]
    if environ.get(ENV_URL):
        address = check_url(environ[ENV_URL])
        return Located(address, f"from {ENV_URL}", (*looked, f"{ENV_URL}: {address}"))
    looked.append(f"{ENV_URL}: not set")
    mode = local_mode(environ)
    match mode:
        case "inline":
            return _inline(start, looked)
        case "off":
            looked.append(f"a local server: {ENV_LOCAL} is off")
            raise NoServerError(
                f"no server: {ENV_URL} is not set, and {ENV_LOCAL} is off", looked=tuple(looked)
            )
    found = find_local(looked)
    if found is not None:
        return Located(found.url, "the running local server", tuple(looked), found)
    if not start:
        raise NotLocatedError("no local server is running; it is found as soon as one starts", tuple(looked))
    from .local import start_local_server

    found = start_local_server(environ)
    looked.append(f"started a local server: {found.url}, process {found.pid}")
    return Located(found.url, "a local server, started for this", tuple(looked), found)


def _inline(start: bool, looked: list[str]) -> Located:
    from .local import inline_server, start_inline_server

    running = inline_server()
    if running is None and start:
        running = start_inline_server()
    if running is None:
        looked.append(f"a server in this process ({ENV_LOCAL} is inline): none is running")
        raise NotLocatedError("no server is running in this process; publishing starts one", tuple(looked))
    looked.append(f"the server in this process ({ENV_LOCAL} is inline): {running.url}")
    return Located(running.url, "the server in this process", tuple(looked))


def check_url(url: str) -> str:
    """*url*, if it is a WebSocket address without anything secret in it.

    Raises:
        ConfigurationError: it is not; the message says what would be.
    """
    parts = urlsplit(url)
    try:
        usable = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is not a number
        usable = False
    if not usable:
        raise ConfigurationError(f"{url!r} is not a WebSocket address: ws://host:port or wss://host:port")
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ConfigurationError(
            "a server's address holds no query, no fragment and no user: a token goes into the header"
        )
    return url
