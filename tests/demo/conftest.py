"""A session over a fake connection: no server, no threads, time that the test moves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.publish.fake import Fake


@pytest.fixture
def fake() -> Iterator[Fake]:
    """The outside world of one test."""
    world = Fake()
    yield world
    world.close()
