"""messages, changes and entities: every record survives the wire, and refuses what it must."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.protocol import strategies
from tests.scale import many
from wsmonitor.protocol import changes, codec, entities, messages
from wsmonitor.protocol.errors import ProtocolError

CLIENT = get_args(messages.ClientMessage)
SERVER = get_args(messages.ServerMessage)
SLOW_TO_DRAW = settings(max_examples=many(40), suppress_health_check=[HealthCheck.too_slow], deadline=None)


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


def _publish(*changes: Any) -> bytes:
    message = {
        "type": "publish",
        "session": "a",
        "producer": "p",
        "producer_epoch": 1,
        "first": 1,
        "changes": changes,
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
    good = {"op": "chain", "id": "c", "name": "c"}
    decoded = codec.decode_client(_publish(good, change, good), 10**6)
    assert isinstance(decoded, codec.DamagedPublish)
    before, bad, after = decoded.changes
    assert before == after == changes.ChainChange(id="c", name="c")
    assert isinstance(bad, changes.Unreadable)
    assert bad.code == "bad_message"
    assert bad.message
    assert bad.context == (
        {"step": "s"} if "s" in (change.get("id"), change.get("step")) and "op" in change else {}
    )


@pytest.mark.parametrize(
    ("change", "code", "context"),
    [
        (5, "bad_message", {}),
        (None, "bad_message", {}),
        (["step"], "bad_message", {}),
        ({"op": "of_tomorrow", "id": "s"}, "bad_message", {}),
        ({"op": 5, "id": "s"}, "bad_message", {}),
        ({"op": "step", "id": "a\u0000b"}, "bad_id", {}),
        ({"op": "step", "id": "a" * 129}, "bad_id", {}),
        ({"op": "step", "id": 5}, "bad_message", {}),
        ({"op": "chain", "id": "c", "name": 5}, "bad_message", {"chain": "c"}),
        ({"op": "step", "id": "s", "chain": "a/b"}, "bad_id", {"step": "s"}),
        ({"op": "log", "step": "s", "records": 1}, "bad_message", {"step": "s"}),
        ({"op": "x" * 100_000}, "bad_message", {}),
        ({"op": "step", "id": "s", "state": "x" * 100_000}, "bad_message", {"step": "s"}),
    ],
)
def test_an_unreadable_change_says_what_it_is_about(change: Any, code: str, context: dict[str, str]) -> None:
    decoded = codec.decode_client(_publish(change), 10**6)
    assert isinstance(decoded, codec.DamagedPublish)
    (bad,) = decoded.changes
    assert isinstance(bad, changes.Unreadable)
    assert (bad.code, bad.context) == (code, context)
    assert len(bad.message) < 1000


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("changes", [], "bad_message"),
        ("changes", {"op": "chain"}, "bad_message"),
        ("changes", None, "bad_message"),
        ("first", 0, "bad_message"),
        ("producer_epoch", "1", "bad_message"),
        ("session", "a/b", "bad_id"),
        ("producer", "", "bad_id"),
    ],
)
def test_a_publish_that_is_malformed_as_a_whole(field: str, value: Any, code: str) -> None:
    message = json.loads(_publish({"op": "no_such"})) | {field: value}
    with pytest.raises(ProtocolError) as info:
        codec.decode_client(json.dumps(message), 10**6)
    assert (info.value.code, info.value.fatal) == (code, False)


@pytest.mark.parametrize("rest", ['{"op":"chain","id":"\\ud800"}', '{"op":}', "NaN", '{"op":"chain"'])
def test_what_is_no_json_behind_a_bad_change_is_no_json(rest: str) -> None:
    text = _publish({"op": "no_such"}).decode().replace("]}", "," + rest + "]}")
    with pytest.raises(ProtocolError) as info:
        codec.decode_client(text, 10**6)
    assert info.value.code == "bad_json"


def test_no_crashed_from_a_producer_at_the_wire_is_the_authoritys_matter() -> None:
    # The type lets it pass: what may follow what is decided where the old state is known.
    decoded = codec.decode_client(_publish({"op": "step", "id": "s", "state": "crashed"}), 10**6)
    assert isinstance(decoded, messages.Publish)
    assert decoded.changes == [changes.StepChange(id="s", state="crashed")]


def test_a_producer_need_not_number_its_log_lines() -> None:
    text = json.dumps(
        {
            "type": "publish",
            "session": "etl~1",
            "producer": "p",
            "producer_epoch": 1,
            "first": 1,
            "changes": [{"op": "log", "step": "s", "records": [{"at": "1", "text": "a line"}]}],
        }
    )
    message = codec.decode_client(text, 10_000)
    assert isinstance(message, messages.Publish)
    (change,) = message.changes
    assert isinstance(change, changes.LogChange)
    assert change.records[0].text == "a line"
