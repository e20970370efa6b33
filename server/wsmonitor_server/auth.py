"""Tokens: who somebody is, and whether that still holds.

A token is a JWT (RFC 7519), validated as RFC 8725 asks: the algorithms are the server's choice, never
the token's; ``exp aud iss jti sub`` are required; audience and issuer have to be the server's. Its
signature is verified once, at the handshake or at a refresh (who comes back with the same token: `verified`).
What comes of it, a `Credential`, is checked on every message and on every flush against the wall clock,
revocation and key generation.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from wsmonitor.protocol.access import Claims
from wsmonitor.protocol.defaults import AUDIENCE, ISSUER, TENANT
from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.protocol.errors import ConfigurationError

from . import compact
from .replies import error_info
from .verified import Known, Verified

if TYPE_CHECKING:
    from jwt import PyJWK

MIN_SECRET_BYTES: Final = 32
"""RFC 7518, 3.2: a key of HS256 has at least the size of its hash."""

MIN_RSA_BITS: Final = 2048
"""RFC 7518, 3.3."""

MAX_TOKEN_LENGTH: Final = 16_384
SKEW: Final = 30
"""Seconds that another clock may be ahead, for ``nbf`` and ``iat``. ``exp`` has no grace."""

SECRET_ALGORITHMS: Final = frozenset({"HS256"})
KEY_ALGORITHMS: Final = frozenset({"RS256", "ES256", "EdDSA"})

TYPES: Final = frozenset({"jwt", "at+jwt"})
"""What ``typ`` may be, where it is given: a token that was made for something else (a logout, a proof of
possession) is none, even if it was signed with the same key (RFC 8725, 3.11; RFC 9068, 4)."""

REFETCH_AFTER: Final = 30.0
"""Seconds between two fetches of a JWKS URL for an unknown key: bad tokens must not make us busy."""
JWKS_LIFETIME: Final = 300.0


class AuthError(Exception):
    """A token is refused. ``code`` is ``unauthorized``, ``token_expired`` or ``token_revoked``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.info = error_info(code, message)


@dataclass(frozen=True, slots=True)
class Credential:
    """A verified token's claims, and the generation of the keys that it was verified with."""

    claims: Claims
    generation: int


class KeySource(Protocol):
    """Where the keys are that tokens are verified with."""

    algorithms: frozenset[str]
    remote: bool
    """Whether `wants_fetch` may ever say so."""
    mark: str
    """A short word for the keys: another for another secret. It tells too little to find the secret by."""

    @property
    def ready(self) -> bool:
        """Whether there is any key."""

    def find(self, header: dict[str, Any]) -> Any:
        """The key for a token with this header, or None when it is not at hand.

        The same object as long as it is the same key.
        """

    def fetch(self) -> None:
        """Get the keys again. May block; called off the loop."""

    def wants_fetch(self, header: dict[str, Any], now: float) -> bool:
        """Whether `fetch` should run before `find` is asked, at *now* (monotonic seconds)."""


class SecretKey:
    """One shared secret, for HS256."""

    algorithms = SECRET_ALGORITHMS
    remote = False
    ready = True

    def __init__(self, secret: bytes) -> None:
        if len(secret) < MIN_SECRET_BYTES:
            raise ConfigurationError(
                f"the signing key has {len(secret)} bytes; HS256 needs at least {MIN_SECRET_BYTES}"
            )
        if secret.startswith((b"-----BEGIN ", b"ssh-rsa ", b"ssh-ed25519 ", b"ecdsa-sha2-")):
            # Whoever knows a public key could sign with it (RFC 8725, 2.1).
            raise ConfigurationError(
                "the signing key is a certificate or a key of a pair; HS256 needs a secret of its own. "
                "For tokens of a pair's private key give `auth.jwks_file` or `auth.jwks_url`"
            )
        self._secret = secret
        self.mark = hashlib.sha256(b"wsmonitor signing key\0" + secret).hexdigest()[:8]
        self._key: PyJWK | None = None

    def find(self, header: dict[str, Any]) -> PyJWK:
        if self._key is None:
            from jwt import PyJWK

            # Made once: of bytes, the library would look at each token whether they could be PEM or DER.
            written = base64.urlsafe_b64encode(self._secret).rstrip(b"=").decode()
            self._key = PyJWK({"kty": "oct", "k": written, "alg": "HS256"})
        return self._key

    def fetch(self) -> None:
        """There is nothing to get."""

    def wants_fetch(self, header: dict[str, Any], now: float) -> bool:
        return False


class KeySet:
    """The public keys of a JSON Web Key Set (RFC 7517), from a file or a URL.

    A key verifies tokens of its own algorithm and no other. Of the set, keys for encryption, shared secrets
    and algorithms that are not accepted here are passed over.

    Args:
        load: reads the set; may block, may raise.
        algorithms: the accepted ones, out of `KEY_ALGORITHMS`.
        remote: whether *load* goes over the network and is to be repeated.
    """

    def __init__(
        self, load: Callable[[], dict[str, Any]], algorithms: frozenset[str], *, remote: bool
    ) -> None:
        self.algorithms = algorithms
        self.mark = "public keys"  # which, may change by itself
        self._load = load
        self.remote = remote
        self._keys: dict[tuple[str, str], PyJWK] = {}
        self._fetched: float | None = None

    @property
    def ready(self) -> bool:
        return bool(self._keys)

    def find(self, header: dict[str, Any]) -> PyJWK | None:
        kid, algorithm = header.get("kid"), header.get("alg")
        if kid is None and len(self._keys) == 1:
            (kid, _), _ = next(iter(self._keys.items()))
        if isinstance(kid, str) and isinstance(algorithm, str):
            return self._keys.get((kid, algorithm))
        return None

    def wants_fetch(self, header: dict[str, Any], now: float) -> bool:
        if not self.remote:
            return False
        age = None if self._fetched is None else now - self._fetched
        if age is None or age > JWKS_LIFETIME or (age > REFETCH_AFTER and self.find(header) is None):
            self._fetched = now
            return True
        return False

    def fetch(self) -> None:
        """Get the keys again; those of before stay if this raises.

        Raises:
            ValueError: it is no key set, or one with a private or weak key, or with one ``kid`` twice.
            Exception: whatever *load* raises.
        """
        entries = self._load().get("keys")
        if not isinstance(entries, list):
            raise ValueError("not a key set: it has no list `keys`")
        keys: dict[tuple[str, str], PyJWK] = {}
        for number, entry in enumerate(entries):
            key = _usable(entry, self.algorithms)
            if key is None:
                continue
            place = (key.key_id or f"#{number}", key.algorithm_name)
            if place in keys:
                raise ValueError(f"two keys for {place[1]} have the `kid` {place[0]!r}")
            keys[place] = key
        if not keys:
            raise ValueError(f"it has no key for {', '.join(sorted(self.algorithms))}")
        self._keys = keys


def _usable(entry: Any, algorithms: frozenset[str]) -> PyJWK | None:
    """The key of a set's *entry*; None if it is not one that verifies tokens here.

    Raises:
        ValueError: it ought not to be in a set of public keys, or is too weak.
    """
    from jwt import PyJWK
    from jwt.exceptions import PyJWTError

    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    try:
        key = PyJWK(entry)
    except PyJWTError:
        # A kind of key that is not known here, RFC 7517, 5. Its words could repeat the key.
        return None
    if key.algorithm_name not in algorithms:
        return None
    if "d" in entry:
        raise ValueError(f"the key {key.key_id!r} is a private one: whoever reads the set can make tokens")
    bits = getattr(key.key, "key_size", MIN_RSA_BITS)
    if entry.get("kty") == "RSA" and bits < MIN_RSA_BITS:
        raise ValueError(f"the RSA key {key.key_id!r} has {bits} bits; {MIN_RSA_BITS} is the least")
    return key


def key_set_from_file(path: Path, algorithms: frozenset[str]) -> KeySet:
    """The keys in a JWKS file.

    Raises:
        ConfigurationError: it cannot be read.
    """
    keys = KeySet(lambda: _object(msgspec.json.decode(path.read_bytes())), algorithms, remote=False)
    try:
        keys.fetch()
    except (OSError, ValueError, msgspec.MsgspecError) as exc:
        raise ConfigurationError(f"the key set {path} cannot be read: {exc}") from exc
    return keys


def key_set_from_url(url: str, algorithms: frozenset[str], *, timeout: float = 5.0) -> KeySet:
    """The keys behind a JWKS URL, fetched on first use."""
    from jwt import PyJWKClient

    client = PyJWKClient(url, cache_jwk_set=False, timeout=timeout)
    return KeySet(lambda: _object(client.fetch_data()), algorithms, remote=True)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


class Authenticator:
    """Verifies tokens, and says of a credential whether it still holds.

    Args:
        keys: where the keys are.
        revoked: whether a ``jti`` was revoked.
        audience, issuer: what ``aud`` and ``iss`` have to be.
        tenant_claim: the claim that names the tenant; "" for none.
    """

    def __init__(
        self,
        keys: KeySource,
        revoked: Callable[[str], bool],
        *,
        audience: str = AUDIENCE,
        issuer: str = ISSUER,
        tenant_claim: str = TENANT,
    ) -> None:
        self._keys = keys
        self._revoked = revoked
        self._audience = audience
        self._issuer = issuer
        self._tenant_claim = tenant_claim
        self._generation = 1
        self._verified = Verified()

    @property
    def mark(self) -> str:
        """A short word for what tokens are verified with: servers that take the same tokens have the same."""
        about = "\0".join((self._keys.mark, self._audience, self._issuer))
        return hashlib.sha256(about.encode()).hexdigest()[:8]

    def rotate(self, keys: KeySource) -> None:
        """Use other keys from now on: every credential of before is void."""
        self._keys = keys
        self._generation += 1
        self._verified.clear()

    def wants_fetch(self, token: str, now: float) -> bool:
        """Whether `fetch` should run first (off the loop), at *now* (monotonic seconds)."""
        if not self._keys.remote:
            return False
        try:
            return self._keys.wants_fetch(self._header(token), now)
        except AuthError:
            return False

    @property
    def has_keys(self) -> bool:
        """Whether any token can be verified."""
        return self._keys.ready

    def wants_keys(self, now: float) -> bool:
        """Whether `fetch` should run because there are none, at *now* (monotonic seconds)."""
        return self._keys.wants_fetch({}, now)

    def fetch(self) -> None:
        """Get the keys again. Blocks."""
        self._keys.fetch()

    def verify(self, token: str, wall: float) -> Credential:
        """What *token* says, at wall-clock time *wall* (seconds since 1970).

        Raises:
            AuthError: it is not valid here and now.
        """
        # What is no token by its form is not looked for: it may be as long as it likes.
        known = self._verified.find(token) if token.isascii() and len(token) <= MAX_TOKEN_LENGTH else None
        if known is None or self._keys.find(known.header) is not known.key:
            known = self._verify(token)
            self._verified.put(token, known)
        claims = known.claims
        if claims.nbf > wall + SKEW or claims.iat > wall + SKEW:
            raise AuthError("unauthorized", "the token is not valid yet")
        credential = Credential(claims, self._generation)
        problem = self.problem(credential, wall)
        if problem is not None:
            raise AuthError(problem.code, problem.message)
        return credential

    def _verify(self, token: str) -> Known:
        """All of it that is the same at any time."""
        seen = self._verified.header(token)
        header = self._header(token)
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._keys.algorithms:
            raise AuthError(
                "unauthorized",
                f"the token's algorithm {str(algorithm)[:32]!r} is not accepted; "
                f"this server takes {', '.join(sorted(self._keys.algorithms))}",
            )
        key = self._keys.find(header)
        if key is None:
            raise AuthError("unauthorized", "the token was signed with a key that this server does not know")
        payload = self._decode(token, key)
        head, *rest = token.split(".")
        try:
            if seen is None:
                compact.decode_json(compact.decode_part(head))
            compact.decode_json(compact.decode_part(rest[0]))
            compact.decode_part(rest[1])
        except compact.MalformedError as exc:
            raise AuthError("unauthorized", str(exc)) from None
        # Whoever is the tenant by another claim, `tenant` says nothing of it.
        payload[TENANT] = payload.get(self._tenant_claim, "") if self._tenant_claim else ""
        try:
            claims = msgspec.convert(payload, Claims)
            # A lone surrogate passes through JSON's escapes, and could not be written anywhere.
            msgspec.json.encode(claims)
        except (msgspec.ValidationError, UnicodeError) as exc:
            raise AuthError("unauthorized", f"the token's claims are not valid: {exc}") from exc
        return Known(header, key, claims)

    def _decode(self, token: str, key: PyJWK) -> dict[str, Any]:
        """What PyJWT has to say about *token*."""
        import jwt

        try:
            return jwt.decode(
                token,
                key,
                algorithms=sorted(self._keys.algorithms),
                audience=self._audience,
                issuer=self._issuer,
                options={
                    "require": ["exp", "aud", "iss", "jti", "sub"],
                    # The times are checked against the clock that was passed in.
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.exceptions.PyJWTError as exc:
            raise AuthError("unauthorized", f"the token is not valid here: {_explain(exc)}") from exc
        except RecursionError as exc:
            # Its words are as long as the stack.
            raise AuthError("unauthorized", "the token is nested too deeply") from exc

    def problem(self, credential: Credential, wall: float) -> ErrorInfo | None:
        """Why *credential* no longer holds at *wall* (seconds since 1970); None while it does."""
        claims = credential.claims
        if wall >= claims.exp:
            return error_info("token_expired", "the token has expired")
        if credential.generation != self._generation:
            return error_info("unauthorized", "the server's signing keys have changed")
        if self._revoked(claims.jti):
            return error_info("token_revoked", "the token has been revoked")
        return None

    def _header(self, token: str) -> dict[str, Any]:
        import jwt

        if not token:
            raise AuthError("unauthorized", "no token")
        if len(token) > MAX_TOKEN_LENGTH:
            raise AuthError("unauthorized", f"the token is longer than {MAX_TOKEN_LENGTH:,} characters")
        if not token.isascii():
            # What a header's odd bytes are decoded to cannot be encoded again.
            raise AuthError("unauthorized", "the token is not a JWT")
        seen = self._verified.header(token)
        if seen is not None:
            return seen
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.exceptions.PyJWTError, ValueError, RecursionError) as exc:
            raise AuthError("unauthorized", "the token is not a JWT") from exc
        if "crit" in header:
            # RFC 7515, 4.1.11: who does not understand all of these has to refuse; we understand none.
            raise AuthError("unauthorized", "the token's header has `crit`, and no extension is known here")
        kind = header.get("typ", "JWT")
        if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in TYPES:
            raise AuthError("unauthorized", f"the token is a {str(kind)[:32]!r}, which is for something else")
        return header


def _explain(exc: Exception) -> str:
    # The library's words name the claim or the signature and never the token.
    return str(exc) or type(exc).__name__


def issue(
    secret: bytes,
    *,
    sub: str,
    role: str,
    sessions: Sequence[str],
    issued: int,
    ttl: int,
    jti: str,
    name: str = "",
    tenant: str = "",
    audience: str = AUDIENCE,
    issuer: str = ISSUER,
) -> str:
    """A token signed with *secret* (HS256), valid for *ttl* seconds from *issued* (seconds since 1970)."""
    import jwt

    claims: dict[str, Any] = {
        "sub": sub,
        "role": role,
        "sessions": list(sessions),
        "iat": issued,
        "exp": issued + ttl,
        "aud": audience,
        "iss": issuer,
        "jti": jti,
    }
    if name:
        claims["name"] = name
    if tenant:
        claims[TENANT] = tenant
    return jwt.encode(claims, secret, algorithm="HS256")
