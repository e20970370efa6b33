"""The detail pane: what it asks for, what it shows, and what stands there while nothing has come."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.stage import NOW, Stage
from tests.notebook.samples import lost_status, sample_view
from wsmonitor.notebook.details import details
from wsmonitor.notebook.view import Frame, View

pytestmark = pytest.mark.browser

BIG = {
    "mime": "text/plain",
    "size": 400_000,
    "sha256": "ab" * 32,
    "truncated": True,
    "text": "0123456789" * 400,
}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


def opened(stage: Stage, view: View, row: str, /, **more: Any) -> Frame:
    """Choose a row, and answer what the pane asks; the details are returned."""
    stage.row(row).click()
    stage.pass_time(50)
    found: Frame = {**details(view, stage.asked("details")[-1]).body["details"], **more}
    stage.answer("details", details=found)
    return found


def value(mime: str, text: str) -> Frame:
    return {"mime": mime, "text": text, "size": len(text.encode()), "sha256": "cd" * 32, "truncated": False}


def tab(stage: Stage, name: str) -> None:
    stage.page.get_by_role("tab", name=name).click()
    stage.pass_time(50)


def test_a_failed_step_opens_on_its_error_and_escape_gives_the_keyboard_back(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    grid = page.locator("[role=treegrid]")
    grid.focus()
    page.keyboard.type("check")
    page.keyboard.press("Enter")
    stage.pass_time(50)
    request = stage.asked("details")[-1]
    assert request["row"] == "s:drift"
    stage.answer("details", **details(view, request).body)
    pane = page.get_by_role("complementary")
    expect(pane).to_contain_text("features / check drift")
    expect(pane).to_contain_text("failed in 9.0 s")
    expect(page.get_by_role("tab", selected=True)).to_have_text("Error")
    expect(page.get_by_role("tabpanel")).to_contain_text('File "features.py", line 88, in check_drift')
    page.keyboard.press("ArrowLeft")
    stage.pass_time(50)
    expect(page.get_by_role("tab", selected=True)).to_be_focused()
    page.keyboard.press("Escape")
    stage.pass_time(50)
    expect(pane).to_be_hidden()
    expect(grid).to_be_focused()


def test_moving_on_shows_the_next_row_and_never_the_answer_for_another(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    stage.row("join customers").click()
    stage.pass_time(50)
    first = stage.asked("details")[-1]
    page.keyboard.press("ArrowDown")
    page.locator("[role=treegrid]").press("ArrowDown")
    stage.pass_time(1_100)
    assert stage.asked("details")[-1]["row"] != first["row"]
    late = details(view, first).body["details"] | {"output": value("text/plain", "of the first row")}
    page.evaluate(
        "m => window.message(m)", {"type": "answer", "to": first["id"], "ok": True, "details": late}
    )
    stage.pass_time(50)
    expect(page.get_by_role("complementary")).not_to_contain_text("of the first row")


def test_a_row_that_changes_is_asked_about_again_and_one_that_does_not_is_not(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    opened(stage, view, "window 7d")
    for _ in range(3):
        stage.pass_time(900)
        stage.message({"type": "alive", "n": view.number, "at": NOW.at()}, view)
    stage.key(view)
    assert len(stage.asked("details")) == 1
    opened(stage, view, "window 90d")
    changed = view.rows.newest("s:w90")
    assert changed is not None
    from msgspec.structs import replace

    view.rows.put(replace(changed, log_last="a new line", log_count=3))
    stage.pass_time(1_100)
    stage.message(view.frame(NOW), view)
    assert [asked["row"] for asked in stage.asked("details")] == ["s:w7", "s:w90", "s:w90"]


def test_a_large_value_comes_page_by_page_and_a_character_may_lie_across_two(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    opened(stage, view, "window 7d", output=BIG)
    panel = page.get_by_role("tabpanel")
    expect(panel).to_contain_text("⚠ 3.9 KiB of 390.6 KiB")
    panel.get_by_role("button", name="Load next 192 KiB").click()
    stage.pass_time(50)
    asked = stage.asked("value")[-1]
    assert (asked["sha256"], asked["offset"], asked["length"]) == ("ab" * 32, 4_000, 192 * 1024)
    cut = "page two é".encode()
    stage.answer("value", cut[:-1], offset=4_000, size=BIG["size"], mime="text/plain")
    expect(panel).to_contain_text("page two ")
    panel.get_by_role("button", name="Load next").click()
    stage.pass_time(50)
    assert stage.asked("value")[-1]["offset"] == 4_000 + len(cut) - 1
    stage.answer("value", cut[-1:] + b" and on", offset=4_010, size=BIG["size"], mime="text/plain")
    expect(panel).to_contain_text("page two é and on")
    panel.get_by_role("button", name="Copy as Python").click()
    stage.pass_time(50)
    line = panel.get_by_role("textbox", name="Python that fetches this value")
    expect(line).to_have_value(f'wm.watch("nightly-etl~3").value("{"ab" * 32}")')


def test_json_is_laid_out_and_not_a_digit_of_it_is_changed(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    told = '{"big":12345678901234567890,"one":1.0,"list":[1,2,{"a":"x, {y}: \\"z\\""}],"again":1,"again":2}'
    opened(stage, view, "window 7d", output=value("application/json", told))
    shown = page.locator(".wsm-value .wsm-text").text_content() or ""
    assert "12345678901234567890" in shown
    assert "1.0" in shown
    assert "\n  " in shown
    assert json.loads(shown, parse_int=str, object_pairs_hook=list) == json.loads(
        told, parse_int=str, object_pairs_hook=list
    )


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(60)
        yield listening


def test_a_recorded_cells_outputs_are_shown_and_none_of_them_runs(
    page: Page, listener: socket.socket
) -> None:
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    script = f"<script>top.hit = 1</script><img src='{address}/x' onerror='top.hit = 2'/>"
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9' onload='top.hit = 3'>{script}</svg>"
    refresh = f"<meta http-equiv='refresh' content='0;url={address}/y'>"
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["\x1b[31mred", " words\x1b[0m\n"]},
        {"output_type": "stream", "name": "stderr", "text": f"careful {script}"},
        {
            "output_type": "display_data",
            "data": {"image/png": PNG, "text/plain": "a picture"},
            "metadata": {},
        },
        {"output_type": "display_data", "data": {"image/svg+xml": [svg]}, "metadata": {}},
        {
            "output_type": "execute_result",
            "data": {"text/html": f"<table><tr><td>7</td></tr></table>{script}{refresh}"},
        },
        {
            "output_type": "error",
            "ename": "KeyError",
            "evalue": "'x'",
            "traceback": ["\x1b[0;31mKeyError\x1b[0m", "line 1"],
        },
        {
            "output_type": "display_data",
            "data": {"text/plain": {"$value": {"sha256": "ef" * 32, "size": 5, "mime": "text/plain"}}},
        },
    ]
    told = json.dumps({"outputs": outputs, "dropped": {"outputs": 12}})
    opened(stage, view, "window 7d", output=value("application/vnd.wsmonitor.outputs+json", told))
    stage.answer("value", b"later", offset=0, size=5, mime="text/plain")
    panel = page.get_by_role("tabpanel")
    expect(panel.locator(".wsm-output")).to_have_count(len(outputs))
    expect(panel).to_contain_text("red words")
    expect(panel).to_contain_text("careful <script>")
    expect(panel).to_contain_text("KeyError: 'x'")
    expect(panel).to_contain_text("later")
    expect(panel).to_contain_text("not kept: 12 outputs")
    pictures = panel.locator("img")
    expect(pictures).to_have_count(2)
    for n in range(2):
        pictures.nth(n).evaluate("img => img.decode()")
    frame = panel.locator("iframe")
    expect(frame).to_have_attribute("sandbox", "")
    expect(page.frame_locator(".wsm-html").locator("td")).to_have_text("7")
    assert page.evaluate("window.hit") is None
    # Had anything of them been asked for, it would be here before what the page itself asks for now.
    page.evaluate("address => { new Image().src = address; }", f"{address}/after")
    came, _ = listener.accept()
    with came:
        assert came.recv(100).startswith(b"GET /after ")


def test_log_lines_are_followed_at_the_end_and_earlier_ones_can_be_had(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)

    def lines(first: int, last: int) -> list[Frame]:
        return [
            {
                "n": n,
                "at": NOW.at(),
                "level": "warning" if n == 250 else "info",
                "text": f"line {n}.",
                "truncated": False,
            }
            for n in range(first, last + 1)
        ]

    opened(stage, view, "window 7d", logs=300)
    tab(stage, "Logs 300")
    assert stage.asked("logs")[-1] | {"id": 0, "via": 0} == {
        "do": "logs", "row": "s:w7", "limit": 200, "id": 0, "via": 0,
    }  # fmt: skip
    stage.answer("logs", lines=lines(101, 300), first=1, last=300, count=300)
    box = page.locator(".wsm-lines")
    expect(box.locator(".wsm-logline")).to_have_count(200)
    assert box.evaluate("el => el.scrollTop + el.clientHeight >= el.scrollHeight - 8")
    expect(box).to_contain_text("warning line 250.")
    page.get_by_role("button", name="Load 100 earlier").click()
    stage.pass_time(50)
    assert stage.asked("logs")[-1]["before"] == 101
    stage.answer("logs", lines=lines(1, 100), first=1, last=300, count=300)
    expect(box.locator(".wsm-logline")).to_have_count(300)
    expect(box.locator(".wsm-logline").first).to_contain_text("line 1.")


def test_a_busy_kernel_is_told_where_the_details_would_be_with_what_to_do(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    stage.row("window 7d").click()
    stage.pass_time(900)
    pane = page.get_by_role("complementary")
    expect(pane).to_contain_text("queued: kernel busy")
    expect(pane).to_contain_text("wsmonitor watch nightly-etl~3")
    found = details(view, stage.asked("details")[-1]).body
    stage.answer("details", **found)
    expect(pane).not_to_contain_text("queued")
    opened(stage, view, "window 30d")
    stage.row("window 90d").click()
    stage.pass_time(50)
    stage.answer("details", ok=False, code="gone", text="this row is no longer there")
    expect(pane).to_contain_text("✕ The details did not come")
    expect(pane).to_contain_text("this row is no longer there")
    pane.get_by_role("button", name="Try again").click()
    stage.pass_time(50)
    request = stage.asked("details")[-1]
    stage.answer("details", **details(view, request).body)
    expect(page.get_by_role("tabpanel")).to_be_visible()


def test_without_the_link_what_is_there_stays_and_pages_say_what_they_need(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    opened(stage, view, "window 90d", output=BIG)
    view.connection(lost_status(NOW), NOW)
    stage.message(view.frame(NOW), view)
    pane = page.get_by_role("complementary")
    expect(pane).to_contain_text("was running at")
    more = pane.get_by_role("button", name="pages need the link")
    expect(more).to_be_disabled()
    expect(pane).to_contain_text("0123456789")


def test_an_earlier_attempt_can_be_looked_at(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    opened(stage, view, "encode categories")
    pane = page.get_by_role("complementary")
    pane.get_by_role("combobox", name="Attempt").select_option("1")
    stage.pass_time(1_100)
    request = stage.asked("details")[-1]
    assert (request["row"], request["attempt"]) == ("s:e1", 1)
    stage.answer("details", **details(view, request).body)
    expect(pane).to_contain_text("failed in 13 s")


def test_metrics_attributes_and_links_are_told_and_only_plain_web_addresses_lead_anywhere(page: Page) -> None:
    stage, view = Stage(page), sample_view(NOW)
    stage.key(view)
    links = [
        {"rel": "docs", "href": "https://example.org/a", "title": "the docs"},
        {"rel": "evil", "href": "javascript:top.hit=1", "title": ""},
    ]
    opened(
        stage,
        view,
        "window 7d",
        links=links,
        tags=["nightly"],
        attributes={"days": 7},
        metrics={"rows": 18402113},
    )
    tab(stage, "Metrics")
    panel = page.get_by_role("tabpanel")
    expect(panel).to_contain_text("18.4 M")
    tab(stage, "Attributes")
    expect(panel).to_contain_text("nightly")
    expect(panel).to_contain_text("days")
    expect(panel.locator("a")).to_have_count(1)
    expect(panel.locator("a")).to_have_attribute("rel", "noopener noreferrer")
    expect(panel).to_contain_text("javascript:top.hit=1")


def test_beside_the_tree_where_there_is_room_and_below_it_where_not(page: Page) -> None:
    for width, beside in ((1000, True), (600, False)):
        stage, view = Stage(page, width=width), sample_view(NOW)
        stage.key(view)
        opened(stage, view, "join customers")
        pane, grid = page.locator(".wsm-pane").bounding_box(), page.locator(".wsm-grid").bounding_box()
        assert pane is not None
        assert grid is not None
        assert (pane["x"] >= grid["x"] + grid["width"] - 1) == beside
        assert (pane["y"] >= grid["y"] + grid["height"] - 1) == (not beside)
        assert page.evaluate("document.querySelector('.wsm').scrollWidth") <= width
