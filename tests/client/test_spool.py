"""The spool and its file: every order of submitting, writing, losing the link, dying and coming back."""

from __future__ import annotations

import hashlib
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.scale import many
from wsmonitor.client import spool as spools
from wsmonitor.client.entries import Append, Drop, Opened, Recount, Reorder
from wsmonitor.client.spool import Spool, SpoolLimits
from wsmonitor.client.spoolfile import Facts, SpoolFile
from wsmonitor.protocol.changes import SkippedChange, StepChange
from wsmonitor.protocol.messages import Publish, PublishOpen, ValueAck, ValuePut

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
