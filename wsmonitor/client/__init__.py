"""The client layer: one connection per server, verified replicas, publications that never block.

Everything is loaded on first use, so that importing this package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .connection import Connection, ValueBytes, aconnect, connect
    from .errors import NoServerError, NotLocatedError, RequestTimeoutError
    from .follow import Follower, FollowUpdate, RunChanged
    from .handles import Subscription
    from .publishing import Publication
    from .shared import connections
    from .types import (
        BatchApplied,
        ConnectionStatus,
        EventApplied,
        EventsReplayed,
        GapFound,
        PhaseChanged,
        PresenceChanged,
        PublicationListener,
        SyncCompleted,
        SyncStarted,
        Target,
        Update,
    )

__all__ = [
    # connecting
    "connect",
    "aconnect",
    "connections",
    "Connection",
    "ConnectionStatus",
    "Target",
    # watching
    "Follower",
    "FollowUpdate",
    "RunChanged",
    "Subscription",
    "Update",
    "BatchApplied",
    "EventApplied",
    "EventsReplayed",
    "GapFound",
    "PhaseChanged",
    "PresenceChanged",
    "SyncCompleted",
    "SyncStarted",
    # publishing
    "Publication",
    "PublicationListener",
    # requests
    "ValueBytes",
    # errors
    "NoServerError",
    "NotLocatedError",
    "RequestTimeoutError",
]

_HOME = {
    "connect": "connection",
    "aconnect": "connection",
    "Connection": "connection",
    "ValueBytes": "connection",
    "connections": "shared",
    "NoServerError": "errors",
    "NotLocatedError": "errors",
    "RequestTimeoutError": "errors",
    "Follower": "follow",
    "FollowUpdate": "follow",
    "RunChanged": "follow",
    "Publication": "publishing",
    "Subscription": "handles",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME.get(name, 'types')}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
