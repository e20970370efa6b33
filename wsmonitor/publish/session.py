"""Sessions, as those who publish hold them."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal, Self

from wsmonitor.client.types import Ssl, Target, TokenProvider
from wsmonitor.protocol import ids
from wsmonitor.protocol.changes import ProblemChange
from wsmonitor.protocol.entities import ErrorInfo, Severity
from wsmonitor.protocol.errors import ConfigurationError, UsageError, WsMonitorError
from wsmonitor.protocol.states import State

from . import context, registry
from .commands import Commands, Handler
from .node import Node
from .redaction import Redactor, make_redactor
from .run import Run, Runtime, program
from .steps import _UNSET, Chain, Step, check_arguments, describe_node
from .values import ValueLimits, clean, cut
from .work import Work, label, text_argument

SESSION_VARIABLE: Final = "WSMONITOR_SESSION"
STRICT_VARIABLE: Final = "WSMONITOR_STRICT"
SPOOL_VARIABLE: Final = "WSMONITOR_SPOOL"
OWNER: Final = "main"
"""The producer id of the process that owns the session's own record. Resuming takes it over."""
_SEVERITIES: Final = ("info", "warning", "error", "fatal")


class Session(Work):
    """One run of a named piece of work. Made by `session` and `join`.

    Attributes:
        errors: what went wrong about publishing, newest last (the last 100): `ErrorInfo` records with
            ``code`` and ``message``. Empty when all is well.
    """

    def __init__(
        self,
        name: str,
        *,
        ident: str,
        joined: bool,
        resumed: bool = False,
        target: Target,
        redactor: Redactor,
        limits: ValueLimits,
        strict: bool,
        threads: bool,
        supersede: bool | None,
        kind: str,
        runtime: Runtime,
        spool: bool | None = None,
    ) -> None:
        self._spool = _spool(spool)
        self._commands = self._make_commands()
        run = Run(
            runtime,
            ident,
            redactor=redactor,
            limits=limits,
            strict=strict,
            on_command=self._commands.receive,
        )
        fields = {"name": label(name, redactor.text), "kind": cut(clean(kind), 64)}
        super().__init__(Node(run, "session", ident, None, fields))
        self._run = run
        self._joined = joined
        self._resumed = resumed
        self._target = target
        self._threads = threads
        self._supersede = supersede
        self._main_chain: Chain | None = None
        self._stop_carrying: Callable[[], None] | None = None
        self._place: registry.Place | None = None
        if joined:
            self._node.announced = True
            self._node.foreign = True
            self._node.state = "running"
            run.foreign[ident] = self._node

    def _make_commands(self) -> Commands:
        return Commands(self)

    # -- facts

    @property
    def errors(self) -> list[ErrorInfo]:
        return list(self._run.errors)

    @property
    def unacknowledged(self) -> int:
        """How many changes the server has not confirmed yet."""
        return self._run.channel.unacknowledged

    def flush(self, timeout: float = 1.0) -> bool:
        """Wait until the server has confirmed everything, at most *timeout* seconds; says whether it has."""
        return self._run.channel.flush(timeout)

    def environment(self) -> dict[str, str]:
        """Environment variables for a worker process, which then joins with ``wm.join()``."""
        self._guard(self._expect_workers)
        return {SESSION_VARIABLE: self.id}

    # -- parts

    def chain(
        self,
        name: str,
        *,
        kind: str = "",
        input: object = _UNSET,
        tags: Iterable[str] = (),
        attributes: Mapping[str, object] | None = None,
    ) -> Chain:
        """A chain of this session, to be entered (``with``) or started.

        Raises:
            TypeError: an argument has the wrong type.
        """
        check_arguments(name, kind, tags, attributes)
        run = self._run
        fields = {"name": label(name, run.capture.redactor.text), "kind": cut(clean(kind), 64)}
        node = Node(run, "chain", run.new_id("c"), self._node, fields)
        chain = Chain(node)
        chain._guard(lambda: describe_node(node, input, tags, attributes))
        return chain

    def step(self, name: str, **options: Any) -> Step:
        """A step of the session's own chain, ``main``; see `Chain.step`.

        Raises:
            TypeError: an argument has the wrong type.
        """
        return self._default_chain().step(name, **options)

    def _default_chain(self) -> Chain:
        with self._run.lock:
            if self._main_chain is None or self._main_chain._node.ended:
                self._main_chain = self.chain("main")
                self._main_chain._begin()
            return self._main_chain

    def executor(self, max_workers: int | None = None, **options: Any) -> ThreadPoolExecutor:
        """A thread pool whose tasks nest beneath the code that submits them, also with ``threads=False``."""
        return CarryingExecutor(max_workers, **options)

    # -- commands and errors

    def on(
        self,
        name: str,
        fn: Handler | None = None,
        *,
        targets: Iterable[Literal["session", "chain", "step"]] = ("session",),
        destructive: bool = False,
        description: str = "",
    ) -> Any:
        """Take a command of your own: ``session.on("reload", fn)``, or ``@session.on("reload")``.

        The function's parameters are the command's arguments; ``str``, ``int``, ``float``, ``bool`` and
        ``Literal`` of strings as annotations give their types, defaults make them optional. It runs on a
        thread of
        the session (a coroutine function: on the loop that runs now, else there too), one call at a time.
        What
        it returns, if it is a string, is the reason that observers see; an exception rejects the command.

        Args:
            name: the command's name; not a standard one.
            fn: what to call.
            targets: what it may be aimed at. A handler with parameters ``chain`` and ``step`` gets their ids.
            destructive: observers ask before sending it.
            description: for people; the first line of the docstring by default.

        Raises:
            TypeError: an argument, or a parameter's annotation, is of a type that cannot be.
            UsageError: the name is a standard command's, or no id.
        """
        ids.check_id(name, "a command's name")
        if fn is None:
            return lambda function: self.on(
                name, function, targets=targets, destructive=destructive, description=description
            )
        self._commands.add(name, fn, tuple(targets), destructive, text_argument(description, "description"))
        return fn

    def error(self, message: str, *, code: str = "producer_error", severity: Severity = "error") -> None:
        """Tell observers of an error that is not a step's failure.

        Raises:
            TypeError: an argument is not a string.
            ValueError: *severity* is not one of info, warning, error, fatal.
        """
        text_argument(message, "message")
        text_argument(code, "code")
        if severity not in _SEVERITIES:
            raise ValueError(f"severity must be one of {', '.join(_SEVERITIES)}, not {severity!r}")
        run = self._run
        change = ProblemChange(
            id=run.new_id("e"),
            code=cut(code, 64),
            message=run.capture.text(message, 4096),
            severity=severity,
        )
        self._guard(lambda: run.problem(change))

    def _offer(self, kind: str, target: str) -> None:
        self._commands.offer(kind, target)

    # -- life

    def start(self) -> Self:
        """Start it: find or start a server, and publish. Returns at once; never fails for want of a server.

        Raises:
            UsageError: it was started before.
        """
        run = self._run
        if run.open or self._node.ended:
            raise UsageError("a session can be started once; wm.session() makes a new one")
        self._place = registry.here(self._target.url or "", self.name)
        if not self._joined:
            registry.supersede(self, self._supersede)
        run.open = True
        self._guard(lambda: self._open("worker" if self._joined else OWNER))
        if not self._joined:
            self._node.set(commands=self._commands.specs())
            self._begin()
        if self._threads:
            self._stop_carrying = context.carry_into_executors()
        registry.add(self)
        return self

    def _before_start(self) -> None:
        """A session begins by `start`, which has no point before it."""

    def _open(self, role: str) -> None:
        run = self._run
        url, producer = self._target.url or "", role
        if role != OWNER:
            producer = registry.worker_id(url, self.id, run.runtime.random_bits)
            run.channel.done = lambda: registry.done_with(url, self.id, producer)
        try:
            connection = run.runtime.connect(self._target)
            run.channel.open(
                connection,
                self.id,
                producer,
                run.runtime.agent(),
                resume=self._resumed and role == OWNER,
                keep=self._spool,
            )
        except (WsMonitorError, OSError) as exc:
            run.report(getattr(exc, "code", "connection_lost"), f"nothing is published: {exc}")

    async def __aenter__(self) -> Self:
        return self.__enter__()

    def _finish(self, state: State, reason: str, error: BaseException | str | None) -> None:
        run = self._run
        if not run.open:
            return
        with run.lock:
            failed, run.retries = list(run.retries), OrderedDict()
            for node in (run.channel.kept(ident) for ident in failed):
                if node is not None:
                    node.refresh_commands()
            for node in reversed(run.beneath(self._node) if not self._joined else list(run.owned())):
                if node is self._node:
                    continue
                if node.kind == "chain" and node.face is self._main_chain and state == "succeeded":
                    node.end("succeeded")
                else:
                    node.end("cancelled", reason or "the session ended")
            if not self._joined:
                super()._finish(state, reason, error)
            run.open, run.ended = False, True
        if self._stop_carrying is not None:
            self._stop_carrying()
        self._commands.close()
        registry.discard(self)
        run.channel.finish()

    def _superseded(self) -> None:
        """A newer run of the same name began where this one was begun."""
        with self._run.lock:
            self._run.control.stop("superseded")
        self._guard(lambda: self._finish("cancelled", "superseded", None))

    def _taken_over(self) -> None:
        """Another object of this process resumes this very session: it goes on, and this one is out of it."""
        run = self._run
        with run.lock:
            run.open = False
            run.control.stop("resumed elsewhere")
        if self._stop_carrying is not None:
            self._stop_carrying()
        self._commands.close()
        registry.discard(self)
        run.channel.close()

    def _expect_workers(self) -> None:
        """Steps of other processes may be retried, or ask: only the session can say what these words mean."""
        for kind in ("retry", "approve", "input"):
            self._offer(kind, "step")

    def _forked(self) -> None:
        """This is a forked child: go on as a worker, as soon as there is something to publish."""
        run = self._run
        run.after_fork()
        self._node.disown()
        self._joined = True
        self._main_chain = None
        self._commands.forget()
        opened = False

        def open_once() -> None:
            nonlocal opened
            if not opened:
                opened = True
                self._open("worker")
                registry.flush_at_worker_exit()

        run.opener = open_once


class CarryingExecutor(ThreadPoolExecutor):
    """A thread pool whose tasks nest beneath the code that submits them."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return super().submit(context.wrap(fn), *args, **kwargs)


def session(
    name: str,
    *,
    kind: str = "",
    input: object = _UNSET,
    tags: Iterable[str] = (),
    attributes: Mapping[str, object] | None = None,
    url: str | None = None,
    token: str | TokenProvider | None = None,
    ssl: Ssl | None = None,
    insecure: bool | None = None,
    resume: str | None = None,
    strict: bool | None = None,
    redact: bool | Redactor | Iterable[str] = True,
    limits: ValueLimits | None = None,
    threads: bool = True,
    supersede: bool | None = None,
    spool: bool | None = None,
    runtime: Runtime | None = None,
) -> Session:
    """A new run of the work *name*: ``with wm.session("nightly-etl") as session: ...``.

    It finds the server (an explicit *url*, ``WSMONITOR_URL``, a running local one) or starts a local one, and
    publishes from the background. Whatever happens to the server, the program goes on: what goes wrong is in
    ``session.errors``, and one warning says so.

    Args:
        name: a label; every call is a run of its own, with an id of its own.
        kind: of a kind of your own, e.g. ``"training"``.
        input: what it works on; any object.
        tags: words to find it by.
        attributes: named scalars.
        url: the server (``ws://`` or ``wss://``).
        token: a token, or a function that gives fresh ones.
        ssl: what a ``wss://`` server's certificate is checked against: an `ssl.SSLContext`, or the path of a
            PEM file with an authority of your own; None for ``WSMONITOR_CA``, else what the system trusts.
        insecure: True to let the token go unencrypted (``ws://``) to another machine, which is refused
            otherwise; None for ``WSMONITOR_INSECURE``.
        resume: the id of a session to go on with, in place of a new one. Whoever publishes it now is fenced.
        strict: raise what would be a warning (`PublishError`); None for ``WSMONITOR_STRICT``.
        redact: True to take out what looks like a secret, False not to, patterns to take out as well,
            or a `Redactor`.
        limits: how much of a value is taken.
        threads: whether thread pools hand on the current step while the session is open.
        supersede: whether an open run of the same name is ended as ``cancelled``, "superseded". None: if it
        was
            begun in the same thread, or by an earlier cell of this notebook.
        spool: whether what cannot be delivered is kept on disk (without secrets, like all that is published),
            for ``wsmonitor spool flush``. None: unless ``WSMONITOR_SPOOL`` is ``off``.
        runtime: where time, randomness and connections come from; for tests.

    Raises:
        TypeError: an argument has the wrong type.
        InvalidIdError: *resume* is not a session id.
    """
    check_arguments(name, kind, tags, attributes)
    if url is not None:
        text_argument(url, "url")
    if token is not None and not isinstance(token, str) and not callable(token):
        raise TypeError(f"token must be a string or a function that gives one, not {type(token).__name__}")
    _check_tls(ssl, insecure)
    if resume is not None:
        ids.check_session_id(resume, "resume")
    if limits is not None and not isinstance(limits, ValueLimits):
        raise TypeError(f"limits must be ValueLimits, not {type(limits).__name__}")
    redactor = make_redactor(redact)
    runtime = runtime or Runtime()
    unique = ids.ulid(runtime.wall_ns() // 1_000_000, runtime.random_bits(80))
    work = Session(
        name,
        ident=resume or ids.session_id(label(name, redactor.text), unique),
        joined=False,
        resumed=resume is not None,
        target=Target(url=url, token=token, name=program(), start=True, ssl=ssl, insecure=insecure),
        redactor=redactor,
        limits=limits or ValueLimits(),
        strict=_strict(strict),
        threads=threads,
        supersede=supersede,
        kind=kind,
        runtime=runtime,
        spool=spool,
    )
    work._guard(lambda: describe_node(work._node, input, tags, attributes))
    return work


def join(
    session: str | None = None,
    *,
    url: str | None = None,
    token: str | TokenProvider | None = None,
    ssl: Ssl | None = None,
    insecure: bool | None = None,
    strict: bool | None = None,
    redact: bool | Redactor | Iterable[str] = True,
    limits: ValueLimits | None = None,
    threads: bool = True,
    spool: bool | None = None,
    runtime: Runtime | None = None,
) -> Session:
    """In a worker process: take part in a session that another process began.

    What this process adds is shown within that session; the session's own state remains the other's.
    Forked children take part by themselves and need not call this.

    Args:
        session: its id; None for the environment variable ``WSMONITOR_SESSION`` (`Session.environment`).
        ssl: as for `session`. A context cannot be handed to a process; the path of a file can, also by
            ``WSMONITOR_CA``.

    Raises:
        TypeError: an argument has the wrong type.
        InvalidIdError: it is not a session id.
        ConfigurationError: there is none in the environment either.
    """
    ident = session if session is not None else os.environ.get(SESSION_VARIABLE, "")
    if session is None and not ident:
        raise ConfigurationError(f"join() needs a session's id, as an argument or in {SESSION_VARIABLE}")
    ids.check_session_id(ident)
    _check_tls(ssl, insecure)
    redactor = make_redactor(redact)
    return Session(
        ident.rpartition("~")[0] or ident,
        ident=ident,
        joined=True,
        target=Target(url=url, token=token, name=program(), start=False, ssl=ssl, insecure=insecure),
        redactor=redactor,
        limits=limits or ValueLimits(),
        strict=_strict(strict),
        threads=threads,
        supersede=False,
        kind="",
        runtime=runtime or Runtime(),
        spool=spool,
    )


def _check_tls(ssl: Ssl | None, insecure: bool | None) -> None:
    if ssl is not None:
        from wsmonitor.client.trust import check_ssl

        check_ssl(ssl)
    if insecure is not None and not isinstance(insecure, bool):
        raise TypeError(f"insecure must be a bool, not {type(insecure).__name__}")


def _strict(strict: bool | None) -> bool:
    if strict is None:
        return os.environ.get(STRICT_VARIABLE, "").lower() in {"1", "true", "yes", "on"}
    if not isinstance(strict, bool):
        raise TypeError(f"strict must be a bool, not {type(strict).__name__}")
    return strict


def _spool(spool: bool | None) -> bool:
    if spool is None:
        value = os.environ.get(SPOOL_VARIABLE, "").strip().lower()
        return value not in {"0", "off", "no", "false"}
    if not isinstance(spool, bool):
        raise TypeError(f"spool must be a bool, not {type(spool).__name__}")
    return spool
