"""Tokens in the compact form of RFC 7515, of which the header is known already: what is left to read.

PyJWT reads and checks each token from the start, with its header, and prepares the key anew. An issuer's
tokens all have the same header: so it reads the first one (`auth`), and of the others, which begin letter by
letter alike, the two parts that differ are read here. The signature is computed by PyJWT's algorithm of the
key in both cases.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from jwt import PyJWK


class MalformedError(Exception):
    """Its text says, of a token, what is wrong with it; there is nothing of the token in it."""


def decode_part(part: str) -> bytes:
    """The bytes of a token's *part*, which can be written in one way only (RFC 7515, 2).

    Raises:
        MalformedError: spare bits are set, or there are letters that a decoder passes over.
    """
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error:
        raise MalformedError("the token is not written as a JWT is") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != part:
        raise MalformedError("the token is not written as a JWT is")
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedError("the token names a claim or a header parameter twice")
    return found


_decoder: Final = json.JSONDecoder(object_pairs_hook=_once)


def decode_json(data: bytes) -> Any:
    """What two readers can read in one way only (RFC 7519, 4; RFC 8725, 3.7).

    Raises:
        MalformedError: a name stands twice in one of its objects, or it is not JSON in UTF-8.
    """
    try:
        return _decoder.decode(data.decode("utf-8"))
    except ValueError:
        raise MalformedError("the token is not written in UTF-8") from None
    except RecursionError:
        # Its words are as long as the stack.
        raise MalformedError("the token is nested too deeply") from None


def read_signed(token: str, key: PyJWK, audience: str, issuer: str) -> dict[str, Any]:
    """The claims of *token*, whose header is one that *key* verifies.

    Raises:
        MalformedError: it has no such form, another has signed it, or it is for somebody else.
    """
    parts = token.split(".")
    if len(parts) != 3:
        raise MalformedError("the token is not a JWT")
    _, payload, signature = parts
    signed = token[: -len(signature) - 1].encode()
    if not key.Algorithm.verify(signed, key.key, decode_part(signature)):
        raise MalformedError("the token is not valid here: Signature verification failed")
    claims = decode_json(decode_part(payload))
    if not isinstance(claims, dict):
        raise MalformedError("the token is not valid here: its claims are no object")
    if claims.get("iss") != issuer:
        raise MalformedError("the token is not valid here: Invalid issuer")
    if audience not in _audiences(claims.get("aud")):
        raise MalformedError("the token is not valid here: Audience doesn't match")
    return claims


def _audiences(claim: object) -> Sequence[object]:
    return claim if isinstance(claim, list) else [claim]
