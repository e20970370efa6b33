"""A session's values by their digest: what "Copy as Python" in the detail pane fetches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Final

from wsmonitor.client import ValueBytes
from wsmonitor.protocol.entities import Chain, Session, Step, Value
from wsmonitor.protocol.errors import WaitTimeoutError
from wsmonitor.protocol.reducer import SessionState

PAGE: Final = 256 * 1024
"""Bytes of a value that are asked for at once."""


def _values(state: SessionState) -> Iterator[Value]:
    for kind in ("session", "chain", "step"):
        for entity in state.entities[kind].values():
            if isinstance(entity, Session | Chain | Step):
                yield from (value for value in (entity.input, entity.output) if value is not None)


def inline(state: SessionState, sha256: str) -> bytes | None:
    """The value, if the replica *state* has all of it: the server keeps apart only what is large."""
    for value in _values(state):
        if value.sha256 == sha256 and not value.truncated:
            return value.text.encode()
    return None


def whole(fetch: Callable[[int, int], Future[ValueBytes]], left: Callable[[], float]) -> bytes:
    """All of a large value, page by page.

    Args:
        fetch: asks for so many bytes from an offset.
        left: how many seconds there are yet.

    Raises:
        WaitTimeoutError: it has not come in time.
    """
    found = bytearray()
    while True:
        try:
            page = fetch(len(found), PAGE).result(max(0.0, left()))
        except FutureTimeout:
            came = f"{len(found):,} bytes of it have"
            raise WaitTimeoutError(f"the value has not come in time: {came}") from None
        found += page.data
        if len(found) >= page.total or not page.data:
            return bytes(found)
