"""What was measured, kept as JSON in ``benchmarks/results``; the documents are made from nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from .machine import describe

FOLDER: Final = Path(__file__).resolve().parent / "results"


def keep(name: str, part: str, command: str, rows: list[dict[str, Any]], folder: Path = FOLDER) -> None:
    """Keep *rows* as the newest of that *part* of the benchmark *name*."""
    folder.mkdir(exist_ok=True)
    parts = load(name, folder)
    parts[part] = {"measured": describe(), "command": command, "rows": rows}
    # Parts in order, rows as they are: their order is that of the table's columns.
    text = json.dumps(dict(sorted(parts.items())), indent=1, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n", "utf-8")


def load(name: str, folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """All parts of the benchmark *name*, if there are any: of each ``measured``, ``command`` and ``rows``."""
    file = folder / f"{name}.json"
    if not file.exists():
        return {}
    parts: dict[str, dict[str, Any]] = json.loads(file.read_text("utf-8"))
    return parts


def rows(name: str, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The rows of all parts."""
    return [row for part in load(name, folder).values() for row in part["rows"]]
