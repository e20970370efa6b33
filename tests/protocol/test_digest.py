"""digest: the published vectors, and agreement with a second implementation made from the documents."""

from __future__ import annotations

import json
import math
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.protocol import digest_vectors, independent, strategies
from tests.scale import many
from wsmonitor.protocol import digest
from wsmonitor.protocol.entities import KINDS, Chain, Session, Step
from wsmonitor.protocol.reducer import decode_entity

PATH = Path(__file__).resolve().parents[2] / "docs" / "vectors" / "digest.json"
VECTORS: dict[str, Any] = json.loads(PATH.read_text(encoding="ascii"))


def test_the_committed_vectors_are_what_the_code_says() -> None:
    assert PATH.read_text(encoding="ascii") == digest_vectors.text()


@pytest.mark.parametrize("vector", VECTORS["entities"], ids=lambda vector: vector["title"])
def test_a_vector(vector: dict[str, Any]) -> None:
    entity = decode_entity(vector["kind"], json.dumps(vector["entity"]).encode())
    assert entity is not None
    assert digest.canonical(entity).decode() == vector["canonical"]
    assert sha256(vector["canonical"].encode()).hexdigest() == vector["sha256"]
    assert f"{digest.entity_hash(entity):032x}" == vector["number"] == vector["sha256"][:32]


@pytest.mark.parametrize("vector", VECTORS["entities"], ids=lambda vector: vector["title"])
def test_a_vector_by_the_second_implementation(vector: dict[str, Any]) -> None:
    assert independent.canonical(vector["kind"], vector["entity"]) == vector["canonical"]


def test_states_by_the_second_implementation() -> None:
    by_title = {vector["title"]: (vector["kind"], vector["entity"]) for vector in VECTORS["entities"]}
    assert len(VECTORS["states"]) == 5
    for state in VECTORS["states"]:
        assert independent.digest([by_title[title] for title in state["entities"]]) == state["digest"]
    assert VECTORS["states"][0]["digest"] == digest.EMPTY


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=many(60), suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_both_implementations_agree_on_any_entity(kind: str, data: st.DataObject) -> None:
    entity = data.draw(strategies.struct(KINDS[kind]))
    on_the_wire = msgspec.json.encode(entity)
    assert digest.canonical(entity).decode() == independent.canonical(kind, json.loads(on_the_wire))
    # It does not matter through how many encodings an entity went.
    read = decode_entity(kind, on_the_wire)
    assert read is not None
    assert digest.entity_hash(read) == digest.entity_hash(entity)


def test_every_field_is_covered_or_named_as_left_out() -> None:
    left_out = {"step": {"log_count", "log_last"}}
    for kind, cls in KINDS.items():
        assert set(cls.__struct_fields__) == set(digest.FIELDS[kind]) | left_out.get(kind, set())
        assert len(set(digest.FIELDS[kind])) == len(digest.FIELDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_the_written_out_encoding_follows_the_table(kind: str) -> None:
    # Each field in turn is given a value of its own: the encoding changes in that place only.
    base = next(wire for _, case_kind, wire in digest_vectors.CASES if case_kind == kind)
    entity = msgspec.convert(base, KINDS[kind])
    plain = json.loads(digest.canonical(entity))
    assert plain[0] == kind
    assert len(plain) == 1 + len(digest.FIELDS[kind])
    for place, field in enumerate(digest.FIELDS[kind], start=1):
        value = getattr(entity, field)
        if isinstance(value, str):
            changed = json.loads(digest.canonical(msgspec.structs.replace(entity, **{field: value + "x"})))
            assert [n for n, pair in enumerate(zip(plain, changed, strict=True)) if pair[0] != pair[1]] == [
                place
            ]


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 1.0), (0, -0.0), (2**53, 2**53 + 1), (2**53, float(2**53)), (2**62, float(2**62))],
)
def test_numbers_that_javascript_cannot_tell_apart_are_the_same(one: float, other: float) -> None:
    first, second = (Chain(id="c", name="n", metrics={"m": number}) for number in (one, other))
    assert digest.canonical(first) == digest.canonical(second)


@pytest.mark.parametrize(
    ("one", "other"), [(2**53 - 1, 2**53), (0.1, 0.2), (1, True), (1, "1"), (0.5, "f:3fe0")]
)
def test_different_values_differ(one: Any, other: Any) -> None:
    first, second = (Chain(id="c", name="n", attributes={"m": value}) for value in (one, other))
    assert digest.canonical(first) != digest.canonical(second)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_hold_has_no_canonical_form(number: float) -> None:
    with pytest.raises(ValueError, match="no canonical form"):
        digest.canonical(Chain(id="c", name="n", metrics={"m": number}))


def test_logs_are_not_covered_and_values_count_by_their_sha256() -> None:
    sha = "0" * 64
    bare = Step(id="s", chain="c", name="n")
    assert digest.canonical(msgspec.structs.replace(bare, log_count=3, log_last="x")) == digest.canonical(
        bare
    )
    one, two = (
        msgspec.convert(
            {"id": "s", "chain": "c", "name": "n", "input": {"size": 1, "sha256": sha, "text": text}}, Step
        )
        for text in ("a", "b")
    )
    assert digest.canonical(one) == digest.canonical(two) != digest.canonical(bare)


def test_hexadecimal_form() -> None:
    assert digest.to_hex(0) == digest.EMPTY == "0" * 32
    assert digest.to_hex(1 << 128) == digest.EMPTY
    assert digest.to_hex(255) == "0" * 30 + "ff"


def test_the_worked_example_of_the_documentation() -> None:
    entity = Session(id="etl~01", name="etl", run=3, state="running", seq=1)
    assert digest.canonical(entity).decode() == (
        '["session","etl~01",3,[],"etl","","running","",null,null,null,null,{},[],{},[],"","","","",1]'
    )
