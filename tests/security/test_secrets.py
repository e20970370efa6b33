"""Planted secrets: with a real publisher, a real server and a database on the disk, none is on the wire,
on the disk, in the exported page, or in a log (ASVS 5.0, 14.2.4, 16.2.5).

Looks one by one: tests/publish/test_redaction.py; recorded notebooks: tests/recorder/test_recorder.py."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest

import wsmonitor as wm
from wsmonitor.client import driver
from wsmonitor_server.embedded import EmbeddedServer

from .conftest import Ear
from .planted import LOOKS, core

PATIENCE = 60.0


@dataclasses.dataclass
class Settings:
    """What programs keep their secrets in."""

    user: str
    password: str
    nested: dict[str, Any]


class Row(NamedTuple):
    name: str
    api_key: str


class Shown:
    """An object whose `repr` tells too much."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    def __repr__(self) -> str:
        return f"<Shown token={self.secret!r}>"


class Told:
    """Collects what the producer's side sends, before it is masked and encrypted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.frames: list[bytes] = []
        true = driver.encode

        def encode(message: Any) -> bytes:
            data = true(message)
            self.frames.append(data)
            return data

        monkeypatch.setattr(driver, "encode", encode)


def values(mark: Callable[[], str]) -> list[object]:
    """Things that hold secrets, of every kind that a step's input or output may be."""
    look = [make(mark()) for make in LOOKS.values()]
    frame = pd.DataFrame({"user": ["bob"], "password": [mark()], "note": [f"token={mark()}"]})
    return [
        *look,
        "\n".join(look),
        "x" * 200_000 + "\n" + "\n".join(look),  # uploaded, in pages
        {"password": mark(), "a": [{"db": {"Password": mark()}}], "list": look},
        {"env": {"DB_PASSWORD": mark(), "HOME": "/root", "DATABASE_URL": f"mysql://u:{mark()}@h/x"}},
        OrderedDict(authToken=mark()),
        {"credentials": {"user": mark(), "more": [mark()]}},
        Settings("bob", mark(), {"secret": mark()}),
        [Settings("bob", mark(), {})],
        Row("a", mark()),
        Shown(mark()),
        {"shown": Shown(mark())},
        f"password={mark()}".encode(),
        f"[db]\npassword = {mark()}\n".encode(),
        f"[db]\r\n\tpassword = {mark()}\r\n".encode() * 5_000,
        bytearray(_pem(mark).encode()),
        memoryview(f"\x1b[31mtoken={mark()}\x1b[0m\n".encode()),
        {"raw": f"secret={mark()}\n".encode()},
        pathlib.PurePosixPath(f"/data/password={mark()}"),
        frame,
        frame.T,
        frame.iloc[0],
        frame.set_index("user").stack(),
        frame["password"],
        {"frame": frame},
        {f"k{number}": text for number, text in enumerate(look)},
        tuple(look),
        set(look),
        ValueError(f"password={mark()}"),
        json.dumps({"token": mark()}),
        json.dumps(json.dumps({"token": mark()})),
    ]


def _pem(mark: Callable[[], str]) -> str:
    return LOOKS["RSA key"](mark())


def fail(secret: str) -> None:
    password = secret
    try:
        raise ConnectionError(f"cannot reach postgresql://bob:{password}@db/x")
    except ConnectionError as exc:
        raise RuntimeError(f"giving up; Authorization: Bearer {password}") from exc


def publish(server: Any, mark: Callable[[], str]) -> str:
    """Plant secrets wherever a publisher can put something. The session's id."""
    url, token = server.url, server.token()
    look = [make(mark()) for make in LOOKS.values()]
    with wm.session(f"run token={mark()}", url=url, token=token) as session:
        session.attributes["db_password"] = mark()
        session.attributes["note"] = f"api_key: {mark()}"
        session.attributes[f"secret={mark()}"] = "a key"
        session.tags = [f"token={mark()}"]
        for one in values(mark):
            with session.step("values", input=one) as step:
                step.output = one
        with session.chain(f"chain password={mark()}") as chain:
            with chain.step(f"step api_key={mark()}", tags=[f"secret={mark()}"]) as step:
                for text in look:
                    step.log(text)
                step.log("\n".join(look))
                for line in _pem(mark).split("\n"):
                    step.log(f"  {line}")
                step.log("after the key")
                step.metric(f"token={mark()}", 1)
                step.progress(1, 2, f"secret={mark()}")
                list(step.track([1], unit=f"token={mark()}"))
                step.link(f"https://bob:{mark()}@example.org/", title=f"password={mark()}")
                step.attributes["list"] = [f"token={mark()}", "nothing secret"]
                step.attributes["credentials"] = [mark()]
            with pytest.raises(RuntimeError), chain.step("fails"):
                fail(mark())
            with pytest.raises(ExceptionGroup), chain.step("fails twice"):
                raise ExceptionGroup("two", [ValueError(f"token={mark()}"), KeyError(f"secret={mark()}")])
        session.flush(PATIENCE)
    return session.id


def test_no_planted_secret_is_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ear: Ear) -> None:
    """By default, without any setting."""
    planted: list[str] = []

    def mark() -> str:
        planted.append(core())
        return planted[-1]

    told = Told(monkeypatch)
    folder = tmp_path / "store"
    folder.mkdir()
    with EmbeddedServer.in_thread(store=f"sqlite:{folder / 'store.sqlite3'}") as server:
        session = publish(server, mark)
        observer = wm.watch(session, url=server.url, token=server.token())
        observer.wait(timeout=PATIENCE)
        page = observer.to_html(tmp_path / "page.html").read_text("utf-8")
        observer.close()
    disk = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    places = {
        "wire": b"\n".join(told.frames),
        "disk": disk,
        "page": page.encode(),
        "log": ear.text.getvalue().encode(),
    }
    assert len(planted) > 100
    assert b"[redacted]" in places["wire"]
    assert b"[redacted]" in places["disk"]
    assert b"[redacted]" in places["page"]
    assert b"after the key" in places["wire"]
    found = {one: where for where, data in places.items() for one in planted if one.encode() in data}
    assert found == {}
