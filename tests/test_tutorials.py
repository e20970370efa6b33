"""The tutorials as documents, and what ships with them. Their outputs are the stage ``notebooks``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import notebooks
from wsmonitor.notebook import tutorials
from wsmonitor.notebook.trace import sanitize_file

NAMES = tutorials.names()
ROOT = notebooks.ROOT


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(tutorials.path(name).read_text(encoding="utf-8"))
    return found


def text(notebook: dict[str, Any], kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_there_are_ten_in_order() -> None:
    assert [name[:2] for name in NAMES] == [f"{n:02d}" for n in range(1, 11)]


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_reads_as_a_document(name: str) -> None:
    notebook = read(name)
    prose, code = text(notebook, "markdown"), text(notebook, "code")
    assert re.match(r"# .+\n\n\*\*.+\*\*\n", prose[0]), "a title, and in one sentence what is learnt"
    assert "## Where to go from here" in "".join(notebook["cells"][-1]["source"]), "the last of its cells"
    assert all(part.count("\n") < 60 for part in code)
    number = NAMES.index(name)
    if number + 1 < len(NAMES):
        assert NAMES[number + 1] in prose[-1], "it leads to the next"
    if number:
        assert NAMES[number - 1] in prose[-1], "and to the one before"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    run = [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert run == list(range(1, len(run) + 1)), "its outputs are those of one run from the top"


@pytest.mark.parametrize("name", NAMES)
def test_every_link_of_a_tutorial_leads_somewhere(name: str) -> None:
    for part in text(read(name), "markdown"):
        for target in re.findall(r"\]\(([^)\s]+)\)", part):
            if target.startswith("https://"):
                continue
            path, _, anchor = target.partition("#")
            place = notebooks.FOLDER / path
            assert place.exists(), target
            if anchor:
                headings = re.findall(r"^#+ (.+)$", place.read_text(encoding="utf-8"), re.MULTILINE)
                assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, (
                    target
                )


@pytest.mark.parametrize("name", NAMES)
def test_what_is_stored_tells_nothing_of_the_machine_it_ran_on(name: str) -> None:
    stored = json.dumps([cell.get("outputs", []) for cell in read(name)["cells"]])
    for word in (str(ROOT), "/tmp/", "/home/", "/root/", "site-packages", notebooks.WIDGET):
        assert word not in stored, word


def test_copies_can_be_worked_with_and_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tutorials.main(["--copy", str(tmp_path / "mine")]) == 0
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == NAMES
    (tmp_path / "mine" / NAMES[0]).write_text("changed", encoding="utf-8")
    (tmp_path / "mine" / NAMES[1]).unlink()
    capsys.readouterr()
    assert tutorials.main(["--copy", str(tmp_path / "mine")]) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "mine" / NAMES[1])]
    assert (tmp_path / "mine" / NAMES[0]).read_text(encoding="utf-8") == "changed"
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="1"):
        tutorials.main(["--copy", str(tmp_path / "file")])
    assert "cannot be copied" in capsys.readouterr().err


def test_the_list_and_the_sanitize_file_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert tutorials.main([]) == 0
    assert [Path(line).name for line in capsys.readouterr().out.splitlines()] == NAMES
    assert tutorials.main(["--sanitize-file"]) == 0
    assert capsys.readouterr().out.strip() == str(sanitize_file())


OWN = """\
import os
os.environ.update(WSMONITOR_LOCAL="inline", WSMONITOR_URL="")
import wsmonitor as wm
obs = wm.watch("mine")
obs
----
with wm.session("mine") as session, session.step("add") as step:
    step.output = 1 + 1
----
print(obs.wait(timeout=60).id, obs.state)
----
obs
"""


def own_notebook(path: Path) -> None:
    cells = [
        {"cell_type": "code", "id": f"c{n}", "metadata": {}, "source": source.strip(), "outputs": []}
        | {"execution_count": None}
        for n, source in enumerate(OWN.split("----\n"))
    ]
    made = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(made), encoding="utf-8")
    assert notebooks.renew(path)


def nbval(path: Path, *options: str) -> str:
    """What nbval says of a notebook in its own folder, away from this repository: its last line."""
    home = path.parent / "home"
    home.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env", "-W", "default"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "-p", "no:xdist", *options, path.name],
        cwd=path.parent,
        env=notebooks.environment(home),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.filterwarnings("default")  # jupyter_client's and zmq's own
def test_a_users_own_notebook_passes_with_the_sanitize_file_and_not_without(tmp_path: Path) -> None:
    path = tmp_path / "own.ipynb"
    own_notebook(path)
    command = [sys.executable, "-m", "wsmonitor.notebook.tutorials", "--sanitize-file"]
    found = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=tmp_path, env=notebooks.environment(tmp_path)
    )
    with_it = ("--nbval-sanitize-with", found.stdout.strip())
    assert nbval(path, *with_it).startswith("4 passed")
    assert "failed" in nbval(path), "ids and times are others at every run"
    # What is no id, no time and no copy is compared to the letter.
    path.write_text(path.read_text(encoding="utf-8").replace(" succeeded", " failed"), encoding="utf-8")
    assert nbval(path, *with_it).startswith("1 failed, 3 passed")
