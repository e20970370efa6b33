"""A picture of the fan-out, as SVG: deliveries a second of each server, by how many events are under way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

OURS: Final = "wsmonitor"
SCENES: Final = ("100", "1000", "5000")
LOADS: Final = ("1 under way", "5 under way", "20 under way", "40 under way")
WIDTH: Final = 300  # of one panel, with what stands beside it
HEIGHT: Final = 250
LEFT: Final = 52
TOP: Final = 34
COLUMN: Final = 215  # of the legend
LOW: Final = 1e3
HIGH: Final = 1e7
COLOURS: Final = (
    "#0b62c4", "#35b0c9", "#6fa8e8", "#111111", "#777777", "#c43d0b", "#2e8b57",
    "#b8860b", "#8a2be2", "#d02090", "#008b8b", "#8b4513",
)  # fmt: skip


def _y(value: float) -> float:
    share = (math.log10(max(value, LOW)) - math.log10(LOW)) / (math.log10(HIGH) - math.log10(LOW))
    return TOP + HEIGHT * (1 - share)


def _x(panel: int, load: int) -> float:
    return panel * WIDTH + LEFT + load * (WIDTH - LEFT - 24) / (len(LOADS) - 1)


def _text(x: float, y: float, text: str, anchor: str = "middle", size: int = 11) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f"<text {place}>{escape(text)}</text>"


def _panel(number: int, scene: str) -> list[str]:
    left, right = _x(number, 0), _x(number, len(LOADS) - 1)
    lines = [_text((left + right) / 2, 20, f"{int(scene):,} observers", size=13)]
    for power in range(round(math.log10(LOW)), round(math.log10(HIGH)) + 1):
        y = _y(10**power)
        lines.append(f'<line x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#ddd"/>')
        if number == 0:
            name = f"{10**power // 1000:,} k/s" if power < 6 else f"{10**power // 10**6} M/s"
            lines.append(_text(left - 6, y + 4, name, "end"))
    for index, load in enumerate(LOADS):
        lines.append(_text(_x(number, index), TOP + HEIGHT + 16, load.split()[0]))
    lines.append(_text((left + right) / 2, TOP + HEIGHT + 32, "events under way"))
    return lines


def draw(rows: Iterable[Mapping[str, Any]]) -> str:
    """The SVG: a panel for each scene that was measured, logarithmic upwards; servers in the rows' order."""
    found = {(row["observers"], row["server"], row["load"]): row["deliveries/s"] for row in rows}
    servers = list(dict.fromkeys(server for _, server, _ in found))
    scenes = [scene for scene in SCENES if any(one == scene for one, _, _ in found)]
    columns = max(1, len(scenes) * WIDTH // COLUMN)
    body: list[str] = []
    for number, scene in enumerate(scenes):
        body += _panel(number, scene)
        for index, server in enumerate(servers):
            points = [
                (_x(number, at), _y(found[scene, server, load]))
                for at, load in enumerate(LOADS)
                if (scene, server, load) in found
            ]
            colour = COLOURS[index % len(COLOURS)]
            wide = 3 if server == OURS else 1.4
            dash = ' stroke-dasharray="5 3"' if server.startswith("floor") else ""
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            body.append(
                f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{wide}"{dash}/>'
            )
            body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{wide}" fill="{colour}"/>' for x, y in points]
    for index, server in enumerate(servers):
        x = LEFT + index % columns * COLUMN
        y = TOP + HEIGHT + 56 + index // columns * 18
        colour = COLOURS[index % len(COLOURS)]
        body.append(f'<rect x="{x}" y="{y - 9}" width="16" height="8" fill="{colour}"/>')
        body.append(_text(x + 22, y, server, "start"))
    width, height = len(scenes) * WIDTH, TOP + HEIGHT + 64 - (-len(servers) // columns) * 18
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" role="img">\n'
        "<title>Deliveries a second, by observers and events under way</title>\n"
        f'<rect width="{width}" height="{height}" fill="white"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def write(rows: Iterable[Mapping[str, Any]], file: Path) -> None:
    """Draw it into *file*."""
    file.write_text(draw(rows), "utf-8")
