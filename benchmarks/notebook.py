"""The observer in a real JupyterLab with a real Chromium: event to painted pixel, and what Jupyter carries.

A publisher in this process, the server, JupyterLab with its kernel, and headless Chromium, on one
machine and so on one clock. The observer's own notebook blocks in ``time.sleep`` all the while. What is
painted is read in the page, after the frame in which it was drawn; an event counts as painted when the
summary shows it or what came after it.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
import tempfile
import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

NAME: Final = "notebook"

_WATCH: Final = """name => {
  const painted = window.painted = [];
  let last = -1;
  const read = () => {
    const found = /([\\d,]+) running/.exec(document.querySelector(".wsm-counts")?.textContent || "");
    return found ? Number(found[1].replaceAll(",", "")) : 0;
  };
  new MutationObserver(() => requestAnimationFrame(() => {
    const { port1, port2 } = new MessageChannel();
    // A message that is posted in a frame is handled after that frame was painted.
    port1.onmessage = () => {
      const now = read();
      if (now !== last) painted.push([now, Date.now()]);
      last = now;
    };
    port2.postMessage(0);
  })).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""

_CONNECTED: Final = """() => {
  const Original = window.WebSocket;
  window.WebSocket = class extends Original {
    constructor(...args) {
      super(...args);
      if (!String(args[0]).includes("/channels")) return;
      this.addEventListener("open", () => { window.connected ??= performance.now(); });
    }
  };
  new MutationObserver(() => {
    const row = document.querySelector(".wsm[data-verdict=live] .wsm-row");
    if (row && !window.shown) window.shown = performance.now();
  }).observe(document, { subtree: true, childList: true, attributes: true });
}"""

_DROP: Final = """
import random
def lossy(message, buffers=None, real=obs.send_message, draw=random.Random(1)):
    if message["type"] != "frame" or draw.random() < 0.5:
        real(message, buffers)
obs.send_message = lossy
import time; time.sleep(1e6)
"""


class Counting:
    """What the kernel says on its IOPub socket, counted by a listener of its own."""

    def __init__(self, connection_file: Path) -> None:
        from jupyter_client.blocking.client import BlockingKernelClient

        self._client: Any = BlockingKernelClient(connection_file=str(connection_file))
        self._client.load_connection_file()
        self._client.start_channels(shell=False, stdin=False, hb=False, control=False)
        self.seen: list[tuple[float, str]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        from queue import Empty

        while not self._stop.is_set():
            try:
                message = self._client.get_iopub_msg(timeout=0.2)
            except Empty:
                continue
            self.seen.append((time.monotonic(), message["msg_type"]))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._client.stop_channels()

    def busiest(self, kind: str, begin: float, end: float) -> int:
        """The most messages of *kind* in any one second."""
        times = [at for at, what in self.seen if what == kind and begin <= at <= end]
        return max((sum(at <= other < at + 1 for other in times) for at in times), default=0)


class Stage:
    """Server, JupyterLab and browser."""

    def __init__(self, folder: Path, browser: Any, env: Mapping[str, str]) -> None:
        from tests.browser.conftest import ServerProcess
        from tests.browser.lab import Lab

        self.folder = folder
        self.browser = browser
        self.server = ServerProcess(folder / "server")
        self.server.start()
        path = os.pathsep.join(path for path in sys.path if path)
        self.lab = Lab(folder / "lab", {**self.server.env(), "PYTHONPATH": path, **env})
        self.lab.start()
        self._number = itertools.count()

    def close(self) -> None:
        self.lab.stop()
        self.server.stop()

    def open(self, session: str, *cells: str, app: str = "lab/tree", kernel: str = "python3") -> Any:
        """A notebook whose first cell has run, and watches *session*; the second, if there is one, runs."""
        from playwright.sync_api import expect

        from tests.browser.lab import notebook_file

        name = f"bench{next(self._number)}.ipynb"
        watching = f"import wsmonitor as wm\nobs = wm.watch({session!r})\nobs"
        notebook_file(self.lab.root / name, watching, *cells, kernel=kernel)
        notebook = self.lab.page(self.browser, name, app=app)
        notebook.run(0)
        expect(notebook.observer(0)).to_have_attribute("data-verdict", "live", timeout=60_000)
        if cells:
            notebook.run(1, wait=False)
        return notebook

    def leave(self, notebook: Any) -> None:
        """Close a notebook's page, and end its kernel."""
        notebook.page.context.close()
        for one in self.lab.api("sessions"):
            if one["path"] == notebook.path:
                # A kernel that was killed may just be restarted, and that is refused.
                with suppress(urllib.error.HTTPError):
                    self.lab.api(f"sessions/{one['id']}", method="DELETE")

    def connection_file(self, notebook: Any) -> Path:
        """The connection file of a notebook's kernel."""
        sessions = self.lab.api("sessions")
        kernel = next(one["kernel"]["id"] for one in sessions if one["path"] == notebook.path)
        found: Path = next((self.folder / "lab" / "runtime").glob(f"kernel-{kernel}*.json"))
        return found


@contextmanager
def stage(env: Mapping[str, str] | None = None) -> Iterator[Stage]:
    """Everything that is measured here, until the block ends. *env*: for JupyterLab, besides."""
    from playwright.sync_api import sync_playwright

    from tests.browser.lab import CHROMIUM, CHROMIUM_FLAGS

    with tempfile.TemporaryDirectory(prefix="wsmonitor-bench-") as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        made = Stage(Path(folder), browser, env or {})
        try:
            yield made
        finally:
            made.close()
            browser.close()


def quantiles(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.0f} ms"
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return f"p50 {cuts[49]:.0f}, p95 {cuts[94]:.0f}, p99 {cuts[98]:.0f}, max {max(values):.0f} ms"


def table_row(what: str, result: str, more: str = "") -> dict[str, Any]:
    return {"what": what, "measured": result, "besides": more}


def _burst(session: Any, count: int, rate: float) -> tuple[list[float], float]:
    """Make *count* steps, *rate* a second: when each was made (wall clock), and the rate that was reached."""
    sent = []
    with session.chain("work") as chain:
        begin = time.monotonic()
        for number in range(count):
            left = begin + number / rate - time.monotonic()
            if left > 0:
                time.sleep(left)
            sent.append(time.time())
            chain.step(f"step {number}").start()
        reached = count / (time.monotonic() - begin)
        _wait_painted.until(count)
    return sent, reached


class _Painted:
    """Waits until the page shows a count; the page belongs to the thread that made it."""

    page: Any = None

    def until(self, count: int, timeout: float = 60.0) -> None:
        self.page.wait_for_function(
            "count => window.painted.length && window.painted.at(-1)[0] >= count",
            arg=count,
            timeout=timeout * 1000,
        )


_wait_painted = _Painted()


def painted(at: Stage, rate: float, seconds: float) -> dict[str, Any]:
    """Event to painted pixel, and what Jupyter carries meanwhile."""
    import wsmonitor as wm

    name = f"rate-{rate:.0f}"
    url, token = at.server.url, at.server.token("bench", "publish")
    lines = int(seconds * 10)
    prints = f"import time\nfor n in range({lines}):\n    print(n); time.sleep(0.1)\n'the result'"
    with wm.session(name, url=url, token=token) as session:
        notebook = at.open(name, prints)
        notebook.page.evaluate(_WATCH, name)
        _wait_painted.page = notebook.page
        counting = Counting(at.connection_file(notebook))
        begin = time.monotonic()
        sent, reached = _burst(session, int(rate * seconds), rate)
        end = time.monotonic()
        seen: list[list[float]] = notebook.page.evaluate("window.painted")
        from playwright.sync_api import expect

        expect(notebook.cell(1).locator(".jp-OutputArea-output").last).to_contain_text(
            "the result", timeout=90_000
        )
        text = notebook.cell(1).locator(".jp-OutputArea-output").first.inner_text()
        counting.stop()
        notebook.page.context.close()
    latencies = []
    shown = iter(seen)
    count, when = 0.0, 0.0
    for number, made in enumerate(sent, start=1):
        while count < number:
            count, when = next(shown)
        latencies.append(when - made * 1000)
    log = (at.folder / "lab" / "lab.log").read_text(errors="replace")
    exceeded = "RATE EXCEEDED" if "rate exceeded" in log.lower() else "no rate exceeded"
    intact = text.split() == [str(n) for n in range(lines)]
    return table_row(
        f"event to painted pixel, cell asleep, {reached:,.0f} events/s for {seconds:.0f} s",
        quantiles(latencies),
        f"IOPub: at most {counting.busiest('comm_msg', begin, end)} widget messages in a second; "
        f"final state {'right' if count == len(sent) else 'WRONG'}; the cell's own {lines} lines "
        f"{'intact' if intact else 'NOT intact'}; {exceeded}",
    )


def healed(at: Stage, runs: int) -> dict[str, Any]:
    """Every other frame is lost between the kernel and the page."""
    import wsmonitor as wm

    url, token = at.server.url, at.server.token("bench", "publish")
    times = []
    with wm.session("gaps", url=url, token=token) as session:
        notebook = at.open("gaps", _DROP)
        notebook.page.evaluate(_WATCH, "gaps")
        _wait_painted.page = notebook.page
        with session.chain("work") as chain:
            for number in range(1, runs + 1):
                made = time.time()
                chain.step(f"step {number}").start()
                _wait_painted.until(number, 30)
                at_page = notebook.page.evaluate(
                    "count => window.painted.find(([n]) => n >= count)[1]", number
                )
                times.append(at_page - made * 1000)
        notebook.page.context.close()
    return table_row(
        "half of all frames lost between kernel and page: time until the right state is painted",
        quantiles(times),
        f"right in {len(times)} of {runs} runs",
    )


def reloaded(at: Stage, times: int) -> list[dict[str, Any]]:
    """The page is loaded again while the cell sleeps."""
    import wsmonitor as wm

    url, token = at.server.url, at.server.token("bench", "publish")
    rows = []
    for app, front_end in (("lab/tree", "JupyterLab"), ("notebooks", "Notebook 7")):
        found = []
        with (
            wm.session(f"reload-{front_end[0]}", url=url, token=token) as session,
            session.chain("work") as chain,
        ):
            chain.step("one").start()
            notebook = at.open(session.name, "import time; time.sleep(1e6)", app=app)
            # A page shows the outputs that the file has.
            notebook.save()
            notebook.page.add_init_script(f"({_CONNECTED})()")
            for _ in range(times):
                notebook.page.reload()
                notebook.page.wait_for_function("window.shown", timeout=60_000)
                found.append(notebook.page.evaluate("window.shown - window.connected"))
            notebook.page.context.close()
        rows.append(
            table_row(
                f"page loaded again while a cell sleeps, {front_end}: kernel connected to live row",
                quantiles(found),
            )
        )
    return rows


def commanded(at: Stage, times: int) -> dict[str, Any]:
    """A command pressed in the page while the cell sleeps."""
    import wsmonitor as wm

    url, token = at.server.url, at.server.token("bench", "publish")
    pressed: list[float] = []
    calls: Counter[str] = Counter()
    applied: list[float] = []
    with wm.session("commands", url=url, token=token) as session, session.chain("work") as chain:
        chain.step("one").start()
        got = threading.Event()

        def mark() -> None:
            applied.append(time.time() * 1000)
            calls["mark"] += 1
            got.set()

        session.on("mark", mark)
        notebook = at.open("commands", "import time; time.sleep(1e6)")
        button = notebook.observer(0).locator(".wsm-command", has_text="Mark")
        button.wait_for(timeout=60_000)
        for _ in range(times):
            got.clear()
            pressed.append(
                button.evaluate("button => { const now = Date.now(); button.click(); return now; }")
            )
            if not got.wait(30):
                raise RuntimeError("a command did not arrive")
        notebook.page.context.close()
    took = [done - begun for begun, done in zip(pressed, applied, strict=True)]
    return table_row(
        "command pressed while the cell sleeps: to the producer's handler",
        quantiles(took),
        f"{calls['mark']} calls of {times}",
    )


def run(*, rounds: int = 3) -> list[dict[str, Any]]:
    """One table row per situation; *rounds* scales how long each is measured."""
    rows: list[dict[str, Any]] = []
    with stage() as at:
        situations: list[Callable[[], list[dict[str, Any]]]] = [
            lambda: [painted(at, 100.0, 10.0 * rounds)],
            lambda: [painted(at, 5000.0, 3.0 * rounds)],
            lambda: [healed(at, 34 * rounds)],
            lambda: reloaded(at, 3 * rounds),
            lambda: [commanded(at, 10 * rounds)],
        ]
        for situation in situations:
            for row in situation():
                sys.stderr.write(json.dumps(row) + "\n")
                rows.append(row)
    return rows
