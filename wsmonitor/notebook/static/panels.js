// What stands above the tree: alarms and summary.

import { attr, h, shown, text } from "./dom.js";
import { clip, clockTime, count, duration, inOrder, progress, remaining, stateOf } from "./format.js";
import { figure } from "./texts.js";
import { unsettled } from "./verdict.js";

const METRICS = 4; // shown; the others are among the session's details

/** Failures that no later attempt has repaired; each can be put away. */
export class Alarms {
  /** `act.reveal(rowId)` shows a row, `act.later()` asks for a painting of all. */
  constructor(act) {
    this.act = act;
    this.put = new Set();
    this.open = new Set();
    this.told = "";
    this.el = h("div", { class: "wsm-alarms" });
  }

  paint(store, v) {
    const alarms = ((store.head && store.head.alarms) || []).filter((a) => !this.put.has(key(a)));
    const more = (store.head && store.head.alarms_more) || 0;
    const told = JSON.stringify([alarms, more, [...this.open], v.frozen]);
    if (told === this.told) return;
    this.told = told;
    // One banner at a time keeps the height; the others are counted.
    const [first] = alarms;
    shown(this.el, Boolean(first));
    if (!first) return void this.el.replaceChildren();
    const others = alarms.length - 1 + more;
    const open = this.open.has(key(first));
    const line = h("div", { class: "wsm-alarm" },
      h("span", { class: "wsm-alarm-icon", "aria-hidden": "true" }, "✕"),
      h("span", { class: "wsm-alarm-text", title: [`${first.name} ${first.text}`, first.where].filter(Boolean).join("\n") },
        h("strong", {}, clip(first.name, 60)), " ", h("span", { class: "wsm-alarm-why" }, first.text), " ",
        h("span", { class: "wsm-alarm-where" }, [clockTime(first.at ?? NaN), first.where].filter(Boolean).join(" · "))));
    const acts = h("span", { class: "wsm-alarm-acts" });
    if (others > 0) acts.append(h("span", { class: "wsm-alarm-where" }, `and ${count(others)} more`));
    if (first.detail) {
      acts.append(h("button", { type: "button", class: "wsm-button", "aria-expanded": String(open), onclick: () => this._toggle(first, store, v) },
        open ? "Hide traceback" : "Show traceback"));
    }
    if (first.row) acts.append(h("button", { type: "button", class: "wsm-quiet", onclick: () => this.act.reveal(first.row) }, "show step"));
    acts.append(h("button", { type: "button", class: "wsm-quiet", onclick: () => this._away(first, store, v) }, "dismiss"));
    line.append(acts);
    attr(line, "data-open", open);
    this.el.replaceChildren(line);
    if (open) this.el.append(h("pre", { class: "wsm-traceback", tabindex: "0" }, first.detail));
  }

  _toggle(alarm, store, v) {
    const k = key(alarm);
    if (!this.open.delete(k)) this.open.add(k);
    this.paint(store, v);
    this.act.later();
  }

  _away(alarm, store, v) {
    this.put.add(key(alarm));
    this.paint(store, v);
    this.act.later();
  }
}

const key = (alarm) => `${alarm.row}|${alarm.name}|${alarm.at}|${alarm.text}`;

/** How many steps are in which state, and how long it has taken. */
export class Summary {
  constructor() {
    this.bar = h("span", { class: "wsm-bar", "aria-hidden": "true" });
    this.words = h("span", { class: "wsm-counts" });
    this.metrics = h("span", { class: "wsm-metrics" });
    this.elapsed = h("span", { class: "wsm-elapsed" });
    this.eta = h("span", { class: "wsm-eta" });
    this.el = h("div", { class: "wsm-summary" }, this.bar, this.words, this.metrics, this.elapsed, this.eta);
    this.told = "";
  }

  paint(store, v) {
    const head = store.head;
    const session = head && head.session;
    shown(this.el, Boolean(session));
    if (!session) return;
    const unsure = unsettled(head, v);
    const told = JSON.stringify([head.counts, head.steps, unsure, session.done, session.total]);
    if (told !== this.told) {
      this.told = told;
      this._draw(head, session, unsure);
    }
    const from = session.start ?? NaN;
    const to = session.end ?? v.asOf;
    const ran = duration(to - from, !session.end);
    text(this.elapsed, ran ? `${session.end ? "took" : unsure ? "elapsed at last word" : session.state === "pending" ? "waiting" : "elapsed"} ${ran}` : "");
    const left = session.end ? "" : remaining(session, v.asOf);
    text(this.eta, left ? `ETA ${unsure ? "not known" : left}` : "");
    shown(this.eta, left !== "");
    const metrics = Object.entries(head.metrics || {});
    const print = JSON.stringify(metrics);
    if (print === this.measured) return;
    this.measured = print;
    shown(this.metrics, metrics.length > 0);
    attr(this.metrics, "title", metrics.map(([name, n]) => `${name} ${n}`).join("\n"));
    this.metrics.replaceChildren(...metrics.slice(0, METRICS).map(([name, n]) => h("span", {}, `${clip(name, 24)} `, h("strong", {}, figure(n)))),
      ...(metrics.length > METRICS ? [h("span", { class: "wsm-dim" }, `and ${metrics.length - METRICS} more`)] : []));
  }

  _draw(head, session, unsure) {
    const total = head.steps || 1;
    const states = inOrder(head.counts);
    this.bar.replaceChildren(...states.filter((s) => s !== "pending").map((s) => {
      const part = h("i", { "data-tone": stateOf(s).tone });
      part.style.width = `${(100 * head.counts[s]) / total}%`;
      return part;
    }));
    const over = (head.counts.succeeded || 0) + (head.counts.skipped || 0);
    const all = h("span", {}, h("strong", {}, count(over)), `/${count(head.steps)} steps`);
    const own = progress(session);
    this.words.replaceChildren(all, ...states.map((s) => {
      const state = stateOf(s);
      const word = unsure && state.open ? (head.counts[s] === 1 ? state.past : state.past.replace(/^was/, "were")) : state.word;
      return h("span", { "data-tone": unsure && state.open ? "dim" : state.tone }, `${state.icon} ${count(head.counts[s])} ${word}`);
    }), ...(own ? [h("span", {}, own)] : []));
    if (head.shown - head.chains < head.steps) {
      this.words.append(h("span", { "data-tone": "warn" }, `⚠ ${count(head.shown - head.chains)} of ${count(head.steps)} steps shown`));
    }
  }
}
