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

/** The JSON in a deflated buffer. */
async function inflate(buffer) {
  const bytes = ArrayBuffer.isView(buffer) ? new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength) : buffer;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
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
    this.cut = false; // only the browser's link to it is lost, and may come back
    this.listeners = new Set();
    this.trackers = new Set();
    this.pages = null; // of very many rows: what is on each page, and whether it is here
    this.pageOf = new Map(); // row id: its page
    this.parkedPages = []; // pages as of a frame that is not here yet
    this.pageAt = -Infinity; // when a page came last, or is to come unasked
    this.askNow = false; // a key frame has told of pages that do not come unasked
    this.loading = null; // {have, of} pages while some are missing
    this.stray = null; // rows that are on no page yet
    this.behind = 0; // rows that have changed and were not told, because nobody seemed to look
    this.work = []; // messages that wait for one that is being inflated
    this.busy = false;
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

  /** The kernel cannot be heard, for good or (`cut`) because only the browser's link to it is down; "" when it is back. */
  kernelGone(why, cut = false) {
    if (this.gone !== why || this.cut !== cut) {
      this.gone = why;
      this.cut = cut;
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

  /** A custom message arrived, with its binary buffers. What cannot be read at once keeps its place in the order. */
  receive(message, buffers = []) {
    this._heard(message);
    this._inOrder(() => this._take(message, buffers));
  }

  /** A key frame. `live` is false for one that was found in the saved state: nobody has spoken. */
  receiveKey(key, live = true) {
    if (!key || typeof key.n !== "number") return;
    if (live) this._heard(key);
    else if (Number.isFinite(key.at) && this.clock.offset === null) {
      this.lastAt = key.at;
      this.beat = key.beat || {};
    }
    this._inOrder(() => this._takeKey(key));
  }

  /** The pages that are to be asked for: those that are missing or not as new as what is shown. */
  wants() {
    return this.pages === null ? [] : [...this.pages.keys()].filter((p) => !this.pages[p].whole);
  }

  _inOrder(work) {
    this.work.push(work);
    if (!this.busy) this._drain();
  }

  _drain() {
    while (this.work.length) {
      const slow = this.work.shift()();
      if (slow) {
        this.busy = true;
        slow.catch((error) => {
          // What cannot be read is a loss like any other, and heals like one.
          console.error("wsmonitor: a message could not be read:", error);
          this._miss(this.n + 1);
        }).then(() => {
          this.busy = false;
          this.changed();
          this._drain();
        });
        return;
      }
    }
    this.changed();
  }

  _take(message, buffers) {
    if (message.type === "page") return this._takePages(message, buffers);
    if (message.packed && message.n > this.n) {
      return inflate(buffers[0]).then((rows) => this._takeFrame({ ...message, rows }));
    }
    if (message.type === "frame") this._takeFrame(message);
    else if (message.type === "alive" && message.n > this.n) this._miss(message.n);
    return null;
  }

  _takeFrame(frame) {
    if (frame.n === this.n + 1 && this.n >= 0) {
      this._apply(frame);
      this._unpark();
    } else if (frame.n > this.n) {
      this._miss(frame.n);
      this.parked.push(frame);
      if (this.parked.length > PARKED_LIMIT) this.parked.shift();
    }
  }

  _takeKey(key) {
    const lacks = this.gap !== null || (this.loading !== null && Boolean(key.rows));
    // What is there already, and complete, is not drawn anew: a key frame repeats it.
    if (key.n < this.n || (key.n === this.n && !lacks)) return;
    const have = this.n;
    this.n = key.n;
    this.behind = 0;
    this.head = key.head;
    this.log = key.log.slice(-LOG_LIMIT);
    if (key.pages) {
      this._turn(key.pages, have);
      this.askNow = true;
    } else {
      this.pages = this.loading = this.stray = null;
      this.pageOf.clear();
      this.rows = new Map(key.rows.map((row) => [row.id, row]));
      this._index();
      for (const tracker of this.trackers) tracker.all = true;
    }
    this._unpark();
  }

  /**
   * What the pages' versions are now, for a browser that has all frames up to number `have`. A page that did not
   * change since is whole if it was; another one is to be had again.
   */
  _turn(versions, have) {
    if (this.pages === null) {
      this.pages = [];
      // Rows from before there were pages stay in sight until all pages are here.
      this.stray = new Set(this.rows.keys());
    }
    versions.forEach((version, p) => {
      const page = this.pages[p] || (this.pages[p] = { ids: new Set(), fresh: null, whole: false, version });
      if (version > have) page.whole = false;
      page.version = version;
    });
    this.pageAt = this.clock.perf();
    this._loaded();
  }

  async _takePages(message, buffers) {
    for (const [k, item] of message.pages.entries()) {
      const told = { ...item, n: message.n, rows: await inflate(buffers[k]) };
      if (told.n <= this.n) this._applyPage(told);
      else {
        this._miss(told.n);
        this.parkedPages.push(told);
        if (this.parkedPages.length > PARKED_LIMIT) this.parkedPages.shift();
      }
    }
    this.pageAt = this.clock.perf();
  }

  /** The rows of a page as of a frame that is here; nothing, if a frame has changed the page since. */
  _applyPage({ p, part, last, n, rows }) {
    const page = this.pages && this.pages[p];
    if (!page || n < page.version) return; // it will be asked for again
    if (part === 0) page.fresh = new Set();
    if (!page.fresh) return; // its first part was lost
    for (const row of rows) {
      this._put(row, page);
      page.fresh.add(row.id);
    }
    if (!last) return;
    for (const id of [...page.ids]) if (!page.fresh.has(id)) this._remove(id);
    page.fresh = null;
    page.whole = true;
    this._loaded();
  }

  _loaded() {
    const have = this.pages.filter((page) => page.whole).length;
    if (have < this.pages.length) {
      this.loading = { have, of: this.pages.length };
      return;
    }
    this.loading = null;
    for (const id of this.stray || []) this._remove(id);
    this.stray = null;
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
    const pages = this.parkedPages;
    this.parkedPages = pages.filter((told) => told.n > this.n);
    for (const told of pages) if (told.n <= this.n) this._applyPage(told);
    if (this.gap !== null && !this.parked.length && this.n >= this.gap.need) {
      this.gap = null;
      this.heals += 1;
    }
  }

  _apply(frame) {
    const have = this.n;
    this.n = frame.n;
    this.behind = frame.behind || 0;
    if (frame.head) this.head = { ...this.head, ...frame.head };
    for (const id of frame.gone || []) {
      const page = this.pageOf.get(id);
      if (page) page.version = frame.n;
      this._remove(id);
    }
    (frame.rows || []).forEach((row, k) => {
      const page = this.pages && frame.on ? this._page(frame.on[k]) : null;
      if (page) page.version = frame.n;
      this._put(row, page);
    });
    if (frame.pages) this._turn(frame.pages, have);
    if (frame.log) {
      this.log.push(...frame.log);
      if (this.log.length > LOG_LIMIT) this.log.splice(0, this.log.length - LOG_LIMIT);
    }
  }

  /** A page that frames speak of: one that is new is whole, because all its rows came with frames. */
  _page(p) {
    while (this.pages.length <= p) this.pages.push({ ids: new Set(), fresh: null, whole: true, version: this.n });
    return this.pages[p];
  }

  _put(row, page) {
    this.rows.set(row.id, row);
    this._touch(row.id);
    for (const id of row.also || []) this.alias.set(id, row.id);
    if (this.stray) this.stray.delete(row.id);
    if (!page) return;
    const old = this.pageOf.get(row.id);
    if (old !== page) {
      if (old) old.ids.delete(row.id);
      this.pageOf.set(row.id, page);
      page.ids.add(row.id);
    }
    if (page.fresh) page.fresh.add(row.id);
  }

  _remove(id) {
    const page = this.pageOf.get(id);
    if (page) {
      page.ids.delete(id);
      this.pageOf.delete(id);
    }
    const row = this.rows.get(id);
    if (!row) return;
    this.rows.delete(id);
    this._touch(id);
    for (const other of row.also || []) if (this.alias.get(other) === id) this.alias.delete(other);
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
