"""The authority, its feed and its syncs against a model: whatever happens in whatever order.

Producers publish (and send again), commits succeed or fail, observers sync page by page, break off and
resume. After every step the observers hold what the invariants of the architecture promise:

- ORDER, ONCE: an observer gets each seq at most once, in increasing order;
- GAPLESS: and from its subscription on every one, live, as history, or named in a gap;
- MONOTONE: its state never goes back;
- AGREE: a live observer's state is the server's, by digest.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from tests.scale import many
from wsmonitor.protocol.changes import ChainChange, Change, ProblemChange, SessionChange, StepChange
from wsmonitor.protocol.codec import decode_event, encode_record
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.messages import Event, Position, SyncPage
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.authority import Authority
from wsmonitor_server.facts import Facts
from wsmonitor_server.hub import Feed
from wsmonitor_server.ledger import Batch, Ledger
from wsmonitor_server.sync import TopicSync

from .support import Listener, text_value

T = TypeVar("T")

LIMITS = Limits(history_events=4, page_size=120, problems=2)
OBSERVERS = ("ann", "bob", "cem")
PRODUCERS = ("p", "q")


def run(work: Coroutine[Any, Any, T]) -> T:
    """The value of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    raise AssertionError("it waited")


class Observer(Listener):
    """A client: a position, a shadow while it syncs, and everything it was told."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.syncing: TopicSync | None = None
        self.shadow = SessionState("s", "e")
        self.page = 0
        self.live = False
        self.told: list[int] = []  # seqs handed to handlers
        self.skipped: set[int] = set()  # seqs named in gaps
        self.first: int | None = None  # the first seq that it must account for
        self.pending: list[Event] = []
        self.at_start: int | None = None

    def event(self, topic: str, seq: int, encoded: bytes) -> None:
        assert self.live, "no live event before the sync is over"
        super().event(topic, seq, encoded)
        self.told.append(seq)

    def start(self, sync: TopicSync) -> None:
        self.live = False
        self.syncing = sync
        self.shadow = SessionState("s", "e")
        self.page = 0
        self.pending = []
        self.new_gaps: set[int] = set()

    def pull(self) -> None:
        assert self.syncing is not None
        page: SyncPage = self.syncing.page(self.page)
        self.take(self.shadow, page)
        self.pending += [decode_event(raw) for raw in page.history]
        if page.gap is not None:
            self.new_gaps |= set(range(page.gap[0], page.gap[1] + 1))
        self.page += 1
        if page.last:
            self._swap()

    def _swap(self) -> None:
        assert self.syncing is not None
        old = None if self.replica is None else self.replica.seq
        base = self.shadow.seq
        events, seq, digest = self.syncing.finish()
        for encoded in events:
            event = decode_event(encoded)
            self.shadow.apply(event)
            if old is None or event.seq > old:
                self.pending.append(event)
        assert (self.shadow.seq, self.shadow.digest) == (seq, digest), "AGREE: at `synced`"
        assert old is None or seq >= old, "MONOTONE"
        if self.first is None:
            self.first = base + 1
        self.told += [event.seq for event in self.pending]
        self.skipped |= self.new_gaps
        self.replica = self.shadow
        self.syncing = None
        self.live = True


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.feed = Feed("s", SessionState("s", "e"), LIMITS)
        self.ledger = Ledger(self.feed, {})
        self.authority = Authority(self.ledger, LIMITS)
        self.flight: Batch | None = None
        self.now = 1_000
        self.sent: dict[str, list[Change]] = {producer: [] for producer in PRODUCERS}
        self.observers = {name: Observer(name) for name in OBSERVERS}
        for producer in PRODUCERS:
            self.authority.open_producer(producer, "alice", "", self.now)
        self.begin_commit()
        self.end_commit()

    # -- producers

    def publish(self, producer: str, change: Change) -> None:
        self.now += 1
        self.sent[producer].append(change)
        self.send(producer)

    def send(self, producer: str) -> None:
        """Send what is not acknowledged (again)."""
        accepted = self.ledger.positions[producer].accepted
        changes = self.sent[producer][accepted:]
        if changes:
            self.authority.publish(producer, accepted + 1, changes, self.now)

    @rule(producer=st.sampled_from(PRODUCERS), state=st.sampled_from(["running", "paused"]))
    def session(self, producer: str, state: Any) -> None:
        self.publish(producer, SessionChange(name="s", state=state))

    @rule(producer=st.sampled_from(PRODUCERS), idents=st.lists(st.sampled_from("abcd"), max_size=6))
    def chains(self, producer: str, idents: list[str]) -> None:
        for ident in idents:
            self.publish(producer, ChainChange(id=ident, name=f"n{self.now}"))

    @rule(
        producer=st.sampled_from(PRODUCERS),
        ident=st.sampled_from("vwxyz"),
        state=st.sampled_from(["pending", "running", "succeeded", "failed", "crashed"]),
        text=st.text(max_size=20),
    )
    def step(self, producer: str, ident: str, state: Any, text: str) -> None:
        output = text_value(text)
        change = StepChange(id=ident, chain="a", name="step", state=state, output=output)
        self.publish(producer, change)

    @rule(producer=st.sampled_from(PRODUCERS), idents=st.lists(st.sampled_from("klmn"), max_size=4))
    def problems(self, producer: str, idents: list[str]) -> None:
        for ident in idents:
            self.publish(producer, ProblemChange(id=ident, code="c", message=str(self.now)))

    @rule(producer=st.sampled_from(PRODUCERS))
    def crash(self, producer: str) -> None:
        self.now += 1
        self.authority.crash(producer, self.now)

    # -- the store

    @precondition(lambda self: self.flight is None)
    @rule()
    def begin_commit(self) -> None:
        self.flight = self.ledger.take_batch()

    @precondition(lambda self: self.flight is not None)
    @rule()
    def end_commit(self) -> None:
        assert self.flight is not None
        self.ledger.committed(self.flight)
        assert self.flight.commit.digest == self.feed.state.digest, "the store's word on what it has"
        self.flight = None

    @rule()
    def commit(self) -> None:
        for _ in range(2):
            if self.flight is not None:
                self.end_commit()
            self.begin_commit()
        if self.flight is not None:
            self.end_commit()

    @precondition(lambda self: self.flight is not None)
    @rule()
    def fail_commit(self) -> None:
        self.flight = None
        self.ledger.rollback()
        counted, built = self.ledger.facts, Facts(self.feed.state, 0)
        assert list(counted.problems) == list(built.problems), "in the order in which they came"
        assert (counted.session, counted.problem) == (built.session, built.problem)
        self.tail_is_the_head_when_nothing_is_open()
        for producer in PRODUCERS:
            self.send(producer)

    # -- observers

    @rule(name=st.sampled_from(OBSERVERS))
    def subscribe(self, name: str) -> None:
        observer = self.observers[name]
        resume = None
        if observer.replica is not None:
            resume = Position(epoch="e", seq=observer.replica.seq, digest=observer.replica.digest)
        sync = TopicSync(self.feed, observer, 1, resume, page_size=LIMITS.page_size)
        assert sync.begin.reset == ""
        observer.start(sync)

    @rule(name=st.sampled_from(OBSERVERS), count=st.integers(1, 3))
    def pull(self, name: str, count: int) -> None:
        for _ in range(count):
            if self.observers[name].syncing is not None:
                self.observers[name].pull()

    @rule(name=st.sampled_from(OBSERVERS))
    def slow_sync(self, name: str) -> None:
        """Between two pages more happens than history keeps."""
        self.subscribe(name)
        for number in range(10):
            self.pull(name, 1)
            if self.observers[name].syncing is None:
                break
            self.problems("p", ["k", "l", "m", "n", "k", "l"][number % 3 :])
            self.commit()

    @rule(name=st.sampled_from(OBSERVERS))
    def whole_sync(self, name: str) -> None:
        self.subscribe(name)
        while self.observers[name].syncing is not None:
            self.observers[name].pull()

    @rule(name=st.sampled_from(OBSERVERS))
    def lose_connection(self, name: str) -> None:
        observer = self.observers[name]
        self.feed.detach(observer)
        observer.syncing, observer.live = None, False

    # -- what must hold

    @invariant()
    def once_in_order_without_a_hole(self) -> None:
        for observer in self.observers.values():
            told = observer.told
            assert told == sorted(set(told)), "ORDER, ONCE"
            if observer.replica is not None and observer.first is not None:
                expected = set(range(observer.first, observer.replica.seq + 1))
                assert expected <= set(told) | observer.skipped, "GAPLESS"
                assert not set(told) & observer.skipped, "ONCE: not told and skipped"

    @invariant()
    def live_observers_agree(self) -> None:
        for observer in self.observers.values():
            if observer.live:
                assert observer.replica is not None
                assert observer.replica.seq == self.feed.state.seq
                assert observer.replica.digest == self.feed.state.digest, "AGREE"

    @invariant()
    def tail_is_the_head_when_nothing_is_open(self) -> None:
        authority, state = self.authority, self.feed.state
        if authority.ledger.uncommitted:
            return
        assert authority.ledger.tail == state.seq
        for producer in PRODUCERS:
            assert authority.ledger.position(producer) == authority.ledger.positions[producer]
        for kind, entity in state:
            assert authority.ledger.get(kind, entity.id) is entity
        counted, built = authority.ledger.facts, Facts(state, authority.ledger.facts.entity_bytes)
        assert (+counted.steps, counted.open_of) == (+built.steps, built.open_of)
        assert +counted.crashed_of == +built.crashed_of
        assert counted.problems.keys() == built.problems.keys()
        assert (counted.references, counted.value_bytes) == (built.references, built.value_bytes)
        assert counted.tally.counts == built.tally.counts
        assert counted.attention == built.attention
        listing, anew = counted.listing(1), built.listing(1)
        assert (listing is None) == (anew is None)
        if listing is not None and anew is not None:
            # Which failure was the first one, only who saw them knows.
            assert listing == replace(anew, problem=counted.problem)
        assert counted.entity_bytes == sum(len(bytes(encode_record(one))) for _, one in state)

    @invariant()
    def nothing_grows(self) -> None:
        assert len(self.feed.history) <= LIMITS.history_events, "BOUNDED"
        assert len(self.feed.state.problems) <= LIMITS.problems, "BOUNDED"

    @invariant()
    def acknowledged_is_a_prefix_of_what_was_sent(self) -> None:
        for producer in PRODUCERS:
            assert self.ledger.positions[producer].accepted <= len(self.sent[producer])

    def teardown(self) -> None:
        """When traffic stops, everything was taken once, and everybody agrees."""
        self.commit()
        for producer in PRODUCERS:
            assert self.ledger.positions[producer].accepted == len(self.sent[producer])
        for name in OBSERVERS:
            self.whole_sync(name)
        self.live_observers_agree()
        self.once_in_order_without_a_hole()


Machine.TestCase.settings = settings(max_examples=many(120), stateful_step_count=60, deadline=None)
test_authority_and_syncs_against_the_model = Machine.TestCase
