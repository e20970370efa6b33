"""A recorded notebook as a notebook file (nbformat 4.5).

Two ways. From nothing: the cells that ran, in the order in which they first ran, each with the source and
outputs of its last execution. Into a notebook: the file as it is, with the recorded outputs in the cells they
belong to (see `matching`), all else untouched.

The file is made cell by cell, so that a large recording needs no more memory than its largest cell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from wsmonitor.protocol.errors import ConfigurationError

from .cells import Outputs, outputs_of
from .matching import Executed, Match, Place, match
from .recording import Fetch, Logs, Recording, Run, source_of
from .words import moment, plural

_CELL_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_SPLIT: Final = ("image/svg+xml", "application/javascript")


@dataclass
class Report:
    """What was done, filled while the file is made.

    Attributes:
        cells: how many cells were given recorded outputs.
        by_source: how many of them were found by their source, the others by id.
        unsure: how many were left alone because several cells have their source.
        changed: how many were left alone because the cell's source is another now.
        absent: how many recorded cells the notebook has not.
        partial: how many have less than an undisturbed browser would have shown.
        missing: how many pieces are no longer kept, or cannot be read.
    """

    cells: int = 0
    by_source: int = 0
    unsure: int = 0
    changed: int = 0
    absent: int = 0
    partial: int = 0
    missing: int = 0

    def told(self) -> list[str]:
        """What a person should know of the file, line by line."""
        lines = [
            (self.by_source, "found by its source, not by its id", "found by their source, not by their id"),
            (
                self.unsure,
                "left alone: several cells have its source, and which of them ran is not known",
                "left alone: several cells have their source, and which of them ran is not known",
            ),
            (
                self.changed,
                "left alone: it was edited since it was recorded",
                "left alone: they were edited since they were recorded",
            ),
            (
                self.absent,
                "of the recording is not in the notebook",
                "of the recording are not in the notebook",
            ),
            (
                self.partial,
                "has less than came out: it says so, and why",
                "have less than came out: they say so, and why",
            ),
        ]
        said = [
            f"{plural(count, 'cell')} {one if count == 1 else more}" for count, one, more in lines if count
        ]
        if self.missing:
            said.append(
                f"{plural(self.missing, 'output')} no longer kept by the server, or unreadable [gone]"
            )
        return said


def executed(run: Run, fetch: Fetch) -> Executed:
    """What is compared with a notebook's cells."""
    source = source_of(run, fetch)
    if source is not None:
        return Executed(run.cell_id, source)
    return Executed(run.cell_id, run.source.text if run.source is not None else "", whole=False)


def notebook_file(recording: Recording, fetch: Fetch, logs: Logs, report: Report) -> Iterator[bytes]:
    """The recorded cells as a notebook file, piece by piece."""
    runs = recording.runs
    sources = [executed(run, fetch) for run in runs]
    # Without an id, cells of the same source cannot be told apart from executions of one.
    groups: dict[tuple[str, str], list[int]] = {}
    for number, (run, source) in enumerate(zip(runs, sources, strict=True)):
        groups.setdefault((run.cell_id, "" if run.cell_id else source.source), []).append(number)

    def cells() -> Iterator[dict[str, Any]]:
        used: set[str] = set()
        for numbers in groups.values():
            run, source = runs[numbers[-1]], sources[numbers[-1]]
            outputs = outputs_of(run, fetch, logs, source=source.whole)
            _count(report, outputs)
            yield {
                "cell_type": "code",
                "execution_count": run.count,
                "id": _cell_id(run, used),
                "metadata": {"wsmonitor": _about(run, len(numbers), 0, outputs)},
                "outputs": outputs.outputs,
                "source": source.source,
            }

    language = recording.language or "python"
    metadata: dict[str, Any] = {
        "kernelspec": {
            "display_name": recording.kernel or "Python 3",
            "language": language,
            "name": recording.kernel or "python3",
        },
        "language_info": {"name": language},
        "wsmonitor": _origin(recording),
    }
    return _file(cells(), {"metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def notebook_into(
    recording: Recording, fetch: Fetch, logs: Logs, original: Mapping[str, Any], report: Report
) -> Iterator[bytes]:
    """*original* with the recorded outputs in its cells, piece by piece.

    Args:
        original: a notebook, as `read_notebook` gives it.
    """
    cells: list[dict[str, Any]] = original["cells"]
    matches = match([executed(run, fetch) for run in recording.runs], [place_of(cell) for cell in cells])
    wanted: dict[int, Match] = {}
    for one in matches:
        if one.how in ("id", "source") and one.place is not None:
            wanted[one.place] = one
            report.by_source += one.how == "source"
        elif one.how == "unsure":
            report.unsure += 1
        elif one.how == "changed":
            report.changed += 1
        else:
            report.absent += 1

    def filled() -> Iterator[dict[str, Any]]:
        for index, cell in enumerate(cells):
            one = wanted.get(index)
            if one is None:
                yield cell
                continue
            run = recording.runs[one.executed]
            outputs = outputs_of(run, fetch, logs)
            _count(report, outputs)
            about = _about(run, one.runs, one.later, outputs)
            about["session"] = recording.session
            metadata = cell.get("metadata")
            yield {
                **cell,
                "execution_count": run.count,
                "metadata": {**(metadata if isinstance(metadata, dict) else {}), "wsmonitor": about},
                "outputs": outputs.outputs,
            }

    return _file(filled(), {key: value for key, value in original.items() if key != "cells"})


def read_notebook(data: bytes, name: str) -> dict[str, Any]:
    """A notebook file's content; texts that are kept as lines are joined.

    Raises:
        ConfigurationError: it is no notebook of nbformat 4; the message says what to do.
    """
    try:
        found = json.loads(data)
    except ValueError as exc:  # also of bytes that are no text
        raise ConfigurationError(f"{name} is no notebook: {exc}") from None
    if not isinstance(found, dict) or not isinstance(found.get("nbformat"), int):
        raise ConfigurationError(f"{name} is no notebook: it has no nbformat")
    if found["nbformat"] != 4:
        raise ConfigurationError(
            f"{name} has the notebook format {found['nbformat']}, and not 4: open it in Jupyter and save it"
        )
    cells = found.get("cells")
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise ConfigurationError(f"{name} is no notebook: it has no list of cells")
    return found


def place_of(cell: Mapping[str, Any]) -> Place:
    """A cell of a notebook file, as it is compared."""
    ident = cell.get("id")
    return Place(
        ident if isinstance(ident, str) else "",
        _joined(cell.get("source")),
        code=cell.get("cell_type") == "code",
    )


def _joined(text: Any) -> str:
    if isinstance(text, list):
        return "".join(line for line in text if isinstance(line, str))
    return text if isinstance(text, str) else ""


def _count(report: Report, outputs: Outputs) -> None:
    report.cells += 1
    report.partial += outputs.partial
    report.missing += outputs.missing


def _cell_id(run: Run, used: set[str]) -> str:
    """The cell's own id, or one made of the step's: valid, and not used yet."""
    wanted = run.cell_id if _CELL_ID.fullmatch(run.cell_id) else re.sub("[^a-zA-Z0-9_-]", "-", run.step)[:50]
    found, number = wanted, 1
    while found in used:
        number += 1
        found = f"{wanted[:50]}-{number}"
    used.add(found)
    return found


def _about(run: Run, runs: int, later: int, outputs: Outputs) -> dict[str, Any]:
    """What a cell's metadata say of where its outputs come from."""
    about: dict[str, Any] = {"step": run.step, "state": run.state}
    if run.started:
        about["started"] = moment(run.started, millis=True)
    if run.ended:
        about["ended"] = moment(run.ended, millis=True)
    if runs > 1:
        about["executions"] = runs
    if later:
        about["later_with_other_source"] = later
    if outputs.partial:
        about["partial"] = outputs.notes
    return about


def _origin(recording: Recording) -> dict[str, Any]:
    return {
        "session": recording.session,
        "name": recording.name,
        "run": recording.run,
        "state": recording.state,
        "notebook": recording.path,
        "began": moment(recording.began),
    }


# -- the file


def _file(cells: Iterable[dict[str, Any]], rest: Mapping[str, Any]) -> Iterator[bytes]:
    """A notebook as Jupyter writes it: one space of indentation, sorted keys, long texts as lines."""
    yield b'{\n "cells": ['
    first = True
    for cell in cells:
        yield b"\n  " if first else b",\n  "
        first = False
        yield _json(_lines(cell), "  ")
    yield b"]" if first else b"\n ]"
    for key in sorted(rest):
        yield b",\n " + _json(key, "") + b": " + _json(rest[key], " ")
    yield b"\n}\n"


def _json(value: Any, indent: str) -> bytes:
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, separators=(",", ": "))
    return text.replace("\n", f"\n{indent}").encode("utf-8", "replace")


def _lines(cell: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(cell)
    if isinstance(made.get("source"), str):
        made["source"] = made["source"].splitlines(True)
    if isinstance(made.get("outputs"), list):
        made["outputs"] = [_output_lines(output) for output in made["outputs"]]
    return made


def _output_lines(output: Any) -> Any:
    if not isinstance(output, dict):
        return output
    made = dict(output)
    if isinstance(made.get("text"), str):
        made["text"] = made["text"].splitlines(True)
    if isinstance(made.get("data"), dict):
        made["data"] = {
            mime: datum.splitlines(True)
            if isinstance(datum, str) and (mime.startswith("text/") or mime in _SPLIT)
            else datum
            for mime, datum in made["data"].items()
        }
    return made
