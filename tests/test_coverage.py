"""The gate of branches: pure modules have tests of their own, and a branch that they do not run fails."""

from __future__ import annotations

from typing import Any

import pytest

from tests import coverage as gate


def told(*lines: int, branches: tuple[tuple[int, int], ...] = ()) -> dict[str, Any]:
    """What coverage says of a file."""
    return {
        "summary": {"percent_covered": 99.5},
        "missing_lines": list(lines),
        "missing_branches": [list(branch) for branch in branches],
    }


def test_every_pure_module_has_test_files_of_its_own_which_are_there() -> None:
    modules = set(gate.pure_modules()) - gate.GENERATED
    assert len(modules) > 60
    for module in sorted(modules):
        paths = gate.own_tests(module)
        assert paths, f"{module} has no test file of its own: name it in tests/coverage.py"
        assert [path for path in paths if not (gate.ROOT / path).is_file()] == [], module
    assert set(gate.ELSEWHERE) <= modules, "what is not pure, or not there any more, is not measured"


@pytest.mark.parametrize(
    ("status", "found", "fails", "said"),
    [
        (0, told(), 0, "1 of 1 modules are covered whole"),
        (0, told(7), 1, "line 7"),
        (0, told(branches=((7, -1),)), 1, "7->end"),
        (1, told(), 1, "1 of 1 modules are covered whole"),
    ],
    ids=["whole", "a line is missing", "a branch is missing", "a test failed"],
)
def test_what_is_not_run_fails(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: int,
    found: dict[str, Any],
    fails: int,
    said: str,
) -> None:
    monkeypatch.setattr(gate, "measure", lambda wanted: (status, {"wsmonitor.client.core": found}))
    assert gate.main([]) == fails
    assert said in capsys.readouterr().out


def test_a_module_without_tests_of_its_own_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "measure", lambda wanted: (0, {"wsmonitor.notebook.observer_": told()}))
    assert gate.main([]) == 1
