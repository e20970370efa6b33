"""What is left out of a log is counted, and told with the next line."""

from __future__ import annotations

from wsmonitor_server.quota import Quota


def test_so_many_at_once_and_then_the_rate() -> None:
    quota = Quota(1.0, 3, 0.0)
    assert [quota.take(0.0) for _ in range(5)] == [0, 0, 0, None, None]
    assert quota.left_out == 2
    assert quota.take(1.0) == 2
    assert quota.left_out == 0
    assert quota.take(1.0) is None
    assert quota.take(2.0) == 1
