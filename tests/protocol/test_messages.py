"""messages, changes and entities: every record survives the wire, and refuses what it must."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.protocol import strategies
from wsmonitor.protocol import changes, codec, entities, messages
from wsmonitor.protocol.errors import ProtocolError

CLIENT = get_args(messages.ClientMessage)
SERVER = get_args(messages.ServerMessage)
SLOW_TO_DRAW = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)


@pytest.mark.parametrize("cls", CLIENT, ids=lambda cls: cls.__name__)
@SLOW_TO_DRAW
@given(data=st.data())
def test_a_client_message_survives_the_wire(cls: type, data: st.DataObject) -> None:
    message = data.draw(strategies.struct(cls))
    assert codec.decode_client(codec.encode(message), 10**7) == message


@pytest.mark.parametrize("cls", SERVER, ids=lambda cls: cls.__name__)
@SLOW_TO_DRAW
@given(data=st.data())
def test_a_server_message_survives_the_wire(cls: type, data: st.DataObject) -> None:
    message = data.draw(strategies.struct(cls))
    written = codec.encode(message)
    read = codec.decode_server(written)
    assert type(read) is cls
    # `Raw` has no equality; the same bytes again say as much.
    assert codec.encode(read) == written


@pytest.mark.parametrize("cls", entities.KINDS.values(), ids=lambda cls: cls.__name__)
@SLOW_TO_DRAW
@given(data=st.data())
def test_an_entity_survives_the_wire(cls: type, data: st.DataObject) -> None:
    entity = data.draw(strategies.struct(cls))
    assert msgspec.json.decode(msgspec.json.encode(entity), type=cls) == entity


def test_the_unions_are_complete_and_their_tags_are_one_to_one() -> None:
    records = {
        cls
        for cls in vars(messages).values()
        if isinstance(cls, type) and issubclass(cls, messages._Message) and cls is not messages._Message
    }
    assert records == {*CLIENT, *SERVER}
    tags = [str(cls.__struct_config__.tag) for cls in records]
    assert len(tags) == len(set(tags))
    assert {"heartbeat", "heartbeat_ack"} == codec.CLIENT_TYPES & codec.SERVER_TYPES


def test_records_are_frozen() -> None:
    for cls in {*CLIENT, *SERVER, *entities.KINDS.values(), *get_args(changes.Change)}:
        assert cls.__struct_config__.frozen, cls


def test_type_stands_first_and_defaults_are_left_out() -> None:
    message = messages.Subscribe(topic="a", generation=1)
    assert codec.encode(message) == b'{"type":"subscribe","topic":"a","generation":1}'
    assert codec.encode(
        messages.Batch(topic="a", epoch="e", from_=1, to=2, ts="0", entities=[], digest="d")
    ) == (b'{"type":"batch","topic":"a","epoch":"e","from":1,"to":2,"ts":"0","entities":[],"digest":"d"}')


def test_an_unset_field_of_a_change_is_not_sent_and_null_is_a_value() -> None:
    untouched = changes.StepChange(id="s")
    cleared = changes.StepChange(id="s", progress=None)
    assert json.loads(msgspec.json.encode(untouched)) == {"op": "step", "id": "s"}
    assert json.loads(msgspec.json.encode(cleared)) == {"op": "step", "id": "s", "progress": None}
    assert msgspec.json.decode(b'{"op":"step","id":"s"}', type=changes.Change) == untouched


def test_what_creates_an_entity_must_name() -> None:
    assert {
        changes.SessionChange: ("name",),
        changes.ChainChange: ("name",),
        changes.StepChange: ("name", "chain"),
    } == changes.CREATE_REQUIRES
    kinds = {str(cls.__struct_config__.tag): cls for cls in changes.CREATE_REQUIRES}
    for kind, cls in kinds.items():
        required = {field.name for field in msgspec.structs.fields(entities.KINDS[kind]) if field.required}
        assert required - {"id"} == set(changes.CREATE_REQUIRES[cls])


def test_changes_and_entities_have_the_same_fields() -> None:
    server_written = {"id", "run", "producer", "seq", "log_count", "log_last"}
    for kind, cls in (
        ("session", changes.SessionChange),
        ("chain", changes.ChainChange),
        ("step", changes.StepChange),
    ):
        assert (
            set(cls.__struct_fields__) - {"id"}
            == set(entities.KINDS[kind].__struct_fields__) - server_written
        )


def test_kinds_and_classes_are_one_to_one() -> None:
    assert {kind: entities.KIND_OF[cls] for kind, cls in entities.KINDS.items()} == {
        kind: kind for kind in entities.KINDS
    }


def _publish(change: dict[str, Any]) -> bytes:
    message = {
        "type": "publish",
        "session": "a",
        "producer": "p",
        "producer_epoch": 1,
        "first": 1,
        "changes": [change],
    }
    return json.dumps(message).encode()


@pytest.mark.parametrize(
    "change",
    [
        {"op": "step", "id": "s", "state": "done"},
        {"op": "step", "id": "s", "attempt": 0},
        {"op": "step", "id": "s", "metrics": {"a": "1"}},
        {"op": "step", "id": "s", "metrics": {"a": True}},
        {"op": "step", "id": "s", "metrics": {"a": None}},
        {"op": "step", "id": "s", "metrics": {"a": 2**63}},
        {"op": "step", "id": "s", "progress": {"done": -(2**63) - 1}},
        {"op": "step", "id": "s", "input": {"size": -1, "sha256": "0" * 64}},
        {"op": "step", "id": "s", "input": {"size": 1, "sha256": "0" * 63}},
        {"op": "step", "id": "s", "input": {"size": 1, "sha256": "A" * 64}},
        {"op": "step", "id": "s", "created": "01"},
        {"op": "step", "id": "s", "created": 5},
        {"op": "step", "id": "s", "created": "5\n"},
        {"op": "step", "id": "s", "tags": ["x"] * 65},
        {"op": "step", "id": "s", "reason": "x" * 4097},
        {"op": "step", "id": "s", "attributes": {"a": {"nested": 1}}},
        {"op": "step"},
        {"op": "log", "step": "s", "records": []},
        {"op": "command", "id": "0" * 32, "state": "expired"},
        {"op": "skipped", "first": -1, "last": 1, "count": 1},
        {"id": "s"},
    ],
)
def test_a_change_that_does_not_fit_is_bad(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as info:
        codec.decode_client(_publish(change), 10**6)
    assert info.value.code == "bad_message"
    assert not info.value.fatal


def test_no_crashed_from_a_producer_at_the_wire_is_the_authoritys_matter() -> None:
    # The type lets it pass: what may follow what is decided where the old state is known.
    decoded = codec.decode_client(_publish({"op": "step", "id": "s", "state": "crashed"}), 10**6)
    assert isinstance(decoded, messages.Publish)
    assert decoded.changes == [changes.StepChange(id="s", state="crashed")]
