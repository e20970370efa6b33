"""A session's state as rows: chains, their steps in a tree, the attempts of one step in one row.

Pure. Nothing is ever dropped: a step whose parent or chain has not arrived is shown as an
orphan, and a ring of parents (a faulty producer) is cut open at its oldest step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from wsmonitor.protocol.entities import Chain, Failure, Producer, Session, Step
from wsmonitor.protocol.reducer import SessionState
from wsmonitor.protocol.states import TERMINAL

_FAILED: Final = frozenset({"failed", "crashed"})


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the tree.

    Attributes:
        depth: 0 for chains.
        item: the chain, or the step's latest attempt; None for a chain that has not arrived.
        chain: the chain's id.
        attempts: all attempts of the step, oldest first; empty for chains.
        children: how many rows stand directly below.
        orphan: the parent named has not arrived (or is part of a ring).
    """

    depth: int
    item: Chain | Step | None
    chain: str
    attempts: tuple[Step, ...] = ()
    children: int = 0
    orphan: bool = False

    @property
    def name(self) -> str:
        return self.item.name if self.item is not None else self.chain

    @property
    def state(self) -> str:
        return self.item.state if self.item is not None else "pending"


@dataclass(frozen=True, slots=True)
class Trouble:
    """A failure that stands: no later attempt repaired it."""

    where: str  # "chain / step"
    name: str
    error: Failure
    ended: str  # nanoseconds, or ""
    step: str = ""


def _born(item: Chain | Step) -> tuple[int, str]:
    # Not by seq: that is the item's last change, and rows would jump about.
    return int(item.created or item.started or item.ended or 0), item.id


def outline(state: SessionState) -> list[Row]:
    """The rows of *state* in the order in which they are shown."""
    groups = grouped(state.steps.values())
    # Every attempt's id leads to its group, so that children of an earlier attempt stay below it.
    group_of = {step.id: group for group in groups for step in group}
    below: dict[tuple[str, ...], list[tuple[Step, ...]]] = {}
    orphans: set[str] = set()
    for group in groups:
        latest = group[-1]
        parent = group_of.get(latest.parent) if latest.parent else None
        if parent is not None and parent is not group:
            below.setdefault(("step", parent[-1].id), []).append(group)
        else:
            if latest.parent:
                orphans.add(latest.id)
            below.setdefault(("chain", latest.chain), []).append(group)
    for ring in _rings(groups, group_of, below):
        below.setdefault(("chain", ring[-1].chain), []).append(ring)
        below["step", group_of[ring[-1].parent][-1].id].remove(ring)
        orphans.add(ring[-1].id)

    rows: list[Row] = []
    chains: list[tuple[str, Chain | None]] = [(c.id, c) for c in sorted(state.chains.values(), key=_born)]
    known = set(state.chains)
    chains += [(ident, None) for ident in sorted({key[1] for key in below if key[0] == "chain"} - known)]
    for ident, chain in chains:
        first = below.get(("chain", ident), [])
        rows.append(Row(0, chain, ident, children=len(first), orphan=chain is None))
        # A stack, not recursion: steps nest to any depth.
        stack = [(1, group) for group in reversed(first)]
        while stack:
            depth, group = stack.pop()
            latest = group[-1]
            children = below.get(("step", latest.id), [])
            rows.append(Row(depth, latest, ident, group, len(children), latest.id in orphans))
            stack.extend((depth + 1, child) for child in reversed(children))
    return rows


def grouped(steps: Iterable[Step]) -> list[tuple[Step, ...]]:
    """Steps grouped by what they are attempts of, in the order of their first attempt's birth."""
    groups: dict[tuple[str, ...], list[Step]] = {}
    for step in sorted(steps, key=_born):
        key = (step.chain, step.parent, step.step_key) if step.step_key else (step.id,)
        group = groups.setdefault(key, [])
        if any(other.attempt == step.attempt for other in group):
            # The key is used twice for the same attempt: these are not attempts of one step.
            groups[step.id,] = [step]
        else:
            group.append(step)
    return [tuple(sorted(group, key=lambda step: step.attempt)) for group in groups.values()]


def _rings(
    groups: list[tuple[Step, ...]],
    group_of: dict[str, tuple[Step, ...]],
    below: dict[tuple[str, ...], list[tuple[Step, ...]]],
) -> list[tuple[Step, ...]]:
    """One group of each ring of parents: nothing above it reaches a chain."""
    reached: set[str] = set()
    stack = [group for key, below_key in below.items() if key[0] == "chain" for group in below_key]
    while stack:
        group = stack.pop()
        reached.add(group[-1].id)
        stack.extend(below.get(("step", group[-1].id), []))
    cut: list[tuple[Step, ...]] = []
    for group in groups:
        if group[-1].id in reached:
            continue
        # Upwards until an id comes again: that one is in the ring, and everything hangs below it.
        seen: set[str] = set()
        while group[-1].id not in seen:
            seen.add(group[-1].id)
            group = group_of[group[-1].parent]
        cut.append(group)
        stack = [group]
        while stack:
            member = stack.pop()
            if member[-1].id not in reached:
                reached.add(member[-1].id)
                stack.extend(below.get(("step", member[-1].id), []))
    return cut


def counts(rows: list[Row]) -> Counter[str]:
    """Steps by state; the attempts of one step count once, as the latest."""
    return Counter(row.state for row in rows if row.attempts)


def troubles(state: SessionState, rows: list[Row]) -> list[Trouble]:
    """The failures that stand. A failure that only made its parents fail is told once, where it began."""
    path: list[tuple[int, str]] = []
    failed: list[tuple[int, Trouble]] = []
    passed_up: set[tuple[int, str]] = set()  # (row, message): that row failed because of one below it
    for index, row in enumerate(rows):
        del path[row.depth :]
        item = row.item
        if item is not None and item.state in _FAILED:
            error = item.error or Failure(message=item.reason)
            where = " / ".join(name for _, name in path)
            step = item.id if row.attempts else ""
            failed.append((index, Trouble(where, row.name, error, item.ended, step)))
            passed_up.update((above, error.message) for above, _ in path)
            passed_up.add((-1, error.message))
        path.append((index, row.name))
    session = state.session
    if session is not None and session.state in _FAILED:
        error = session.error or Failure(message=session.reason)
        failed.append((-1, Trouble("", session.name, error, session.ended)))
    return [trouble for index, trouble in failed if (index, trouble.error.message) not in passed_up]


def present(
    session: Session | None, producers: Iterable[Producer], as_of: int, *, live: bool
) -> tuple[bool, int]:
    """Whether what is said to go on does so at *as_of*, and up to when it is known to, in nanoseconds.

    It is not known without a link to the server, nor while a program that has not said goodbye is not heard.
    Of a session that has ended nothing goes on, whatever its steps said last.
    """
    if session is not None and session.state in TERMINAL:
        return False, min(as_of, int(session.ended)) if session.ended else as_of
    unheard = [int(one.since) for one in producers if not one.closed and one.liveness != "live"]
    return live and not unheard, min([as_of, *unheard])


def span(state: SessionState, as_of: int) -> tuple[int, int]:
    """The first start and the last end of all chains and steps, nanoseconds; open ones reach to *as_of*."""
    starts: list[int] = []
    ends: list[int] = []
    items: list[Session | Chain | Step] = [*state.chains.values(), *state.steps.values()]
    if state.session is not None:
        items.append(state.session)
    for item in items:
        if item.started == "":
            continue
        starts.append(int(item.started))
        if item.ended != "":
            ends.append(int(item.ended))
        elif item.state not in TERMINAL:
            ends.append(as_of)
    start = min(starts, default=as_of)
    return start, max(max(ends, default=start), start)
