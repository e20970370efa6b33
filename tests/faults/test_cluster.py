"""Several servers on one Redis, and what becomes of them: lost 0, twice 0, and nothing is silent."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.scale import SCALE, many

from .cluster import FAULTS, Cluster, cluster, stop_redis, suffer

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
    fault = stop_redis(0.0) if "stands still" in kind and SCALE == 1 else None
    sights = suffer(running, kind, rounds, SEED, fault=fault)
    assert sights.notes == [], sights.summary()
    assert sights.rounds == rounds
    assert sights.told > sights.acknowledged > 0
    if kind in RESETS:
        assert sights.epochs >= rounds
    else:
        assert sights.epochs == 0
    if "stands still" in kind:
        assert len(sights.degraded) == len(sights.right), "every observer is told, every time"
