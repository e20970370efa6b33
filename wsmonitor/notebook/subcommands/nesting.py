"""``%wsmonitor nest``: ``asyncio.run`` within a cell, for the user's own code."""

from __future__ import annotations

from typing import Final

from wsmonitor.protocol.errors import UsageError

from . import Call, Subcommand

TOLD: Final = """\
asyncio.run(...) and loop.run_until_complete(...) work in cells now, on the loop that runs this kernel.
It changes asyncio itself, for everything in this kernel, until the kernel is restarted.
wsmonitor does not need it.
"""

DETAILS: Final = """\
For code that calls asyncio.run(...) and is to run in a cell unchanged, where Jupyter's own loop runs already.
Cells that can `await` need nothing of the kind, and `await obs.wait_async()` works without it.

It applies nest-asyncio2 (pip install 'wsmonitor[nest]') to the kernel's loop. Its limits:
  - It changes asyncio for all code of this kernel. Restart the kernel to be rid of it.
  - While a nested asyncio.run(...) waits, the kernel's loop turns: other tasks go on, also those that
    must not come in between. What the front-end sends meanwhile is kept, and comes when the cell has ended.
  - Callbacks of widgets in the kernel still come after the cell. Turning a loop is no way to get them.
  - Loops that are not asyncio's own (uvloop) cannot be changed so.
"""


def _nest(call: Call) -> None:
    call.nothing()
    try:
        import nest_asyncio2
    except ImportError:
        raise UsageError(
            "%wsmonitor nest needs nest-asyncio2, which is not installed: "
            "%pip install nest-asyncio2, and then again"
        ) from None
    try:
        nest_asyncio2.apply()
    except (RuntimeError, ValueError) as exc:
        raise UsageError(f"this kernel's loop cannot be nested: {exc}") from None
    print(TOLD, end="")  # noqa: T201 - what it has changed is said


COMMANDS: Final = (
    Subcommand(
        "nest",
        "nest",
        "let your code call asyncio.run() in cells (nest-asyncio2);\n"
        "changes asyncio until the kernel is restarted",
        _nest,
        details=DETAILS,
    ),
)
