"""The publication's machine: answers, commands, holds, uploads, the end, and what was left on disk."""

from __future__ import annotations

import msgspec
import pytest

from wsmonitor.client import publication as publications
from wsmonitor.client.entries import Opened, Reorder, Row
from wsmonitor.client.publication import REPLY_TIMEOUT
from wsmonitor.protocol.changes import Change
from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.protocol.messages import Hold, PublishClose, PublishOpen, PublishOpened, ValueAck, ValuePut

from .test_publication import Bench, _command, step

# ---------------------------------------------------------------------- answers that are not ours


def test_an_answer_to_an_earlier_opening_opens_nothing() -> None:
    bench = Bench()
    first = bench.connect()
    bench.wait(REPLY_TIMEOUT)
    (second,) = bench.take(PublishOpen)
    bench.opened(first, 0)
    assert (bench.machine.stage, bench.told.log) == ("opening", [])
    bench.opened(second, 0)
    bench.opened(second, 7)
    assert bench.told.of("opened") == [("opened", "e", False)], "it is told once"


def test_what_answers_somebody_else_is_not_taken() -> None:
    bench = Bench()
    bench.open()
    bench.submit(step("a"))
    bench.machine.submit_value(b"x" * 10, "0" * 64)
    bench.machine.pump(bench.now)
    before = (bench.machine.stage, list(bench.told.log))
    assert not bench.machine.done(99)
    assert not bench.machine.value_ack(bench.now, ValueAck(request=99, received=10, complete=True))
    assert not bench.machine.request_failed(bench.now, 99, ErrorInfo(code="internal", message=""))
    assert (bench.machine.stage, bench.told.log) == before


def test_acknowledgements_before_it_is_open_are_of_another_connection() -> None:
    bench = Bench()
    bench.open()
    bench.submit(step("a"))
    bench.machine.disconnected()
    bench.machine.ack(bench.now, 1)
    bench.connect()
    bench.machine.ack(bench.now, 1)
    assert (bench.told.acked, bench.machine.unacknowledged) == (0, 1)


def test_a_rejection_of_what_is_not_waiting_any_more_is_told_without_its_change() -> None:
    bench = Bench()
    bench.open()
    bench.submit(step("a"))
    bench.machine.rejected(40, ErrorInfo(code="illegal_change", message="no"))
    assert bench.told.of("rejected") == [("rejected", 0, None, "illegal_change")]


def test_acknowledged_is_the_ticket_up_to_which_everything_is_committed() -> None:
    bench = Bench()
    bench.open()
    for name in "abc":
        bench.submit(step(name))
    assert bench.machine.acknowledged == 0
    bench.machine.ack(bench.now, 2)
    assert bench.machine.acknowledged == 2


# ---------------------------------------------------------------------- commands and holds


def test_commands_are_remembered_but_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publications, "REMEMBERED_COMMANDS", 3)
    bench = Bench()
    bench.open()
    for number in (1, 2, 3, 4, 2, 1):
        bench.machine.deliver(_command(f"{number:032}"))
    told = [int(ident) for _, ident in bench.told.of("command")]
    assert told == [1, 2, 3, 4, 1], "the second is remembered, the first is not any more"


def test_a_command_that_was_delivered_to_an_earlier_process_is_told_and_not_answered_again() -> None:
    bench = Bench()
    bench.open()
    bench.machine.deliver(_command("a" * 32, "accepted"))
    bench.machine.pump(bench.now)
    assert bench.told.of("command") == [("command", "a" * 32)]
    assert bench.published() == []


def test_what_is_wanted_beneath_others_work_is_told_each_time_all_of_it() -> None:
    bench = Bench()
    bench.open()
    assert bench.told.of("held") == [], "nothing is wanted"
    bench.machine.hold_changed(Hold(chain="c", want="pause"))
    bench.machine.hold_changed(Hold(step="s", want="cancel"))
    bench.machine.hold_changed(Hold(chain="c", want="run"))
    bench.machine.hold_changed(Hold(chain="never held", want="run"))
    both = [("c", "", "pause"), ("", "s", "cancel")]
    assert [held for _, held in bench.told.of("held")] == [both[:1], both, both[1:], both[1:]]


def test_holds_that_are_in_force_are_told_when_it_opens_and_only_if_they_are_news() -> None:
    bench = Bench()
    for holds in ([Hold(chain="c", want="pause")], [Hold(chain="c", want="pause")], []):
        opening = bench.connect()
        bench.machine.publish_opened(
            bench.now,
            PublishOpened(
                request=opening.request,
                session="s",
                producer="p",
                producer_epoch=bench.machine.producer_epoch + 1,
                accepted=0,
                epoch="e",
                known=True,
                holds=holds,
            ),
        )
        bench.machine.disconnected()
    assert bench.told.of("held") == [("held", [("c", "", "pause")]), ("held", [])]


# ---------------------------------------------------------------------- uploads


def test_while_an_upload_goes_on_what_is_behind_it_waits_and_nothing_is_asked_twice() -> None:
    bench = Bench()
    bench.open()
    bench.machine.submit_value(b"x" * 10, "0" * 64)
    bench.submit(step("behind"))
    assert len(bench.take(ValuePut)) == 1
    bench.submit(step("further"))
    assert bench.sent == []


def test_an_upload_that_may_be_tried_again_is_after_the_producer_was_opened_again() -> None:
    bench = Bench()
    bench.open()
    bench.machine.submit_value(b"x" * 10, "0" * 64)
    bench.submit(step("behind"))
    (put,) = bench.take(ValuePut)
    full = ErrorInfo(code="store_failed", message="full", retryable=True)
    assert bench.machine.request_failed(bench.now, put.request, full)
    assert bench.machine.stage == "pausing"
    bench.wait(1.0)
    (opening,) = bench.take(PublishOpen)
    bench.opened(opening, 0, known=True)
    assert len(bench.take(ValuePut)) == 1
    assert bench.told.of("rejected") == []


def test_only_what_was_sent_since_the_opening_can_be_acknowledged() -> None:
    """DURABLE, ONCE: else the next change would have a number that the server has seen, and would be lost."""
    bench = Bench()
    bench.open()
    bench.machine.submit_value(b"x" * 10, "0" * 64)
    bench.submit(step("behind"))
    (put,) = bench.take(ValuePut)
    complete = ValueAck(request=put.request, received=10, complete=True)
    bench.machine.value_ack(bench.now, complete)
    assert [number for number, _ in bench.published()] == [1]
    bench.machine.disconnected()
    bench.open(accepted=0, known=True)
    (put,) = bench.take(ValuePut)
    bench.machine.ack(bench.now, 1)
    assert (bench.told.acked, bench.machine.unacknowledged) == (0, 1)
    bench.machine.value_ack(bench.now, msgspec.structs.replace(complete, request=put.request))
    bench.submit(step("next"))
    assert [number for number, _ in bench.published()] == [1, 2]
    bench.machine.ack(bench.now, 2)
    assert bench.told.acked == 2


def test_an_upload_without_an_answer_begins_again_with_the_opening() -> None:
    bench = Bench()
    bench.open()
    bench.machine.submit_value(b"x" * 10, "0" * 64)
    bench.submit(step("behind"))
    bench.take(ValuePut)
    bench.wait(REPLY_TIMEOUT)
    assert len(bench.take(PublishOpen)) == 1


# ---------------------------------------------------------------------- the end


@pytest.mark.parametrize("retryable", [True, False])
def test_a_goodbye_that_is_refused_is_one_all_the_same(retryable: bool) -> None:
    bench = Bench()
    bench.open()
    bench.machine.close(bench.now)
    (goodbye,) = bench.take(PublishClose)
    refusal = ErrorInfo(code="store_failed", message="x", retryable=retryable)
    assert bench.machine.request_failed(bench.now, goodbye.request, refusal)
    assert bench.machine.stage == "closed"
    assert bench.told.of("finished") == [("finished",)]


def test_a_timer_that_fires_early_does_nothing() -> None:
    bench = Bench()
    bench.machine.handle_timeout(bench.now)
    bench.connect()
    bench.wait(REPLY_TIMEOUT - 1)
    assert bench.take(PublishOpen) == []


# ---------------------------------------------------------------------- what an earlier process left on disk


def rows_of(*changes: Change, first: int, values: int = 0) -> list[Row]:
    """Rows of *values* values and of *changes*, as they lie on disk."""
    rows = [Row(n, first, f"{n:064x}", 0, False, 10, None) for n in range(1, values + 1)]
    for number, change in enumerate(changes, first):
        data = msgspec.json.encode(change)
        rows.append(Row(len(rows) + 1, number, "", 0, True, len(data), None))
    return rows


def test_what_is_on_disk_is_wanted_before_it_is_sent_with_the_numbers_that_it_had() -> None:
    bench = Bench()
    changes = [step("a"), step("b")]
    bench.machine.restore(
        rows_of(*changes, first=5), accepted=4, holder="h", producer_epoch=3, session_epoch="e"
    )
    opening = bench.connect()
    assert (opening.holder, opening.producer_epoch) == ("h", 3)
    bench.opened(opening, 4, known=True)
    assert bench.told.of("opened") == [("opened", "e", True)]
    spool = bench.machine.spool
    spool.done(spool.take_orders())
    bench.machine.pump(bench.now)
    assert bench.told.of("wants")
    assert bench.published() == []
    spool.loaded([(n, msgspec.json.encode(change)) for n, change in enumerate(changes, 1)])
    bench.machine.pump(bench.now)
    assert bench.published() == [(5, changes[0]), (6, changes[1])]


def test_a_value_that_is_on_disk_is_asked_for_and_fetched_only_if_the_server_has_it_not() -> None:
    bench = Bench()
    bench.machine.restore(
        rows_of(step("a"), first=1, values=1), accepted=0, holder="h", producer_epoch=1, session_epoch="e"
    )
    bench.open(known=True)
    spool = bench.machine.spool
    spool.done(spool.take_orders())
    bench.machine.pump(bench.now)
    assert bench.told.of("wants")
    assert bench.sent == []
    assert bench.machine.next_deadline() is None, "what is waited for is our own disk"
    assert spool.wanted is spool.entries[0]
    spool.loaded([(1, b"0123456789")])
    bench.machine.pump(bench.now)
    (put,) = bench.take(ValuePut)
    assert (put.total, put.data) == (10, "")


def test_numbers_of_a_process_that_never_heard_from_the_server_were_a_guess() -> None:
    bench = Bench()
    bench.machine.restore(
        rows_of(step("a"), first=1), accepted=0, holder="h", producer_epoch=0, session_epoch=""
    )
    opening = bench.connect()
    bench.opened(opening, 0, known=True)
    assert bench.told.of("opened") == [("opened", "e", False)]
    opened, reorder = bench.machine.spool.take_orders()
    assert isinstance(opened, Opened)
    assert isinstance(reorder, Reorder), "the disk is told the numbers that hold now"
