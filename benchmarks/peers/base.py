"""What every peer has: whether it is there, how it starts, what its clients say."""

from __future__ import annotations

import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pinned import cores, start_on


@dataclass(frozen=True)
class Server:
    """A running server, as the load generator wants it."""

    port: int
    pid: int
    script: str
    tokens: Sequence[str] = ()


class Peer(ABC):
    """A kind of server."""

    name: str

    @abstractmethod
    def available(self) -> str:
        """Why it cannot be run here, and how to get it; empty when it can."""

    @abstractmethod
    def command(self, folder: Path) -> list[str]:
        """The command line that starts it; *folder* is its own, and temporary."""

    @abstractmethod
    def script(self) -> str:
        """What its clients say (see ``native/script.c``)."""

    def storm_script(self) -> str:
        """The same for clients that are sent 100 KB of snapshot when they come; empty: not for this peer."""
        return ""

    def environment(self) -> Mapping[str, str] | None:
        """Its process environment; None for this one's."""
        return None

    def tokens(self, folder: Path, clients: int) -> Sequence[str]:
        """Tokens for *clients* connections; called after the start."""
        return ()

    def listening(self, process: subprocess.Popen[str]) -> int:
        """Wait until it listens; the port. A server says so in a line that ends with it."""
        assert process.stdout is not None
        line = process.stdout.readline()
        if "listens at" not in line:
            raise RuntimeError(f"{self.name} did not start: {line!r}")
        return int(line.rpartition(" ")[2].rpartition(":")[2].rstrip("/\n"))

    @contextmanager
    def start(self, clients: int, script: str = "") -> Iterator[Server]:
        """Run it on its own core until the block ends; clients follow *script* (default: `script`)."""
        pair = cores()
        with tempfile.TemporaryDirectory(prefix="wsmonitor-bench-") as name:
            folder = Path(name)
            with start_on(
                pair[0] if pair else None,
                self.command(folder),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self.environment(),
            ) as process:
                try:
                    port = self.listening(process)
                    yield Server(port, process.pid, script or self.script(), self.tokens(folder, clients))
                finally:
                    process.terminate()
                    try:
                        process.wait(timeout=30)
                    except subprocess.TimeoutExpired:
                        process.kill()
