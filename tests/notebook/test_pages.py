"""In which page a row stands: it stays there, and pages that empty are filled again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wsmonitor.notebook.pages import Pages


def test_a_row_stays_in_its_page_and_changes_are_stamped() -> None:
    pages = Pages(2)
    assert [pages.place(row) for row in "abcab"] == [0, 0, 1, 0, 0]
    assert len(pages) == 2
    pages.stamp(7)
    assert pages.versions == [7, 7]
    pages.place("c")
    pages.stamp(8)
    assert pages.versions == [7, 8]
    pages.stamp(9)
    assert pages.versions == [7, 8]
    assert (pages.rows(0), pages.rows(1)) == (["a", "b"], ["c"])


def test_a_page_that_has_lost_half_of_its_rows_takes_new_ones() -> None:
    pages = Pages(4)
    for row in "abcdefgh":
        pages.place(row)
    for row in "abc":
        pages.remove(row)
    pages.remove("never")
    assert [pages.place(row) for row in "ijkl"] == [0, 0, 0, 2]
    assert pages.rows(0) == ["d", "i", "j", "k"]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=120))
def test_each_row_is_in_one_page_and_no_page_is_too_long(moves: list[tuple[bool, int]]) -> None:
    pages, shown = Pages(4), set[str]()
    for place, number in moves:
        row = f"r{number}"
        if place:
            page = pages.place(row)
            assert row in pages.rows(page)
            shown.add(row)
        else:
            pages.remove(row)
            shown.discard(row)
        held = [one for page in range(len(pages)) for one in pages.rows(page)]
        assert sorted(held) == sorted(shown)
        assert all(len(pages.rows(page)) <= 4 for page in range(len(pages)))
