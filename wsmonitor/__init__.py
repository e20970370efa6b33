"""wsmonitor shows live sessions inside Jupyter, and never lies about what it knows.

::

    import wsmonitor as wm

    with wm.session("nightly-etl") as session:          # publish
        with session.chain("load") as chain:
            with chain.step("read", input={"path": path}) as step:
                for batch in step.track(batches):         # progress; here pause and cancel take effect
                    ...
                step.output = summary

    observer = wm.watch("nightly-etl")                    # watch: display it in a notebook

Names are loaded on first use, so that importing this package costs little.

========================================= =========================================================
`session`, `join`, `step`                 publish: a new run, a worker's part in one, calls as steps
`track`, `checkpoint`, `log`, `metric`    said wherever the program is; nothing outside a session
`current_session`, `current_step`         where the program is
`wrap`, `ThreadPoolExecutor`, `LogHandler` carry the current step into threads, and `logging` into it
`Session`, `Chain`, `Step`                what these give
`Redactor`, `ValueLimits`                 what is taken out, and how much is taken
`watch`, `Observer`                       watch, in a notebook (``%load_ext wsmonitor`` gives magics)
`ConnectionStatus`, `Heartbeat`,          an observer's pieces, as widgets to be put together with others
`EventLog`, `SessionTree`
`SessionList`                             all sessions of a server, live
`Cancelled`, `Rejected`                   raised by `track` and `checkpoint`: `BaseException`
`WsMonitorError` and what derives from it see `wsmonitor.protocol.errors`
`WsMonitorWarning`                        something went wrong about publishing; the program goes on
========================================= =========================================================
"""

from __future__ import annotations

from importlib import import_module

from ._version import __version__

TYPE_CHECKING = False  # type checkers know the name; importing `typing` would cost more than all the rest
if TYPE_CHECKING:
    from typing import Any

    from .notebook import (
        ConnectionStatus,
        EventLog,
        Heartbeat,
        Observer,
        SessionList,
        SessionTree,
        load_ipython_extension,
        unload_ipython_extension,
        watch,
    )
    from .protocol.errors import (
        Cancelled,
        ConfigurationError,
        ConnectionFailedError,
        InvalidIdError,
        Rejected,
        RequestError,
        SessionFailed,
        UsageError,
        WaitTimeoutError,
        WsMonitorError,
    )
    from .publish import (
        Chain,
        LogHandler,
        PublishError,
        Redactor,
        Session,
        Step,
        ThreadPoolExecutor,
        ValueLimits,
        WsMonitorWarning,
        checkpoint,
        current_session,
        current_step,
        join,
        log,
        metric,
        session,
        step,
        track,
        wrap,
    )

_HOMES = {
    ".publish": (
        "Chain",
        "LogHandler",
        "PublishError",
        "Redactor",
        "Session",
        "Step",
        "ThreadPoolExecutor",
        "ValueLimits",
        "WsMonitorWarning",
        "checkpoint",
        "current_session",
        "current_step",
        "join",
        "log",
        "metric",
        "session",
        "step",
        "track",
        "wrap",
    ),
    ".notebook": (
        "ConnectionStatus",
        "EventLog",
        "Heartbeat",
        "Observer",
        "SessionList",
        "SessionTree",
        "load_ipython_extension",
        "unload_ipython_extension",
        "watch",
    ),
    ".protocol.errors": (
        "Cancelled",
        "ConfigurationError",
        "ConnectionFailedError",
        "InvalidIdError",
        "Rejected",
        "RequestError",
        "SessionFailed",
        "UsageError",
        "WaitTimeoutError",
        "WsMonitorError",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    # publishing
    "session",
    "join",
    "step",
    "track",
    "checkpoint",
    "log",
    "metric",
    "current_session",
    "current_step",
    "wrap",
    "ThreadPoolExecutor",
    "LogHandler",
    "Session",
    "Chain",
    "Step",
    "Redactor",
    "ValueLimits",
    # watching
    "watch",
    "Observer",
    "ConnectionStatus",
    "Heartbeat",
    "EventLog",
    "SessionTree",
    "SessionList",
    "load_ipython_extension",
    "unload_ipython_extension",
    # errors
    "Cancelled",
    "Rejected",
    "SessionFailed",
    "WsMonitorWarning",
    "WsMonitorError",
    "PublishError",
    "UsageError",
    "InvalidIdError",
    "ConfigurationError",
    "ConnectionFailedError",
    "RequestError",
    "WaitTimeoutError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home, __name__), name)
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
