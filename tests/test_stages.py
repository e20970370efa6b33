"""The test command itself: one stage that fails is a failure of the whole, and none hides another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import __main__ as command
from tests import kernels, scale, stages
from tests.order import LONGEST, ROOT


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stages of a folder's own: what each of them says is its name, and its status that of its file."""
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "stages.py").write_text(
        "import sys\n"
        "name, *chosen = sys.argv[1:]\n"
        "print('I am', name, *chosen, flush=True)\n"
        "sys.exit({'mypy': 3, 'floors': 4}.get(name, 0))\n"
    )
    monkeypatch.setattr(stages, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.usefixtures("made")
def test_every_stage_runs_also_after_one_that_failed(capfd: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 1
    said, summary = capfd.readouterr().out.split("=== summary")
    daily = [name for name in stages.STAGES if name not in command.NOT_EVERY_DAY]
    for name in daily:
        assert f"=== {name}\nI am {name}\n" in said
    assert [line.split()[0] for line in summary.splitlines()[1:-1]] == daily
    assert "mypy       FAILED (exit 3)" in summary
    assert summary.count("passed") == len(daily) - 1


@pytest.mark.usefixtures("made")
def test_chosen_stages_and_tests(capfd: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--only", "ruff", "--only", "tests", "--", "-k", "digest"]) == 0
    said = capfd.readouterr().out
    assert "I am ruff\n" in said, "pytest's arguments are not its own"
    assert "I am tests -k digest\n" in said
    assert said.count("I am") == 2
    assert command.main(["--only", "floors"]) == 1


def test_a_stage_that_there_is_not_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["--only", "nothing"])
    assert "no such stage: nothing" in capsys.readouterr().err


def test_what_the_stages_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.delenv(scale.VARIABLE, raising=False)
    monkeypatch.setenv(kernels.FOLDER, "kept")
    assert "PYTHONDONTWRITEBYTECODE" not in command.environment(everything=False)
    assert scale.VARIABLE not in command.environment(everything=False)
    assert command.environment(everything=True)[scale.VARIABLE] == str(scale.ALL)
    assert os.environ["PYTHONDONTWRITEBYTECODE"] == "1"


def test_stages_that_are_named_are_there() -> None:
    assert {*command.BESIDE, *command.NOT_EVERY_DAY} <= set(stages.STAGES)
    assert [name for name in LONGEST if not (ROOT / name).is_file()] == []
