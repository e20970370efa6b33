"""``%wsmonitor restore``."""

from __future__ import annotations

from typing import Any, Final

from . import Call, Subcommand
from .asking import session_names


def _restore(call: Call) -> Any:
    from wsmonitor.notebook.restore.widget import restore

    words = call.at_most(1)
    return restore(words[0] if words else "", getattr(call.shell, "user_ns", None))


COMMANDS: Final = (
    Subcommand(
        "restore",
        "restore [SESSION]",
        "recorded outputs back into this notebook: shows what would be\nrestored, and asks",
        _restore,
        details="""\
SESSION is a recording's name (its newest run) or id; without it, the last recording of this notebook.
A cell is given outputs only if its source is the recorded one. Nothing is replaced before you say so, and
"Undo" brings back what was there. In a terminal: wsmonitor export SESSION -o FILE.ipynb --into NOTEBOOK""",
        completions=session_names,
    ),
)
