"""States that the export and the command line are tested with."""

from __future__ import annotations

import hashlib

from wsmonitor.protocol.entities import (
    Chain,
    Command,
    Entity,
    Failure,
    Problem,
    Producer,
    Progress,
    Session,
    Step,
    Value,
)
from wsmonitor.protocol.reducer import SessionState

START = 1_795_000_000  # seconds since 1970: 2026-11-18


def ns(second: float) -> str:
    """Nanoseconds of *second* after the sample's start."""
    return str(int((START + second) * 1_000_000_000))


def value(text: str, *, mime: str = "application/json", size: int | None = None) -> Value:
    whole = len(text.encode()) if size is None else size
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Value(mime=mime, text=text, size=whole, sha256=digest, truncated=whole > len(text.encode()))


def etl(*, state: str = "running") -> SessionState:
    """A pipeline half-way: done, running, failed, retried and pending steps, commands, a problem."""
    trace = "Traceback (most recent call last):\n  File \"etl.py\", line 7\nKeyError: 'segment'\n"
    entities: list[tuple[str, Entity]] = [
        (
            "session",
            Session(
                id="nightly-etl~01",
                name="nightly-etl",
                run=3,
                state=state,  # type: ignore[arg-type]  # a test's word for a literal
                started=ns(0),
                ended=ns(140) if state not in ("running", "paused") else "",
                metrics={"rows": 18_402_113},
                tags=("prod",),
                producer="p1",
                seq=40,
            ),
        ),
        ("chain", Chain(id="c1", name="load", state="succeeded", started=ns(0), ended=ns(37), seq=10)),
        ("chain", Chain(id="c2", name="features", state="running", started=ns(37), created=ns(1), seq=20)),
        ("chain", Chain(id="c3", name="train", state="pending", created=ns(2), seq=3)),
        (
            "step",
            Step(id="s1", chain="c1", name="read manifest", state="succeeded", started=ns(0), ended=ns(5)),
        ),
        (
            "step",
            Step(
                id="s2", chain="c1", name="fetch parts", state="succeeded", started=ns(5), ended=ns(31),
                input=value('{"parts":2}'), output=value('{"rows":[1,2,3', size=19_000_000),
            ),
        ),
        (
            "step",
            Step(
                id="s3", chain="c1", parent="s2", name="part-001.parquet", step_key="part-001", attempt=1,
                state="failed", started=ns(5), ended=ns(14),
                error=Failure(type="OSError", message="timed out"),
            ),
        ),
        (
            "step",
            Step(
                id="s4", chain="c1", parent="s2", name="part-001.parquet", step_key="part-001", attempt=2,
                state="succeeded", started=ns(15), ended=ns(30),
            ),
        ),
        (
            "step",
            Step(
                id="s5", chain="c2", name="window 90d", state="running", started=ns(107),
                progress=Progress(done=48, total=100, unit="%"), log_count=214, log_last="batch 48",
                attributes={"window.days": 90, "columns": ["a", "b"]},
            ),
        ),
        (
            "step",
            Step(
                id="s6", chain="c2", name="check drift", state="failed", started=ns(100), ended=ns(109),
                error=Failure(type="builtins.KeyError", message="'segment'", traceback=trace),
            ),
        ),
        ("step", Step(id="s7", chain="c3", name="fit gradient boosting", state="pending", created=ns(3))),
        (
            "command",
            Command(
                id="0" * 32, name="resume", state="applied", actor="alice", via="notebook", deadline=ns(90),
                requested=ns(60), ended=ns(60.212),
            ),
        ),
        ("producer", Producer(id="p1", agent="etl.py, pid 4711", subject="alice", since=ns(0))),
        ("error", Problem(id="e1", code="skipped", message="12 changes were dropped", at=ns(70))),
    ]  # fmt: skip
    return SessionState.restore("nightly-etl~01", "7f3a", 40, entities)
