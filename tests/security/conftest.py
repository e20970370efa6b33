"""What is logged, all of it."""

from __future__ import annotations

import io
import logging
import traceback
from collections.abc import Iterator

import pytest


class Ear:
    """Everything that is logged, at every level, as a file would have it: tracebacks and extras included."""

    def __init__(self) -> None:
        self.text = io.StringIO()
        self.handler = logging.StreamHandler(self.text)
        self.handler.setFormatter(self)  # type: ignore[arg-type]

    def format(self, record: logging.LogRecord) -> str:
        text = f"{record.name} {record.getMessage()} {record.__dict__}"
        return text + "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else text


@pytest.fixture
def ear() -> Iterator[Ear]:
    """As if somebody had said ``logging.basicConfig(level=DEBUG)``, and the server ``--verbose``."""
    ear = Ear()
    root, server = logging.getLogger(), logging.getLogger("wsmonitor_server")
    levels = root.level, server.level
    root.setLevel(logging.DEBUG)
    server.setLevel(logging.DEBUG)
    root.addHandler(ear.handler)
    yield ear
    root.removeHandler(ear.handler)
    root.setLevel(levels[0])
    server.setLevel(levels[1])
