"""A session's HTML file in a real browser, opened from disk: nothing is fetched, nothing hostile runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Browser, Page, Request, expect

from tests.browser.lab import eventually
from tests.browser.stage import accessible
from tests.browser.test_front_end_access import CONTRAST
from tests.export.samples import etl, ns, value
from wsmonitor.export import Origin, to_html
from wsmonitor.protocol.entities import Chain, Failure, LogRecord, Session, Step
from wsmonitor.protocol.reducer import SessionState

pytestmark = pytest.mark.browser

LIVE = Origin(exported=ns(141), as_of=ns(140), server="ws://127.0.0.1:4711", version="0.1")
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
ANYWHERE = CONTRAST.replace(".wsm *", "body *")


def hostile() -> SessionState:
    """A recorded cell whose outputs try what HTML can do."""
    html = (
        "<script>parent.document.title = 'taken'; alert(1)</script><img src=http://127.0.0.1:9/x.png>"
        "<form action=http://127.0.0.1:9/><button>go</button></form><table><tr><td>cell</td></tr></table>"
        "<p style='color: rgb(1, 2, 3); background: url(http://127.0.0.1:9/y.png)'>styled</p>"
        "<style>@import url(http://127.0.0.1:9/z.css); i { color: rgb(4, 5, 6) }</style><i>sheet</i>"
    )
    svg = "<svg xmlns='http://www.w3.org/2000/svg' width='40' height='20' onload='alert(2)'><rect width='40' height='20'/></svg>"  # noqa: E501 - markup
    outputs: list[dict[str, Any]] = [
        {"output_type": "display_data", "data": {"text/html": html}, "metadata": {}},
        {"output_type": "display_data", "data": {"image/svg+xml": svg}, "metadata": {}},
        {"output_type": "display_data", "data": {"image/png": PIXEL}, "metadata": {}},
    ]
    document = msgspec.json.encode({"outputs": outputs, "dropped": {}}).decode()
    evil = "<img src=x onerror=alert(3)>"
    cell = Step(
        id="s", chain="c", name=evil, kind="cell", state="succeeded", started=ns(0), ended=ns(1),
        output=value(document, mime="application/vnd.wsmonitor.outputs+json"),
    )  # fmt: skip
    session = Session(id="s~1", name=evil, kind="notebook", state="succeeded", started=ns(0), ended=ns(2))
    entities = [("session", session), ("chain", Chain(id="c", name=evil)), ("step", cell)]
    return SessionState.restore("s~1", "e", 1, entities)


class Opened:
    """Pages opened from disk, with what they asked the network for."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self.browser = browser
        self.file = folder / "page.html"
        self.asked: list[Request] = []
        self.trouble: list[str] = []
        self.pages: list[Page] = []

    def __call__(self, text: str, **options: Any) -> Page:
        self.file.write_text(text, encoding="utf-8")
        page = self.browser.new_page(
            **{"viewport": {"width": 1200, "height": 900}, "offline": True, **options}
        )
        self.pages.append(page)
        page.on("request", lambda request: self.asked.append(request))
        page.on("pageerror", lambda error: self.trouble.append(str(error)))
        page.on("dialog", lambda dialog: (self.trouble.append(dialog.message), dialog.dismiss()))
        page.goto(self.file.as_uri())
        return page

    def fetched(self) -> list[str]:
        """What was asked for beyond the file and what is inside it, and not refused by the page's policy."""
        inside = ("data:", self.file.as_uri(), "about:")
        # Events are heard while Playwright is at work.
        self.pages[-1].evaluate("0")
        return [
            request.url
            for request in self.asked
            if not request.url.startswith(inside) and request.failure != "csp"
        ]

    def fetched_nothing(self) -> None:
        # Chromium may tell of a request before it tells that the policy has refused it, unsent.
        eventually(lambda: not self.fetched(), "nothing is fetched")


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Opened]:
    found = Opened(browser, tmp_path)
    yield found
    for page in found.pages:
        page.context.close()
    assert found.trouble == []


def test_it_filters_opens_and_closes(opened: Opened) -> None:
    logs = {"s5": [LogRecord(n=1, at=ns(110), text="batch 1")]}
    page = opened(to_html(etl(), LIVE, logs))
    row = page.locator(".row", has_text="check drift")
    expect(row).to_be_visible()
    page.locator("#words").fill("drift")
    expect(page.locator("#hits")).to_contain_text("1 of")
    expect(row).to_be_visible()
    expect(page.locator(".row", has_text="read manifest")).to_be_hidden()
    expect(page.locator(".row", has_text="features").first).to_be_visible()
    page.locator("#words").fill("")
    page.locator("#state").select_option("pending")
    expect(page.locator(".row", has_text="fit gradient")).to_be_visible()
    expect(row).to_be_hidden()
    page.locator("#state").select_option("")
    expect(page.get_by_text("batch 1", exact=False).first).to_be_hidden()
    page.locator("#open").click()
    expect(page.get_by_text("batch 1", exact=False).first).to_be_visible()
    page.locator("#close").click()
    expect(page.get_by_text("batch 1", exact=False).first).to_be_hidden()
    opened.fetched_nothing()


def test_without_scripts_all_of_it_can_be_read(opened: Opened) -> None:
    page = opened(to_html(etl(), LIVE), java_script_enabled=False)
    expect(page.locator("#words")).to_be_hidden()
    expect(page.locator(".row", has_text="check drift")).to_be_visible()
    page.locator("summary", has_text="check drift").click()
    expect(page.locator("pre.bad", has_text="KeyError: 'segment'").first).to_be_visible()


def test_hostile_outputs_are_sealed(opened: Opened) -> None:
    page = opened(to_html(hostile(), LIVE))
    page.locator("#open").click()
    frame = page.frame_locator("iframe")
    expect(frame.locator("td")).to_have_text("cell")
    # Its styles hold in it, where they can fetch nothing.
    expect(frame.get_by_text("styled")).to_have_css("color", "rgb(1, 2, 3)")
    expect(frame.get_by_text("sheet")).to_have_css("color", "rgb(4, 5, 6)")
    expect(page).not_to_have_title("taken")
    for picture in page.locator("main img").all():
        expect(picture).to_be_visible()
        picture.evaluate("img => img.decode()")
    assert page.locator("main img").count() == 2
    opened.fetched_nothing()


def test_printed_everything_is_open(opened: Opened) -> None:
    page = opened(to_html(etl(), LIVE))
    trace = page.locator("pre.bad", has_text="KeyError: 'segment'").first
    expect(trace).to_be_hidden()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(trace).to_be_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(trace).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast_and_nothing_is_cut_on_a_narrow_screen(opened: Opened, scheme: str) -> None:
    page = opened(to_html(etl(), LIVE), color_scheme=scheme, viewport={"width": 600, "height": 900})
    page.locator("#open").click()
    assert page.evaluate(ANYWHERE) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 600


def test_axe_finds_nothing_with_all_open(opened: Opened) -> None:
    page = opened(to_html(etl(), LIVE))
    page.locator("#open").click()
    accessible(page, "main")


OVERLAPS = """() => [...document.querySelectorAll(".tree .row:not(.axis)")].filter((row) => {
  const [name, state, time] = [...row.children].map((cell) => cell.getBoundingClientRect());
  return name.right > state.left + 1 && name.bottom > state.top + 1 || state.right > time.left + 1;
}).map((row) => row.textContent)"""


def test_enlarged_to_four_times_names_and_states_have_room(opened: Opened) -> None:
    page = opened(to_html(etl(), LIVE), viewport={"width": 320, "height": 900})
    page.locator("#open").click()
    assert page.evaluate(OVERLAPS) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.evaluate(ANYWHERE) == []
    accessible(page, "main")


@pytest.mark.parametrize("width", [1100, 600, 320])
def test_a_long_name_without_spaces_makes_nothing_wider(opened: Opened, width: int) -> None:
    name = "Reconciliation_of_all_records_" * 12
    error = Failure(type=name, message=name)
    step = Step(id="s", chain="c", name=name, state="failed", created=ns(0), started=ns(0), error=error)
    whole = [("session", Session(id="s~1", name=name)), ("chain", Chain(id="c", name=name)), ("step", step)]
    state = SessionState.restore("s~1", "e", 1, whole)
    page = opened(to_html(state, LIVE), viewport={"width": width, "height": 900})
    page.locator("#open").click()
    expect(page.locator(".alarm")).to_contain_text(name)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_fifty_thousand_steps_open_and_filter(opened: Opened) -> None:
    steps = [
        Step(
            id=f"s{n}", chain="c", name=f"step {n}", created=ns(n), started=ns(n), ended=ns(n + 1),
            state="failed" if n == 49_999 else "succeeded",
        )
        for n in range(50_000)
    ]  # fmt: skip
    whole = [("session", Session(id="s~1", name="s")), ("chain", Chain(id="c", name="c"))]
    state = SessionState.restore("s~1", "e", 1, [*whole, *(("step", step) for step in steps)])
    text = to_html(state, LIVE)
    assert len(text) < 10_000_000
    page = opened(text)
    expect(page.locator(".note", has_text="are not in this file")).to_contain_text("40,001 rows of 50,001")
    page.locator("#words").fill("step 49999")
    expect(page.locator("#hits")).to_have_text("1 of 10,000 rows")
    expect(page.locator(".row", has_text="step 49999")).to_be_visible()
