"""Messages made from the JSON Schemas of the AsyncAPI document: valid ones, and nearly valid ones.

The document is what somebody who writes another client reads: what it allows has to be taken, or refused by
a code, and so has what it does not allow.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st

DOCUMENT: Final = Path(__file__).resolve().parents[2] / "docs" / "asyncapi.json"
_REF: Final = "#/components/schemas/"

WORDS: Final = (
    *("s1", "s2", "etl~1", "theirs", "c1", "c2", "p", "q", "x", "pause", "cancel", "tool", "1", "17", "é~1"),
    *("a b", "/directory", "/directory/etl", "0" * 32, "f" * 32, "0" * 64, "ab" * 32, "1700000000000000000"),
    *("text/plain", "", "data", "eyJ", "ZGF0YQ==", "\U0001f511", "a/b", "*", "\n", "\u202e"),
    *("x" * 128, "y" * 129, "z" * 5000),
)
"""Strings that mean something here, and some that nearly do: where a pattern is asked for, those that fit."""

NUMBERS: Final = (
    0,
    1,
    2,
    3,
    17,
    49,
    50,
    256,
    1000,
    60_000,
    2**31,
    2**53 - 1,
    2**53,
    2**63,
    2**64,
    -1,
    10**30,
)


@cache
def schemas() -> dict[str, Any]:
    """The schemas by name."""
    found: dict[str, Any] = json.loads(DOCUMENT.read_text("utf-8"))["components"]["schemas"]
    return found


@cache
def requests() -> dict[str, str]:
    """What a client may send: message type to the name of its schema."""
    document = json.loads(DOCUMENT.read_text("utf-8"))
    sent = [
        message["$ref"].rpartition("/")[2]
        for operation in document["operations"].values()
        if operation["action"] == "receive"
        for message in operation["messages"]
    ]
    messages = document["components"]["messages"]
    return {name: messages[name]["payload"]["$ref"].removeprefix(_REF) for name in sent}


def of(schema: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
    """Values that *schema* allows."""
    if "$ref" in schema:
        return of(schemas()[schema["$ref"].removeprefix(_REF)], depth + 1)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of(*(of(one, depth) for one in schema["anyOf"]))
    match schema.get("type"):
        case "string":
            return st.sampled_from([word for word in WORDS if _fits(word, schema)])
        case "integer":
            low, high = schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1)
            known = [number for number in NUMBERS if low <= number <= high]
            return st.sampled_from(known) | st.integers(low, high)
        case "number":
            return st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "array":
            return _array(schema, depth)
        case "object":
            return _object(schema, depth)
    return _anything(depth)


def _fits(word: str, schema: dict[str, Any]) -> bool:
    pattern = schema.get("pattern")
    return schema.get("minLength", 0) <= len(word) <= schema.get("maxLength", 10**9) and (
        pattern is None or (re.search(pattern, word) is not None and not word.endswith("\n"))
    )


def _array(schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    if "prefixItems" in schema:
        return st.tuples(*(of(item, depth + 1) for item in schema["prefixItems"])).map(list)
    least = schema.get("minItems", 0)
    items = schema.get("items")
    element = of(items, depth + 1) if isinstance(items, dict) else _anything(depth + 1)
    return st.lists(element, min_size=least, max_size=min(schema.get("maxItems", 3), max(least, 3)))


def _object(schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    properties = schema.get("properties")
    if not properties:
        rest = schema.get("additionalProperties")
        values = of(rest, depth + 1) if isinstance(rest, dict) else _anything(depth + 1)
        return st.dictionaries(st.sampled_from(WORDS[:20]), values, max_size=2)
    required = set(schema.get("required", ()))
    if "type" in properties and "enum" in properties["type"]:
        required.add("type")
    if "op" in properties and "enum" in properties["op"]:
        required.add("op")
    return st.fixed_dictionaries(
        {name: of(one, depth + 1) for name, one in properties.items() if name in required},
        optional={name: of(one, depth + 1) for name, one in properties.items() if name not in required},
    )


def _anything(depth: int) -> st.SearchStrategy[Any]:
    leaves = (
        st.none() | st.booleans() | st.sampled_from(WORDS) | st.sampled_from(NUMBERS) | st.floats(-1e9, 1e9)
    )
    return (
        leaves
        if depth > 3
        else leaves
        | st.lists(leaves, max_size=2)
        | st.dictionaries(st.sampled_from(WORDS[:6]), leaves, max_size=2)
    )


@st.composite
def valid(draw: st.DrawFn) -> bytes:
    """A message that the document allows."""
    name = draw(st.sampled_from(sorted(requests())))
    return _text(draw(of(schemas()[requests()[name]])))


@st.composite
def nearly(draw: st.DrawFn) -> bytes:
    """A message with one or two things wrong: somewhere in it, or in its text."""
    name = draw(st.sampled_from(sorted(requests())))
    message = draw(of(schemas()[requests()[name]]))
    for _ in range(draw(st.integers(1, 2))):
        place, key = draw(st.sampled_from(_places(message)))
        match draw(st.sampled_from(["drop", "other", "wrap", "add", "type"])):
            case "drop" if isinstance(place, dict):
                place.pop(key, None)
            case "wrap":
                place[key] = [place.get(key) if isinstance(place, dict) else place[key]]
            case "add":
                message[draw(st.sampled_from(WORDS))] = draw(_anything(0))
            case "type":
                message["type"] = draw(
                    st.sampled_from([*sorted(requests()), "welcome", "event", "", None, 5])
                )
            case _:
                place[key] = draw(_anything(0))
        if not isinstance(message, dict) or not message:
            message = {"type": name}
    data = _text(message)
    match draw(st.sampled_from(["whole", "whole", "whole", "cut", "byte", "twice", "space"])):
        case "cut":
            data = data[: draw(st.integers(0, len(data)))]
        case "byte":
            at = draw(st.integers(0, len(data) - 1))
            data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
        case "twice":
            data = data[:-1] + b"," + data[1:]
        case "space":
            data = b" \t" + data.replace(b":", b" : ") + b"\r"
    return data.replace(b"\n", b" ")


def _places(message: Any) -> list[tuple[Any, Any]]:
    """All (container, key) in *message*."""
    found: list[tuple[Any, Any]] = []
    if isinstance(message, dict | list):
        for key in list(message) if isinstance(message, dict) else range(len(message)):
            found.append((message, key))
            found += _places(message[key])
    return found or [({}, "type")]


def _text(message: Any) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass")
