"""codec: bad input gets a code, the request is kept, and nothing but ProtocolError comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsmonitor.protocol import codec
from wsmonitor.protocol.changes import ChainChange, Unreadable
from wsmonitor.protocol.errors import CATALOGUE, ProtocolError
from wsmonitor.protocol.messages import Draining, Event, Hello, Remove, StatusGet

LIMIT = 1_000_000


def _refused(data: str | bytes, limit: int = LIMIT) -> ProtocolError:
    with pytest.raises(ProtocolError) as info:
        codec.decode_client(data, limit)
    assert info.value.code in CATALOGUE
    assert str(info.value)
    return info.value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"hello",
        b"{'type':'hello'}",
        b'{"type":"hello","major":NaN}',
        b'{"type":"hello","major":1}x',
        b'{"type":"hello","major":1,}',
        b"\xff\xfe",
        b'{"type":"hello","major":1,"name":"\xff"}',
        b'{"type":"hello","major":1,"name":"\\ud800"}',
        b'{"type":"hello","major":1,"name":"a\nb"}',
    ],
)
def test_what_is_not_json(data: bytes) -> None:
    assert _refused(data).code == "bad_json"


def test_text_that_is_not_unicode_ends_the_connection() -> None:
    assert _refused(b'{"type":"hello","major":1,"name":"\xff"}').fatal
    assert _refused('{"type":"hello","major":1,"name":"\ud800"}').fatal


@pytest.mark.parametrize("data", [b"[]", b"1", b'"hello"', b"null", b'[{"type":"hello"}]'])
def test_what_is_not_an_object(data: bytes) -> None:
    error = _refused(data)
    assert (error.code, error.fatal) == ("bad_message", False)


@pytest.mark.parametrize("data", ["{}", '{"type":5}', '{"type":null}', '{"request":3}'])
def test_what_has_no_type(data: str) -> None:
    assert _refused(data).code == "bad_message"


def test_an_unknown_type_is_named_and_the_request_kept() -> None:
    error = _refused('{"type":"of_tomorrow","request":12}')
    assert (error.code, error.request, error.fatal) == ("unknown_type", 12, False)
    assert "of_tomorrow" in str(error)
    # What only the server says is unknown from a client.
    assert _refused('{"type":"welcome"}').code == "unknown_type"


def test_a_long_unknown_type_is_not_repeated_at_length() -> None:
    assert len(str(_refused(json.dumps({"type": "x" * 10_000})))) < 200


@pytest.mark.parametrize(
    ("message", "where"),
    [
        ({"type": "hello"}, "major"),
        ({"type": "hello", "major": "1"}, "$.major"),
        ({"type": "hello", "major": True}, "$.major"),
        ({"type": "hello", "major": 1.5}, "$.major"),
        ({"type": "hello", "major": 1, "agent": 5}, "$.agent"),
        ({"type": "hello", "major": 1, "name": "x" * 129}, "$.name"),
        ({"type": "subscribe", "topic": "a", "generation": -1}, "$.generation"),
        ({"type": "logs_get", "request": 1, "session": "a", "step": "s", "limit": 1001}, "$.limit"),
        ({"type": "value_get", "request": 1, "session": "a", "sha256": "zz", "offset": 0}, "$.sha256"),
        ({"type": "command", "request": 1, "session": "a", "key": "0", "name": "pause"}, "$.key"),
    ],
)
def test_a_bad_field_is_named(message: dict[str, Any], where: str) -> None:
    error = _refused(json.dumps(message))
    assert (error.code, error.fatal) == ("bad_message", False)
    assert where in str(error)
    assert message["type"] in str(error)
    assert error.request == message.get("request")


@pytest.mark.parametrize("bad", ["a\x00b", "a\n", "a/b", " a", "a ", "", "x" * 129, "a\u2028", "a\u202e"])
@pytest.mark.parametrize(
    "message",
    [
        {"type": "remove", "request": 7, "session": "?"},
        {"type": "publish_open", "request": 7, "session": "a", "producer": "?"},
        {"type": "logs_get", "request": 7, "session": "a", "step": "?"},
        {"type": "command", "request": 7, "session": "?", "key": "0" * 32, "name": "pause"},
    ],
    ids=lambda message: message["type"],
)
def test_a_bad_id_has_its_own_code_and_keeps_the_request(message: dict[str, Any], bad: str) -> None:
    error = _refused(json.dumps({key: bad if value == "?" else value for key, value in message.items()}))
    assert (error.code, error.request, error.fatal) == ("bad_id", 7, False)
    assert "regex" not in str(error)


@pytest.mark.parametrize("topic", ["", "a\x00", "a/b", "/else", "a*", "x" * 257])
def test_a_bad_topic_is_a_bad_id(topic: str) -> None:
    assert _refused(json.dumps({"type": "unsubscribe", "topic": topic})).code == "bad_id"


def test_a_bad_id_inside_a_change() -> None:
    message = {
        "type": "publish",
        "session": "a",
        "producer": "p",
        "producer_epoch": 1,
        "first": 1,
        "changes": [{"op": "chain", "id": "c"}, {"op": "step", "id": "s\n"}],
    }
    damaged = codec.decode_client(json.dumps(message), LIMIT)
    assert isinstance(damaged, codec.DamagedPublish)
    good, bad = damaged.changes
    assert good == ChainChange(id="c")
    assert isinstance(bad, Unreadable)
    assert (bad.code, bad.context) == ("bad_id", {})
    assert bad.message.endswith("at `$.id`")


@pytest.mark.parametrize("request_number", [True, "7", 1.5, -1, 2**53, 10**400, None, [1]])
def test_a_request_that_is_no_number_is_not_repeated(request_number: object) -> None:
    assert _refused(json.dumps({"type": "of_tomorrow", "request": request_number})).request is None


def test_size_is_counted_in_bytes() -> None:
    text = '{"type":"hello","major":1,"name":"ääää"}'
    size = len(text.encode())
    assert isinstance(codec.decode_client(text, size), Hello)
    assert isinstance(codec.decode_client(text.encode(), size), Hello)
    for data in (text, text.encode()):
        error = _refused(data, size - 1)
        assert (error.code, error.fatal) == ("message_too_large", True)
        assert str(size) in str(error)


@pytest.mark.parametrize("depth", [2_000, 200_000])
def test_deep_nesting_is_refused_or_skipped_but_never_fatal_to_us(depth: int) -> None:
    data = '{"type":"hello","major":1,"x":' + "[" * depth + "]" * depth + "}"
    assert _outcome(lambda: codec.decode_client(data, LIMIT)) in {"read", "bad_json"}


def test_a_huge_number_is_an_error_like_others() -> None:
    for digits in (20, 400, 5_000):
        assert _refused('{"type":"hello","major":' + "9" * digits + "}").code == "bad_message"


def test_of_a_repeated_key_the_last_counts() -> None:
    assert codec.decode_client('{"type":"hello","major":1,"major":2}', LIMIT) == Hello(major=2)


def test_unknown_fields_are_ignored() -> None:
    assert codec.decode_client('{"type":"status_get","request":1,"new":{"a":[]}}', LIMIT) == StatusGet(
        request=1
    )


def test_order_of_fields_and_white_space_do_not_matter() -> None:
    data = ' {\n "session" : "a" , "request":3,"type":"remove"}\t'
    assert codec.decode_client(data, LIMIT) == Remove(request=3, session="a")


def test_a_client_skips_messages_of_a_later_version() -> None:
    assert codec.decode_server('{"type":"of_tomorrow"}') is None
    assert codec.decode_server('{"type":"draining","reconnect_ms":5}') == Draining(reconnect_ms=5)
    with pytest.raises(ProtocolError, match="not JSON"):
        codec.decode_server("{")
    with pytest.raises(ProtocolError, match="draining"):
        codec.decode_server('{"type":"draining"}')


def test_an_event_for_a_client() -> None:
    event = Event(topic="a", epoch="e", seq=1, ts="0", kind="chain", entity=msgspec.Raw(b'{"id":"c"}'))
    assert codec.decode_server(codec.encode(event)) == event
    with pytest.raises(ProtocolError, match=r"^event: .* - at `\$\.topic`$") as info:
        codec.decode_server(codec.encode(msgspec.structs.replace(event, topic=" a")))
    assert info.value.code == "bad_id"


def test_an_event_out_of_history() -> None:
    event = Event(topic="a", epoch="e", seq=1, ts="0", kind="chain", entity=msgspec.Raw(b'{"id":"c"}'))
    assert codec.encode(codec.decode_event(codec.encode(event))) == codec.encode(event)
    for bad in (b"{", b"{}", b'{"type":"welcome"}', b"\xff"):
        with pytest.raises(ProtocolError, match="not an event") as info:
            codec.decode_event(bad)
        assert info.value.code == "bad_message"


def test_a_record_is_spliced_in_as_it_is() -> None:
    raw = codec.encode_record(Hello(major=1))
    assert bytes(raw) == b'{"type":"hello","major":1}'


def _outcome(decode: Callable[[], object]) -> str:
    """ "read", or the code of the ProtocolError; any other exception passes through."""
    try:
        decode()
    except ProtocolError as error:
        return error.code
    return "read"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "request", "topic", "changes", "op", "id", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(st.binary(max_size=200) | st.text(max_size=100))
def test_any_bytes_give_a_message_or_a_protocol_error(data: bytes | str) -> None:
    assert _outcome(lambda: codec.decode_client(data, LIMIT)) in {"read", *CATALOGUE}


@given(
    st.sampled_from(sorted(codec.CLIENT_TYPES)),
    st.dictionaries(st.text(max_size=8), _JSON, max_size=4),
    _JSON,
)
def test_any_json_gives_a_message_or_a_protocol_error(
    kind: str, fields: dict[str, object], changes: object
) -> None:
    message = {"request": 1, "session": "a", "producer": "p", "producer_epoch": 1, "first": 1, "topic": "a"}
    data = json.dumps({**message, "changes": changes, **fields, "type": kind})
    for decode in (lambda: codec.decode_client(data, LIMIT), lambda: codec.decode_server(data)):
        assert _outcome(decode) in {"read", *CATALOGUE}


@given(st.binary(min_size=1, max_size=3), st.integers(0, 60))
def test_a_damaged_message_gives_a_message_or_a_protocol_error(damage: bytes, at: int) -> None:
    whole = b'{"type":"remove","request":7,"session":"nightly~01"}'
    damaged = whole[:at] + damage + whole[at + len(damage) :]
    assert _outcome(lambda: codec.decode_client(damaged, LIMIT)) in {"read", *CATALOGUE}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            {"type": "value_get", "request": 1, "session": "s", "sha256": "AB", "offset": 0},
            "64 hexadecimal digits",
        ),
        (
            {"type": "command", "request": 1, "session": "s", "key": "1", "name": "pause"},
            "32 hexadecimal digits",
        ),
        ({"type": "subscribe", "topic": "a\nb", "generation": 1}, "characters that are not allowed"),
    ],
)
def test_what_is_wrong_with_a_string_is_said_in_words(message: dict[str, object], words: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        codec.decode_client(json.dumps(message), 10_000)
    assert words in str(caught.value)
    assert "[" not in str(caught.value).replace("$.", "")


def publish_of(*changes: object) -> bytes:
    return msgspec.json.encode(
        {
            "type": "publish",
            "session": "s",
            "producer": "p",
            "producer_epoch": 1,
            "first": 1,
            "changes": changes,
        }
    )


@pytest.mark.parametrize(
    ("change", "code", "context"),
    [
        (5, "bad_message", {}),
        ({"op": 7}, "bad_message", {}),
        ({"op": "nothing", "id": "x"}, "bad_message", {}),
        ({"op": "step", "id": "x", "chain": 5}, "bad_message", {"step": "x"}),
        ({"op": "chain", "id": "a/b"}, "bad_id", {}),
        ({"op": "chain", "id": "c", "name": 5}, "bad_message", {"chain": "c"}),
        ({"op": "log", "step": "x", "records": "none"}, "bad_message", {"step": "x"}),
    ],
)
def test_a_change_that_cannot_be_read_does_not_take_its_neighbours_along(
    change: object, code: str, context: dict[str, str]
) -> None:
    good = {"op": "chain", "id": "c", "name": "c"}
    message = codec.decode_client(publish_of(good, change, good), 10_000)
    assert isinstance(message, codec.DamagedPublish)
    first, bad, last = message.changes
    assert first == last == ChainChange(id="c", name="c")
    assert isinstance(bad, Unreadable)
    assert (bad.code, bad.context) == (code, context)


def test_a_time_that_is_none_is_said_in_words() -> None:
    message = codec.decode_client(publish_of({"op": "chain", "id": "c", "started": "noon"}), 10_000)
    assert isinstance(message, codec.DamagedPublish)
    [bad] = message.changes
    assert isinstance(bad, Unreadable)
    assert "nanoseconds since 1970" in bad.message


def test_a_bad_change_in_a_message_that_breaks_off_is_no_json() -> None:
    with pytest.raises(ProtocolError) as caught:
        codec.decode_client(publish_of({"op": "nothing"}, {"op": "chain", "id": "c"})[:-4], 10_000)
    assert caught.value.code == "bad_json"


def test_what_is_said_of_a_change_that_cannot_be_read() -> None:
    message = codec.decode_client(publish_of({"op": 7}, {"op": "x" * 99}), 10_000)
    assert isinstance(message, codec.DamagedPublish)
    assert (message.session, message.producer, message.producer_epoch, message.first) == ("s", "p", 1, 1)
    words = [change.message for change in message.changes if isinstance(change, Unreadable)]
    assert words[0].startswith("a change: ")
    assert words[1].startswith("x" * 64 + ": ")


@pytest.mark.parametrize(
    ("data", "code", "words", "fatal"),
    [
        (b'{"a":' * 5_000, "bad_json", "nested too deeply", True),
        (b'{"type":"\xff"}', "bad_json", "not UTF-8", True),
        (b"[]", "bad_message", "a message is one JSON object", False),
        (b'{"request":3}', "bad_message", "a message needs a `type`, a string", False),
    ],
)
def test_what_is_said_of_what_is_no_message(data: bytes, code: str, words: str, fatal: bool) -> None:
    with pytest.raises(ProtocolError) as caught:
        codec.decode_client(data, 100_000)
    assert (caught.value.code, caught.value.fatal) == (code, fatal)
    assert str(caught.value).startswith(words)
    assert caught.value.request == (3 if b"request" in data else None)


@pytest.mark.parametrize("number", [0, 1, 107, 2**53 - 1])
def test_the_request_of_a_bad_message_is_kept(number: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        codec.decode_client(msgspec.json.encode({"type": "refresh", "request": number}), 1_000)
    assert caught.value.request == number
