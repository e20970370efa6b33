"""checking: what the decoder leaves to it is refused as the decoder would, and remembered within bounds."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsmonitor.protocol import checking
from wsmonitor.protocol.codec import decode_event, decode_server
from wsmonitor.protocol.entities import KINDS, Chain, Session, Step
from wsmonitor.protocol.errors import ProtocolError, StateError
from wsmonitor.protocol.messages import Event
from wsmonitor.protocol.reducer import convert_entity, decode_entity

from .strategies import struct

BAD = ["a/b", " a", "a ", "a\n", "a\x00", "a\u2028", "a\u202e", "\x7f"]


def _strictly(hint: Any) -> Any:
    """The type whose pattern the decoder checks itself, in the place of one that leaves it."""
    if get_origin(hint) is not Annotated:
        return hint
    text, meta = get_args(hint)
    pattern = (meta.extra_json_schema or {}).get("pattern")
    if pattern is None:
        return hint
    return Annotated[
        text, msgspec.Meta(min_length=meta.min_length, max_length=meta.max_length, pattern=pattern)
    ]


def _twin(cls: type[msgspec.Struct]) -> Any:
    """*cls* with all that its types say checked by the decoder."""
    hints = get_type_hints(cls, include_extras=True)
    fields = [
        (
            field.name,
            _strictly(hints[field.name]),
            msgspec.field(default=field.default, default_factory=field.default_factory),
        )
        for field in msgspec.structs.fields(cls)
    ]
    return msgspec.json.Decoder(msgspec.defstruct(cls.__name__, fields, kw_only=True))


TWINS = {"session": _twin(Session), "chain": _twin(Chain), "step": _twin(Step)}
HINTS = {kind: get_type_hints(cls, include_extras=True) for kind, cls in KINDS.items()}
LEFT = [
    (kind, field.name)
    for kind, cls in KINDS.items()
    for field in msgspec.structs.fields(cls)
    if _strictly(HINTS[kind][field.name]) is not HINTS[kind][field.name]
]


def _words(kind: str, data: bytes) -> tuple[str | None, str | None]:
    """What the strict decoder, and what we say against *data*."""
    said: list[str | None] = []
    for read in (TWINS[kind].decode, lambda raw: decode_entity(kind, raw)):
        try:
            read(data)
        except (msgspec.ValidationError, StateError) as exc:
            said.append(str(exc).removeprefix(f"not a {kind}: "))
        else:
            said.append(None)
    return said[0], said[1]


def test_these_fields_are_left_to_it() -> None:
    common = ["name", "created", "started", "ended", "producer"]
    assert {kind: [name for of, name in LEFT if of == kind] for kind, _ in LEFT} == {
        "session": ["id", *common],
        "chain": ["id", *common],
        "step": ["id", "chain", "parent", *common],
    }


@pytest.mark.parametrize(("kind", "field"), LEFT)
def test_a_bad_value_is_refused_in_the_decoders_words(kind: str, field: str) -> None:
    for value in [*BAD, "", "0", "007", "7", "1" * 20, "1" * 21, "x" * 128, "x" * 129, "a*"]:
        _compare(kind, field, value)


def _compare(kind: str, field: str, value: str) -> None:
    data = msgspec.json.encode({"id": "i", "name": "n", "chain": "c"} | {field: value})
    for _ in range(2):  # remembered or not makes no difference
        strict, ours = _words(kind, data)
        assert ours == strict
    plain = msgspec.json.decode(data)
    if strict is None:
        assert convert_entity(kind, plain) == decode_entity(kind, data)
    else:
        with pytest.raises(StateError):
            convert_entity(kind, plain)


@given(st.sampled_from(["session", "chain", "step"]).flatmap(lambda kind: struct(KINDS[kind])))
def test_all_good_records_are_good(entity: Any) -> None:
    kind = type(entity).__name__.lower()
    data = msgspec.json.encode(entity)
    assert decode_entity(kind, data) == entity
    assert _words(kind, data) == (None, None)


@given(st.sampled_from(LEFT), st.text(max_size=6))
def test_any_text_is_judged_alike(place: tuple[str, str], text: str) -> None:
    kind, field = place
    try:
        data = msgspec.json.encode({"id": "i", "name": "n", "chain": "c"} | {field: text})
    except UnicodeEncodeError:
        return  # a lone surrogate: not to be had from bytes
    strict, ours = _words(kind, data)
    assert ours == strict


@pytest.mark.parametrize("topic", [*BAD, "/other", "/directory/ a", "a*"])
def test_a_bad_topic_of_an_event_is_refused(topic: str) -> None:
    message = {"topic": topic, "epoch": "e", "seq": 1, "ts": "0", "kind": "x", "entity": {}}
    data = msgspec.json.encode({"type": "event", **message})
    with pytest.raises(ProtocolError) as live:
        decode_server(data)
    assert live.value.code == "bad_id"
    words = "a string holds characters that are not allowed here (see `ids` in the protocol)"
    assert live.value.args == (f"event: {words} - at `$.topic`",)
    with pytest.raises(ProtocolError) as kept:
        decode_event(data)
    assert kept.value.code == "bad_message"


@pytest.mark.parametrize("topic", ["a", "/directory", "/directory/a/b*"])
def test_a_good_topic_is_taken(topic: str) -> None:
    event = Event(topic=topic, epoch="e", seq=1, ts="0", kind="x", entity=msgspec.Raw(b"{}"))
    for _ in range(2):  # new, and remembered
        assert decode_event(msgspec.json.encode(event)).topic == topic


def test_what_is_remembered_is_bounded() -> None:
    for number in range(2 * checking.REMEMBERED):
        checking.check_step(Step(id=f"i{number}", chain=f"c{number}", parent=f"p{number}", name=f"n{number}"))
    for number in range(2 * checking.REMEMBERED):
        checking.check_session(Session(id=f"s{number}", name="n", created=str(number)))
    kept = [value for value in vars(checking).values() if isinstance(value, checking.Rule)]
    assert len(kept) > 4
    assert all(len(rule.good) <= checking.REMEMBERED for rule in kept)
    again = Step(id="i0", chain="c0", name="n0")
    assert decode_entity("step", msgspec.json.encode(again)) == again
