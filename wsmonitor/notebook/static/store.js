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
    this.gap = null; // {since, have, need} while something is missing
    this.parked = []; // frames beyond a gap
    this.heals = 0;
    this.heardAt = null; // when the kernel was last heard, on the browser's monotonic clock
    this.lastAt = NaN; // the `at` of what was last heard
    this.due = 1000;
    this.gone = ""; // why the kernel cannot be heard any more, in words
    this.listeners = new Set();
    this.trackers = new Set();
  }

  /**
   * Follow which rows change, for one reader: `take()` gives the ids since the last call, or null
   * when any may have changed; `stop()` ends it.
   */
  track() {
    const tracker = {
      ids: new Set(),
      all: true,
      take: () => {
        const ids = tracker.all ? null : [...tracker.ids];
        tracker.all = false;
        tracker.ids.clear();
        return ids;
      },
      stop: () => this.trackers.delete(tracker),
    };
    this.trackers.add(tracker);
    return tracker;
  }

  _touch(id) {
    for (const tracker of this.trackers) if (!tracker.all) tracker.ids.add(id);
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
        for (const tracker of this.trackers) tracker.all = true;
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
    for (const id of frame.gone || []) {
      this.rows.delete(id);
      this._touch(id);
    }
    for (const row of frame.rows || []) {
      this.rows.set(row.id, row);
      this._touch(row.id);
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
