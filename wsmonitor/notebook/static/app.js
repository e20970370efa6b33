// One view of an observer: puts the parts together, paints at most once per animation frame.

import { attr, h, shown, text } from "./dom.js";
import { stateOf } from "./format.js";
import { Log } from "./log.js";
import { Alarms, Summary } from "./panels.js";
import { Strip } from "./strip.js";
import { Tree } from "./tree.js";
import { verdict } from "./verdict.js";

const BEAT = 500; // milliseconds between paintings when nothing arrives: ages and countdowns go on
const SPEAK = 2000; // at most one announcement in so many milliseconds

/** Render `store` into `el`. `send` tells the kernel something. Returns the function that takes all of it away. */
export function mount(store, el, send) {
  let planned = null;
  let folded = false;
  let spoken = "";
  let spokeAt = -Infinity;
  const later = () => {
    if (planned === null) planned = requestAnimationFrame(paint);
  };
  const strip = new Strip({
    reconnect: () => send({ do: "reconnect" }),
    collapse: () => {
      folded = !folded;
      attr(root, "data-folded", folded);
      attr(strip.fold, "aria-expanded", String(!folded));
      text(strip.fold, folded ? "›" : "⌄");
      later();
    },
  });
  const tree = new Tree(later);
  const alarms = new Alarms({ reveal: (id) => tree.reveal(store, id) });
  const summary = new Summary();
  const log = new Log();
  const live = h("div", { class: "wsm-spoken", role: "status", "aria-live": "polite" });
  const main = h("div", { class: "wsm-main" }, alarms.el, summary.el, tree.el, log.el);
  const root = h("section", { class: "wsm", "aria-label": "wsmonitor session observer" }, strip.el, strip.reasons, main, live);
  el.append(root);

  function paint() {
    planned = null;
    const v = verdict(store);
    attr(root, "data-frozen", v.frozen);
    attr(root, "data-doubt", v.doubt);
    attr(root, "data-verdict", v.key);
    const session = store.head && store.head.session;
    attr(root, "data-session-state", session ? session.state : null);
    attr(root, "data-seq", store.head ? store.head.sub.seq : null);
    strip.paint(store, v);
    shown(log.el, store.log.length > 0);
    shown(main, !folded);
    if (!folded) {
      alarms.paint(store, v);
      summary.paint(store, v);
      tree.paint(store, v);
      log.paint(store);
    }
    speak(v, session);
  }

  function speak(v, session) {
    const words = `${v.word}${session ? `: ${session.name} ${v.frozen ? stateOf(session.state).past : stateOf(session.state).word}` : ""}`;
    const now = performance.now();
    if (words === spoken || now - spokeAt < SPEAK) return;
    spoken = words;
    spokeAt = now;
    text(live, words);
  }

  const stop = store.listen(later);
  const timer = setInterval(later, BEAT);
  const resized = new ResizeObserver(later);
  resized.observe(el);
  paint();
  return () => {
    stop();
    clearInterval(timer);
    resized.disconnect();
    tree.stop();
    if (planned !== null) cancelAnimationFrame(planned);
    root.remove();
  };
}
