"""Sessions that nobody drew on purpose: deep, long, in other scripts, with many commands."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.stage import NOW, Stage
from tests.notebook.samples import chain, live_status, ns, step
from wsmonitor.notebook.view import View
from wsmonitor.protocol.entities import Argument, CommandSpec, Entity, Failure, Producer, Session

pytestmark = pytest.mark.browser

LONG = "Reconciliation_of_all_records_of_the_northern_warehouse_without_a_single_space_" * 4
BOXES = """() => [...document.querySelectorAll(".wsm-body .wsm-row")].map((row) => {
  const box = (name) => row.querySelector(name).getBoundingClientRect();
  const [cell, state, label] = [".wsm-name", ".wsm-cell-state", ".wsm-label"].map(box);
  const inside = [...row.querySelectorAll(".wsm-twist, .wsm-icon, .wsm-label, .wsm-chip:not([hidden])")]
    .every((el) => el.getBoundingClientRect().right <= cell.right + 1);
  const name = row.querySelector(".wsm-label").textContent;
  return { name, inside, apart: cell.right <= state.left + 1, label: Math.round(label.width) };
})"""
SCROLLED = """(view) => new Promise((done) => {
  view.addEventListener("scroll", done, { once: true });
  view.scrollTop = view.scrollHeight;
})"""


def rooms(page: Page) -> None:
    """Every row's name has room, and nothing of it lies over the next column."""
    found = page.evaluate(BOXES)
    assert len(found) > 4
    assert all(row["inside"] and row["apart"] for row in found), found
    assert all(row["label"] >= 25 for row in found if row["name"] != "c"), found


def showing(*entities: tuple[str, Entity], session: Session | None = None) -> View:
    session = session or Session(
        id="x~1", name="x", run=1, state="running", created=ns(0), started=ns(0), seq=1
    )
    view = View(session.name)
    view.connection(live_status(NOW), NOW)
    view.subscription("live", "", NOW)
    producer = Producer(id="p", agent="a", since=ns(0))
    view.replace([("session", session), ("producer", producer), *entities], "e", 9)
    return view


@pytest.mark.parametrize("width", [1100, 600, 380, 240])
def test_however_deep_or_long_every_row_has_room_for_its_name(page: Page, width: int) -> None:
    error = Failure(type="AnExceptionWithANameThatIsLongerThanTheColumnForIt", message="m " * 400)
    view = showing(
        ("chain", chain("c", "c", start=0)),
        ("step", step("bad", LONG, "failed", chain="c", start=0, end=1, error=error, key="k", attempt=2)),
        *(
            ("step", step(f"d{n}", f"level {n}", chain="c", parent=f"d{n - 1}" if n else "", start=1 + n))
            for n in range(200)
        ),
    )
    stage = Stage(page, width=width)
    stage.key(view)
    rooms(page)
    page.locator(".wsm-view").evaluate(SCROLLED)
    stage.pass_time(100)
    rooms(page)
    expect(stage.row("level 199")).to_be_visible()


@pytest.mark.parametrize("width", [600, 380])
def test_a_long_session_name_takes_two_lines_at_the_most(page: Page, width: int) -> None:
    session = Session(id="x~1", name=LONG, run=1, state="running", created=ns(0), started=ns(0), seq=1)
    stage = Stage(page, width=width)
    stage.key(showing(session=session))
    box = page.locator(".wsm-title").bounding_box()
    assert box is not None
    assert box["height"] <= 44


def test_a_name_that_is_written_from_the_right_loses_its_end_and_not_its_beginning(page: Page) -> None:
    name = "تحميل البيانات من المستودع الشمالي " * 6
    stage = Stage(page, width=600)
    stage.key(showing(("step", step("a", name, chain="", start=0))))
    label = page.locator(".wsm-body .wsm-label")
    assert label.evaluate("el => getComputedStyle(el).direction") == "rtl"
    assert label.evaluate("el => el.scrollWidth > el.clientWidth")


@pytest.mark.parametrize("width", [1100, 600, 380, 240])
def test_many_commands_leave_the_steps_their_room_and_can_all_be_reached(page: Page, width: int) -> None:
    specs = tuple(
        CommandSpec(name=f"command_{n}", targets=("session",), args=(Argument(name="a"),), destructive=n == 1)
        for n in range(40)
    )
    session = Session(
        id="x~1",
        name="x",
        run=1,
        state="running",
        created=ns(0),
        started=ns(0),
        seq=1,
        commands=specs,
    )
    steps = [("step", step(f"s{n}", f"step {n}", chain="", start=n)) for n in range(20)]
    stage = Stage(page, width=width)
    stage.key(showing(*steps, session=session))
    bar = page.locator(".wsm-commands").bounding_box()
    tree = page.locator(".wsm-view").bounding_box()
    assert bar is not None
    assert tree is not None
    assert bar["height"] <= 110
    assert tree["height"] >= 100
    last = page.locator(".wsm-command").last
    last.click()
    stage.pass_time(50)
    expect(page.locator(".wsm-confirm")).to_contain_text("Command 39")


@pytest.mark.parametrize("width", [1100, 600, 478])
def test_with_an_alarm_it_has_room_for_some_steps_the_commands_and_the_log(page: Page, width: int) -> None:
    commands = tuple(CommandSpec(name=name, targets=("session",)) for name in ("pause", "cancel"))
    session = Session(
        id="x~1", name="odd-run", run=1, state="running", created=ns(0), started=ns(0), commands=commands
    )
    error = Failure(type="ValueError", message="no price list for the north", traceback="T")
    steps = [step(f"s{n}", f"part {n}", "succeeded", chain="c", start=n, end=n + 1) for n in range(30)]
    bad = step("bad", "bad", "failed", chain="c", start=40, end=41, error=error)
    view = showing(*[("chain", chain("c", "load", start=0)), *(("step", one) for one in (*steps, bad))],
                   session=session)  # fmt: skip
    view.log(0, "good", "full state verified", "", "at seq 79")
    stage = Stage(page, width=width)
    stage.key(view)
    root = page.locator(".wsm").bounding_box()
    assert root is not None
    assert root["height"] <= 421
    for part in (".wsm-alarm", ".wsm-commands", ".wsm-log"):
        box = page.locator(part).bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= root["y"] + root["height"] + 1, part
    seen = page.locator(".wsm-view").bounding_box()
    assert seen is not None
    assert seen["height"] >= 100


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (0, ""),
        (130 + 3 * 3600, "lie 3 h ahead of the server's clock"),
        (-3 * 3600, "lie 3 h before the session's own"),
    ],
)
def test_clocks_that_are_hours_apart_are_told(page: Page, start: int, words: str) -> None:
    view = showing(
        ("chain", chain("c", "c", start=1)),
        ("step", step("a", "a", "succeeded", chain="c", start=2, end=3)),
        ("step", step("b", "b", "succeeded", chain="c", start=start, end=start + 5)),
    )
    stage = Stage(page)
    stage.key(view)
    note = page.locator(".wsm-skew")
    if words:
        expect(note).to_contain_text(f"Clocks differ: some times {words}")
    else:
        expect(stage.row("b")).to_be_visible()
        expect(note).to_be_hidden()
