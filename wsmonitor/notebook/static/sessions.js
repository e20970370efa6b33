// The dashboard: all sessions in a grid of which only the visible rows exist. Rows: see notebook/listings.py.

import { attr, h, shown, text } from "./dom.js";
import { age, clockTime, count, duration, inOrder, stateOf } from "./format.js";
import { Strip } from "./strip.js";
import { verdict } from "./verdict.js";

const TICK = 500; // milliseconds between paintings when nothing arrives: ages go on
const LINE = 27; // pixels of a row; fixed, so that a row's place is known without measuring
const MARGIN = 4; // rows beyond the visible ones
const SIGHT = 12; // rows in sight

const COLUMNS = [
  ["name", "Session"],
  ["state", "State"],
  ["steps", "Steps"],
  ["at", "Started"],
  ["time", "Time"],
  ["problem", "Problem"],
];

/** A count in at most six characters; cut and not rounded, so that what is not complete never looks so. */
function few(n) {
  if (n < 10_000) return count(n);
  const [by, unit] = n < 1e6 ? [1e3, "k"] : [1e6, "M"];
  return `${Math.floor((10 * n) / by) / 10}${unit}`;
}

/** The day of `ms`, with its year if that is not this year. */
function day(ms, now) {
  const d = new Date(ms);
  const same = Number.isFinite(now) && d.getFullYear() === new Date(now).getFullYear();
  return d.toLocaleDateString(undefined, same ? { day: "numeric", month: "short" } : { year: "2-digit", month: "numeric", day: "numeric" });
}

let lists = 0;

/** Show the list in `store` in `el`. `model` holds what is chosen. Returns what takes it away. */
export function mountSessions(store, el, send, model) {
  let planned = null;
  const later = () => {
    if (planned === null) planned = requestAnimationFrame(paint);
  };
  const by = `${Date.now()}-${Math.random()}`;
  let n = 0;
  const grid = new SessionGrid(later, (id) => {
    if (model.get("selected") === id) return;
    model.set("selected", id);
    n += 1;
    send({ do: "select", row: id, by, n });
  });
  const strip = new Strip({ reconnect: () => send({ do: "reconnect" }), collapse: () => {}, later });
  for (const part of [strip.fold, strip.run, strip.state, strip.asOf, strip.producer, strip.watching]) part.remove();
  const note = h("p", { class: "wsm-list-note" });
  const root = h("section", { class: "wsm wsm-list", "aria-label": "wsmonitor sessions" }, strip.el, strip.reasons, grid.tools, note, grid.el);
  el.classList.add("wsm-host");
  el.append(root);
  const chosen = () => {
    grid.reveal(model.get("selected") || "");
    later();
  };
  model.on("change:selected", chosen);

  function paint() {
    planned = null;
    const v = verdict(store);
    attr(root, "data-frozen", v.frozen);
    attr(root, "data-verdict", v.key);
    strip.paint(store, v);
    const { head } = store;
    if (head) text(strip.title, head.name ? `Runs of ${head.name}` : "Sessions");
    grid.paint(store, v);
    const words = head ? notes(head, v) : "";
    shown(note, words !== "");
    text(note, words);
  }

  const stop = store.listen(later);
  const timer = setInterval(later, TICK);
  const resized = new ResizeObserver(later);
  resized.observe(el);
  grid.reveal(model.get("selected") || "");
  paint();
  return () => {
    stop();
    clearInterval(timer);
    resized.disconnect();
    model.off("change:selected", chosen);
    if (planned !== null) cancelAnimationFrame(planned);
    root.remove();
  };
}

/** What a reader should know of what is not in the list. */
function notes(head, v) {
  const words = [];
  if (head.total > head.shown) words.push(`⚠ ${count(head.shown)} of ${count(head.total)} sessions are in this view: those that are open, and the newest.`);
  if (head.link.covers.length) words.push(`This token covers only sessions that are called ${head.link.covers.join(" or ")}; others are not listed.`);
  if (!head.total && head.session && !v.frozen) words.push("There are no sessions yet. A program begins one so: with wm.session(\"NAME\") as session: …");
  return words.join(" ");
}

const total = (row) => Object.values(row.counts || {}).reduce((sum, k) => sum + k, 0);
const open = (row) => !row.end && Boolean(stateOf(row.state).open);

/** What a column is sorted by; the larger comes first, but for names. */
function rank(row, key, now) {
  if (key === "state") return `${open(row) ? "b" : "a"}${row.liveness ? "b" : "a"}${stateOf(row.state).tone === "bad" ? "b" : "a"}${row.state}`;
  if (key === "steps") return total(row);
  if (key === "time") return row.start === undefined ? -1 : (row.end ?? now) - row.start;
  if (key === "problem") return row.problem || "";
  return row.at ?? 0;
}

class SessionGrid {
  constructor(later, choose) {
    this.later = later;
    this.choose = choose;
    this.prefix = `wsm-list-${(lists += 1)}-`;
    this.selected = "";
    this.wanted = "";
    this.sort = "at";
    this.grouped = true;
    this.opened = new Set(); // names whose older runs are shown
    this.words = [];
    this.state = "";
    this.lines = [];
    this.drawn = [];
    this.told = "";

    this.search = h("input", { type: "search", class: "wsm-filter", placeholder: "filter, e.g. failed etl", "aria-label": "Filter sessions by words in name, id, state or problem" });
    this.search.addEventListener("input", () => {
      this.words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
      this._again();
    });
    // JupyterLab's shortcuts are not for what is typed here.
    this.search.addEventListener("keydown", (event) => event.stopPropagation());
    this.states = h("span", { class: "wsm-list-states", role: "group", "aria-label": "States to be shown" });
    this.group = h("button", { type: "button", class: "wsm-button", "aria-pressed": "true", onclick: () => { this.grouped = !this.grouped; this._again(); } }, "Group runs");
    this.hint = h("span", { class: "wsm-dim wsm-hint", role: "status" });
    this.tools = h("div", { class: "wsm-tools" }, this.search, this.states, this.group, this.hint);

    this.headers = {};
    const header = h("div", { class: "wsm-list-row wsm-header", role: "row", "aria-rowindex": "1" }, ...COLUMNS.map(([key, words]) => {
      const button = h("button", { type: "button", class: "wsm-sort", tabindex: "-1", title: `Sort by ${words.toLowerCase()}`, onclick: () => this._sortBy(key) }, words);
      this.headers[key] = h("div", { role: "columnheader", class: `wsm-list-${key}` }, button);
      return this.headers[key];
    }));
    this.body = h("div", { class: "wsm-body", role: "rowgroup" });
    this.view = h("div", { class: "wsm-view", role: "presentation" }, h("div", { role: "rowgroup", class: "wsm-headgroup" }, header), this.body);
    this.empty = h("div", { class: "wsm-empty" });
    this.grid = h("div", { class: "wsm-grid", role: "treegrid", tabindex: "0", "aria-label": "Sessions", "aria-colcount": String(COLUMNS.length) }, this.view);
    this.el = h("div", { class: "wsm-list-grid" }, this.grid, this.empty);
    this.view.addEventListener("scroll", later, { passive: true });
    this.body.addEventListener("click", (event) => this._click(event));
    this.grid.addEventListener("keydown", (event) => this._key(event));
    this._marks();
  }

  /** Choose `id`, which was chosen elsewhere, and bring it into sight as soon as it is there. */
  reveal(id) {
    if (id === this.selected) return;
    this.selected = this.wanted = id;
  }

  _again() {
    this.told = "";
    this.later();
  }

  _sortBy(key) {
    this.sort = this.sort === key ? "at" : key;
    this._marks();
    this._again();
  }

  _marks() {
    for (const [key, el] of Object.entries(this.headers)) attr(el, "aria-sort", key === this.sort ? (key === "name" ? "ascending" : "descending") : null);
  }

  _pick(i) {
    const line = this.lines[i];
    if (!line) return;
    this.selected = line.row.id;
    this._scrollTo(i);
    this.choose(line.row.id);
    this.later();
  }

  _fold(line, wide) {
    if (!line || !line.kids) return;
    if (wide) this.opened.add(line.row.name);
    else this.opened.delete(line.row.name);
    this._again();
  }

  _click(event) {
    const el = event.target.closest(".wsm-list-row");
    if (!el) return;
    const line = this.lines[Number(el.dataset.i)];
    if (event.target.closest(".wsm-twist") && line && line.kids) this._fold(line, !line.wide);
    else this._pick(Number(el.dataset.i));
  }

  _key(event) {
    if (event.target !== this.grid || event.altKey || event.ctrlKey || event.metaKey) return;
    const at = this.lines.findIndex((line) => line.row.id === this.selected);
    const last = this.lines.length - 1;
    const page = Math.max(1, Math.floor(this.view.clientHeight / LINE) - 2);
    const line = this.lines[at];
    const places = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: last, PageDown: at + page, PageUp: at - page };
    if (event.key in places) {
      if (last >= 0) this._pick(Math.max(0, Math.min(last, places[event.key])));
    } else if (event.key === "ArrowRight") this._fold(line, true);
    else if (event.key === "ArrowLeft") {
      if (line && line.level === 2) this._pick(this.lines.findLastIndex((other, i) => i < at && other.level === 1));
      else this._fold(line, false);
    } else if (event.key === "Enter" && at < 0) this._pick(0);
    else return;
    event.preventDefault();
    // JupyterLab listens for the same keys to move between cells.
    event.stopPropagation();
  }

  _scrollTo(i) {
    const top = i * LINE;
    const height = this.view.clientHeight - LINE;
    if (top < this.view.scrollTop) this.view.scrollTop = top;
    else if (top + LINE > this.view.scrollTop + height) this.view.scrollTop = top + LINE - height;
  }

  /** The lines in their order. Made anew when rows or what is asked of them changed. */
  _arrange(store, now) {
    const told = `${store.n}|${store.rows.size}|${store.gap === null}`;
    if (told === this.told && store === this.store) return;
    this.told = told;
    this.store = store;
    const wanted = (row) => {
      if (this.state && (this.state === "open" ? !open(row) : row.state !== this.state)) return false;
      if (!this.words.length) return true;
      const hay = `${row.name} ${row.id} ${stateOf(row.state).word} ${row.liveness || ""} ${row.reason || ""} ${row.problem || ""} ${row.kind || ""}`.toLowerCase();
      return this.words.every((word) => hay.includes(word));
    };
    const order = (a, b) => {
      if (this.sort === "name") {
        const names = a.name.localeCompare(b.name);
        if (names) return names;
      } else {
        const [x, y] = [rank(a, this.sort, now), rank(b, this.sort, now)];
        if (x < y) return 1;
        if (x > y) return -1;
      }
      return (b.at ?? 0) - (a.at ?? 0) || b.run - a.run || (a.id < b.id ? 1 : -1);
    };
    const found = [...store.rows.values()].filter(wanted).sort(order);
    text(this.hint, this.words.length || this.state ? `${count(found.length)} of ${count(store.rows.size)} sessions` : "");
    if (!this.grouped) {
      this.lines = found.map((row) => ({ row, level: 1, kids: 0, wide: false }));
      return;
    }
    const runs = new Map();
    for (const row of found) {
      if (runs.has(row.name)) runs.get(row.name).push(row);
      else runs.set(row.name, [row]);
    }
    this.lines = [];
    for (const [name, rows] of runs) {
      // The newest run stands for its name; the older ones are below it.
      rows.sort((a, b) => b.run - a.run || (b.at ?? 0) - (a.at ?? 0));
      const wide = this.opened.has(name);
      this.lines.push({ row: rows[0], level: 1, kids: rows.length - 1, wide });
      if (wide) for (const row of rows.slice(1)) this.lines.push({ row, level: 2, kids: 0, wide: false });
    }
  }

  paint(store, v) {
    const { head } = store;
    this._arrange(store, v.asOf);
    if (this.wanted) this._unfold(store);
    const k = this.lines.length;
    shown(this.tools, store.rows.size > 3);
    shown(this.grid, k > 0);
    shown(this.empty, k === 0 && store.rows.size > 0);
    text(this.empty, "No session matches.");
    attr(this.group, "aria-pressed", String(this.grouped));
    text(this.group, this.grouped ? "☑ Group runs" : "☐ Group runs");
    if (head) this._states(head.states, v);
    attr(this.grid, "aria-rowcount", String(k + 1));
    const height = `${k * LINE}px`;
    if (this.body.style.height !== height) this.body.style.height = height;
    // It grows as sessions come, and never shrinks under the reader's eye.
    this.tallest = Math.max(this.tallest || 0, Math.min(k, SIGHT));
    const tall = `${(this.tallest + 1) * LINE}px`;
    if (this.view.style.height !== tall) this.view.style.height = tall;
    const at = this.lines.findIndex((line) => line.row.id === this.selected);
    if (this.wanted && at >= 0) {
      this.wanted = "";
      this._scrollTo(at);
    }
    const top = this.view.scrollTop;
    const from = Math.max(0, Math.floor(top / LINE) - MARGIN);
    const to = Math.min(k, Math.ceil((top + (this.view.clientHeight || SIGHT * LINE)) / LINE) + MARGIN);
    while (this.drawn.length < to - from) this.drawn.push(this._make());
    this.drawn.forEach((parts, i) => {
      shown(parts.el, from + i < to);
      if (from + i < to) this._fill(parts, from + i, v);
    });
    attr(this.grid, "aria-activedescendant", at >= from && at < to ? `${this.prefix}${at}` : null);
  }

  /** Show the older runs, if it is one of them that was chosen elsewhere. */
  _unfold(store) {
    const row = store.rows.get(this.wanted);
    if (!row || this.lines.some((line) => line.row.id === row.id) || this.opened.has(row.name)) return;
    this.opened.add(row.name);
    this.told = "";
    this._arrange(store, NaN);
  }

  _states(states, v) {
    const active = Object.entries(states).filter(([state]) => stateOf(state).open).reduce((sum, [, k]) => sum + k, 0);
    const all = Object.values(states).reduce((sum, k) => sum + k, 0);
    const chips = [["", `All ${count(all)}`], ...(active ? [["open", `${v.frozen ? "Were open" : "Open"} ${count(active)}`]] : []),
      ...Object.entries(states).filter(([state]) => !stateOf(state).open).map(([state, k]) => [state, `${stateOf(state).icon} ${stateOf(state).word} ${count(k)}`])];
    const told = JSON.stringify([chips, this.state]);
    if (told === this.chips) return;
    this.chips = told;
    const focused = this.states.contains(document.activeElement) ? document.activeElement.dataset.state : null;
    this.states.replaceChildren(...chips.map(([state, words]) => h("button", {
      type: "button", class: "wsm-button", "data-state": state, "aria-pressed": String(this.state === state), onclick: () => { this.state = state; this._again(); },
    }, words)));
    if (focused !== null) for (const button of this.states.children) if (button.dataset.state === focused) button.focus();
  }

  _make() {
    const p = {
      indent: h("span", { class: "wsm-indent" }),
      twist: h("span", { class: "wsm-twist", "aria-hidden": "true" }),
      icon: h("span", { class: "wsm-icon", "aria-hidden": "true" }),
      name: h("span", { class: "wsm-label", dir: "auto" }),
      run: h("span", { class: "wsm-chip" }),
      state: h("div", { role: "gridcell", class: "wsm-list-state" }),
      bar: h("span", { class: "wsm-bar", "aria-hidden": "true" }),
      steps: h("span", {}),
      at: h("div", { role: "gridcell", class: "wsm-list-at" }),
      time: h("div", { role: "gridcell", class: "wsm-list-time" }),
      problem: h("div", { role: "gridcell", class: "wsm-list-problem" }),
    };
    p.el = h("div", { class: "wsm-list-row", role: "row" },
      h("div", { role: "gridcell", class: "wsm-list-name" }, p.indent, p.twist, p.icon, p.name, p.run),
      p.state, h("div", { role: "gridcell", class: "wsm-list-steps" }, p.bar, p.steps), p.at, p.time, p.problem);
    this.body.append(p.el);
    return p;
  }

  _fill(p, i, v) {
    const { row: placed, level, kids, wide } = this.lines[i];
    // The arrangement is kept while no row moves; what a row says may be newer.
    const row = this.store.rows.get(placed.id) || placed;
    const s = stateOf(row.state);
    const going = open(row);
    const unsure = going && (v.frozen || Boolean(row.liveness));
    attr(p.el, "id", `${this.prefix}${i}`);
    attr(p.el, "data-i", i);
    attr(p.el, "data-session", row.id);
    attr(p.el, "data-odd", i % 2 === 1);
    attr(p.el, "aria-level", level);
    attr(p.el, "aria-rowindex", i + 2);
    attr(p.el, "aria-expanded", kids ? String(wide) : null);
    attr(p.el, "aria-selected", String(row.id === this.selected));
    const place = `translateY(${i * LINE}px)`;
    if (p.el.style.transform !== place) p.el.style.transform = place;
    const indent = `${(level - 1) * 18}px`;
    if (p.indent.style.width !== indent) p.indent.style.width = indent;
    text(p.twist, kids ? (wide ? "▾" : "▸") : "");
    text(p.icon, s.icon);
    attr(p.icon, "data-tone", unsure ? "dim" : s.tone);
    text(p.name, row.name);
    attr(p.name, "title", [row.name, row.id, row.kind].filter(Boolean).join("\n"));
    text(p.run, kids ? `run ${row.run} · ${count(kids)} more` : `run ${row.run}`);
    const heard = row.liveness && going ? ` · producer ${row.liveness}` : "";
    text(p.state, `${unsure ? s.past : s.word}${v.frozen ? "" : heard}`);
    attr(p.state, "data-tone", unsure ? (v.frozen ? "dim" : row.liveness === "lost" ? "bad" : "warn") : s.tone);
    attr(p.state, "title", [`${s.word}${heard}`, row.reason].filter(Boolean).join(": "));
    this._steps(p, row);
    const now = v.asOf;
    text(p.at, Number.isFinite(row.at) ? (Number.isFinite(now) && now - row.at < 86400e3 ? `${age(now - row.at)} ago` : day(row.at, now)) : "");
    attr(p.at, "title", Number.isFinite(row.at) ? `${new Date(row.at).toLocaleDateString()} ${clockTime(row.at)}` : null);
    text(p.time, row.start === undefined ? "" : row.end !== undefined ? duration(row.end - row.start) : going && !row.liveness && Number.isFinite(now) ? duration(now - row.start, true) : "");
    text(p.problem, row.problem || (row.state === "cancelled" ? row.reason || "" : ""));
    attr(p.problem, "title", row.problem || null);
    attr(p.problem, "data-tone", row.problem ? null : "dim");
  }

  _steps(p, row) {
    const all = total(row);
    const told = JSON.stringify(row.counts || {});
    if (told === p.told) return;
    p.told = told;
    const states = inOrder(row.counts || {}).map((state) => [state, row.counts[state]]);
    p.bar.replaceChildren(...states.filter(([state]) => state !== "pending").map(([state, k]) => {
      const piece = h("i", { "data-tone": stateOf(state).tone });
      piece.style.width = `${(100 * k) / all}%`;
      return piece;
    }));
    shown(p.bar, all > 0);
    const over = states.filter(([state]) => state === "succeeded" || state === "skipped").reduce((sum, [, k]) => sum + k, 0);
    text(p.steps, all ? `${few(over)}/${few(all)}` : "");
    attr(p.steps, "title", [`${count(over)} of ${count(all)}`, ...states.map(([state, k]) => `${count(k)} ${stateOf(state).word}`)].join(", "));
  }
}
