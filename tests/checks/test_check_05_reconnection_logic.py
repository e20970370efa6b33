"""Check 5, Reconnection Logic (HIGH).

"When client loses connection, reconnection is attempted automatically with backoff strategy. Backoff
delays increase exponentially (1s, 2s, 4s, 8s, max 30s). Reconnection doesn't spam server. Reconnection
UI state shown to user."
"""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from tests.checks.harness import blocking, proxy, scene, until
from wsmonitor.client.backoff import Backoff
from wsmonitor.notebook import watch
from wsmonitor.notebook.feed import now
from wsmonitor.protocol.defaults import RECONNECT_DELAYS


async def test_reconnection_is_attempted_automatically_with_backoff() -> None:
    """ "When client loses connection, reconnection is attempted automatically with backoff strategy."

    The link is broken and the next two attempts fail; nobody tells the client to try again.
    """
    async with scene() as stage, proxy(stage.server) as relay:
        publisher = await stage.publish("etl~1")
        observer = await stage.observe("etl~1", url=relay.url)
        relay.attempts.clear()
        relay.refusing = True
        lost = time.monotonic()
        relay.cut()
        await until(lambda: observer.conn.status.phase == "waiting")
        publisher.step("missed")
        await publisher.flush()
        await until(lambda: len(relay.attempts) == 2)
        relay.refusing = False
        await until(lambda: observer.sub.phase == "live")
        assert len(relay.attempts) == 3
        first, second, third = (later - earlier for earlier, later in pairwise([lost, *relay.attempts]))
        # 1 s, 2 s, 4 s, each plus a jitter of up to a quarter (and what the machine needs).
        assert 1.0 <= first < 1.25 + 0.7
        assert 2.0 <= second < 2.5 + 0.7
        assert 4.0 <= third < 5.0 + 0.7
        assert "missed" in observer.state().steps
        await stage.agreed(observer)


def test_delays_increase_exponentially_up_to_30_seconds() -> None:
    """ "Backoff delays increase exponentially (1s, 2s, 4s, 8s, max 30s)." """
    assert RECONNECT_DELAYS == (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
    lowest, highest = Backoff(lambda: 0.0), Backoff(lambda: 1.0 - 2**-53)
    assert [lowest.next_delay() for _ in range(5)] == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert [highest.next_delay() for _ in range(5)] == pytest.approx([1.25, 2.5, 5.0, 10.0, 20.0])
    for _ in range(50):
        assert 22.5 <= lowest.next_delay() <= 30.0
        assert 22.5 <= highest.next_delay() <= 30.0
    lowest.reset()
    assert lowest.next_delay() == 1.0


async def test_reconnection_does_not_spam_the_server() -> None:
    """ "Reconnection doesn't spam server.": one attempt per delay, and many clients do not come together."""
    async with scene() as stage, proxy(stage.server) as relay:
        observers = [await stage.observe("etl~1", f"user {number}", url=relay.url) for number in range(10)]
        relay.attempts.clear()
        relay.refusing = True
        lost = time.monotonic()
        relay.cut()
        await until(lambda: all(one.conn.status.attempt >= 2 for one in observers))
        await until(lambda: all(one.conn.status.next_attempt_at is not None for one in observers))
        planned = {round(one.conn.status.next_attempt_at or 0.0, 3) for one in observers}
        tried = [at - lost for at in relay.attempts]
        # After about 1 s everybody tried once: ten attempts, not hundreds, and none before its time.
        assert len([at for at in tried if at < 1.0]) == 0
        assert len([at for at in tried if at < 2.5]) <= len(observers)
        assert len([at for at in tried if at < 7.0]) <= 2 * len(observers)
        # They do not plan to come in one instant.
        assert len(planned) > 1


async def test_reconnection_state_is_shown_to_the_user() -> None:
    """ "Reconnection UI state shown to user.": that it is lost, why, since when, the countdown."""
    async with scene() as stage, proxy(stage.server) as relay:
        await stage.publish("etl~1")
        observer = await stage.observe("etl~1", url=relay.url)
        relay.refusing = True
        before = time.monotonic()
        relay.cut()
        status = await until(lambda: status if (status := observer.conn.status).phase == "waiting" else None)
        assert status.lost_at is not None
        assert before - 0.1 <= status.lost_at <= time.monotonic()
        assert status.next_attempt_at is not None
        assert 0 < status.next_attempt_at - status.lost_at <= 1.25 + time.monotonic() - before
        assert status.reason
        assert status.code
        assert observer.sub.phase == "waiting"
        # "Reconnect now" does not wait for the countdown.
        relay.refusing = False
        observer.conn.reconnect_now()
        await until(lambda: observer.sub.phase == "live", patience=0.9)
        assert observer.conn.status.lost_at is None
        phases = [one.phase for one in observer.statuses]
        assert phases[phases.index("waiting") :][-1] == "live"


async def test_the_notebooks_view_shows_loss_countdown_and_recovery() -> None:
    """ "Reconnection UI state shown to user.": in what the observer's front-end is given."""
    async with scene() as stage, proxy(stage.server) as relay:
        await stage.publish("etl~1")
        token = stage.token("viewer")
        view = await blocking(lambda: watch("etl~1", url=relay.url, token=token))
        try:
            await until(lambda: view.connection.phase == "live" and view.state == "running")
            relay.refusing = True
            relay.cut()
            await until(lambda: view.view.head(now())["link"]["phase"] == "waiting")
            link = view.view.head(now())["link"]
            assert link["next"] is not None
            assert link["lost"] is not None
            assert link["reason"]
            assert view.view.head(now())["sub"]["phase"] != "live"
            # What was known stays to be seen, as old.
            assert view.session is not None
            relay.refusing = False
            view.reconnect_now()
            await until(lambda: view.view.head(now())["sub"]["phase"] == "live")
            names = [entry["name"] for entry in view.view.key(now())["log"]]
            assert names
            assert view.view.head(now())["link"]["phase"] == "live"
        finally:
            await blocking(view.close)
