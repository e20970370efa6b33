"""The command line: ``wsmonitor`` and ``python -m wsmonitor``.

========== ==========================================================
module     holds
========== ==========================================================
app        the list of commands, and how any of them ends
options    the options that commands share
failures   exit statuses, and errors in words
feed       a blocking face on the client, for commands
scene      what the terminal view shows; story: the event log in words
terminal   the terminal view as lines of text
lines      ``watch --json``
========== ==========================================================

Each command, or family of commands, is a module of its own, loaded when it is called.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; return its exit status. Never raises, except with ``WSMONITOR_DEBUG=1``."""
    from .app import run

    return run(arguments)


__all__ = ["main"]
