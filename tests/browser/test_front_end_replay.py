"""The scrubber: a finished session's past, from the times that its steps recorded."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from playwright.sync_api import Locator, Page, expect

from tests.browser.stage import NOW, Stage
from tests.notebook.samples import T0, live_status, nightly, ns
from wsmonitor.notebook.view import Now, View
from wsmonitor.protocol.entities import Chain, Session, Step

pytestmark = pytest.mark.browser


def finished() -> View:
    """The sample, ended after 130 s."""
    view = View("nightly-etl")
    view.connection(live_status(NOW), NOW)
    view.subscription("live", "", NOW)
    made = []
    for kind, entity in nightly():
        if isinstance(entity, Session | Chain | Step) and entity.state == "running":
            entity = replace(entity, state="succeeded", ended=ns(130))
        made.append((kind, entity))
    view.replace(made, "epoch", 1200)
    for second in (10, 60, 120):
        view.log(int((T0 + second) * 1000), "plain", "step", f"at {second}", "running")
    return view


def to(stage: Stage, seconds: float) -> None:
    """Move the slider to a moment after the session's start."""
    slider = stage.page.get_by_role("slider")
    slider.evaluate(
        "(el, v) => { el.value = v; el.dispatchEvent(new Event('input')); }", str(round(1000 * seconds / 130))
    )
    stage.pass_time(50)


def state(row: Locator) -> Locator:
    return row.locator(".wsm-cell-state")


def test_the_past_is_shown_as_the_past_and_left_cleanly(page: Page) -> None:
    stage, view = Stage(page), finished()
    stage.key(view)
    counts = page.locator(".wsm-counts")
    expect(counts).to_contain_text("11 succeeded")
    page.get_by_role("button", name="↺ Replay").click()
    stage.pass_time(50)
    expect(stage.root).to_have_attribute("data-verdict", "replay")
    expect(page.locator(".wsm-strip")).to_contain_text("Replay")
    expect(page.locator(".wsm-strip")).not_to_contain_text("Live")
    expect(page.locator(".wsm-server")).to_be_hidden()
    to(stage, 65)
    expect(page.locator(".wsm-when")).to_contain_text("(from recorded times)")
    expect(state(stage.row("load"))).to_have_text("succeeded")
    expect(state(stage.row("features"))).to_have_text("running")
    expect(stage.row("features").locator(".wsm-time")).to_have_text("28 s")
    expect(stage.row("check drift")).to_have_count(0)
    expect(page.locator(".wsm-alarm")).to_have_count(0)
    expect(counts).to_contain_text("6 succeeded")
    expect(counts).to_contain_text("2 running")
    expect(page.locator(".wsm-log-last")).to_contain_text("at 60")
    to(stage, 12)
    retried = stage.row("part-001.parquet")
    expect(state(retried)).to_have_text("running")
    expect(retried.locator(".wsm-chip:visible")).to_have_count(0)
    to(stage, 15.5)
    expect(state(retried)).to_have_text("failed")
    to(stage, 20)
    expect(state(retried)).to_have_text("running")
    expect(retried.locator(".wsm-chip:visible")).to_have_text("attempt 2")
    to(stage, 130)
    expect(counts).to_contain_text("11 succeeded")
    expect(counts).to_contain_text("1 failed")
    expect(page.locator(".wsm-alarm")).to_contain_text("check drift")
    page.get_by_role("slider").press("Escape")
    stage.pass_time(50)
    expect(stage.root).to_have_attribute("data-verdict", "live")
    expect(page.get_by_role("slider")).to_be_hidden()
    expect(page.locator("[role=treegrid]")).to_be_focused()


def test_it_plays_at_a_speed_and_stops_at_the_end(page: Page) -> None:
    stage, view = Stage(page), finished()
    stage.key(view)
    page.get_by_role("button", name="↺ Replay").click()
    page.get_by_label("Speed").select_option("10")
    page.get_by_role("button", name="▶ Play").click()
    later = Now(NOW.mono + 5, NOW.wall + 5)
    for _ in range(5):
        stage.pass_time(1_000)
        stage.message({"type": "alive", "n": view.number, "at": later.at()}, view, later)
    slider = page.get_by_role("slider")
    gone = 130 * int(slider.input_value()) / 1000
    assert 45 <= gone <= 60
    slider.press(" ")
    paused = slider.input_value()
    stage.pass_time(1_000)
    assert slider.input_value() == paused
    page.get_by_role("button", name="To what happened next").click()
    stage.pass_time(50)
    assert int(slider.input_value()) >= int(paused)
    page.get_by_label("Speed").select_option("600")
    page.get_by_role("button", name="▶ Play").click()
    stage.pass_time(500)
    expect(slider).to_have_value("1000")
    expect(page.get_by_role("button", name="▶ Play")).to_be_visible()


def test_a_newer_run_ends_the_replay(page: Page) -> None:
    stage, view = Stage(page), finished()
    stage.key(view)
    page.get_by_role("button", name="↺ Replay").click()
    stage.pass_time(50)
    expect(stage.root).to_have_attribute("data-verdict", "replay")
    session = Session(
        id="nightly-etl~4", name="nightly-etl", run=4, state="running", created=ns(131), started=ns(131)
    )
    view.replace([("session", session)], "epoch", 3)
    stage.message(view.frame(NOW), view)
    stage.pass_time(50)
    expect(stage.root).to_have_attribute("data-verdict", "live")
    expect(page.locator(".wsm-run")).to_have_text("run 4")


def test_while_it_runs_there_is_nothing_to_replay(page: Page) -> None:
    from tests.notebook.samples import sample_view

    stage = Stage(page)
    stage.key(sample_view(NOW))
    expect(page.locator(".wsm-replay")).to_be_hidden()
