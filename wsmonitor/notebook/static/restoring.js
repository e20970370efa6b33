// The work of a restoring, without its looks: plan, compare, restore, undo. Everything outside is given to it.

import { sameOutputs, showsWidget } from "./document.js";

const AT_ONCE = 2; // pages of one cell's outputs under way
const AHEAD = 4; // cells whose outputs are under way; large ones come one by one
const KEEP = 16 * 1024 * 1024; // bytes of compared outputs that are kept for the restoring
const COMPARED = 4 * 1024 * 1024; // larger outputs are not compared, but taken for others

/** The outputs of execution `n`: `{outputs, count, notes}`, read page by page. */
async function outputsOf(ask, n) {
  const first = await ask({ do: "outputs", n, offset: 0 });
  const bytes = new Uint8Array(first.size);
  const put = (answer) => {
    const page = answer.buffers[0];
    const data = new Uint8Array(page.buffer || page, page.byteOffset || 0, page.byteLength);
    bytes.set(data, answer.offset);
    return data.byteLength;
  };
  const length = put(first);
  const offsets = [];
  for (let at = length; length > 0 && at < first.size; at += length) offsets.push(at);
  const reader = async () => {
    while (offsets.length) put(await ask({ do: "outputs", n, offset: offsets.shift() }));
  };
  await Promise.all(Array.from({ length: AT_ONCE }, reader));
  return { ...JSON.parse(new TextDecoder().decode(bytes)), size: first.size };
}

/** Which rows can be restored at all: `how` they were matched. */
export const MATCHED = new Set(["id", "source", "unsure"]);

export class Restoring {
  /**
   * @param ask (request) => Promise of the kernel's answer
   * @param document () => the open notebook, or null
   * @param self () => the id of the widget that is this
   * @param command () => the command line that does the same in a terminal
   */
  constructor({ ask, document, self, command }) {
    this.ask = ask;
    this.document = document;
    this.self = self;
    this.command = command;
    this.listeners = new Set();
    this.phase = "asking"; // "asking" | "comparing" | "ready" | "restoring" | "done" | "failed"
    this.reachable = true; // whether the front-end lets us at the document
    this.why = "";
    this.gone = ""; // why the kernel is not there any more
    this.recording = null;
    this.rows = [];
    this.undoable = []; // what was there before, newest last
    this.copied = null; // {path, lines} of a copy that was written, or {error}
    this.copying = false;
    this.kept = 0;
    this.turn = 0; // a look that was overtaken by another tells nothing
  }

  listen(fn) {
    this.listeners.add(fn);
    return () => this.listeners.delete(fn);
  }

  changed() {
    for (const fn of this.listeners) fn();
  }

  get busy() {
    return this.phase === "restoring";
  }

  kernelGone(why) {
    this.gone = why;
    this.changed();
  }

  /** Find out what could be done, and show it. */
  async look() {
    if (this.busy) return;
    const turn = ++this.turn;
    const stale = () => turn !== this.turn;
    const notebook = this.document();
    this.phase = "asking";
    this.reachable = notebook !== null;
    this.changed();
    try {
      const cells = notebook ? notebook.cells() : [];
      const answer = await this.ask({ do: "plan", cells: cells.map((cell) => notebook.told(cell)) });
      if (stale()) return;
      this.recording = answer.recording;
      this.kept = 0;
      this.rows = answer.rows
        .map((row) => this._row(row, notebook, row.place === null ? null : cells[row.place]))
        .filter((row) => row.verdict !== "self");
      this.phase = "comparing";
      this.changed();
      for (const row of this.rows) {
        if (row.verdict !== "compare") continue;
        await this._compare(row, notebook);
        if (stale()) return;
        this.changed();
      }
      this.phase = "ready";
    } catch (error) {
      if (stale()) return;
      this.phase = "failed";
      this.why = error.message;
    }
    this.changed();
  }

  _row(told, notebook, cell) {
    const row = { ...told, cell, source: cell ? notebook.source(cell) : "", verdict: "", checked: false, status: "", note: "", data: null };
    if (!cell || !MATCHED.has(row.how)) {
      row.verdict = row.how === "absent" ? "absent" : "changed";
      return row;
    }
    const there = notebook.outputs(cell);
    if (showsWidget(there, this.self())) row.verdict = "self";
    else if (notebook.running(cell)) row.verdict = "running";
    else if (there.length) row.verdict = row.size > COMPARED ? "replaces" : "compare";
    else row.verdict = row.outputs === 0 && cell.executionCount === row.count ? "same" : "new";
    row.widget = showsWidget(there);
    row.checked = this._wanted(row);
    return row;
  }

  // What is certain, and harms nothing that cannot be undone. The rest is for the person to tick.
  _wanted(row) {
    return (row.verdict === "new" || row.verdict === "replaces") && row.how !== "unsure" && !row.open && !row.widget;
  }

  async _compare(row, notebook) {
    const data = await outputsOf(this.ask, row.n);
    const there = notebook.outputs(row.cell);
    row.verdict = sameOutputs(there, data.outputs) ? "same" : "replaces";
    row.checked = this._wanted(row);
    if (row.verdict === "replaces" && this.kept + data.size <= KEEP) {
      this.kept += data.size;
      row.data = data;
    }
  }

  /** Rows that a person can choose. */
  get choices() {
    return this.rows.filter((row) => !row.status && (row.verdict === "new" || row.verdict === "replaces"));
  }

  get chosen() {
    return this.choices.filter((row) => row.checked);
  }

  choose(row, checked) {
    row.checked = checked;
    this.changed();
  }

  /** Give the chosen cells their recorded outputs. */
  async restore() {
    const notebook = this.document();
    if (this.phase !== "ready" || !notebook) return;
    const chosen = this.chosen;
    this.phase = "restoring";
    this.undoable = [];
    this.changed();
    // Decided once, for all: the first restored cell must not decide about the next.
    const trusted = notebook.trusted && this.recording.own;
    const coming = new Map();
    const fetch = (row) => {
      if (!coming.has(row)) coming.set(row, row.data ? Promise.resolve(row.data) : outputsOf(this.ask, row.n));
      return coming.get(row);
    };
    for (const [at, row] of chosen.entries()) {
      row.status = "working";
      this.changed();
      for (const next of chosen.slice(at + 1, at + AHEAD)) {
        // What fails is told when it is that cell's turn.
        if (next.size <= COMPARED) fetch(next).catch(() => {});
      }
      try {
        const data = await fetch(row);
        coming.delete(row);
        row.data = null;
        row.note = this._put(notebook, row, data, trusted);
        row.status = row.note ? "skipped" : "restored";
        if (row.status === "restored") row.note = (data.notes || []).join("; ");
      } catch (error) {
        row.status = "skipped";
        row.note = error.message;
      }
      this.changed();
    }
    this.phase = "done";
    this.changed();
  }

  // Whatever happened while the outputs were on their way, the cell is looked at again. Returns why it is left alone.
  _put(notebook, row, data, trusted) {
    const { cell } = row;
    if (cell.isDisposed || !notebook.cells().includes(cell)) return "the cell was deleted meanwhile";
    if (notebook.source(cell) !== row.source) return "the cell was edited meanwhile";
    if (notebook.running(cell)) return "the cell runs now";
    const before = { outputs: notebook.outputs(cell), count: cell.executionCount, trusted: cell.trusted };
    // Trust is Jupyter's decision: it is only ever taken away.
    notebook.put(cell, data.outputs, data.count, trusted && cell.trusted);
    this.undoable.push({ row, before, after: notebook.outputs(cell).length, count: cell.executionCount });
    return "";
  }

  /** Put back what was there before. */
  undo() {
    const notebook = this.document();
    if (this.busy || !notebook) return;
    for (const { row, before, after, count } of this.undoable.reverse()) {
      const { cell } = row;
      const other = cell.isDisposed || notebook.running(cell) || cell.executionCount !== count || notebook.outputs(cell).length !== after;
      if (other) {
        row.status = "skipped";
        row.note = "not undone: the cell was run or deleted since";
        continue;
      }
      notebook.put(cell, before.outputs, before.count, before.trusted);
      row.status = "undone";
      row.note = "";
    }
    this.undoable = [];
    this.changed();
  }

  /** Have the kernel write a restored copy of the notebook's file. */
  async copy() {
    this.copying = true;
    this.changed();
    try {
      this.copied = await this.ask({ do: "copy" });
    } catch (error) {
      this.copied = { error: error.message };
    }
    this.copying = false;
    this.changed();
  }
}
