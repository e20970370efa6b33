"""Static copies for live widgets that are displayed within others: in a box, a tab, an accordion.

A box is ipywidgets' own, and knows nothing of copies; its widgets are not told that it is displayed. So
IPython is told how to display boxes: as ever, and with the copies of what is in them. Boxes without a widget
of ours are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Leaving(Protocol):
    """A widget that leaves a static copy."""

    def copied(self) -> Any:
        """What a copy is made of: of widgets for which it is the same, one copy is enough."""

    def leave_copy(self) -> None:
        """Display one in the cell that runs now."""


def teach() -> None:
    """Tell the IPython of this process, if there is one. Idempotent."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    formatter = getattr(shell, "display_formatter", None)
    if formatter is None:
        return
    from ipywidgets import Box

    displays = formatter.ipython_display_formatter
    if displays.for_type(Box) is None:
        displays.for_type(Box, _display)


def _display(box: Any) -> None:
    """Display *box*, and what it leaves.

    Raises:
        NotImplementedError: nothing of ours is in it. IPython takes that as "display it as you would".
    """
    found = {id(one.copied()): one for one in _inside(box)}
    own = getattr(box, "_ipython_display_", None)
    if own is not None:
        own()
    elif not found:
        raise NotImplementedError
    else:
        from IPython.display import publish_display_data

        made = box._repr_mimebundle_()
        publish_display_data(*(made if isinstance(made, tuple) else (made,)))
    for one in found.values():
        one.leave_copy()


def _inside(box: Any) -> Iterator[Leaving]:
    seen: set[int] = set()
    stack = [box]
    while stack:
        widget = stack.pop()
        if id(widget) in seen:
            continue
        seen.add(id(widget))
        if isinstance(widget, Leaving):
            yield widget
        else:
            stack.extend(reversed(getattr(widget, "children", ())))
