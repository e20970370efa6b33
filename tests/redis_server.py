"""A real Redis for tests: Debian's ``redis-server``, in a folder and on a socket of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
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


class RedisServer:
    """One Redis that can be killed and started again on what it has saved.

    Args:
        folder: where it keeps its data.
        settings: what its command line says beyond that, each as ``--name value …``.
        port: a TCP port; 0 for a Unix socket only.
    """

    def __init__(self, folder: Path, *settings: str, port: int = 0) -> None:
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
                    *(require(), "--port", str(self.port), "--bind", "127.0.0.1"),
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
        parts = [part.encode() for part in command]
        wire = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(one), one) for one in parts)
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(_READY)
            link.connect(str(self.socket))
            link.sendall(wire)
            return link.recv(65536).decode()

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


def free_port() -> int:
    """A TCP port that nobody uses."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
