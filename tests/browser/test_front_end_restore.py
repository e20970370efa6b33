"""The front-end of ``%wsmonitor restore`` by itself: a page, a fake notebook, the kernel's real answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.stage import accessible
from tests.export.recorded import PNG, Values, display, ran, recorded, stream
from wsmonitor.export.notebook import Report
from wsmonitor.export.recording import Recording, recording_of
from wsmonitor.notebook.bundle import bundle, stylesheet
from wsmonitor.notebook.restore.answers import Answers
from wsmonitor.protocol.entities import Step
from wsmonitor.protocol.errors import WsMonitorError

pytestmark = pytest.mark.browser

LONG = 60_000
EVIL = "<img src=x onerror=alert(1)>"
PAGE = """<!doctype html><html><body style="margin: 0; width: {width}px"><style>{style}</style>
  <div id="here"></div></body></html>"""
MODEL = """async ({ source, cells, reachable }) => {
  const module = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  const handlers = {};
  const held = { _token: "t", _self: "me", _fallback: "wsmonitor export nb~1 -o 'a b.ipynb'" };
  window.cells = cells.map((cell) => ({
    type: "code", executionState: "idle", trusted: true, executionCount: null, isDisposed: false, ...cell,
    sharedModel: { getSource() { return cell.source; } },
    outputs: {
      list: cell.outputs || [],
      toJSON() { return JSON.parse(JSON.stringify(this.list)); },
      fromJSON(list) { this.list = JSON.parse(JSON.stringify(list)); },
    },
  }));
  window.edit = (at, text) => { cells[at].source = text; };
  const list = { get length() { return window.cells.length; }, get: (at) => window.cells[at] };
  const model = {
    get: (name) => held[name],
    on: (name, fn) => { handlers[name] = fn; },
    off: (name) => { delete handlers[name]; },
    send: async (message) => {
      await (window.hold || null);
      const [answer, buffers] = JSON.parse(await window.kernel(JSON.stringify(message)));
      const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
      if (handlers["msg:custom"]) handlers["msg:custom"](answer, buffers.map(bytes));
    },
    widget_manager: reachable ? { context: { path: "a.ipynb", model: { cells: list } } } : {},
  };
  module.default.initialize({ model });
  module.default.render({ model, el: document.getElementById("here") });
}"""


class Kernel:
    """Answers as a real one does, from a recording by hand."""

    def __init__(self) -> None:
        self.values = Values()
        self.recording: Recording | None = None
        self.own = True
        self.asked: list[str] = []

    def answer(self, text: str) -> str:
        request = json.loads(text)
        self.asked.append(request["do"])
        try:
            answer = self.answers.questions()[request["do"]].handle(request)
            assert not hasattr(answer, "result")
            body, buffers = {**answer.body, "ok": True}, answer.buffers
        except WsMonitorError as exc:
            body, buffers = {"ok": False, "code": exc.code, "text": str(exc)}, []
        message = {**body, "type": "answer", "to": request["id"]}
        return json.dumps([message, [base64.b64encode(one).decode() for one in buffers]])

    def holds(self, *steps: Step) -> None:
        self.recording = recording_of(recorded(*steps))
        self.answers = Answers(
            self._read, self.values.fetch, self.values.logs, lambda _: self.own, self._copy
        )

    def _read(self) -> Recording:
        if self.recording is None:
            raise WsMonitorError("the server is gone")
        return self.recording

    def _copy(self, recording: Recording) -> tuple[Path, Report]:
        return Path(f"/w/{recording.file_name}-restored.ipynb"), Report(cells=2, changed=1)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


Open = Callable[..., Page]


@pytest.fixture
def page(browser: Browser, kernel: Kernel) -> Iterator[Open]:
    """Opens a notebook of these cells with the restore widget in it."""
    found = browser.new_page(viewport={"width": 1200, "height": 900})
    trouble: list[str] = []
    found.on("pageerror", lambda error: trouble.append(str(error)))
    found.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
    found.expose_function("kernel", kernel.answer)

    def show(*cells: dict[str, Any], reachable: bool = True, width: int = 1000) -> Page:
        css = stylesheet() + (Path(__file__).parents[2] / "wsmonitor/notebook/static/restore.css").read_text()
        found.set_content(PAGE.format(width=width, style=css))
        given = {"source": bundle(entry="restore.js"), "cells": list(cells), "reachable": reachable}
        found.evaluate(MODEL, given)
        return found

    yield show
    found.close()
    assert trouble == []


def cell(ident: str, source: str, *outputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": ident, "source": source, "outputs": list(outputs), **more}


def phase(page: Page, name: str) -> None:
    expect(page.locator(f".wsr[data-phase={name}]")).to_be_visible(timeout=LONG)


def rows(page: Page) -> list[tuple[str, str, bool]]:
    """Source, words and whether it is ticked, of each row."""
    found: list[tuple[str, str, bool]] = page.locator(".wsr-list li").evaluate_all(
        """items => items.map((item) => [item.querySelector(".wsr-source").textContent,
             item.querySelector(".wsr-words").textContent, item.querySelector("input").checked])"""
    )
    return [(source, words, ticked) for source, words, ticked in found]


def outputs(page: Page) -> list[Any]:
    return list(page.evaluate("window.cells.map((cell) => cell.outputs.list)"))


def restore(page: Page) -> None:
    phase(page, "ready")
    page.locator(".wsr-go").click()
    phase(page, "done")


def test_each_cell_is_told_with_what_would_happen_to_it(page: Open, kernel: Kernel) -> None:
    values = kernel.values
    kernel.holds(
        ran(values, 1, "new()", [stream("1\n")]),
        ran(values, 2, "other()", [stream("recorded\n")]),
        ran(values, 3, "same()", [stream("a\nb\n"), display(text_plain="x")]),
        ran(values, 4, "edited()", [stream("4")]),
        ran(values, 5, "pasted()", [stream("5")]),
        ran(values, 6, "twice()", [stream("6")]),
        ran(values, 7, "deleted()", [stream("7")]),
        ran(values, 8, "busy()", [stream("8")]),
        ran(values, 9, "goes_on()", [stream("9")], state="running"),
        ran(values, 10, "quiet()"),
        ran(values, 11, "widget()", [stream("11")]),
        ran(values, 12, "%wsmonitor restore\nx", [stream("12")]),
    )
    view = {
        "output_type": "display_data",
        "data": {"application/vnd.jupyter.widget-view+json": {"model_id": "w"}},
    }
    own = {
        "output_type": "display_data",
        "data": {"application/vnd.jupyter.widget-view+json": {"model_id": "me"}},
    }
    shown = page(
        cell("c1", "new()"),
        cell("c2", "other()", stream("old\n")),
        cell("c3", "same()", stream("a\n"), stream("b\n"), display(text_plain=["x"])),
        cell("c4", "edited(1)"),
        cell("p", "pasted()"),
        cell("t1", "twice()"),
        cell("t2", "twice()"),
        cell("c8", "busy()", executionState="running"),
        cell("c9", "goes_on()"),
        cell("c10", "quiet()", executionCount=10),
        cell("c11", "widget()", view),
        cell("c12", "%wsmonitor restore\nx", own),
    )
    phase(shown, "ready")
    assert rows(shown) == [
        ("new()", "", True),
        ("other()", "replaces what is there", True),
        ("same()", "has this already", False),
        ("edited()", "was edited since: left alone", False),
        ("pasted()", "found by its source", True),
        ("twice()", "a guess: several cells have this source", False),
        ("busy()", "runs now: left alone", False),
        ("goes_on()", "running", False),
        ("quiet()", "has this already", False),
        ("widget()", "replaces what is there · shows a widget now", False),
        ("deleted()", "is not in this notebook", False),
    ]
    expect(shown.locator(".wsr-go")).to_have_text("Restore 3 cells, replacing the outputs of 1")
    before = outputs(shown)
    restore(shown)
    after = outputs(shown)
    assert [after[at] for at in (0, 1, 4)] == [[stream("1\n")], [stream("recorded\n")], [stream("5")]]
    assert [one for at, one in enumerate(after) if at not in (0, 1, 4)] == [
        one for at, one in enumerate(before) if at not in (0, 1, 4)
    ]
    assert shown.evaluate("window.cells.map((cell) => cell.executionCount)")[:5] == [1, 2, None, None, 5]
    expect(shown.locator(".wsr-summary")).to_contain_text("3 cells restored. Save the notebook")
    shown.get_by_text("Undo").click()
    expect(shown.locator(".wsr-summary")).to_contain_text("3 cells put back as before")
    assert outputs(shown) == before
    assert shown.evaluate("window.cells.map((cell) => cell.executionCount)")[:2] == [None, None]


def test_what_is_unticked_is_left_alone_and_what_is_ticked_is_not(page: Open, kernel: Kernel) -> None:
    kernel.holds(
        ran(kernel.values, 1, "a()", [stream("1")]),
        ran(kernel.values, 2, "x", [stream("2")]),
    )
    shown = page(cell("c1", "a()"), cell("t1", "x"), cell("t2", "x"))
    phase(shown, "ready")
    shown.get_by_role("checkbox", name="a()").uncheck()
    expect(shown.locator(".wsr-go")).to_be_disabled()
    shown.get_by_role("checkbox", name="a guess").check()
    restore(shown)
    assert outputs(shown) == [[], [stream("2")], []]


def test_cells_that_changed_between_the_question_and_the_answer_are_left_alone(
    page: Open, kernel: Kernel
) -> None:
    kernel.holds(*(ran(kernel.values, n, f"f({n})", [stream(str(n))]) for n in range(1, 5)))
    shown = page(*(cell(f"c{n}", f"f({n})") for n in range(1, 5)))
    phase(shown, "ready")
    shown.evaluate("window.edit(0, 'g()')")
    shown.evaluate("window.cells[1].executionState = 'running'")
    shown.evaluate("window.cells.splice(2, 1)")
    restore(shown)
    assert outputs(shown) == [[], [], [stream("4")]]
    assert [words for _, words, _ in rows(shown)] == [
        "left alone: the cell was edited meanwhile",
        "left alone: the cell runs now",
        "left alone: the cell was deleted meanwhile",
        "✓ restored",
    ]
    # What was run since is not undone.
    shown.evaluate("window.cells[2].executionCount = 77")
    shown.get_by_text("Undo").click()
    assert outputs(shown)[2] == [stream("4")]
    words = shown.locator(".wsr-words").nth(3)
    expect(words).to_have_text("left alone: not undone: the cell was run or deleted since")


@pytest.mark.parametrize(("own", "trusted"), [(True, True), (True, False), (False, True)])
def test_trust_is_given_to_nothing(page: Open, kernel: Kernel, own: bool, trusted: bool) -> None:
    kernel.own = own
    kernel.holds(*(ran(kernel.values, n, f"f({n})", [display(text_html="<b>x</b>")]) for n in (1, 2)))
    shown = page(cell("c1", "f(1)"), cell("c2", "f(2)"), cell("c3", "f(3)", trusted=trusted))
    restore(shown)
    expected = own and trusted
    assert shown.evaluate("window.cells.map((cell) => cell.trusted)") == [expected, expected, trusted]
    shown.get_by_text("Undo").click()
    assert shown.evaluate("window.cells.map((cell) => cell.trusted)") == [True, True, trusted]
    assert ("by ada" in (shown.locator(".wsr-head").text_content() or "")) is not own


def test_large_outputs_travel_in_pages_and_what_is_lost_is_told(page: Open, kernel: Kernel) -> None:
    text = "".join(f"line {n} ü\n" for n in range(60_000))
    image = kernel.values.reference(b"x" * 9000, "image/png")
    kernel.holds(
        ran(kernel.values, 1, "much()", [stream(text), display(image_png=PNG)]),
        ran(kernel.values, 2, "gone()", [display(image_png=image)]),
    )
    del kernel.values.kept[image["$value"]["sha256"]]
    shown = page(cell("c1", "much()", stream(text[:100])), cell("c2", "gone()"))
    restore(shown)
    assert outputs(shown)[0] == [stream(text), display(image_png=PNG)]
    assert kernel.asked.count("outputs") > 3
    assert rows(shown)[1][1] == "restored in part: an output (image/png, 8.8 KiB) is no longer kept"


def test_what_was_recorded_is_shown_as_text(page: Open, kernel: Kernel) -> None:
    kernel.holds(
        ran(kernel.values, 1, f"{EVIL}", [stream(EVIL)], cell_id="c1"),
        ran(kernel.values, 2, f"{EVIL}2", [stream(EVIL)], cell_id=EVIL),
    )
    assert kernel.recording is not None
    shown = page(cell("c1", EVIL), width=600)
    restore(shown)
    assert EVIL in rows(shown)[0][0]
    assert shown.locator(".wsr img").count() == 0


def test_without_a_document_a_copy_is_offered_and_the_command_line(page: Open, kernel: Kernel) -> None:
    kernel.holds(ran(kernel.values, 1, "a()", [stream("1")]))
    shown = page(reachable=False)
    phase(shown, "ready")
    expect(shown.locator(".wsr-summary")).to_contain_text("does not let a widget change its document")
    expect(shown.locator(".wsr-go")).to_be_hidden()
    expect(shown.locator(".wsr-terminal")).to_contain_text("wsmonitor export nb~1 -o 'a b.ipynb'")
    shown.get_by_text("Write a restored copy").click()
    expect(shown.locator(".wsr-told")).to_have_text(
        "Written: /w/analysis-restored.ipynb, 2 cells with recorded outputs; "
        "1 cell left alone: it was edited since it was recorded"
    )


def test_a_refusal_is_told_and_can_be_tried_again(page: Open, kernel: Kernel) -> None:
    kernel.holds(ran(kernel.values, 1, "a()", [stream("1")]))
    held, kernel.recording = kernel.recording, None
    shown = page(cell("c1", "a()"))
    phase(shown, "failed")
    expect(shown.locator(".wsr-summary")).to_have_text("This did not work: the server is gone")
    kernel.recording = held
    shown.get_by_text("Look again").click()
    restore(shown)
    assert outputs(shown) == [[stream("1")]]


def test_axe_finds_nothing_before_or_after(page: Open, kernel: Kernel) -> None:
    values = kernel.values
    kernel.holds(
        ran(values, 1, "new()", [stream("1\n")]),
        ran(values, 2, "other()", [stream("2\n")]),
    )
    shown = page(cell("cell-1", "new()"), cell("cell-2", "edited()", stream("old\n")))
    phase(shown, "ready")
    accessible(shown, ".wsr")
    restore(shown)
    accessible(shown, ".wsr")
