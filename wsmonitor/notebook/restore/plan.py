"""What would be done to which cell: the rows that a person is shown, and asked about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from wsmonitor.export.matching import Executed, Match, Place, match
from wsmonitor.export.outputs import decode
from wsmonitor.export.recording import Recording, Run, is_own_magic
from wsmonitor.notebook.rows import milliseconds, one_line
from wsmonitor.protocol.errors import UsageError

LABEL: Final = 120
"""Characters of a cell's first line that are shown."""

CELLS: Final = 20_000
"""How many cells of a notebook are looked at."""


def places(cells: Any) -> list[Place]:
    """The open notebook's cells, as the browser tells them: ``[{"id", "source", "code"}]``.

    Raises:
        UsageError: they are not told so.
    """
    if not isinstance(cells, list) or len(cells) > CELLS:
        raise UsageError(f"the browser told no list of at most {CELLS:,} cells")
    found = []
    for cell in cells:
        if not isinstance(cell, dict) or not isinstance(cell.get("source"), str):
            raise UsageError("the browser told a cell without its source")
        ident = cell.get("id")
        found.append(
            Place(ident if isinstance(ident, str) else "", cell["source"], code=bool(cell.get("code")))
        )
    return found


def plan(recording: Recording, executed: Sequence[Executed], cells: Sequence[Place]) -> list[dict[str, Any]]:
    """A row for each recorded cell, in the notebook's order; those that it has not, last.

    Fields: ``n`` the execution, ``how`` and ``place`` as in `matching.Match`, ``label`` the first line,
    ``count``, ``state``, ``open`` whether it has not ended, ``size`` of the outputs in bytes, ``outputs`` how
    many there are (None if it is not known without fetching), ``runs``, ``later``, ``at`` (milliseconds).
    Cells that only record or restore are left out.
    """
    matches = [one for one in match(executed, cells) if not is_own_magic(executed[one.executed].source)]
    matches.sort(key=lambda one: (one.how == "absent", one.place or 0, one.executed))
    return [_row(recording, executed, one) for one in matches]


def _row(recording: Recording, executed: Sequence[Executed], one: Match) -> dict[str, Any]:
    run = recording.runs[one.executed]
    lines = [line for line in executed[one.executed].source.splitlines() if line.strip()]
    return {
        "n": one.executed,
        "how": one.how,
        "place": one.place,
        "label": one_line(lines[0], LABEL) if lines else "",
        "count": run.count,
        "state": run.state,
        "open": run.open,
        "outputs": _known(run),
        "size": 0 if run.output is None else run.output.size,
        "runs": one.runs,
        "later": one.later,
        "at": milliseconds(run.started),
    }


def _known(run: Run) -> int | None:
    if run.output is None:
        return 0
    if run.output.truncated:
        return None
    try:
        return len(decode(run.output.text).outputs)
    except ValueError:
        return None
