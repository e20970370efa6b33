"""The authenticator by itself: when a credential holds, when keys are fetched, and the words of refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from jwt.algorithms import ECAlgorithm

from wsmonitor.protocol.errors import ConfigurationError
from wsmonitor_server.auth import (
    JWKS_LIFETIME,
    KEY_ALGORITHMS,
    MAX_TOKEN_LENGTH,
    REFETCH_AFTER,
    SKEW,
    Authenticator,
    AuthError,
    KeySet,
    SecretKey,
    issue,
    key_set_from_file,
    key_set_from_url,
)
from wsmonitor_server.compact import MalformedError, decode_json, decode_part

from .test_tokens import EC, ED, public
from .tokens import CLAIMS, NOW, SECRET, part, signed, token

TWICE = "the token names a claim or a header parameter twice"


def words(auth: Authenticator, given: str, wall: float = NOW) -> tuple[str, str]:
    """The code and the words with which *given* is refused."""
    with pytest.raises(AuthError) as caught:
        auth.verify(given, wall)
    assert str(caught.value) == caught.value.info.message
    return caught.value.info.code, caught.value.info.message


def with_secret(revoked: set[str] | None = None, **more: Any) -> Authenticator:
    return Authenticator(SecretKey(SECRET), (revoked or set()).__contains__, **more)


REFUSALS = [
    ("", "no token"),
    ("a" * (MAX_TOKEN_LENGTH + 1), "the token is longer than 16,384 characters"),
    ("ä.b.c", "the token is not a JWT"),
    ("a.b.c", "the token is not a JWT"),
    (
        token(header={"crit": ["b64"], "b64": True}),
        "the token's header has `crit`, and no extension is known here",
    ),
    (token(header={"typ": "x" * 40}), f"the token is a '{'x' * 32}', which is for something else"),
    (
        token(header={"alg": "y" * 40}),
        f"the token's algorithm '{'y' * 32}' is not accepted; this server takes HS256",
    ),
    (
        token(b"another secret of thirty-two bytes"),
        "the token is not valid here: Signature verification failed",
    ),
    (token(aud="x"), "the token is not valid here: Audience doesn't match"),
    (
        signed({"alg": "HS256"}, json.dumps(CLAIMS)[:-1].encode() + b', "sub": "b"}'),
        "the token names a claim or a header parameter twice",
    ),
    (token(iat=int(NOW) + SKEW + 1), "the token is not valid yet"),
    (token(nbf=int(NOW) + SKEW + 1), "the token is not valid yet"),
]


@pytest.mark.parametrize(("given", "message"), REFUSALS, ids=[message for _, message in REFUSALS])
def test_what_a_refusal_says(given: str, message: str) -> None:
    assert words(with_secret(), given) == ("unauthorized", message)


def test_a_token_of_exactly_the_longest_length_is_read() -> None:
    bare = len(token(name=""))
    fill = next(n for n in range(12_000, 13_000) if len(token(x="x" * n)) == MAX_TOKEN_LENGTH)
    assert bare < MAX_TOKEN_LENGTH
    assert with_secret().verify(token(x="x" * fill), NOW).claims.sub == "eve"
    longer = next(n for n in range(fill, fill + 9) if len(token(x="x" * n)) > MAX_TOKEN_LENGTH)
    assert words(with_secret(), token(x="x" * longer))[1].startswith("the token is longer")


def test_the_algorithms_that_are_taken_are_named_in_order() -> None:
    keys = KeySet(lambda: {"keys": [public("ES256")]}, KEY_ALGORITHMS, remote=False)
    keys.fetch()
    _, message = words(Authenticator(keys, lambda jti: False), token())
    assert message == "the token's algorithm 'HS256' is not accepted; this server takes ES256, EdDSA, RS256"
    given = jwt.encode(CLAIMS, ED, algorithm="EdDSA", headers={"kid": "EdDSA"})
    _, message = words(Authenticator(keys, lambda jti: False), given)
    assert message == "the token was signed with a key that this server does not know"


def test_times_are_judged_by_the_clock_that_is_passed_in_alone() -> None:
    """Whatever the clock of this machine says: in the far future, and long ago."""
    for wall in (1_000.0, 20_000_000_000.0):
        times = {"iat": int(wall) + SKEW, "nbf": int(wall) + SKEW, "exp": int(wall) + 60}
        assert with_secret().verify(token(**times), wall).claims.exp == int(wall) + 60


def test_a_credential_holds_until_it_has_expired_is_revoked_or_the_keys_have_changed() -> None:
    revoked: set[str] = set()
    auth = Authenticator(SecretKey(SECRET), revoked.__contains__)
    credential = auth.verify(token(), NOW)
    end = CLAIMS["exp"]
    assert auth.problem(credential, end - 0.001) is None
    problem = auth.problem(credential, end)
    assert problem is not None
    assert (problem.code, problem.message) == ("token_expired", "the token has expired")
    assert words(auth, token(), end) == ("token_expired", "the token has expired")
    revoked.add("another")
    assert auth.problem(credential, NOW) is None
    revoked.add("j1")
    problem = auth.problem(credential, NOW)
    assert problem is not None
    assert (problem.code, problem.message) == ("token_revoked", "the token has been revoked")
    assert words(auth, token()) == ("token_revoked", "the token has been revoked")


def test_other_keys_make_every_credential_of_before_void() -> None:
    auth = with_secret()
    credentials = [auth.verify(token(), NOW)]
    for _ in range(3):
        auth.rotate(SecretKey(SECRET))
        for old in credentials:
            problem = auth.problem(old, NOW)
            assert problem is not None
            assert (problem.code, problem.message) == (
                "unauthorized",
                "the server's signing keys have changed",
            )
        credentials.append(auth.verify(token(), NOW))
        assert auth.problem(credentials[-1], NOW) is None
    other = b"a second secret of thirty-two bytes!"
    auth.rotate(SecretKey(other))
    assert words(auth, token())[0] == "unauthorized"
    assert auth.verify(token(other), NOW).claims.sub == "eve"


def test_audience_and_issuer_are_the_configured_ones() -> None:
    auth = with_secret(audience="hub", issuer="https://sso")
    assert auth.verify(token(aud="hub", iss="https://sso"), NOW).claims.aud == "hub"
    for claims in ({"aud": "hub"}, {"iss": "https://sso"}, {}):
        assert words(auth, token(**claims))[0] == "unauthorized"


def test_a_token_is_written_in_one_way_whoever_decodes_it() -> None:
    """Also where the library passes over letters that are none, and over bits that nobody reads."""
    for right, data in (("", b""), ("QQ", b"A"), ("QUI", b"AB"), ("QUJD", b"ABC"), ("QUJDRA", b"ABCD")):
        assert decode_part(right) == data
    for wrong in ("Q", "QR", "QUJ", "QUI=", "Q!!!!Q", "QQ==", "QQ.QR"):
        with pytest.raises(MalformedError) as caught:
            decode_part(wrong)
        assert str(caught.value) == "the token is not written as a JWT is"


def test_what_two_readers_could_read_differently_is_refused_in_words() -> None:
    for data, message in (
        (b"[" * 100_000, "the token is nested too deeply"),
        (b"\xff", "the token is not written in UTF-8"),
        (b'{"a":1,"a":1}', TWICE),
        (b'{"o":{"a":1,"a":2}}', TWICE),
    ):
        with pytest.raises(MalformedError) as caught:
            decode_json(data)
        assert str(caught.value) == message
    assert decode_json(b'{"a":1,"b":1}') == {"a": 1, "b": 1}


def test_what_is_nested_too_deeply_for_the_library_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def deep(*given: object, **named: object) -> None:
        raise RecursionError("as long as the stack")

    monkeypatch.setattr(jwt, "decode", deep)
    assert words(with_secret(), token()) == ("unauthorized", "the token is nested too deeply")


# -- where keys come from


def test_a_private_key_in_a_set_is_named_and_not_repeated() -> None:
    entry = {**ECAlgorithm.to_jwk(EC, as_dict=True), "kid": "p"}
    keys = KeySet(lambda: {"keys": [entry]}, KEY_ALGORITHMS, remote=False)
    with pytest.raises(ValueError) as caught:
        keys.fetch()
    assert str(caught.value) == "the key 'p' is a private one: whoever reads the set can make tokens"


def test_a_key_server_is_given_five_seconds_and_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, object]] = []

    class Client:
        def __init__(self, uri: str, **options: object) -> None:
            made.append({"uri": uri, **options})

        def fetch_data(self) -> dict[str, object]:
            return {"keys": [public("ES256")]}

    monkeypatch.setattr(jwt, "PyJWKClient", Client)
    key_set_from_url("https://sso/jwks", KEY_ALGORITHMS).fetch()
    key_set_from_url("https://sso/jwks", KEY_ALGORITHMS, timeout=2.0)
    common = {"uri": "https://sso/jwks", "cache_jwk_set": False}
    assert made == [{**common, "timeout": 5.0}, {**common, "timeout": 2.0}]


@pytest.mark.parametrize("begin", [b"-----BEGIN ", b"ssh-rsa ", b"ssh-ed25519 ", b"ecdsa-sha2-"])
def test_a_published_key_is_no_secret(begin: bytes) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SecretKey(begin + b"A" * 99)
    assert str(caught.value) == (
        "the signing key is a certificate or a key of a pair; HS256 needs a secret of its own. "
        "For tokens of a pair's private key give `auth.jwks_file` or `auth.jwks_url`"
    )
    assert SecretKey(b" " + begin + b"A" * 99).find({}).key == b" " + begin + b"A" * 99


def test_a_secret_has_thirty_two_bytes_at_least() -> None:
    with pytest.raises(ConfigurationError, match="the signing key has 31 bytes; HS256 needs at least 32"):
        SecretKey(b"x" * 31)
    key = SecretKey(b"x" * 32)
    key.fetch()
    assert (key.find({"kid": "any"}).key, key.wants_fetch({}, 1e9)) == (b"x" * 32, False)


def test_a_local_set_is_read_once() -> None:
    keys = KeySet(lambda: {"keys": [public("ES256")]}, KEY_ALGORITHMS, remote=False)
    assert not keys.wants_fetch({}, 0.0)
    assert not keys.wants_fetch({"kid": "unknown", "alg": "ES256"}, 1e9)


def test_a_remote_set_is_fetched_at_first_when_it_is_old_and_for_a_key_that_is_not_known() -> None:
    known, unknown = {"kid": "ES256", "alg": "ES256"}, {"kid": "x", "alg": "ES256"}

    def fetched(at: float) -> KeySet:
        keys = KeySet(lambda: {"keys": [public("ES256")]}, KEY_ALGORITHMS, remote=True)
        assert keys.wants_fetch(known, at)
        keys.fetch()
        return keys

    for header, age, wanted in (
        (known, 0.0, False),
        (unknown, 0.0, False),
        (unknown, REFETCH_AFTER, False),
        (unknown, REFETCH_AFTER + 0.1, True),
        (known, REFETCH_AFTER + 0.1, False),
        (known, JWKS_LIFETIME, False),
        (known, JWKS_LIFETIME + 0.1, True),
    ):
        keys = fetched(1000.0)
        assert keys.wants_fetch(header, 1000.0 + age) == wanted
        if wanted:
            assert not keys.wants_fetch(unknown, 1000.0 + age + REFETCH_AFTER), "it was asked just now"


def test_who_sends_what_is_no_token_causes_no_fetch() -> None:
    keys = KeySet(lambda: {"keys": [public("ES256")]}, KEY_ALGORITHMS, remote=True)
    auth = Authenticator(keys, lambda jti: False)
    assert not auth.wants_fetch("nonsense", 1000.0)
    given = f"{part({'alg': 'ES256', 'kid': 'ES256'})}.{part(CLAIMS)}.AAAA"
    assert auth.wants_fetch(given, 1000.0)
    auth.fetch()
    assert not auth.wants_fetch(given, 1000.0)


def test_a_token_without_a_key_id_means_the_only_key_there_is() -> None:
    one = KeySet(lambda: {"keys": [public("ES256")]}, KEY_ALGORITHMS, remote=False)
    one.fetch()
    assert one.find({"alg": "ES256"}) is one.find({"alg": "ES256", "kid": "ES256"}) is not None
    assert one.find({"alg": "ES256", "kid": "x"}) is None
    assert one.find({"alg": "RS256"}) is None
    assert one.find({"kid": "ES256"}) is None
    assert one.find({"kid": ["ES256"], "alg": "ES256"}) is None
    assert one.find({"kid": "ES256", "alg": ["ES256"]}) is None
    two = KeySet(lambda: {"keys": [public("ES256"), public("EdDSA")]}, KEY_ALGORITHMS, remote=False)
    two.fetch()
    assert two.find({"alg": "ES256"}) is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[]", "not a JSON object"),
        ("{}", "not a key set: it has no list `keys`"),
        ('{"keys": {}}', "not a key set: it has no list `keys`"),
        ('{"keys": []}', "it has no key for ES256, EdDSA, RS256"),
    ],
)
def test_a_file_that_is_no_key_set_is_named(content: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        key_set_from_file(path, KEY_ALGORITHMS)
    assert str(caught.value) == f"the key set {path} cannot be read: {why}"


def test_a_file_is_local_and_a_url_is_not(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [public("ES256")]}))
    keys = key_set_from_file(path, KEY_ALGORITHMS)
    assert not keys.wants_fetch({"kid": "x", "alg": "ES256"}, 1e9)
    assert keys.algorithms == KEY_ALGORITHMS
    remote = key_set_from_url("http://127.0.0.1:1/jwks", frozenset({"ES256"}), timeout=1.0)
    assert remote.wants_fetch({}, 0.0)
    assert remote.algorithms == {"ES256"}


def test_what_is_issued() -> None:
    common: dict[str, Any] = {
        "sub": "eve",
        "role": "observe",
        "sessions": ("a*", "b"),
        "issued": 100,
        "ttl": 50,
    }
    given = issue(SECRET, **common, jti="j")
    assert jwt.get_unverified_header(given) == {"alg": "HS256", "typ": "JWT"}
    claims = jwt.decode(given, options={"verify_signature": False})
    assert claims == {
        "sub": "eve", "role": "observe", "sessions": ["a*", "b"], "iat": 100, "exp": 150, "aud": "wsmonitor",
        "iss": "wsmonitor", "jti": "j",
    }  # fmt: skip
    named = issue(SECRET, **common, jti="j", name="Eve", audience="hub", issuer="me")
    claims = jwt.decode(named, options={"verify_signature": False})
    assert (claims["name"], claims["aud"], claims["iss"]) == ("Eve", "hub", "me")
    assert with_secret(audience="hub", issuer="me").verify(named, 120.0).claims.name == "Eve"
