"""The link's machine: what exactly it asks for, shows and waits for, in each phase."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from wsmonitor.client.actions import Disconnect, FetchToken, Locate, Open, Send
from wsmonitor.client.clock import Instant
from wsmonitor.client.link import ERROR_COUNTS_FOR, LOCATE_TIMEOUT, Link
from wsmonitor.client.types import ConnectionStatus
from wsmonitor.protocol.close_codes import CloseCode
from wsmonitor.protocol.defaults import Timing
from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.protocol.messages import (
    Draining,
    Error,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Refresh,
    Refreshed,
)

from .test_link import WALL, Bench, welcome

PHASES = ("idle", "locating", "connecting", "authenticating", "live", "waiting", "failed", "closed")
TRANSPORT = ("connecting", "authenticating", "live")


def at(phase: str, *, renewable: bool = False) -> Bench:
    """A bench whose link has come to *phase* at second 1000, with nothing asked for since."""
    bench = Bench()
    link = bench.link
    if phase == "closed":
        link.close(bench.now)
    elif phase != "idle":
        link.start(bench.now)
    if phase in (*TRANSPORT, "waiting", "failed"):
        bench.locate(renewable=renewable)
    if phase in ("authenticating", "live"):
        link.opened(bench.now, 1)
    if phase == "live":
        link.welcome(bench.now, welcome())
    elif phase == "waiting":
        link.lost(bench.now, 1, 1006, "gone")
    elif phase == "failed":
        link.refused(bench.now, 1, 401, "unauthorized", "no")
    assert bench.phase == phase
    bench.actions.clear()
    return bench


def nanoseconds(seconds: float) -> str:
    return str(int(seconds * 1e9))


def test_the_way_to_live_action_by_action() -> None:
    bench = Bench()
    link = bench.link
    assert (link.status, link.attempt, link.last_frame, link.next_deadline()) == (
        ConnectionStatus(),
        0,
        None,
        None,
    )
    link.start(bench.now)
    assert bench.actions == [Locate(1, fresh=False)]
    expected = ConnectionStatus(phase="locating", attempt=1, lost_at=1000.0)
    assert (link.status, link.next_deadline()) == (expected, 1000.0 + LOCATE_TIMEOUT)
    bench.mono += 1.0
    link.located(bench.now, 1, "ws://x:1", "T", looked=("here",))
    assert bench.actions[1:] == [Open(1, "ws://x:1", "T")]
    expected = replace(expected, phase="connecting", url="ws://x:1", looked=("here",))
    assert (link.status, link.next_deadline()) == (expected, 1001.0 + 10.0)
    bench.mono += 1.0
    link.opened(bench.now, 1)
    assert bench.actions[2:] == [Send(Hello(major=1, minor=0))]
    expected = replace(expected, phase="authenticating")
    assert (link.status, link.next_deadline(), link.last_frame) == (expected, 1002.0 + 10.0, 1002.0)
    bench.mono += 1.0
    message = welcome()
    link.welcome(bench.now, message)
    assert bench.actions[3:] == [Send(Heartbeat(n=1, time=nanoseconds(WALL)))]
    expected = replace(
        expected,
        phase="live",
        welcome=message,
        lost_at=None,
        connected_at=1003.0,
        connections=1,
        heartbeat_due_at=1018.0,
    )
    assert (link.status, link.next_deadline()) == (expected, 1018.0)


def test_it_introduces_itself_as_it_is_told_to() -> None:
    bench = Bench()
    hello = Hello(major=1, minor=0, name="somebody")
    timing = Timing(handshake_timeout=3.0)
    bench.link = Link(
        bench.actions.append, random=lambda: 0.0, next_request=lambda: 1, hello=hello, timing=timing
    )
    bench.link.start(bench.now)
    bench.locate()
    assert bench.link.next_deadline() == bench.mono + 3.0
    bench.link.opened(bench.now, 1)
    assert bench.actions == [Send(hello)]


def test_a_lost_link_shows_why_since_when_and_until_when_and_a_new_one_shows_none_of_it() -> None:
    bench = at("live")
    link = bench.link
    bench.link.heartbeat_ack(bench.now, HeartbeatAck(n=1, time=nanoseconds(WALL)))
    before = link.status
    bench.mono += 5.0
    link.lost(bench.now, 1, 1006, "gone")
    lost = replace(
        before,
        phase="waiting",
        code="connection_lost",
        reason="gone",
        next_attempt_at=1006.0,
        lost_at=1005.0,
        heartbeat_due_at=None,
    )
    assert (link.status, link.next_deadline()) == (lost, 1006.0)
    bench.wait(1.0)
    assert bench.actions == [Locate(2, fresh=False)]
    assert link.status == replace(lost, phase="locating", next_attempt_at=None, attempt=2)
    bench.mono += 3.0
    link.not_located(bench.now, 2, "no_server", "none", looked=("a", "b"), fatal=False)
    again = replace(
        link.status,
        phase="waiting",
        code="no_server",
        reason="none",
        looked=("a", "b"),
        lost_at=1005.0,
        next_attempt_at=1009.0 + 2.0,
    )
    assert link.status == again
    bench.wait(2.0)
    bench.actions.clear()
    link.located(bench.now, 3, "ws://y:1", "T", looked=("c",))
    link.opened(bench.now, 3)
    assert (link.status.url, link.status.looked) == ("ws://y:1", ("c",))
    message = welcome()
    link.welcome(bench.now, message)
    live = link.status
    assert (live.code, live.reason, live.next_attempt_at, live.lost_at, live.rtt) == (
        "",
        "",
        None,
        None,
        None,
    )
    assert (live.connections, live.connected_at, live.clock_offset) == (2, bench.mono, 0.0)


@pytest.mark.parametrize("phase", PHASES)
def test_in_each_phase_it_can_be_closed(phase: str) -> None:
    bench = at(phase)
    before = bench.link.status
    bench.mono += 5.0
    bench.link.close(bench.now)
    status = bench.link.status
    assert bench.actions == (
        [Disconnect(1, CloseCode.NORMAL, "closed by the client", abort=False)] if phase in TRANSPORT else []
    )
    assert (status.phase, status.next_attempt_at, bench.link.next_deadline()) == ("closed", None, None)
    since = before.lost_at if phase not in ("live", "idle") else bench.mono
    assert status.lost_at == since
    assert (status.code, status.reason) == (before.code, before.reason)
    bench.actions.clear()
    bench.wait(1e5)
    assert bench.actions == []


@pytest.mark.parametrize("phase", PHASES)
def test_in_each_phase_a_person_may_be_impatient(phase: str) -> None:
    bench = at(phase)
    before = bench.link.status
    bench.link.reconnect_now(bench.now)
    if phase in ("waiting", "failed"):
        assert bench.actions == [Locate(2, fresh=phase == "failed")]
        assert bench.link.status == replace(before, phase="locating", attempt=2, next_attempt_at=None)
    else:
        assert (bench.actions, bench.link.status) == ([], before)


def test_who_insists_after_a_refusal_gets_one_attempt_with_another_token_again() -> None:
    bench = at("connecting", renewable=True)
    link = bench.link
    link.refused(bench.now, 1, 401, "unauthorized", "no")
    bench.locate(renewable=True)
    link.refused(bench.now, 2, 401, "unauthorized", "no")
    assert bench.phase == "failed"
    link.reconnect_now(bench.now)
    bench.locate(renewable=True)
    link.refused(bench.now, 3, 401, "unauthorized", "no")
    assert bench.take(Locate) == [Locate(4, fresh=True)]


Report = Callable[[Link, Instant, int], None]

REPORTS: dict[str, tuple[tuple[str, ...], Report]] = {
    "located": (("locating",), lambda link, now, n: link.located(now, n, "ws://z:1", "T")),
    "not_located": (
        ("locating",),
        lambda link, now, n: link.not_located(now, n, "no_server", "none", looked=(), fatal=True),
    ),
    "opened": (("connecting",), lambda link, now, n: link.opened(now, n)),
    "refused": (("connecting",), lambda link, now, n: link.refused(now, n, 503, "draining", "later")),
    "untrusted": (("connecting",), lambda link, now, n: link.untrusted(now, n, "expired")),
    "lost": (TRANSPORT, lambda link, now, n: link.lost(now, n, 1006, "gone")),
    "fault": (("locating", *TRANSPORT), lambda link, now, n: link.fault(now, n, "a fault")),
    "token_fetched": (("live",), lambda link, now, n: link.token_fetched(now, n, "T")),
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", REPORTS)
def test_a_report_counts_in_its_phases_and_about_this_attempt(name: str, phase: str) -> None:
    phases, report = REPORTS[name]
    for number in (0, 1, 2):
        bench = at(phase)
        before = bench.link.status
        report(bench.link, bench.now, number)
        heard = bench.link.status != before or bench.actions != []
        assert heard == (phase in phases and number == bench.link.attempt == 1)


@pytest.mark.parametrize("phase", PHASES)
def test_a_welcome_counts_where_one_is_awaited_and_a_sync_where_it_is_live(phase: str) -> None:
    bench = at(phase)
    before, deadline = bench.link.status, bench.link.next_deadline()
    if phase != "authenticating":
        bench.link.welcome(bench.now, welcome(major=7))
    bench.link.synced(bench.now)
    assert bench.link.status == before
    assert bench.link.next_deadline() == (bench.mono + 10.0 if phase == "live" else deadline)


@pytest.mark.parametrize("phase", ["locating", "connecting", "authenticating", "live"])
def test_a_fault_of_the_owner_drops_the_attempt(phase: str) -> None:
    bench = at(phase)
    bench.link.fault(bench.now, 1, "a fault")
    assert bench.actions == [Disconnect(1, CloseCode.HEARTBEAT_TIMEOUT, "a fault", abort=True)]
    status = bench.link.status
    assert (status.phase, status.code, status.reason) == ("waiting", "internal", "a fault")


@pytest.mark.parametrize("fatal", [True, False])
def test_where_no_server_was_found(fatal: bool) -> None:
    bench = at("locating")
    bench.mono += 5.0
    bench.link.not_located(bench.now, 1, "no_server", "none", looked=("a", "b"), fatal=fatal)
    assert bench.link.status == ConnectionStatus(
        phase="failed" if fatal else "waiting",
        looked=("a", "b"),
        attempt=1,
        code="no_server",
        reason="none",
        lost_at=1000.0,
        next_attempt_at=None if fatal else 1006.0,
    )
    assert bench.actions == []


REFUSALS = [
    (401, "token_expired", "failed", "token_expired"),
    (401, "", "failed", "unauthorized"),
    (403, "forbidden", "failed", "forbidden"),
    (403, "", "failed", "unauthorized"),
    (400, "bad_subprotocol", "failed", "bad_subprotocol"),
    (426, "unsupported_version", "failed", "unsupported_version"),
    (426, "", "waiting", "connection_lost"),
    (400, "", "waiting", "connection_lost"),
    (427, "x", "waiting", "x"),
    (503, "draining", "waiting", "draining"),
    (502, "", "waiting", "connection_lost"),
]


@pytest.mark.parametrize(("status", "code", "phase", "shown"), REFUSALS)
def test_what_a_refused_handshake_shows(status: int, code: str, phase: str, shown: str) -> None:
    bench = at("connecting")
    bench.mono += 5.0
    bench.link.refused(bench.now, 1, status, code, "words")
    now = bench.link.status
    assert (now.phase, now.code, now.reason, now.looked) == (phase, shown, "words", ("there",))
    assert (now.lost_at, now.next_attempt_at) == (1000.0, 1006.0 if phase == "waiting" else None)
    assert bench.link.next_deadline() == now.next_attempt_at


LOSSES = [
    (CloseCode.TOKEN_EXPIRED, None, "failed", "token_expired", "bye"),
    (CloseCode.UNAUTHORIZED, None, "failed", "unauthorized", "bye"),
    (CloseCode.UNAUTHORIZED, "revoked", "failed", "revoked", "words"),
    (CloseCode.RATE_LIMITED, "rate_limited", "waiting", "rate_limited", "words"),
    (1006, None, "waiting", "connection_lost", "bye"),
    (1009, None, "failed", "connection_lost", "bye"),
    (1009, "message_too_large", "failed", "message_too_large", "words"),
]


@pytest.mark.parametrize(("code", "error", "phase", "shown", "words"), LOSSES)
def test_what_a_close_code_shows(code: int, error: str | None, phase: str, shown: str, words: str) -> None:
    bench = at("live")
    if error is not None:
        assert not bench.link.error(bench.now, Error(error=ErrorInfo(code=error, message="words")))
    bench.mono += ERROR_COUNTS_FOR
    bench.link.lost(bench.now, 1, code, "bye")
    now = bench.link.status
    assert (now.phase, now.code, now.reason) == (phase, shown, words)
    assert (now.lost_at, now.heartbeat_due_at, now.looked) == (bench.mono, None, ("there",))
    assert bench.actions == []


def test_a_renewable_token_that_is_refused_in_a_handshake_shows_why_meanwhile() -> None:
    bench = at("authenticating", renewable=True)
    bench.link.lost(bench.now, 1, CloseCode.UNAUTHORIZED, "no")
    assert bench.actions == [Locate(2, fresh=True)]
    assert (bench.phase, bench.link.status.code, bench.link.status.reason) == (
        "locating",
        "unauthorized",
        "no",
    )
    assert bench.link.next_deadline() == bench.mono + LOCATE_TIMEOUT
    bench.locate(renewable=True)
    bench.link.opened(bench.now, 2)
    bench.link.welcome(bench.now, welcome())
    # Let in, and thrown out: the usual delay, and one attempt with a fresh token, then it fails.
    bench.actions.clear()
    bench.link.lost(bench.now, 2, CloseCode.TOKEN_EXPIRED, "expired")
    assert (bench.phase, bench.link.status.code, bench.link.status.reason) == (
        "waiting",
        "token_expired",
        "expired",
    )
    bench.wait(1.0)
    assert bench.take(Locate) == [Locate(3, fresh=True)]
    bench.link.located(bench.now, 3, "ws://x:1", "T", renewable=True)
    bench.link.refused(bench.now, 3, 401, "", "no")
    assert bench.take(Locate) == [Locate(4, fresh=True)]
    bench.link.located(bench.now, 4, "ws://x:1", "T", renewable=True)
    bench.link.refused(bench.now, 4, 401, "", "no")
    assert bench.phase == "failed"


def test_a_fresh_token_is_asked_for_once_and_until_there_is_one() -> None:
    bench = at("connecting", renewable=True)
    link = bench.link
    link.refused(bench.now, 1, 401, "", "no")
    link.not_located(bench.now, 2, "token_failed", "the provider failed", looked=(), fatal=False)
    bench.wait(1.0)
    assert bench.take(Locate) == [Locate(2, fresh=True), Locate(3, fresh=True)]
    link.located(bench.now, 3, "ws://x:1", "T")
    link.lost(bench.now, 3, 1006, "gone")
    bench.wait(2.0)
    assert bench.take(Locate) == [Locate(4, fresh=False)]


def test_a_token_is_static_unless_it_is_said_to_be_renewable() -> None:
    bench = at("locating")
    bench.link.located(bench.now, 1, "ws://x:1", "T")
    bench.link.refused(bench.now, 1, 401, "", "no")
    assert bench.phase == "failed"


TOO_LONG = {
    "locating": (LOCATE_TIMEOUT, "no server was found within 60 s"),
    "connecting": (10.0, "the WebSocket handshake took longer than 10 s"),
    "authenticating": (10.0, "the server's welcome took longer than 10 s"),
}


@pytest.mark.parametrize("phase", TOO_LONG)
def test_what_took_too_long_is_named(phase: str) -> None:
    limit, reason = TOO_LONG[phase]
    bench = at(phase)
    bench.mono += limit - 0.01
    bench.link.handle_timeout(bench.now)
    assert (bench.phase, bench.actions) == (phase, [])
    bench.mono += 0.01
    bench.link.handle_timeout(bench.now)
    status = bench.link.status
    assert (status.phase, status.code, status.reason) == ("waiting", "connection_lost", reason)
    drop = Disconnect(1, CloseCode.HEARTBEAT_TIMEOUT, reason, abort=True)
    assert bench.actions == ([] if phase == "locating" else [drop])


def test_a_server_of_another_version_is_left_politely_and_named() -> None:
    bench = at("authenticating")
    bench.mono += 5.0
    bench.link.welcome(bench.now, welcome(major=2, minor=3))
    reason = "the server speaks version 2.3 of the protocol, this program 1.0"
    assert bench.actions == [Disconnect(1, CloseCode.NORMAL, reason[:100], abort=False)]
    status = bench.link.status
    assert (status.phase, status.code, status.reason) == ("failed", "unsupported_version", reason)
    assert (status.lost_at, status.next_attempt_at, bench.link.next_deadline()) == (1000.0, None, None)


def test_silence_is_named_with_its_length() -> None:
    bench = at("live")
    bench.wait(20.0)
    bench.link.frame(bench.now)
    bench.actions.clear()
    bench.wait(34.9)
    assert bench.phase == "live"
    bench.wait(0.2)
    reason = "nothing was heard from the server for 35 s"
    assert bench.take(Disconnect) == [Disconnect(1, CloseCode.HEARTBEAT_TIMEOUT, reason, abort=True)]
    assert (bench.link.status.code, bench.link.status.reason) == ("connection_lost", reason)


def test_a_tick_late_by_an_interval_is_usual_and_later_it_is_a_probe() -> None:
    for late, probed in ((15.0, False), (15.1, True)):
        bench = at("authenticating")
        bench.link.welcome(bench.now, welcome(heartbeat_timeout=50.0))
        bench.actions.clear()
        bench.mono += 15.0 + late
        bench.wall += 15.0 + late
        bench.link.handle_timeout(bench.now)
        assert bench.actions == [Send(Heartbeat(n=2, time=nanoseconds(bench.wall)))]
        assert bench.link.next_deadline() == bench.mono + (5.0 if probed else 15.0)


def test_a_wall_clock_two_intervals_ahead_is_sleep_and_one_behind_is_not() -> None:
    for ahead, probed in ((30.0, False), (30.5, True), (-1000.0, False)):
        bench = at("live")
        bench.mono += 1.0
        bench.wall += 1.0 + ahead
        bench.link.handle_timeout(bench.now)
        assert (bench.actions != []) == probed
        assert bench.link.next_deadline() == (bench.mono + 5.0 if probed else 1015.0)
        # What was seen is the measure of the next time.
        bench.actions.clear()
        bench.link.frame(bench.now)
        bench.mono += 1.0
        bench.wall += 1.0
        bench.link.handle_timeout(bench.now)
        assert bench.actions == []


def test_a_probe_is_no_longer_than_an_interval() -> None:
    bench = at("authenticating")
    bench.link.welcome(bench.now, welcome(heartbeat_interval=2.0))
    bench.mono += 100.0
    bench.link.handle_timeout(bench.now)
    assert bench.link.next_deadline() == bench.mono + 2.0


def test_health_is_told_as_no_attempt_at_all() -> None:
    bench = at("live")
    bench.link.synced(bench.now)
    bench.wait(5.0)
    bench.link.synced(bench.now)  # does not begin anew
    bench.wait(4.9)
    assert bench.link.status.attempt == 1
    bench.wait(0.1)
    assert bench.link.status.attempt == 0


def test_heartbeats_carry_our_clock_and_tell_when_the_next_is_due() -> None:
    bench = at("live")
    bench.mono += 2.0
    bench.wall += 2.0
    bench.link.heartbeat(bench.now, Heartbeat(n=7))
    assert bench.actions == [Send(HeartbeatAck(n=7, time=nanoseconds(WALL + 2.0)))]
    assert bench.link.status.heartbeat_due_at == 1002.0 + 15.0


def test_of_the_last_round_trips_the_quickest_tells_the_offset() -> None:
    """Eight are remembered, of the offsets and of the beats that were not answered yet."""
    bench = at("live")
    link = bench.link
    offsets = []
    for number in range(1, 12):
        trip = 0.1 if number == 2 else 0.5
        link.heartbeat_ack(
            Instant(bench.mono + trip, bench.wall + trip),
            HeartbeatAck(n=number, time=nanoseconds(bench.wall + number + trip / 2)),
        )
        assert link.status.clock_offset is not None
        offsets.append(round(link.status.clock_offset))
        assert link.status.rtt == pytest.approx(trip)
        link.frame(bench.now)
        bench.wait(15.0)
    # The second was the quickest, until it was the ninth last; then the least offset of the others.
    assert offsets == [1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 4]


def test_an_answer_that_names_no_time_measures_the_trip_only() -> None:
    bench = at("live")
    bench.link.heartbeat_ack(bench.now, HeartbeatAck(n=1))
    assert (bench.link.status.rtt, bench.link.status.clock_offset) == (0.0, None)
    bench.wait(15.0)
    bench.link.heartbeat_ack(bench.now, HeartbeatAck(n=2, time="what?"))
    assert bench.link.status.clock_offset == 0.0


def test_answers_to_the_last_eight_beats_count() -> None:
    for number, counts in ((1, False), (2, True)):
        bench = at("live")
        for _ in range(8):
            bench.wait(15.0)
            bench.link.frame(bench.now)
        bench.link.heartbeat_ack(bench.now, HeartbeatAck(n=number))
        assert (bench.link.status.rtt is not None) == counts


def live_until(expires: float, **fields: str) -> Bench:
    """A link with a renewable token that ends *expires* seconds from now, by the server's clock."""
    bench = at("authenticating", renewable=True)
    bench.link.welcome(bench.now, welcome(expires=int(WALL + expires), **fields))
    bench.actions.clear()
    return bench


def ask_when_due(bench: Bench) -> float:
    """When the next token is asked for, in seconds from now."""
    began = bench.mono
    while not bench.take(FetchToken):
        due = bench.link.next_deadline()
        assert due is not None
        assert due < began + 1e5
        bench.link.frame(bench.now)
        bench.wait(max(0.0, due - bench.mono))
    return bench.mono - began


def test_when_a_token_is_renewed_and_tried_again() -> None:
    bench = live_until(1000.0)
    assert ask_when_due(bench) == pytest.approx(800.0)
    bench.link.token_fetched(bench.now, 1, None)
    assert ask_when_due(bench) == pytest.approx(50.0)
    bench.link.token_fetched(bench.now, 1, "NEW")
    assert bench.take(Send)[-1] == Send(Refresh(request=1, token="NEW"))
    refused = Error(error=ErrorInfo(code="unauthorized", message="no"), request=1)
    assert not bench.link.error(bench.now, Error(error=refused.error, request=9))
    assert bench.link.error(bench.now, refused)
    assert not bench.link.error(bench.now, refused)
    assert ask_when_due(bench) == pytest.approx(50.0)


def test_a_token_for_seconds_is_not_asked_for_more_than_once_a_second() -> None:
    for expires, first in ((10.0, 8.0), (0.0, 0.0), (-100.0, 0.0)):
        bench = live_until(expires)
        assert ask_when_due(bench) == pytest.approx(first, abs=1e-3)
        bench.link.token_fetched(bench.now, 1, None)
        assert ask_when_due(bench) == pytest.approx(1.0, abs=1e-3)


def test_a_tokens_life_is_measured_by_the_servers_clock() -> None:
    """Ours is a hundred seconds behind; a time that is none is taken as ours."""
    bench = live_until(1000.0, time=nanoseconds(WALL + 100.0))
    assert ask_when_due(bench) == pytest.approx(0.8 * 900.0)
    bench.link.heartbeat_ack(
        bench.now, HeartbeatAck(n=bench.link._beat, time=nanoseconds(bench.wall + 100.0))
    )
    bench.link.token_fetched(bench.now, 1, "NEW")
    expires = int(bench.wall + 1000.0)
    bench.link.refreshed(bench.now, Refreshed(request=7, expires=5))
    bench.link.refreshed(bench.now, Refreshed(request=1, expires=expires))
    assert bench.link.status.welcome is not None
    assert bench.link.status.welcome.expires == expires
    assert ask_when_due(bench) == pytest.approx(0.8 * 900.0, abs=1.0)
    assert ask_when_due(live_until(1000.0, time="")) == pytest.approx(800.0)


def test_the_words_of_a_draining_server_hold_until_the_link_is_lost() -> None:
    bench = at("live")
    bench.link.draining(bench.now, Draining(reconnect_ms=3300))
    bench.wait(30.0)
    bench.link.lost(bench.now, 1, CloseCode.DRAINING, "bye")
    status = bench.link.status
    assert (status.code, status.reason) == ("draining", "the server is stopping")
    assert status.next_attempt_at == pytest.approx(bench.mono + 3.3)
    bench.wait(3.4)
    bench.actions.clear()
    bench.link.located(bench.now, 2, "ws://x:1", "T")
    bench.link.lost(bench.now, 2, 1006, "gone")
    assert bench.link.status.next_attempt_at == pytest.approx(bench.mono + 2.0)
    bench.wait(2.1)
    bench.link.located(bench.now, 3, "ws://x:1", "T")
    bench.link.opened(bench.now, 3)
    bench.link.lost(bench.now, 3, 1006, "gone")
    assert (bench.link.status.code, bench.link.status.reason) == ("connection_lost", "gone")


def test_the_servers_spread_counts_once() -> None:
    bench = Bench(random=0.5)
    bench.live(spread=8.0)
    bench.break_()
    bench.link.reconnect_now(bench.now)
    bench.locate()
    bench.link.lost(bench.now, 2, 1006, "gone")
    assert bench.link.status.next_attempt_at == pytest.approx(bench.mono + 2.25)
    fresh = Bench(random=0.5)
    fresh.link.start(fresh.now)
    fresh.locate()
    fresh.break_()
    assert fresh.link.status.next_attempt_at == pytest.approx(fresh.mono + 1.125)
