"""The machines of one connection together: who they say they are, and what each gets of its message."""

from __future__ import annotations

import pytest

from wsmonitor.client.actions import Locate, Send
from wsmonitor.client.clock import Instant
from wsmonitor.client.core import ClientCore
from wsmonitor.client.spool import SpoolLimits
from wsmonitor.client.subscription import SYNC_TIMEOUT
from wsmonitor.protocol.defaults import Timing
from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.protocol.messages import (
    Ack,
    Batch,
    Error,
    Heartbeat,
    Hello,
    Publish,
    PublishOpen,
    Status,
    Subscribe,
    SyncBegin,
    Synced,
    SyncNext,
    SyncPage,
    ValueAck,
    ValuePut,
)

from .test_core import SHA, Bench, step_event
from .test_link import WALL
from .test_publication import Told, changes_of, step

NOW = Instant(1000.0, WALL)


def introduced(core: ClientCore) -> Hello:
    core.link.start(NOW)
    [locate] = core.take(NOW)
    assert isinstance(locate, Locate)
    core.link.located(NOW, 1, "ws://x:1", "T")
    core.link.opened(NOW, 1)
    [hello] = [action.message for action in core.take(NOW) if isinstance(action, Send)]
    assert isinstance(hello, Hello)
    return hello


def test_it_says_who_it_is() -> None:
    core = ClientCore(
        random=lambda: 0.0, agent="a 1", name="Ada", instance="i", timing=Timing(handshake_timeout=3)
    )
    assert introduced(core) == Hello(major=1, minor=0, agent="a 1", name="Ada", instance="i")
    assert core.next_deadline() == NOW.mono + 3.0
    assert introduced(ClientCore(random=lambda: 0.0)) == Hello(major=1, minor=0)


def test_before_anything_is_asked_nothing_is_waited_for() -> None:
    core = ClientCore(random=lambda: 0.0)
    assert core.next_deadline() is None
    assert core.take(NOW) == []
    assert [core.next_request() for _ in range(3)] == [1, 2, 3]


def test_generations_rise_over_all_topics_and_syncs() -> None:
    """What a server still sends for an earlier one is told apart by them."""
    bench = Bench()
    for topic in ("s", "t"):
        bench.watch(topic)
    bench.live()
    bench.watch("u")
    bench.run()
    asked = bench.take(Subscribe)
    assert asked == [
        Subscribe(topic=topic, generation=number, delivery="all", interval_ms=1000)
        for number, topic in enumerate("stu", 1)
    ]
    bench.cut()
    bench.wait(1.0)
    bench.live()
    assert [one.generation for one in bench.take(Subscribe)] == [4, 5, 6]


def test_a_link_is_healthy_when_all_that_is_watched_is_in_sync_or_over() -> None:
    """Until then the delays do not begin anew."""
    bench = Bench()
    for topic in ("s", "t"):
        bench.watch(topic)
    bench.live()
    bench.sync("s")
    for _ in range(2):
        bench.wait(8.0)
        bench.give(Heartbeat(n=1))
    assert bench.statuses[-1].attempt == 1
    info = ErrorInfo(code="not_available", message="no", details={"topic": "t"})
    bench.give(Error(error=info))
    bench.wait(9.9)
    bench.give(Heartbeat(n=2))
    assert bench.statuses[-1].attempt == 1
    bench.wait(0.1)
    assert bench.statuses[-1].attempt == 0


def test_a_link_that_is_not_up_is_not_healthy() -> None:
    bench = Bench()
    bench.core.link.start(bench.now)
    bench.locate()
    bench.wait(9.0)
    assert bench.core.link.status.attempt == 1


def test_a_publication_has_what_it_was_given_and_opens_when_the_link_is_up() -> None:
    bench = Bench()
    bench.live()
    bench.cut()
    machine = bench.core.publication("s", "p", "train.py", Told(), limit_changes=3, limit_values=7)
    assert (machine.agent, machine.spool.limits) == ("train.py", SpoolLimits(changes=3, values=7))
    bench.core.publish(bench.now, machine)
    bench.run()
    assert bench.take(PublishOpen) == [], "that the server was there before is not enough"
    bench.wait(1.0)
    bench.live()
    [opening] = bench.take(PublishOpen)
    assert opening.agent == "train.py"


def watching(**options: object) -> Bench:
    """A core that has a topic in sync at second 1000."""
    bench = Bench()
    bench.live()
    bench.watch("s", **options)
    bench.run()
    bench.sync()
    bench.sent.clear()
    return bench


def begun_anew(bench: Bench) -> None:
    [again] = bench.take(Subscribe)
    assert again.generation == 2
    assert bench.core.subscriptions["s"].next_deadline() == bench.mono + SYNC_TIMEOUT


def test_a_lost_event_is_asked_for_with_the_time_of_its_discovery() -> None:
    bench = watching()
    bench.mono += 5.0
    bench.give(step_event(7))
    begun_anew(bench)


def test_a_lost_batch_too() -> None:
    bench = watching(delivery="latest")
    bench.mono += 5.0
    bench.give(Batch(topic="s", epoch="e", from_=5, to=6, ts="1", entities=[], digest=""))
    begun_anew(bench)


@pytest.mark.parametrize("head", [("e", 1, ""), ("e", 0, "f" * 32), ("x", 0, "")])
def test_and_what_a_heartbeat_shows(head: tuple[str, int, str]) -> None:
    bench = watching()
    bench.mono += 5.0
    bench.give(Heartbeat(n=1, heads={"s": head, "unknown": head}))
    begun_anew(bench)


def test_and_a_sync_that_does_not_agree() -> None:
    bench = Bench()
    bench.live()
    bench.watch()
    bench.run()
    bench.sent.clear()
    bench.mono += 5.0
    bench.give(
        SyncBegin(topic="s", generation=1, epoch="e", base=0),
        SyncPage(topic="s", generation=1, page=0, base=0, last=True),
        Synced(topic="s", generation=1, seq=0, digest="f" * 32),
    )
    assert len(bench.take(SyncNext)) == 1
    begun_anew(bench)


def test_calm_is_counted_from_the_sync() -> None:
    """After ten seconds of it, what is lost is asked for at once again, and not before."""
    for calm, at_once in ((9.0, False), (10.0, True)):
        bench = watching()
        bench.give(step_event(7))
        [asked] = bench.take(Subscribe)
        generation = asked.generation
        digest = bench.core.subscriptions["s"].state
        assert digest is not None
        bench.give(
            SyncBegin(topic="s", generation=generation, epoch="e", base=0),
            SyncPage(topic="s", generation=generation, page=0, base=0, last=True),
            Synced(topic="s", generation=generation, seq=0, digest=digest.digest),
        )
        bench.sent.clear()
        bench.mono += calm
        bench.give(step_event(7))
        assert (bench.take(Subscribe) != []) == at_once


def publishing() -> Bench:
    bench = Bench()
    bench.live()
    machine, _ = bench.publication()
    bench.opened(machine)
    bench.sent.clear()
    return bench


def test_an_upload_goes_on_with_the_time_of_its_answer() -> None:
    bench = publishing()
    machine = bench.core.publications["s", "p"]
    machine.submit_value(b"data", SHA)
    machine.pump(bench.mono)
    bench.run()
    [asked] = bench.take(ValuePut)
    bench.mono += 5.0
    bench.give(ValueAck(request=asked.request, received=0))
    assert machine.next_deadline() == bench.mono + 30.0
    [page] = bench.take(ValuePut)
    bench.mono += 5.0
    info = ErrorInfo(code="store_failed", message="full", retryable=True)
    bench.give(Error(error=info, request=page.request))
    assert (machine.stage, machine.next_deadline()) == ("pausing", bench.mono + 1.0)


def test_what_had_to_wait_for_its_turn_goes_out_with_an_acknowledgement() -> None:
    bench = publishing()
    machine = bench.core.publications["s", "p"]
    for number in range(300):
        machine.submit(step(f"s{number}"))
        machine.pump(bench.mono)
    bench.run()
    sent = bench.take(Publish)
    waits = machine.next_deadline()
    assert waits is not None
    assert waits > bench.mono, "the pacer has given all its leave"
    bench.mono += 10.0
    bench.give(Ack(session="s", producer="p", accepted=1))
    [rest] = bench.take(Publish)
    assert sum(len(changes_of(one)) for one in (*sent, rest)) == 300


def test_errors_and_answers_that_name_nothing_that_can_be_named_concern_nobody() -> None:
    bench = watching()
    bench.ask()
    number = bench.asked()
    for topic in ([], {}, 5, None):
        bench.give(Error(error=ErrorInfo(code="internal", message="m", details={"topic": topic})))
    assert (bench.answers, bench.failures) == ([], [])
    bench.give(Status(request=number + 100, info={}))
    assert bench.answers == []
    bench.give(Status(request=number, info={}))
    assert len(bench.answers) == 1
