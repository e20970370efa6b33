// The event log: what happened, newest first; closed it is its newest line.

import { attr, h, shown, text } from "./dom.js";
import { clockTime, count } from "./format.js";

export class Log {
  /** `later()` asks for a painting of all: what is open takes its room. */
  constructor(later = () => {}) {
    this.later = later;
    this.open = false;
    this.words = [];
    this.newest = h("span", { class: "wsm-log-last" });
    this.button = h("button", { type: "button", class: "wsm-quiet", "aria-expanded": "false", onclick: () => this.toggle() }, "▸ Event log");
    this.search = h("input", { type: "search", class: "wsm-log-filter", placeholder: "filter the log", "aria-label": "Filter the event log by words" });
    this.search.addEventListener("input", () => {
      this.words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
      this.last = null;
      if (this.store) this.paint(this.store);
    });
    this.search.addEventListener("keydown", (event) => event.stopPropagation());
    this.hits = h("span", { class: "wsm-dim wsm-hint" });
    this.list = h("ol", { class: "wsm-log-list", tabindex: "0", "aria-label": "Event log, newest first" });
    this.el = h("div", { class: "wsm-log" }, h("div", { class: "wsm-log-foot" }, this.button, this.newest, this.search, this.hits), this.list);
    for (const el of [this.list, this.search, this.hits]) el.hidden = true;
    this.last = null;
  }

  toggle() {
    this.open = !this.open;
    for (const el of [this.list, this.search, this.hits]) shown(el, this.open);
    attr(this.button, "aria-expanded", String(this.open));
    this.last = null;
    if (this.store) this.paint(this.store);
    this.later();
  }

  paint(store) {
    const entry = store.log[store.log.length - 1];
    text(this.button, `${this.open ? "▾" : "▸"} Event log`);
    if (entry === this.last && store === this.store) return;
    this.store = store;
    this.last = entry;
    shown(this.newest, !this.open);
    this.newest.replaceChildren(...(entry ? sentence(entry) : []));
    if (!this.open) return;
    const { words } = this;
    const matches = (e) => {
      const hay = `${e.what} ${e.name} ${e.text}`.toLowerCase();
      return words.every((word) => hay.includes(word));
    };
    const found = words.length ? store.log.filter(matches) : store.log;
    text(this.hits, words.length ? `${count(found.length)} of ${count(store.log.length)} entries` : `${count(found.length)} entries`);
    const stay = this.list.scrollTop > 4 ? this.list.scrollHeight - this.list.scrollTop : null;
    this.list.replaceChildren(...found.map((e) => h("li", { "data-link": !e.what && !e.name && /^(re)?connect/.test(e.text) }, ...sentence(e))).reverse());
    // Who reads further down is not pushed away by what arrives above.
    if (stay !== null) this.list.scrollTop = this.list.scrollHeight - stay;
  }
}

/** The elements that tell one entry. */
export function sentence(entry) {
  const said = h("span", { "data-tone": entry.tone });
  if (entry.replayed) said.append(h("span", { class: "wsm-chip" }, "missed"), " ");
  if (entry.what) said.append(`${entry.what} `);
  if (entry.name) said.append(h("strong", {}, entry.name), " ");
  said.append(entry.text);
  return [h("time", {}, clockTime(entry.at, true)), said];
}
