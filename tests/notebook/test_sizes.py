"""No message is above 256 kB, whatever a session's texts are."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.notebook.samples import T0, ns
from tests.scale import many
from wsmonitor.client.types import ConnectionStatus
from wsmonitor.notebook.details import details
from wsmonitor.notebook.head import HEAD_BYTES
from wsmonitor.notebook.journal import LOG_BYTES
from wsmonitor.notebook.packing import Wanted, packed
from wsmonitor.notebook.view import Now, View
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import (
    Argument,
    Chain,
    Command,
    CommandSpec,
    Entity,
    Failure,
    Problem,
    Producer,
    Session,
    Step,
)
from wsmonitor.protocol.messages import Event

LIMIT = 256_000
NOW = Now(1000.0, T0)
EVENT = Limits().event_size

texts = st.sampled_from(["a", "é", "🐘", "\u2603", '"', "\\", "<b>"])


def size(message: Any, buffers: list[bytes] | None = None) -> int:
    return len(msgspec.json.encode(message)) + sum(map(len, buffers or []))


def bounded(entity: Any) -> Any:
    """*entity*, if the protocol would let it pass."""
    assert size(entity) <= EVENT, "the test's own fault"
    return entity


class Monster:
    """A session in which every text is as long as the protocol allows."""

    def __init__(self, text: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.text = text
        # Not the same letter only: that would be deflated to nothing.
        self.noise = "".join(chr(self.random.randint(0x1F300, 0x1FAFF)) for _ in range(100_000))

    def long(self, length: int) -> str:
        start = self.random.randrange(len(self.noise) - length)
        return (self.noise[start : start + length // 2] + self.text * length)[:length]

    def failure(self) -> Failure:
        return Failure(type=self.long(200), message=self.long(500), traceback=self.long(2_500))

    def entities(self, steps: int) -> list[tuple[str, Entity]]:
        long = self.long
        specs = tuple(
            CommandSpec(
                name=f"{n}{long(100)}",
                args=tuple(Argument(name=f"{k}{long(40)}", choices=(long(50),) * 4) for k in range(3)),
                description=long(100),
            )
            for n in range(5)
        )
        session = Session(
            id="m~1",
            name=long(128),
            run=1,
            state="failed",
            reason=long(1_000),
            commands=specs,
            metrics={f"{n}{long(60)}": 1.5 for n in range(20)},
            error=Failure(message=long(500), traceback=long(500)),
        )
        found: list[tuple[str, Entity]] = [("session", bounded(session))]
        found += [("chain", Chain(id=f"c{n}", name=long(128), reason=long(1_000))) for n in range(3)]
        above = ""
        for n in range(steps):
            ident = f"{n}{long(100)}"
            found.append(
                (
                    "step",
                    bounded(
                        Step(
                            id=ident,
                            chain=f"c{n % 3}",
                            parent=above,
                            name=long(128),
                            kind=long(200),
                            state="failed",
                            reason=long(1_000),
                            step_key="k" if n % 2 else "",
                            attempt=n + 1,
                            error=self.failure() if n % 50 == 0 else Failure(message=long(300)),
                            log_last=long(1_000),
                            commands=(long(120),) * 12,
                            started=ns(n),
                        )
                    ),
                )
            )
            above = ident if n < 60 else ""
        found += [
            (
                "command",
                Command(
                    id=f"{n:032x}",
                    name=long(128),
                    step=f"s{n}{long(100)}",
                    actor=long(200),
                    via=long(128),
                    reason=long(1_000),
                    deadline="9",
                    requested=str(n),
                ),
            )
            for n in range(60)
        ]
        found += [("producer", Producer(id=f"{n}{long(120)}", agent=long(256), since="1")) for n in range(30)]
        found += [
            ("error", Problem(id=f"p{n}", code=long(200), message=long(4_000), at="1")) for n in range(20)
        ]
        return found


@settings(max_examples=many(4), deadline=None, phases=[Phase.explicit, Phase.generate])
@given(text=texts, seed=st.integers(0, 10_000), steps=st.sampled_from([3, 80, 700]))
def test_whatever_the_texts_are_no_message_is_large(text: str, seed: int, steps: int) -> None:
    monster = Monster(text, seed)
    view = View(monster.long(128))
    view.connection(
        ConnectionStatus(phase="waiting", reason=monster.long(5_000), looked=(monster.long(2_000),) * 50), NOW
    )
    view.presence(500, tuple(monster.long(128) for _ in range(50)))
    entities = monster.entities(steps)
    view.replace(entities, "e", 1)
    for number, (kind, entity) in enumerate(entities):
        event = Event(topic="m~1", epoch="e", seq=number + 1, ts="1", kind=kind, entity=msgspec.Raw(b""))
        view.applied(event, entity)
        view.log(number, "bad", "step", monster.long(128), monster.long(240))
    frame = view.frame(NOW)
    assert frame is not None
    assert size(*packed(frame)) <= LIMIT
    assert size(frame["head"]) <= HEAD_BYTES
    assert size(frame["log"]) <= LOG_BYTES + 1_000
    key = view.key(NOW)
    assert size(key) <= LIMIT
    wanted = Wanted()
    wanted.want(range(view.pages))
    told: list[str] = []
    while (message := wanted.message(view.page, view.number, 0)) is not None:
        assert size(*message) <= LIMIT
        told += [item["p"] for item in message[0]["pages"] if item["last"]]
    assert told == list(range(view.pages))
    for row in view.rows.all()[:: max(1, steps // 5)]:
        assert size(details(view, {"row": row["id"]}).body) <= LIMIT
    assert size(details(view, {"row": ""}).body) <= LIMIT
    # And what is left when it is replaced by something else altogether.
    view.replace([], "e2", 1)
    for _ in range(3):
        frame = view.frame(NOW)
        if frame is not None:
            assert size(*packed(frame)) <= LIMIT
    assert view.rows.all() == []


@pytest.mark.parametrize("attempts", [1, 50, 3_000])
def test_a_step_with_very_many_attempts_is_a_row_like_any_other(attempts: int) -> None:
    view = View("x")
    steps = [
        (
            "step",
            Step(
                id=f"s{n}", chain="c", name="again", step_key="k", attempt=n, started=ns(n), ended=ns(n + 1)
            ),
        )
        for n in range(1, attempts + 1)
    ]
    view.replace(steps, "e", attempts)
    frame = view.frame(NOW)
    assert frame is not None
    (row,) = frame["rows"]
    assert size(row) <= 10_000
    assert row["id"] == "s:s1"
    found = details(view, {"row": "s:s1"}).body
    assert size(found) <= 64_000
    assert found["details"]["attempt"] == attempts
