"""defaults: the numbers that the protocol promises, one by one (check 5, check 11, check 14)."""

from __future__ import annotations

from wsmonitor.protocol import defaults
from wsmonitor.protocol.defaults import Limits, Timing


def test_reconnect_delays_increase_exponentially_1_2_4_8_up_to_30_seconds() -> None:
    assert defaults.RECONNECT_DELAYS == (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)


def test_heartbeats() -> None:
    assert Timing().heartbeat_interval == 15.0
    # Check 14: "Timeout values configurable and reasonable (> 30s)."
    assert Timing().heartbeat_timeout == 35.0
    assert Timing().heartbeat_timeout > 30.0
    assert Timing().heartbeat_timeout > 2 * Timing().heartbeat_interval
    assert Timing().quiet_after == 3.0
    assert Timing(heartbeat_timeout=60.0).heartbeat_timeout == 60.0


def test_producer_liveness() -> None:
    assert (Timing().producer_stale, Timing().producer_lost, Timing().producer_crashed) == (20.0, 35.0, 120.0)


def test_the_other_times() -> None:
    assert Timing().healthy_after == 10.0
    assert Timing().presence_interval == 1.0
    assert Timing().idle_exit == 30 * 60


def test_values_and_events() -> None:
    limits = Limits()
    assert limits.inline_value == 4 * 1024
    assert limits.event_size == 32 * 1024
    assert limits.page_size == 256 * 1024
    assert (limits.batch_changes, limits.batch_size) == (256, 1024 * 1024)
    assert (limits.history_events, limits.history_size) == (1_000, 4 * 1024 * 1024)
    assert (limits.outbox_messages, limits.outbox_size) == (1_024, 1024 * 1024)
    assert limits.presence_names == 50


def test_limits_fit_each_other() -> None:
    limits = Limits()
    # A page travels as base64 in one message, a full batch in one message.
    assert limits.page_size * 4 // 3 + 1024 < limits.message_size
    assert limits.batch_size < limits.message_size
    assert limits.inline_value < limits.event_size


def test_names_of_the_wire() -> None:
    assert defaults.SUBPROTOCOL == "wsmonitor.v1"
    assert defaults.BEARER_SUBPROTOCOL == "wsmonitor.bearer."
    assert (defaults.PROTOCOL_MAJOR, defaults.PROTOCOL_MINOR) == (1, 0)
    assert (defaults.AUDIENCE, defaults.ISSUER) == ("wsmonitor", "wsmonitor")
