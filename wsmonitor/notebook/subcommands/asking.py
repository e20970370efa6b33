"""``%wsmonitor watch``, ``sessions`` and ``status``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from wsmonitor.protocol.errors import UsageError

from . import Call, Subcommand

if TYPE_CHECKING:
    from wsmonitor.notebook.dashboard import SessionList
    from wsmonitor.notebook.reports import Table


def _watch(call: Call) -> Any:
    if len(call.words) != 1:
        raise UsageError("which session? %wsmonitor watch NAME (quote a name that has spaces)")
    from wsmonitor.notebook.watching import watch

    return watch(call.words[0])


def _sessions(call: Call) -> Table | SessionList:
    options, words = call.options("live")
    if "live" in options:
        if len(words) > 1:
            raise UsageError("%wsmonitor sessions --live [NAME] lists the runs of one name at the most")
        from wsmonitor.notebook.dashboard import SessionList

        return SessionList(words[0] if words else None, open=True)
    if words:
        raise UsageError(f"%wsmonitor sessions takes no arguments but --live, not {' '.join(words)!r}")
    from wsmonitor.notebook.reports import sessions_table

    return sessions_table()


def _status(call: Call) -> Table:
    call.nothing()
    from wsmonitor.notebook.reports import status_table

    return status_table()


def session_names(words: tuple[str, ...]) -> Iterable[str]:
    """The sessions that may be meant, where none is named yet."""
    from wsmonitor.notebook.names import known_names

    return () if words else known_names()


COMMANDS: Final = (
    Subcommand(
        "watch",
        "watch NAME",
        "observe a session, live: its newest run, or the one with this id",
        _watch,
        completions=session_names,
    ),
    Subcommand(
        "sessions",
        "sessions [--live [NAME]]",
        "the sessions that the server has, the newest first;\n--live: a list that stays up to date, "
        "with the chosen session below",
        _sessions,
        completions=lambda words: () if words else ("--live",),
    ),
    Subcommand(
        "status",
        "status",
        "which server, why this one, where it was looked for, versions, and\nwhether a browser has answered",
        _status,
    ),
)
