"""What all tests share: a home of their own, no thread left behind, and no silent skip in CI."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.kernels import kernels_folder
from tests.order import longest_first
from tests.redis_server import RedisServer, require_valkey
from tests.scale import many

# A loaded machine is slow, and that is no fault of what is tested; `timeout` still ends what hangs.
settings.register_profile(
    "wsmonitor", deadline=None, max_examples=many(100), suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("wsmonitor")

# A shell that starts the tests in the background lets them ignore SIGINT, and their children inherit
# that; those that are interrupted by a test would never end.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ELSEWHERE = "not here: "
"""A skip whose reason begins so (another platform, another Python) is right in CI too."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    longest_first(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI every system part is installed: a test that skips for the lack of one has not been run."""
    report = yield
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return report
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(ELSEWHERE):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and in CI nothing may be: {reason}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's own server, keys or Jupyter folders."""
    home: Path = tmp_path_factory.mktemp("home")
    places = {
        "WSMONITOR_HOME": "wsmonitor",
        "JUPYTER_DATA_DIR": "jupyter-data",
        "JUPYTER_RUNTIME_DIR": "jupyter-runtime",
        "JUPYTER_CONFIG_DIR": "jupyter-config",
        "IPYTHONDIR": "ipython",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, folder in places.items():
            (home / folder).mkdir(mode=0o700)
            patch.setenv(name, str(home / folder))
        for name in ("WSMONITOR_URL", "WSMONITOR_TOKEN", "WSMONITOR_LOCAL", "WSMONITOR_STRICT"):
            patch.delenv(name, raising=False)
        yield


def _left_over(before: set[threading.Thread]) -> list[threading.Thread]:
    return [
        thread
        for thread in threading.enumerate()
        if thread not in before and not thread.daemon and not thread.name.startswith("pytest_timeout")
    ]


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    """CLEAN: after a test no thread is left that would keep a program from ending."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    for thread in _left_over(before):
        thread.join(max(0.0, deadline - time.monotonic()))
    left = _left_over(before)
    assert not left, f"threads left behind: {[thread.name for thread in left]}"


@pytest.fixture(autouse=True)
def _no_shell_left() -> Iterator[None]:
    """Who displays something makes an IPython shell: with it, later tests would seem to be in a notebook."""
    yield
    module = sys.modules.get("IPython.core.interactiveshell")
    if module is not None and module.InteractiveShell.initialized():
        module.InteractiveShell.clear_instance()


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the kernels of `tests.kernels` are kept."""
    # Workers of one run share it: what they make there is locked.
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    return kernels_folder(shared / "kernels")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that tests share, each with a prefix of its own. None of them stops it."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The same with a Valkey."""
    server = RedisServer(tmp_path_factory.mktemp("valkey"), program=require_valkey())
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def valkey_url(valkey_server: RedisServer) -> str:
    """A store of the test's own on that Valkey."""
    return f"{valkey_server.url}?prefix={secrets.token_hex(6)}:"


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """A store of the test's own on that Redis."""
    return f"{redis_server.url}?prefix={secrets.token_hex(6)}:"
