"""What a browser may ask of an observer: details, pages of values and logs, commands.

===========  ==========================================  ====================================================
``do``       fields                                      the answer has
===========  ==========================================  ====================================================
``details``  ``row`` ("" is the session), ``attempt``?   ``details``: see `details`
``value``    ``sha256``, ``offset``, ``length``          ``offset``, ``size`` of the whole, ``mime``; the
                                                         bytes are the first buffer
``logs``     ``row``, ``attempt``?, ``before``? (a       ``lines``: ``[{"n", "at", "level", "text",
             line's number), ``limit``                   "truncated"}]``, the newest before that number;
                                                         ``first`` and ``last`` there are, ``count`` so far
``command``  ``name``, ``row``, ``args``                 ``command``: its record, as in the head's ``asked``
===========  ==========================================  ====================================================

Carried out on the sender's thread, which owns the view; the server is asked through the client, whose
futures are mapped to answers. What cannot be had is refused at once and in words, and not waited for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from hashlib import sha256
from typing import Any, Final, TypeVar

import msgspec

from wsmonitor.client import ValueBytes
from wsmonitor.protocol.entities import Command, Scalar, Step
from wsmonitor.protocol.errors import RequestError, WsMonitorError
from wsmonitor.protocol.messages import LogsPage

from .details import details
from .head import command_record, target_words
from .requests import Answer, Question, RefusedError, Request
from .rows import milliseconds
from .source import Source
from .view import View

VALUE_LENGTH: Final = 192 * 1024
"""Bytes of a value in one answer."""

LOG_LINES: Final = 500
LOG_BYTES: Final = 180_000
"""Log lines, and bytes of them as JSON, in one answer."""

DEADLINE: Final = 30.0
"""Seconds within which the producer must accept a command."""

_HEX = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_Result = TypeVar("_Result")

_WORDS: Final = {
    "gone": "the server no longer keeps this",
    "not_available": "the server does not give this: it was removed, or your token does not cover it",
    "forbidden": "your token does not allow this",
    "connection_lost": "the link to the server was lost before the answer came",
    "timeout": "the server has not answered in time",
}


def questions(view: View, source: Source) -> Mapping[str, Question]:
    """The table of an observer's questions."""
    return {
        "details": Question(lambda request: details(view, request)),
        "value": Question(lambda request: _value(view, source, request)),
        "logs": Question(lambda request: _logs(view, source, request)),
        "command": Question(lambda request: _command(view, source, request), once=True),
    }


def _number(request: Request, name: str, default: int, least: int, most: int) -> int:
    value = request.get(name, default)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise RefusedError("bad_message", f"{name} must be a number from {least} on")
    return min(value, most)


def _session(view: View) -> str:
    """The id of the session that is shown, if the server can be asked about it.

    Raises:
        RefusedError: there is none, or there is no link.
    """
    session = view.session
    if session is None:
        raise RefusedError("not_available", "there is no session yet")
    if not view.linked:
        raise RefusedError("connection_lost", "the link to the server is down: ask again when it is back")
    return session.id


def _step(view: View, request: Request) -> Step:
    row = request.get("row")
    attempts = view.rows.attempts(row) if isinstance(row, str) else []
    wanted = request.get("attempt")
    chosen = attempts if wanted is None else [step for step in attempts if step.attempt == wanted]
    if not chosen:
        raise RefusedError("gone", "this step is no longer there")
    return chosen[-1]


def _then(asked: Future[_Result], make: Callable[[_Result], Answer]) -> Future[Answer]:
    """A future of what *make* makes of the server's answer; failures in words for people."""
    answer: Future[Answer] = Future()
    answer.set_running_or_notify_cancel()

    def done(future: Future[_Result]) -> None:
        error = future.exception()
        try:
            if error is not None:
                raise refused(error)
            answer.set_result(make(future.result()))
        except Exception as exc:  # noqa: BLE001 - told to the one who asked
            answer.set_exception(exc)

    asked.add_done_callback(done)
    return answer


def refused(error: BaseException) -> Exception:
    """*error* as it is told to the person who asked."""
    if isinstance(error, RequestError):
        words = _WORDS.get(error.code, "")
        said = error.info.message
        told = f"{words} ({said})" if words and said else words or said
        ident = error.info.correlation
        return RefusedError(error.code, f"{told} (server log: {ident})" if ident else told)
    if isinstance(error, WsMonitorError):
        return RefusedError(error.code, _WORDS.get(error.code) or str(error))
    return error if isinstance(error, Exception) else RefusedError("internal", type(error).__name__)


def _value(view: View, source: Source, request: Request) -> Future[Answer]:
    digest = request.get("sha256")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise RefusedError("bad_message", "a value is asked for by its sha256")
    offset = _number(request, "offset", 0, 0, 2**53)
    length = _number(request, "length", VALUE_LENGTH, 1, VALUE_LENGTH)
    asked = source.fetch_value(_session(view), digest, offset, length)

    def page(found: ValueBytes) -> Answer:
        return Answer({"offset": found.offset, "size": found.total, "mime": found.mime}, [found.data])

    return _then(asked, page)


def _logs(view: View, source: Source, request: Request) -> Future[Answer]:
    session, step = _session(view), _step(view, request)
    limit = _number(request, "limit", LOG_LINES, 1, LOG_LINES)
    # Lines that came since the view's last event are found by the next request.
    before = _number(request, "before", step.log_count + 1, 1, step.log_count + 1)
    first = max(1, before - limit)

    def page(found: LogsPage) -> Answer:
        lines: list[dict[str, Any]] = []
        size = 0
        for record in reversed([record for record in found.records if record.n < before]):
            line = {
                "n": record.n,
                "at": milliseconds(record.at),
                "level": record.level,
                "text": record.text,
                "truncated": record.truncated,
            }
            size += len(msgspec.json.encode(line)) + 2
            if size > LOG_BYTES and lines:
                break
            lines.append(line)
        lines.reverse()
        kept = {"first": found.first_kept, "last": found.count, "count": found.count}
        return Answer({"lines": lines, **kept})

    return _then(source.fetch_logs(session, step.id, first, max(1, before - first)), page)


def _command(view: View, source: Source, request: Request) -> Future[Answer]:
    why = view.may
    if why:
        raise RefusedError("not_allowed", why)
    session = _session(view)
    name, row, args = request.get("name"), request.get("row") or "", request.get("args") or {}
    if not isinstance(name, str) or not isinstance(row, str) or not isinstance(args, dict):
        raise RefusedError("bad_message", "a command has a name, a row and arguments")
    for key, value in args.items():
        if not isinstance(key, str) or not isinstance(value, (str, bool, int, float)):
            raise RefusedError("bad_message", f"{key!r} must be text, a number, or yes or no")
    chain = step = ""
    if row.startswith("c:"):
        chain = row[2:]
    elif row:
        step = _step(view, request).id
    scalars: dict[str, Scalar] = dict(args)
    key = _key(str(request["id"]))
    asked = source.command(name, chain, step, scalars, DEADLINE, session=session, key=key)
    # Here, where the view is owned; the answer comes on the client's thread.
    meant = Command(id=key, name="x", chain=chain, step=step, deadline="0", requested="0")
    target = target_words(meant, view.rows, view.session)
    return _then(asked, lambda record: Answer({"command": command_record(record, *target)}))


def _key(ident: str) -> str:
    """The idempotency key of a request: so that the server, too, takes it for the same command."""
    key = ident.replace("-", "").lower()
    return key if _HEX.fullmatch(key) else sha256(ident.encode("utf-8", "replace")).hexdigest()[:32]
