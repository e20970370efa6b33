"""``wsmonitor sessions``: what there is, and how it is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click

from wsmonitor.export.document import full
from wsmonitor.export.words import NANO, age, between, duration, look, one_line, ordered, size, state_word
from wsmonitor.protocol.states import TERMINAL

from .options import Server, StateName, console, emit, json_option, server_options

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

    from wsmonitor.protocol.entities import Listing


@click.command("sessions", short_help="List the sessions and their states.")
@click.argument("name", required=False)
@click.option("--state", "states", multiple=True, type=StateName(), help="Only these states (repeatable).")
@click.option("--all", "everything", is_flag=True, help="Also the ended runs beyond the newest 20.")
@json_option
@server_options
def sessions_command(
    name: str | None, states: tuple[str, ...], everything: bool, as_json: bool, server: Server
) -> None:
    """List the sessions that your token may see, the newest first.

    \b
    Examples:
      wsmonitor sessions
      wsmonitor sessions nightly-etl              its runs
      wsmonitor sessions --state failed --json
    """
    from .directory import listings

    with server.connected("sessions") as connection:
        found = listings(connection, server.timeout, name)
        offset = connection.status.clock_offset or 0.0
    if states:
        found = [listing for listing in found if listing.state in states]
    if as_json:
        emit([full(listing) for listing in found])
        return
    if not found:
        click.echo("no sessions" if not (name or states) else "no such sessions")
        return
    # Open sessions are always shown: the limit is for the past.
    limit = len(found) if everything or states or name else 20
    ended = [listing for listing in found if listing.state in TERMINAL]
    hidden = {listing.id for listing in ended[limit:]}
    now = time.time_ns() + int(offset * NANO)
    console().print(table([listing for listing in found if listing.id not in hidden], now))
    if hidden:
        click.echo(f"and {len(hidden):,} older ended runs: --all shows them")


def table(found: list[Listing], now: int) -> Lines:
    """The table of *found*; *now* is the server's time, nanoseconds."""
    from rich.text import Text

    from .terminal import STYLES

    rows = []
    for listing in found:
        appearance = look(listing.state)
        still = listing.state not in TERMINAL
        heard = listing.liveness in ("", "live") or not still
        # A producer that is not heard may have stopped: its state is what it last said.
        state = Text(f"{appearance.icon} {state_word(listing.state, known=heard)}", STYLES[appearance.tone])
        if not heard:
            state.append(f" (producer {listing.liveness})", style="yellow")
        elapsed = between(listing.started, listing.ended or now)
        born = listing.created or listing.started
        rows.append(
            {
                "SESSION": Text(one_line(listing.name, 40), style="bold"),
                "RUN": Text(str(listing.run or "")),
                "STATE": state,
                "TIME": Text(duration(elapsed) if elapsed is not None else ""),
                "AGE": Text(age((now - int(born)) / NANO) if born else ""),
                "STEPS": Text(steps(listing)),
                "SIZE": Text(size(listing.size) if listing.size else ""),
                "ID": Text(one_line(listing.id, 140), style="bright_black"),
                "": Text(one_line(listing.problem, 200), style="red"),
            }
        )
    return Lines(rows)


_GAP: Final = 2  # cells between two columns
_RIGHT: Final = frozenset({"RUN", "TIME", "AGE", "SIZE"})
_SPARED: Final = ("ID", "SIZE", "AGE", "STEPS", "TIME")  # what gives way first where a terminal is narrow
_NAME: Final = 12  # cells that a session's name keeps


class Lines:
    """Rows under headings, as wide as there is room: columns give way before any is cut.

    An id without a column stands under its row, because a run is named by it; so does a problem.
    """

    def __init__(self, rows: list[dict[str, Text]]) -> None:
        self.rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        columns = [heading for heading in self.rows[0] if heading]
        widths = {h: max(len(h), *(row[h].cell_len for row in self.rows)) for h in columns}
        wanted = widths["SESSION"]
        widths["SESSION"] = min(wanted, _NAME)
        for spared in _SPARED:
            if self._width(columns, widths) <= options.max_width:
                break
            columns.remove(spared)
        room = options.max_width - self._width(columns, widths)
        widths["SESSION"] = min(wanted, widths["SESSION"] + max(0, room))
        yield self._line({h: Text(h, style="bright_black") for h in columns}, columns, widths)
        for row in self.rows:
            yield self._line(row, columns, widths)
            below = [row[""]] if "ID" in columns else [row["ID"], row[""]]
            for text in below:
                if text:
                    line = Text("  ", no_wrap=True, overflow="ellipsis").append_text(text)
                    if text is row["ID"]:
                        line.no_wrap, line.overflow = False, "fold"  # it is there to be copied
                    yield line

    @staticmethod
    def _width(columns: list[str], widths: dict[str, int]) -> int:
        return sum(widths[heading] for heading in columns) + _GAP * (len(columns) - 1)

    @staticmethod
    def _line(row: dict[str, Text], columns: list[str], widths: dict[str, int]) -> Text:
        from rich.text import Text

        line = Text(no_wrap=True, overflow="ellipsis")
        for heading in columns:
            cell = row[heading].copy()
            cell.truncate(widths[heading], overflow="ellipsis")
            fill = " " * (widths[heading] - cell.cell_len)
            if heading in _RIGHT:
                line.append(fill)
            line.append_text(cell)
            if heading != columns[-1]:
                line.append((fill if heading not in _RIGHT else "") + " " * _GAP)
        return line


def steps(listing: Listing) -> str:
    """The counts of steps in icons: ``✓ 9  ▶ 2  ✕ 1``."""
    return "  ".join(f"{look(state).icon} {count:,}" for state, count in ordered(listing.counts))
