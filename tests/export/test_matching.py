"""Which recorded execution belongs to which cell: by cases, and by properties of any notebook."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsmonitor.export.matching import REDACTED, Executed, Match, Place, match, same_source
from wsmonitor.publish import redaction

GIVEN_BACK = ("id", "source", "unsure")


def test_an_untouched_notebook_is_matched_by_ids() -> None:
    cells = [("a", "x = 1"), ("b", "x"), ("c", "x")]
    found = match([Executed(*cell) for cell in cells], [Place(*cell) for cell in cells])
    assert found == [Match(n, "id", n) for n in range(3)]


def test_the_last_execution_of_a_cell_wins() -> None:
    found = match(
        [Executed("a", "x"), Executed("b", "y"), Executed("a", "x")], [Place("a", "x"), Place("b", "y")]
    )
    assert found == [Match(2, "id", 0, runs=2), Match(1, "id", 1)]


def test_of_a_cell_that_was_edited_and_edited_back_the_execution_of_its_source_counts() -> None:
    found = match([Executed("a", "x"), Executed("a", "y")], [Place("a", "x")])
    assert found == [Match(0, "id", 0, runs=2, later=1)]


def test_an_edited_cell_is_left_alone() -> None:
    assert match([Executed("a", "x")], [Place("a", "x + 1")]) == [Match(0, "changed", 0)]
    assert match([Executed("a", "x")], [Place("a", "x", code=False)]) == [Match(0, "changed", 0)]


def test_a_deleted_cell_is_absent() -> None:
    assert match([Executed("a", "x")], [Place("b", "y")]) == [Match(0, "absent", None)]
    assert match([Executed("a", "x")], []) == [Match(0, "absent", None)]


def test_a_pasted_cell_has_a_new_id_and_is_found_by_its_source() -> None:
    assert match([Executed("a", "x")], [Place("new", "x")]) == [Match(0, "source", 0)]


def test_the_cell_with_the_id_comes_before_one_with_the_source() -> None:
    assert match([Executed("a", "x")], [Place("copy", "x"), Place("a", "x")]) == [Match(0, "id", 1)]


def test_two_cells_whose_contents_were_exchanged() -> None:
    found = match([Executed("a", "x"), Executed("b", "y")], [Place("a", "y"), Place("b", "x")])
    assert found == [Match(0, "source", 1), Match(1, "source", 0)]


def test_which_of_two_same_cells_ran_is_a_guess_and_said_to_be_one() -> None:
    found = match([Executed("a", "x")], [Place("n1", "x"), Place("n2", "x")])
    assert found == [Match(0, "unsure", 0)]


def test_as_many_same_cells_as_ran_are_paired_in_order() -> None:
    found = match([Executed("a", "x"), Executed("b", "x")], [Place("n1", "x"), Place("n2", "x")])
    assert found == [Match(0, "source", 0), Match(1, "source", 1)]


def test_without_ids_executions_of_one_source_are_those_of_its_one_cell() -> None:
    found = match([Executed("", "x"), Executed("", "x")], [Place("", "x")])
    assert found == [Match(1, "source", 0, runs=2)]


def test_an_empty_cell_is_matched_by_its_id_only() -> None:
    assert match([Executed("a", "")], [Place("a", "")])[0].how == "id"
    assert match([Executed("a", "")], [Place("b", "")])[0].how == "absent"


@pytest.mark.parametrize(
    ("recorded", "now", "same"),
    [
        ("x\r\ny", "x\ny\n", True),
        ("\nx", "x  \n", True),
        ("  x", "x", False),
        (f'token = "{REDACTED}"', 'token = "abc"', True),
        (f'token = "{REDACTED}"', 'token = ""', False),
        (f'token = "{REDACTED}"\nf()', 'token = "abc"\ng()', False),
        (f"{REDACTED} {REDACTED}", "a b", True),
        (f"{REDACTED}", "", False),
        (f"a{REDACTED}b{REDACTED}", "aXbY", True),
    ],
)
def test_sources_are_compared_apart_from_what_was_redacted(recorded: str, now: str, same: bool) -> None:
    assert same_source(Executed("", recorded), now) is same


def test_of_a_long_source_that_is_no_longer_kept_the_beginning_is_compared() -> None:
    cut = Executed("a", "import math\nx = ", whole=False)
    assert same_source(cut, "import math\nx = math.pi\n")
    assert not same_source(cut, "import math\ny = 1")
    assert not same_source(Executed("a", "", whole=False), "x")


def test_the_mark_is_the_redactions() -> None:
    assert REDACTED == redaction.REDACTED


def test_what_the_redaction_took_out_of_a_source_does_not_keep_it_from_being_found() -> None:
    source = 'connect("postgres://ada:s3cret-s3cret@db/x")\napi_key = "0123456789abcdef"\nprint(1)'
    masked = redaction.Redactor().text(source)
    assert masked != source
    assert same_source(Executed("", masked), source)


sources = st.sampled_from(["x", "y", "z = 1", "f()", f"t = '{REDACTED}'", "t = 'abc'", "", "x\n"])
ids = st.sampled_from(["", "a", "b", "c", "d"])
runs = st.lists(st.builds(Executed, ids, sources, st.booleans()), max_size=12)
notebooks = st.lists(st.builds(Place, ids, sources, st.booleans()), max_size=8)


@given(runs, notebooks)
def test_no_cell_is_given_two_and_none_what_another_source_made(
    executed: list[Executed], places: list[Place]
) -> None:
    found = match(executed, places)
    given_back = [one for one in found if one.how in GIVEN_BACK]
    assert len({one.place for one in given_back}) == len(given_back)
    assert len({one.executed for one in found}) == len(found)
    for one in given_back:
        assert one.place is not None
        assert places[one.place].code
        assert same_source(executed[one.executed], places[one.place].source)
    # Nothing recorded goes without a word: each cell that had an id occurs once.
    told = [executed[one.executed].cell_id for one in found if executed[one.executed].cell_id]
    assert sorted(told) == sorted({one.cell_id for one in executed if one.cell_id})


unique = st.lists(st.integers(0, 99), unique=True, min_size=1, max_size=12)


@given(unique, st.randoms(use_true_random=False))
def test_moved_cells_keep_their_outputs(numbers: list[int], random: object) -> None:
    executed = [Executed(f"id{n}", f"f({n})") for n in numbers]
    places = [Place(one.cell_id, one.source) for one in executed]
    random.shuffle(places)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    for number, one in enumerate(match(executed, places)):
        assert one.how == "id"
        assert one.place is not None
        assert places[one.place].cell_id == executed[number].cell_id


@given(unique, st.randoms(use_true_random=False))
def test_cells_that_lost_their_ids_are_found_by_their_sources(numbers: list[int], random: object) -> None:
    executed = [Executed(f"id{n}", f"f({n})") for n in numbers]
    places = [Place(f"new{n}", f"f({n})") for n in numbers]
    random.shuffle(places)  # type: ignore[attr-defined]
    for number, one in enumerate(match(executed, places)):
        assert one.how == "source"
        assert one.place is not None
        assert places[one.place].source == executed[number].source


@given(unique, st.sets(st.integers(0, 11)))
def test_of_edited_cells_just_those_are_left_alone(numbers: list[int], edited: set[int]) -> None:
    executed = [Executed(f"id{n}", f"f({n})") for n in numbers]
    places = [
        Place(one.cell_id, one.source + (" + 1" if at in edited else "")) for at, one in enumerate(executed)
    ]
    left = {one.executed for one in match(executed, places) if one.how == "changed"}
    assert left == {at for at in edited if at < len(numbers)}


def test_the_parts_between_two_secrets_have_to_be_there_in_their_order() -> None:
    recorded = Executed("", f"a = {REDACTED}\nb = {REDACTED}\nc = 1")
    assert same_source(recorded, "a = x\nb = y\nc = 1")
    assert not same_source(recorded, "a = x\nd = y\nc = 1")
    assert not same_source(recorded, "a = x\nc = 1")


def test_a_cell_whose_recorded_source_lacks_a_secret_or_its_end_is_found_by_the_rest() -> None:
    places = [
        Place("n1", "other()"),
        Place("n2", "key = 'hunter2'\nuse(key)"),
        Place("n3", "long()\nand more"),
    ]
    executed = [
        Executed("a", f"key = {REDACTED}\nuse(key)"),
        Executed("b", "long()\nand", whole=False),
        Executed("c", f"nowhere = {REDACTED}"),
    ]
    assert [(one.how, one.place) for one in match(executed, places)] == [
        ("source", 1),
        ("source", 2),
        ("absent", None),
    ]
