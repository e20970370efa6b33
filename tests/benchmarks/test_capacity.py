"""The model of what a demand takes: its sums, its limits, and what the document says of it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks.capacity import (
    BUSY,
    EXAMPLES,
    LIMITS,
    Costs,
    Demand,
    Each,
    Measured,
    Missing,
    ceilings,
    checks,
    constants,
    first_to_break,
    load,
    plan,
    row,
    run,
)

COSTS = Costs(
    rest=1_000,
    idle=10,
    publish=Each(30, 100),
    bus=Each(3, 50),
    adopt=20,
    deliver=Each(0.5, 10),
    enter=700,
    redis_rest=1_000,
    redis=Each(4, 60),
    redis_more=Each(0.1, 15),
    sent=Each(600, 1_000),
    read=Each(600, 400),
    observer=14_000,
    session=40_000,
    kept_session=8_000,
    kept_event=650,
)
SMALL = Demand(observers=100, sessions=10, rate=10)


def test_what_one_server_does_is_the_sum_of_its_parts() -> None:
    one = load(SMALL, COSTS, 1)
    # At rest, heartbeats, ten changes, a hundred deliveries; there is nobody to read of.
    assert one.server == pytest.approx((1_000 + 100 * 10 + 10 * 130 + 10 * 10 * 10.5) / 1e6)
    assert one.reading == 0
    assert one.redis == pytest.approx((1_000 + 10 * 64) / 1e6)
    assert one.server_memory == 100 * 14_000 + 10 * 40_000
    assert one.redis_memory == 10 * (8_000 + 1_000 * 650)
    assert one.server_out == 100 * 500
    assert one.redis_out == 10 * 1_000


def test_of_two_each_reads_what_the_other_commits() -> None:
    two = load(SMALL, COSTS, 2)
    loaded = min(1.0, 1 - math.exp(-5) + 0.5)
    assert two.reading == pytest.approx(5 * (53 + loaded * 20) / 1e6)
    assert two.redis == pytest.approx((2 * 1_000 + 10 * (64 + 15.1)) / 1e6)
    assert two.server < load(SMALL, COSTS, 1).server


def test_what_is_done_together_costs_less() -> None:
    each = Each.between(alone=100, together=10, count=20)
    assert each(1) == pytest.approx(100)
    assert each(20) == pytest.approx(10)
    assert 10 < each(5) < 100
    assert Each.between(alone=5, together=9, count=10)(3) == pytest.approx(5), "noise is no gain"
    many = replace(SMALL, together=10.0)
    assert load(many, COSTS, 2).server < load(SMALL, COSTS, 2).server


@pytest.mark.parametrize(("name", "demand"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_a_plan_is_within_all_limits_and_no_smaller_group_is(name: str, demand: Demand) -> None:
    found = plan(demand, COSTS)
    assert found is not None
    assert LIMITS.broken(found.load) == ""
    assert found.groups <= max(1, demand.sessions)
    if found.load.servers > 1:
        assert LIMITS.broken(load(demand.part(found.groups), COSTS, found.load.servers - 1))
    assert row(name, demand, COSTS)["servers"] == found.servers


def test_more_is_wanted_than_any_plan_gives() -> None:
    # Of a session that cannot be divided there is more to read than a core can.
    endless = Demand(observers=1, sessions=1, rate=1e6)
    assert plan(endless, COSTS) is None
    assert row("endless", endless, COSTS)["groups"] == "none is enough"


FREE = replace(COSTS, redis_rest=0, redis=Each(0, 0), redis_more=Each(0, 0))
NO_BUS = replace(COSTS, bus=Each(0, 0), adopt=0, session=0)


@pytest.mark.parametrize(
    ("demand", "costs", "words"),
    [
        (Demand(1_000, 100, 1_000, kept=0), FREE, "every server reads what all others commit"),
        (Demand(1_000, 100, 1_000, kept=0), COSTS, r"Redis' core .\d+ servers, each \d+% busy with reading"),
        (Demand(10, 10, 1_000, kept=0), NO_BUS, r"Redis' core .\d+ servers, each 0% busy"),
        (Demand(1, 1_000, 1), COSTS, "^Redis' memory$"),
    ],
)
def test_what_stops_one_group(demand: Demand, costs: Costs, words: str) -> None:
    fits, why = first_to_break(demand, costs)
    assert re.search(words, why)
    assert fits > 0
    within = Demand(demand.observers * fits, demand.sessions * fits, demand.rate * fits, kept=demand.kept)
    assert any(not LIMITS.broken(load(within, costs, servers)) for servers in range(1, 4_096))


def test_a_measurement_that_is_missing_is_named() -> None:
    def nothing(name: str) -> Iterable[Mapping[str, Any]]:
        return []

    with pytest.raises(Missing, match="fanout"):
        Measured(nothing).costs()


def test_the_document_has_what_the_kept_results_give() -> None:
    text = command.SCALING.read_text("utf-8")
    renew = "python -m benchmarks goals --write renews it"
    assert command.table(run()) in text, renew
    for rows in (constants(), ceilings(), checks()):
        assert command.table(rows) in text, renew
    assert all(line["alone"] > 0 for line in constants() if line["cost"] != "adopt")
    assert BUSY < 1
