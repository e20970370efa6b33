"""A real JupyterLab with its own folders, and the few gestures that the tests make in it."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect

from tests.scale import SCALE

CHROMIUM = "/usr/bin/chromium"
HEADLESS = "/usr/bin/chromium-headless-shell"
"""The same engine without a browser's windows: a page costs a fifth of the processor time, JupyterLab two
thirds."""
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NO_DETECTION = {"LanguageServerManager": {"autodetect": False}}
"""Or each JupyterLab starts node a dozen times, to find language servers."""
QUIET_SETTINGS = {"fetchNews": "false", "checkForUpdates": False}


def chromium() -> str | None:
    """Which Chromium the tests take: the whole one with ``--all``, else one without windows if there is."""
    wanted = (CHROMIUM, HEADLESS) if SCALE > 1 else (HEADLESS, CHROMIUM)
    return next((path for path in wanted if Path(path).exists()), None)


def eventually(condition: Callable[[], Any], what: str, timeout: float = 30.0, pause: float = 0.1) -> Any:
    """Wait until *condition* gives something true, and give that."""
    deadline = time.monotonic() + timeout
    waiter = threading.Event()
    while not (result := condition()):
        assert time.monotonic() < deadline, what
        waiter.wait(pause)
    return result


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Lab:
    """JupyterLab in *folder*. ``env`` is what its kernels see besides."""

    def __init__(self, folder: Path, env: dict[str, str], *, dark: bool = False) -> None:
        self.root = folder / "root"
        self.token = secrets.token_hex(16)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / "lab.log"
        self._folder = folder
        places = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "IPYTHONDIR": "ipython",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        }
        self.env = {**os.environ, **{name: str(folder / place) for name, place in places.items()}, **env}
        for place in (*places.values(), "root"):
            (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / "config" / "jupyter_server_config.json").write_text(json.dumps(NO_DETECTION))
        self._setting("notification", QUIET_SETTINGS)
        self._setting("themes", {"theme": "JupyterLab Dark" if dark else "JupyterLab Light"})
        self._process: subprocess.Popen[bytes] | None = None

    def _setting(self, plugin: str, values: dict[str, Any]) -> None:
        folder = self._folder / "settings" / "@jupyterlab" / "apputils-extension"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{plugin}.jupyterlab-settings").write_text(json.dumps(values))

    def theme(self, dark: bool) -> None:
        """Change the theme; it holds from the next loading of the page."""
        self._setting("themes", {"theme": "JupyterLab Dark" if dark else "JupyterLab Light"})

    def start(self) -> None:
        arguments = [
            *("--allow-root", "--no-browser", "--ip=127.0.0.1", f"--port={self.port}"),
            *("--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}"),
            *(f"--ServerApp.root_dir={self.root}", "--LabApp.extension_manager=readonly"),
            "--LabApp.expose_app_in_browser=True",
            "--JupyterNotebookApp.expose_app_in_browser=True",
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.env,
                cwd=self.root,
                start_new_session=True,
            )
        eventually(self._answers, f"JupyterLab did not start; its log is {self._log}", 60)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"{self.url}/api/status?token={self.token}", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        process = self._process
        if process is None:
            return
        # It and its kernels are one process group of their own.
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def api(self, path: str, *, method: str = "GET") -> Any:
        """Ask Jupyter's own REST interface."""
        asked = urllib.request.Request(f"{self.url}/api/{path}?token={self.token}", method=method)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def page(
        self, browser: Browser, notebook: str, *, width: int = 1280, height: int = 1000, app: str = "lab/tree"
    ) -> Notebook:
        """Open *notebook* in a fresh window; *app* is ``notebooks`` for Notebook 7."""
        context = browser.new_context(viewport={"width": width, "height": height})
        page = context.new_page()
        page.goto(
            f"{self.url}/{app}/{notebook}?token={self.token}" + ("&reset" if app != "notebooks" else "")
        )
        opened = Notebook(page, notebook)
        opened.ready()
        # The page may show an idle kernel that has not been started yet.
        eventually(self._kernel_idle, "the kernel did not start")
        return opened

    def _kernel_idle(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/api/kernels?token={self.token}", timeout=5) as answer:
                return any(kernel["execution_state"] == "idle" for kernel in json.load(answer))
        except urllib.error.HTTPError:  # 500 while a kernel is being started
            return False


class Notebook:
    """A notebook open in JupyterLab."""

    def __init__(self, page: Page, path: str) -> None:
        self.page = page
        self.path = path
        self.panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")

    def ready(self) -> None:
        """Wait until its kernel is idle."""
        self.panel.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(timeout=60_000)

    def cell(self, index: int) -> Locator:
        return self.panel.locator(f".jp-Notebook .jp-Cell[data-windowed-list-index='{index}']")

    def run(self, index: int, *, wait: bool = True, timeout: float = 60.0) -> Locator:
        """Run a cell, and wait until it has run."""
        cell = self.cell(index)
        prompt = cell.locator(".jp-InputPrompt").first
        before = prompt.text_content()

        def started() -> bool:
            # A notebook that has just been opened may still take the first click for itself.
            dialog = self.page.locator("dialog.jp-Dialog")
            if dialog.count():
                asked = dialog.first.text_content() or ""
                # It asks where the list of kernels came later than the notebook, and offers the right one.
                assert "Select Kernel" in asked, f"JupyterLab asks: {asked}"
                dialog.first.locator(".jp-mod-accept").click()
                return False
            cell.locator(".cm-content").first.click()
            self.page.keyboard.press("Control+Enter")
            try:
                expect(prompt).not_to_have_text(before or "", timeout=3_000)
            except AssertionError:
                return False
            return True

        eventually(started, f"cell {index} did not start")
        if wait:
            expect(prompt).to_have_text(re.compile(r"\[\d+\]:"), timeout=timeout * 1000)
        return cell

    def observer(self, index: int) -> Locator:
        """The observer in the output of a cell."""
        return self.cell(index).locator(".wsm").first

    @staticmethod
    def reconnect(shown: Locator) -> None:
        """Ask for an attempt now, unless one has succeeded by itself in the meantime."""
        # Not Playwright's click, which waits for the button: it goes away when the link is back.
        shown.locator(".wsm-reconnect").evaluate("button => button.click()")

    def save(self) -> None:
        """Save, and wait until it is."""
        with self.page.expect_response(
            lambda answer: answer.request.method == "PUT" and "/api/contents/" in answer.url, timeout=60_000
        ):
            self.page.keyboard.press("Control+s")

    def close(self) -> None:
        self.page.keyboard.press("Control+s")
        self.page.context.close()


def notebook_file(path: Path, *cells: str, kernel: str = "python3") -> None:
    """Write a notebook of code cells."""
    found = [
        {
            "cell_type": "code",
            "id": f"c{n}",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": cell,
        }
        for n, cell in enumerate(cells)
    ]
    metadata = {"kernelspec": {"name": kernel, "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"cells": found, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))
