"""Pieces of the HTML file: values, errors, progress and log lines, as escaped text. Pure."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from typing import Final

import msgspec

from wsmonitor.protocol.entities import Chain, Failure, LogRecord, Session, Step, Value

from .words import moment, number, plural, size


def escaped(value: str) -> str:
    """*value* escaped; control characters, which HTML may not hold, become visible pictures of themselves."""
    return html.escape(
        "".join(c if c >= " " or c in "\n\t" else chr(0x2400 + ord(c)) for c in value).replace(
            "\x7f", "\u2421"
        )
    )


def headline(error: Failure) -> str:
    """A failure in one line: the exception's short name and its message, else its code."""
    kind = error.type.rpartition(".")[2]
    return f"{kind}: {error.message}" if kind and error.message else kind or error.message or error.code


def error_html(error: Failure) -> str:
    told = f"<p class=bad>{escaped(headline(error))} <code>[{escaped(error.code)}]</code></p>"
    return told + (f"<pre class=bad>{escaped(error.traceback)}</pre>" if error.traceback else "")


def progress_words(item: Session | Chain | Step) -> str:
    """``3 of 12 files``; "" where there is no progress to tell."""
    progress = item.progress
    if progress is None:
        return ""
    if progress.unit == "%" and progress.total == 100:
        return f"{number(progress.done)} %"
    unit = f" {progress.unit}" if progress.unit else ""
    if not progress.total:
        return f"{number(progress.done)}{unit}"
    return f"{number(progress.done)} of {number(progress.total)}{unit}"


def scalar(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def value_html(value: Value) -> str:
    shown = value.text
    if value.mime == "text/html":
        shown = text_of_html(shown)
    elif value.mime == "application/json" and not value.truncated:
        try:
            shown = msgspec.json.format(shown, indent=2)
        except msgspec.DecodeError:
            shown = value.text  # shown as it is: the file does not judge what was published
    told = f"<pre>{escaped(shown)}</pre>" if shown else ""
    if value.truncated:
        told += (
            f"<p class=cut>⚠ the first {size(len(value.text.encode()))} of {size(value.size)} "
            f"({escaped(value.mime)}, sha256 <code>{value.sha256}</code>)</p>"
        )
    return told


def log_html(step: Step, records: Sequence[LogRecord]) -> Iterator[str]:
    yield f"<h3>Log: {plural(step.log_count, 'line')}"
    if records and len(records) < step.log_count:
        yield f", the last {len(records):,} of them"
    yield "</h3>"
    if not records:
        yield f"<pre>{escaped(step.log_last)}</pre><p class=cut>only the last line is in this file</p>"
        return
    text = "\n".join(
        f"{moment(record.at, date=False, millis=True)} {record.level:<7} {record.text}" for record in records
    )
    yield f"<pre>{escaped(text)}</pre>"


class _TextOfHtml(HTMLParser):
    """The text of an HTML preview: a line per block or table row, a tab between cells."""

    _BREAK: Final = frozenset({"p", "div", "br", "tr", "li", "h1", "h2", "h3", "h4", "table", "pre"})
    _HIDDEN: Final = frozenset({"style", "script", "template"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden += tag in self._HIDDEN
        if tag in self._BREAK:
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.hidden = max(0, self.hidden - (tag in self._HIDDEN))
        if tag in {"td", "th"}:
            self.pieces.append("\t")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.pieces.append(" ".join(data.split()))


def text_of_html(source: str) -> str:
    """The text in *source*, never its markup: what others published is not rendered."""
    parser = _TextOfHtml()
    parser.feed(source)
    parser.close()
    lines = ("".join(parser.pieces)).split("\n")
    return "\n".join(line.rstrip("\t ") for line in lines if line.strip())
