"""Steps and events as DataFrames, and the chronicle that the events come from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import wsmonitor as wm
from tests.notebook.samples import T0, nightly, ns
from wsmonitor.notebook.chronicle import EVENT_COLUMNS, Chronicle, Entry, entry
from wsmonitor.notebook.snapshot import COLUMNS
from wsmonitor.notebook.tables import events_frame
from wsmonitor.protocol.codec import encode_record
from wsmonitor.protocol.entities import Command, Failure, Problem, Producer, Step
from wsmonitor.protocol.messages import Event
from wsmonitor_server.embedded import EmbeddedServer

pd = pytest.importorskip("pandas", reason="pandas is not installed: it is in the extra `test`")


def event(seq: int, kind: str, entity: Any) -> Event:
    return Event(topic="x~1", epoch="e", seq=seq, ts=ns(seq), kind=kind, entity=encode_record(entity))


def told(kind: str, entity: Any) -> Entry:
    return entry(event(1, kind, entity), entity)


def test_each_kind_of_event_says_what_it_is_about() -> None:
    error = Failure(type="builtins.KeyError", message="'x'")
    step = Step(id="s", chain="c", name="read", state="failed", attempt=2, error=error)
    assert told("step", step)[2:8] == ("step", "s", "read", "failed", 2, "KeyError: 'x'")
    command = Command(id="0" * 32, name="pause", state="rejected", reason="busy", deadline="1", requested="1")
    assert told("command", command)[3:8] == ("0" * 32, "pause", "rejected", None, "busy")
    assert told("producer", Producer(id="p", agent="a.py", since="1", liveness="lost"))[4:6] == (
        "a.py",
        "lost",
    )
    assert told("producer", Producer(id="p", agent="a.py", since="1", closed=True))[5] == "closed"
    problem = Problem(id="e", code="skipped", message="12\nchanges", at="1")
    assert told("error", problem)[4:8] == ("skipped", "error", None, "12 changes")


def test_what_the_server_kept_fills_in_and_nothing_is_told_twice() -> None:
    steps = [Step(id=f"s{n}", chain="c", name=f"step {n}", state="running") for n in range(6)]
    events = [event(n, "step", steps[n]) for n in range(1, 6)]
    chronicle = Chronicle()
    chronicle.link(round((T0 + 2.5) * 1000), "connection", "live", "")
    chronicle.replayed([events[2]])
    chronicle.applied(events[3], steps[4])
    found = chronicle.entries(events)
    assert [(one.seq, one.kind, one.replayed) for one in found] == [
        (1, "step", True), (2, "step", True), (None, "connection", False),
        (3, "step", True), (4, "step", False), (5, "step", True),
    ]  # fmt: skip


def test_a_record_that_cannot_be_read_is_told_all_the_same() -> None:
    unfit = encode_record(Problem(id="e", code="c", message="m", at="1"))
    odd = Event(topic="x", epoch="e", seq=1, ts=ns(1), kind="step", entity=unfit)
    later = Event(topic="x", epoch="e", seq=2, ts=ns(2), kind="whim", entity=unfit)
    chronicle = Chronicle()
    chronicle.replayed([odd, later])
    assert [(one.seq, one.kind, one.name) for one in chronicle.entries()] == [
        (1, "step", ""),
        (2, "whim", ""),
    ]


def steps_of() -> list[Step]:
    return [entity for kind, entity in nightly() if isinstance(entity, Step)]


def test_the_oldest_go_first_and_another_run_begins_anew() -> None:
    chronicle = Chronicle(limit=3)
    for n, step in enumerate(steps_of()[:5], 1):
        chronicle.applied(event(n, "step", step), step)
    assert [one.seq for one in chronicle.entries()] == [3, 4, 5]
    chronicle.link(1, "connection", "waiting", "refused")
    chronicle.restart()
    assert [one.kind for one in chronicle.entries()] == ["connection"]


@pytest.mark.parametrize("count", [0, 3])
def test_columns_and_types_are_the_same_whether_there_is_something_or_not(count: int) -> None:
    step = steps_of()[0]
    frame = events_frame([entry(event(n + 1, "step", step), step) for n in range(count)])
    assert tuple(frame.columns) == EVENT_COLUMNS
    assert {name: str(kind) for name, kind in frame.dtypes.items() if str(kind) != "object"} == {
        "time": "datetime64[ns, UTC]", "seq": "Int64", "attempt": "Int64", "replayed": "bool",
    }  # fmt: skip
    assert len(frame) == count


@pytest.fixture
def place() -> Iterator[dict[str, str]]:
    with EmbeddedServer.in_thread() as server:
        yield {"url": server.url, "token": server.token(sub="ada", role="admin")}


def test_of_a_session_that_has_ended_before_it_was_watched(place: dict[str, str]) -> None:
    with wm.session("words", **place) as session, session.chain("count") as chain, chain.step("one"):
        pass
    first = wm.watch(session, **place)
    first.wait(30)
    first.close()
    observer = wm.watch(session, **place)
    try:
        observer.wait(30)
        events, steps = observer.to_frame("events"), observer.to_frame()
    finally:
        observer.close()
    ended = events[(events["kind"] == "step") & (events["name"] == "one") & (events["state"] == "succeeded")]
    assert len(ended) == 1
    own = events.dropna(subset=["seq"])
    assert own["seq"].tolist() == list(range(1, len(own) + 1)), "from the first on, none twice"
    # What `first` has seen the end of. That the program said goodbye may be told later, and then comes live.
    over = own[(own["kind"] == "session") & (own["state"] == "succeeded")]["seq"].max()
    assert own[own["seq"] <= over]["replayed"].all()
    assert over >= ended["seq"].max()
    assert {"connection", "sync"} <= set(events["kind"])
    assert str(events["time"].dt.tz) == "UTC"
    assert tuple(steps.columns) == COLUMNS
    kinds = {name: str(steps[name].dtype) for name in ("attempt", "seconds", "started", "total")}
    time = "datetime64[ns, UTC]"
    assert kinds == {"attempt": "int64", "seconds": "float64", "started": time, "total": "float64"}


def test_without_a_session_the_events_are_those_of_the_link(place: dict[str, str]) -> None:
    observer = wm.watch("nobody", **place)
    try:
        frame = observer.to_frame("events")
        assert tuple(frame.columns) == EVENT_COLUMNS
        assert frame["seq"].isna().all()
        with pytest.raises(wm.UsageError, match='"steps" or "events", not \'chains\''):
            observer.to_frame("chains")  # type: ignore[arg-type]
    finally:
        observer.close()
