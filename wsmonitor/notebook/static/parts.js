// The pieces of an observer that widgets of their own show, each drawn from the observer's store.

import { attr, h, shown, text } from "./dom.js";
import { age, roundTrip } from "./format.js";
import { Log } from "./log.js";
import { Strip } from "./strip.js";
import { Tree } from "./tree.js";
import { silentProducers, verdict } from "./verdict.js";

const BREATH = 500; // milliseconds between paintings when nothing arrives
const BEATS = 40; // round-trips that are kept for the eye

/** Show the piece `kind` of `store` in `el`. `out` is the widget (see part.js). Returns what takes it away. */
export function mountPiece(kind, store, el, out) {
  let planned = null;
  const later = () => {
    if (planned === null) planned = requestAnimationFrame(paint);
  };
  const piece = new PIECES[kind](store, out, later);
  const root = h("section", { class: `wsm wsm-part wsm-part-${kind}`, "aria-label": `wsmonitor ${piece.words}` }, ...piece.parts);
  el.append(root);

  function paint() {
    planned = null;
    const v = verdict(store);
    const { head } = store;
    attr(root, "data-frozen", v.frozen);
    attr(root, "data-doubt", v.doubt);
    attr(root, "data-verdict", v.key);
    out.mirror("live", !v.frozen);
    if (head) out.mirror("seq", head.sub.seq);
    piece.paint(v, head);
  }

  const stop = store.listen(later);
  const timer = setInterval(later, BREATH);
  const resized = new ResizeObserver(later);
  resized.observe(el);
  store.viewed(1);
  paint();
  return () => {
    stop();
    clearInterval(timer);
    resized.disconnect();
    store.viewed(-1);
    if (piece.stop) piece.stop();
    if (planned !== null) cancelAnimationFrame(planned);
    root.remove();
  };
}

/** How long ago the server was last heard, in seconds, by the store's clock; null where it never was. */
function sinceHeard(store) {
  const since = (store.clock.now() - store.beat.last) / 1000;
  return Number.isFinite(since) ? Math.max(0, Math.floor(since)) : null;
}

const seconds = (ms) => (Number.isFinite(ms) ? ms / 1000 : null);

class StatusPiece {
  constructor(store, out, later) {
    this.words = "connection status";
    this.store = store;
    this.out = out;
    this.strip = new Strip({ reconnect: () => store.send({ do: "reconnect" }), collapse: () => {}, later });
    this.strip.fold.remove();
    this.parts = [this.strip.el, this.strip.reasons];
  }

  paint(v, head) {
    const { store, out } = this;
    this.strip.paint(store, v);
    out.mirror("rtt", seconds(store.beat.rtt));
    out.mirror("age", sinceHeard(store));
    if (!head) return;
    // What the kernel said last, even if the kernel is not heard any more: `live` tells that apart.
    out.mirror("phase", head.link.phase);
    out.mirror("attempt", head.link.attempt);
    out.mirror("reason", head.link.phase === "live" ? "" : head.link.reason);
    out.mirror("state", head.session ? head.session.state : "");
    out.mirror("watching", head.watching ? head.watching.count : 0);
  }
}

class HeartbeatPiece {
  constructor(store, out) {
    this.words = "heartbeat";
    this.store = store;
    this.out = out;
    this.told = null; // when the server was last heard, as it was drawn
    this.trips = [];
    this.server = this._link("server");
    this.producer = this._link("producer");
    this.trace = h("span", { class: "wsm-beats", "aria-hidden": "true" });
    this.parts = [h("div", { class: "wsm-heartbeat", role: "group", "aria-label": "Heartbeat" }, this.server.el, this.trace, this.producer.el)];
  }

  _link(name) {
    const link = {
      icon: h("span", { class: "wsm-heart", "aria-hidden": "true" }, "♥"),
      word: h("span", { class: "wsm-heart-word" }),
    };
    link.el = h("span", { class: "wsm-beat" }, link.icon, h("strong", {}, name), link.word);
    return link;
  }

  paint(v, head) {
    const { store, out } = this;
    const { rtt, last } = store.beat;
    const since = sinceHeard(store);
    out.mirror("rtt", seconds(rtt));
    out.mirror("age", since);
    const server = v.frozen
      ? { word: v.key === "live" ? "" : `${v.word.toLowerCase()}${since === null ? "" : `, last heard ${age(since * 1000)} ago`}`, tone: v.tone }
      : { word: [Number.isFinite(rtt) ? roundTrip(rtt) : "", since === null ? "" : `${age(since * 1000)} ago`].filter(Boolean).join(" · "), tone: "good" };
    this._say(this.server, server, !v.frozen);
    const producer = this._producer(v, head);
    out.mirror("producer", producer.state);
    this._say(this.producer, producer, producer.state === "live");
    if (Number.isFinite(rtt) && !v.frozen && last !== this.told) this._beat(rtt, last);
  }

  _say(link, { word, tone }, beats) {
    attr(link.icon, "data-tone", tone);
    attr(link.el, "data-beats", beats);
    text(link.icon, beats ? "♥" : "♡");
    text(link.word, word);
  }

  _producer(v, head) {
    const session = head && head.session;
    if (!session || !head.producers.length) return { state: "", word: "none yet", tone: "dim" };
    if (v.frozen && !session.end) return { state: "", word: "not known", tone: "dim" };
    if (session.end || head.producers.every((one) => one.closed)) return { state: "closed", word: "finished", tone: "dim" };
    const unheard = silentProducers(head);
    if (!unheard.length) return { state: "live", word: "heard", tone: "good" };
    const lost = unheard.some((one) => one.liveness === "lost");
    const since = Math.min(...unheard.map((one) => one.since ?? this.store.clock.now()));
    return { state: lost ? "lost" : "stale", word: `${lost ? "lost" : "silent"} for ${age(this.store.clock.now() - since)}`, tone: lost ? "bad" : "warn" };
  }

  /** The server was heard: one more bar, as high as its round-trip was long. */
  _beat(rtt, last) {
    this.told = last;
    this.trips.push(rtt);
    if (this.trips.length > BEATS) this.trips.shift();
    const most = Math.max(...this.trips, 1);
    while (this.trace.children.length < this.trips.length) this.trace.append(h("i", {}));
    [...this.trace.children].forEach((bar, k) => {
      bar.style.height = `${Math.max(12, Math.round((100 * this.trips[k]) / most))}%`;
    });
  }
}

class LogPiece {
  constructor(store, out) {
    this.words = "event log";
    this.store = store;
    this.out = out;
    this.log = new Log();
    this.log.toggle();
    this.empty = h("p", { class: "wsm-empty" });
    this.parts = [this.log.el, this.empty];
  }

  paint(v) {
    const { store } = this;
    const none = store.log.length === 0;
    shown(this.log.el, !none);
    shown(this.empty, none);
    text(this.empty, none ? `Nothing has happened yet. ${v.word}${v.text ? `: ${v.text}` : ""}` : "");
    this.log.paint(store, v);
    const entry = store.log[store.log.length - 1];
    if (entry) this.out.mirror("last", [entry.what, entry.name, entry.text].filter(Boolean).join(" "));
  }
}

class TreePiece {
  constructor(store, out, later) {
    this.words = "tree";
    this.store = store;
    this.out = out;
    this.wanted = "";
    this.tree = new Tree(later, { select: (id) => { this.wanted = ""; out.choose(id); } });
    this.why = h("p", { class: "wsm-doubt", role: "status" });
    this.parts = [this.why, this.tree.el];
    this.leave = out.chosen((id) => {
      if (id !== (this.tree.selected || "")) {
        this.wanted = id;
        later();
      }
    });
  }

  paint(v, head) {
    const { tree, store } = this;
    const session = head && head.session;
    // Without the strip, the tree says by itself when it is not to be taken for the present.
    const words = `${v.icon} ${v.word}${v.text ? ` · ${v.text}` : ""}`;
    shown(this.why, v.frozen || v.doubt || !session);
    text(this.why, v.doubt ? `${v.icon} The producer is not heard: what was running is not known to be.` : words);
    attr(this.why, "data-tone", v.doubt ? "warn" : v.tone);
    tree.paint(store, v);
    this.out.mirror("state", session ? session.state : "");
    if (this.wanted && store.rows.has(this.wanted)) {
      const id = this.wanted;
      this.wanted = "";
      tree.reveal(store, id);
    }
  }

  stop() {
    this.leave();
    this.tree.stop();
  }
}

const PIECES = { status: StatusPiece, heartbeat: HeartbeatPiece, log: LogPiece, tree: TreePiece };
