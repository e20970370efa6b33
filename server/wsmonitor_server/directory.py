"""The list of sessions, as numbered subscriptions: nobody polls.

A view is one list for one set of token patterns and one name filter; everybody with the same
patterns shares it. It is a feed like a session's, with an epoch, a seq, a state and a digest of its
own, whose entities are `Listing` records. What a pattern does not cover never gets into a view.

Counts and sizes change with every step: they are told at most once a second per session. A change of
state, liveness or anything else that is news goes out at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from wsmonitor.protocol.access import matches
from wsmonitor.protocol.codec import encode, encode_record
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import Listing
from wsmonitor.protocol.ids import directory_topic
from wsmonitor.protocol.messages import Event
from wsmonitor.protocol.reducer import SessionState

from .deadlines import Deadlines
from .hub import Feed, Numbered
from .ports import Subscriber

CONFLATE: Final = 1.0
"""Seconds between two tellings of one session's counts."""

UNUSED: Final = 120.0
"""Seconds that a view without subscribers is kept, so that a reconnecting client can resume."""


@dataclass(slots=True)
class _Line:
    told: Listing  # what the views have
    current: Listing
    told_at: float


class _View:
    def __init__(self, patterns: tuple[str, ...], name: str | None, feed: Feed) -> None:
        self.patterns = patterns
        self.name = name
        self.feed = feed
        self.unused_since: float | None = None

    def covers(self, listing: Listing) -> bool:
        return (self.name is None or listing.name == self.name) and matches(self.patterns, listing.id)

    def put(self, listing: Listing, now_ns: int, *, drop: bool = False) -> None:
        seq = self.feed.state.seq + 1
        entity = replace(listing, seq=seq)
        drops = (("listing", listing.id),) if drop else ()
        event = Event(
            topic=self.feed.topic,
            epoch=self.feed.state.epoch,
            seq=seq,
            ts=str(now_ns),
            kind="listing",
            entity=encode_record(entity),
            drop=list(drops),
        )
        self.feed.append([Numbered(seq, encode(event), "listing", entity, drops)])


def _news(old: Listing, new: Listing) -> bool:
    """Whether more than counts and size differ."""
    return replace(old, counts=new.counts, size=new.size) != new


class Directory:
    """All sessions' lines, and the views on them. Pure: time and the epochs' randomness come from outside."""

    def __init__(self, limits: Limits, mint_epoch: Callable[[], str]) -> None:
        self._limits = limits
        self._mint = mint_epoch
        self._lines: dict[str, _Line] = {}
        self._pending = Deadlines()
        self._views: dict[tuple[tuple[str, ...], str], _View] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def listings(self) -> list[Listing]:
        """Every session's current line."""
        return [line.current for line in self._lines.values()]

    def load(self, listing: Listing) -> None:
        """A line that was there when the server started."""
        self._lines[listing.id] = _Line(listing, listing, float("-inf"))

    def update(self, listing: Listing, now: float, now_ns: int) -> bool:
        """A session's line is this from now on. Returns whether `next_deadline` may have changed."""
        line = self._lines.get(listing.id)
        if line is None:
            self._lines[listing.id] = line = _Line(listing, listing, now)
            self._tell(line, now, now_ns)
            return False
        line.current = listing
        if not self._views:
            # A view that is made later begins with what was told.
            line.told, line.told_at = listing, now
            return False
        if _news(line.told, listing) or now >= line.told_at + CONFLATE:
            if listing != line.told:
                self._tell(line, now, now_ns)
            self._pending.set(listing.id, None)
        else:
            self._pending.set(listing.id, line.told_at + CONFLATE)
        return True

    def _tell(self, line: _Line, now: float, now_ns: int) -> None:
        line.told, line.told_at = line.current, now
        for view in self._views.values():
            if view.covers(line.current):
                view.put(line.current, now_ns)

    def remove(self, session: str, now_ns: int) -> None:
        """The session is gone."""
        line = self._lines.pop(session, None)
        self._pending.set(session, None)
        if line is not None:
            for view in self._views.values():
                if view.covers(line.told):
                    view.put(replace(line.told, state="absent"), now_ns, drop=True)

    # -- views

    def view(self, topic: str, patterns: tuple[str, ...]) -> Feed:
        """The feed of *topic* for a token with *patterns*; made when it is first asked for."""
        key = (tuple(sorted(set(patterns))), topic)
        view = self._views.get(key)
        if view is None:
            name = None if topic == directory_topic() else topic[len(directory_topic("")) :]
            state = SessionState(topic, self._mint())
            view = _View(key[0], name, Feed(topic, state, self._limits))
            for seq, line in enumerate(
                (line for line in self._lines.values() if view.covers(line.told)), start=1
            ):
                state.put("listing", replace(line.told, seq=seq))
                state.seq = seq
            self._views[key] = view
        view.unused_since = None
        return view.feed

    def existing(self, topic: str, patterns: tuple[str, ...]) -> Feed | None:
        """The feed, if there is one."""
        view = self._views.get((tuple(sorted(set(patterns))), topic))
        return None if view is None else view.feed

    def detach(self, topic: str, subscriber: Subscriber) -> None:
        """*subscriber* leaves *topic*, whatever its patterns were when it came."""
        for (_, name), view in self._views.items():
            if name == topic:
                view.feed.detach(subscriber)

    @property
    def view_count(self) -> int:
        return len(self._views)

    # -- time

    def next_deadline(self) -> float | None:
        """When `handle_timeout` has something to do; None if never."""
        when = self._pending.next()
        for view in self._views.values():
            if view.unused_since is not None and (when is None or view.unused_since + UNUSED < when):
                when = view.unused_since + UNUSED
        return when

    def sweep(self, now: float) -> None:
        """Note which views nobody uses any more."""
        for view in self._views.values():
            if view.feed.used:
                view.unused_since = None
            elif view.unused_since is None:
                view.unused_since = now

    def handle_timeout(self, now: float, now_ns: int) -> None:
        """Tell what waited long enough; forget views that nobody used for a while."""
        for session in self._pending.due(now):
            line = self._lines[session]
            if line.current != line.told:
                self._tell(line, now, now_ns)
        for key, view in list(self._views.items()):
            if view.unused_since is not None and view.unused_since + UNUSED <= now and not view.feed.used:
                del self._views[key]
