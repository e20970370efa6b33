"""Importing the packages is cheap and loads nothing of the notebook: asserted in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

NOTEBOOK = {"ipywidgets", "anywidget", "IPython", "traitlets", "ipykernel"}
HEAVY = {"jwt", "cryptography", "websockets", "rich", "click", "jupyter_core", "pandas", "redis"}


def _loaded(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted(name for name in sys.modules if '.' not in name))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("package", ["wsmonitor", "wsmonitor_server"])
def test_importing_a_package_loads_nothing_of_the_notebook(package: str) -> None:
    assert not _loaded(f"import {package}") & NOTEBOOK


def test_importing_wsmonitor_loads_no_heavy_library() -> None:
    before = _loaded("pass")
    assert not (_loaded("import wsmonitor") - before) & HEAVY


def test_redis_py_is_loaded_by_a_server_that_has_its_store_there_alone() -> None:
    assert "redis" not in _loaded("import wsmonitor_server.assembly, wsmonitor_server.config")


def test_the_protocol_package_needs_no_clock_loop_or_socket_library() -> None:
    modules = "codec, digest, reducer, access, discovery, close_codes, defaults, changes, messages"
    loaded = _loaded(f"from wsmonitor.protocol import {modules}")
    assert not loaded & (NOTEBOOK | HEAVY | {"asyncio"})
