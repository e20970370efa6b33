"""The demonstration: its measures, its pace, and what it publishes of a small library made for the test."""

from __future__ import annotations

import ast
import threading
from pathlib import Path

import pytest

import wsmonitor as wm
from tests.publish.fake import Fake
from wsmonitor.demo.measures import complexity, coverage, measure, rank
from wsmonitor.demo.pace import Pace
from wsmonitor.demo.stdlib_analysis import find, run

SOURCE = '''
"""Text."""
import os

class Reader:
    def read(self, path, *, limit=None):
        """Read."""
        for line in open(path):
            if limit and len(line) > limit or not line:
                continue
            yield line

    def _hidden(self):
        return [x for x in os.environ if x]

def plain():
    def inner():
        return 1 if os.name else 2
    return inner
'''


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A standard library in small: two packages, and files that are difficult in each of the known ways."""
    for package, count in (("json", 3), ("asyncio", 2)):
        (tmp_path / package).mkdir()
        for number in range(count):
            (tmp_path / package / f"part{number}.py").write_text(SOURCE * (number + 1))
    difficult = tmp_path / "test" / "tokenizedata"
    difficult.mkdir(parents=True)
    (difficult / "bad_syntax.py").write_text("print 'old'\n")
    (difficult / "bad_latin.py").write_bytes("# coding: latin-1\nname = 'é'\n".encode("latin-1"))
    (difficult / "bad_bytes.py").write_bytes(b"name = '\xf6'\n")
    return tmp_path


def test_measures_of_a_file() -> None:
    facts = measure("reader.py", SOURCE, ast.parse(SOURCE))
    assert facts.classes == 1
    found = {function.name: function for function in facts.functions}
    assert list(found) == ["Reader.read", "Reader._hidden", "plain", "plain.inner"]
    assert found["Reader.read"].documented
    assert found["Reader.read"].arguments == 3
    # for, if, and two operators of one condition
    assert found["Reader.read"].complexity == 5
    assert found["Reader._hidden"].complexity == 2
    assert found["plain"].complexity == 1, "an inner function counts for itself"
    assert found["plain.inner"].complexity == 2
    assert coverage(facts.functions) == pytest.approx(33.3)
    assert [function.name for function in rank([facts], 2)] == ["Reader.read", "Reader._hidden"]
    assert coverage([]) == 100.0


def test_complexity_of_a_match() -> None:
    code = "def f(x):\n match x:\n  case 1: pass\n  case 2: pass\n"
    assert complexity(ast.parse(code).body[0]) == 3


def test_the_pace_repeats_work_until_its_time_has_come() -> None:
    now = 0.0
    done: list[float] = []

    def work() -> int:
        nonlocal now
        now += 0.25
        done.append(now)
        return len(done)

    pace = Pace(4.0, 2, lambda: now)
    pace._hurry = _NoWait()
    assert pace.unit(work) == 1, "the first result counts"
    assert now == pytest.approx(2.0)
    assert len(done) == 8
    pace.unit(work)
    assert now == pytest.approx(4.0)
    pace.unit(work)
    assert now == pytest.approx(6.0), "a pace that was planned for fewer pieces goes on as it began"


class _NoWait(threading.Event):
    def wait(self, timeout: float | None = None) -> bool:
        return False


def test_hurry_ends_the_repetitions() -> None:
    pace = Pace(1e9, 1, lambda: 0.0)
    pace.hurry()
    assert pace.unit(lambda: 17) == 17


def test_what_is_published_of_a_small_library(fake: Fake, library: Path) -> None:
    summary = run("demo", work=find(library), runtime=fake.runtime, threads=True)
    assert [row["package"] for row in summary] == ["asyncio", "json"]
    assert [row["files"] for row in summary] == [2, 3]
    again = Fake()
    assert summary == run("demo", work=find(library), runtime=again.runtime), "the same for the same source"
    again.close()

    steps = fake.steps()
    assert {"read", "parse", "measure", "rank", "decode", "parse file"} <= set(steps)
    idents = dict.fromkeys(change.id for change in fake.changes if hasattr(change, "step_key"))
    entities = [fake.entity(ident) for ident in idents]
    attempts = [(item["attempt"], item["state"]) for item in entities if item["name"] == "decode"]
    assert (1, "failed") in attempts
    assert (2, "succeeded") in attempts, "the declared encoding is used at the second attempt"
    assert (2, "failed") in attempts, "and where there is none, that fails too"
    broken = [item for item in entities if item["name"] == "parse file" and item["state"] == "failed"]
    assert [item["error"].type for item in broken] == ["SyntaxError"]
    (problem,) = fake.problems()
    assert "2 of 3" in problem.message
    session = next(change for change in reversed(fake.changes) if type(change).__name__ == "SessionChange")
    assert session.state == "succeeded"  # type: ignore[union-attr]


def test_cancelling_one_chain_leaves_the_others(fake: Fake, library: Path) -> None:
    work = find(library, ["json"])
    cancelled: list[str] = []

    class Meddling(Pace):
        def unit(self, work):  # type: ignore[no-untyped-def]
            step = wm.current_step()
            if step is not None and step.name == "parse" and not cancelled:
                cancelled.append(step.id)
                fake.command("cancel", chain=step._chain.id)
            return super().unit(work)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsmonitor.demo.stdlib_analysis.Pace", Meddling)
        assert run("demo", work=work, runtime=fake.runtime) == []
    names = {
        entity["name"]: entity["state"]
        for entity in (
            fake.entity(change.id) for change in fake.changes if type(change).__name__ == "ChainChange"
        )
    }
    assert names["json"] == "cancelled"
    assert names["difficult files"] == "succeeded"


def test_this_python_s_library_is_found() -> None:
    work = find()
    assert "json" in work.packages
    assert work.units > 100
