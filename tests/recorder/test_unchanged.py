"""Recording changes nothing: what a kernel says with it, and what it says without it, is compared."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.notebook.test_kernel import Kernel
from wsmonitor_server.embedded import EmbeddedServer

from .conftest import Recorded, make_recorded
from .nasty import CELLS, LATE, SETUP

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(1_500)]

_VARIES = re.compile(r"0x[0-9a-f]{6,}|[0-9a-f]{32}|ipykernel_\d+/\d+\.py|/tmp/\S+|\(\d+\.py, line")


def plain(value: Any) -> Any:
    """Without what differs between two kernels anyway: addresses, ids, file names of cells."""
    if isinstance(value, str):
        return _VARIES.sub("…", value)
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def said(kernel: Kernel, cell: str) -> list[Any]:
    """All that the kernel says of a cell on IOPub, in order.

    Streams that follow one another are joined: how often they are flushed is a matter of time.
    """
    kernel.seen.clear()
    ident = kernel.client.execute(cell, allow_stdin=False, stop_on_error=False)
    kernel.end(ident)
    reply = kernel.reply
    found: list[Any] = []
    for message in kernel.seen:
        if message["parent_header"].get("msg_id") != ident:
            continue
        kind, content = message["msg_type"], plain(message["content"])
        if (
            kind == "stream"
            and found
            and found[-1][0] == "stream"
            and found[-1][1]["name"] == content["name"]
        ):
            found[-1][1]["text"] += content["text"]
        else:
            found.append((kind, content))
    content = plain(reply["content"])
    return [*found, {key: content[key] for key in content if key not in ("engine_info",)}]


def late(kernel: Kernel, cell: str, text: str) -> tuple[str, str]:
    """The stream, and the kind of parent, by which *text* comes."""
    ident = kernel.client.execute(cell)
    found = kernel.next(lambda m: m["msg_type"] == "stream" and text in m["content"]["text"])
    if not any(idle_of(message, ident) for message in kernel.seen):
        kernel.next(lambda message: idle_of(message, ident))
    assert found["parent_header"]["msg_id"] == ident
    return found["content"]["name"], found["content"]["text"].strip()


def idle_of(message: Any, ident: str) -> bool:
    return bool(
        message["parent_header"].get("msg_id") == ident
        and message["content"].get("execution_state") == "idle"
    )


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Kernel, Recorded]]:
    with EmbeddedServer.in_thread() as server:
        for recorded in make_recorded(server):
            bare = Kernel({"WSMONITOR_LOCAL": "off"})
            try:
                recorded.record("nasty")
                bare.run("1")  # so that both have counted one
                yield bare, recorded
            finally:
                bare.close()


def test_a_recorded_kernel_says_what_a_bare_one_says(both: tuple[Kernel, Recorded]) -> None:
    bare, recorded = both
    assert len(CELLS) > 200
    assert said(bare, SETUP) == said(recorded.kernel, SETUP)
    different = {}
    for cell in CELLS:
        with_, without = said(recorded.kernel, cell), said(bare, cell)
        if with_ != without:
            different[cell] = (with_, without)
    assert not different
    for cell, text in LATE.items():
        assert late(recorded.kernel, cell, text) == late(bare, cell, text)
    # And it was recorded: one step for each cell that Jupyter executes.
    recorded.run("'the last'")
    steps = recorded.steps_of(recorded.state)
    assert len(steps) == len(CELLS) + len(LATE) + 3
    assert all(step.ended for step in steps)
    assert "missed" not in recorded.kernel.run("%wsmonitor record status")
