"""The observer on each ipykernel, in JupyterLab and Notebook 7: commands, re-runs, losses, and a closed tab.

As in `notebook`, all on one machine and so on one clock; what happened is read in the page. A loss is made
by killing the process in question, so the moment of the loss is when the kill was asked for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from .notebook import Counting, Stage, quantiles, stage, table_row

NAME: Final = "kernels"

FRONT_ENDS: Final = (("lab/tree", "JupyterLab"), ("notebooks", "Notebook 7"))

BLOCK: Final = 30
"""Seconds for which the notebook's own cell blocks while commands are pressed."""

HOURS: Final = 8
FASTER: Final = 120
"""How many simulated seconds of a closed tab pass within one."""

_MEASURE: Final = """
import gc, os, threading
from pathlib import Path
from wsmonitor.notebook.observer import observers
def measured():
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    size = pages * os.sysconf("SC_PAGE_SIZE")
    return size, len(observers()), threading.active_count(), len(os.listdir("/proc/self/fd"))
print(*measured())
"""

_MARK: Final = """
window.marked = null;
const root = document.querySelector(".wsm");
const look = () => {
  const told = root.dataset.verdict !== "live" || root.dataset.doubt === "true";
  if (told && window.marked === null) window.marked = [Date.now(), root.dataset.verdict];
};
new MutationObserver(look).observe(root, { attributes: true });
"""

_PRODUCER: Final = """
import sys, time
import wsmonitor as wm
with wm.session(sys.argv[1]) as session, session.chain("work") as chain, chain.step("runs"):
    print("runs", flush=True)
    time.sleep(1e6)
"""

_FASTER: Final = """
import time
from pathlib import Path
while not Path({flag!r}).exists():
    time.sleep(0.1)
from wsmonitor.notebook import live
from wsmonitor.notebook.view import Now
def faster(real=live.sender._clock, begin=live.sender._clock()):
    now = real()
    return Now(begin.mono + (now.mono - begin.mono) * {factor}, now.wall)
live.sender._clock = faster
live.sender.wake()
time.sleep(1e6)
"""


@contextmanager
def _session(at: Stage, name: str) -> Iterator[Any]:
    """A chain with a running step, in a session of its own."""
    import wsmonitor as wm

    token = at.server.token("bench", "publish")
    with wm.session(name, url=at.server.url, token=token) as session, session.chain("work") as chain:
        chain.step("one").start()
        yield chain


class _Handler:
    """What the command ``mark`` does: notes when."""

    def __init__(self) -> None:
        self.applied: list[float] = []  # milliseconds since 1970
        self.got = threading.Event()

    def mark(self) -> None:
        self.applied.append(time.time() * 1000)
        self.got.set()


def commanded(at: Stage, kernel: str, presses: int) -> list[dict[str, Any]]:
    """Commands pressed in the page while its notebook's cell blocks."""
    import wsmonitor as wm

    rows = []
    for app, front_end in FRONT_ENDS:
        name = f"commands-{kernel}-{app[:3]}".replace(".", "-")
        pressed: list[float] = []
        handler = _Handler()
        with wm.session(name, url=at.server.url, token=at.server.token("bench", "publish")) as session:
            session.on("mark", handler.mark)
            with session.chain("work") as chain:
                chain.step("one").start()
                notebook = at.open(name, f"import time; time.sleep({BLOCK})", app=app, kernel=kernel)
                button = notebook.observer(0).locator(".wsm-command", has_text="Mark")
                button.wait_for(timeout=60_000)
                for _ in range(presses):
                    handler.got.clear()
                    pressed.append(button.evaluate("el => { const at = Date.now(); el.click(); return at; }"))
                    if not handler.got.wait(BLOCK + 30):
                        raise RuntimeError("a command did not arrive")
                blocked = notebook.cell(1).locator(".jp-InputPrompt").first.text_content() == "[*]:"
                notebook.cell(1).locator(".jp-InputPrompt", has_text="[2]:").wait_for(timeout=120_000)
                at.leave(notebook)
        rows.append(
            table_row(
                f"command pressed while the cell blocks for {BLOCK} s, {kernel}, {front_end}",
                quantiles([done - begun for begun, done in zip(pressed, handler.applied, strict=False)]),
                f"{len(handler.applied)} calls of {presses}"
                + ("" if blocked else "; the cell had ended before"),
            )
        )
    return rows


def run_again(at: Stage, kernel: str, times: int) -> list[dict[str, Any]]:
    """The observer's cell is run again and again, in the page."""
    name = f"again-{kernel}".replace(".", "-")
    with _session(at, name):
        notebook = at.open(name, _MEASURE, kernel=kernel)

        def measured() -> list[int]:
            cell = notebook.run(1)
            return [int(word) for word in cell.locator(".jp-OutputArea-output").last.inner_text().split()]

        for _ in range(10):
            notebook.run(0)
        before, subscribed = measured(), _subscriptions(at)
        for _ in range(times):
            notebook.run(0)
        after = measured()
        views = notebook.page.locator(".wsm").count()
        more = _subscriptions(at) - subscribed
        at.leave(notebook)
    threads, files = after[2] - before[2], after[3] - before[3]
    return [
        table_row(
            f"observer's cell run again {times} times, {kernel}: growth of the kernel's memory",
            f"{(after[0] - before[0]) / 1e6:+.1f} MB",
            f"{after[1]} observer, {views} view; subscriptions {more:+d}, threads {threads:+d}, "
            f"open files {files:+d}",
        )
    ]


def _subscriptions(at: Stage) -> int:
    from wsmonitor.client import Target, connect

    with connect(Target(url=at.server.url, token=at.server.token("boss", "admin"))) as admin:
        return int(admin.server_status().result(60)["subscriptions"])


def lost(at: Stage, times: int) -> list[dict[str, Any]]:
    """What the page needs until it marks what is lost."""

    def measure(
        what: str, name: str, lose: Callable[[Any], None], heal: Callable[[], None]
    ) -> dict[str, Any]:
        found, verdicts = [], set()
        for _ in range(times):
            notebook = at.open(name, "import time; time.sleep(1e6)")
            notebook.page.evaluate(_MARK)
            begin = time.time() * 1000
            lose(notebook)
            notebook.page.wait_for_function("window.marked", timeout=60_000)
            told, verdict = notebook.page.evaluate("window.marked")
            found.append(told - begin)
            verdicts.add("live, but the producer is not heard" if verdict == "live" else verdict)
            heal()
            at.leave(notebook)
        return table_row(
            f"until the page marks it: {what}", quantiles(found), f"told as {', '.join(verdicts)}"
        )

    def kernel_of(notebook: Any) -> str:
        return next(
            str(one["kernel"]["id"]) for one in at.lab.api("sessions") if one["path"] == notebook.path
        )

    def kill_kernel(notebook: Any) -> None:
        import psutil

        ident = kernel_of(notebook)
        for process in psutil.process_iter(["pid", "cmdline"]):
            if any(f"kernel-{ident}.json" in word for word in process.info["cmdline"] or []):
                process.kill()

    rows = []
    with _session(at, "losses"):
        rows.append(
            measure(
                "kernel restarted",
                "losses",
                lambda notebook: at.lab.api(f"kernels/{kernel_of(notebook)}/restart", method="POST"),
                lambda: None,
            )
        )
        rows.append(measure("kernel killed", "losses", kill_kernel, lambda: None))
        rows.append(
            measure("wsmonitor's server killed", "losses", lambda _: at.server.kill(), at.server.start)
        )
    producers: list[subprocess.Popen[str]] = []

    def produce() -> None:
        env = {**os.environ, **at.server.env("prog", "publish")}
        command = [sys.executable, "-c", _PRODUCER, "produced"]
        producers.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
        assert producers[-1].stdout is not None
        producers[-1].stdout.readline()

    def kill_producer(_: Any) -> None:
        producers[-1].kill()
        producers[-1].wait()

    produce()
    try:
        rows.append(measure("producer killed", "produced", kill_producer, produce))
    finally:
        kill_producer(None)
    with _session(at, "losses"):
        rows.append(measure("Jupyter's server killed", "losses", lambda _: _kill_lab(at), at.lab.start))
    return rows


def _lab_process(at: Stage) -> Any:
    import psutil

    word = f"--port={at.lab.port}"
    return next(process for process in psutil.Process().children() if word in process.cmdline())


def _kill_lab(at: Stage) -> None:
    process = _lab_process(at)
    os.killpg(process.pid, signal.SIGKILL)


def closed(at: Stage, rate: float) -> list[dict[str, Any]]:
    """The tab is closed: what the Jupyter server keeps.

    After a minute by the clock, in which the kernel notices, its time runs `FASTER`, for `HOURS` of it.
    """
    with _session(at, "closed") as chain:
        steps = [chain.step(f"step {n}").start() for n in range(100)]
        flag = at.folder / "faster"
        notebook = at.open("closed", _FASTER.format(flag=str(flag), factor=FASTER))
        _flow(steps, 5.0, rate)
        counting = Counting(at.connection_file(notebook))
        process = _lab_process(at)
        before = process.memory_info().rss
        notebook.page.context.close()
        _flow(steps, 60.0, rate)
        awake = process.memory_info().rss
        early = len(counting.seen)
        flag.touch()
        sent = _flow(steps, HOURS * 3600 / FASTER, 5 * rate)
        after = process.memory_info().rss
        counting.stop()
    return [
        table_row(
            f"tab closed for {HOURS} hours, {sent:,} events: growth of the Jupyter server's memory",
            f"{(after - before) / 1e6:+.1f} MB",
            f"{(awake - before) / 1e6:+.1f} MB of it in the first minute, {early} messages; "
            f"{len(counting.seen) - early} messages afterwards",
        )
    ]


def _flow(steps: list[Any], seconds: float, rate: float) -> int:
    """Progress of *steps*, *rate* times a second; how often."""
    begin = time.monotonic()
    count = 0
    while (past := time.monotonic() - begin) < seconds:
        while count < past * rate:
            count += 1
            steps[count % len(steps)].progress(count, 10**9)
        time.sleep(0.01)
    return count


def run(*, rounds: int = 3) -> list[dict[str, Any]]:
    """One table row per situation; *rounds* scales how often each is measured, but for the closed tab."""
    from tests.kernels import ALL, env_of_all, kernels_folder

    rows: list[dict[str, Any]] = []
    with stage(env_of_all(ALL, kernels_folder())) as at:
        situations: list[Callable[[], list[dict[str, Any]]]] = []
        for kernel in sorted(ALL, key=lambda one: one.version):
            situations.append(lambda name=kernel.name: commanded(at, name, 10 * rounds))  # type: ignore[misc]
        for kernel in sorted(ALL, key=lambda one: one.version):
            situations.append(lambda name=kernel.name: run_again(at, name, 100))  # type: ignore[misc]
        situations.append(lambda: closed(at, 100.0))
        situations.append(lambda: lost(at, 2 * rounds))
        for situation in situations:
            for row in situation():
                sys.stderr.write(json.dumps(row) + "\n")
                rows.append(row)
    return rows
