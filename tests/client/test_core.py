"""The machines of one connection together: who gets which message. Bytes go in, actions come out."""

from __future__ import annotations

from typing import Any

import pytest

from wsmonitor.client.actions import Call, Locate, Open, Send, Tell
from wsmonitor.client.clock import Instant
from wsmonitor.client.core import ClientCore
from wsmonitor.client.errors import RequestTimeoutError
from wsmonitor.client.publication import PublicationMachine
from wsmonitor.client.subscription import SubscriptionMachine
from wsmonitor.client.types import (
    BatchApplied,
    ConnectionStatus,
    EventApplied,
    PresenceChanged,
    SyncCompleted,
)
from wsmonitor.protocol.changes import StepChange
from wsmonitor.protocol.codec import encode, encode_record
from wsmonitor.protocol.entities import Command, ErrorInfo, Step
from wsmonitor.protocol.errors import ConnectionFailedError, ProtocolError, RequestError, WsMonitorError
from wsmonitor.protocol.messages import (
    Ack,
    Batch,
    ClientMessage,
    Degraded,
    Deliver,
    Done,
    Draining,
    Error,
    Event,
    Fenced,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Hold,
    HoldChanged,
    Presence,
    Publish,
    PublishClose,
    PublishOpen,
    PublishOpened,
    Refresh,
    Refreshed,
    Rejected,
    Removed,
    Resync,
    ServerMessage,
    Status,
    StatusGet,
    Subscribe,
    SyncBegin,
    Synced,
    SyncNext,
    SyncPage,
    Unsubscribe,
    ValueAck,
    ValuePut,
)
from wsmonitor.protocol.reducer import SessionState

from .helpers import Updates
from .test_link import WALL, welcome
from .test_publication import Told

NAMES = ("s", "other")
KEY = "0" * 32
SHA = "a" * 64


class Bench:
    """A core with its clock, what it sent, and what its listeners were told."""

    def __init__(self) -> None:
        self.mono, self.wall = 1000.0, WALL
        self.core = ClientCore(random=lambda: 0.0, agent="test")
        self.sent: list[ClientMessage] = []
        self.statuses: list[ConnectionStatus] = []
        self.answers: list[ServerMessage] = []
        self.failures: list[WsMonitorError] = []
        self.others: list[Any] = []
        self.core.status_listeners.append(self.statuses.append)

    @property
    def now(self) -> Instant:
        return Instant(self.mono, self.wall)

    def run(self) -> None:
        """Carry out what the core asks for, as the driver does."""
        while actions := self.core.take(self.now):
            for action in actions:
                match action:
                    case Call(function):
                        function()
                    case Tell(listener, update):
                        listener(update)
                    case Send(message):
                        self.sent.append(message)
                    case _:
                        self.others.append(action)

    def take(self, kind: type[Any]) -> list[Any]:
        found = [message for message in self.sent if isinstance(message, kind)]
        self.sent[:] = [message for message in self.sent if not isinstance(message, kind)]
        return found

    def other(self, kind: type[Any]) -> Any:
        [found] = [action for action in self.others if isinstance(action, kind)]
        self.others.remove(found)
        return found

    def give(self, *messages: ServerMessage) -> None:
        for message in messages:
            self.core.receive(self.now, encode(message))
            self.run()

    def wait(self, seconds: float) -> None:
        self.mono += seconds
        self.wall += seconds
        self.core.handle_timeout(self.now)
        self.run()

    def locate(self, *, renewable: bool = False) -> int:
        self.run()
        attempt: int = self.other(Locate).attempt
        self.core.link.located(self.now, attempt, "ws://x:1", "T", renewable=renewable)
        self.run()
        self.other(Open)
        return attempt

    def live(self, *, renewable: bool = False, **fields: Any) -> None:
        if self.core.link.status.phase == "idle":
            self.core.link.start(self.now)
        self.core.link.opened(self.now, self.locate(renewable=renewable))
        self.run()
        assert len(self.take(Hello)) == 1
        self.give(welcome(time=str(int(self.wall * 1e9)), **fields))
        assert self.statuses[-1].live

    def cut(self, code: int = 1006) -> None:
        self.core.link.lost(self.now, self.core.link.attempt, code, "gone")
        self.run()

    def ask(self, timeout: float = 10.0) -> None:
        self.core.request(
            self.now,
            lambda number: StatusGet(request=number),
            self.answers.append,
            self.failures.append,
            timeout,
        )
        self.run()

    def asked(self) -> int:
        [message] = self.take(StatusGet)
        assert isinstance(message, StatusGet)
        return message.request

    def watch(self, topic: str = "s", **options: Any) -> tuple[SubscriptionMachine, Updates]:
        told = Updates()
        return self.core.subscribe(self.now, topic, told, **options), told

    def sync(self, topic: str = "s") -> None:
        """Answer the subscribe for *topic*: an empty session at seq 0."""
        [asked] = [one for one in self.take(Subscribe) if one.topic == topic]
        generation = asked.generation
        self.give(
            SyncBegin(topic=topic, generation=generation, epoch="e", base=0),
            SyncPage(topic=topic, generation=generation, page=0, base=0, last=True),
            Synced(topic=topic, generation=generation, seq=0, digest=SessionState(topic, "e").digest),
        )
        self.take(SyncNext)

    def publication(self) -> tuple[PublicationMachine, Told]:
        owner = Told()
        machine = self.core.publication("s", "p", "test", owner)
        self.core.publish(self.now, machine)
        self.run()
        return machine, owner

    def opened(self, machine: PublicationMachine) -> None:
        """Answer the `publish_open`, as for a session that knows nothing of the producer."""
        [asked] = self.take(PublishOpen)
        self.give(
            PublishOpened(
                request=asked.request,
                session="s",
                producer="p",
                producer_epoch=1,
                accepted=0,
                epoch="e",
                known=False,
            )
        )
        machine.reasserted(self.now.mono)
        self.run()


def step_event(seq: int, topic: str = "s") -> Event:
    step = Step(id=f"a{seq}", chain="c", name="n", seq=seq)
    return Event(topic=topic, epoch="e", seq=seq, ts="1", kind="step", entity=encode_record(step))


def error(code: str, *, request: int | None = None, session: str = "", **details: Any) -> Error:
    info = ErrorInfo(code=code, message=f"about {code}", session=session, details=details)
    return Error(error=info, request=request)


# ---------------------------------------------------------------------- the owner's side


def test_what_is_asked_for_before_the_link_is_up_goes_out_when_it_is() -> None:
    bench = Bench()
    bench.ask()
    bench.watch()
    bench.publication()
    assert bench.sent == []
    bench.live()
    assert [type(message) for message in bench.sent] == [Heartbeat, Subscribe, PublishOpen, StatusGet]


def test_what_is_asked_for_while_the_link_is_up_goes_out_at_once() -> None:
    bench = Bench()
    bench.live()
    bench.take(Heartbeat)
    bench.watch(delivery="latest", interval_ms=500)
    bench.publication()
    bench.ask()
    subscribe, opening, status = bench.sent
    assert isinstance(subscribe, Subscribe)
    assert (subscribe.topic, subscribe.delivery, subscribe.interval_ms) == ("s", "latest", 500)
    assert isinstance(opening, PublishOpen)
    assert isinstance(status, StatusGet)


def test_a_status_is_told_once_to_each_listener() -> None:
    bench = Bench()
    heard: list[ConnectionStatus] = []
    bench.core.status_listeners.append(heard.append)
    bench.live()
    told = list(bench.statuses)
    bench.run()
    assert bench.statuses == told == heard
    # What follows one another without a rest between is told as it came to be.
    assert [status.phase for status in told] == ["locating", "connecting", "authenticating", "live"]


def test_who_is_not_watched_any_more_is_heard_no_more_and_the_server_knows() -> None:
    bench = Bench()
    bench.live()
    _, told = bench.watch()
    bench.run()
    bench.sync()
    bench.core.unsubscribe("s")
    bench.core.unsubscribe("s")  # it is not watched: nothing to do
    bench.run()
    assert bench.take(Unsubscribe) == [Unsubscribe(topic="s")]
    told.clear()
    bench.give(step_event(1))
    assert told == []


def test_attempts_count_anew_only_after_a_time_in_which_everything_was_in_sync() -> None:
    bench = Bench()
    bench.watch("s")
    bench.watch("other")
    bench.live()
    assert bench.core.link.status.attempt == 1
    first, second = bench.take(Subscribe)
    bench.sent.append(first)
    bench.sync("s")
    bench.wait(12)
    assert bench.core.link.status.attempt == 1, "the other one is not in sync"
    bench.sent.append(second)
    bench.sync("other")
    bench.wait(12)
    assert bench.core.link.status.attempt == 0


# ---------------------------------------------------------------------- requests


def test_an_answer_reaches_who_asked_and_once() -> None:
    bench = Bench()
    bench.live()
    bench.ask()
    answer = Status(request=bench.asked(), info={"a": 1})
    bench.give(answer, answer)
    assert bench.answers == [answer]
    assert bench.failures == []
    bench.wait(20)
    assert bench.failures == [], "it was answered: no time limit is left"


def test_a_refusal_reaches_who_asked() -> None:
    bench = Bench()
    bench.live()
    bench.ask()
    refusal = error("forbidden", request=bench.asked())
    bench.give(refusal, refusal)
    [failure] = bench.failures
    assert isinstance(failure, RequestError)
    assert failure.code == "forbidden"
    assert bench.answers == []


def test_without_an_answer_it_says_so_and_whether_there_was_a_link() -> None:
    bench = Bench()
    bench.live()
    bench.ask(timeout=5)
    bench.ask(timeout=7)
    assert bench.core.next_deadline() == bench.mono + 5
    bench.wait(5)
    [failure] = bench.failures
    assert isinstance(failure, RequestTimeoutError)
    assert str(failure) == "no answer within 5 s"
    unlinked = Bench()
    unlinked.core.link.start(unlinked.now)
    unlinked.run()
    unlinked.ask(timeout=5)
    unlinked.wait(5)
    assert str(unlinked.failures[0]) == "no answer within 5 s; there is no link: locating"


def test_what_was_sent_fails_with_the_link_and_what_was_not_waits_for_the_next_one() -> None:
    bench = Bench()
    bench.live()
    bench.ask()
    bench.asked()
    bench.cut()
    [failure] = bench.failures
    assert isinstance(failure, ConnectionFailedError)
    assert (failure.code, str(failure)) == ("connection_lost", "gone")
    bench.ask(timeout=120)
    assert bench.take(StatusGet) == []
    bench.wait(60)
    bench.live()
    bench.give(Status(request=bench.asked(), info={}))
    assert len(bench.answers) == 1
    assert len(bench.failures) == 1


def test_what_is_asked_for_in_the_moment_of_a_change_is_asked_once_and_not_lost() -> None:
    bench = Bench()
    bench.core.link.start(bench.now)
    bench.core.link.opened(bench.now, bench.locate())
    bench.core.receive(bench.now, encode(welcome()))
    bench.ask(timeout=120)  # nobody has been told that the link is up
    bench.asked()
    bench.core.link.lost(bench.now, bench.core.link.attempt, 1006, "gone")
    bench.ask(timeout=120)  # nor that it is down
    assert len(bench.failures) == 1, "only what had been sent"
    bench.wait(60)
    bench.take(Hello)
    bench.live()
    bench.give(Status(request=bench.asked(), info={}))
    assert len(bench.answers) == 1


def test_when_the_link_is_given_up_nothing_is_left_waiting_and_nothing_waits_any_more() -> None:
    bench = Bench()
    bench.live()
    bench.cut()
    bench.ask(timeout=120)
    bench.wait(60)
    attempt = bench.locate()
    bench.core.link.refused(bench.now, attempt, 401, "unauthorized", "not this token")
    bench.run()
    assert [(one.code, str(one)) for one in bench.failures] == [("unauthorized", "not this token")]
    bench.ask()
    assert [one.code for one in bench.failures] == ["unauthorized", "unauthorized"]
    closed = Bench()
    closed.core.link.close(closed.now)
    closed.run()
    closed.ask()
    [failure] = closed.failures
    assert isinstance(failure, ConnectionFailedError)
    assert (failure.code, str(failure)) == ("connection_lost", "the link is closed")


def test_closing_the_link_fails_what_was_never_sent_in_words() -> None:
    bench = Bench()
    bench.core.link.start(bench.now)
    bench.run()
    bench.ask()
    bench.core.link.close(bench.now)
    bench.run()
    assert [(one.code, str(one)) for one in bench.failures] == [("connection_lost", "the link is closed")]


# ---------------------------------------------------------------------- messages about topics


def test_each_topic_has_its_own_messages() -> None:
    bench = Bench()
    bench.live()
    machine, told = bench.watch("s")
    _, beside = bench.watch("other")
    bench.run()
    subscribes = bench.take(Subscribe)
    for subscribe in subscribes:
        bench.sent.append(subscribe)
        bench.sync(subscribe.topic)
    assert [len(one.of(SyncCompleted)) for one in (told, beside)] == [1, 1]
    before = list(beside)
    bench.give(step_event(1), Presence(topic="s", count=2, names=["ada", "grace"]))
    assert [update.event.seq for update in told.of(EventApplied)] == [1]
    assert told.of(PresenceChanged) == [PresenceChanged(2, ("ada", "grace"))]
    bench.give(Resync(topic="s", reason="too_slow"))
    [again] = bench.take(Subscribe)
    assert (again.topic, again.resume.seq) == ("s", 1)
    bench.give(Removed(topic="s", reason="removed"))
    assert (machine.phase, machine.reason) == ("not_available", "it was removed")
    assert beside == before


def test_batches_reach_who_asked_for_them() -> None:
    bench = Bench()
    bench.live()
    _, told = bench.watch(delivery="latest")
    bench.run()
    bench.sync()
    step = Step(id="a", chain="c", name="n", seq=2)
    after = SessionState.restore("s", "e", 2, [("step", step)])
    bench.give(
        Batch(
            topic="s",
            epoch="e",
            from_=0,
            to=2,
            ts="1",
            entities=[("step", encode_record(step))],
            digest=after.digest,
        )
    )
    assert told.of(BatchApplied) == [BatchApplied(2, (("step", step),), ())]


def test_a_heartbeat_is_answered_and_its_heads_are_compared() -> None:
    bench = Bench()
    bench.live()
    bench.watch()
    bench.run()
    bench.sync()
    bench.give(Heartbeat(n=7, heads={"s": ("e", 0, ""), "another": ("e", 9, "")}))
    assert [message.n for message in bench.take(HeartbeatAck)] == [7]
    assert bench.take(Subscribe) == []
    bench.give(Heartbeat(n=8, heads={"s": ("e", 3, "")}))
    [again] = bench.take(Subscribe)
    assert again.resume.seq == 0, "three events were lost on the way"


def test_that_the_server_takes_changes_again_is_told_to_what_is_published() -> None:
    bench = Bench()
    bench.live()
    machine, _ = bench.publication()
    full = ErrorInfo(code="store_failed", message="x", retryable=True)
    for delay in (1.0, 2.0):
        [opening] = bench.take(PublishOpen)
        bench.give(Error(error=full, request=opening.request))
        bench.wait(delay)
    [opening] = bench.take(PublishOpen)
    bench.give(Error(error=full, request=opening.request))
    later = bench.mono + 4.0
    assert machine.next_deadline() == later
    bench.give(Heartbeat(n=1))
    assert machine.next_deadline() == later, "it had not said that it takes none"
    bench.give(Heartbeat(n=2, degraded=Degraded(code="store_failed", since="1")))
    assert machine.next_deadline() == later
    bench.give(Heartbeat(n=3))
    assert machine.next_deadline() == bench.mono + 1.0


@pytest.mark.parametrize(
    "message",
    [
        step_event(1, "gone"),
        Batch(topic="gone", epoch="e", from_=0, to=1, ts="1", entities=[], digest=""),
        SyncBegin(topic="gone", generation=1, epoch="e", base=0),
        SyncPage(topic="gone", generation=1, page=0, base=0, last=True),
        Synced(topic="gone", generation=1, seq=0, digest=""),
        Resync(topic="gone", reason="reset"),
        Removed(topic="gone", reason="removed"),
        Presence(topic="gone", count=1, names=[]),
        PublishOpened(
            request=1, session="gone", producer="p", producer_epoch=1, accepted=0, epoch="e", known=False
        ),
        Ack(session="s", producer="gone", accepted=1),
        Rejected(session="s", producer="gone", number=1, error=ErrorInfo(code="bad_id", message="")),
        Fenced(session="s", producer="gone"),
        Deliver(session="s", producer="gone", command=Command(id=KEY, name="x", deadline="9", requested="1")),
        HoldChanged(session="s", producer="gone", hold=Hold(chain="c", want="pause")),
        ValueAck(request=4711, received=0),
        Done(request=4711),
        error("store_failed", request=4711),
        error("store_failed", session="gone"),
        error("not_available", topic="gone"),
        error("not_available", topic=7),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_is_about_something_that_is_over_changes_nothing(message: ServerMessage) -> None:
    bench = Bench()
    bench.live()
    subscription, told = bench.watch()
    publication, owner = bench.publication()
    bench.sync()
    bench.opened(publication)
    bench.sent.clear()
    before = (list(told), list(owner.log), subscription.stage, publication.stage, len(bench.statuses))
    bench.give(message)
    assert (told, owner.log, subscription.stage, publication.stage, len(bench.statuses)) == before
    assert bench.sent == []


def test_a_message_of_a_later_minor_version_counts_as_life_and_nothing_else() -> None:
    bench = Bench()
    bench.live()
    bench.sent.clear()
    bench.mono += 3
    bench.core.receive(bench.now, b'{"type": "hologram", "request": 1}')
    bench.run()
    assert bench.core.link.last_frame == bench.mono
    assert bench.sent == []
    with pytest.raises(ProtocolError):
        bench.core.receive(bench.now, b'{"type": "synced"}')


# ---------------------------------------------------------------------- messages about the link


def test_a_token_is_renewed_in_band() -> None:
    bench = Bench()
    bench.live(renewable=True)
    bench.core.link.token_fetched(bench.now, bench.core.link.attempt, "new")
    bench.run()
    [refresh] = bench.take(Refresh)
    bench.give(Refreshed(request=refresh.request, expires=int(WALL) + 7200))
    assert bench.core.link.status.welcome.expires == int(WALL) + 7200


def test_a_renewal_that_is_refused_is_the_links_affair() -> None:
    bench = Bench()
    bench.live(renewable=True)
    bench.ask()
    bench.core.link.token_fetched(bench.now, bench.core.link.attempt, "new")
    bench.run()
    [refresh] = bench.take(Refresh)
    bench.give(error("unauthorized", request=refresh.request))
    assert bench.failures == []
    assert bench.statuses[-1].live


def test_the_round_trip_is_measured_and_draining_says_when_to_come_back() -> None:
    bench = Bench()
    bench.live()
    [beat] = bench.take(Heartbeat)
    bench.mono += 0.25
    bench.give(HeartbeatAck(n=beat.n))
    assert bench.statuses[-1].rtt == 0.25
    bench.give(Draining(reconnect_ms=4000))
    bench.cut(1012)
    assert bench.statuses[-1].next_attempt_at == bench.mono + 4
    assert bench.statuses[-1].code == "draining"


# ---------------------------------------------------------------------- messages about publications


def test_a_publications_life_goes_by_its_session_and_producer() -> None:
    bench = Bench()
    bench.live()
    machine, owner = bench.publication()
    bench.opened(machine)
    assert owner.log == [("opened", "e", False)]
    machine.submit(StepChange(id="a", chain="c", name="n"))
    machine.submit(StepChange(id="b", chain="c", name="n"))
    machine.pump(bench.mono)
    bench.run()
    assert sum(len(message.changes) for message in bench.take(Publish)) == 2
    bench.give(
        Rejected(session="s", producer="p", number=1, error=ErrorInfo(code="illegal_change", message="no")),
        Ack(session="s", producer="p", accepted=2),
        HoldChanged(session="s", producer="p", hold=Hold(chain="c", want="pause")),
    )
    assert owner.acked == 2
    assert [one[1] for one in owner.of("rejected")] == [1]
    assert owner.of("held") == [("held", [("c", "", "pause")])]
    command = Command(id=KEY, name="pause", deadline="9", requested="1")
    bench.give(Deliver(session="s", producer="p", command=command))
    assert owner.of("command") == [("command", KEY)]
    [said] = bench.take(Publish)
    assert b'"delivered"' in encode(said), "that it arrived is said at once"
    bench.give(Fenced(session="s", producer="p", reason="removed"))
    assert owner.of("fenced") == [("fenced", True)]


def test_a_goodbye_and_an_upload_are_answered_to_who_made_them() -> None:
    bench = Bench()
    bench.live()
    first, owner = bench.publication()
    bench.opened(first)
    assert first.submit_value(b"xyz", SHA)
    first.submit(StepChange(id="a", chain="c", name="n"))
    first.pump(bench.mono)
    bench.run()
    [asking] = bench.take(ValuePut)
    bench.give(ValueAck(request=asking.request, received=3, complete=True))
    assert owner.of("uploaded") == [("uploaded", SHA)]
    bench.ask()
    bench.give(Ack(session="s", producer="p", accepted=1))
    first.close(bench.mono)
    bench.run()
    [goodbye] = bench.take(PublishClose)
    bench.give(Done(request=bench.asked()))
    assert bench.answers == [Done(request=bench.core._request - 1)]
    assert first.stage == "closing", "it was not this one's goodbye"
    bench.give(Done(request=goodbye.request))
    assert owner.of("finished") == [("finished",)]
    assert len(bench.answers) == 1


def test_an_upload_that_somebody_else_asked_for_is_theirs() -> None:
    bench = Bench()
    bench.live()
    bench.publication()
    bench.ask()
    answer = ValueAck(request=bench.asked(), received=3)
    bench.give(answer)
    assert bench.answers == [answer]


def test_a_refused_opening_is_the_publications_affair() -> None:
    bench = Bench()
    bench.live()
    machine, owner = bench.publication()
    [asked] = bench.take(PublishOpen)
    bench.give(error("forbidden", request=asked.request))
    assert machine.stage == "refused"
    assert owner.of("rejected") == [("rejected", 0, None, "forbidden")]


def test_a_publication_is_told_when_the_link_is_gone_and_opens_again_on_the_next() -> None:
    bench = Bench()
    bench.live()
    machine, _ = bench.publication()
    bench.opened(machine)
    watching, _ = bench.watch()
    bench.cut()
    assert machine.stage == "off"
    assert (watching.phase, watching.reason) == ("waiting", "gone")
    bench.wait(60)
    bench.live()
    [again] = bench.take(PublishOpen)
    assert again.producer_epoch == 1
    bench.wait(40)
    assert len(bench.take(PublishOpen)) == 1, "the opening that nobody answered is made again"


# ---------------------------------------------------------------------- errors that answer no request


@pytest.mark.parametrize("code", ["not_available", "forbidden", "bad_id", "limit_exceeded"])
def test_a_topic_that_would_be_refused_again_is_not_asked_for_again(code: str) -> None:
    bench = Bench()
    bench.live()
    machine, _ = bench.watch()
    bench.run()
    bench.take(Subscribe)
    bench.give(error(code, topic="s"))
    assert (machine.phase, machine.reason) == ("not_available", f"about {code}")
    bench.wait(30)
    assert bench.take(Subscribe) == []


def test_a_topic_that_the_server_could_not_follow_is_asked_for_again_after_a_while() -> None:
    bench = Bench()
    bench.live()
    machine, _ = bench.watch()
    bench.run()
    bench.sync()
    bench.give(error("store_failed", topic="s"))
    assert (machine.phase, machine.reason) == ("syncing", "about store_failed")
    assert bench.take(Subscribe) == []
    bench.wait(30)
    assert len(bench.take(Subscribe)) == 1


@pytest.mark.parametrize(
    ("details", "concerned"), [({}, True), ({"producer": "p"}, True), ({"producer": "q"}, False)]
)
def test_an_error_of_a_session_concerns_its_publications_or_the_one_that_it_names(
    details: dict[str, Any], concerned: bool
) -> None:
    bench = Bench()
    bench.live()
    machine, _ = bench.publication()
    bench.opened(machine)
    bench.give(error("store_failed", session="s", **details))
    assert machine.stage == ("pausing" if concerned else "open")


def test_at_rest_there_is_nothing_to_take() -> None:
    bench = Bench()
    assert not bench.core.at_rest, "nobody was told of the status yet"
    bench.live()
    assert bench.core.at_rest
    machine, _ = bench.watch()
    assert not bench.core.at_rest, "it is to be asked for"
    bench.run()
    assert not bench.core.at_rest, "it is not in sync yet: that is to be found out each time"
    bench.sync()
    assert bench.core.at_rest
    called: list[str] = []
    bench.core.call(lambda: called.append("called"))
    assert not bench.core.at_rest
    bench.run()
    assert (bench.core.at_rest, called) == (True, ["called"])
    bench.core.link.lost(bench.now, bench.core.link.attempt, 1006, "gone")
    assert not bench.core.at_rest, "the status is another"
    bench.run()
    assert machine.phase == "waiting"
