"""``python -m wsmonitor.demo``: the analysis as a program.

Exit status: 0 done, 130 cancelled or interrupted.
"""

from __future__ import annotations

import argparse
import sys

import wsmonitor as wm

from .stdlib_analysis import run


def main(arguments: list[str] | None = None) -> int:
    """Run the analysis as the command line says; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m wsmonitor.demo",
        description="Analyses the source of Python's standard library, and publishes that as a session.",
        epilog="Watch it with: wsmonitor watch NAME",
    )
    parser.add_argument("--name", default="stdlib-analysis", help="the session's name (default: %(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        help="how long it should last: the work is repeated that long (default: %(default)g; 0: not at all)",
    )
    parser.add_argument("--url", help="the server; by default the local one, started if there is none")
    options = parser.parse_args(arguments)
    try:
        summary = run(options.name, seconds=max(0.0, options.seconds), url=options.url)
    except wm.Cancelled as exc:
        sys.stderr.write(f"{exc}\n")
        return 130
    except KeyboardInterrupt:
        return 130
    width = max((len(row["package"]) for row in summary), default=0)
    for row in summary:
        sys.stdout.write(
            f"{row['package']:<{width}}  {row['files']:>4} files {row['lines']:>7,} lines "
            f"{row['functions']:>6,} functions  {row['documented %']:>5.1f} % documented\n"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
