// What test_front_end_arrange.py does with the front-end's arrangement: put behind the bundle, in one module.

// All from the rows alone, as simply as it can be said.
const anew = (store, closed, words) => {
  const kids = new Map();
  const above = (row) => { const p = store.parentOf(row); return p ? p.id : ""; };
  for (const row of store.rows.values()) {
    if (!kids.has(above(row))) kids.set(above(row), []);
    kids.get(above(row)).push(row);
  }
  const hit = (row) => words.split(" ").every((word) => `${row.name} ${row.state}`.includes(word));
  const kept = (row) => hit(row) || (kids.get(row.id) || []).some(kept);
  const out = [];
  const walk = (id, level) => {
    for (const row of (kids.get(id) || []).sort((a, b) => a.order - b.order)) {
      if (words && !kept(row)) continue;
      out.push(`${row.id}@${level}`);
      if (words || !closed.has(row.id)) walk(row.id, level + 1);
    }
  };
  walk("", 1);
  return out;
};
// A small generator with a seed, so that a failure can be had again.
const dice = (seed) => () => { seed = (seed * 1103515245 + 12345) % 2147483648; return seed / 2147483648; };
export function compare(seed, rounds) {
  const random = dice(seed);
  const store = new Store();
  store.receiveKey({ n: 0, at: 0, head: {}, rows: [], log: [] });
  const closed = new Set();
  const arranged = new Arrangement(store, closed);
  const pick = (n) => Math.floor(random() * n);
  let words = "";
  for (let n = 1; n <= rounds; n += 1) {
    const rows = [];
    const gone = [];
    for (let k = pick(4); k >= 0; k -= 1) {
      const i = pick(40);
      if (i < 3) rows.push({ id: `c:${i}`, kind: "chain", name: `chain ${i}`, state: "running", order: pick(9) });
      // A parent has a smaller number, so that there is no circle; it may come later, or never.
      else if (random() < 0.15) gone.push(`s:${i}`);
      else rows.push({
        id: `s:${i}`, kind: "step", chain: `c:${i % 3}`, name: `step ${i}`, order: 1000 * pick(5) + i,
        state: random() < 0.5 ? "running" : "succeeded", ...(i > 6 && random() < 0.7 ? { parent: `s:${3 + pick(i - 3)}` } : {}),
      });
    }
    const last = new Map(rows.map((row) => [row.id, row]));
    store.receive({ type: "frame", n, at: n, rows: [...last.values()], gone: gone.filter((id) => !last.has(id)) });
    if (random() < 0.1) arranged.fold(`s:${pick(40)}`, random() < 0.5);
    if (random() < 0.1) { words = words ? "" : ["succeeded", "step 1", "running"][pick(3)]; arranged.filter(words, null); }
    if (random() < 0.05) store.receiveKey({ n, at: n, head: {}, rows: [...store.rows.values()], log: [] });
    if (random() < 0.6 || n === rounds) {
      arranged.update();
      const got = arranged.flat.map((node) => `${node.id}@${node.level}`);
      const want = anew(store, closed, words);
      if (got.join() !== want.join()) return `seed ${seed}, round ${n}, filter "${words}":\n${got}\n${want}`;
    }
  }
  return "";
}

export function circle() {
  const store = new Store();
  const row = (id, parent, order) => ({ id, kind: "step", chain: "c:1", parent, name: id, state: "running", order });
  const rows = [{ id: "c:1", kind: "chain", name: "c", state: "running", order: 0 }, row("s:a", "s:b", 1), row("s:b", "s:a", 2)];
  store.receiveKey({ n: 0, at: 0, head: {}, rows, log: [] });
  const arranged = new Arrangement(store);
  const told = () => { arranged.update(); return arranged.flat.map((node) => `${node.id}@${node.level}`).join(" "); };
  const first = told();
  store.receive({ type: "frame", n: 1, at: 1, rows: [{ ...row("s:b", undefined, 2), parent: undefined }] });
  return [first, told()];
}

export function slices() {
  const store = new Store();
  const rows = Array.from({ length: 5000 }, (_, i) => ({ id: `s:${i}`, kind: "step", name: "x", state: "running", order: -i }));
  store.receiveKey({ n: 0, at: 0, head: {}, rows, log: [] });
  let now = 0;
  const arranged = new Arrangement(store, new Set(), () => (now += 1));
  const seen = [];
  while (!arranged.update(5)) seen.push(arranged.behind);
  return [seen.length > 1, seen.every((n, i) => !i || n < seen[i - 1]), arranged.flat.length, arranged.flat[0].id];
}

export function sortedAndFiltered() {
  const store = new Store();
  const row = (id, state, start, end) => ({ id, kind: "step", name: id, state, order: start, start, ...(end ? { end } : {}) });
  const rows = [row("item 10", "succeeded", 1, 9), row("item 9", "failed", 2, 4), row("item 2", "running", 3)];
  store.receiveKey({ n: 0, at: 0, head: {}, rows, log: [] });
  const arranged = new Arrangement(store);
  const told = () => { arranged.update(); return arranged.flat.map((node) => node.id.slice(5)).join(" "); };
  const found = [told()];
  for (const sort of ["name", "time", "state"]) { arranged.order(sort); found.push(told()); }
  arranged.filter("", new Set(["failed", "running"]));
  found.push(told());
  arranged.filter("failed item", null);
  found.push(told());
  return found;
}
