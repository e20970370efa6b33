"""The producer's side of commands: which are offered, and what is done with one that arrives.

Commands arrive on the connection's thread. The standard ones only set marks there (see `control`). A
handler of
the program's own runs on one thread of the session, so that it can take its time; a coroutine function runs
on the loop that was running where it was given to ``session.on``.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import queue
import threading
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from wsmonitor.protocol.changes import CommandChange
from wsmonitor.protocol.entities import Argument, Command, CommandSpec, Scalar
from wsmonitor.protocol.errors import UsageError

from .control import refusal
from .failures import describe
from .values import cut

if TYPE_CHECKING:
    from .node import Node
    from .session import Session

Handler = Callable[..., Any]
Target = Literal["session", "chain", "step"]
_TARGETS: Final[tuple[Target, ...]] = ("session", "chain", "step")

_PAUSE = CommandSpec(name="pause", targets=_TARGETS, description="Wait at the next point, until resumed.")
_RESUME = CommandSpec(name="resume", targets=_TARGETS, description="Go on after a pause.")
_CANCEL = CommandSpec(
    name="cancel", targets=_TARGETS, destructive=True, description="Stop at the next point."
)
_RETRY = CommandSpec(name="retry", targets=("step",), description="Run a failed step again.")
_STANDARD: Final = frozenset(
    {"pause", "resume", "cancel", "retry", "interrupt", "approve", "reject", "input"}
)

_REASON = Argument(name="reason", description="Why.")
_ANSWERS: Final[dict[str, tuple[CommandSpec, ...]]] = {
    "approve": (
        CommandSpec(name="approve", description="Agree to what is asked."),
        CommandSpec(name="reject", args=(_REASON,), destructive=True, description="Refuse what is asked."),
    ),
    "input": (
        CommandSpec(
            name="input",
            args=(Argument(name="value", required=True, description="The answer."),),
            description="Answer what is asked.",
        ),
    ),
}
_TYPES: Final[dict[object, Literal["string", "integer", "number", "boolean"]]] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
}


@dataclass(frozen=True, slots=True)
class _Own:
    """A command of the program's own."""

    spec: CommandSpec
    fn: Handler
    wants: frozenset[str]  # of "chain" and "step": parameters that get the target's ids
    loop: asyncio.AbstractEventLoop | None


class Commands:
    """The commands of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._own: dict[str, _Own] = {}
        self._offered: dict[str, CommandSpec] = {spec.name: spec for spec in (_PAUSE, _RESUME, _CANCEL)}
        self._jobs: queue.SimpleQueue[tuple[_Own, Command] | None] | None = None

    def specs(self) -> tuple[CommandSpec, ...]:
        """What observers are offered."""
        return (*self._offered.values(), *(own.spec for own in self._own.values()))

    def add(
        self, name: str, fn: Handler, targets: tuple[Target, ...], destructive: bool, description: str
    ) -> None:
        """Take a command of the program's own."""
        if name in _STANDARD:
            raise UsageError(f"{name!r} is a standard command, and is taken care of")
        if not targets or any(target not in _TARGETS for target in targets):
            raise TypeError("targets must be some of session, chain, step")
        args, wants = _arguments(fn)
        doc = (inspect.getdoc(fn) or "").strip().splitlines()
        spec = CommandSpec(
            name=name,
            targets=targets,
            args=args,
            destructive=bool(destructive),
            description=cut(description or (doc[0] if doc else ""), 256),
        )
        loop = None
        if inspect.iscoroutinefunction(fn):
            # Where none runs, the session's own thread runs the coroutine.
            with contextlib.suppress(RuntimeError):
                loop = asyncio.get_running_loop()
        self._own[name] = _Own(spec, fn, wants, loop)
        self._advertise()

    def offer(self, kind: str, target: str) -> None:
        """Advertise ``retry``, or the commands that answer a question, for one more kind of target."""
        specs = (_RETRY,) if kind == "retry" else _ANSWERS[kind]
        changed = False
        for spec in specs:
            known = self._offered.get(spec.name)
            targets = set(known.targets if known is not None else ()) | {target}
            if known is None or set(known.targets) != targets:
                changed = True
                self._offered[spec.name] = CommandSpec(
                    name=spec.name,
                    targets=tuple(item for item in _TARGETS if item in targets),
                    args=spec.args,
                    destructive=spec.destructive,
                    description=spec.description,
                )
        if changed:
            self._advertise()

    def _advertise(self) -> None:
        node = self._session._node
        if node.announced and not node.ended:
            node.set(urgent=True, commands=self.specs())

    # -- what arrives, on the connection's thread

    def receive(self, command: Command) -> None:
        """A command was delivered: refuse it, or accept it, and execute it once that is on record."""
        run = self._session._run
        with run.lock:
            own = self._own.get(command.name)
            # What was accepted before this and is still to be executed may make it possible, or impossible.
            why = "" if run.channel.answers.waiting else self._refusal(command)
            if why:
                self._tell(command, "rejected", why)
            elif own is not None:
                self._call(own, command)
            else:
                run.channel.accept(command, lambda: self._execute(command))

    def _execute(self, command: Command) -> None:
        run = self._session._run
        with run.lock:
            why = self._refusal(command)
            node = self._target(command)
            if why:
                self._tell(command, "rejected", why)
                return
            if command.name == "retry":
                run.retries[command.step](command)
                return
            assert node is not None
            match command.name:
                case "pause":
                    run.control.pause(node, command)
                case "resume":
                    run.control.resume(node, command)
                case "cancel":
                    run.control.cancel(node, command)
                case _:
                    run.control.answer(node, command)

    def _refusal(self, command: Command) -> str:
        """Why *command* cannot be executed now; "" if it can."""
        if command.name == "retry":
            known = command.step in self._session._run.retries
            return "" if known else "this step cannot be retried, or not any more"
        node = self._target(command)
        if node is None or node.foreign:
            return "there is no such thing here, or it has ended"
        if command.name in _STANDARD:
            return refusal(node, command)
        return "" if command.name in self._own else f"no command {command.name!r} is taken here"

    def _target(self, command: Command) -> Node | None:
        ident = command.step or command.chain or self._session.id
        return self._session._run.nodes.get(ident)

    def _call(self, own: _Own, command: Command) -> None:
        if self._jobs is None:
            self._jobs = queue.SimpleQueue()
            threading.Thread(
                target=self._work, args=(self._jobs,), name="wsmonitor-commands", daemon=True
            ).start()
        self._jobs.put((own, command))

    def close(self) -> None:
        """The session has ended: the thread ends after what it is doing."""
        jobs, self._jobs = self._jobs, None
        if jobs is not None:
            jobs.put(None)

    def forget(self) -> None:
        """This is a forked child: the thread is the parent's, and so are the commands."""
        self._jobs = None

    # -- the session's thread

    def _work(self, jobs: queue.SimpleQueue[tuple[_Own, Command] | None]) -> None:
        while (job := jobs.get()) is not None:
            own, command = job
            run = self._session._run
            try:
                arguments = _convert(own, command)
            except ValueError as exc:
                with run.lock:
                    self._tell(command, "rejected", str(exc))
                continue
            if not self._accepted(command):
                continue
            try:
                result = self._invoke(own, arguments)
            except BaseException as exc:  # noqa: BLE001 - told to whoever asked; this thread goes on
                failure = describe(exc, run.capture)
                with run.lock:
                    self._tell(command, "rejected", f"{failure.type}: {failure.message}")
                run.note(
                    "producer_error", f"command {command.name!r} failed: {failure.type}: {failure.message}"
                )
                continue
            reason = run.capture.text(result, 1024) if isinstance(result, str) else ""
            with run.lock:
                self._tell(command, "applied", reason)

    def _accepted(self, command: Command) -> bool:
        """Accept *command*, and wait until that is on record; False if it must not be executed."""
        run = self._session._run
        verdict: queue.SimpleQueue[bool] = queue.SimpleQueue()
        with run.lock:
            run.channel.accept(command, lambda: verdict.put(True), lambda: verdict.put(False))
        if not verdict.get():
            return False
        with run.lock:
            if not run.open:
                self._tell(command, "rejected", "the session has ended")
            return run.open

    @staticmethod
    def _invoke(own: _Own, arguments: dict[str, Any]) -> Any:
        if not inspect.iscoroutinefunction(own.fn):
            return own.fn(**arguments)
        if own.loop is not None and own.loop.is_running():
            return asyncio.run_coroutine_threadsafe(own.fn(**arguments), own.loop).result()
        return asyncio.run(own.fn(**arguments))

    def _tell(self, command: Command, state: Literal["applied", "rejected"], reason: str = "") -> None:
        change = CommandChange(id=command.id, state=state, reason=cut(reason, 4096))
        self._session._run.channel.command_state(change)


def _arguments(fn: Handler) -> tuple[tuple[Argument, ...], frozenset[str]]:
    """The command's arguments, from the function's parameters.

    Raises:
        TypeError: it is not callable, or has a parameter that a command cannot give.
    """
    if not callable(fn):
        raise TypeError(f"a command's handler must be callable, not {type(fn).__name__}")
    try:
        signature = inspect.signature(fn)
    except ValueError as exc:
        raise TypeError(f"the parameters of {fn!r} cannot be found out") from exc
    try:
        hints = typing.get_type_hints(fn)
    except (NameError, TypeError, AttributeError):
        hints = {}  # annotations that cannot be resolved here: then arguments are strings
    found = []
    wants = set()
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise TypeError(f"parameter {parameter.name!r} must be allowed as a keyword")
        if parameter.name in {"chain", "step"}:
            wants.add(parameter.name)
            continue
        found.append(_argument(parameter, hints.get(parameter.name, str)))
    return tuple(found), frozenset(wants)


def _argument(parameter: inspect.Parameter, hint: Any) -> Argument:
    choices: tuple[str, ...] = ()
    if typing.get_origin(hint) is Literal:
        values = typing.get_args(hint)
        if not all(isinstance(value, str) for value in values):
            raise TypeError(f"the choices of parameter {parameter.name!r} must be strings")
        choices, hint = values, str
    else:
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        if len(options) == 1 and type(None) in typing.get_args(hint):
            hint = options[0]
    if hint not in _TYPES:
        raise TypeError(
            f"parameter {parameter.name!r} must be a str, int, float, bool or a Literal of strings"
        )
    return Argument(
        name=parameter.name,
        type=_TYPES[hint],
        required=parameter.default is parameter.empty,
        choices=choices,
    )


def _convert(own: _Own, command: Command) -> dict[str, Any]:
    """The arguments for the handler, of the types that it declared.

    Raises:
        ValueError: one is missing, unknown, or of another type; the message is for the person who asked.
    """
    specs = {spec.name: spec for spec in own.spec.args}
    for name in command.args:
        if name not in specs:
            raise ValueError(f"no argument {name!r}; there are: {', '.join(specs) or 'none'}")
    result: dict[str, Any] = {}
    for name, spec in specs.items():
        if name not in command.args:
            if spec.required:
                raise ValueError(f"argument {name!r} is missing")
            continue
        result[name] = _cast(spec, command.args[name])
    if "chain" in own.wants:
        result["chain"] = command.chain
    if "step" in own.wants:
        result["step"] = command.step
    return result


def _cast(spec: Argument, value: Scalar) -> Scalar:
    # A terminal sends strings; a form sends what its fields hold.
    text = str(value).strip()
    try:
        match spec.type:
            case "boolean":
                if isinstance(value, bool):
                    return value
                return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
                    text.lower()
                ]
            case "integer" if not isinstance(value, bool):
                return int(value) if not isinstance(value, float) or value.is_integer() else int(text)
            case "number" if not isinstance(value, bool):
                number = float(value)
                if math.isfinite(number):
                    return number
            case "string" if isinstance(value, str):
                if spec.choices and value not in spec.choices:
                    raise ValueError(f"argument {spec.name!r} must be one of {', '.join(spec.choices)}")
                return value
            case "string" if not spec.choices:
                return text
    except (KeyError, OverflowError):
        pass
    except ValueError as exc:
        if spec.choices:
            raise
        raise ValueError(f"argument {spec.name!r} must be {spec.type}, not {text!r}") from exc
    raise ValueError(f"argument {spec.name!r} must be {spec.type}, not {text!r}")
