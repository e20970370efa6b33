"""A client program that does the same over and over, run as ``python -m tests.faults.cycles``.

Its argument is a JSON object: ``kind`` (see `KINDS`), ``url``, ``token``, ``session``, ``warm``, ``blocks``
and ``cycles``. It prints a census after the warm-up and after each block of cycles, and then waits for a line
of standard input.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from wsmonitor.client import PublicationListener, Target, connect, connections
from wsmonitor.protocol.changes import StepChange

from .census import Census

PATIENCE: Final = 60.0


def _subscribe(url: str, token: str, session: str, number: int) -> None:
    """Connect, watch two topics, hear an update, close."""
    with connect(Target(url=url, token=token)) as connection:
        heard: list[object] = []
        one = connection.subscribe(session, heard.append)
        other = connection.subscribe("/directory")
        one.wait(lambda sub: sub.phase == "live", PATIENCE)
        other.wait(lambda sub: sub.phase == "live", PATIENCE)
        if number % 2:
            one.close()


def _again(url: str, token: str, session: str, number: int) -> None:
    """Watch and leave on a connection that stays."""
    connection = _STAYING.get(url)
    if connection is None:
        connection = _STAYING[url] = connect(Target(url=url, token=token))
    with connection.subscribe(session) as subscription:
        subscription.wait(lambda sub: sub.phase == "live", PATIENCE)


_STAYING: Final[dict[str, Any]] = {}


def _publish(url: str, token: str, session: str, number: int) -> None:
    """Connect, publish a change of the same step, say goodbye."""
    with connect(Target(url=url, token=token)) as connection:
        publication = connection.publication(session, "worker", PublicationListener())
        publication.submit(
            StepChange(id="turn", chain="c", name="turn", state="running", metrics={"n": number})
        )
        assert publication.flush(PATIENCE)
        assert publication.close(PATIENCE)


def _observe(url: str, token: str, session: str, number: int) -> None:
    """Mount an observer as a cell does, see the session, unmount it."""
    import wsmonitor as wm

    observer = wm.watch(session, url=url, token=token, new=True)
    observer.wait_until(lambda one: one.state == "running", timeout=PATIENCE)
    observer.close()


KINDS: Final[dict[str, Callable[[str, str, str, int], None]]] = {
    "subscribe": _subscribe,
    "again": _again,
    "publish": _publish,
    "observe": _observe,
}


def settle(threads: int) -> None:
    """Wait until what was closed has ended."""
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    while (
        connections() > len(_STAYING) or threading.active_count() > threads
    ) and time.monotonic() < deadline:
        pause.wait(0.01)


def main(kind: str, url: str, token: str, session: str, warm: int, blocks: int, cycles: int) -> None:
    census = Census()
    work = KINDS[kind]
    done = 0
    for block in range(blocks + 1):
        for _ in range(cycles if block else warm):
            done += 1
            work(url, token, session, done)
        # A connection that stays has its thread; widgets' messages have one, too.
        settle(2 if _STAYING or kind == "observe" else 1)
        if not block:
            census.take()  # what counting itself needs is there from the first time on
        print(json.dumps(census.take()), flush=True)
        sys.stdin.readline()
    for connection in _STAYING.values():
        connection.close()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
