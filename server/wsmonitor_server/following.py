"""One session in a store to which other nodes write, too: what they have committed, and what waits for that.

While a session is *behind*, what others have committed is being read. Nothing of it is committed meanwhile,
and what is published waits.
"""

from __future__ import annotations

from asyncio import Future, get_running_loop, shield
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wsmonitor.protocol.changes import Change, Unreadable

from .stores.base import StoreError
from .stores.bus import Committed

if TYPE_CHECKING:
    from .producers import Holder

_LEFT: Final = 16  # epochs that are remembered as past: anybody may ask for any


class Superseded(Exception):
    """What was asked for is to be judged again: another node was first, or another session is there now."""


def unsure(trouble: str = "") -> StoreError:
    """Why nothing is taken or sent; *trouble*: what is wrong with the way to the others, if it is known."""
    why = f" ({trouble})" if trouble else ""
    return StoreError(
        f"this server has lost touch with the others{why}, and waits until it knows what it missed"
    )


@dataclass(frozen=True, slots=True)
class Published:
    """Changes that a holder has sent, as `Authority.publish` takes them, all with one commit."""

    holder: Holder
    first: int
    last: int
    changes: Sequence[Change | Unreadable]
    run: int
    uploaded: Collection[str]


class Following:
    """See the module's text. Where there is one node only, `version` counts, and the rest stays as it is.

    Attributes:
        version: how many commits the session has had, as far as is known here.
        pending: what was published here and is not committed, in order: to be taken again behind what another
            node has committed first.
        news: what other nodes have committed, and is not applied here yet.
        behind: whether it is being read what other nodes have committed.
        redo: whether what was published here is to be taken again behind that.
        failed_until: when it is to be read again, in monotonic seconds; None if it was not refused.
        left: epochs that it is not in any more, as far as somebody has asked for them.
    """

    def __init__(self, version: int) -> None:
        self.version = version
        self.pending: deque[Published] = deque()
        self.news: deque[Committed] = deque()
        self.behind = False
        self.redo = False
        self.failed_until: float | None = None
        self.left: dict[str, None] = {}
        self._reading: Future[bool] | None = None  # one attempt: whether it was possible

    def leave(self, epoch: str) -> None:
        """*epoch* is one that it is not in any more."""
        self.left[epoch] = None
        if len(self.left) > _LEFT:
            del self.left[next(iter(self.left))]

    async def caught_up(self) -> None:
        """Wait until it is no longer `behind`. Raises `StoreError` if it cannot be read now."""
        while self.behind:
            if self._reading is None:
                self._reading = get_running_loop().create_future()
            if not await shield(self._reading):
                raise unsure()

    def was_read(self, read: bool) -> None:
        """One attempt at reading what other nodes have committed is over."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.set_result(read)
