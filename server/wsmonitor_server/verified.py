"""Tokens whose signature was verified: who comes back with one need not have it computed again. Pure.

Only what does not change is remembered: what the token says, and with which key it was signed. Whether it
holds now (expiry, revocation, key generation) is asked each time, by whoever asks here. A token is known by
its SHA-256, so that none lies in memory; an entry counts only while the key it was verified with is still
the one for such a token.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from wsmonitor.protocol.access import Claims

TOKENS: Final = 16_384
"""How many tokens are remembered; of more, those that came first are forgotten."""

HEADERS: Final = 64
"""How many different headers; all tokens of an issuer have the same, for each of its keys."""


@dataclass(frozen=True, slots=True)
class Known:
    """A verified token: its header, the key that it was verified with, its claims."""

    header: dict[str, Any]
    key: object
    claims: Claims


class Verified:
    """See the module's docstring. Only tokens that were verified are put in, so strangers cannot fill it.

    Args:
        tokens: how many are remembered at most.
        headers: how many headers of such tokens.
    """

    __slots__ = ("_headers", "_most_headers", "_most_tokens", "_tokens")

    def __init__(self, tokens: int = TOKENS, headers: int = HEADERS) -> None:
        self._tokens: dict[bytes, Known] = {}
        self._headers: dict[str, dict[str, Any]] = {}
        self._most_tokens = tokens
        self._most_headers = headers

    def __len__(self) -> int:
        return len(self._tokens)

    def header(self, token: str) -> dict[str, Any] | None:
        """The header of *token*, if one that is written just so has been accepted before."""
        return self._headers.get(token.partition(".")[0])

    def find(self, token: str) -> Known | None:
        """What is known of *token*."""
        return self._tokens.get(_digest(token))

    def put(self, token: str, known: Known) -> None:
        """Remember *token*, whose signature and form have just been found good."""
        _bounded_put(self._tokens, _digest(token), known, self._most_tokens)
        _bounded_put(self._headers, token.partition(".")[0], known.header, self._most_headers)

    def clear(self) -> None:
        """Forget all."""
        self._tokens.clear()
        self._headers.clear()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _bounded_put(into: dict[Any, Any], key: object, value: object, most: int) -> None:
    if key not in into and len(into) >= most:
        del into[next(iter(into))]
    into[key] = value
