"""A disk that becomes full under a running server, is full when it starts, or is read-only."""

from __future__ import annotations

import http.client
from contextlib import closing
from pathlib import Path

import pytest

from tests.client.helpers import Owner, eventually
from wsmonitor.client import Publication, Target, connect
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange

from .account import stored
from .disks import small_disk
from .server import ServerProcess
from .watching import CLIENT_TIMING, PATIENCE, Watch, numbers_of

MEGABYTE = 1024 * 1024
PATIENT = {"timing": {"heartbeat_interval": 15.0, "heartbeat_timeout": 120.0}}
"""However slow the machine is: no link is given up for silence, so that it is known why one was lost."""

pytestmark = pytest.mark.timeout(300)


def step(number: int) -> StepChange:
    return StepChange(id=f"p:{number}", chain="p", name="x" * 100, state="running", metrics={"n": number})


def begin(publication: Publication) -> None:
    publication.submit(SessionChange(name="s", state="running"))
    publication.submit(ChainChange(id="p", name="p", state="running"))
    assert publication.flush(PATIENCE)


def complete(watch: Watch, count: int) -> None:
    """Wait until *watch* has the changes 1 to *count*."""
    watch.wait(
        lambda one: one.subscription.phase == "live" and len(numbers_of(one.snapshot())) == count,
        f"{count} steps",
    )


def ready(server: ServerProcess) -> int:
    """The status of ``/readyz``, which tells nobody where the database lies."""
    link = http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE)
    with closing(link):
        link.request("GET", "/readyz")
        answer = link.getresponse()
        assert b"store.sqlite3" not in answer.read()
        return answer.status


def test_a_disk_that_becomes_full_loses_nothing_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 6 * MEGABYTE) as disk:
        store = f"sqlite:{disk.folder / 'store.sqlite3'}"
        database = disk.folder / "store.sqlite3"
        with ServerProcess(tmp_path / "server", store=store, settings=PATIENT) as server:
            watch = Watch(server, "s~1", "before")
            owner = Owner()
            target = Target(url=server.url, token=server.token("p", "publish"))
            with connect(target, timing=CLIENT_TIMING) as connection:
                publication = connection.publication("s~1", "p", owner)
                begin(publication)
                count = 0
                # So much that it cannot fit: each step is some 300 bytes, and comes as entity and as event.
                while publication.stage != "pausing" and count < 60_000:
                    count += 1
                    publication.submit(step(count))
                    if publication.unacknowledged > 2_000:
                        eventually(
                            lambda: publication.unacknowledged < 1_000 or publication.stage == "pausing",
                            PATIENCE,
                        )
                eventually(lambda: publication.stage == "pausing", PATIENCE, "nobody noticed the full disk")
                disk.fill()
                assert ready(server) == 503
                assert "the disk is full" in server.words()
                acked = owner.acks[-1] - 2
                assert 0 < acked < count
                # Who watches goes on watching, and who comes now sees what is there.
                assert watch.subscription.phase == "live"
                late = Watch(server, "s~1", "late")
                late.wait(lambda one: one.subscription.phase == "live", "a sync while the disk is full")
                assert len(late.snapshot().steps) >= acked
                assert owner.rejections == []
                # The server dies now, and another one starts on the full disk: all that was acknowledged.
                server.kill()
                kept = stored(database, "s~1")
                assert (kept.whole, len(kept.state.steps) >= acked) == ("ok", True)
                disk.fill()
                server.start()
                again = Watch(server, "s~1", "again")
                again.wait(
                    lambda one: one.subscription.phase == "live", "a sync after a start on a full disk"
                )
                assert len(again.snapshot().steps) >= acked
                # There is room: nobody has to do anything.
                disk.free()
                disk.grow(64 * MEGABYTE)
                assert publication.flush(PATIENCE)
                assert owner.rejections == []
                for one in (watch, late, again):
                    complete(one, count)
                    assert (one.broken, one.resets) == ([], [])
                    assert one.connection.status.connections <= 2
                assert ready(server) == 200
                publication.close(10)
            digests = {one.snapshot().digest for one in (watch, late, again)}
            for one in (watch, late, again):
                one.close()
            assert server.stop() == 0
            assert len(digests) == 1


def test_a_read_only_file_system_is_read(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16 * MEGABYTE) as disk:
        database = disk.folder / "store.sqlite3"
        server = ServerProcess(tmp_path / "server", store=f"sqlite:{database}", settings=PATIENT)
        with server:
            target = Target(url=server.url, token=server.token("p", "publish"))
            with connect(target, timing=CLIENT_TIMING) as connection:
                publication = connection.publication("s~1", "p", Owner())
                begin(publication)
                for number in range(1, 101):
                    publication.submit(step(number))
                assert publication.flush(PATIENCE)
                assert publication.close(PATIENCE)
            server.stop()
        disk.read_only(True)
        with server:
            assert "is served" in server.words()
            watch = Watch(server, "s~1", "o")
            complete(watch, 100)
            assert ready(server) == 503
            with connect(target, timing=CLIENT_TIMING) as connection:
                publication = connection.publication("s~1", "p", Owner())
                publication.submit(step(101))
                eventually(lambda: publication.stage == "pausing", PATIENCE, "it was not refused")
                watch.wait(lambda one: one.subscription.phase == "live", "being live all the while")
                server.stop()
                disk.read_only(False)
                server.start()
                assert publication.flush(PATIENCE)
            complete(watch, 101)
            assert (watch.broken, watch.resets) == ([], [])
            watch.close()
            server.kill()
        disk.read_only(True)
        with pytest.raises(RuntimeError, match=r"read-only file system and was not closed properly.*-wal"):
            server.start()
