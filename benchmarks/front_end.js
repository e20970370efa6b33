// What benchmarks/front_end.py measures with, in the page: `async (source) => …`, given the bundle.
async (source) => {
  const module = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  const handlers = {};
  const held = { _key: {}, _token: "t" };
  const model = { get: (name) => held[name], on: (name, fn) => { handlers[name] = fn; }, off: () => {}, send: () => {} };
  module.default.initialize({ model });
  module.default.render({ model, el: document.getElementById("here") });
  const T0 = Date.now() - 600_000;
  const row = (i, tick = 0) => ({
    id: `s:${i}`, kind: "step", chain: `c:${i % 20}`, name: `step ${i} of the work`, order: T0 + i, start: T0 + i * 10,
    ...(tick ? { state: "running", done: tick, total: 1000 } : { state: "succeeded", end: T0 + i * 10 + 400 }),
  });
  const chains = Array.from({ length: 20 }, (_, i) => ({
    id: `c:${i}`, kind: "chain", name: `chain ${i}`, state: "running", order: T0, start: T0,
  }));
  const head = (steps) => ({
    title: "x", link: { phase: "live", attempt: 0, url: "", quiet: 3000, reason: "", looked: [], covers: [] },
    sub: { phase: "live", reason: "", epoch: "e", seq: 1 },
    session: { id: "x~1", name: "x", run: 1, state: "running", reason: "", start: T0, end: null, error: "" },
    counts: { running: steps }, steps, chains: 20, shown: steps + 20, limit: 1e6, producers: [], watching: null,
    alarms: [], alarms_more: 0,
  });
  let n = 0;
  const common = () => ({ at: Date.now(), due: 60_000, beat: { rtt: 1, last: Date.now(), due: Date.now() + 15_000 } });
  const key = (rows, steps) => {
    held._key = { n, ...common(), head: head(steps), rows: [...chains, ...rows], log: [] };
    handlers["change:_key"]();
  };
  const frame = (rows, steps) => {
    n += 1;
    handlers["msg:custom"]({ type: "frame", n, ...common(), head: head(steps), rows }, []);
  };
  const longTasks = [];
  new PerformanceObserver((list) => longTasks.push(...list.getEntries().map((e) => e.duration))).observe({ type: "longtask" });
  const frames = (ms, each = () => {}) => new Promise((done) => {
    const gaps = [];
    const begin = performance.now();
    let last = begin;
    const tick = (now) => {
      gaps.push(now - last);
      last = now;
      each();
      if (now - begin > ms) done(gaps.slice(1).sort((a, b) => a - b));
      else requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  });
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  // What comes before is not measured.
  const begun = async () => {
    await painted();
    longTasks.length = 0;
    performance.mark("begun");
  };
  const told = (gaps) => ({
    p95: gaps[Math.floor(gaps.length * 0.95)], rate: (1000 * gaps.length) / gaps.reduce((sum, gap) => sum + gap, 0),
    long: longTasks.length, longest: Math.max(0, ...longTasks),
  });
  window.changing = async (rows, each, ms) => {
    key(Array.from({ length: rows }, (_, i) => row(i)), rows);
    await painted();
    await painted();
    await begun();
    let tick = 0;
    const timer = setInterval(() => {
      tick += 1;
      frame(Array.from({ length: each }, (_, k) => row((tick * each + k) % rows, tick)), rows);
    }, 100);
    const gaps = await frames(ms);
    clearInterval(timer);
    return told(gaps);
  };
  window.loading = async (rows, each) => {
    await begun();
    const begin = performance.now();
    key([], rows);
    frame(Array.from({ length: each }, (_, i) => row(i)), rows);
    await painted();
    const first = performance.now() - begin;
    for (let i = each; i < rows; i += each) {
      frame(Array.from({ length: each }, (_, k) => row(i + k)), rows);
      // Messages are tasks of their own.
      await new Promise((done) => setTimeout(done));
    }
    const grid = document.querySelector("[role=treegrid]");
    while (Number(grid.getAttribute("aria-rowcount")) < rows + 21) await painted();
    return { first, all: performance.now() - begin, long: longTasks.length, longest: Math.max(0, ...longTasks) };
  };
  window.paging = async (told, rows) => {
    const bytes = (text) => new DataView(Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer);
    const [[first], ...pages] = told.map(([message, texts]) => [message, texts.map(bytes)]);
    await begun();
    const begin = performance.now();
    const grid = document.querySelector("[role=treegrid]");
    const until = async (count) => { while (Number(grid.getAttribute("aria-rowcount")) < count) await painted(); };
    held._key = first;
    handlers["change:_key"]();
    const seen = until(2).then(() => performance.now() - begin);
    for (const [message, buffers] of pages) {
      handlers["msg:custom"](message, buffers);
      // Messages are tasks of their own.
      await new Promise((done) => setTimeout(done));
    }
    await until(rows + 1);
    return { first: await seen, all: performance.now() - begin, long: longTasks.length, longest: Math.max(0, ...longTasks) };
  };
  window.scrolling = async (ms, pixels) => {
    await begun();
    const view = document.querySelector(".wsm-view");
    view.dispatchEvent(new WheelEvent("wheel", { deltaY: 1 }));
    let tick = 0;
    const timer = setInterval(() => { tick += 1; frame([row(tick, tick)], 50_000); }, 100);
    const gaps = await frames(ms, () => { view.scrollTop += pixels; });
    clearInterval(timer);
    return told(gaps);
  };
  window.filtering = async (words) => {
    await begun();
    const box = document.querySelector(".wsm-filter");
    const begin = performance.now();
    box.value = words;
    box.dispatchEvent(new Event("input"));
    await painted();
    return { first: performance.now() - begin, long: longTasks.length, longest: Math.max(0, ...longTasks) };
  };
}
