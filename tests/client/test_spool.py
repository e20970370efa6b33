"""The spool and its file: every order of submitting, writing, losing the link, dying and coming back."""

from __future__ import annotations

import hashlib
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.scale import many
from wsmonitor.client import spool as spools
from wsmonitor.client.entries import Append, Drop, Opened, Recount, Reorder, Row
from wsmonitor.client.spool import Spool, SpoolLimits
from wsmonitor.client.spoolfile import Facts, SpoolFile
from wsmonitor.protocol.changes import CommandChange, SkippedChange, StepChange
from wsmonitor.protocol.errors import UsageError
from wsmonitor.protocol.messages import Publish, PublishOpen, ValueAck, ValuePut

from .helpers import adds_up
from .test_publication import Bench, changes_of

LIMITS = {"limit_changes": 6, "limit_bytes": 10_000, "limit_kept_changes": 12, "limit_kept_bytes": 10_000}


def step(name: str, ident: str = "s") -> StepChange:
    return StepChange(id=ident, chain="c", name=name)


class Server:
    """What a server counts of one producer, and what it took."""

    def __init__(self) -> None:
        self.epoch = 1
        self.producer_epoch = 0
        self.accepted = 0
        self.taken: list[str] = []
        self.values: set[str] = set()

    def publish(self, message: Publish) -> None:
        assert message.producer_epoch == self.producer_epoch
        assert message.first <= self.accepted + 1, "a hole in the numbers"
        for number, change in enumerate(changes_of(message), message.first):
            if isinstance(change, SkippedChange):
                assert (change.first, change.last) == (number, number)
            if number > self.accepted:
                self.accepted = number
                if isinstance(change, StepChange):
                    self.taken.append(str(change.name))

    def forget(self) -> None:
        """A new store in its place."""
        self.__init__()  # type: ignore[misc]
        self.epoch = 2


class Life(RuleBasedStateMachine):
    """One producer through deaths: what reached its disk, or the server, is there once in the end."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.server = Server()
        self.files = 0
        self.labels = 0
        self.epochs = 1
        self.safe: set[str] = set()  # on disk, and not known as delivered
        self.file: SpoolFile | None = None
        self.arriving: deque[Any] = deque()
        self._born()

    def _born(self) -> None:
        self.bench = Bench(**LIMITS)
        self.machine = self.bench.machine
        self.told_forgotten = False
        self.linked = False
        self.arriving.clear()

        def opened(epoch: str, known: bool) -> None:
            self.bench.told.log.append(("opened", epoch, known))
            if not known and self.asserts:
                self.labels += 1
                self.machine.submit(step(f"a{self.labels}", "asserted"), asserting=True)

        self.asserts = False
        self.bench.told.opened = opened  # type: ignore[method-assign]
        self.bench.told.wants = lambda: None  # type: ignore[attr-defined]

    def teardown(self) -> None:
        if self.file is not None:
            self.file.close()
        self.folder.cleanup()

    # -- the program

    @rule(number=st.integers(1, 4))
    def publish(self, number: int) -> None:
        for _ in range(number):
            self.labels += 1
            self.machine.submit(step(f"l{self.labels}", f"s{self.labels}"))
        self.machine.pump(self.bench.now)

    @rule()
    def publish_a_value(self) -> None:
        self.labels += 1
        data = f"value {self.labels}".encode()
        self.machine.submit_value(data, hashlib.sha256(data).hexdigest())
        self.machine.pump(self.bench.now)

    # -- the disk

    @rule()
    def keep(self) -> None:
        self.machine.spool.keep()

    @rule()
    def write(self) -> None:
        spool = self.machine.spool
        orders = spool.take_orders()
        if orders:
            if self.file is None:
                self.files += 1
                self.file = SpoolFile.create(Path(self.folder.name, f"{self.files}.sqlite3"), self._facts())
            self.file.carry_out(orders)
        spool.done(orders)
        if spool.wanted is not None and self.file is not None:
            spool.loaded(self.file.fetch(spool.wanted.pos))
        self.machine.pump(self.bench.now)
        if self.file is not None and not spool.kept and not spool.orders:
            self.file.close(delete=True)
            self.file = None

    def _facts(self) -> Facts:
        return Facts(
            session="s",
            producer="p",
            holder=self.machine.holder,
            producer_epoch=self.machine.producer_epoch,
            session_epoch=self.machine.session_epoch,
            accepted=self.machine.spool.accepted,
        )

    # -- the link

    @precondition(lambda self: not self.linked)
    @rule(asserts=st.booleans())
    def connect(self, asserts: bool) -> None:
        self.linked = True
        self.asserts = asserts
        self.machine.connected(self.bench.now, _welcome())

    @precondition(lambda self: self.linked)
    @rule()
    def disconnect(self) -> None:
        self.linked = False
        self.machine.disconnected()
        self.bench.sent.clear()
        self.arriving.clear()

    @precondition(lambda self: self.linked and self.bench.sent)
    @rule()
    def server_reads(self) -> None:
        message = self.bench.sent.pop(0)
        server = self.server
        match message:
            case PublishOpen():
                server.producer_epoch += 1
                self.arriving.append(("opened", message, server.accepted, f"e{server.epoch}"))
            case Publish():
                server.publish(message)
                self.arriving.append(("ack", server.accepted))
            case ValuePut():
                done = message.data != ""
                server.values.add(message.sha256)
                received = message.total if done else 0
                self.arriving.append(("value", message.request, received, done))

    @precondition(lambda self: self.linked and self.arriving)
    @rule()
    def client_reads(self) -> None:
        what, *rest = self.arriving.popleft()
        if what == "opened":
            opening, accepted, epoch = rest
            self.machine.producer_epoch = self.server.producer_epoch - 1
            self.bench.opened(opening, accepted, epoch, known=accepted > 0)
        elif what == "ack":
            self.machine.ack(self.bench.now, rest[0])
        else:
            request, received, done = rest
            answer = ValueAck(request=request, received=received, complete=done)
            self.machine.value_ack(self.bench.now, answer)

    @precondition(lambda self: not self.linked and self.server.epoch == 1)
    @rule()
    def server_forgets(self) -> None:
        self.server.forget()

    # -- death

    @rule()
    def die(self) -> None:
        """kill -9, and the flush of what is on disk begins."""
        self._born()
        if self.file is not None:
            path = self.file.path
            self.file.close()
            self.file = SpoolFile.take(path)
            rows, facts = self.file.rows(), self.file.facts
            self.machine.restore(
                rows,
                accepted=rows[0].number - 1 if rows else facts.accepted,
                holder=facts.holder,
                producer_epoch=facts.producer_epoch,
                session_epoch=facts.session_epoch,
            )

    # -- what must hold

    @invariant()
    def nothing_twice_and_in_order(self) -> None:
        if not hasattr(self, "server"):
            return
        adds_up(self.machine.spool)
        taken = self.server.taken
        assert len(taken) == len(set(taken)), f"twice: {taken}"
        published = [int(one[1:]) for one in taken if one.startswith("l")]
        assert published == sorted(published), f"out of order: {taken}"

    @precondition(lambda self: self.file is not None)
    @rule()
    def what_is_on_disk_is_delivered(self) -> None:
        assert self.file is not None
        kept = [row for row in self.file.rows() if not row.sha256 and not row.skipped]
        names = set()
        for row in kept:
            ((_, data), *_) = self.file.fetch(row.pos)
            names.add(data.split(b'"name":"')[1].split(b'"')[0].decode())
        self.die()
        self.server_is_up()
        assert names <= set(self.server.taken) or self.server.epoch == 2
        if self.server.epoch == 1:
            assert self.machine.empty
            assert all(entry.is_value for entry in self.machine.spool.entries)

    def server_is_up(self) -> None:
        if not self.linked:
            self.connect(asserts=False)
        for _ in range(200):
            if self.bench.sent:
                self.server_reads()
            elif self.arriving:
                self.client_reads()
            else:
                self.write()
                if self.machine.empty and not self.machine.spool.orders:
                    return
        raise AssertionError("it does not come to an end")


def _welcome() -> Any:
    from .test_link import welcome

    return welcome(batch_changes=3)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=many(60), stateful_step_count=40, deadline=None)


def kept(count: int, **limits: int) -> Spool:
    """A spool of which *count* changes are on disk."""
    spool = Spool(SpoolLimits(**limits))
    for number in range(count):
        spool.add(step(f"n{number}", f"s{number}"))
    spool.keep()
    return spool


def test_what_is_kept_has_the_numbers_that_it_will_be_sent_with() -> None:
    spool = Spool(SpoolLimits())
    spool.accepted = 40
    spool.add(step("a"))
    spool.add_value(b"data", "ab" * 32)
    spool.add(step("b"))
    spool.keep()
    (order,) = spool.take_orders()
    assert isinstance(order, Append)
    assert [(row.pos, row.number, bool(row.sha256)) for row in order.rows] == [
        (1, 41, False),
        (2, 42, True),
        (3, 42, False),
    ]
    spool.add(step("c"))
    spool.keep()
    (order,) = spool.take_orders()
    assert isinstance(order, Append)
    assert [(row.pos, row.number) for row in order.rows] == [(4, 43)]
    spool.keep()
    assert spool.take_orders() == []


def test_bytes_that_are_on_disk_leave_memory_and_come_back_when_their_turn_comes() -> None:
    count = spools.LOADED_CHANGES + 10
    spool = kept(count)
    assert all(entry.data is not None for entry in spool.entries)
    orders = spool.take_orders()
    spool.done(orders)
    away = [entry for entry in spool.entries if entry.data is None]
    assert len(away) == 10
    # In front, what is left in memory is sent; then bytes are wanted.
    spool.sent = spool.entries.index(away[0])
    assert spool.batch(3, 10_000) == []
    assert spool.wanted is away[0]
    (order,) = orders
    assert isinstance(order, Append)
    spool.loaded([(row.pos, row.data or b"") for row in order.rows if row.pos >= away[0].pos][:2])
    assert spool.wanted is None
    assert len(spool.batch(3, 10_000)) == 2


def test_while_it_is_kept_more_may_wait_and_the_rest_is_counted_in_one_mark() -> None:
    spool = kept(2, changes=3, kept_changes=5)
    spool.done(spool.take_orders())
    for entry in spool.entries:  # as if these were many
        spool._unload(entry)
        entry.data = None
    tickets = [spool.add(step("x")) for _ in range(6)]
    assert tickets == [3, 4, 5, None, None, None]
    spool.keep()
    spool.add(step("y"))
    spool.keep()
    first, second = spool.take_orders()
    assert isinstance(first, Append)
    assert [row.skipped for row in first.rows] == [0, 0, 0, 3]
    assert second == Recount(first.rows[-1].pos, 4)
    assert spool.dropped == 4
    for number, entry in enumerate(spool.entries, 1):
        entry.number = number
    assert spool.acknowledge(6) == 6
    assert spool.relieved()
    assert not spool.relieved()
    assert spool.take_orders() == [Drop(first.rows[-1].pos, 6)]
    assert (spool.kept, spool.pending, spool.empty) == (0, 0, True)


def test_nothing_is_sent_until_the_disk_knows_of_another_order() -> None:
    bench = Bench()
    bench.told.wants = lambda: None  # type: ignore[attr-defined]
    bench.open()
    bench.submit(step("a", "a"))
    bench.machine.disconnected()
    bench.sent.clear()
    bench.submit(step("b", "b"))
    spool = bench.machine.spool
    spool.keep()
    spool.done(spool.take_orders())
    bench.told.opened = lambda epoch, known: (  # type: ignore[method-assign]
        bench.machine.submit(step("c", "c"), asserting=True) and None
    )
    bench.open(accepted=0, epoch="other")
    assert bench.published() == []
    opened, reorder = spool.take_orders()
    assert opened == Opened(bench.machine.producer_epoch, "other")
    assert isinstance(reorder, Reorder)
    assert [(before, row.pos, row.number, row.data is None) for before, row in reorder.rows] == [
        (1, 3, 1, True),
        (0, 4, 2, False),
        (2, 5, 3, True),
    ]
    spool.done([opened, reorder])
    bench.machine.pump(bench.now)
    assert [(number, change.name) for number, change in bench.published()] == [  # type: ignore[union-attr]
        (1, "a"),
        (2, "c"),
        (3, "b"),
    ]


def test_without_its_disk_what_was_only_there_is_left_out_and_counted() -> None:
    spool = kept(3)
    spool.add_value(b"data", "ab" * 32)
    spool.keep()
    spool.done(spool.take_orders())
    entries = list(spool.entries)
    assert entries[3].data is None  # values are let go of at once
    spool._unload(entries[0])
    entries[0].data = None
    assert spool.unkeep() == 1
    assert (spool.dropped, spool.pending, spool.kept, spool.keeping) == (1, 2, 0, False)
    assert [entry.skipped for entry in spool.entries] == [1, 0, 0, 0]
    assert entries[3].uploaded
    assert [entry.pos for entry in spool.entries] == [0, 0, 0, 0]


# ---------------------------------------------------------------------- step by step


def committed(spool: Spool, count: int) -> int:
    """The next *count* changes were sent, and are committed; the ticket that this is news of."""
    for number, entry in enumerate((one for one in spool.entries if not one.is_value), spool.accepted + 1):
        if number <= spool.accepted + count:
            entry.number = number
    return spool.acknowledge(spool.accepted + count)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (StepChange(id="a/b"), "cannot be published"),
        (StepChange(id="s", attributes={f"k{n}": "x" * 20_000 for n in range(100)}), "is the most"),
    ],
    ids=["out of its range", "too large"],
)
def test_what_no_server_takes_is_refused_where_it_is_made(change: StepChange, words: str) -> None:
    spool = Spool(SpoolLimits())
    with pytest.raises(UsageError, match=words):
        spool.add(change)
    assert (spool.ticket, spool.pending, list(spool.entries)) == (0, 0, [])


def test_an_answer_to_a_command_has_room_where_nothing_else_has() -> None:
    spool = Spool(SpoolLimits(changes=1))
    assert [spool.add(step("a")), spool.add(step("b"))] == [1, None]
    assert spool.add(CommandChange(id="0" * 32, state="applied")) == 3
    assert (spool.dropped, spool.pending) == (1, 2)
    assert committed(spool, 3) == 3
    assert (spool.pending, spool.relieved()) == (0, True)


def test_values_have_room_of_their_own_which_comes_back() -> None:
    spool = Spool(SpoolLimits(values=10))
    assert spool.add_value(b"x" * 10, "a" * 64)
    assert not spool.add_value(b"x", "b" * 64)
    spool.add(step("a"))
    assert committed(spool, 1) == 1
    assert spool.empty
    assert spool.add_value(b"x" * 10, "b" * 64)


def test_a_batch_ends_before_a_value_and_before_there_is_no_room() -> None:
    spool = Spool(SpoolLimits())
    for name in "ab":
        spool.add(step(name, name))
    spool.add_value(b"data", "a" * 64)
    spool.add(step("c", "c"))
    assert [entry.ticket for entry in spool.batch(9, 10_000)] == [1, 2]
    size = spool.entries[0].size
    assert [entry.ticket for entry in spool.batch(9, 2 * size + 1)] == [1]
    assert [entry.ticket for entry in spool.batch(9, 2 * size + 2)] == [1, 2]
    assert [entry.ticket for entry in spool.batch(1, 10_000)] == [1]
    assert [entry.ticket for entry in spool.batch(9, 1)] == [1], "what is too large is given alone"
    spool.sent = 2
    assert spool.batch(9, 10_000) == []
    assert spool.wanted is None, "a value is first, and it is here"


def test_a_value_stays_until_what_is_behind_it_is_committed() -> None:
    spool = Spool(SpoolLimits())
    spool.add(step("a"))
    spool.add_value(b"data", "a" * 64)
    assert committed(spool, 1) == 1
    assert len(spool.entries) == 1, "nothing is behind it yet"
    spool.add(step("b"))
    assert spool.acknowledge(1) == 0, "what is behind it is not sent"
    spool.add(step("c"))
    assert committed(spool, 1) == 2
    assert [entry.ticket for entry in spool.entries] == [3]


def test_what_was_sent_and_is_committed_makes_room_for_more_to_be_sent() -> None:
    spool = Spool(SpoolLimits())
    for name in "abc":
        spool.add(step(name))
    spool.sent, spool.sent_size = 2, 2 * (spool.entries[0].size + 1)
    committed(spool, 1)
    assert (spool.sent, spool.sent_size) == (1, spool.entries[0].size + 1)
    committed(spool, 2)
    assert (spool.sent, spool.sent_size) == (0, 0)
    assert spool.acknowledge(2) == 0, "that is no news"
    assert (spool.acknowledged, spool.empty) == (3, True)


def test_the_disk_is_told_once_how_far_all_is_committed() -> None:
    spool = kept(3)
    assert len(spool.take_orders()) == 1
    committed(spool, 1)
    committed(spool, 1)
    assert spool.take_orders() == [Drop(2, 2)]
    assert spool.kept == 1


def test_committed_bytes_that_were_wanted_are_not_wanted_any_more() -> None:
    spool = kept(2)
    spool.done(spool.take_orders())
    first = spool.entries[0]
    spool._unload(first)
    first.data = None
    assert spool.batch(9, 10_000) == []
    assert (spool.wanted, spool.away) == (first, True)
    assert committed(spool, 1) == 1
    assert (spool.wanted, spool.away) == (None, False)


def test_what_an_assertion_replaces_counts_as_committed_with_it() -> None:
    spool = Spool(SpoolLimits())
    for name in ("a", "b", "a", "c"):
        spool.add(step(name, name))
    spool.begin_assertion()
    assert spool.asserting
    assert spool.add(step("A", "a"), asserting=True) == 5
    assert spool.add_value(b"data", "a" * 64, asserting=True)
    assert spool.end_assertion()
    assert not spool.asserting
    assert [entry.ticket for entry in spool.entries] == [5, 5, 2, 4]
    assert (spool.pending, [entry.stands_for for entry in spool.entries]) == (3, [1, 0, 0, 0])
    assert committed(spool, 1) == 1, "the first is in the assertion; the second waits"
    assert committed(spool, 1) == 3
    assert committed(spool, 1) == 5
    assert spool.add(step("d", "d")) == 6
    assert committed(spool, 1) == 6, "from here tickets are in order again"


def test_an_assertion_that_is_committed_before_what_is_older_is_no_news() -> None:
    spool = Spool(SpoolLimits())
    for name in "ab":
        spool.add(step(name, name))
    spool.begin_assertion()
    spool.add(step("C", "c"), asserting=True)
    spool.end_assertion()
    assert [committed(spool, 1) for _ in range(3)] == [0, 1, 3]


def test_what_has_a_number_keeps_it_and_goes_before_an_assertion() -> None:
    spool = Spool(SpoolLimits())
    for name in ("a", "b"):
        spool.add(step(name, name))
    spool.entries[0].number = 1
    spool.begin_assertion()
    spool.add(step("A", "a"), asserting=True)
    assert spool.end_assertion()
    assert [(entry.ticket, entry.number) for entry in spool.entries] == [(1, 1), (3, None), (2, None)]


def test_an_assertion_of_nothing_changes_nothing_and_one_that_has_ended_is_over() -> None:
    spool = Spool(SpoolLimits())
    spool.add(step("a"))
    spool.begin_assertion()
    assert not spool.end_assertion()
    assert not spool.end_assertion()
    spool.add(step("b"), asserting=True)
    assert [entry.ticket for entry in spool.entries] == [1, 2]


def test_an_assertion_stands_for_what_an_earlier_one_stood_for() -> None:
    spool = Spool(SpoolLimits())
    for name in ("a", "b"):
        spool.add(step(name, name))
    for _ in range(2):
        spool.begin_assertion()
        spool.add(step("A", "a"), asserting=True)
        spool.end_assertion()
    assert [(entry.ticket, entry.stands_for) for entry in spool.entries] == [(4, 1), (2, 0)]


def test_another_store_counts_anew_behind_what_it_has() -> None:
    spool = Spool(SpoolLimits())
    for name in "ab":
        spool.add(step(name))
    committed(spool, 1)
    spool.entries[0].number = 2
    spool.renumber(40)
    assert [entry.number for entry in spool.entries] == [None]
    assert committed(spool, 1) == 2
    assert spool.accepted == 41


def test_the_disk_is_told_of_an_opening_only_if_it_has_anything() -> None:
    spool = Spool(SpoolLimits())
    spool.add(step("a"))
    spool.opened(2, "e", moved=True)
    assert (spool.take_orders(), spool.holding) == ([], False)
    spool = kept(1)
    spool.done(spool.take_orders())
    spool.opened(2, "e", moved=False)
    assert spool.holding
    orders = spool.take_orders()
    assert orders == [Opened(2, "e")]
    spool.opened(3, "e", moved=False)
    spool.done(orders)
    assert spool.holding, "it has not been told of the last one"
    spool.done(spool.take_orders())
    assert not spool.holding


def test_a_change_that_this_server_cannot_take_leaves_its_mark_in_memory_and_on_disk() -> None:
    spool = kept(2, changes=2)
    spool.add(CommandChange(id="0" * 32, state="applied"))
    away, here, answer = spool.entries
    spool._unload(away)
    away.data = None
    for entry in (away, here, answer):
        spool.leave_out(entry)
        assert (entry.skipped, entry.key, entry.counted, entry.change) == (
            1, None, False, SkippedChange(first=1, last=1, count=1),
        )  # fmt: skip
    assert spool.pending == 0
    assert [spool.add(step("x")), spool.add(step("y"))] == [4, 5], "there is room again"


def test_only_what_was_asked_for_is_loaded_and_nothing_twice() -> None:
    spool = kept(4)
    spool.done(spool.take_orders())
    stored = {entry.pos: entry.data for entry in spool.entries}
    for entry in list(spool.entries)[:3]:
        spool._unload(entry)
        entry.data = None
    spool.loaded([(1, stored[1] or b""), (3, stored[3] or b"")])
    assert [entry.data is not None for entry in spool.entries] == [True, False, True, True]
    before = spool._loaded
    spool.loaded([(1, b"another"), (4, b"another")])
    assert spool.entries[0].data == stored[1]
    assert spool._loaded == before
    spool.loaded([])
    assert spool.wanted is None


def test_a_value_is_let_go_of_when_it_is_on_disk_and_comes_back() -> None:
    spool = Spool(SpoolLimits())
    spool.add_value(b"data", "a" * 64)
    spool.add(step("a"))
    spool.keep()
    spool.done(spool.take_orders())
    assert [entry.data is None for entry in spool.entries] == [True, False]
    spool.loaded([(1, b"data")])
    assert spool.entries[0].data == b"data"


def test_what_was_sent_or_has_no_place_any_more_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "LOADED_CHANGES", 0)
    spool = kept(3)
    orders = spool.take_orders()
    spool.entries[0].number = 1
    committed(spool, 1)
    spool.entries[0].number = 2
    spool.done(orders)
    assert [entry.data is None for entry in spool.entries] == [False, True]


def test_what_an_earlier_process_left_waits_in_its_order_with_its_numbers() -> None:
    rows = [
        Row(1, 8, "", 0, True, 20, None),
        Row(2, 9, "a" * 64, 0, False, 5, None),
        Row(3, 9, "", 3, False, 30, None),
        Row(4, 10, "", 0, False, 40, None),
    ]
    spool = Spool(SpoolLimits(values=8))
    spool.restore(rows, 7)
    assert [(e.ticket, e.number, e.is_value, e.skipped, e.pos) for e in spool.entries] == [
        (1, 8, False, 0, 1),
        (1, None, True, 0, 2),
        (2, 9, False, 3, 3),
        (3, 10, False, 0, 4),
    ]
    assert (spool.accepted, spool.kept, spool.pending, spool.keeping, spool.away) == (7, 4, 2, True, True)
    assert not spool.add_value(b"xxxx", "b" * 64), "what was left counts"
    spool.add(step("new"))
    spool.keep()
    [order] = spool.take_orders()
    assert isinstance(order, Append)
    assert [(row.pos, row.number) for row in order.rows] == [(5, 11)]
