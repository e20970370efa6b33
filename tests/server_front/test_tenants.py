"""Tenants: what each may have, by a clock that the test owns."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest

from wsmonitor_server import tenants
from wsmonitor_server.tenants import OTHERS, UNNAMED, Allowance, Tenant, TenantLimits, Tenants


def nothing(sessions: Collection[str], uploads: Mapping[tuple[str, str], int]) -> int:
    """No session refers to any value."""
    return sum(uploads.values())


def tenant(**limits: float) -> Tenant:
    return Tenant("acme", TenantLimits(**limits), 0.0)  # type: ignore[arg-type]  # numbers as they are given


def test_ten_seconds_worth_at_once_and_then_the_rate() -> None:
    allowance = Allowance(5.0, 0.0)
    assert allowance.full(0.0)
    allowance.take(50)
    assert not allowance.full(0.0)
    assert allowance.wait(0.0) == pytest.approx(0.2)
    assert allowance.wait(0.3) == 0.0
    allowance.take(101.5)
    assert allowance.wait(0.3) == pytest.approx(20.2), "a large message makes a debt, and is not refused"
    assert allowance.wait(20.6) == 0.0
    assert not allowance.full(30.0)
    assert allowance.full(1_000.0), "more than ten seconds' worth is never there"


def test_a_clock_that_goes_back_gives_and_takes_nothing() -> None:
    allowance = Allowance(1.0, 10.0)
    allowance.take(10)
    assert allowance.wait(5.0) == pytest.approx(1.0)
    assert allowance.wait(6.5) == 0.0


def test_without_a_limit_nothing_is_refused() -> None:
    free = tenant()
    free.connections = free.subscriptions = 10**6
    for number in range(100):
        free.opened(f"s{number}")
    assert free.connect() is free.subscribe() is free.open("another") is None
    assert free.publish(10**9, 10**12, 0.0) is None
    assert free.upload("s", "a" * 64, 10**15, 0.0, nothing) is None
    assert free.refused == 0


@pytest.mark.parametrize("name", ["connections", "subscriptions"])
def test_what_is_there_at_once(name: str) -> None:
    one = tenant(**{name: 2})
    ask = {"connections": one.connect, "subscriptions": one.subscribe}[name]
    assert ask() is None
    setattr(one, name, 2)
    info = ask()
    assert info is not None
    assert (info.code, info.retryable) == ("limit_exceeded", True)
    assert info.message == f"the limit `{name}` of 2 for the tenant 'acme' is reached on this server"
    assert info.details == {"limit": f"tenant.{name}", "value": 2, "tenant": "acme", "retry_after": 10.0}
    assert one.refused == 1


def test_sessions_are_counted_and_not_their_producers() -> None:
    one = tenant(sessions=1)
    assert one.open("a") is None
    one.opened("a")
    one.opened("a")
    assert one.open("a") is None, "another producer of the same"
    assert one.open("b") is not None
    one.closed("a")
    assert one.open("b") is not None
    one.closed("a")
    assert one.open("b") is None
    assert not one.sessions


def test_changes_a_second() -> None:
    one = tenant(event_rate=100)
    assert one.publish(1_200, 10, 0.0) is None
    info = one.publish(1, 10, 0.0)
    assert info is not None
    assert info.details == {"limit": "tenant.event_rate", "value": 100, "tenant": "acme", "retry_after": 2.01}
    assert one.publish(0, 10, 0.0) is None, "a page of a value has no changes"
    assert one.publish(1, 10, 2.01) is None, "after as long as was said"
    assert (one.changes, one.received, one.refused) == (1_201, 30, 1)


def test_bytes_a_second() -> None:
    one = tenant(byte_rate=1_000)
    assert one.publish(1, 12_000, 0.0) is None
    info = one.publish(1, 1, 1.0)
    assert info is not None
    assert info.details["limit"] == "tenant.byte_rate"
    assert one.publish(1, 1, 1.0 + info.details["retry_after"]) is None


def test_those_without_a_tenant_are_told_so() -> None:
    one = Tenant("", TenantLimits(subscriptions=1), 0.0)
    one.subscriptions = 1
    info = one.subscribe()
    assert info is not None
    assert "for those without a tenant is reached" in info.message


def test_bytes_of_values() -> None:
    one = tenant(value_bytes=100)
    asked: list[tuple[set[str], dict[tuple[str, str], int]]] = []

    def stored(sessions: Collection[str], uploads: Mapping[tuple[str, str], int]) -> int:
        asked.append((set(sessions), dict(uploads)))
        return 40 + sum(uploads.values())

    one.opened("a")
    assert one.upload("b", "v", 60, 0.0, stored) is None
    assert asked == [({"a", "b"}, {})]
    assert one.upload("b", "v", 60, 0.0, stored) is None, "its further pages"
    info = one.upload("b", "w", 1, 1.0, stored)
    assert info is not None
    assert (info.details["limit"], info.retryable) == ("tenant.value_bytes", True)
    assert asked[1:] == [({"a", "b"}, {("b", "v"): 60})]
    too_large = one.upload("b", "x", 101, 1.0, stored)
    assert too_large is not None
    assert not too_large.retryable, "it would be refused for ever"
    assert one.upload("b", "w", 1, tenants.UPLOAD_AGE, stored) is None, "the first one has been removed"


def test_uploads_that_nothing_refers_to_are_so_many_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenants, "UPLOADS", 2)
    one = tenant(value_bytes=100)
    assert one.upload("s", "a", 1, 0.0, nothing) is None
    assert one.upload("s", "b", 1, 0.0, nothing) is None
    assert one.upload("s", "c", 1, 0.0, nothing) is not None


def test_each_tenant_has_its_own_limits_and_counts() -> None:
    all_of_them = Tenants(TenantLimits(connections=1), {"acme": TenantLimits(connections=2)})
    acme, other, unnamed = (all_of_them.of(name, 0.0) for name in ("acme", "globex", ""))
    for one in (acme, other, unnamed):
        one.connections = 1
    assert acme.connect() is None
    assert other.connect() is not None
    assert unnamed.connect() is not None
    assert all_of_them.of("acme", 5.0) is acme
    assert len(all_of_them) == 3
    assert Tenants().of("x", 0.0).limits == TenantLimits()


def test_only_those_that_are_configured_have_a_name_in_the_metrics() -> None:
    all_of_them = Tenants(None, {"acme": TenantLimits(), "": TenantLimits(), "idle": TenantLimits()})
    for name in ("acme", "", *(f"invented {n}" for n in range(100))):
        one = all_of_them.of(name, 0.0)
        one.connections = 1
        one.opened("s")
        one.publish(2, 3, 0.0)
    measures = all_of_them.measures()
    assert measures["tenant_connections"] == {"acme": 1, UNNAMED: 1, OTHERS: 100, "idle": 0}
    assert measures["tenant_changes_total"] == {"acme": 2, UNNAMED: 2, OTHERS: 200, "idle": 0}
    assert measures["tenant_sessions"] == {"acme": 1, UNNAMED: 1, OTHERS: 100, "idle": 0}


def test_names_that_are_made_up_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has a connection stays; who has used something is forgotten last; counters never go back."""
    monkeypatch.setattr(tenants, "KEPT", 4)
    all_of_them = Tenants(TenantLimits(event_rate=1))
    staying = all_of_them.of("staying", 0.0)
    staying.connections = 1
    used = all_of_them.of("used", 0.0)
    assert used.publish(100, 1, 0.0) is None
    for number in range(50):
        all_of_them.of(f"invented {number}", 0.0)
        assert len(all_of_them) <= 4
    assert all_of_them.of("staying", 0.0) is staying
    assert all_of_them.of("used", 0.0) is used
    for number in range(50):
        assert all_of_them.of(f"busy {number}", 0.0).publish(100, 1, 0.0) is None
        assert len(all_of_them) <= 4
    assert all_of_them.of("staying", 0.0) is staying
    assert all_of_them.measures()["tenant_changes_total"] == {UNNAMED: 0, OTHERS: 5_100}


def test_with_connections_everywhere_nobody_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenants, "KEPT", 2)
    all_of_them = Tenants()
    made = []
    for name in "abc":
        made.append(all_of_them.of(name, 0.0))
        made[-1].connections = 1
    assert [all_of_them.of(name, 0.0) for name in "abc"] == made
