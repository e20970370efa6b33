"""Half-open links, with real packets that are really dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ELSEWHERE
from tests.scale import SCALE, many

from .links import NoNamespacesError, cut_links


@pytest.mark.timeout(many(240))
def test_a_link_that_dies_without_a_word_is_noticed_and_loses_nothing(tmp_path: Path) -> None:
    """By observers, producers and the server; what was acknowledged is told once and in order."""
    rounds = 50 if SCALE > 1 else 1
    try:
        figures = cut_links(tmp_path, rounds, 20_261_123, timeout=6.0)
    except NoNamespacesError as exc:
        pytest.skip(f"{ELSEWHERE}{exc}")
    assert figures.violations == 0, figures.summary()
    assert figures.rounds == rounds
    assert figures.acknowledged > 50
