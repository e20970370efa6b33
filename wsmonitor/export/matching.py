"""Which recorded execution belongs to which cell of a notebook.

A notebook lives on after it was recorded: cells are moved, copied, edited, deleted, and get new ids when they
are pasted. An output is given only to a cell whose source is the one that made it:

1. by id: the cell with the recorded id, if its source is (still, or again) one that ran in it;
2. by source: a cell with the same source that nothing else belongs to. Where several cells have the same
   source, they are paired in order if there are as many as there are executions; else it is a guess, and
   said to be one (``unsure``);
3. otherwise it is left alone: ``changed`` (the cell is there, and its source is another) or ``absent``.

Of several executions of one cell the last wins, as in Jupyter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

REDACTED: Final = "[redacted]"
"""What stands in a recorded source where a secret was taken out (`wsmonitor.publish.redaction`)."""

How: TypeAlias = Literal["id", "source", "unsure", "changed", "absent"]


@dataclass(frozen=True, slots=True)
class Executed:
    """A recorded execution: its cell's id ("" if unknown) and its source.

    Attributes:
        whole: whether ``source`` is all of it, or only its beginning, because the rest is no longer kept.
    """

    cell_id: str
    source: str
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """A cell of the notebook as it is now; ``code`` is false for text cells."""

    cell_id: str
    source: str
    code: bool = True


@dataclass(frozen=True, slots=True)
class Match:
    """What is to become of one recorded cell.

    Attributes:
        executed: the number of the execution in the sequence that was given.
        how: see the module's docstring.
        place: the number of the cell; None where the notebook has none (``absent``).
        runs: how many executions of this cell were recorded.
        later: how many of them came after this one, with another source.
    """

    executed: int
    how: How
    place: int | None
    runs: int = 1
    later: int = 0


def same_source(recorded: Executed, source: str) -> bool:
    """Whether *source* is what ran, apart from line endings, blank lines around, and what was redacted."""
    ran, now = _normal(recorded.source), _normal(source)
    if recorded.whole:
        return ran == now or (REDACTED in ran and _fits(ran, now, ends=True))
    return bool(ran) and _fits(ran, now, ends=False)


def _normal(source: str) -> str:
    return source.replace("\r\n", "\n").replace("\r", "\n").strip("\n").rstrip()


def _fits(ran: str, now: str, *, ends: bool) -> bool:
    """Whether *now* is *ran* with something in the place of each redaction; without a pattern."""
    first, *rest = ran.split(REDACTED)
    if not now.startswith(first):
        return False
    at = len(first)
    for number, part in enumerate(rest):
        if ends and number == len(rest) - 1:
            # At least one character stood where the secret was.
            return len(now) - len(part) > at and now.endswith(part)
        found = now.find(part, at + 1)
        if found < 0:
            return False
        at = found + len(part)
    return True


def match(executed: Sequence[Executed], places: Sequence[Place]) -> list[Match]:
    """Pair executions, in the order in which they began, with a notebook's cells.

    No cell is given two executions, and no execution to two cells. The matches are in the order of the
    recorded cells' first execution.
    """
    by_id: dict[str, list[int]] = {}
    loose: list[list[int]] = []
    for number, one in enumerate(executed):
        if one.cell_id:
            by_id.setdefault(one.cell_id, []).append(number)
        else:
            loose.append([number])
    place_of: dict[str, int] = {}
    for index, place in enumerate(places):
        if place.cell_id:
            place_of.setdefault(place.cell_id, index)

    found: list[Match] = []
    claimed: set[int] = set()
    left: list[list[int]] = []
    for cell_id, runs in by_id.items():
        at = place_of.get(cell_id)
        fit = None if at is None else _last_fitting(executed, runs, places[at])
        if at is None or fit is None:
            left.append(runs)
            continue
        claimed.add(at)
        found.append(Match(runs[fit], "id", at, len(runs), len(runs) - 1 - fit))

    found += _by_source(executed, places, [*left, *loose], claimed, place_of)
    order = {number: runs[0] for runs in (*by_id.values(), *loose) for number in runs}
    return sorted(found, key=lambda one: (order[one.executed], one.executed))


def _last_fitting(executed: Sequence[Executed], runs: list[int], place: Place) -> int | None:
    """Which of *runs* was the last with the source that the cell has now."""
    if not place.code:
        return None
    fitting = (at for at in reversed(range(len(runs))) if same_source(executed[runs[at]], place.source))
    return next(fitting, None)


def _by_source(
    executed: Sequence[Executed],
    places: Sequence[Place],
    groups: list[list[int]],
    claimed: set[int],
    place_of: dict[str, int],
) -> Iterable[Match]:
    """Matches of the *groups* of executions (of one recorded cell each) that no id has placed."""
    # Whatever does not hold a redaction is looked up; the few that do are compared one by one.
    free: dict[str, list[int]] = {}
    for index, place in enumerate(places):
        if place.code and index not in claimed and _normal(place.source):
            free.setdefault(_normal(place.source), []).append(index)
    same: dict[str, list[list[int]]] = {}
    for runs in groups:
        last = executed[runs[-1]]
        key = _normal(last.source)
        if key not in free and (REDACTED in key or not last.whole):
            key = next((source for source in free if same_source(last, source)), key)
        same.setdefault(key, []).append(runs)
    for key, rivals in same.items():
        rivals.sort(key=lambda runs: runs[-1])
        cells = free.get(key, [])
        if len(cells) == 1 and all(not executed[runs[-1]].cell_id for runs in rivals):
            # The cells have no ids: these are executions of the one cell that has this source.
            numbers = [number for runs in rivals for number in runs]
            yield Match(numbers[-1], "source", cells[0], len(numbers))
            continue
        how: How = "source" if len(cells) == len(rivals) else "unsure"
        for at, runs in enumerate(rivals):
            if at < len(cells):
                yield Match(runs[-1], how, cells[at], len(runs))
            else:
                cell = place_of.get(executed[runs[-1]].cell_id)
                yield Match(runs[-1], "absent" if cell is None else "changed", cell, len(runs))
