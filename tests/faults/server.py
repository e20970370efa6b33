"""A real server in a process of its own, on a SQLite file, that can be killed and started again."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from wsmonitor_server.auth import issue

ROOT: Final = Path(__file__).resolve().parents[2]

TIMING: Final[dict[str, float]] = {
    "heartbeat_interval": 1.0,
    "heartbeat_timeout": 30.0,
    "quiet_after": 0.5,
    "handshake_timeout": 10.0,
    "healthy_after": 0.2,
    "producer_stale": 20.0,
    "producer_lost": 1.0,
    "producer_crashed": 1.0,
}
"""What makes a round long is shorter than by default: after a loss the delays begin anew at once, and a
producer that is gone is lost and crashed soon. What a slow machine could fall short of is not."""

LIMITS: Final[dict[str, int]] = {"history_events": 20_000, "history_size": 32 * 1024 * 1024}
"""So much history that nobody who is away for a while misses an event: each one is accounted for."""


def environment(**more: str) -> dict[str, str]:
    """The environment for programs of this checkout: nothing of the user's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WSMONITOR_")}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "server")]), **more}


def free_port(host: str = "127.0.0.1") -> int:
    """A port that no connection is given by the operating system, so that it is still free after a kill."""
    while True:
        port = random.SystemRandom().randrange(20_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port


class ServerProcess:
    """``wsmonitor serve`` in *folder*, always at the same address.

    Args:
        folder: for the key, the configuration, the database and the log.
        prefix: what stands before the command, e.g. ``ip netns exec NAME``.
        settings: of the configuration file, by table; "" for those outside of any.
    """

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        prefix: Sequence[str] = (),
        store: str = "",
        settings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.folder = folder
        self.host = host
        self.port = port or free_port(host)
        self.database = folder / "store.sqlite3"
        self.key = b"k" * 64
        self.log = folder / "server.log"
        self.process: subprocess.Popen[str] | None = None
        self.started_ns = 0
        self._prefix = list(prefix)
        self._store = store or f"sqlite:{self.database}"
        tables: dict[str, dict[str, Any]] = {"": {}, "timing": dict(TIMING), "limits": dict(LIMITS)}
        for name, values in (settings or {}).items():
            tables.setdefault(name, {}).update(values)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "key").write_bytes(self.key)
        (folder / "key").chmod(0o600)
        self._config = folder / "server.toml"
        self._config.write_text(_toml(tables), encoding="utf-8")

    @property
    def url(self) -> str:
        return f"ws://{self.host}:{self.port}"

    def token(self, sub: str, role: str = "admin", sessions: Sequence[str] = ("*",)) -> str:
        """A token for an hour."""
        return issue(
            self.key, sub=sub, role=role, sessions=list(sessions), issued=int(time.time()), ttl=3600, jti=sub
        )

    def begin(self) -> None:
        """Start the process, without waiting for it."""
        command = [*self._prefix, sys.executable, "-m", "wsmonitor", "serve"]
        options = ["--host", self.host, "--port", str(self.port), "--config", str(self._config)]
        with self.log.open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [*command, *options, "--data-dir", str(self.folder), "--store", self._store],
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                text=True,
                env=environment(),
            )

    def listening(self) -> None:
        """Wait until it listens. Raises `RuntimeError` with the end of its log when it ends instead."""
        process = self._running()
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("wsmonitor listens at"):
            process.communicate(timeout=60)
            self.process = None
            raise RuntimeError(f"the server did not start: {line!r}; {self.words()[-2000:]}")
        self.started_ns = time.time_ns()

    def start(self) -> None:
        """Start, and wait until it listens."""
        self.begin()
        self.listening()

    def words(self) -> str:
        """What it has logged."""
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    @property
    def pid(self) -> int:
        return self._running().pid

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Let it end properly; its exit status."""
        return self._end(signal.SIGTERM)

    def _running(self) -> subprocess.Popen[str]:
        if self.process is None:
            raise RuntimeError("the server is not running")
        return self.process

    def _end(self, how: signal.Signals) -> int:
        process, self.process = self._running(), None
        process.send_signal(how)
        process.communicate(timeout=60)
        return process.returncode

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None:
            self.kill()


def _toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    lines: list[str] = []
    for name, values in tables.items():
        if name:
            lines.append(f"[{name}]")
        # JSON's numbers, strings, booleans and lists are TOML's, too.
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"
