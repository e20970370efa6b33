"""Tokens in the compact form of RFC 7515: what their writing has to be, beside what PyJWT checks. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Final


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
