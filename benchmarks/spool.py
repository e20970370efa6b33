"""100,000 changes while the server is away: what keeping them costs the program, and how they are delivered.

A program publishes them to nobody and is killed (``kill -9``); a server on SQLite is started, and
``wsmonitor spool flush`` delivers. Each change is a log line of one of many steps: one that was lost or
delivered twice would show in the step's count. Beside it, how long programs take to end that cannot deliver.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

NAME: Final = "spool"
CHANGES: Final = 100_000
STEPS: Final = 1_000

_PUBLISH: Final = """
import json, resource, sys, time
import wsmonitor as wm
from wsmonitor.protocol.changes import LogChange
from wsmonitor.protocol.entities import LogRecord
steps, lines, keep = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "on"
session = wm.session("bench", spool=keep).start()
with session.chain("c") as chain:
    made = [chain.step(f"s{n}").start() for n in range(steps)]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun, cpu = time.monotonic(), time.process_time()
    channel = session._run.channel
    for number in range(lines):
        record = LogRecord(n=0, at="1", level="info", text=f"line {number}")
        # One change for one line; the SDK itself would put up to 64 of them into one.
        channel.submit(LogChange(step=made[number % steps].id, records=(record,)))
    facts = {"session": session.id, "seconds": time.monotonic() - begun, "cpu": time.process_time() - cpu}
    facts["waiting"] = session.unacknowledged
    facts["memory"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    print(json.dumps(facts), flush=True)
    sys.stdin.readline()
"""

_END: Final = """
import atexit, time, wsmonitor as wm
atexit.register(lambda: print(time.monotonic() - begun))
with wm.session("bench") as session, session.chain("c") as chain:
    for number in range(2_000):
        with chain.step("s"):
            pass
begun = time.monotonic()
"""


def run(rounds: int) -> list[dict[str, Any]]:
    """Measure; one row per round."""
    return [_round() for _ in range(rounds)]


def _round() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="wsmonitor-bench-") as name:
        folder = Path(name)
        port = free_port()
        environ = {
            **{key: value for key, value in os.environ.items() if key != "CI"},
            "WSMONITOR_HOME": str(folder / "home"),
            "WSMONITOR_URL": f"ws://127.0.0.1:{port}",
            "WSMONITOR_TOKEN": _token(folder),
            "PYTHONWARNINGS": "ignore",
        }
        published = _publish(environ, folder)
        ends = {"away": _end(environ)}
        with socket.create_server(("127.0.0.1", port)):
            ends["stalled"] = _end(environ)
        command = [sys.executable, "-m", "wsmonitor_server", "--port", str(port), "--data-dir", str(folder)]
        server = subprocess.Popen(
            [*command, "--store", f"sqlite:{folder / 'store.sqlite3'}"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            server.stdout.readline()
            begun = time.monotonic()
            flushed = _flush(environ, published["session"])
            seconds = time.monotonic() - begun
            lines = _lines(environ, published["session"])
        finally:
            server.terminate()
            server.communicate()
    return {
        "changes": CHANGES,
        "published_s": round(published["seconds"], 2),
        "cpu_us_each": round(published["cpu"] / CHANGES * 1e6, 1),
        "memory_MiB": round(published["memory"], 1),
        "flush_s": round(seconds, 2),
        "refused": flushed["refused"],
        "lost": CHANGES - min(lines, CHANGES),
        "twice": max(lines, CHANGES) - CHANGES,
        "end_away_s": round(ends["away"], 2),
        "end_stalled_s": round(ends["stalled"], 2),
    }


def free_port() -> int:
    """A port below those that the system gives out by itself: nobody else gets it before the server does."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _token(folder: Path) -> str:
    from wsmonitor_server.auth import issue

    key = os.urandom(64).hex().encode()  # the ends of a key in a file are stripped
    (folder / "key").write_bytes(key)
    (folder / "key").chmod(0o600)
    return issue(key, sub="bench", role="admin", sessions=["*"], issued=int(time.time()), ttl=3600, jti="b")


def _publish(environ: dict[str, str], folder: Path) -> dict[str, Any]:
    from wsmonitor.client.spools import find

    program = subprocess.Popen(
        [sys.executable, "-c", _PUBLISH, str(STEPS), str(CHANGES), "on"],
        env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert program.stdout is not None
    facts: dict[str, Any] = json.loads(program.stdout.readline())
    while sum(one.changes for one in find(folder / "home" / "spool")) < facts["waiting"]:
        time.sleep(0.05)
    program.kill()
    program.communicate()
    return facts


def _end(environ: dict[str, str]) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _END], env=environ, capture_output=True, text=True, check=True
    )
    assert re.search(r"changes kept in", done.stderr), done.stderr
    return float(done.stdout)


def _flush(environ: dict[str, str], session: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "wsmonitor", "spool", "flush", session, "--json"],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"the flush failed: {done.stderr}")
    (flushed,) = json.loads(done.stdout)["flushed"]
    return dict(flushed)


def _lines(environ: dict[str, str], session: str) -> int:
    """How many log lines the server counts."""
    from wsmonitor.client import Target, connect

    with connect(Target(url=environ["WSMONITOR_URL"], token=environ["WSMONITOR_TOKEN"])) as link:
        watching = link.subscribe(session)
        watching.wait(lambda one: one.phase == "live", 60)
        return sum(step.log_count for step in watching.state.steps.values())
