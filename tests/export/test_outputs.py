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


# ---------------------------------------------------------------------- what a kernel may send


def test_whatever_else_a_kernel_sends_is_no_output() -> None:
    outputs = Outputs()
    assert not outputs.add("status", {"execution_state": "idle"})
    assert not outputs.add("stream", {"name": "stdout", "text": ""})
    assert not outputs.add("clear_output", {})
    assert not outputs.add("update_display_data", {"data": {}, "transient": {"display_id": "p"}})
    assert (len(outputs), outputs.version, outputs.outputs()) == (0, 0, [])


def test_a_message_says_whether_anything_changed_and_the_version_grows_with_it() -> None:
    outputs = Outputs()
    for kind, content in (
        ("stream", {"text": ["a", "b"]}),
        ("display_data", {"data": {"text/plain": "1"}, "transient": {"display_id": "p"}}),
        ("update_display_data", {"data": {"text/plain": "2"}, "transient": {"display_id": "p"}}),
        ("error", {"ename": "E"}),
        ("clear_output", {"wait": False}),
    ):
        before = outputs.version
        assert outputs.add(kind, content)
        assert outputs.version > before
    assert len(outputs) == 0


def test_where_a_display_stands_is_known_until_it_is_cleared() -> None:
    outputs = Outputs()
    outputs.add("display_data", {"data": {}, "transient": {"display_id": "p"}})
    outputs.add("display_data", {"data": {}, "transient": {"display_id": 7}})
    assert outputs.has("p")
    assert not outputs.has("7")
    outputs.clear(wait=True)
    assert outputs.has("p"), "it is shown still"
    outputs.add("stream", {"text": "x"})
    assert not outputs.has("p")


def test_a_line_without_an_end_does_not_grow_for_ever() -> None:
    outputs = Outputs()
    for _ in range(3):
        outputs.add("stream", {"text": "x" * (1 << 19)})
    outputs.add("stream", {"text": "\rY"})
    (item,) = outputs.outputs()
    assert item["text"] == "x" * ((1 << 20) + (1 << 19)) + "Y", "what was settled is not gone back over"


def test_streams_count_as_outputs_too_and_what_has_begun_goes_on() -> None:
    outputs = Outputs(OutputLimits(outputs=1))
    outputs.add("stream", {"text": "a"})
    assert outputs.add("stream", {"text": "b", "name": "stderr"})
    outputs.add("stream", {"text": "c"})
    outputs.add("execute_result", {"data": {"text/plain": "7"}, "execution_count": 3})
    assert [item.get("text") for item in outputs.outputs()] == ["ac", None]
    assert outputs.dropped == {"outputs": 1}


def test_little_text_is_kept_whole_however_small_the_limit() -> None:
    outputs = Outputs(OutputLimits(text=100))
    for _ in range(3):
        outputs.add("stream", {"text": "x" * 60 + "\n"})
    assert outputs.outputs()[0]["text"] == ("x" * 60 + "\n") * 3
    assert outputs.dropped == {}


# ---------------------------------------------------------------------- data of their own


def test_values_that_cannot_be_kept_are_told_in_their_place() -> None:
    outputs = Outputs(OutputLimits(inline=10), put=lambda *_: False)
    outputs.add("display_data", {"data": {"text/html": "x" * 20}})
    outputs.add("display_data", {"data": {"text/html": "x" * 20, "text/plain": "t"}})
    assert [item["data"] for item in outputs.outputs()] == [
        {"text/plain": "not recorded: text/html of 20 bytes"},
        {"text/plain": "t"},
    ]
    assert outputs.dropped == {"bytes": 40}


def test_without_a_place_for_values_and_beyond_their_number_data_stand_in_the_record() -> None:
    content = {"data": {"text/html": "x" * 20}, "transient": {"display_id": "p"}}
    outputs = Outputs(OutputLimits(inline=10))
    outputs.add("display_data", content)
    assert outputs.outputs()[0]["data"] == content["data"]
    bounded = Outputs(OutputLimits(inline=10, values=1), put=lambda *_: True)
    bounded.add("display_data", content)
    bounded.add("display_data", {"data": {"text/html": "y" * 20}})
    assert len(references(bounded.outputs())) == 1
    assert bounded.outputs()[1]["data"] == {"text/html": "y" * 20}
    bounded.update({**content, "data": {"text/html": "z" * 20}})
    assert len(references(bounded.outputs())) == 1
    bounded.update({**content, "data": {"text/plain": "small"}})
    bounded.add("display_data", {"data": {"text/html": "w" * 20}})
    assert len(references(bounded.outputs())) == 1, "the place of the one that went is free"


def test_what_is_displayed_in_several_places_and_updated_counts_in_each_of_them() -> None:
    """A value may name so many parts and no more: with one too many it could not be published."""
    content = {"data": {"text/html": "x" * 20}, "transient": {"display_id": "p"}}
    outputs = Outputs(OutputLimits(inline=10, values=4), put=lambda *_: True)
    for _ in range(2):
        outputs.add("display_data", content)
    for number in range(9):
        outputs.update({**content, "data": {"text/html": f"{number:020}"}})
    for number in range(9):
        outputs.add("display_data", {"data": {"text/html": f"further {number:020}"}})
    assert 2 <= len(references(outputs.outputs())) <= 4


def test_a_large_display_may_be_updated_as_long_as_it_fits() -> None:
    outputs = Outputs(OutputLimits(inline=10, total=1000))
    content = {"data": {"text/html": "x" * 700}, "transient": {"display_id": "p"}}
    outputs.add("display_data", content)
    outputs.update({**content, "data": {"text/html": "y" * 800}})
    assert outputs.outputs()[0]["data"] == {"text/html": "y" * 800}
    assert outputs.dropped == {}


def test_all_data_together_have_a_bound() -> None:
    outputs = Outputs(OutputLimits(inline=100, total=150))
    for _ in range(2):
        outputs.add("display_data", {"data": {"text/plain": "x" * 90}})
    assert outputs.outputs()[1]["data"] == {"text/plain": "not recorded: text/plain of 90 bytes"}
    assert outputs.weight >= 90


def test_what_is_no_base64_stays_text_and_comes_back() -> None:
    kept: dict[str, bytes] = {}
    outputs = Outputs(
        OutputLimits(inline=4), put=lambda data, mime, digest: kept.update({digest: data}) is None
    )
    for datum in ("x" * 5, "AAAA\nAAAA\n"):
        outputs.add("display_data", {"data": {"image/png": datum}})
    written = decode(outputs.document()).outputs
    assert [one.form for one in references(written)] == ["text", "text"]
    assert [item["data"]["image/png"] for item in resolve(written, kept.__getitem__)] == [
        "x" * 5,
        "AAAA\nAAAA\n",
    ]


def test_keys_that_occur_often_are_judged_once_and_all_of_them_rightly() -> None:
    judged: list[str] = []

    def redact(text: str) -> str:
        judged.append(text)
        return Redactor().text(text)

    outputs = Outputs(redact=redact)
    rows = [{"password": "hunter2", "user": "ann"}] * 5
    outputs.add("display_data", {"data": {"application/json": rows}})
    (one,) = outputs.outputs()
    assert one["data"]["application/json"] == [{"password": "[redacted]", "user": "ann"}] * 5
    assert sum("a-value-of-it" in text for text in judged) == 2
    many = {f"key{n}": "x" for n in range(1500)} | {"api_key": "hunter3"}
    outputs.add("display_data", {"data": {"application/json": many}})
    assert b"hunter" not in outputs.document()


def test_a_reference_that_is_none_is_a_datum_and_outputs_without_data_stay() -> None:
    odd = {"$value": {"sha256": 7}}
    given = [
        {"output_type": "display_data", "data": {"application/json": odd, "text/plain": "x"}},
        {"output_type": "stream", "name": "stdout", "text": "x"},
        {"output_type": "display_data", "data": None},
    ]
    assert references(given) == []
    assert resolve(given, {}.__getitem__) == given
