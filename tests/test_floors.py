"""What the lowest permitted versions are."""

from __future__ import annotations

import pytest

from tests.floors import floors, required


def test_every_dependency_has_a_lowest_version() -> None:
    found = floors(required())
    assert found["websockets"] == "14.2"
    assert found["PyJWT"] == "2.9"
    assert found["redis"] == "5.0.1"
    assert len(found) == len(required())


def test_it_is_read_from_the_requirement() -> None:
    assert floors(["a>=1", "b_c[x,y]>=2.0,!=2.1", "d-e>=3.4.5,<4"]) == {
        "a": "1",
        "b_c": "2.0",
        "d-e": "3.4.5",
    }


@pytest.mark.parametrize("requirement", ["a", "a==1", "a<2", "a>1"])
def test_one_without_is_a_mistake(requirement: str) -> None:
    with pytest.raises(ValueError, match="lowest"):
        floors([requirement])
