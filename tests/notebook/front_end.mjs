// The real front-end without a page: what a browser's model would be told comes in as JSON lines, and what the
// front-end then knows and says goes out. The clock is the test's.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

let time = 0;
Object.defineProperty(globalThis, "performance", { value: { now: () => time } });
const source = readFileSync(process.argv[2]);
const { default: widget } = await import(`data:text/javascript;base64,${source.toString("base64")}`);

let said = [];
let model = null;
let forget = null;

/** A new page that opens the widget `token`; `key` is what the kernel's model holds. */
function open(token, key, control) {
  if (forget) forget();
  said = [];
  const handlers = {};
  const held = { _key: key, _token: token, _part: "" };
  const kernel = {
    sendControlMessage: (message) => {
      said.push(message.content);
      const future = {};
      queueMicrotask(() => future.onReply && future.onReply({ content: { status: "ok" } }));
      return future;
    },
  };
  model = {
    held, handlers,
    get: (name) => held[name],
    on: (name, fn) => { handlers[name] = fn; },
    off: (name) => { delete handlers[name]; },
    send: (message) => said.push(message),
    widget_manager: control ? { kernel } : {},
  };
  forget = widget.initialize({ model });
  store().viewed(1);
}

const store = () => globalThis[Symbol.for("wsmonitor")].stores.get(model.held._token);

function tell({ message, buffers, key }) {
  if (key) {
    model.held._key = key;
    model.handlers["change:_key"]();
  } else {
    model.handlers["msg:custom"](message, buffers.map((text) => new DataView(Uint8Array.from(Buffer.from(text, "base64")).buffer)));
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  time = order.time;
  if (order.open) open(order.open, order.key || {}, order.control);
  for (const item of order.told || []) tell(item);
  while (store().busy) await new Promise(setImmediate);
  const { n, gap, loading, heals, rows, head, log, behind } = store();
  const known = order.all ? { rows: [...rows.values()], head, log, alias: [...store().alias] } : {};
  process.stdout.write(`${JSON.stringify({ n, gap, loading, heals, behind, said, ...known })}\n`);
  said = [];
}
process.exit(0);
