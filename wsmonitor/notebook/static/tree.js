// The tree of chains and steps with its timeline: a treegrid of which only the visible rows exist.

import { Arrangement } from "./arrange.js";
import { attr, h, shown, text } from "./dom.js";
import { age, stateOf } from "./format.js";
import { fillRow, makeRow } from "./row.js";
import { Timeline } from "./timeline.js";
import { Tools } from "./tools.js";
import { unsettled } from "./verdict.js";

export const ROW = 25; // pixels; fixed, so that a row's place is known without measuring
const SPARE = 4; // rows beyond the visible ones
export const VISIBLE = 8; // rows in sight, so that the whole view stays below 420 pixels
const BUDGET = 12; // milliseconds of a painting for rows that have come
const TYPING = 800; // milliseconds after which a typed letter begins a new word

const SKEW = 60_000; // milliseconds by which times of several clocks may differ without a word

/** What is to be said of times that cannot be of one clock; "" if they can. Programs tell the times of their own. */
function skewed(first, last, session, now) {
  const ahead = last - now;
  const before = session && Number.isFinite(session.start) ? session.start - first : 0;
  const [by, words] = ahead > SKEW ? [ahead, "ahead of the server's clock"] : before > SKEW ? [before, "before the session's own beginning"] : [0, ""];
  return by && Number.isFinite(by) ? `⚠ Clocks differ: some times lie ${age(by)} ${words}. Bars and durations may be off by as much.` : "";
}

let serial = 0;

export class Tree {
  /**
   * `later()` asks for a new painting. `act` may have `select(id)`: a row was chosen; `open(id)`: with Enter
   * or a click, `close()`: Escape was pressed; `replay()`: replaying was asked for.
   */
  constructor(later, act = {}) {
    this.later = later;
    this.act = act;
    this.prefix = `wsm-${(serial += 1)}-`;
    this.closed = new Set();
    this.follow = true;
    this.stopped = ""; // why it does not follow any more, in words
    this.selected = null; // a row's id
    this.store = null;
    this.arranged = null;
    this.drawn = []; // the row elements, reused
    this.visible = VISIBLE; // rows in sight at the most; the page may give less
    this.roomy = VISIBLE; // the same, as of the last painting
    this.typed = { word: "", at: -Infinity };

    this.timeline = new Timeline(later);
    this.tools = new Tools({
      filter: (words, states) => { this.filter = [words, states]; this.arranged.filter(words, states); later(); },
      resized: later,
      firstError: () => this._toFirstError(),
      follow: (on) => this._setFollow(on, ""),
      replay: () => act.replay && act.replay(),
    }, this.timeline.tools);
    this.filter = ["", null];
    this.sort = "order";
    this.headers = {};
    const header = (key, cls, words) => {
      const button = h("button", { type: "button", class: "wsm-sort", title: `Sort by ${words.toLowerCase()}`, onclick: () => this._sortBy(key) }, words);
      this.headers[key] = h("div", { class: cls, role: "columnheader", "data-key": key }, button);
      return this.headers[key];
    };
    this.header = h("div", { class: "wsm-row wsm-header", role: "row", "aria-rowindex": "1" },
      header("name", "wsm-name", "Step"), header("state", "wsm-cell-state", "State"), header("time", "wsm-time", "Time"), this.timeline.scale);
    this.body = h("div", { class: "wsm-body", role: "rowgroup" });
    // The header scrolls along, and sticks: so it is as wide as the rows, with and without a scroll bar.
    this.view = h("div", { class: "wsm-view", role: "presentation" }, h("div", { role: "rowgroup", class: "wsm-headgroup" }, this.header), this.body);
    this.empty = h("div", { class: "wsm-empty" });
    this.grid = h("div", { class: "wsm-grid", role: "treegrid", tabindex: "0", "aria-label": "Chains and steps", "aria-colcount": "4" }, this.view);
    this.skew = h("div", { class: "wsm-skew", role: "note", hidden: true });
    this.el = h("div", { class: "wsm-tree" }, this.tools.el, this.skew, this.grid, this.empty);

    this.view.addEventListener("scroll", () => later(), { passive: true });
    // Only what the reader does stops following; our own scrolling fires "scroll" alone.
    for (const kind of ["wheel", "pointerdown", "touchmove"]) {
      this.view.addEventListener(kind, (event) => {
        if (kind !== "pointerdown" || event.target === this.view) this._setFollow(false, "you scrolled");
      }, { passive: true });
    }
    this.view.addEventListener("wheel", (event) => {
      const across = event.shiftKey && !event.deltaX ? event.deltaY : event.deltaX;
      if (Math.abs(across) > Math.abs(event.shiftKey ? 0 : event.deltaY) && this.timeline.pan(across / 600)) event.preventDefault();
    }, { passive: false });
    this.grid.addEventListener("keydown", (event) => this._key(event));
    this.body.addEventListener("click", (event) => this._click(event));
    this.body.addEventListener("dblclick", (event) => {
      const node = this._nodeOf(event);
      if (node && event.target.closest(".wsm-lane")) this.timeline.zoomTo(node.row);
    });
  }

  /** Scroll to a row, opening what is above it. */
  reveal(store, id) {
    if (!store.rows.has(id)) return;
    this._arrange(store, Infinity);
    if (this.arranged.filtered) this.tools.clear();
    this.arranged.unfold(id);
    this.arranged.update();
    this._setFollow(false, "a step was looked up");
    this._select(id);
    this._size();
    this._scrollTo(this.arranged.place(id));
    this.later();
  }

  /** Take back what was observed. */
  stop() {
    if (this.arranged) this.arranged.stop();
  }

  _setFollow(on, why) {
    if (this.follow === on) return;
    this.follow = on;
    this.stopped = on ? "" : why;
    this.later();
  }

  _sortBy(key) {
    this.sort = this.sort === key ? "order" : key;
    for (const [name, el] of Object.entries(this.headers)) {
      attr(el, "aria-sort", name === this.sort ? (name === "time" ? "descending" : "ascending") : null);
    }
    if (this.arranged) this.arranged.order(this.sort);
    this.later();
  }

  _toFirstError() {
    const { store } = this;
    const broken = [...store.rows.values()].filter((row) => row.kind === "step" && (row.state === "failed" || row.state === "crashed"));
    // The deepest failure is the cause; those above it only pass it on.
    const above = new Set(broken.map((row) => store.parentOf(row)).filter(Boolean).map((row) => row.id));
    const first = broken.filter((row) => !above.has(row.id)).sort((a, b) => (a.end ?? 0) - (b.end ?? 0))[0];
    if (first) this.reveal(store, first.id);
  }

  _scrollTo(i) {
    if (i < 0) return;
    const top = i * ROW;
    const height = this.view.clientHeight - ROW;
    if (top < this.view.scrollTop) this.view.scrollTop = top;
    // In whole rows, so that none is cut by the header.
    else if (top + ROW > this.view.scrollTop + height) this.view.scrollTop = Math.ceil((top + ROW - height) / ROW) * ROW;
  }

  _arrange(store, budget) {
    if (this.store !== store) {
      if (this.arranged) this.arranged.stop();
      this.store = store;
      this.arranged = new Arrangement(store, this.closed);
      this.arranged.order(this.sort);
      this.arranged.filter(...this.filter);
    }
    const at = this.follow ? null : this.arranged.flat[Math.floor(this.view.scrollTop / ROW)];
    const was = at ? at.at : 0;
    if (!this.arranged.update(budget)) this.later();
    // Who reads further down is not pushed away by rows that come above.
    if (at && was > 0) {
      const now = this.arranged.place(at.id);
      if (now >= 0 && now !== was) {
        this._size();
        this.view.scrollTop += (now - was) * ROW;
      }
    }
  }

  _size() {
    const height = `${this.arranged.flat.length * ROW}px`;
    if (this.body.style.height !== height) this.body.style.height = height;
  }

  _nodeOf(event) {
    const el = event.target.closest(".wsm-row");
    return el && this.arranged.flat[Number(el.dataset.i)];
  }

  _click(event) {
    const node = this._nodeOf(event);
    if (!node) return;
    this._setFollow(false, "a step was chosen");
    if (event.target.closest(".wsm-twist") && node.kids.length) this.arranged.fold(node.id, !node.open);
    else {
      this._select(node.id);
      if (this.act.open) this.act.open(node.id, false);
    }
    this.later();
  }

  _select(id) {
    this.selected = id;
    if (this.act.select) this.act.select(id);
  }

  _key(event) {
    if (event.target !== this.grid || event.altKey || event.ctrlKey || event.metaKey || !this.arranged) return;
    const { flat } = this.arranged;
    const last = flat.length - 1;
    const at = this.arranged.place(this.selected);
    const node = flat[at];
    const page = Math.max(1, Math.floor(this.view.clientHeight / ROW) - 2);
    const { key } = event;
    let to = at;
    if (event.shiftKey && key === "ArrowLeft") this.timeline.pan(-0.25);
    else if (event.shiftKey && key === "ArrowRight") this.timeline.pan(0.25);
    else if (key === "ArrowDown") to = at + 1;
    else if (key === "ArrowUp") to = at - 1;
    else if (key === "Home") to = 0;
    else if (key === "End") to = last;
    else if (key === "PageDown") to = at + page;
    else if (key === "PageUp") to = at - page;
    else if (node && key === "ArrowRight") {
      if (node.kids.length && !node.open) this.arranged.fold(node.id, true);
      else if (node.kids.length) to = at + 1;
    } else if (node && key === "ArrowLeft") {
      if (node.open && !this.arranged.filtered) this.arranged.fold(node.id, false);
      else if (node.above && node.above.id) to = this.arranged.place(node.above.id);
    } else if (node && key === "Enter" && this.act.open) this.act.open(node.id, true);
    else if (key === "Escape" && this.act.close) { if (!this.act.close()) return; }
    else if (node && key === " ") this.arranged.fold(node.id, !node.open);
    else if (key === "+" || key === "=") this.timeline.zoom(0.5);
    else if (key === "-") this.timeline.zoom(2);
    else if (key.length === 1 && key !== " ") to = this._typed(key, at);
    else return;
    event.preventDefault();
    // JupyterLab listens for the same keys to move between cells.
    event.stopPropagation();
    if (last >= 0 && to !== at) {
      this._setFollow(false, "a step was chosen");
      to = Math.max(0, Math.min(last, to));
      this._select(flat[to].id);
      this._scrollTo(to);
    }
    this.later();
  }

  /** The next row whose name begins with what was typed, or `at`. */
  _typed(letter, at) {
    const now = performance.now();
    const { flat } = this.arranged;
    const word = (now - this.typed.at > TYPING ? "" : this.typed.word) + letter.toLowerCase();
    this.typed = { word, at: now };
    // A longer word may still be this row's; a first letter means the next one.
    const from = word.length > 1 ? Math.max(at, 0) : at + 1;
    for (let n = 0; n < flat.length; n += 1) {
      const i = (from + n) % flat.length;
      if (flat[i].row.name.toLowerCase().startsWith(word)) return i;
    }
    return at;
  }

  paint(store, v, options = {}) {
    this._arrange(store, BUDGET);
    const { flat, first, last, running, filtered } = this.arranged;
    const n = flat.length;
    this.tools.paint(store, this, Boolean(options.replayable));
    shown(this.grid, n > 0);
    shown(this.empty, n === 0 && (filtered || Boolean(store.head && store.head.session)));
    text(this.empty, filtered ? "No step matches." : store.loading ? "The steps are on their way." : "No steps yet.");
    attr(this.grid, "aria-rowcount", String(n + 1));
    this._size();
    // As high as its rows, up to eight: it grows as steps come, and never shrinks under the reader's eye.
    this.tallest = Math.max(this.tallest || 0, Math.min(n, this.visible));
    const tall = `${(Math.min(this.tallest, this.visible) + 1) * ROW}px`;
    if (this.view.style.height !== tall) this.view.style.height = tall;
    // What was chosen stays in sight as the details beside it close.
    if (this.visible < this.roomy) this._scrollTo(this.arranged.place(this.selected));
    this.roomy = this.visible;

    const session = store.head && store.head.session;
    const unsure = unsettled(store.head, v);
    // After its end nothing goes on, whatever was left open.
    const asOf = session && session.end && !store.span ? session.end : v.asOf;
    if (this.follow && !unsure) this._scrollTo(this.arranged.newestActive());
    const span = store.span || { from: first, to: last };
    this.timeline.measure(span.from, span.to, running.size > 0, asOf);
    const skew = store.span || v.frozen ? "" : skewed(first, last, session, store.clock.now());
    shown(this.skew, skew !== "");
    text(this.skew, skew);
    this.timeline.paintScale();
    this.timeline.paintCursor(this.body, store.span ? asOf : NaN);
    // Where fewer rows are left, the page takes its scrolling back a moment later.
    const top = Math.min(this.view.scrollTop, Math.max(0, (n + 1) * ROW - this.view.clientHeight));
    const from = Math.max(0, Math.floor(top / ROW) - SPARE);
    const to = Math.min(n, Math.ceil((top + (this.view.clientHeight || 12 * ROW)) / ROW) + SPARE);
    const drawn = [];
    // What is chosen stays in the page, so that a screen reader's place is not lost by scrolling.
    const chosen = this.arranged.place(this.selected);
    if (chosen >= 0 && chosen < from) drawn.push(chosen);
    for (let i = from; i < to; i += 1) drawn.push(i);
    if (chosen >= to) drawn.push(chosen);
    this._draw(drawn, unsure);
    attr(this.grid, "aria-activedescendant", chosen >= 0 ? `${this.prefix}${chosen}` : null);
  }

  /** Draw these rows. A row keeps its elements while it is drawn: what one points at does not become another. */
  _draw(indices, unsure) {
    const { flat } = this.arranged;
    const there = new Map(this.drawn.map((parts) => [parts.id, parts]));
    const next = indices.map((i) => {
      const parts = there.get(flat[i].id);
      there.delete(flat[i].id);
      return parts;
    });
    const spare = [...there.values()];
    let place = this.body.firstChild;
    next.forEach((kept, k) => {
      const parts = kept || spare.pop() || makeRow();
      next[k] = parts;
      parts.id = flat[indices[k]].id;
      // In the order in which they are seen, which is that of a screen reader.
      if (parts.el === place) place = place.nextSibling;
      else this.body.insertBefore(parts.el, place);
      shown(parts.el, true);
      this._fill(parts, indices[k], unsure);
    });
    for (const parts of spare) parts.el.remove();
    this.drawn = next;
  }

  _fill(parts, i, unsure) {
    const node = this.arranged.flat[i];
    const { row } = node;
    const { el } = parts;
    attr(el, "id", `${this.prefix}${i}`);
    attr(el, "data-i", i);
    attr(el, "data-odd", i % 2 === 1);
    attr(el, "aria-rowindex", i + 2);
    attr(el, "aria-selected", String(row.id === this.selected));
    const place = `translateY(${i * ROW}px)`;
    if (el.style.transform !== place) el.style.transform = place;
    fillRow(parts, node, this.timeline, unsure && Boolean(stateOf(row.state).open));
  }
}
