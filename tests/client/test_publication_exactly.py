"""The publication's machine: what exactly it sends, tells and waits for, at each stage."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from wsmonitor.client.entries import Row
from wsmonitor.client.pacer import Pacer
from wsmonitor.client.publication import _ENVELOPE, REMEMBERED_COMMANDS, REPLY_TIMEOUT, PublicationMachine
from wsmonitor.client.spool import Opened, Reorder, SpoolLimits
from wsmonitor.protocol.changes import Change, SkippedChange
from wsmonitor.protocol.entities import Command, ErrorInfo
from wsmonitor.protocol.messages import (
    Hold,
    Publish,
    PublishClose,
    PublishOpen,
    PublishOpened,
    ValueAck,
    ValuePut,
)

from .test_link import welcome
from .test_publication import Bench, Told, step

SHA = "ab" * 32
STAGES = ("off", "opening", "open", "pausing", "closing", "closed", "fenced", "refused")
ENDED = ("closed", "fenced", "refused")


class Ears(Told):
    """Hears everything."""

    def held(self, holds: tuple[Hold, ...]) -> None:
        self.log.append(("held", holds))

    def wants(self) -> None:
        self.log.append(("wants",))


def bench(pacer: Pacer | None = None, **limits: int) -> Bench:
    made = Bench(pacer, **limits)
    made.told = made.machine._events = Ears()
    return made


def error(code: str = "store_failed", *, retryable: bool = False, **details: Any) -> ErrorInfo:
    return ErrorInfo(code=code, message="x", retryable=retryable, details=details)


def at(stage: str) -> Bench:
    """A bench whose machine has come to *stage*, with nothing sent or told since."""
    made = bench()
    machine = made.machine
    if stage != "off":
        opening = made.connect()
        if stage != "opening":
            made.opened(opening, 0)
    if stage == "pausing":
        machine.failed(made.now, error())
    elif stage in ("closing", "closed"):
        machine.close(made.now)
        if stage == "closed":
            (goodbye,) = made.take(PublishClose)
            assert machine.done(goodbye.request)
    elif stage == "fenced":
        machine.fenced()
    elif stage == "refused":
        machine.failed(made.now, error("forbidden"))
    assert machine.stage == stage
    made.sent.clear()
    made.told.log.clear()
    return made


def publish(first: int, *changes: Change, epoch: int = 1) -> bytes:
    """A message as it is on the wire."""
    return msgspec.json.encode(
        Publish(session="s", producer="p", producer_epoch=epoch, first=first, changes=list(changes))
    )


def on_the_wire(made: Bench) -> list[bytes]:
    sent = [msgspec.json.encode(message) for message in made.sent]
    made.sent.clear()
    return sent


def answer(made: Bench, opening: PublishOpen, accepted: int = 0, **fields: Any) -> PublishOpened:
    said: dict[str, Any] = {"epoch": "e", "known": True, "producer_epoch": 1, "request": opening.request}
    return PublishOpened(session="s", producer="p", accepted=accepted, **{**said, **fields})


def test_before_the_first_link() -> None:
    machine = bench().machine
    assert (machine.stage, machine.session_epoch, machine.producer_epoch) == ("off", "", 0)
    assert (machine.unacknowledged, machine.acknowledged, machine.dropped, machine.empty) == (0, 0, 0, True)
    assert machine.next_deadline() is None
    machine.pump(0.0)
    machine.handle_timeout(1e9)
    assert machine.spool.limits == SpoolLimits()


def test_limits_are_the_ones_that_are_given() -> None:
    made = bench(limit_changes=1, limit_bytes=2, limit_values=3, limit_kept_changes=4, limit_kept_bytes=5)
    assert made.machine.spool.limits == SpoolLimits(1, 2, 3, 4, 5)


def test_the_holders_name_is_ninety_six_random_bits() -> None:
    numbers = iter([0.0, 0.5, 1 - 2**-32])
    machine = PublicationMachine(
        "s",
        "p",
        agent="",
        send=lambda message: None,
        events=Ears(),
        next_request=lambda: 1,
        random=lambda: next(numbers),
        pacer=Pacer(),
    )
    assert machine.holder == "00000000" + "80000000" + "ffffffff"


def test_a_life_from_opening_to_goodbye_on_the_wire() -> None:
    made = bench()
    machine = made.machine
    machine.submit(step("a"))
    opening = made.connect()
    assert opening == PublishOpen(
        request=1, session="s", producer="p", agent="test", holder="0" * 24, producer_epoch=0
    )
    assert machine.next_deadline() == made.now + REPLY_TIMEOUT
    machine.publish_opened(made.now, answer(made, opening, producer_epoch=7))
    assert made.sent == []  # until the owner has asserted what it wants to
    machine.reasserted(made.now)
    assert on_the_wire(made) == [publish(1, step("a"), epoch=7)]
    made.submit(step("b"))
    made.submit(step("c"))
    assert on_the_wire(made) == [publish(2, step("b"), epoch=7), publish(3, step("c"), epoch=7)]
    machine.close(made.now)
    machine.ack(made.now, 2)
    assert made.sent == []
    made.now += 5.0
    machine.ack(made.now, 3)
    assert made.sent == [PublishClose(request=2, session="s", producer="p", producer_epoch=7)]
    assert machine.next_deadline() == made.now + REPLY_TIMEOUT
    assert not machine.done(3)
    assert machine.stage == "closing"
    assert machine.done(2)
    assert machine.next_deadline() is None
    assert not machine.done(2)
    assert made.told.log == [("opened", "e", True), ("finished",)]


def test_what_is_not_asserted_stays_behind_what_waits() -> None:
    made = bench()
    machine = made.machine
    machine.submit(step("a"))
    opening = made.connect()
    machine.publish_opened(made.now, answer(made, opening))
    machine.submit(step("b"))
    machine.submit_value(b"data", SHA)
    machine.submit(step("c"), asserting=True)
    machine.reasserted(made.now)
    assert [entry.ticket for entry in machine.spool.entries if not entry.is_value] == [3, 1, 2]
    assert machine.spool.entries[-1].is_value


def test_a_value_that_is_asserted_goes_in_front_with_what_refers_to_it() -> None:
    made = bench()
    machine = made.machine
    machine.submit(step("a"))
    opening = made.connect()
    machine.publish_opened(made.now, answer(made, opening))
    machine.submit_value(b"data", SHA, asserting=True)
    machine.submit(step("b"), asserting=True)
    machine.reasserted(made.now)
    assert [entry.is_value for entry in machine.spool.entries] == [True, False, False]
    assert [type(message) for message in made.sent] == [ValuePut]


ROWS = [Row(1, 3, "", 0, True, 2, None), Row(2, 4, "", 0, True, 2, None)]
"""What an earlier process had left: its third and fourth change."""


def restored(session_epoch: str) -> Bench:
    made = bench()
    made.machine.restore(ROWS, accepted=2, holder="earlier", producer_epoch=5, session_epoch=session_epoch)
    return made


def fetch(made: Bench) -> None:
    """The bytes that are wanted come from the disk."""
    spool = made.machine.spool
    spool.loaded(
        [(entry.pos, msgspec.json.encode(step("r"))) for entry in spool.entries if entry.data is None]
    )
    made.machine.pump(made.now)


@pytest.mark.parametrize(("accepted", "left"), [(2, [3, 4]), (3, [4]), (4, []), (9, [])])
def test_what_an_earlier_process_left_goes_on_as_that_process(accepted: int, left: list[int]) -> None:
    """The server may have accepted what was in the memory of that process only, behind what it kept."""
    made = restored("e")
    machine = made.machine
    opening = made.connect()
    assert (opening.holder, opening.producer_epoch) == ("earlier", 5)
    machine.publish_opened(made.now, answer(made, opening, accepted, producer_epoch=6))
    machine.reasserted(made.now)
    assert made.told.of("opened") == [("opened", "e", True)]
    machine.spool.done(machine.spool.take_orders())
    machine.pump(made.now)
    if left:
        assert made.told.of("wants") == [("wants",)]
        fetch(made)
    assert [number for number, _ in made.published()] == left
    machine.submit(step("new"))
    machine.pump(made.now)
    assert [number for number, _ in made.published()] == [max(4, accepted) + 1]


def test_what_never_heard_from_a_server_is_numbered_by_it() -> None:
    made = restored("")
    opening = made.connect()
    made.machine.publish_opened(made.now, answer(made, opening, 3))
    made.machine.reasserted(made.now)
    assert made.told.of("opened") == [("opened", "e", False)]
    made.machine.spool.done(made.machine.spool.take_orders())
    made.machine.pump(made.now)
    fetch(made)
    assert [number for number, _ in made.published()] == [4, 5]


@pytest.mark.parametrize("accepted", range(7))
def test_which_server_goes_on_with_our_numbers(accepted: int) -> None:
    """It has acknowledged 2, and 4 were sent: any other count is another store's."""
    made = bench()
    made.open(known=True)
    for name in "abcd":
        made.submit(step(name))
    made.machine.ack(made.now, 2)
    made.machine.disconnected()
    made.submit(step("e"))
    made.sent.clear()
    made.told.log.clear()
    made.open(accepted, known=True)
    ours = 2 <= accepted <= 4
    assert made.told.of("opened") == [("opened", "e", ours)]
    left = "abcde"[accepted if ours else 2 :]
    assert made.published() == [(accepted + 1 + i, step(name)) for i, name in enumerate(left)]


@pytest.mark.parametrize("accepted", [0, 1])
def test_a_server_that_has_more_than_nothing_of_one_that_sent_nothing_is_anothers(accepted: int) -> None:
    made = bench()
    made.open(accepted, known=True)
    assert made.told.of("opened") == [("opened", "e", accepted == 0)]


def test_an_answer_to_another_opening_is_not_ours() -> None:
    made = at("opening")
    made.machine.publish_opened(
        made.now,
        PublishOpened(
            request=99, session="s", producer="p", producer_epoch=1, accepted=0, epoch="e", known=True
        ),
    )
    assert (made.machine.stage, made.told.log) == ("opening", [])
    made = at("open")
    made.machine.publish_opened(
        made.now,
        PublishOpened(
            request=1, session="s", producer="p", producer_epoch=9, accepted=0, epoch="x", known=True
        ),
    )
    assert (made.machine.producer_epoch, made.told.log) == (1, [])


def test_holds_are_told_when_they_are_others_and_all_that_are_in_force() -> None:
    made = bench()
    machine = made.machine
    first, second = Hold(chain="c", want="pause"), Hold(step="t", want="cancel", reason="r")

    def opened(*holds: Hold) -> list[tuple[Any, ...]]:
        machine.disconnected()
        opening = made.connect()
        made.told.log.clear()
        machine.publish_opened(made.now, answer(made, opening, holds=list(holds)))
        machine.reasserted(made.now)
        return made.told.of("held")

    assert opened() == []
    assert opened(first) == [("held", (first,))]
    assert opened(first) == []
    made.told.log.clear()
    machine.hold_changed(second)
    machine.hold_changed(Hold(chain="c", want="cancel"))
    machine.hold_changed(Hold(chain="c"))
    machine.hold_changed(Hold(step="another"))
    assert made.told.of("held") == [
        ("held", (first, second)),
        ("held", (Hold(chain="c", want="cancel"), second)),
        ("held", (second,)),
        ("held", (second,)),
    ]
    assert opened(second) == []
    assert opened() == [("held", ())]


@pytest.mark.parametrize(
    ("accepted", "asserted", "moved"), [(0, False, False), (0, True, True), (5, False, True), (5, True, True)]
)
def test_the_disk_is_told_first_and_of_another_order_anew(accepted: int, asserted: bool, moved: bool) -> None:
    made = bench()
    machine = made.machine
    machine.submit(step("a"))
    machine.spool.keep()
    machine.spool.done(machine.spool.take_orders())
    opening = made.connect()
    machine.publish_opened(made.now, answer(made, opening, accepted))
    if asserted:
        machine.submit(step("b"), asserting=True)
    machine.reasserted(made.now)
    orders = machine.spool.take_orders()
    assert orders[0] == Opened(1, "e")
    assert [type(order) for order in orders[1:]] == ([Reorder] if moved else [])
    assert made.sent == []
    machine.spool.done(orders)
    machine.pump(made.now)
    assert len(made.published()) == 1 + asserted


@pytest.mark.parametrize("stage", STAGES)
def test_at_each_stage_the_link_comes_and_goes(stage: str) -> None:
    made = at(stage)
    made.machine.disconnected()
    assert made.machine.stage == (stage if stage in ENDED else "off")
    assert made.machine.next_deadline() is None
    made.machine.connected(made.now, welcome())
    assert [type(message) for message in made.sent] == ([] if stage in ENDED else [PublishOpen])
    assert made.machine.stage == (stage if stage in ENDED else "opening")


@pytest.mark.parametrize("stage", STAGES)
def test_at_each_stage_another_holder_comes(stage: str) -> None:
    made = at(stage)
    deadline = made.machine.next_deadline()
    made.machine.fenced(removed=True)
    if stage in ("open", "closing"):
        assert made.told.log == [("fenced", True)]
        assert (made.machine.stage, made.machine.next_deadline()) == ("fenced", None)
    else:
        assert made.told.log == []
        assert (made.machine.stage, made.machine.next_deadline()) == (stage, deadline)


REOPENS = (
    "store_failed", "read_only", "out_of_sequence", "internal", "limit_exceeded", "unexpected_message"
)  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_at_each_stage_publishing_fails(stage: str) -> None:
    for code in (*REOPENS, "not_available", "forbidden", "fenced", "gone"):
        made = at(stage)
        deadline = made.machine.next_deadline()
        made.machine.failed(made.now, error(code))
        told: list[tuple[Any, ...]] = []
        if stage == "open" and code in REOPENS:
            expected, deadline = "pausing", made.now + 1.0
        elif stage in ("open", "closing") and code in ("not_available", "forbidden"):
            expected, deadline, told = "refused", None, [("rejected", 0, None, code)]
        elif stage in ("open", "closing") and code == "fenced":
            expected, deadline, told = "fenced", None, [("fenced", False)]
        else:
            expected = stage
        assert (made.machine.stage, made.machine.next_deadline(), made.told.log) == (expected, deadline, told)


@pytest.mark.parametrize("stage", STAGES)
def test_at_each_stage_acknowledgements_count_on_an_open_producer_only(stage: str) -> None:
    made = at(stage)
    made.machine.submit(step("a"))
    # As if it had been sent.
    made.machine.spool.entries[0].number, made.machine._next_number = 1, 2
    made.machine.ack(made.now, 1)
    assert made.told.acked == (stage in ("open", "closing"))


@pytest.mark.parametrize("stage", STAGES)
def test_at_each_stage_time_passes(stage: str) -> None:
    made = at(stage)
    machine = made.machine
    waits = {"opening": REPLY_TIMEOUT, "pausing": 1.0, "closing": REPLY_TIMEOUT}.get(stage)
    if waits is None:
        made.wait(1e6)
        assert (machine.stage, made.sent, made.told.log) == (stage, [], [])
        return
    assert machine.next_deadline() == made.now + waits
    made.wait(waits - 0.01)
    assert (machine.stage, made.sent, made.told.log) == (stage, [], [])
    made.wait(0.01)
    if stage == "closing":
        assert (machine.stage, made.told.log, machine.next_deadline()) == ("closed", [("finished",)], None)
    else:
        assert [type(message) for message in made.sent] == [PublishOpen]
        assert machine.next_deadline() == made.now + REPLY_TIMEOUT


@pytest.mark.parametrize("stage", ["opening", "closing"])
def test_a_request_that_failed_is_told_to_its_own_machine(stage: str) -> None:
    for request_is_ours in (True, False):
        for retryable in (True, False):
            made = at(stage)
            machine = made.machine
            ours = {"opening": 1, "closing": 2}[stage]
            failed = error("read_only", retryable=retryable)
            taken = machine.request_failed(made.now, ours if request_is_ours else 99, failed)
            assert taken is request_is_ours
            if not request_is_ours:
                assert machine.stage == stage
            elif stage == "closing":
                assert (machine.stage, made.told.log) == ("closed", [("finished",)])
            elif retryable:
                assert (machine.stage, machine.next_deadline()) == ("pausing", made.now + 1.0)
            else:
                assert (machine.stage, machine.next_deadline()) == ("refused", None)
                assert made.told.log == [("rejected", 0, None, "read_only")]


def test_a_number_that_is_ours_but_not_a_goodbyes_ends_nothing() -> None:
    made = at("opening")
    assert not made.machine.done(1)
    assert made.machine.stage == "opening"


def test_a_refusal_of_what_is_not_known_any_more_is_told_without_a_change() -> None:
    made = at("open")
    made.machine.rejected(7, error("illegal_transition"))
    assert made.told.log == [("rejected", 0, None, "illegal_transition")]


def test_commands_are_remembered_and_the_oldest_forgotten() -> None:
    made = at("open")

    def deliver(number: int) -> bool:
        return made.machine.deliver(
            Command(id=f"{number:032x}", name="pause", deadline="9", requested="1", state="delivered")
        )

    assert all(deliver(number) for number in range(REMEMBERED_COMMANDS))
    assert not deliver(0)
    assert deliver(REMEMBERED_COMMANDS)  # for this, the oldest had to go
    assert not deliver(1)
    assert not deliver(REMEMBERED_COMMANDS)
    assert deliver(0)


def put(request: int, offset: int, data: bytes, total: int) -> ValuePut:
    text = base64.b64encode(data).decode()
    return ValuePut(request=request, session="s", sha256=SHA, total=total, offset=offset, data=text)


def test_an_upload_on_the_wire() -> None:
    made = at("open")
    machine = made.machine
    machine.submit_value(b"0123456789", SHA)
    made.machine.connected(made.now, welcome(page_size=4))
    (opening,) = made.take(PublishOpen)
    made.opened(opening, 0)
    asking = opening.request + 1
    assert made.sent == [put(asking, 0, b"", 10)]
    assert machine.next_deadline() == made.now + REPLY_TIMEOUT
    made.submit(step("behind"))
    assert len(made.sent) == 1
    assert not machine.value_ack(made.now, ValueAck(request=99, received=0))
    made.now += 1.0
    assert machine.value_ack(made.now, ValueAck(request=asking, received=0))
    assert not machine.value_ack(made.now, ValueAck(request=asking, received=0))
    assert made.sent[1:] == [put(asking + 1, 0, b"0123", 10)]
    assert machine.next_deadline() == made.now + REPLY_TIMEOUT
    assert machine.value_ack(made.now, ValueAck(request=asking + 1, received=8))
    assert made.sent[2:] == [put(asking + 2, 8, b"89", 10)]
    made.told.log.clear()
    assert machine.value_ack(made.now, ValueAck(request=asking + 2, received=10, complete=True))
    assert made.told.log == [("uploaded", SHA)]
    assert machine.next_deadline() is None
    del made.sent[:3]
    assert on_the_wire(made) == [publish(1, step("behind"), epoch=2)]


def test_values_are_uploaded_one_after_another() -> None:
    made = at("open")
    machine = made.machine
    machine.submit_value(b"data", SHA)
    machine.submit_value(b"more", "cd" * 32)
    made.submit(step("behind"))
    for sha in (SHA, "cd" * 32):
        [asked] = made.take(ValuePut)
        assert asked.sha256 == sha
        machine.value_ack(made.now, ValueAck(request=asked.request, received=4, complete=True))
    assert on_the_wire(made) == [publish(1, step("behind"))]


def test_an_upload_without_an_answer_is_asked_for_again_after_an_opening() -> None:
    made = at("open")
    made.machine.submit_value(b"data", SHA)
    made.machine.pump(made.now)
    made.sent.clear()
    made.wait(REPLY_TIMEOUT)
    (opening,) = made.take(PublishOpen)
    made.opened(opening, 0)
    assert made.sent == [put(opening.request + 1, 0, b"", 4)]


@pytest.mark.parametrize("retryable", [True, False])
def test_an_upload_that_failed(retryable: bool) -> None:
    made = at("open")
    machine = made.machine
    machine.submit_value(b"data", SHA)
    made.submit(step("behind"))
    (asked,) = made.take(ValuePut)
    assert machine.request_failed(made.now, asked.request, error("x", retryable=retryable))
    assert not machine.request_failed(made.now, asked.request, error("x"))
    if retryable:
        assert (machine.stage, machine.next_deadline(), made.told.log) == ("pausing", made.now + 1.0, [])
        assert made.sent == []
    else:
        assert (machine.stage, machine.next_deadline()) == ("open", None)
        assert made.told.log == [("rejected", 0, None, "x")]
        assert on_the_wire(made) == [publish(1, step("behind"))]


@pytest.mark.parametrize(("message_size", "page"), [(_ENVELOPE + 1, 1), (_ENVELOPE + 10, 7), (10**6, 9)])
def test_a_page_fits_into_the_servers_messages(message_size: int, page: int) -> None:
    made = bench()
    made.machine.submit_value(b"0123456789", SHA)
    made.open(message_size=message_size, page_size=9)
    (asked,) = made.take(ValuePut)
    made.machine.value_ack(made.now, ValueAck(request=asked.request, received=0))
    assert made.sent == [put(asked.request + 1, 0, b"0123456789"[:page], 10)]


def test_bytes_that_are_on_the_disk_only_are_waited_for() -> None:
    made = bench()
    machine = made.machine
    machine.submit_value(b"data", SHA)
    machine.spool.keep()
    machine.spool.done(machine.spool.take_orders())
    made.open()
    machine.spool.done(machine.spool.take_orders())
    machine.pump(made.now)
    (entry,) = machine.spool.entries
    assert (machine.spool.wanted, entry.data, made.sent) == (entry, None, [])
    assert made.told.of("wants") == [("wants",)]
    assert machine.next_deadline() is None
    machine.spool.loaded([(entry.pos, b"data")])
    machine.pump(made.now)
    assert made.sent == [put(2, 0, b"", 4)]


def sized(name: str, size: int) -> Change:
    """A change of exactly *size* bytes."""
    bare = len(msgspec.json.encode(step(name, attributes={"a": ""})))
    return step(name, attributes={"a": "x" * (size - bare)})


def test_two_batches_worth_of_bytes_are_under_way_at_most() -> None:
    made = bench()
    size = 3000
    changes = [sized(f"s{i}", size - 1) for i in range(8)]
    for change in changes:
        made.machine.submit(change)
    made.open(batch_changes=1, batch_size=2 * size)
    assert [first for first, _ in made.published()] == [1, 2, 3, 4]
    made.machine.ack(made.now, 1)
    assert [first for first, _ in made.published()] == [5]
    made.machine.ack(made.now, 4)
    assert [first for first, _ in made.published()] == [6, 7, 8]


def test_a_change_that_just_fits_is_sent_and_one_byte_more_is_refused_with_the_size() -> None:
    room = 4000
    made = bench()
    fits, too_large = sized("a", room), sized("b", room + 1)
    seen: list[ErrorInfo] = []
    made.told.rejected = lambda number, change, info: seen.append(info)  # type: ignore[method-assign]
    made.machine.submit(fits)
    made.machine.submit(too_large)
    made.open(batch_size=room + _ENVELOPE)
    assert made.published() == [(1, fits), (2, SkippedChange(first=2, last=2, count=1))]
    assert seen == [
        ErrorInfo(
            code="message_too_large",
            message="a change of 4,001 bytes; this server takes 4,000",
            session="s",
        )
    ]


def test_a_first_loss_is_told_and_each_further_one_when_there_is_leave_to_look() -> None:
    made = bench(limit_changes=1)
    for _ in range(2):
        made.submit(step("a"))
    assert made.told.of("overflowed") == [("overflowed", 1)]
    made.machine.pump(made.now)
    made.submit(step("a"))
    assert made.told.of("overflowed") == [("overflowed", 1), ("overflowed", 2)]
