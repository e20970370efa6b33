"""A server with a fake session side."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from wsmonitor_server.embedded import EmbeddedServer

from .fakes import FakeEngine


@pytest.fixture
async def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def server(engine: FakeEngine) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(engine=lambda config, clock: engine) as server:
        yield server
