"""Every planted fault is caught by a seed, and by an invariant that it breaks."""

from __future__ import annotations

import pytest

from .__main__ import caught
from .faults import FAULTS, Fault
from .node_faults import NODE_FAULTS

EVERYDAY = frozenset(
    {
        "what was missed is not read",
        "nobody compares whom a commit was made for",
        "the epoch outlasts a failover",
        "a server that comes back does not get its programs back",
    }
)
"""Of the faults of several servers, those that are looked for every day: a run of theirs is dear."""

PLANTED = [
    *(pytest.param(one, id=one.name) for one in FAULTS),
    *(
        pytest.param(one, id=one.name, marks=() if one.name in EVERYDAY else pytest.mark.slow)
        for one in NODE_FAULTS
    ),
]


CAUGHT_LAST: dict[str, int] = {
    "acknowledgement before commit": 4,
    "a hole in history is not told": 5,
    "events of the old subscription are told": 5,
    "what overflows is dropped in silence, and gaps are applied over": 6,
    "replay without epoch": 7,
    "the server knows less than it acknowledged": 8,
    "what is sent again gets new numbers": 8,
    "the window of remembered commands is too small": 19,
    "an outbox without a limit": 3,
    "expiry is checked at the handshake only": 2,
    "revocation is checked at the handshake only": 5,
    "a silent link looks alive": 14,
    "a dead producer looks alive": 3,
    "who was away takes its producer back": 5,
    "the epoch outlasts the loss of power": 3,
    "an unknown outcome is taken for a failure": 7,
    "what was replaced counts as committed": 4,
}
"""The seed that caught a fault when that was last looked at, where it is not the first: it is tried first.

Where changed code has changed the runs, the others find it, as they found it before."""


@pytest.mark.timeout(600)  # up to a hundred seeds, until it is caught
@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_caught(fault: Fault) -> None:
    seeds = dict.fromkeys([CAUGHT_LAST.get(fault.name, 1), *range(1, 101)])
    found = caught(fault, list(seeds))
    assert found is not None, "not caught"
    assert found[1].name in fault.caught_by, str(found[1])


def test_what_is_known_of_faults_is_of_those_that_there_are() -> None:
    assert {*CAUGHT_LAST, *EVERYDAY} <= {fault.name for fault in (*FAULTS, *NODE_FAULTS)}
