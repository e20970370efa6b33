"""The spool by itself: its bounds to the byte, what goes into a batch, and what counts as committed."""

from __future__ import annotations

import msgspec
import pytest

from wsmonitor.client.entries import Append, Drop, Entry, Opened, Recount, Reorder, Row
from wsmonitor.client.spool import LARGEST_CHANGE, Spool, SpoolLimits
from wsmonitor.protocol.changes import Change, CommandChange, LogChange, SkippedChange, StepChange
from wsmonitor.protocol.entities import LogRecord
from wsmonitor.protocol.errors import UsageError

from .helpers import adds_up

SHA = "ab" * 32
MUCH = 10**9


def step(name: str, size: int = 0) -> StepChange:
    """A change of *size* bytes (0: of what it needs)."""
    bare = StepChange(id=name, attributes={"a": ""})
    room = size - len(msgspec.json.encode(bare))
    return StepChange(id=name, attributes={"a": "x" * max(0, room)})


def spool(**limits: int) -> Spool:
    return Spool(
        SpoolLimits(
            **{**dict.fromkeys(("changes", "size", "values", "kept_changes", "kept_size"), MUCH), **limits}
        )
    )


def sent(made: Spool, count: int) -> None:
    """As if the first *count* changes were sent, with numbers behind what is accepted."""
    number = made.accepted
    for entry in list(made.entries)[:count]:
        if not entry.is_value:
            number += 1
            entry.number = number
        made.sent += 1
        made.sent_size += entry.size + 1


def test_what_is_kept_of_a_change() -> None:
    made = spool()
    change = step("a", 100)
    assert made.add(change) == 1
    assert made.add(CommandChange(id="0" * 32, state="applied")) == 2
    made.add_value(b"data", SHA)
    assert made.add(LogChange(step="a", records=(LogRecord(n=1, at="1", text="x"),))) == 3
    first, answer, value, log = made.entries
    assert first == Entry(1, msgspec.json.encode(change), 100, ("step", "a"), counted=True)
    assert (answer.ticket, answer.key, answer.counted) == (2, None, False)
    assert value == Entry(2, b"data", 4, counted=False, sha256=SHA)
    assert (log.ticket, log.key, log.counted) == (3, None, True)
    assert (made.pending, made.ticket, made.empty) == (3, 3, False)
    adds_up(made)


def test_the_largest_change_is_taken_and_a_larger_one_named() -> None:
    made = spool()
    fill = {f"k{number}": "x" * (LARGEST_CHANGE // 10) for number in range(9)}
    bare = len(msgspec.json.encode(StepChange(id="a", attributes={**fill, "z": ""})))
    rest = LARGEST_CHANGE - bare
    assert made.add(StepChange(id="a", attributes={**fill, "z": "x" * rest})) == 1
    with pytest.raises(UsageError) as caught:
        made.add(StepChange(id="a", attributes={**fill, "z": "x" * (rest + 1)}))
    assert (
        str(caught.value) == f"this change has {LARGEST_CHANGE + 1:,} bytes; {LARGEST_CHANGE:,} is the most"
    )
    with pytest.raises(UsageError, match=r"this change cannot be published: .*id"):
        made.add(StepChange(id="a/b"))
    assert made.pending == 1


@pytest.mark.parametrize(
    ("limits", "keeping", "fits"),
    [
        ({"changes": 3}, False, 3),
        ({"size": 300}, False, 3),
        ({"size": 299}, False, 2),
        ({"size": 399}, False, 3),
        ({"changes": 1, "kept_changes": 3}, True, 3),
        ({"kept_size": 300}, True, 3),
        ({"kept_size": 299}, True, 2),
        ({"size": 150}, True, 3),
        ({"size": 149}, True, 2),
        ({"changes": 3, "kept_changes": 1, "kept_size": 1}, False, 3),
    ],
)
def test_how_much_may_wait(limits: dict[str, int], keeping: bool, fits: int) -> None:
    """A hundred bytes each. While the disk takes it, twice the room is given to what comes faster."""
    made = spool(**limits)
    made.keeping = keeping
    taken = [made.add(step(f"s{number}", 100)) is not None for number in range(5)]
    assert taken == [True] * fits + [False] * (5 - fits)
    assert (made.dropped, made.pending) == (5 - fits, fits)
    mark = made.entries[-1]
    assert (len(made.entries), mark.skipped, mark.ticket, mark.counted) == (
        fits + 1,
        5 - fits,
        fits + 1,
        False,
    )
    answer = CommandChange(id="0" * 32, state="applied")
    assert made.add(answer) == fits + 2, "answers are never dropped"
    made.add(step("more", 100))
    assert [entry.skipped for entry in made.entries][-3:] == [5 - fits, 0, 1], "each mark at its place"
    adds_up(made)


def test_a_mark_that_was_sent_counts_no_further() -> None:
    made = spool(changes=1)
    for _ in range(3):
        made.add(step("a"))
    sent(made, 2)
    made.add(step("a"))
    assert [entry.skipped for entry in made.entries] == [0, 2, 1]


def test_how_many_bytes_of_values_may_wait() -> None:
    made = spool(values=10)
    assert made.add_value(b"12345", SHA)
    assert made.add_value(b"12345", "1" * 64)
    assert not made.add_value(b"1", "2" * 64)
    made.add(step("a"))
    sent(made, 3)
    assert made.acknowledge(1) == 1
    assert made.add_value(b"1234567890", SHA), "what is committed leaves its room"
    assert not made.add_value(b"1", SHA)
    adds_up(made)


@pytest.mark.parametrize("limit", ["changes", "size", "kept_changes", "kept_size"])
def test_a_spool_is_relieved_at_the_half_of_each_bound(limit: str) -> None:
    """Ten changes of a hundred bytes fill it; it has room again when five are left, and says so once."""
    made = spool(**{limit: 10 if "changes" in limit else 1000})
    made.keeping = limit.startswith("kept")
    for number in range(11):
        made.add(step(f"s{number}", 100))
    assert made.dropped == 1
    assert not made.relieved()
    sent(made, 11)
    for accepted in range(1, 5):
        made.acknowledge(accepted)
        assert not made.relieved()
    made.acknowledge(5)
    assert made.relieved()
    assert not made.relieved()
    made.acknowledge(11)
    assert not made.relieved(), "nothing was dropped since"
    adds_up(made)


@pytest.mark.parametrize("odd", [True, False])
def test_the_half_of_an_odd_bound(odd: bool) -> None:
    made = spool(changes=5 if odd else 4)
    for number in range(6):
        made.add(step(f"s{number}"))
    sent(made, 6)
    made.acknowledge(2)
    assert made.relieved() is (not odd)
    made.acknowledge(3)
    assert made.relieved() is odd


def names(entries: list[Entry]) -> list[str]:
    return [change.id for entry in entries if isinstance(change := entry.change, StepChange)]


@pytest.mark.parametrize(
    ("most", "room", "found"),
    [
        (9, 303, "abc"),
        (9, 302, "ab"),
        (9, 202, "ab"),
        (9, 201, "a"),
        (9, 101, "a"),
        (9, 5, "a"),
        (2, 9999, "ab"),
        (1, 9999, "a"),
        (9, 9999, "abcd"),
    ],
)
def test_what_goes_into_a_batch(most: int, room: int, found: str) -> None:
    """A hundred bytes and a comma each. What is too large for any goes alone."""
    made = spool()
    for name in "abcd":
        made.add(step(name, 100))
    assert names(made.batch(most, room)) == list(found)
    made.sent = 2
    assert names(made.batch(9, 9999)) == ["c", "d"]
    assert names(made.batch(1, 9999)) == ["c"]


def test_a_batch_ends_where_a_value_or_what_is_on_the_disk_only_begins() -> None:
    made = spool()
    made.add(step("a"))
    made.add_value(b"data", SHA)
    made.add(step("b"))
    made.add(step("c"))
    assert names(made.batch(9, 9999)) == ["a"]
    made.sent = 1
    assert made.batch(9, 9999) == []
    assert made.wanted is None
    made.sent = 2
    last = made.entries[3]
    last.data = None
    assert names(made.batch(9, 9999)) == ["b"]
    assert made.wanted is None
    made.sent = 3
    assert made.batch(9, 9999) == []
    assert made.wanted is last


def test_what_counts_as_committed() -> None:
    made = spool()
    made.add(step("a"))
    made.add_value(b"data", SHA)
    made.add_value(b"more", "1" * 64)
    made.add(step("b"))
    made.add(step("c"))
    sent(made, 5)
    size = made.sent_size
    assert made.acknowledge(0) == 0
    assert made.acknowledge(1) == 1
    assert (made.sent, made.pending, len(made.entries)) == (4, 2, 4)
    assert made.sent_size == size - len(msgspec.json.encode(step("a"))) - 1
    assert made.acknowledge(1) == 0, "no news"
    assert made.acknowledge(2) == 2, "with it go the values that it refers to"
    assert (made.sent, made.pending, made.accepted, names(list(made.entries))) == (1, 1, 2, ["c"])
    adds_up(made)
    assert made.acknowledge(1) == 0
    assert made.accepted == 2, "what was accepted stays so"
    assert made.acknowledge(3) == 3
    assert (made.sent, made.sent_size, made.pending, made.empty, made.acknowledged) == (0, 0, 0, True, 3)
    adds_up(made)


def test_what_was_not_sent_is_not_committed() -> None:
    made = spool()
    made.add(step("a"))
    made.add_value(b"data", SHA)
    made.add(step("b"))
    sent(made, 1)
    assert made.acknowledge(9) == 1
    assert len(made.entries) == 2


def test_what_is_committed_is_dropped_from_the_disk_once_and_for_all_before() -> None:
    made = spool()
    for name in "abc":
        made.add(step(name))
    made.keep()
    [kept] = made.take_orders()
    assert isinstance(kept, Append)
    sent(made, 3)
    made.acknowledge(1)
    made.acknowledge(2)
    assert made.take_orders() == [Drop(2, 2)]
    adds_up(made)
    assert made.kept == 1
    made.acknowledge(3)
    assert (made.take_orders(), made.kept) == ([Drop(3, 3)], 0)
    made.add(step("d"))
    sent(made, 1)
    made.acknowledge(4)
    assert made.take_orders() == [], "it never was on the disk"
    adds_up(made)


def test_a_mark_on_the_disk_that_grows_is_told_anew() -> None:
    made = spool(changes=1)
    made.add(step("a"))
    made.add(step("b"))
    made.keep()
    made.take_orders()
    made.keep()
    assert made.take_orders() == []
    made.add(step("c"))
    made.add(step("d"))
    made.keep()
    assert made.take_orders() == [Recount(2, 3)]
    made.keep()
    assert made.take_orders() == []


def test_what_cannot_be_sent_leaves_its_number_and_not_its_room() -> None:
    made = spool(changes=2, size=300)
    made.add(step("a", 200))
    made.add(step("b", 100))
    first = made.entries[0]
    made.leave_out(first)
    assert (first.skipped, first.counted, first.key, made.pending) == (1, False, None, 1)
    decoded = msgspec.json.decode(first.data or b"", type=Change)
    assert decoded == SkippedChange(first=1, last=1, count=1)
    assert first.size == len(first.data or b"")
    adds_up(made)
    assert made.add(step("c", 200)) is not None
    assert made.add(step("d", 1)) is None
    sent(made, 3)
    made.acknowledge(3)
    assert made.add(step("e", 300)) is not None
    assert made.add(step("f", 1)) is None
    assert made.pending == 1


def test_what_replaces_what_waits_leaves_its_room_too() -> None:
    made = spool(changes=3)
    for name in "aba":
        made.add(step(name))
    made.begin_assertion()
    assert made.asserting
    made.entries[1].number = 1  # "b" was sent under a number already
    assert made.add(step("a"), asserting=True) is None, "the spool is full"
    made.limits.changes = 4
    assert made.add(step("a"), asserting=True) == 5
    assert made.end_assertion()
    assert not made.asserting
    assert [(entry.ticket, entry.skipped) for entry in made.entries if not entry.skipped] == [(2, 0), (5, 0)]
    assert made.entries[1].stands_for == 1
    adds_up(made)
    assert made.pending == 2
    assert not made.end_assertion()
    assert [made.add(step(name)) is not None for name in "xyz"] == [True, True, False]
    adds_up(made)


def rows_of(made: Spool) -> list[Row]:
    """All that is in *made*, as it lies on the disk after a `keep`."""
    made.keep()
    return [row for order in made.take_orders() if isinstance(order, Append) for row in order.rows]


def test_what_is_put_on_the_disk() -> None:
    made = spool(changes=2)
    made.accepted = 10
    made.add(step("a", 100))
    made.add_value(b"data", SHA)
    made.add(CommandChange(id="0" * 32, state="applied"))
    made.add(step("b", 100))
    made.add(step("c", 100))
    data = [entry.data for entry in made.entries]
    assert rows_of(made) == [
        Row(1, 11, "", 0, True, 100, data[0]),
        Row(2, 12, SHA, 0, False, 4, data[1]),
        Row(3, 12, "", 0, False, len(data[2] or b""), data[2]),
        Row(4, 13, "", 0, True, 100, data[3]),
        Row(5, 14, "", 1, False, len(data[4] or b""), data[4]),
    ]
    adds_up(made)
    assert made.kept == 5
    made.add(CommandChange(id="1" * 32, state="applied"))
    [row] = rows_of(made)
    assert (row.pos, row.number) == (6, 15)
    made.add_value(b"x", "1" * 64)
    [row] = rows_of(made)
    assert (row.pos, row.number) == (7, 16), "of a value, that of the change behind it"


def test_the_disk_gets_another_order_whole() -> None:
    made = spool()
    made.add(step("a"))
    made.add(step("b"))
    made.keep()
    made.done(made.take_orders())
    made.accepted = 6
    made.add(step("c"))
    made.begin_assertion()
    made.add(step("z"), asserting=True)
    assert made.end_assertion()
    made.opened(3, "e", moved=True)
    opened, reorder = made.take_orders()
    assert opened == Opened(3, "e")
    assert isinstance(reorder, Reorder)
    assert reorder.accepted == 6
    assert [(before, row.pos, row.number) for before, row in reorder.rows] == [
        (0, 3, 7), (1, 4, 8), (2, 5, 9), (0, 6, 10)
    ]  # fmt: skip
    assert [row.data is None for _, row in reorder.rows] == [False, True, True, False]
    assert (made.holding, made.kept) == (True, 4)
    adds_up(made)
    made.done([opened, reorder])
    assert not made.holding
    made.add(step("d"))
    [row] = rows_of(made)
    assert (row.pos, row.number) == (7, 11)


def test_a_spool_holds_until_the_last_opening_is_on_the_disk() -> None:
    made = spool()
    made.add(step("a"))
    made.keep()
    made.take_orders()
    assert not made.keeping
    made.opened(1, "e", moved=False)
    first = made.take_orders()
    made.opened(2, "e", moved=False)
    made.done(first)
    assert (made.holding, made.keeping) == (True, True)
    made.done(made.take_orders())
    assert not made.holding


def test_what_an_earlier_process_left_is_counted_as_what_it_is() -> None:
    made = spool(values=50)
    rows = [
        Row(4, 7, "", 0, True, 100, None),
        Row(5, 7, "", 0, False, 30, None),
        Row(6, 8, SHA, 0, False, 20, None),
        Row(7, 8, "1" * 64, 0, False, 20, None),
        Row(8, 8, "", 3, False, 9, None),
        Row(9, 9, "", 0, True, 60, None),
        Row(10, 10, "2" * 64, 0, False, 10, None),
    ]
    made.restore(rows, 6)
    adds_up(made)
    assert (made.kept, made.accepted, made.ticket, made.pending, made.keeping) == (7, 6, 4, 3, True)
    assert [(entry.ticket, entry.number, entry.pos) for entry in made.entries] == [
        (1, 7, 4), (2, 7, 5), (2, None, 6), (2, None, 7), (3, 8, 8), (4, 9, 9), (4, None, 10)
    ]  # fmt: skip
    assert not made.add_value(b"x", "3" * 64)
    made.add(step("new"))
    [row] = rows_of(made)
    assert (row.pos, row.number) == (11, 10)


def test_bytes_that_come_back_are_counted_and_only_those_that_are_missing() -> None:
    made = spool()
    for name in "abcd":
        made.add(step(name, 100))
    made.keep()
    made.take_orders()
    texts = {entry.pos: entry.data or b"" for entry in made.entries}
    for entry in list(made.entries)[1:]:
        made._unload(entry)
        entry.data = None
    adds_up(made)
    made.sent = 1
    assert made.batch(9, 9999) == []
    made.loaded([(2, texts[2]), (3, texts[3])])
    adds_up(made)
    assert [entry.data is None for entry in made.entries] == [False, False, False, True]
    made.loaded([])
    made.loaded([(4, texts[4])])
    adds_up(made)
    assert not made.away


def test_without_its_disk_all_that_was_only_there_is_lost_and_counted() -> None:
    made = spool()
    for name in "abc":
        made.add(step(name, 100))
    made.add_value(b"data", SHA)
    made.keep()
    made.take_orders()
    for entry in list(made.entries)[1:]:
        if not entry.is_value:
            made._unload(entry)
        entry.data = None
    made.dropped = 5
    assert made.unkeep() == 2
    assert (made.dropped, made.kept, made.pending, made.orders, made.wanted) == (7, 0, 1, [], None)
    assert (made.keeping, made.holding) == (False, False)
    assert [(entry.skipped, entry.pos) for entry in made.entries] == [(0, 0), (1, 0), (1, 0), (0, 0)]
    value = made.entries[3]
    assert (value.data, value.uploaded) == (b"", True)
