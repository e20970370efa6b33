"""The event log in words, and the lines of ``watch --json``."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec

from tests.export.samples import etl, ns
from wsmonitor.cli import lines
from wsmonitor.cli.story import Story
from wsmonitor.client.types import (
    ConnectionStatus,
    EventApplied,
    EventsReplayed,
    GapFound,
    PhaseChanged,
    PresenceChanged,
    SyncCompleted,
    SyncStarted,
)
from wsmonitor.protocol.codec import encode_record
from wsmonitor.protocol.entities import (
    KIND_OF,
    Chain,
    Command,
    Entity,
    Failure,
    Problem,
    Producer,
    Progress,
    Session,
    Step,
)
from wsmonitor.protocol.messages import Degraded, Event

WALL = int(ns(200))


def event(entity: Entity, seq: int = 1, note: str = "") -> Event:
    kind, raw = KIND_OF[type(entity)], encode_record(entity)
    return Event(topic="s", epoch="e", seq=seq, ts=ns(seq), kind=kind, entity=raw, note=note)


def applied(entity: Entity, **more: Any) -> EventApplied:
    return EventApplied(event(entity, **more), entity)


def told(story: Story, *updates: Any) -> list[str]:
    return [f"{line.where} {line.text}".strip() for update in updates for line in story.update(update, WALL)]


def test_a_line_for_each_change_of_state_and_none_for_progress() -> None:
    story = Story()
    step = Step(id="s", chain="c", name="read", state="running", started=ns(0))
    further = msgspec.structs.replace(step, progress=Progress(done=1))
    done = msgspec.structs.replace(step, state="succeeded", ended=ns(2))
    chain = Chain(id="c", name="load", state="running")
    assert told(story, applied(chain), applied(step), applied(further), applied(done)) == [
        "chain load running",
        "load / read running",
        "load / read succeeded in 2.0 s",
    ]


def test_what_a_sync_brought_is_not_told_as_news() -> None:
    story = Story()
    state = etl()
    story.seen(state)
    assert told(story, applied(state.steps["s5"])) == []
    failed = msgspec.structs.replace(
        state.steps["s5"], state="failed", error=Failure(type="a.B", message="boom")
    )
    assert told(story, applied(failed)) == ["features / window 90d failed: B: boom"]


def test_commands_producers_and_errors_have_words() -> None:
    command = Command(
        id="0" * 32, name="pause", actor="alice", via="terminal", deadline=ns(1), requested=ns(0)
    )
    rejected = msgspec.structs.replace(command, state="rejected", reason="not now")
    producer = Producer(id="p", agent="etl.py", since=ns(0))
    lost = msgspec.structs.replace(producer, liveness="lost")
    gone = msgspec.structs.replace(lost, closed=True)
    problem = Problem(id="x", code="skipped", message="12 changes were dropped", at=ns(0))
    assert told(Story(), *map(applied, (command, rejected, producer, lost, gone, problem))) == [
        "command pause requested by alice via terminal",
        "command pause rejected: not now",
        "producer etl.py is heard",
        "producer etl.py is lost",
        "producer etl.py said goodbye",
        "skipped 12 changes were dropped",
    ]


def test_what_was_missed_is_told_once_and_marked() -> None:
    story = Story()
    step = Step(id="s", chain="c", name="read", state="running")
    assert told(story, EventsReplayed((event(step),))) == [
        "1 missed event added to the log",
        "c / read running · missed",
    ]
    assert "can no longer be had" in told(story, GapFound(3, 9))[0]


def test_a_reset_and_a_resync_are_visible() -> None:
    assert told(Story(), SyncCompleted("e", 5, None, "")) == []
    assert told(Story(), SyncCompleted("e", 5, ("e", 3), "")) == ["full state verified at event 5"]
    assert told(Story(), SyncCompleted("f", 5, ("e", 9), "epoch"))[0].startswith(
        "the server began a new history"
    )


def test_the_notes_of_the_server_are_told() -> None:
    session = Session(id="s", name="etl", state="running")
    assert told(Story(), applied(session, note="crashed was superseded")) == [
        "etl running (crashed was superseded)"
    ]


def test_the_connections_story() -> None:
    story = Story()
    live = ConnectionStatus(phase="live", url="ws://h:1", connections=1)
    lost = ConnectionStatus(
        phase="waiting", reason="no frame for 35 s", code="connection_lost", next_attempt_at=101.0,
        lost_at=99.5, connections=1,
    )  # fmt: skip
    again = ConnectionStatus(phase="connecting", connections=1, lost_at=99.5)
    failed = ConnectionStatus(
        phase="waiting", attempt=1, reason="connection refused", next_attempt_at=104.0,
        lost_at=99.5, connections=1,
    )  # fmt: skip
    back = ConnectionStatus(phase="live", connections=2)
    degraded = replace(back, degraded=Degraded(code="read_only", reason="the disk is full", since="1"))
    seen = [
        line.text
        for status, now in (
            (live, 90.0),
            (lost, 100.0),
            (again, 101.0),
            (failed, 102.0),
            (again, 104.0),
            (back, 107.5),
            (degraded, 108.0),
            (back, 109.0),
            (lost, 110.0),
            (degraded, 111.0),
        )
        for line in story.status(status, now, WALL)
    ]
    assert seen == [
        "connected to ws://h:1",
        "connection lost: no frame for 35 s [connection_lost]; next in 1 s",
        "attempt 1 failed: connection refused; next in 2 s",
        "reconnected after 8.0 s",
        "the server takes no changes: the disk is full",
        "the server takes changes again",
        "connection lost: no frame for 35 s [connection_lost]; next in 0 s",
        "reconnected after 12 s",
        "the server takes no changes: the disk is full",
    ]
    assert lines.connection(degraded, 111.0, WALL)["degraded"] == {
        "code": "read_only",
        "reason": "the disk is full",
        "since": "1",
    }


# -- watch --json


def test_an_event_line_holds_the_whole_record() -> None:
    step = Step(id="s", chain="c", name="read", state="running")
    (line,) = lines.updates("s~1", applied(step, seq=7), WALL)
    again = json.loads(lines.text(line))
    assert "\n" not in lines.text(line)
    assert (again["type"], again["session"], again["epoch"], again["seq"]) == ("event", "s~1", "e", 7)
    assert again["replayed"] is False
    assert again["entity"]["attempt"] == 1
    assert msgspec.convert(again["entity"], Step) == step


def test_missed_events_are_marked_replayed() -> None:
    step = Step(id="s", chain="c", name="read")
    replayed = EventsReplayed((event(step, seq=3), event(step, seq=4)))
    assert [(line["seq"], line["replayed"]) for line in lines.updates("s", replayed, WALL)] == [
        (3, True),
        (4, True),
    ]


def test_an_entity_of_a_later_version_is_passed_on_as_it_came() -> None:
    strange = Event(
        topic="s", epoch="e", seq=1, ts="1", kind="dream", entity=msgspec.Raw(b'{"id":"d","depth":3}')
    )
    (line,) = lines.updates("s", EventApplied(strange, None), WALL)
    assert line["entity"] == {"id": "d", "depth": 3}


def test_the_other_lines() -> None:
    def only(update: Any) -> dict[str, Any]:
        (line,) = lines.updates("s", update, WALL)
        return line

    assert only(GapFound(3, 9))["last"] == 9
    assert only(PhaseChanged("absent"))["phase"] == "absent"
    assert only(PresenceChanged(2, ("a", "b")))["names"] == ["a", "b"]
    assert list(lines.updates("s", SyncStarted(4), WALL)) == []
    synced = lines.synced("s", etl(), SyncCompleted("7f3a", 40, ("7f3a", 1), ""), WALL)
    assert synced["digest"] == etl().digest
    assert len(synced["entities"]) == len(etl())
    waiting = ConnectionStatus(
        phase="waiting", attempt=2, next_attempt_at=104.0, lost_at=98.0, code="draining"
    )
    line = lines.connection(waiting, 100.0, WALL)
    assert (line["phase"], line["attempt"], line["next_attempt_in"], line["lost_for"]) == (
        "waiting",
        2,
        4.0,
        2.0,
    )
