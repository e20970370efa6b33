"""Figures in Prometheus' text form, as its own parser reads them."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from wsmonitor_server.metrics import Histogram, Value, render


def parsed(values: dict[str, Value]) -> dict[str, float]:
    """Samples by name and labels."""
    return {
        sample.name + "".join(f" {key}={text}" for key, text in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(render(values).decode())
        for sample in family.samples
    }


def test_plain_figures() -> None:
    text = render({"events_total": 3, "connections": 7}).decode()
    assert "# TYPE wsmonitor_connections gauge\nwsmonitor_connections 7\n" in text
    assert "# TYPE wsmonitor_events_total counter\nwsmonitor_events_total 3\n" in text
    assert text.index("connections") < text.index("events_total")
    assert "# HELP wsmonitor_connections Authenticated connections.\n" in text
    assert render({}) == b""


def test_figures_by_label() -> None:
    assert parsed({"resyncs_total": {"too_slow": 1, "reset": 0}}) == {
        "wsmonitor_resyncs_total reason=too_slow": 1,
        "wsmonitor_resyncs_total reason=reset": 0,
    }
    assert parsed({"info": {("1.0", "a\\b", 'c"d\ne'): 1}}) == {
        'wsmonitor_info server=a\\b store=c"d\ne version=1.0': 1
    }


def test_a_histogram() -> None:
    times = Histogram((0.1, 1.0))
    assert times.count == 0
    for seconds in (0.05, 0.1, 0.5, 2.0):
        times.observe(seconds)
    assert times.count == 4
    assert times.summary() == {"count": 4, "sum": 2.65}
    assert parsed({"commit_seconds": times}) == {
        "wsmonitor_commit_seconds_bucket le=0.1": 2,
        "wsmonitor_commit_seconds_bucket le=1.0": 3,
        "wsmonitor_commit_seconds_bucket le=+Inf": 4,
        "wsmonitor_commit_seconds_sum": 2.65,
        "wsmonitor_commit_seconds_count": 4,
    }


def test_two_histograms_together() -> None:
    first, second = Histogram((1,)), Histogram((1,))
    first.observe(0.5)
    second.observe(0.25)
    second.observe(3)
    both = Histogram.joined(first, second)
    assert (both.buckets, both.total, both.bounds) == ([2, 1], 3.75, (1,))
    assert first.count == 1, "these stay as they are"


def test_what_is_not_in_the_catalogue_is_not_served() -> None:
    with pytest.raises(KeyError):
        render({"surprise": 1})


def test_a_label_too_many_or_too_few_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        render({"resyncs_total": {("a", "b"): 1}})
