"""docs/asyncapi.json is what the types say, is complete, and its schemas judge as the codec does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from wsmonitor.protocol import asyncapi
from wsmonitor.protocol.codec import CLIENT_TYPES, SERVER_TYPES, decode_client
from wsmonitor.protocol.errors import CATALOGUE, ProtocolError

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "asyncapi.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    return loaded


def _validator(document: dict[str, Any], schema: str) -> Any:
    resolvable = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
    return jsonschema.Draft202012Validator(resolvable)


def test_the_committed_document_is_what_the_types_say() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == asyncapi.text(), (
        "docs/asyncapi.json has drifted: python -m wsmonitor.protocol.asyncapi > docs/asyncapi.json"
    )


def test_every_message_and_its_operation_is_there(document: dict[str, Any]) -> None:
    assert set(document["components"]["messages"]) == CLIENT_TYPES | SERVER_TYPES
    expected = {f"receive_{name}" for name in CLIENT_TYPES} | {f"send_{name}" for name in SERVER_TYPES}
    assert set(document["operations"]) == expected
    assert set(document["x-error-codes"]) == set(CATALOGUE)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def follow(reference: str) -> Any:
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
        return place

    seen = 0

    def walk(value: Any) -> None:
        nonlocal seen
        if isinstance(value, dict):
            if isinstance(reference := value.get("$ref"), str):
                assert follow(reference) is not None
                seen += 1
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(document)
    assert seen > 100


def test_every_schema_is_a_valid_schema(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("Hello", {"type": "hello", "major": 1}),
        ("Hello", {"type": "hello"}),
        ("Hello", {"type": "hello", "major": 1.5}),
        ("Hello", {"type": "hello", "major": 1, "of_a_later_version": True}),
        ("Remove", {"type": "remove", "request": 1, "session": "etl~01"}),
        ("Remove", {"type": "remove", "request": 1, "session": "a*"}),
        ("Remove", {"type": "remove", "request": 1, "session": "a/b"}),
        ("Remove", {"type": "remove", "request": 1, "session": "x" * 129}),
        ("Remove", {"type": "remove", "request": 1, "session": " a"}),
        ("Remove", {"type": "remove", "request": 1, "session": "a\u202eb"}),
        ("Remove", {"type": "remove", "request": -1, "session": "a"}),
        ("Subscribe", {"type": "subscribe", "topic": "/directory", "generation": 1}),
        ("Subscribe", {"type": "subscribe", "topic": "/directory/a/b *", "generation": 1}),
        ("Subscribe", {"type": "subscribe", "topic": "/elsewhere", "generation": 1}),
        ("Subscribe", {"type": "subscribe", "topic": "", "generation": 1}),
        ("Subscribe", {"type": "subscribe", "topic": "a", "generation": 1, "delivery": "some"}),
        ("Subscribe", {"type": "subscribe", "topic": "a", "generation": 1, "interval_ms": 49}),
        ("ValueGet", {"type": "value_get", "request": 1, "session": "a", "sha256": "0" * 64, "offset": 0}),
        ("ValueGet", {"type": "value_get", "request": 1, "session": "a", "sha256": "G" * 64, "offset": 0}),
    ],
)
def test_the_schemas_and_the_codec_judge_alike(
    document: dict[str, Any], schema: str, message: dict[str, Any]
) -> None:
    by_schema = _validator(document, schema).is_valid(message)
    try:
        decode_client(json.dumps(message), 10_000)
        by_codec = True
    except ProtocolError:
        by_codec = False
    assert by_schema == by_codec
