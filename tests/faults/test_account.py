"""The reckoning itself: each kind of broken promise is counted, and an honest run is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from .account import Figures, Ledger
from .kills import kill_servers
from .server import ServerProcess
from .watching import Told


def judged(
    path: Path, seqs: Sequence[int], numbers: Sequence[int], *, killed: bool = False, **more: Any
) -> Figures:
    """The figures of an observer who was told of these, where 3 changes were submitted and 2 acknowledged."""
    (path / "account").write_text("s 3\na 2\n")
    told = [Told(seq, "p", number) for seq, number in zip(seqs, numbers, strict=True)]
    watch: Any = SimpleNamespace(
        **{"name": "o", "told": told, "broken": [], "resets": [], "gaps": [], **more}
    )
    figures = Figures("planted")
    figures.judge(watch, {"p": [path / "account"]}, killed=killed)
    return figures


def counts(figures: Figures) -> tuple[int, int, int]:
    return figures.lost, figures.twice, figures.regressions


def test_what_is_as_promised_counts_as_nothing(tmp_path: Path) -> None:
    assert counts(judged(tmp_path, [5, 6, 7], [1, 2, 3])) == (0, 0, 0)
    assert counts(judged(tmp_path, [5, 6], [1, 2], killed=True)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("seqs", "numbers", "killed", "expected"),
    [
        ([5, 6], [1, 2], False, (1, 0, 0)),  # submitted by a program that ended well
        ([5], [1], True, (1, 0, 0)),  # acknowledged
        ([5, 7], [1, 2], True, (1, 0, 0)),  # an event is missing
        ([5, 5], [1, 2], True, (0, 1, 0)),  # an event twice
        ([5, 6, 7], [1, 2, 2], True, (0, 1, 0)),  # a change as two events
        ([5, 4], [1, 2], True, (0, 1, 0)),  # an event again
    ],
)
def test_what_is_lost_or_twice_is_counted(
    tmp_path: Path, seqs: list[int], numbers: list[int], killed: bool, expected: tuple[int, int, int]
) -> None:
    assert counts(judged(tmp_path, seqs, numbers, killed=killed)) == expected


def test_what_goes_back_is_counted(tmp_path: Path) -> None:
    figures = judged(tmp_path, [5, 6, 7], [1, 2, 3], broken=["back"], resets=["ahead"], gaps=[(1, 2)])
    assert counts(figures) == (0, 0, 3)


def test_a_line_that_was_cut_off_by_the_kill_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "account").write_text("s 40\na 12\na 3")
    assert Ledger.read(tmp_path / "account") == Ledger(40, 12)
    assert Ledger.read(tmp_path / "none") == Ledger(0, 0)


@pytest.mark.timeout(300)
def test_a_store_that_loses_what_it_had_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: the killed server's database is gone when the next one starts."""
    begin, starts = ServerProcess.begin, 0

    def lossy(self: ServerProcess) -> None:
        nonlocal starts
        starts += 1
        if starts == 2:
            for end in ("", "-wal", "-shm"):
                self.database.with_name(self.database.name + end).unlink(missing_ok=True)
        begin(self)

    monkeypatch.setattr(ServerProcess, "begin", lossy)
    figures = kill_servers(tmp_path, 1, 1)
    assert figures.violations > 0
    assert any("reset" in note for note in figures.notes), "and no observer was left in the dark"
