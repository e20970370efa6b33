// What the browser has been told: frames in, rows out. The format is described in notebook/view.py.

const LOG_LIMIT = 300;
const PARKED_LIMIT = 200;

/** A clock on the kernel's scale, set by the `at` of what arrives. */
export class Clock {
  constructor(perf = () => performance.now()) {
    this.perf = perf;
    this.offset = null;
  }

  /** Something that was made at `at` has just arrived. */
  sync(at) {
    const offset = at - this.perf();
    // A message is never early, only late: a larger offset is nearer the truth. A much smaller
    // one means that the kernel's clock was set.
    if (this.offset === null || offset > this.offset || this.offset - offset > 2000) this.offset = offset;
    else this.offset += (offset - this.offset) * 0.05;
  }

  /** Now, in milliseconds on the kernel's scale; NaN before the first message. */
  now() {
    return this.offset === null ? NaN : this.perf() + this.offset;
  }
}

/** One observer's data in the browser, shared by all its views. */
export class Store {
  constructor(clock = new Clock()) {
    this.clock = clock;
    this.n = -1; // the last frame that was applied; -1 before the first key frame
    this.head = null;
    this.beat = {};
    this.rows = new Map();
    this.log = [];
    this.alias = new Map(); // ids of further attempts: the row that stands for them
    this.structure = 0; // counts the changes that may have moved rows
    this.gap = null; // {since, have, need} while something is missing
    this.parked = []; // frames beyond a gap
    this.heals = 0;
    this.heardAt = null; // when the kernel was last heard, on the browser's monotonic clock
    this.lastAt = NaN; // the `at` of what was last heard
    this.due = 1000;
    this.gone = ""; // why the kernel cannot be heard any more, in words
    this.listeners = new Set();
  }

  listen(fn) {
    this.listeners.add(fn);
    return () => this.listeners.delete(fn);
  }

  changed() {
    for (const fn of this.listeners) fn();
  }

  /** The kernel was lost for good ("restarted"), or "" when it is back. */
  kernelGone(why) {
    if (this.gone !== why) {
      this.gone = why;
      this.changed();
    }
  }

  _heard(message) {
    this.heardAt = this.clock.perf();
    if (Number.isFinite(message.at)) {
      this.clock.sync(message.at);
      this.lastAt = message.at;
    }
    if (message.due) this.due = message.due;
    if (message.beat) this.beat = message.beat;
  }

  /** A custom message arrived. Returns whether the browser now lacks something. */
  receive(message) {
    this._heard(message);
    if (message.type === "frame") {
      if (message.n === this.n + 1 && this.n >= 0) {
        this._apply(message);
        this._unpark();
      } else if (message.n > this.n) {
        this._miss(message.n);
        this.parked.push(message);
        if (this.parked.length > PARKED_LIMIT) this.parked.shift();
      }
    } else if (message.type === "alive" && message.n > this.n) {
      this._miss(message.n);
    }
    this.changed();
    return this.gap !== null;
  }

  /** A key frame. `live` is false for one that was found in the saved state: nobody has spoken. */
  receiveKey(key, live = true) {
    if (!key || typeof key.n !== "number") return;
    if (live) this._heard(key);
    else if (Number.isFinite(key.at) && this.clock.offset === null) {
      this.lastAt = key.at;
      this.beat = key.beat || {};
    }
    // What is there already, and complete, is not drawn anew: a key frame repeats it.
    if (key.n > this.n || this.gap !== null) {
      if (key.n >= this.n) {
        this.head = key.head;
        this.rows = new Map(key.rows.map((row) => [row.id, row]));
        this.log = key.log.slice(-LOG_LIMIT);
        this._index();
        this.structure += 1;
        this.n = key.n;
        this._unpark();
      }
    }
    this.changed();
  }

  _miss(need) {
    this.gap = { since: this.gap ? this.gap.since : this.clock.perf(), have: this.n, need };
  }

  _unpark() {
    const parked = this.parked.filter((frame) => frame.n > this.n).sort((a, b) => a.n - b.n);
    this.parked = [];
    for (const frame of parked) {
      if (frame.n === this.n + 1) this._apply(frame);
      else this.parked.push(frame);
    }
    if (this.gap !== null && !this.parked.length && this.n >= this.gap.need) {
      this.gap = null;
      this.heals += 1;
    }
  }

  _apply(frame) {
    this.n = frame.n;
    if (frame.head) this.head = frame.head;
    for (const id of frame.gone || []) this.rows.delete(id);
    if ((frame.gone || []).length) this.structure += 1;
    for (const row of frame.rows || []) {
      const old = this.rows.get(row.id);
      if (!old || old.parent !== row.parent || old.chain !== row.chain || old.order !== row.order
          || (row.also || []).length !== (old.also || []).length || old.name !== row.name || old.state !== row.state) {
        this.structure += 1;
      }
      this.rows.set(row.id, row);
      for (const id of row.also || []) this.alias.set(id, row.id);
    }
    if (frame.log) {
      this.log.push(...frame.log);
      if (this.log.length > LOG_LIMIT) this.log.splice(0, this.log.length - LOG_LIMIT);
    }
  }

  _index() {
    this.alias.clear();
    for (const row of this.rows.values()) for (const id of row.also || []) this.alias.set(id, row.id);
  }

  /** The row above `row`, or null for a root. An orphan hangs from its chain until its parent arrives. */
  parentOf(row) {
    if (row.parent) {
      const parent = this.rows.get(row.parent) || this.rows.get(this.alias.get(row.parent));
      if (parent && parent !== row) return parent;
    }
    return (row.chain && this.rows.get(row.chain)) || null;
  }
}

/**
 * The rows in the order in which they are drawn, as `{row, level, children, open}`.
 *
 * `closed` has the ids of collapsed rows; `wanted`, if given, says which rows match a filter: they
 * are shown with all that is above them, opened.
 */
export function flatten(store, closed, wanted = null) {
  const children = new Map();
  const roots = [];
  for (const row of store.rows.values()) {
    const parent = store.parentOf(row);
    if (parent === null) roots.push(row);
    else if (children.has(parent.id)) children.get(parent.id).push(row);
    else children.set(parent.id, [row]);
  }
  let keep = null;
  if (wanted !== null) {
    keep = new Set();
    for (const row of store.rows.values()) {
      if (!wanted(row)) continue;
      for (let at = row; at && !keep.has(at.id); at = store.parentOf(at)) keep.add(at.id);
    }
  }
  const inOrder = (rows) => rows.sort((a, b) => (a.order || 0) - (b.order || 0));
  const flat = [];
  const seen = new Set();
  // A stack and not recursion: the nesting is the producer's, and may be deep, or even a circle.
  const visit = (list) => {
    const stack = inOrder(list).map((row) => [row, 1]).reverse();
    while (stack.length) {
      const [row, level] = stack.pop();
      if (seen.has(row.id) || (keep !== null && !keep.has(row.id))) continue;
      seen.add(row.id);
      const below = children.get(row.id) || [];
      const open = below.length > 0 && (keep !== null || !closed.has(row.id));
      flat.push({ row, level, children: below.length, open });
      if (open) for (const child of inOrder(below).reverse()) stack.push([child, level + 1]);
    }
  };
  visit(roots);
  if (keep === null) {
    const hidden = (row) => {
      const path = new Set();
      for (let at = store.parentOf(row); at; at = store.parentOf(at)) {
        if (path.has(at.id)) return false;
        path.add(at.id);
        if (closed.has(at.id)) return true;
      }
      return false;
    };
    const circles = [...store.rows.values()].filter((row) => !seen.has(row.id) && !hidden(row));
    if (circles.length) visit(circles);
  }
  return flat;
}
