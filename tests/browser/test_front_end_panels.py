"""What stands around the tree: summary, event log, who watches, the session's own details."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from playwright.sync_api import Page, expect

from tests.browser.stage import NOW, Stage
from tests.notebook.samples import lost_status, nightly, sample_view
from wsmonitor.notebook.details import details
from wsmonitor.notebook.view import View
from wsmonitor.protocol.entities import Progress, Session

pytestmark = pytest.mark.browser


def measured(**fields: object) -> View:
    """The sample, whose session has more to tell."""
    view = sample_view(NOW)
    made = [(kind, replace(e, **fields) if isinstance(e, Session) else e) for kind, e in nightly()]
    view.replace(made, "epoch", 1161)
    return view


def test_the_time_that_is_left_is_told_where_it_can_be_known_and_not_without_the_link(page: Page) -> None:
    stage, view = Stage(page), measured(progress=Progress(done=2, total=3, unit="chains"))
    stage.key(view)
    eta = page.locator(".wsm-eta")
    expect(eta).to_have_text("ETA 1:07")
    view.connection(lost_status(NOW), NOW)
    stage.message(view.frame(NOW), view)
    expect(eta).to_have_text("ETA not known")
    view = measured(progress=Progress(done=2, unit="chains"))
    view.number = 9
    stage.key(view)
    expect(eta).to_be_hidden()


def test_metrics_are_short_and_whole_on_demand(page: Page) -> None:
    metrics = {"rows": 18402113, "loss": 0.031245678, "cost": 1.5, "tokens": 12400, "fifth": 5}
    stage, view = Stage(page), measured(metrics=metrics)
    stage.key(view)
    shown = page.locator(".wsm-metrics")
    for words in ("rows 18.4 M", "loss 0.03125", "cost 1.5", "tokens 12,400", "and 1 more"):
        expect(shown).to_contain_text(words)
    expect(shown).to_have_attribute("title", "\n".join(f"{name} {n}" for name, n in metrics.items()))


def test_the_log_is_filtered_and_who_reads_in_it_is_not_pushed_away(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    for n in range(40):
        view.log(NOW.at(), "plain", "step", f"step {n}", "running")
    stage.key(view)
    page.locator(".wsm-log button").click()
    stage.pass_time(20)
    lines = page.locator(".wsm-log-list li")
    expect(lines).to_have_count(42)
    expect(lines.first).to_contain_text("step 39 running")
    expect(page.locator(".wsm-log-list li[data-link]")).to_contain_text("connected to")
    box = page.locator(".wsm-log-list")
    box.evaluate("el => { el.scrollTop = 200; }")
    before = lines.nth(15).evaluate("el => el.getBoundingClientRect().top")
    view.log(NOW.at(), "plain", "step", "another", "running")
    stage.message(view.frame(NOW), view)
    expect(lines).to_have_count(43)
    after = lines.nth(16).evaluate("el => el.getBoundingClientRect().top")
    assert abs(after - before) < 2
    page.locator(".wsm-log-filter").fill("running step 17")
    stage.pass_time(20)
    expect(lines).to_have_text(["14:02:14.000step step 17 running"])
    expect(page.locator(".wsm-log .wsm-hint")).to_have_text("1 of 43 entries")


def test_who_watches_is_told_on_demand(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    view.presence(5, ("ada", "grace", "alan"))
    stage.key(view)
    watching = page.get_by_role("button", name="5 watching")
    watching.click()
    stage.pass_time(20)
    expect(page.locator(".wsm-reasons")).to_contain_text("Watching: ada, grace, alan and 2 more")
    watching.click()
    stage.pass_time(20)
    expect(page.locator(".wsm-reasons")).to_be_hidden()


def test_the_sessions_own_details_are_behind_its_name(page: Page) -> None:
    stage, view = Stage(page), measured(tags=("nightly",), attributes={"host": "batch-7"})
    stage.key(view)
    page.get_by_role("button", name="nightly-etl", exact=True).click()
    stage.pass_time(50)
    request = stage.asked("details")[-1]
    assert request["row"] == ""
    stage.answer("details", **details(view, request).body)
    page.get_by_role("tab", name="Attributes").click()
    stage.pass_time(20)
    expect(page.get_by_role("tabpanel")).to_contain_text("batch-7")
    expect(page.get_by_role("complementary")).to_contain_text("nightly-etl~3")


def test_while_rows_are_on_their_way_nobody_is_told_that_there_are_none(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    view.frame(NOW)
    key = stage.told(view.key(NOW), view, NOW)
    del key["rows"]
    page.evaluate("key => window.key(key)", {**key, "pages": [1, 1]})
    stage.pass_time(50)
    expect(page.locator(".wsm-empty")).to_have_text("The steps are on their way.")
