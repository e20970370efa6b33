"""Recorded notebooks that are tested with, made by hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from wsmonitor.export.outputs import MIME
from wsmonitor.export.recording import CELL_KIND, SESSION_KIND
from wsmonitor.protocol.entities import Chain, Entity, LogRecord, Producer, Session, Step, Value
from wsmonitor.protocol.reducer import SessionState

from .samples import ns

INLINE = 4096
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


class Values:
    """The values and log lines that a server keeps."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.lines: dict[str, list[LogRecord]] = {}

    def add(self, text: str, mime: str) -> Value:
        data = text.encode()
        digest = hashlib.sha256(data).hexdigest()
        if len(data) <= INLINE:
            return Value(mime=mime, text=text, size=len(data), sha256=digest)
        self.kept[digest] = data
        head = data[:INLINE].decode("utf-8", "ignore")
        return Value(mime=mime, text=head, size=len(data), sha256=digest, truncated=True)

    def reference(self, data: bytes, mime: str, form: str = "text") -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        self.kept[digest] = data
        return {"$value": {"sha256": digest, "size": len(data), "mime": mime, "form": form}}

    def fetch(self, sha256: str, size: int) -> bytes | None:
        found = self.kept.get(sha256)
        assert found is None or len(found) == size
        return found

    def logs(self, step: str, count: int) -> list[LogRecord]:
        return self.lines.get(step, [])[-count:]


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def display(**data: Any) -> dict[str, Any]:
    """``display(text_plain="x", image_png=…)``."""
    mimes = {key.replace("_", "/", 1).replace("__", "+"): datum for key, datum in data.items()}
    return {"output_type": "display_data", "data": mimes, "metadata": {}}


def ran(
    values: Values,
    number: int,
    source: str,
    outputs: Sequence[Any] | None = (),
    *,
    cell_id: str | None = None,
    state: str = "succeeded",
    dropped: dict[str, int] | None = None,
    **more: Any,
) -> Step:
    """A cell that ran as the *number*-th, by default in the cell ``c<number>``."""
    cell_id = f"c{number}" if cell_id is None else cell_id
    document = json.dumps({"outputs": list(outputs or ()), "dropped": dropped or {}})
    return Step(
        id=f"s{number}",
        chain="nb",
        name=source.partition("\n")[0][:60] or "empty",
        kind=CELL_KIND,
        state=state,  # type: ignore[arg-type]
        input=values.add(source, "text/x-python"),
        output=None if outputs is None else values.add(document, MIME),
        attributes={"cell_id": cell_id, "execution_count": number, "notebook": "work/analysis.ipynb"},
        started=ns(number),
        ended=ns(number + 0.5),
        **more,
    )


def recorded(
    *steps: Step, kind: str = SESSION_KIND, name: str = "analysis", liveness: str = "live"
) -> SessionState:
    entities: list[tuple[str, Entity]] = [
        (
            "session",
            Session(
                id=f"{name}~1", name=name, run=1, kind=kind, state="succeeded", created=ns(0), started=ns(0)
            ),
        ),
        ("producer", Producer(id="p", subject="ada", since=ns(0), liveness=liveness)),
        ("chain", Chain(id="nb", name="analysis", kind=SESSION_KIND, state="succeeded")),
        *(("step", step) for step in steps),
    ]
    return SessionState.restore(f"{name}~1", "e", len(entities), entities)
