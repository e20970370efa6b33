"""What can be said wherever the program is, without holding a step. Outside a session it does nothing."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import TypeVar

from . import context
from .point import Point, called_from_coroutine
from .session import Session
from .steps import Level, Step, make_track
from .track import Track
from .work import number_argument, text_argument

T = TypeVar("T")


def current_step() -> Step | None:
    """The innermost step that this code runs in; None outside."""
    node = context.current()
    face = None if node is None else node.face
    return face if isinstance(face, Step) else None


def current_session() -> Session | None:
    """The session that this code runs in; None outside."""
    node = context.current()
    while node is not None and node.above is not None:
        node = node.above
    face = None if node is None else node.face
    return face if isinstance(face, Session) else None


def checkpoint(*, approve: str | None = None, timeout: float | None = None) -> Point[None]:
    """A point of the current step (or chain, or session); see `Work.checkpoint`.

    Raises:
        Cancelled, Rejected, TimeoutError, TypeError: as there.
    """
    if approve is not None:
        text_argument(approve, "approve")
    if timeout is not None:
        timeout = float(number_argument(timeout, "timeout"))
    deferred = called_from_coroutine()
    node = context.current()
    if node is None or node.face is None:
        return Point(deferred, "checkpoint()", _nothing, _nothing_later)
    return node.face._checkpoint(deferred, approve, timeout)


def track(
    iterable: Iterable[T] | AsyncIterable[T], total: int | float | None = None, *, unit: str = ""
) -> Track[T]:
    """Loop over *iterable* with progress shown at the current step; see `Step.track`.

    Raises:
        TypeError, Cancelled: as there.
    """
    step = current_step()
    return make_track(None if step is None else step._node, iterable, total, unit)


def log(text: str, level: Level = "info") -> None:
    """Append a log line to the current step; see `Step.log`.

    Raises:
        TypeError, ValueError: as there.
    """
    step = current_step()
    if step is not None:
        step.log(text, level)
    else:
        text_argument(text, "text")


def metric(name: str, value: int | float) -> None:
    """Set a metric of the current step (or chain, or session); see `Work.metric`.

    Raises:
        TypeError: as there.
    """
    node = context.current()
    if node is not None and node.face is not None:
        node.face.metric(name, value)
    else:
        text_argument(name, "a metric's name")
        number_argument(value, f"metric {name!r}")


def _nothing() -> None:
    return None


async def _nothing_later() -> None:
    return None
