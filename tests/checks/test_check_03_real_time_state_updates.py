"""Check 3, Real-Time State Updates (HIGH).

"Client receives WebSocket events when session/chain/step state changes on server. Events contain
complete updated state data. Events propagate within < 1 second on LAN. UI updates immediately upon
event receipt."
"""

from __future__ import annotations

import threading
import time

import msgspec

import wsmonitor as wm
from tests.checks.harness import blocking, measured, scene, until
from wsmonitor.client import EventApplied
from wsmonitor.notebook import watch
from wsmonitor.notebook.feed import now
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange
from wsmonitor.protocol.entities import Chain, Progress, Session, Step


async def test_client_receives_events_when_session_chain_or_step_state_changes() -> None:
    """ "Client receives WebSocket events when session/chain/step state changes on server." """
    async with scene() as stage:
        publisher = await stage.publish("etl~1")
        publisher.step("s1", state="running")
        await publisher.flush()
        observer = await stage.observe("etl~1")
        seen = observer.sub.position
        assert seen is not None
        publisher.submit(
            SessionChange(state="paused"),
            ChainChange(id="load", state="paused"),
            StepChange(id="s1", state="paused"),
            StepChange(id="s1", state="succeeded"),
            ChainChange(id="load", state="succeeded"),
            SessionChange(state="succeeded"),
        )
        await publisher.flush()
        await observer.at(seen[1] + 6)
        told = [(update.event.kind, update.entity) for update in observer.of(EventApplied)][-6:]
        assert [(kind, getattr(entity, "state", None)) for kind, entity in told] == [
            ("session", "paused"),
            ("chain", "paused"),
            ("step", "paused"),
            ("step", "succeeded"),
            ("chain", "succeeded"),
            ("session", "succeeded"),
        ]
        await stage.agreed(observer)


async def test_events_contain_complete_updated_state_data() -> None:
    """ "Events contain complete updated state data.": also when the change named one field only."""
    async with scene() as stage:
        publisher = await stage.publish("etl~1")
        observer = await stage.observe("etl~1")
        publisher.step(
            "s1",
            state="running",
            kind="tool",
            progress=Progress(done=1, total=3, unit="files"),
            metrics={"loss": 0.5},
            attributes={"model": "m"},
            tags=("a",),
        )
        publisher.submit(StepChange(id="s1", progress=Progress(done=2, total=3, unit="files")))
        publisher.submit(ChainChange(id="load", metrics={"rows": 7}))
        publisher.submit(SessionChange(reason="so far so good"))
        await publisher.flush()
        await observer.at(stage.head("etl~1")[1])
        step, chain, session = (
            [update.entity for update in observer.of(EventApplied) if isinstance(update.entity, kind)][-1]
            for kind in (Step, Chain, Session)
        )
        assert isinstance(step, Step)
        assert step.progress == Progress(done=2, total=3, unit="files")
        assert (step.name, step.chain, step.state, step.kind) == ("s1", "load", "running", "tool")
        assert (step.metrics, step.attributes, step.tags) == ({"loss": 0.5}, {"model": "m"}, ("a",))
        assert isinstance(chain, Chain)
        assert (chain.name, chain.state, chain.metrics) == ("load", "running", {"rows": 7})
        assert isinstance(session, Session)
        assert (session.state, session.tags, session.attributes, session.reason) == (
            "running",
            ("nightly",),
            {"owner": "alice"},
            "so far so good",
        )
        # What the event carried is, field by field, what the server's state holds.
        for update in observer.of(EventApplied):
            assert update.entity is not None
            assert msgspec.json.decode(update.event.entity, type=type(update.entity)) == update.entity
        assert observer.state().steps["s1"] == step


async def test_events_propagate_within_one_second() -> None:
    """ "Events propagate within < 1 second on LAN.", from the producer's call to the observer's callback."""
    async with scene() as stage:
        publisher = await stage.publish("etl~1")
        observers = [await stage.observe("etl~1", f"observer {n}") for n in range(3)]
        sent: dict[str, float] = {}
        for number in range(100):
            ident = f"s{number}"
            sent[ident] = time.monotonic()
            publisher.step(ident, state="running")
            if number % 10 == 9:
                await publisher.flush()
        await stage.agreed(*observers)
        delays = []
        for observer in observers:
            for update in observer.of(EventApplied):
                if isinstance(update.entity, Step):
                    delays.append(observer.received[update.event.seq] - sent[update.entity.id])
        assert len(delays) == 300
        # Pushed, and not fetched now and then: far below any heartbeat, on however slow a machine.
        assert max(delays) < 10.0


async def test_no_polling_brings_the_updates() -> None:
    """Updates are pushed: after its subscription the observer sends nothing to get them."""
    async with scene() as stage:
        publisher = await stage.publish("etl~1")
        observer = await stage.observe("etl~1")
        sent: list[object] = []
        core = observer.conn._shared.core
        take = core.take
        core.take = lambda now: [sent.append(action) or action for action in take(now)]  # type: ignore[method-assign,func-returns-value]
        for number in range(20):
            publisher.step(f"s{number}")
        await publisher.flush()
        await stage.agreed(observer)
        assert len(observer.of(EventApplied)) >= 20
        assert not [action for action in sent if type(action).__name__ == "Send"]


async def test_the_notebooks_view_shows_the_change() -> None:
    """ "UI updates immediately upon event receipt.": the observer's traits, and what its front-end gets."""
    async with scene() as stage:
        publisher = await stage.publish("etl~1")
        token = stage.token("viewer")
        view = await blocking(lambda: watch("etl~1", url=stage.server.url, token=token))
        try:
            await until(lambda: view.connection.phase == "live" and view.session is not None)
            changed = threading.Event()
            view.observe(lambda change: changed.set(), "seq")
            with measured() as seconds:
                publisher.step("s1", state="running")
                await until(changed.is_set)
                await until(lambda: "s1" in {row["name"] for row in view.view.key(now())["rows"]})
                assert seconds() < 5.0
            assert view.seq == stage.head("etl~1")[1]
        finally:
            await blocking(view.close)


async def test_the_publishers_three_lines_arrive() -> None:
    """ "Client receives WebSocket events when session/chain/step state changes": with the public API."""
    async with scene() as stage:
        url, token = stage.server.url, stage.token("producer", "publish")

        def program() -> str:
            with wm.session("etl", url=url, token=token) as session:
                with session.chain("load") as chain, chain.step("read") as step:
                    for _ in step.track(range(3)):
                        pass
                    step.output = {"rows": 3}
                session.flush()
                return session.id

        ident = await blocking(program)
        observer = await stage.observe(ident)
        await until(lambda: observer.sub.phase == "live")
        state = observer.state()
        assert state.session is not None
        assert state.session.state == "succeeded"
        [chain], [step] = state.chains.values(), state.steps.values()
        assert (chain.name, chain.state) == ("load", "succeeded")
        assert (step.name, step.state) == ("read", "succeeded")
        assert step.progress is not None
        assert (step.progress.done, step.progress.total) == (3, 3)
        assert step.output is not None
        assert '"rows"' in step.output.text


async def test_the_view_is_updated_in_the_very_call_that_brings_the_event() -> None:
    """ "UI updates immediately upon event receipt.": views draw from the current replica in the callback."""
    async with scene() as stage:
        publisher = await stage.publish("etl~1")
        conn = await stage.connect("viewer")
        shown: list[tuple[int, int, str]] = []

        def draw(update: object) -> None:
            if isinstance(update, EventApplied) and isinstance(update.entity, Step):
                state = sub.state
                assert state is not None
                shown.append((update.event.seq, state.seq, state.steps["s1"].state))

        sub = conn.subscribe("etl~1", draw)
        await until(lambda: sub.phase == "live")
        for state in ("running", "paused", "running", "succeeded"):
            publisher.step("s1", state=state)
        await publisher.flush()
        await until(lambda: len(shown) == 4)
        assert [state for _, _, state in shown] == ["running", "paused", "running", "succeeded"]
        assert all(event == applied for event, applied, _ in shown)
