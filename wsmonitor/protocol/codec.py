"""Bytes to messages and back.

Decoding answers bad input with a `ProtocolError` that names the code, the place and, where it
could be read, the request, so that the server's answer reaches the one who asked.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, cast, get_args

import msgspec
from msgspec import Meta, Raw

from .changes import Change, Unreadable
from .checking import check_event, good_topics
from .errors import ProtocolError
from .ids import is_id
from .messages import ClientMessage, Event, Publish, ServerMessage

_encoder = msgspec.json.Encoder()
_client: Final = msgspec.json.Decoder(ClientMessage)
_server: Final = msgspec.json.Decoder(ServerMessage)
_event: Final = msgspec.json.Decoder(Event)


class _Peek(msgspec.Struct):
    type: Any = None
    request: Any = None


_peek: Final = msgspec.json.Decoder(_Peek)


class _LoosePublish(Publish, frozen=True, kw_only=True, tag="publish"):
    changes: Annotated[list[Raw], Meta(min_length=1)]  # type: ignore[assignment]  # not read yet


class _PeekChange(msgspec.Struct):
    op: Any = None
    id: Any = None
    step: Any = None


_loose: Final = msgspec.json.Decoder(_LoosePublish)
_change: Final = msgspec.json.Decoder(Change)
_peek_change: Final = msgspec.json.Decoder(_PeekChange)


class DamagedPublish(msgspec.Struct, frozen=True, kw_only=True):
    """A `Publish` of which at least one change cannot be read: see `Unreadable`. It never travels."""

    session: str
    producer: str
    producer_epoch: int
    first: int
    changes: list[Change | Unreadable]


_IDS = (
    r" - at `\$(?:\.\w+|\[\d+\])*\.(?:topic|session|producer|id|chain|step|parent|command|commands\[\d+\])`$"
)
_ABOUT_AN_ID: Final = (
    re.compile(r"^Expected `str` matching regex .*" + _IDS, re.DOTALL),
    re.compile(r"^Expected `str` of length " + r".*" + _IDS),
    # A name has a maximal length of its own, but the characters of an id.
    re.compile(r"^Expected `str` matching regex .* - at `\$(?:\.\w+|\[\d+\])*\.name`$", re.DOTALL),
)

_LONGEST: Final = 600  # characters of an error's message

CLIENT_TYPES: Final = frozenset(str(t.__struct_config__.tag) for t in get_args(ClientMessage))
SERVER_TYPES: Final = frozenset(str(t.__struct_config__.tag) for t in get_args(ServerMessage))


def encode(message: ClientMessage | ServerMessage) -> bytes:
    """*message* as UTF-8 JSON, without a line break."""
    return _encoder.encode(message)


def encode_record(record: msgspec.Struct) -> msgspec.Raw:
    """A record, encoded, ready to stand inside a message."""
    return msgspec.Raw(_encoder.encode(record))


def decode_client(data: str | bytes, limit: int) -> ClientMessage | DamagedPublish:
    """What a client sent, for the server.

    One bad change does not take its neighbours along: it is read as `Unreadable`, in a `DamagedPublish`.

    Args:
        data: the text of one WebSocket message.
        limit: the largest accepted size, in bytes.

    Raises:
        ProtocolError: with the code to answer with; only unreadable or oversize input is fatal.
    """
    if (size := _size(data)) > limit:
        raise ProtocolError("message_too_large", f"{size:,} bytes; this server accepts {limit:,}", fatal=True)
    try:
        return cast(ClientMessage, _client.decode(data))
    except msgspec.ValidationError as exc:
        try:
            # Only now: the one pass above is the fast one, and nearly every message is well formed.
            return _damaged(_loose.decode(data))
        except msgspec.ValidationError:
            raise _explain(data, exc, CLIENT_TYPES) from exc
        except (msgspec.DecodeError, UnicodeError, RecursionError) as worse:
            raise _explain(data, worse, CLIENT_TYPES) from worse
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        raise _explain(data, exc, CLIENT_TYPES) from exc


def _damaged(message: _LoosePublish) -> DamagedPublish:
    return DamagedPublish(
        session=message.session,
        producer=message.producer,
        producer_epoch=message.producer_epoch,
        first=message.first,
        changes=[_one_change(raw) for raw in message.changes],
    )


def _one_change(raw: Raw) -> Change | Unreadable:
    try:
        return cast(Change, _change.decode(raw))
    except msgspec.ValidationError as exc:
        text = str(exc)
    try:
        peek = _peek_change.decode(raw)
    except msgspec.ValidationError:
        return Unreadable(code="bad_message", message=f"a change is an object: {text}")
    context: dict[str, str] = {}
    for name, ident in (("step", peek.step), (peek.op, peek.id)):
        if name in ("chain", "step") and is_id(ident):
            context[name] = ident
    op = peek.op[:64] if isinstance(peek.op, str) else ""
    return Unreadable(code=_code(text), message=f"{op or 'a change'}: {_readable(text)}", context=context)


def decode_server(data: str | bytes) -> ServerMessage | None:
    """What the server sent, for a client; None for a message type of a later minor version.

    Raises:
        ProtocolError: the server's message cannot be read.
    """
    try:
        message = cast(ServerMessage, _server.decode(data))
        if type(message) is Event and message.topic not in good_topics:
            check_event(message)
        return message
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        error = _explain(data, exc, SERVER_TYPES)
        if error.code == "unknown_type":
            return None
        raise error from exc


def decode_event(data: bytes | msgspec.Raw) -> Event:
    """One event as it stands in history and in the store.

    Raises:
        ProtocolError: it cannot be read.
    """
    try:
        event = _event.decode(data)
        check_event(event)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        raise ProtocolError("bad_message", f"not an event: {exc}") from exc
    return event


def _size(data: str | bytes) -> int:
    if isinstance(data, bytes) or data.isascii():
        return len(data)
    return len(data.encode("utf-8", "surrogatepass"))


def _explain(data: str | bytes, exc: Exception, known: frozenset[str]) -> ProtocolError:
    if isinstance(exc, RecursionError):
        return ProtocolError("bad_json", "nested too deeply", fatal=True)
    if isinstance(exc, UnicodeError):
        return ProtocolError("bad_json", f"not UTF-8: {exc}", fatal=True)
    try:
        peek = _peek.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        if isinstance(exc, msgspec.ValidationError):
            return ProtocolError("bad_message", f"a message is one JSON object: {exc}")
        return ProtocolError("bad_json", f"not JSON: {exc}")
    request = peek.request if type(peek.request) is int and 0 <= peek.request < 2**53 else None
    if not isinstance(peek.type, str):
        return ProtocolError("bad_message", "a message needs a `type`, a string", request=request)
    if peek.type not in known:
        return ProtocolError("unknown_type", f"unknown message type {peek.type[:64]!r}", request=request)
    return ProtocolError(_code(str(exc)), f"{peek.type}: {_readable(str(exc))}", request=request)


def _code(text: str) -> str:
    return "bad_id" if any(place.search(text) for place in _ABOUT_AN_ID) else "bad_message"


def _readable(text: str) -> str:
    if len(text) > _LONGEST:
        # It repeats a value of the sender's; what was expected stands in front, the place at the end.
        text = f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
    # A regular expression helps no reader of an error; the rule in words does.
    return re.sub(r"Expected `str` matching regex '(.*?)'(?= - at|$)", _rule, text, flags=re.DOTALL)


def _rule(found: re.Match[str]) -> str:
    pattern = found[1]
    if (digits := re.match(r"\^\[0-9a-f\]\{(\d+)\}", pattern)) is not None:
        return f"Expected {digits[1]} hexadecimal digits, in lower case"
    if pattern.startswith("^(0|[1-9]"):
        return "Expected a time: nanoseconds since 1970, as a string of decimal digits"
    return "a string holds characters that are not allowed here (see `ids` in the protocol)"
