"""Several servers on one Redis, and what becomes of them: lost 0, twice 0, and nothing is silent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ELSEWHERE
from tests.scale import SCALE, many

from .cluster import FAULTS, Cluster, Sights, cluster, fail_over, stop_redis, suffer
from .cut_off import cut_off
from .links import NoNamespacesError

SEED = 20_261_123
RESETS = {kind for kind in FAULTS if kind.startswith("kill -9 of Redis")}

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="not here: needs kill -9"),
    pytest.mark.timeout(many(300)),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two servers and their Redis, which the tests share: a session of its own for each."""
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.mark.parametrize("kind", FAULTS)
def test_nothing_is_lost_or_told_twice_and_resets_are_announced(running: Cluster, kind: str) -> None:
    """GAPLESS, ONCE, MONOTONE, AGREE; an epoch begins where Redis may have lost something, and only there."""
    rounds = many(1)
    still = "stands still" in kind
    fault = stop_redis(0.0) if still and SCALE == 1 else FAULTS[kind]()
    sights = suffer(running, Sights(kind), rounds, SEED + rounds * list(FAULTS).index(kind), fault=fault)
    right(sights, rounds)
    if kind in RESETS:
        assert sights.epochs >= rounds
    else:
        assert sights.epochs == 0
    if still:
        assert len(sights.degraded) == len(sights.right), "every observer is told, every time"


def test_a_replica_that_sentinels_make_the_primary_goes_on_in_a_new_epoch(tmp_path: Path) -> None:
    rounds = many(1)
    sights = fail_over(tmp_path, rounds, SEED)
    right(sights, rounds)
    assert sights.epochs >= rounds


def test_a_server_that_is_cut_off_from_redis_is_silent_and_repairs_its_gap(tmp_path: Path) -> None:
    """Who is connected to it is told that it is degraded, and nothing else until it has all that it missed.

    That the others go on meanwhile is waited for while the cut lasts.
    """
    rounds = many(1)
    try:
        sights = cut_off(tmp_path, rounds, SEED)
    except NoNamespacesError as exc:
        pytest.skip(f"{ELSEWHERE}{exc}")
    right(sights, rounds)
    assert sights.epochs == 0
    assert len(sights.degraded) == 2 * rounds, "those at that server, and only they"
    assert sights.reconnecting == []


def right(sights: Sights, rounds: int) -> None:
    """What holds in each of these."""
    assert sights.notes == [], sights.summary()
    assert sights.rounds == rounds
    assert sights.told > sights.acknowledged > 0
