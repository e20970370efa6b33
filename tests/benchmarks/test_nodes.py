"""Servers on one Redis, measured for a moment: every event arrives, and each process has its share."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.nodes import ARRANGEMENTS, Arrangement, measure, patiently, summary
from tests.redis_server import require


def test_every_event_comes_to_the_other_server_and_all_three_processes_are_charged() -> None:
    require()
    at_rest, *loads = patiently(measure, ARRANGEMENTS[3], 0.2)
    assert at_rest["load"] == "at rest"
    assert len(loads) == 4
    for row in loads:
        assert row["missing"] == 0
        assert row["events/s"] > 0
        assert row["Redis calls"] > 0
        assert row["bytes to Redis"] > 500, "an event has as many"
        assert row["publisher's server µs"] is not None
        assert row["watching server µs"] is not None
        assert row["other server µs"] is None


def test_what_a_server_was_held_up_in_is_measured_again() -> None:
    answers: list[Any] = [RuntimeError("0 of 1 connections came up"), [{"missing": 1}], [{"missing": 0}]]

    def measuring(arrangement: Arrangement, seconds: float) -> list[dict[str, Any]]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    assert patiently(measuring, ARRANGEMENTS[0], 0.0) == [{"missing": 0}]
    answers = [[{"missing": 1}], [{"missing": 2}]]
    assert patiently(measuring, ARRANGEMENTS[0], 0.0, patience=2) == [{"missing": 2}], "and that is told"
    answers = [RuntimeError("first"), RuntimeError("second")]
    with pytest.raises(RuntimeError, match="second"):
        patiently(measuring, ARRANGEMENTS[0], 0.0, patience=2)


def test_of_several_rounds_the_middle_counts() -> None:
    def row(**more: Any) -> dict[str, Any]:
        return {"arrangement": "a", "load": "l", "p50 ms": None, "Redis µs": None, "missing": 0} | more

    rows = [row(**{"p50 ms": value}) for value in (1.0, 9.0, 2.016)] + [row(load="m", **{"Redis µs": 3.14})]
    assert summary(rows) == [row(**{"p50 ms": 2.02}), row(load="m", **{"Redis µs": 3.1})]
