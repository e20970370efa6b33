// The timeline beside the tree: which stretch of time is in sight, its scale, and a row's bars.

import { attr, h, shown } from "./dom.js";
import { clockTime, stateOf, tickLabel, ticks } from "./format.js";

const CLOSEST = 10; // milliseconds: the shortest stretch that can be zoomed to

export class Timeline {
  /** `later()` asks for a new painting. */
  constructor(later) {
    this.later = later;
    this.span = null; // milliseconds in sight, or null for all there is
    this.to = null; // its right end, or null while that keeps up with the newest
    this.whole = null;
    this.range = null;
    this.scale = h("div", { class: "wsm-scale", role: "columnheader", "aria-label": "Timeline" });
    this.out = h("button", { type: "button", class: "wsm-button", "aria-label": "Zoom the timeline out", onclick: () => this.zoom(2) }, "−");
    this.in = h("button", { type: "button", class: "wsm-button", "aria-label": "Zoom the timeline in", onclick: () => this.zoom(0.5) }, "+");
    this.fit = h("button", { type: "button", class: "wsm-button", "aria-label": "Fit the timeline to the whole session", onclick: () => this.fitAll() }, "fit");
    this.tools = h("span", { class: "wsm-zoom", role: "group", "aria-label": "Zoom" }, h("span", { class: "wsm-dim", "aria-hidden": "true" }, "Zoom"), this.out, this.in, this.fit);
  }

  /** Show `factor` times as much. What is newest stays in sight, if it is. */
  zoom(factor) {
    const { whole, range } = this;
    if (!whole || !range) return;
    const all = whole.to - whole.from;
    const span = Math.max(CLOSEST, (range.to - range.from) * factor);
    if (span >= all) return this.fitAll();
    if (this.to !== null) this.to = Math.min(whole.to, (range.from + range.to) / 2 + span / 2);
    this.span = span;
    this.later();
  }

  fitAll() {
    this.span = this.to = null;
    this.later();
  }

  /** Move by `share` of what is in sight. Returns whether there was anything to move. */
  pan(share) {
    const { whole, range } = this;
    if (this.span === null || !whole || !range) return false;
    const to = Math.max(whole.from + this.span, range.to + share * this.span);
    this.to = to >= whole.to ? null : to;
    this.later();
    return true;
  }

  /** Zoom so that a row's bars fill the lane. */
  zoomTo(row) {
    const start = row.bars && row.bars.length ? row.bars[0][0] : row.start;
    if (start === undefined || start === null || !this.whole) return;
    const end = row.end ?? this.whole.asOf;
    const margin = Math.max(CLOSEST, (end - start) * 0.05);
    this.span = end - start + 2 * margin;
    this.to = end + margin;
    if (this.span >= this.whole.to - this.whole.from) this.span = this.to = null;
    this.later();
  }

  /** Take the extent of all there is; `asOf` is the present, or what stands for it. */
  measure(first, last, active, asOf) {
    const known = Number.isFinite(asOf);
    if (!(first < Infinity)) return void (this.whole = this.range = null);
    const to = Math.max(last, active && known ? asOf : last, first + 100);
    this.whole = { from: first, to, asOf: known ? asOf : to };
    const right = this.span === null ? to : Math.min(this.to ?? to, to);
    this.range = { from: this.span === null ? first : Math.max(first, right - this.span), to: right, asOf: this.whole.asOf };
  }

  paintScale() {
    const { range, whole, scale } = this;
    attr(this.fit, "disabled", this.span === null);
    attr(this.out, "disabled", this.span === null);
    attr(this.in, "disabled", !whole);
    const width = scale.clientWidth;
    const share = (m) => (m.at - range.from) / (range.to - range.from);
    // A label that would be cut off at the edge is left out.
    const marks = range && width > 60 ? ticks(range.from, range.to, Math.floor(width / 85)).filter((m) => share(m) * width < width - 56) : [];
    const told = marks.map((m) => `${m.at}@${Math.round(1000 * share(m))}`).join();
    if (told === this.told) return;
    this.told = told;
    scale.replaceChildren(...marks.map((m) => {
      const mark = h("span", { class: "wsm-tick" }, tickLabel(m));
      mark.style.left = `${100 * share(m)}%`;
      return mark;
    }));
  }

  /** A line through all lanes at `t`, or none with NaN. */
  paintCursor(body, t) {
    const { range } = this;
    const share = range && t >= range.from && t <= range.to ? `${(100 * (t - range.from)) / (range.to - range.from)}%` : "";
    if (body.style.getPropertyValue("--wsm-cursor") === share) return;
    body.style.setProperty("--wsm-cursor", share);
    attr(body, "data-cursor", share !== "");
  }

  /** Draw `row` into `lane`; `kept` is the array of its elements, reused. */
  paintBars(lane, kept, row, stale, far) {
    const { range } = this;
    const parts = range ? this._parts(row) : [];
    while (kept.length < parts.length) {
      const fill = h("i", {});
      const bar = h("span", { class: "wsm-span" }, fill);
      lane.append(bar);
      kept.push([bar, fill]);
    }
    kept.forEach(([bar, fill], k) => {
      const part = parts[k];
      shown(bar, Boolean(part));
      if (!part) return;
      const { start, end, state, pause, newest, edge } = part;
      const s = stateOf(state);
      attr(bar, "data-tone", pause ? null : s.tone);
      attr(bar, "data-active", Boolean(s.active) && !pause && !edge);
      attr(bar, "data-stale", stale && Boolean(s.active) && !pause);
      attr(bar, "data-pause", pause);
      attr(bar, "data-edge", edge);
      const place = (t) => (100 * (t - range.from)) / (range.to - range.from);
      const left = edge === "left" ? 0 : edge === "right" ? 99.4 : Math.min(99.4, Math.max(0, place(start)));
      const right = edge ? left : Math.min(100, place(end ?? range.asOf));
      const x = `${left.toFixed(2)}%`;
      const width = `${Math.max(0, right - left).toFixed(2)}%`;
      if (bar.style.left !== x) bar.style.left = x;
      if (bar.style.width !== width) bar.style.width = width;
      const what = pause ? "paused" : stateOf(state).word;
      attr(bar, "title", `${what} ${clockTime(start, true)}${end ? " to " + clockTime(end, true) : ""}${newest && far ? ", " + far : ""}`);
      const share = s.active && row.total && newest && !pause ? Math.min(1, row.done / row.total) : 0;
      shown(fill, share > 0);
      const done = `${(100 * share).toFixed(1)}%`;
      if (fill.style.width !== done) fill.style.width = done;
    });
  }

  /** The attempts of a row, each cut where it was paused; what lies outside is a mark at the edge. */
  _parts(row) {
    const { range } = this;
    const bars = row.bars || (row.start !== undefined ? [[row.start, row.end ?? null, row.state]] : []);
    const parts = [];
    bars.forEach(([start, end, state], k) => {
      const newest = k === bars.length - 1;
      let from = start;
      const close = end ?? range.asOf;
      for (const [a, b] of row.pauses || []) {
        if (a < from || a > close) continue;
        const until = Math.min(b ?? close, close);
        parts.push({ start: from, end: a, state, newest: false }, { start: a, end: until, state, pause: true });
        from = until;
      }
      if (from < close || from === start) parts.push({ start: from, end: end ?? null, state, newest });
    });
    if (this.span === null) return parts;
    const inside = parts.filter((p) => (p.end ?? range.asOf) >= range.from && p.start <= range.to);
    if (inside.length || !parts.length) return inside;
    return [{ ...parts[0], edge: parts[0].start > range.to ? "right" : "left" }];
  }
}
