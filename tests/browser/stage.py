"""The front-end by itself in a real browser: a page with a model, no Jupyter, and a clock that we move."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page

from tests.notebook.samples import T0
from wsmonitor.notebook.bundle import bundle, stylesheet
from wsmonitor.notebook.packing import Wanted
from wsmonitor.notebook.view import Frame, Now, View

NOW = Now(1000.0, T0 + 134)
PAGE = """<!doctype html><html><body data-jp-theme-light="{light}" style="margin: 0; width: {width}px;
  background: {ground}; --jp-layout-color0: {ground}; --jp-ui-font-color0: {ink}">
  <style>{style}</style><div id="here"></div></body></html>"""
MODEL = """async (source) => {
  const module = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  const handlers = {};
  const held = { _key: {}, _token: "t" };
  window.sent = [];
  const signal = () => {
    const heard = new Set();
    return {
      connect: (fn) => heard.add(fn),
      disconnect: (fn) => heard.delete(fn),
      emit: (value) => heard.forEach((fn) => fn(null, value)),
    };
  };
  window.kernel = { statusChanged: signal(), connectionStatusChanged: signal(), disposed: signal() };
  const model = {
    widget_manager: { kernel: window.kernel },
    get: (name) => held[name],
    on: (name, fn) => { handlers[name] = fn; },
    off: (name) => { delete handlers[name]; },
    send: (message) => window.sent.push(message),
  };
  const forget = module.default.initialize({ model });
  const unmount = module.default.render({ model, el: document.getElementById("here") });
  window.key = (key) => { held._key = key; handlers["change:_key"](); };
  window.message = (message, buffers) => handlers["msg:custom"](message, buffers);
  window.pages = async (message, texts) => {
    const bytes = (text) => new DataView(Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer);
    handlers["msg:custom"](message, texts.map(bytes));
    const store = globalThis[Symbol.for("wsmonitor")].stores.get("t");
    // Not a timer: the clock is the test's.
    while (store.busy) await new Promise((done) => {
      const channel = new MessageChannel();
      channel.port1.onmessage = done;
      channel.port2.postMessage(0);
    });
  };
  window.away = () => { unmount(); forget(); return Object.keys(handlers); };
}"""


def accessible(page: Page, *parts: str) -> None:
    """axe finds nothing in the *parts* of the page, which are told by selectors."""
    # Of whole pages, and these are none.
    rules = {"page-has-heading-one": {"enabled": False}, "region": {"enabled": False}}
    for part in parts:
        found = Axe().run(page, context=part, options={"resultTypes": ["violations"], "rules": rules})
        assert found.violations_count == 0, found.generate_report()


class Stage:
    """A page with one observer in it."""

    def __init__(self, page: Page, *, dark: bool = False, width: int = 1000) -> None:
        self.page = page
        # Time passes here only when it is told to, however slow or fast the machine is.
        page.clock.install(time=0)
        page.clock.pause_at(1_000)
        ground, ink = ("#111111", "#ffffff") if dark else ("#ffffff", "#111111")
        light = str(not dark).lower()
        page.set_content(PAGE.format(light=light, width=width, ground=ground, ink=ink, style=stylesheet()))
        page.evaluate(MODEL, bundle())
        self.root: Locator = page.locator(".wsm")

    def key(self, view: View, now: Now = NOW) -> None:
        view.frame(now)
        key = view.key(now)
        self.page.evaluate("key => window.key(key)", self.told({**key}, view, now))
        # Of very many rows it has none: they follow by pages.
        wanted = Wanted()
        wanted.want(range(len(key.get("pages", ()))))
        while (made := wanted.message(view.page, view.number, now.at())) is not None:
            told = [b64encode(data).decode() for data in made[1]]
            self.page.evaluate("told => window.pages(...told)", [self.told(made[0], view, now), told])
        self.pass_time(50)

    def message(self, message: Frame | None, view: View, now: Now = NOW) -> None:
        assert message is not None
        self.page.evaluate("message => window.message(message)", self.told(message, view, now))
        self.pass_time(50)

    def row(self, name: str) -> Locator:
        """The row of a chain or step with this name."""
        return self.page.locator(".wsm-body .wsm-row").filter(
            has=self.page.locator(".wsm-label", has_text=re.compile(f"^{re.escape(name)}$"))
        )

    def asked(self, do: str) -> list[Frame]:
        """The requests of this kind that were sent so far, each once."""
        found = self.page.evaluate("what => window.sent.filter(message => message.do === what)", do)
        return list({message["id"]: message for message in found}.values())

    def answer(self, do: str, data: bytes | None = None, /, *, ok: bool = True, **body: Any) -> Frame:
        """Answer the last request of this kind, which is returned."""
        request = self.asked(do)[-1]
        self.page.evaluate(
            """([message, data]) =>
              window.message(message, data ? [new DataView(Uint8Array.from(data).buffer)] : [])""",
            [{"type": "answer", "to": request["id"], "ok": ok, **body}, None if data is None else list(data)],
        )
        self.pass_time(50)
        return request

    @staticmethod
    def told(message: Frame, view: View, now: Now) -> Any:
        return json.loads(json.dumps({**message, "due": 1000, "beat": view.beat(now)}))

    def pass_time(self, milliseconds: int) -> None:
        self.page.clock.run_for(milliseconds)
