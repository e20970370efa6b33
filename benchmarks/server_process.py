"""A real server in a process of its own, for a benchmark."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from wsmonitor.client.tokens import issue_token
from wsmonitor.protocol.access import Role


class RunningServer(NamedTuple):
    """Where it listens, the key that it trusts, and its process."""

    url: str
    key_file: Path
    pid: int

    def token(self, subject: str, role: Role) -> str:
        """A token for all sessions, good for an hour."""
        return issue_token(self.key_file, sub=subject, role=role, sessions=("*",), ttl=3600)


@contextmanager
def serve(store: str) -> Iterator[RunningServer]:
    """Run ``python -m wsmonitor_server`` with *store* (``memory`` or ``sqlite``) until the block ends."""
    with tempfile.TemporaryDirectory(prefix="wsmonitor-bench-") as folder:
        where = "memory" if store == "memory" else f"sqlite:{folder}/store.sqlite3"
        command = [sys.executable, "-m", "wsmonitor_server", "--port", "0", "--store", where]
        with subprocess.Popen(
            [*command, "--data-dir", folder], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            try:
                line = process.stdout.readline()
                if "listens at" not in line:
                    raise RuntimeError(f"the server did not start: {line!r}")
                yield RunningServer(line.split()[-1], Path(folder) / "key", process.pid)
            finally:
                process.terminate()
                process.wait(timeout=30)
