"""Progress bars in what a cell puts out: tqdm's text, and the bar widgets of notebooks. Pure."""

from __future__ import annotations

import html
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
_WORDS: Final = ("HTMLModel", "HTMLMathModel", "LabelModel")
_BOXES: Final = ("HBoxModel", "VBoxModel", "BoxModel")
_BARS: Final = 3_000
_WIDTH: Final = 10
"""Characters of a bar, as tqdm draws it in a text."""
_TAG: Final = re.compile(r"<[^<>]{0,500}>")
_LONGEST: Final = 500
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
    """The progress bars among a kernel's widgets, and the words beside them, as their comm messages tell."""

    def __init__(self) -> None:
        self._models: dict[str, dict[str, Any]] = {}

    def opened(self, content: Mapping[str, Any]) -> Progress | None:
        """A widget was made (``comm_open``): its progress, if it is a bar."""
        state = _state(content)
        name = state.get("_model_name")
        model: dict[str, Any]
        if name in _WIDGETS:
            model = {"value": 0, "min": 0, "max": 100}
        elif name in _WORDS:
            model = {"words": ""}
        elif name in _BOXES:
            model = {"children": []}
        else:
            return None
        self._models[str(content.get("comm_id"))] = model
        if len(self._models) > _BARS:
            del self._models[next(iter(self._models))]
        return self._update(model, state)

    def knows(self, content: bytes) -> bool:
        """Whether a ``comm_msg`` with this content may be one of ours: asked before it is read."""
        return bool(self._models) and b"comm_id" in content

    def has(self, content: Mapping[str, Any]) -> bool:
        """Whether the message is of a bar, of words, or of a box of them."""
        return str(content.get("comm_id")) in self._models

    def changed(self, content: Mapping[str, Any]) -> Progress | None:
        """A widget changed (``comm_msg``): its progress, if it is a bar's."""
        model = self._models.get(str(content.get("comm_id")))
        return None if model is None else self._update(model, _state(content))

    def closed(self, content: Mapping[str, Any]) -> None:
        """A widget is gone (``comm_close``). Words and bars stay: what was shown last is what was shown."""
        model = self._models.get(str(content.get("comm_id")))
        if model is not None:
            model["closed"] = True

    def text(self, model_id: str) -> str:
        """What a widget shows now, as one line: ``100%|██████████| 30/30``; "" if it shows no bar."""
        pieces: list[str] = []
        if not self._write(model_id, pieces, 0):
            return ""
        return "".join(pieces).replace("\u2007", " ").strip()[:_LONGEST]  # tqdm's spaces, as wide as digits

    def _write(self, model_id: str, pieces: list[str], depth: int) -> bool:
        """Append what the model shows; says whether there is a bar in it."""
        model = self._models.get(model_id)
        if model is None or depth > 3:
            return False
        if "children" in model:
            bars = [
                self._write(child.removeprefix("IPY_MODEL_"), pieces, depth + 1)
                for child in model["children"][:100]
                if isinstance(child, str)
            ]
            return any(bars)
        if "words" in model:
            pieces.append(html.unescape(_TAG.sub("", model["words"])))
            return False
        total = model["max"] - model["min"]
        share = min(max((model["value"] - model["min"]) / total, 0.0), 1.0) if total > 0 else 0.0
        full = round(share * _WIDTH)
        pieces.append("|" + "█" * full + " " * (_WIDTH - full) + "|")
        return True

    @staticmethod
    def _update(model: dict[str, Any], state: Mapping[str, Any]) -> Progress | None:
        if "words" in model:
            value = state.get("value")
            if isinstance(value, str):
                model["words"] = value[:_LONGEST]
            return None
        if "children" in model:
            children = state.get("children")
            if isinstance(children, list):
                model["children"] = children
            return None
        keys = {"value", "min", "max"} & state.keys()
        for key in keys:
            value = state[key]
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                model[key] = value
        total = model["max"] - model["min"]
        told = "closed" not in model and ("_model_name" in state or bool(keys))
        return Progress(model["value"] - model["min"], total) if told and total > 0 else None


def _state(content: Mapping[str, Any]) -> Mapping[str, Any]:
    data = content.get("data")
    state = data.get("state") if isinstance(data, Mapping) else None
    return state if isinstance(state, Mapping) else {}
