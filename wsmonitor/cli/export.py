"""``wsmonitor export``: a session as a file."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from wsmonitor.export import Origin, to_html, to_json
from wsmonitor.export.outline import counts, outline
from wsmonitor.export.words import NANO, plural, size
from wsmonitor.protocol.errors import WsMonitorError

from .failures import Exit, Failure
from .files import write_whole
from .options import Server, server_options

if TYPE_CHECKING:
    from wsmonitor.client import Connection
    from wsmonitor.export.recording import Fetch
    from wsmonitor.protocol.entities import LogRecord
    from wsmonitor.protocol.reducer import SessionState

_FORMATS: Final = ("json", "html", "ipynb")
_LINES: Final = 1000  # what a server keeps per step, and sends at once
_AT_ONCE: Final = 16
_VALUES: Final = 24 * 1024 * 1024  # bytes of recorded outputs in a page


@click.command("export", short_help="Write a session to a file: JSON, an HTML page, or a recorded notebook.")
@click.argument("session")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="The file; its ending chooses the format. - for standard output.",
)  # fmt: skip
@click.option("--format", "form", type=click.Choice(_FORMATS), help="Instead of the file's ending.")
@click.option("--logs/--no-logs", default=True, show_default=True, help="With the steps' log lines.")
@click.option(
    "--into", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="NOTEBOOK",
    help="For .ipynb: put the outputs into a copy of this notebook, cell by cell; the rest stays as it is.",
)  # fmt: skip
@server_options
def export_command(
    session: str, output: Path, form: str | None, logs: bool, into: Path | None, server: Server
) -> int:
    """Write SESSION (a name means its newest run) to a file, as it is at this moment.

    The HTML stands alone: no network, light and dark, to be filtered and printed. The JSON holds every record
    in full; its form is in docs/reference/cli.md. Large values are in it as previews, with their
    size and SHA-256.

    A recording of %wsmonitor record can be written as a notebook, .ipynb: the cells that ran, with
    the outputs that a browser would have got had it stayed. With --into NOTEBOOK the outputs go
    into a copy of that notebook, into the cells with the recorded ids and sources; cells that
    were edited since are left alone. What is no longer kept is said in the cell, and by status 1.

    \b
    Examples:
      wsmonitor export nightly-etl -o report.html
      wsmonitor export nightly-etl -o - --format json | jq .session.state
      wsmonitor export analysis -o analysis-restored.ipynb --into analysis.ipynb
    """
    from .directory import resolve, verified

    form = form or output.suffix.lstrip(".").lower()
    if form not in _FORMATS:
        raise click.BadParameter(
            f"the ending of {str(output)!r} is not .json, .html or .ipynb: give --format",
            param_hint="--output",
        )
    if into is not None and form != "ipynb":
        raise click.BadParameter("goes with a notebook only: -o FILE.ipynb", param_hint="--into")
    with server.connected("export") as connection:
        ident = resolve(connection, session, server.timeout)
        state = verified(connection, ident, server.timeout)
        if state.session is None:
            raise Failure(
                f"there is no session {session!r}, or not for this token",
                code="not_available",
                status=Exit.REFUSED,
            )
        if form == "ipynb":
            from .export_notebook import export_notebook

            return export_notebook(connection, state, output, into, server.timeout)
        status = connection.status
        wall = time.time_ns()
        origin = Origin(
            exported=str(wall),
            as_of=str(wall + int((status.clock_offset or 0.0) * NANO)),
            live=True,
            server=status.url or "",
            version=status.welcome.server if status.welcome is not None else "",
        )
        lines, failed = _fetch_logs(connection, server, state) if logs else ({}, 0)
        if form == "json":
            data = to_json(state, origin, lines)
        else:
            data = to_html(state, origin, lines, _fetcher(connection, server, state)).encode()
    if str(output) == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        write_whole(output, [data])
        # Attempts of one step are one step, as every view counts.
        steps = plural(counts(outline(state)).total(), "step")
        click.echo(f"{output}: {size(len(data))}, {steps}, event {state.seq:,}", err=True)
    if failed:
        click.echo(f"  the log lines of {plural(failed, 'step')} could not be read", err=True)
    return Exit.OK


def _fetcher(connection: Connection, server: Server, state: SessionState) -> Fetch:
    """Gives the large values that recorded outputs refer to, up to `_VALUES` bytes in all."""
    from wsmonitor.client.whole import read_value

    room = _VALUES

    def fetch(sha256: str, count: int) -> bytes | None:
        nonlocal room
        if count > room:
            return None
        try:
            found = read_value(connection, state.topic, sha256, count, timeout=server.timeout)
        except WsMonitorError:
            return None
        room -= count
        return found

    return fetch


def _fetch_logs(
    connection: Connection, server: Server, state: SessionState
) -> tuple[dict[str, list[LogRecord]], int]:
    """The kept log lines by step, and of how many steps they could not be had."""
    wanted = [step for step in state.steps.values() if step.log_count]
    found: dict[str, list[LogRecord]] = {}
    failed = 0
    for start in range(0, len(wanted), _AT_ONCE):
        asked = [
            (step.id, connection.fetch_logs(
                state.topic, step.id, max(1, step.log_count - _LINES + 1), _LINES, timeout=server.timeout
            ))
            for step in wanted[start : start + _AT_ONCE]
        ]  # fmt: skip
        for step_id, answer in asked:
            try:
                found[step_id] = answer.result().records
            except WsMonitorError:
                failed += 1
    return found, failed
