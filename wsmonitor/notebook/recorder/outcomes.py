"""How an execution ended, as the state of a step. Pure."""

from __future__ import annotations

from wsmonitor.protocol.states import State

from .cells import Ending, Failed


def outcome(ending: Ending | None, shown: Failed | None) -> tuple[State, str, Failed | None]:
    """The state of a step whose cell ended like this: *shown* is the last error that the kernel sent.

    An error that was shown does not mean that the cell failed: code that it ran may have.
    """
    if ending is None:
        name, message = (shown.name, "") if shown is not None else ("", "")
    else:
        name, message = ending.error, ending.message
    if not name:
        return "succeeded", "", None
    if name == "KeyboardInterrupt":
        return "cancelled", message if message.startswith("interrupted by ") else "interrupted", None
    if name in ("CancelledError", "Cancelled"):
        return "cancelled", message or "cancelled", None
    if shown is None or (ending is not None and shown.name != name):
        return "failed", "", Failed(name, message, "")
    return "failed", "", shown


def words(error: BaseException) -> str:
    """What *error* says; "" if it cannot say it."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a user's exception may do anything
        return ""
