"""``wsmonitor command``: send a command, and wait for what becomes of it."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from wsmonitor.export.document import full
from wsmonitor.export.words import between, duration, one_line
from wsmonitor.protocol.entities import Command, CommandSpec, Scalar
from wsmonitor.protocol.errors import WaitTimeoutError
from wsmonitor.protocol.states import COMMAND_TERMINAL

from .failures import Exit, Failure
from .options import Server, Span, emit, json_option, server_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsmonitor.client import Connection, Subscription
    from wsmonitor.protocol.reducer import SessionState

_WAITING = {
    "requested": "recorded; the producer has not received it yet",
    "delivered": "the producer has it, and has not accepted it yet",
    "accepted": "accepted; it takes effect at the program's next checkpoint",
}
_ENDED = {
    "applied": "was applied",
    "rejected": "was rejected",
    "expired": "expired: it was not accepted before its deadline",
    "unknown": "was accepted, but the producer died before it said what became of it",
}


@click.command("command", short_help="Send a command to a session and wait for what becomes of it.")
@click.argument("session")
@click.argument("name")
@click.option("--chain", default="", metavar="ID", help="Target: a chain, by its id or its name.")
@click.option("--step", default="", metavar="ID", help="Target: a step, by its id or its name.")
@click.option("--arg", "args", multiple=True, metavar="KEY=VALUE", help="An argument (repeatable).")
@click.option(
    "--deadline", type=Span(), default=30.0, show_default="30s",
    help="It must be accepted within this time, or it expires.",
)  # fmt: skip
@click.option(
    "--max-wait", type=Span(), default=None, help="Stop waiting for its end after this time (status 124)."
)
@click.option("--key", default=None, metavar="HEX", help="Idempotency key: the same key is the same command.")
@json_option
@server_options
def command_command(
    session: str,
    name: str,
    chain: str,
    step: str,
    args: tuple[str, ...],
    deadline: float,
    max_wait: float | None,
    key: str | None,
    as_json: bool,
    server: Server,
) -> int:
    """Send the command NAME to SESSION (a name means its newest run) and wait for its end.

    Ends with status 0 when it was applied, 1 when it was rejected, expired or is not known to have
    run, 4 when the server refused it.

    \b
    Examples:
      wsmonitor command nightly-etl pause
      wsmonitor command nightly-etl retry --step 01J9…
      wsmonitor command nightly-etl input --step ask --arg text=yes
    """
    from .directory import resolve

    with server.connected("command") as connection:
        ident = resolve(connection, session, server.timeout)
        wanted = _Wanted(ident, name, chain, step, args, deadline, key or secrets.token_hex(16), max_wait)
        record = _send(connection, server, wanted, quiet=as_json)
    if as_json:
        emit(full(record))
    else:
        took = between(record.requested, record.ended)
        told = f"{name} {_ENDED.get(record.state, record.state)}"
        told += f" in {duration(took)}" if record.state == "applied" and took is not None else ""
        told += f": {one_line(record.reason)}" if record.reason else ""
        click.echo(told)
    return Exit.OK if record.state == "applied" else Exit.FAILED


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the command line asked for. Times in seconds."""

    session: str
    name: str
    chain: str
    step: str
    args: tuple[str, ...]
    deadline: float
    key: str
    max_wait: float | None


def _send(connection: Connection, server: Server, wanted: _Wanted, *, quiet: bool) -> Command:
    """Send the command; return its terminal record."""
    session, name = wanted.session, wanted.name
    # Subscribed before it is sent, so that no change of the record can be missed.
    subscription = connection.subscribe(session)
    late = f"the state of {session!r} did not come within {server.timeout:g} s"
    _wait(subscription, lambda sub: sub.phase in ("live", "absent", "not_available"), server.timeout, late)
    state = subscription.snapshot()
    if subscription.phase == "not_available" or state is None:
        raise Failure(
            f"there is no session {session!r}, or not for this token",
            code="not_available",
            status=Exit.REFUSED,
        )
    specs = {spec.name: spec for spec in (state.session.commands if state.session else ())}
    arguments = _arguments(wanted.args, specs.get(name))
    chain, step = _chain(state, wanted.chain), _step(state, wanted.step)
    record = connection.command(
        session, name, chain=chain, step=step, args=arguments, key=wanted.key, deadline=wanted.deadline,
        via="terminal", timeout=server.timeout,
    ).result().command  # fmt: skip
    until = time.monotonic() + wanted.max_wait if wanted.max_wait is not None else None
    while record.state not in COMMAND_TERMINAL:
        if not quiet:
            click.echo(f"{name}: {_WAITING[record.state]}", err=True)
        left = max(0.0, until - time.monotonic()) if until is not None else None
        late = f"{name} is {record.state}, and its end did not come in time"
        _wait(subscription, _changed(record), left, late)
        state = subscription.snapshot()
        record = state.commands.get(record.id, record) if state is not None else record
    return record


def _changed(record: Command) -> Callable[[Subscription], bool]:
    """The condition that the session's copy of *record* is in another state than this one."""

    def differs(subscription: Subscription) -> bool:
        now = subscription.state.commands.get(record.id) if subscription.state is not None else None
        return now is not None and now.state != record.state

    return differs


def _wait(
    subscription: Subscription,
    condition: Callable[[Subscription], bool],
    timeout: float | None,
    otherwise: str,
) -> None:
    try:
        subscription.wait(condition, timeout)
    except WaitTimeoutError as exc:
        raise Failure(otherwise, code="timeout", status=Exit.TIMEOUT) from exc


def _step(state: SessionState, given: str) -> str:
    if not given or given in state.steps:
        return given
    return _one("step", given, [step.id for step in state.steps.values() if step.name == given])


def _chain(state: SessionState, given: str) -> str:
    if not given or given in state.chains:
        return given
    return _one("chain", given, [chain.id for chain in state.chains.values() if chain.name == given])


def _one(what: str, given: str, found: list[str]) -> str:
    if not found:
        raise Failure(f"the session has no {what} {given!r}", code="not_available", status=Exit.REFUSED)
    if len(found) > 1:
        several = ", ".join(found[:5]) + (" …" if len(found) > 5 else "")
        raise Failure(f"there are {len(found)} {what}s named {given!r}: name one by its id: {several}",
                      code="ambiguous", status=Exit.USAGE)  # fmt: skip
    return found[0]


def _arguments(given: tuple[str, ...], spec: CommandSpec | None) -> dict[str, Scalar]:
    """``key=value`` pairs as the types that the session's own description of the command names."""
    types = {argument.name: argument.type for argument in (spec.args if spec is not None else ())}
    parsed: dict[str, Scalar] = {}
    for pair in given:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--arg")
        try:
            parsed[key] = _typed(value, types.get(key, "string"))
        except ValueError:
            raise click.BadParameter(
                f"{key} is to be a {types[key]}, not {value!r}", param_hint="--arg"
            ) from None
    return parsed


def _typed(value: str, kind: str) -> Scalar:
    if kind == "integer":
        return int(value)
    if kind == "number":
        return float(value)
    if kind == "boolean":
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if value.lower() not in words:
            raise ValueError(value)
        return words[value.lower()]
    return value
