"""The kernel extension's magics, what they tell, and the static trace."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from tests.notebook.samples import nightly, ns
from wsmonitor.notebook import reports, tutorials
from wsmonitor.notebook.reports import browser_words, listing_table
from wsmonitor.notebook.snapshot import SessionSnapshot, take
from wsmonitor.notebook.trace import body, empty_trace, sanitize_file, trace
from wsmonitor.protocol.entities import Listing
from wsmonitor.protocol.errors import WaitTimeoutError
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.embedded import EmbeddedServer


def sample() -> SessionSnapshot:
    snapshot = take(SessionState.restore("nightly-etl~3", "e", 1160, nightly()))
    assert snapshot is not None
    return snapshot


def test_the_static_trace_is_readable_and_escaped() -> None:
    text = body(sample(), 0)
    assert "check drift" in text
    assert "KeyError: &#x27;segment&#x27;" in text
    assert text.index("load") < text.index("features") < text.index("train")
    assert "<script" not in text


def test_what_varies_is_what_the_sanitize_file_takes_out() -> None:
    pattern = re.search(r"regex: (<!--.*)", sanitize_file().read_text(encoding="utf-8"))
    assert pattern is not None
    cleaned = {
        re.sub(pattern[1], "X", html) for html in (empty_trace(), trace(sample(), 0), trace(sample(), 10**12))
    }
    assert len(cleaned) == 1


def test_sessions_are_listed_newest_first() -> None:
    old = Listing(id="a~1", name="a", run=1, state="failed", problem="no disk", created=ns(1))
    new = Listing(
        id="a~2", name="a", run=2, state="running", liveness="lost", counts={"running": 2}, created=ns(2)
    )
    table = listing_table([old, new])
    assert [row[-1] for row in table.rows] == ["a~2", "a~1"]
    assert table.rows[0][2] == "▶ was running (producer lost)"
    assert [row[2] for row in listing_table([old, new], live=False).rows] == ["▶ was running", "✕ failed"]
    assert "no disk" in repr(table)
    assert "<td" in table._repr_html_()


def test_whether_a_browser_answered_is_told_with_what_to_do() -> None:
    assert "nothing is watched" in browser_words([])
    assert "needs anywidget" in browser_words([None])
    assert browser_words([None, 3.2]) == "a front-end answered 3 s ago"


def test_tutorials_are_found_by_name_only() -> None:
    assert tutorials.path("01-first-session.ipynb").is_file()
    for name in ("../README.md", "nothing.ipynb"):
        with pytest.raises(FileNotFoundError, match="01-first-session"):
            tutorials.path(name)


def test_status_says_why_it_is_this_server(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedServer.in_thread() as server:
        monkeypatch.setenv("WSMONITOR_URL", server.url)
        monkeypatch.setenv("WSMONITOR_TOKEN", server.token(sub="ada", role="observe"))
        told = dict(shell.run_line_magic("wsmonitor", "status").rows)
        assert told["server"] == server.url
        assert told["because"] == f"WSMONITOR_URL: {server.url}"
        assert told["link"] == "live"
        assert told["signed in as"] == "ada (observe: *)"
        assert repr(shell.run_line_magic("wsmonitor", "sessions")).startswith("no sessions yet")


def test_status_without_a_server_is_told_at_once_and_sessions_say_where_was_looked(
    shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSMONITOR_LOCAL", "process")
    begun = time.monotonic()
    rows = shell.run_line_magic("wsmonitor", "status").rows
    assert time.monotonic() - begun < reports.PATIENCE, "it does not wait for a server that is not there"
    assert ("looked", "WSMONITOR_URL: not set") in rows
    assert dict(rows)["link"].startswith("waiting: no local server is running")
    monkeypatch.setattr(reports, "PATIENCE", 0.5)
    with pytest.raises(WaitTimeoutError, match="looked: an explicit address: none is given; WSMONITOR_URL"):
        shell.run_line_magic("wsmonitor", "sessions")


def test_the_magic_watches(shell: Any) -> None:
    assert repr(shell.run_line_magic("wsmonitor", "watch 'my job'")) == "Observer('my job')"
