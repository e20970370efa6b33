"""Entities and link status become change sets: complete, minimal, and in words that are true."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from tests.notebook.samples import T0, chain, live_status, lost_status, nightly, ns, sample_view, step
from wsmonitor.client.types import ConnectionStatus
from wsmonitor.notebook.journal import LOG_LIMIT
from wsmonitor.notebook.rows import EARLIER, step_row
from wsmonitor.notebook.view import Frame, Now, View
from wsmonitor.protocol.entities import (
    PAUSES,
    Command,
    Entity,
    Failure,
    Listing,
    Problem,
    Producer,
    Session,
)
from wsmonitor.protocol.messages import Degraded, Event

NOW = Now(1000.0, T0 + 134)


def event(seq: int, kind: str, entity: Entity, drop: list[tuple[str, str]] | None = None) -> Event:
    return Event(
        topic="s",
        epoch="e",
        seq=seq,
        ts=ns(seq),
        kind=kind,
        entity=msgspec.Raw(msgspec.json.encode(entity)),
        drop=drop or [],
    )


def apply(view: View, seq: int, kind: str, entity: Entity, drop: list[tuple[str, str]] | None = None) -> None:
    view.applied(event(seq, kind, entity, drop), entity)


def rows_of(frame: Frame | None) -> dict[str, Any]:
    assert frame is not None
    return {row["id"]: row for row in frame.get("rows", [])}


def words(view: View) -> list[str]:
    return [" ".join(p for p in (e["what"], e["name"], e["text"]) if p) for e in view.key(NOW)["log"]]


def test_the_first_frame_has_everything_and_the_next_has_nothing() -> None:
    view = sample_view(NOW)
    first = view.frame(NOW)
    assert first is not None
    assert first["n"] == 1
    assert first["at"] == round((T0 + 134) * 1000)
    assert len(rows_of(first)) == 17
    assert first["head"]["counts"] == {"failed": 1, "pending": 2, "running": 2, "succeeded": 9}
    assert first["head"]["steps"] == 14
    assert view.frame(NOW) is None


def test_only_what_changed_is_in_a_frame() -> None:
    view = sample_view(NOW)
    view.frame(NOW)
    apply(
        view,
        1161,
        "step",
        step(
            "w90", "window 90d", "running", chain="features", parent="windows", start=107, done=49, total=100
        ),
    )
    frame = view.frame(NOW)
    assert list(rows_of(frame)) == ["s:w90"]
    assert rows_of(frame)["s:w90"]["done"] == 49
    assert frame is not None
    assert "log" not in frame, "progress is no news for the log"
    assert frame["head"]["sub"]["seq"] == 1161


def test_of_very_many_attempts_the_newest_have_bars_and_all_others_one() -> None:
    attempts = [
        step(f"a{n}", "flaky", "failed", chain="c", key="k", attempt=n, start=n, end=n + 0.5)
        for n in range(1, 301)
    ]
    bars = step_row(attempts)["bars"]
    assert len(bars) == 101
    assert bars[0] == [bars[0][0], bars[1][0], EARLIER]
    assert bars[1][0] - bars[0][0] == 200_000
    assert {bar[2] for bar in bars[1:]} == {"failed"}


def test_what_is_in_one_of_very_many_attempts_hangs_from_their_row() -> None:
    view = View("x")
    view.replace(
        [
            ("step", step(f"a{n}", "flaky", "failed", chain="c", key="k", attempt=n)) for n in range(1, 301)
        ] + [("step", step("in", "inside", chain="c", parent="a7"))], "e", 1,
    )  # fmt: skip
    rows = rows_of(view.frame(NOW))
    assert "s:a7" not in rows["s:a1"]["also"]
    assert rows["s:in"]["parent"] == "s:a1"


def test_attempts_of_one_step_are_one_row_with_its_bars() -> None:
    row = rows_of(sample_view(NOW).frame(NOW))["s:p1a"]
    assert (row["state"], row["attempt"], row["also"]) == ("succeeded", 2, ["s:p1b"])
    assert [bar[2] for bar in row["bars"]] == ["failed", "succeeded"]
    assert row["bars"][0][0] < row["bars"][0][1] < row["bars"][1][0]


def test_pauses_are_told_as_the_producer_tells_them_and_nonsense_is_left_out() -> None:
    for told, shown in [
        ([1000, 2000, 3000], [[1000, 2000], [3000, None]]),
        ([1000, 2000], [[1000, 2000]]),
        ([2000, 1000], None),
        (["x"], None),
        ("1000", None),
        ([True], None),
        (list(range(1, 101)), [[n, n + 1] for n in range(37, 100, 2)]),
    ]:
        view = View("x")
        paused = msgspec.structs.replace(step("s", "s", chain="c"), attributes={PAUSES: told})
        view.replace([("step", paused)], "e", 1)
        assert rows_of(view.frame(NOW))["s:s"].get("pauses") == shown, told


def test_a_later_attempt_may_be_known_before_the_first() -> None:
    view = View("x")
    apply(view, 1, "step", step("b", "fit", "running", chain="c", key="k", attempt=2, start=3))
    assert list(rows_of(view.frame(NOW))) == ["s:b"]
    apply(view, 2, "step", step("a", "fit", "failed", chain="c", key="k", attempt=1, start=1, end=2))
    row = rows_of(view.frame(NOW))["s:b"]
    assert (row["state"], row["attempt"], row["also"]) == ("running", 2, ["s:a"])
    assert [bar[2] for bar in row["bars"]] == ["failed", "running"]


def test_rows_tell_what_the_panes_need() -> None:
    view = View("x")
    broken = Failure(type="sqlite3.OperationalError", message="locked")
    full = msgspec.structs.replace(
        step("s", "s", "failed", chain="c", error=broken), log_count=7, commands=("retry",)
    )
    apply(view, 1, "step", full)
    frame = view.frame(NOW)
    row = rows_of(frame)["s:s"]
    assert (row["err"], row["logs"], row["cmds"]) == ("OperationalError", 7, ["retry"])
    assert frame is not None
    assert frame["log"][-1]["row"] == "s:s"


def test_the_same_key_and_attempt_twice_are_two_rows() -> None:
    view = View("x")
    view.replace(
        [("step", step("a", "fit", chain="c", key="fit")), ("step", step("b", "fit", chain="c", key="fit"))],
        "e",
        2,
    )
    assert list(rows_of(view.frame(NOW))) == ["s:a", "s:b"]


def test_a_failure_that_a_later_attempt_repaired_is_no_alarm() -> None:
    view = sample_view(NOW)
    head = view.head(NOW)
    assert [alarm["name"] for alarm in head["alarms"]] == ["check drift"]
    assert head["alarms"][0]["text"] == "failed: KeyError: 'segment'"
    assert head["alarms"][0]["where"] == "features / check drift"
    assert "check_drift" in head["alarms"][0]["detail"]
    apply(view, 1161, "step", step("drift2", "check drift", chain="features", start=113, end=114, attempt=2))
    assert view.head(NOW)["alarms"], "another step of that name repairs nothing"


def test_more_failures_than_are_shown_are_counted() -> None:
    view = View("x")
    bad = [("step", step(f"s{n}", f"s{n}", "failed", chain="c", start=n, end=n + 1)) for n in range(10)]
    view.replace(bad, "e", 10)
    head = view.head(NOW)
    assert [alarm["name"] for alarm in head["alarms"]] == ["s9", "s8", "s7"]
    assert head["alarms_more"] == 7


def test_children_may_come_before_their_parents() -> None:
    view = View("x")
    apply(view, 1, "step", step("child", "child", chain="c", parent="parent"))
    row = rows_of(view.frame(NOW))["s:child"]
    assert (row["parent"], row["chain"]) == ("s:parent", "c:c")


def test_a_new_replica_brings_only_what_is_different_and_takes_away_what_is_gone() -> None:
    view = sample_view(NOW)
    view.frame(NOW)
    entities = [(kind, entity) for kind, entity in nightly() if entity.id not in ("cross", "w90")]
    entities.append(
        ("step", step("w90", "window 90d", chain="features", parent="windows", start=107, end=120))
    )
    view.replace(entities, "epoch", 1200)
    frame = view.frame(NOW)
    assert list(rows_of(frame)) == ["s:w90"]
    assert frame is not None
    assert frame["gone"] == ["s:cross"]


def test_rows_beyond_the_limit_give_way_oldest_success_first() -> None:
    view = View("x", row_limit=3)
    view.replace([("chain", chain("c", "c")), ("step", step("bad", "bad", "failed", chain="c"))], "e", 2)
    for n in range(4):
        apply(view, 3 + n, "step", step(f"s{n}", f"s{n}", chain="c", start=n, end=n + 1))
        view.frame(NOW)
    assert [row["id"] for row in view.key(NOW)["rows"]] == ["c:c", "s:bad", "s:s3"]
    assert view.head(NOW)["steps"] == 5
    assert view.head(NOW)["counts"] == {"failed": 1, "succeeded": 4}


def test_dropped_entities_leave_rows_counts_and_alarms() -> None:
    view = sample_view(NOW)
    view.frame(NOW)
    apply(view, 1161, "chain", chain("train", "train"), drop=[("step", "drift"), ("step", "p1a")])
    frame = view.frame(NOW)
    assert frame is not None
    assert frame["gone"] == ["s:drift"]
    assert frame["head"]["alarms"] == []
    assert "failed" not in frame["head"]["counts"]


def test_the_log_tells_state_changes_once() -> None:
    view = View("x")
    for seq, state in enumerate(["running", "running", "failed"], 1):
        error = Failure(type="KeyError", message="'x'") if state == "failed" else None
        apply(view, seq, "step", step("a", "load", state, chain="c", error=error))
    assert words(view) == ["step load running", "step load failed: KeyError: 'x'"]
    assert [entry["tone"] for entry in view.key(NOW)["log"]] == ["plain", "bad"]


def test_the_log_is_bounded_and_its_numbers_go_on() -> None:
    view = View("x")
    for n in range(LOG_LIMIT + 50):
        view.log(n, "plain", "", "", str(n))
    log = view.key(NOW)["log"]
    assert len(log) == LOG_LIMIT
    assert log[-1]["n"] == LOG_LIMIT + 50


def test_loss_attempts_and_recovery_are_told_as_they_were() -> None:
    view = sample_view(NOW)
    lost = lost_status(NOW)
    view.connection(lost, NOW)
    later = Now(NOW.mono + 10, NOW.wall + 10)
    view.connection(live_status(later), later)
    view.replayed([event(1161, "step", step("w90", "window 90d", chain="features", start=107, end=120))])
    view.replace(nightly(), "epoch", 1161)
    view.synced("epoch", 1161, "", True, later)
    assert words(view)[-4:] == [
        "connection lost: connection refused; next in 6 s",
        "connected to ws://127.0.0.1:43117",
        "step window 90d succeeded",
        "reconnected after 54.0 s: full state verified at seq 1,161, 1 missed events added to this log",
    ]
    assert view.key(NOW)["log"][-2]["replayed"] is True


def test_a_reset_and_a_gap_are_visible() -> None:
    view = View("x")
    view.gap(3, 9, NOW)
    view.synced("new", 4, "epoch", True, NOW)
    assert "events 3 to 9 are no longer kept" in words(view)[0]
    assert words(view)[1] == "history starts anew: the server's history is another one"


def test_the_producer_is_apart_from_the_link() -> None:
    view = sample_view(NOW)
    apply(view, 1161, "producer", Producer(id="p1", agent="etl.py", since=ns(120), liveness="lost"))
    head = view.head(NOW)
    assert head["link"]["phase"] == "live"
    assert head["producers"] == [
        {
            "id": "p1",
            "agent": "etl.py",
            "liveness": "lost",
            "since": round((T0 + 120) * 1000),
            "closed": False,
        }
    ]
    assert words(view)[-1] == "producer etl.py is lost"


def test_times_are_on_the_servers_clock() -> None:
    view = View("x")
    view.connection(msgspec.structs.replace(_Offset(), offset=2.0).status(), NOW)
    assert view.beat(NOW)["last"] == round((NOW.wall + 2.0 - 3) * 1000)
    view.log(0, "plain", "", "", "x")
    frame = view.frame(NOW)
    assert frame is not None
    assert frame["at"] == round((NOW.wall + 2.0) * 1000)


class _Offset(msgspec.Struct):
    offset: float = 0.0

    def status(self) -> Any:
        return replace(live_status(NOW), clock_offset=self.offset)


def test_problems_and_a_failed_session_are_alarms() -> None:
    view = View("x")
    apply(
        view,
        1,
        "session",
        Session(
            id="s", name="s", state="failed", error=Failure(type="OSError", message="disk full"), ended=ns(3)
        ),
    )
    apply(view, 2, "error", Problem(id="q", code="spool_overflow", message="dropped 3 changes", at=ns(4)))
    apply(view, 3, "error", Problem(id="w", code="slow", message="slow", severity="warning", at=ns(4)))
    texts = [alarm["text"] for alarm in view.head(NOW)["alarms"]]
    assert texts == ["failed: OSError: disk full", "dropped 3 changes"]
    assert view.terminal


def test_a_key_frame_is_what_all_frames_add_up_to() -> None:
    view = View("x")
    rows: dict[str, Any] = {}
    for seq, (kind, entity) in enumerate(nightly(), 1):
        apply(view, seq, kind, entity)
        frame = view.frame(NOW)
        assert frame is not None
        rows.update(rows_of(frame))
        for gone in frame.get("gone", []):
            del rows[gone]
    key = view.key(NOW)
    assert {row["id"]: row for row in key["rows"]} == rows
    assert key["n"] == view.number


def test_a_failure_that_is_passed_on_is_one_alarm_that_leads_to_its_cause() -> None:
    view = View("x")
    cause = Failure(type="ValueError", message="no good", traceback="Traceback …")
    passed = Failure(type="ValueError", message="no good")
    other = Failure(type="KeyError", message="'k'", traceback="Traceback of another")
    view.replace(
        [
            ("session", Session(id="x~1", name="x", run=1, state="failed", ended=ns(9), error=passed)),
            ("chain", chain("c", "features", "failed", start=0, end=9)),
            ("step", step("o", "other", "failed", chain="c", start=0, end=1, error=other)),
            ("step", step("p", "means", "failed", chain="c", start=1, end=9, error=passed)),
            ("step", step("q", "part-2", "failed", chain="c", parent="p", start=2, end=9, error=cause)),
        ],
        "e",
        5,
    )
    first, second = (head := view.head(NOW))["alarms"]
    assert (first["name"], first["row"], first["detail"]) == ("x", "s:q", "Traceback …")
    assert first["where"] == "features / means / part-2"
    assert (second["name"], second["text"]) == ("other", "failed: KeyError: 'k'")
    assert head["alarms_more"] == 0
    assert head["counts"] == {"failed": 3}, "all are counted"


# ---------------------------------------------------------------------- what is said of what happens


def test_a_problem_that_is_told_again_is_one_problem_in_the_log() -> None:
    view = View("x")
    overflow = Problem(id="q", code="spool_overflow", message="3 lost", at=ns(4))
    for seq in (1, 2):
        apply(view, seq, "error", overflow)
    view.replayed([event(3, "error", overflow)])
    assert words(view) == ["spool_overflow 3 lost"]
    apply(view, 3, "error", Problem(id="r", code="spool_overflow", message="4 lost", at=ns(5)))
    assert words(view)[1:] == ["spool_overflow 4 lost"]


def test_what_was_missed_is_told_also_beside_what_a_later_version_wrote() -> None:
    view = View("x")
    unreadable = Event(topic="s", epoch="e", seq=1, ts="1", kind="step", entity=msgspec.Raw(b'{"id": 7}'))
    unknown = Event(topic="s", epoch="e", seq=2, ts="1", kind="hologram", entity=msgspec.Raw(b"{}"))
    view.replayed([unreadable, unknown, event(3, "step", step("a", "load", "running", chain="c"))])
    view.synced("e", 3, "", True, NOW)
    assert words(view)[0] == "step load running"
    assert "3 missed events" in words(view)[1], "that they happened is known all the same"


def test_what_was_missed_is_told_once_and_only_what_is_news() -> None:
    view = View("x")
    running = step("a", "load", "running", chain="c")
    command = Command(id="0" * 32, name="pause", deadline="9", requested="1", actor="ada")
    view.replayed([event(1, "step", running), event(2, "step", running), event(3, "command", command)])
    assert words(view) == ["step load running", "command pause from ada requested"]
    assert all(entry["replayed"] for entry in view.key(NOW)["log"])


def test_an_event_of_a_kind_that_is_not_known_moves_the_position_and_drops_what_it_says() -> None:
    view = View("x")
    for seq, entity in enumerate((step("a", "a", chain="c"), step("b", "b", chain="c")), 1):
        apply(view, seq, "step", entity)
    unknown = Event(
        topic="s", epoch="e", seq=3, ts="1", kind="hologram", entity=msgspec.Raw(b"{}"), drop=[("step", "a")]
    )
    view.applied(unknown, None)
    assert list(rows_of(view.frame(NOW))) == ["s:b"]
    assert view.head(NOW)["sub"]["seq"] == 3


def test_a_note_of_the_server_is_in_the_log() -> None:
    view = View("x")
    late = step("a", "load", chain="c")
    noted = msgspec.structs.replace(event(1, "step", late), note="crashed was superseded")
    view.applied(noted, late)
    assert words(view) == ["step load succeeded", "note crashed was superseded"]
    assert view.key(NOW)["log"][-1]["tone"] == "warn"


def test_log_entries_lead_to_the_rows_that_they_are_about() -> None:
    view = View("x")
    apply(view, 1, "chain", chain("c", "load"))
    apply(view, 2, "step", step("a", "fetch", "running", chain="c"))
    asked = {"name": "pause", "deadline": "9", "requested": "1"}
    for seq, target in enumerate(({"step": "a"}, {"chain": "c"}, {}), 3):
        apply(view, seq, "command", Command(id=f"{seq:032}", **asked, **target))
    for seq, about in enumerate(({"step": "a"}, {"chain": "c"}, {}), 6):
        apply(view, seq, "error", Problem(id=f"q{seq}", code="x", message="m", at="1", **about))
    rows = [entry.get("row", "") for entry in view.key(NOW)["log"]]
    assert rows == ["c:c", "s:a", "s:a", "c:c", "", "s:a", "c:c", ""]


def test_what_is_forgotten_is_no_alarm_no_command_and_no_producer() -> None:
    view = View("x")
    apply(view, 1, "error", Problem(id="q", code="x", message="m", at="1"))
    apply(view, 2, "command", Command(id="0" * 32, name="pause", deadline="9", requested="1"))
    apply(view, 3, "producer", Producer(id="p", since="1"))
    apply(view, 4, "chain", chain("c", "c"), drop=[("error", "q"), ("command", "0" * 32), ("producer", "p")])
    head = view.head(NOW)
    assert (head["alarms"], head["asked"], head["producers"]) == ([], [], [])


def test_what_belongs_to_no_session_is_not_shown_in_one() -> None:
    view = View("x")
    apply(view, 1, "listing", Listing(id="y~1", name="y"))
    assert words(view) == []
    assert view.head(NOW)["session"] is None
    assert view.head(NOW)["sub"]["seq"] == 1


# ---------------------------------------------------------------------- the link and the subscription


def test_the_way_of_a_link_in_words() -> None:
    view = View("x")
    idle = ConnectionStatus()

    def told(**fields: Any) -> None:
        view.connection(replace(idle, **fields), NOW)

    told(phase="connecting", attempt=1)
    told(phase="connecting", attempt=1, url="ws://x")  # nothing that a log would tell
    told(phase="waiting", attempt=1, next_attempt_at=NOW.mono + 3, reason="refused")
    told(phase="waiting", attempt=2)
    assert not view.linked
    told(phase="live", attempt=2)
    assert view.linked
    told(phase="live", attempt=0)
    told(phase="waiting", attempt=1, lost_at=NOW.mono, next_attempt_at=NOW.mono + 1)
    told(phase="failed", attempt=1, code="unauthorized")
    assert words(view) == [
        "attempt 1 failed: refused; next in 3 s",
        "attempt 2 failed: no reason given; next in 0 s",
        "connected to the server",
        "connection lost: no reason given; next in 1 s",
        "not trying again: unauthorized",
    ]
    assert view.key(NOW)["log"][-1]["tone"] == "bad"


def test_while_the_server_takes_no_changes_this_is_told_and_since_when() -> None:
    view, live = sample_view(NOW), live_status(NOW)
    full = replace(live, degraded=Degraded(code="read_only", reason="the disk is full", since=ns(130)))
    before = len(words(view))
    view.connection(full, NOW)
    view.connection(full, NOW)
    assert view.head(NOW)["link"]["degraded"] == {
        "code": "read_only",
        "reason": "the disk is full",
        "since": round((T0 + 130) * 1000),
    }
    assert view.may == "the server takes no changes at present: the disk is full"
    assert NOW.known(full) == round((T0 + 130) * 1000)
    assert NOW.known(live) == NOW.at(live.clock_offset)
    view.connection(live, NOW)
    assert view.head(NOW)["link"]["degraded"] is None
    view.connection(full, NOW)
    view.connection(lost_status(NOW), NOW)
    assert words(view)[before:-1] == [
        "the server takes no changes: the disk is full",
        "the server takes changes again",
        "the server takes no changes: the disk is full",
    ]
    assert "connection lost" in words(view)[-1], "that it is over is said only of a server that says so"


def test_that_there_is_nothing_to_see_is_told_once_and_why() -> None:
    view = View("x")
    view.subscription("absent", "", NOW)
    view.subscription("absent", "still", NOW)
    view.subscription("not_available", "", NOW)
    view.subscription("not_available", "it was removed", NOW)
    assert words(view) == [
        "no such session yet: waiting for it",
        "the session is not available: no reason given",
    ]
    assert view.head(NOW)["sub"]["reason"] == "it was removed"
    view.subscription("waiting", "", NOW)
    view.subscription("not_available", "it was removed", NOW)
    assert words(view)[-1] == "the session is not available: it was removed"


def test_a_run_that_is_followed_in_the_place_of_another_is_told() -> None:
    view = View("x")
    view.bound("x~1", 1, False, NOW)
    assert words(view) == [], "it is the first one"
    view.bound("x~2", 2, True, NOW)
    view.bound("x~here", 0, True, NOW)
    assert words(view) == [
        "run 2 is newer: following it (x~2)",
        "a run that was begun here is newer: following it (x~here)",
    ]


def test_what_was_missed_of_one_run_is_not_said_of_the_next() -> None:
    view = View("x")
    view.replayed([event(1, "step", step("a", "load", chain="c"))])
    view.bound("x~2", 2, True, NOW)
    view.synced("e", 0, "", True, NOW)
    assert words(view)[-1] == "full state verified at seq 0"


def test_every_reason_to_begin_anew_has_its_words() -> None:
    view = View("x")
    for reset in ("epoch", "ahead", "diverged"):
        view.synced("e", 1, reset, False, NOW)
    assert [line.removeprefix("history starts anew: ") for line in words(view)[::2]] == [
        "the server's history is another one",
        "the server has fewer events than we saw",
        "the replicas differed",
    ]


def test_the_beat_tells_what_is_known_and_no_more() -> None:
    view = View("x")
    assert view.beat(NOW) == {}
    beat = view.beat(NOW, live_status(NOW))
    assert beat == {"rtt": 4.0, "last": NOW.at() - 3000, "due": NOW.at() + 12_000}


# ---------------------------------------------------------------------- where nobody looks


def test_a_glance_tells_the_whole_and_how_much_is_not_told() -> None:
    view = sample_view(NOW)
    view.frame(NOW)
    assert view.glance(NOW) is None
    apply(view, 1161, "step", step("new", "new", "running", chain="train"))
    glance = view.glance(NOW)
    assert glance is not None
    assert (glance["n"], glance["behind"]) == (2, 1)
    assert set(glance["head"]) == {"sub", "counts", "steps"}
    again = view.glance(NOW)
    assert again is not None
    assert (again["head"], again["behind"]) == ({}, 1), "it is still not told"
    frame = view.frame(NOW)
    assert list(rows_of(frame)) == ["s:new"], "and is told when somebody looks"


def test_a_glance_at_nothing_but_the_link_has_nothing_behind() -> None:
    view = sample_view(NOW)
    view.frame(NOW)
    view.connection(lost_status(NOW), NOW)
    glance = view.glance(NOW)
    assert glance is not None
    assert set(glance["head"]) == {"link"}
    assert "behind" not in glance


def test_a_page_that_there_is_not_is_empty() -> None:
    view = sample_view(NOW)
    view.frame(NOW)
    assert len(view.page(0)) == 17
    assert (view.page(-1), view.page(view.pages)) == ([], [])


def test_very_much_at_once_is_told_by_its_pages_and_little_again_by_its_rows() -> None:
    view = View("x")
    assert view.session is None
    view.replace([("step", step(f"s{n}", f"s{n}", chain="c", start=n)) for n in range(1_500)], "e", 1_500)
    frame, key = view.frame(NOW), view.key(NOW)
    assert frame is not None
    for told in (frame, key):
        assert told["pages"] == [1] * view.pages
        assert "rows" not in told
    assert sum(len(view.page(page)) for page in range(view.pages)) == 1_500
    apply(view, 1_501, "step", step("s7", "s7", "failed", chain="c", start=7))
    small = view.frame(NOW)
    assert list(rows_of(small)) == ["s:s7"]
    assert small is not None
    assert len(small["on"]) == 1
    view.replace([("step", step("s7", "s7", chain="c", start=7))], "e", 1_502)
    emptied = view.frame(NOW)
    assert emptied is not None
    assert "gone" not in emptied, "so many do not fit either"
    assert emptied["pages"] == [3] * view.pages
    assert [row["id"] for row in view.key(NOW)["rows"]] == ["s:s7"]


def test_the_sessions_own_record_is_known_while_there_is_one() -> None:
    view = sample_view(NOW)
    assert view.session is not None
    assert view.session.name == "nightly-etl"
    view.replace([], "e", 1)
    assert view.session is None
