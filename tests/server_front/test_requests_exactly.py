"""Requests without a socket: what exactly is asked of the session side, and each refusal in full."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from wsmonitor.protocol.changes import ChainChange
from wsmonitor.protocol.codec import encode
from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.protocol.messages import (
    CommandRequest,
    Done,
    Error,
    HistoryGet,
    HistoryPage,
    LogsGet,
    LogsPage,
    Position,
    Publish,
    PublishClose,
    PublishOpen,
    Refresh,
    Remove,
    Revoke,
    Subscribe,
    SyncNext,
    ValueAck,
    ValueGet,
    ValuePage,
    ValuePut,
)
from wsmonitor_server.stores.base import StoreError

from .machine import Machine

KEY = "0" * 32


def listen(machine: Machine, *names: str) -> list[tuple[Any, ...]]:
    """What the session side is asked, by name, with all it is given."""
    asked: list[tuple[Any, ...]] = []

    def wrap(name: str) -> None:
        real = getattr(machine.engine, name)

        def heard(*given: Any) -> Any:
            asked.append((name, *given))
            return real(*given)

        setattr(machine.engine, name, heard)

    for name in names:
        wrap(name)
    return asked


def put(
    data: bytes, *, total: int | None = None, offset: int = 0, request: int = 7, sha: str = ""
) -> ValuePut:
    return ValuePut(
        request=request,
        session="s",
        sha256=sha or hashlib.sha256(data).hexdigest(),
        total=len(data) if total is None else total,
        offset=offset,
        data=base64.b64encode(data).decode(),
    )


def changes(count: int, first: int = 1) -> Publish:
    return Publish(
        session="s",
        producer="p",
        producer_epoch=1,
        first=first,
        changes=[ChainChange(id=f"c{number}", name="n") for number in range(count)],
    )


def limit(name: str, value: int, session: str = "", *, again: bool = True, **details: Any) -> ErrorInfo:
    words = (
        f"the limit `{name}` of {value:,} is reached"
        if again
        else f"more than the limit `{name}` of {value:,}"
    )
    return ErrorInfo(
        code="limit_exceeded",
        message=words,
        retryable=again,
        session=session,
        details={**details, "limit": name, "value": value},
    )


# ---------------------------------------------------------------------- topics


@pytest.mark.parametrize(
    ("hello", "claim", "name"),
    [("Ada", "of the token", "of the token"), ("Ada", "", "Ada"), ("", "", "ada")],
)
async def test_under_which_name_one_watches(hello: str, claim: str, name: str) -> None:
    machine = Machine(open=False, name=claim, jti="j")
    await machine.ask_json("hello", major=1, minor=0, name=hello, instance="mine")
    subscription = await machine.watch()
    assert (subscription.name, subscription.instance) == (name, "mine")
    assert subscription.claims is machine.peer.credential.claims


async def test_who_names_no_instance_is_one_of_its_own() -> None:
    machine = Machine(open=False)
    await machine.ask_json("hello", major=1, minor=0)
    assert (await machine.watch()).instance == machine.peer.ident == "1"


async def test_a_subscription_is_asked_for_as_it_came() -> None:
    machine = Machine()
    asked = listen(machine, "subscribe")
    resume = Position(epoch="e", seq=3, digest="d" * 32)
    await machine.ask(Subscribe(topic="s", generation=4, resume=resume, delivery="latest", interval_ms=250))
    subscription = machine.peer.subscriptions["s"]
    assert asked == [("subscribe", "s", 4, resume, subscription)]
    assert (subscription.latest, subscription.interval, subscription.generation) == (True, 0.25, 4)
    await machine.ask(Subscribe(topic="s", generation=5))
    assert asked[1:] == [("subscribe", "s", 5, None, subscription)]
    assert (subscription.latest, subscription.interval) == (False, 1.0)
    await machine.watch(generation=6)
    assert (subscription.epoch, subscription.seq) == ("e1", 0)


async def test_what_is_refused_of_a_subscription_names_its_topic() -> None:
    machine = Machine(limits={"subscriptions": 1})
    long = "x" * 200
    error = await machine.refused(Subscribe(topic=long, generation=1))
    assert (error.code, error.details) == ("bad_id", {"topic": long})
    assert error.message.startswith("topic ")
    await machine.ask(Subscribe(topic="s", generation=2))
    assert await machine.refused(Subscribe(topic="t", generation=1)) == limit("subscriptions", 1, topic="t")
    assert await machine.refused(Subscribe(topic="s", generation=2)) == ErrorInfo(
        code="bad_message", message="generation 2 is not above 2", details={"topic": "s"}
    )
    assert await machine.refused(SyncNext(topic="t", generation=1, page=0)) == ErrorInfo(
        code="unexpected_message", message="there is no such subscription", details={"topic": "t"}
    )


async def test_one_that_ended_while_it_was_asked_for_is_ended_on_the_session_side() -> None:
    """And one that was begun anew meanwhile, or lost its place, is not."""
    for what, ended in (("end", True), ("mute", False)):
        machine = Machine()
        real = machine.engine.subscribe

        async def meanwhile(
            topic: str, *given: Any, machine: Machine = machine, real: Any = real, what: str = what
        ) -> Any:
            sync = await real(topic, *given)
            subscription = machine.peer.subscriptions[topic]
            if what == "end":
                machine.peer.end_subscription(subscription)
            else:
                subscription.mute("reset")
            return sync

        machine.engine.subscribe = meanwhile  # type: ignore[method-assign]
        asked = listen(machine, "unsubscribe")
        machine.give(Subscribe(topic="s", generation=1))
        await machine.settle()
        [sync] = machine.engine.syncs
        assert sync.closed
        # Ours asks once by itself; what ended was detached before there was anything to detach.
        ours = [one for one in asked if one[1:] == ("s", sync.subscriber)]
        assert len(ours) == len(asked)
        assert len(asked) == (3 if ended else 1)


# ---------------------------------------------------------------------- publishing


async def test_a_producer_is_opened_for_its_token_and_closed_in_its_lane() -> None:
    machine = Machine()
    asked = listen(machine, "open_producer")
    opening = PublishOpen(request=1, session="s", producer="p", agent="a")
    await machine.ask(opening)
    [(_, message, claims, events)] = asked
    assert (message, claims) == (opening, machine.peer.credential.claims)
    assert events is machine.peer._requests
    machine.wire.lanes.clear()
    machine.peer.lost()
    assert machine.wire.lanes == [("producer", "s", "p")]


async def test_producers_on_their_way_count_and_those_that_did_not_come_do_not() -> None:
    machine = Machine(limits={"publications": 1})
    real = machine.engine.open_producer
    refusals: list[object] = []

    async def failing(message: PublishOpen, *given: Any) -> Any:
        if message.producer == "p":
            machine.raw(b'{"type":"publish_open","request":2,"session":"s","producer":"q"}')
            await machine.wire.jobs.pop(0)()
            refusals.extend(one.error for one in machine.sent() if isinstance(one, Error))
            raise StoreError("the disk is away")
        return await real(message, *given)

    machine.engine.open_producer = failing  # type: ignore[method-assign]
    await machine.refused(PublishOpen(request=1, session="s", producer="p"))
    assert refusals == [limit("publications", 1, "s", producer="q")]
    [opened] = await machine.ask(PublishOpen(request=3, session="s", producer="q"))
    assert not isinstance(opened, Error)
    again = await machine.ask(PublishOpen(request=4, session="s", producer="q"))
    assert not isinstance(again[0], Error), "what is held may be opened again"


async def test_changes_are_given_on_as_they_came() -> None:
    machine = Machine()
    await machine.publish()
    [handle] = machine.engine.handles
    published: list[tuple[Any, ...]] = []
    real = handle.publish

    async def publish(*given: Any) -> None:
        published.append(given)
        await real(*given)

    handle.publish = publish  # type: ignore[method-assign]
    message = changes(2, first=5)
    await machine.ask(message)
    assert published == [(1, 5, message.changes)]


async def test_exactly_so_many_changes_and_so_many_bytes_are_taken() -> None:
    size = len(encode(changes(3)))
    for batch_size, batch_changes, refused in (
        (size, 3, None),
        (size - 1, 3, limit("batch_size", size - 1, "s", again=False, producer="p")),
        (size, 2, limit("batch_changes", 2, "s", again=False, producer="p")),
    ):
        machine = Machine(limits={"batch_size": batch_size, "batch_changes": batch_changes})
        await machine.publish()
        answers = await machine.ask(changes(3))
        errors = [one.error for one in answers if isinstance(one, Error)]
        assert errors == ([] if refused is None else [refused])


async def test_what_is_refused_of_publishing_in_words() -> None:
    machine = Machine()
    assert await machine.refused(changes(1)) == ErrorInfo(
        code="unexpected_message",
        message="`publish_open` comes before `publish`",
        session="s",
        details={"producer": "p"},
    )
    machine.peer.drain(100)
    machine.sent()
    stopping = {"code": "draining", "message": "the server is stopping", "retryable": True, "session": "s"}
    opening = PublishOpen(request=1, session="s", producer="p")
    assert await machine.refused(opening) == ErrorInfo(**stopping, details={"producer": "p"})  # type: ignore[arg-type]
    command = CommandRequest(request=3, session="s", key=KEY, name="pause")
    assert await machine.refused(command) == ErrorInfo(**stopping)  # type: ignore[arg-type]


async def test_a_goodbye_that_was_taken_does_not_hold_for_the_next_opening() -> None:
    machine = Machine()
    await machine.publish()
    await machine.ask(PublishClose(request=2, session="s", producer="p", producer_epoch=1))
    assert machine.engine.closed_handles.get_nowait() == ("s", "p", True)
    await machine.publish()
    machine.peer.lost()
    await machine.settle()
    assert machine.engine.closed_handles.get_nowait() == ("s", "p", False)


async def test_a_fence_for_what_is_not_held_any_more_is_told_all_the_same() -> None:
    machine = Machine()
    requests = machine.peer._requests
    requests.fenced("s", "p", removed=False)
    requests.failed("s", "p", ErrorInfo(code="store_failed", message="m"))
    assert len(machine.sent()) == 2


# ---------------------------------------------------------------------- values, logs, history


async def test_an_upload_page_by_page() -> None:
    machine = Machine()
    asked = listen(machine, "value_begin", "value_write")
    data = b"0123456789"
    sha = hashlib.sha256(data).hexdigest()
    assert await machine.ask(put(b"", total=10, sha=sha)) == [ValueAck(request=7, received=0)]
    assert await machine.ask(put(data[:6], total=10, sha=sha)) == [ValueAck(request=7, received=6)]
    assert await machine.ask(put(data[:3], total=10, sha=sha)) == [ValueAck(request=7, received=6)]
    last = put(data[6:], total=10, sha=sha, offset=6)
    assert await machine.ask(last) == [ValueAck(request=7, received=10, complete=True)]
    assert await machine.ask(put(b"", total=10, sha=sha)) == [ValueAck(request=7, received=10, complete=True)]
    assert asked == [
        ("value_begin", "s", sha, 10),
        ("value_begin", "s", sha, 10),
        ("value_write", "s", sha, 10, 0, data[:6]),
        ("value_begin", "s", sha, 10),
        ("value_begin", "s", sha, 10),
        ("value_write", "s", sha, 10, 6, data[6:]),
        ("value_begin", "s", sha, 10),
    ]
    asked_reading = listen(machine, "value_read")
    page = ValueGet(request=9, session="s", sha256=sha, offset=4, length=3)
    assert await machine.ask(page) == [
        ValuePage(request=9, sha256=sha, offset=4, total=10, data=base64.b64encode(b"456").decode())
    ]
    assert asked_reading == [("value_read", "s", sha, 4, 3)]


async def test_bounds_and_refusals_of_uploads() -> None:
    machine = Machine(limits={"value_size": 10, "page_size": 5, "uploads": 1})
    [answer] = await machine.ask(put(b"12345", total=10, sha="a" * 64))
    assert answer == ValueAck(request=7, received=5)
    assert await machine.refused(put(b"", total=1, sha="b" * 64)) == limit("uploads", 1, "s")
    assert await machine.refused(put(b"123456", total=10, sha="a" * 64)) == limit(
        "page_size", 5, "s", again=False
    )
    assert await machine.refused(put(b"", total=11, sha="a" * 64)) == limit(
        "value_size", 10, "s", again=False
    )
    assert await machine.refused(put(b"12345", total=10, sha="a" * 64, offset=6)) == ErrorInfo(
        code="bad_message", message="value_put: the page ends behind `total`", session="s"
    )
    [answer] = await machine.ask(put(b"67890", total=10, sha="a" * 64, offset=5))
    assert answer == ValueAck(request=7, received=10, complete=True)
    [answer] = await machine.ask(put(b"1", total=2, sha="b" * 64))
    assert answer == ValueAck(request=7, received=1), "the first is over, and no longer counts"


async def test_an_upload_that_failed_no_longer_counts() -> None:
    machine = Machine(limits={"uploads": 1})
    real = machine.engine.value_begin

    async def failing(*given: Any) -> int:
        raise StoreError("the disk is away")

    machine.engine.value_begin = failing  # type: ignore[method-assign]
    assert (await machine.refused(put(b"1", total=2, sha="a" * 64))).code == "store_failed"
    machine.engine.value_begin = real  # type: ignore[method-assign]
    assert await machine.ask(put(b"1", total=2, sha="b" * 64)) == [ValueAck(request=7, received=1)]


async def test_what_is_read_is_asked_for_as_it_came() -> None:
    machine = Machine()
    asked = listen(machine, "logs", "history")
    logs = LogsGet(request=8, session="s", step="t", first=3, limit=5)
    assert await machine.ask(logs) == [LogsPage(request=8, records=[], first_kept=1, count=0)]
    history = HistoryGet(request=9, session="s", first=4, limit=6)
    assert await machine.ask(history) == [HistoryPage(request=9, events=[], first_kept=1, head=0)]
    assert asked == [("logs", "s", "t", 3, 5, 8), ("history", "s", 4, 6, 9)]
    gone = ValueGet(request=1, session="s", sha256="f" * 64, offset=0)
    assert await machine.refused(gone) == ErrorInfo(
        code="gone", message="this value is no longer kept", session="s"
    )


async def test_answers_go_out_as_pages_one_after_another() -> None:
    """Beside what is live, and not in front of it."""
    machine = Machine()
    assert machine.peer._requests._answers.bulk


# ---------------------------------------------------------------------- administration and faults


async def test_what_an_administrator_asks_is_asked_as_it_came() -> None:
    machine = Machine()
    asked = listen(machine, "remove", "revoke")
    assert await machine.ask(Remove(request=1, session="s")) == [Done(request=1)]
    assert await machine.ask(Revoke(request=2, jti="j", expires=9)) == [Done(request=2)]
    assert asked == [("remove", "s"), ("revoke", "j", 9)]


async def test_whom_a_role_does_not_permit_is_told_which_and_where() -> None:
    machine = Machine(role="observe")
    assert await machine.refused(Remove(request=1, session="s")) == ErrorInfo(
        code="forbidden", message="the token's role 'observe' does not permit this", session="s"
    )


async def test_another_subjects_token_is_refused_in_words() -> None:
    machine = Machine()
    machine.services.tokens["T"] = machine.credential(sub="eve")
    assert await machine.refused(Refresh(request=1, token="T")) == ErrorInfo(
        code="unauthorized", message="the new token is another subject's"
    )


async def test_a_fault_is_told_with_where_to_look_and_a_store_that_fails_with_its_words() -> None:
    machine = Machine()

    async def broken(*given: Any) -> None:
        raise ValueError("a fault")

    async def away(*given: Any) -> None:
        raise StoreError("the disk is away")

    machine.engine.open_producer = broken  # type: ignore[method-assign,assignment]
    opening = PublishOpen(request=1, session="s", producer="p")
    assert await machine.refused(opening) == ErrorInfo(
        code="internal",
        message="a fault of the server; its log has it under the correlation id",
        retryable=True,
        session="s",
        correlation="4711",
        details={"producer": "p"},
    )
    assert machine.services.faults == ["PublishOpen"]
    machine.engine.open_producer = away  # type: ignore[method-assign,assignment]
    assert await machine.refused(opening) == ErrorInfo(
        code="store_failed",
        message="the disk is away",
        retryable=True,
        session="s",
        details={"producer": "p"},
    )
