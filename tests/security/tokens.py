"""Tokens by hand: what no library would make."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any, Final

SECRET: Final = b"a secret of thirty-two bytes, and more"
NOW: Final = 1_800_000_000.0
"""The wall clock of these tests, in seconds since 1970."""

CLAIMS: Final[dict[str, Any]] = {
    "sub": "eve",
    "role": "admin",
    "sessions": ["*"],
    "iat": int(NOW) - 10,
    "exp": int(NOW) + 600,
    "aud": "wsmonitor",
    "iss": "wsmonitor",
    "jti": "j1",
}


def part(content: object) -> str:
    """A segment of a compact serialization: *content*, bytes as they are, else as JSON."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: object, claims: object, key: bytes = SECRET, digest: str = "sha256") -> str:
    """A token whose signature is the HMAC of what it says, whatever it says."""
    text = f"{part(header)}.{part(claims)}"
    return f"{text}.{part(hmac.new(key, text.encode(), getattr(hashlib, digest)).digest())}"


def token(key: bytes = SECRET, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A token that is in order but for *header* and *claims*; a claim that is ``...`` is left out."""
    wanted = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not ...}
    return signed({"alg": "HS256", "typ": "JWT", **(header or {})}, wanted, key)
