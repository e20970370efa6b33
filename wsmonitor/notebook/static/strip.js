// The connection strip: is it live, what is it, and how old; the explanation under it.

import { attr, h, shown, text } from "./dom.js";
import { age, clockTime, duration, roundTrip, stateOf } from "./format.js";
import { silentProducers } from "./verdict.js";

const EXPLAINED = new Set(["waiting", "failed", "absent", "not_available"]);

export class Strip {
  /** `act` has `reconnect()`, `collapse()` and `later()`: to paint soon; and perhaps `session()`: more of it was asked for. */
  constructor(act) {
    this.act = act;
    this.icon = h("span", { class: "wsm-dot", "aria-hidden": "true" });
    this.word = h("strong", { class: "wsm-word" });
    this.detail = h("span", { class: "wsm-detail" });
    this.button = h("button", { type: "button", class: "wsm-button wsm-reconnect", onclick: () => act.reconnect() }, "Reconnect now");
    this.why = h("button", { type: "button", class: "wsm-quiet wsm-why", "aria-expanded": "false", onclick: () => this._toggle() }, "why?");
    this.title = act.session ? h("button", { type: "button", class: "wsm-title", onclick: () => act.session() }) : h("strong", { class: "wsm-title" });
    this.run = h("span", { class: "wsm-dim wsm-run" });
    this.state = h("span", { class: "wsm-state" });
    this.asOf = h("span", { class: "wsm-dim wsm-asof" });
    this.server = h("span", { class: "wsm-pill wsm-server" });
    this.producer = h("span", { class: "wsm-pill wsm-producer" });
    this.watching = h("button", { type: "button", class: "wsm-pill wsm-watching", "aria-expanded": "false", onclick: () => this._toggle() });
    this.fold = h("button", { type: "button", class: "wsm-quiet wsm-fold", "aria-expanded": "true", "aria-label": "Show or hide the details of this session", onclick: () => act.collapse() }, "⌄");
    this.reasons = h("ul", { class: "wsm-reasons" });
    this.reasons.hidden = true;
    this.chosen = false; // the reader has opened or closed the reasons
    this.el = h("div", { class: "wsm-strip", role: "group", "aria-label": "Connection" },
      h("span", { class: "wsm-left" }, this.icon, this.word, this.detail, this.button, this.why,
        h("span", { class: "wsm-rule", "aria-hidden": "true" }), this.title, this.run, this.state, this.asOf),
      h("span", { class: "wsm-right" }, this.server, this.producer, this.watching, this.fold));
  }

  _toggle() {
    this.chosen = true;
    this._open(this.reasons.hidden);
    this.act.later();
  }

  _open(open) {
    if (this.reasons.hidden === !open) return;
    this.reasons.hidden = !open;
    for (const el of [this.why, this.watching]) attr(el, "aria-expanded", String(open));
    this.told = null;
  }

  paint(store, v) {
    const now = store.clock.now();
    const head = store.head;
    const session = head && head.session;
    attr(this.el, "data-tone", v.tone);
    attr(this.el, "data-verdict", v.key);
    text(this.icon, v.icon);
    text(this.word, v.word);
    text(this.detail, v.text);
    shown(this.detail, v.text !== "");
    shown(this.button, v.reconnect);
    text(this.why, v.key === "live" && !v.doubt ? "details" : "why?");
    text(this.title, session ? session.name : head ? head.title : "");
    text(this.run, session && session.run ? `run ${session.run}` : "");
    this._session(session, v);
    this._server(store, v, now);
    this._producer(head, v, now);
    const watching = head && head.watching;
    shown(this.watching, Boolean(watching) && !v.frozen);
    if (watching) {
      text(this.watching, `${watching.count} watching`);
      attr(this.watching, "title", `Who watches: ${watching.names.join(", ")}`);
    }
    // While there is nothing else to see, the explanation is what there is to see.
    if (!this.chosen) this._open(Boolean(head) && !session && EXPLAINED.has(v.key));
    if (!this.reasons.hidden) this._reasons(store, v);
  }

  _session(session, v) {
    shown(this.state, Boolean(session));
    shown(this.asOf, false);
    if (!session) return;
    const s = stateOf(session.state);
    const from = session.start ?? NaN;
    const unsure = v.frozen || v.doubt;
    attr(this.state, "data-tone", unsure && s.open ? "dim" : s.tone);
    let words = s.open && unsure ? s.past : s.word;
    attr(this.title, "title", session.name);
    if (session.end) words += ` in ${duration(session.end - from)}`;
    else if (s.open && unsure && Number.isFinite(v.asOf)) {
      // Apart, because it is what a narrow view can spare: the data's age is told anyway.
      shown(this.asOf, true);
      text(this.asOf, `at ${clockTime(v.asOf)}`);
    } else if (s.active && Number.isFinite(from)) words += ` ${duration(v.asOf - from, true)}`;
    if (session.reason && session.end) words += ` (${session.reason})`;
    text(this.state, words);
  }

  _server(store, v, now) {
    const { rtt, last } = store.beat;
    const seen = Boolean(store.head && store.head.session);
    // Where no data was ever seen, it has no age.
    shown(this.server, Number.isFinite(last) && (seen || !v.frozen));
    if (this.server.hidden) return;
    if (v.frozen) {
      const asOf = Number.isFinite(v.asOf) ? v.asOf : last;
      const old = Number.isFinite(now) ? `data ${age(now - asOf)} old` : `data as of ${clockTime(asOf)}`;
      text(this.server, old);
      attr(this.server, "data-tone", v.key === "syncing" ? null : "warn");
      attr(this.server, "title", `last word from the server: ${clockTime(last)}`);
    } else {
      text(this.server, `♥ server ${Number.isFinite(rtt) ? roundTrip(rtt) + " · " : ""}${age(now - last)} ago`);
      attr(this.server, "data-tone", "good");
      attr(this.server, "title", "round-trip time, and when the server was last heard");
    }
  }

  _producer(head, v, now) {
    const session = head && head.session;
    shown(this.producer, Boolean(session) && (head.producers.length > 0 || v.frozen));
    if (!session) return;
    const open = head.producers.filter((p) => !p.closed);
    const unheard = silentProducers(head);
    let words = "♥ producer";
    let tone = "good";
    if (v.frozen && !session.end) [words, tone] = ["producer: not known", null];
    else if (session.end || (head.producers.length && !open.length)) [words, tone] = ["producer finished", null];
    else if (unheard.length) {
      const since = Math.min(...unheard.map((p) => p.since ?? now));
      const lost = unheard.some((p) => p.liveness === "lost");
      words = `producer ${lost ? "lost" : "silent"} for ${age(now - since)}`;
      tone = lost ? "bad" : "warn";
    } else if (open.length > 1) words = `♥ ${open.length} producers`;
    text(this.producer, words);
    attr(this.producer, "data-tone", tone);
    attr(this.producer, "title", head.producers.map((p) => `${p.agent || p.id}: ${p.closed ? "finished" : p.liveness}`).join("\n"));
  }

  _reasons(store, v) {
    const lines = [...v.why];
    const head = store.head;
    if (head) {
      if (head.link.url) lines.push(`Server: ${head.link.url}`);
      for (const p of head.producers) lines.push(`Producer ${p.agent || p.id}: ${p.closed ? "finished" : v.frozen ? "not known now; was " + p.liveness : p.liveness}`);
      if (head.session) lines.push(`Session: ${head.session.id} at event ${head.sub.seq}`);
      if (head.watching && head.watching.names.length) {
        const others = head.watching.count - head.watching.names.length;
        lines.push(`${v.frozen ? "Was watched by" : "Watching"}: ${head.watching.names.join(", ")}${others > 0 ? ` and ${others} more` : ""}`);
      }
    }
    if (lines.join("\n") === this.told) return;
    this.told = lines.join("\n");
    this.reasons.replaceChildren(...lines.map((line) => h("li", {}, line)));
  }
}
