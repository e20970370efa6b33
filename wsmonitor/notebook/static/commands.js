// The command bar: what the session and the chosen step take, asked back where it destroys, with each command's record.

import { ask } from "./asking.js";
import { form, wordsOf } from "./command_form.js";
import { attr, h, shown, text } from "./dom.js";
import { clip, clockTime, duration } from "./format.js";

const ICONS = { pause: "❚❚", resume: "▶", cancel: "■", retry: "↻", interrupt: "■", approve: "✓", reject: "✕", input: "✎" };
const OVER = new Set(["applied", "rejected", "expired", "unknown", "failed"]); // "failed": it never left this page
const COLOURS = { applied: "good", rejected: "warn", expired: "warn", unknown: "warn", failed: "bad" };
const OWN = 20; // records of our own that are kept

export class Commands {
  constructor(later) {
    this.later = later;
    this.sent = new Set(); // the ids of what was sent from here
    this.own = []; // commands sent from here that no head has told yet, newest first
    this.open = false;
    this.seen = null; // the session in which there was something to press
    this.buttons = h("span", { class: "wsm-command-buttons" });
    this.reason = h("span", { class: "wsm-dim wsm-command-reason" });
    this.record = h("button", { type: "button", class: "wsm-quiet wsm-command-record", "aria-expanded": "false", onclick: () => { this.open = !this.open; later(); } });
    this.bar = h("div", { class: "wsm-commands-bar", role: "group", "aria-label": "Commands" }, this.buttons, this.reason, this.record);
    this.place = h("div", { class: "wsm-command-place" });
    this.list = h("ol", { class: "wsm-command-list", tabindex: "0", "aria-label": "Commands, newest first" });
    this.el = h("div", { class: "wsm-commands" }, this.bar, this.place, this.list);
    this.el.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Escape" && this.asking) this._leave();
    });
  }

  /** Whether its reader has opened something of it. */
  get busy() {
    return Boolean(this.asking) || this.open;
  }

  paint(store, v, selected) {
    this.store = store;
    const { head } = store;
    const session = head && head.session;
    const offers = (head && head.offers) || [];
    const asked = (head && head.asked) || [];
    const known = new Set(asked.map((record) => record.id));
    this.own = this.own.filter((record) => !known.has(record.id)).slice(0, OWN);
    const records = [...this.own, ...asked.map((record) => (this.sent.has(record.id) ? { ...record, via: "here", who: "" } : record))];
    // A replay's session has ended, whatever the instant says.
    const over = !session || Boolean(session.end) || Boolean(v.replay);
    const row = selected ? store.rows.get(selected) : null;
    const found = over ? [] : targets(offers, session, row);
    // Once there was something to press, its place stays: the log below must not jump as steps come and go.
    const id = session && session.id;
    if (found.length) this.seen = id;
    const kept = !over && this.seen === id && offers.length > 0;
    shown(this.el, Boolean(session) && (found.length > 0 || kept || records.length > 0));
    if (this.el.hidden) return;
    const why = this._why(head, v, over);
    this._buttons(found, why);
    const words = why || (kept && !found.length ? "no command fits now" : "");
    text(this.reason, words);
    shown(this.reason, words !== "");
    this._records(records, v);
    // What is asked about must not be sent to something else, nor to nothing.
    if (this.asking && (why || !this.told.includes(this.asking))) this._leave(false);
  }

  _why(head, v, over) {
    if (over) return "";
    if (v.frozen && v.key !== "degraded") return v.key === "gone" ? "commands need the kernel" : v.key === "cut" ? "commands need Jupyter" : "commands wait until the link is back";
    return head.may || "";
  }

  _buttons(found, why) {
    const told = JSON.stringify([found.map(({ offer, row }) => [offer, row && row.id, row && row.name]), why !== ""]);
    if (told === this.drawn) return;
    this.drawn = told;
    this.told = found.map(({ key }) => key);
    const focused = this.buttons.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    this.buttons.replaceChildren(...found.map((item) => h("button", {
      type: "button", class: "wsm-button wsm-command", "data-key": item.key, disabled: why !== "", title: item.offer.description || null,
      onclick: () => this._press(item),
    }, h("span", { "aria-hidden": "true" }, `${ICONS[item.offer.name] || "›"} `), item.label)));
    // Drawn anew, the same button keeps the keyboard.
    if (focused) (this._button(focused) || this.record).focus();
  }

  _button(key) {
    return [...this.buttons.children].find((el) => el.dataset.key === key);
  }

  _press(item) {
    if (!item.offer.destructive && !item.offer.args.length) return this._send(item, {});
    this.asking = item.key;
    const el = form(item, (args) => { this._leave(); this._send(item, args); }, () => this._leave());
    this.place.replaceChildren(el);
    (el.querySelector("input, select") || el.querySelector("button")).focus();
    this.later();
  }

  _leave(focus = true) {
    const back = this._button(this.asking);
    const inside = this.place.contains(document.activeElement);
    this.asking = null;
    this.place.replaceChildren();
    if ((focus || inside) && back) back.focus();
    this.later();
  }

  _send({ offer, row, targetWords }, args) {
    const mine = { id: freshId(), name: offer.name, target: targetWords, state: "sending", who: "", via: "here", reason: "", at: this.store.clock.now(), took: null };
    this.own.unshift(mine);
    this.sent.add(mine.id);
    const change = (more) => { Object.assign(mine, more); this.later(); };
    ask(this.store, { do: "command", id: mine.id, name: offer.name, row: row ? row.id : "", args }, (state) => {
      if (state === "queued") change({ state: "queued: kernel busy", reason: "sent when its cell ends; sooner from a terminal: wsmonitor command" });
    })
      .then((answer) => change(answer.command ? { ...answer.command, via: "here", who: "" } : { state: "sent" }))
      .catch((error) => change({ state: "failed", reason: error.message || String(error) }));
    this.later();
  }

  _records(records, v) {
    shown(this.record, records.length > 0);
    attr(this.record, "aria-expanded", String(this.open));
    const told = JSON.stringify([records, this.open, v.frozen]);
    if (told === this.recordsTold) return;
    this.recordsTold = told;
    const [first] = records;
    if (first) this.record.replaceChildren(`${this.open ? "▾" : "▸"} `, ...recordWords(first, v));
    shown(this.list, this.open && records.length > 0);
    if (this.open) this.list.replaceChildren(...records.map((record) => h("li", {}, h("time", {}, clockTime(record.at)), ...recordWords(record, v))));
  }
}

/** What may be pressed: for the session, and for the chosen row; `row` is null for the session. */
function targets(offers, session, row) {
  const found = [];
  const fits = (name, state) => (name === "resume" ? state === "paused" : name === "pause" ? state === "running" || state === "pending" || state === "awaiting_input"
    : name !== "cancel" || state !== "cancelling");
  const add = (offer, on, words) => {
    const verb = wordsOf(offer.name);
    found.push({ key: `${offer.name} ${on ? on.id : ""}`, offer, row: on, targetWords: words, label: `${verb}${on || offer.destructive ? " " + clip(words, 40) : ""}${offer.destructive || offer.args.length ? "…" : ""}` });
  };
  for (const offer of offers) if (offer.targets.includes("session") && fits(offer.name, session.state)) add(offer, null, session.name);
  if (!row) return found;
  for (const offer of offers) {
    const taken = row.kind === "chain" ? offer.targets.includes("chain") && row.end === undefined && fits(offer.name, row.state) : offer.targets.includes("step") && (row.cmds || []).includes(offer.name);
    if (taken) add(offer, row, row.name);
  }
  return found;
}

/** "resume · from another notebook · applied 14:00:52 in 212 ms". */
function recordWords(record, v) {
  const over = OVER.has(record.state);
  const state = String(record.state).replaceAll("_", " ");
  const from = record.who && record.via ? `from ${record.who} (${record.via})` : record.who || record.via ? `from ${record.who || record.via}` : "";
  const when = Number.isFinite(record.at) ? ` ${clockTime(over && record.took ? record.at + record.took : record.at)}` : "";
  const words = [`${wordsOf(record.name).toLowerCase()}${record.target ? " " + clip(record.target, 40) : ""}`, from].filter(Boolean).join(" · ");
  const stale = v.frozen && !over;
  return [`${words} · `, h("span", { "data-tone": COLOURS[record.state] || (over ? "warn" : "dim") }, `${stale ? "was " : ""}${state}`),
    `${when}${record.took !== null && record.took !== undefined ? ` in ${duration(record.took)}` : ""}${record.reason ? `: ${record.reason}` : ""}`];
}

/** An id of our own for a command: `crypto.randomUUID` is there only in secure contexts. */
function freshId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((b) => b.toString(16).padStart(2, "0")).join("");
}
