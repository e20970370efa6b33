"""The whole client against a real server, over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from wsmonitor.client import (
    Connection,
    EventApplied,
    GapFound,
    PhaseChanged,
    RunChanged,
    SyncCompleted,
    Target,
    aconnect,
    connect,
    connections,
    handles,
)
from wsmonitor.client import runner as runners
from wsmonitor.client.follow import follow
from wsmonitor.protocol.changes import ChainChange, CommandChange, SessionChange, StepChange
from wsmonitor.protocol.entities import CommandSpec
from wsmonitor.protocol.errors import InvalidIdError, RequestError, UsageError
from wsmonitor_server.embedded import EmbeddedServer

from .helpers import Owner, Updates, eventually


@pytest.fixture
def server() -> Iterator[Any]:
    with EmbeddedServer.in_thread() as running:
        yield running


@pytest.fixture
def conn(server: Any) -> Iterator[Connection]:
    with connect(Target(url=server.url, token=server.token(sub="alice"), name="Alice")) as handle:
        handle.wait_live(10)
        yield handle


def _client_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("wsmonitor-client")]


def test_a_session_is_watched_from_before_its_birth(conn: Connection) -> None:
    told = Updates()
    sub = conn.subscribe("job~1", told)
    sub.wait(lambda s: s.phase == "absent", 10)
    assert sub.position is not None
    assert sub.position[1] == 0
    owner = Owner()
    pub = conn.publication("job~1", "p1", owner, agent="test")
    numbers = [
        pub.submit(SessionChange(name="job", state="running")),
        pub.submit(ChainChange(id="c", name="chain", state="running")),
        *(pub.submit(StepChange(id=f"s{i}", chain="c", name="step")) for i in range(50)),
    ]
    assert numbers == list(range(1, 53))
    assert pub.flush(10)
    assert pub.unacknowledged == 0
    sub.wait(lambda s: s.state is not None and len(s.state.steps) == 50, 10)
    seqs = [update.event.seq for update in told.of(EventApplied)]
    assert seqs == list(range(1, len(seqs) + 1))  # ORDER, GAPLESS, ONCE
    snapshot = sub.snapshot()
    assert snapshot is not None
    assert snapshot.session is not None
    assert snapshot.session.state == "running"
    assert owner.openings == [(snapshot.epoch, False)]
    assert owner.acks[-1] == 52
    assert owner.rejections == []
    assert sub.counters.applied == len(seqs)
    assert pub.close(10)


def test_a_late_listener_of_the_same_topic_is_told_where_things_stand(conn: Connection) -> None:
    first = conn.subscribe("job~1")
    pub = conn.publication("job~1", "p1", Owner())
    pub.submit(SessionChange(name="job", state="running"))
    first.wait(lambda s: s.phase == "live" and s.state is not None and s.state.session is not None, 10)
    told = Updates()
    second = conn.subscribe("job~1", told)
    second.wait(lambda s: s.phase == "live", 10)
    assert isinstance(told[0], SyncCompleted)
    assert told[1] == PhaseChanged("live")
    assert second.counters.syncs == 1  # one subscription on the wire
    first.close()
    pub.submit(StepChange(id="s", chain="c", name="n"))
    pub.submit(ChainChange(id="c", name="chain"))
    second.wait(lambda s: s.state is not None and bool(s.state.chains), 10)


def test_commands_arrive_once_and_their_record_is_seen(conn: Connection) -> None:
    told = Updates()
    sub = conn.subscribe("job~1", told)
    owner = Owner()
    pub = conn.publication("job~1", "p1", owner)
    pub.submit(SessionChange(name="job", state="running", commands=(CommandSpec(name="pause"),)))
    assert pub.flush(10)
    reply = conn.command("job~1", "pause").result(10)
    command = eventually(lambda: owner.commands)[0]
    assert command.id == reply.command.id
    pub.submit(CommandChange(id=command.id, state="accepted"))
    pub.submit(CommandChange(id=command.id, state="applied"))
    sub.wait(lambda s: s.state is not None and s.state.commands[command.id].state == "applied", 10)
    states = [update.entity.state for update in told.of(EventApplied) if update.event.kind == "command"]
    assert states == ["requested", "delivered", "accepted", "applied"]
    assert len(owner.commands) == 1


@pytest.mark.parametrize("topic", ["", "a/b", "a*", "x" * 129, "/directory/", "/directory/ x", "/directoryx"])
def test_what_is_no_topic_is_refused_where_it_is_asked(conn: Connection, topic: str) -> None:
    with pytest.raises(InvalidIdError):
        conn.subscribe(topic)


def test_a_value_alone_is_flushed_too(conn: Connection) -> None:
    pub = conn.publication("job~1", "p1", Owner())
    pub.submit(SessionChange(name="job"))
    data = b"x" * 10_000
    assert pub.submit_value(data, hashlib.sha256(data).hexdigest())
    assert pub.flush(10)


def test_a_refused_request_raises_the_servers_words(conn: Connection) -> None:
    with pytest.raises(RequestError) as caught:
        conn.fetch_value("no-such~1", "0" * 64).result(10)
    assert caught.value.code in ("not_available", "gone")


def test_nothing_remains_after_the_last_close(server: Any) -> None:
    target = Target(url=server.url, token=server.token())
    one, two = connect(target), connect(target)
    one.wait_live(10)
    assert one.status.connections == two.status.connections == 1
    assert connections() == 1
    one.close()
    assert two.status.live
    two.close()
    assert connections() == 0
    assert _client_threads() == []
    with pytest.raises(UsageError):
        one.subscribe("job~1")


async def test_the_async_faces(server: Any) -> None:
    async with aconnect(Target(url=server.url, token=server.token())) as conn:
        sub = conn.subscribe("job~1")
        pub = conn.publication("job~1", "p1", Owner())
        pub.submit(SessionChange(name="job", state="succeeded"))
        async for update in sub.updates():
            if isinstance(update, EventApplied) and update.event.kind == "session":
                break
        assert sub.position is not None


def test_following_a_name_switches_to_a_newer_run_and_says_so(conn: Connection) -> None:
    told: list[Any] = []
    with follow(conn, "job", told.append) as follower:
        eventually(lambda: follower.phase == "absent")
        for number in (1, 2):
            pub = conn.publication(f"job~{number}", f"p{number}", Owner())
            pub.submit(SessionChange(name="job", state="running"))
            eventually(lambda n=number: follower.session_id == f"job~{n}" and follower.phase == "live")
            # It is followed before the server has numbered it, since it is this process's own.
            eventually(lambda n=number: follower.run == n)
    eventually(lambda: told and told[-1] == PhaseChanged("closed"))  # behind all that is told before
    # A run of this very process is followed before the server has numbered it.
    switches = [update for update in told if isinstance(update, RunChanged) and update.run]
    assert switches == [RunChanged("job~1", 1, None), RunChanged("job~2", 2, "job~1")]
    after = told[told.index(switches[1]) :]
    events = [update.event for update in after if isinstance(update, EventApplied)]
    assert {event.topic for event in events} <= {"job~2"}


def test_an_id_pins_one_run(conn: Connection) -> None:
    told: list[Any] = []
    for number in (1, 2):
        pub = conn.publication(f"job~{number}", f"p{number}", Owner())
        pub.submit(SessionChange(name="job", state="running"))
        assert pub.flush(10)
    with follow(conn, "job~1", told.append) as follower:
        eventually(lambda: follower.run == 1 and follower.phase == "live")
        assert follower.session_id == "job~1"
        assert RunChanged("job~1", 1, None) in told


async def test_a_reader_that_falls_behind_is_told_a_gap_and_the_present_position(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "UPDATES_KEPT", 5)
    async with aconnect(Target(url=server.url, token=server.token())) as conn:
        sub = conn.subscribe("job~1")
        await asyncio.to_thread(sub.wait, lambda s: s.phase == "absent", 10)
        updates = sub.updates()
        assert isinstance(await anext(updates), SyncCompleted)
        pub = conn.publication("job~1", "p1", Owner())
        pub.submit(SessionChange(name="job"))
        pub.submit(ChainChange(id="c", name="c"))
        for number in range(40):
            pub.submit(StepChange(id=f"s{number}", chain="c", name="s"))
        await asyncio.to_thread(sub.wait, lambda s: s.state is not None and len(s.state.steps) == 40, 10)
        sub.close()
        told, gaps = 0, 0
        async for update in updates:
            match update:
                case EventApplied(event):
                    assert event.seq == told + 1
                    told = event.seq
                case GapFound(first, last):
                    assert first == told + 1
                    told, gaps = last, gaps + 1
                case SyncCompleted(_, seq):
                    assert seq == told
        assert gaps
        assert told == 43


def test_a_run_that_this_process_begins_is_followed_before_the_directory_tells_it(
    conn: Connection, server: Any
) -> None:
    old = conn.publication("job~1", "p1", Owner())
    old.submit(SessionChange(name="job", state="succeeded"))
    assert old.flush(10)
    told: list[Any] = []
    token = server.token(sub="watcher", role="observe")
    with connect(Target(url=server.url, token=token)) as other, follow(other, "job", told.append) as follower:
        eventually(lambda: follower.session_id == "job~1" and follower.phase == "live")
        new = conn.publication("job~2", "p2", Owner())
        new.submit(SessionChange(name="job", state="running"))
        # The next thing that happens on the runner's thread finds it bound: no server was asked.
        seen: Future[str | None] = Future()
        other.call_soon(lambda: seen.set_result(follower.session_id))
        assert seen.result(10) == "job~2"
        eventually(lambda: follower.run == 2 and follower.phase == "live")
    switches = [update for update in told if isinstance(update, RunChanged)]
    assert switches[:2] == [RunChanged("job~1", 1, None), RunChanged("job~2", 0, "job~1")]
    assert switches[-1] == RunChanged("job~2", 2, "job~1")


def test_a_late_follower_never_binds_to_the_run_before_ours(server: Any) -> None:
    """The link is down: the directory's last word is old, ours is not yet said."""
    with connect(Target(url=server.url, token=server.token(sub="alice"))) as conn:
        old = conn.publication("job~1", "p1", Owner())
        old.submit(SessionChange(name="job", state="succeeded"))
        assert old.flush(10)
        with follow(conn, "job") as first:
            eventually(lambda: first.session_id == "job~1" and first.phase == "live")
            new = conn.publication("job~2", "p2", Owner())
            new.submit(SessionChange(name="job", state="running"))
            told: list[Any] = []
            with follow(conn, "job", told.append) as late:
                eventually(lambda: late.session_id == "job~2" and late.run == 2 and late.phase == "live")
            bound = {update.session_id for update in told if isinstance(update, RunChanged)}
            assert bound == {"job~2"}


def test_a_run_that_the_server_refuses_is_not_waited_for(conn: Connection, server: Any) -> None:
    old = conn.publication("job~1", "p1", Owner())
    old.submit(SessionChange(name="job", state="succeeded"))
    assert old.flush(10)
    token = server.token(sub="bob", role="publish", sessions=("other~*",))
    with follow(conn, "job") as follower, connect(Target(url=server.url, token=token)) as stranger:
        eventually(lambda: follower.session_id == "job~1" and follower.phase == "live")
        owner = Owner()
        refused = stranger.publication("job~2", "p2", owner)
        refused.submit(SessionChange(name="job", state="running"))
        eventually(lambda: owner.rejections, what="the server refuses it")
        eventually(lambda: follower.session_id == "job~1" and follower.phase == "live")


def test_what_needs_a_thread_is_done_where_none_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    # As from Python 3.12 on, while the interpreter exits.
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    def fail() -> None:
        raise ValueError("no such place")

    runner = runners.acquire()

    async def look() -> int:
        with pytest.raises(ValueError, match="no such place"):
            await runner.in_thread(fail, "look")
        return await runner.in_thread(lambda: 17, "look")

    try:
        monkeypatch.setattr(threading.Thread, "start", start)
        assert asyncio.run_coroutine_threadsafe(look(), runner.loop).result(10) == 17
    finally:
        runners.release(runner)
