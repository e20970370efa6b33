"""Curves over time as SVG: panels side by side, each with a scale of its own. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from xml.sax.saxutils import escape

WIDTH: Final = 300
HEIGHT: Final = 150
LEFT: Final = 52
TOP: Final = 44
BELOW: Final = 46
LEGEND: Final = 30

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One curve; its name stands in the legend once."""

    name: str
    points: Points
    colour: str
    wide: bool = False


@dataclass(frozen=True)
class Panel:
    """Curves with the same axes."""

    title: str
    below: str
    lines: Sequence[Line] = field(default_factory=list)


def ceiling(value: float) -> float:
    """The next of 1, 2, 5, 10, 20 … that is not below *value*."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))


def _text(x: float, y: float, text: str, anchor: str = "middle", size: int = 11) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _wrapped(title: str, width: int = 38) -> list[str]:
    lines = [""]
    for word in title.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _panel(panel: Panel, x0: float, y0: float) -> list[str]:
    wide, high = WIDTH - LEFT - 18, HEIGHT
    points = [point for line in panel.lines for point in line.points]
    right = ceiling(max((x for x, _ in points), default=1.0))
    top = ceiling(max((y for _, y in points), default=1.0))
    left, upper = x0 + LEFT, y0 + TOP

    def place(x: float, y: float) -> str:
        return f"{left + wide * x / right:.1f},{upper + high * (1 - y / top):.1f}"

    body = [
        _text(left + wide / 2, y0 + 16 + 14 * number, words, size=12)
        for number, words in enumerate(_wrapped(panel.title))
    ]
    for part in range(5):
        y = upper + high * part / 4
        body.append(f'<line x1="{left:.1f}" y1="{y:.1f}" x2="{left + wide:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        body.append(_text(left - 6, y + 4, f"{top * (4 - part) / 4:,.0f}", "end"))
        body.append(_text(left + wide * part / 4, upper + high + 16, f"{right * part / 4:g}"))
    body.append(_text(left + wide / 2, upper + high + 32, panel.below))
    for line in panel.lines:
        path = " ".join(place(x, y) for x, y in line.points)
        stroke = 2.4 if line.wide else 1.4
        body.append(f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="{stroke}"/>')
    return body


def draw(title: str, panels: Sequence[Panel], columns: int) -> str:
    """The SVG."""
    rows = -(-len(panels) // columns)
    width, each = columns * WIDTH, TOP + HEIGHT + BELOW
    height = rows * each + LEGEND
    body: list[str] = []
    for number, panel in enumerate(panels):
        body += _panel(panel, number % columns * WIDTH, number // columns * each)
    named = {line.name: line.colour for panel in panels for line in panel.lines}
    for number, (name, colour) in enumerate(named.items()):
        x, y = LEFT + number * 180, rows * each + 16
        body.append(f'<rect x="{x}" y="{y - 9}" width="16" height="8" fill="{colour}"/>')
        body.append(_text(x + 22, y, name, "start"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" role="img">\n'
        f"<title>{escape(title)}</title>\n"
        f'<rect width="{width}" height="{height}" fill="white"/>\n' + "\n".join(body) + "\n</svg>\n"
    )
