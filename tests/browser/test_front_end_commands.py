"""The command bar: what is offered, what is asked back, what becomes of each command."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from playwright.sync_api import Locator, Page, expect

from tests.browser.stage import NOW, Stage
from tests.notebook.samples import live_status, lost_status, nightly, ns, sample_view
from wsmonitor.notebook.view import Frame, View
from wsmonitor.protocol.entities import Argument, Command, CommandSpec, Session, Step
from wsmonitor.protocol.states import State

pytestmark = pytest.mark.browser

SPECS = (
    CommandSpec(name="pause", targets=("session", "chain", "step"), description="Wait at the next point."),
    CommandSpec(name="resume", targets=("session", "chain", "step")),
    CommandSpec(name="cancel", targets=("session", "chain", "step"), destructive=True),
    CommandSpec(name="retry", targets=("step",)),
    CommandSpec(
        name="set_rate",
        args=(
            Argument(name="rate", type="number", required=True, description="rows per second"),
            Argument(name="count", type="integer"),
            Argument(name="mode", choices=("fast", "slow")),
            Argument(name="dry", type="boolean"),
        ),
    ),
)


def offering(*commands: Command, state: State = "running", ended: str = "") -> View:
    """The sample, whose session takes commands, and "check drift" a retry."""
    view = sample_view(NOW)
    made: list[tuple[str, Any]] = []
    for kind, entity in nightly():
        if isinstance(entity, Session):
            entity = replace(entity, commands=SPECS, state=state, ended=ended)
        if isinstance(entity, Step) and entity.id == "drift":
            entity = replace(entity, commands=("retry",))
        made.append((kind, entity))
    view.replace([*made, *(("command", command) for command in commands)], "epoch", 1161)
    return view


def record(**more: Any) -> Frame:
    told = dict.fromkeys(("row", "who", "via", "reason"), "") | {"id": "r", "name": "pause", "took": None}
    return {**told, "target": "nightly-etl", "state": "requested", "at": NOW.at(), **more}


def names(page: Page) -> Locator:
    return page.locator(".wsm-command")


def test_only_what_is_offered_and_taken_can_be_pressed(page: Page) -> None:
    stage, view = Stage(page), offering()
    stage.key(view)
    expect(names(page)).to_have_text(["❚❚ Pause", "■ Cancel nightly-etl…", "› Set rate…"])
    stage.row("check drift").click()
    stage.pass_time(50)
    expect(names(page)).to_have_text(
        ["❚❚ Pause", "■ Cancel nightly-etl…", "› Set rate…", "↻ Retry check drift"]
    )
    stage.row("features").click()
    stage.pass_time(50)
    expect(names(page).filter(has_text="features")).to_have_text(["❚❚ Pause features", "■ Cancel features…"])
    stage.row("read manifest").click()
    stage.pass_time(50)
    expect(names(page)).to_have_count(3)
    view = offering(state="paused")
    view.number = 5
    stage.key(view)
    expect(names(page).first).to_have_text("▶ Resume")


def test_the_bar_is_there_only_with_something_in_it(page: Page) -> None:
    """A recorded notebook takes commands for running cells alone: nothing chosen, nothing to show."""
    view = sample_view(NOW)
    cells = (CommandSpec(name="interrupt", targets=("step",)),)
    made: list[tuple[str, Any]] = []
    for kind, entity in nightly():
        if isinstance(entity, Session):
            entity = replace(entity, commands=cells)
        if isinstance(entity, Step) and entity.id == "drift":
            entity = replace(entity, commands=("interrupt",))
        made.append((kind, entity))
    view.replace(made, "epoch", 1161)
    stage = Stage(page)
    stage.key(view)
    expect(stage.row("check drift")).to_be_visible()
    expect(page.locator(".wsm-commands")).to_be_hidden()
    stage.row("read manifest").click()
    stage.pass_time(50)
    expect(page.locator(".wsm-commands")).to_be_hidden()
    stage.row("check drift").click()
    stage.pass_time(50)
    expect(names(page)).to_have_text(["■ Interrupt check drift"])
    stage.row("read manifest").click()
    stage.pass_time(50)
    # What was there keeps its place, and says why it is empty.
    expect(names(page)).to_have_count(0)
    expect(page.locator(".wsm-command-reason")).to_have_text("no command fits now")


def test_a_command_is_sent_once_shown_at_once_and_followed_to_its_end(page: Page) -> None:
    stage, view = Stage(page), offering()
    stage.key(view)
    names(page).first.click()
    stage.pass_time(50)
    line = page.locator(".wsm-command-record")
    expect(line).to_contain_text("pause nightly-etl · from here · sending")
    (request,) = stage.asked("command")
    assert (request["name"], request["row"], request["args"]) == ("pause", "", {})
    stage.pass_time(700)
    expect(line).to_contain_text("queued: kernel busy")
    stage.answer("command", command=record(id=request["id"]))
    expect(line).to_contain_text("requested")
    command = Command(
        id=request["id"],
        name="pause",
        state="applied",
        actor="ada",
        via="notebook",
        deadline=ns(200),
        requested=ns(134),
        ended=ns(134.212),
    )
    view._store("command", command)
    stage.message(view.frame(NOW), view)
    expect(line).to_contain_text("pause nightly-etl · from here · applied")
    expect(line).to_contain_text("in 212 ms")
    line.click()
    stage.pass_time(50)
    expect(page.locator(".wsm-command-list li")).to_have_count(1)


def test_a_refusal_is_told_in_words(page: Page) -> None:
    stage, view = Stage(page), offering()
    stage.key(view)
    names(page).first.click()
    stage.pass_time(50)
    stage.answer("command", ok=False, code="forbidden", text="your token does not allow this")
    expect(page.locator(".wsm-command-record")).to_contain_text("failed")
    expect(page.locator(".wsm-command-record")).to_contain_text("your token does not allow this")


def test_what_destroys_names_its_target_and_asks(page: Page) -> None:
    stage, view = Stage(page), offering()
    stage.key(view)
    cancel = names(page).filter(has_text="Cancel")
    cancel.click()
    stage.pass_time(50)
    asked = page.locator(".wsm-confirm")
    expect(asked).to_contain_text("Cancel nightly-etl? This cannot be taken back.")
    page.keyboard.press("Escape")
    stage.pass_time(50)
    expect(asked).to_have_count(0)
    expect(cancel).to_be_focused()
    cancel.click()
    stage.pass_time(50)
    asked.get_by_role("button", name="No, leave it").click()
    assert stage.asked("command") == []
    cancel.click()
    stage.pass_time(50)
    asked.get_by_role("button", name="Yes, cancel nightly-etl").click()
    stage.pass_time(50)
    assert [request["name"] for request in stage.asked("command")] == ["cancel"]
    expect(asked).to_have_count(0)


def test_arguments_are_asked_for_by_their_types(page: Page) -> None:
    stage, view = Stage(page), offering()
    stage.key(view)
    names(page).filter(has_text="Set rate").click()
    stage.pass_time(50)
    asked = page.locator(".wsm-confirm")
    send = asked.get_by_role("button", name="Set rate")
    send.click()
    expect(asked).to_contain_text("needed")
    asked.get_by_label("Rate (required)").fill("quick")
    send.click()
    expect(asked).to_contain_text("a number, please")
    asked.get_by_label("Rate (required)").fill("2.5")
    asked.get_by_label("Count").fill("1.5")
    send.click()
    expect(asked).to_contain_text("a whole number, please")
    assert stage.asked("command") == []
    asked.get_by_label("Count").fill("12")
    asked.get_by_label("Mode").select_option("slow")
    asked.get_by_label("Dry").select_option("no")
    send.click()
    stage.pass_time(50)
    assert stage.asked("command")[0]["args"] == {"rate": 2.5, "count": 12, "mode": "slow", "dry": False}


def test_without_the_link_or_the_right_nothing_can_be_pressed_and_the_reason_is_there(page: Page) -> None:
    stage, view = Stage(page), offering()
    stage.key(view)
    names(page).filter(has_text="Cancel").click()
    stage.pass_time(50)
    view.connection(lost_status(NOW), NOW)
    stage.message(view.frame(NOW), view)
    expect(page.locator(".wsm-confirm")).to_have_count(0)
    bar = page.locator(".wsm-commands")
    expect(bar).to_contain_text("commands wait until the link is back")
    assert names(page).evaluate_all("all => all.every(el => el.disabled)")
    view.connection(live_status(NOW), NOW)
    frame = view.frame(NOW)
    assert frame is not None
    frame["head"] = {**frame["head"], "may": "your token has the role 'observe': commanding needs 'command'"}
    stage.message(frame, view)
    expect(bar).to_contain_text("your token has the role 'observe'")
    assert names(page).evaluate_all("all => all.every(el => el.disabled)")


def test_after_the_end_there_is_nothing_to_press_but_the_records_stay(page: Page) -> None:
    times = {"deadline": ns(90), "requested": ns(52), "ended": ns(52.212)}
    done = Command(id="r1", name="resume", state="applied", actor="ada", via="notebook 2", **times)
    stage, view = Stage(page), offering(done, state="succeeded", ended=ns(130))
    stage.key(view)
    expect(names(page)).to_have_count(0)
    expect(page.locator(".wsm-command-record")).to_contain_text(
        "resume nightly-etl · from ada (notebook 2) · applied"
    )


def test_a_button_keeps_the_keyboard_when_the_bar_is_drawn_anew(page: Page) -> None:
    stage, view = Stage(page), offering()
    stage.key(view)
    stage.row("read manifest").click()
    names(page).filter(has_text="Cancel").focus()
    stage.pass_time(50)
    page.evaluate("document.activeElement.id = 'before'")
    drift = view.rows.newest("s:drift")
    assert drift is not None
    view.rows.put(replace(drift, name="another name"))
    view.replace(
        [(kind, replace(e, commands=SPECS[:3]) if isinstance(e, Session) else e) for kind, e in nightly()],
        "e",
        2,
    )
    stage.message(view.frame(NOW), view)
    expect(names(page)).to_have_count(2)
    expect(names(page).filter(has_text="Cancel")).to_be_focused()
