"""The static copies beside a live widget: outputs of their own, which are left when the kernel is gone.

Never an update of the widget's own output: each would render one more view, and clean none up.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .trace import empty_trace

EVERY: Final = 60.0
"""Seconds between two updates, where nothing has ended: each is a message, and a change of the notebook."""

PLACES: Final = 8
"""Cells in which one widget has a copy that is kept up to date, the newest ones."""


@dataclass
class _Place:
    """One output.

    Attributes:
        cell, run: the cell that it is in, and which execution of it; "" where the front-end does not say.
        at: when it was written, in seconds.
        key: of what it was written.
    """

    handle: Any
    cell: str
    run: str
    at: float = -EVERY
    key: Hashable = None


class Copies:
    """The copies of one widget: one for each output in which it was displayed."""

    def __init__(self) -> None:
        # Never changed in place: one thread displays, another writes.
        self._places: tuple[_Place, ...] = ()

    def display(self, html: str = "", now: float = -EVERY, key: Hashable = None) -> None:
        """Begin a copy in the cell that runs now, with *html* as of *now*, in seconds; "": nothing is known.

        What is known is best told at once: programs that execute notebooks take no updates between cells.
        """
        from IPython.display import HTML, display

        handle = display(HTML(html or empty_trace()), display_id=True)
        if handle is None:
            return
        cell, run = _here()
        # Where a cell runs again, what it had put out is gone.
        kept = (place for place in self._places if not cell or place.cell != cell or place.run == run)
        self._places = (*kept, _Place(handle, cell, run, now, key))[-PLACES:]

    def update(self, make: Callable[[], str], now: float, key: Hashable = None) -> None:
        """Bring them up to date where it is time, at *now* in seconds. A new *key* is told at once."""
        made: Any = None
        for place in self._places:
            ended = key is not None and key != place.key
            if not ended and now - place.at < EVERY:
                continue
            if made is None:
                from IPython.display import HTML

                made = HTML(make())
            place.at, place.key = now, key
            place.handle.update(made)

    @property
    def told(self) -> bool:
        """Whether each says something by now."""
        return all(place.at > -EVERY for place in self._places)


def _here() -> tuple[str, str]:
    """The cell that runs now, and which execution of it this is; "" where that is not known."""
    from IPython.core.getipython import get_ipython

    parent: Any = getattr(get_ipython(), "get_parent", dict)()
    if not isinstance(parent, Mapping):
        return "", ""
    header, metadata = parent.get("header") or {}, parent.get("metadata") or {}
    return str(metadata.get("cellId") or ""), str(header.get("msg_id") or "")
