"""The static copy beside a live widget: an output of its own, which is what is left when the kernel is gone.

Never an update of the widget's own output: each would render one more view, and clean none up.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Final

from .trace import empty_trace

EVERY: Final = 60.0
"""Seconds between two updates, where nothing has ended: each is a message, and a change of the notebook."""


class Copy:
    """The copy in the output that was displayed last; of one that a re-run has replaced nobody needs one."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._at = -EVERY
        self._key: Hashable = None

    def display(self) -> None:
        """Begin a copy in the cell that runs now."""
        from IPython.display import HTML, display

        handle = display(HTML(empty_trace()), display_id=True)
        if handle is not None:
            self._at, self._key = -EVERY, None
            self._handle = handle

    def update(self, make: Callable[[], str], now: float, key: Hashable = None) -> None:
        """Bring it up to date, if it is time: at *now* in seconds. A new *key* is told at once: an end."""
        if self._handle is None:
            return
        ended = key is not None and key != self._key
        if not ended and now - self._at < EVERY:
            return
        self._at, self._key = now, key
        from IPython.display import HTML

        self._handle.update(HTML(make()))
