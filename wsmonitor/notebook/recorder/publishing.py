"""A recording as a session: its chain, its steps, and the one command that they take."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Final

from wsmonitor.client.types import Target
from wsmonitor.export.outputs import MIME
from wsmonitor.protocol import ids
from wsmonitor.protocol.changes import CommandChange
from wsmonitor.protocol.entities import Command, CommandSpec, ErrorInfo, Failure
from wsmonitor.protocol.states import State
from wsmonitor.publish.commands import Commands
from wsmonitor.publish.failures import MESSAGE_LENGTH, TRACEBACK_LENGTH
from wsmonitor.publish.redaction import Redactor
from wsmonitor.publish.run import Runtime
from wsmonitor.publish.session import Session
from wsmonitor.publish.steps import Step, make_step
from wsmonitor.publish.values import ValueLimits, cut
from wsmonitor.publish.work import label

from .cells import Begin, Cell, Failed
from .titles import title

SOURCE: Final = "text/x-python"
INTERRUPT: Final = CommandSpec(
    name="interrupt",
    targets=("step",),
    destructive=True,
    description="Raise KeyboardInterrupt in this cell, as the notebook's stop button does.",
)
_TAKES: Final[dict[str, tuple[str, ...]]] = {"running": ("interrupt",), "awaiting_input": ("interrupt",)}

Answer = Callable[[str, str], None]
"""Tells what became of an accepted command: ``applied`` or ``rejected``, and why."""


class _CellCommands(Commands):
    """``interrupt``, and nothing else: a cell passes no points at which it could be paused."""

    on_interrupt: Callable[[Command, Answer], None] | None = None

    def specs(self) -> tuple[CommandSpec, ...]:
        return (INTERRUPT,)

    def receive(self, command: Command) -> None:
        run = self._session._run

        def answer(state: str, reason: str) -> None:
            change = CommandChange(id=command.id, state=state, reason=cut(reason, 1024))  # type: ignore[arg-type]  # one of three words
            with run.lock:
                run.channel.command_state(change)

        interrupt = self.on_interrupt
        if command.name != "interrupt" or interrupt is None:
            answer("rejected", f"a recorded notebook takes no {command.name!r}")
            return
        with run.lock:
            run.channel.accept(command, lambda: interrupt(command, answer))


class Recording(Session):
    """The session of a recording. ``start()`` it once; each cell is a `CellStep`."""

    pause: Callable[[], None] = staticmethod(lambda: None)
    """Called often during long work, to let others run."""
    _commands: _CellCommands

    def __init__(
        self,
        name: str,
        *,
        notebook: str,
        url: str | None = None,
        runtime: Runtime | None = None,
        redactor: Redactor | None = None,
        on_interrupt: Callable[[Command, Answer], None] | None = None,
    ) -> None:
        runtime = runtime or Runtime()
        redactor = redactor or Redactor()
        unique = ids.ulid(runtime.wall_ns() // 1_000_000, runtime.random_bits(80))
        super().__init__(
            name,
            ident=ids.session_id(label(name, redactor.text), unique),
            joined=False,
            target=Target(url=url, name="recorder", start=True),
            redactor=redactor,
            limits=ValueLimits(),
            strict=False,
            threads=False,  # nothing of the user's program is touched
            supersede=False,
            kind="notebook",
            runtime=runtime,
        )
        self._run.takes = _TAKES
        self._commands.on_interrupt = on_interrupt
        self._notebook = notebook
        self._node.attribute("notebook", notebook)
        self._node.attribute("language", "python")

    def _make_commands(self) -> _CellCommands:
        return _CellCommands(self)

    def _offer(self, kind: str, target: str) -> None:
        """A cell's process that forks does not make its cells take other commands."""

    def open(self) -> None:
        """Start the session and its chain."""
        self.start()
        # Not to be superseded by a session of the same name that a cell of this notebook publishes.
        self._place = None
        self._main_chain = self.chain(
            self.name, kind="notebook", attributes={"notebook": self._notebook}
        ).start()

    def cell(self, cell: Cell) -> CellStep:
        """A step for *cell*, running."""
        return CellStep(self, cell.begin)

    def redact(self, text: str) -> str:
        """*text* without secrets."""
        self.pause()
        return self._run.capture.redactor.text(text, self.pause)

    @property
    def removed(self) -> bool:
        """Whether somebody removed the recording: nothing more is kept of it."""
        return self._run.channel.removed

    @property
    def warnings(self) -> list[str]:
        """What goes wrong about publishing, the newest last."""
        return [f"{info.message} [{info.code}]" for info in self._run.errors if not self._over(info)]

    @property
    def overcome(self) -> list[str]:
        """What went wrong about publishing, and is over, the newest last."""
        return [f"{info.message} [{info.code}]" for info in self._run.errors if self._over(info)]

    def _over(self, info: ErrorInfo) -> bool:
        return info.code == "connection_lost" and self._run.channel.phase == "live"


class CellStep:
    """The step of one execution."""

    def __init__(self, session: Recording, begin: Begin) -> None:
        self._session = session
        run = session._run
        chain = session._default_chain()
        attributes: dict[str, object] = {
            "execution_count": begin.count,
            "notebook": session._notebook,
            "msg_id": begin.msg_id,
        }
        if begin.cell_id:
            attributes["cell_id"] = begin.cell_id
        key = begin.cell_id or hashlib.sha256(begin.source.encode("utf-8", "replace")).hexdigest()[:32]
        self._step: Step = make_step(
            run,
            chain._node,
            chain._node,
            "",
            title(begin.source, begin.count),
            kind="cell",
            attributes=attributes,
            step_key=cut(key, 128),
        )
        self._node = self._step._node
        source = run.capture.redactor.text(begin.source).encode("utf-8", "replace")
        self._step._guard(lambda: self._node.record("input", *run.capture.encoded(SOURCE, source, {})))
        self._step._guard(lambda: self._node.announce("running", str(begin.at)))

    @property
    def id(self) -> str:
        return self._step.id

    @property
    def state(self) -> State:
        return self._step.state

    def log(self, text: str, level: str) -> None:
        self._step.log(text, level)  # type: ignore[arg-type]  # one of the four words

    def progress(self, done: float, total: float | None, unit: str) -> None:
        self._step.progress(done, total, unit)

    def await_input(self, prompt: str) -> None:
        """The cell waits for somebody to type."""
        reason = f"waits for input: {prompt.strip()}" if prompt.strip() else "waits for input"
        self._step._guard(lambda: self._node.move("awaiting_input", reason))

    def go_on(self) -> None:
        """Somebody did."""
        self._step._guard(lambda: self._node.move("running", ""))

    def output(self, document: bytes, parts: Mapping[str, int], new: Mapping[str, bytes]) -> None:
        """Publish the outputs: *new* are those of the *parts* that were not there before."""
        run = self._session._run

        def publish() -> None:
            with run.lock:
                for digest, data in new.items():
                    run.keep_value(data, digest)
                self._node.record("output", *run.capture.encoded(MIME, document, parts))

        self._step._guard(publish)

    def dropped(self, counts: Mapping[str, int]) -> None:
        """Say what was left out of the record."""
        words = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
        self._step.attributes["dropped"] = words

    def end(self, state: State, reason: str, at: int, failed: Failed | None = None) -> None:
        """It has ended."""
        capture = self._session._run.capture
        failure = None
        if failed is not None and state == "failed":
            text = capture.redactor.text(failed.traceback)
            failure = Failure(
                code="step_failed",
                type=cut(failed.name, 256),
                message=capture.text(failed.message, MESSAGE_LENGTH),
                traceback=text[-TRACEBACK_LENGTH:],
            )
        self._step._guard(lambda: self._node.end(state, capture.text(reason, 1024), failure, str(at)))
