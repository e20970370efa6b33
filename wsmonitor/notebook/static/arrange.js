// The rows in the order in which they are drawn, kept up row by row: what has not changed is neither
// sorted nor looked at again. Pure but for the clock that it is given.

import { stateOf } from "./format.js";

/** How siblings may be sorted. Running steps come first by time, the longest first: their order does not change as they run. */
export const SORTS = {
  order: (a, b) => (a.row.order || 0) - (b.row.order || 0),
  name: (a, b) => compareNames.compare(a.row.name, b.row.name),
  state: (a, b) => (RANK[a.row.state] ?? 9) - (RANK[b.row.state] ?? 9),
  time: (a, b) => took(b.row) - took(a.row) || (a.row.start || 0) - (b.row.start || 0),
};

const compareNames = new Intl.Collator(undefined, { numeric: true });
const RANK = { failed: 0, crashed: 0, awaiting_input: 1, paused: 2, cancelling: 3, running: 4, pending: 5, cancelled: 6, skipped: 7, succeeded: 8 };
const SLICE = 200; // rows between looks at the clock
const DEEP = 10_000; // levels: beyond, a circle is taken for granted

function took(row) {
  if (row.start === undefined) return -1;
  return row.end === undefined ? Number.MAX_SAFE_INTEGER : row.end - row.start;
}

function makeNode(id, serial) {
  return { id, serial, row: null, above: null, kids: [], untidy: false, level: 0, at: -1, open: false, hay: "", hit: false, kept: 0 };
}

export class Arrangement {
  /** `closed` has the ids of collapsed rows; `clock()` gives milliseconds. */
  constructor(store, closed = new Set(), clock = () => performance.now()) {
    this.store = store;
    this.closed = closed;
    this.clock = clock;
    this.tracker = store.track();
    this.nodes = new Map();
    this.root = makeNode("", 0);
    this.flat = []; // nodes in drawing order, as of the last `update`
    this.active = new Set(); // nodes that run, are paused …
    this.running = new Set(); // nodes that have begun and not ended
    this.first = Infinity; // the earliest start
    this.last = -Infinity; // the latest start or end
    this.sort = "order";
    this.words = [];
    this.states = null; // the states to be shown, or null for all
    this.pending = [];
    this.done = 0;
    this.waiting = new Map(); // id of a row that is not there: ids of those that belong under it
    this.circles = new Set();
    this.stale = true;
    this.serial = 0;
  }

  stop() {
    this.tracker.stop();
  }

  get filtered() {
    return this.words.length > 0 || this.states !== null;
  }

  /** How many rows still wait for their place. */
  get behind() {
    return this.pending.length - this.done;
  }

  /** Show only rows with all `words` (a text), in one of `states` (a Set, or null), with what is above them. */
  filter(words, states) {
    this.words = words.toLowerCase().split(/\s+/).filter(Boolean);
    this.states = states;
    for (const node of this.nodes.values()) { node.kept = 0; node.hit = false; }
    if (this.filtered) for (const node of this.nodes.values()) this._judge(node);
    this.stale = true;
  }

  /** Sort siblings by one of SORTS. */
  order(sort) {
    this.sort = sort;
    this.root.untidy = true;
    for (const node of this.nodes.values()) node.untidy = node.kids.length > 1;
    this.stale = true;
  }

  /** Collapse or open a row. */
  fold(id, open) {
    if (open) this.closed.delete(id);
    else this.closed.add(id);
    this.stale = true;
  }

  /** Open all that is above a row. */
  unfold(id) {
    for (let at = this.nodes.get(id); at && at !== this.root; at = at.above) {
      if (at.id !== id && this.closed.delete(at.id)) this.stale = true;
    }
  }

  /** Where a row is drawn, or -1. */
  place(id) {
    const node = this.nodes.get(id);
    return node && this.flat[node.at] === node ? node.at : -1;
  }

  /** Take what has changed, for at most `budget` milliseconds. Returns whether all has its place now. */
  update(budget = Infinity) {
    const ids = this.tracker.take();
    if (ids === null) {
      for (const node of [...this.nodes.values()]) if (!this.store.rows.has(node.id)) this._drop(node);
      // Another session: the old one's times are no longer of interest.
      if (!this.nodes.size) [this.first, this.last] = [Infinity, -Infinity];
      this.pending = [...this.store.rows.keys()];
      this.done = 0;
    } else if (ids.length) {
      this.pending = this.behind ? this.pending.slice(this.done).concat(ids) : ids;
      this.done = 0;
    }
    const until = this.clock() + budget;
    while (this.done < this.pending.length) {
      this._put(this.pending[this.done]);
      this.done += 1;
      if (this.done % SLICE === 0 && this.clock() > until) break;
    }
    if (this.circles.size) for (const id of [...this.circles]) this._seat(this.nodes.get(id));
    if (this.stale) this._flatten();
    return this.behind === 0;
  }

  /** The row that runs and is drawn lowest, or -1. */
  newestActive() {
    let found = -1;
    for (const node of this.active) if (!node.open && node.at > found && this.flat[node.at] === node) found = node.at;
    return found;
  }

  _put(id) {
    const row = this.store.rows.get(id);
    let node = this.nodes.get(id);
    if (!row) {
      if (node) this._drop(node);
      return;
    }
    const fresh = !node;
    if (fresh) {
      node = makeNode(id, (this.serial += 1));
      this.nodes.set(id, node);
    }
    const old = node.row;
    node.row = row;
    node.hay = "";
    if (fresh || old.parent !== row.parent || old.chain !== row.chain) this._seat(node);
    if (!fresh && old !== row && SORTS[this.sort]({ row: old }, node) !== 0) {
      node.above.untidy = true;
      this.stale = true;
    }
    const active = Boolean(stateOf(row.state).active);
    if (active) this.active.add(node);
    else this.active.delete(node);
    this._extent(node);
    if (this.filtered) this._judge(node);
    if (fresh || (row.also || []).length !== (old.also || []).length) {
      for (const known of [id, ...(row.also || [])]) {
        const those = this.waiting.get(known);
        this.waiting.delete(known);
        if (those) for (const other of those) this._seat(this.nodes.get(other));
      }
    }
  }

  _extent(node) {
    const { row } = node;
    const start = row.bars && row.bars.length ? row.bars[0][0] : row.start;
    if (start === undefined || start === null) return void this.running.delete(node);
    this.first = Math.min(this.first, start);
    this.last = Math.max(this.last, row.end ?? row.start ?? start);
    if (row.end === undefined) this.running.add(node);
    else this.running.delete(node);
  }

  /** Whether a row passes the filter; told to all above it. */
  _judge(node) {
    const { row } = node;
    let hit = this.states === null || this.states.has(row.state);
    if (hit && this.words.length) {
      if (!node.hay) node.hay = `${row.name}\n${row.state}\n${stateOf(row.state).word}\n${row.error || ""}\n${row.label || ""}`.toLowerCase();
      hit = this.words.every((word) => node.hay.includes(word));
    }
    if (hit === node.hit) return;
    node.hit = hit;
    this.stale = true;
    for (let at = node; at; at = at.above) at.kept += hit ? 1 : -1;
  }

  /** Put a node under what it belongs to, as far as that is known. */
  _seat(node) {
    if (!node || !node.row) return;
    const wanted = this._wanted(node);
    if (node.above === wanted) return;
    this._leave(node);
    node.above = wanted;
    if (node.kept) for (let at = wanted; at; at = at.above) at.kept += node.kept;
    const { kids } = wanted;
    const before = kids[kids.length - 1];
    if (before && (before.above !== wanted || this._compare(before, node) > 0)) wanted.untidy = true;
    kids.push(node);
    this.stale = true;
  }

  _wanted(node) {
    const { row } = node;
    this.circles.delete(node.id);
    if (row.parent) {
      const parent = this.nodes.get(row.parent) || this.nodes.get(this.store.alias.get(row.parent));
      if (!parent) this._await(row.parent, node.id);
      else if (this._within(parent, node)) this.circles.add(node.id);
      else return parent;
    }
    if (row.chain) {
      const chain = this.nodes.get(row.chain);
      if (chain && !this._within(chain, node)) return chain;
      if (!chain) this._await(row.chain, node.id);
    }
    return this.root;
  }

  _await(id, who) {
    if (!this.waiting.has(id)) this.waiting.set(id, new Set());
    this.waiting.get(id).add(who);
  }

  /** Whether `node` is `above` or somewhere under it: then `above` cannot hang from it. */
  _within(node, above) {
    if (!above.kids.length) return node === above;
    let n = 0;
    for (let at = node; at; at = at.above) if (at === above || (n += 1) > DEEP) return true;
    return false;
  }

  _leave(node) {
    if (!node.above) return;
    node.above.untidy = true;
    if (node.kept) for (let at = node.above; at; at = at.above) at.kept -= node.kept;
    node.above = null;
  }

  _drop(node) {
    this._leave(node);
    this.nodes.delete(node.id);
    this.active.delete(node);
    this.running.delete(node);
    this.circles.delete(node.id);
    this.stale = true;
    const kids = node.kids.filter((kid) => kid.above === node);
    node.row = null;
    for (const kid of kids) this._seat(kid);
  }

  _compare(a, b) {
    return SORTS[this.sort](a, b) || SORTS.order(a, b) || a.serial - b.serial;
  }

  _tidy(node) {
    if (!node.untidy) return;
    node.untidy = false;
    node.kids = [...new Set(node.kids)].filter((kid) => kid.above === node).sort((a, b) => this._compare(a, b));
  }

  _flatten() {
    this.stale = false;
    const { flat, filtered, closed } = this;
    let n = 0;
    // Two stacks and not recursion: the nesting is the producer's, and may be deep.
    const path = [this.root];
    const next = [0];
    this._tidy(this.root);
    while (path.length) {
      const d = path.length - 1;
      const { kids } = path[d];
      if (next[d] >= kids.length) {
        path.pop();
        next.pop();
        continue;
      }
      const node = kids[next[d]];
      next[d] += 1;
      if (filtered && node.kept === 0) continue;
      node.level = path.length;
      node.at = n;
      flat[n] = node;
      n += 1;
      this._tidy(node);
      node.open = node.kids.length > 0 && (filtered || !closed.has(node.id));
      if (node.open) {
        path.push(node);
        next.push(0);
      }
    }
    flat.length = n;
  }
}
