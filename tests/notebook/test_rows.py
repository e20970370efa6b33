"""The rows of the tree: what each tells, and that what was told is what there is."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from tests.notebook.samples import T0, chain, step
from wsmonitor.notebook.rows import Rows, failure_line, one_line, pauses_of, same_failure, step_row
from wsmonitor.protocol.entities import Failure, Progress, Step


def put(rows: Rows, *steps: Step) -> None:
    for one in steps:
        rows.put(one)


def taken(rows: Rows) -> dict[str, dict[str, Any]]:
    changed, _ = rows.take()
    return {row["id"]: row for row in changed}


class Screen:
    """What a front-end has that was told everything."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.has: dict[str, dict[str, Any]] = {}

    def tell(self) -> None:
        changed, gone = self.rows.take()
        self.has.update((row["id"], row) for row in changed)
        for row_id in gone:
            del self.has[row_id]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (None, ""),
        (Failure(type="builtins.KeyError", message=" 'k'\n"), "KeyError: 'k'"),
        (Failure(type="x.HTTPError", message="HTTPError 404: none"), "HTTPError 404: none"),
        (Failure(type="x.Cancelled"), "Cancelled"),
        (Failure(message="no type\nis told"), "no type is told"),
        (Failure(code="timeout"), "timeout"),
    ],
)
def test_a_failure_in_one_line_says_nothing_twice(error: Failure | None, line: str) -> None:
    assert failure_line(error) == line


def test_text_of_any_length_is_one_line_of_a_screen() -> None:
    assert one_line("a \n\t b") == "a b"
    assert one_line("x" * 10, 10) == "x" * 10
    assert one_line("x" * 11, 10) == "x" * 9 + "…"


def test_only_what_is_told_can_be_the_same_failure() -> None:
    told = Failure(type="E", message="m", traceback="long")
    assert same_failure(told, Failure(type="E", message="m"))
    assert not same_failure(told, Failure(type="E", message="other"))
    assert not same_failure(None, None)
    assert not same_failure(told, None)


@pytest.mark.parametrize("told", [[0, 1], [-1], [2**53], [1, None]])
def test_times_that_are_none_make_no_pause(told: object) -> None:
    assert pauses_of(told) == []


def test_a_row_tells_what_its_step_told_and_leaves_out_the_rest() -> None:
    plain = step_row([Step(id="a", chain="c", name="n")])
    assert plain == {"id": "s:a", "kind": "step", "name": "n", "state": "pending", "chain": "c:c"}
    full = msgspec.structs.replace(
        step("a", "n", "running", chain="c", start=1, done=2, total=None, error=Failure(message="almost")),
        kind="to\nol",
        reason="",
        log_last="line\n1",
        progress=Progress(done=2, unit="ro\nws"),
    )
    row = step_row([full])
    assert (row["label"], row["note"], row["done"], row["unit"]) == ("to ol", "line 1", 2, "ro ws")
    assert "total" not in row
    assert row["error"] == "almost"
    assert "err" not in row, "there is no exception to name"
    assert step_row([msgspec.structs.replace(full, reason="waits")])["note"] == "waits"


def test_a_step_stands_where_it_was_made_or_else_where_it_began() -> None:
    begun = Step(id="a", chain="c", name="n", started=f"{round(T0)}000000000")
    assert step_row([begun])["order"] == round(T0) * 1000


def test_a_chain_says_why_it_is_in_its_state() -> None:
    rows = Rows()
    rows.put(msgspec.structs.replace(chain("c", "load", "failed"), reason="no\ndisk", kind="etl"))
    row = taken(rows)["c:c"]
    assert (row["note"], row["label"]) == ("no disk", "etl")
    found = rows.chain("c:c")
    assert found is not None
    assert found.name == "load"
    assert rows.chain("s:c") is None
    assert rows.chains == 1


def test_rows_are_found_by_any_of_their_attempts() -> None:
    rows = Rows()
    put(rows, step("a", "n", "failed", chain="c", key="k"), step("b", "n", chain="c", key="k", attempt=2))
    assert rows.row_of("b") == "s:a"
    assert rows.row_of("x") == ""
    assert [one.id for one in rows.attempts("s:a")] == [one.id for one in rows.attempts("s:b")] == ["a", "b"]
    assert rows.attempts("s:x") == []
    newest = rows.newest("s:a")
    assert newest is not None
    assert newest.id == "b"
    assert rows.newest("s:b") is None, "that is no row"


def test_forgetting_takes_away_rows_attempts_and_their_counts() -> None:
    rows = Rows()
    rows.put(chain("c", "load"))
    put(
        rows,
        step("a", "n", "failed", chain="c", key="k"),
        step("b", "n", chain="c", key="k", attempt=2),
        step("d", "n", "failed", chain="c"),
    )
    rows.take()
    rows.drop("step", "b")
    assert taken(rows)["s:a"]["state"] == "failed"
    assert (rows.counts, list(rows.broken)) == ({"failed": 2}, ["s:d", "s:a"])
    rows.drop("step", "a")
    rows.drop("step", "d")
    rows.drop("chain", "c")
    assert rows.waiting == 3
    assert rows.take() == ([], ["s:a", "s:d", "c:c"])
    assert (rows.counts, rows.broken, rows.total, rows.chains, rows.size) == ({}, {}, 0, 0, 0)


@pytest.mark.parametrize(("kind", "ident"), [("step", "x"), ("chain", "x"), ("command", "a")])
def test_forgetting_what_is_not_there_changes_nothing(kind: str, ident: str) -> None:
    rows = Rows()
    rows.put(step("a", "n", chain="c"))
    rows.take()
    rows.drop(kind, ident)
    assert (rows.waiting, rows.total) == (0, 1)


def test_a_forgotten_row_that_was_never_shown_is_not_told() -> None:
    rows = Rows()
    rows.put(step("a", "n", chain="c"))
    rows.drop("step", "a")
    assert rows.take() == ([], [])


def test_a_key_belongs_to_the_row_that_had_it_last() -> None:
    rows = Rows()
    put(rows, step("a", "n", chain="c", key="k"), step("b", "n", chain="c", key="k"))
    rows.drop("step", "a")
    put(rows, step("b2", "n", chain="c", key="k", attempt=2))
    assert rows.row_of("b2") == "s:b", "the first row's end does not take the key from the second"
    rows.drop("step", "b")
    rows.drop("step", "b2")
    put(rows, step("e", "n", chain="c", key="k", attempt=3))
    assert rows.row_of("e") == "s:e", "and with its last row a key is free"


def test_a_row_that_comes_back_before_it_was_told_to_be_gone_is_not_gone() -> None:
    rows = Rows()
    rows.put(step("a", "n", chain="c"))
    rows.take()
    rows.drop("step", "a")
    rows.put(step("a", "m", chain="c"))
    changed, gone = rows.take()
    assert ([row["name"] for row in changed], gone) == (["m"], [])


def test_where_a_step_is_in_words() -> None:
    rows = Rows()
    rows.put(chain("c", "load"))
    put(rows, step("a", "fetch", chain="c"), step("b", "part", chain="c", parent="a"))
    assert rows.path(step("d", "row", chain="c", parent="b")) == "load / fetch / part / row"
    assert rows.path(step("d", "row", chain="x", parent="gone")) == "row", "what is not known is not said"


def test_of_a_very_deep_place_only_the_nearest_is_told_and_a_circle_ends() -> None:
    rows = Rows()
    for n in range(20):
        rows.put(step(f"s{n}", f"n{n}", chain="c", parent=f"s{n - 1}" if n else ""))
    assert (
        rows.path(step("d", "d", chain="c", parent="s19"))
        == "… / n13 / n14 / n15 / n16 / n17 / n18 / n19 / d"
    )
    put(rows, step("x", "x", chain="c", parent="y"), step("y", "y", chain="c", parent="x"))
    assert rows.path(step("x", "x", chain="c", parent="y")) == "y / x"


def test_a_parent_is_the_attempt_that_was_named_or_the_row_that_stands_for_it() -> None:
    rows = Rows()
    put(rows, step("a", "n", "failed", chain="c", key="k"), step("b", "n", chain="c", key="k", attempt=2))
    inside = step("d", "d", chain="c", parent="a")
    above = rows.parent(inside)
    assert above is not None
    assert above.id == "a"
    assert rows.parent(step("e", "e", chain="c")) is None
    assert rows.parent(step("e", "e", chain="c", parent="gone")) is None


def test_a_row_that_changes_while_it_gives_way_is_told_to_be_gone() -> None:
    screen = Screen(Rows(limit=2))
    put(screen.rows, step("a", "a", chain="c"), step("b", "b", chain="c"))
    screen.tell()
    put(
        screen.rows,
        msgspec.structs.replace(step("a", "a", chain="c"), reason="anew"),
        step("d", "d", chain="c"),
    )
    screen.tell()
    assert list(screen.has) == ["s:b", "s:d"]
    assert list(screen.has.values()) == screen.rows.all()


def test_a_row_that_there_is_no_room_for_is_never_told() -> None:
    screen = Screen(Rows(limit=1))
    put(screen.rows, step("a", "a", "running", chain="c"))
    screen.tell()
    put(screen.rows, step("b", "b", chain="c"))
    assert screen.rows.take() == ([], [])
    assert list(screen.has) == ["s:a"]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_what_was_told_adds_up_to_what_is_shown(seed: int) -> None:
    chance = random.Random(seed)
    screen = Screen(Rows(limit=6))
    states = ["pending", "running", "succeeded", "failed", "skipped"]
    for _ in range(60):
        for _ in range(chance.randrange(4)):
            number = chance.randrange(12)
            one = step(
                f"s{number}", "n", chance.choice(states), chain="c", key=f"k{number % 5}", attempt=number
            )
            if chance.random() < 0.25:
                screen.rows.drop("step", one.id)
            else:
                screen.rows.put(one)
        if chance.random() < 0.1:
            anew = Rows(limit=6)
            for number in chance.sample(range(12), 5):
                anew.put(step(f"s{number}", "n", chance.choice(states), chain="c"))
            anew.supersede(screen.rows)
            screen.rows = anew
        screen.tell()
        assert screen.has == {row["id"]: row for row in screen.rows.all()}
        assert len(screen.has) <= 6
        assert screen.rows.size == sum(len(msgspec.json.encode(row)) + 1 for row in screen.has.values())
