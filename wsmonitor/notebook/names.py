"""Which sessions there are, for completion on Tab: asked with little patience, and never twice at a time."""

from __future__ import annotations

from typing import Final

from wsmonitor.protocol.errors import WsMonitorError

PATIENCE: Final = 0.3
"""Seconds that Tab may wait for the list of sessions. A local server answers within a tenth of it."""


def known_names() -> list[str]:
    """The names of the server's sessions and of what is watched here, the newest first.

    Whatever the server does not tell within `PATIENCE` is left out: a completion is a convenience.
    """
    from wsmonitor.client import Target, connect
    from wsmonitor.protocol.ids import DIRECTORY

    from .observer import observers
    from .rows import milliseconds

    names: dict[str, None] = {}
    try:
        with connect(Target(name="completion of session names")) as connection:
            connection.wait_live(PATIENCE)
            subscription = connection.subscribe(DIRECTORY, lambda _: None)
            subscription.wait(lambda now: now.phase == "live", PATIENCE)
            state = subscription.snapshot()
    except WsMonitorError:
        state = None
    listings = () if state is None else state.listings.values()
    for item in sorted(listings, key=lambda item: (milliseconds(item.created) or 0, item.id), reverse=True):
        names[item.name] = None
    for observer in observers():
        names[observer.target] = None
    return list(names)
