"""What is said of the goals comes from what is kept, and the documents say what is kept."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import fanout, goals, plot, results

ROW = {
    "observers": "1000", "load": "20 under way", "server": "wsmonitor", "deliveries/s": 100,
    "to broadcast()": 2.0, "user µs": 1.0, "kernel µs": 2.0, "p50 ms": 1.0, "p99 ms": 2.0, "missing": 0,
    "others'": "3%",
}  # fmt: skip


def _goal(what: str, folder: Path) -> dict[str, object]:
    [row] = [row for row in goals.table(folder=folder) if row["what"] == what]
    return row


def test_a_goal_is_reached_missed_or_not_measured(tmp_path: Path) -> None:
    what = "burst of 20, 1,000 observers: to NATS"
    assert _goal(what, tmp_path)["measured"] == "not measured yet"
    results.keep(
        "fanout", "1000", "x", [ROW, ROW | {"server": "NATS", "deliveries/s": 50, "kernel µs": 5.0}], tmp_path
    )
    assert _goal(what, tmp_path) == {
        "what": what,
        "goal": "≥ 1.2 ×",
        "measured": "2 ×",
        "reached": "yes",
        "besides": "by processor time 2 ×; others had 3% of the cores",
    }
    results.keep("fanout", "1000", "x", [ROW, ROW | {"server": "NATS", "deliveries/s": 99}], tmp_path)
    assert _goal(what, tmp_path)["reached"] == "no"


def test_neighbours_are_compared_round_by_round(tmp_path: Path) -> None:
    rows = [
        {"beside": beside, "others' p99 ms": p99, "value": 1.0}
        for beside, p99 in (
            ("nothing", 2.0),
            ("a value of 100 MB is read", 3.0),
            ("nothing", 4.0),
            ("a value of 100 MB is read", 4.0),
        )
    ]
    results.keep("neighbours", "all", "x", rows, tmp_path)
    assert goals.Results(tmp_path).beside("100 MB") == 1.25


def test_parts_of_a_result_are_kept_beside_each_other(tmp_path: Path) -> None:
    results.keep("fanout", "100", "one", [ROW], tmp_path)
    results.keep("fanout", "1000", "two", [ROW], tmp_path)
    results.keep("fanout", "100", "three", [], tmp_path)
    assert {part: kept["command"] for part, kept in results.load("fanout", tmp_path).items()} == {
        "100": "three",
        "1000": "two",
    }
    assert results.rows("fanout", tmp_path) == [ROW]


def test_the_document_says_what_is_kept() -> None:
    def section(name: str) -> str:
        text = command.DOCUMENTS.get(name, command.DOCS).read_text("utf-8")
        found = re.search(rf"<!-- {name}: begin -->\n(.*?)<!-- {name}: end -->", text, re.DOTALL)
        assert found is not None, name
        return found[1]

    assert section(goals.NAME) == command.table(goals.table()) + "\n"
    for file in results.FOLDER.glob("*.json"):
        kept = results.load(file.stem)
        shown = section(file.stem)
        for part in kept.values():
            assert part["measured"] in shown
            assert part["command"] in shown
    if kept := results.load(fanout.NAME):
        assert section(fanout.NAME) == fanout.document(kept)
        assert command.PICTURE.read_text("utf-8") == plot.draw(results.rows(fanout.NAME))


def test_a_picture_has_a_line_for_each_server_that_was_measured() -> None:
    rows = [ROW, ROW | {"load": "1 under way"}, ROW | {"server": "<NATS>"}]
    drawn = plot.draw(rows)
    assert drawn.count("<polyline") == 2
    assert drawn.count("<circle") == 3
    assert "&lt;NATS&gt;" in drawn


@pytest.mark.parametrize(("value", "shown"), [(1234567.0, "1,234,567"), (0.12345, "0.123"), (99.0, "99")])
def test_numbers(value: float, shown: str) -> None:
    assert goals.number(value) == shown
