"""The HTTP side of the one port: what a request is, and the answers that need no socket. Pure.

========================= =========================================================
path                      answers
========================= =========================================================
``/``                     the WebSocket handshake
``/healthz``              200 while the process runs its loop
``/readyz``               200 when the server could take a write now, else 503 with the reason
``/metrics``              counters in Prometheus' text form, where the configuration allows it
`CHALLENGE_PATH`          a local server's proof that it wrote the discovery file
========================= =========================================================

Every refusal has the body ``{"error": {"code": …, "message": …}}``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import msgspec

from wsmonitor.protocol.defaults import BEARER_SUBPROTOCOL, SUBPROTOCOL
from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.protocol.errors import CATALOGUE

from .replies import error_info

JSON: Final = {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"}
TEXT: Final = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8", "Cache-Control": "no-store"}

_NONCE: Final = re.compile(r"[0-9a-fA-F]{16,128}")
_TOKEN_KEYS: Final = frozenset({"token", "access_token", "jwt", "bearer"})


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response; ``info`` is what a refusal says."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    info: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A plain request for something that the app knows. ``name`` is the path, ``nonce`` the challenge's."""

    name: str
    nonce: str = ""


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A WebSocket handshake that is in order as far as can be seen from its form.

    ``browser``: the token came as a subprotocol. A browser cannot read the answer of a refused
    handshake, so that one is refused after the upgrade.
    """

    token: str = field(repr=False)
    browser: bool


def json_answer(status: int, value: Any) -> Answer:
    """*value* as JSON."""
    return Answer(status, msgspec.json.encode(value))


def error_answer(info: ErrorInfo, status: int | None = None) -> Answer:
    """A refusal, with the status that the catalogue gives its code."""
    if status is None:
        entry = CATALOGUE.get(info.code)
        status = entry.http_status if entry is not None and entry.http_status else 500
    headers = dict(JSON)
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="wsmonitor"'
    if (wait := info.details.get("retry_after")) is not None:
        headers["Retry-After"] = str(math.ceil(wait))  # whole seconds: RFC 9110, 10.2.3
    return Answer(status, msgspec.json.encode({"error": info}), headers, info)


def unreadable(*, too_large: bool) -> Answer:
    """The answer to what is not an HTTP request, or one with more than is read of a request."""
    if too_large:
        words = "a line of the request's head is longer than 8 KiB, or there are too many of them"
        return error_answer(error_info("message_too_large", words), status=431)
    return error_answer(error_info("bad_message", "this is not an HTTP request of a WebSocket handshake"))


def classify(
    path: str,
    *,
    upgrade: bool,
    authorization: str | None,
    subprotocols: str | None,
    origin: str | None,
    origins: Sequence[str],
    pages: Sequence[str],
) -> Answer | Page | Upgrade:
    """What a request is.

    Args:
        path: the request target, with the query.
        upgrade: whether it asks for a WebSocket.
        authorization, subprotocols, origin: those headers, None where missing.
        origins: the browser origins that may connect. A request without an origin is a program's.
        pages: the paths that are served beside the handshake.
    """
    try:
        where, query = _target(path)
    except ValueError as exc:
        return error_answer(error_info("bad_message", f"the request's target cannot be read: {exc}"))
    if any(key.lower() in _TOKEN_KEYS for key in query):
        return error_answer(
            error_info(
                "bad_message",
                "a token does not belong into the URL, where logs keep it: send `Authorization: Bearer`, "
                f"or from a browser the subprotocol `{BEARER_SUBPROTOCOL}<token>`",
            )
        )
    if not upgrade:
        if where in pages:
            return Page(where, query.get("nonce", [""])[0])
        if where == "/":
            return error_answer(
                error_info("bad_subprotocol", f"a WebSocket with subprotocol {SUBPROTOCOL} is served here"),
                status=426,
            )
        return error_answer(error_info("not_available", "there is nothing at this path"))
    if where != "/":
        return error_answer(error_info("not_available", "the WebSocket is served at /"))
    if origin is not None and origin not in origins:
        return error_answer(error_info("origin_forbidden", "this origin is not on the server's allow-list"))
    offered = [name.strip() for name in (subprotocols or "").split(",") if name.strip()]
    if SUBPROTOCOL not in offered:
        return error_answer(
            error_info("bad_subprotocol", f"the handshake has to offer the subprotocol {SUBPROTOCOL}")
        )
    bearers = [name for name in offered if name.startswith(BEARER_SUBPROTOCOL)]
    if len(bearers) > 1 or (bearers and authorization is not None):
        return error_answer(error_info("unauthorized", "more than one token was offered"))
    if bearers:
        return Upgrade(bearers[0][len(BEARER_SUBPROTOCOL) :], browser=True)
    if authorization is None:
        return error_answer(error_info("unauthorized", "no token: send `Authorization: Bearer`"))
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip() or "," in token:
        return error_answer(error_info("unauthorized", "`Authorization` has to be `Bearer` and one token"))
    return Upgrade(token.strip(), browser=False)


def _target(path: str) -> tuple[str, dict[str, list[str]]]:
    """The path and the query of a request's target. Raises `ValueError`."""
    if path == "/":
        return path, {}  # as nearly all handshakes have it
    parts = urlsplit(path)
    return parts.path, parse_qs(parts.query, keep_blank_values=True)


def valid_nonce(nonce: str) -> bool:
    """Whether a challenge's nonce has the form that is answered."""
    return _NONCE.fullmatch(nonce) is not None
