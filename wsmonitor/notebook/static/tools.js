// The tools above the tree: filter, states, sort, first error, follow, zoom, replay.

import { attr, h, shown, text } from "./dom.js";
import { STATES, count, stateOf } from "./format.js";

const SHOWN = 6; // rows from which on the tools are worth their place

export class Tools {
  /** `act` has `filter(words, states)`, `resized()`, `sort(key)`, `firstError()`, `follow(on)`, and perhaps `replay()`. */
  constructor(act, zoom) {
    this.act = act;
    this.states = null;
    this.search = h("input", { type: "search", class: "wsm-filter", placeholder: "filter, e.g. failed window", "aria-label": "Filter steps by words in name, state or error" });
    this.search.addEventListener("input", () => this._filter());
    this.search.addEventListener("keydown", (event) => {
      // JupyterLab's shortcuts are not for what is typed here.
      event.stopPropagation();
      if (event.key === "Escape" && this.search.value) this.clear();
    });
    this.menu = h("div", { class: "wsm-menu", role: "group", "aria-label": "States to be shown" });
    this.stateButton = h("button", { type: "button", class: "wsm-button", "aria-expanded": "false", onclick: () => this._menu(this.menu.hidden) }, "State: all");
    this.menu.hidden = true;
    const holder = h("span", { class: "wsm-holder" }, this.stateButton, this.menu);
    holder.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || this.menu.hidden) return;
      event.stopPropagation();
      this._menu(false);
      this.stateButton.focus();
    });
    holder.addEventListener("focusout", (event) => { if (event.relatedTarget && !holder.contains(event.relatedTarget)) this._menu(false); });
    this.firstError = h("button", { type: "button", class: "wsm-button", onclick: () => act.firstError() }, "⇥ First error");
    this.follow = h("button", { type: "button", class: "wsm-button wsm-follow", onclick: () => act.follow(this.follow.getAttribute("aria-pressed") !== "true") });
    this.replay = h("button", { type: "button", class: "wsm-button wsm-replay", onclick: () => act.replay() }, "↺ Replay");
    this.hint = h("span", { class: "wsm-dim wsm-hint" });
    this.el = h("div", { class: "wsm-tools" }, this.search, holder, this.firstError, this.follow, this.replay, this.hint, zoom);
  }

  get open() {
    return !this.menu.hidden;
  }

  clear() {
    this.search.value = "";
    this.states = null;
    this._filter();
  }

  _filter() {
    text(this.stateButton, this.states === null ? "State: all" : `State: ${[...this.states].map((s) => stateOf(s).word).join(", ")}`);
    this.act.filter(this.search.value, this.states);
  }

  _menu(open) {
    shown(this.menu, open);
    this.act.resized();
    attr(this.stateButton, "aria-expanded", String(open));
    if (!open) return;
    const known = Object.keys(STATES);
    const there = Object.keys(this.counts || {});
    const states = [...known.filter((s) => there.includes(s) || (this.states && this.states.has(s))), ...there.filter((s) => !known.includes(s))];
    const all = h("button", { type: "button", class: "wsm-quiet", onclick: () => { this.states = null; this._menu(false); this._filter(); this.stateButton.focus(); } }, "Show all");
    this.menu.replaceChildren(...states.map((state) => {
      const s = stateOf(state);
      const box = h("input", { type: "checkbox", checked: this.states === null ? false : this.states.has(state) });
      box.addEventListener("change", () => {
        const chosen = new Set(this.states || []);
        if (box.checked) chosen.add(state);
        else chosen.delete(state);
        this.states = chosen.size ? chosen : null;
        this._filter();
      });
      return h("label", {}, box, h("span", { "data-tone": s.tone }, `${s.icon} ${s.word}`), ` ${count((this.counts || {})[state] || 0)}`);
    }), all);
    this.menu.querySelector("input, button").focus();
  }

  paint(store, tree, replayable) {
    this.counts = (store.head && store.head.counts) || {};
    const { filtered } = tree.arranged;
    shown(this.el, store.rows.size > SHOWN || filtered || replayable || store.behind > 0);
    shown(this.firstError, Boolean(this.counts.failed || this.counts.crashed));
    const ended = Boolean(store.head && store.head.session && store.head.session.end);
    shown(this.follow, !ended);
    attr(this.follow, "aria-pressed", String(tree.follow));
    text(this.follow, tree.follow ? "☑ Follow" : "☐ Follow");
    shown(this.replay, replayable);
    const hints = [];
    if (filtered) hints.push(`${count(tree.arranged.flat.length)} of ${count(store.rows.size)} rows`);
    if (store.loading) hints.push(`loading: ${count(store.loading.have)} of ${count(store.loading.of)} pages`);
    else if (tree.arranged.behind) hints.push(`arranging: ${count(tree.arranged.behind)} rows to go`);
    if (store.behind) hints.push(`${count(store.behind)} changed ${store.behind === 1 ? "row" : "rows"} not told yet`);
    if (tree.stopped && !ended) hints.push(`not following: ${tree.stopped}`);
    text(this.hint, hints.join(" · "));
    attr(this.hint, "title", hints.length ? hints.join("\n") : null);
  }
}
