"""``%wsmonitor record``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from wsmonitor.protocol.errors import UsageError

from . import Call, Subcommand


def _record(call: Call) -> None:
    from wsmonitor.notebook.recorder import starting

    words = call.at_most(1)
    match words:
        case ("off",):
            ended = starting.stop("%wsmonitor record off")
            if ended is None:
                raise UsageError("this notebook is not being recorded; %wsmonitor record starts it")
            _say(f"The recording {ended.session.name!r} has ended (session {ended.session.id}).\n")
        case ("status",):
            _say(starting.status(starting.current()))
        case _:
            _say(starting.announcement(starting.start(call.shell, *words)))


def _say(text: str) -> None:
    print(text, end="")  # noqa: T201 - the answer of a magic is text


def _completions(words: tuple[str, ...]) -> Iterable[str]:
    return () if words else ("off", "status")


COMMANDS: Final = (
    Subcommand(
        "record",
        "record [NAME]",
        "record every cell from now on: source, outputs, errors; also\nrecord off, record status",
        _record,
        details="""\
Without NAME the recording is called after the notebook. Each execution becomes a step of a session, live, and
stays there when the browser goes away. What is recorded, and where it goes, is printed at the start.

Always, by configuration (ipython_kernel_config.py):
    c.InteractiveShellApp.extensions = ["wsmonitor"]
    c.WsMonitor.record = True          # or a name, in which {notebook} is the notebook's
""",
        completions=_completions,
    ),
)
