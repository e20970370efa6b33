"""How long sessions are kept: by age, count, and bytes. Only what has ended goes by itself."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from wsmonitor.protocol.entities import Listing
from wsmonitor.protocol.states import TERMINAL


class Retention(Struct, frozen=True, kw_only=True):
    """What is kept. Zero means: no limit. Ages in seconds, sizes in bytes."""

    max_age: float = 30 * 86400.0  # of an ended session, since its end
    max_sessions: int = 1_000  # ended ones, the oldest go first
    max_session_size: int = 0  # of one ended session
    max_total_size: int = 8 * 1024 * 1024 * 1024  # of the store, values included
    orphan_age: float = 3600.0  # of an uploaded value that nothing refers to
    interval: float = 60.0  # between two looks


def _ended(listing: Listing) -> bool:
    # While a producer is heard, an ended session may still get what comes late.
    return listing.state in TERMINAL and listing.liveness in ("", "lost")


def expired(listings: Sequence[Listing], policy: Retention, now_ns: int, total: int) -> list[str]:
    """The sessions that are to be removed now, the oldest first.

    Args:
        total: bytes that the store uses, values included.
    """
    ended = sorted(
        (one for one in listings if _ended(one)), key=lambda one: int(one.ended or one.created or 0)
    )
    surplus = len(ended) - policy.max_sessions if policy.max_sessions else 0
    remove: list[str] = []
    for index, listing in enumerate(ended):
        age = (now_ns - int(listing.ended or listing.created or 0)) / 1e9
        over_quota = bool(policy.max_total_size) and total > policy.max_total_size
        if (
            (policy.max_age and age > policy.max_age)
            or index < surplus
            or (policy.max_session_size and listing.size > policy.max_session_size)
            or over_quota
        ):
            remove.append(listing.id)
            total -= listing.size
    return remove
