"""What may be left out may also be sent as what leaving it out means."""

from __future__ import annotations

import msgspec
import pytest

from wsmonitor.protocol.changes import Change, StepChange
from wsmonitor.protocol.entities import KINDS
from wsmonitor.protocol.errors import StateError
from wsmonitor.protocol.reducer import decode_entity


@pytest.mark.parametrize("kind", KINDS)
def test_every_default_is_accepted_when_it_is_written_out(kind: str) -> None:
    for field in msgspec.structs.fields(KINDS[kind]):
        if field.default is not msgspec.NODEFAULT:
            sent = msgspec.json.encode(field.default)
            assert msgspec.json.decode(sent, type=field.type) == field.default, field.name


def test_a_step_may_be_put_below_its_chain_again() -> None:
    change = StepChange(id="a", parent="")
    assert msgspec.json.decode(msgspec.json.encode(change), type=Change) == change


@pytest.mark.parametrize("parent", ["a/b", " a", "a\n", "a\x00", "x" * 129])
def test_an_optional_id_is_still_an_id(parent: str) -> None:
    record = {"id": "a", "chain": "c", "name": "n", "parent": parent}
    with pytest.raises(StateError):
        decode_entity("step", msgspec.json.encode(record))
