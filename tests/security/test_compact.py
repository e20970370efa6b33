"""A token whose header is known is judged as one whose header is seen for the first time."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsmonitor_server.auth import KEY_ALGORITHMS, Authenticator, AuthError, KeySet, SecretKey

from .test_tokens import EC, ED, public
from .tokens import CLAIMS, NOW, SECRET, part, signed

HEADER = {"alg": "HS256", "typ": "JWT"}


def cold() -> Authenticator:
    return Authenticator(SecretKey(SECRET), lambda jti: False)


def warm() -> Authenticator:
    """One that has accepted a token with this header, and so does not look at it again."""
    auth = cold()
    auth.verify(signed(HEADER, json.dumps(CLAIMS).encode()), NOW)
    assert auth._verified.header(signed(HEADER, b"{}")) is not None
    return auth


def verdict(auth: Authenticator, given: str) -> object:
    """The claims, or the code of the refusal."""
    try:
        return auth.verify(given, NOW).claims
    except AuthError as exc:
        return exc.info.code


CLAIMED: list[Any] = [
    CLAIMS,
    {**CLAIMS, "aud": ["x", CLAIMS["aud"]]},
    {**CLAIMS, "aud": []},
    {**CLAIMS, "aud": "x"},
    {**CLAIMS, "aud": {CLAIMS["aud"]: 1}},
    {**CLAIMS, "aud": None},
    {**CLAIMS, "aud": [CLAIMS["aud"], 5]},
    {**CLAIMS, "iss": "x"},
    {**CLAIMS, "iss": CLAIMS["iss"][:-1]},
    {**CLAIMS, "iss": [CLAIMS["iss"]]},
    {**CLAIMS, "iss": None},
    {**CLAIMS, "sub": 5},
    {**CLAIMS, "sub": ""},
    {**CLAIMS, "jti": 5},
    {**CLAIMS, "exp": "5"},
    {**CLAIMS, "exp": 5},
    {**CLAIMS, "exp": 2.5},
    {**CLAIMS, "exp": 1e400},
    {**CLAIMS, "exp": True},
    {**CLAIMS, "iat": "now"},
    {**CLAIMS, "nbf": int(NOW) + 3600},
    {**CLAIMS, "role": "root"},
    {**CLAIMS, "sub": "\ud800"},
    *({name: value for name, value in CLAIMS.items() if name != left} for left in CLAIMS),
    {},
    [],
    None,
    5,
    "x",
]


@pytest.mark.parametrize("claims", CLAIMED, ids=[str(number) for number in range(len(CLAIMED))])
def test_what_is_claimed_is_judged_alike(claims: Any) -> None:
    given = signed(HEADER, json.dumps(claims).encode())
    assert verdict(warm(), given) == verdict(cold(), given)


@pytest.mark.parametrize(
    "payload",
    [
        json.dumps(CLAIMS)[:-1].encode() + b', "sub": "b"}',
        json.dumps(CLAIMS).encode("utf-16"),
        b"\xef\xbb\xbf" + json.dumps(CLAIMS).encode(),
        json.dumps(CLAIMS).encode() + b" x",
        b" " + json.dumps(CLAIMS).encode() + b"\n",
        b"",
        b"\xff",
        b"[" * 5_000,
        b'{"exp": ' + b"9" * 5_000 + b"}",
        json.dumps({**CLAIMS, "exp": "?"}).replace('"?"', "NaN").encode(),
    ],
    ids=lambda payload: repr(payload[:12]),
)
def test_how_it_is_written_is_judged_alike(payload: bytes) -> None:
    given = signed(HEADER, payload)
    assert verdict(warm(), given) == verdict(cold(), given)


@given(st.data())
def test_a_token_that_was_changed_is_judged_alike(data: st.DataObject) -> None:
    """Letters replaced, left out and put in, parts exchanged, cut and doubled."""
    good = signed(HEADER, json.dumps({**CLAIMS, "jti": "another"}).encode())
    head, payload, signature = good.split(".")
    what = data.draw(st.sampled_from(["letter", "cut", "insert", "parts", "signature"]))
    at = data.draw(st.integers(len(head) + 1, len(good) - 1))
    letter = data.draw(st.sampled_from("AQgw-_=.+/ é\x00"))
    if what == "letter":
        changed = good[:at] + letter + good[at + 1 :]
    elif what == "cut":
        changed = good[:at]
    elif what == "insert":
        changed = good[:at] + letter + good[at:]
    elif what == "parts":
        changed = ".".join(data.draw(st.permutations([head, payload, signature, "", payload]))[:4])
    else:
        changed = f"{head}.{payload}.{part(data.draw(st.binary(max_size=64)))}"
    assert verdict(warm(), changed) == verdict(cold(), changed)


def test_another_key_of_the_set_is_no_key_for_it() -> None:
    """The key is asked for by the header that is remembered, and computes with its own algorithm."""
    keys = KeySet(lambda: {"keys": [public("ES256"), public("EdDSA")]}, KEY_ALGORITHMS, remote=False)
    keys.fetch()
    auth = Authenticator(keys, lambda jti: False)
    pairs = {"ES256": EC, "EdDSA": ED}

    def made(name: str, by: str, jti: str) -> str:
        claims = {**CLAIMS, "jti": jti}
        own = jwt.encode(claims, pairs[by], algorithm=by, headers={"kid": by})
        head = jwt.encode(claims, pairs[name], algorithm=name, headers={"kid": name}).split(".")[0]
        return head + own[own.index(".") :]

    for name in pairs:
        assert auth.verify(made(name, name, "1"), NOW).claims.jti == "1"
        assert auth.verify(made(name, name, "2"), NOW).claims.jti == "2"
    for name, other in (("ES256", "EdDSA"), ("EdDSA", "ES256")):
        with pytest.raises(AuthError, match="Signature verification failed"):
            auth.verify(made(name, other, "3"), NOW)
