"""The small widgets by themselves in a real browser: they find the observer's store, and say what it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.stage import accessible
from tests.browser.test_front_end import NOW, Stage
from tests.notebook.samples import lost_status, sample_view
from wsmonitor.notebook.bundle import PART_ENTRY, bundle
from wsmonitor.notebook.view import Now

pytestmark = pytest.mark.browser

PART = """async ([source, kinds]) => {
  const module = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  window.parts = {};
  for (const kind of kinds) {
    const el = document.createElement("div");
    el.id = kind;
    document.body.append(el);
    const held = { _of: "t", _piece: kind, _token: kind, selected: "", _observer_model: "" };
    const handlers = {};
    const model = {
      get: (name) => held[name],
      set: (name, value) => {
        if (held[name] === value) return;
        held[name] = value;
        if (handlers[`change:${name}`]) handlers[`change:${name}`]();
      },
      on: (name, fn) => { handlers[name] = fn; },
      off: (name) => { delete handlers[name]; },
      send: (message) => window.sent.push(message),
    };
    window.parts[kind] = { held, model, away: module.default.render({ model, el }), handlers };
  }
}"""
KINDS = ["status", "heartbeat", "log", "tree"]


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    found = browser.new_page(viewport={"width": 1200, "height": 1400})
    trouble: list[str] = []
    found.on("pageerror", lambda error: trouble.append(str(error)))
    yield found
    found.close()
    assert trouble == []


def held(page: Page, kind: str) -> Any:
    return page.evaluate("kind => window.parts[kind].held", kind)


def test_each_part_shows_its_piece_and_mirrors_what_it_knows(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    page.evaluate(PART, [bundle(entry=PART_ENTRY), KINDS])
    stage.pass_time(1_100)
    expect(page.locator("#status .wsm-strip")).to_contain_text("Live")
    expect(page.locator("#status .wsm-fold")).to_have_count(0)
    expect(page.locator("#heartbeat")).to_contain_text("4 ms")
    expect(page.locator("#log li").first).to_contain_text("full state verified")
    expect(page.locator("#tree .wsm-row", has_text="window 90d")).to_be_visible()
    status = held(page, "status")
    assert {name: status[name] for name in ("live", "phase", "seq", "state", "watching")} == {
        "live": True, "phase": "live", "seq": 1160, "state": "running", "watching": 3,
    }  # fmt: skip
    assert status["rtt"] == pytest.approx(0.004)
    assert status["age"] == 4, "three seconds at the key frame, and one since"
    assert held(page, "heartbeat")["producer"] == "live"
    assert "full state verified" in held(page, "log")["last"]
    asked = [message["do"] for message in page.evaluate("window.sent")]
    assert "select" not in asked

    lost = Now(NOW.mono + 1, NOW.wall + 1)
    view.connection(lost_status(lost), lost)
    stage.key(view, lost)
    stage.pass_time(600)
    for kind in KINDS:
        expect(page.locator(f"#{kind} .wsm")).to_have_attribute("data-frozen", "true")
        assert held(page, kind)["live"] is False
    expect(page.locator("#tree .wsm-doubt")).to_contain_text("Reconnecting")
    expect(page.locator("#heartbeat")).to_contain_text("not known")
    expect(page.locator("#heartbeat [data-beats]")).to_have_count(0)
    assert held(page, "status")["phase"] == "waiting"
    assert held(page, "heartbeat")["producer"] == ""
    page.locator("#status .wsm-reconnect").evaluate("button => button.click()")
    assert "reconnect" in [message["do"] for message in page.evaluate("window.sent")]

    stage.pass_time(5_000)
    expect(page.locator("#status .wsm")).to_have_attribute("data-verdict", "silent")
    assert held(page, "status")["live"] is False, "the kernel is not heard either"


def test_choosing_goes_both_ways(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    page.evaluate(PART, [bundle(entry=PART_ENTRY), ["tree"]])
    stage.pass_time(600)
    # Not Playwright's click, which scrolls: the tree follows what runs, and scrolls back.
    page.locator("#tree .wsm-row", has_text="window 90d").evaluate("row => row.click()")
    assert held(page, "tree")["selected"] == "s:w90"
    told = [m for m in page.evaluate("window.sent") if m["do"] == "select"]
    assert [(m["row"], m["n"]) for m in told] == [("s:w90", 1)]
    page.evaluate("window.parts.tree.model.set('selected', 's:schema')")
    stage.pass_time(600)
    expect(page.locator("#tree [aria-selected=true]")).to_contain_text("validate schema")
    assert len([m for m in page.evaluate("window.sent") if m["do"] == "select"]) == 1, "no echo"


def test_a_part_waits_for_its_observer_and_leaves_nothing(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    page.evaluate("window.away()")
    page.evaluate(PART, [bundle(entry=PART_ENTRY), KINDS])
    stage.pass_time(5_000)
    expect(page.locator("#status")).to_contain_text("is not in this page: run the cell again")
    again = Stage(page)
    page.evaluate(PART, [bundle(entry=PART_ENTRY), KINDS])
    again.key(view)
    expect(page.locator("#tree .wsm-row").first).to_be_visible()
    expect(page.locator("#tree .wsm-missing")).to_be_hidden()
    left = page.evaluate(
        "() => { const all = Object.values(window.parts); all.forEach(p => p.away());"
        " return all.map(p => Object.keys(p.handlers).length); }"
    )
    assert left == [0, 0, 0, 0]
    for kind in KINDS:
        expect(page.locator(f"#{kind}")).to_be_empty()


def test_an_observer_that_was_closed_is_told(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    page.evaluate(PART, [bundle(entry=PART_ENTRY), ["heartbeat"]])
    page.evaluate("window.away()")
    expect(page.locator("#heartbeat")).to_have_text(
        "The observer that this belongs to was closed. Run the cell again."
    )


def test_axe_finds_nothing_in_any_part(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    page.evaluate(PART, [bundle(entry=PART_ENTRY), KINDS])
    stage.pass_time(1_100)
    expect(page.locator("#tree .wsm-row", has_text="window 90d")).to_be_visible()
    # axe waits with timers.
    page.clock.resume()
    accessible(page, *(f"#{kind}" for kind in KINDS))
