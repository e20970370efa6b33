"""The chronicle: one line for each thing that an observer was told, whatever its kind."""

from __future__ import annotations

import msgspec
import pytest

from wsmonitor.notebook.chronicle import EVENT_COLUMNS, Chronicle, entry, frame_columns, told_later
from wsmonitor.protocol.entities import (
    KIND_OF,
    Chain,
    Command,
    Entity,
    Failure,
    Listing,
    Problem,
    Producer,
    Session,
    Step,
)
from wsmonitor.protocol.messages import Event


def event(seq: int, entity: Entity | bytes, kind: str = "", ts: str = "5000000") -> Event:
    raw = entity if isinstance(entity, bytes) else msgspec.json.encode(entity)
    if not isinstance(entity, bytes):
        kind = kind or KIND_OF[type(entity)]
    return Event(topic="s", epoch="e", seq=seq, ts=ts, kind=kind, entity=msgspec.Raw(raw))


FAILURE = Failure(type="KeyError", message="'k'")
COMMAND = Command(id="0" * 32, name="pause", state="rejected", reason="not now", deadline="9", requested="1")


@pytest.mark.parametrize(
    ("entity", "name", "state", "attempt", "text"),
    [
        (Session(id="s", name="job", state="failed", error=FAILURE), "job", "failed", None, "KeyError: 'k'"),
        (Session(id="s", name="job", state="paused", reason="asked to"), "job", "paused", None, "asked to"),
        (Chain(id="c", name="load", state="running"), "load", "running", None, ""),
        (Step(id="a", chain="c", name="fit", attempt=2, error=FAILURE), "fit", "pending", 2, "KeyError: 'k'"),
        (Step(id="a", chain="c", name="fit", reason="waits", log_last="l"), "fit", "pending", 1, "waits"),
        (Step(id="a", chain="c", name="fit", log_last="epoch 1\nof 3"), "fit", "pending", 1, "epoch 1 of 3"),
        (COMMAND, "pause", "rejected", None, "not now"),
        (Producer(id="p", agent="etl.py", since="1", liveness="lost"), "etl.py", "lost", None, ""),
        (Producer(id="p", agent="etl.py", since="1", closed=True), "etl.py", "closed", None, ""),
        (
            Problem(id="q", code="spool_overflow", message="3 lost", severity="warning", at="1"),
            "spool_overflow",
            "warning",
            None,
            "3 lost",
        ),
        (Listing(id="s", name="job", state="failed", problem="KeyError"), "job", "failed", None, "KeyError"),
        (Listing(id="s", name="job", state="paused", reason="asked"), "job", "paused", None, "asked"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, msgspec.Struct) else None,
)
def test_each_kind_of_entity_has_its_line(
    entity: Entity, name: str, state: str, attempt: int | None, text: str
) -> None:
    told = event(7, entity)
    line = entry(told, entity)
    kind = KIND_OF[type(entity)]
    assert line == (5, 7, kind, entity.id, name, state, attempt, text, False)
    assert told_later(told) == line._replace(replayed=True), "read from history, it says the same"


@pytest.mark.parametrize(
    ("raw", "kind"),
    [(b'{"id":"x"}', "hologram"), (b'{"id":"a","name":7}', "step")],
    ids=["a kind that is not known here", "a record that cannot be read here"],
)
def test_what_a_later_version_tells_has_happened_all_the_same(raw: bytes, kind: str) -> None:
    assert told_later(event(3, raw, kind)) == (5, 3, kind, "", "", "", None, "", True)


def test_the_newest_entry_in_words() -> None:
    chronicle = Chronicle()
    assert chronicle.newest == ""
    chronicle.link(1, "connection", "live", "")
    assert chronicle.newest == "connection live"
    chronicle.link(2, "sync", "not_available", "it was\nremoved", "s")
    assert chronicle.newest == "sync not available: it was removed"
    step = Step(id="a", chain="c", name="fit", state="failed", error=FAILURE)
    chronicle.applied(event(1, step), step)
    assert chronicle.newest == "step fit failed: KeyError: 'k'"


def test_the_oldest_go_first_where_there_are_too_many() -> None:
    chronicle = Chronicle(limit=2)
    for at in range(3):
        chronicle.link(at, "connection", str(at), "")
    assert [one.state for one in chronicle.entries()] == ["1", "2"]


def test_another_run_begins_a_new_chronicle_of_the_same_link() -> None:
    chronicle = Chronicle()
    step = Step(id="a", chain="c", name="fit")
    chronicle.link(1, "connection", "live", "")
    chronicle.applied(event(1, step), step)
    chronicle.replayed([event(2, step)])
    chronicle.restart()
    assert [(one.kind, one.seq) for one in chronicle.entries()] == [("connection", None)]


def test_the_servers_history_fills_in_what_was_not_told_and_repeats_nothing() -> None:
    chronicle = Chronicle()
    step = Step(id="a", chain="c", name="fit")
    chronicle.link(6, "connection", "live", "")
    chronicle.applied(event(3, step, ts="7000000"), step)
    history = [event(1, step, ts="5000000"), event(2, step, ts="5000000"), event(3, step, ts="7000000")]
    entries = chronicle.entries(reversed(history))
    assert [(one.time, one.seq, one.replayed) for one in entries] == [
        (5, 1, True),
        (5, 2, True),
        (6, None, False),
        (7, 3, False),
    ]
    columns = frame_columns(entries)
    assert tuple(columns) == EVENT_COLUMNS
    assert columns["seq"] == [1, 2, None, 3]
