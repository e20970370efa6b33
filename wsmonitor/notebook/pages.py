"""Which rows travel together when there are too many for one message. Pure.

Every row that a browser has is on one page, from when it was first told to when it is taken away. A page
has a version: the number of the frame in which one of its rows last changed. A browser that has all frames
up to a version at least as new has the page; any other is to be given the page again.
"""

from __future__ import annotations

from typing import Final

PAGE_ROWS: Final = 512
"""Rows of a page: some 130 kB of JSON, which a browser reads in a few milliseconds."""


class Pages:
    """See the module's docstring."""

    def __init__(self, size: int = PAGE_ROWS) -> None:
        self.versions: list[int] = []
        self._size = size
        self._members: list[dict[str, None]] = []
        self._page_of: dict[str, int] = {}
        self._roomy: list[int] = []  # pages that have lost half of their rows
        self._marked: set[int] = set()

    def place(self, row_id: str) -> int:
        """The page of a row that changed; a row that is new is given one."""
        page = self._page_of.get(row_id)
        if page is None:
            page = self._free()
            self._members[page][row_id] = None
            self._page_of[row_id] = page
        self._marked.add(page)
        return page

    def _free(self) -> int:
        while self._roomy:
            if len(self._members[self._roomy[-1]]) < self._size:
                return self._roomy[-1]
            self._roomy.pop()
        if not self._members or len(self._members[-1]) >= self._size:
            self._members.append({})
            self.versions.append(0)
        return len(self._members) - 1

    def remove(self, row_id: str) -> None:
        """The row is no longer shown."""
        page = self._page_of.pop(row_id, None)
        if page is None:
            return
        members = self._members[page]
        del members[row_id]
        self._marked.add(page)
        # When it falls below half, and not at each row after that: it is in the list once.
        if len(members) == self._size // 2 - 1 and page not in self._roomy:
            self._roomy.append(page)

    def stamp(self, number: int) -> None:
        """What changed since the last call is told by frame *number*."""
        for page in self._marked:
            self.versions[page] = number
        self._marked.clear()

    def rows(self, page: int) -> list[str]:
        """The ids of a page's rows."""
        return list(self._members[page])

    def __len__(self) -> int:
        return len(self._members)
