"""Logging: one line per event, ``time level logger event key=value …``, or the same as a JSON object.

What comes from outside (agents, reasons, addresses) is quoted, so that it cannot forge a line. Tokens never
get here: see `transport` for the library's own log.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

MAX_FILE: Final = 2 * 1024 * 1024
"""Bytes of the local server's log file before it is rotated; one old file is kept."""

LogFormat = Literal["text", "json"]

_KEY: Final = "wsmonitor_fields"


def fields(**values: object) -> dict[str, Any]:
    """The ``extra`` of a log call. Empty values are left out."""
    return {_KEY: {key: value for key, value in values.items() if value not in ("", None)}}


class Formatter(logging.Formatter):
    """The line's form."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")
        self._second = -1
        self._written = ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        # A storm of connections has thousands of lines of one second.
        second = int(record.created)
        if second != self._second:
            self._second, self._written = second, super().formatTime(record, "%Y-%m-%d %H:%M:%S")
        return f"{self._written}.{int(record.msecs):03d}"

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        values: dict[str, object] = getattr(record, _KEY, {})
        for key, value in values.items():
            text = str(value)
            plain = text.isascii() and text.isprintable() and " " not in text and '"' not in text
            line += f" {key}={text if plain else _quoted(text)}"
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ``time`` (UTC, RFC 3339), ``level``, ``logger``, ``event``, ``server``, then
    all that the event has; where there is one, ``exception`` with its traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.server = ""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, object] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
        }
        if self.server:
            line["server"] = self.server
        for key, value in getattr(record, _KEY, {}).items():
            line[key] = value if isinstance(value, int | float | bool) else str(value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # Escaped, so that a viewer breaks no line at a separator beyond ASCII, and a lone surrogate can be
        # written.
        return json.dumps(line, ensure_ascii=True)


def identify(instance: str) -> None:
    """From now on the lines of JSON logs say which server wrote them."""
    for handler in logging.getLogger("wsmonitor_server").handlers:
        if isinstance(handler.formatter, JsonFormatter):
            handler.formatter.server = instance


def _quoted(text: str) -> str:
    # JSON leaves line separators beyond ASCII as they are; a viewer may break lines at them.
    encoded = msgspec.json.encode(text).decode()
    if encoded.isprintable():
        return encoded
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in encoded)


def configure(path: Path | None, *, verbose: bool, form: LogFormat = "text") -> None:
    """Log to *path* (rotated), or to standard error.

    Args:
        path: the file, or None.
        verbose: whether DEBUG is logged.
        form: lines for people, or JSON for programs.
    """
    handler: logging.Handler
    if path is not None:
        handler = logging.handlers.RotatingFileHandler(
            path, maxBytes=MAX_FILE, backupCount=1, encoding="utf-8"
        )
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else Formatter())
    logger = logging.getLogger("wsmonitor_server")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False


def skip_what_is_not_logged() -> None:
    """Do not find out for each line which file and line of the source it comes from: no line has it.

    For the whole process, so only where that is the server's own.
    """
    # As https://docs.python.org/3/howto/logging.html#optimization has it: half of what a line costs.
    logging._srcfile = None
    logging.logThreads = False
    logging.logProcesses = False
    logging.logMultiprocessing = False
