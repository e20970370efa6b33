"""Tokens: made with a key that this user may read, and looked into.

A token is a JWT signed with HS256. Who may read the local server's key file is the local server's
user, and may do everything there.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from wsmonitor.host import NotPrivateError, read_private
from wsmonitor.protocol.access import ROLES, Claims
from wsmonitor.protocol.defaults import AUDIENCE, ISSUER, TENANT
from wsmonitor.protocol.errors import ConfigurationError

SHORTEST_KEY: Final = 32
"""Bytes: below this, HS256 is weaker than its hash (RFC 7518, 3.2)."""


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What is in a token.

    Attributes:
        claims: what it says.
        verified: True if the signature was checked and is good, False if it is not, None if there
            was no key to check it with.
        expires_in: seconds; negative when it has expired.
        problem: why it would be refused, in words; empty when nothing is known against it.
    """

    claims: Claims
    verified: bool | None
    expires_in: float
    problem: str


def read_key(path: str | os.PathLike[str]) -> bytes:
    """The secret in a key file.

    Raises:
        ConfigurationError: it cannot be read, is not its owner's alone (see `read_private`), or too short.
    """
    try:
        key = read_private(Path(path)).strip()
    except OSError as exc:
        raise ConfigurationError(f"cannot read the key file {path}: {exc.strerror or exc}") from exc
    except NotPrivateError as exc:
        raise ConfigurationError(
            f"the key file {path} is not private: {exc}. Whoever reads it can make tokens: make it 600"
        ) from exc
    return _strong(key)


def issue_token(
    key: bytes | str | os.PathLike[str],
    *,
    sub: str,
    role: str = "observe",
    sessions: Sequence[str] = ("*",),
    ttl: float = 3600.0,
    name: str = "",
    tenant: str = "",
    now: float | None = None,
    audience: str = AUDIENCE,
    issuer: str = ISSUER,
) -> str:
    """A new token.

    Args:
        key: the secret itself, as bytes, or the path of the file that holds it.
        sub: whom it is for.
        role: ``observe``, ``command``, ``publish`` or ``admin``.
        sessions: patterns of session ids; ``*`` stands for any run of characters.
        ttl: seconds that it is valid.
        name: what others see in the presence list.
        tenant: who shares the server with others, and has limits of his own there; "" for nobody.
        now: seconds since 1970; by default the present.

    Raises:
        ConfigurationError: the key cannot be read or is too short, or an argument is out of range.
    """
    import jwt

    secret = _strong(key) if isinstance(key, bytes) else read_key(key)
    if role not in ROLES:
        raise ConfigurationError(f"{role!r} is not a role: {', '.join(ROLES)}")
    if not sub:
        raise ConfigurationError("a token needs a subject: whom it is for")
    if ttl <= 0:
        raise ConfigurationError("a token must be valid for some time")
    if isinstance(sessions, str) or not all(sessions):
        raise ConfigurationError("`sessions` is a list of patterns, none of them empty")
    issued = int(time.time() if now is None else now)
    claims: dict[str, Any] = {
        "sub": sub,
        "role": role,
        "sessions": list(sessions),
        "iat": issued,
        "exp": issued + max(1, round(ttl)),
        "aud": audience,
        "iss": issuer,
        "jti": secrets.token_hex(16),
    }
    if name:
        claims["name"] = name
    if tenant:
        claims[TENANT] = tenant
    try:
        msgspec.convert(claims, Claims)
    except msgspec.ValidationError as exc:
        raise ConfigurationError(f"no server would take such a token: {exc}") from exc
    return jwt.encode(claims, secret, algorithm="HS256")


def inspect_token(
    token: str, key: bytes | str | os.PathLike[str] | None = None, *, now: float | None = None
) -> TokenInfo:
    """What *token* says, and whether it would be taken.

    Args:
        key: to check the signature with; the secret itself, as bytes, or its file.
        now: seconds since 1970; by default the present.

    Raises:
        ConfigurationError: it is not a token of ours at all, or the key cannot be read.
    """
    import jwt

    now = time.time() if now is None else now
    try:
        payload = jwt.decode(token, options={"verify_signature": False})
        claims = msgspec.convert(payload, Claims)
    except jwt.InvalidTokenError as exc:
        raise ConfigurationError(f"not a token: {exc}") from exc
    except msgspec.ValidationError as exc:
        raise ConfigurationError(f"a token, but not one of wsmonitor's: {exc}") from exc
    verified: bool | None = None
    problem = ""
    if key is not None:
        secret = _strong(key) if isinstance(key, bytes) else read_key(key)
        try:
            jwt.decode(
                token,
                secret,
                algorithms=["HS256"],
                options={"verify_exp": False, "verify_aud": False, "verify_nbf": False, "verify_iat": False},
            )
            verified = True
        except jwt.InvalidTokenError as exc:
            verified, problem = False, f"the signature is not this key's: {exc}"
    audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    if not problem and AUDIENCE not in audiences:
        problem = f"it is for {', '.join(audiences)}, not for {AUDIENCE}"
    if not problem and claims.exp <= now:
        problem = f"it expired {now - claims.exp:.0f} s ago"
    if not problem and claims.nbf > now:
        problem = f"it is not valid for another {claims.nbf - now:.0f} s"
    return TokenInfo(claims, verified, claims.exp - now, problem)


def _strong(key: bytes) -> bytes:
    if len(key) < SHORTEST_KEY:
        raise ConfigurationError(f"the key has {len(key)} bytes; {SHORTEST_KEY} is the least")
    return key
