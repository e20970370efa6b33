"""RFC 8725 (JSON Web Token best current practices) and OWASP ASVS 5.0, V9 (self-contained tokens), line by
line. The same tokens at a real socket: tests/server_front/test_handshake.py, test_keys.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from wsmonitor.client.tokens import issue_token
from wsmonitor.protocol.errors import ConfigurationError
from wsmonitor_server.auth import (
    KEY_ALGORITHMS,
    MAX_TOKEN_LENGTH,
    Authenticator,
    AuthError,
    KeySet,
    SecretKey,
    key_set_from_file,
)

from .tokens import CLAIMS, NOW, SECRET, part, signed, token

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
PRIVATE: dict[str, Any] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}
TO_JWK: dict[str, Callable[..., Any]] = {
    "RS256": RSAAlgorithm.to_jwk,
    "ES256": ECAlgorithm.to_jwk,
    "EdDSA": OKPAlgorithm.to_jwk,
}


def public(name: str, **more: Any) -> dict[str, Any]:
    """The public half of our key for algorithm *name*, as a JSON Web Key."""
    return {**TO_JWK[name](PRIVATE[name].public_key(), as_dict=True), "kid": name, "alg": name, **more}


def pem(key: Any) -> bytes:
    found: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return found


def with_secret() -> Authenticator:
    return Authenticator(SecretKey(SECRET), lambda jti: False)


def with_keys(*entries: dict[str, Any], algorithms: frozenset[str] = KEY_ALGORITHMS) -> Authenticator:
    keys = KeySet(lambda: {"keys": list(entries)}, algorithms, remote=False)
    keys.fetch()
    return Authenticator(keys, lambda jti: False)


def refused(auth: Authenticator, given: str, words: str = "", code: str = "unauthorized") -> None:
    """*given* is refused in words that do not repeat it."""
    with pytest.raises(AuthError) as caught:
        auth.verify(given, NOW)
    info = caught.value.info
    assert info.code == code
    assert words in info.message
    for piece in given.split("."):
        assert len(piece) < 8 or piece not in info.message


def test_what_is_in_order_is_taken() -> None:
    """The tokens of this file are refused for the one thing that is wrong with them."""
    assert with_secret().verify(token(), NOW).claims.sub == "eve"
    for name, key in PRIVATE.items():
        given = jwt.encode(CLAIMS, key, algorithm=name, headers={"kid": name})
        assert with_keys(*map(public, PRIVATE)).verify(given, NOW).claims.sub == "eve"


# -- algorithms


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "nOnE", "", None, 0, [], {}, ["HS256"], "hs256"]
)
@pytest.mark.parametrize("signature", ["", "AAAA"])
def test_a_token_without_a_signature_is_none(algorithm: object, signature: str) -> None:
    """RFC 8725, 2.1 and 3.1: ``alg: none`` in any spelling; ASVS 9.1.1."""
    refused(with_secret(), f"{part({'alg': algorithm})}.{part(CLAIMS)}.{signature}")


def test_a_header_without_an_algorithm_is_refused() -> None:
    """RFC 8725, 3.1."""
    refused(with_secret(), signed({"typ": "JWT"}, CLAIMS))
    refused(with_keys(public("RS256")), signed({"typ": "JWT"}, CLAIMS))


@pytest.mark.parametrize(
    "algorithm", ["HS384", "HS512", "RS512", "PS256", "ES384", "ES256K", "RSA-OAEP", "dir"]
)
def test_the_algorithm_is_the_servers_choice(algorithm: str) -> None:
    """RFC 8725, 3.1 and 3.2; ASVS 9.1.2: an allow-list, of which the token may not choose the rest."""
    digest = {"HS384": "sha384", "HS512": "sha512"}.get(algorithm, "sha256")
    refused(with_secret(), signed({"alg": algorithm}, CLAIMS, digest=digest), "algorithm")
    refused(with_keys(*map(public, PRIVATE)), signed({"alg": algorithm, "kid": "RS256"}, CLAIMS), "algorithm")


@pytest.mark.parametrize("name", PRIVATE)
def test_a_public_key_is_no_secret(name: str) -> None:
    """RFC 8725, 2.1: an HMAC made with the public key, in every form in which one may have it."""
    key = PRIVATE[name]
    raw = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for secret in (pem(key), pem(key).strip(), raw, json.dumps(public(name)).encode()):
        for algorithm in ("HS256", name):
            for kid in (name, None):
                header = {"alg": algorithm, **({"kid": kid} if kid else {})}
                refused(with_keys(public(name)), signed(header, CLAIMS, secret))


@pytest.mark.parametrize("signer", PRIVATE)
@pytest.mark.parametrize("claimed", PRIVATE)
def test_a_key_verifies_its_own_algorithm_only(signer: str, claimed: str) -> None:
    """RFC 8725, 3.1: "each key MUST be used with exactly one algorithm"."""
    if signer == claimed:
        return
    header, _, rest = jwt.encode(CLAIMS, PRIVATE[signer], algorithm=signer).partition(".")
    given = f"{part({'alg': claimed, 'kid': signer})}.{rest}"
    assert header
    refused(with_keys(*map(public, PRIVATE)), given, "a key that this server does not know")


def test_an_algorithm_that_the_server_was_not_given_is_refused_though_its_key_is_there() -> None:
    """RFC 8725, 3.1; ASVS 9.1.2."""
    auth = with_keys(*map(public, PRIVATE), algorithms=frozenset({"ES256"}))
    refused(auth, jwt.encode(CLAIMS, RSA, algorithm="RS256", headers={"kid": "RS256"}), "RS256")


# -- keys


def test_a_secret_in_a_set_of_public_keys_is_no_key() -> None:
    """RFC 8725, 2.1 and 3.5: whoever reads the published set could sign with it."""
    shared = {"kty": "oct", "kid": "s", "k": part(SECRET), "alg": "HS256"}
    auth = with_keys(public("ES256"), shared)
    for algorithm in ("HS256", "RS256", "ES256", "EdDSA"):
        refused(auth, signed({"alg": algorithm, "kid": "s"}, CLAIMS))
    with pytest.raises(ValueError, match="no key for"):
        with_keys(shared)


@pytest.mark.parametrize(
    "secret", [b"", b"x", b"password", b"x" * 31, pem(RSA), pem(EC), pem(ED).strip(), b"ssh-rsa " + b"A" * 99]
)
def test_a_weak_or_a_public_secret_is_refused_at_the_start(secret: bytes) -> None:
    """RFC 8725, 3.5 (and RFC 7518, 3.2): at least as long as the hash; and no half of a pair."""
    with pytest.raises(ConfigurationError, match=r"at least 32|of a pair"):
        SecretKey(secret)


def test_a_key_that_is_too_short_to_sign_with_makes_no_token() -> None:
    """RFC 8725, 3.5, on the side that issues."""
    with pytest.raises(ConfigurationError, match="32 is the least"):
        issue_token(b"x" * 31, sub="a")


def test_a_weak_key_in_a_set_is_refused() -> None:
    """RFC 8725, 3.5 (and RFC 7518, 3.3)."""
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    entry = {**RSAAlgorithm.to_jwk(weak.public_key(), as_dict=True), "kid": "w"}
    with pytest.raises(ValueError, match="1024 bits"):
        with_keys(public("ES256"), entry)


def test_a_private_key_in_a_set_is_refused_without_repeating_it(tmp_path: Path) -> None:
    """RFC 8725, 3.5."""
    entry = {**ECAlgorithm.to_jwk(EC, as_dict=True), "kid": "p"}
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [entry]}))
    with pytest.raises(ConfigurationError, match="private") as caught:
        key_set_from_file(path, KEY_ALGORITHMS)
    assert entry["d"] not in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "EC", "crv": "secp256k1"},
        {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
        {"kty": "new"},
        [[]],
        {},
        [],
        True,
        None,
        5,
        public("RS256", use="enc"),
        public("RS256", alg="RSA-OAEP"),
        public("ES256", crv="P-384"),
    ],
)
def test_entries_that_are_no_keys_for_us_are_passed_over(entry: Any) -> None:
    """RFC 7517, 5, and RFC 8725, 3.4: an invalid point is no key. The set's others go on working."""
    auth = with_keys(public("EdDSA"), entry)
    given = jwt.encode(CLAIMS, ED, algorithm="EdDSA", headers={"kid": "EdDSA"})
    assert auth.verify(given, NOW).claims.sub == "eve"
    refused(auth, jwt.encode(CLAIMS, RSA, algorithm="RS256", headers={"kid": "RS256"}))


def test_two_keys_of_one_name_are_refused_and_those_of_before_stay() -> None:
    """RFC 7517, 4.5: which one was meant cannot be told."""
    answers = [[public("EdDSA")], [public("ES256", kid="k"), public("ES256", kid="k")]]
    keys = KeySet(lambda: {"keys": answers.pop(0)}, KEY_ALGORITHMS, remote=True)
    keys.fetch()
    with pytest.raises(ValueError, match="`kid` 'k'"):
        keys.fetch()
    given = jwt.encode(CLAIMS, ED, algorithm="EdDSA", headers={"kid": "EdDSA"})
    assert Authenticator(keys, lambda jti: False).verify(given, NOW).claims.sub == "eve"


# -- the header


@pytest.mark.parametrize(
    "kid",
    [
        "../../../../dev/null",
        "/proc/self/environ",
        "file:///etc/passwd",
        "https://evil.example.org/key",
        "http://169.254.169.254/latest/meta-data/",
        "' OR '1'='1",
        "x' UNION SELECT 'secret' --",
        "| cat /etc/passwd",
        "${jndi:ldap://evil}",
        "RS256\x00",
        "rs256",
        "RS256 ",
        "\uff32S256",
        "",
        "#0",
        "x" * 4000,
        5,
        True,
        None,
        [],
        ["RS256"],
        {"RS256": 1},
    ],
)
def test_a_key_id_is_a_name_in_a_table_and_nothing_else(kid: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 8725, 3.10: no path, no query, no URL comes of ``kid``; unknown ones are refused."""

    def forbidden(*arguments: object, **more: object) -> None:
        raise AssertionError(f"something was opened for a `kid`: {arguments}")

    auth = with_keys(*map(public, PRIVATE))
    given = signed({"alg": "RS256", "kid": kid}, CLAIMS)
    for place in ("builtins.open", "os.open", "socket.socket.connect", "socket.getaddrinfo"):
        monkeypatch.setattr(place, forbidden)
    refused(auth, given)


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c"])
def test_a_token_brings_no_key_along(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 8725, 3.10 and ASVS 9.1.3: key material comes from the configuration alone."""
    evil = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk = {**RSAAlgorithm.to_jwk(evil.public_key(), as_dict=True), "kid": "RS256"}
    values: dict[str, Any] = {"jwk": jwk, "x5c": [part(pem(evil))]}
    header = {"kid": "RS256", name: values.get(name, "https://evil.example.org/keys")}
    given = jwt.encode(CLAIMS, evil, algorithm="RS256", headers=header)

    def forbidden(*arguments: object) -> None:
        raise AssertionError("a token made the server connect somewhere")

    monkeypatch.setattr("socket.socket.connect", forbidden)
    refused(with_keys(public("RS256")), given, "not valid here")


@pytest.mark.parametrize("crit", [["exp"], ["b64"], ["http://example.org/x"], [], "exp", None, {}])
def test_extensions_that_must_be_understood_are_not(crit: object) -> None:
    """RFC 7515, 4.1.11: every ``crit`` is refused, as none of its extensions is known."""
    header = {"crit": crit, "exp": 1, "b64": True, "http://example.org/x": 1}
    refused(with_secret(), token(header=header))


def test_an_unencoded_payload_is_refused() -> None:
    """RFC 7797, 6: ``b64: false`` without ``crit``, and with it."""
    for header in ({"b64": False}, {"b64": False, "crit": ["b64"]}):
        refused(with_secret(), token(header=header))


@pytest.mark.parametrize("kind", ["logout+jwt", "dpop+jwt", "secevent+jwt", "JWE", "", 5, None, ["JWT"]])
def test_a_token_that_was_made_for_something_else_is_refused(kind: object) -> None:
    """RFC 8725, 2.8 and 3.11 (explicit typing); ASVS 9.2.2."""
    refused(with_secret(), token(header={"typ": kind}), "something else")


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", ...])
def test_the_types_of_access_tokens_are_taken(kind: Any) -> None:
    """RFC 7519, 5.1; RFC 9068, 4: case does not count, "application/" may be left out, and the whole."""
    header = {"alg": "HS256", **({} if kind is ... else {"typ": kind})}
    assert with_secret().verify(signed(header, CLAIMS), NOW).claims.sub == "eve"


def test_an_id_token_has_no_rights_of_itself() -> None:
    """RFC 8725, 2.8; ASVS 9.2.2: a provider's other token for the same audience covers no session."""
    claims = with_secret().verify(token(role=..., sessions=...), NOW).claims
    assert (claims.role, claims.sessions) == ("observe", ())
    assert not claims.covers("any")


# -- form


def test_a_token_in_a_token_is_none() -> None:
    """RFC 8725, 2.6 and 3.3: a nested one (``cty: JWT``), in every place where one may stand."""
    inner = token()
    refused(with_secret(), signed({"alg": "HS256", "cty": "JWT"}, inner.encode()))
    refused(with_secret(), signed({"alg": "HS256", "cty": "JWT"}, json.dumps(inner).encode()))
    refused(with_secret(), f"{inner}.{inner}")
    refused(with_secret(), token(sub=inner, jti=...))


def test_an_encrypted_token_is_none() -> None:
    """RFC 8725, 2.3 and 2.6: a JWE, with five parts, is never decrypted."""
    header = {"alg": "dir", "enc": "A128GCM"}
    refused(with_secret(), ".".join([part(header), "", part(b"iv" * 6), part(CLAIMS), part(b"tag" * 5)]))
    refused(with_secret(), ".".join([part({**header, "alg": "HS256"}), *token().split(".")[1:], "AA", "AA"]))


def test_the_json_serialization_is_none() -> None:
    """RFC 7515, 7.2: the compact one is the only one."""
    header, payload, signature = token().split(".")
    refused(with_secret(), json.dumps({"protected": header, "payload": payload, "signature": signature}))


@pytest.mark.parametrize(
    "given",
    [
        "",
        ".",
        "..",
        "...",
        "a.b",
        "a.b.c",
        "\udcff.\udcff.\udcff",
        "é.é.é",
        "null.null.null",
        f"{part(b'[' * 5000)}.{part(CLAIMS)}.AA",
        f"{part(b'{}')}.{part(b'{}')}.",
        f"{part([])}.{part(CLAIMS)}.AA",
        f"{part(b'null')}.{part(CLAIMS)}.AA",
        f"{part(bytes(range(256)))}.{part(CLAIMS)}.AA",
        signed({"alg": "HS256"}, b"[" * 5000),
        signed({"alg": "HS256"}, b'{"exp":' + b"1" * 5000 + b"}"),
        signed({"alg": "HS256"}, [CLAIMS]),
        signed({"alg": "HS256"}, json.dumps(CLAIMS).encode("utf-16")),
        token() + "\n",
        " " + token(),
        token().replace(".", ".\n"),
        token()[:-1],
        token() + "A",
    ],
)
def test_what_is_no_token_at_all(given: str) -> None:
    """RFC 8725, 3.7 (UTF-8) and RFC 7515, 5.2: nothing of this gets further than to a refusal."""
    refused(with_secret(), given)


def test_a_signature_has_one_spelling() -> None:
    """RFC 7515, 5.2: the last letter's spare bits cannot be used to write a token in a second way, by which
    a list of seen tokens would be passed."""
    given = token()
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    taken = []
    for letter in letters:
        try:
            with_secret().verify(given[:-1] + letter, NOW)
        except AuthError:
            continue
        taken.append(letter)
    assert taken == [given[-1]]


def test_a_huge_token_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """ASVS 9.1.1 and protocol, rule 17: what it costs does not depend on what was sent."""
    auth, given = with_secret(), token(padding="x" * MAX_TOKEN_LENGTH)
    monkeypatch.setattr("jwt.get_unverified_header", None)
    refused(auth, given, "longer than 16,384")
    refused(auth, "a" * 10_000_000, "longer than 16,384")


@pytest.mark.parametrize(
    "claims",
    [
        json.dumps(CLAIMS)[:-1] + ', "sub": "mallory"}',
        json.dumps(CLAIMS)[:-1] + ', "exp": 9000000000}',
        json.dumps(CLAIMS)[:-1] + ', "\\u0073ub": "mallory"}',
        json.dumps(CLAIMS)[:-1] + ', "other": {"a": 1, "a": 2}}',
    ],
)
def test_no_claim_is_there_twice(claims: str) -> None:
    """RFC 7519, 4: two readers must not read two different things in one token."""
    refused(with_secret(), signed({"alg": "HS256"}, claims.encode()), "twice")
    doubled = b'{"alg":"HS256","typ":"JWT","typ":"JWT"}'
    refused(with_secret(), signed(doubled, CLAIMS), "twice")


# -- claims


@pytest.mark.parametrize(
    "audience",
    [
        ..., None, "", "WSMONITOR", "wsmonitor ", "wsmonitor/", "wsmonitorx", "another", [], ["another"],
        [[]], {},
        {"wsmonitor": 1}, 5, True, [None], ["wsmonitor", 5], "\uff57smonitor",
    ],
)  # fmt: skip
def test_the_audience_has_to_be_this_server(audience: object) -> None:
    """RFC 8725, 3.9; ASVS 9.2.3."""
    refused(with_secret(), token(aud=audience))


@pytest.mark.parametrize("audience", ["wsmonitor", ["wsmonitor"], ["another", "wsmonitor"]])
def test_the_audience_may_be_one_of_several(audience: object) -> None:
    """RFC 7519, 4.1.3."""
    assert with_secret().verify(token(aud=audience), NOW).claims.sub == "eve"


@pytest.mark.parametrize(
    "issuer", [..., None, "", "WSMONITOR", "wsmonitor/", "https://evil", ["wsmonitor"], {}, 5, True]
)
def test_the_issuer_has_to_be_the_configured_one(issuer: object) -> None:
    """RFC 8725, 3.8."""
    refused(with_secret(), token(iss=issuer))


@pytest.mark.parametrize("name", ["exp", "aud", "iss", "jti", "sub"])
def test_the_required_claims_are_required(name: str) -> None:
    """RFC 8725, 3.8, 3.9; ASVS 9.2.1: a token without an end does not exist here."""
    refused(with_secret(), token(**{name: ...}))


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value",
    [
        "1900000000", 1900000000.5, float("nan"), float("inf"), float("-inf"), 10**400, 2**63, 2**53, -1,
        True, None,
        [], {}, [1900000000], "",
    ],
)  # fmt: skip
def test_a_time_is_a_whole_number_of_seconds(claim: str, value: object) -> None:
    """RFC 7519, 4.1.4 to 4.1.6; ASVS 9.2.1: nothing that compares oddly, and nothing that no clock holds."""
    refused(with_secret(), token(**{claim: value}))


@pytest.mark.parametrize(
    ("claims", "at", "code"),
    [
        ({"exp": 1000}, 999.999, ""),
        ({"exp": 1000}, 1000, "token_expired"),
        ({"exp": 0}, 1000, "token_expired"),
        ({"nbf": 1030}, 1000, ""),
        ({"nbf": 1031}, 1000, "unauthorized"),
        ({"iat": 1030}, 1000, ""),
        ({"iat": 1031}, 1000, "unauthorized"),
    ],
)
def test_when_a_token_is_valid(claims: dict[str, int], at: float, code: str) -> None:
    """RFC 7519, 4.1.4 to 4.1.6; ASVS 9.2.1: another clock may be 30 s ahead; an end has no grace."""
    given = token(**{"iat": 0, "exp": 9_000, **claims})
    if code:
        with pytest.raises(AuthError) as caught:
            with_secret().verify(given, at)
        assert caught.value.info.code == code
    else:
        assert with_secret().verify(given, at).claims.jti == "j1"


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": ""},
        {"sub": "x" * 257},
        {"sub": 5},
        {"sub": None},
        {"jti": ""},
        {"jti": "x" * 129},
        {"jti": 5},
        {"name": "x" * 129},
        {"role": "root"},
        {"role": "Admin"},
        {"role": ["admin"]},
        {"role": None},
        {"sessions": "*"},
        {"sessions": {"*": 1}},
        {"sessions": [5]},
        {"sessions": [["*"]]},
        {"sessions": None},
    ],
)
def test_claims_have_types_and_lengths(claims: dict[str, Any]) -> None:
    """RFC 8725, 3.8: what cannot be understood is refused. A ``jti`` longer than a message about it may hold
    could not be revoked."""
    refused(with_secret(), token(**claims))


def test_no_token_is_issued_that_no_server_would_take() -> None:
    """The issuing side has the same bounds."""
    for wrong in ({"sub": "x" * 257}, {"sub": "a", "name": "x" * 129}, {"sub": "a", "now": 2.0**53}):
        with pytest.raises(ConfigurationError, match="no server would take"):
            issue_token(SECRET, **wrong)  # type: ignore[arg-type]
