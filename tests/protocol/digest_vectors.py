"""The cases of docs/vectors/digest.json; ``python -m tests.protocol.digest_vectors`` prints the file."""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from typing import Any

from wsmonitor.protocol.digest import canonical, entity_hash
from wsmonitor.protocol.reducer import SessionState, decode_entity

SHA = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of b"abc"
T = "1700000000000000000"

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("defaults only", "chain", {"id": "c", "name": "load"}),
    (
        "session, first event",
        "session",
        {"id": "etl~01", "name": "etl", "run": 3, "state": "running", "seq": 1},
    ),
    (
        "a session with commands",
        "session",
        {
            "id": "etl~01",
            "name": "etl",
            "commands": [
                {"name": "pause", "targets": ["session", "step"]},
                {
                    "name": "set",
                    "args": [{"name": "rate", "type": "number", "required": True, "choices": ["1", "2"]}],
                    "destructive": True,
                    "description": "change it",
                },
            ],
            "tags": ["b", "a"],
            "links": [{"rel": "see", "href": "https://example.org/x?a=1&b=2", "title": "more"}],
            "seq": 2,
        },
    ),
    (
        "a step with everything",
        "step",
        {
            "id": "s1",
            "chain": "c",
            "parent": "s0",
            "name": "parse",
            "kind": "tool",
            "state": "failed",
            "reason": "boom",
            "step_key": "parse/a.py",
            "attempt": 2,
            "progress": {"done": 7, "total": 10, "unit": "files"},
            "input": {"text": "abc", "size": 3, "sha256": SHA, "mime": "text/plain"},
            "output": {"text": "ab", "size": 3, "sha256": SHA, "truncated": True},
            "error": {"message": "no\nway", "type": "ValueError", "traceback": 'File "a.py"\n\tx\\y'},
            "metrics": {"loss": 0.25, "epoch": 3.0},
            "log_count": 5,
            "log_last": "not covered",
            "tags": ["x"],
            "attributes": {"list": [1, 2.5, "three", True], "flag": False},
            "commands": ["cancel", "retry"],
            "created": T,
            "started": T,
            "ended": "1700000000000000001",
            "producer": "p",
            "seq": 42,
        },
    ),
    (
        "the same step without its log fields",
        "step",
        {"id": "s1", "chain": "c", "name": "parse", "producer": "p", "seq": 43},
    ),
    ("strings: escapes", "chain", {"id": "c", "name": "n", "reason": '"\\/\b\f\n\r\t\x00\x01\x1f\x7f\x80'}),
    (
        "strings: unicode",
        "chain",
        {"id": "語\U0001f600", "name": "Ω é e\u0301 \ufeff\ufffd", "reason": "\u2028"},
    ),
    (
        "keys: sorted by UTF-8 bytes, not by UTF-16 units",
        "chain",
        {"id": "c", "name": "n", "attributes": {"\U0001f600": 1, "\uffff": 2, "é": 3, "a": 4, "B": 5, "": 6}},
    ),
    (
        "numbers: integral",
        "chain",
        {
            "id": "c",
            "name": "n",
            "metrics": {"a": 0, "b": -0.0, "c": 1.0, "d": -7, "e": 1e15, "f": 2**53 - 1, "g": -(2**53 - 1)},
        },
    ),
    (
        "numbers: from 2^53 on as doubles",
        "chain",
        {
            "id": "c",
            "name": "n",
            "metrics": {"a": 2**53, "b": 2**53 + 1, "c": -(2**53), "d": 2**63 - 1, "e": 1e300, "f": -1e22},
        },
    ),
    (
        "numbers: fractions",
        "chain",
        {
            "id": "c",
            "name": "n",
            "metrics": {"a": 0.1, "b": -0.5, "c": 5e-324, "d": 1.7976931348623157e308, "e": 1 / 3, "f": 1e-7},
        },
    ),
    ("numbers: progress without a total", "chain", {"id": "c", "name": "n", "progress": {"done": 0.5}}),
    (
        "a command",
        "command",
        {
            "id": "0123456789abcdef0123456789abcdef",
            "name": "set",
            "step": "s1",
            "args": {"rate": 0.5, "all": True, "n": 3, "why": "faster"},
            "state": "accepted",
            "actor": "alice",
            "via": "notebook",
            "deadline": T,
            "requested": T,
            "delivered": T,
            "accepted": T,
            "seq": 9,
        },
    ),
    (
        "a producer",
        "producer",
        {
            "id": "p",
            "subject": "alice",
            "agent": "train.py",
            "epoch": 2,
            "liveness": "stale",
            "since": T,
            "seq": 4,
        },
    ),
    (
        "an error",
        "error",
        {
            "id": "e1",
            "code": "producer_error",
            "message": "disk full",
            "severity": "warning",
            "retryable": True,
            "chain": "c",
            "at": T,
            "seq": 5,
        },
    ),
    (
        "a listing",
        "listing",
        {
            "id": "etl~01",
            "name": "etl",
            "run": 3,
            "state": "running",
            "liveness": "live",
            "counts": {"succeeded": 3, "running": 1},
            "created": T,
            "size": 12345,
            "seq": 6,
        },
    ),
]


def vectors() -> dict[str, Any]:
    """The content of the vector file, as the product computes it."""
    single, state = [], SessionState("etl~01", "e")
    for title, kind, wire in CASES:
        entity = decode_entity(kind, json.dumps(wire).encode())
        assert entity is not None
        text = canonical(entity)
        single.append(
            {
                "title": title,
                "kind": kind,
                "entity": wire,
                "canonical": text.decode(),
                "sha256": sha256(text).hexdigest(),
                "number": f"{entity_hash(entity):032x}",
            }
        )
    state_cases = []
    for count in (0, 1, 2, 4, len(CASES)):
        state = SessionState("etl~01", "e")
        chosen = []
        for title, kind, wire in CASES[:count]:
            entity = decode_entity(kind, json.dumps(wire).encode())
            assert entity is not None
            state.put(kind, entity)
            # A later case with the same kind and id takes the place of the earlier.
            chosen = [item for item in chosen if item[:2] != (kind, wire["id"])] + [(kind, wire["id"], title)]
        state_cases.append({"entities": [title for _, _, title in chosen], "digest": state.digest})
    return {"entities": single, "states": state_cases}


def text() -> str:
    """The file as it is committed: ASCII, so that no editor changes what matters."""
    return json.dumps(vectors(), indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
