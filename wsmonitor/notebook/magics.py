"""The line magic ``%wsmonitor``: a table of subcommands, each one small function."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any, Final

from IPython.core.magic import Magics, line_magic, magics_class

from wsmonitor.protocol.errors import UsageError

from .reports import Table, sessions_table, status_table

USAGE: Final = """\
%wsmonitor watch NAME      observe a session, live: its newest run, or the one with this id
%wsmonitor sessions        the sessions that the server has, the newest first
%wsmonitor status          which server, why this one, where it was looked for, versions, and
                           whether a browser has answered
%wsmonitor ?               this text

In Python:   import wsmonitor as wm; wm.watch("NAME")
To publish:  with wm.session("NAME") as session: ...
In a shell:  wsmonitor --help
"""


def _watch(words: list[str]) -> Any:
    if len(words) != 1:
        raise UsageError("which session? %wsmonitor watch NAME (quote a name that has spaces)")
    from .watching import watch

    return watch(words[0])


def _sessions(words: list[str]) -> Table:
    _nothing(words, "sessions")
    return sessions_table()


def _status(words: list[str]) -> Table:
    _nothing(words, "status")
    return status_table()


def _nothing(words: list[str], name: str) -> None:
    if words:
        raise UsageError(f"%wsmonitor {name} takes no arguments, not {' '.join(words)!r}")


COMMANDS: Final[dict[str, Callable[[list[str]], Any]]] = {
    "watch": _watch,
    "sessions": _sessions,
    "status": _status,
}


@magics_class
class WsmonitorMagics(Magics):
    """Registers ``%wsmonitor``."""

    @line_magic
    def wsmonitor(self, line: str) -> Any:
        """Watch live sessions. Subcommands: watch NAME, sessions, status, ?"""
        try:
            words = shlex.split(line)
        except ValueError as exc:
            raise UsageError(f"%wsmonitor cannot read {line!r}: {str(exc).lower()}") from None
        if not words or words[0] in ("?", "help", "-h", "--help"):
            print(USAGE, end="")  # noqa: T201 - the answer to a question is text
            return None
        command = COMMANDS.get(words[0])
        if command is None:
            raise UsageError(f"%wsmonitor has no {words[0]!r}; it has: {', '.join(COMMANDS)}")
        return command(words[1:])


WsmonitorMagics.wsmonitor.__doc__ = "Watch live sessions from this notebook.\n\n" + USAGE
