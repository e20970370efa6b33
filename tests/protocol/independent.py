"""A second implementation of the digest, from docs/protocol.md and docs/asyncapi.json alone.

It imports nothing of wsmonitor, reads entities as they stand on the wire, and takes the order and
the defaults of fields from the published document: what a client in another language would do.
"""

from __future__ import annotations

import json
import struct
from hashlib import sha256
from pathlib import Path
from typing import Any

DOCUMENT: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[2] / "docs" / "asyncapi.json").read_text(encoding="utf-8")
)
SCHEMAS = DOCUMENT["components"]["schemas"]
KINDS = {
    kind: reference.rsplit("/", 1)[1]
    for kind, reference in SCHEMAS["Event"]["properties"]["entity"]["x-entity-kinds"].items()
}
ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def write_string(text: str) -> str:
    characters = (ESCAPES.get(char) or (f"\\u{ord(char):04x}" if ord(char) < 0x20 else char) for char in text)
    return '"' + "".join(characters) + '"'


def write_number(number: int | float) -> str:
    # As a language with doubles only would see it.
    double = float(number)
    if double.is_integer() and abs(double) < 2**53:
        return str(int(double))
    return '"f:' + struct.pack(">d", double).hex() + '"'


def referred(schema: dict[str, Any]) -> str | None:
    """The record type that a schema allows, if any."""
    for option in (schema, *schema.get("anyOf", ())):
        if "$ref" in option:
            return str(option["$ref"]).rsplit("/", 1)[1]
    return None


def write_record(record: dict[str, Any], name: str, fields: list[str]) -> list[str]:
    properties = SCHEMAS[name]["properties"]
    return [
        write(record[field] if field in record else properties[field]["default"], properties[field])
        for field in fields
    ]


def write(value: Any, schema: dict[str, Any]) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return write_string(value)
    if isinstance(value, int | float):
        return write_number(value)
    if isinstance(value, list):
        return "[" + ",".join(write(item, schema.get("items", {})) for item in value) + "]"
    record = referred(schema)
    if record == "Value":
        return write_string(value["sha256"])
    if record is not None:
        return "[" + ",".join(write_record(value, record, DOCUMENT["x-digest"]["nested"][record])) + "]"
    keys = sorted(value, key=lambda key: key.encode("utf-8"))
    return "{" + ",".join(f"{write_string(key)}:{write(value[key], {})}" for key in keys) + "}"


def canonical(kind: str, entity: dict[str, Any]) -> str:
    """The canonical encoding of an entity as it stood on the wire."""
    fields = write_record(entity, KINDS[kind], DOCUMENT["x-digest"]["fields"][kind])
    return "[" + ",".join([write_string(kind), *fields]) + "]"


def digest(entities: list[tuple[str, dict[str, Any]]]) -> str:
    """The digest over a whole state."""
    total = 0
    for kind, entity in entities:
        total += int.from_bytes(sha256(canonical(kind, entity).encode("utf-8")).digest()[:16], "big")
    return f"{total % 2**128:032x}"
