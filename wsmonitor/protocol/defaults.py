"""The protocol's default times and limits, with the reason of each. Seconds and bytes.

Both sides can configure them; the server announces its own in ``welcome``.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

SUBPROTOCOL: Final = "wsmonitor.v1"
BEARER_SUBPROTOCOL: Final = "wsmonitor.bearer."
"""A browser cannot set headers: it offers its token as a second subprotocol with this prefix."""

PROTOCOL_MAJOR: Final = 1
PROTOCOL_MINOR: Final = 0

AUDIENCE: Final = "wsmonitor"
ISSUER: Final = "wsmonitor"
TENANT: Final = "tenant"
"""The claim that names the tenant, unless a server is told otherwise."""

RECONNECT_DELAYS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Nominal delays before attempt 1, 2, 3 …; the last one repeats (check 5)."""


class Timing(Struct, frozen=True, kw_only=True):
    """Times, in seconds. Check 14 wants timeouts above 30 s."""

    heartbeat_interval: float = 15.0
    heartbeat_timeout: float = 35.0  # without any frame
    quiet_after: float = 3.0  # "no data for N s", past a due heartbeat
    handshake_timeout: float = 10.0
    request_timeout: float = 30.0
    healthy_after: float = 10.0  # of being live, before the reconnect delay starts anew
    producer_stale: float = 20.0
    producer_lost: float = 35.0
    producer_crashed: float = 120.0  # after lost
    presence_interval: float = 1.0
    idle_exit: float = 1800.0  # the local server's


class Limits(Struct, frozen=True, kw_only=True):
    """Sizes in bytes, counts, and rates per second. Each has an error of its own."""

    message_size: int = 2 * 1024 * 1024
    message_rate: float = 500.0  # sustained, a connection's messages per second
    message_burst: int = 2_000
    inline_value: int = 4 * 1024
    event_size: int = 32 * 1024
    page_size: int = 256 * 1024
    value_size: int = 1024 * 1024 * 1024
    batch_changes: int = 256
    batch_size: int = 1024 * 1024
    history_events: int = 1_000
    history_size: int = 4 * 1024 * 1024
    outbox_messages: int = 1_024
    outbox_size: int = 1024 * 1024
    subscriptions: int = 256  # per connection
    connections_per_subject: int = 1_000
    connections: int = 20_000
    handshakes: int = 1_024  # connections that have shown no token yet
    handshakes_per_address: int = 256  # of them
    publications: int = 64  # per connection
    uploads: int = 8  # open at once, per connection
    sessions: int = 100_000
    steps: int = 1_000_000  # per session
    log_records: int = 1_000  # kept per step
    problems: int = 100  # kept per session
    commands: int = 200  # finished ones kept per session
    pending_commands: int = 64  # per session
    session_commands: int = 100_000  # per session, in its whole life: their keys are never forgotten
    producers: int = 256  # per session
    presence_names: int = 50
