"""The static trace: a session as HTML that can be read without style sheets, scripts or a kernel.

It is what GitHub, nbviewer and a notebook that is opened without a kernel show. What changes from
run to run stands between two markers, which the sanitize file for nbval (`sanitize_file`) knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Final

from wsmonitor.export.outline import grouped, present
from wsmonitor.export.words import OPEN, between, duration, look, ordered, plural, state_word
from wsmonitor.protocol.entities import Chain, Session, Step

from .rows import failure_line, milliseconds
from .snapshot import SessionSnapshot

BEGIN: Final = "<!-- wsmonitor:volatile -->"
END: Final = "<!-- /wsmonitor:volatile -->"
ROW_LIMIT: Final = 400  # a notebook is a document: more is in `to_html`

STATIC_ROWS: Final = 100  # of a list of sessions

LEFT: Final = 'align="left" style="text-align: left"'
"""Twice, because JupyterLab's style sheet overrules the attribute, and GitHub takes the style away."""


def sanitize_file() -> Path:
    """The file for ``pytest --nbval-sanitize-with``."""
    return Path(str(files(__package__) / "nbval_sanitize.cfg"))


def plain(title: str) -> str:
    """The ``text/plain`` of an observer: always the same for the same target."""
    return f"Observer({title!r})"


def placeholder(title: str) -> str:
    """What stands in the notebook until the browser shows the live view, and where there is no kernel."""
    return (
        f"<p><b>wsmonitor</b> observer of <b>{escape(title)}</b>. "
        "The live view needs a running kernel: run this cell. A static copy is below.</p>"
    )


def empty_trace() -> str:
    """The static copy before there is anything to copy."""
    return f"<details><summary>{BEGIN}Static copy</summary><p>Nothing yet.</p>{END}</details>"


def _time(at: int | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _length(item: Session | Chain | Step, until: int) -> str:
    """How long it took, or took until then (nanoseconds)."""
    seconds = between(item.started, item.ended or (until if item.state in OPEN else ""))
    return "" if seconds is None else duration(seconds)


def _state(state: str, *, known: bool = True) -> str:
    """The state with its icon; what may have changed since it was last known is told in the past tense."""
    return f"{look(state).icon} {escape(state_word(state, known=known))}"


def _lost(as_of: int) -> str:
    return (
        f"Nothing newer was heard from the server: this is what was known at {_time(as_of)}; "
        "what happened since is not in here."
    )


def _doubts(snapshot: SessionSnapshot, as_of: int, live: bool) -> list[str]:
    """Why what was open may not be so, in sentences. What has ended has ended, whatever is heard since."""
    if snapshot.terminal:
        return []
    if not live:
        return [_lost(as_of)]
    return [
        f"The program {escape(one.agent or one.id)} was {'lost' if one.liveness == 'lost' else 'not heard'} "
        f"since {_time(milliseconds(one.since))}."
        for one in snapshot.producers.values()
        if not one.closed and one.liveness != "live"
    ]


def _order(entity_created: str, started: str) -> int:
    return int(entity_created or started or 0)


def _lines(snapshot: SessionSnapshot, until: int) -> Iterator[tuple[int, str, str, str, str]]:
    """Depth, name, state, time and remark of each chain and step, in the order of the tree."""
    below: dict[tuple[str, str], list[str]] = {}
    for step in snapshot.steps.values():
        parent = step.parent if step.parent in snapshot.steps else ""
        below.setdefault((step.chain, parent), []).append(step.id)
    for ids in below.values():
        ids.sort(key=lambda ident: _order(snapshot.steps[ident].created, snapshot.steps[ident].started))
    chains = sorted(snapshot.chains.values(), key=lambda chain: _order(chain.created, chain.started))
    orphans = {chain for chain, _ in below} - snapshot.chains.keys()
    for ident, name, chain in [
        *((chain.id, chain.name, chain) for chain in chains),
        *((o, o, None) for o in sorted(orphans)),
    ]:
        if chain is not None:
            yield 0, name, chain.state, _length(chain, until), failure_line(chain.error)
        stack = [(1, step) for step in reversed(below.get((ident, ""), []))]
        while stack:
            depth, step_id = stack.pop()
            step = snapshot.steps[step_id]
            attempt = f"attempt {step.attempt}" if step.attempt > 1 else ""
            remark = "; ".join(part for part in (attempt, failure_line(step.error) or step.reason) if part)
            yield depth, step.name, step.state, _length(step, until), remark
            stack.extend((depth + 1, child) for child in reversed(below.get((step.chain, step.id), [])))


def body(snapshot: SessionSnapshot, as_of: int, limit: int | None = None, *, live: bool = True) -> str:
    """The session as a heading and a table.

    Args:
        as_of: up to when it is verified, in milliseconds since 1970.
        limit: how many rows at the most.
        live: whether the link to the server was there then.
    """
    doubts = _doubts(snapshot, as_of, live)
    record = snapshot.record
    known, until = present(record, snapshot.producers.values(), as_of * 1_000_000, live=live)
    took = _length(record, until)
    words = [
        _state(snapshot.state, known=known),
        *([f"{'in' if record.ended else 'for'} {took}"] if took else []),
        *([escape(snapshot.reason)] if snapshot.reason else []),
    ]
    # Attempts of one step are one step, as every view counts.
    tally: Counter[str] = Counter(attempts[-1].state for attempts in grouped(snapshot.steps.values()))
    counts = ", ".join(f"{number:,} {state_word(state, known=known)}" for state, number in ordered(tally))
    out = [
        f"<p><b>{escape(snapshot.name)}</b>, run {snapshot.run}: {' '.join(words)}. ",
        plural(tally.total(), "step") + (f": {counts}" if counts else ""),
        f". As of {_time(as_of)}, event {snapshot.seq}; ",
        f"started {_time(milliseconds(record.started)) or 'not yet'}.</p>",
    ]
    out += [f"<p>⚠ {doubt}</p>" for doubt in doubts]
    if record.error is not None:
        out.append(f"<p>✕ {escape(failure_line(record.error))}</p>")
    out.append(
        f"<table><thead><tr><th {LEFT}>Step</th><th {LEFT}>State</th><th>Time</th><th {LEFT}>Remark</th></tr>"
        "</thead><tbody>"
    )
    for number, (depth, name, state, length, remark) in enumerate(_lines(snapshot, until)):
        if limit is not None and number >= limit:
            total = len(snapshot.steps) + len(snapshot.chains)
            out.append(f"<tr><td>… and {total - number} more rows: see to_html()</td></tr>")
            break
        label = f"<b>{escape(name)}</b>" if depth == 0 else "&nbsp;" * 4 * min(depth, 12) + escape(name)
        out.append(
            f"<tr><td {LEFT}>{label}</td><td {LEFT}>{_state(state, known=known)}</td>"
            f'<td align="right">{length}</td><td {LEFT}>{escape(remark)}</td></tr>'
        )
    out.append("</tbody></table>")
    return "".join(out)


def trace(snapshot: SessionSnapshot, as_of: int, *, live: bool = True) -> str:
    """The static copy that stands beside the live view; arguments as those of `body`."""
    state = _state(snapshot.state, known=not _doubts(snapshot, as_of, live))
    summary = f"Static copy: {escape(snapshot.name)}, run {snapshot.run}, {state}, as of {_time(as_of)}"
    inside = body(snapshot, as_of, ROW_LIMIT, live=live)
    return f"<details><summary>{BEGIN}{summary}</summary>{inside}{END}</details>"


def static_list(table: str, total: int, as_of: int, *, live: bool = True) -> str:
    """The static copy beside a list of sessions; *table* is HTML, *as_of* in milliseconds since 1970."""
    doubt = "" if live else f"<p>⚠ {_lost(as_of)}</p>"
    more = f"<p>… and {total - STATIC_ROWS} more.</p>" if total > STATIC_ROWS else ""
    summary = f"Static copy: {total} {'session' if total == 1 else 'sessions'}, as of {_time(as_of)}"
    return f"<details><summary>{BEGIN}{summary}</summary>{doubt}{table}{more}{END}</details>"
