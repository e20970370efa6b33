"""The tree and its timeline under the reader's hands: keys, filters, sorting, following, zooming."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from playwright.sync_api import Locator, Page, expect

from tests.browser.lab import eventually
from tests.browser.stage import NOW, Stage
from tests.notebook.samples import T0, chain, live_status, sample_view, step
from wsmonitor.notebook.rows import PAUSES
from wsmonitor.notebook.view import View

pytestmark = pytest.mark.browser


def many(count: int = 60) -> View:
    """A chain of steps, of which the last runs."""
    view = View("x")
    view.connection(live_status(NOW), NOW)
    view.subscription("live", "", NOW)
    done = [
        ("step", step(f"s{n}", f"step {n}", chain="c", at=n, start=n, end=n + 1)) for n in range(count - 1)
    ]
    last = step("last", "the last", "running", chain="c", at=count, start=count)
    view.replace([("chain", chain("c", "c", start=0)), *done, ("step", last)], "e", count)
    return view


def shown(page: Page) -> list[str]:
    """The names that are in sight, from above."""
    found: list[str] = page.evaluate("""() => {
      const view = document.querySelector(".wsm-view").getBoundingClientRect();
      return [...document.querySelectorAll(".wsm-body .wsm-row")]
        .filter((el) => el.getClientRects().length)
        .map((el) => [el.getBoundingClientRect(), el.querySelector(".wsm-label").textContent])
        .filter(([box]) => box.bottom > view.top + 26 && box.top < view.bottom - 1)
        .sort(([a], [b]) => a.top - b.top).map(([, name]) => name);
    }""")
    return found


def chosen(page: Page) -> Locator:
    return page.locator(".wsm-row[aria-selected=true] .wsm-label")


def test_every_key_of_a_treegrid_moves_as_it_should(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    page.locator("[role=treegrid]").focus()
    for key, name in [
        ("Home", "load"),
        ("End", "cross-validate"),
        ("PageUp", "window 7d"),
        ("Home", "load"),
        ("ArrowRight", "read manifest"),
        ("ArrowRight", "read manifest"),
        ("ArrowDown", "fetch parts"),
        ("ArrowRight", "part-000.parquet"),
        ("ArrowLeft", "fetch parts"),
        ("ArrowLeft", "fetch parts"),  # folds
        ("ArrowDown", "validate schema"),
        ("ArrowLeft", "load"),
        ("w", "window 7d"),
        ("i", "window 7d"),
        ("c", "window 7d"),  # "wic" begins no name
    ]:
        page.keyboard.press(key)
        stage.pass_time(20)
        expect(chosen(page)).to_have_text(name)
    stage.pass_time(1_000)
    page.keyboard.press("w")
    stage.pass_time(20)
    expect(chosen(page)).to_have_text("window 30d")
    grid = page.locator("[role=treegrid]")
    active = grid.get_attribute("aria-activedescendant")
    expect(page.locator(f"#{active}")).to_have_attribute("aria-selected", "true")


def test_the_chosen_row_stays_in_the_page_for_a_screen_reader_wherever_one_scrolls(page: Page) -> None:
    stage, view = Stage(page), many(400)
    stage.key(view)
    page.locator("[role=treegrid]").focus()
    page.keyboard.press("Home")
    stage.pass_time(20)
    page.locator(".wsm-view").evaluate("el => { el.scrollTop = 5000; }")
    stage.pass_time(50)
    active = page.locator("[role=treegrid]").get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").count() == 1
    indices = page.locator(".wsm-body .wsm-row").evaluate_all("all => all.map(el => Number(el.ariaRowIndex))")
    assert indices == sorted(indices), "the order of the page is that of the rows"


def test_the_chosen_row_stays_in_sight_as_the_details_close(page: Page) -> None:
    stage = Stage(page)
    stage.key(many(14))
    page.get_by_role("treegrid").press("Home")
    page.get_by_role("treegrid").press("Enter")
    stage.pass_time(100)
    stage.row("step 11").click()
    stage.pass_time(100)
    page.get_by_role("button", name="Close details").click()
    stage.pass_time(100)
    assert "step 11" in shown(page)


def test_following_stops_when_the_reader_scrolls_and_says_so(page: Page) -> None:
    stage, view = Stage(page), many()
    stage.key(view)
    assert shown(page)[-1] == "the last"
    follow = page.locator(".wsm-follow")
    expect(follow).to_have_attribute("aria-pressed", "true")
    page.locator(".wsm-view").hover()
    page.mouse.wheel(0, -400)
    stage.pass_time(50)
    expect(follow).to_have_attribute("aria-pressed", "false")
    expect(page.locator(".wsm-tools .wsm-hint")).to_have_text("not following: you scrolled")
    page.locator(".wsm-view").evaluate("el => { el.scrollTop = 500; }")

    def settled() -> list[str]:
        # The browser tells of a scroll in its own time, and rows are painted after that.
        stage.pass_time(50)
        return shown(page)

    before = eventually(settled, "rows are painted where one has scrolled to")
    view.rows.put(step("new", "a new one", "running", chain="c", at=70, start=70))
    stage.message(view.frame(NOW), view)
    assert shown(page) == before
    follow.click()
    stage.pass_time(50)
    assert shown(page)[-1] == "a new one"


def test_what_comes_above_pushes_nothing_from_under_the_readers_eye(page: Page) -> None:
    stage, view = Stage(page), many()
    stage.key(view)
    page.locator(".wsm-follow").click()
    page.locator(".wsm-view").evaluate("el => { el.scrollTop = 500; }")
    stage.pass_time(50)
    before = shown(page)
    assert before[0] == "step 19"
    for n in range(5):
        view.rows.put(step(f"early{n}", f"early {n}", chain="c", at=0.1, start=0.1, end=1))
    stage.message(view.frame(NOW), view)
    stage.pass_time(50)
    assert shown(page) == before


def test_states_are_chosen_and_the_filter_knows_them_by_their_words(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    page.get_by_role("button", name="State: all").click()
    stage.pass_time(20)
    menu = page.get_by_role("group", name="States to be shown")
    menu.get_by_label("✕ failed").check()
    stage.pass_time(50)
    expect(page.get_by_role("button", name="State: failed")).to_be_visible()
    assert shown(page) == ["features", "check drift"]
    menu.get_by_role("button", name="Show all").click()
    stage.pass_time(50)
    search = page.locator(".wsm-filter")
    search.fill("running window")
    stage.pass_time(50)
    assert shown(page) == ["features", "rolling windows", "window 90d"]
    expect(page.locator(".wsm-tools .wsm-hint")).to_contain_text("3 of 17 rows")
    search.fill("nothing like it")
    stage.pass_time(50)
    expect(page.locator(".wsm-empty")).to_have_text("No step matches.")
    search.press("Escape")
    stage.pass_time(50)
    assert shown(page)


def test_a_column_sorts_and_once_more_it_does_not(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    search = page.locator(".wsm-filter")
    search.fill("window")
    stage.pass_time(50)
    windows = ["window 7d", "window 30d", "window 90d"]
    assert shown(page)[2:] == windows
    time = page.get_by_role("button", name="Time", exact=True)
    time.focus()
    page.keyboard.press("Enter")
    stage.pass_time(50)
    expect(page.locator("[role=columnheader][data-key=time]")).to_have_attribute("aria-sort", "descending")
    assert shown(page)[2:] == ["window 90d", "window 30d", "window 7d"]
    time.click()
    stage.pass_time(50)
    assert shown(page)[2:] == windows
    assert page.locator("[aria-sort]").count() == 0


def test_the_first_error_is_the_cause_and_not_what_passes_it_on(page: Page) -> None:
    stage, view = Stage(page), many()
    view.rows.put(step("outer", "outer", "failed", chain="c", at=20.5, start=20.5, end=22))
    view.rows.put(step("inner", "inner", "failed", chain="c", parent="outer", at=20.6, start=20.6, end=22))
    view.rows.put(step("later", "later", "failed", chain="c", at=21, start=21, end=40))
    stage.key(view)
    page.get_by_role("button", name="First error").click()
    stage.pass_time(50)
    expect(chosen(page)).to_have_text("inner")
    assert "inner" in shown(page)


def test_the_timeline_zooms_pans_and_fits(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    stage.row("window 90d").scroll_into_view_if_needed()
    running = stage.row("window 90d").locator(".wsm-span").first

    def left() -> float:
        return float(running.evaluate("el => parseFloat(el.style.left)"))

    whole = left()
    assert 75 < whole < 85
    zoom_in, fit = page.get_by_label("Zoom the timeline in"), page.get_by_label("Fit the timeline")
    expect(fit).to_be_disabled()
    zoom_in.click()
    stage.pass_time(50)
    closer = left()
    assert 55 < closer < 65, "half the time, up to the present"
    grid = page.locator("[role=treegrid]")
    grid.focus()
    page.keyboard.press("Shift+ArrowLeft")
    stage.pass_time(50)
    assert left() > closer
    for _ in range(4):
        page.keyboard.press("Shift+ArrowLeft")
        stage.pass_time(20)
    expect(running).to_have_attribute("data-edge", "right")
    fit.click()
    stage.pass_time(50)
    assert abs(left() - whole) < 1  # the timeline grew by what has passed meanwhile


def test_pauses_cut_a_bar_and_attempts_share_a_lane(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    joined = view.rows.newest("s:join")
    assert joined is not None
    pauses = [int((T0 + at) * 1000) for at in (45, 50)]
    view.rows.put(replace(joined, attributes={PAUSES: pauses}))
    stage.key(view)
    spans = stage.row("join customers").locator(".wsm-span:visible")
    expect(spans).to_have_count(3)
    expect(spans.nth(1)).to_have_attribute("data-pause", "true")
    expect(spans.nth(1)).to_have_attribute("title", "paused 14:00:45.000 to 14:00:50.000")
    stage.page.locator(".wsm-view").evaluate("el => { el.scrollTop = 0; }")
    page.locator(".wsm-follow").click()
    stage.pass_time(50)
    retried = stage.row("part-001.parquet").locator(".wsm-span:visible")
    expect(retried).to_have_count(2)
    expect(retried.first).to_have_attribute("data-tone", "bad")
    expect(retried.last).to_have_attribute("data-tone", "good")


def test_a_row_keeps_its_elements_while_others_come_and_go(page: Page) -> None:
    stage, view = Stage(page), many()
    stage.key(view)
    page.locator(".wsm-follow").click()
    stage.row("the last").evaluate("el => { el.marked = true; }")
    for n in range(3):
        view.rows.put(step(f"e{n}", f"e {n}", chain="c", at=58.5, start=58.5, end=59))
    stage.message(view.frame(NOW), view)
    assert stage.row("the last").evaluate("el => el.marked")
