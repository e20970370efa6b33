"""The protocol as an AsyncAPI 3 document with JSON Schemas, generated from the message types.

``python -m wsmonitor.protocol.asyncapi > docs/asyncapi.json`` writes it anew; a test fails when the
committed document differs from what the types say.

What AsyncAPI has no words for stands in extensions: ``x-close-codes``, ``x-error-codes``,
``x-defaults`` and ``x-digest`` (the fields that a digest covers, in order).
"""

from __future__ import annotations

import json
import sys
from inspect import cleandoc
from typing import Any, Final, get_args

import msgspec

from . import changes, entities, messages
from .close_codes import CloseCode, may_reconnect
from .defaults import (
    BEARER_SUBPROTOCOL,
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    RECONNECT_DELAYS,
    SUBPROTOCOL,
    Limits,
    Timing,
)
from .digest import FIELDS, NESTED
from .errors import CATALOGUE

_SCHEMA: Final = "#/components/schemas/{name}"

REPLIES: Final[dict[type, tuple[type, ...]]] = {
    messages.Hello: (messages.Welcome,),
    messages.Heartbeat: (messages.HeartbeatAck,),
    messages.Refresh: (messages.Refreshed,),
    messages.Subscribe: (messages.SyncBegin, messages.Removed),
    messages.SyncNext: (messages.SyncPage,),
    messages.PublishOpen: (messages.PublishOpened,),
    messages.Publish: (messages.Ack, messages.Rejected, messages.Fenced),
    messages.PublishClose: (messages.Done,),
    messages.ValuePut: (messages.ValueAck,),
    messages.ValueGet: (messages.ValuePage,),
    messages.LogsGet: (messages.LogsPage,),
    messages.HistoryGet: (messages.HistoryPage,),
    messages.CommandRequest: (messages.CommandReply,),
    messages.Remove: (messages.Done,),
    messages.Revoke: (messages.Done,),
    messages.StatusGet: (messages.Status,),
    messages.Stop: (messages.Done,),
}
"""What answers each client message, besides ``error``. What is not here has no answer."""


def _summary(cls: type) -> str:
    return cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")


def _portable(schema: Any) -> Any:
    """*schema* with plain descriptions, expressions that mean the same outside Python, and one order.

    The look-ahead that ends them answers a habit of Python's ``$`` that JSON Schema's dialect lacks.
    Versions of msgspec differ in the order of alternatives, which means nothing.
    """
    if isinstance(schema, list):
        return [_portable(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: _portable(value) for key, value in schema.items()}
    if isinstance(alternatives := result.get("anyOf"), list):
        alternatives.sort(key=lambda one: json.dumps(one, sort_keys=True))
    if isinstance(pattern := schema.get("pattern"), str):
        # In one place, whether it is a constraint of the type or was added to its schema (see `ids`).
        del result["pattern"]
        result["pattern"] = pattern.replace(r"$(?!\n)", "$")
        if "default" in result:
            result["default"] = result.pop("default")
    if isinstance(description := schema.get("description"), str):
        result["description"] = cleandoc(description)
    return result


def _schemas(types: list[type]) -> dict[str, Any]:
    _, found = msgspec.json.schema_components(types, ref_template=_SCHEMA)
    schemas: dict[str, Any] = _portable(found)
    one_event = {"$ref": _SCHEMA.format(name="Event")}
    pair = {"type": "array", "prefixItems": [{"type": "string"}, {"type": "object"}], "minItems": 2}
    # Fields that are spliced in without being parsed again have no type of their own to generate from.
    schemas["Event"]["properties"]["entity"] = {
        "type": "object",
        "description": "The complete entity: by `kind`, one of these; other kinds are of a later version.",
        "x-entity-kinds": {kind: _SCHEMA.format(name=cls.__name__) for kind, cls in entities.KINDS.items()},
    }
    schemas["SyncPage"]["properties"]["entities"]["items"] = pair
    schemas["SyncPage"]["properties"]["history"]["items"] = one_event
    schemas["HistoryPage"]["properties"]["events"]["items"] = one_event
    schemas["Batch"]["properties"]["entities"]["items"] = pair
    return dict(sorted(schemas.items()))


def _tag(cls: Any) -> str:
    return str(cls.__struct_config__.tag)


def document() -> dict[str, Any]:
    """The whole document, as plain JSON values."""
    to_server = list(get_args(messages.ClientMessage))
    to_client = list(get_args(messages.ServerMessage))
    every = list(dict.fromkeys(to_server + to_client))
    names = {cls: _tag(cls) for cls in every}
    operations: dict[str, Any] = {}
    for cls in to_server:
        operation: dict[str, Any] = {
            "action": "receive",
            "channel": {"$ref": "#/channels/connection"},
            "summary": _summary(cls),
            "messages": [{"$ref": f"#/channels/connection/messages/{names[cls]}"}],
        }
        if cls in REPLIES:
            operation["reply"] = {
                "channel": {"$ref": "#/channels/connection"},
                "messages": [
                    {"$ref": f"#/channels/connection/messages/{names[reply]}"}
                    for reply in (*REPLIES[cls], messages.Error)
                ],
            }
        operations[f"receive_{names[cls]}"] = operation
    for cls in to_client:
        operations[f"send_{names[cls]}"] = {
            "action": "send",
            "channel": {"$ref": "#/channels/connection"},
            "summary": _summary(cls),
            "messages": [{"$ref": f"#/channels/connection/messages/{names[cls]}"}],
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "wsmonitor",
            "version": f"{PROTOCOL_MAJOR}.{PROTOCOL_MINOR}",
            "description": "The wire protocol of wsmonitor. The rules are in protocol.md; this document "
            "has the form of every message. Operations are named from the server's point of view.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "server": {
                "host": "{host}:{port}",
                "protocol": "wss",
                "description": "`ws` on loopback, `wss` elsewhere.",
                "variables": {"host": {"default": "127.0.0.1"}, "port": {"default": "8765"}},
                "security": [{"$ref": "#/components/securitySchemes/bearer"}],
            }
        },
        "channels": {
            "connection": {
                "address": "/",
                "description": f"One WebSocket (`{SUBPROTOCOL}`); each text message is one JSON object.",
                "messages": {names[cls]: {"$ref": f"#/components/messages/{names[cls]}"} for cls in every},
                "bindings": {
                    "ws": {
                        "method": "GET",
                        "headers": {
                            "type": "object",
                            "properties": {
                                "Authorization": {"type": "string", "pattern": "^Bearer .+$"},
                                "Sec-WebSocket-Protocol": {
                                    "type": "string",
                                    "description": f"`{SUBPROTOCOL}`; where headers cannot be set (browsers) "
                                    f"also `{BEARER_SUBPROTOCOL}` and the token.",
                                },
                            },
                            "required": ["Sec-WebSocket-Protocol"],
                        },
                        "bindingVersion": "0.1.0",
                    }
                },
            }
        },
        "operations": operations,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "messages": {
                names[cls]: {
                    "name": names[cls],
                    "summary": _summary(cls),
                    "payload": {"$ref": _SCHEMA.format(name=cls.__name__)},
                }
                for cls in every
            },
            "schemas": _schemas([*every, *get_args(changes.Change), *entities.KINDS.values()]),
        },
        "x-close-codes": {
            str(int(code)): {"name": code.name.lower(), "reconnect": may_reconnect(code)}
            for code in CloseCode
            if code >= 4000
        },
        "x-error-codes": {
            code: {"meaning": entry.meaning, "retryable": entry.retryable, "httpStatus": entry.http_status}
            for code, entry in CATALOGUE.items()
        },
        "x-defaults": {
            "timing": msgspec.to_builtins(Timing()),
            "limits": msgspec.to_builtins(Limits()),
            "reconnectDelays": list(RECONNECT_DELAYS),
        },
        "x-digest": {
            "fields": {kind: list(fields) for kind, fields in FIELDS.items()},
            "nested": {name: list(fields) for name, fields in NESTED.items()},
        },
    }


def text() -> str:
    """The document as it is committed: indented, with a line feed at the end."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
