"""Exceptions as observers see them: which state they mean, and a bounded, redacted account of them."""

from __future__ import annotations

import asyncio
import traceback
from types import TracebackType
from typing import Final

from wsmonitor.protocol.entities import Failure
from wsmonitor.protocol.errors import Cancelled, Rejected
from wsmonitor.protocol.states import State

from .values import Capture, cut

MESSAGE_LENGTH: Final = 2048  # characters
TRACEBACK_LENGTH: Final = 6 * 1024  # characters; an event holds 32 KiB in all
_FRAMES: Final = 24


def end_of(exc: BaseException | None) -> tuple[State, str]:
    """The terminal state, and the reason, of a block that was left by *exc* (or normally)."""
    match exc:
        case None:
            return "succeeded", ""
        case Cancelled():
            return "cancelled", str(exc) or "cancelled"
        case Rejected():
            return "cancelled", str(exc) or "rejected"
        case KeyboardInterrupt():
            return "cancelled", "interrupted from the keyboard"
        case asyncio.CancelledError():
            return "cancelled", "its task was cancelled"
        case GeneratorExit():
            return "succeeded", "closed before its end"
        case SystemExit(code=0 | None):
            return "succeeded", ""
        case BaseExceptionGroup(exceptions=parts) if all(end_of(part)[0] == "cancelled" for part in parts):
            # What a task group makes of a cancellation that took effect in its tasks.
            return end_of(parts[0])
        case _:
            return "failed", ""


def mark_of(exc: BaseException) -> tuple[object, ...]:
    """What tells *exc* from others without keeping it, and with it its frames, alive.

    An id alone does not: an exception that has been caught is freed, and the next one may get its place. So
    where it was raised is looked at as well.
    """
    tb, place = exc.__traceback__, None
    while tb is not None:
        place, tb = (tb.tb_frame.f_code, tb.tb_lasti), tb.tb_next
    return (id(exc), type(exc), place)


def describe(
    exc: BaseException, capture: Capture, *, code: str = "step_failed", trace: bool = True
) -> Failure:
    """*exc* as a `Failure`. Never raises, whatever the exception's own ``__str__`` does."""
    kind = type(exc)
    name = (
        kind.__qualname__
        if kind.__module__ in {"builtins", "__main__"}
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    try:
        message = str(exc)
    except Exception as broken:  # noqa: BLE001 - a user's exception may do anything
        message = f"(its message could not be had: {type(broken).__name__})"
    if isinstance(exc, KeyError) and len(exc.args) == 1:
        message = f"key not found: {message}"
    notes = getattr(exc, "__notes__", ())
    if isinstance(notes, list) and notes:
        message = "\n".join([message, *(str(note) for note in notes[:8] if isinstance(note, str))])
    return Failure(
        code=code,
        message=capture.text(message, MESSAGE_LENGTH),
        type=cut(name, 256),
        traceback=_trace(exc, exc.__traceback__, capture) if trace else "",
    )


def _trace(exc: BaseException, tb: TracebackType | None, capture: Capture) -> str:
    try:
        # Frames of a deep recursion are left out before they are looked up: reading source takes time.
        report = traceback.TracebackException(type(exc), exc, tb, limit=-_FRAMES, max_group_depth=3)
        text = capture.redactor.text("".join(report.format()))
    except Exception as broken:  # noqa: BLE001 - source files may be gone, a __repr__ may raise
        return f"(the traceback could not be formatted: {type(broken).__name__})"
    if len(text) <= TRACEBACK_LENGTH:
        return text
    # The end says what happened, the beginning where it came from: the end gets the larger part.
    head, tail = TRACEBACK_LENGTH // 4, TRACEBACK_LENGTH * 3 // 4 - 40
    return f"{text[:head]}\n  … {len(text) - head - tail:,} characters left out …\n{text[-tail:]}"
