"""What is particular to the SQLite store: restarts, epochs, refusals."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from wsmonitor.protocol.entities import LogRecord
from wsmonitor.protocol.errors import ConfigurationError
from wsmonitor_server.stores import reading
from wsmonitor_server.stores.base import (
    Commit,
    ProducerPosition,
    StoredSession,
    StoreError,
    UnsuitableDirectoryError,
)
from wsmonitor_server.stores.filesystem import network_type
from wsmonitor_server.stores.sqlite import SCHEMA_VERSION, SqliteStore

from .test_stores import a_commit


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def abandon(store: SqliteStore) -> None:
    """What kill -9 leaves: the file is closed, nothing is noted."""
    await store._run(store._db.close)
    store._connection = None
    await store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store.sqlite3"


async def test_epoch_and_content_survive_a_clean_restart_under_another_boot(path: Path) -> None:
    async with opened(path, boot_id="one") as store:
        epoch = store.epoch
        await store.commit([a_commit(store)])
    async with opened(path, boot_id="two") as store:
        assert store.epoch == epoch
        stored = await store.load("s~1")
        assert stored is not None
        assert (stored.state.epoch, len(stored.history)) == (epoch, 2)


async def test_what_is_revoked_or_removed_waits_for_the_disk(path: Path) -> None:
    """A simulated loss of power brought a revoked token back: these two are rare, and are synced at once."""
    said: list[str] = []
    async with opened(path) as store:
        await store.commit([a_commit(store)])
        store._db.set_trace_callback(said.append)
        await store.commit([a_commit(store, head=2)])
        assert not [line for line in said if "synchronous" in line]
        for action in (store.revoke("token", 1), store.remove("s~1", at=1)):
            said.clear()
            await action
            order = [line for line in said if line in ("COMMIT", *_FULL_AND_BACK)]
            assert order == [_FULL_AND_BACK[0], "COMMIT", _FULL_AND_BACK[1]]
        store._db.set_trace_callback(None)
        assert store._db.execute("PRAGMA synchronous").fetchone() == (1,)


_FULL_AND_BACK = ("PRAGMA synchronous=FULL", "PRAGMA synchronous=NORMAL")


@pytest.mark.parametrize(
    ("boot", "synchronous", "same"),
    [("one", "normal", True), ("two", "normal", False), ("two", "full", True)],
)
async def test_unclean_stop_mints_an_epoch_only_when_something_may_be_lost(
    path: Path, boot: str, synchronous: Any, same: bool
) -> None:
    store = SqliteStore(path, boot_id="one", synchronous=synchronous)
    await store.open()
    epoch = store.epoch
    await store.commit([a_commit(store)])
    await abandon(store)
    async with opened(path, boot_id=boot, synchronous=synchronous) as store:
        assert (store.epoch == epoch) is same
        stored = await store.load("s~1")
        assert stored is not None
        assert (stored.state.seq, stored.state.epoch) == (2, store.epoch)
        assert len(stored.history) == (2 if same else 0)


async def test_what_was_committed_survives_kill_9(path: Path) -> None:
    """DURABLE: a process commits, says so, and is killed."""
    program = (
        "import asyncio, sys, pathlib\n"
        "from wsmonitor_server.stores.sqlite import SqliteStore\n"
        "from wsmonitor_server.stores.base import Commit\n"
        "async def main():\n"
        "    store = SqliteStore(pathlib.Path(sys.argv[1])); await store.open()\n"
        "    for seq in range(1, 1000000):\n"
        "        await store.commit([Commit('s~1', store.epoch, seq - 1, events=[(seq, b'{}')])])\n"
        "        print(seq, flush=True)\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen(  # noqa: ASYNC220  # nothing else runs on this loop
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, env=dict(os.environ)
    )
    assert process.stdout is not None
    with process, process.stdout:
        for line in process.stdout:
            if int(line) >= 20:
                process.kill()
                break
        acknowledged = int((process.stdout.readlines() or [line])[-1])
        process.wait(10)
    async with opened(path) as store:
        stored = await store.load("s~1")
        assert stored is not None
        assert stored.state.seq >= acknowledged


async def test_second_server_on_the_file_is_refused(path: Path) -> None:
    async with opened(path):
        with pytest.raises(ConfigurationError, match="in use by another server"):
            await SqliteStore(path).open()


async def test_newer_schema_is_refused(path: Path) -> None:
    async with opened(path):
        pass
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    database.close()
    with pytest.raises(ConfigurationError, match="newer wsmonitor"):
        await SqliteStore(path).open()


def _foreign(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE t (x)")
    database.commit()
    database.close()


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda path: path.write_bytes(b"this is no database at all" * 100), "damaged, or not a database"),
        (_foreign, "not one of wsmonitor's"),
        (lambda path: path.mkdir(), "cannot be opened"),
    ],
)
async def test_file_that_is_not_ours_is_refused(
    path: Path, prepare: Callable[[Path], None], words: str
) -> None:
    path.parent.mkdir()
    prepare(path)
    with pytest.raises(ConfigurationError, match=words):
        await SqliteStore(path).open()


async def test_network_file_system_is_refused(path: Path) -> None:
    mounts = f"/dev/root / ext4 rw 0 0\nserver:/home {path.parent} nfs4 rw 0 0\n"
    with pytest.raises(UnsuitableDirectoryError, match="nfs4"):
        await SqliteStore(path, mounts=mounts).open()


def test_mount_of_a_path() -> None:
    mounts = (
        "/dev/root / ext4 rw 0 0\nserver:/h /home nfs rw 0 0\n/dev/sdb /home/local\\040disk ext4 rw 0 0\nx\n"
    )
    assert network_type(Path("/home/ann"), mounts) == "nfs"
    assert network_type(Path("/homes/ann"), mounts) is None
    assert network_type(Path("/home/local disk/x"), mounts) is None
    assert network_type(Path("/anywhere"), "") is None


async def test_full_disk_is_told_and_the_store_goes_on(path: Path) -> None:
    async with opened(path) as store:
        await store.commit([a_commit(store)])
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count={pages}")
        large = Commit("s~1", store.epoch, 2, events=[(3, b"x" * 1_000_000)])
        with pytest.raises(StoreError, match="disk is full") as caught:
            await store.commit([large])
        assert (caught.value.code, caught.value.outcome_known) == ("read_only", True)
        store._db.execute("PRAGMA max_page_count=1000000")
        await store.commit([large])
        stored = await store.load("s~1")
        assert stored is not None
        assert stored.state.seq == 3


@contextmanager
def no_room(path: Path) -> Iterator[None]:
    """No file grows beyond the size that the write-ahead log has now: what a full disk does to a commit."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = path.with_name(path.name + "-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(os.name != "posix", reason="not here: needs resource limits")
@pytest.mark.parametrize("events", [True, False])
async def test_a_write_that_fails_at_the_commit_is_known_not_to_have_happened(
    path: Path, events: bool
) -> None:
    async with opened(path) as store:
        await store.commit([a_commit(store)])
        more = a_commit(store, head=2) if events else Commit("s~1", store.epoch, 2)
        more.producers["p1"] = ProducerPosition("p1", "alice", 7, 99)
        with no_room(path), pytest.raises(StoreError) as caught:
            await store.commit([more])
        assert caught.value.outcome_known
        before = await store.load("s~1")
        assert before is not None
        assert before.state.seq == 2
        await store.commit([more])
        after = await store.load("s~1")
        assert after is not None
        assert (after.state.seq, after.producers["p1"]) == (4 if events else 2, more.producers["p1"])


async def test_read_only_database_is_told(path: Path) -> None:
    async with opened(path) as store:
        store._db.execute("PRAGMA query_only=1")
        with pytest.raises(StoreError) as caught:
            await store.check()
        assert caught.value.code == "read_only"
        store._db.execute("PRAGMA query_only=0")


@pytest.mark.skipif(os.name != "posix", reason="not here: needs resource limits")
async def test_room_is_looked_for_and_nothing_of_it_stays(path: Path) -> None:
    import resource

    async with opened(path) as store:
        await store.check(room=1 << 20)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
        try:
            with pytest.raises(StoreError) as caught:
                await store.check(room=2 << 20)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert (caught.value.code, caught.value.message) == ("read_only", "the disk is full")
        assert not list(path.parent.glob("*.room"))


async def test_files_are_private(path: Path) -> None:
    async with opened(path):
        modes = [one.stat().st_mode & 0o077 for one in (path, path.parent)]  # local
    assert modes == [0, 0]


async def test_upload_goes_on_after_a_restart(path: Path) -> None:
    data = b"abc" * 1000
    sha = hashlib.sha256(data).hexdigest()
    async with opened(path) as store:
        await store.value_write("s", sha, len(data), 0, data[:100])
    async with opened(path) as store:
        assert await store.value_begin("s", sha, len(data)) == 100
        assert await store.value_write("s", sha, len(data), 100, data[100:])


async def test_what_was_removed_is_in_none_of_the_files(path: Path) -> None:
    """A recording may hold what nobody should find on the disk once it was removed."""
    planted = "planted-5b1f3c"
    data = (planted * 50_000).encode()
    sha = hashlib.sha256(data).hexdigest()
    begun = hashlib.sha256(b"never completed").hexdigest()

    def found() -> list[str]:
        files = [file for file in path.parent.rglob("*") if file.is_file()]
        return sorted(file.name for file in files if planted.encode() in file.read_bytes())

    async with opened(path) as store:
        await store.value_write("s~1", sha, len(data), 0, data)
        await store.value_write("s~1", begun, 1_000, 0, planted.encode())
        for number in range(200):
            record = LogRecord(n=number + 1, at="1", text=f"{planted} {number} " + "x" * 3_000)
            await store.commit([a_commit(store, 2 * number, values={sha}, logs=[("a", record)])])
        assert sha in found()
        assert any(path.name in name for name in found())
        await store.remove("s~1", at=5)
        assert found() == []
    assert found() == []


async def test_a_full_disk_does_not_keep_a_server_from_ending(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteStore(path)
    await store.open()
    epoch = store.epoch
    await store.commit([a_commit(store)])
    await store._run(lambda: store._db.execute("PRAGMA query_only=ON"))
    await store.close()
    assert "closing could not be noted" in caplog.text
    async with opened(path) as again:
        # The same boot of the same system: what was committed is there, and goes on.
        assert again.epoch == epoch
        stored = await again.load("s~1")
        assert stored is not None
        assert stored.state.seq == 2


async def test_a_commit_does_not_wait_for_a_large_session_that_is_loaded(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "AT_ONCE", 10)
    order: list[str] = []
    async with opened(path) as store:
        await store.commit([a_commit(store, count=100)])

        async def load() -> StoredSession | None:
            stored = await store.load("s~1")
            order.append("loaded")
            return stored

        loading = asyncio.create_task(load())
        await asyncio.sleep(0)  # its first part is with the thread
        await store.commit([Commit("other~1", store.epoch, 0)])
        order.append("committed")
        stored = await loading
    assert order == ["committed", "loaded"]
    assert stored is not None
    assert set(stored.state.chains) == {f"c{seq}" for seq in range(2, 101)}
    assert stored.size == sum(len(data) for data in a_commit(store, count=100).entities.values())


@pytest.mark.parametrize("count", [9, 10, 11, 20])
async def test_a_session_is_loaded_whole_whatever_its_parts(
    path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(reading, "AT_ONCE", 10)
    async with opened(path) as store:
        await store.commit([a_commit(store, count=count)])
        stored = await store.load("s~1")
    assert stored is not None
    assert len(stored.state) == count
