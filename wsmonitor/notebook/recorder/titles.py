"""What a recorded cell is called in a list: what its author called it, or its first telling line. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from wsmonitor.publish.values import cut

LENGTH: Final = 80
_PREPARES: Final = re.compile(
    r"(?:import\s|from\s+[\w.]+\s+import\b|%(?:load_ext|reload_ext|autoreload|matplotlib|config)\b)"
)
_COMMENT: Final = re.compile(r"#+[\s%#=*-]*")


def title(source: str, count: int) -> str:
    """The name of the step of a cell: ``[3] fit the model``.

    A comment in the first line names the cell. Else it is the first line that is no import and loads no
    extension, where there is one. The line of a cell magic stands before that of what it runs.

    Args:
        count: the execution count; 0 where it is not known.
    """
    told = cut(_telling(source), LENGTH)
    return f"[{count}] {told}" if count else told


def _telling(source: str) -> str:
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    if not lines:
        return "(empty)"
    if lines[0].startswith("%%"):
        rest = _telling("\n".join(lines[1:])) if len(lines) > 1 else ""
        return f"{lines[0]} · {rest}" if rest else lines[0]
    comment = _COMMENT.sub("", lines[0], count=1) if lines[0].startswith("#") else ""
    code = [line for line in lines if not line.startswith("#")]
    return comment or next(_other_than_imports(code), code[0] if code else lines[0])


def _other_than_imports(lines: list[str]) -> Iterator[str]:
    within = False  # the parentheses of an import
    for line in lines:
        if within or _PREPARES.match(line):
            within = (within or "(" in line) and ")" not in line
        else:
            yield line
