// The event log: what happened, newest first.

import { attr, h, shown, text } from "./dom.js";
import { clockTime } from "./format.js";

/** The event log: closed it is its newest line. */
export class Log {
  constructor() {
    this.open = false;
    this.newest = h("span", { class: "wsm-log-last" });
    this.button = h("button", { type: "button", class: "wsm-quiet", "aria-expanded": "false", onclick: () => this.toggle() }, "▸ Event log");
    this.list = h("ol", { class: "wsm-log-list", tabindex: "0", "aria-label": "Event log, newest first" });
    this.list.hidden = true;
    this.el = h("div", { class: "wsm-log" }, h("div", { class: "wsm-log-foot" }, this.button, this.newest), this.list);
    this.last = null;
  }

  toggle() {
    this.open = !this.open;
    this.list.hidden = !this.open;
    attr(this.button, "aria-expanded", String(this.open));
    this.last = null;
    if (this.store) this.paint(this.store);
  }

  paint(store) {
    this.store = store;
    const entry = store.log[store.log.length - 1];
    text(this.button, `${this.open ? "▾" : "▸"} Event log`);
    if (entry === this.last) return;
    this.last = entry;
    shown(this.newest, !this.open);
    this.newest.replaceChildren(...(entry ? sentence(entry) : []));
    if (!this.open) return;
    const stay = this.list.scrollTop > 4 ? this.list.scrollHeight - this.list.scrollTop : null;
    this.list.replaceChildren(...store.log.map((e) => h("li", {}, ...sentence(e))).reverse());
    // Who reads further down is not pushed away by what arrives above.
    if (stay !== null) this.list.scrollTop = this.list.scrollHeight - stay;
  }
}

function sentence(entry) {
  const said = h("span", { "data-tone": entry.tone });
  if (entry.replayed) said.append(h("span", { class: "wsm-chip" }, "missed"), " ");
  if (entry.what) said.append(`${entry.what} `);
  if (entry.name) said.append(h("strong", {}, entry.name), " ");
  said.append(entry.text);
  return [h("time", {}, clockTime(entry.at, true)), said];
}
