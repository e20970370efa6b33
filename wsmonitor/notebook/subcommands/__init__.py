"""The subcommands of ``%wsmonitor``: one table, made of what the modules here register.

A module holds ``COMMANDS``, a tuple of `Subcommand`, and is named in `HOMES`; the order there is the
order of the help. It is imported with the extension, so it imports what costs something where it is used.
"""

from __future__ import annotations

import getopt
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, Final

from wsmonitor.protocol.errors import UsageError

HOMES: Final = ("asking", "recording", "restoring", "stepping", "nesting")
"""The modules of this package that register subcommands."""

_SYNOPSIS_WIDTH: Final = 26


@dataclass(frozen=True, slots=True)
class Call:
    """One use of a subcommand.

    Attributes:
        name: the subcommand.
        words: what stands behind its name, split as a shell does.
        shell: the IPython shell.
        body: the cell beneath ``%%wsmonitor …``; None for ``%wsmonitor …``.
    """

    name: str
    words: tuple[str, ...]
    shell: Any = None
    body: str | None = None

    def nothing(self) -> None:
        """Accept no arguments.

        Raises:
            UsageError: there are some.
        """
        if self.words:
            raise UsageError(f"%wsmonitor {self.name} takes no arguments, not {' '.join(self.words)!r}")

    def at_most(self, count: int) -> tuple[str, ...]:
        """The words, which must be no more than *count*.

        Raises:
            UsageError: there are more.
        """
        if len(self.words) > count:
            extra = " ".join(self.words[count:])
            raise UsageError(f"%wsmonitor {self.name} cannot make sense of {extra!r} (quote what has spaces)")
        return self.words

    def options(self, *names: str) -> tuple[dict[str, str], tuple[str, ...]]:
        """Options, and the other words; options may stand anywhere.

        Args:
            names: those there are: ``"live"`` is a flag (its value is ""), ``"session="`` takes a value.

        Raises:
            UsageError: there is another one, or a value is missing.
        """
        try:
            found, rest = getopt.gnu_getopt(list(self.words), "", list(names))
        except getopt.GetoptError as exc:
            known = ", ".join("--" + name.rstrip("=") for name in names)
            raise UsageError(f"%wsmonitor {self.name}: {exc.msg}; it has {known}") from None
        return {name.removeprefix("--"): value for name, value in found}, tuple(rest)


@dataclass(frozen=True, slots=True)
class Subcommand:
    """One subcommand.

    Attributes:
        name: the word behind ``%wsmonitor``.
        synopsis: its arguments, as in ``"watch NAME"``: the name first.
        summary: what it does, for the table; one line or two.
        run: does it; what it returns is the cell's result.
        line, cell: whether there is ``%wsmonitor NAME``, and ``%%wsmonitor NAME``.
        details: what ``%wsmonitor NAME --help`` says below the summary.
        completions: words that may come next on Tab, given those already there. It must not block.
    """

    name: str
    synopsis: str
    summary: str
    run: Callable[[Call], Any]
    line: bool = True
    cell: bool = False
    details: str = ""
    completions: Callable[[tuple[str, ...]], Iterable[str]] = field(default=lambda words: ())

    def usage(self) -> str:
        """Its entry in the table: a line or a few, each with its end."""
        head = f"{'%%' if self.cell else '%'}wsmonitor {self.synopsis}"
        first, *more = self.summary.splitlines()
        indent = " " * (_SYNOPSIS_WIDTH + 1)
        if len(head) > _SYNOPSIS_WIDTH:
            lines = [head, indent + first]
        else:
            lines = [f"{head:<{_SYNOPSIS_WIDTH}} {first}"]
        return "".join(line.rstrip() + "\n" for line in (*lines, *(indent + line for line in more)))

    def help(self) -> str:
        """Everything there is to say about it."""
        return self.usage() + (f"\n{self.details.strip()}\n" if self.details else "")


@cache
def table() -> dict[str, Subcommand]:
    """All subcommands by name, in the order of the help."""
    found: dict[str, Subcommand] = {}
    for home in HOMES:
        for command in import_module(f"{__name__}.{home}").COMMANDS:
            assert command.name not in found, command.name
            found[command.name] = command
    return found
