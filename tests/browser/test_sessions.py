"""The list of sessions by itself in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.stage import NOW, PAGE, accessible
from tests.browser.test_front_end import WELCOME
from tests.browser.test_front_end_access import CONTRAST
from tests.notebook.samples import live_status, lost_status, ns
from wsmonitor.client.types import ConnectionStatus
from wsmonitor.notebook.bundle import bundle, stylesheet
from wsmonitor.notebook.listings import Listings
from wsmonitor.notebook.view import Now
from wsmonitor.protocol.entities import Listing

pytestmark = pytest.mark.browser

MODEL = """async (source) => {
  const module = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  const handlers = {};
  const held = { _key: {}, _token: "t", _part: "sessions", selected: "" };
  window.sent = [];
  const model = {
    get: (name) => held[name],
    set: (name, value) => {
      held[name] = value;
      if (handlers[`change:${name}`]) handlers[`change:${name}`]();
    },
    on: (name, fn) => { handlers[name] = fn; },
    off: (name) => { delete handlers[name]; },
    send: (message) => window.sent.push(message),
  };
  const forget = module.default.initialize({ model });
  const unmount = module.default.render({ model, el: document.getElementById("here") });
  window.key = (key) => { held._key = key; handlers["change:_key"](); };
  window.message = (message) => handlers["msg:custom"](message);
  window.choose = (id) => model.set("selected", id);
  window.away = () => { unmount(); forget(); return Object.keys(handlers); };
}"""


class Board:
    """A page with one list in it."""

    def __init__(self, page: Page, *, dark: bool = False, width: int = 1000) -> None:
        self.page = page
        # Time passes here only when it is told to, however slow or fast the machine is.
        page.clock.install(time=0)
        page.clock.pause_at(1_000)
        ground, ink = ("#111111", "#ffffff") if dark else ("#ffffff", "#111111")
        light = str(not dark).lower()
        page.set_content(PAGE.format(light=light, width=width, ground=ground, ink=ink, style=stylesheet()))
        page.evaluate(MODEL, bundle())
        self.root = page.locator(".wsm")
        self.rows = page.locator(".wsm-body .wsm-list-row:visible")

    def key(self, view: Listings, now: Now = NOW, status: ConnectionStatus | None = None) -> None:
        view.frame(now)
        beat = view.beat(now, status or live_status(now))
        key = {**view.key(now), "due": 1000, "beat": beat}
        if key.pop("pages", None):  # how pages travel is tested with the observer's rows
            key["rows"] = [row for page in range(view.pages) for row in view.page(page)]
        self.page.evaluate("key => window.key(key)", json.loads(json.dumps(key)))
        self.page.clock.run_for(50)

    def message(self, view: Listings, now: Now = NOW) -> None:
        message = {**(view.frame(now) or {}), "due": 1000, "beat": view.beat(now, live_status(now))}
        self.page.evaluate("m => window.message(m)", json.loads(json.dumps(message)))
        self.page.clock.run_for(50)

    def names(self) -> list[str]:
        return self.rows.locator(".wsm-label").all_inner_texts()


def listing(name: str, run: int, state: str = "succeeded", **more: Any) -> Listing:
    return Listing(**{"id": f"{name}~{run}", "name": name, "run": run, "state": state, **more})


def sample() -> Listings:
    view = Listings()
    view.connection(live_status(NOW))
    view.subscription("live", "")
    view.position("e", 9)
    view.replace(
        [
            listing("nightly-etl", 1, created=ns(0), started=ns(0), ended=ns(20), counts={"succeeded": 12}),
            listing(
                "nightly-etl", 2, "failed", created=ns(30), started=ns(30), ended=ns(50),
                counts={"succeeded": 9, "failed": 1}, problem="KeyError: 'segment'",
            ),
            listing(
                "nightly-etl", 3, "running", created=ns(60), started=ns(60),
                counts={"succeeded": 4, "running": 2},
            ),
            listing(
                "train", 7, "running", created=ns(90), started=ns(90), counts={"running": 1}, liveness="lost"
            ),
            listing(
                "report", 1, "cancelled", created=ns(100), started=ns(100), ended=ns(101), reason="superseded"
            ),
            listing("<b>bold</b>", 1, created=ns(5), started=ns(5), ended=ns(6)),
        ]
    )  # fmt: skip
    return view


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    found = browser.new_page(viewport={"width": 1200, "height": 700})
    trouble: list[str] = []
    found.on("pageerror", lambda error: trouble.append(str(error)))
    yield found
    found.close()
    assert trouble == []


def row(page: Page, ident: str) -> Any:
    return page.locator(f'.wsm-list-row[data-session="{ident}"]:visible')


def test_it_shows_what_there_is_and_what_is_not_known(page: Page) -> None:
    board, view = Board(page), sample()
    board.key(view)
    expect(board.root).to_have_attribute("data-verdict", "live")
    assert board.names() == ["report", "train", "nightly-etl", "<b>bold</b>"], "the newest run of each name"
    assert page.locator(".wsm b").count() == 0, "untrusted text is text"
    etl = row(page, "nightly-etl~3")
    expect(etl).to_contain_text("run 3 · 2 more")
    expect(etl.locator(".wsm-list-state")).to_have_text("running")
    expect(etl.locator(".wsm-list-steps")).to_have_text("4/6")
    expect(etl.locator(".wsm-list-time")).to_have_text("1:14")
    lost = row(page, "train~7")
    expect(lost.locator(".wsm-list-state")).to_have_text("was running · producer lost")
    expect(lost.locator(".wsm-list-time")).to_have_text("")
    expect(row(page, "report~1").locator(".wsm-list-problem")).to_have_text("superseded")

    view.connection(lost_status(NOW))
    board.key(view, status=lost_status(NOW))
    expect(board.root).to_have_attribute("data-frozen", "true")
    expect(etl.locator(".wsm-list-state")).to_have_text("was running")
    expect(lost.locator(".wsm-list-state")).to_have_text("was running")
    expect(page.locator(".wsm-strip")).to_contain_text("Reconnecting")
    frozen = etl.locator(".wsm-list-time").text_content()
    page.clock.run_for(2_000)
    expect(etl.locator(".wsm-list-time")).to_have_text(frozen or "")


def test_it_is_updated_in_place(page: Page) -> None:
    board, view = Board(page), sample()
    board.key(view)
    view.put(listing("nightly-etl", 3, "succeeded", created=ns(60), started=ns(60), ended=ns(70)))
    view.put(listing("new", 1, "running", created=ns(130), started=ns(130)))
    view.drop("report~1")
    board.message(view)
    expect(row(page, "nightly-etl~3").locator(".wsm-list-state")).to_have_text("succeeded")
    expect(row(page, "nightly-etl~3").locator(".wsm-list-time")).to_have_text("10 s")
    assert board.names()[0] == "new"
    assert "report" not in board.names()


def test_filter_states_sorting_and_groups(page: Page) -> None:
    board, view = Board(page), sample()
    board.key(view)
    page.locator(".wsm-filter").fill("etl fail")
    page.clock.run_for(50)
    assert board.names() == ["nightly-etl"]
    expect(board.rows.first).to_contain_text("KeyError: 'segment'")
    expect(page.locator(".wsm-hint")).to_have_text("1 of 6 sessions")
    page.locator(".wsm-filter").fill("nothing like it")
    page.clock.run_for(50)
    expect(page.locator(".wsm-empty")).to_have_text("No session matches.")
    page.locator(".wsm-filter").fill("")
    page.get_by_role("button", name="Open 2").click()
    page.clock.run_for(50)
    assert board.names() == ["train", "nightly-etl"]
    page.get_by_role("button", name="All 6").click()
    page.get_by_role("button", name="Session", exact=True).click()
    page.clock.run_for(50)
    assert board.names() == ["<b>bold</b>", "nightly-etl", "report", "train"]
    expect(page.locator("[role=columnheader][aria-sort]")).to_have_text("Session")
    page.get_by_role("button", name="Group runs").click()
    page.clock.run_for(50)
    assert board.names().count("nightly-etl") == 3


def test_choosing_by_mouse_by_keys_and_from_python(page: Page) -> None:
    board, view = Board(page), sample()
    board.key(view)
    row(page, "train~7").click()
    page.locator(".wsm-grid").press("ArrowDown")
    page.locator(".wsm-grid").press("ArrowRight")
    page.clock.run_for(50)
    expect(row(page, "nightly-etl~3")).to_have_attribute("aria-expanded", "true")
    page.locator(".wsm-grid").press("ArrowDown")
    page.clock.run_for(50)
    told = [(m["row"], m["n"]) for m in page.evaluate("window.sent") if m["do"] == "select"]
    assert told == [("train~7", 1), ("nightly-etl~3", 2), ("nightly-etl~2", 3)]
    page.locator(".wsm-grid").press("ArrowLeft")
    page.clock.run_for(50)
    expect(row(page, "nightly-etl~3")).to_have_attribute("aria-selected", "true")
    page.locator(".wsm-grid").press("ArrowLeft")
    page.evaluate("window.choose('nightly-etl~1')")
    page.clock.run_for(50)
    expect(row(page, "nightly-etl~1")).to_have_attribute("aria-selected", "true")
    active = page.locator(".wsm-grid").get_attribute("aria-activedescendant")
    expect(row(page, "nightly-etl~1")).to_have_attribute("id", active or "")


def test_thousands_are_a_screenful_of_elements(page: Page) -> None:
    board = Board(page)
    view = Listings()
    view.connection(live_status(NOW))
    view.subscription("live", "")
    view.position("e", 1)
    view.replace(
        [listing(f"job-{n}", 1, created=ns(n), started=ns(n), ended=ns(n + 1)) for n in range(5_000)]
    )
    board.key(view)
    assert page.locator(".wsm-list-row").count() < 60
    page.locator(".wsm-grid").focus()
    page.locator(".wsm-grid").press("End")
    page.clock.run_for(100)
    expect(row(page, "job-0~1")).to_be_visible()
    assert page.locator(".wsm-list-row").count() < 60


def test_what_is_not_listed_is_said(page: Page) -> None:
    from dataclasses import replace

    board, view = Board(page), Listings(row_limit=3)
    view.connection(replace(live_status(NOW), welcome=WELCOME))
    view.subscription("live", "")
    view.position("e", 1)
    board.key(view)
    note = page.locator(".wsm-list-note")
    expect(note).to_contain_text("only sessions that are called etl-* or report")
    expect(note).to_contain_text("There are no sessions yet")
    view.replace([listing("etl-a", n, created=ns(n)) for n in range(10)])
    board.message(view)
    expect(note).to_contain_text("of 10 sessions are in this view")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("lost", [False, True], ids=["live", "lost"])
def test_all_text_has_contrast_at_any_width(page: Page, dark: bool, lost: bool) -> None:
    board, view = Board(page, dark=dark, width=600), sample()
    status = lost_status(NOW) if lost else live_status(NOW)
    view.connection(status)
    board.key(view, status=status)
    row(page, "train~7").click()
    page.clock.run_for(600)
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate("document.querySelector('.wsm').scrollWidth") <= 600


def test_nothing_is_left_when_the_view_goes(page: Page) -> None:
    board, view = Board(page), sample()
    board.key(view)
    assert page.evaluate("window.away()") == []
    expect(board.root).to_have_count(0)


def test_axe_finds_nothing_live_or_lost(page: Page) -> None:
    board, view = Board(page), sample()
    board.key(view)
    row(page, "nightly-etl~3").locator(".wsm-twist").click()
    row(page, "train~7").click()
    page.clock.run_for(50)
    # axe waits with timers.
    page.clock.resume()
    accessible(page, ".wsm")
    view.connection(lost_status(NOW))
    page.evaluate(
        "m => window.message(m)",
        json.loads(
            json.dumps({**(view.frame(NOW) or {}), "due": 60_000, "beat": view.beat(NOW, lost_status(NOW))})
        ),
    )
    expect(board.root).to_have_attribute("data-verdict", "waiting", timeout=30_000)
    accessible(page, ".wsm")


@pytest.mark.parametrize("width", [1000, 600])
def test_a_count_is_never_cut_to_another(page: Page, width: int) -> None:
    board, view = Board(page, width=width), Listings()
    view.connection(live_status(NOW))
    view.subscription("live", "")
    view.position("e", 9)
    counts = {"small": (4_800, 1), "large": (49_999, 1), "huge": (999_999, 234_568)}
    view.replace(
        listing(name, 1, created=ns(n), counts={"succeeded": good, "failed": bad})
        for n, (name, (good, bad)) in enumerate(counts.items())
    )
    board.key(view)
    cells = board.rows.locator(".wsm-list-steps")
    expect(cells).to_have_text(["999.9k/1.2M", "49.9k/50k", "4,800/4,801"])
    assert cells.evaluate_all("all => all.every((el) => el.scrollWidth <= el.clientWidth)")
