"""The observer's front-end by itself in Chromium: many rows, many changes, scrolling.

The bundle is loaded into a bare page, and told by messages of the kernel's form. Measured in the page: long
tasks (over 50 ms, as the browser reports them), the time between two frames, and the time to the first row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

NAME: Final = "front-end"

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
    }


def run(*, rounds: int = 3) -> list[dict[str, Any]]:
    """One table row per situation; of *rounds* the one with the longest task counts."""
    from playwright.sync_api import sync_playwright

    from wsmonitor.notebook.bundle import bundle, stylesheet

    situations = {
        "2,000 rows, 20 change at 10 Hz": ["changing(2000, 20, 8000)"],
        "2,000 rows, 200 change at 10 Hz": ["changing(2000, 200, 8000)"],
        "50,000 rows arrive, 1,000 in a message": ["loading(50000, 1000)"],
        "50,000 rows, scrolled by 400 px a frame": ["loading(50000, 1000)", "scrolling(5000, 400)"],
        "50,000 rows, filtered by two words": ["loading(50000, 1000)", "filtering('running 4321')"],
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in situations}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        for _ in range(rounds):
            for name, steps in situations.items():
                page = browser.new_page(viewport={"width": 1100, "height": 900})
                page.set_content(_PAGE.format(style=stylesheet()))
                page.evaluate(_SETUP.read_text(encoding="utf-8"), bundle())
                for step in steps:
                    result = page.evaluate(f"window.{step}")
                found[name].append(result)
                page.close()
        browser.close()
    return [_row(name, max(results, key=lambda r: r["longest"])) for name, results in found.items()]
