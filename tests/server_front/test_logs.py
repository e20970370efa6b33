"""The log's lines: what comes from outside cannot forge one, and a file does not grow for ever."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsmonitor_server import logs


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("wsmonitor_server")
    before = logger.handlers[:], logger.level, logger.propagate
    yield logger
    for handler in logger.handlers:
        if handler not in before[0]:
            handler.close()
    logger.handlers, logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


def test_values_from_outside_are_quoted(logger: logging.Logger, tmp_path: Path) -> None:
    logs.configure(tmp_path / "server.log", verbose=False)
    logger.info(
        "connection opened",
        extra=logs.fields(
            connection="c1", agent='evil\n2026-01-01 INFO forged "x"', subject="ünï\u2028x", empty=""
        ),
    )
    logger.debug("not at this level")
    (line,) = (tmp_path / "server.log").read_text("utf-8").splitlines()
    assert line.endswith(
        "INFO wsmonitor_server connection opened connection=c1 "
        'agent="evil\\n2026-01-01 INFO forged \\"x\\"" subject="ünï\\u2028x"'
    )


def test_the_file_is_rotated(logger: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_FILE", 10_000)
    logs.configure(tmp_path / "server.log", verbose=True)
    for number in range(1_000):
        logger.debug("line %d", number)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"server.log", "server.log.1"}
    assert all(size <= 10_000 for size in sizes.values())
    assert "line 999" in (tmp_path / "server.log").read_text()


def test_each_line_has_its_own_time(logger: logging.Logger) -> None:
    """Also those of one second, for which the text is made once."""
    formatter = logs.Formatter()
    times = []
    for created in (1_000.25, 1_000.75, 1_001.0, 1_000.5):
        record = logger.makeRecord("wsmonitor_server", logging.INFO, "", 0, "x", (), None)
        record.created, record.msecs = created, created % 1 * 1000
        times.append(formatter.format(record).split(" INFO ")[0])
    assert [time[-4:] for time in times] == [".250", ".750", ".000", ".500"]
    assert times[0][:-4] == times[1][:-4] == times[3][:-4] != times[2][:-4]


def test_lines_of_the_servers_own_process_look_the_same(
    logger: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_srcfile", "logThreads", "logProcesses", "logMultiprocessing"):
        monkeypatch.setattr(logging, name, getattr(logging, name))
    logs.configure(tmp_path / "server.log", verbose=False)
    logger.warning("a %s", "line", extra=logs.fields(connection="c1"))
    logs.skip_what_is_not_logged()
    logger.warning("a %s", "line", extra=logs.fields(connection="c1"))
    lines = (tmp_path / "server.log").read_text("utf-8").splitlines()
    assert [line.split(" WARNING ")[1] for line in lines] == ["wsmonitor_server a line connection=c1"] * 2


def test_lines_for_programs(logger: logging.Logger, tmp_path: Path) -> None:
    """One object each, whatever comes from outside; with the server's id as soon as it is known."""
    logs.configure(tmp_path / "server.log", verbose=False, form="json")
    logger.info("before it is known")
    logs.identify("4711")
    logger.warning(
        "%s things",
        "odd",
        extra=logs.fields(agent='x"\n\u2028\ud800', count=3, sure=True, error=ValueError("v"), empty=""),
    )
    try:
        raise OSError("no such thing")
    except OSError:
        logger.exception("a fault")
    lines = (tmp_path / "server.log").read_bytes().splitlines()
    first, second, third = (json.loads(line) for line in lines)
    assert "server" not in first
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", second.pop("time"))
    assert second == {
        "level": "WARNING",
        "logger": "wsmonitor_server",
        "event": "odd things",
        "server": "4711",
        "agent": 'x"\n\u2028\ud800',
        "count": 3,
        "sure": True,
        "error": "v",
    }
    assert third["event"] == "a fault"
    assert third["exception"].splitlines()[-1] == "OSError: no such thing"
