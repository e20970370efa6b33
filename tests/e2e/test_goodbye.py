"""A producer that ends in order says goodbye: its silence afterwards is not a loss (HONEST)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

import wsmonitor as wm
from wsmonitor.client import EventApplied, SyncCompleted, Target, Update, connect
from wsmonitor.protocol.entities import Producer
from wsmonitor_server.embedded import EmbeddedServer

DONE = "import wsmonitor as wm\nwith wm.session('x') as s, s.step('a'): s.flush(30)\nprint(s.id)"
LEFT_OPEN = "import wsmonitor as wm\ns = wm.session('x'); s.__enter__(); s.flush(30)\nprint(s.id)"


def watch_until_closed(server: EmbeddedServer, session: str) -> Producer:
    """The session's producer, once it is closed (or as it is after 10 s)."""
    closed = threading.Event()
    with connect(
        Target(url=server.url, token=server.token(sub="o", role="observe", sessions=("*",)))
    ) as link:

        def update(what: Update) -> None:
            if isinstance(what, SyncCompleted | EventApplied) and any(
                one.closed for one in subscription.state.producers.values()
            ):
                closed.set()

        subscription = link.subscribe(session, update)
        closed.wait(10)
        (producer,) = subscription.snapshot().producers.values()
        return producer


def test_the_producer_is_closed_when_the_block_ends_and_the_program_goes_on() -> None:
    with EmbeddedServer.in_thread() as server:
        token = server.token(sub="p", role="publish", sessions=("*",))
        with (
            wm.session("x", url=server.url, token=token) as session,
            session.chain("c") as chain,
            chain.step("a"),
        ):
            pass
        producer = watch_until_closed(server, session.id)
    assert (producer.closed, producer.liveness) == (True, "live")


@pytest.mark.parametrize("program", [DONE, LEFT_OPEN], ids=["done", "left open"])
def test_the_producer_is_closed_when_the_program_exits(program: str) -> None:
    with EmbeddedServer.in_thread() as server:
        token = server.token(sub="p", role="publish", sessions=("*",))
        environment = {**os.environ, "WSMONITOR_URL": server.url, "WSMONITOR_TOKEN": token}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        producer = watch_until_closed(server, done.stdout.strip())
    assert done.stderr == ""
    assert (producer.closed, producer.liveness) == (True, "live")
