"""``python -m benchmarks``: list the benchmarks; ``python -m benchmarks NAME``: run one.

``--write`` puts the result into ``docs/benchmarks.md``, between the markers of that benchmark.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import front_end, kernels, million, notebook, propagation, recording, spool, stalled
from .machine import describe

DOCS = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"

BENCHMARKS: dict[str, tuple[str, Callable[..., list[dict[str, Any]]]]] = {
    front_end.NAME: ("the observer's front-end in Chromium: long tasks, frames, first paint", front_end.run),
    recording.NAME: ("what recording costs a cell, as a front-end sees it", recording.run),
    notebook.NAME: (
        "the observer in JupyterLab and Chromium: event to pixel, IOPub, gaps, reload, commands",
        notebook.run,
    ),
    kernels.NAME: ("each ipykernel in JupyterLab: commands, re-runs, losses, a closed tab", kernels.run),
    million.NAME: ("a session of a million steps, and what a small one beside it notices", million.run),
    stalled.NAME: ("one stalled reader among a hundred: the server's memory, the others' times", stalled.run),
    spool.NAME: (
        "100,000 changes while the server is away: kept, delivered once; how programs end",
        spool.run,
    ),
    propagation.NAME: ("publisher's step change to another client's callback", propagation.run),
}


def table(rows: list[dict[str, Any]]) -> str:
    """*rows* as a Markdown table."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def write(name: str, command: str, rows: list[dict[str, Any]], document: Path = DOCS) -> None:
    """Put *rows* into the docs, in the place of what this benchmark wrote before."""
    section = f"Measured {describe()}.\nAgain: `{command}`.\n\n{table(rows)}\n"
    text = document.read_text(encoding="utf-8")
    new, count = re.subn(
        rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)",
        lambda match: match[1] + section + match[2],
        text,
        flags=re.DOTALL,
    )
    if count != 1:
        raise SystemExit(
            f"{document.name} needs the markers '<!-- {name}: begin -->' and '<!-- {name}: end -->'"
        )
    document.write_text(new, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", choices=sorted(BENCHMARKS), help="which one; without it, a list")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default 3)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--write", action="store_true", help="put the result into docs/benchmarks.md")
    options = parser.parse_args()
    if options.name is None:
        for name, (what, _) in BENCHMARKS.items():
            print(f"{name:14} {what}")
        return
    rows = BENCHMARKS[options.name][1](rounds=options.rounds)
    print(json.dumps(rows, indent=2) if options.json else table(rows))
    if options.write:
        write(options.name, f"python -m benchmarks {options.name} --rounds {options.rounds} --write", rows)


if __name__ == "__main__":
    sys.exit(main())
