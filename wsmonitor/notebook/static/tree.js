// The tree of chains and steps with its timeline: a treegrid of which only the visible rows exist.

import { attr, h, shown, text } from "./dom.js";
import { clockTime, count, duration, progress, stateOf, tickLabel, ticks } from "./format.js";
import { flatten } from "./store.js";
import { unsettled } from "./verdict.js";

export const ROW = 25; // pixels; fixed, so that a row's place is known without measuring
const SPARE = 4; // rows beyond the visible ones
const VISIBLE = 8; // rows in sight, so that the whole view stays below 420 pixels

let serial = 0;

export class Tree {
  /** `later()` asks for a new painting. */
  constructor(later) {
    this.later = later;
    this.prefix = `wsm-${(serial += 1)}-`;
    this.closed = new Set();
    this.filter = "";
    this.follow = true;
    this.selected = null; // a row's id
    this.flat = [];
    this.index = new Map();
    this.drawn = []; // the row elements, reused
    this.structure = -1;
    this.kept = null;

    this.scale = h("div", { class: "wsm-scale", role: "columnheader", "aria-label": "Timeline" });
    this.header = h("div", { class: "wsm-row wsm-header", role: "row" },
      h("div", { class: "wsm-name", role: "columnheader" }, "Step"),
      h("div", { class: "wsm-cell-state", role: "columnheader" }, "State"),
      h("div", { class: "wsm-time", role: "columnheader" }, "Time"), this.scale);
    this.body = h("div", { class: "wsm-body", role: "rowgroup" });
    // The header scrolls along, and sticks: so it is as wide as the rows, with and without a scroll bar.
    this.view = h("div", { class: "wsm-view", role: "presentation" }, this.header, this.body);
    this.empty = h("div", { class: "wsm-empty" });
    this.grid = h("div", { class: "wsm-grid", role: "treegrid", tabindex: "0", "aria-label": "Chains and steps" }, this.view, this.empty);
    this.search = h("input", { type: "search", class: "wsm-filter", placeholder: "filter, e.g. failed read", "aria-label": "Filter steps by words in name, state or error" });
    this.firstError = h("button", { type: "button", class: "wsm-button", onclick: () => this._toFirstError() }, "⇥ First error");
    this.followButton = h("button", { type: "button", class: "wsm-button", onclick: () => this._setFollow(!this.follow) });
    this.hint = h("span", { class: "wsm-dim wsm-hint", role: "status" });
    this.tools = h("div", { class: "wsm-tools" }, this.search, this.firstError, this.followButton, this.hint);
    this.el = h("div", { class: "wsm-tree" }, this.tools, this.grid);

    this.search.addEventListener("input", () => { this.filter = this.search.value; this.kept = null; this.structure = -1; later(); });
    this.view.addEventListener("scroll", () => later(), { passive: true });
    // Only what the reader does stops following; our own scrolling fires "scroll" alone.
    for (const kind of ["wheel", "pointerdown", "touchmove"]) {
      this.view.addEventListener(kind, (event) => { if (kind !== "pointerdown" || event.target === this.view) this._setFollow(false); }, { passive: true });
    }
    this.grid.addEventListener("keydown", (event) => this._key(event));
    this.body.addEventListener("click", (event) => this._click(event));
  }

  /** Scroll to a row, opening what is above it. */
  reveal(store, id) {
    const row = store.rows.get(id);
    if (!row) return;
    for (let at = store.parentOf(row), n = 0; at && n < 1000; at = store.parentOf(at), n += 1) this.closed.delete(at.id);
    this.search.value = this.filter = "";
    this.structure = -1;
    this._setFollow(false);
    this.selected = id;
    this._arrange(store);
    this._scrollTo(this.index.get(id));
    this.later();
  }

  _setFollow(on) {
    if (this.follow === on) return;
    this.follow = on;
    this.later();
  }

  _toFirstError() {
    const store = this.store;
    const broken = [...store.rows.values()].filter((row) => row.kind === "step" && (row.state === "failed" || row.state === "crashed"));
    // The deepest failure is the cause; those above it only pass it on.
    const above = new Set(broken.map((row) => store.parentOf(row)).filter(Boolean).map((row) => row.id));
    const first = broken.filter((row) => !above.has(row.id)).sort((a, b) => (a.end ?? 0) - (b.end ?? 0))[0];
    if (first) this.reveal(store, first.id);
  }

  _scrollTo(i, middle = false) {
    if (i === undefined) return;
    const top = i * ROW;
    const height = this.view.clientHeight - ROW;
    if (top < this.view.scrollTop || top + ROW > this.view.scrollTop + height) {
      this.view.scrollTop = middle || top < this.view.scrollTop ? top - (middle ? height / 2 : 0) : top + ROW - height;
    }
  }

  _arrange(store) {
    if (this.structure === store.structure && this.store === store) return;
    this.structure = store.structure;
    this.store = store;
    const words = this.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = words.length
      ? (row) => {
          const hay = `${row.name} ${row.state} ${row.error || ""} ${row.label || ""}`.toLowerCase();
          return words.every((word) => hay.includes(word));
        }
      : null;
    this.flat = flatten(store, this.closed, matches);
    this.index = new Map(this.flat.map((item, i) => [item.row.id, i]));
  }

  _click(event) {
    const el = event.target.closest(".wsm-row");
    if (!el) return;
    const item = this.flat[Number(el.dataset.i)];
    if (!item) return;
    this.selected = item.row.id;
    if (event.target.closest(".wsm-twist") && item.children) this._fold(item);
    this._setFollow(false);
    this.later();
  }

  _fold(item, open = !item.open) {
    if (open) this.closed.delete(item.row.id);
    else this.closed.add(item.row.id);
    this.structure = -1;
  }

  _key(event) {
    if (event.target !== this.grid || event.altKey || event.ctrlKey || event.metaKey) return;
    const last = this.flat.length - 1;
    if (last < 0) return;
    const at = this.index.get(this.selected) ?? -1;
    const item = this.flat[at];
    const page = Math.max(1, Math.floor(this.view.clientHeight / ROW) - 2);
    let to = at;
    if (event.key === "ArrowDown") to = at + 1;
    else if (event.key === "ArrowUp") to = at - 1;
    else if (event.key === "Home") to = 0;
    else if (event.key === "End") to = last;
    else if (event.key === "PageDown") to = at + page;
    else if (event.key === "PageUp") to = at - page;
    else if (item && event.key === "ArrowRight") {
      if (item.children && !item.open) this._fold(item, true);
      else if (item.children) to = at + 1;
    } else if (item && event.key === "ArrowLeft") {
      if (item.open) this._fold(item, false);
      else {
        const parent = this.store.parentOf(item.row);
        if (parent) to = this.index.get(parent.id) ?? at;
      }
    } else if (item && event.key === "Enter" && item.children) this._fold(item);
    else return;
    event.preventDefault();
    // JupyterLab listens for the same keys to move between cells.
    event.stopPropagation();
    this._setFollow(false);
    to = Math.max(0, Math.min(last, to));
    this.selected = this.flat[to].row.id;
    this._scrollTo(to);
    this.later();
  }

  paint(store, v) {
    this._arrange(store);
    const n = this.flat.length;
    shown(this.grid, n > 0 || this.filter !== "" || Boolean(store.head && store.head.session));
    shown(this.tools, n > 6 || this.filter !== "");
    attr(this.followButton, "aria-pressed", String(this.follow));
    text(this.followButton, this.follow ? "☑ Follow" : "☐ Follow");
    const counts = (store.head && store.head.counts) || {};
    shown(this.firstError, Boolean(counts.failed || counts.crashed));
    text(this.hint, this.filter ? `${count(n)} of ${count(store.rows.size)} rows` : "");
    shown(this.empty, n === 0);
    text(this.empty, this.filter ? "No step matches." : "No steps yet.");
    attr(this.grid, "aria-rowcount", String(n + 1));
    const height = `${n * ROW}px`;
    if (this.body.style.height !== height) this.body.style.height = height;
    // As high as its rows, up to eight: it grows as steps come, and never shrinks under the reader's eye.
    this.tallest = Math.max(this.tallest || 0, Math.min(n, VISIBLE));
    const tall = `${(this.tallest + 1) * ROW}px`;
    if (this.view.style.height !== tall) this.view.style.height = tall;

    const session = store.head && store.head.session;
    const unsure = unsettled(store.head, v);
    // After its end nothing goes on, whatever was left open.
    const asOf = session && session.end ? session.end : v.asOf;
    if (this.follow && !unsure) this._chase();
    const range = this._range(store, asOf);
    this._scaleLine(range);
    const top = this.view.scrollTop;
    const from = Math.max(0, Math.floor(top / ROW) - SPARE);
    const to = Math.min(n, Math.ceil((top + (this.view.clientHeight || 12 * ROW)) / ROW) + SPARE);
    while (this.drawn.length < to - from) this.drawn.push(this._make());
    while (this.drawn.length > Math.max(to - from, 40)) this.drawn.pop().el.remove();
    this.drawn.forEach((parts, k) => {
      const i = from + k;
      shown(parts.el, i < to);
      if (i < to) this._fill(parts, i, range, unsure);
    });
    const active = this.index.get(this.selected);
    attr(this.grid, "aria-activedescendant", active !== undefined && active >= from && active < to ? `${this.prefix}${active}` : null);
  }

  /** Keep the newest thing that runs in sight. */
  _chase() {
    for (let i = this.flat.length - 1; i >= 0; i -= 1) {
      const { row, open } = this.flat[i];
      if (stateOf(row.state).active && !open) return this._scrollTo(i);
    }
  }

  /** From when to when the timeline reaches. */
  _range(store, asOf) {
    let from = Infinity;
    let to = -Infinity;
    let active = false;
    for (const row of store.rows.values()) {
      if (row.start === undefined) continue;
      const first = row.bars ? row.bars[0][0] : row.start;
      if (first < from) from = first;
      if (row.end !== undefined) to = Math.max(to, row.end);
      else { active = true; to = Math.max(to, row.start); }
    }
    if (active && Number.isFinite(asOf)) to = Math.max(to, asOf);
    return from < Infinity ? { from, to: Math.max(to, from + 100), asOf: Number.isFinite(asOf) ? asOf : to } : null;
  }

  _scaleLine(range) {
    const width = this.scale.clientWidth;
    // A label that would be cut off at the edge is left out.
    const fits = (m) => ((m.at - range.from) / (range.to - range.from)) * width < width - 56;
    const marks = range && width > 120 ? ticks(range.from, range.to, Math.floor(width / 85)).filter(fits) : [];
    const told = marks.map((m) => `${m.at}@${Math.round((1000 * (m.at - range.from)) / (range.to - range.from))}`).join();
    if (told === this.scaleTold) return;
    this.scaleTold = told;
    this.scale.replaceChildren(...marks.map((m) => {
      const share = (m.at - range.from) / (range.to - range.from);
      const mark = h("span", { class: "wsm-tick" }, tickLabel(m));
      mark.style.left = `${100 * share}%`;
      return mark;
    }));
  }

  _make() {
    const p = {
      indent: h("span", { class: "wsm-indent" }),
      twist: h("span", { class: "wsm-twist", "aria-hidden": "true" }),
      icon: h("span", { class: "wsm-icon", "aria-hidden": "true" }),
      name: h("span", { class: "wsm-label" }),
      chip: h("span", { class: "wsm-chip" }),
      chip2: h("span", { class: "wsm-chip" }),
      state: h("div", { class: "wsm-cell-state", role: "gridcell" }),
      time: h("div", { class: "wsm-time", role: "gridcell" }),
      lane: h("div", { class: "wsm-lane", role: "gridcell" }),
      bars: [],
    };
    p.el = h("div", { class: "wsm-row", role: "row" },
      h("div", { class: "wsm-name", role: "gridcell" }, p.indent, p.twist, p.icon, p.name, p.chip, p.chip2), p.state, p.time, p.lane);
    this.body.append(p.el);
    return p;
  }

  _fill(p, i, range, unsure) {
    const { row: placed, level, children, open } = this.flat[i];
    // The arrangement is kept while no row moves; what a row says may be newer.
    const row = this.store.rows.get(placed.id) || placed;
    const s = stateOf(row.state);
    const stale = unsure && Boolean(s.active);
    const el = p.el;
    attr(el, "id", `${this.prefix}${i}`);
    attr(el, "data-i", i);
    attr(el, "data-kind", row.kind);
    attr(el, "data-odd", i % 2 === 1);
    attr(el, "aria-level", level);
    attr(el, "aria-rowindex", i + 2);
    attr(el, "aria-expanded", children ? String(open) : null);
    attr(el, "aria-selected", String(row.id === this.selected));
    const place = `translateY(${i * ROW}px)`;
    if (el.style.transform !== place) el.style.transform = place;
    const indent = `${(Math.min(level, 12) - 1) * 18}px`;
    if (p.indent.style.width !== indent) p.indent.style.width = indent;
    text(p.twist, children ? (open ? "▾" : "▸") : "");
    text(p.icon, s.icon);
    attr(p.icon, "data-tone", stale ? "dim" : s.tone);
    text(p.name, row.name);
    attr(p.name, "title", [row.name, row.label, row.error, row.note].filter(Boolean).join("\n"));
    const far = progress(row);
    const chip = row.error && s.tone === "bad" ? row.error.split(":")[0] : row.attempt ? `attempt ${row.attempt}` : s.active ? far : "";
    const orphan = row.kind === "step" && level === 1 && "not placed yet";
    const chip2 = (row.attempt && s.active && far) || (row.attempt && row.error && s.tone === "bad" && `attempt ${row.attempt}`) || orphan || "";
    for (const [box, words] of [[p.chip, chip], [p.chip2, chip2]]) {
      shown(box, words !== "");
      text(box, words);
    }
    attr(p.chip2, "title", orphan ? "The chain or the step that this belongs to has not been seen." : null);
    attr(p.chip, "data-tone", row.error && s.tone === "bad" ? "bad" : null);
    text(p.state, stale ? s.past : s.word);
    attr(p.state, "data-tone", stale ? "dim" : s.tone);
    const start = row.start ?? NaN;
    text(p.time, row.end !== undefined ? duration(row.end - start) : s.active && range ? duration(range.asOf - start, true) : "");
    this._bars(p, row, stale, range, far);
  }

  _bars(p, row, stale, range, far) {
    const bars = row.bars || (row.start !== undefined ? [[row.start, row.end ?? null, row.state]] : []);
    while (p.bars.length < bars.length) {
      const fill = h("i", {});
      const bar = h("span", { class: "wsm-span" }, fill);
      p.lane.append(bar);
      p.bars.push([bar, fill]);
    }
    const share = (t) => (100 * (t - range.from)) / (range.to - range.from);
    p.bars.forEach(([bar, fill], k) => {
      const told = range ? bars[k] : undefined;
      shown(bar, Boolean(told));
      if (!told) return;
      const [start, end, state] = told;
      const s = stateOf(state);
      const left = Math.min(99.4, Math.max(0, share(start)));
      const right = Math.min(100, share(end ?? range.asOf));
      attr(bar, "data-tone", s.tone);
      attr(bar, "data-active", Boolean(s.active));
      attr(bar, "data-stale", stale && Boolean(s.active));
      bar.style.left = `${left.toFixed(2)}%`;
      bar.style.width = `${Math.max(0, right - left).toFixed(2)}%`;
      attr(bar, "title", `${state.replace("_", " ")} ${clockTime(start, true)}${end ? " to " + clockTime(end, true) : ""}${far ? ", " + far : ""}`);
      const part = s.active && row.total && k === bars.length - 1 ? Math.min(1, row.done / row.total) : 0;
      shown(fill, part > 0);
      const width = `${(100 * part).toFixed(1)}%`;
      if (fill.style.width !== width) fill.style.width = width;
    });
  }
}
