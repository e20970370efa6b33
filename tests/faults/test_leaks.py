"""CLEAN: a thousand cycles leave nothing, on either side, and asyncio's debug mode has nothing to say."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.scale import SCALE, many

from .census import Census, grown
from .leaks import EXACT, run

MEBIBYTE = 1024 * 1024

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="not here: counts by /proc")


def left(figures: dict[str, Any], cycles: int) -> dict[str, Any]:
    """What is left: of what a leak would add to in every cycle, far less than that is none."""
    found = {name: figures[name] for name in EXACT if figures.get(name)}
    for name, more in figures.items():
        if name not in ("wrong", "memory", *EXACT) and more > cycles * 0.4:
            found[name] = more
    if figures["wrong"]:
        found["wrong"] = figures["wrong"]
    if SCALE > 1 and figures["memory"] > MEBIBYTE:
        # In a short run the allocator has not got all that it needs.
        found["memory"] = figures["memory"]
    return found


@linux
@pytest.mark.timeout(many(240))
@pytest.mark.parametrize("kind", ["subscribe", "again", "publish", "observe"])
def test_cycles_leave_nothing(kind: str) -> None:
    """Connect, subscribe, close; subscribe and leave; publish and say goodbye; mount and unmount a view."""
    cycles = many(10 if kind == "observe" else 17)  # three times
    sides = run(kind, cycles, 20 if SCALE == 1 else 400)
    assert {side: left(figures, cycles) for side, figures in sides.items()} == {"client": {}, "server": {}}


@linux
def test_the_census_finds_what_is_left() -> None:
    """One entry of a map, one callback, one file per cycle: each is seen."""
    kept: dict[int, Any] = {}
    hook, thread_hook = sys.unraisablehook, threading.excepthook
    try:
        census = Census()
        census.take()
        before = census.take()
        for number in range(1_000):
            kept[number] = lambda: None
        more = grown(before, census.take())
        assert more["entries"] >= 1_000
        assert more["callbacks"] >= 1_000
        with Path(__file__).open():
            assert grown(before, census.take())["files"] == 1
    finally:
        sys.unraisablehook = hook
        threading.excepthook = thread_hook
    assert len(kept) == 1_000
