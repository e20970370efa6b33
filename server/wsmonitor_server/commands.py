"""Whether a command may be asked for, and what becomes of it with time.

A command is a record in the session's state lane, written by the server alone. It is deduplicated by
its idempotency key, which is its id: the same key with the same content is the same command, with
other content ``key_conflict``. That holds as long as the session: the state keeps the last finished
commands, the store the others; a session that has had too many takes no more, rather than forget a key.

Only what the producer advertises is taken: the session's `CommandSpec` names the arguments and the
targets; a step's own list says what it takes now.

It is delivered to the holder of the producer that owns what it names, and again after a reconnect,
as long as it is ``requested`` or ``delivered`` and its deadline has not passed; never again once it
is ``accepted``, because then it may have run.
"""

from __future__ import annotations

from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import Argument, Command, CommandSpec, Scalar
from wsmonitor.protocol.messages import CommandRequest
from wsmonitor.protocol.states import TERMINAL

from .authority import Authority
from .merge import Rejection, Work


def request(
    authority: Authority,
    message: CommandRequest,
    actor: str,
    now_ns: int,
    limits: Limits,
    retired: Command | None = None,
) -> tuple[Command, bool]:
    """Record the command that *message* asks for, or find the one that it repeats (True).

    Args:
        retired: what the store has under the key, of those whose record the state no longer has.

    Raises:
        Rejection: ``not_available``, ``key_conflict``, ``session_ended``, ``command_unsupported``,
            ``bad_message`` (arguments) or ``limit_exceeded``; nothing was recorded.
    """
    facts = authority.ledger.facts
    session = facts.session
    if session is None:
        raise Rejection("not_available", "there is no such session")
    known = authority.command(message.key) or retired
    if known is not None:
        same = (known.name, known.chain, known.step, known.args, known.actor)
        if same != (message.name, message.chain, message.step, message.args, actor):
            raise Rejection("key_conflict", f"the key {message.key} was used for another command")
        return known, True
    if session.state in TERMINAL:
        raise Rejection("session_ended", f"the session has ended: it is {session.state}")
    spec = _spec(authority, message, session.commands)
    _check_arguments(spec, message.args)
    if len(facts.pending) >= limits.pending_commands:
        raise Rejection("limit_exceeded", f"{limits.pending_commands} commands of this session are pending")
    if authority.ledger.retired + len(facts.finished) + len(facts.pending) >= limits.session_commands:
        raise Rejection("limit_exceeded", f"this session has had {limits.session_commands:,} commands")
    command = Command(
        id=message.key,
        name=message.name,
        chain=message.chain,
        step=message.step,
        args=message.args,
        actor=actor,
        via=message.via,
        deadline=str(now_ns + message.deadline_ms * 1_000_000),
        requested=str(now_ns),
    )
    owner = facts.producers.get(authority.target(command))
    if owner is not None and owner.closed:
        raise Rejection("command_unsupported", "the program that would take it has said goodbye")
    return authority.add_command(command, now_ns), False


def _spec(authority: Authority, message: CommandRequest, specs: tuple[CommandSpec, ...]) -> CommandSpec:
    spec = next((one for one in specs if one.name == message.name), None)
    if spec is None:
        offered = ", ".join(one.name for one in specs) or "none"
        raise Rejection("command_unsupported", f"{message.name!r} is not offered (offered: {offered})")
    kind = "step" if message.step else "chain" if message.chain else "session"
    if message.name == "interrupt" and kind != "step":
        raise Rejection("command_unsupported", "interrupt must name the step that it means")
    if kind not in spec.targets:
        raise Rejection("command_unsupported", f"{message.name!r} is not for a {kind}")
    if message.chain and authority.work("chain", message.chain) is None:
        raise Rejection("not_available", f"there is no chain {message.chain!r}")
    if message.step:
        _check_step(authority.work("step", message.step), message)
    return spec


def _check_step(step: Work | None, message: CommandRequest) -> None:
    if step is None:
        raise Rejection("not_available", f"there is no step {message.step!r}")
    if message.chain and getattr(step, "chain", "") != message.chain:
        raise Rejection("not_available", f"step {step.id!r} is not in chain {message.chain!r}")
    if message.name == "interrupt" and step.state in TERMINAL:
        raise Rejection("command_unsupported", f"step {step.id!r} has ended: it is {step.state}")
    if message.name not in getattr(step, "commands", ()):
        raise Rejection("command_unsupported", f"step {step.id!r} does not take {message.name!r} now")


_TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool}


def _check_arguments(spec: CommandSpec, args: dict[str, Scalar]) -> None:
    known = {argument.name: argument for argument in spec.args}
    for name in args:
        if name not in known:
            raise Rejection("bad_message", f"{spec.name} has no argument {name!r}")
    for name, argument in known.items():
        if name in args:
            _check_argument(argument, args[name])
        elif argument.required:
            raise Rejection("bad_message", f"{spec.name} needs the argument {name!r}")


def _check_argument(argument: Argument, value: Scalar) -> None:
    fits = isinstance(value, _TYPES[argument.type])  # type: ignore[arg-type]  # a type or a tuple of types
    # In Python a boolean is an integer; in a form it is not.
    if not fits or (isinstance(value, bool) and argument.type != "boolean"):
        raise Rejection("bad_message", f"the argument {argument.name!r} must be: {argument.type}")
    if argument.choices and str(value) not in argument.choices:
        raise Rejection("bad_message", f"{argument.name!r} must be one of {', '.join(argument.choices)}")


def deliverable(authority: Authority, producer: str, now_ns: int) -> list[Command]:
    """The commands that the holder of *producer* is to get when it opens: at the committed head."""
    return [
        command
        for command in authority.ledger.feed.state.commands.values()
        if command.state in ("requested", "delivered")
        and int(command.deadline) > now_ns
        and authority.target(command) == producer
    ]


def next_deadline_ns(authority: Authority) -> int | None:
    """When the next pending command expires (nanoseconds UTC); what was accepted never does."""
    return min(
        (int(one.deadline) for one in authority.ledger.facts.pending.values() if one.state != "accepted"),
        default=None,
    )


def expire(authority: Authority, now_ns: int) -> int:
    """End what has passed its deadline before it was accepted; returns how many."""
    due = [
        one
        for one in authority.ledger.facts.pending.values()
        if one.state != "accepted" and int(one.deadline) <= now_ns
    ]
    for command in due:
        authority.end_command(command, "expired", "nobody accepted it before its deadline", now_ns)
    return len(due)
