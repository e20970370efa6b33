"""Progress bars in what a cell puts out: tqdm's text, and the bar widgets of notebooks. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_NUMBER: Final = r"(\d{1,15}(?:\.\d{1,6})?)([kKMGT]?)"
_TQDM: Final = re.compile(
    rf"\d{{1,3}}%\|[^|\n]{{0,400}}\| {{0,12}}{_NUMBER}i?B?/{_NUMBER}i?B? \[[^\]\n]{{0,120}}"
)
_UNIT: Final = re.compile(r"[\d.?]([A-Za-z]{1,16})/s\]")
_SCALE: Final = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_WIDGETS: Final = ("IntProgressModel", "FloatProgressModel")
_BARS: Final = 1_000
_TAIL: Final = 1_000


@dataclass(frozen=True, slots=True)
class Progress:
    """How far something is: *done* of *total* (None: not known) *unit*."""

    done: float
    total: float | None
    unit: str = ""


def tqdm_text(text: str) -> Progress | None:
    """The progress that the last of tqdm's bars in a piece of a stream shows; None if there is none.

    Inner bars, which tqdm draws on lines below by moving the cursor, are passed over.
    """
    tail = text[-_TAIL:]
    if "%|" not in tail:
        return None
    for piece in reversed(tail.split("\r")):
        if "%|" not in piece or piece.startswith("\n"):
            continue
        match = _TQDM.search(piece)
        if match is not None:
            unit = _UNIT.search(piece)
            done, total = _number(match[1], match[2]), _number(match[3], match[4])
            return Progress(done, total, unit[1] if unit is not None else "it")
    return None


def _number(digits: str, scale: str) -> float:
    value = float(digits) * _SCALE[scale]
    return int(value) if value.is_integer() else value


class Bars:
    """The progress bars among a kernel's widgets, as their comm messages tell of them."""

    def __init__(self) -> None:
        self._bars: dict[str, dict[str, Any]] = {}

    def opened(self, content: Mapping[str, Any]) -> Progress | None:
        """A widget was made (``comm_open``): its progress, if it is a bar."""
        state = _state(content)
        if state.get("_model_name") not in _WIDGETS or len(self._bars) >= _BARS:
            return None
        bar = self._bars[str(content.get("comm_id"))] = {"value": 0, "min": 0, "max": 100}
        return self._update(bar, state)

    def knows(self, content: bytes) -> bool:
        """Whether a ``comm_msg`` with this content may be a bar's: asked before it is read."""
        return bool(self._bars) and b"comm_id" in content

    def changed(self, content: Mapping[str, Any]) -> Progress | None:
        """A widget changed (``comm_msg``): its progress, if it is a bar's."""
        bar = self._bars.get(str(content.get("comm_id")))
        state = _state(content)
        return None if bar is None or not state.keys() & bar.keys() else self._update(bar, state)

    def closed(self, content: Mapping[str, Any]) -> None:
        """A widget is gone (``comm_close``)."""
        self._bars.pop(str(content.get("comm_id")), None)

    @staticmethod
    def _update(bar: dict[str, Any], state: Mapping[str, Any]) -> Progress | None:
        for key in bar.keys() & state.keys():
            value = state[key]
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                bar[key] = value
        total = bar["max"] - bar["min"]
        return Progress(bar["value"] - bar["min"], total) if total > 0 else None


def _state(content: Mapping[str, Any]) -> Mapping[str, Any]:
    data = content.get("data")
    state = data.get("state") if isinstance(data, Mapping) else None
    return state if isinstance(state, Mapping) else {}
