"""Files that hold a secret are their owner's alone, or they are not used (ASVS 5.0, 13.3.1 and 14.2.8).

The key file's and the discovery file's everyday: tests/server_front/test_keys.py, test_process.py."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest

from wsmonitor import host
from wsmonitor.client.tokens import issue_token
from wsmonitor.host import NotPrivateError, boot_id, process_started, read_discovery, read_private
from wsmonitor.protocol.discovery import Discovery
from wsmonitor.protocol.errors import ConfigurationError
from wsmonitor_server.keys import read_key, read_or_make_key
from wsmonitor_server.stores.sqlite import SqliteStore

pytestmark = pytest.mark.skipif(os.name != "posix", reason="not here: files have neither owner nor mode")

SECRET = "k" * 64


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A private file with a secret."""
    path = tmp_path / "secret"
    path.touch(0o600)
    path.write_text(SECRET)
    return path


def as_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the files that were made belong to somebody else, who is not root."""
    path = Path(os.environ["WSMONITOR_HOME"])
    if path.stat().st_uid == 0:
        found = os.fstat

        def foreign(handle: int) -> os.stat_result:
            true = found(handle)
            return os.stat_result((*true[:4], 4242, *true[5:]))

        monkeypatch.setattr(host.os, "fstat", foreign)
    else:
        monkeypatch.setattr(host.os, "geteuid", lambda: path.stat().st_uid + 1)


def group_reads(path: Path) -> None:
    path.chmod(0o640)


def others_read(path: Path) -> None:
    path.chmod(0o604)


def others_write(path: Path) -> None:
    path.chmod(0o602)


def group_executes(path: Path) -> None:
    path.chmod(0o610)


def everybody_writes_beside_it(path: Path) -> None:
    path.parent.chmod(0o777)


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


def a_link_to_what_others_read(path: Path) -> None:
    target = path.with_name("target")
    path.rename(target)
    target.chmod(0o644)
    path.symlink_to(target)


WRONG = [
    group_reads, others_read, others_write, group_executes, everybody_writes_beside_it, a_pipe, a_folder,
    a_link_to_what_others_read,
]  # fmt: skip


@pytest.mark.parametrize("spoil", WRONG)
def test_what_is_not_private_is_not_read(file: Path, spoil: Callable[[Path], None]) -> None:
    """The key file on the server's side and on the issuing side, and the discovery file: one rule."""
    assert read_private(file) == SECRET.encode()
    spoil(file)
    with pytest.raises(NotPrivateError):
        read_private(file)
    with pytest.raises(ConfigurationError, match="is not private"):
        read_key(file)
    with pytest.raises(ConfigurationError, match="is not private"):
        read_or_make_key(file)
    with pytest.raises(ConfigurationError, match="is not private"):
        issue_token(file, sub="a")
    assert read_discovery(file)[1].startswith("it is not believed")


def test_another_users_file_is_not_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who can write in the folder cannot put a key or a server of his own there."""
    as_another_user(monkeypatch)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        read_key(file)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        issue_token(file, sub="a")
    assert "belongs to another user" in read_discovery(file)[1]


def test_a_key_may_be_a_link_and_a_discovery_file_may_not(file: Path) -> None:
    """Containers mount secrets as links; nobody has a reason to link a discovery file."""
    link = file.with_name("link")
    link.symlink_to(file)
    assert read_key(link) == SECRET.encode()
    assert read_discovery(link) == (None, "it is not believed: it is a symbolic link")


def test_another_users_link_is_not_followed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would choose which of our files is the key."""
    link = file.with_name("link")
    link.symlink_to(file)
    true = Path.lstat

    def foreign(path: Path) -> os.stat_result:
        found = true(path)
        return os.stat_result((*found[:4], 4242, *found[5:]))

    monkeypatch.setattr(Path, "lstat", foreign)
    with pytest.raises(ConfigurationError, match="another user's symbolic link"):
        read_key(link)


def test_a_sticky_folder_is_enough(file: Path) -> None:
    """As in /tmp: everybody may write there, and nobody may exchange what is another's."""
    file.parent.chmod(0o1777)
    assert read_key(file) == SECRET.encode()


def test_no_handle_is_left_by_a_refusal(file: Path) -> None:
    """CLEAN."""
    file.chmod(0o644)
    with pytest.raises(NotPrivateError):
        read_private(file)
    before = psutil.Process().num_fds()
    for _ in range(20):
        with pytest.raises(NotPrivateError):
            read_private(file)
    assert psutil.Process().num_fds() == before


def test_a_discovery_file_is_written_private_whatever_the_umask(tmp_path: Path) -> None:
    """ASVS 14.2.8. The key file likewise, and what the store writes."""
    from wsmonitor.protocol.defaults import PROTOCOL_MAJOR
    from wsmonitor_server.config import ServerConfig
    from wsmonitor_server.local import LocalHome

    before = os.umask(0)
    try:
        with LocalHome.open(ServerConfig(local=True, data_dir=str(tmp_path / "data"))) as home:
            home.publish("ws://127.0.0.1:9", "instance")
            found, problem = read_discovery(home.discovery_file)
            assert problem == ""
            assert found is not None
            assert found.major == PROTOCOL_MAJOR
            assert stat.S_IMODE(home.discovery_file.stat().st_mode) == 0o600
            assert stat.S_IMODE(Path(found.key_file).stat().st_mode) == 0o600
            assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
            home.retract("instance")
    finally:
        os.umask(before)


def open_to_others(path: Path) -> list[str]:
    """What others may read under *path*: a folder that they may not enter hides what is in it."""
    found = []
    for one in path.iterdir():
        if stat.S_IMODE(one.stat().st_mode) & 0o077:
            found += open_to_others(one) if one.is_dir() else [one.name]
    return found


async def test_a_database_is_its_owners_alone(tmp_path: Path) -> None:
    """What sessions say is as secret as their tokens: no file of the store may be read by others."""
    before = os.umask(0)
    try:
        store = SqliteStore(tmp_path / "store.sqlite3", log_records=10)
        await store.open()
        await store.revoke("some-token", 0)
        await store.value_write("s", "0" * 64, 5, 0, b"valu")
        names = {path.name for path in tmp_path.rglob("*")}  # noqa: ASYNC240 - nothing else runs here
        found = open_to_others(tmp_path)
        await store.close()
    finally:
        os.umask(before)
    assert {"store.sqlite3", "store.sqlite3-wal", "0" * 64 + ".part"} <= names
    assert found == []


def test_a_discovery_file_is_never_printed_with_its_secret(tmp_path: Path) -> None:
    """ASVS 16.2.5: not in a log, not in a traceback."""
    found = Discovery(
        url="ws://127.0.0.1:1", instance="i", version="0", major=1, minor=0, pid=os.getpid(),
        boot_id=boot_id(), started="1", process_started=process_started(os.getpid()) or 0.0, store="memory",
        data_dir="", log="",
        key_file="", secret="very-secret",
    )  # fmt: skip
    path = tmp_path / "found.json"
    path.touch(0o600)
    path.write_bytes(msgspec.json.encode(found))
    read, problem = read_discovery(path)
    assert (read, problem) == (found, "")
    assert "very-secret" not in f"{read!r} {read}"
