"""The observer in Jupyter: `watch`, the widget, and the kernel extension. Loads nothing before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dashboard import SessionList
    from .extension import load_ipython_extension, unload_ipython_extension
    from .observer import Observer
    from .parts import ConnectionStatus, EventLog, Heartbeat, SessionTree
    from .snapshot import SessionSnapshot
    from .watching import watch

__all__ = [
    "ConnectionStatus",
    "EventLog",
    "Heartbeat",
    "Observer",
    "SessionSnapshot",
    "SessionList",
    "SessionTree",
    "load_ipython_extension",
    "unload_ipython_extension",
    "watch",
]

_HOMES = {
    "ConnectionStatus": "parts",
    "EventLog": "parts",
    "Heartbeat": "parts",
    "SessionList": "dashboard",
    "SessionTree": "parts",
    "Observer": "observer",
    "SessionSnapshot": "snapshot",
    "watch": "watching",
    "load_ipython_extension": "extension",
    "unload_ipython_extension": "extension",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
