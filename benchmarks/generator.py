"""The load generator, driven: the compiled one, or the one in Python where there is no compiler.

Both take the same command line and the same commands; `native/load.c` says which.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from .cache import compiled
from .pinned import cores, start_on


class Running(Protocol):
    """A server that is measured."""

    @property
    def port(self) -> int: ...
    @property
    def pid(self) -> int:
        """0 where its processor time cannot be read from one process."""

    @property
    def script(self) -> str:
        """What its clients say: see ``native/script.c``."""

    @property
    def tokens(self) -> Sequence[str]:
        """One for each connection, in turn; empty where there are none."""


class Generator:
    """A running generator. Every command answers with a table."""

    def __init__(self, process: subprocess.Popen[str], *, native: bool) -> None:
        self._process = process
        self.pid = process.pid
        self.native = native

    def __call__(self, command: str, **arguments: float) -> dict[str, Any]:
        """Carry out *command*.

        Raises:
            RuntimeError: the generator ended, or could not do it; the message says why.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = " ".join([command, *(f"{name}={value:.9g}" for name, value in arguments.items())])
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError(f"the load generator ended at `{line}` (what it said stands above)")
        result: dict[str, Any] = json.loads(answer)
        if "error" in result:
            raise RuntimeError(f"{line}: {result['error']}")
        if result.get("live") != result.get("wanted"):
            raise RuntimeError(
                f"{line}: {result['live']} of {result['wanted']} connections came up: {result}"
            )
        return result


def native_generator() -> Path | None:
    """The compiled generator; None where there is no compiler."""
    return compiled("load", "load.c", "wire.c", "script.c")


@contextmanager
def generate(server: Running, *, native: bool = True) -> Iterator[Generator]:
    """A generator against *server* until the block ends, on its own core."""
    program = native_generator() if native else None
    command = [str(program)] if program else [sys.executable, "-m", "benchmarks.python_load"]
    pair = cores()
    with tempfile.TemporaryDirectory(prefix="wsmonitor-bench-") as folder:
        script = Path(folder) / "script"
        script.write_text(server.script, "utf-8")
        command += ["--script", str(script), "--port", str(server.port), "--pid", str(server.pid)]
        if server.tokens:
            tokens = Path(folder) / "tokens"
            tokens.write_text("\n".join(server.tokens) + "\n", "ascii")
            command += ["--tokens", str(tokens)]
        core = pair[1] if pair else None
        with start_on(core, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            try:
                yield Generator(process, native=program is not None)
            finally:
                process.kill()
