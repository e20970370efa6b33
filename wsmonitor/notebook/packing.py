"""Rows in a form that travels well: deflated beside the message, and by pages. Pure.

Jupyter writes a message's content as JSON with a slow encoder, and keeps what nobody fetches in memory as it
is; a binary buffer is passed on untouched. Rows are alike and shrink to an eighth.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import msgspec

from .head import Frame

Message: TypeAlias = tuple[Frame, list[bytes]]
"""A custom message and its binary buffers."""

PACK_FROM: Final = 16_000  # bytes of JSON below which packing is not worth its while
PART_BYTES: Final = 200_000  # of JSON: text of any kind is then below `MESSAGE_BYTES` when deflated
MESSAGE_BYTES: Final = 190_000  # of all buffers of one message
CYCLE: Final = 6  # pages that are sent again with each key frame, in case that they were lost

_encode = msgspec.json.Encoder().encode


def packed(message: Frame) -> Message:
    """*message* with long ``rows`` in a buffer; see `view`."""
    rows = message.get("rows")
    if not rows:
        return message, []
    data = _encode(rows)
    if len(data) < PACK_FROM:
        return message, []
    return {**{key: part for key, part in message.items() if key != "rows"}, "packed": True}, [
        zlib.compress(data, 1)
    ]


def _part(rows: list[dict[str, Any]]) -> tuple[bytes, int]:
    """As many of the rows as one part may have (at least one, if there is one), deflated; and how many."""
    lines: list[bytes] = []
    size = 0
    for line in map(_encode, rows):
        if lines and size + len(line) > PART_BYTES:
            break
        lines.append(line)
        size += len(line) + 1
    return zlib.compress(b"[" + b",".join(lines) + b"]", 1), len(lines)


class Wanted:
    """The pages that are to be sent to a browser.

    Asked for by the browser, or because more changed than fits into a frame, or (`cycle`) because what was
    sent may have been lost, and the browser cannot reach the kernel.
    """

    def __init__(self) -> None:
        self._pages: dict[int, None] = {}
        # A page of which a part was sent: the number of the next part, and the rows that are left.
        self._rest: tuple[int, int, set[str] | None] | None = None
        self._next = 0

    def __bool__(self) -> bool:
        return bool(self._pages) or self._rest is not None

    def want(self, pages: Iterable[int]) -> None:
        """Send these, after those that wait already."""
        for page in pages:
            self._pages[page] = None

    def clear(self) -> None:
        """Nobody looks: who comes back asks."""
        self._pages.clear()
        self._rest = None

    def cycle(self, count: int) -> None:
        """Send the next few of *count* pages again."""
        for _ in range(min(CYCLE, count)):
            self._pages[self._next % count] = None
            self._next += 1

    def message(self, rows: Callable[[int], list[dict[str, Any]]], number: int, at: int) -> Message | None:
        """The next message: as many pages as fit, as of frame *number*; None when there are none.

        What is left of a page for the next message is then told as it is by then.
        """
        items: list[Frame] = []
        buffers: list[bytes] = []
        size = 0
        while True:
            if self._rest is None:
                if not self._pages:
                    break
                page = next(iter(self._pages))
                del self._pages[page]
                self._rest = (page, 0, None)
            page, part, left = self._rest
            chosen = [row for row in rows(page) if left is None or row["id"] in left]
            data, count = _part(chosen)
            if buffers and size + len(data) > MESSAGE_BYTES:
                break
            rest = {row["id"] for row in chosen[count:]}
            self._rest = (page, part + 1, rest) if rest else None
            items.append({"p": page, "part": part, "last": not rest})
            buffers.append(data)
            size += len(data)
        if not items:
            return None
        return {"type": "page", "n": number, "at": at, "pages": items}, buffers
