"""How often a browser is told something, on a virtual clock."""

from __future__ import annotations

from collections import Counter

from wsmonitor.notebook.pacing import (
    ALIVE,
    ASLEEP,
    KEY_EVERY,
    MESSAGES_PER_SECOND,
    UNSEEN,
    UNSEEN_BYTES,
    UNSEEN_UNSURE,
    Bucket,
    Pacing,
)


def drive(
    pacing: Pacing, seconds: float, *, changes_every: float | None, start: float = 0.0, seen: bool = True
) -> Counter[str]:
    """Let *seconds* pass in steps of 10 ms; count what is sent."""
    sent: Counter[str] = Counter()
    next_change = start
    for tick in range(round(seconds * 100)):
        now = start + tick / 100
        fresh = False
        if seen and tick % 1000 == 0:
            pacing.seen(now, True)
        if changes_every is not None and now >= next_change:
            next_change += changes_every
            pacing.changed()
            fresh = True
        action = pacing.next(now)
        if action is not None:
            pacing.sent(
                action, now, changed=fresh or (changes_every is not None and changes_every < 0.1), size=1000
            )
            sent[action] += 1
    return sent


def test_a_flood_of_changes_is_ten_frames_a_second_and_a_key_frame_every_three() -> None:
    sent = drive(Pacing(0.0), 60, changes_every=0.01)
    assert 540 <= sent["frame"] <= 600
    assert 60 / KEY_EVERY - 2 <= sent["key"] <= 60 / KEY_EVERY + 5
    assert sent["frame"] + sent["key"] <= 10 * 60 + 30


def test_when_nothing_changes_there_is_one_sign_of_life_a_second_and_no_frame() -> None:
    sent = drive(Pacing(0.0), 120, changes_every=None)
    assert sent["frame"] == 0
    assert sent["key"] == 3, "the first, and the two repeats in case that it was lost"
    assert 110 <= sent["alive"] <= 120 / ALIVE


def test_the_last_change_is_in_a_key_frame_within_three_seconds() -> None:
    pacing = Pacing(0.0)
    drive(pacing, 20, changes_every=0.01)
    keys = drive(pacing, KEY_EVERY + 0.2, changes_every=None, start=20.0, seen=False)
    assert keys["key"] >= 1


def test_a_large_key_frame_comes_less_often() -> None:
    pacing = Pacing(0.0)
    pacing.changed()
    pacing.sent("key", 0.0, size=3_000_000)
    pacing.changed()
    pacing.sent("frame", 1.0)
    assert pacing.next(4.0) != "key"
    assert pacing.next(21.0) == "key"


def test_where_nobody_looks_there_is_one_message_a_minute() -> None:
    pacing = Pacing(0.0)
    pacing.seen(0.0, True)
    drive(pacing, UNSEEN + 1, changes_every=0.5, seen=False)
    assert pacing.asleep(UNSEEN + 1)
    assert pacing.promise(UNSEEN + 1) == ASLEEP
    sent = drive(pacing, 600, changes_every=0.5, start=UNSEEN + 1, seen=False)
    assert sum(sent.values()) <= 11


def test_where_acknowledgements_may_be_late_the_patience_is_longer() -> None:
    pacing = Pacing(0.0)
    pacing.seen(0.0, False)
    assert not pacing.asleep(UNSEEN + 1)
    assert pacing.asleep(UNSEEN_UNSURE + 1)


def test_who_looks_again_gets_a_key_frame_at_once() -> None:
    pacing = Pacing(0.0)
    pacing.seen(0.0, True)
    drive(pacing, 5, changes_every=None, seen=False)
    pacing.seen(100.0, True)
    assert pacing.next(100.0) == "key"


def test_the_deadline_is_when_something_is_due() -> None:
    pacing = Pacing(0.0)
    pacing.sent("key", 0.0)
    assert pacing.next(0.5) is None
    assert pacing.deadline(0.5) == ALIVE
    assert pacing.next(pacing.deadline(0.5)) == "alive"


def test_the_bucket_holds_the_rate_of_the_process() -> None:
    bucket = Bucket(0.0)
    taken = [tick for tick in range(10_000) if bucket.take(tick / 1000)]
    assert len(taken) > 0.6 * MESSAGES_PER_SECOND * 10
    for first in taken:
        within = sum(first <= tick < first + 1_000 for tick in taken)
        assert within <= MESSAGES_PER_SECOND, "in any second"


def test_what_is_reserved_is_left_to_others() -> None:
    bucket = Bucket(0.0, burst=3)
    assert bucket.take(0.0, reserve=2)
    assert not bucket.take(0.0, reserve=2)
    assert bucket.take(0.0)
    bucket.use()
    bucket.use()
    assert not bucket.take(0.0)


def test_somebody_who_asks_gets_a_key_frame_at_once() -> None:
    pacing = Pacing(0.0)
    drive(pacing, 10, changes_every=None)
    pacing.changed()
    pacing.hurry()
    assert pacing.next(10.0) == "key"


def test_a_page_that_acknowledges_nothing_is_taken_for_closed_after_some_bytes() -> None:
    pacing = Pacing(0.0)
    assert not pacing.asleep(1.0)
    pacing.spent(UNSEEN_BYTES)
    assert not pacing.asleep(1.0)
    pacing.spent(1)
    assert pacing.asleep(1.0)
    pacing.seen(1.0, True)
    assert not pacing.asleep(1.0)
