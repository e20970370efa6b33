// The detail pane: all of one row, fetched from the kernel when it is opened and when it has changed.

import { ask, failedNote, waitingNote } from "./asking.js";
import { attr, h, shown, text } from "./dom.js";
import { clockTime, count, duration, progress, remaining, stateOf } from "./format.js";
import { sentence } from "./log.js";
import { LogsView } from "./logs.js";
import { figure, plainText } from "./texts.js";
import { unsettled } from "./verdict.js";
import { ValueView } from "./value.js";

const TABS = ["input", "output", "error", "logs", "metrics", "more", "events"];
const NAMES = { input: "Input", output: "Output", error: "Error", logs: "Logs", metrics: "Metrics", more: "Attributes", events: "Events" };
const ASK_PAUSE = 1000; // milliseconds between two questions about a row that goes on changing
const UNHEARD = new Set(["gone", "cut", "silent", "starting"]); // verdicts with which the kernel cannot be asked
let panes = 0;

export class Detail {
  /** `act.closed(focus)` is called when the pane is closed by its reader. */
  constructor(later, act) {
    this.later = later;
    this.act = act;
    this.row = null; // the id of what is shown, "" for the session, null while closed
    this.details = null;
    this.tab = "output";
    this.chosen = false; // the reader has taken a tab
    const id = `wsm-pane${(panes += 1)}`;
    this.name = h("h3", { class: "wsm-pane-name" });
    this.path = h("div", { class: "wsm-dim wsm-pane-path" });
    this.line = h("div", { class: "wsm-pane-state" });
    this.attempts = h("select", { class: "wsm-select", "aria-label": "Attempt" });
    this.attempts.addEventListener("change", () => { this.attempt = Number(this.attempts.value) || null; this._forget(); later(); });
    this.close = h("button", { type: "button", class: "wsm-quiet wsm-close", "aria-label": "Close details", title: "Close (Esc)", onclick: () => this.leave() }, "✕");
    this.tabs = {};
    this.tablist = h("div", { class: "wsm-tabs", role: "tablist", "aria-label": "Parts of the details" }, ...TABS.map((key) => {
      this.tabs[key] = h("button", { type: "button", role: "tab", class: "wsm-tab", id: `${id}-${key}`, "aria-controls": id, onclick: () => this._take(key) }, NAMES[key]);
      return this.tabs[key];
    }));
    this.tablist.addEventListener("keydown", (event) => this._tabKey(event));
    this.panel = h("div", { class: "wsm-panel", role: "tabpanel", id, tabindex: "0" });
    this.note = h("div", {});
    this.el = h("aside", { class: "wsm-pane", "aria-label": "Details" },
      h("div", { class: "wsm-pane-head" }, h("div", { class: "wsm-pane-title" }, this.name, this.attempts, this.close), this.path, this.line),
      this.tablist, this.note, this.panel);
    this.el.hidden = true;
    this.el.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Escape") this.leave();
    });
    this.values = { input: new ValueView("input"), output: new ValueView("output") };
    this.logs = new LogsView(later);
  }

  get isOpen() {
    return this.row !== null;
  }

  /** Show a row; with `focus` the keyboard goes there too. */
  open(row, focus = false) {
    if (row !== this.row) {
      this.row = row;
      this.attempt = null;
      this.chosen = false;
      this._forget();
    }
    shown(this.el, true);
    if (focus) this.tabs[this.tab].focus();
    this.later();
  }

  /** Closed by its reader; the keyboard goes back to where it came from. */
  leave() {
    const focus = this.el.contains(document.activeElement);
    this.row = null;
    shown(this.el, false);
    this.act.closed(focus);
    this.later();
  }

  _forget() {
    this.details = null;
    this.print = null;
    this.busy = false;
    this.failed = null;
    this.state = "";
    this.askedAt = -Infinity;
    this.question = (this.question || 0) + 1;
  }

  _take(key) {
    this.tab = key;
    this.chosen = true;
    this.later();
  }

  _tabKey(event) {
    const there = TABS.filter((key) => !this.tabs[key].hidden);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const to = event.key === "Home" ? 0 : event.key === "End" ? there.length - 1 : step ? there.indexOf(this.tab) + step : NaN;
    if (Number.isNaN(to)) return;
    event.preventDefault();
    this._take(there[(to + there.length) % there.length]);
    this.tabs[this.tab].focus();
  }

  paint(store, v) {
    if (this.row === null) return;
    const row = this.row === "" ? store.head && store.head.session : store.rows.get(this.row) || store.rows.get(store.alias.get(this.row));
    if (row) this.known = row;
    this._head(store, v, row);
    this._ask(store, v, row);
    this._body(store, v, row);
  }

  _head(store, v, row) {
    const told = row || this.known || {};
    const d = this.details;
    text(this.name, told.name || "");
    attr(this.name, "title", told.name || "");
    attr(this.el, "aria-label", `Details of ${told.name || "a step"}`);
    const path = d && d.path && d.path !== told.name ? d.path : pathOf(store, told);
    text(this.path, [this.row === "" ? told.id : path, (d && d.label) || told.label].filter(Boolean).join(" · "));
    shown(this.path, this.path.textContent !== "");
    text(this.line, row ? stateLine(store, v, d && this.attempt ? { ...d, total: undefined } : row) : "This row is no longer shown.");
    const attempts = (d && d.attempts) || [];
    shown(this.attempts, attempts.length > 1);
    const print = attempts.map((a) => `${a.attempt} ${a.state}`).join();
    if (attempts.length > 1 && print !== this.attemptsTold) {
      this.attemptsTold = print;
      const newest = attempts[attempts.length - 1].attempt;
      this.attempts.replaceChildren(...attempts.map((a) => h("option", { value: a.attempt === newest ? "" : String(a.attempt) }, `attempt ${a.attempt}: ${stateOf(a.state).word}`)));
    }
    const now = this.attempt ? String(this.attempt) : "";
    if (attempts.length > 1 && this.attempts.value !== now) this.attempts.value = now;
  }

  _ask(store, v, row) {
    if (this.busy || !row || this.failed || UNHEARD.has(v.key)) return;
    if (performance.now() - this.askedAt < ASK_PAUSE) return;
    const origin = store.source || store; // of a replay, the present is asked about
    const print = JSON.stringify(this.row === "" ? origin.head.session : origin.rows.get(this.row));
    if (print === this.print) return;
    this.print = print;
    this.askedAt = performance.now();
    this.busy = true;
    const question = this.question;
    const mine = () => this.question === question;
    ask(store, { do: "details", row: this.row, ...(this.attempt ? { attempt: this.attempt } : {}) }, (state) => {
      if (mine()) { this.state = state; this.later(); }
    })
      .then((answer) => { if (mine()) { this.details = answer.details; this.state = ""; } })
      .catch((error) => { if (mine()) { this.failed = error; this.print = null; } })
      .finally(() => { if (mine()) { this.busy = false; this.later(); } });
  }

  _body(store, v, row) {
    const d = this.details;
    const own = (this.row !== "" && store.log.filter((entry) => entry.row === this.row)) || [];
    const more = d ? Object.keys(d.attributes || {}).length + (d.tags || []).length + (d.links || []).length : 0;
    const logs = Math.max((d && d.logs) || 0, (!this.attempt && row && row.logs) || 0);
    const there = {
      input: true, output: true, error: Boolean(d && d.error) || Boolean(row && row.error && !this.attempt), logs: logs > 0 || (row && row.kind === "step"),
      metrics: Boolean(d && Object.keys(d.metrics || {}).length), more: more > 0, events: own.length > 0,
    };
    if (!this.chosen && (d || row)) this.tab = there.error ? "error" : !d || d.output || !(d.input || logs) ? "output" : logs ? "logs" : "input";
    if (!there[this.tab]) this.tab = "output";
    for (const key of TABS) {
      shown(this.tabs[key], there[key]);
      attr(this.tabs[key], "aria-selected", String(key === this.tab));
      attr(this.tabs[key], "tabindex", key === this.tab ? "0" : "-1");
    }
    text(this.tabs.logs, logs ? `Logs ${count(logs)}` : "Logs");
    attr(this.panel, "aria-labelledby", this.tabs[this.tab].id);
    this._notes(store, v);
    const cannot = UNHEARD.has(v.key) ? "pages need the kernel" : v.frozen && v.key !== "degraded" ? "pages need the link" : "";
    this._fill(store, d, own, logs, cannot);
  }

  _notes(store, v) {
    const state = this.failed ? "failed" : this.details ? "" : UNHEARD.has(v.key) ? "unheard" : this.state || "sent";
    shown(this.panel, Boolean(this.details) || this.tab === "events");
    const told = `${state}|${this.question}|${v.key}|${Boolean(this.failed)}`;
    if (told === this.noteTold) return;
    this.noteTold = told;
    this.note.replaceChildren(...(state === "" ? (v.replay ? [h("p", { class: "wsm-note" }, "Below is what was recorded by the session's end.")] : []) : state === "failed" ? [failedNote(this.failed, "The details", () => { this._forget(); this.later(); })]
      : state === "unheard" ? [h("p", { class: "wsm-note" }, `${v.word}: the kernel cannot be asked for details now.`)]
        : [waitingNote(store, state, "the details")]));
  }

  _fill(store, d, own, logs, cannot) {
    const { tab } = this;
    if (!d && tab !== "events") return;
    if (tab === "input" || tab === "output") {
      this.values[tab].show(store, d[tab], cannot);
      return this._put(tab, () => this.values[tab].el);
    }
    if (tab === "logs") {
      this.logs.show(store, this.row, this.attempt, logs, cannot);
      return this._put(tab, () => this.logs.el);
    }
    const data = tab === "error" ? d.error : tab === "metrics" ? d.metrics : tab === "more" ? [d.attributes, d.tags, d.links] : own.map((entry) => entry.n);
    this._put(`${tab} ${JSON.stringify(data)}`, () => DRAWN[tab](d, own));
  }

  /** Put what `make` gives into the panel, unless the same is there. */
  _put(key, make) {
    if (this.put === key) return;
    this.put = key;
    this.panel.replaceChildren(make());
  }
}

const DRAWN = {
  error: ({ error }) => (error === null ? h("p", { class: "wsm-note" }, "No error.") : h("div", {},
    h("p", { "data-tone": "bad" }, h("strong", {}, error.type || error.code), error.message ? `: ${plainText(error.message)}` : ""),
    error.code ? h("p", { class: "wsm-dim" }, `Code: ${error.code}`) : "",
    error.traceback ? h("pre", { class: "wsm-text", tabindex: "0", "aria-label": "Traceback" }, plainText(error.traceback)) : h("p", { class: "wsm-dim" }, "No traceback was told."))),
  metrics: ({ metrics }) => table(Object.entries(metrics).map(([name, n]) => [name, figure(n), String(n)])),
  more: ({ attributes, tags, links }) => h("div", {},
    (tags || []).length ? h("p", {}, ...tags.flatMap((tag) => [h("span", { class: "wsm-chip" }, tag), " "])) : "",
    table(Object.entries(attributes || {}).map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)])),
    (links || []).length ? h("ul", { class: "wsm-links" }, ...links.map((link) => h("li", {}, `${link.rel}: `, linkTo(link)))) : ""),
  events: (_, own) => h("ol", { class: "wsm-events" }, ...own.map((entry) => h("li", {}, ...sentence(entry))).reverse()),
};

function table(rows) {
  return h("table", { class: "wsm-table" }, h("tbody", {}, ...rows.map(([name, value, title]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", { title }, value)))));
}

/** Only what is plainly a page of the web can be followed; anything else is text. */
function linkTo(link) {
  const words = link.title || link.href;
  return /^https?:\/\//i.test(link.href) ? h("a", { href: link.href, target: "_blank", rel: "noopener noreferrer", title: link.href }, words) : h("span", {}, link.title ? `${link.title} (${link.href})` : words);
}

function pathOf(store, row) {
  const names = [];
  for (let at = row && row.kind ? store.parentOf(row) : null; at && names.length < 40; at = store.parentOf(at)) names.unshift(at.name);
  return names.join(" / ");
}

/** "running for 27 s · 48 % · ETA 0:29", or what was known of it at the last word. */
function stateLine(store, v, row) {
  const s = stateOf(row.state);
  const unsure = unsettled(store.head, v) && s.open;
  const start = row.start ?? NaN;
  const far = progress(row.progress ? { ...row, ...row.progress } : row);
  const words = [];
  if (unsure) words.push(Number.isFinite(v.asOf) ? `${s.past} at ${clockTime(v.asOf)}` : s.past);
  else if (s.active && Number.isFinite(start)) words.push(`${s.word} for ${duration(v.asOf - start, true)}`);
  else if (row.end !== undefined && row.end !== null) words.push(`${s.word} in ${duration(row.end - start)} at ${clockTime(row.end)}`);
  else words.push(s.word);
  if (row.attempt > 1) words.push(`attempt ${row.attempt}`);
  if (far) words.push(far);
  const left = unsure ? "" : remaining(row, v.asOf);
  if (left) words.push(`ETA ${left}`);
  if (row.reason || row.note) words.push(row.reason || row.note);
  return `${s.icon} ${words.join(" · ")}`;
}
