// Words, numbers and times for people. Pure.

/** How each state is told: by icon, word and colour class; `past` when it is not known to be current. As in export/words.py.
 *  `open`: it may change yet; `active`: time passes in it. */
export const STATES = {
  pending: { icon: "○", word: "pending", past: "was pending", tone: "dim", open: true },
  running: { icon: "▶", word: "running", past: "was running", tone: "run", open: true, active: true },
  paused: { icon: "‖", word: "paused", past: "was paused", tone: "warn", open: true, active: true },
  awaiting_input: { icon: "?", word: "awaiting input", past: "was awaiting input", tone: "warn", open: true, active: true },
  cancelling: { icon: "◌", word: "cancelling", past: "was cancelling", tone: "warn", open: true, active: true },
  cancelled: { icon: "⊘", word: "cancelled", past: "cancelled", tone: "warn" },
  succeeded: { icon: "✓", word: "succeeded", past: "succeeded", tone: "good" },
  failed: { icon: "✕", word: "failed", past: "failed", tone: "bad" },
  skipped: { icon: "↷", word: "skipped", past: "skipped", tone: "dim" },
  crashed: { icon: "†", word: "crashed", past: "crashed", tone: "bad" },
};

const UNKNOWN = { icon: "•", word: "unknown", past: "unknown", tone: "dim" };

/** The entry of STATES for a state, also for one that this version does not know. */
export function stateOf(name) {
  return STATES[name] || { ...UNKNOWN, word: String(name || "unknown"), past: String(name || "unknown") };
}

/** In which states are counted. */
export const ORDER = ["succeeded", "running", "paused", "awaiting_input", "cancelling", "failed", "crashed", "cancelled", "skipped", "pending"];

/** The states of `counts` that there are, in that order. */
export function inOrder(counts) {
  return [...ORDER, ...Object.keys(counts).filter((s) => !ORDER.includes(s))].filter((s) => counts[s]);
}

const pad = (n) => String(n).padStart(2, "0");

/** A length of time: "240 ms", "4.2 s", "37 s", "2:14", "1:02:14", "3 d 4 h". `whole` for what is still running. */
export function duration(ms, whole = false) {
  if (!Number.isFinite(ms)) return "";
  ms = Math.max(0, ms);
  if (ms < 999.5 && !whole) return `${Math.round(ms)} ms`;
  if (ms < 9950 && !whole) return `${(ms / 1000).toFixed(1)} s`;
  const s = whole ? Math.floor(ms / 1000) : Math.round(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)}:${pad(s % 60)}`;
  if (s < 172800) return `${Math.floor(s / 3600)}:${pad(Math.floor(s / 60) % 60)}:${pad(s % 60)}`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
}

/** How long ago, in whole units: "3 s", "2 min", "4 h". */
export function age(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

/** The time of day in the reader's zone: "14:01:31", or with milliseconds. */
export function clockTime(ms, millis = false) {
  if (!Number.isFinite(ms)) return "";
  const d = new Date(ms);
  const text = `${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`;
  return millis ? `${text}.${String(d.getMilliseconds()).padStart(3, "0")}` : text;
}

/** A round-trip in milliseconds: "0.4 ms", "4 ms". */
export function roundTrip(ms) {
  return ms < 1 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}

/** A count, with the reader's separators. */
export function count(n) {
  return Number(n).toLocaleString();
}

/** `words` in at most `most` characters. */
export function clip(words, most) {
  return words.length <= most ? words : `${words.slice(0, most - 1)}…`;
}

/** Progress in words: "48 %", "2 of 3 files", "120 rows"; "" without progress. */
export function progress(row) {
  if (row.done === undefined || row.done === null) return "";
  const unit = row.unit ? ` ${row.unit}` : "";
  const n = (x) => (Number.isInteger(x) ? count(x) : String(Math.round(x * 100) / 100));
  if (row.total === undefined || row.total === null) return row.done ? `${n(row.done)}${unit}` : "";
  if (row.total > 20 || row.unit === "%") {
    return row.total ? `${Math.floor((100 * row.done) / row.total)} %` : "";
  }
  return `${n(row.done)} of ${n(row.total)}${unit}`;
}

/** How long something that runs will take yet, from how far it is: "0:29"; "" when that cannot be said. */
export function remaining(row, asOf) {
  const { done, total, start } = row;
  if (row.state !== "running" || !(done > 0) || !(total > done) || !Number.isFinite(start) || !(asOf > start)) return "";
  return duration(((asOf - start) * (total - done)) / done, true);
}

/** Round times for a timeline's scale: at most `most` of them within [from, to]. */
export function ticks(from, to, most) {
  const span = to - from;
  if (!(span > 0) || most < 1) return [];
  const steps = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 10e3, 15e3, 30e3, 60e3, 120e3, 300e3, 600e3, 900e3,
    1800e3, 3600e3, 7200e3, 14400e3, 21600e3, 43200e3, 86400e3,
  ];
  const step = steps.find((s) => span / s <= most) || 86400e3 * Math.ceil(span / 86400e3 / most);
  const found = [];
  for (let t = Math.ceil(from / step) * step; t <= to; t += step) found.push({ at: t, step });
  return found;
}

/** The label of one of `ticks`: seconds only where they matter. */
export function tickLabel(tick) {
  if (tick.step >= 60e3) return clockTime(tick.at).slice(0, 5);
  if (tick.step >= 1e3) return clockTime(tick.at);
  return clockTime(tick.at, true).slice(6);
}
