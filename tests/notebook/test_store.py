"""The real store of the front-end, fed by the real sender over a lossy way, ends equal to the replica."""

from __future__ import annotations

import base64
import json
import random
import shutil
import subprocess
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.notebook.samples import T0, chain, live_status, ns, step
from tests.scale import many
from wsmonitor.notebook import packing
from wsmonitor.notebook import view as views
from wsmonitor.notebook.bundle import bundle
from wsmonitor.notebook.pacing import Pacing
from wsmonitor.notebook.packing import Message, Wanted
from wsmonitor.notebook.pages import Pages
from wsmonitor.notebook.sender import Sender
from wsmonitor.notebook.view import Frame, Now, View
from wsmonitor.protocol.entities import Entity, Session
from wsmonitor.protocol.messages import Event

HARNESS = Path(__file__).with_name("front_end.mjs")
LARGEST = 256_000


class Page:
    """The front-end in a process of its own; see front_end.mjs."""

    def __init__(self, folder: Path) -> None:
        node = shutil.which("node")
        if node is None:
            pytest.skip("node is not installed: .ci/run installs it")
        source = folder / "front-end.mjs"
        source.write_text(bundle(), encoding="utf-8")
        self._process = subprocess.Popen(
            [node, str(HARNESS), str(source)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def do(self, time: float, **order: Any) -> dict[str, Any]:
        """Let the front-end act at *time* (seconds); what it then knows, and what it said."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"time": time * 1000, **order}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    found = Page(tmp_path_factory.mktemp("front-end"))
    yield found
    found.close()


class World:
    """A kernel's sender and view, a way that loses messages, and a page; on a virtual clock."""

    def __init__(
        self, page: Page, *, loss: float = 0.0, seed: int = 0, control: bool = True, small: bool = True
    ) -> None:
        self.page = page
        self.random = random.Random(seed)
        self.loss = loss
        self.view = View("job")
        if small:
            self.view.rows.pages = Pages(16)
        self.now = Now(1000.0, T0)
        self.pacing = Pacing(self.now.mono)
        self.messages: deque[Message] = deque()
        self.wanted = Wanted()
        self.sizes: list[int] = []
        self.sent_at: list[float] = []
        self.held: Frame = {}
        self.told: list[dict[str, Any]] = []
        self.seq = 0
        self.run = 1
        self.state: dict[str, Any] = {}
        self.asked = self.paged = 0
        self.control = control
        self.sender = Sender(lambda: self.now)
        self.view.connection(live_status(self.now), self.now)
        self.view.subscription("live", "", self.now)

    # -- as the sender sees a live widget

    def work(self, now: Now) -> None:
        pass

    def beat(self, now: Now) -> Frame:
        return self.view.beat(now)

    def send_message(self, message: Frame, buffers: list[bytes] | None = None) -> None:
        buffers = buffers or []
        self.paged += message["type"] == "page"
        self._count(len(msgspec.json.encode(message)) + sum(map(len, buffers)))
        if self.random.random() >= self.loss:
            self.told.append(
                {"message": message, "buffers": [base64.b64encode(data).decode() for data in buffers]}
            )

    def send_key(self, key: Frame) -> None:
        self._count(len(msgspec.json.encode(key)))
        self.held = key
        if self.random.random() >= self.loss:
            self.told.append({"key": key})

    def troubled(self, exc: Exception) -> None:
        raise exc

    def _count(self, size: int) -> None:
        self.sizes.append(size)
        self.sent_at.append(self.now.mono)

    # -- what happens

    def open(self, ident: str) -> None:
        """A page is opened, or opened anew."""
        self._hear(self.page.do(self.now.mono, open=ident, key=self.held, control=self.control))

    def apply(self, kind: str, entity: Entity, drop: list[tuple[str, str]] | None = None) -> None:
        self.seq += 1
        event = Event(
            topic="job~1",
            epoch="e",
            seq=self.seq,
            ts=ns(self.now.wall - T0),
            kind=kind,
            entity=msgspec.Raw(b""),
            drop=drop or [],
        )
        self.view.applied(event, entity)
        self.pacing.changed()

    def replace(self, entities: list[tuple[str, Entity]]) -> None:
        self.seq += 1
        self.view.replace(entities, "e", self.seq)
        self.pacing.changed()

    def pass_time(self, seconds: float, *, all_: bool = False) -> dict[str, Any]:
        """Let time pass, a tick at a time; what the page knows then."""
        for _ in range(round(seconds / 0.1)):
            self.now = Now(self.now.mono + 0.1, self.now.wall + 0.1)
            self.sender.serve([self], self.now)
            told, self.told = self.told, []
            if self.random.random() < 0.5:
                # A trait is read later by the front-end than a message that came after it.
                told.sort(key=lambda item: "key" in item)
            self._hear(self.page.do(self.now.mono, told=told))
        self.state = self.page.do(self.now.mono, all=all_)
        return self.state

    def _hear(self, state: dict[str, Any]) -> None:
        self.state = state
        for message in state["said"]:
            if not self.control:
                continue  # the comm is not heard: a cell runs
            self.pacing.seen(self.now.mono, True)
            self.wanted.want(message.get("want", []))
            self.asked += message["do"] == "pages"
            if message["do"] == "hello":
                self.pacing.hurry()

    def agrees(self) -> bool:
        """Whether the page knows all that the replica has."""
        known = self.pass_time(0, all_=True)
        rows = {row["id"]: row for row in json.loads(json.dumps(self.view.rows.all()))}
        return (
            known["gap"] is None
            and known["loading"] is None
            and known["n"] == self.view.number
            and {row["id"]: row for row in known["rows"]} == rows
            and known["head"]["sub"]["seq"] == self.seq
            and known["head"]["counts"] == self.view.rows.counts
            and (known["head"]["session"] or {}).get("run", self.run) == self.run
        )


def random_change(world: World, steps: dict[str, int]) -> None:
    """Something that a producer may do next."""
    draw = world.random
    kind = draw.random()
    now = world.now.wall - T0
    if kind < 0.5 or not steps:
        ident = f"s{len(steps)}"
        steps[ident] = 1
        parent = draw.choice(["", *list(steps)[-5:-1]])
        world.apply("step", step(ident, f"step {ident}", "running", chain="c", parent=parent, start=now))
    elif kind < 0.9:
        ident = draw.choice(list(steps))
        state = draw.choice(["running", "succeeded", "failed", "paused"])
        end = now if state in ("succeeded", "failed") else None
        world.apply(
            "step",
            step(ident, f"step {ident}", state, chain="c", start=0, end=end, done=draw.randint(0, 99)),
        )
    elif kind < 0.995:
        ident = draw.choice(list(steps))
        del steps[ident]
        world.apply("chain", chain("c", "chain", start=0), drop=[("step", ident)])
    else:
        # A sync, after which much is different at once; or everything: the name means a new run.
        new = draw.random() < 0.3
        run = world.run + new
        if new:
            world.view.bound(f"job~{run}", run, True, world.now)
        world.run = run
        lost = list(steps) if new else draw.sample(list(steps), len(steps) // 10)
        for ident in lost:
            del steps[ident]
        world.replace(
            [
                ("session", Session(id=f"job~{run}", name="job", run=run, state="running", created=ns(0))),
                ("chain", chain("c", "chain", start=0)),
                *(("step", step(i, f"again {i}", "succeeded", chain="c", start=0, end=1)) for i in steps),
            ]
        )


@pytest.mark.parametrize("large", [False, True], ids=["rows-in-key", "rows-in-pages"])
@pytest.mark.parametrize("control", [True, False], ids=["asks", "cannot-ask"])
def test_whatever_is_lost_the_page_ends_equal_to_the_replica(
    page: Page, large: bool, control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        monkeypatch.setattr(views, "KEY_BYTES", 2_000)
        monkeypatch.setattr(views, "FRAME_ROWS", 12)
        monkeypatch.setattr(packing, "PART_BYTES", 700)
        monkeypatch.setattr(packing, "MESSAGE_BYTES", 900)
        # Who can ask needs no page that comes unasked.
        monkeypatch.setattr(packing, "CYCLE", 0 if control else 6)
    healed = asked = paged = 0
    for seed in range(many(100)):
        world = World(page, loss=0.25, seed=seed, control=control)
        world.view.rows.limit = 10_000 if seed % 2 else 60
        world.open(f"{large}-{control}-{seed}")
        steps: dict[str, int] = {}
        for _ in range(100):
            random_change(world, steps)
        for _ in range(30):
            for _ in range(world.random.randint(0, 14)):
                random_change(world, steps)
            world.pass_time(0.1)
        if seed % 5 == 0:
            world.open(f"{large}-{control}-{seed}-again")  # the page is loaded anew
        world.loss = 0.0
        for _ in range(3):
            random_change(world, steps)
        world.pass_time(5.0 if control or not large else 40.0)
        assert world.agrees(), f"seed {seed}: {world.state['gap']} {world.state['loading']}"
        healed += world.state["heals"]
        asked += world.asked
        paged += world.paged
    assert healed > 0, "there were gaps"
    assert (asked > 0) == (control and large)
    assert (paged > 0) == large


def crowd(count: int, name: str = "step") -> list[tuple[str, Entity]]:
    """A session with so many steps."""
    steps = [
        (
            "step",
            step(f"s{n}", f"{name} {n}", chain=f"c{n % 100}", at=n / 100, start=n / 100, end=n / 100 + 1),
        )
        for n in range(count)
    ]
    chains = [("chain", chain(f"c{n}", f"chain {n}", start=0)) for n in range(100)]
    session = Session(id="job~1", name="job", run=1, state="running", created=ns(0), started=ns(0))
    return [("session", session), *chains, *steps]  # type: ignore[list-item]


def test_fifty_thousand_rows_come_soon_and_no_message_is_large(page: Page) -> None:
    world = World(page, small=False)
    world.open("crowd")
    world.replace(crowd(50_000))
    first = world.pass_time(1.0)
    assert first["loading"] is None or first["loading"]["have"] > 0
    world.pass_time(4.0)
    assert world.agrees(), world.state["loading"]
    assert max(world.sizes) <= LARGEST
    # A page that is loaded anew, and one that lost a great deal.
    world.open("crowd-again")
    world.pass_time(5.0)
    assert world.agrees(), world.state["loading"]
    world.loss = 1.0
    for n in range(2_000):
        world.apply("step", step(f"s{n * 20}", "other", "failed", chain="c1", start=n, end=n + 1))
        if n % 100 == 0:
            world.pass_time(0.1)
    world.loss = 0.0
    world.pass_time(5.0)
    assert world.agrees(), world.state["loading"]
    assert max(world.sizes) <= LARGEST
    for at in world.sent_at:
        assert sum(at <= other < at + 1 for other in world.sent_at) <= 20
