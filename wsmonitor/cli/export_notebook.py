"""``wsmonitor export -o FILE.ipynb``: a recorded notebook as a notebook."""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
    from wsmonitor.protocol.entities import LogRecord
    from wsmonitor.protocol.reducer import SessionState


def export_notebook(
    connection: Connection, state: SessionState, output: Path, into: Path | None, timeout: float
) -> int:
    """Write the notebook, say on stderr what is in it, and return the exit status.

    Raises:
        NotRecordedError: the session is no recorded notebook.
        ConfigurationError: *into* is no notebook.
    """
    from wsmonitor.client.whole import read_logs, read_value

    recording = recording_of(state)
    report = Report()

    def fetch(sha256: str, count: int) -> bytes | None:
        return read_value(connection, recording.session, sha256, count, timeout=timeout)

    def logs(step: str, count: int) -> Sequence[LogRecord]:
        return read_logs(connection, recording.session, step, count, timeout=timeout)

    if into is None:
        pieces = notebook_file(recording, fetch, logs, report)
    else:
        pieces = notebook_into(recording, fetch, logs, read_notebook(into.read_bytes(), str(into)), report)
    if str(output) == "-":
        written = 0
        for piece in pieces:
            written += sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    else:
        written = write_whole(output, pieces)
    click.echo(f"{output}: {size(written)}, {plural(report.cells, 'cell')} with recorded outputs", err=True)
    for line in report.told():
        click.echo(f"  {line}", err=True)
    return Exit.FAILED if report.missing else Exit.OK
