"""Which outputs have a static copy, and when it is written: in an IPython of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import ipywidgets
import pytest
from IPython.core.interactiveshell import InteractiveShell

from wsmonitor.notebook import boxes
from wsmonitor.notebook.copies import EVERY, PLACES, Copies


class Handle:
    """What `display` gives: remembers what it was updated with."""

    def __init__(self) -> None:
        self.written: list[str] = []

    def update(self, html: Any) -> None:
        self.written.append(html.data)


class Cells:
    """Stands for the running cell: its outputs, by their handles."""

    def __init__(self) -> None:
        self.cell, self.run = "", ""
        self.handles: list[Handle] = []
        self.put: list[str] = []

    def display(self, html: Any, **kwargs: Any) -> Handle:
        self.put.append(html.data)
        self.handles.append(Handle())
        return self.handles[-1]

    def get_parent(self) -> dict[str, Any]:
        return {"header": {"msg_id": self.run}, "metadata": {"cellId": self.cell}}


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> Cells:
    made = Cells()
    monkeypatch.setattr("IPython.display.display", made.display)
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: made)
    return made


def show(cells: Cells, kept: Copies, cell: str, run: str) -> Handle:
    cells.cell, cells.run = cell, run
    kept.display()
    return cells.handles[-1]


def test_each_cell_that_shows_a_widget_keeps_its_copy_up_to_date(cells: Cells) -> None:
    kept = Copies()
    first, second = show(cells, kept, "a", "1"), show(cells, kept, "b", "2")
    assert not kept.told
    kept.update(lambda: "early", 100.0)
    assert kept.told
    kept.update(lambda: "too soon", 100.0 + EVERY / 2)
    kept.update(lambda: "the end", 101.0 + EVERY / 2, key="succeeded")
    kept.update(lambda: "again", 102.0 + EVERY / 2, key="succeeded")
    kept.update(lambda: "later", 102.0 + 2 * EVERY, key="succeeded")
    assert first.written == second.written == ["early", "the end", "later"]


def test_a_cell_that_runs_again_has_one_copy(cells: Cells) -> None:
    kept = Copies()
    gone = show(cells, kept, "a", "1")
    now = show(cells, kept, "a", "2")
    beside = show(cells, kept, "a", "2")
    kept.update(lambda: "x", 0.0)
    assert (gone.written, now.written, beside.written) == ([], ["x"], ["x"])


def test_what_is_known_is_told_with_the_output_itself(cells: Cells) -> None:
    kept = Copies()
    kept.display("known", 100.0, key="lost")
    assert kept.told
    assert cells.put[-1] == "known"
    kept.update(lambda: "the same", 100.0 + EVERY / 2, key="lost")
    kept.update(lambda: "ended", 101.0 + EVERY / 2, key="succeeded")
    assert cells.handles[-1].written == ["ended"]


def test_where_cells_have_no_ids_the_newest_outputs_are_kept(cells: Cells) -> None:
    kept = Copies()
    handles = [show(cells, kept, "", str(n)) for n in range(PLACES + 2)]
    kept.update(lambda: "x", 0.0)
    assert [len(handle.written) for handle in handles] == [0, 0] + [1] * PLACES


class Ours(ipywidgets.Label):
    """A widget that leaves a copy."""

    def __init__(self, text: str, told: list[str], source: object = None) -> None:
        super().__init__(text)
        self._told, self._source = told, source or self

    def copied(self) -> object:
        return self._source

    def leave_copy(self) -> None:
        self._told.append(self.value)


class Own(ipywidgets.VBox):
    """Somebody's box that displays itself."""

    def _ipython_display_(self) -> None:
        shown.append(self)


shown: list[Any] = []


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An IPython that knows of boxes; what is published goes nowhere."""
    shell = InteractiveShell()
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: shell)
    monkeypatch.setattr("IPython.display.publish_display_data", lambda *args: shown.append(args))
    shown.clear()
    boxes.teach()
    boxes.teach()
    yield shell
    InteractiveShell.clear_instance()
    ipywidgets.Widget.close_all()


def form(shell: Any, thing: Any) -> Any:
    return shell.display_formatter.format(thing)[0]


def test_a_box_leaves_one_copy_for_each_thing_that_is_copied(shell: Any) -> None:
    told: list[str] = []
    source = object()
    inner = ipywidgets.HBox([Ours("a", told, source), Ours("b", told, source)])
    tabs = ipywidgets.Tab([inner, ipywidgets.Accordion([Ours("c", told)])])
    assert form(shell, tabs) == {}, "it was displayed already"
    assert len(shown) == 1
    assert "application/vnd.jupyter.widget-view+json" in shown[0][0]
    assert sorted(told) in (["a", "c"], ["b", "c"])


def test_a_box_without_a_widget_of_ours_is_left_alone(shell: Any) -> None:
    assert "application/vnd.jupyter.widget-view+json" in form(shell, ipywidgets.VBox([ipywidgets.Label("x")]))
    assert shown == []


def test_a_box_that_displays_itself_does_so_and_leaves_the_copies(shell: Any) -> None:
    told: list[str] = []
    box = Own([Ours("a", told)])
    assert form(shell, box) == {}
    assert form(shell, Own([])) == {}
    assert shown[0] is box
    assert len(shown) == 2
    assert told == ["a"]


def test_boxes_within_each_other_in_a_ring_are_looked_through_once(shell: Any) -> None:
    told: list[str] = []
    outer = ipywidgets.VBox([Ours("a", told)])
    inner = SimpleNamespace(children=(outer,))
    assert [one.value for one in boxes._inside(SimpleNamespace(children=(inner, outer, inner)))] == ["a"]  # type: ignore[attr-defined]
