"""The link's machine, with time and the network played by the test."""

from __future__ import annotations

from typing import Any

import pytest

from wsmonitor.client.actions import Action, Disconnect, FetchToken, Locate, Open, Send
from wsmonitor.client.clock import Instant
from wsmonitor.client.link import LOCATE_TIMEOUT, TRANSITIONS, IllegalTransition, Link
from wsmonitor.protocol.close_codes import CloseCode
from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.protocol.messages import (
    Degraded,
    Draining,
    Error,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Refresh,
    Refreshed,
    Welcome,
)

WALL = 1_800_000_000.0


def welcome(**changes: Any) -> Welcome:
    fields: dict[str, Any] = {
        "major": 1,
        "minor": 0,
        "server": "0",
        "instance": "i",
        "epoch": "e",
        "subject": "s",
        "role": "admin",
        "sessions": ("*",),
        "expires": int(WALL) + 3600,
        "time": str(int(WALL * 1e9)),
        "heartbeat_interval": 15.0,
        "heartbeat_timeout": 35.0,
        "quiet_after": 3.0,
        "page_size": 262_144,
        "inline_value": 4096,
        "batch_changes": 256,
        "batch_size": 1_048_576,
        "message_size": 2_097_152,
    }
    return Welcome(**{**fields, **changes})


class Bench:
    """A link, a clock, and what the link asked for."""

    def __init__(self, random: float = 0.0) -> None:
        self.mono = 1000.0
        self.wall = WALL
        self.actions: list[Action] = []
        self.numbers = 0
        self.link = Link(self.actions.append, random=lambda: random, next_request=self._number)

    def _number(self) -> int:
        self.numbers += 1
        return self.numbers

    @property
    def now(self) -> Instant:
        return Instant(self.mono, self.wall)

    @property
    def phase(self) -> str:
        return self.link.status.phase

    def take(self, kind: type[Any]) -> list[Any]:
        found = [action for action in self.actions if isinstance(action, kind)]
        self.actions[:] = [action for action in self.actions if not isinstance(action, kind)]
        return found

    def sent(self, kind: type[Any]) -> list[Any]:
        found = [a.message for a in self.actions if isinstance(a, Send) and isinstance(a.message, kind)]
        self.actions[:] = [
            a for a in self.actions if not (isinstance(a, Send) and isinstance(a.message, kind))
        ]
        return found

    def wait(self, seconds: float, *, asleep: float = 0.0) -> None:
        """Let time pass, with the timer firing when it is due. ``asleep``: the wall clock alone goes on."""
        self.wall += asleep
        end = self.mono + seconds
        while (due := self.link.next_deadline()) is not None and due <= end:
            step = max(0.0, due - self.mono)
            self.mono += step
            self.wall += step
            self.link.handle_timeout(self.now)
        self.wall += end - self.mono
        self.mono = end

    def locate(self, *, renewable: bool = False) -> Open:
        (action,) = self.take(Locate)
        self.link.located(self.now, action.attempt, "ws://x:1", "T", looked=("there",), renewable=renewable)
        (opening,) = self.take(Open)
        assert isinstance(opening, Open)
        return opening

    def live(self, *, renewable: bool = False, **changes: Any) -> None:
        if self.phase == "idle":
            self.link.start(self.now)
        opening = self.locate(renewable=renewable)
        self.link.opened(self.now, opening.attempt)
        assert len(self.sent(Hello)) == 1
        changes.setdefault("time", str(int(self.wall * 1e9)))
        self.link.frame(self.now)
        self.link.welcome(self.now, welcome(**changes))
        assert self.phase == "live"

    def break_(self) -> None:
        self.link.lost(self.now, self.link.attempt, 1006, "gone")


def test_the_way_to_live() -> None:
    bench = Bench()
    assert bench.phase == "idle"
    bench.link.start(bench.now)
    assert bench.phase == "locating"
    assert bench.link.status.lost_at == bench.mono
    opening = bench.locate()
    assert (opening.url, opening.token) == ("ws://x:1", "T")
    assert "T" not in repr(opening).replace("Token", "")
    assert bench.phase == "connecting"
    bench.link.opened(bench.now, opening.attempt)
    assert bench.phase == "authenticating"
    bench.link.welcome(bench.now, welcome())
    assert bench.phase == "live"
    status = bench.link.status
    assert (status.connections, status.lost_at, status.connected_at) == (1, None, bench.mono)
    assert status.heartbeat_due_at == bench.mono + 15
    assert status.looked == ("there",)


def test_an_illegal_input_raises_and_changes_nothing() -> None:
    bench = Bench()
    bench.link.start(bench.now)
    before, actions = bench.link.status, list(bench.actions)
    with pytest.raises(IllegalTransition):
        bench.link.start(bench.now)
    assert bench.link.status == before
    assert bench.actions == actions


def test_the_table_is_closed() -> None:
    reachable, todo = {"idle"}, ["idle"]
    while todo:
        for phase in TRANSITIONS[todo.pop()].values():  # type: ignore[index]
            if phase not in reachable:
                reachable.add(phase)
                todo.append(phase)
    assert reachable == set(TRANSITIONS)
    assert all("close" in inputs for phase, inputs in TRANSITIONS.items() if phase != "closed")


def test_delays_follow_each_other_and_are_shown() -> None:
    bench = Bench()
    bench.link.start(bench.now)
    seen = []
    for _ in range(7):
        (action,) = bench.take(Locate)
        bench.link.not_located(bench.now, action.attempt, "connection_lost", "none", looked=(), fatal=False)
        assert bench.phase == "waiting"
        due = bench.link.status.next_attempt_at
        assert due is not None
        seen.append(due - bench.mono)
        bench.wait(due - bench.mono)
        assert bench.phase == "locating"
    assert seen == pytest.approx([1, 2, 4, 8, 16, 22.5, 22.5])
    assert bench.link.status.attempt == 8


def test_ten_seconds_of_health_begin_the_delays_anew_and_less_does_not() -> None:
    for seconds, delay in ((9.0, 2.0), (11.0, 1.0)):
        bench = Bench()
        bench.live()
        bench.break_()
        bench.wait(1.0)
        bench.live()
        bench.link.synced(bench.now)
        bench.wait(seconds)
        bench.break_()
        due = bench.link.status.next_attempt_at
        assert due is not None
        assert due - bench.mono == pytest.approx(delay)


def test_without_a_sync_a_link_is_never_healthy() -> None:
    bench = Bench()
    bench.live()
    bench.break_()
    bench.wait(1.0)
    bench.live()
    bench.wait(12.0)
    bench.break_()
    due = bench.link.status.next_attempt_at
    assert due is not None
    assert due - bench.mono == pytest.approx(2.0)


def test_reconnect_now_does_not_wait() -> None:
    bench = Bench()
    bench.live()
    bench.break_()
    assert bench.phase == "waiting"
    bench.link.reconnect_now(bench.now)
    assert bench.phase == "locating"
    bench.link.reconnect_now(bench.now)
    assert len(bench.take(Locate)) == 1


def test_reports_about_an_earlier_attempt_are_ignored() -> None:
    bench = Bench()
    bench.live()
    old = bench.link.attempt
    bench.break_()
    bench.link.reconnect_now(bench.now)
    bench.live()
    before = bench.link.status
    bench.link.lost(bench.now, old, 1006, "the old one")
    bench.link.opened(bench.now, old)
    bench.link.refused(bench.now, old, 401, "unauthorized", "no")
    bench.link.fault(bench.now, old, "no")
    bench.link.token_fetched(bench.now, old, "X")
    assert bench.link.status == before


def test_heartbeats_go_out_each_interval_and_are_answered() -> None:
    bench = Bench()
    bench.live()
    assert [beat.n for beat in bench.sent(Heartbeat)] == [1]
    bench.link.frame(bench.now)
    bench.wait(15.0)
    bench.link.frame(bench.now)
    bench.wait(15.0)
    assert [beat.n for beat in bench.sent(Heartbeat)] == [2, 3]
    bench.link.heartbeat(bench.now, Heartbeat(n=77))
    assert [ack.n for ack in bench.sent(HeartbeatAck)] == [77]
    assert bench.link.status.heartbeat_due_at == bench.mono + 15


def test_it_is_known_since_when_and_why_the_server_takes_no_changes() -> None:
    full = Degraded(code="read_only", reason="the disk is full", since="7")
    bench = Bench()
    bench.live()
    assert bench.link.status.current
    bench.link.heartbeat(bench.now, Heartbeat(n=1, degraded=full))
    assert (bench.link.status.degraded, bench.link.status.current) == (full, False)
    bench.link.heartbeat(bench.now, Heartbeat(n=2))
    assert bench.link.status.current
    bench.link.heartbeat(bench.now, Heartbeat(n=3, degraded=full))
    bench.break_()
    assert bench.link.status.degraded is None, "without a link it is not known"
    bench.wait(2.0)
    bench.live(degraded=full)
    assert bench.link.status.degraded == full
    bench.link.close(bench.now)
    assert bench.link.status.degraded is None


def test_round_trip_and_offset_are_measured() -> None:
    bench = Bench()
    bench.live()
    (beat,) = bench.sent(Heartbeat)
    bench.mono += 0.2
    bench.wall += 0.2
    theirs = str(int((bench.wall - 0.1 + 5.0) * 1e9))  # five seconds ahead of us, half way
    bench.link.heartbeat_ack(bench.now, HeartbeatAck(n=beat.n, time=theirs))
    assert bench.link.status.rtt == pytest.approx(0.2)
    assert bench.link.status.clock_offset == pytest.approx(5.0, abs=1e-3)
    bench.link.heartbeat_ack(bench.now, HeartbeatAck(n=beat.n, time="0"))  # twice: ignored
    assert bench.link.status.clock_offset == pytest.approx(5.0, abs=1e-3)


def test_silence_beyond_the_timeout_aborts_and_reconnects() -> None:
    bench = Bench()
    bench.live()
    bench.wait(34.9)
    assert bench.phase == "live"
    bench.wait(0.2)
    assert bench.phase == "waiting"
    (drop,) = bench.take(Disconnect)
    assert drop.abort
    assert "35 s" in bench.link.status.reason
    assert bench.link.status.lost_at is not None


def test_any_frame_is_life() -> None:
    bench = Bench()
    bench.live()
    for _ in range(10):
        bench.wait(30.0)
        bench.link.frame(bench.now)
    assert bench.phase == "live"


def test_a_late_tick_is_a_probe_and_not_a_death() -> None:
    bench = Bench()
    bench.live()
    bench.sent(Heartbeat)
    bench.mono += 300.0  # the process was stopped: no timer fired
    bench.wall += 300.0
    bench.link.handle_timeout(bench.now)
    assert bench.phase == "live"
    assert len(bench.sent(Heartbeat)) == 1
    bench.wait(3.0)
    bench.link.frame(bench.now)  # the server answers
    bench.wait(14.0)
    assert bench.phase == "live"


def test_a_probe_without_an_answer_ends_the_link_quickly() -> None:
    bench = Bench()
    bench.live()
    bench.mono += 300.0
    bench.wall += 300.0
    bench.link.handle_timeout(bench.now)
    bench.wait(5.1)
    assert bench.phase == "waiting"


def test_a_laptop_that_slept_with_its_monotonic_clock_is_noticed_by_the_wall_clock() -> None:
    bench = Bench()
    bench.live()
    bench.wait(15.0)
    bench.link.frame(bench.now)
    bench.wait(15.0, asleep=8 * 3600.0)
    assert bench.phase == "live"
    bench.wait(5.1)
    assert bench.phase == "waiting"


def test_close_codes_decide() -> None:
    for code in CloseCode:
        bench = Bench()
        bench.live()
        bench.link.lost(bench.now, bench.link.attempt, code, "why")
        again = bench.phase == "waiting"
        # A static token that has expired cannot be mended by trying again.
        assert again == (code < 4500 and code != CloseCode.TOKEN_EXPIRED), code
        if not again:
            assert bench.phase == "failed"
            assert bench.link.next_deadline() is None
    for code, phase in ((1001, "waiting"), (1006, "waiting"), (1009, "failed"), (1011, "waiting")):
        bench = Bench()
        bench.live()
        bench.link.lost(bench.now, bench.link.attempt, code, "why")
        assert bench.phase == phase, code


def test_the_servers_last_words_are_the_reason() -> None:
    bench = Bench()
    bench.live()
    told = ErrorInfo(code="rate_limited", message="too many messages")
    assert not bench.link.error(bench.now, Error(error=told))
    bench.link.lost(bench.now, bench.link.attempt, CloseCode.RATE_LIMITED, "closed")
    assert (bench.link.status.code, bench.link.status.reason) == ("rate_limited", "too many messages")


def test_an_error_of_long_ago_is_not_the_reason() -> None:
    bench = Bench()
    bench.live()
    bench.link.error(bench.now, Error(error=ErrorInfo(code="limit_exceeded", message="subscriptions")))
    bench.wait(10.0)
    bench.break_()
    assert (bench.link.status.code, bench.link.status.reason) == ("connection_lost", "gone")


def test_a_refused_static_token_is_not_tried_again() -> None:
    bench = Bench()
    bench.link.start(bench.now)
    opening = bench.locate()
    bench.link.refused(bench.now, opening.attempt, 401, "unauthorized", "no such key")
    assert bench.phase == "failed"
    assert (bench.link.status.code, bench.link.status.reason) == ("unauthorized", "no such key")
    bench.wait(3600.0)
    assert bench.phase == "failed"


def test_what_fails_for_tls_is_tried_again_rarely() -> None:
    """A certificate may be renewed, but not by us."""
    bench = Bench()
    bench.link.start(bench.now)
    opening = bench.locate()
    bench.link.untrusted(bench.now, opening.attempt, "it has expired")
    status = bench.link.status
    assert (status.phase, status.code, status.reason) == ("waiting", "tls_failed", "it has expired")
    assert status.next_attempt_at == bench.now.mono + 22.5
    bench.wait(22.4)
    assert bench.phase == "waiting"
    bench.wait(0.2)
    assert bench.phase == "locating"
    bench.link.untrusted(bench.now, opening.attempt, "of the attempt before")
    assert bench.phase == "locating"


def test_a_refused_renewable_token_is_renewed_once() -> None:
    bench = Bench()
    bench.link.start(bench.now)
    opening = bench.locate(renewable=True)
    bench.link.refused(bench.now, opening.attempt, 401, "token_expired", "expired")
    assert bench.phase == "locating"
    assert bench.actions[-1] == Locate(bench.link.attempt, fresh=True)
    opening = bench.locate(renewable=True)
    bench.link.refused(bench.now, opening.attempt, 401, "unauthorized", "still no")
    assert bench.phase == "failed"


def test_reconnect_now_leads_on_from_failed_with_a_fresh_token() -> None:
    bench = Bench()
    bench.link.start(bench.now)
    opening = bench.locate()
    bench.link.refused(bench.now, opening.attempt, 403, "forbidden", "no")
    bench.link.reconnect_now(bench.now)
    assert bench.actions[-1] == Locate(bench.link.attempt, fresh=True)


def test_an_expired_renewable_token_reconnects_after_the_usual_delay_with_a_fresh_one() -> None:
    bench = Bench()
    bench.live(renewable=True)
    bench.link.lost(bench.now, bench.link.attempt, CloseCode.TOKEN_EXPIRED, "expired")
    assert bench.phase == "waiting"
    bench.wait(1.0)
    assert bench.actions[-1] == Locate(bench.link.attempt, fresh=True)


def test_other_http_answers() -> None:
    for status, code, phase in (
        (503, "draining", "waiting"),
        (502, "", "waiting"),
        (404, "", "waiting"),
        (429, "rate_limited", "waiting"),
        (400, "bad_subprotocol", "failed"),
        (400, "", "waiting"),
    ):
        bench = Bench()
        bench.link.start(bench.now)
        opening = bench.locate()
        bench.link.refused(bench.now, opening.attempt, status, code, "words")
        assert bench.phase == phase, status


def test_a_token_is_renewed_in_band_at_four_fifths_of_its_life() -> None:
    bench = Bench()
    bench.live(renewable=True, expires=int(WALL) + 1000)
    _alive(bench, 795)
    assert bench.take(FetchToken) == []
    _alive(bench, 10)
    assert bench.take(FetchToken) == [FetchToken(bench.link.attempt)]
    bench.link.token_fetched(bench.now, bench.link.attempt, "NEW")
    (refresh,) = bench.sent(Refresh)
    assert refresh.token == "NEW"
    bench.link.refreshed(bench.now, Refreshed(request=refresh.request, expires=int(bench.wall) + 1000))
    assert bench.link.status.welcome is not None
    assert bench.link.status.welcome.expires == int(bench.wall) + 1000
    _alive(bench, 795)
    assert bench.take(FetchToken) == []
    _alive(bench, 10)
    assert len(bench.take(FetchToken)) == 1


def _alive(bench: Bench, seconds: float) -> None:
    while seconds > 0:
        step = min(10.0, seconds)
        bench.wait(step)
        bench.link.frame(bench.now)
        seconds -= step


def test_a_refresh_that_fails_is_tried_again_before_the_token_expires() -> None:
    bench = Bench()
    bench.live(renewable=True, expires=int(WALL) + 1000)
    _alive(bench, 805)
    assert len(bench.take(FetchToken)) == 1
    bench.link.token_fetched(bench.now, bench.link.attempt, None)
    _alive(bench, 60)
    assert len(bench.take(FetchToken)) == 1
    bench.link.token_fetched(bench.now, bench.link.attempt, "NEW")
    (refresh,) = bench.sent(Refresh)
    refused = Error(error=ErrorInfo(code="unauthorized", message="no"), request=refresh.request)
    assert bench.link.error(bench.now, refused)
    _alive(bench, 60)
    assert len(bench.take(FetchToken)) == 1


def test_the_wall_clock_decides_about_the_refresh_also_after_sleep() -> None:
    bench = Bench()
    bench.live(renewable=True, expires=int(WALL) + 3600)
    bench.wait(16.0, asleep=3000.0)
    assert len(bench.take(FetchToken)) == 1


def test_a_clock_that_was_set_forward_asks_for_a_token_once_a_second_and_not_all_the_time() -> None:
    """Until the offset is known anew, each fresh token seems to have expired when it comes."""
    bench = Bench()
    bench.live(renewable=True, expires=int(WALL) + 45)
    bench.wait(16.0, asleep=7200.0)  # a beat looks at the clock
    asked = 0
    for _ in range(100):
        bench.link.frame(bench.now)
        if bench.take(FetchToken):
            asked += 1
            bench.link.token_fetched(bench.now, bench.link.attempt, "NEW")
            (refresh,) = bench.sent(Refresh)
            bench.link.refreshed(bench.now, Refreshed(request=refresh.request, expires=int(WALL) + 45))
        bench.wait(0.1)
    assert 8 <= asked <= 11, "ten seconds"


def test_a_static_token_is_never_renewed() -> None:
    bench = Bench()
    bench.live(renewable=False, expires=int(WALL) + 100)
    _alive(bench, 200)
    assert bench.take(FetchToken) == []


def test_a_draining_server_says_when_to_come_back() -> None:
    bench = Bench(random=0.5)
    bench.live(spread=8.0)
    bench.link.draining(bench.now, Draining(reconnect_ms=3300))
    bench.link.lost(bench.now, bench.link.attempt, CloseCode.DRAINING, "bye")
    assert bench.link.status.next_attempt_at == pytest.approx(bench.mono + 3.3)
    assert bench.link.status.code == "draining"


def test_the_spread_counts_on_the_first_delay() -> None:
    bench = Bench(random=0.5)
    bench.live(spread=8.0)
    bench.break_()
    assert bench.link.status.next_attempt_at == pytest.approx(bench.mono + 1.125 + 4.0)


def test_another_major_version_fails() -> None:
    bench = Bench()
    bench.link.start(bench.now)
    opening = bench.locate()
    bench.link.opened(bench.now, opening.attempt)
    bench.link.welcome(bench.now, welcome(major=2))
    assert bench.phase == "failed"
    assert bench.link.status.code == "unsupported_version"
    assert len(bench.take(Disconnect)) == 1


def test_nothing_waits_for_ever() -> None:
    bench = Bench()
    bench.link.start(bench.now)
    bench.wait(LOCATE_TIMEOUT)
    assert bench.phase == "waiting"
    bench.wait(1.0)
    bench.take(Locate)
    bench.link.located(bench.now, bench.link.attempt, "ws://x:1", "T")
    bench.wait(10.0)
    assert bench.phase == "waiting"
    assert "handshake" in bench.link.status.reason
    assert bench.take(Disconnect)[0].abort
    bench.wait(2.0)
    bench.actions[:] = bench.actions[-1:]  # the Locate of this attempt
    opening = bench.locate()
    bench.link.opened(bench.now, opening.attempt)
    bench.wait(10.0)
    assert "welcome" in bench.link.status.reason


def test_closing() -> None:
    bench = Bench()
    bench.live()
    bench.link.close(bench.now)
    assert bench.phase == "closed"
    (goodbye,) = bench.take(Disconnect)
    assert (goodbye.code, goodbye.abort) == (1000, False)
    assert bench.link.next_deadline() is None
    bench.link.close(bench.now)
    bench.link.reconnect_now(bench.now)
    bench.link.lost(bench.now, bench.link.attempt, 1000, "")
    assert bench.phase == "closed"


def test_a_fault_of_the_program_shows_its_reason_and_tries_again() -> None:
    bench = Bench()
    bench.live()
    bench.link.fault(bench.now, bench.link.attempt, "KeyError: 'x'")
    assert bench.phase == "waiting"
    assert (bench.link.status.code, bench.link.status.reason) == ("internal", "KeyError: 'x'")


def test_where_no_server_is_it_is_looked_for_again_unless_none_can_be_there() -> None:
    bench = Bench()
    bench.link.start(bench.now)
    (first,) = bench.take(Locate)
    bench.link.not_located(
        bench.now, first.attempt, "connection_lost", "none", looked=("there",), fatal=False
    )
    assert (bench.phase, bench.link.status.reason, bench.link.status.looked) == (
        "waiting",
        "none",
        ("there",),
    )
    bench.wait(2.0)
    (second,) = bench.take(Locate)
    for attempt in (first.attempt, second.attempt):  # what is said of the first is of no interest any more
        looked = (f"attempt {attempt}",)
        bench.link.not_located(bench.now, attempt, "unauthorized", "no token", looked=looked, fatal=True)
    status = bench.link.status
    assert (status.phase, status.code, status.looked) == ("failed", "unauthorized", ("attempt 2",))
    assert bench.link.next_deadline() is None


def test_reports_and_messages_that_come_too_late_change_nothing() -> None:
    bench = Bench()
    bench.link.start(bench.now)
    opening = bench.locate()
    bench.link.close(bench.now)
    before = bench.link.status
    bench.actions.clear()
    bench.link.located(bench.now, opening.attempt, "ws://y", "T")
    bench.link.not_located(bench.now, opening.attempt, "x", "y", looked=(), fatal=True)
    bench.link.opened(bench.now, opening.attempt)
    bench.link.refused(bench.now, opening.attempt, 401, "", "")
    bench.link.lost(bench.now, opening.attempt, 1006, "")
    bench.link.fault(bench.now, opening.attempt, "")
    bench.link.token_fetched(bench.now, opening.attempt, "T")
    bench.link.welcome(bench.now, welcome())
    bench.link.synced(bench.now)
    bench.link.close(bench.now)
    bench.link.handle_timeout(bench.now)
    assert bench.link.status == before
    assert bench.actions == []


def test_what_is_located_twice_is_located_once() -> None:
    bench = Bench()
    bench.link.start(bench.now)
    opening = bench.locate()
    bench.link.located(bench.now, opening.attempt, "ws://another", "T")
    bench.link.not_located(bench.now, opening.attempt, "x", "y", looked=(), fatal=False)
    assert (bench.phase, bench.link.status.url) == ("connecting", "ws://x:1")
    assert bench.take(Open) == []


def test_closing_before_there_is_a_transport_closes_none() -> None:
    bench = Bench()
    bench.link.start(bench.now)
    bench.link.close(bench.now)
    assert bench.phase == "closed"
    assert bench.take(Disconnect) == []


def test_health_is_counted_from_the_first_moment_in_which_everything_was_in_sync() -> None:
    bench = Bench()
    bench.live()
    bench.break_()
    bench.wait(2.0)
    bench.live()
    bench.link.synced(bench.now)
    bench.wait(6)
    bench.link.frame(bench.now)
    bench.link.synced(bench.now)  # a further topic, in sync later
    bench.wait(5)
    assert bench.link.status.attempt == 0


def test_an_answer_without_a_time_tells_the_round_trip_alone() -> None:
    bench = Bench()
    bench.live()
    (beat,) = bench.sent(Heartbeat)
    bench.mono += 0.5
    bench.link.heartbeat_ack(bench.now, HeartbeatAck(n=beat.n))
    assert (bench.link.status.rtt, bench.link.status.clock_offset) == (0.5, None)
    bench.link.heartbeat_ack(bench.now, HeartbeatAck(n=beat.n))
    bench.link.heartbeat_ack(bench.now, HeartbeatAck(n=99, time="1"))
    assert bench.link.status.clock_offset is None, "nobody asked that"


def test_a_refresh_that_nobody_asked_for_changes_nothing() -> None:
    bench = Bench()
    bench.live(renewable=True)
    before = bench.link.status
    bench.link.refreshed(bench.now, Refreshed(request=99, expires=1))
    assert bench.link.status == before
    other = Error(error=ErrorInfo(code="not_available", message="no"), request=99)
    assert not bench.link.error(bench.now, other), "it answers another request"
    bench.break_()
    assert bench.link.status.code == "connection_lost", "and is not why the link broke"


def test_a_timer_that_fires_early_does_nothing() -> None:
    bench = Bench()
    bench.link.start(bench.now)
    bench.actions.clear()
    bench.link.handle_timeout(bench.now)
    bench.mono += LOCATE_TIMEOUT - 1
    bench.link.handle_timeout(bench.now)
    assert bench.phase == "locating"
    assert bench.actions == []
