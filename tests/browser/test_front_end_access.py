"""Who does not see, or not well, or uses no mouse; and text of others, which is never more than text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace
from playwright.sync_api import Page, expect

from tests.browser.stage import NOW, Stage, accessible
from tests.browser.test_front_end_commands import SPECS, offering
from tests.browser.test_front_end_replay import finished
from tests.notebook.samples import chain, live_status, lost_status, ns, step
from wsmonitor.client.types import ConnectionStatus
from wsmonitor.notebook.details import details
from wsmonitor.notebook.view import View
from wsmonitor.protocol.entities import (
    Argument,
    Command,
    Failure,
    Link,
    Problem,
    Producer,
    Progress,
    Session,
    Value,
)

pytestmark = pytest.mark.browser

CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const lum = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (el) => {
    for (let at = el; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const el of document.querySelectorAll(".wsm *")) {
    const own = [...el.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !el.getClientRects().length) continue;
    const style = getComputedStyle(el);
    const [a, b] = [lum(parse(style.color)), lum(ground(el))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio >= 4.5 && style.opacity === "1") continue;
    found.push(`${el.className} "${el.textContent}" ${ratio.toFixed(2)}`);
  }
  return found;
}"""


def details_open(stage: Stage, view: View) -> None:
    stage.row("window 90d").click()
    stage.pass_time(50)
    request = stage.asked("details")[-1]
    big = {
        "mime": "text/plain",
        "size": 9_000_000,
        "sha256": "ab" * 32,
        "truncated": True,
        "text": "some text " * 9,
    }
    found = details(view, request).body["details"] | {"output": big, "tags": ["a"], "metrics": {"loss": 0.1}}
    stage.answer("details", details=found)


def confirm(stage: Stage, view: View) -> None:
    stage.page.locator(".wsm-command", has_text="Set rate").click()
    stage.pass_time(50)
    stage.page.locator(".wsm-confirm").get_by_role("button", name="Set rate").click()
    stage.page.get_by_role("button", name="State: all").click()
    stage.pass_time(50)


def destroy(stage: Stage, view: View) -> None:
    stage.page.locator(".wsm-command", has_text="Cancel").click()
    stage.pass_time(50)


def everything_else(stage: Stage, view: View) -> None:
    stage.page.locator(".wsm-why").click()
    stage.page.locator(".wsm-log button").click()
    stage.page.get_by_role("button", name="Show traceback").click()
    stage.pass_time(50)


def lost(stage: Stage, view: View) -> None:
    details_open(stage, view)
    view.connection(lost_status(NOW), NOW)
    stage.message(view.frame(NOW), view)
    everything_else(stage, view)


def failed(stage: Stage, view: View) -> None:
    view.connection(ConnectionStatus(phase="failed", code="unauthorized", reason="bad token"), NOW)
    stage.message(view.frame(NOW), view)
    everything_else(stage, view)


def replaying(stage: Stage, view: View) -> None:
    view.replace([], "epoch", 1)
    ended = finished()
    ended.number = 7
    stage.key(ended)
    stage.page.locator(".wsm-replay").click()
    stage.pass_time(50)


def busy(stage: Stage, view: View) -> None:
    stage.row("window 7d").click()
    stage.pass_time(900)


VIEWS = [everything_else, lost, failed, details_open, confirm, destroy, replaying, busy]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("act", VIEWS, ids=[act.__name__ for act in VIEWS])
def test_axe_finds_nothing_and_all_text_has_contrast(page: Page, dark: bool, act: Any) -> None:
    stage, view = Stage(page, dark=dark), offering()
    stage.key(view)
    act(stage, view)
    assert page.evaluate(CONTRAST) == []
    if dark and act not in (lost, destroy):
        return  # but for colours, which were compared above, the themes do not differ
    # axe waits with timers, and this page's clock stands still.
    page.clock.resume()
    accessible(page, ".wsm")


def test_what_can_be_pressed_is_large_enough_and_has_a_name(page: Page) -> None:
    stage, view = Stage(page), offering()
    stage.key(view)
    details_open(stage, view)
    # WCAG 2.2, 2.5.8: 24 pixels each way.
    small = page.evaluate("""() => [...document.querySelectorAll(".wsm button, .wsm select, .wsm input")]
      .filter((el) => el.getClientRects().length)
      .map((el) => [el.className, el.getBoundingClientRect()])
      .filter(([, box]) => Math.min(box.width, box.height) < 23.9)
      .map(([name, box]) => `${name} ${box.width}x${box.height}`)
    """)
    assert small == []


def test_there_is_one_live_region_and_it_speaks_of_the_link(page: Page) -> None:
    stage, view = Stage(page), offering()
    stage.key(view)
    details_open(stage, view)
    assert page.evaluate("document.querySelectorAll('.wsm [aria-live], .wsm [role=status]').length") == 1
    view.connection(lost_status(NOW), NOW)
    for _ in range(3):
        stage.pass_time(900)
        stage.message(view.frame(NOW) or {"type": "alive", "n": view.number, "at": NOW.at()}, view)
    expect(page.locator("[aria-live=polite]")).to_have_text("Reconnecting: nightly-etl was running")


def test_what_moves_by_itself_is_never_drawn_anew(page: Page) -> None:
    """Anything but these two would keep the page drawing each frame, for as long as a step runs."""
    stage = Stage(page)
    stage.key(offering())
    moved = page.evaluate(
        """() => document.getAnimations().flatMap((animation) => animation.effect.getKeyframes())
          .flatMap((frame) => Object.keys(frame))
          .filter((key) => !["offset", "computedOffset", "easing", "composite"].includes(key))"""
    )
    assert moved
    assert set(moved) <= {"transform", "opacity"}


def test_less_motion_is_no_motion(page: Page) -> None:
    stage, view = Stage(page), offering()
    stage.key(view)
    moving = "document.getAnimations().length"
    assert page.evaluate(moving) > 0
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(moving) == 0


EVIL = "\"><img src=x onerror='window.hit=1'><script>window.hit=2</script><svg onload='window.hit=3'>"


def evil_session() -> list[tuple[str, Any]]:
    """A session with script and markup in every field that takes text."""
    told = Value(mime="text/plain", text=EVIL, size=len(EVIL), sha256="ab" * 32)
    error = Failure(code="step_failed", message=EVIL, type=EVIL, traceback=EVIL)
    texts: dict[str, Any] = {
        "kind": EVIL,
        "reason": EVIL,
        "input": told,
        "output": told,
        "error": error,
        "metrics": {EVIL: 1},
        "tags": (EVIL,),
        "attributes": {EVIL: EVIL},
        "links": (Link(rel=EVIL, href=f"javascript:{EVIL}", title=EVIL),),
        "progress": Progress(done=1, total=3, unit=EVIL),
    }
    spec = replace(
        SPECS[4],
        description=EVIL,
        destructive=True,
        args=(Argument(name="x", description=EVIL, choices=(EVIL,), required=True),),
    )
    broken = replace(
        step("s", EVIL, "failed", chain="c", start=1, end=2), log_last=EVIL, log_count=2, **texts
    )
    times = {"deadline": ns(9), "requested": ns(1)}
    return [
        (
            "session",
            Session(id="x~1", name=EVIL, run=1, state="running", started=ns(0), commands=(spec,), **texts),
        ),
        ("chain", replace(chain("c", EVIL, start=0), **texts)),
        ("step", broken),
        ("step", replace(broken, id="s2", attempt=2)),
        ("producer", Producer(id="p", agent=EVIL, since=ns(0))),
        ("error", Problem(id="e", code=EVIL, message=EVIL, at=ns(1))),
        ("command", Command(id="k", name="y", state="rejected", actor=EVIL, via=EVIL, reason=EVIL, **times)),
    ]


def test_script_and_markup_in_every_field_are_text(page: Page) -> None:
    stage, view = Stage(page), View(EVIL)
    view.connection(replace_status(), NOW)
    view.subscription("live", EVIL, NOW)
    view.presence(2, (EVIL, EVIL))
    view.replace(evil_session(), "e", 9)
    view.log(NOW.at(), "bad", EVIL, EVIL, EVIL)
    stage.key(view)
    entry = {"n": 1, "at": NOW.at(), "level": "error", "text": EVIL, "truncated": False}
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": EVIL},
        {"output_type": "error", "ename": EVIL, "evalue": EVIL, "traceback": [EVIL]},
        {"output_type": "display_data", "data": {"text/html": EVIL, "text/plain": EVIL}},
        {"output_type": "display_data", "data": {"image/svg+xml": EVIL}},
        {"output_type": "display_data", "data": {"text/markdown": EVIL}},
    ]
    recorded = json.dumps({"outputs": outputs, "dropped": {EVIL: 1}})
    everything_else(stage, view)
    for mime in ("text/plain", "text/html", "image/svg+xml", "application/vnd.wsmonitor.outputs+json"):
        stage.message({"type": "alive", "n": view.number, "at": NOW.at()}, view)
        page.locator(".wsm-row[data-kind=chain]").click()
        page.locator(".wsm-row[data-kind=step]").first.click()
        stage.pass_time(1_100)
        request = stage.asked("details")[-1]
        text = recorded if mime.endswith("json") else EVIL
        value = {"mime": mime, "text": text, "size": len(text), "sha256": mime[-4:], "truncated": False}
        stage.answer("details", details=details(view, request).body["details"] | {"output": value, "logs": 1})
        for name in ("Input", "Output", "Error", "Logs", "Metrics", "Attributes"):
            page.get_by_role("tab", name=name).click()
            stage.pass_time(50)
            if name == "Logs":
                stage.answer("logs", lines=[entry], first=1, last=1, count=1)
    page.locator(".wsm-command").first.click()
    stage.pass_time(50)
    stage.page.locator(".wsm-command-record").click()
    stage.message({"type": "alive", "n": view.number, "at": NOW.at()}, view)
    stage.page.locator(".wsm-title").click()
    stage.pass_time(1_100)
    stage.answer("details", ok=False, code=EVIL, text=EVIL)
    stage.pass_time(2_000)
    # An image or a script that had been made would have told by now: its error event is a task of its own.
    page.evaluate("""new Promise((done) => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = done;
      port2.postMessage(1);
    })""")
    assert page.evaluate("window.hit") is None
    assert page.locator(".wsm script, .wsm svg, .wsm img:not(.wsm-picture), .wsm b").count() == 0
    expect(page.locator(".wsm-label").first).to_have_text(EVIL)


def replace_status() -> ConnectionStatus:
    """A live link whose words are as bad as the rest."""
    from dataclasses import replace as with_

    return with_(live_status(NOW), url=EVIL, reason=EVIL, looked=(EVIL,))
