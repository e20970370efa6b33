"""The magic ``%wsmonitor``, and ``%%wsmonitor`` for a whole cell: finds the subcommand, tells what is wrong.

The subcommands themselves are in `subcommands`.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable
from typing import Any, Final

from IPython.core.magic import Magics, line_cell_magic, magics_class

from wsmonitor.protocol.errors import UsageError, WsMonitorError

from .subcommands import Call, Subcommand, table

HELP: Final = ("?", "help", "-h", "--help")


def usage() -> str:
    """What ``%wsmonitor`` says of itself."""
    commands = "".join(command.usage() for command in table().values())
    return f"""\
{commands}%wsmonitor help NAME       all about one of these; %wsmonitor ? is this text

In Python:   import wsmonitor as wm; wm.watch("NAME")
To publish:  with wm.session("NAME") as session: ...
In a shell:  wsmonitor --help
"""


@magics_class
class WsmonitorMagics(Magics):
    """Registers ``%wsmonitor`` and ``%%wsmonitor``."""

    @line_cell_magic
    def wsmonitor(self, line: str, cell: str | None = None) -> Any:
        """Replaced below by the text that the table gives."""
        __tracebackhide__ = True  # of an error in a cell that is a step, the cell's own lines are shown
        try:
            return self._run(line, cell)
        except WsMonitorError as exc:
            raise brief(exc) from None

    def _run(self, line: str, cell: str | None) -> Any:
        __tracebackhide__ = True
        words = split(line)
        if not words or words[0] in HELP:
            print(help_text(words[1:]), end="")  # noqa: T201 - the answer to a question is text
            return None
        command = find(words[0])
        if words[1:] and words[1] in HELP:
            print(command.help(), end="")  # noqa: T201 - likewise
            return None
        if cell is None and not command.line:
            raise UsageError(
                f"{command.name} is for a whole cell: %%wsmonitor {command.synopsis}, first line"
            )
        if cell is not None and not command.cell:
            raise UsageError(
                f"{command.name} is for one line: %wsmonitor {command.synopsis}, with a single %"
            )
        return command.run(Call(command.name, tuple(words[1:]), self.shell, cell))


WsmonitorMagics.wsmonitor.__doc__ = "Watch live sessions from this notebook.\n\n" + usage()


def split(line: str) -> list[str]:
    """*line* as words.

    Raises:
        UsageError: a quote is not closed.
    """
    try:
        return shlex.split(line)
    except ValueError as exc:
        raise UsageError(f"%wsmonitor cannot read {line!r}: {str(exc).lower()}") from None


def find(name: str) -> Subcommand:
    """The subcommand *name*.

    Raises:
        UsageError: there is none of this name; the message names those there are.
    """
    commands = table()
    if name in commands:
        return commands[name]
    like = difflib.get_close_matches(name, commands, 1)
    hint = f" Did you mean {like[0]}?" if like else ""
    raise UsageError(f"%wsmonitor has no {name!r}; it has: {', '.join(commands)}.{hint}")


def help_text(about: list[str]) -> str:
    """The whole help, or that of one subcommand.

    Raises:
        UsageError: there is no such subcommand.
    """
    return find(about[0]).help() if about else usage()


def brief(exc: WsMonitorError) -> WsMonitorError:
    """*exc*, to be shown by IPython without a traceback: the message, and the code where it says something.

    A line of a notebook is no program: where in this package the error was raised helps nobody.
    """
    text = f"{type(exc).__name__}: {exc}"
    if not isinstance(exc, UsageError) and not text.endswith(f"[{exc.code}]"):
        text += f" [{exc.code}]"
    # IPython asks the exception itself for its rendering, if it has one.
    exc._render_traceback_ = lambda: [text]  # type: ignore[attr-defined]
    return exc


def complete(_shell: Any, event: Any) -> list[str]:
    """IPython's hook for Tab behind ``%wsmonitor``: subcommands, then what the subcommand offers.

    Never raises; a line that cannot be read has no completions.
    """
    try:
        words = split(event.text_until_cursor.removesuffix(event.symbol))[1:]
        found: Iterable[str]
        if not words or (len(words) == 1 and words[0] == "help"):
            cell = event.command.startswith("%%")
            found = (
                name for name, command in table().items() if words or (command.cell if cell else command.line)
            )
        else:
            found = find(words[0]).completions(tuple(words[1:]))
        return [word for word in map(shlex.quote, found) if word.startswith(event.symbol)]
    except WsMonitorError:
        return []
