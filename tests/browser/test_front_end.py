"""What the front-end shows of a session and of the links, in a bare page."""

from __future__ import annotations

from dataclasses import replace

import pytest
from playwright.sync_api import Page, expect

from tests.browser.stage import NOW, Stage
from tests.notebook.samples import chain, live_status, lost_status, ns, sample_view, step
from wsmonitor.client.types import ConnectionStatus, SubscriptionPhase
from wsmonitor.notebook.view import Now, View
from wsmonitor.protocol.entities import Failure, Session
from wsmonitor.protocol.messages import Degraded, Welcome

pytestmark = pytest.mark.browser

WELCOME = Welcome(
    major=1,
    minor=0,
    server="1",
    instance="i",
    epoch="e",
    subject="ada",
    role="observe",
    sessions=("etl-*", "report"),
    expires=0,
    time="0",
    heartbeat_interval=15,
    heartbeat_timeout=35,
    quiet_after=3,
    page_size=1,
    inline_value=1,
    batch_changes=1,
    batch_size=1,
    message_size=1,
)


def progress(view: View, done: int) -> None:
    view.rows.put(
        step(
            "w90",
            "window 90d",
            "running",
            chain="features",
            parent="windows",
            start=107,
            done=done,
            total=100,
        )
    )


def test_a_lost_update_is_shown_and_healed_by_the_next_key_frame_alone(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    expect(stage.root).to_have_attribute("data-verdict", "live")
    row = page.locator(".wsm-row", has_text="window 90d")
    progress(view, 50)
    view.frame(NOW)  # lost on the way
    progress(view, 60)
    stage.message(view.frame(NOW), view)
    expect(stage.root).to_have_attribute("data-verdict", "healing")
    expect(stage.root).to_have_attribute("data-frozen", "true")
    expect(row).to_contain_text("48 %")
    stage.key(view)
    expect(stage.root).to_have_attribute("data-verdict", "live")
    expect(row).to_contain_text("60 %")
    progress(view, 61)
    stage.message(view.frame(NOW), view)
    expect(row).to_contain_text("61 %")


def test_a_sign_of_life_with_a_higher_number_proves_a_loss(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    stage.message({"type": "alive", "n": view.number + 1, "at": NOW.at()}, view)
    expect(stage.root).to_have_attribute("data-verdict", "healing")


def test_a_silent_kernel_is_told_within_three_seconds_and_timers_stop(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    elapsed = page.locator(".wsm-elapsed")
    expect(elapsed).to_have_text("elapsed 2:14")
    stage.pass_time(2_900)
    expect(stage.root).to_have_attribute("data-verdict", "silent")
    expect(page.locator(".wsm-strip")).to_contain_text("was running")
    frozen = elapsed.text_content()
    stage.pass_time(30_000)
    expect(elapsed).to_have_text(frozen or "")
    expect(page.locator(".wsm-server")).to_have_text("data 32 s old")
    later = Now(NOW.mono + 33, NOW.wall + 33)
    stage.message({"type": "alive", "n": view.number, "at": later.at()}, view, later)
    expect(stage.root).to_have_attribute("data-verdict", "quiet")


def test_a_kernel_that_takes_it_that_nobody_looks_does_not_look_live(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    expect(stage.root).to_have_attribute("data-verdict", "live")
    progress(view, 61)
    # As the sender says it when no page has answered for long: the rows are kept for later.
    glance = stage.told(view.glance(NOW) or {}, view, NOW)
    page.evaluate("message => window.message(message)", {**glance, "due": 60_000})
    stage.pass_time(50)
    expect(stage.root).to_have_attribute("data-verdict", "unheard")
    expect(stage.root).to_have_attribute("data-frozen", "true")
    strip = page.locator(".wsm-strip")
    expect(strip).to_contain_text("Once a minute")
    expect(strip).to_contain_text("was running")
    expect(page.locator(".wsm-tools")).to_contain_text("1 changed row not told yet")
    stage.pass_time(30_000)
    expect(stage.root).to_have_attribute("data-verdict", "unheard")
    # It hears the page again.
    later = Now(NOW.mono + 30, NOW.wall + 30)
    stage.key(view, later)
    stage.message({"type": "alive", "n": view.number, "at": later.at()}, view, later)
    expect(page.locator(".wsm-tools")).not_to_contain_text("not told yet")


def test_a_page_that_does_not_reach_jupyter_does_not_say_that_the_kernel_is_gone(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    page.evaluate("window.kernel.connectionStatusChanged.emit('connecting')")
    stage.pass_time(20)
    expect(stage.root).to_have_attribute("data-verdict", "cut")
    expect(stage.root).to_have_attribute("data-frozen", "true")
    strip = page.locator(".wsm-strip")
    expect(strip).to_contain_text("Page offline")
    expect(strip).to_contain_text("was running")
    page.locator(".wsm-why").click()
    stage.pass_time(20)
    expect(page.locator(".wsm-reasons")).to_contain_text("The kernel may go on")
    expect(page.locator(".wsm-reasons")).not_to_contain_text("gone")
    page.evaluate("window.kernel.connectionStatusChanged.emit('connected')")
    stage.pass_time(20)
    expect(stage.root).to_have_attribute("data-verdict", "live")
    page.evaluate("window.kernel.statusChanged.emit('restarting')")
    page.evaluate("window.kernel.connectionStatusChanged.emit('connected')")
    stage.pass_time(20)
    expect(stage.root).to_have_attribute("data-verdict", "gone")
    expect(strip).to_contain_text("the kernel was restarted")


def test_a_page_from_a_file_never_looks_alive(page: Page) -> None:
    stage = Stage(page)
    expect(stage.root).to_have_attribute("data-verdict", "starting")
    expect(stage.root).to_have_attribute("data-frozen", "true")
    assert page.evaluate("window.sent.map(m => m.do)") == ["hello"]


def test_the_countdown_goes_on_and_reconnecting_can_be_asked_for(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    view.connection(lost_status(NOW), NOW)
    stage.key(view)
    strip = page.locator(".wsm-strip")
    expect(strip).to_contain_text("attempt 4 in 6 s")
    later = Now(NOW.mono + 2, NOW.wall + 2)
    stage.pass_time(2_000)
    stage.message({"type": "alive", "n": view.number, "at": later.at()}, view, later)
    expect(strip).to_contain_text("attempt 4 in 4 s")
    expect(strip).to_contain_text("data 46 s old")
    expect(strip).to_contain_text("producer: not known")
    page.locator(".wsm-reconnect").click()
    assert "reconnect" in page.evaluate("window.sent.map(m => m.do)")


def test_untrusted_text_is_text(page: Page) -> None:
    stage, view = Stage(page), View("x")
    evil = "<img src=x onerror=alert(1)><b>bold</b>"
    view.replace([("chain", chain("c", evil)), ("step", step("s", evil, "failed", chain="c"))], "e", 2)
    view.log(0, "bad", "step", evil, evil)
    stage.key(view)
    expect(page.locator(".wsm-label").first).to_have_text(evil)
    assert page.locator(".wsm img, .wsm b").count() == 0


def test_five_thousand_rows_are_a_screenful_of_elements(page: Page) -> None:
    stage, view = Stage(page), View("x")
    steps = [("step", step(f"s{n}", f"step {n}", chain="c", at=n, start=n, end=n + 1)) for n in range(4_999)]
    view.replace([("chain", chain("c", "c", start=0)), *steps], "e", 5_000)
    stage.key(view)
    assert page.locator(".wsm-body .wsm-row").count() <= 40
    expect(page.locator("[role=treegrid]")).to_have_attribute("aria-rowcount", "5001")
    page.locator(".wsm-filter").fill("step 4321")
    stage.pass_time(50)
    expect(page.locator(".wsm-body .wsm-row:visible .wsm-label")).to_have_text(["c", "step 4321"])


def test_the_tree_is_walked_with_the_keyboard(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    grid = page.locator("[role=treegrid]")
    grid.focus()
    for key in ("Home", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    stage.pass_time(50)
    chosen = page.locator(".wsm-row[aria-selected=true]")
    expect(chosen).to_contain_text("fetch parts")
    assert grid.get_attribute("aria-activedescendant") == chosen.get_attribute("id")
    expect(chosen).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowLeft")
    stage.pass_time(50)
    expect(chosen).to_have_attribute("aria-expanded", "false")
    expect(page.locator(".wsm-label", has_text="part-000.parquet")).to_be_hidden()


def test_it_is_low_by_default_and_one_line_when_folded(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    box = stage.root.bounding_box()
    assert box is not None
    assert box["height"] <= 420
    page.locator(".wsm-fold").click()
    stage.pass_time(50)
    box = stage.root.bounding_box()
    assert box is not None
    assert box["height"] <= 50


def test_losing_the_link_does_not_move_the_rows(page: Page) -> None:
    stage, view = Stage(page, width=980), sample_view(NOW)
    stage.key(view)
    before = page.locator(".wsm-grid").bounding_box()
    view.connection(lost_status(NOW), NOW)
    stage.message(view.frame(NOW), view)
    expect(stage.root).to_have_attribute("data-verdict", "waiting")
    assert page.locator(".wsm-grid").bounding_box() == before


@pytest.mark.parametrize(("width", "timeline"), [(600, True), (380, False)])
def test_in_a_narrow_page_nothing_is_wider_and_it_stays_low(page: Page, width: int, timeline: bool) -> None:
    stage, view = Stage(page, width=width), sample_view(NOW)
    view.connection(lost_status(NOW), NOW)
    stage.key(view)
    assert page.evaluate("document.querySelector('.wsm').scrollWidth") <= width
    expect(page.locator(".wsm-body .wsm-lane").first).to_be_visible(visible=timeline)
    box, rows = stage.root.bounding_box(), page.locator(".wsm-view").bounding_box()
    assert box is not None
    assert rows is not None
    assert box["height"] <= 420
    assert rows["height"] >= 100


def test_a_long_name_and_a_long_error_stay_a_banner_that_says_the_error(page: Page) -> None:
    for width in (1000, 600):
        stage, view = Stage(page, width=width), View("x")
        error = Failure(type="ValueError", message="no good " * 60, traceback="Traceback\n" * 40)
        broken = step(
            "s", "compute_the_rolling_window_" * 8, "failed", chain="c", start=1, end=2, error=error
        )
        session = Session(id="x~1", name="x" * 110, run=1, state="running", created=ns(0), started=ns(0))
        view.connection(live_status(NOW), NOW)
        view.subscription("live", "", NOW)
        view.replace([("session", session), ("chain", chain("c", "c", start=0)), ("step", broken)], "e", 3)
        stage.key(view)
        banner = page.locator(".wsm-alarm")
        box = banner.bounding_box()
        assert box is not None
        assert box["height"] <= 90
        why, whole = page.locator(".wsm-alarm-why").bounding_box(), banner.bounding_box()
        assert why is not None
        assert whole is not None
        assert why["y"] < whole["y"] + whole["height"] / 2, "the error's first words are in sight"
        state = page.locator(".wsm-state")
        expect(state).to_have_text("running 2:14")
        assert state.evaluate("el => el.scrollWidth <= el.clientWidth + 1 || el.clientWidth === 0")
        assert page.evaluate("document.querySelector('.wsm').scrollWidth") <= width
        banner.get_by_role("button", name="Show traceback").click()
        expect(page.locator(".wsm-traceback")).to_be_visible()
        expect(page.locator(".wsm-alarm-text")).to_contain_text("no good")


def test_nothing_goes_on_after_the_sessions_end(page: Page) -> None:
    stage, view = Stage(page), View("x")
    session = Session(
        id="x~1", name="x", run=1, state="cancelled", created=ns(0), started=ns(0), ended=ns(60)
    )
    left = step("s", "left open", "running", chain="c", start=10)
    view.connection(live_status(NOW), NOW)
    view.subscription("live", "", NOW)
    view.replace([("session", session), ("chain", chain("c", "c", start=0)), ("step", left)], "e", 3)
    stage.key(view)
    row = page.locator(".wsm-row[data-kind=step]")
    expect(row.locator(".wsm-cell-state")).to_have_text("was running")
    expect(row.locator(".wsm-time")).to_have_text("50 s")
    expect(row.locator(".wsm-span")).to_have_attribute("data-stale", "true")
    expect(page.locator(".wsm-counts")).to_contain_text("1 was running")
    stage.pass_time(2_000)
    expect(row.locator(".wsm-time")).to_have_text("50 s")


def test_a_step_before_its_chain_is_shown_and_marked_until_it_has_its_place(page: Page) -> None:
    stage, view = Stage(page), View("x")
    view.connection(live_status(NOW), NOW)
    view.subscription("live", "", NOW)
    view.replace([("step", step("s", "early", "running", chain="c", parent="p", start=1))], "e", 1)
    stage.key(view)
    row = page.locator(".wsm-row[data-kind=step]", has_text="early")
    expect(row).to_contain_text("not placed yet")
    view.rows.put(chain("c", "chain", start=0))
    view.rows.put(step("p", "parent", "running", chain="c", start=0))
    stage.message(view.frame(NOW), view)
    expect(row).not_to_contain_text("not placed yet")
    expect(row).to_have_attribute("aria-level", "3")


@pytest.mark.parametrize(
    ("status", "phase", "verdict", "words"),
    [
        (
            ConnectionStatus(
                phase="waiting", attempt=1, next_attempt_at=NOW.mono + 2, looked=("WSMONITOR_URL: not set",)
            ),
            "waiting",
            "waiting",
            "Looked at WSMONITOR_URL: not set",
        ),
        (live_status(NOW), "absent", "absent", 'with wm.session("job") as session'),
        (live_status(NOW), "not_available", "not_available", "the token does not cover it"),
        (
            replace(live_status(NOW), welcome=WELCOME),
            "absent",
            "absent",
            "only sessions that are called etl-* or report",
        ),
        (
            ConnectionStatus(phase="failed", code="unauthorized", reason="bad token"),
            "waiting",
            "failed",
            "WSMONITOR_TOKEN",
        ),
        (
            ConnectionStatus(phase="failed", code="unsupported_version", reason="v2 only"),
            "waiting",
            "failed",
            "Upgrade the older",
        ),
        (
            ConnectionStatus(phase="waiting", code="tls_failed", reason="its authority is not known"),
            "waiting",
            "waiting",
            "WSMONITOR_CA",
        ),
    ],
)
def test_while_there_is_nothing_to_see_the_reason_is_what_is_shown(
    page: Page, status: ConnectionStatus, phase: SubscriptionPhase, verdict: str, words: str
) -> None:
    stage, view = Stage(page), View("job")
    view.connection(status, NOW)
    view.subscription(phase, "", NOW)
    stage.key(view)
    expect(stage.root).to_have_attribute("data-verdict", verdict)
    expect(page.locator(".wsm-reasons")).to_contain_text(words)
    expect(page.locator(".wsm-server", has_text="data")).to_be_hidden()
    page.locator(".wsm-why").click()
    stage.pass_time(600)
    expect(page.locator(".wsm-reasons")).to_be_hidden()


def test_while_the_server_takes_no_changes_the_view_does_not_look_alive(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    view.connection(live_status(NOW), NOW)
    stage.key(view)
    expect(stage.root).to_have_attribute("data-verdict", "live")
    since = str(int((NOW.wall - 40) * 1e9))
    full = Degraded(code="read_only", reason="the disk is full", since=since)
    view.connection(replace(live_status(NOW), degraded=full), NOW)
    stage.key(view)
    expect(stage.root).to_have_attribute("data-verdict", "degraded")
    expect(page.locator(".wsm-strip")).to_contain_text("No changes")
    expect(page.locator(".wsm-server")).to_contain_text("data 40 s old")
    expect(page.locator(".wsm-producer")).to_have_text("producer: not known")
    page.locator(".wsm-why").click()
    stage.pass_time(20)
    expect(page.locator(".wsm-reasons")).to_contain_text(
        "The server takes no changes at present: the disk is full."
    )


def test_nothing_is_left_when_the_view_goes(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    assert page.evaluate("window.away()") == []
    expect(stage.root).to_have_count(0)
