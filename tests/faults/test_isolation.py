"""No byte of a session reaches a connection that does not watch it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scale import SCALE

from .isolation import Scanner, Tally, isolate, mark


@pytest.mark.timeout(600 * SCALE)
def test_no_foreign_byte_arrives_while_observers_come_and_go(tmp_path: Path) -> None:
    sessions, each, deliveries = (100, 10, 1_000_000) if SCALE > 1 else (12, 4, 8_000)
    tally, _ = isolate(tmp_path, sessions, each, deliveries, 20_261_123)
    assert tally.foreign == []
    assert tally.deliveries >= deliveries
    assert tally.marks > 8 * deliveries, "every event carries its session's mark many times"
    assert tally.connections > sessions * each, "observers have come back"
    assert tally.changes > 0, "and have changed on the connection that they had"


def test_the_scanner_finds_a_foreign_mark_wherever_it_is_torn() -> None:
    own, foreign = mark(7).encode(), mark(8).encode()
    text = b'{"a":"' + own + b'x"}' + foreign + own
    for cut in range(len(text) + 1):
        for second in range(cut, len(text) + 1):
            tally = Tally()
            scanner = Scanner(tally)
            scanner.allowed = {7}
            for part in (text[:cut], text[cut:second], text[second:]):
                scanner.feed(part)
            assert (tally.marks, len(tally.foreign)) == (3, 1), (cut, second)
