"""The terminal view: what a frame says, live and when a link is lost."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from msgspec.structs import replace as replace_struct
from rich.console import Console

from tests.export.samples import etl, ns
from wsmonitor.cli.scene import LogLine, Picture, Scene
from wsmonitor.cli.sessions import table
from wsmonitor.cli.terminal import frame, log_line, visible
from wsmonitor.client.types import ConnectionStatus
from wsmonitor.export.outline import outline
from wsmonitor.protocol.entities import Chain, Listing, Producer, Step
from wsmonitor.protocol.messages import Degraded
from wsmonitor.protocol.reducer import SessionState

LIVE = ConnectionStatus(
    phase="live", rtt=0.004, last_frame_at=97.0, heartbeat_due_at=112.0, clock_offset=0.0, connections=1
)
LOST = ConnectionStatus(
    phase="waiting", code="connection_lost", reason="connection refused", attempt=3, next_attempt_at=106.0,
    last_frame_at=56.0, lost_at=91.0, connections=1, clock_offset=0.0,
)  # fmt: skip


def scene(status: ConnectionStatus = LIVE, state: SessionState | None = None, **more: object) -> Scene:
    picture = Picture.of(state if state is not None else etl())
    return replace(
        Scene("nightly-etl", picture, status, "live" if status.live else "waiting", 100.0, int(ns(140))),
        **more,  # type: ignore[arg-type]  # a test's keywords
    )


def shown(of: Scene, width: int = 120, height: int = 40) -> str:
    return "\n".join(line.plain for line in frame(of, width, height))


def test_a_live_frame() -> None:
    text = shown(scene(watching=3))
    first, alarm, sums, _, *rows = text.splitlines()
    assert first.startswith("● Live │ nightly-etl run 3  ▶ running 2:20")
    assert first.endswith("♥ server 4 ms · 3 s   ♥ producer   3 watching")
    assert alarm == "✕ check drift failed: KeyError: 'segment'  features"
    assert "3/6 steps  ✓ 3 succeeded  ▶ 1 running  ✕ 1 failed  ○ 1 pending" in sums
    assert [row.split("  ")[0].strip() for row in rows[:2]] == ["▾ ✓ load", ""]
    window = next(row for row in rows if "window 90d" in row)
    assert "48 % · batch 48" in window
    assert "running" in window
    assert "33 s" in window
    assert "━" in window


def test_when_our_link_is_lost_the_view_says_so_freezes_and_speaks_in_the_past() -> None:
    text = shown(scene(LOST, watching=3))
    assert "◐ Reconnecting: attempt 4 in 6 s" in text
    assert "▶ was running 1:36 at 11:08:16 UTC" in text
    assert "♡ data 44 s old   producer: not known" in text
    assert "connection refused [connection_lost]" in text
    assert "watching" not in text
    assert "┄" in text
    later = shown(scene(LOST, now=105.0, wall=int(ns(145))))
    assert "▶ was running 1:36 at 11:08:16 UTC" in later
    assert "data 49 s old" in later
    assert "attempt 4 in 1 s" in later


def test_an_overdue_heartbeat_is_shown_before_the_link_is_given_up() -> None:
    in_time = scene(replace(LIVE, last_frame_at=84.0, heartbeat_due_at=98.0))
    assert in_time.known
    overdue = scene(replace(LIVE, last_frame_at=81.0, heartbeat_due_at=96.0))
    assert not overdue.known
    assert "◐ No data for 19 s" in shown(overdue)
    assert "the server's heartbeat is overdue" in shown(overdue)
    assert "was running" in shown(overdue)


def test_while_the_server_takes_no_changes_the_view_does_not_look_alive() -> None:
    full = Degraded(code="read_only", reason="the disk is full", since=ns(120))
    stalled = scene(replace(LIVE, degraded=full))
    text = shown(stalled)
    assert "◐ The server takes no changes" in text
    assert "the disk is full [read_only]; what programs report waits with them" in text
    assert "▶ was running 2:00 at 11:08:40 UTC" in text
    assert "♡ data 20 s old   producer: not known" in text
    over = etl()
    assert over.session is not None
    over.put("session", replace_struct(over.session, state="failed", ended=ns(110)))
    ended = scene(replace(LIVE, degraded=full), over)
    assert ended.known, "nothing more is to come of it"
    assert "takes no changes" not in shown(ended)


@pytest.mark.parametrize(
    ("producer", "words"),
    [
        (Producer(id="p", since=ns(120), liveness="stale"), "♡ producer silent for 20 s"),
        (Producer(id="p", since=ns(80), liveness="lost"), "♡ producer lost for 60 s"),
        (Producer(id="p", since=ns(80), liveness="stale", closed=True), "producer finished"),
    ],
)
def test_the_producers_link_is_told_apart_from_ours(producer: Producer, words: str) -> None:
    state = etl()
    state.drop("producer", "p1")
    state.put("producer", producer)
    text = shown(scene(state=state))
    assert words in text
    assert "● Live" in text


def test_what_ran_when_its_producer_fell_silent_is_told_in_the_past_and_its_time_stands_still() -> None:
    state = etl()
    state.drop("producer", "p1")
    state.put("producer", Producer(id="p", since=ns(120), liveness="lost"))
    text = shown(scene(state=state))
    assert "▶ was running 2:00 at 11:08:40 UTC" in text
    window = next(line for line in text.splitlines() if "window 90d" in line)
    assert "was running" in window
    assert "13 s" in window  # and not the 33 s that have passed
    assert "┄" in window
    assert "1 was running" in text


def test_of_a_session_that_has_ended_nothing_is_said_to_run() -> None:
    text = shown(scene(state=etl(state="failed")))
    assert "✕ failed 2:20" in text
    assert "1 was running" in text


def test_before_there_is_a_server_it_tells_where_it_looked() -> None:
    status = ConnectionStatus(
        phase="waiting", attempt=2, next_attempt_at=103.0, reason="no local server is running",
        looked=("WSMONITOR_URL: not set", "the local server's file x.json: there is none"),
    )  # fmt: skip
    text = shown(replace(scene(status), picture=None, phase=None), width=200)
    assert "◐ Looking for the server: attempt 3 in 3 s │ nightly-etl" in text
    assert "WSMONITOR_URL: not set; the local server's file x.json: there is none" in text


@pytest.mark.parametrize(("phase", "words"), [("syncing", "◐ Syncing"), ("not_available", "✕ Not available")])
def test_a_subscription_that_is_not_verified_is_not_called_live(phase: str, words: str) -> None:
    text = shown(scene(phase=phase))
    assert words in text
    assert "● Live" not in text


def test_a_link_that_failed_for_good_says_that_it_will_not_be_tried_again() -> None:
    text = shown(scene(replace(LOST, phase="failed", code="unauthorized", reason="no valid token")))
    assert "✕ Not connected" in text
    assert "no valid token [unauthorized]; it will not be tried again by itself" in text


@pytest.mark.parametrize("height", [6, 10, 14, 24, 60])
@pytest.mark.parametrize("width", [40, 60, 100, 200])
def test_a_frame_always_fits_the_terminal(width: int, height: int) -> None:
    log = [LogLine(int(ns(1)), "good", "step x", "y" * 300)] * 50
    for status in (LIVE, LOST):
        lines = frame(scene(status, log=log), width, height)
        assert len(lines) <= height
        assert max(line.cell_len for line in lines) <= width


def test_what_a_session_says_cannot_speak_to_the_terminal() -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\rname"
    step = Step(id="s", chain="c", name=evil, state="running", log_last=evil)
    state = SessionState.restore(
        "s", "e", 1, [("chain", Chain(id="c", name=evil, state="running")), ("step", step)]
    )
    out = io.StringIO()
    console = Console(file=out, width=120, color_system=None)
    for line in frame(scene(state=state, log=[LogLine(0, "good", "", "fine")]), 120, 30):
        console.print(line)
    assert not set(out.getvalue()) & {"\x1b", "\x07", "\r"}


def _wide(chains: int, steps: int, running: int) -> SessionState:
    entities: list[tuple[str, Chain | Step]] = []
    for c in range(chains):
        state = "running" if c == running else "succeeded" if c < running else "pending"
        entities.append(("chain", Chain(id=f"c{c:03}", name=f"chain {c}", state=state, created=str(c + 1))))  # type: ignore[arg-type]
        for s in range(steps):
            now = "running" if c == running and s == steps - 1 else "succeeded" if c <= running else "pending"
            name, born = f"step {c}.{s}", str(c * 1000 + s + 1)
            entities.append(("step", Step(id=name, chain=f"c{c:03}", name=name, state=now, created=born)))  # type: ignore[arg-type]
    return SessionState.restore("s", "e", 1, entities)


def test_finished_chains_are_folded_from_the_top_as_far_as_is_needed() -> None:
    rows = outline(_wide(4, 5, 3))
    names = [(row.name, folded) for row, folded in visible(rows, 19) if row is not None and row.depth == 0]
    assert names == [("chain 0", 5), ("chain 1", 0), ("chain 2", 0), ("chain 3", 0)]


def test_of_very_many_rows_those_at_work_are_shown_and_the_rest_is_counted() -> None:
    rows = outline(_wide(50, 100, 30))
    shown_rows = visible(rows, 12)
    assert len(shown_rows) <= 12
    names = [row.name for row, _ in shown_rows if row is not None]
    assert "step 30.99" in names
    hidden = sum(count for _, count in shown_rows)
    assert hidden + len(names) == len(rows)


def test_a_log_line_has_its_time_and_what_it_is_about() -> None:
    assert log_line(LogLine(int(ns(1.5)), "bad", "load / read", "failed")).plain == (
        "11:06:41.500  load / read failed"
    )


LISTED = [
    Listing(
        id="stdlib-analysis~01M82K49ZTKWGE8HZ8SGS8QXGR", name="stdlib-analysis", run=2, state="running",
        liveness="stale", counts={"failed": 1, "running": 2, "succeeded": 1_234}, started=ns(0),
        size=2_900_000,
        problem="'utf-8' codec can't decode byte 0xf6 in position 8: invalid start byte, said at some length",
    ),
    Listing(id="e~1", name="e", run=11, state="succeeded", started=ns(0), ended=ns(9), created=ns(0)),
]  # fmt: skip


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200, 1000])
def test_the_list_of_sessions_cuts_no_state_and_hides_no_id(width: int) -> None:
    out = io.StringIO()
    Console(file=out, width=width, markup=False, highlight=False).print(table(LISTED, int(ns(140))))
    lines = out.getvalue().splitlines()
    assert all(len(line.rstrip()) <= width for line in lines)
    if width >= 60:
        assert any("was running (producer stale)" in line and "stdlib-analy" in line for line in lines)
        assert any("✓ succeeded" in line for line in lines)
    # An id is copied to name a run: it is whole at every width, in one line where it fits into one.
    assert LISTED[0].id in "".join(line.strip() for line in lines)
    assert any("'utf-8' codec" in line for line in lines)
    assert len(lines[0].split()) >= 3
