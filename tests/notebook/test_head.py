"""The head of a frame: why one may not command, which commands and alarms are shown, how it stays small."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tests.client.test_link import welcome
from tests.notebook.samples import T0, chain, live_status, ns, step
from wsmonitor.client.types import ConnectionStatus
from wsmonitor.notebook.head import (
    ALARM_LIMIT,
    ASKED_LIMIT,
    HEAD_BYTES,
    alarms,
    asked,
    bounded,
    link_head,
    may_not,
    metrics_head,
    offers,
    producers_head,
    session_head,
    state_words,
)
from wsmonitor.notebook.rows import Rows
from wsmonitor.notebook.view import Now, View
from wsmonitor.protocol.entities import (
    Argument,
    Command,
    CommandSpec,
    Entity,
    Failure,
    Problem,
    Producer,
    Progress,
    Session,
)

NOW = Now(1000.0, T0 + 134)
LIVE = live_status(NOW)
RUNNING = Session(id="s", name="job", state="running", commands=(CommandSpec(name="pause"),))


def as_role(role: str) -> ConnectionStatus:
    return replace(LIVE, welcome=welcome(role=role))


@pytest.mark.parametrize(
    ("status", "phase", "session", "why"),
    [
        (
            as_role("observe"),
            "live",
            RUNNING,
            "your token has the role 'observe': commanding needs 'command'",
        ),
        (as_role("admin"), "live", RUNNING, ""),
        (LIVE, "live", RUNNING, ""),
        (replace(LIVE, phase="failed"), "waiting", RUNNING, "there is no link to the server"),
        (replace(LIVE, phase="waiting"), "waiting", RUNNING, "the link to the server is down"),
        (LIVE, "not_available", RUNNING, "the session is not available"),
        (LIVE, "absent", None, "there is no session yet"),
        (LIVE, "syncing", RUNNING, "the state is being verified"),
        (LIVE, "live", msgspec.structs.replace(RUNNING, state="failed"), "the session has ended"),
        (LIVE, "live", msgspec.structs.replace(RUNNING, commands=()), "this session takes no commands"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_who_cannot_command_is_told_why(
    status: ConnectionStatus, phase: str, session: Session | None, why: str
) -> None:
    assert may_not(status, phase, session) == why


def test_a_session_has_its_progress_if_it_tells_any() -> None:
    assert "done" not in session_head(RUNNING)
    counting = msgspec.structs.replace(RUNNING, progress=Progress(done=3, total=None, unit="rows\nread"))
    head = session_head(counting)
    assert (head["done"], head["total"], head["unit"]) == (3, None, "rows read")


def test_a_session_that_has_not_started_begins_when_it_was_made() -> None:
    made = msgspec.structs.replace(RUNNING, created=ns(1))
    assert session_head(made)["start"] == round((T0 + 1) * 1000)
    started = msgspec.structs.replace(made, started=ns(2))
    assert session_head(started)["start"] == round((T0 + 2) * 1000)


def test_what_a_token_covers_is_told_unless_it_is_everything() -> None:
    def covers(*patterns: str) -> Any:
        status = replace(LIVE, welcome=welcome(sessions=patterns, quiet_after=4.5))
        head = link_head(status, lambda mono: None)
        assert head["quiet"] == 4500
        return head["covers"]

    assert covers("*") == []
    assert covers("etl*", "train") == ["etl*", "train"]
    assert link_head(ConnectionStatus(), lambda mono: None)["covers"] == []


def test_open_producers_come_first_and_metrics_only_with_a_session() -> None:
    producers = [
        Producer(id="a", since=ns(0), closed=True),
        Producer(id="b", since=ns(0)),
    ]
    assert [one["id"] for one in producers_head(producers)] == ["b", "a"]
    assert metrics_head(None) == {}
    assert metrics_head(msgspec.structs.replace(RUNNING, metrics={"lo\nss": 0.5})) == {"lo ss": 0.5}


def test_what_a_session_offers_is_told_with_its_arguments() -> None:
    assert offers(None) == []
    spec = CommandSpec(
        name="retry",
        targets=("step",),
        args=(Argument(name="how", required=True, choices=("now", "la\nter"), description="when\nto"),),
        destructive=True,
        description="once\nmore",
    )
    assert offers(msgspec.structs.replace(RUNNING, commands=(spec,))) == [
        {
            "name": "retry",
            "targets": ["step"],
            "args": [
                {
                    "name": "how",
                    "type": "string",
                    "required": True,
                    "choices": ["now", "la ter"],
                    "description": "when to",
                }
            ],
            "destructive": True,
            "description": "once more",
        }
    ]


def command(n: int, **fields: Any) -> Command:
    return Command(**{"id": f"{n:032x}", "name": "pause", "deadline": ns(99), "requested": ns(n), **fields})


def test_commands_name_what_they_are_for_as_far_as_it_is_known() -> None:
    rows = Rows()
    rows.put(chain("c", "load"))
    rows.put(step("a", "fetch", "failed", chain="c", key="k"))
    rows.put(step("b", "fetch again", chain="c", key="k", attempt=2))
    given = [
        command(1),
        command(2, chain="c"),
        command(3, chain="unknown"),
        command(
            4,
            step="a",
            ended=f"{int(ns(4)) + 250_000_000}",
            actor="ada",
            via="lab",
            reason="no\nuse",
            state="rejected",
        ),
        command(5, step="nowhere"),
    ]
    found = asked(given, rows, RUNNING)
    assert [(one["row"], one["target"]) for one in found] == [
        ("", "nowhere"),
        ("s:a", "fetch again"),
        ("", "unknown"),
        ("c:c", "load"),
        ("", "job"),
    ]
    assert asked(given[:1], rows, None)[0]["target"] == ""
    record = found[1]
    assert (record["who"], record["via"], record["reason"]) == ("ada", "lab", "no use")
    assert (record["state"], record["took"], found[0]["took"]) == ("rejected", 250, None)


def test_of_many_commands_the_newest_are_told_the_newest_first() -> None:
    found = asked([command(n) for n in range(100)], Rows(), RUNNING)
    assert [int(one["id"], 16) for one in found] == list(range(99, 99 - ASKED_LIMIT, -1))


def test_problems_beyond_the_limit_are_counted_and_warnings_are_none() -> None:
    problems = [Problem(id=str(n), code="c", message=f"m{n}", at=ns(n)) for n in range(5)]
    problems.insert(1, Problem(id="w", code="c", message="w", severity="warning", at=ns(1)))
    found, more = alarms(None, Rows(), problems)
    assert [alarm["text"] for alarm in found] == ["m0", "m1", "m2"]
    assert (len(found), more) == (ALARM_LIMIT, 2)


KEY_ERROR = Failure(type="x.KeyError", message="'k'")
DIED = msgspec.structs.replace(step("a", "n", "crashed", chain="c"), reason="its\nkernel died")
ASKS = msgspec.structs.replace(step("a", "n", "awaiting_input", chain="c", attempt=2), reason="which\nfile?")


@pytest.mark.parametrize(
    ("entity", "tone", "text"),
    [
        (step("a", "n", "failed", chain="c", error=KEY_ERROR), "bad", "failed: KeyError: 'k'"),
        (DIED, "bad", "crashed: its kernel died"),
        (step("a", "n", "failed", chain="c"), "bad", "failed"),
        (ASKS, "plain", "awaiting input, attempt 2: which file?"),
        (step("a", "n", "succeeded", chain="c"), "plain", "succeeded"),
        (Session(id="s", name="s", state="succeeded"), "good", "succeeded"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_change_of_state_in_words(entity: Any, tone: str, text: str) -> None:
    assert state_words(entity) == (tone, text)


def crowded(*, looked: int, names: int, offered: int, tracebacks: int) -> View:
    """A view with texts as long as the protocol lets them be."""
    view = View("x")
    choices = tuple("é" * 256 for _ in range(30))
    specs = tuple(
        CommandSpec(
            name=f"c{n}",
            description="d" * 4096,
            args=tuple(Argument(name=f"a{k}", choices=choices, description="d" * 500) for k in range(12)),
        )
        for n in range(offered)
    )
    status = ConnectionStatus(phase="live", url="u" * 400, looked=("é" * 400,) * looked, connections=1)
    view.connection(status, NOW)
    view.presence(names, tuple(f"{n}" + "é" * 100 for n in range(names)))
    failure = Failure(type="E", message="m", traceback="é" * tracebacks)
    entities: list[tuple[str, Entity]] = [
        (
            "session",
            msgspec.structs.replace(RUNNING, commands=specs, metrics={f"m{n}": n for n in range(64)}),
        ),
        *(("producer", Producer(id=f"p{n}", agent="é" * 256, since=ns(0))) for n in range(20)),
        *(("step", step(f"s{n}", "n", "failed", chain="c", error=failure)) for n in range(3)),
        *(("command", command(n, actor="é" * 256, via="é" * 128, reason="é" * 4096)) for n in range(20)),
    ]
    view.replace(entities, "e", 1)
    return view


def test_a_head_that_is_not_too_large_is_told_in_full() -> None:
    head = crowded(looked=1, names=5, offered=0, tracebacks=10).head(NOW)
    assert bounded(head) is head


def test_a_head_that_is_too_large_loses_the_long_tails_first() -> None:
    head = crowded(looked=12, names=50, offered=0, tracebacks=20_000).head(NOW)
    assert len(msgspec.json.encode(head)) > HEAD_BYTES
    told = bounded(head)
    assert len(msgspec.json.encode(told)) <= HEAD_BYTES
    assert {len(alarm["detail"]) for alarm in told["alarms"]} == {2000}
    assert (len(told["asked"]), len(told["producers"]), len(told["metrics"])) == (6, 6, 16)
    assert told["watching"]["count"] == 50
    assert len(told["watching"]["names"]) == 10
    assert told["link"] == head["link"], "and what is not so long stays"
    assert told["alarms_more"] == 0


def test_a_head_that_is_far_too_large_still_says_what_is_wrong_and_can_be_asked() -> None:
    view = crowded(looked=12, names=50, offered=40, tracebacks=20_000)
    told = bounded(view.head(NOW))
    assert len(msgspec.json.encode(told)) <= HEAD_BYTES
    assert [offer["name"] for offer in told["offers"]] == [f"c{n}" for n in range(8)]
    assert all(offer["args"] == [] for offer in told["offers"])
    assert [alarm["detail"] for alarm in told["alarms"]] == ["", ""]
    assert told["alarms_more"] == 1, "none is kept secret"
    assert (len(told["asked"]), len(told["producers"]), len(told["link"]["looked"])) == (3, 3, 3)


def test_that_nobody_has_told_who_watches_stays_so() -> None:
    head = crowded(looked=12, names=1, offered=40, tracebacks=20_000).head(NOW)
    assert bounded({**head, "watching": None})["watching"] is None
