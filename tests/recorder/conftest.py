"""Kernels that are recorded, and what their recording holds."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.kernels import KERNELS
from tests.notebook.test_kernel import PATIENCE, Kernel
from wsmonitor.client import Connection, Target, connect
from wsmonitor.client.whole import read_value
from wsmonitor.export.outputs import decode, resolve
from wsmonitor.protocol.entities import Step, Value
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.embedded import EmbeddedServer


class Recorded:
    """A kernel that is recorded, seen from outside."""

    def __init__(self, server: Any, token: str, kernel: Kernel, connection: Connection) -> None:
        self.server = server
        self.token = token
        self.kernel = kernel
        self.connection = connection
        self.session = ""
        self._subscription: Any = None

    def record(self, name: str) -> str:
        """Start recording; the session's id."""
        said = self.kernel.run(f"%load_ext wsmonitor\n%wsmonitor record {name}")
        self.session = said.split("(session ")[1].split(")")[0]
        if self._subscription is not None:
            self._subscription.close()
        self._subscription = self.connection.subscribe(self.session)
        return self.session

    def off(self) -> None:
        self.kernel.run("%wsmonitor record off")

    @property
    def state(self) -> SessionState:
        found = self._subscription.snapshot()
        assert found is not None
        return found  # type: ignore[no-any-return]

    def until(self, condition: Callable[[SessionState], Any]) -> Any:
        """Wait until *condition* gives something true; that."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = self._subscription.snapshot()
            if found is not None and (result := condition(found)):
                return result
            time.sleep(0.01)
        steps = [(step.name, step.state) for step in self.steps_of(self._subscription.snapshot())]
        raise AssertionError(f"not seen: {steps[-5:]}")

    @staticmethod
    def steps_of(state: SessionState | None) -> list[Step]:
        return [] if state is None else sorted(state.steps.values(), key=lambda step: int(step.created))

    def step(self, cell: str, *, ended: bool = True) -> Step:
        """The step of this execution (its ``msg_id``), when it has ended."""

        def find(state: SessionState) -> Step | None:
            for step in state.steps.values():
                if step.attributes["msg_id"] == cell and (step.ended or not ended):
                    return step
            return None

        found: Step = self.until(find)
        return found

    def run(self, code: str) -> Step:
        """Run a cell; its step."""
        cell = self.kernel.begin(code)
        self.kernel.end(cell)
        return self.step(cell)

    def bytes_of(self, value: Value | None) -> bytes:
        assert value is not None
        if not value.truncated:
            return value.text.encode()
        found = read_value(self.connection, self.session, value.sha256, value.size)
        assert found is not None
        return found

    def outputs(self, step: Step) -> list[dict[str, Any]]:
        """The outputs that were recorded, whole."""
        if step.output is None:
            return []
        parts = step.output.parts

        def fetch(digest: str) -> bytes:
            found = read_value(self.connection, self.session, digest, parts[digest])
            if found is None:
                raise LookupError(digest)
            return found

        return resolve(decode(self.bytes_of(step.output)).outputs, fetch)

    def text(self, step: Step) -> str:
        """What the outputs say, as one text."""
        return json.dumps(self.outputs(step), ensure_ascii=False)


def make_recorded(server: Any, options: Mapping[str, Any] | None = None, **env: str) -> Iterator[Recorded]:
    """A kernel to be recorded. *options*: of its `KernelManager`; *env*: what it sees besides."""
    token = server.token(sub="ada", role="admin")
    # Beneath a test, ipykernel would leave file descriptors alone.
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    kernel = Kernel({"WSMONITOR_URL": server.url, "WSMONITOR_TOKEN": token, **env}, **(options or {}))
    try:
        with connect(Target(url=server.url, token=token)) as connection:
            connection.wait_live(PATIENCE)
            yield Recorded(server, token, kernel, connection)
    finally:
        kernel.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with EmbeddedServer.in_thread() as running:
        yield running


@pytest.fixture(scope="module", params=KERNELS, ids=str)
def recorded(request: pytest.FixtureRequest, server: Any, kernels: Path) -> Iterator[Recorded]:
    """A kernel, recorded as ``analysis``; with ``--all`` one of each ipykernel version."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in request.param.env(kernels).items():
            patch.setenv(name, value)
        for found in make_recorded(server, JPY_SESSION_NAME="/home/ada/analysis.ipynb"):
            version = found.kernel.run("import ipykernel; print(ipykernel.__version__)")
            assert version.startswith(request.param.version)
            found.record("")
            yield found
