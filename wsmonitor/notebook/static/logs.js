// A step's log lines: the newest, earlier ones on demand, and what comes, as long as one reads at the end.

import { ask, failedNote, waitingNote } from "./asking.js";
import { h, shown, text } from "./dom.js";
import { clockTime, count } from "./format.js";
import { plainText } from "./texts.js";

const LOG_PAGE = 200; // asked for at a time
const LINES_KEPT = 4000; // lines in the page
const TAIL_PAUSE = 1000; // milliseconds between two questions for what is new
const LEVELS = { warning: "warn", error: "bad", debug: "dim" };

export class LogsView {
  /** `later()` asks for a new painting. */
  constructor(later) {
    this.later = later;
    this.earlier = h("button", { type: "button", class: "wsm-button", onclick: () => this._ask({ before: this.first }) });
    this.list = h("div", { class: "wsm-lines", tabindex: "0", role: "group", "aria-label": "Log lines" });
    this.status = h("div", {});
    this.el = h("div", {}, h("div", { class: "wsm-lines-top" }, this.earlier), this.list, this.status);
    this.list.addEventListener("scroll", () => { this.tail = this.list.scrollTop + this.list.clientHeight >= this.list.scrollHeight - 8; }, { passive: true });
    this.key = null;
  }

  /** Show the lines of an attempt, of which there are `total` now. */
  show(store, row, attempt, total, cannot) {
    const key = `${row}|${attempt}`;
    this.store = store;
    if (key !== this.key) {
      this.key = key;
      this.target = { row, ...(attempt ? { attempt } : {}) };
      this.first = this.last = 0;
      this.busy = this.failed = false;
      this.askedAt = -Infinity;
      this.status.replaceChildren();
      this.tail = true;
      this.list.replaceChildren();
      this.noted = null;
    }
    // Without a way to ask, what would be asked for is named; what was fetched stays.
    const note = this.last || this.busy || this.failed ? null : !total ? "No log lines." : cannot ? cannot.replace("pages", "log lines") : null;
    if (note !== this.noted && (note || this.noted)) this.status.replaceChildren(...(note ? [h("p", { class: "wsm-note" }, note)] : []));
    this.noted = note;
    shown(this.earlier, this.first > 1);
    text(this.earlier, `Load ${count(Math.min(LOG_PAGE, this.first - 1))} earlier of ${count(this.first - 1)}`);
    shown(this.list, this.last > 0);
    if (total > this.last && !this.busy && !cannot && !this.failed && performance.now() - this.askedAt > TAIL_PAUSE) this._ask({});
  }

  _ask(more) {
    const { key, store } = this;
    const mine = () => this.key === key;
    this.busy = true;
    this.failed = false;
    this.askedAt = performance.now();
    const note = (el) => mine() && this.status.replaceChildren(...(el ? [el] : []));
    ask(store, { do: "logs", ...this.target, ...more, limit: LOG_PAGE },
      (state) => { if (state === "queued" || !this.last) note(waitingNote(store, state, "log lines")); })
      .then((answer) => {
        if (!mine()) return;
        note(null);
        this._take(answer);
      })
      .catch((error) => {
        this.failed = true;
        note(failedNote(error, "The log", () => this._ask(more)));
      })
      .finally(() => {
        if (!mine()) return;
        this.busy = false;
        this.later();
      });
  }

  _take({ lines }) {
    if (!lines.length) return;
    const from = lines[0].n;
    const to = lines[lines.length - 1].n;
    if (this.last && from < this.first) {
      const old = lines.filter((line) => line.n < this.first);
      const height = this.list.scrollHeight - this.list.scrollTop;
      this.list.prepend(...old.map(lineEl));
      this.first = from;
      this.list.scrollTop = this.list.scrollHeight - height;
      return;
    }
    const fresh = lines.filter((line) => line.n > this.last);
    // More came than one answer holds: the hole is told, and what is above it is let go.
    if (this.last && fresh.length && fresh[0].n > this.last + 1) {
      this.list.replaceChildren(h("p", { class: "wsm-dim" }, `lines ${count(this.last + 1)} to ${count(fresh[0].n - 1)} came too fast to be followed`));
      this.first = fresh[0].n;
    }
    this.list.append(...fresh.map(lineEl));
    this.first = this.first || from;
    this.last = Math.max(this.last, to);
    while (this.list.childNodes.length > LINES_KEPT) {
      this.list.firstChild.remove();
      this.first += 1;
    }
    shown(this.list, true);
    if (this.tail) this.list.scrollTop = this.list.scrollHeight;
  }
}

function lineEl(line) {
  return h("div", { class: "wsm-logline", "data-tone": LEVELS[line.level] || null },
    h("time", {}, clockTime(line.at, true)), line.level === "info" ? "" : h("span", { class: "wsm-level" }, `${line.level} `),
    h("span", {}, plainText(line.text)), line.truncated ? h("span", { class: "wsm-chip" }, "cut") : "");
}
