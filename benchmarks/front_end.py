"""The observer's front-end by itself in Chromium: many rows, many changes, scrolling.

The bundle is loaded into a bare page, and told by messages of the kernel's form. Measured in the page: long
tasks (over 50 ms, as the browser reports them), the time between two frames, and the time to the first row.
A task that waited for a processor is long, too: so the processor time of the longest one is told beside it.
"""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAME: Final = "front-end"

_T0: Final = 1_795_356_000  # when the sample's session began, in seconds since 1970
CHROMIUM: Final = "/usr/bin/chromium"
_FLAGS: Final = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
_SETUP: Final = Path(__file__).with_suffix(".js")
_PAGE: Final = """<!doctype html><body data-jp-theme-light="true" style="margin: 0; width: 1000px">
<style>{style}</style><div id="here"></div></body>"""


def _row(what: str, found: dict[str, float]) -> dict[str, Any]:
    def milliseconds(name: str) -> str:
        return f"{found[name]:.0f} ms" if name in found else ""

    return {
        "what": what,
        "first painted": milliseconds("first"),
        "complete": milliseconds("all"),
        "frame p95": f"{found['p95']:.1f} ms" if "p95" in found else "",
        "frames/s": f"{found['rate']:.0f}" if "rate" in found else "",
        "long tasks": int(found["long"]),
        "longest task": milliseconds("longest") if found["longest"] else "none over 50 ms",
        "of a task, CPU": milliseconds("cpu"),
    }


def _told(count: int) -> list[tuple[Any, list[str]]]:
    """What a kernel says of *count* steps: the key frame, and the messages with the pages."""
    from wsmonitor.client.types import ConnectionStatus
    from wsmonitor.notebook.packing import Wanted
    from wsmonitor.notebook.view import Now, View
    from wsmonitor.protocol.entities import Chain, Session, Step

    def ns(seconds: float) -> str:
        return str(round((_T0 + seconds) * 1e9))

    now = Now(1_000.0, _T0 + count / 100)
    view = View("x")
    status = ConnectionStatus(phase="live", url="ws://127.0.0.1:43117", last_frame_at=now.mono, connections=1)
    view.connection(status, now)
    view.subscription("live", "", now)
    session = Session(id="x~1", name="x", run=1, state="running", created=ns(0), started=ns(0), seq=1)
    steps = [
        Step(
            id=f"{n:x}-step",
            chain=f"c{n % 20}",
            name=f"step {n} of the work",
            state="succeeded",
            created=ns(n / 100),
            started=ns(n / 100),
            ended=ns(n / 100 + 0.4),
        )
        for n in range(count)
    ]
    chains = [Chain(id=f"c{n}", name=f"chain {n}", state="running", started=ns(0)) for n in range(20)]
    view.replace(
        [
            ("session", session),
            *(("chain", chain) for chain in chains),
            *(("step", step) for step in steps),
        ],
        "e",
        count,
    )
    view.synced("e", count, "", False, now)
    view.frame(now)
    key = view.key(now)
    wanted = Wanted()
    wanted.want(range(len(key["pages"])))
    told: list[tuple[Any, list[str]]] = [({**key, "due": 60_000, "beat": view.beat(now)}, [])]
    while (made := wanted.message(view.page, view.number, now.at())) is not None:
        told.append(({**made[0], "due": 60_000}, [b64encode(data).decode() for data in made[1]]))
    return told


def _measure(browser: Browser, page: Page, step: str) -> dict[str, float]:
    """What `window.`*step* tells, and the most processor time that one of the page's tasks took."""
    browser.start_tracing(page=page, categories=["toplevel", "blink.user_timing"])
    result: dict[str, float] = page.evaluate(f"window.{step}")
    events = json.loads(browser.stop_tracing())["traceEvents"]
    pages = {
        (e["pid"], e["tid"])
        for e in events
        if e["name"] == "thread_name" and e["args"]["name"] == "CrRendererMain"
    }
    begun = max(e["ts"] for e in events if e["name"] == "begun")
    tasks = [
        e.get("tdur", 0)
        for e in events
        if e["name"].endswith("RunTask")
        and e["ts"] + e.get("dur", 0) >= begun
        and (e["pid"], e["tid"]) in pages
    ]
    return {**result, "cpu": max(tasks, default=0) / 1000}


def run(*, rounds: int = 3) -> list[dict[str, Any]]:
    """One table row per situation; of *rounds* the one with the longest task counts."""
    from playwright.sync_api import sync_playwright

    from wsmonitor.notebook.bundle import bundle, stylesheet

    situations = {
        "2,000 rows, 20 change at 10 Hz": ["changing(2000, 20, 8000)"],
        "2,000 rows, 200 change at 10 Hz": ["changing(2000, 200, 8000)"],
        "50,000 rows arrive by pages": ["paging(window.told, 50020)"],
        "50,000 rows come in frames of 1,000": ["loading(50000, 1000)"],
        "50,000 rows, scrolled by 400 px a frame": ["loading(50000, 1000)", "scrolling(5000, 400)"],
        "50,000 rows, filtered by two words": ["loading(50000, 1000)", "filtering('running 4321')"],
    }
    told = _told(50_000)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in situations}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        for _ in range(rounds):
            for name, steps in situations.items():
                page = browser.new_page(viewport={"width": 1100, "height": 900})
                page.set_content(_PAGE.format(style=stylesheet()))
                page.evaluate(_SETUP.read_text(encoding="utf-8"), bundle())
                if "told" in steps[0]:
                    page.evaluate("(told) => { window.told = told; }", told)
                for step in steps[:-1]:
                    page.evaluate(f"window.{step}")
                found[name].append(_measure(browser, page, steps[-1]))
                page.close()
        browser.close()
    return [_row(name, max(results, key=lambda r: r["longest"])) for name, results in found.items()]
