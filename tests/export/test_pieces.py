"""The small parts of an exported page: progress, values, logs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from wsmonitor.export import pieces
from wsmonitor.export.frames import Frames
from wsmonitor.export.rendered import LONGEST, _best, _pre
from wsmonitor.protocol.entities import Failure, LogRecord, Progress, Step, Value


def a_step(**fields: Any) -> Step:
    return Step(id="x", chain="c", name="load", state="running", **fields)


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (None, ""),
        (Progress(done=3, total=12, unit="files"), "3 of 12 files"),
        (Progress(done=3, total=12), "3 of 12"),
        (Progress(done=3, unit="files"), "3 files"),
        (Progress(done=3), "3"),
        (Progress(done=40, total=100, unit="%"), "40 %"),
        (Progress(done=40, total=90, unit="%"), "40 of 90 %"),
    ],
)
def test_progress_in_words(progress: Progress | None, text: str) -> None:
    assert pieces.progress_words(a_step(progress=progress)) == text


def value(mime: str, text: str, **fields: Any) -> Value:
    return Value(mime=mime, text=text, **{"size": len(text), "sha256": "0" * 64, **fields})


def test_values_are_shown_as_text_whatever_they_are() -> None:
    assert "&lt;b&gt;" in pieces.value_html(value("text/plain", "<b>"))
    assert pieces.escaped('"a": 1') in pieces.value_html(value("application/json", '{"a":1}'))
    assert "{broken" in pieces.value_html(value("application/json", "{broken"))
    assert "one\ttwo" in pieces.value_html(
        value("text/html", "<tr><td>one</td><td>two</td></tr><script>x()</script>")
    )
    assert "x()" not in pieces.value_html(value("text/html", "<script>x()</script>seen"))
    cut = pieces.value_html(value("text/plain", "abc", size=5_000, truncated=True))
    assert "0" * 64 in cut
    assert pieces.value_html(value("text/plain", "")) == ""


def test_logs_say_how_much_of_them_is_there() -> None:
    records = [LogRecord(n=9, at="1700000000123000000", level="info", text="<last>")]
    whole = "".join(pieces.log_html(a_step(log_count=1, log_last="<last>"), records))
    some = "".join(pieces.log_html(a_step(log_count=9, log_last="<last>"), records))
    none = "".join(pieces.log_html(a_step(log_count=9, log_last="<last>"), []))
    assert "the last" not in whole
    assert "22:13:20.123" in whole
    assert "the last 1 of them" in some
    assert "only the last line" in none
    assert all("&lt;last&gt;" in text for text in (whole, some, none))


def test_a_long_output_is_cut_and_says_so() -> None:
    assert _pre("\x1b[31mred\x1b[0m", str.upper) == "<pre>RED</pre>"
    shown = _pre("x" * (LONGEST + 5), str, " class=bad")
    assert shown.startswith("<pre class=bad>xxx")
    assert f"the first {LONGEST:,} of {LONGEST + 5:,} characters" in shown


@pytest.mark.parametrize("datum", ["<svg>", {"a": [1]}])
def test_an_output_of_an_unknown_kind_is_named_and_shown_as_text(datum: object) -> None:
    shown = _best({"application/x-unknown": datum}, pieces.escaped, Frames(""))
    assert "application/x-unknown" in shown
    text = datum if isinstance(datum, str) else msgspec.json.encode(datum).decode()
    assert pieces.escaped(text) in shown
    assert _best({}, pieces.escaped, Frames("")) == ""


def test_a_style_that_closes_itself_hides_nothing_behind_it() -> None:
    frames = Frames("")
    shown, height = frames.document("<style/><p style='color:red'>text</p><br/>")
    assert "text" in shown
    assert height > 0


def test_an_error_is_a_line_and_its_traceback() -> None:
    error = Failure(code="step_failed", message="no <disk>", type="OSError", traceback="Traceback\n  <here>")
    assert pieces.headline(error).startswith("OSError")
    shown = pieces.error_html(error)
    assert "no &lt;disk&gt;" in shown
    assert "&lt;here&gt;" in shown
    assert "no disk" in pieces.headline(Failure(code="step_failed", message="no disk"))


@pytest.mark.parametrize(("value", "text"), [("a", "a"), (1.5, "1.5"), (["a", 2], "a, 2"), ([], "")])
def test_scalars(value: object, text: str) -> None:
    assert pieces.scalar(value) == text


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (Failure(type="json.DecodeError", message="bad"), "DecodeError: bad"),
        (Failure(type="KeyError"), "KeyError"),
        (Failure(message="bad"), "bad"),
        (Failure(), "step_failed"),
    ],
)
def test_the_headline_of_an_error(error: Failure, line: str) -> None:
    assert pieces.headline(error) == line
