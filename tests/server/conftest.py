"""Fixtures: a running engine over a memory store, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from wsmonitor_server.clock import ManualClock
from wsmonitor_server.engine import SessionEngine

from .support import engine_on


@pytest.fixture
async def running() -> AsyncIterator[tuple[SessionEngine, ManualClock]]:
    engine, clock = engine_on()
    await engine.start()
    yield engine, clock
    await engine.stop()
