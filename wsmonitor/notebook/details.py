"""All that is known of one session, chain or step, as the detail pane shows it. Pure.

The answer to ``{"do": "details", "row", "attempt"?}``; ``row`` is a row's id, or "" for the session. It is no
larger than the entity, which the protocol bounds, and the newest `ATTEMPTS` attempts.
"""

from __future__ import annotations

from typing import Any, Final

from wsmonitor.protocol.entities import KIND_OF, Chain, Failure, Session, Step, Value

from .requests import Answer, RefusedError, Request
from .rows import chain_row_id, milliseconds, step_row_id
from .view import View

ATTEMPTS: Final = 100


def details(view: View, request: Request) -> Answer:
    """The answer to a ``details`` request.

    Raises:
        RefusedError: there is no such row any more.
    """
    row = request.get("row")
    if not isinstance(row, str):
        raise RefusedError("bad_message", "details are of one row: its id is missing")
    wanted = request.get("attempt")
    found: Session | Chain | Step | None
    attempts: list[Step] = []
    if row == "":
        found = view.session
    elif row.startswith("c:"):
        found = view.rows.chain(row)
    else:
        attempts = view.rows.attempts(row)
        chosen = [step for step in attempts if step.attempt == wanted] if wanted is not None else attempts
        if attempts and not chosen:
            raise RefusedError("gone", f"attempt {wanted} of this step is no longer kept")
        found = chosen[-1] if chosen else None
    if found is None:
        what = "there is no session yet" if row == "" else "this row is no longer there"
        raise RefusedError("gone", what)
    return Answer({"details": _details(view, row, found, attempts)})


def _details(view: View, row: str, entity: Session | Chain | Step, attempts: list[Step]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "row": row,
        "kind": KIND_OF[type(entity)],
        "id": entity.id,
        "name": entity.name,
        "label": entity.kind,
        "path": entity.name,
        "state": entity.state,
        "reason": entity.reason,
        "attempt": 1,
        "attempts": [],
        "created": milliseconds(entity.created),
        "start": milliseconds(entity.started),
        "end": milliseconds(entity.ended),
        "producer": entity.producer,
        "progress": None
        if entity.progress is None
        else {"done": entity.progress.done, "total": entity.progress.total, "unit": entity.progress.unit},
        "input": _value(entity.input),
        "output": _value(entity.output),
        "error": _failure(entity.error),
        "metrics": dict(entity.metrics),
        "attributes": dict(entity.attributes),
        "tags": list(entity.tags),
        "links": [{"rel": link.rel, "href": link.href, "title": link.title} for link in entity.links],
        "logs": 0,
        "commands": [spec.name for spec in entity.commands] if isinstance(entity, Session) else [],
        "seq": entity.seq,
    }
    if isinstance(entity, Step):
        made |= {
            "path": view.rows.path(entity),
            "attempt": entity.attempt,
            "attempts": [
                {
                    "id": step.id,
                    "attempt": step.attempt,
                    "state": step.state,
                    "start": milliseconds(step.started),
                    "end": milliseconds(step.ended),
                }
                for step in attempts[-ATTEMPTS:]
            ],
            "parent": step_row_id(entity.parent) if entity.parent else chain_row_id(entity.chain),
            "logs": entity.log_count,
            "commands": list(entity.commands),
        }
    return made


def _value(value: Value | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {
        "mime": value.mime,
        "text": value.text,
        "size": value.size,
        "sha256": value.sha256,
        "truncated": value.truncated,
    }


def _failure(error: Failure | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {"code": error.code, "type": error.type, "message": error.message, "traceback": error.traceback}
