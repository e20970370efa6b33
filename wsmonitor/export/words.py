"""Durations, sizes, moments and states in words, the same ones wherever a session is shown.

The browser's are those of ``notebook/static/format.js`` and ``texts.js``; a test compares them. Pure. Times
are integer nanoseconds since 1970 UTC, durations are seconds, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple

NANO: Final = 1_000_000_000


Tone = Literal["good", "bad", "busy", "wait", "idle"]
"""What the colour is chosen by."""


class Look(NamedTuple):
    """How a state is shown: never by its colour alone."""

    icon: str
    word: str
    tone: Tone


STATES: Final[dict[str, Look]] = {
    "pending": Look("○", "pending", "idle"),
    "running": Look("▶", "running", "busy"),
    "paused": Look("‖", "paused", "wait"),
    "awaiting_input": Look("?", "awaiting input", "wait"),
    "cancelling": Look("◌", "cancelling", "wait"),
    "cancelled": Look("⊘", "cancelled", "wait"),
    "succeeded": Look("✓", "succeeded", "good"),
    "failed": Look("✕", "failed", "bad"),
    "skipped": Look("↷", "skipped", "idle"),
    "crashed": Look("†", "crashed", "bad"),
    "absent": Look("·", "not there yet", "idle"),
}
"""Icon, word and tone by state. Icons are one cell wide in every terminal font."""

OPEN: Final = frozenset({"pending", "running", "paused", "awaiting_input", "cancelling"})
"""States that time may have changed: when the link is lost they are told in the past tense."""


ORDER: Final = (
    "succeeded", "running", "paused", "awaiting_input", "cancelling", "failed", "crashed", "cancelled",
    "skipped", "pending",
)  # fmt: skip
"""In which states are counted: what is done, what is at work, what went wrong, what is to come."""

OVER: Final = frozenset({"succeeded", "skipped"})
"""Which of them count as done in "9/14 steps"."""


def ordered(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """*counts* by state in the order of `ORDER`, without those that are 0; unknown states come last."""
    states = [*ORDER, *(state for state in counts if state not in ORDER)]
    return [(state, counts[state]) for state in states if counts.get(state)]


def look(state: str) -> Look:
    """The look of *state*; a state of a later version is shown by its own name."""
    return STATES.get(state) or Look("•", state, "idle")


def state_word(state: str, *, known: bool = True) -> str:
    """The word for *state*; with *known* false an open state is told in the past tense."""
    word = look(state).word
    return f"was {word}" if not known and state in OPEN else word


def duration(seconds: float) -> str:
    """``420 ms``, ``2.5 s``, ``37 s``, ``2:14``, ``1:02:03``, ``3 d 4 h``; negative is 0: clocks differ."""
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    if hours < 1:
        return f"{minute}:{second:02}"
    if hours < 48:
        return f"{hours}:{minute:02}:{second:02}"
    days, hour = divmod(hours, 24)
    return f"{days} d {hour} h"


def age(seconds: float) -> str:
    """A coarse age: ``now``, ``97 s``, ``5 min``, ``3 h``, ``12 d``."""
    if seconds < 1:
        return "now"
    for limit, unit, word in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{int(seconds // unit)} {word}"
    return f"{int(seconds // 86_400)} d"


def size(count: float) -> str:
    """``512 B``, ``4 KiB``, ``18.2 MiB``."""
    if count < 1024:
        return f"{int(count)} B"
    units = iter(("KiB", "MiB", "GiB", "TiB"))
    unit = "B"
    while count >= 1024 and unit != "TiB":
        count /= 1024
        unit = next(units)
    return f"{count:.1f}".removesuffix(".0") + f" {unit}"


def number(value: float) -> str:
    """A metric: integers with thousands separators, others to four significant digits."""
    if isinstance(value, int) or (value == value and abs(value) < 1e15 and value == int(value)):
        return f"{int(value):,}"
    return f"{value:,.4g}"


def moment(ns: str | int, *, date: bool = True, millis: bool = False) -> str:
    """A time in UTC: ``2026-11-22 20:01:07 UTC``; without *date* ``20:01:07``; "" for none."""
    if ns == "":
        return ""
    whole, rest = divmod(int(ns), NANO)
    try:
        when = datetime.fromtimestamp(whole, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{ns} ns"
    text = f"{when:%Y-%m-%d %H:%M:%S}" if date else f"{when:%H:%M:%S}"
    if millis:
        text += f".{rest // 1_000_000:03}"
    return f"{text} UTC" if date else text


def between(start: str, end: str | int) -> float | None:
    """Seconds from *start* to *end*, both nanoseconds; None where one of them is not known."""
    if start == "" or end == "":
        return None
    return (int(end) - int(start)) / NANO


def plural(count: int, word: str) -> str:
    """``1 step``, ``2 steps``."""
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def one_line(text: str, limit: int = 200) -> str:
    """*text* on one line, without control characters, at most *limit* characters."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text[: limit * 4]).split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
