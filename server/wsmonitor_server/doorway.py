"""Who has come, and has not shown a token yet: never more than there is room for. Pure.

Strangers cost a socket each, and may be silent for as long as the handshake may take. So there is a limit for
them that is not the users' (``limits.handshakes``), and another for those of one address
(``limits.handshakes_per_address``). Beyond a limit it is not the newcomer who has to go, who may be a user.
It is the one who has been silent for longest, of the address that has the most at the door. A user gets in,
unless as many strangers as there is room for come within the time that his own handshake takes; and those of
one other address never touch him.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Generic, TypeVar

V = TypeVar("V")


class Doorway(Generic[V]):
    """See the module's docstring.

    Args:
        total: how many there may be.
        per_address: how many of them of one address; 0 for no limit but the total.
    """

    __slots__ = ("_by_count", "_groups", "_most", "_per_address", "_places", "_total")

    def __init__(self, total: int, per_address: int) -> None:
        self._total = total
        self._per_address = per_address or total
        self._places: dict[V, str] = {}
        self._groups: dict[str, dict[V, None]] = {}  # address to its visitors, in the order of their coming
        self._by_count: dict[int, dict[str, None]] = {}  # how many to the addresses that have so many
        self._most = 0

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, visitor: V) -> bool:
        return visitor in self._places

    def enter(self, visitor: V, address: str, *, limited: bool = True) -> V | None:
        """*visitor* has come from *address*; gives the one who has to go for it, who is no longer here.

        *limited*: whether the limit per address holds for this one.
        """
        place = origin(address)
        group = self._groups.setdefault(place, {})
        group[visitor] = None
        self._places[visitor] = place
        self._move(place, len(group) - 1, len(group))
        if limited and len(group) > self._per_address:
            return self._oldest(place)
        if len(self._places) > self._total:
            return self._oldest(next(iter(self._by_count[self._most])))
        return None

    def leave(self, visitor: V) -> None:
        """*visitor* has shown a token, or has gone. Without effect when it is not here."""
        place = self._places.pop(visitor, None)
        if place is None:
            return
        group = self._groups[place]
        del group[visitor]
        self._move(place, len(group) + 1, len(group))
        if not group:
            del self._groups[place]

    def _oldest(self, place: str) -> V:
        found = next(iter(self._groups[place]))
        self.leave(found)
        return found

    def _move(self, place: str, before: int, after: int) -> None:
        if before:
            del self._by_count[before][place]
            if not self._by_count[before]:
                del self._by_count[before]
        if after:
            self._by_count.setdefault(after, {})[place] = None
        # By one at a time: who has left the highest count has now the highest, or shares it.
        if after > self._most or self._most not in self._by_count:
            self._most = after


@lru_cache(maxsize=1024)
def origin(address: str) -> str:
    """What counts as one address: of IPv6 the network of 64 bits, which one customer has."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), 64), strict=False))
