"""close_codes: the range decides whether a client reconnects."""

from __future__ import annotations

import pytest

from wsmonitor.protocol.close_codes import CloseCode, may_reconnect


def test_our_codes_by_their_range() -> None:
    ours = [code for code in CloseCode if code >= 4000]
    assert {code for code in ours if may_reconnect(code)} == {code for code in ours if code < 4100}
    assert all(4000 <= code < 4100 or 4500 <= code < 4600 for code in ours)


def test_the_codes_of_the_protocol() -> None:
    assert {code.name: int(code) for code in CloseCode} == {
        "NORMAL": 1000,
        "DRAINING": 4001,
        "INTERNAL": 4002,
        "TOKEN_EXPIRED": 4003,
        "TOO_SLOW": 4004,
        "HEARTBEAT_TIMEOUT": 4005,
        "RATE_LIMITED": 4006,
        "TOO_MANY_CONNECTIONS": 4007,
        "STATE_RESET": 4008,
        "BAD_REQUEST": 4500,
        "UNAUTHORIZED": 4501,
        "FORBIDDEN": 4502,
        "UNSUPPORTED_VERSION": 4503,
        "REPLACED": 4504,
    }


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 1012, 1013, 1014, 4000, 4099])
def test_reconnect_after(code: int) -> None:
    assert may_reconnect(code)


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1009, 1010, 4500, 4599, 4999])
def test_stop_after(code: int) -> None:
    assert not may_reconnect(code)


@pytest.mark.parametrize(("code", "may"), [(4499, True), (4500, False), (4999, False), (5000, True)])
def test_the_range_that_says_not_to_come_back(code: int, may: bool) -> None:
    assert may_reconnect(code) is may
