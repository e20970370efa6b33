"""The spool's file: whose it is, what it survives, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace

import pytest

from wsmonitor.client import keeper as keepers
from wsmonitor.client.driver import Lasting
from wsmonitor.client.entries import Append, Drop, Entry, Opened, Row
from wsmonitor.client.spool import Spool, SpoolLimits
from wsmonitor.client.spoolfile import (
    Facts,
    SpoolDamagedError,
    SpoolError,
    SpoolFile,
    SpoolInUseError,
    in_use,
    read_facts,
)
from wsmonitor.client.spools import find, remove, remove_expired

from .helpers import eventually

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="not here: this platform has no fork")


def make(folder: Path, name: str = "a", *, created: int = 0, rows: int = 3) -> SpoolFile:
    facts = Facts(session="s~1", producer="main", holder="h", created=created)
    made = SpoolFile.create(folder / f"{name}.sqlite3", facts)
    if rows:
        made.carry_out([append(1, rows)])
    return made


def append(first: int, count: int) -> Append:
    rows = [Row(pos, pos, "", 0, True, 3, b"%03d" % pos) for pos in range(first, first + count)]
    return Append([Entry(row.pos, row.data, 3, pos=row.pos) for row in rows], rows)


def test_it_is_private_and_keeps_what_it_was_given(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "spool"
    made = make(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {one.stat().st_mode & 0o777 for one in folder.iterdir()} == {0o600}
    made.carry_out([Drop(1, 1), Opened(4, "e"), append(4, 1)])
    assert [row.pos for row in made.rows()] == [2, 3, 4]
    assert made.fetch(3) == [(3, b"003"), (4, b"004")]
    facts, changes, size = read_facts(made.path)
    assert (facts.accepted, facts.producer_epoch, facts.session_epoch) == (1, 4, "e")
    assert (changes, size) == (3, 9)
    made.close()
    again = SpoolFile.take(made.path)
    assert again.facts == facts
    again.close(delete=True)
    assert list(folder.iterdir()) == []


def test_orders_that_fail_leave_nothing_half_done(tmp_path: Path) -> None:
    made = make(tmp_path)
    with pytest.raises(SpoolError):
        made.carry_out([Drop(2, 2), append(3, 1)])  # the place 3 is taken
    assert [row.pos for row in made.rows()] == [1, 2, 3]
    assert made.facts.accepted == 0
    made.close()


def test_it_is_one_processs_at_a_time(tmp_path: Path) -> None:
    made = make(tmp_path)
    assert in_use(made.path)
    with pytest.raises(SpoolInUseError):
        SpoolFile.take(made.path)
    code = (
        "import sys; from pathlib import Path; from wsmonitor.client.spoolfile import in_use\n"
        "sys.exit(in_use(Path(sys.argv[1])))"
    )
    elsewhere = [sys.executable, "-c", code, str(made.path)]
    assert subprocess.run(elsewhere, timeout=60, check=False).returncode == 1
    assert in_use(made.path), "to look must not give up the lock"
    with pytest.raises(SpoolInUseError):
        remove(made.path)
    made.close()
    assert subprocess.run(elsewhere, timeout=60, check=False).returncode == 0
    with pytest.raises(SpoolError, match="there is no spool"):
        SpoolFile.take(tmp_path / "none.sqlite3")
    with pytest.raises(SpoolError, match="closed"):
        made.rows()


@forks
def test_a_forked_child_neither_holds_nor_harms_it(tmp_path: Path) -> None:
    made = make(tmp_path)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        # It ends as a program does that falls off its end, with everything finalised.
        try:
            made.rows()
            os.write(write, b"read it")
        except SpoolError:
            os.write(write, b"closed")
        made.close(delete=True)
        del made
        os._exit(0)
    os.close(write)
    assert os.read(read, 100) == b"closed"
    os.close(read)
    os.waitpid(child, 0)
    made.carry_out([append(4, 1)])
    assert len(made.rows()) == 4
    assert in_use(made.path)
    made.close(delete=True)


@forks
def test_a_fork_waits_for_a_write_that_is_under_way(tmp_path: Path) -> None:
    made = make(tmp_path, rows=0)
    stop = threading.Event()
    written = 0

    def work() -> None:
        nonlocal written
        while not stop.is_set():
            made.carry_out([append(written + 1, 50)])
            written += 50

    thread = threading.Thread(target=work)
    thread.start()
    children = []
    for _ in range(5):
        before = written
        eventually(lambda before=before: written > before)  # type: ignore[misc]
        child = os.fork()
        if child == 0:
            os._exit(0)
        children.append(child)
    stop.set()
    thread.join()
    for child in children:
        os.waitpid(child, 0)
    assert len(made.rows()) == written
    made.close()
    again = SpoolFile.take(made.path)  # it passes its check
    assert len(again.rows()) == written
    again.close()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_bytes(b"no database " * 1000), "damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:9000]), "damaged"),
        (lambda path: path.write_bytes(b""), "no spool"),
        (
            lambda path: sqlite3.connect(path).execute("PRAGMA user_version = 99").connection.close(),
            "version",
        ),
        (lambda path: _spoil_facts(path), "damaged"),
    ],
    ids=["garbage", "torn", "empty", "another version", "facts"],
)
def test_what_is_no_spool_is_told_as_such(tmp_path: Path, spoil: Callable[[Path], None], words: str) -> None:
    made = make(tmp_path, rows=500)
    made.close()
    spoil(made.path)
    with pytest.raises(SpoolDamagedError, match=words):
        SpoolFile.take(made.path)
    assert not in_use(made.path), "who finds it damaged does not keep it"
    aside = SpoolFile.take_damaged(made.path).set_aside()
    assert aside.exists()
    (found,) = find(tmp_path)
    assert (found.state, found.path) == ("damaged", aside)
    remove(aside)
    assert find(tmp_path) == []


def _spoil_facts(path: Path) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE facts SET facts = '{\"session\": 3}'")
    db.close()


def test_a_file_that_somebody_removed_does_not_come_back_empty(tmp_path: Path) -> None:
    made = make(tmp_path)
    made._disconnect()
    made.path.unlink()
    with pytest.raises(SpoolError, match="cannot be used now"):
        made.carry_out([append(4, 1)])
    assert not made.path.exists()
    made.close()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="no spool can be made"):
        make(tmp_path / "file")


def test_what_was_left_behind_long_ago_is_removed_and_told(tmp_path: Path) -> None:
    day = 86_400 * 10**9
    for name, age in (("new", 1), ("old", 31), ("used", 31)):
        made = make(tmp_path, name, created=100 * day - age * day)
        if name != "used":
            made.close()
    make(tmp_path, "empty", created=99 * day, rows=0).close()
    assert remove_expired(tmp_path, 100 * day) == [
        "3 changes of s~1 were removed: left behind more than 30 days ago"
    ]
    assert [one.id for one in find(tmp_path)] == ["new", "used"]
    made.close()


async def test_what_is_wanted_while_the_keeper_is_about_to_rest_is_fetched(tmp_path: Path) -> None:
    """The task has looked for the last time, and its end is not known yet: then a message is handled."""
    loop = asyncio.get_running_loop()
    file = make(tmp_path, rows=2)
    spool = Spool(SpoolLimits())
    spool.restore(file.rows(), 0)
    first = spool.entries[0]

    async def in_thread(work: Callable[[], bool], name: str) -> bool:
        return work()

    ends: list[bytes | None] = []
    fetched = asyncio.Event()

    def create_task(work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = loop.create_task(work)
        task.add_done_callback(ended)  # before the keeper adds its own
        return task

    def ended(task: asyncio.Task[None]) -> None:
        ends.append(first.data)
        if len(ends) == 1:
            spool.wanted = first
            keeper.look()
        else:
            fetched.set()

    runner = SimpleNamespace(
        loop=SimpleNamespace(create_task=create_task),
        in_thread=in_thread,
        call_later=lambda delay, fn: lambda: None,
        now=lambda: SimpleNamespace(mono=0.0),
    )
    shared = SimpleNamespace(
        lock=threading.RLock(),
        runner=runner,
        driver=SimpleNamespace(input=lambda fn: None),
        core=SimpleNamespace(link=SimpleNamespace(status=SimpleNamespace(phase="live"))),
    )
    machine = SimpleNamespace(spool=spool, stage="open", empty=False)
    keeper = keepers.Keeper(machine, shared, Lasting(), pytest.fail, file=file)  # type: ignore[arg-type]
    spool.orders.append(Opened(1, "e"))  # something to do, so that the task runs
    keeper.look()
    async with asyncio.timeout(30):
        await fetched.wait()
    assert ends == [None, b"001"]
    file.close()


@pytest.mark.filterwarnings("ignore::wsmonitor.WsMonitorWarning")
class TestTrouble:
    """A disk that takes nothing costs the spool, and nothing else."""

    def test_a_full_disk_is_told_once_and_tried_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import wsmonitor as wm

        monkeypatch.setenv("WSMONITOR_HOME", str(tmp_path))
        monkeypatch.setattr(keepers, "RETRY", 0.02)
        (tmp_path / "spool").write_text("a file where the folder should be")
        session = wm.session("away", url="ws://127.0.0.1:9", token="x").start()
        eventually(lambda: any(one.code == "spool_unavailable" for one in session.errors), 30)
        (tmp_path / "spool").unlink()
        eventually(lambda: any(one.changes for one in find(tmp_path / "spool")), 30)
        assert [one.code for one in session.errors].count("spool_unavailable") == 1
        session.end()
        session._run.channel.close()
        assert [one.state for one in find(tmp_path / "spool")] == ["left"]

    def test_too_much_in_all_begins_no_further_spool(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import wsmonitor as wm

        monkeypatch.setenv("WSMONITOR_HOME", str(tmp_path))
        monkeypatch.setattr(keepers, "FOLDER_SIZE", 1000)
        (tmp_path / "spool").mkdir()
        made = make(tmp_path / "spool", created=time.time_ns())
        session = wm.session("away", url="ws://127.0.0.1:9", token="x").start()
        eventually(lambda: any(one.code == "spool_unavailable" for one in session.errors), 30)
        session.end()
        session._run.channel.close()
        left = session._run.channel.left
        assert left is not None
        assert (left.path, left.changes > 0) == (None, True)
        assert left.problem.startswith("nothing more is kept on disk")
        made.close()
