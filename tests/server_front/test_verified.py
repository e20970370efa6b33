"""What is remembered of verified tokens: never whether they hold, and never more than so many."""

from __future__ import annotations

import tracemalloc
from typing import Any

import jwt
import pytest
from jwt.algorithms import HMACAlgorithm

from wsmonitor.protocol.access import Claims
from wsmonitor_server.auth import Authenticator, AuthError, KeySet, SecretKey, issue
from wsmonitor_server.verified import Known, Verified

SECRET = b"a secret of thirty-two bytes, at least"
CLAIMS = Claims(sub="ada", exp=2_000, jti="1", aud="wsmonitor", iss="wsmonitor")


def token(jti: str = "1", *, secret: bytes = SECRET, ttl: int = 1_000) -> str:
    return issue(secret, sub="ada", role="observe", sessions=["*"], issued=1_000, ttl=ttl, jti=jti)


def refusal(auth: Authenticator, given: str, wall: float) -> str:
    with pytest.raises(AuthError) as caught:
        auth.verify(given, wall)
    return caught.value.info.code


def signatures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens, without their signatures, that are verified from now on."""
    seen: list[str] = []
    verify = HMACAlgorithm.verify

    def counted(self: HMACAlgorithm, text: bytes, key: bytes, signature: bytes) -> bool:
        seen.append(text.decode())
        return verify(self, text, key, signature)

    monkeypatch.setattr(HMACAlgorithm, "verify", counted)
    return seen


def unsigned(given: str) -> str:
    return given.rpartition(".")[0]


def test_what_was_put_in_is_found_until_it_is_cleared() -> None:
    verified = Verified()
    known = Known({"alg": "HS256"}, object(), CLAIMS)
    assert verified.find("h.p.s") is None
    assert verified.header("h.p.s") is None
    verified.put("h.p.s", known)
    assert verified.find("h.p.s") is known
    assert verified.header("h.other.s") == {"alg": "HS256"}
    assert verified.find("h.other.s") is None
    assert len(verified) == 1
    verified.clear()
    assert verified.find("h.p.s") is None
    assert verified.header("h.p.s") is None
    assert len(verified) == 0


def test_there_are_never_more_than_so_many_and_the_first_is_forgotten_first() -> None:
    verified = Verified(tokens=3, headers=2)
    for number in (0, 1, 2, 0, 3):  # what is put in again takes nobody's place
        verified.put(f"h{number}.p.s", Known({"n": number}, None, CLAIMS))
    assert [verified.find(f"h{number}.p.s") is not None for number in range(4)] == [False, True, True, True]
    assert len(verified) == 3
    known = [number for number in range(4) if verified.header(f"h{number}.p.s") is not None]
    assert known == [0, 3]


def test_a_token_lies_nowhere_in_what_is_remembered() -> None:
    verified = Verified()
    given = "h." + "p" * 100_000 + ".s"
    tracemalloc.start()
    try:
        verified.put(given, Known({}, None, CLAIMS))
        assert tracemalloc.get_traced_memory()[0] < len(given)
    finally:
        tracemalloc.stop()


def test_the_signature_of_a_token_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    auth = Authenticator(SecretKey(SECRET), lambda jti: False)
    seen = signatures(monkeypatch)
    first = auth.verify(token(), 1_500)
    assert auth.verify(token(), 1_600) == first
    assert seen == [unsigned(token())]
    auth.verify(token("2"), 1_600)
    assert seen == [unsigned(token()), unsigned(token("2"))]


def test_whether_a_token_holds_is_asked_each_time() -> None:
    revoked: set[str] = set()
    auth = Authenticator(SecretKey(SECRET), revoked.__contains__)
    auth.verify(token(), 1_500)
    assert refusal(auth, token(), 2_000) == "token_expired"
    assert refusal(auth, token(), 900) == "unauthorized"  # the clock was set back: it is not valid yet
    auth.verify(token(), 1_999)
    revoked.add("1")
    assert refusal(auth, token(), 1_500) == "token_revoked"


def test_a_refused_token_is_not_remembered_nor_what_it_begins_with(monkeypatch: pytest.MonkeyPatch) -> None:
    auth = Authenticator(SecretKey(SECRET), lambda jti: False)
    seen = signatures(monkeypatch)
    forged = token(secret=b"another secret of thirty-two bytes")
    for _ in range(2):
        assert refusal(auth, forged, 1_500) == "unauthorized"
    assert seen == [unsigned(forged)] * 2
    auth.verify(token(), 1_500)
    # The header is the same as that of the good one.
    assert refusal(auth, forged, 1_500) == "unauthorized"
    assert refusal(auth, token()[:-3] + "AAA", 1_500) == "unauthorized"


def test_other_keys_are_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    auth = Authenticator(SecretKey(SECRET), lambda jti: False)
    auth.verify(token(), 1_500)
    auth.rotate(SecretKey(b"another secret of thirty-two bytes"))
    assert refusal(auth, token(), 1_500) == "unauthorized"
    auth.rotate(SecretKey(SECRET))
    assert auth.verify(token(), 1_500).generation == 3


def test_a_key_that_is_no_longer_in_the_set_verifies_nothing() -> None:
    """Also what it has verified before, without anybody's telling."""
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from jwt.algorithms import OKPAlgorithm

    pairs = {name: ed25519.Ed25519PrivateKey.generate() for name in ("old", "new")}
    published = ["old"]

    def load() -> dict[str, Any]:
        public = {name: OKPAlgorithm.to_jwk(pairs[name].public_key(), as_dict=True) for name in published}
        return {"keys": [{**entry, "kid": name, "alg": "EdDSA"} for name, entry in public.items()]}

    keys = KeySet(load, frozenset({"EdDSA"}), remote=True)
    auth = Authenticator(keys, lambda jti: False)
    claims = {"sub": "ada", "exp": 2_000, "jti": "1", "aud": "wsmonitor", "iss": "wsmonitor"}
    given = jwt.encode(claims, pairs["old"], algorithm="EdDSA", headers={"kid": "old"})
    assert auth.wants_fetch(given, 0.0)
    auth.fetch()
    assert auth.verify(given, 1_500).claims.sub == "ada"
    auth.fetch()  # the same key, read again
    assert auth.verify(given, 1_500).claims.sub == "ada"
    published[:] = ["new"]
    auth.fetch()
    assert refusal(auth, given, 1_500) == "unauthorized"
