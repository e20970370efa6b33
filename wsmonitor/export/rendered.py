"""A recorded cell's outputs as HTML that can do no harm: text, pictures, and HTML in a sealed frame. Pure.

Pictures are data in the file itself. SVG is shown as a picture, in which browsers run no script. HTML stands
in a frame of its own (see `frames`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from wsmonitor.protocol.entities import LogRecord, Step

from .cells import outputs_of
from .frames import Frames
from .recording import Fetch, run_of

PICTURES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")
_ANSI: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/=\s]*")
LONGEST: Final = 400_000
"""Characters of one output's text in the file."""


def rendered(
    step: Step,
    fetch: Fetch,
    lines: Sequence[LogRecord],
    text: Callable[[str], str],
    frames: Frames,
    *,
    heard: bool,
) -> Iterator[str]:
    """The outputs of a recorded cell as pieces of HTML.

    Args:
        fetch: gives large values.
        lines: the step's log records.
        text: escapes.
        frames: those of the page.
        heard: whether the recorded kernel is heard.
    """
    for output in outputs_of(run_of(step, heard), fetch, lambda _step, _count: lines).outputs:
        kind = output["output_type"]
        if kind == "stream":
            css = " class=bad" if output["name"] == "stderr" else ""
            yield _pre(output["text"], text, css)
        elif kind == "error":
            trace = "\n".join(output["traceback"]) or f"{output['ename']}: {output['evalue']}"
            yield _pre(trace, text, " class=bad")
        else:
            yield _best(output["data"], text, frames)


def _pre(value: str, text: Callable[[str], str], css: str = "") -> str:
    plain = _ANSI.sub("", value)
    cut = ""
    if len(plain) > LONGEST:
        cut = f"<p class=cut>⚠ the first {LONGEST:,} of {len(plain):,} characters</p>"
        plain = plain[:LONGEST]
    return f"<pre{css}>{text(plain)}</pre>{cut}"


def _best(data: dict[str, Any], text: Callable[[str], str], frames: Frames) -> str:
    """The richest form of an output that can be shown here."""
    for mime in PICTURES:
        found = data.get(mime)
        if isinstance(found, str) and _BASE64.fullmatch(found):
            return (
                f'<p><img src="data:{mime};base64,{"".join(found.split())}" alt="{_words(data, text)}"></p>'
            )
    svg = data.get("image/svg+xml")
    if isinstance(svg, str):
        packed = base64.b64encode(svg.encode()).decode()
        return f'<p><img src="data:image/svg+xml;base64,{packed}" alt="{_words(data, text)}"></p>'
    page = data.get("text/html")
    if isinstance(page, str) and len(page) <= LONGEST:
        inside, height = frames.document(page)
        return f'<iframe sandbox srcdoc="{text(inside)}" height={height} title="HTML output"></iframe>'
    for mime in ("text/plain", "text/markdown", "text/latex"):
        if isinstance(data.get(mime), str):
            return _pre(data[mime], text)
    if data:
        mime, first = next(iter(data.items()))
        shown = first if isinstance(first, str) else msgspec.json.encode(first).decode()
        return f"<p class=cut>{text(mime)}</p>{_pre(shown[:4096], text)}"
    return ""


def _words(data: dict[str, Any], text: Callable[[str], str]) -> str:
    words = data.get("text/plain")
    return text(words[:200]) if isinstance(words, str) else "picture"
