"""``wsmonitor sessions``: what there is, and how it is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from wsmonitor.export.document import full
from wsmonitor.export.words import NANO, age, between, duration, look, one_line, size, state_word
from wsmonitor.protocol.states import TERMINAL

from .options import Server, StateName, console, emit, json_option, server_options

if TYPE_CHECKING:
    from rich.table import Table

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


def table(found: list[Listing], now: int) -> Table:
    """The table of *found*; *now* is the server's time, nanoseconds."""
    from rich.table import Table
    from rich.text import Text

    from .terminal import STYLES

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bright_black")
    for heading, justify in (("SESSION", "left"), ("RUN", "right"), ("STATE", "left"), ("TIME", "right"),
                             ("AGE", "right"), ("STEPS", "left"), ("SIZE", "right")):  # fmt: skip
        grid.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]  # the two words are rich's literals
    grid.add_column("ID", style="bright_black", overflow="fold")
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
        grid.add_row(
            Text(one_line(listing.name, 40), style="bold"),
            str(listing.run or ""),
            state,
            duration(elapsed) if elapsed is not None else "",
            age((now - int(born)) / NANO) if born else "",
            steps(listing),
            size(listing.size) if listing.size else "",
            Text(one_line(listing.id, 140)),
        )
        if listing.problem:
            grid.add_row(Text("  " + one_line(listing.problem, 60), style="red"))
    return grid


def steps(listing: Listing) -> str:
    """The counts of steps in icons: ``✓ 9  ▶ 2  ✕ 1``."""
    return "  ".join(f"{look(state).icon} {count:,}" for state, count in listing.counts.items() if count)
