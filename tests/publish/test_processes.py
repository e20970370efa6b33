"""Worker processes of every kind publish into the session that began them, each as a producer of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import wsmonitor as wm
from tests.client.helpers import eventually
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.embedded import EmbeddedServer

from .test_real_server import ROOT, Watcher, server, state_of, watch

__all__ = ["server", "watch"]  # fixtures

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="not here: this platform has no fork")

# A file, because spawned processes import it.
PROGRAM = '''
import concurrent.futures, contextlib, multiprocessing, os, sys, threading
import wsmonitor as wm

COUNT = 3

@wm.step
def part(number):
    wm.current_step().log(str(os.getpid()))
    return number

def work(number):
    """What a worker does: within what it was forked in, else in what it joins."""
    if wm.current_session() is not None:
        done = part(number)
        assert wm.current_session().flush(30)
        return done
    with wm.join() as session, session.chain(f"chain {number}"):
        done = part(number)
        assert session.flush(30)
        return done

def raw(leave):
    for number in range(COUNT):
        child = os.fork()
        if not child:
            work(number)
            leave(0)
        assert os.waitpid(child, 0)[1] == 0

def busy(stop):
    """Publishes all the time, so that forks happen in the middle of it."""
    with wm.current_session().chain("busy") as chain:
        while not stop.is_set():
            with chain.step("busy"):
                stop.wait(0.001)

def main(how):
    kind, _, method = how.partition(" ")
    with wm.session("workers") as session:
        os.environ.update(session.environment())
        print(session.id, flush=True)
        with session.chain("main") as chain, chain.step("outer"), contextlib.ExitStack() as stack:
            if kind == "busy":
                stop = threading.Event()
                thread = threading.Thread(target=wm.wrap(busy), args=(stop,))
                thread.start()
                stack.callback(thread.join)
                stack.callback(stop.set)
            if kind in ("exit", "busy"):
                raw(sys.exit if kind == "exit" else os._exit)
            elif kind == "pool":
                context = multiprocessing.get_context(method)
                with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
                    assert list(pool.map(work, range(COUNT))) == list(range(COUNT))
            elif kind == "Pool":
                with multiprocessing.get_context(method).Pool(2) as pool:
                    assert pool.map(work, range(COUNT)) == list(range(COUNT))
                    pool.close()
                    pool.join()
            else:
                context = multiprocessing.get_context(method)
                workers = [context.Process(target=work, args=(number,)) for number in range(COUNT)]
                for worker in workers:
                    worker.start()
                for worker in workers:
                    worker.join()
                assert [worker.exitcode for worker in workers] == [0] * COUNT
    assert session.flush(60)

if __name__ == "__main__":
    main(sys.argv[1])
'''


def parts(state: SessionState) -> list[str]:
    return [step.state for step in state.steps.values() if step.name == "part"]


@pytest.mark.parametrize(
    "how",
    [
        "exit",
        "busy",
        "process fork",
        "process spawn",
        "process forkserver",
        "pool fork",
        "pool spawn",
        "pool forkserver",
        "Pool fork",
    ],
)
def test_workers_take_part(
    server: EmbeddedServer, watch: Callable[[str], Watcher], tmp_path: Path, how: str
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program), how],
        env={
            **os.environ,
            "WSMONITOR_URL": server.url,
            "WSMONITOR_TOKEN": server.token(sub="bob", role="publish", sessions=("*",)),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "server")]),
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    watcher = watch(done.stdout.strip())
    state = watcher.wait(lambda now: state_of(now) == "succeeded" and parts(now) == ["succeeded"] * 3)
    assert not state.problems
    outer = next(step for step in state.steps.values() if step.name == "outer")
    by_producer: dict[str, set[str]] = {}
    for step in state.steps.values():
        if step.name == "part":
            by_producer.setdefault(step.producer, set()).add(step.log_last)
            forked = "spawn" not in how and "forkserver" not in how
            # A fork happens somewhere, and its steps are there; who is spawned knows of the session alone.
            assert step.parent == (outer.id if forked else "")
            assert state.chains[step.chain].name.startswith("main" if forked else "chain ")
    # Who publishes is the process that did the work, and never the main one.
    assert "main" not in by_producer
    assert all(len(pids) == 1 for pids in by_producer.values())
    for step in state.steps.values():
        if step.name == "busy":
            assert (step.producer, step.state) == ("main", "succeeded")


def test_a_worker_that_joins_for_each_of_its_tasks_is_one_producer_or_a_few(
    server: EmbeddedServer, watch: Callable[[str], Watcher]
) -> None:
    tasks = 300  # a session has 256 producers at most
    token = server.token(sub="bob", role="publish", sessions=("*",))
    with wm.session("tasks", url=server.url, token=token) as session:
        for _ in range(tasks):
            with wm.join(session.id, url=server.url, token=token) as joined, joined.chain("c"):
                pass
            assert joined.flush(30)
            eventually(lambda: joined._run.channel._publication is None)  # at once
    watcher = watch(session.id)
    state = watcher.wait(lambda now: state_of(now) == "succeeded")
    assert len(state.chains) == tasks
    assert {chain.state for chain in state.chains.values()} == {"succeeded"}
    assert len(state.producers) < 10
    assert not state.problems
