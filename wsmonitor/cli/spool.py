"""``wsmonitor spool``: what programs could not deliver before they ended."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsmonitor.export.words import NANO, age, moment, plural, size

from .failures import Exit, Failure, explain, status_of
from .options import Server, Span, console, emit, json_option, server_options

if TYPE_CHECKING:
    from wsmonitor.client import Connection
    from wsmonitor.client.spoolfile import Facts
    from wsmonitor.client.spools import Found, Outcome


@click.group(
    "spool",
    invoke_without_command=True,
    short_help="Deliver what programs could not deliver before they ended.",
)
@click.pass_context
def spool_command(context: click.Context) -> int:
    """While its server is away, a publishing program keeps on this disk what waits to be sent. What is
    left when the program has ended, or was killed, lies here until it is delivered or removed.

    \b
    Examples:
      wsmonitor spool                    what lies here
      wsmonitor spool flush              deliver it
      wsmonitor spool rm --older-than 7d
    """
    if context.invoked_subcommand is None:
        return int(context.invoke(status_command, as_json=False) or 0)
    return Exit.OK


@spool_command.command("status", short_help="List what lies here.")
@json_option
def status_command(as_json: bool) -> int:
    """List the spools of this user: whose they are, how much waits in them, and since when."""
    found = _find()
    if as_json:
        emit({"folder": str(_folder()), "spools": [_record(one) for one in found]})
    elif not found:
        click.echo(f"nothing waits in {_folder()}")
    else:
        console().print(_table(found))
        if any(one.state == "left" for one in found):
            click.echo("`wsmonitor spool flush` delivers what was left")
    return Exit.OK


@spool_command.command("flush", short_help="Deliver what was left.")
@click.argument("names", nargs=-1, metavar="[SPOOL|SESSION]...")
@json_option
@server_options
def flush_command(names: tuple[str, ...], as_json: bool, server: Server) -> int:
    """Deliver what ended programs had left, each change once, however often this is run.

    Each spool goes to the server that its program published to, or to --url (the same server under
    another address). A program that is still running delivers its own by itself. Needs a token for
    the same subject as the program's. --timeout is for how long there may be no progress.

    \b
    Examples:
      wsmonitor spool flush
      wsmonitor spool flush nightly-etl~01J9…
      wsmonitor spool flush --token-file token.txt --timeout 1min
    """
    from wsmonitor.publish.session import OWNER

    chosen = [one for one in _chosen(names) if one.state != "in use" or names]
    # The owner's last: with it a session may end, and after that nothing of its workers is taken.
    chosen.sort(key=lambda one: one.facts is not None and one.facts.producer == OWNER)
    outcomes: list[dict[str, Any]] = []
    failure: Failure | None = None
    for one in chosen:
        record, failed = _flush(one, server, quiet=as_json)
        outcomes.append(record)
        failure = failure or failed
    if as_json:
        emit({"flushed": outcomes})
    elif not chosen:
        click.echo(f"nothing is left to deliver in {_folder()}")
    if failure is not None:
        raise failure
    return Exit.OK


@spool_command.command("rm", short_help="Remove what was left.")
@click.argument("names", nargs=-1, metavar="[SPOOL|SESSION]...")
@click.option("--older-than", type=Span(), help="Spools that were begun longer ago, e.g. 7d.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
def rm_command(names: tuple[str, ...], older_than: float | None, yes: bool, as_json: bool) -> int:
    """Remove spools with what waits in them. This cannot be undone; `wsmonitor spool flush` delivers it.

    \b
    Examples:
      wsmonitor spool rm nightly-etl~01J9…
      wsmonitor spool rm --older-than 7d --yes
    """
    from wsmonitor.client.spools import remove

    if not names and older_than is None:
        raise click.UsageError("name spools or sessions, or give --older-than")
    now = time.time_ns()
    chosen = [
        one
        for one in _chosen(names)
        if (names or one.state != "in use") and (older_than is None or _age(one, now) > older_than)
    ]
    if not chosen:
        emit({"removed": []}) if as_json else click.echo("nothing to remove")
        return Exit.OK
    if not yes:
        if not as_json:
            console().print(_table(chosen))
        changes = sum(one.changes for one in chosen)
        if not click.confirm(f"Remove {plural(changes, 'undelivered change')} for good?", err=True):
            click.echo("nothing was removed", err=True)
            return Exit.FAILED
    removed: list[str] = []
    for one in chosen:
        remove(one.path)
        removed.append(one.id)
    if as_json:
        emit({"removed": removed})
    else:
        click.echo(f"removed {plural(len(removed), 'spool')}")
    return Exit.OK


def _folder() -> Path:
    from wsmonitor.client.keeper import spool_folder

    return spool_folder()


def _find() -> list[Found]:
    from wsmonitor.client.spools import find

    return find(_folder())


def _chosen(names: tuple[str, ...]) -> list[Found]:
    found = _find()
    if not names:
        return found
    chosen: dict[Path, Found] = {}
    for name in names:
        fitting = [one for one in found if name in (one.id, one.path.name) or _is_of(one, name)]
        if not fitting:
            raise Failure(
                f"there is no spool {name!r}, and none of such a session",
                code="not_available",
                hint="`wsmonitor spool` lists what there is",
            )
        chosen.update({one.path: one for one in fitting})
    return list(chosen.values())


def _is_of(one: Found, name: str) -> bool:
    session = "" if one.facts is None else one.facts.session
    return name in (session, session.rpartition("~")[0])


def _flush(one: Found, server: Server, *, quiet: bool) -> tuple[dict[str, Any], Failure | None]:
    """Flush one; what became of it, and the failure if it failed."""
    from wsmonitor.client.spools import Outcome, flush

    session = "" if one.facts is None else one.facts.session
    shows = not quiet and sys.stderr.isatty()

    def progress(done: int, total: int) -> None:
        if shows:
            click.echo(f"\r{session}: {done:,} of {total:,} delivered", nl=done == total, err=True)

    try:
        outcome = flush(
            one.path, lambda facts: _connect(facts, server), patience=server.timeout, progress=progress
        )
    except Exception as exc:  # noqa: BLE001  # told, and the next spool is tried
        told = explain(exc)
        outcome = Outcome(session, left=one.changes, problem=told.message, code=told.code)
    record = {"id": one.id, **{field: getattr(outcome, field) for field in _FIELDS}}
    if not quiet and (outcome.delivered or not outcome.problem):
        click.echo(f"{outcome.session}: delivered {plural(outcome.delivered, 'change')}{_refused(outcome)}")
    if not outcome.problem:
        return record, None
    hint = f"kept: {plural(outcome.left, 'change')} in {one.path}" if one.path.exists() else ""
    return record, Failure(
        f"{session or one.path}: {outcome.problem}",
        code=outcome.code,
        hint=hint,
        status=status_of(outcome.code),
    )


_FIELDS = ("session", "delivered", "refused", "reasons", "left", "problem", "code")


def _refused(outcome: Outcome) -> str:
    if not outcome.refused:
        return ""
    lines = "".join(f"\n  {reason}" for reason in outcome.reasons or ())
    return f", of which the server refused {outcome.refused:,}:{lines}"


def _connect(facts: Facts, server: Server) -> Connection:
    from wsmonitor.client import Target, connect

    # What the program said of its server's TLS holds for that address only.
    ca, insecure = ("", False) if server.url else (facts.ca, facts.insecure)
    url = server.url or facts.url or None
    return connect(
        Target(
            url=url,
            token=server.token,
            name="wsmonitor spool flush",
            start=url is None,
            ssl=server.ca or ca or None,
            insecure=server.insecure or insecure or None,
        )
    )


def _age(one: Found, now: int) -> float:
    if one.facts is not None:
        return (now - one.facts.created) / NANO
    return now / NANO - one.path.stat().st_mtime


def _record(one: Found) -> dict[str, Any]:
    facts = one.facts
    return {
        "id": one.id,
        "path": str(one.path),
        "state": one.state,
        "session": facts.session if facts else "",
        "producer": facts.producer if facts else "",
        "agent": facts.agent if facts else "",
        "url": facts.url if facts else "",
        "host": facts.host if facts else "",
        "pid": facts.pid if facts else 0,
        "changes": one.changes,
        "dropped": facts.dropped if facts else 0,
        "size": one.size,
        "created": str(facts.created) if facts else None,
        "ended": facts.ended if facts else False,
        "problem": one.problem,
    }


def _table(found: list[Found]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("spool", "session", "program", "changes", "size", "begun", "state"):
        table.add_column(name, justify="right" if name in ("changes", "size") else "left", overflow="fold")
    now = time.time_ns()
    for one in found:
        facts = one.facts
        begun = f"{moment(facts.created)} ({age(_age(one, now))})" if facts else ""
        table.add_row(
            one.id,
            facts.session if facts else "",
            facts.agent if facts else "",
            f"{one.changes:,}" if facts else "",
            size(one.size),
            begun,
            one.state if not one.problem else f"{one.state}: {one.problem}",
        )
    return table
