"""A session as the design's sketches show it, for tests and pictures of the view."""

from __future__ import annotations

from wsmonitor.client.types import ConnectionStatus
from wsmonitor.notebook.view import Now, View
from wsmonitor.protocol.entities import Chain, Entity, Failure, Producer, Progress, Session, Step

T0 = 1_795_356_000.0
"""When the sample session started, in seconds since 1970."""


def ns(seconds: float) -> str:
    """*seconds* after the sample's start, as entities write it."""
    return str(round((T0 + seconds) * 1e9))


def chain(
    ident: str,
    name: str,
    state: str = "running",
    *,
    at: float = 0,
    start: float | None = None,
    end: float | None = None,
) -> Chain:
    return Chain(id=ident, name=name, state=state, created=ns(at), started=_ns(start), ended=_ns(end))  # type: ignore[arg-type]


def _ns(at: float | None) -> str:
    return "" if at is None else ns(at)


def step(
    ident: str,
    name: str,
    state: str = "succeeded",
    *,
    chain: str,
    parent: str = "",
    at: float = 0,
    start: float | None = None,
    end: float | None = None,
    key: str = "",
    attempt: int = 1,
    done: float | None = None,
    total: float | None = None,
    error: Failure | None = None,
) -> Step:
    return Step(
        id=ident,
        chain=chain,
        parent=parent,
        name=name,
        state=state,  # type: ignore[arg-type]
        created=ns(at if start is None else start),
        started=_ns(start),  # type: ignore[arg-type]
        ended=_ns(end),  # type: ignore[arg-type]
        step_key=key,
        attempt=attempt,
        progress=None if done is None else Progress(done=done, total=total),
        error=error,
    )


DRIFT = Failure(
    type="builtins.KeyError",
    message="'segment'",
    traceback=(
        "Traceback (most recent call last):\n"
        '  File "features.py", line 88, in check_drift\n    frame["segment"]\n'
        "KeyError: 'segment'\n"
    ),
)


def nightly() -> list[tuple[str, Entity]]:
    """The session of the sketches, 134 seconds after its start."""
    found: list[Entity] = [
        Session(
            id="nightly-etl~3",
            name="nightly-etl",
            run=3,
            state="running",
            created=ns(0),
            started=ns(0),
            seq=1,
        ),
        Producer(id="p1", agent="etl.py, pid 4711", since=ns(0)),
        chain("load", "load", "succeeded", start=0, end=37),
        step("manifest", "read manifest", chain="load", start=0, end=5),
        step("fetch", "fetch parts", chain="load", start=5, end=31),
        step("p0", "part-000.parquet", chain="load", parent="fetch", start=5, end=20),
        step(
            "p1a",
            "part-001.parquet",
            "failed",
            chain="load",
            parent="fetch",
            start=6,
            end=15,
            key="p1",
            error=Failure(type="TimeoutError", message="30 s"),
        ),
        step("p1b", "part-001.parquet", chain="load", parent="fetch", start=16, end=31, key="p1", attempt=2),
        step("schema", "validate schema", chain="load", start=31, end=37),
        chain("features", "features", start=37, at=37),
        step("join", "join customers", chain="features", start=37, end=58),
        step("windows", "rolling windows", "running", chain="features", start=58, done=2, total=3),
        step("w7", "window 7d", chain="features", parent="windows", start=58, end=82),
        step("w30", "window 30d", chain="features", parent="windows", start=82, end=107),
        step(
            "w90", "window 90d", "running", chain="features", parent="windows", start=107, done=48, total=100
        ),
        step("e1", "encode categories", "failed", chain="features", start=68, end=81, key="enc"),
        step("e2", "encode categories", chain="features", start=88, end=103, key="enc", attempt=2),
        step("drift", "check drift", "failed", chain="features", start=103, end=112, error=DRIFT),
        chain("train", "train", "pending", at=38),
        step("fit", "fit gradient boosting", "pending", chain="train", at=38.1),
        step("cross", "cross-validate", "pending", chain="train", at=38.2),
    ]
    kinds = {Session: "session", Producer: "producer", Chain: "chain", Step: "step"}
    return [(kinds[type(entity)], entity) for entity in found]


def live_status(now: Now) -> ConnectionStatus:
    """A healthy link at *now*."""
    return ConnectionStatus(
        phase="live",
        url="ws://127.0.0.1:43117",
        connected_at=now.mono - 100,
        last_frame_at=now.mono - 3,
        heartbeat_due_at=now.mono + 12,
        rtt=0.004,
        connections=1,
    )


def lost_status(now: Now) -> ConnectionStatus:
    """The link of `live_status`, lost 44 seconds before *now*."""
    return ConnectionStatus(
        phase="waiting",
        url="ws://127.0.0.1:43117",
        attempt=3,
        next_attempt_at=now.mono + 6,
        code="unreachable",
        reason="connection refused",
        lost_at=now.mono - 44,
        last_frame_at=now.mono - 44,
        rtt=0.004,
        connections=1,
    )


def sample_view(now: Now) -> View:
    """A view that shows `nightly`, live."""
    view = View("nightly-etl")
    view.connection(live_status(now), now)
    view.subscription("live", "", now)
    view.presence(3, ("ada", "grace", "alan"))
    view.replace(nightly(), "epoch", 1160)
    view.synced("epoch", 1160, "", False, now)
    return view
