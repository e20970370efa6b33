// One row of the tree: its elements, and what they say.

import { attr, h, shown, text } from "./dom.js";
import { duration, progress, stateOf } from "./format.js";

const INDENT = 18; // pixels per level
const DEEPEST = 12; // levels that are indented

/** The elements of a row, empty. */
export function makeRow() {
  const p = {
    indent: h("span", { class: "wsm-indent" }),
    twist: h("span", { class: "wsm-twist", "aria-hidden": "true" }),
    icon: h("span", { class: "wsm-icon", "aria-hidden": "true" }),
    name: h("span", { class: "wsm-label", dir: "auto" }),
    chip: h("span", { class: "wsm-chip" }),
    chip2: h("span", { class: "wsm-chip" }),
    state: h("div", { class: "wsm-cell-state", role: "gridcell" }),
    time: h("div", { class: "wsm-time", role: "gridcell" }),
    lane: h("div", { class: "wsm-lane", role: "gridcell" }),
    bars: [],
  };
  p.el = h("div", { class: "wsm-row", role: "row" },
    h("div", { class: "wsm-name", role: "rowheader" }, p.indent, p.twist, p.icon, p.name, p.chip, p.chip2), p.state, p.time, p.lane);
  return p;
}

/** The chips of a row, `[words, tone, title]` each: at most two. */
function chips(row, s, level, far) {
  const found = [];
  const bad = s.tone === "bad";
  if (bad && (row.err || row.error)) found.push([row.err || row.error.split(":")[0], "bad", row.error || null]);
  if (row.attempt) found.push([`attempt ${row.attempt}`, null, null]);
  if (row.kind === "step" && level === 1) {
    found.push(["not placed yet", null, "The chain or the step that this belongs to has not been seen."]);
  }
  if (s.active && far) found.push([far, null, null]);
  return found.slice(0, 2);
}

/** Make a row say what `node` is; `stale`: it is not known to go on. */
export function fillRow(p, node, timeline, stale) {
  const { row, level, open } = node;
  const children = node.kids.length;
  const s = stateOf(row.state);
  attr(p.el, "data-kind", row.kind);
  attr(p.el, "aria-level", level);
  attr(p.el, "aria-expanded", children ? String(open) : null);
  const indent = `${(Math.min(level, DEEPEST) - 1) * INDENT}px`;
  if (p.indent.style.width !== indent) p.indent.style.width = indent;
  text(p.twist, children ? (open ? "▾" : "▸") : "");
  text(p.icon, s.icon);
  attr(p.icon, "data-tone", stale ? "dim" : s.tone);
  text(p.name, row.name);
  attr(p.name, "title", [row.name, row.label, row.error, row.note].filter(Boolean).join("\n"));
  const far = progress(row);
  const told = chips(row, s, level, far);
  [p.chip, p.chip2].forEach((box, k) => {
    const [words, tone, title] = told[k] || ["", null, null];
    shown(box, words !== "");
    text(box, words);
    attr(box, "data-tone", tone);
    attr(box, "title", title);
  });
  text(p.state, stale ? s.past : s.word);
  attr(p.state, "data-tone", stale ? "dim" : s.tone);
  const start = row.start ?? NaN;
  const { range } = timeline;
  text(p.time, row.end !== undefined ? duration(row.end - start) : s.active && range ? duration(range.asOf - start, true) : "");
  timeline.paintBars(p.lane, p.bars, row, stale, far);
}
