"""The list of sessions, read once: a sync of the directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsmonitor.protocol.entities import Listing
from wsmonitor.protocol.ids import DIRECTORY, directory_topic

from .failures import Exit, Failure

if TYPE_CHECKING:
    from wsmonitor.client import Connection
    from wsmonitor.protocol.reducer import SessionState

__all__ = ["DIRECTORY", "listings", "resolve", "verified"]


def verified(connection: Connection, topic: str, timeout: float) -> SessionState:
    """A verified copy of *topic*'s state.

    Raises:
        Failure: it is not available to this token, or did not come in time.
    """
    from wsmonitor.protocol.errors import WaitTimeoutError

    settled = ("live", "absent", "not_available", "closed")
    subscription = connection.subscribe(topic)
    try:
        try:
            subscription.wait(lambda sub: sub.phase in settled, timeout)
        except WaitTimeoutError as exc:
            raise Failure(
                f"the server did not send the state of {topic!r} within {timeout:g} s",
                code="timeout",
                status=Exit.TIMEOUT,
            ) from exc
        if subscription.phase not in ("live", "absent"):
            what = "the list of sessions" if topic.startswith(DIRECTORY) else f"session {topic!r}"
            raise Failure(
                f"there is no {what}, or not for this token", code="not_available", status=Exit.REFUSED
            )
        state = subscription.snapshot()
        assert state is not None, "live and absent are verified phases"
        return state
    finally:
        subscription.close()


def listings(connection: Connection, timeout: float, name: str | None = None) -> list[Listing]:
    """The sessions that this token may see (those named *name*), the newest first."""
    state = verified(connection, directory_topic(name), timeout)
    return sorted(state.listings.values(), key=lambda listing: (_born(listing), listing.id), reverse=True)


def resolve(connection: Connection, target: str, timeout: float) -> str:
    """The session id that *target* means: an id (it holds ``~``, or is one), else a name's newest run.

    Raises:
        Failure: there is no such session.
    """
    if "~" in target:
        return target
    found = [listing for listing in listings(connection, timeout) if target in (listing.name, listing.id)]
    if not found:
        raise Failure(
            f"there is no session {target!r}, or not for this token",
            code="not_available",
            status=Exit.REFUSED,
        )
    return max(found, key=lambda listing: (listing.run, _born(listing))).id


def _born(listing: Listing) -> int:
    return int(listing.created or listing.started or 0)
