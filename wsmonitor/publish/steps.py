"""Chains and steps, as those who publish hold them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from . import context
from .node import Node
from .track import Track
from .values import clean, cut
from .work import Work, label, number_argument, tags_argument, text_argument

if TYPE_CHECKING:
    from .run import Run

T = TypeVar("T")
Level = Literal["debug", "info", "warning", "error"]
_LEVELS: Final = ("debug", "info", "warning", "error")


class _Unset:
    """The default of ``input=``, because None is a value."""


_UNSET: Final = _Unset()


def describe_node(
    node: Node, input: object, tags: Iterable[str], attributes: Mapping[str, object] | None
) -> None:
    """Set what a session, chain or step may be given when it is made; the types are checked already."""
    if input is not _UNSET:
        node.value("input", input)
    chosen = tuple(tags)
    if chosen:
        node.tag(chosen)
    for name, value in (attributes or {}).items():
        node.attribute(name, value)


def check_arguments(
    name: object, kind: object, tags: Iterable[str], attributes: Mapping[str, object] | None
) -> None:
    """Raise `TypeError` for arguments of the wrong type."""
    text_argument(name, "name")
    text_argument(kind, "kind")
    tags_argument(tags)
    if attributes is not None:
        if not isinstance(attributes, Mapping):
            raise TypeError("attributes must be a mapping of names to values")
        for key in attributes:
            text_argument(key, "an attribute's name")


def make_step(
    run: Run,
    chain: Node,
    above: Node,
    parent: str,
    name: str,
    *,
    kind: str = "",
    input: object = _UNSET,
    tags: Iterable[str] = (),
    attributes: Mapping[str, object] | None = None,
    step_key: str = "",
    attempt: int = 1,
) -> Step:
    """A step that has not been announced yet."""
    ident = run.new_id("s")
    node = Node(
        run,
        "step",
        ident,
        above,
        {
            "name": label(name, run.capture.redactor.text),
            "kind": cut(clean(kind), 64),
            "chain": chain.id,
            "parent": parent,
            "step_key": step_key or ident,
            "attempt": attempt,
        },
    )
    step = Step(node, chain)
    step._guard(lambda: describe_node(node, input, tags, attributes))
    return step


def make_track(
    node: Node | None, iterable: Iterable[T] | AsyncIterable[T], total: int | float | None, unit: str
) -> Track[T]:
    """A loop over *iterable*, shown at *node*.

    Raises:
        TypeError: an argument has the wrong type.
    """
    if not isinstance(iterable, (Iterable, AsyncIterable)) and not hasattr(iterable, "__getitem__"):
        raise TypeError(f"track() takes an iterable, not {type(iterable).__name__}")
    if total is not None:
        total = number_argument(total, "total")
    unit = cut(text_argument(unit, "unit"), 32)
    return Track(node, iterable, total, node.run.capture.text(unit, 32) if node is not None else unit)


class Step(Work):
    """One piece of work. Made by `Chain.step`, `Step.step`, `Session.step` or ``@wm.step``."""

    def __init__(self, node: Node, chain: Node) -> None:
        super().__init__(node)
        self._chain = chain

    @property
    def attempt(self) -> int:
        """1, and one more for each retry."""
        return int(self._node.get("attempt", 1))

    def log(self, text: str, level: Level = "info") -> None:
        """Append a log line.

        Raises:
            TypeError: *text* is not a string.
            ValueError: *level* is not one of debug, info, warning, error.
        """
        text_argument(text, "text")
        if level not in _LEVELS:
            raise ValueError(f"level must be one of {', '.join(_LEVELS)}, not {level!r}")
        self._guard(lambda: self._node.log(text, level))

    def track(
        self,
        iterable: Iterable[T] | AsyncIterable[T],
        total: int | float | None = None,
        *,
        unit: str = "",
    ) -> Track[T]:
        """Loop over *iterable* with progress: ``for x in step.track(xs)``, ``async for x in step.track(xs)``.

        Each item is a point where pause and cancel take effect.

        Args:
            iterable: what to loop over.
            total: how many items there are; None to ask the iterable.
            unit: what an item is, e.g. ``"files"``.

        Raises:
            TypeError: *iterable* is none, *total* is not a number, or *unit* not a string.
            Cancelled: while looping.
        """
        return make_track(self._node, iterable, total, unit)

    def step(
        self,
        name: str,
        *,
        kind: str = "",
        input: object = _UNSET,
        tags: Iterable[str] = (),
        attributes: Mapping[str, object] | None = None,
        retry_of: Step | None = None,
    ) -> Step:
        """A step beneath this one; see `Chain.step`."""
        check_arguments(name, kind, tags, attributes)
        return make_step(
            self._node.run,
            self._chain,
            self._node,
            self.id,
            name,
            kind=kind,
            input=input,
            tags=tags,
            attributes=attributes,
            **_retry(retry_of),
        )


class Chain(Work):
    """A run of steps that belong together. Made by `Session.chain`."""

    def step(
        self,
        name: str,
        *,
        kind: str = "",
        input: object = _UNSET,
        parent: Step | str | None = None,
        tags: Iterable[str] = (),
        attributes: Mapping[str, object] | None = None,
        retry_of: Step | None = None,
    ) -> Step:
        """A step of this chain, to be entered (``with``) or started.

        Args:
            name: what it does.
            kind: of a kind of your own, e.g. ``"llm"``; ``"chain"`` for a nested chain.
            input: what it works on: any object; see `Work.input`.
            parent: the step (or the id of one) beneath which it is shown; None for the current step of this
                chain, "" for none.
            tags: words to find it by.
            attributes: named scalars.
            retry_of: the failed step that this one tries again: the same ``step_key``, ``attempt + 1``.

        Raises:
            TypeError: an argument has the wrong type.
        """
        check_arguments(name, kind, tags, attributes)
        above, parent_id = self._place(parent)
        return make_step(
            self._node.run,
            self._node,
            above,
            parent_id,
            name,
            kind=kind,
            input=input,
            tags=tags,
            attributes=attributes,
            **_retry(retry_of),
        )

    def _place(self, parent: Step | str | None) -> tuple[Node, str]:
        """The enclosing node of a new step, and its parent's id."""
        if isinstance(parent, Step):
            return parent._node, parent.id
        if isinstance(parent, str):
            known = self._node.run.nodes.get(parent)
            return (known, parent) if known is not None and known.is_step else (self._node, parent)
        if parent is not None:
            raise TypeError(f"parent must be a step or an id, not {type(parent).__name__}")
        here = context.current()
        if here is not None and here.is_step and here.run is self._node.run and here.chain_id == self.id:
            return here, here.id
        return self._node, ""


def _retry(earlier: Step | None) -> dict[str, Any]:
    if earlier is None:
        return {}
    if not isinstance(earlier, Step):
        raise TypeError(f"retry_of must be a step, not {type(earlier).__name__}")
    return {"step_key": str(earlier._node.get("step_key")), "attempt": earlier.attempt + 1}


def step_beneath(node: Node, name: str, **options: Any) -> Step:
    """A step where the program is: beneath the current step, in the current chain, or in the session's."""
    face = node.face
    if isinstance(face, Step):
        return make_step(node.run, face._chain, node, node.id, name, **options)
    if isinstance(face, Chain):
        return make_step(node.run, node, node, "", name, **options)
    chain = None if face is None else face._default_chain()
    if chain is None:  # pragma: no cover - a node is always made together with its face
        raise RuntimeError("no chain to put the step into")
    return make_step(node.run, chain._node, chain._node, "", name, **options)


class LogHandler(logging.Handler):
    """Sends records of the standard library's `logging` to the current step; elsewhere they are ignored.

    ``logging.getLogger().addHandler(wm.LogHandler())``
    """

    def emit(self, record: logging.LogRecord) -> None:
        node = context.current()
        if node is None or not isinstance(node.face, Step) or record.name.startswith("wsmonitor"):
            return
        try:
            node.face.log(self.format(record), _level(record.levelno))
        except Exception:  # noqa: BLE001 - logging's own way of dealing with it
            self.handleError(record)


def _level(number: int) -> Level:
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warning"
    return "info" if number >= logging.INFO else "debug"
