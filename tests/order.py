"""Which test files are begun first: those that take longest, so that no worker ends alone with one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent

LONGEST: Final = (
    "tests/simulation/test_simulation.py",
    "tests/simulation/test_planted.py",
    "tests/server_front/test_process.py",
    "tests/e2e/test_spool.py",
    "tests/cli/test_processes.py",
    "tests/faults/test_leaks.py",
    "tests/faults/test_cluster.py",
    "tests/notebook/test_store.py",
    "tests/recorder/test_life.py",
    "tests/test_tutorials.py",
    "tests/server/test_redis_faults.py",
    "tests/e2e/test_pauses.py",
    "tests/recorder/test_unchanged.py",
    "tests/test_conftest.py",
    "tests/faults/test_kills.py",
    "tests/notebook/test_static_trace.py",
    "tests/notebook/test_closed_tab.py",
    "tests/fuzz/test_fuzz.py",
    "tests/client/test_life.py",
    "tests/benchmarks/test_generator.py",
)
"""Of those without a browser, by the time that each took (`pytest --durations`)."""


def longest_first(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first; all others stay as they are."""
    rank = {str(ROOT / name): place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(str(item.path), len(rank)))
