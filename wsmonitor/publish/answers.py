"""What this process has answered to commands, and what waits for an answer to be on record.

A command is executed once its acceptance is *committed* by the server, never before: until then the server
may let it expire, and whoever asked would be told that nothing happened while it does. A refused acceptance
means that the record has ended otherwise; then nothing is executed.

Answers that were committed are kept for a while. A server that comes back with an earlier state (after a
power loss, say) has forgotten them, and is told again.

All methods are called with the run's lock held; what they return is called without it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from wsmonitor.protocol.changes import CommandChange

KEPT_COMMANDS: Final = 1_000
"""Commands whose answers are kept; a server keeps the records of far fewer finished ones."""


@dataclass(slots=True)
class _Waiting:
    """An acceptance that is not committed yet."""

    then: Callable[[], None]
    dropped: Callable[[], None]


class Answers:
    """The answers of one channel.

    Args:
        submit: publishes a change; gives its number, or None where nothing can be published any more.
    """

    def __init__(self, submit: Callable[[CommandChange], int | None]) -> None:
        self._submit = submit
        self._waiting: dict[int, _Waiting] = {}
        self._told: OrderedDict[str, list[tuple[int, CommandChange]]] = OrderedDict()
        self._committed = 0

    @property
    def waiting(self) -> bool:
        """Whether an accepted command is still to be executed."""
        return bool(self._waiting)

    def tell(self, change: CommandChange) -> int | None:
        """Publish what became of a command."""
        number = self._submit(change)
        if number is not None:
            self._told.setdefault(change.id, []).append((number, change))
            self._told.move_to_end(change.id)
            while len(self._told) > KEPT_COMMANDS:
                self._told.popitem(last=False)
        return number

    def accept(self, ident: str, then: Callable[[], None], dropped: Callable[[], None]) -> None:
        """Accept the command *ident*: *then* is called when that is on record, else *dropped*."""
        number = self.tell(CommandChange(id=ident, state="accepted"))
        if number is None:
            dropped()
        else:
            self._waiting[number] = _Waiting(then, dropped)

    def acknowledged(self, number: int) -> list[Callable[[], None]]:
        """Everything up to *number* is committed: what is to be called, in order."""
        self._committed = max(self._committed, number)
        return [self._waiting.pop(one).then for one in sorted(self._waiting) if one <= number]

    def rejected(self, number: int) -> list[Callable[[], None]]:
        """The answer *number* was refused: what is to be called."""
        waiting = self._waiting.pop(number, None)
        return [] if waiting is None else [waiting.dropped]

    def drop(self) -> list[Callable[[], None]]:
        """Nothing will be acknowledged any more: what is to be called."""
        waiting, self._waiting = list(self._waiting.values()), {}
        return [one.dropped for one in waiting]

    def assert_again(self) -> None:
        """Publish again what had been committed; what had not is still on its way, behind this."""
        for ident, told in self._told.items():
            again: list[tuple[int, CommandChange]] = []
            for number, change in told:
                if number <= self._committed:
                    fresh = self._submit(change)
                    again.append((number if fresh is None else fresh, change))
                else:
                    again.append((number, change))
            self._told[ident] = again
