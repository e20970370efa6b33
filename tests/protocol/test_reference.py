"""The generated documentation is what the tables say, and protocol.md names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wsmonitor.protocol import codec, reference
from wsmonitor.protocol.close_codes import CloseCode, may_reconnect
from wsmonitor.protocol.defaults import Limits, Timing
from wsmonitor.protocol.errors import CATALOGUE

DOCS = Path(__file__).resolve().parents[2] / "docs"
PROTOCOL = (DOCS / "protocol.md").read_text(encoding="utf-8")


def test_the_generated_parts_have_not_drifted() -> None:
    for path, content in reference.contents(DOCS).items():
        assert path.read_text(encoding="utf-8") == content, (
            f"{path.name} has drifted: python -m wsmonitor.protocol.reference docs"
        )


def test_protocol_md_names_every_default() -> None:
    table = PROTOCOL[PROTOCOL.index("## 19.") : PROTOCOL.index("## 20.")]
    for record in (Timing(), Limits()):
        for name in record.__struct_fields__:
            assert f"| `{name}` | {getattr(record, name):,g}" in table or (
                f"| `{name}` | {getattr(record, name):,}" in table
            )


@pytest.mark.parametrize("message", sorted(codec.CLIENT_TYPES | codec.SERVER_TYPES))
def test_protocol_md_mentions_every_message(message: str) -> None:
    assert re.search(rf'[`"]{message}["` ]|{message} \{{', PROTOCOL)


def test_the_close_codes_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| (4\d\d\d) \| ([a-z ]+?)(?::.*?| by .*?)? \| (yes|no)", PROTOCOL, re.MULTILINE)
    told = {int(code): (name.strip(), answer == "yes") for code, name, answer in rows}
    assert told == {
        int(code): (code.name.lower().replace("_", " "), may_reconnect(code))
        for code in CloseCode
        if code >= 4000
    }


def test_protocol_md_names_the_codes_that_a_client_must_expect() -> None:
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+|fenced|gone)`", PROTOCOL)) & set(CATALOGUE)
    assert named >= {
        "bad_id",
        "bad_subprotocol",
        "binary_message",
        "command_unsupported",
        "fenced",
        "gone",
        "key_conflict",
        "message_too_large",
        "not_available",
        "not_owner",
        "origin_forbidden",
        "out_of_sequence",
        "unexpected_message",
        "unknown_type",
        "unsupported_version",
        "value_mismatch",
        "value_missing",
    }


def test_every_json_example_in_protocol_md_is_read_by_the_codec() -> None:
    blocks = re.findall(r"```json\n(.*?)```", PROTOCOL, re.DOTALL)
    read = 0
    for block in blocks:
        for text in re.split(r"\n(?=\{)", block.strip()):
            # What the example leaves out is put in: digests, keys, times.
            whole = re.sub(r'"(?:…digest…|…32 hexadecimal digits…)"', '"' + "0" * 32 + '"', text)
            whole = re.sub(r'"0123…"', '"0123456789abcdef0123456789abcdef"', whole)
            whole = re.sub(r'"ab12…"', '"' + "ab12" * 16 + '"', whole)
            whole = re.sub(r'"(deadline|requested|ts)": "…"', r'"\1": "1"', whole)
            name = re.search(r'"type": "(\w+)"', whole)
            assert name is not None, text
            if name[1] in codec.CLIENT_TYPES:
                assert codec.decode_client(whole, 10_000)
            else:
                assert codec.decode_server(whole) is not None, text
            read += 1
    assert read > 25
