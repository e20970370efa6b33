"""The suite's own rules: in CI nothing is skipped silently, and neither thread nor shell is left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).resolve().parent
SAMPLE = """
import threading
import pytest

def test_passes():
    pass

def test_lacks_a_part():
    pytest.skip("needs chromium: apt install chromium")

def test_of_another_platform():
    pytest.skip("not here: Windows only")

@pytest.mark.xfail(strict=True, reason="known")
def test_expected_failure():
    raise AssertionError
"""
LEAK = """
import threading

def test_leaves_a_thread():
    threading.Thread(target=threading.Event().wait, args=(6,), name="left over").start()
"""

SHELL = """
from IPython import get_ipython
from IPython.display import publish_display_data

def test_displays():
    publish_display_data({"text/plain": "x"})
    assert get_ipython() is not None

def test_is_in_no_notebook():
    assert get_ipython() is None
"""


def _run(folder: Path, sample: str, **environment: str) -> dict[str, int]:
    shutil.copy(HERE / "conftest.py", folder / "conftest.py")
    (folder / "test_sample.py").write_text(sample, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    env = {key: value for key, value in os.environ.items() if key not in ("CI", "PYTEST_ADDOPTS")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:nbval",
            "-q",
            "--color=no",
            str(folder),
        ],
        cwd=folder,
        env={**env, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    words = done.stdout.strip().splitlines()[-1].replace(",", "").split()
    return {kind: int(count) for count, kind in pairwise(words) if count.isdigit()}


def test_a_lacking_part_is_a_skip_here_and_a_failure_in_ci(tmp_path: Path) -> None:
    here, ci = _run(tmp_path, SAMPLE), _run(tmp_path, SAMPLE, CI="true")
    assert (here["passed"], here["skipped"], here["xfailed"]) == (1, 2, 1)
    assert "failed" not in here
    assert (ci["passed"], ci["failed"], ci["skipped"], ci["xfailed"]) == (1, 1, 1, 1)


def test_a_thread_that_is_left_behind_is_an_error(tmp_path: Path) -> None:
    counts = _run(tmp_path, LEAK)
    assert counts.get("error", counts.get("errors")) == 1


def test_a_shell_that_a_test_made_is_gone_for_the_next(tmp_path: Path) -> None:
    assert _run(tmp_path, SHELL) == {"passed": 2}
