"""The list of sessions as a browser is shown it: rows, and a head. Pure.

The format is that of `view`, with rows of its own. A row is a plain JSON object; what is at its default is
left out:

==============  ======================================================================
``id``          the session's id
``name``        text, untrusted
``run``         1, 2, 3 … of its name
``kind``        the kind that the producer gave
``state``       the session's state; ``reason`` is why, in one line
``liveness``    ``stale`` or ``lost``: the worst of its open producers'
``counts``      steps by state, each once whatever its attempts
``problem``     the first failure that stands, in one line
``at``          when it was created, or first started: milliseconds since 1970 UTC, by the server's clock
``start``, ``end``  when it started and ended, likewise
==============  ======================================================================

The head has ``link`` and ``sub`` as a session's, and ``total``, ``shown``, ``states`` (sessions by state),
``name`` (the only name that is listed, or "").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from wsmonitor.client.types import ConnectionStatus, SubscriptionPhase
from wsmonitor.protocol.entities import Listing
from wsmonitor.protocol.states import TERMINAL

from .head import Frame, link_head
from .pages import Pages
from .rows import Row, milliseconds, one_line
from .view import Now

ROW_LIMIT: Final = 5_000
"""Sessions in a browser: what is open and the newest. More is a matter for the server's list by name."""

KEY_BYTES: Final = 100_000
FRAME_BYTES: Final = 140_000
"""Bytes of rows in one message; more travels by pages, as a session's rows do (see `view`)."""

GONE_LIMIT: Final = 1_000
_GLANCE: Final = ("link", "sub", "states", "total")


def listing_row(listing: Listing) -> Row:
    """The row of one session."""
    row: Row = {"id": listing.id, "name": listing.name, "run": listing.run, "state": listing.state}
    if listing.kind:
        row["kind"] = one_line(listing.kind, 40)
    if listing.reason:
        row["reason"] = one_line(listing.reason, 120)
    if listing.liveness not in ("", "live") and listing.state not in TERMINAL:
        row["liveness"] = listing.liveness
    counts = {state: count for state, count in sorted(listing.counts.items()) if count}
    if counts:
        row["counts"] = counts
    if listing.problem:
        row["problem"] = one_line(listing.problem, 160)
    start, end = milliseconds(listing.started), milliseconds(listing.ended)
    born = milliseconds(listing.created) or start
    for name, value in (("at", born), ("start", start), ("end", end)):
        if value is not None:
            row[name] = value
    return row


def urgency(listing: Listing) -> tuple[bool, int, str]:
    """Sorts by what should be seen first: what is open, then the newest."""
    return listing.state not in TERMINAL, int(listing.created or listing.started or 0), listing.id


class Listings:
    """Everything that one list of sessions shows. Not thread-safe: one thread owns it."""

    def __init__(self, name: str = "", *, row_limit: int = ROW_LIMIT) -> None:
        self.name = name
        self.number = 0  # of the last frame
        self._limit = row_limit
        self._pages = Pages()
        self._all: dict[str, Listing] = {}
        self._dirty = True
        self._shown: dict[str, Row] = {}
        self._status = ConnectionStatus()
        self._sub: tuple[SubscriptionPhase, str] = ("waiting", "")
        self._position = ("", 0)
        self._head_sent: Frame | None = None
        self._rows_sent: dict[str, Row] = {}

    # -- what happened

    @property
    def offset(self) -> float:
        """Seconds by which the server's clock is ahead of ours, as far as it is known."""
        return self._status.clock_offset or 0.0

    @property
    def sessions(self) -> list[Listing]:
        """What is listed, what is open and the newest first."""
        return sorted(self._all.values(), key=urgency, reverse=True)

    def replace(self, listings: Iterable[Listing]) -> None:
        """Take a verified list in the place of all that there was."""
        self._all = {listing.id: listing for listing in listings}
        self._dirty = True

    def put(self, listing: Listing) -> None:
        """A session is new, or another than before."""
        self._all[listing.id] = listing
        self._dirty = True

    def drop(self, ident: str) -> None:
        """A session was removed."""
        if self._all.pop(ident, None) is not None:
            self._dirty = True

    def position(self, epoch: str, seq: int) -> None:
        """What there is is verified up to here."""
        self._position = (epoch, seq)

    def subscription(self, phase: SubscriptionPhase, reason: str) -> None:
        """The subscription's phase is another."""
        self._sub = (phase, reason)

    def connection(self, status: ConnectionStatus) -> None:
        """The link's status is another."""
        self._status = status

    # -- frames

    def beat(self, now: Now, status: ConnectionStatus) -> Frame:
        """How the link is at this moment."""
        beat: Frame = {}
        if status.rtt is not None:
            beat["rtt"] = round(status.rtt * 1000, 1)
        for key, mono in (("last", status.last_frame_at), ("due", status.heartbeat_due_at)):
            at = now.of(mono, self.offset)
            if at is not None:
                beat[key] = at
        return beat

    def _choose(self) -> None:
        """The rows that are shown: all, or the first."""
        if not self._dirty:
            return
        self._dirty = False
        self._shown = {one.id: listing_row(one) for one in self.sessions[: self._limit]}

    def head(self, now: Now) -> Frame:
        """All but the rows."""
        self._choose()
        known = self._position[0] != ""
        return {
            "title": "sessions",
            "link": link_head(self._status, lambda mono: now.of(mono, self.offset)),
            "sub": {
                "phase": self._sub[0],
                "reason": self._sub[1],
                "epoch": self._position[0],
                "seq": self._position[1],
            },
            # What the strip calls a session is the list here: there is one as soon as it was verified.
            "session": {"id": "the list of sessions", "name": "Sessions", "state": ""} if known else None,
            "producers": [],
            "watching": None,
            "total": len(self._all),
            "shown": len(self._shown),
            "states": dict(sorted(Counter(one.state for one in self._all.values()).items())),
            "name": self.name,
        }

    def _changes(self) -> tuple[list[Row], list[str]]:
        """The rows that differ from what was told, and the ids of those that are no longer shown."""
        rows = [row for ident, row in self._shown.items() if self._rows_sent.get(ident) != row]
        return rows, [ident for ident in self._rows_sent if ident not in self._shown]

    def _renewed(self, now: Now) -> Frame:
        """The head; where only the rounding of the link's instants differs, with those that were told."""
        head = self.head(now)
        sent = self._head_sent
        if sent is not None and self._same_link(sent["link"], head["link"]):
            head["link"] = sent["link"]
        return head

    def frame(self, now: Now) -> Frame | None:
        """The change set since the last frame, or None when nothing changed."""
        head = self._renewed(now)
        rows, gone = self._changes()
        body: Frame = {}
        if head != self._head_sent:
            body["head"] = head
        if rows:
            body["rows"] = rows
        if gone:
            body["gone"] = gone
        if not body:
            return None
        self._head_sent, self._rows_sent = head, dict(self._shown)
        self.number += 1
        on = [self._pages.place(row["id"]) for row in rows]
        for ident in gone:
            self._pages.remove(ident)
        self._pages.stamp(self.number)
        if len(gone) > GONE_LIMIT or _size(rows) > FRAME_BYTES:
            # Too much for one message: the pages that they are on are told instead, and follow.
            body.pop("rows", None)
            body.pop("gone", None)
            body["pages"] = list(self._pages.versions)
        elif rows:
            body["on"] = on
        return {"type": "frame", "n": self.number, "at": now.at(self.offset), **body}

    def glance(self, now: Now) -> Frame | None:
        """A small frame for when nobody seems to look: the rows are kept for later."""
        head = self._renewed(now)
        sent = self._head_sent or {}
        parts = {key: head[key] for key in _GLANCE if sent.get(key) != head[key]}
        rows, gone = self._changes()
        if not parts and not rows and not gone:
            return None
        self._head_sent = {**head, **sent, **parts}
        self.number += 1
        behind = {"behind": len(rows) + len(gone)} if rows or gone else {}
        return {"type": "frame", "n": self.number, "at": now.at(self.offset), "head": parts, **behind}

    @staticmethod
    def _same_link(old: Frame, new: Frame) -> bool:
        """Whether they differ by the rounding of their times at the most."""
        times = ("next", "lost", "since")
        if any(old[key] != new[key] for key in old if key not in times):
            return False
        return all(
            old[key] == new[key]
            or (old[key] is not None and new[key] is not None and abs(old[key] - new[key]) <= 50)
            for key in times
        )

    def key(self, now: Now) -> Frame:
        """Everything, as of the last frame."""
        head = self._head_sent or self.head(now)
        key: Frame = {"n": self.number, "at": now.at(self.offset), "head": head, "log": []}
        rows = list(self._rows_sent.values())
        if _size(rows) > KEY_BYTES:
            return {**key, "pages": list(self._pages.versions)}
        return {**key, "rows": rows}

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return len(self._pages)

    def page(self, page: int) -> list[Row]:
        """The rows of one page, as of the last frame; none of a page that there is not."""
        idents = self._pages.rows(page) if 0 <= page < len(self._pages) else []
        return [self._rows_sent[ident] for ident in idents]


def _size(rows: list[Row]) -> int:
    return len(msgspec.json.encode(rows))
