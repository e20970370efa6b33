"""What the client's machines ask their owner to do. Records only: the driver carries them out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from wsmonitor.protocol.messages import ClientMessage

from .types import Update


@dataclass(frozen=True, slots=True)
class Locate:
    """Find the server and a token; answer with ``located`` or ``not_located``.

    ``fresh``: the token used before was refused or has expired, do not give it again.
    """

    attempt: int
    fresh: bool


@dataclass(frozen=True, slots=True)
class Open:
    """Open the WebSocket; answer with ``opened``, ``refused`` or ``lost``."""

    attempt: int
    url: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Send:
    """Send one message on the open WebSocket."""

    message: ClientMessage


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Give the WebSocket of this attempt up: politely with ``code``, or at once."""

    attempt: int
    code: int
    reason: str
    abort: bool


@dataclass(frozen=True, slots=True)
class FetchToken:
    """Get a fresh token, off the loop; answer with ``token_fetched``."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Call:
    """Call a listener. Its exceptions are the listener's, never the link's."""

    function: Callable[[], None]


class Tell(msgspec.Struct, frozen=True):
    """Call a listener with an update. Its exceptions are the listener's, never the link's.

    Made once per event, and so not a data class, which takes five times as long to make.
    """

    listener: Callable[[Update], None]
    update: Update


Action: TypeAlias = Locate | Open | Send | Disconnect | FetchToken | Call | Tell
