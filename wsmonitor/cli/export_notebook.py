"""``wsmonitor export -o FILE.ipynb``: a recorded notebook as a notebook."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsmonitor.export.notebook import Report, notebook_file, notebook_into, read_notebook
from wsmonitor.export.recording import recording_of
from wsmonitor.export.words import plural, size

from .failures import Exit
from .files import write_whole

if TYPE_CHECKING:
    from wsmonitor.client import Connection
    from wsmonitor.protocol.reducer import SessionState


def export_notebook(
    connection: Connection, state: SessionState, output: Path, into: Path | None, timeout: float
) -> int:
    """Write the notebook, say on stderr what is in it, and return the exit status.

    Raises:
        NotRecordedError: the session is no recorded notebook.
        ConfigurationError: *into* is no notebook.
    """
    from wsmonitor.client.whole import read_value

    recording = recording_of(state)
    report = Report()

    def fetch(sha256: str, count: int) -> bytes | None:
        return read_value(connection, recording.session, sha256, count, timeout=timeout)

    if into is None:
        pieces = notebook_file(recording, fetch, report)
    else:
        pieces = notebook_into(recording, fetch, read_notebook(into.read_bytes(), str(into)), report)
    if str(output) == "-":
        written = 0
        for piece in pieces:
            written += sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    else:
        written = write_whole(output, pieces)
    click.echo(f"{output}: {size(written)}, {plural(report.cells, 'cell')} with recorded outputs", err=True)
    for line in told(report):
        click.echo(f"  {line}", err=True)
    return Exit.FAILED if report.missing else Exit.OK


def told(report: Report) -> list[str]:
    """What a person should know of the file, line by line."""
    lines = [
        (report.by_source, "found by its source, not by its id", "found by their source, not by their id"),
        (
            report.unsure,
            "left alone: several cells have its source, and which of them ran is not known",
            "left alone: several cells have their source, and which of them ran is not known",
        ),
        (
            report.changed,
            "left alone: it was edited since it was recorded",
            "left alone: they were edited since they were recorded",
        ),
        (
            report.absent,
            "of the recording is not in the notebook",
            "of the recording are not in the notebook",
        ),
        (
            report.partial,
            "has less than came out: it says so, and why",
            "have less than came out: they say so, and why",
        ),
    ]
    said = [f"{plural(count, 'cell')} {one if count == 1 else more}" for count, one, more in lines if count]
    if report.missing:
        said.append(f"{plural(report.missing, 'output')} no longer kept by the server, or unreadable [gone]")
    return said
