"""The list of commands, and how any of them ends."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from wsmonitor._version import __version__

from .failures import Exit, Failure, explain

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "demo": ("demo", "See it work: a server, a real workload, and JupyterLab (or the terminal)."),
    "serve": ("serve", "Run a server."),
    "token": ("token", "Issue, inspect and revoke tokens."),
    "sessions": ("sessions", "List the sessions and their states."),
    "watch": ("watch", "Watch a session live."),
    "command": ("command", "Send a command to a session and wait for what becomes of it."),
    "export": ("export", "Write a session to a file: JSON, an HTML page, or a recorded notebook."),
    "status": ("server", "Tell which server is used, why, and how it is."),
    "stop": ("server", "Stop the local server."),
    "logs": ("server", "Show the local server's log."),
    "rm": ("rm", "Remove sessions."),
    "spool": ("spool", "Deliver what programs could not deliver before they ended."),
}
"""Command to the module that holds it and its help in one line, so that help loads no command."""


class _Commands(click.Group):
    """Commands that are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__package__}.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 done, 1 failed, 2 wrong usage, 3 no server, 4 refused, 124 timeout, 130 Ctrl-C.",
)
@click.version_option(__version__, prog_name="wsmonitor")
def commands() -> None:
    """Live session monitoring that never lies about what it knows.

    \b
    Examples:
      wsmonitor demo                     see it work
      wsmonitor sessions                 what is running
      wsmonitor watch nightly-etl        watch it live
      wsmonitor command nightly-etl pause
    """


def run(arguments: Sequence[str] | None) -> int:
    """Run *arguments* (``sys.argv`` when None); return the exit status."""
    if arguments is None:
        # Elsewhere CI means "a server inside this process"; a command's own process never holds one.
        os.environ.setdefault("WSMONITOR_LOCAL", "process")
    try:
        result = commands.main(
            list(arguments) if arguments is not None else None, "wsmonitor", standalone_mode=False
        )
        sys.stdout.flush()
    except BaseException as error:
        if os.environ.get("WSMONITOR_DEBUG") == "1" and not isinstance(error, click.exceptions.Exit):
            raise
        return _ended(error)
    return int(result or 0)


def _ended(error: BaseException) -> int:
    """Tell what went wrong; return the exit status."""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        # click has ended the line on which the terminal echoed ^C.
        return Exit.INTERRUPTED
    if isinstance(error, BrokenPipeError):
        # The reader of a pipe has left (`| head`). What is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.UsageError):
        error.show()
        return Exit.USAGE
    if isinstance(error, click.ClickException):
        error.show()
        return Exit.FAILED
    if not isinstance(error, Exception):
        raise error
    tell(explain(error))
    return explain(error).status


def tell(failure: Failure) -> None:
    """Write *failure* to stderr: what happened, its code, what to do."""
    code = f" [{failure.code}]" if failure.code else ""
    what, *details = failure.message.splitlines() or [""]
    click.echo(f"wsmonitor: {what}{code}", err=True)
    for detail in details:
        click.echo(detail, err=True)
    if failure.hint:
        click.echo(f"  {failure.hint}", err=True)
