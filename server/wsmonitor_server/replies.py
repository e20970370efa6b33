"""Errors, as they are told to those who asked. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.protocol.errors import CATALOGUE

from .ports import Refusal
from .stores.base import StoreError


def error_info(code: str, message: str, **context: Any) -> ErrorInfo:
    """An `ErrorInfo`, with what the catalogue knows of *code*.

    Args:
        code: one of `CATALOGUE`.
        message: for a person.
        context: further fields of `ErrorInfo`.
    """
    entry = CATALOGUE.get(code)
    return ErrorInfo(
        code=code, message=message, retryable=entry.retryable if entry is not None else False, **context
    )


def refusal(code: str, message: str, **context: Any) -> Refusal:
    """A `Refusal` to raise."""
    return Refusal(error_info(code, message, **context))


def store_refusal(exc: StoreError, session: str) -> Refusal:
    """What a client is told of *exc*."""
    return refusal(exc.code, exc.message, session=session)


def not_available(session: str) -> Refusal:
    """The one answer for every session that a token does not cover, and for every one that is not there."""
    return refusal("not_available", "no such session, or not for this token", session=session)


_SIZES: Final = frozenset({"batch_changes", "batch_size", "page_size", "value_size"})
"""Limits of a single message or value: the same would be refused again."""


def limit_info(name: str, value: int, *, session: str = "", **details: Any) -> ErrorInfo:
    """The error that names a limit of a connection, and its *value*."""
    too_much = f"more than the limit `{name}` of {value:,}"
    info = error_info(
        "limit_exceeded",
        too_much if name in _SIZES else f"the limit `{name}` of {value:,} is reached",
        session=session,
        details={"limit": name, "value": value, **details},
    )
    return msgspec.structs.replace(info, retryable=False) if name in _SIZES else info
