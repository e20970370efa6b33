"""The load generators, against our server and the floor: whatever is published is counted once."""

from __future__ import annotations

import os

import pytest

from benchmarks.generator import generate, native_generator
from benchmarks.peers import PEERS, Server
from benchmarks.pinned import cores
from tests.conftest import ELSEWHERE

OBSERVERS = 6
TOPICS = 2


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Programs are compiled anew: what is tested is what stands in the sources."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSMONITOR_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(params=["C", "Python"])
def native(request: pytest.FixtureRequest) -> bool:
    if request.param == "C" and native_generator() is None:
        pytest.skip("needs a C compiler: apt install gcc libc6-dev")
    return bool(request.param == "C")


@pytest.mark.parametrize("name", ["wsmonitor", "floor"])
def test_all_observers_get_every_event_once(name: str, native: bool) -> None:
    if why := PEERS[name].available():
        pytest.skip(why)
    with PEERS[name].start(OBSERVERS + 1) as server, generate(server, native=native) as load:
        assert load("publisher", topics=TOPICS)["live"] == 1
        assert load("open", count=OBSERVERS)["live"] == OBSERVERS + 1
        assert 490 <= load("calibrate", size=500)["size"] <= 510
        got = load("closed", window=4, seconds=0.2, warm=0)
        assert got["generator"] == ("C" if native else "Python")
        assert got["complete"]
        assert (got["gaps"], got["duplicates"], got["bad"], got["lost"]) == (0, 0, 0, 0)
        assert got["published"] >= 4
        assert got["delivered"] == got["published"] * (OBSERVERS // TOPICS)
        assert got["p50_ms"] <= got["p99_ms"] <= got["max_ms"]
        again = load("storm", pause=0)
        assert (again["live"], again["lost"]) == (OBSERVERS + 1, 0)


def test_server_and_generator_have_a_core_each(native: bool) -> None:
    if (pair := cores()) is None:
        pytest.skip(f"{ELSEWHERE}one core only, or a system that does not tell")
    with PEERS["websockets broadcast()"].start(1) as server, generate(server, native=native) as load:
        assert os.sched_getaffinity(server.pid) == {pair[0]}
        assert os.sched_getaffinity(load.pid) == {pair[1]}


def test_changes_are_counted_when_they_are_acknowledged(native: bool) -> None:
    with PEERS["wsmonitor"].start(1) as server, generate(server, native=native) as load:
        load("publisher")
        got = load("array", batch=16, window=2, seconds=0.2, warm=0)
        assert got["complete"]
        assert got["delivered"] == 16 * got["published"] > 0


def test_connections_may_go_to_another_server(native: bool) -> None:
    with PEERS["wsmonitor"].start(3) as server:
        nobody = Server(port=1, pid=server.pid, script=server.script, tokens=server.tokens)
        with generate(nobody, native=native) as load:
            assert load("publisher", port=server.port)["live"] == 1
            assert load("open", count=2, port=server.port)["live"] == 3
            assert load("storm", pause=0)["live"] == 3, "they come back to where they were"
            with pytest.raises(RuntimeError, match="3 of 4 connections"):
                load("open", count=1, timeout=5)


def test_a_server_that_is_not_there_is_told_of(native: bool) -> None:
    nobody = Server(port=1, pid=0, script=PEERS["floor"].script())
    with generate(nobody, native=native) as load, pytest.raises(RuntimeError, match="0 of 1 connections"):
        load("open", count=1, timeout=5)
