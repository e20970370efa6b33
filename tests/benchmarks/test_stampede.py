"""The storm of reconnects: every client is back once, whatever the servers can do; and curves are drawn."""

from __future__ import annotations

import random
from xml.etree import ElementTree

import pytest

from benchmarks import bursts, curves
from benchmarks.stampede import ROOM, Costs, Storm, panel, row, simulate, storms

FAST = Costs(handshake=0.001, refusal=0.0005)
SLOW = Costs(handshake=0.05, refusal=0.02)


@pytest.mark.parametrize("costs", [FAST, SLOW])
@pytest.mark.parametrize("storm", storms(2_000, [4]), ids=lambda storm: storm.name)
def test_every_client_is_back_once(storm: Storm, costs: Costs) -> None:
    course = simulate(storm, costs, random.Random(1))
    lost = 2_000 if storm.kind == "away" else 500
    assert len(course.back) == len(course.attempts) == lost
    assert min(course.attempts) >= 1
    assert course.back == sorted(course.back)
    assert course.back[0] > storm.away
    servers = storm.servers - (storm.kind != "away")
    assert course.back[-1] - course.back[0] >= (lost / servers - 1) * costs.handshake * 0.99
    assert sum(course.came.values()) == lost + course.refused + course.late
    assert row(storm, costs, course)["all back s"] >= round(course.until(0.5), 1)


def test_the_same_seed_gives_the_same_course() -> None:
    storm = Storm(1_000, 5, "away", away=5.0)
    assert simulate(storm, SLOW, random.Random(7)) == simulate(storm, SLOW, random.Random(7))


def test_who_was_told_to_spread_comes_later_and_waits_less() -> None:
    spread = simulate(Storm(8_000, 2, "killed"), FAST, random.Random(1))
    at_once = simulate(Storm(8_000, 2, "killed", spread=False), FAST, random.Random(1))
    drained = simulate(Storm(8_000, 2, "drained"), FAST, random.Random(1))
    assert drained.waiting < spread.waiting < at_once.waiting == ROOM
    assert max(drained.came.values()) < max(spread.came.values()) < max(at_once.came.values())
    assert (drained.refused, spread.refused) == (0, 0)
    assert at_once.refused > 0


def test_beyond_its_patience_a_client_comes_again() -> None:
    # 600 at once, of whom a server can let in 200 within the ten seconds that each waits.
    course = simulate(Storm(1_200, 2, "killed", spread=False), SLOW, random.Random(1))
    assert course.late > 0
    assert max(course.attempts) > 1


def test_what_bursts_say_of_the_costs() -> None:
    rows = [
        {"let in": 100, "refused": 0, "server's CPU s": 0.1},
        {"let in": 100, "refused": 50, "server's CPU s": 0.2},
        {"let in": 10, "refused": 10, "server's CPU s": 0.001},
    ]
    assert bursts.costs(rows) == (pytest.approx(0.001), pytest.approx((0.1 / 50 + 0.0) / 2))


def test_the_picture_has_a_panel_for_each_storm() -> None:
    panels = []
    for storm in storms(500, [2]):
        panels.append(panel(storm, simulate(storm, FAST, random.Random(1))))
    root = ElementTree.fromstring(curves.draw("A <title>", panels, columns=2))
    assert len(root.findall(".//{*}polyline")) == 2 * len(panels)
    words = "".join(root.itertext())
    assert "A <title>" in words
    for storm in storms(500, [2]):
        assert storm.name.split()[-1] in words


@pytest.mark.parametrize(
    ("value", "above"), [(0, 1), (1, 1), (1.1, 2), (3, 5), (7, 10), (10, 10), (101, 200), (0.3, 0.5)]
)
def test_the_scale_ends_at_a_round_number(value: float, above: float) -> None:
    assert curves.ceiling(value) == pytest.approx(above)
