"""The publication's machine: rule by rule, and against a model store through every order of faults."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.scale import many
from wsmonitor.client.entries import entity_key
from wsmonitor.client.pacer import Pacer
from wsmonitor.client.publication import REPLY_TIMEOUT, PublicationMachine
from wsmonitor.client.spool import LARGEST_CHANGE
from wsmonitor.protocol.changes import (
    ChainChange,
    Change,
    CommandChange,
    LogChange,
    SessionChange,
    SkippedChange,
    StepChange,
)
from wsmonitor.protocol.entities import Command, ErrorInfo, LogRecord
from wsmonitor.protocol.errors import UsageError
from wsmonitor.protocol.messages import (
    ClientMessage,
    Hold,
    Publish,
    PublishClose,
    PublishOpen,
    PublishOpened,
    ValueAck,
    ValuePut,
)

from .test_link import welcome

_decode = msgspec.json.Decoder(list[Change]).decode


class Told:
    """What the machine told its owner."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.acked = 0

    def opened(self, epoch: str, known: bool) -> None:
        self.log.append(("opened", epoch, known))

    def acknowledged(self, number: int) -> None:
        assert number > self.acked
        self.acked = number

    def rejected(self, number: int, change: Change | None, error: ErrorInfo) -> None:
        self.log.append(("rejected", number, change, error.code))

    def overflowed(self, count: int) -> None:
        self.log.append(("overflowed", count))

    def drained(self, dropped: int) -> None:
        self.log.append(("drained", dropped))

    def command(self, command: Command) -> None:
        self.log.append(("command", command.id))

    def fenced(self, *, removed: bool) -> None:
        self.log.append(("fenced", removed))

    def finished(self) -> None:
        self.log.append(("finished",))

    def uploaded(self, sha256: str) -> None:
        self.log.append(("uploaded", sha256))

    def held(self, holds: tuple[Hold, ...]) -> None:
        self.log.append(("held", [(hold.chain, hold.step, hold.want) for hold in holds]))

    def wants(self) -> None:
        self.log.append(("wants",))

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [entry for entry in self.log if entry[0] == kind]


class Bench:
    """A machine and its clock, and what it sent."""

    def __init__(self, pacer: Pacer | None = None, **limits: int) -> None:
        self.now = 100.0
        self.sent: list[ClientMessage] = []
        self.told = Told()
        self._numbers = 0
        self.machine = PublicationMachine(
            "s",
            "p",
            agent="test",
            send=self.sent.append,
            events=self.told,
            next_request=self._next,
            random=lambda: 0.0,
            pacer=pacer or Pacer(rate=1e9, burst=1_000_000),
            **limits,
        )

    def _next(self) -> int:
        self._numbers += 1
        return self._numbers

    def take(self, kind: type[Any]) -> list[Any]:
        found = [message for message in self.sent if isinstance(message, kind)]
        self.sent[:] = [message for message in self.sent if not isinstance(message, kind)]
        return found

    def connect(self, **fields: Any) -> PublishOpen:
        self.machine.connected(self.now, welcome(**fields))
        (opening,) = self.take(PublishOpen)
        assert isinstance(opening, PublishOpen)
        return opening

    def open(self, accepted: int = 0, epoch: str = "e", *, known: bool = False, **fields: Any) -> None:
        opening = self.connect(**fields)
        self.opened(opening, accepted, epoch, known=known)

    def opened(self, opening: PublishOpen, accepted: int, epoch: str = "e", *, known: bool = False) -> None:
        self.machine.publish_opened(
            self.now,
            PublishOpened(
                request=opening.request,
                session="s",
                producer="p",
                producer_epoch=self.machine.producer_epoch + 1,
                accepted=accepted,
                epoch=epoch,
                known=known,
            ),
        )
        self.machine.reasserted(self.now)

    def published(self) -> list[tuple[int, Change]]:
        """What was sent since, with its wire numbers."""
        return [
            (number, change)
            for message in self.take(Publish)
            for number, change in enumerate(changes_of(message), message.first)
        ]

    def submit(self, change: Change) -> int | None:
        number = self.machine.submit(change)
        self.machine.pump(self.now)
        return number

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.machine.handle_timeout(self.now)


def changes_of(message: Publish) -> list[Change]:
    return _decode(msgspec.json.encode(message.changes))


def step(ident: str, **fields: Any) -> StepChange:
    return StepChange(id=ident, **fields)


def test_what_is_published_before_the_link_is_up_goes_out_in_order() -> None:
    bench = Bench()
    tickets = [bench.submit(step(f"s{i}", name="n")) for i in range(5)]
    assert tickets == [1, 2, 3, 4, 5]
    assert bench.sent == []
    bench.open()
    assert bench.told.log == [("opened", "e", False)]
    assert [(number, change.id) for number, change in bench.published()] == [  # type: ignore[union-attr]
        (i + 1, f"s{i}") for i in range(5)
    ]
    assert bench.machine.unacknowledged == 5
    bench.machine.ack(bench.now, 3)
    assert (bench.told.acked, bench.machine.unacknowledged) == (3, 2)
    bench.machine.ack(bench.now, 5)
    assert bench.machine.empty


def test_batches_keep_to_the_servers_limits() -> None:
    bench = Bench()
    for i in range(10):
        bench.machine.submit(step(f"s{i}", name="x" * 100))
    bench.open(batch_changes=3)
    assert [len(message.changes) for message in bench.take(Publish)] == [3, 3, 3, 1]
    bench = Bench()
    for i in range(10):
        bench.machine.submit(step(f"s{i}", attributes={"a": "x" * 1000}, name="n"))
    bench.open(batch_size=2048 + 2500, message_size=2_000_000)
    sizes = [len(msgspec.json.encode(message)) for message in bench.take(Publish)]
    assert max(sizes) <= 2048 + 2500


def test_a_server_that_names_no_sensible_limit_gets_one_change_at_a_time() -> None:
    bench = Bench()
    for i in range(3):
        bench.machine.submit(step(f"s{i}"))
    bench.open(batch_changes=0)
    assert [len(message.changes) for message in bench.take(Publish)] == [1, 1, 1]


def test_what_was_not_acknowledged_is_sent_again_with_the_same_numbers() -> None:
    bench = Bench()
    bench.open()
    for i in range(4):
        bench.submit(step(f"s{i}"))
    first = bench.published()
    bench.machine.ack(bench.now, 1)
    bench.machine.disconnected()
    bench.submit(step("later"))
    assert bench.sent == []
    bench.open(accepted=2, known=True)  # the acknowledgement of 2 was lost on the way
    assert bench.told.of("opened")[-1] == ("opened", "e", True)
    assert bench.told.acked == 2
    assert bench.published() == [*first[2:], (5, step("later"))]


def test_a_store_that_knows_less_is_numbered_anew_and_the_owner_asserts_in_front() -> None:
    bench = Bench()
    bench.open()
    for i in range(3):
        bench.submit(step(f"s{i}"))
    bench.published()
    bench.machine.ack(bench.now, 3)
    bench.machine.disconnected()
    waiting = [step("s1", reason="waits"), LogChange(step="s1", records=(LogRecord(n=0, at="1", text="t"),))]
    for change in waiting:
        bench.submit(change)
    opening = bench.connect()
    whole = step("s1", name="whole", chain="c")
    bench.told.opened = lambda epoch, known: (  # type: ignore[method-assign]
        bench.told.log.append(("opened", epoch, known)),
        bench.machine.submit(ChainChange(id="c", name="c"), asserting=True),
        bench.machine.submit(whole, asserting=True),
    )[0]
    bench.opened(opening, 0, "e2")
    assert bench.told.of("opened")[-1] == ("opened", "e2", False)
    # In front: what was asserted; the waiting change to the same step is in it, the log line is not.
    assert bench.published() == [(1, ChainChange(id="c", name="c")), (2, whole), (3, waiting[1])]
    bench.machine.ack(bench.now, 3)
    assert bench.machine.empty
    assert bench.machine.unacknowledged == 0
    assert bench.told.acked == 7  # all tickets


def test_a_new_epoch_is_told_also_when_the_numbers_fit() -> None:
    bench = Bench()
    bench.open()
    bench.machine.disconnected()
    bench.open(epoch="e2", known=True)
    assert bench.told.of("opened")[-1] == ("opened", "e2", False)


def test_an_overflowing_spool_drops_the_newest_counts_and_tells() -> None:
    bench = Bench(limit_changes=4)
    assert [bench.submit(step(f"s{i}")) for i in range(7)] == [1, 2, 3, 4, None, None, None]
    assert bench.machine.dropped == 3
    assert bench.told.of("overflowed")[-1] == ("overflowed", 3)
    assert bench.submit(CommandChange(id="0" * 32, state="accepted")) is not None  # never dropped
    bench.open()
    sent = bench.published()
    assert [number for number, _ in sent] == [1, 2, 3, 4, 5, 6]
    assert sent[4][1] == SkippedChange(first=5, last=5, count=3)
    assert bench.told.of("drained") == []
    bench.machine.ack(bench.now, 6)
    assert bench.told.of("drained") == [("drained", 3)]
    assert bench.submit(step("again")) is not None


def test_bytes_are_a_limit_too() -> None:
    bench = Bench(limit_bytes=300)
    results = [bench.submit(step("s", reason="x" * 100)) for _ in range(4)]
    assert results[0] == 1
    assert results[-1] is None


def test_a_rejected_change_is_told_with_its_own_number() -> None:
    bench = Bench()
    bench.open()
    bench.machine.disconnected()
    bench.open(accepted=40, known=True)  # another store: wire numbers and tickets are not the same
    bench.submit(step("a"))
    bench.submit(step("b"))
    assert [number for number, _ in bench.published()] == [41, 42]
    bench.machine.rejected(42, ErrorInfo(code="illegal_transition", message="no"))
    assert bench.told.of("rejected") == [("rejected", 2, step("b"), "illegal_transition")]
    bench.machine.ack(bench.now, 42)
    assert bench.told.acked == 2


def test_what_no_message_can_carry_is_refused_where_it_is_made() -> None:
    bench = Bench()
    with pytest.raises(UsageError, match="bytes"):
        bench.machine.submit(
            StepChange(id="s", attributes={f"k{i}": "x" * (LARGEST_CHANGE // 100) for i in range(101)})
        )
    with pytest.raises(UsageError):
        bench.machine.submit(StepChange(id="a/b"))
    with pytest.raises(UsageError):
        bench.machine.submit(SessionChange(name="n" * 1000))
    with pytest.raises(TypeError):
        bench.machine.submit(StepChange(id="s", attributes={"o": object()}))  # type: ignore[dict-item]
    assert bench.machine.empty


def test_a_server_with_smaller_messages_gets_a_mark_in_place_of_what_it_cannot_take() -> None:
    bench = Bench()
    big = step("s", attributes={f"k{i}": "x" * 1000 for i in range(10)})
    bench.machine.submit(big)
    bench.machine.submit(step("t"))
    bench.open(message_size=4096)
    assert bench.told.of("rejected") == [("rejected", 1, big, "message_too_large")]
    assert bench.published() == [(1, SkippedChange(first=1, last=1, count=1)), (2, step("t"))]
    bench.machine.ack(bench.now, 2)
    assert bench.machine.empty
    assert bench.machine.unacknowledged == 0


def test_a_value_is_uploaded_in_pages_before_what_is_behind_it() -> None:
    bench = Bench()
    data = bytes(range(256)) * 10
    sha = hashlib.sha256(data).hexdigest()
    bench.submit(step("before"))
    bench.machine.submit_value(data, sha)
    bench.submit(step("behind"))
    bench.open(page_size=1000)
    assert [change.id for _, change in bench.published()] == ["before"]  # type: ignore[union-attr]
    received = b""
    (put,) = bench.take(ValuePut)
    assert (put.offset, put.data, put.total) == (0, "", len(data))
    while True:
        complete = len(received) == len(data)
        answer = ValueAck(request=put.request, received=len(received), complete=complete)
        assert bench.machine.value_ack(bench.now, answer)
        if complete:
            break
        (put,) = bench.take(ValuePut)
        assert put.offset == len(received)
        page = base64.b64decode(put.data)
        assert 0 < len(page) <= 1000
        received += page
    assert received == data
    assert [(n, change.id) for n, change in bench.published()] == [(2, "behind")]  # type: ignore[union-attr]
    bench.machine.ack(bench.now, 2)
    assert bench.machine.empty


def test_a_broken_upload_goes_on_where_the_server_says() -> None:
    bench = Bench()
    data = b"x" * 2500
    bench.machine.submit_value(data, hashlib.sha256(data).hexdigest())
    bench.submit(step("behind"))
    bench.open(page_size=1000)
    (put,) = bench.take(ValuePut)
    bench.machine.value_ack(bench.now, ValueAck(request=put.request, received=0))
    bench.machine.disconnected()
    bench.take(ValuePut)
    bench.open(page_size=1000)
    (put,) = bench.take(ValuePut)
    assert put.data == ""
    bench.machine.value_ack(bench.now, ValueAck(request=put.request, received=1000))
    (put,) = bench.take(ValuePut)
    assert put.offset == 1000


def test_an_uploaded_value_is_kept_until_what_refers_to_it_is_committed() -> None:
    bench = Bench()
    data = b"x" * 5000
    bench.open()
    bench.machine.submit_value(data, hashlib.sha256(data).hexdigest())
    bench.machine.pump(bench.now)
    (put,) = bench.take(ValuePut)
    bench.machine.value_ack(bench.now, ValueAck(request=put.request, received=5000, complete=True))
    assert bench.machine.empty
    bench.submit(step("behind"))
    assert len(bench.published()) == 1
    bench.machine.disconnected()
    bench.open()  # another server, perhaps: it is asked again before the change is sent again
    (put,) = bench.take(ValuePut)
    assert bench.published() == []
    bench.machine.value_ack(bench.now, ValueAck(request=put.request, received=5000, complete=True))
    assert [number for number, _ in bench.published()] == [1]


def test_a_refused_upload_does_not_hold_up_the_rest() -> None:
    bench = Bench()
    bench.open()
    bench.machine.submit_value(b"x" * 5000, "0" * 64)
    bench.submit(step("behind"))
    (put,) = bench.take(ValuePut)
    refused = ErrorInfo(code="value_mismatch", message="no")
    assert bench.machine.request_failed(bench.now, put.request, refused)
    assert bench.told.of("rejected") == [("rejected", 0, None, "value_mismatch")]
    assert [number for number, _ in bench.published()] == [1]


def test_too_many_waiting_bytes_of_values_are_refused() -> None:
    bench = Bench(limit_values=1000)
    assert bench.machine.submit_value(b"x" * 900, "0" * 64)
    assert not bench.machine.submit_value(b"x" * 900, "1" * 64)


def _command(ident: str, state: Any = "requested") -> Command:
    return Command(id=ident, name="pause", deadline="9", requested="1", state=state)


def test_a_command_is_told_once_and_its_delivery_is_published() -> None:
    bench = Bench()
    bench.open()
    for _ in range(3):
        bench.machine.deliver(_command("a" * 32))
        bench.machine.pump(bench.now)
    bench.machine.disconnected()
    bench.open(accepted=0)
    bench.machine.deliver(_command("a" * 32, "delivered"))
    bench.machine.pump(bench.now)
    assert bench.told.of("command") == [("command", "a" * 32)]
    changes = {change for _, change in bench.published()}
    assert changes == {CommandChange(id="a" * 32, state="delivered")}


def test_fencing_ends_it_but_not_while_it_opens_again_itself() -> None:
    bench = Bench()
    opening = bench.connect()
    bench.machine.fenced()  # about our own earlier opening
    bench.opened(opening, 0)
    bench.machine.fenced()
    assert bench.told.of("fenced") == [("fenced", False)]
    bench.submit(step("a"))
    bench.machine.disconnected()
    bench.machine.connected(bench.now, welcome())
    assert bench.sent == []


def test_a_refused_opening_is_final_unless_it_may_be_tried_again() -> None:
    bench = Bench()
    opening = bench.connect()
    bench.machine.request_failed(
        bench.now, opening.request, ErrorInfo(code="store_failed", message="full", retryable=True)
    )
    assert bench.machine.next_deadline() == bench.now + 1.0
    bench.wait(1.0)
    (opening,) = bench.take(PublishOpen)
    bench.machine.request_failed(bench.now, opening.request, ErrorInfo(code="forbidden", message="no"))
    assert bench.machine.stage == "refused"
    assert bench.told.of("rejected") == [("rejected", 0, None, "forbidden")]


def test_after_a_fault_of_the_store_the_server_is_asked_how_far_it_has_come() -> None:
    bench = Bench()
    bench.open()
    bench.submit(step("a"))
    bench.submit(step("b"))
    bench.published()
    bench.machine.failed(bench.now, ErrorInfo(code="store_failed", message="x", retryable=True))
    bench.machine.failed(bench.now, ErrorInfo(code="store_failed", message="x", retryable=True))
    bench.wait(1.0)
    (opening,) = bench.take(PublishOpen)
    bench.opened(opening, 1, known=True)
    assert bench.published() == [(2, step("b"))]


def test_when_the_server_takes_changes_again_it_is_asked_soon() -> None:
    bench = Bench()
    opening = bench.connect()
    full = ErrorInfo(code="store_failed", message="x", retryable=True)
    for delay in (1.0, 2.0, 4.0):
        bench.machine.request_failed(bench.now, opening.request, full)
        assert bench.machine.next_deadline() == bench.now + delay
        bench.wait(delay)
        (opening,) = bench.take(PublishOpen)
    bench.machine.request_failed(bench.now, opening.request, full)
    assert bench.machine.next_deadline() == bench.now + 8.0
    bench.machine.recovered(bench.now)
    assert bench.machine.next_deadline() == bench.now + 1.0
    bench.wait(0.5)
    bench.machine.recovered(bench.now)
    assert bench.machine.next_deadline() == bench.now + 0.5, "never later than it was"
    bench.wait(0.5)
    (opening,) = bench.take(PublishOpen)
    bench.opened(opening, 0)
    before = bench.machine.next_deadline()
    bench.machine.recovered(bench.now)
    assert bench.take(PublishOpen) == []
    assert bench.machine.next_deadline() == before


def test_a_delay_that_the_server_asked_for_is_kept_when_it_takes_changes_again() -> None:
    bench = Bench()
    opening = bench.connect()
    busy = ErrorInfo(code="limit_exceeded", message="x", retryable=True, details={"retry_after": 20})
    bench.machine.request_failed(bench.now, opening.request, busy)
    bench.machine.recovered(bench.now)
    assert bench.machine.next_deadline() == bench.now + 20.0


def test_a_token_that_no_longer_covers_the_session_ends_the_publication() -> None:
    bench = Bench()
    bench.open()
    bench.machine.failed(bench.now, ErrorInfo(code="not_available", message="no"))
    assert bench.machine.stage == "refused"
    assert bench.told.of("rejected") == [("rejected", 0, None, "not_available")]


def test_an_opening_without_an_answer_is_made_again() -> None:
    bench = Bench()
    bench.connect()
    bench.wait(REPLY_TIMEOUT)
    assert len(bench.take(PublishOpen)) == 1


def test_the_goodbye_comes_after_everything_is_committed() -> None:
    bench = Bench()
    bench.open()
    bench.submit(step("a"))
    bench.machine.close(bench.now)
    assert bench.take(PublishClose) == []
    bench.machine.ack(bench.now, 1)
    (goodbye,) = bench.take(PublishClose)
    assert bench.machine.done(goodbye.request)
    assert bench.machine.stage == "closed"
    assert bench.told.of("finished") == [("finished",)]


def test_a_goodbye_without_an_answer_ends_too() -> None:
    bench = Bench()
    bench.open()
    bench.machine.close(bench.now)
    bench.wait(REPLY_TIMEOUT)
    assert bench.machine.stage == "closed"


def test_sending_is_paced_and_gathers_meanwhile() -> None:
    bench = Bench(pacer=Pacer(rate=100.0, burst=2))
    bench.open()
    for i in range(50):
        bench.submit(step(f"s{i}"))
    assert len(bench.take(Publish)) == 2
    due = bench.machine.next_deadline()
    assert due == pytest.approx(bench.now + 0.01)
    bench.wait(0.0101)
    (message,) = bench.take(Publish)
    assert len(message.changes) == 48


class Store:
    """The server's side of one producer: exactly the next number, committed or lost as the test says."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.accepted = 0
        self.applied: list[Change] = []
        self.skipped = 0

    def publish(self, message: Publish) -> None:
        for number, change in enumerate(changes_of(message), message.first):
            if number <= self.accepted:
                continue  # deduplicated
            assert number == self.accepted + 1, "out of sequence"
            self.accepted = number
            if isinstance(change, SkippedChange):
                assert change.first == change.last == number
                self.skipped += change.count
            else:
                self.applied.append(change)


class Publishing(RuleBasedStateMachine):
    """Nothing published is applied twice or out of order, whatever is cut and retried (ONCE, ORDER)."""

    @initialize(limit=st.sampled_from([3, 1000]), burst=st.sampled_from([1, 1000]))
    def begin(self, limit: int, burst: int) -> None:
        self.bench = Bench(pacer=Pacer(rate=100.0, burst=burst), limit_changes=limit)
        self.store = Store("e1")
        self.linked = False
        self.count = 0
        self.taken: list[str] = []
        self.unread = 0

    @rule(count=st.integers(1, 4))
    def submit(self, count: int) -> None:
        for _ in range(count):
            self.count += 1
            ident = f"s{self.count}"
            if self.bench.submit(step(ident)) is not None:
                self.taken.append(ident)

    @precondition(lambda self: not self.linked)
    @rule()
    def connect(self) -> None:
        self.linked = True
        self.bench.machine.connected(self.bench.now, welcome(batch_changes=3))

    @precondition(lambda self: self.linked)
    @rule(arrives=st.booleans())
    def cut(self, arrives: bool) -> None:
        """The link breaks; what was on its way arrived there, or did not."""
        if arrives:
            self._server(answers=False)
        self.linked = False
        self.bench.sent.clear()
        self.bench.machine.disconnected()

    @precondition(lambda self: self.linked)
    @rule()
    def serve(self) -> None:
        self._server(answers=True)

    @precondition(lambda self: self.linked)
    @rule()
    def refuse_to_commit(self) -> None:
        """The store failed: what was on its way is not kept, and the producer opens again."""
        if self.bench.machine.stage == "open":
            self.bench.sent.clear()
            self.bench.machine.failed(self.bench.now, ErrorInfo(code="store_failed", message="x"))

    @rule(seconds=st.floats(0, 3))
    def wait(self, seconds: float) -> None:
        self.bench.wait(seconds)

    def _server(self, *, answers: bool) -> None:
        sent, self.bench.sent[:] = list(self.bench.sent), []
        for message in sent:
            match message:
                case PublishOpen():
                    if answers:
                        self.bench.opened(message, self.store.accepted, self.store.epoch, known=True)
                case Publish():
                    self.store.publish(message)
                    if answers:
                        self.bench.machine.ack(self.bench.now, self.store.accepted)

    @invariant()
    def once_and_in_order(self) -> None:
        if hasattr(self, "store"):
            applied = [change.id for change in self.store.applied]  # type: ignore[union-attr]
            assert applied == self.taken[: len(applied)]
            assert self.bench.told.acked <= len(self.taken) + self.bench.machine.dropped

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        if not self.linked:
            self.connect()
        for _ in range(100):
            self._server(answers=True)
            if self.bench.machine.empty:
                break
            self.bench.wait(31.0)
        assert [change.id for change in self.store.applied] == self.taken  # type: ignore[union-attr]
        assert self.store.skipped == self.bench.machine.dropped
        assert self.bench.machine.unacknowledged == 0


Publishing.TestCase.settings = settings(max_examples=many(150), stateful_step_count=50, deadline=None)
TestPublishing = Publishing.TestCase


def test_who_comes_back_after_another_holder_is_fenced() -> None:
    bench = Bench()
    bench.open()
    bench.submit(step("a"))
    bench.machine.disconnected()
    again = bench.connect()
    assert (again.holder, again.producer_epoch) == (bench.machine.holder, 1)
    fenced = ErrorInfo(code="fenced", message="another holder opened this producer since")
    assert bench.machine.request_failed(bench.now, again.request, fenced)
    assert bench.told.of("fenced") == [("fenced", False)]
    assert bench.told.acked == 0
    assert bench.machine.stage == "fenced"


def test_who_comes_back_to_a_session_that_was_removed_is_told_so() -> None:
    bench = Bench()
    bench.open()
    bench.machine.disconnected()
    again = bench.connect()
    removed = ErrorInfo(code="fenced", message="the session was removed", details={"reason": "removed"})
    assert bench.machine.request_failed(bench.now, again.request, removed)
    assert bench.told.of("fenced") == [("fenced", True)]
    assert bench.machine.stage == "fenced"


def test_a_publication_that_is_told_that_it_is_not_the_holder_stops() -> None:
    bench = Bench()
    bench.open()
    bench.submit(step("a"))
    for reason, removed in ((None, False), ("removed", True)):
        bench = Bench()
        bench.open()
        bench.submit(step("a"))
        details = {"producer": "p"} if reason is None else {"producer": "p", "reason": reason}
        bench.machine.failed(bench.now, ErrorInfo(code="fenced", message="another holder", details=details))
        assert bench.machine.stage == "fenced"
        assert bench.told.of("fenced") == [("fenced", removed)]


def test_what_an_assertion_replaces_is_acknowledged_with_it_and_not_before() -> None:
    """DURABLE: of 3 waiting changes the second is asserted anew; the first and last are not its business."""
    bench = Bench()
    bench.open()
    bench.machine.disconnected()
    for name in ("a", "b", "a", "c"):
        bench.machine.submit(step(name))
    opening = bench.connect(batch_changes=1)
    told = bench.told.opened
    ticket: list[int | None] = []

    def opened(epoch: str, known: bool) -> None:
        told(epoch, known)
        ticket.append(bench.machine.submit(step("b"), asserting=True))
        ticket.append(bench.machine.submit(step("a"), asserting=True))

    bench.told.opened = opened  # type: ignore[method-assign]
    bench.opened(opening, 0, "another")
    assert ticket == [5, 6]
    sent = [(number, change.id) for number, change in bench.published() if isinstance(change, StepChange)]
    assert sent == [(1, "b"), (2, "a"), (3, "c")]
    bench.machine.ack(bench.now, 1)
    assert bench.told.acked == 0  # "a", which was the first, still waits in its assertion
    bench.machine.ack(bench.now, 2)
    assert bench.told.acked == 3
    bench.machine.ack(bench.now, 3)
    assert bench.told.acked == 6


def test_which_entity_a_change_writes() -> None:
    assert entity_key(SessionChange()) == ("session", "")
    assert entity_key(ChainChange(id="c")) == ("chain", "c")
    assert entity_key(step("x")) == ("step", "x")
    assert entity_key(LogChange(step="x", records=[])) is None
    assert entity_key(None) is None


def test_when_the_pacer_gives_leave_again() -> None:
    pacer = Pacer(rate=10.0, burst=2)
    assert pacer.next_at(0.0) == 0.0
    assert [pacer.take(0.0) for _ in range(3)] == [True, True, False]
    assert pacer.next_at(0.0) == pytest.approx(0.1)
    assert pacer.next_at(0.05) == pytest.approx(0.1)
    assert pacer.next_at(0.1) == 0.1
    assert pacer.take(0.1)
    assert (Pacer().rate, Pacer().burst) == (250.0, 250)


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [(2.5, 2.5, 2.5), (0.01, 1.0, 1.25), (9_999, 30.0, 30.0), ("soon", 1.0, 1.25), (None, 1.0, 1.25)],
)
def test_who_is_beyond_a_limit_waits_as_long_as_it_was_told(asked: object, least: float, most: float) -> None:
    """But never longer than between two attempts at the most, and not less than without being told."""
    bench = Bench()
    bench.open()
    details = {} if asked is None else {"retry_after": asked}
    bench.machine.failed(bench.now, ErrorInfo(code="limit_exceeded", message="m", details=details))
    deadline = bench.machine.next_deadline()
    assert deadline is not None
    assert least <= deadline - bench.now <= most


def test_somebody_is_told_why_nothing_moves_once_for_each_limit() -> None:
    bench = Bench()
    bench.open()
    for words in ("10 a second", "10 a second", "so many bytes"):
        details = {"retry_after": 1.0}
        error = ErrorInfo(code="limit_exceeded", message=words, retryable=True, details=details)
        bench.machine.failed(bench.now, error)
        bench.wait(30.0)
        (opening,) = bench.take(PublishOpen)
        bench.opened(opening, 1, known=True)
    assert bench.told.of("rejected") == [("rejected", 0, None, "limit_exceeded")] * 2
