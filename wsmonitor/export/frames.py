"""HTML of others in sealed frames: a style sheet of ours below its own, and nothing that acts. Pure.

A frame has an empty ``sandbox``: an origin of its own, no script, no forms. The page's policy, which holds in
its frames too, forbids every request, and every style that it does not name by its digest. So the styles that
a frame's HTML has are named there: they reach no further than the frame, and can load nothing.
"""

from __future__ import annotations

import base64
import hashlib
from html.parser import HTMLParser
from typing import Final

STYLES: Final = 500
"""Styles of all frames that the policy names, at most: a table may have one for each of its cells."""

LOWEST: Final = 48  # pixels
HIGHEST: Final = 420
_LINE: Final = 22
_HEIGHTS: Final = {
    "tr": 27,
    "p": 28,
    "li": 22,
    "br": 20,
    "h1": 42,
    "h2": 38,
    "h3": 34,
    "svg": 240,
    "img": 240,
}


def digest(text: str) -> str:
    """*text* as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


class Frames:
    """The frames of one page.

    Attributes:
        styles: what the page's policy must name for them.
    """

    def __init__(self, sheet: str) -> None:
        self._sheet = sheet
        self._named: dict[str, None] = {}  # in order
        self._attributes = False

    @property
    def styles(self) -> list[str]:
        return [*(["'unsafe-hashes'"] if self._attributes else []), *self._named]

    def document(self, source: str) -> tuple[str, int]:
        """What stands in the frame of *source*, and how high it is likely to be, in pixels."""
        source = source.replace("\r\n", "\n").replace("\r", "\n")  # as browsers read it
        looked = _Look()
        looked.feed(source)
        looked.close()
        for style in (self._sheet, *looked.sheets, *looked.attributes):
            if len(self._named) < STYLES:
                self._named[digest(style)] = None
        self._attributes |= bool(looked.attributes)
        height = min(HIGHEST, max(LOWEST, looked.height))
        return f"<!doctype html><style>{self._sheet}</style>{source}", height


class _Look(HTMLParser):
    """The styles of an HTML text, and a guess of its height."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.sheets: list[str] = []
        self.attributes: list[str] = []
        self.height = _LINE
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag == "style"
        if self._inside:
            self.sheets.append("")
        self.height += _HEIGHTS.get(tag, 0)
        self.attributes += [value for name, value in attrs if name == "style" and value]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._inside = False

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.sheets[-1] += data
