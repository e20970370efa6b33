"""kill -9 at random moments: lost 0, twice 0, regressions 0."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.scale import many

from .kills import kill_producers, kill_servers

SEED = 20_261_123

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="not here: needs kill -9"),
    pytest.mark.timeout(many(300)),
]


def test_what_was_acknowledged_survives_kill_9_of_the_server(tmp_path: Path) -> None:
    """DURABLE, GAPLESS, ONCE, MONOTONE, AGREE, with a real server on a real file under load."""
    figures = kill_servers(tmp_path, many(5), SEED)
    assert figures.violations == 0, figures.summary()
    assert figures.acknowledged > 100
    assert figures.rounds == many(5)


def test_what_was_acknowledged_survives_kill_9_of_its_producer(tmp_path: Path) -> None:
    """And its observers are told that it is gone, and of nobody else that it is."""
    figures = kill_producers(tmp_path, many(5), SEED)
    assert figures.violations == 0, figures.summary()
    assert figures.acknowledged > 100
    assert figures.rounds == many(5)
