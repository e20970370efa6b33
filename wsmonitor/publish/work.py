"""What sessions, chains and steps have in common for those who publish them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from wsmonitor.protocol.entities import Link, Scalar, Value
from wsmonitor.protocol.errors import Cancelled
from wsmonitor.protocol.ids import MAX_ID_LENGTH
from wsmonitor.protocol.states import State

from . import context
from .control import Question
from .failures import MESSAGE_LENGTH, describe, end_of, mark_of
from .point import Point, called_from_coroutine
from .run import PublishError
from .values import clean, cut

if TYPE_CHECKING:
    from .node import Node
    from .steps import Chain

EndState = Literal["succeeded", "failed", "cancelled", "skipped"]
_END_STATES: Final = ("succeeded", "failed", "cancelled", "skipped")

_FORBIDDEN: Final = {
    **dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029], " "),
    **dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)]),
}


def text_argument(value: object, what: str) -> str:
    """*value*, which must be a string.

    Raises:
        TypeError: it is not one.
    """
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a string, not {type(value).__name__}")
    return value


def number_argument(value: Any, what: str) -> int | float:
    """*value* as a number: of Python, or of any library whose scalars turn into one.

    Raises:
        TypeError: it is not a number.
    """
    if isinstance(value, (int, float)):
        return value
    if not isinstance(value, (str, bytes)):
        try:
            if hasattr(type(value), "__index__"):
                return int(value)
            return float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    raise TypeError(f"{what} must be a number, not {type(value).__name__}")


def tags_argument(tags: Iterable[str]) -> tuple[str, ...]:
    """*tags* as a tuple of strings.

    Raises:
        TypeError: it is a string, or holds something that is none.
    """
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise TypeError("tags must be a collection of strings")
    return tuple(text_argument(tag, "a tag") for tag in tags)


def label(name: str, redact: Callable[[str], str]) -> str:
    """*name* as the protocol takes names: redacted, on one line, of at most 128 characters."""
    name = redact(clean(name[: 8 * MAX_ID_LENGTH])).translate(_FORBIDDEN).strip()
    return cut(name, MAX_ID_LENGTH).strip() or "unnamed"


class Metrics(MutableMapping[str, int | float]):
    """``step.metrics["rows"] = 17``. Metrics can be set and changed, not taken back."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __setitem__(self, name: str, value: int | float) -> None:
        self._work.metric(name, value)

    def __getitem__(self, name: str) -> int | float:
        values: dict[str, int | float] = self._work._node.get("metrics", {})
        return values[name]

    def __delitem__(self, name: str) -> None:
        raise TypeError("what was published cannot be taken back")

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._work._node.get("metrics", {})))

    def __len__(self) -> int:
        return len(self._work._node.get("metrics", {}))

    def __repr__(self) -> str:
        return repr(dict(self))


class Attributes(MutableMapping[str, "Scalar | list[Scalar]"]):
    """``step.attributes["model"] = "small"``. Attributes can be set and changed, not taken back."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __setitem__(self, name: str, value: object) -> None:
        text_argument(name, "an attribute's name")
        self._work._guard(lambda: self._work._node.attribute(name, value))

    def __getitem__(self, name: str) -> Scalar | list[Scalar]:
        values: dict[str, Scalar | list[Scalar]] = self._work._node.get("attributes", {})
        return values[name]

    def __delitem__(self, name: str) -> None:
        raise TypeError("what was published cannot be taken back")

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._work._node.get("attributes", {})))

    def __len__(self) -> int:
        return len(self._work._node.get("attributes", {}))

    def __repr__(self) -> str:
        return repr(dict(self))


class Work:
    """A session, chain or step that this program publishes.

    A context manager, plain and async: entering it starts it, leaving it ends it, as ``succeeded``, or as the
    exception says that leaves it (``failed``; ``cancelled`` for `Cancelled`, an interrupt, a cancelled task).
    The exception goes on untouched. `start` and `end` do the same where a block does not fit, for instance
    across the cells of a notebook; only a block makes it the place where decorated functions nest.
    """

    _node: Node

    def __init__(self, node: Node) -> None:
        self._node = node
        self._tokens: list[Token[Node | None]] = []
        node.face = self

    # -- facts

    @property
    def id(self) -> str:
        """Its id, unique within the session (a session's: unique at all)."""
        return self._node.id

    @property
    def name(self) -> str:
        """Its name, as published."""
        return str(self._node.get("name", ""))

    @property
    def state(self) -> State:
        """Its state, as this program last published it."""
        return self._node.state

    @property
    def input(self) -> Value | None:
        """What it works on. Assign any object; read back, it is the record that observers get."""
        value: Value | None = self._node.get("input")
        return value

    @input.setter
    def input(self, obj: object) -> None:
        self._guard(lambda: self._node.value("input", obj))

    @property
    def output(self) -> Value | None:
        """What it has made. Assign any object; read back, it is the record that observers get."""
        value: Value | None = self._node.get("output")
        return value

    @output.setter
    def output(self, obj: object) -> None:
        self._guard(lambda: self._node.value("output", obj))

    @property
    def metrics(self) -> Metrics:
        """Named numbers; assign to its items."""
        return Metrics(self)

    @property
    def attributes(self) -> Attributes:
        """Named scalars and lists of scalars, as OpenTelemetry's; assign to its items."""
        return Attributes(self)

    @property
    def tags(self) -> tuple[str, ...]:
        """Its tags. Assign a collection of strings."""
        value: tuple[str, ...] = self._node.get("tags", ())
        return value

    @tags.setter
    def tags(self, tags: Iterable[str]) -> None:
        chosen = tags_argument(tags)
        self._guard(lambda: self._node.tag(chosen))

    # -- telling

    def metric(self, name: str, value: int | float) -> None:
        """Set the metric *name* to *value*.

        Raises:
            TypeError: *name* is not a string, or *value* not a number.
        """
        text_argument(name, "a metric's name")
        number = number_argument(value, f"metric {name!r}")
        self._guard(lambda: self._node.metric(name, number))

    def progress(self, done: int | float, total: int | float | None = None, unit: str = "") -> None:
        """Say that *done* of *total* units are done (None: not known). Sent at most 20 times a second.

        Raises:
            TypeError: an argument is not a number, or *unit* not a string.
        """
        done = number_argument(done, "done")
        total = None if total is None else number_argument(total, "total")
        text_argument(unit, "unit")
        if not math.isfinite(done) or (total is not None and not math.isfinite(total)):
            return  # nothing that a progress bar could show
        self._guard(lambda: self._node.progress(done, total, self._node.run.capture.text(unit, 32)))

    def link(self, href: str, *, rel: str = "related", title: str = "") -> None:
        """Refer to something elsewhere: a URL, a commit, a dashboard.

        Raises:
            TypeError: an argument is not a string.
        """
        for value, what in ((href, "href"), (rel, "rel"), (title, "title")):
            text_argument(value, what)
        text = self._node.run.capture.text
        entry = Link(rel=text(rel, 64), href=text(href, 1024), title=text(title, 256))
        links = (*self._node.get("links", ()), entry)[-32:]
        self._guard(lambda: self._node.set(links=links))

    def announce(self) -> Self:
        """Show it as ``pending`` before it starts."""
        self._guard(lambda: self._node.announce("pending"))
        return self

    # -- points

    def checkpoint(self, *, approve: str | None = None, timeout: float | None = None) -> Point[None]:
        """A point where pause and cancel take effect; with *approve*, also wait until an observer agrees.

        In ordinary code it blocks. In a coroutine write ``await step.checkpoint()``: then it awaits.

        Args:
            approve: a question for the observers, who answer with the command ``approve`` or ``reject``.
            timeout: seconds to wait for the answer; None for ever.

        Raises:
            Cancelled: a cancel command for this or what encloses it takes effect.
            Rejected: an observer rejected.
            TimeoutError: no answer within *timeout*.
            TypeError: an argument has the wrong type.
        """
        if approve is not None:
            text_argument(approve, "approve")
        if timeout is not None:
            timeout = float(number_argument(timeout, "timeout"))
        return self._checkpoint(called_from_coroutine(), approve, timeout)

    def _checkpoint(
        self, deferred: tuple[str, int] | None, approve: str | None, timeout: float | None
    ) -> Point[None]:
        node, control = self._node, self._node.run.control
        node.run.raise_pending()
        node.run.ensure_open()
        control.raise_if_cancelled(node)
        if approve is None or not node.announced or node.ended:
            return Point(deferred, "checkpoint()", lambda: control.check(node), lambda: control.acheck(node))
        question = self._question("approve", approve, ())

        async def later() -> None:
            await control.aask(node, question, timeout)

        def now() -> None:
            control.ask(node, question, timeout)

        return Point(deferred, "checkpoint()", now, later)

    def ask(self, prompt: str, *, choices: Iterable[str] = (), timeout: float | None = None) -> Point[str]:
        """Ask the observers, who answer with the command ``input``. ``.value`` of the result is the answer.

        In a coroutine, ``answer = await step.ask(...)``; in ordinary code, ``answer = step.ask(...).value``.

        Args:
            prompt: the question.
            choices: the possible answers; empty for any.
            timeout: seconds to wait; None for ever.

        Raises:
            Cancelled: a cancel command for this or what encloses it takes effect.
            TimeoutError: no answer within *timeout*.
            TypeError: an argument has the wrong type.
        """
        text_argument(prompt, "prompt")
        allowed = tags_argument(choices)
        if timeout is not None:
            timeout = float(number_argument(timeout, "timeout"))
        node, control = self._node, self._node.run.control
        node.run.raise_pending()
        control.raise_if_cancelled(node)
        question = self._question("input", prompt, allowed)
        return Point(
            called_from_coroutine(),
            "ask()",
            lambda: control.ask(node, question, timeout),
            lambda: control.aask(node, question, timeout),
        )

    def _question(self, kind: Literal["approve", "input"], prompt: str, choices: tuple[str, ...]) -> Question:
        run = self._node.run
        face = self._root()
        if face is not None:
            self._guard(lambda: face._offer(kind, self._node.kind))
        return Question(kind=kind, prompt=run.capture.text(prompt, 1024), choices=choices)

    def _offer(self, kind: str, target: str) -> None:
        """Overridden by the session: advertise the commands that answer a question."""

    def _default_chain(self) -> Chain | None:
        """Overridden by the session: where steps go that name no chain."""
        return None

    def _root(self) -> Work | None:
        node = self._node
        while node.above is not None:
            node = node.above
        return node.face

    # -- life

    def start(self) -> Self:
        """Start it. A point: waits while what encloses it is paused.

        Raises:
            Cancelled: what encloses it is to be cancelled.
        """
        self._before_start()
        self._begin()
        return self

    def end(
        self,
        state: EndState = "succeeded",
        reason: str = "",
        *,
        error: BaseException | str | None = None,
    ) -> None:
        """End it. What has ended already stays as it is.

        Args:
            state: how it ended.
            reason: why, for people.
            error: with ``failed``: the exception, or a message.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: *state* is not one that a program may end with.
        """
        if text_argument(state, "state") not in _END_STATES:
            raise ValueError(f"state must be one of {', '.join(_END_STATES)}, not {state!r}")
        text_argument(reason, "reason")
        if error is not None and not isinstance(error, (BaseException, str)):
            raise TypeError(f"error must be an exception or a message, not {type(error).__name__}")
        self._guard(lambda: self._finish(state, reason, error))

    def skip(self, reason: str = "") -> None:
        """End it as ``skipped``: there was nothing to do."""
        self.end("skipped", reason)

    def fail(self, error: BaseException | str) -> None:
        """End it as ``failed`` although no exception leaves its block."""
        self.end("failed", error=error)

    def __enter__(self) -> Self:
        self.start()
        self._tokens.append(context.enter(self._node))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._tokens:
            context.leave(self._tokens.pop())
        state, reason = end_of(exc)
        self._guard(lambda: self._finish(state, reason, exc))

    async def __aenter__(self) -> Self:
        above = self._node.above
        if above is not None:
            await self._abefore_start(above)
        self._begin()
        self._tokens.append(context.enter(self._node))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(kind, exc, tb)

    def _before_start(self) -> None:
        node = self._node
        if node.above is not None:
            try:
                node.run.control.check(node.above)
            except Cancelled as exc:
                node.end("cancelled", str(exc))
                raise

    async def _abefore_start(self, above: Node) -> None:
        try:
            await self._node.run.control.acheck(above)
        except Cancelled as exc:
            self._node.end("cancelled", str(exc))
            raise

    def _begin(self) -> None:
        def begin() -> None:
            node = self._node
            # What fails in here is no exception of before, even if it was raised at the same place.
            node.run.last_failure = None
            if node.announced:
                node.move("running", "")
            else:
                node.announce("running")

        self._guard(begin)

    def _finish(self, state: State, reason: str, error: BaseException | str | None) -> None:
        node = self._node
        run = node.run
        failure = None
        if state == "failed" and isinstance(error, BaseException):
            # An exception passes through every block around it: its traceback is told once, innermost.
            mark = mark_of(error)
            failure = describe(error, run.capture, trace=run.last_failure != mark)
            run.last_failure = mark
        elif state == "failed":
            failure = describe(RuntimeError(error or reason or "failed"), run.capture, trace=False)
            failure = type(failure)(code=failure.code, message=cut(failure.message, MESSAGE_LENGTH))
        node.end(state, run.capture.text(reason, 1024), failure)

    def _guard(self, action: Callable[[], object]) -> None:
        """Run *action*, whose failure is the monitor's own and must not reach the user's program."""
        run = self._node.run
        run.raise_pending()
        try:
            action()
        except PublishError:
            raise
        except Exception as exc:  # noqa: BLE001 - HARMLESS: reported, and raised only with `strict`
            run.report("internal", f"could not publish: {type(exc).__name__}: {exc}", node=self._node)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self.state}>"
