"""A cell's outputs: from the kernel's messages, written and read."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsmonitor.export.collecting import OutputLimits, Outputs, outputs_from_messages, redacted
from wsmonitor.export.outputs import decode, encode, plain_text, references, resolve
from wsmonitor.publish.redaction import Redactor


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"msg_type": "stream", "content": {"name": name, "text": text}}


def display(data: dict[str, Any], ident: str = "", kind: str = "display_data") -> dict[str, Any]:
    transient = {"display_id": ident} if ident else {}
    return {"msg_type": kind, "content": {"data": data, "metadata": {}, "transient": transient}}


def clear(wait: bool = False) -> dict[str, Any]:
    return {"msg_type": "clear_output", "content": {"wait": wait}}


def shown(*chunks: str) -> str:
    (only,) = outputs_from_messages(map(stream, chunks))
    return str(only["text"])


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        (["a", "b\n", "c"], "ab\nc"),
        (["10%\r20%\r", "30%"], "30%"),
        (["long line\rab"], "abng line"),
        (["one\ntwo\rTW"], "one\nTWo"),
        (["line\r\nnext"], "line\nnext"),
        (["ab\rc\nd"], "cb\nd"),  # a newline goes to the end, wherever the cursor stands
        (["abc\b\bX"], "aX"),
        (["a\n\bb"], "a\nb"),  # not back over the end of a line
        (["abc\r\bX"], "Xbc"),
        (["\r\r\rx"], "x"),
    ],
)
def test_streams_are_collapsed_as_jupyterlab_does(chunks: list[str], text: str) -> None:
    assert shown(*chunks) == text


@given(st.lists(st.text("ab\n\r\b", max_size=6), max_size=8))
def test_how_a_stream_is_cut_into_messages_changes_nothing(chunks: list[str]) -> None:
    together = "".join(chunks)
    assert outputs_from_messages(map(stream, chunks)) == outputs_from_messages([stream(together)])


def test_streams_of_one_name_are_one_output_until_something_comes_between() -> None:
    made = outputs_from_messages(
        [
            stream("a"),
            stream("b"),
            stream("x", "stderr"),
            stream("c"),
            display({"text/plain": "d"}),
            stream("e"),
        ]
    )
    assert [(item.get("name"), item.get("text")) for item in made] == [
        ("stdout", "ab"), ("stderr", "x"), ("stdout", "c"), (None, None), ("stdout", "e"),
    ]  # fmt: skip


def test_clearing_now_and_when_the_next_output_comes() -> None:
    assert outputs_from_messages([stream("a"), clear(), stream("b")]) == outputs_from_messages([stream("b")])
    assert outputs_from_messages([stream("a"), clear(wait=True)]) == outputs_from_messages([stream("a")])
    waited = outputs_from_messages([stream("a"), clear(wait=True), stream("b"), stream("c")])
    assert waited == outputs_from_messages([stream("bc")])


def test_a_display_is_updated_where_it_stands() -> None:
    outputs = Outputs()
    for message in (display({"text/plain": "1"}, "p"), stream("x"), display({"text/plain": "1"}, "p")):
        outputs.add(message["msg_type"], message["content"])
    assert outputs.update(display({"text/plain": "2"}, "p")["content"])
    assert [item.get("data") for item in outputs.outputs()] == [
        {"text/plain": "2"}, None, {"text/plain": "2"},
    ]  # fmt: skip
    assert not outputs.update(display({"text/plain": "3"}, "other")["content"])


def test_results_and_errors_keep_their_fields() -> None:
    result = {"data": {"text/plain": "4"}, "metadata": {"a": 1}, "execution_count": 7}
    error = {"ename": "KeyError", "evalue": "'x'", "traceback": ["\x1b[31mKeyError\x1b[0m", "'x'"]}
    made = outputs_from_messages(
        [{"msg_type": "execute_result", "content": result}, {"msg_type": "error", "content": error}]
    )
    assert made == [{"output_type": "execute_result", **result}, {"output_type": "error", **error}]
    assert plain_text(made[1]["traceback"][0]) == "KeyError"


@pytest.mark.parametrize(
    ("mime", "datum", "form"),
    [
        ("image/png", base64.b64encode(b"\x89PNG" * 99).decode(), "base64"),
        (
            "image/png",
            base64.encodebytes(b"\x89PNG" * 30).decode().replace("\n", "") + "\n",
            "base64+newline",
        ),
        ("image/png", "not base64 " * 20, "text"),
        ("text/html", "<p>é</p>" * 50, "text"),
        ("application/json", {"a": ["b" * 200]}, "json"),
    ],
)
def test_large_data_are_values_of_their_own_and_come_back_exactly(mime: str, datum: Any, form: str) -> None:
    kept: dict[str, bytes] = {}

    def put(data: bytes, mime: str, digest: str) -> bool:
        kept[digest] = data
        return True

    outputs = Outputs(OutputLimits(inline=40), put=put)
    outputs.add("display_data", {"data": {mime: datum, "text/plain": "x"}})
    written = decode(outputs.document())
    (reference,) = references(written.outputs)
    assert (reference.form, reference.mime, reference.size) == (form, mime, len(kept[reference.sha256]))
    assert resolve(written.outputs, kept.__getitem__)[0]["data"] == {mime: datum, "text/plain": "x"}
    assert resolve(written.outputs, {}.__getitem__)[0]["data"] == {"text/plain": "x"}


def test_a_value_that_is_gone_is_named() -> None:
    outputs = Outputs(OutputLimits(inline=40), put=lambda data, mime, digest: True)
    outputs.add("display_data", {"data": {"image/svg+xml": "<svg/>" * 100}})
    (item,) = resolve(outputs.outputs(), {}.__getitem__)
    assert item["data"] == {"text/plain": "recorded, but no longer there: image/svg+xml of 600 bytes"}


def test_of_too_much_text_beginning_and_end_remain_and_the_rest_is_counted() -> None:
    outputs = Outputs(OutputLimits(text=10_000))
    for number in range(5_000):
        outputs.add("stream", {"name": "stdout", "text": f"line {number}\n"})
    (item,) = outputs.outputs()
    text = item["text"]
    assert len(text) < 11_000
    assert text.startswith("line 0\nline 1\n")
    assert text.endswith("line 4998\nline 4999\n")
    whole = sum(len(f"line {number}\n") for number in range(5_000))
    lost = outputs.dropped["characters"]
    assert f"… {lost:,} characters not recorded …" in text
    assert len(text) - len(f"\n… {lost:,} characters not recorded …\n") + lost == whole


def test_of_too_many_outputs_the_rest_is_counted_but_the_error_kept() -> None:
    outputs = Outputs(OutputLimits(outputs=3))
    for number in range(5):
        outputs.add("display_data", {"data": {"text/plain": str(number)}})
    outputs.add("error", {"ename": "E", "evalue": "", "traceback": []})
    assert [item["output_type"] for item in outputs.outputs()] == ["display_data"] * 3 + ["error"]
    assert decode(outputs.document()).dropped == {"outputs": 2}


def test_a_datum_that_is_too_large_is_told_in_its_place() -> None:
    outputs = Outputs(OutputLimits(inline=10, datum=100), put=lambda *_: True)
    outputs.add("display_data", {"data": {"text/html": "x" * 200}})
    assert outputs.outputs()[0]["data"] == {"text/plain": "not recorded: text/html of 200 bytes"}
    assert outputs.dropped == {"bytes": 200}


def test_secrets_are_taken_out_also_across_messages_and_colours() -> None:
    outputs = Outputs(redact=Redactor().text)
    for text in ("the tok", "en=abcdef", "ghij is it\n"):
        outputs.add("stream", {"name": "stdout", "text": text})
    outputs.add("display_data", {"data": {"text/html": "<b>password=hunter2</b>"}})
    coloured = "\x1b[38;5;28mpassword\x1b[39m\x1b[38;5;241m=\x1b[39m\x1b[33m'hunter2'\x1b[39m"
    outputs.add("error", {"ename": "E", "evalue": "password='hunter2'", "traceback": [coloured]})
    text = outputs.document().decode()
    assert "abcdefghij" not in text
    assert "hunter2" not in text
    assert "is it" in text
    assert redacted("\x1b[31mred\x1b[0m", Redactor().text) == "\x1b[31mred\x1b[0m"


@pytest.mark.parametrize("data", [b"", b"[]", b'{"outputs": 3}', b'{"outputs": [1]}', b"\xff", b"{"])
def test_what_is_no_such_value_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not recorded outputs"):
        decode(data)


def test_lone_surrogates_do_not_break_the_document() -> None:
    made = outputs_from_messages(
        [stream("a\ud800b"), display({"text/plain": "\udfff", "application/json": ["\ud800"]})]
    )
    assert decode(encode(made)).outputs[0]["text"] == "a?b"


def test_secrets_are_taken_out_of_json_and_of_metadata_too() -> None:
    outputs = Outputs(redact=Redactor().text)
    data = {
        "user": "bob", "password": "hunter2", "n": [1, 2.5, None, True], "url": "postgres://bob:s3cret@db/x",
        "deep": [{"client_secret": "hunter3", "tokens": 7, "token": ""}], "max_tokens": "many",
    }  # fmt: skip
    shown = {"data": {"application/json": data}, "metadata": {"api_key": "hunter4", "width": 3}}
    outputs.add("display_data", shown)
    text = outputs.document().decode()
    for secret in ("hunter", "s3cret"):
        assert secret not in text
    (one,) = outputs.outputs()
    assert one["metadata"] == {"api_key": "[redacted]", "width": 3}
    assert one["data"]["application/json"] == {
        **data, "password": "[redacted]", "url": "postgres://bob:[redacted]@db/x",
        "deep": [{"client_secret": "[redacted]", "tokens": 7, "token": ""}],
    }  # fmt: skip
    nested: Any = "password=hunter5"
    for _ in range(300):
        nested = [nested]
    outputs.add("display_data", {"data": {"application/json": nested}})
    assert b"hunter5" not in outputs.document()
