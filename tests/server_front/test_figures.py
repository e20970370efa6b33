"""The catalogue of metrics, and its page in the documentation."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from wsmonitor_server.figures import METRICS, PREFIX, SECTIONS, Metric, reference

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md"
EVERY = [pytest.param(metric, id=metric.name) for metric in METRICS.values()]


def test_each_name_stands_in_it_once() -> None:
    assert len(METRICS) == sum(len(section.metrics) for section in SECTIONS)


@pytest.mark.parametrize("metric", EVERY)
def test_names_are_as_prometheus_asks(metric: Metric) -> None:
    """Base units, and ``_total`` for what only rises (https://prometheus.io/docs/practices/naming/)."""
    assert re.fullmatch(r"(wsmonitor|process)_[a-z_]+", metric.full_name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    if metric.unit == "s":
        assert re.search(r"_seconds(_total)?$", metric.name)
    if metric.unit == "bytes":
        assert re.search(r"_bytes(_total)?$", metric.name)
    assert metric.meaning.endswith((".", "server.")), "a sentence"


def test_those_of_the_process_have_the_names_that_every_program_gives_them() -> None:
    assert METRICS["process_open_fds"].full_name == "process_open_fds"
    assert METRICS["events_total"].full_name == f"{PREFIX}events_total"


def test_the_page_says_what_the_catalogue_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert reference() in text, "renew its tables: python -m wsmonitor_server.figures"


def test_a_line_of_the_page() -> None:
    assert (
        "| `wsmonitor_resyncs_total{reason}` | counter, subscriptions | Subscriptions that were told"
        in reference()
    )
    assert "| `wsmonitor_ready` | gauge, 0 or 1 | " in reference()
    assert "| `wsmonitor_info{version, server, store}` | gauge | " in reference()


def test_it_is_printed(capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    runpy.run_path(str(Path(__file__).parents[2] / "server/wsmonitor_server/figures.py"), run_name="__main__")
    assert capsys.readouterr().out == reference()
