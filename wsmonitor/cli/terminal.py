"""The terminal view: a scene as lines of text. Pure, so that a frame can be asserted.

Lines are built one by one, because a frame has to fit the terminal's height: what does not fit is
folded (finished branches first) or left out, and the count of what is hidden is told. Text of the
session is stripped of control characters before it reaches the terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from wsmonitor.export.outline import Row, counts, span
from wsmonitor.export.pieces import headline, progress_words
from wsmonitor.export.words import (
    OPEN,
    OVER,
    Tone,
    age,
    between,
    duration,
    look,
    moment,
    number,
    one_line,
    ordered,
    plural,
    state_word,
)
from wsmonitor.protocol.entities import Step
from wsmonitor.protocol.states import TERMINAL

from .scene import LogLine, Picture, Scene

STYLES: Final[dict[Tone, str]] = {
    "good": "green",
    "bad": "red",
    "busy": "bright_blue",
    "wait": "yellow",
    "idle": "bright_black",
}

_STATE_WIDTH: Final = 15
_TIME_WIDTH: Final = 9
_TIMELINE_FROM: Final = 92  # columns of terminal, from which on there is room for bars
_DEEPEST: Final = 12  # levels of indentation
_FOLD: Final = TERMINAL - {"failed", "crashed"}


def frame(scene: Scene, width: int, height: int) -> list[Text]:
    """The lines of one frame: at most *height* lines of at most *width* cells."""
    top = [*_strip(scene, width), *_alarms(scene), *_sums(scene, width)]
    log = list(scene.log)[-max(2, min(8, height // 4)) :]
    below = [log_line(line) for line in log]
    if below:
        below.insert(0, Text())
    room = height - len(top) - len(below) - 1
    lines = [*top]
    if scene.picture is not None and scene.picture.rows and room > 0:
        lines += [Text(), *_tree(scene, scene.picture, width, room)]
    lines += below
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return lines[:height]


def log_line(line: LogLine) -> Text:
    """One line of the event log."""
    text = Text(moment(line.at, date=False, millis=True) + "  ", style="bright_black")
    if line.where:
        text.append(line.where + " ", style="bold")
    text.append(line.text, style=STYLES[line.tone])
    return text


def state_line(scene: Scene) -> Text:
    """The session's name, run, state and time on one line."""
    session = scene.picture.state.session if scene.picture is not None else None
    if session is None:
        return Text(one_line(scene.target, 60), style="bold")
    known = scene.current or session.state in TERMINAL
    appearance = look(session.state)
    text = Text(one_line(session.name, 60), style="bold")
    if session.run:
        text.append(f" run {session.run}", style="not bold bright_black")
    style = STYLES[appearance.tone] if known else "yellow"
    text.append(f"  {appearance.icon} {state_word(session.state, known=known)}", style=f"not bold {style}")
    elapsed = between(session.started, session.ended or scene.until)
    if elapsed is not None:
        text.append(f" {duration(elapsed)}", style="not bold")
    if not known:
        text.append(f" at {moment(scene.until, date=False)} UTC", style="not bold yellow")
    if session.reason:
        text.append(f"  {one_line(session.reason, 60)}", style="not bold bright_black")
    return text


def _style(scene: Scene, state: str) -> str:
    """The colour of *state*: grey where it may have changed since it was last known."""
    return STYLES[look(state).tone] if scene.current or state in TERMINAL else "bright_black"


def _strip(scene: Scene, width: int) -> list[Text]:
    icon, tone, words = scene.headline
    left = Text(f"{icon} {words}", style=STYLES[tone])
    left.append(" │ ", style="bright_black")
    left.append_text(state_line(scene))
    right = Text()
    status = scene.status
    if scene.data_age is not None:
        if scene.known:
            rtt = f" {status.rtt * 1000:.0f} ms" if status.rtt is not None else ""
            right.append(f"♥ server{rtt} · {age(scene.data_age)}", style="green")
        else:
            right.append(f"♡ data {age(scene.data_age)} old", style="yellow")
    told, producer_tone = scene.producer_words
    right.append(("   " if right else "") + told, style=STYLES[producer_tone])
    if scene.watching and scene.known:
        right.append(f"   {scene.watching} watching", style="bright_black")
    lines = [left]
    gap = width - left.cell_len - right.cell_len
    if gap >= 2:
        left.append(" " * gap)
        left.append_text(right)
    else:
        lines.append(Text("  ").append_text(right))
    if scene.why:
        lines.append(Text(f"  {one_line(scene.why, 400)}", style=STYLES[tone]))
    return lines


def _alarms(scene: Scene) -> list[Text]:
    standing = scene.picture.troubles if scene.picture is not None else []
    lines = []
    for trouble in standing[-2:]:
        line = Text("✕ ", style="red")
        line.append(one_line(trouble.name, 60), style="bold")
        line.append(f" failed: {one_line(headline(trouble.error))}")
        if trouble.where:
            line.append(f"  {one_line(trouble.where, 60)}", style="bright_black")
        lines.append(line)
    if len(standing) > 2:
        lines[-1].append(f"  and {len(standing) - 2:,} more", style="red")
    return lines


def _sums(scene: Scene, width: int) -> list[Text]:
    if scene.picture is None:
        return []
    tally = counts(scene.picture.rows)
    total = sum(tally.values())
    if not total:
        return []
    line = Text()
    cells = min(24, width // 5)
    done = 0
    drawn = 0
    for state, count in ordered(tally):
        done += count
        upto = round(cells * done / total)
        line.append("━" * (upto - drawn), style=_style(scene, state))
        drawn = upto
    line.append(f"  {sum(tally[state] for state in OVER):,}", style="bold")
    line.append(f"/{plural(total, 'step')} ")
    for state, count in ordered(tally):
        words = state_word(state, known=scene.current)
        line.append(f" {look(state).icon} {count:,} {words} ", style=_style(scene, state))
    session = scene.picture.state.session
    for key, value in list((session.metrics if session else {}).items())[:4]:
        line.append(f"  {one_line(key, 24)} ", style="bright_black")
        line.append(number(value), style="bold")
    return [line]


# -- the tree


def visible(rows: Sequence[Row], room: int) -> list[tuple[Row | None, int]]:
    """The rows that are shown in *room* lines, each with the number of rows folded into it.

    Folded first: what stands below finished steps; then finished chains, from the top; then finished steps.
    What is left is a window around the last row that is at work. A pair ``(None, n)`` stands for
    *n* rows that are left out.
    """
    quiet = _quiet_branches(rows)
    chosen = list(range(len(rows)))
    if len(chosen) > room:
        chosen = _fold_steps(rows, quiet)
        chosen = _fold_chains(rows, quiet, chosen, len(chosen) - room)
    if len(chosen) > room:
        chosen = [i for i in chosen if not (quiet[i] and rows[i].depth >= 1)]
    first, last = 0, len(chosen)
    if len(chosen) > room:
        at_work = [n for n, i in enumerate(chosen) if rows[i].state in OPEN - {"pending"}]
        centre = at_work[-1] if at_work else len(chosen) - 1
        space = max(1, room - 2)
        first = max(0, min(centre - space // 2, len(chosen) - space))
        last = first + space
    shown: list[tuple[Row | None, int]] = []
    if first:
        shown.append((None, chosen[first]))
    for n in range(first, last):
        after = chosen[n + 1] if n + 1 < len(chosen) else len(rows)
        below = sum(1 for row in rows[chosen[n] + 1 : after] if row.depth > rows[chosen[n]].depth)
        shown.append((rows[chosen[n]], below))
    if last < len(chosen):
        shown.append((None, len(rows) - chosen[last]))
    return shown


def _quiet_branches(rows: Sequence[Row]) -> list[bool]:
    """For each row, whether it and everything below it has ended without a failure that stands."""
    quiet = [False] * len(rows)
    below: list[
        bool
    ] = []  # by depth: whether all rows seen so far under the next row of that depth are quiet
    for index in range(len(rows) - 1, -1, -1):
        row = rows[index]
        deeper = all(below[row.depth + 1 :])
        quiet[index] = row.state in _FOLD and deeper
        del below[row.depth + 1 :]
        while len(below) <= row.depth:
            below.append(True)
        below[row.depth] = below[row.depth] and quiet[index]
    return quiet


def _fold_steps(rows: Sequence[Row], quiet: Sequence[bool]) -> list[int]:
    """The rows that are left when what stands below quiet steps is folded."""
    kept: list[int] = []
    folded_from: int | None = None
    for index, row in enumerate(rows):
        if folded_from is not None and row.depth > folded_from:
            continue
        folded_from = row.depth if quiet[index] and row.depth >= 1 else None
        kept.append(index)
    return kept


def _fold_chains(rows: Sequence[Row], quiet: Sequence[bool], chosen: list[int], excess: int) -> list[int]:
    """The rows of *chosen* that are left when quiet chains are folded, the first ones first, by *excess*."""
    kept: list[int] = []
    folding = False
    for index in chosen:
        if rows[index].depth == 0:
            folding = quiet[index] and excess > 0
        elif folding:
            excess -= 1
            continue
        kept.append(index)
    return kept


def _tree(scene: Scene, picture: Picture, width: int, room: int) -> list[Text]:
    bars = (width - 4) // 3 if width >= _TIMELINE_FROM else 0
    label = max(20, width - _STATE_WIDTH - _TIME_WIDTH - bars - (2 if bars else 0))
    start, end = span(picture.state, scene.until)
    lines = []
    for row, hidden in visible(picture.rows, room):
        if row is None:
            lines.append(Text(f"  ⋮ {plural(hidden, 'more row')}", style="bright_black"))
            continue
        lines.append(_row(scene, row, hidden, label, (start, end, bars)))
    return lines[:room]


def _row(scene: Scene, row: Row, hidden: int, label: int, axis: tuple[int, int, int]) -> Text:
    item = row.item
    appearance = look(row.state)
    tone = _style(scene, row.state)
    indent = "  " * min(row.depth, _DEEPEST)
    twist = " " if not row.children else "▸" if hidden >= row.children else "▾"
    line = Text(f"{indent}{twist} ")
    line.append(appearance.icon + " ", style=tone)
    line.append(one_line(row.name, 100), style="bold" if row.depth == 0 else "")
    tags = []
    if hidden:
        tags.append(f"{hidden:,} folded")
    if len(row.attempts) > 1:
        tags.append(f"attempt {row.attempts[-1].attempt}")
    if row.orphan:
        tags.append("parent not known" if row.depth else "chain not known")
    if item is not None and item.progress is not None and item.state in OPEN:
        tags.append(one_line(progress_words(item), 40))
    if isinstance(item, Step) and item.log_last and item.state in OPEN:
        tags.append(one_line(item.log_last, 60))
    if tags:
        line.append("  " + " · ".join(tags), style="bright_black")
    if item is not None and item.error is not None and row.depth:
        line.append("  " + one_line(headline(item.error), 80), style="red")
    line.truncate(label - 1, overflow="ellipsis")
    line.append(" " * (label - line.cell_len))
    line.append(set_cell_size(state_word(row.state, known=scene.current), _STATE_WIDTH), style=tone)
    elapsed = None
    if item is not None and not (item.state == "crashed" and not item.ended):
        elapsed = between(item.started, item.ended or scene.until)
    told = duration(elapsed) if elapsed is not None else ""
    line.append(" " * (_TIME_WIDTH - 1 - cell_len(told)) + told + " ", style="bright_black")
    if axis[2]:
        line.append("  ")
        line.append_text(_bar(scene, row, axis))
    return line


def _bar(scene: Scene, row: Row, axis: tuple[int, int, int]) -> Text:
    start, end, cells = axis
    line = [(" ", "")] * cells
    for item in row.attempts or ((row.item,) if row.item is not None else ()):
        if item.started == "":
            continue
        begin = int(item.started)
        still = item.state in OPEN
        until = int(item.ended) if item.ended else max(begin, scene.until) if still else begin
        first = max(0, min(cells - 1, (begin - start) * cells // max(end - start, 1)))
        last = max(first, min(cells - 1, (until - start) * cells // max(end - start, 1)))
        mark = "┄" if still and not scene.current else "━"
        style = _style(scene, item.state)
        line[first : last + 1] = [(mark, style)] * (last + 1 - first)
    return Text.assemble(
        *(("".join(mark for mark, _ in run), style) for style, run in groupby(line, key=lambda cell: cell[1]))
    )
