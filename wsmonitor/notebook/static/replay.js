// A finished session as it was at an instant, from the times that its rows have recorded. Pure.

import { Store } from "./store.js";

/** A row as it was at `t`, or null when it was not there yet. What was not recorded (how far it was) is not told. */
export function rowAt(row, t, over) {
  const bars = barsOf(row);
  const created = Math.min(row.order ?? Infinity, bars.length ? bars[0][0] : row.end ?? Infinity);
  if (Number.isFinite(created) ? t < created : !over) return null;
  const { id, kind, name, chain, parent, also, label, order } = row;
  const then = { id, kind, name, state: "pending", ...(chain && { chain }), ...(parent && { parent }), ...(also && { also }), ...(label && { label }), ...(order !== undefined && { order }) };
  const begun = bars.filter(([start]) => start <= t);
  if (!begun.length) return over || (!bars.length && row.end !== undefined && row.end <= t) ? row : then;
  const [start, end, state] = begun[begun.length - 1];
  const newest = begun.length === bars.length;
  const ended = end !== null && end !== undefined && end <= t;
  if (newest && (ended || (over && row.end === undefined))) return row;
  const attempt = (row.attempt || bars.length) - (bars.length - begun.length);
  then.start = start;
  if (attempt > 1) then.attempt = attempt;
  if (begun.length > 1) then.bars = begun.map(([from, to, was]) => (to !== null && to <= t ? [from, to, was] : [from, null, "running"]));
  const pauses = newest ? (row.pauses || []).filter(([from]) => from <= t).map(([from, to]) => [from, to !== null && to <= t ? to : null]) : [];
  if (pauses.length) then.pauses = pauses;
  if (ended) Object.assign(then, { end, state });
  else then.state = pauses.length && pauses[pauses.length - 1][1] === null ? "paused" : "running";
  return then;
}

function barsOf(row) {
  if (row.bars && row.bars.length) return row.bars;
  return row.start === undefined || row.start === null ? [] : [[row.start, row.end ?? null, row.state]];
}

/** A store whose present is an instant of `source`'s past. */
export class Replay extends Store {
  constructor(source) {
    const clock = { at: NaN, now: () => clock.at, perf: () => performance.now() };
    super(clock);
    this.source = source;
    this.alias = source.alias;
    this.ask = source.ask ? (...args) => source.ask(...args) : undefined;
    this.heardAt = 0;
    this.all = new Map(source.rows);
    this.whole = source.head;
    this.session = source.head.session.id;
    this.counts = {};
    this.steps = 0;
    const moments = [];
    for (const row of this.all.values()) {
      const bars = barsOf(row);
      if (row.order !== undefined) moments.push([row.order, row.id]);
      if (!bars.length && row.end !== undefined) moments.push([row.end, row.id]);
      for (const [start, end] of bars) {
        moments.push([start, row.id]);
        if (end !== null && end !== undefined) moments.push([end, row.id]);
      }
      for (const pair of row.pauses || []) for (const at of pair) if (at !== null) moments.push([at, row.id]);
    }
    moments.sort((a, b) => a[0] - b[0]);
    this.moments = moments;
    const { start, end } = this.whole.session;
    const first = moments.length ? moments[0][0] : start ?? end;
    this.span = { from: Math.min(start ?? first, first), to: Math.max(end, moments.length ? moments[moments.length - 1][0] : end) };
    this.done = 0; // moments that lie before the present
    for (const id of this.all.keys()) this._place(id, this.span.from);
    this.seek(this.span.to);
  }

  get at() {
    return this.clock.at;
  }

  /** Make `t` the present. Only rows with something between the two presents are looked at. */
  seek(t) {
    t = Math.min(this.span.to, Math.max(this.span.from, t));
    const before = this.clock.at;
    this.clock.at = t;
    const touched = new Set();
    const { moments } = this;
    while (this.done < moments.length && moments[this.done][0] <= t) touched.add(moments[this.done++][1]);
    while (this.done > 0 && moments[this.done - 1][0] > t) touched.add(moments[--this.done][1]);
    const end = this.span.to;
    // At the end, also what has no times of its own is as it was left.
    for (const id of (before >= end) !== (t >= end) ? this.all.keys() : touched) this._place(id, t);
    this._tell(t);
    this.changed();
  }

  /** The moment after (or, with -1, before) the present at which something happened, or null. */
  next(direction) {
    const { moments } = this;
    if (direction > 0) return this.done < moments.length ? moments[this.done][0] : null;
    for (let i = this.done - 1; i >= 0; i -= 1) if (moments[i][0] < this.at) return moments[i][0];
    return null;
  }

  _place(id, t) {
    const old = this.rows.get(id);
    const row = rowAt(this.all.get(id), t, t >= this.span.to);
    if (old && old.kind === "step") this._count(old.state, -1);
    if (row && row.kind === "step") this._count(row.state, 1);
    if (row) this.rows.set(id, row);
    else this.rows.delete(id);
    this._touch(id);
  }

  _count(state, by) {
    this.counts[state] = (this.counts[state] || 0) + by;
    if (!this.counts[state]) delete this.counts[state];
    this.steps += by;
  }

  _tell(t) {
    const { whole } = this;
    const { session } = whole;
    const over = t >= session.end;
    const { id, name, run, start } = session;
    const then = over ? session : { id, name, run, start, reason: "", error: "", end: null, state: start !== null && t < start ? "pending" : "running" };
    this.head = {
      ...whole, session: then, counts: { ...this.counts }, steps: this.steps, shown: this.steps + whole.chains, producers: [], watching: null,
      alarms: (whole.alarms || []).filter((alarm) => over || (alarm.at !== null && alarm.at <= t)), alarms_more: over ? whole.alarms_more : 0,
      asked: (whole.asked || []).filter((record) => record.at <= t), metrics: over ? whole.metrics : {},
    };
    this.log = this.source.log.filter((entry) => entry.at <= t);
  }
}
