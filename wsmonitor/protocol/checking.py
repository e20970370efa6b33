"""The ids and times of what an observer reads many of, checked after decoding, and remembered.

A session's events name the same few ids and times again and again. The decoder would run a regular
expression for each field of each event; here it is run once for a value, and then a look into a set says
that it is a good one. What is refused is refused with the decoder's own words.

The fields are those whose types in `ids` begin with ``Later``; their lengths the decoder checks itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from .entities import Chain, Session, Step
from .ids import (
    ID_PATTERN,
    NAME_PATTERN,
    OPTIONAL_ID_PATTERN,
    OPTIONAL_TIME_PATTERN,
    SESSION_ID_PATTERN,
    TOPIC_PATTERN,
)
from .messages import Event

REMEMBERED: Final = 4096
"""How many good values of a kind are remembered; then it begins anew."""


class Rule:
    """One pattern, and values that are known to match it: ``good``."""

    __slots__ = ("_search", "good", "pattern")

    def __init__(self, pattern: str, good: set[str]) -> None:
        self.pattern = pattern
        self.good = good
        self._search = re.compile(pattern).search

    def check(self, value: str, field: str) -> None:
        if self._search(value) is None:
            raise msgspec.ValidationError(f"Expected `str` matching regex {self.pattern!r} - at `$.{field}`")
        if len(self.good) >= REMEMBERED:
            self.good.clear()
        self.good.add(value)


# An id is a good optional id, and the decoder has refused "" where there must be one: so they share a set.
_ids: Final[set[str]] = set()
_id: Final = Rule(ID_PATTERN, _ids)
_optional_id: Final = Rule(OPTIONAL_ID_PATTERN, _ids)
_session_ids: Final[set[str]] = set()
_session_id: Final = Rule(SESSION_ID_PATTERN, _session_ids)
_names: Final[set[str]] = set()
_name: Final = Rule(NAME_PATTERN, _names)
_times: Final[set[str]] = set()
_time: Final = Rule(OPTIONAL_TIME_PATTERN, _times)
good_topics: Final[set[str]] = set()
"""Topics that `check_event` has found good. Who has many events to check looks here first."""
_topic: Final = Rule(TOPIC_PATTERN, good_topics)


def check_event(event: Event) -> None:
    """Raise `msgspec.ValidationError` where the topic of *event* is none."""
    if event.topic not in good_topics:
        _topic.check(event.topic, "topic")


def _common(entity: Session | Chain | Step) -> None:
    if entity.name not in _names:
        _name.check(entity.name, "name")
    if entity.producer not in _ids:
        _optional_id.check(entity.producer, "producer")
    if entity.created not in _times:
        _time.check(entity.created, "created")
    if entity.started not in _times:
        _time.check(entity.started, "started")
    if entity.ended not in _times:
        _time.check(entity.ended, "ended")


def check_session(entity: Session) -> None:
    """Raise `msgspec.ValidationError` where an id or a time of *entity* is none."""
    if entity.id not in _session_ids:
        _session_id.check(entity.id, "id")
    _common(entity)


def check_chain(entity: Chain) -> None:
    """Raise `msgspec.ValidationError` where an id or a time of *entity* is none."""
    if entity.id not in _ids:
        _id.check(entity.id, "id")
    _common(entity)


def check_step(entity: Step) -> None:
    """Raise `msgspec.ValidationError` where an id or a time of *entity* is none."""
    ids, times = _ids, _times
    if (
        # Written out, because nearly every event ends here.
        entity.id in ids
        and entity.chain in ids
        and entity.parent in ids
        and entity.producer in ids
        and entity.name in _names
        and entity.created in times
        and entity.started in times
        and entity.ended in times
    ):
        return
    if entity.id not in ids:
        _id.check(entity.id, "id")
    if entity.chain not in ids:
        _id.check(entity.chain, "chain")
    if entity.parent not in ids:
        _optional_id.check(entity.parent, "parent")
    _common(entity)


CHECKS: Final[dict[str, Callable[[Any], None]]] = {
    "session": check_session,
    "chain": check_chain,
    "step": check_step,
}
"""Entity kind to what checks its records; those of other kinds the decoder checks whole."""
