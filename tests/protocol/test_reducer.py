"""reducer: one event at a time, in order, or an exception and no change; the digest never drifts."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsmonitor.protocol.digest import EMPTY, MODULUS, entity_hash, to_hex
from wsmonitor.protocol.entities import Chain, Entity, Listing, Session, Step
from wsmonitor.protocol.errors import DigestMismatchError, OutOfOrderError, StateError
from wsmonitor.protocol.messages import Event
from wsmonitor.protocol.reducer import HASHED_LATER, SessionState, convert_entity, decode_entity


def _event(
    seq: int,
    kind: str,
    entity: Entity | bytes,
    *,
    epoch: str = "e",
    drop: list[tuple[str, str]] | None = None,
) -> Event:
    raw = entity if isinstance(entity, bytes) else msgspec.json.encode(entity)
    return Event(topic="s", epoch=epoch, seq=seq, ts="0", kind=kind, entity=msgspec.Raw(raw), drop=drop or [])


def _recomputed(state: SessionState) -> str:
    return to_hex(sum(entity_hash(entity) for _, entity in state) % MODULUS)


def _facts(state: SessionState) -> tuple[object, ...]:
    return (state.topic, state.epoch, state.seq, state.digest, len(state), list(state))


def _state() -> SessionState:
    state = SessionState("s", "e")
    state.apply(_event(1, "session", Session(id="s", name="etl", seq=1)))
    state.apply(_event(2, "chain", Chain(id="c", name="load", seq=2)))
    return state


def test_an_empty_state_is_at_seq_0_with_the_empty_digest() -> None:
    state = SessionState("s", "e")
    assert (state.seq, state.digest, len(state), state.session) == (0, EMPTY, 0, None)


def test_an_event_replaces_the_whole_entity() -> None:
    state = _state()
    applied = state.apply(_event(3, "chain", Chain(id="c", name="load", state="running", seq=3)))
    assert applied == state.chains["c"] == Chain(id="c", name="load", state="running", seq=3)
    state.apply(_event(4, "chain", Chain(id="c", name="load", seq=4)))
    assert state.chains["c"].state == "pending"
    assert state.seq == 4
    assert state.session == Session(id="s", name="etl", seq=1)


@pytest.mark.parametrize(
    "event",
    [
        _event(2, "chain", Chain(id="c", name="again")),
        _event(4, "chain", Chain(id="d", name="too far")),
        _event(1, "chain", Chain(id="d", name="old")),
        _event(3, "chain", Chain(id="d", name="other history"), epoch="f"),
    ],
    ids=["same", "beyond", "before", "epoch"],
)
def test_an_event_out_of_order_raises_and_changes_nothing(event: Event) -> None:
    state = _state()
    before = _facts(state)
    with pytest.raises(OutOfOrderError) as info:
        state.apply(event)
    assert info.value.expected == ("e", 3)
    assert info.value.got == (event.epoch, event.seq)
    assert _facts(state) == before


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("chain", b"{}"),
        ("chain", b'{"id":"c","name":5}'),
        ("chain", b"nonsense"),
        ("step", b'{"id":"x","name":"n"}'),
        ("chain", b'{"id":"c","name":"\xff"}'),
        ("chain", b'{"id":"c","name":"n","state":"done"}'),
        ("chain", b'{"id":"c","name":"n","metrics":{"m":99999999999999999999}}'),
    ],
)
def test_an_unreadable_entity_raises_and_changes_nothing(kind: str, raw: bytes) -> None:
    state = _state()
    before = _facts(state)
    with pytest.raises(StateError, match=f"not a {kind}"):
        state.apply(_event(3, kind, raw))
    assert _facts(state) == before


def test_an_unknown_kind_counts_its_seq_and_touches_nothing_else() -> None:
    state = _state()
    digest = state.digest
    assert state.apply(_event(3, "of_tomorrow", b'{"any":"thing"}')) is None
    assert (state.seq, state.digest, len(state)) == (3, digest, 2)
    assert decode_entity("of_tomorrow", b"nonsense") is None


def test_an_event_may_drop_entities() -> None:
    state = _state()
    state.apply(
        _event(3, "step", Step(id="x", chain="c", name="n", seq=3), drop=[("chain", "c"), ("step", "no")])
    )
    assert state.chains == {}
    assert list(state.steps) == ["x"]
    assert state.digest == _recomputed(state)


def test_a_record_of_another_kind_is_refused() -> None:
    state = _state()
    before = _facts(state)
    with pytest.raises(StateError, match="a Chain is not a step"):
        state.put("step", Chain(id="c", name="n"))
    assert _facts(state) == before


def test_a_copy_is_not_changed_by_later_events() -> None:
    state = _state()
    copy = state.copy()
    before = _facts(copy)
    state.apply(_event(3, "chain", Chain(id="d", name="more", seq=3)))
    assert _facts(copy) == before
    copy.apply(_event(3, "chain", Chain(id="z", name="other", seq=3)))
    assert "z" not in state.chains


def test_verify() -> None:
    state = _state()
    state.verify(state.digest)
    with pytest.raises(DigestMismatchError, match="s at e:2"):
        state.verify(EMPTY)


def test_restore_is_what_was_kept() -> None:
    state = _state()
    restored = SessionState.restore("s", "e", state.seq, list(state))
    assert _facts(restored) == _facts(state)


def test_one_view_per_kind() -> None:
    state = SessionState("/directory", "e")
    state.put("listing", Listing(id="s", name="etl"))
    assert list(state.listings) == ["s"]
    for view in (state.chains, state.steps, state.commands, state.producers, state.problems):
        assert view == {}


_IDS = st.sampled_from(["a", "b", "c"])
_OPS = st.lists(
    st.tuples(st.sampled_from(["chain", "step", "drop chain", "drop step"]), _IDS, st.integers(0, 3)),
    max_size=30,
)


@given(_OPS)
def test_the_incremental_digest_is_the_recomputed_one(ops: list[tuple[str, str, int]]) -> None:
    state = SessionState("s", "e")
    for seq, (op, ident, number) in enumerate(ops, start=1):
        if op == "chain":
            event = _event(seq, "chain", Chain(id=ident, name="n", metrics={"m": number}, seq=seq))
        elif op == "step":
            event = _event(seq, "step", Step(id=ident, chain="c", name="n", attempt=number, seq=seq))
        else:
            event = _event(seq, "of_tomorrow", b"{}", drop=[(op.split()[1], ident)])
        state.apply(event)
        assert state.digest == _recomputed(state)
    assert state.seq == len(ops)


@given(_OPS, st.randoms(use_true_random=False))
def test_the_digest_does_not_depend_on_the_order_of_arrival(
    ops: list[tuple[str, str, int]], shuffle: object
) -> None:
    entities: dict[tuple[str, str], Entity] = {}
    for op, ident, number in ops:
        if op == "chain":
            entities["chain", ident] = Chain(id=ident, name="n", metrics={"m": number})
        elif op == "step":
            entities["step", ident] = Step(id=ident, chain="c", name="n", attempt=number)
    items = [(kind, entity) for (kind, _), entity in entities.items()]
    one = SessionState.restore("s", "e", 1, items)
    shuffle.shuffle(items)  # type: ignore[attr-defined]
    other = SessionState.restore("s", "e", 1, items)
    assert one.digest == other.digest


def test_an_entity_may_be_put_with_its_number() -> None:
    """Who has computed it already (the authority) need not have it computed again."""
    chain, plain, given = Chain(id="c", name="c"), SessionState("s", "e"), SessionState("s", "e")
    plain.put("chain", chain)
    given.put("chain", chain, entity_hash(chain))
    assert given.digest == plain.digest
    assert given.hash_of("chain", "c") == entity_hash(chain)
    assert given.hash_of("chain", "other") == 0
    assert (given.problems, given.listings) == ({}, {})


def test_a_number_takes_the_place_of_a_hash_that_was_to_be_computed() -> None:
    state = SessionState("s", "e")
    state.apply(_event(1, "chain", Chain(id="c", name="c")))
    state.apply(_event(2, "chain", Chain(id="d", name="d")))
    state.put("chain", Chain(id="c", name="other"), 7)
    assert (state.hash_of("chain", "c"), state.hash_of("chain", "d")) == (7, entity_hash(state.chains["d"]))
    assert state.digest == to_hex(7 + entity_hash(state.chains["d"]))
    state.drop("chain", "d")
    assert state.digest == to_hex(7)


def test_a_copy_is_of_the_same_topic_and_place() -> None:
    state = SessionState("s~1", "e", 7)
    copy = state.copy()
    assert (copy.topic, copy.epoch, copy.seq, copy.digest) == ("s~1", "e", 7, state.digest)


@given(_OPS, st.sets(st.integers(1, 30)), st.sets(st.integers(1, 30)), st.sets(st.integers(1, 30)))
def test_it_does_not_matter_when_what_waits_is_hashed(
    ops: list[tuple[str, str, int]], applied: set[int], numbered: set[int], settled: set[int]
) -> None:
    """Records are brought by events, put with and without their number, replaced, dropped, copied."""
    state = SessionState("s", "e")
    for at, (op, ident, number) in enumerate(ops, start=1):
        kind = op.split()[-1]
        entity: Entity = (
            Chain(id=ident, name="n", metrics={"m": number})
            if kind == "chain"
            else Step(id=ident, chain="c", name="n", attempt=number)
        )
        if op.startswith("drop"):
            state.drop(kind, ident)
        elif at in applied:
            state.apply(_event(state.seq + 1, kind, entity))
        else:
            state.put(kind, entity, entity_hash(entity) if at in numbered else None)
        if at in settled:
            state.settle()
            assert not state._unhashed
        assert len(state) == len(list(state))
        assert state.hash_of(kind, ident) == (0 if op.startswith("drop") else entity_hash(entity))
        assert state.copy().digest == state.digest == _recomputed(state)


def test_no_more_than_some_wait_for_their_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def count(entity: Entity) -> int:
        hashed.append(entity.id)
        return entity_hash(entity)

    monkeypatch.setattr("wsmonitor.protocol.reducer.entity_hash", count)
    state = SessionState("s", "e")
    for seq in range(1, 3 * HASHED_LATER + 1):
        state.apply(_event(seq, "chain", Chain(id=f"c{seq % HASHED_LATER}", name="n", seq=seq)))
    assert hashed == []
    state.apply(_event(state.seq + 1, "chain", Chain(id="one more", name="n")))
    assert len(hashed) == HASHED_LATER + 1, "each once, as it is now"
    assert state.digest == _recomputed(state)
    assert len(hashed) == HASHED_LATER + 1


def test_reading_changes_nothing() -> None:
    """Several threads may read one: only `settle` computes for good, and a copy has been settled."""
    state = _state()
    assert len(state._unhashed) == 2
    for one in (state, state.copy()):
        before = {name: getattr(one, name) for name in SessionState.__slots__}
        before = {name: dict(kept) if isinstance(kept, dict) else kept for name, kept in before.items()}
        assert one.digest == _recomputed(one)
        assert one.hash_of("chain", "c") == entity_hash(one.chains["c"])
        assert one.hash_of("chain", "other") == 0
        assert {name: getattr(one, name) for name in SessionState.__slots__} == before
    assert not state.copy()._unhashed


def test_plain_values_are_made_records() -> None:
    assert convert_entity("chain", {"id": "c", "name": "n"}) == Chain(id="c", name="n")
    with pytest.raises(StateError, match="not a chain"):
        convert_entity("chain", {"id": "c"})
    with pytest.raises(KeyError):
        convert_entity("of_tomorrow", {})
