"""``wsmonitor rm``: remove sessions and everything kept for them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from wsmonitor.export.words import NANO, plural, size
from wsmonitor.protocol.states import TERMINAL

from .failures import Exit, Failure, explain, status_of
from .options import Bytes, Server, Span, StateName, console, emit, json_option, server_options

if TYPE_CHECKING:
    from wsmonitor.protocol.entities import Listing


@click.command("rm", short_help="Remove sessions.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--older-than", type=Span(), help="Sessions that ended (or were made) longer ago, e.g. 7d.")
@click.option("--larger-than", type=Bytes(), help="Sessions that take more room, e.g. 100MB.")
@click.option(
    "--state", "states", multiple=True, type=StateName(), help="Sessions in this state (repeatable)."
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
@json_option
@server_options
def rm_command(
    ids: tuple[str, ...],
    older_than: float | None,
    larger_than: int | None,
    states: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    as_json: bool,
    server: Server,
) -> int:
    """Remove sessions by id, age, size or state. This cannot be undone.

    With several conditions a session must meet all of them. Without ids only ended sessions are
    chosen; an open one must be named by its id.

    \b
    Examples:
      wsmonitor rm nightly-etl~01J9…
      wsmonitor rm --older-than 30d --yes
      wsmonitor rm --state failed --larger-than 100MB --dry-run
    """
    from wsmonitor.protocol.errors import WsMonitorError
    from wsmonitor.protocol.messages import Remove

    from .directory import listings
    from .sessions import table

    if not ids and older_than is None and larger_than is None and not states:
        raise click.UsageError("name sessions by id, or give --older-than, --larger-than or --state")
    with server.connected("rm") as connection:
        now = time.time_ns() + int((connection.status.clock_offset or 0.0) * NANO)
        known = {listing.id: listing for listing in listings(connection, server.timeout)}
        missing = [ident for ident in ids if ident not in known]
        if missing:
            raise Failure(
                f"there is no session {missing[0]!r}, or not for this token",
                code="not_available",
                status=Exit.REFUSED,
            )
        candidates = [known[ident] for ident in ids] if ids else list(known.values())
        chosen = [
            listing
            for listing in candidates
            if (ids or listing.state in TERMINAL)
            and (older_than is None or _age(listing, now) > older_than)
            and (larger_than is None or listing.size > larger_than)
            and (not states or listing.state in states)
        ]
        if not chosen or dry_run:
            if as_json:
                emit({"removed": [], "failed": [], "would_remove": [listing.id for listing in chosen]})
            elif chosen:
                console().print(table(chosen, now))
                click.echo(f"would remove {_sum(chosen)}")
            else:
                click.echo("nothing to remove")
            return Exit.OK
        if not yes:
            if not as_json:
                console().print(table(chosen, now))
            if not click.confirm(f"Remove {_sum(chosen)} for good?", err=True):
                click.echo("nothing was removed", err=True)
                return Exit.FAILED
        removed: list[str] = []
        failed: list[dict[str, str]] = []
        for listing in chosen:
            ident = listing.id
            try:
                connection.request(
                    lambda request, ident=ident: Remove(request=request, session=ident),  # type: ignore[misc]  # bound at once
                    server.timeout,
                ).result()
                removed.append(ident)
            except WsMonitorError as exc:
                reason = explain(exc)
                failed.append({"id": ident, "code": reason.code, "message": reason.message})
                if reason.status in (Exit.REFUSED, Exit.NO_SERVER):
                    break  # the next would fail for the same reason
    if as_json:
        emit({"removed": removed, "failed": failed, "would_remove": []})
    elif removed:
        click.echo(f"removed {_sum([known[ident] for ident in removed])}")
    if failed:
        first = failed[0]
        raise Failure(
            f"{first['id']}: {first['message']}", code=first["code"], status=status_of(first["code"])
        )
    return Exit.OK


def _age(listing: Listing, now: int) -> float:
    since = listing.ended or listing.created or listing.started
    return (now - int(since)) / NANO if since else 0.0


def _sum(chosen: list[Listing]) -> str:
    return f"{plural(len(chosen), 'session')} ({size(sum(listing.size for listing in chosen))})"
