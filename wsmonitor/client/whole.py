"""Reading a large value whole, page by page, some pages ahead; and the log lines that are kept of a step."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from hashlib import sha256 as digest
from typing import TYPE_CHECKING, Final

from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import LogRecord
from wsmonitor.protocol.errors import RequestError

if TYPE_CHECKING:
    from .connection import Connection, ValueBytes

PAGE: Final = 256 * 1024
AHEAD: Final = 4
"""How many pages are asked for before the first has come."""

_GONE: Final = frozenset({"gone", "value_missing"})


def read_value(
    connection: Connection, session: str, sha256: str, size: int, *, timeout: float = 30.0
) -> bytes | None:
    """The bytes of a value, or None if the server no longer keeps them. Blocks: not on the runner's thread.

    Args:
        size: how many bytes it has.
        timeout: seconds for each page.

    Raises:
        RequestError: the server refused for another reason than that the value is gone.
        ConnectionFailedError, RequestTimeoutError: it could not be read.
    """
    found = bytearray()
    asked: deque[Future[ValueBytes]] = deque()
    offset = 0
    try:
        # An empty value is asked for as well: whether it is kept is for the server to say.
        while len(found) < size or not (asked or offset):
            while len(asked) < AHEAD and (offset < size or not offset):
                asked.append(connection.fetch_value(session, sha256, offset, PAGE, timeout=timeout))
                offset += PAGE
            page = asked.popleft().result()
            if page.total != size or not page.data:
                break
            found += page.data
            if len(page.data) < PAGE and len(found) < size:
                # A server with smaller pages: go on where this one ended.
                asked.clear()
                offset = len(found)
    except RequestError as exc:
        if exc.code in _GONE:
            return None
        raise
    return bytes(found) if len(found) == size and digest(found).hexdigest() == sha256 else None


def read_logs(
    connection: Connection, session: str, step: str, count: int, *, timeout: float = 30.0
) -> Sequence[LogRecord]:
    """The log lines that are kept of a step that wrote *count*, oldest first; none if they are gone. Blocks.

    Raises:
        RequestError: the server refused for another reason.
        ConnectionFailedError, RequestTimeoutError: they could not be read.
    """
    kept = Limits().log_records
    try:
        page = connection.fetch_logs(session, step, max(1, count - kept + 1), kept, timeout=timeout).result()
    except RequestError as exc:
        if exc.code in _GONE:
            return ()
        raise
    return page.records
