"""Errors, as they are told to those who asked. Pure."""

from __future__ import annotations

from typing import Any

from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.protocol.errors import CATALOGUE

from .ports import Refusal


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


def not_available(session: str) -> Refusal:
    """The one answer for every session that a token does not cover, and for every one that is not there."""
    return refusal("not_available", "no such session, or not for this token", session=session)
