// What a restoring looks like: the recording, the counts, a row for each recorded cell, and the buttons.

import { attr, h, shown, text } from "./dom.js";
import { clockTime, count, stateOf } from "./format.js";
import { bytes } from "./texts.js";

const ROWS = 1000; // rows that are drawn; there is a word about the others

const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

function day(ms) {
  const d = new Date(ms);
  return `${d.toLocaleDateString(undefined, { day: "numeric", month: "short" })}, ${clockTime(ms)}`;
}

/** What is to be said of a row: `[tone, words]`. */
export function wordsOf(row) {
  if (row.status === "working") return ["run", "…"];
  if (row.status === "restored") return row.note ? ["warn", `restored in part: ${row.note}`] : ["good", "✓ restored"];
  if (row.status === "undone") return ["dim", "undone"];
  if (row.status === "skipped") return ["warn", `left alone: ${row.note}`];
  const more = [];
  if (row.how === "source") more.push("found by its source");
  if (row.how === "unsure") more.push("a guess: several cells have this source");
  if (row.later) more.push(`ran ${row.later === 1 ? "once" : `${row.later} times`} more, with another source`);
  if (row.open) more.push(stateOf(row.state).word);
  if (row.widget) more.push("shows a widget now");
  const words = (first) => [...first, ...more].join(" · ");
  switch (row.verdict) {
    case "absent": return ["dim", "is not in this notebook"];
    case "changed": return ["dim", "was edited since: left alone"];
    case "running": return ["dim", "runs now: left alone"];
    case "same": return ["dim", "has this already"];
    case "compare": return ["dim", "comparing …"];
    case "replaces": return ["warn", words(["replaces what is there"])];
    default: return [row.how === "unsure" || row.open ? "warn" : "dim", words([])];
  }
}

export class Sheet {
  constructor(restoring) {
    this.restoring = restoring;
    this.planned = null;
    this.lines = new Map(); // row: its elements
    this.title = h("strong", { class: "wsm-title" });
    this.about = h("span", { class: "wsm-dim" });
    this.head = h("div", { class: "wsm-strip wsr-head" },
      h("span", { class: "wsm-left" }, h("span", { "aria-hidden": "true" }, "⟲"), this.title, this.about));
    this.summary = h("div", { class: "wsr-summary" });
    this.list = h("ul", { class: "wsr-list", "aria-label": "recorded cells" });
    this.more = h("div", { class: "wsr-more wsm-dim" });
    this.go = h("button", { class: "wsm-button wsr-go", type: "button", onclick: () => restoring.restore() });
    this.undo = h("button", { class: "wsm-button", type: "button", onclick: () => restoring.undo() }, "Undo");
    this.again = h("button", { class: "wsm-button", type: "button", onclick: () => restoring.look() }, "Look again");
    this.copy = h("button", { class: "wsm-button", type: "button", onclick: () => restoring.copy() }, "Write a restored copy");
    this.told = h("div", { class: "wsr-told" });
    this.command = h("code", { class: "wsr-command" });
    this.acts = h("div", { class: "wsr-acts" }, this.go, this.undo, this.again, this.copy);
    this.terminal = h("div", { class: "wsr-terminal wsm-dim" }, "The same in a terminal: ", this.command);
    this.spoken = h("div", { class: "wsm-spoken", role: "status", "aria-live": "polite" });
    this.el = h("section", { class: "wsm wsr", "aria-label": "restore recorded outputs" },
      this.head, this.summary, this.list, this.more, this.acts, this.told, this.terminal, this.spoken);
    this.stop = restoring.listen(() => this.later());
    this.paint();
  }

  gone() {
    this.stop();
    if (this.planned !== null) cancelAnimationFrame(this.planned);
  }

  later() {
    if (this.planned === null) this.planned = requestAnimationFrame(() => this.paint());
  }

  paint() {
    this.planned = null;
    const r = this.restoring;
    const { recording } = r;
    attr(this.el, "data-phase", r.phase);
    text(this.title, recording ? `Restore ${recording.name}` : "Restore recorded outputs");
    text(this.about, recording ? this._about(recording) : "");
    const summary = this._summary();
    text(this.summary, summary);
    this._rows();
    const chosen = r.chosen;
    const replaced = chosen.filter((row) => row.verdict === "replaces").length;
    const words = `Restore ${plural(chosen.length, "cell")}${replaced ? `, replacing the outputs of ${count(replaced)}` : ""}`;
    text(this.go, r.phase === "restoring" ? "Restoring …" : words);
    shown(this.go, r.reachable && (r.phase === "restoring" || ["comparing", "ready"].includes(r.phase)) && (r.busy || r.choices.length > 0));
    attr(this.go, "disabled", r.phase !== "ready" || !chosen.length || r.gone !== "");
    shown(this.undo, r.undoable.length > 0 && !r.busy);
    shown(this.again, ["done", "failed"].includes(r.phase) && r.gone === "");
    attr(this.copy, "disabled", r.copying || r.gone !== "");
    text(this.copy, r.copying ? "Writing …" : "Write a restored copy");
    this._told();
    text(this.command, r.command());
    shown(this.terminal, !r.reachable || r.phase === "failed" || r.gone !== "");
    // One sentence at a time, and not for each cell.
    if (!r.busy && r.phase !== "comparing") text(this.spoken, summary);
    // What was restored above has pushed this down: the person still wants to see it, and "Undo".
    if (r.phase === "done" && this.phase === "restoring") this.el.scrollIntoView({ block: "nearest" });
    this.phase = r.phase;
  }

  _about(recording) {
    const parts = [`run ${recording.run}`];
    if (Number.isFinite(recording.began)) parts.push(`recorded ${day(recording.began)}`);
    if (recording.path) parts.push(recording.path.split(/[\\/]/).pop());
    if (!recording.own && recording.subjects.length) parts.push(`by ${recording.subjects.join(", ")}`);
    return parts.join(" · ");
  }

  _summary() {
    const r = this.restoring;
    if (r.gone) return `Nothing more can be read: ${r.gone}. Run %wsmonitor restore again.`;
    if (r.phase === "asking") return "Comparing the recording with this notebook …";
    if (r.phase === "failed") return `This did not work: ${r.why}`;
    if (!r.reachable) {
      return "This front-end does not let a widget change its document. A restored copy of the file can be written instead.";
    }
    const of = (test) => r.rows.filter(test).length;
    if (r.phase === "done") {
      const restored = of((row) => row.status === "restored");
      const left = of((row) => row.status === "skipped");
      const undone = of((row) => row.status === "undone");
      if (undone) return `${plural(undone, "cell")} put back as before${left ? `, ${count(left)} left alone` : ""}.`;
      return `${plural(restored, "cell")} restored${left ? `, ${count(left)} left alone` : ""}. Save the notebook to keep the outputs in its file.`;
    }
    const parts = [
      [r.choices.length, "can be restored"],
      [of((row) => row.verdict === "compare"), "being compared"],
      [of((row) => row.verdict === "same"), "already as recorded"],
      [of((row) => row.verdict === "changed"), "edited since"],
      [of((row) => row.verdict === "running"), "running now"],
      [of((row) => row.verdict === "absent"), "not in this notebook"],
    ].filter(([n]) => n).map(([n, words]) => `${count(n)} ${words}`);
    return parts.length ? `Recorded cells: ${parts.join(", ")}.` : "Nothing was recorded but the recording itself.";
  }

  _rows() {
    const rows = this.restoring.rows.slice(0, ROWS);
    shown(this.list, rows.length > 0 && this.restoring.reachable);
    for (const [row, line] of this.lines) {
      if (!rows.includes(row)) {
        line.el.remove();
        this.lines.delete(row);
      }
    }
    for (const row of rows) this._line(row);
    const hidden = this.restoring.rows.length - rows.length;
    shown(this.more, hidden > 0 && this.restoring.reachable);
    text(this.more, hidden > 0 ? `… and ${plural(hidden, "more cell")}` : "");
  }

  _line(row) {
    let line = this.lines.get(row);
    if (!line) {
      const box = h("input", { type: "checkbox", onchange: (event) => this.restoring.choose(row, event.target.checked) });
      const words = h("span", { class: "wsr-words" });
      const label = h("label", {},
        box,
        h("span", { class: "wsr-count" }, row.count === null ? "[ ]" : `[${row.count}]`),
        h("code", { class: "wsr-source" }, row.label || "(empty)"),
        words,
        h("span", { class: "wsr-size wsm-dim" }, row.outputs === 0 ? "no output" : bytes(row.size)));
      line = { el: h("li", {}, label), box, words };
      this.lines.set(row, line);
      this.list.append(line.el);
    }
    const choice = !row.status && (row.verdict === "new" || row.verdict === "replaces");
    const [tone, words] = wordsOf(row);
    attr(line.el, "data-choice", choice);
    attr(line.box, "disabled", !choice || this.restoring.phase !== "ready");
    line.box.checked = row.status === "restored" || (choice && row.checked);
    attr(line.words, "data-tone", tone);
    text(line.words, words);
    attr(line.words, "title", words);
  }

  _told() {
    const { copied } = this.restoring;
    shown(this.told, copied !== null);
    if (copied === null) return;
    const words = copied.error
      ? `No copy was written: ${copied.error}`
      : [`Written: ${copied.path}, ${plural(copied.cells, "cell")} with recorded outputs`, ...copied.lines].join("; ");
    attr(this.told, "data-tone", copied.error ? "bad" : "plain");
    text(this.told, words);
  }
}
