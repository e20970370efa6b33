// One view of an observer: puts the parts together, paints at most once per animation frame.

import { Commands } from "./commands.js";
import { Detail } from "./detail.js";
import { attr, h, shown, text } from "./dom.js";
import { stateOf } from "./format.js";
import { Log } from "./log.js";
import { Alarms, Summary } from "./panels.js";
import { Scrubber, replayVerdict } from "./scrubber.js";
import { Strip } from "./strip.js";
import { Tree, VISIBLE } from "./tree.js";
import { verdict } from "./verdict.js";

const BEAT = 500; // milliseconds between paintings when nothing arrives: ages and countdowns go on
const SPEAK = 2000; // at most one announcement in so many milliseconds
const TALL = 16; // rows in sight while the details stand beside them

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
    later,
    reconnect: () => send({ do: "reconnect" }),
    session: () => {
      if (store.head && store.head.session) detail.open("", true);
    },
    collapse: () => {
      folded = !folded;
      attr(root, "data-folded", folded);
      attr(strip.fold, "aria-expanded", String(!folded));
      text(strip.fold, folded ? "›" : "⌄");
      later();
    },
  });
  const tree = new Tree(later, {
    select: (id) => { if (detail.isOpen) detail.open(id); },
    open: (id, focus) => detail.open(id, focus),
    close: () => detail.isOpen && (detail.leave(), true),
    replay: () => scrubber.begin(store),
  });
  const detail = new Detail(later, { closed: (focus) => { if (focus) tree.grid.focus(); } });
  const scrubber = new Scrubber(later, { leave: (focus) => { if (focus) tree.grid.focus(); } });
  const alarms = new Alarms({ later, reveal: (id) => tree.reveal(scrubber.replay || store, id) });
  const summary = new Summary();
  const commands = new Commands(later);
  const log = new Log(later);
  const live = h("div", { class: "wsm-spoken", role: "status", "aria-live": "polite" });
  const panes = h("div", { class: "wsm-panes" }, tree.el, detail.el);
  const main = h("div", { class: "wsm-main" }, alarms.el, summary.el, scrubber.el, panes, commands.el, log.el);
  const root = h("section", { class: "wsm", "aria-label": "wsmonitor session observer" }, strip.el, strip.reasons, main, live);
  el.append(root);

  function paint() {
    planned = null;
    scrubber.check(store);
    const { replay } = scrubber;
    const now = verdict(store);
    const v = replay ? replayVerdict(now, replay) : now;
    const from = replay || store;
    attr(root, "data-frozen", v.frozen);
    attr(root, "data-doubt", v.doubt);
    attr(root, "data-verdict", v.key);
    attr(root, "data-details", detail.isOpen);
    const session = from.head && from.head.session;
    attr(root, "data-session-state", session ? session.state : null);
    attr(root, "data-seq", from.head ? from.head.sub.seq : null);
    strip.paint(from, v);
    shown(log.el, from.log.length > 0);
    shown(main, !folded);
    if (!folded) {
      alarms.paint(from, v);
      summary.paint(from, v);
      tree.visible = detail.isOpen ? TALL : VISIBLE;
      tree.paint(from, v, { replayable: !replay && Boolean(session && session.end) && store.rows.size > 0 && !store.loading });
      detail.paint(from, v);
      commands.paint(from, v, tree.selected);
      log.paint(from);
    }
    // By itself it stays low; what its reader has opened may take its room.
    attr(root, "data-roomy", detail.isOpen || log.open || commands.busy || tree.tools.open || !strip.reasons.hidden || alarms.open.size > 0);
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
    scrubber.stop();
    tree.stop();
    if (planned !== null) cancelAnimationFrame(planned);
    root.remove();
  };
}
