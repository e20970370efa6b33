"""The order of the rows, kept up change by change, against one that is made anew each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from wsmonitor.notebook.bundle import bundle

pytestmark = pytest.mark.browser

LOAD = """async (source) => {
  window.tests = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
}"""


@pytest.fixture(scope="module")
def evaluate(browser: Browser) -> Any:
    page = browser.new_page()
    ours = (Path(__file__).parent / "arrange_test.js").read_text(encoding="utf-8")
    page.evaluate(LOAD, bundle() + ours)
    yield page.evaluate
    page.close()


def test_kept_up_it_is_what_it_would_be_made_anew(evaluate: Any) -> None:
    for seed in range(1, 41):
        assert evaluate("seed => tests.compare(seed, 120)", seed) == ""


def test_a_circle_of_parents_hangs_from_the_chain_and_is_mended(evaluate: Any) -> None:
    assert evaluate("tests.circle()") == ["c:1@1 s:a@2 s:b@3", "c:1@1 s:b@2 s:a@3"]


def test_many_rows_take_their_places_in_slices(evaluate: Any) -> None:
    assert evaluate("tests.slices()") == [True, True, 5000, "s:4999"]


def test_rows_are_sorted_and_filtered_by_state(evaluate: Any) -> None:
    assert evaluate("tests.sortedAndFiltered()") == ["10 9 2", "2 9 10", "2 10 9", "9 2 10", "9 2", "9"]
