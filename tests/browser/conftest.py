"""What the browser tests share: Chromium, and a server and a workload as processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.lab import CHROMIUM_FLAGS, Lab, chromium, free_port
from wsmonitor.client.tokens import issue_token

# What is expected is waited for, and a machine may be ten times slower than ours.
expect.set_options(timeout=30_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests come last, because from the first of them on Playwright has a loop that runs.

    No `asyncio.run` works beneath that. Among them those that need a JupyterLab, which take longest,
    come first: else one of two workers ends with them alone.
    """
    items.sort(
        key=lambda item: (
            item.get_closest_marker("browser") is not None,
            not hasattr(item.getparent(pytest.Module).obj, "Lab"),  # type: ignore[union-attr]
        )
    )


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = chromium()
    if path is None:
        pytest.skip("neither chromium-headless-shell nor chromium is installed: .ci/run installs them")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    found = browser.new_page(viewport={"width": 1200, "height": 900}, timezone_id="UTC")
    trouble: list[str] = []
    found.on("pageerror", lambda error: trouble.append(str(error)))
    found.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
    yield found
    found.close()
    assert trouble == []


class ServerProcess:
    """A server on a fixed port, that can be killed and started again over the same data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        store = f"sqlite:{self.folder / 'store.sqlite3'}"
        arguments = [f"--port={self.port}", f"--data-dir={self.folder}", f"--store={store}"]
        with (self.folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "wsmonitor_server", *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert "listens" in line, line + (self.folder / "log").read_text()

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def token(self, sub: str, role: str) -> str:
        return issue_token(self.folder / "key", sub=sub, role=role)

    def env(self, sub: str = "ada", role: str = "admin") -> dict[str, str]:
        """What a program needs to find it."""
        return {"WSMONITOR_URL": self.url, "WSMONITOR_TOKEN": self.token(sub, role)}


@contextmanager
def server_and_lab(folder: Path, **env: str) -> Iterator[tuple[ServerProcess, Lab]]:
    """A server, and a JupyterLab whose kernels find it, import what the tests do, and have *env* besides."""
    server = ServerProcess(folder / "server")
    server.start()
    paths = os.pathsep.join(path for path in sys.path if path)
    lab = Lab(folder / "lab", {**server.env(), "PYTHONPATH": paths, **env})
    lab.start()
    try:
        yield server, lab
    finally:
        lab.stop()
        server.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path / "server")
    process.start()
    yield process
    process.stop()


@pytest.fixture
def kernel_env() -> dict[str, str]:
    """So that kernels import this checkout, as the tests do."""
    return {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
