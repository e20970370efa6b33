"""What ``observer.to_html`` writes: the session as a file, with the logs and recorded outputs that came.

What needs the server is fetched while the link is there, for a limited time and up to a limited size: what
failed first. What did not come is said to be missing in the file.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from time import monotonic
from typing import Final

from wsmonitor.export import Origin, to_html
from wsmonitor.protocol.entities import LogRecord
from wsmonitor.protocol.errors import UsageError, WsMonitorError
from wsmonitor.protocol.reducer import SessionState

from .feed import now
from .source import Source
from .values import inline, whole

PATIENCE: Final = 30.0
"""Seconds for all that is fetched."""

LOG_STEPS: Final = 500
LOG_LINES: Final = 1_000  # what a server keeps per step, and sends at once
VALUE_BYTES: Final = 24 * 1024 * 1024


def write(source: Source, path: Path) -> None:
    """Write the file.

    Raises:
        UsageError: there is no session yet.
        OSError: it cannot be written.
    """
    state, status = source.snapshot(), source.status()
    if state is None or state.session is None:
        raise UsageError("there is no session yet: nothing to write")
    moment = now()
    exported = moment.at(status.clock_offset)
    origin = Origin(
        exported=f"{exported}000000",
        as_of=f"{moment.known(status)}000000",
        live=status.current,
        server=status.url or "",
        version=status.welcome.server if status.welcome else "",
    )
    deadline = monotonic() + PATIENCE

    def left() -> float:
        # Without a link nothing is waited for: a request would wait for it to come back.
        return max(0.0, deadline - monotonic()) if source.status().live else 0.0

    lines = _logs(source, state, left)
    text = to_html(state, origin, lines, _fetcher(source, state, left))
    path.write_text(text, encoding="utf-8")


def _logs(source: Source, state: SessionState, left: Callable[[], float]) -> dict[str, list[LogRecord]]:
    wanted = [step for step in state.steps.values() if step.log_count]
    wanted.sort(key=lambda step: (step.state not in ("failed", "crashed"), -int(step.created or 0)))
    found: dict[str, list[LogRecord]] = {}
    if left() <= 0:
        return found
    asked = [
        (step.id, source.fetch_logs(state.topic, step.id, max(1, step.log_count - LOG_LINES + 1), LOG_LINES))
        for step in wanted[:LOG_STEPS]
    ]
    for step_id, page in asked:
        try:
            found[step_id] = list(page.result(left()).records)
        except (WsMonitorError, FutureTimeout):
            page.cancel()
    return found


def _fetcher(
    source: Source, state: SessionState, left: Callable[[], float]
) -> Callable[[str, int], bytes | None]:
    room = VALUE_BYTES

    def fetch(sha256: str, size: int) -> bytes | None:
        nonlocal room
        found = inline(state, sha256)
        if found is not None:
            return found
        if size > room or left() <= 0:
            return None
        try:
            found = whole(lambda at, length: source.fetch_value(state.topic, sha256, at, length), left)
        except (WsMonitorError, FutureTimeout):
            return None
        room -= len(found)
        return found if len(found) == size else None

    return fetch
