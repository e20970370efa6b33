// The widget: one store per model, one view per output. anywidget calls `initialize` and `render`.

import { mount } from "./app.js";
import { Line, watchKernel } from "./kernel.js";
import { mountPiece } from "./parts.js";
import { mountSessions } from "./sessions.js";
import { Store } from "./store.js";
import { registerStore, storeOf } from "./stores.js";

const SEEN = 10_000; // milliseconds between acknowledgements: they say that somebody may be looking
const ASK = 2_000; // milliseconds with a gap, before the kernel is asked for a key frame
const ASK_PAGES = 1_500; // milliseconds without a page, while some are missing, before they are asked for

/** What a live widget's trait `_part` mounts: `(store, el, send, model) => unmount`. */
const PARTS = { "": mount, sessions: mountSessions };

function initialize({ model }) {
  const store = new Store();
  const line = new Line(model);
  let seenAt = -Infinity;
  let askedAt = -Infinity;
  let pagesAt = -Infinity;
  let views = 0;

  const acknowledge = () => {
    const now = performance.now();
    if (store.loading !== null && (store.askNow || now - Math.max(pagesAt, store.pageAt) > ASK_PAGES)) {
      store.askNow = false;
      pagesAt = now;
      line.tell({ do: "pages", want: store.wants() });
    }
    // A gap, or rows that are held back because nobody seemed to look.
    const waits = store.gap !== null ? now - store.gap.since > ASK : store.behind > 0 && views > 0;
    if (waits && now - askedAt > ASK) {
      askedAt = now;
      line.tell({ do: "hello", n: store.n });
    } else if (views > 0 && now - seenAt > SEEN) {
      seenAt = now;
      line.tell({ do: "seen", n: store.n });
    }
  };
  const onMessage = (message, buffers) => {
    if (line.receive(message, buffers)) return;
    store.receive(message, buffers);
  };
  const onKey = () => store.receiveKey(model.get("_key"));
  model.on("msg:custom", onMessage);
  model.on("change:_key", onKey);
  // What the model holds may come from the kernel a moment ago, or from a file written last year.
  store.receiveKey(model.get("_key"), false);
  const unlisten = store.listen(acknowledge);
  const unwatch = watchKernel(model, (why, cut) => {
    store.kernelGone(why, cut);
    line.lost(why);
  });
  store.send = (message) => line.tell(message);
  store.ask = (request, options) => line.ask(request, options);
  store.viewed = (delta) => { views += delta; };
  // For the widgets that show a piece of this observer: they need no copy of this program.
  store.piece = (kind, el, out) => mountPiece(kind, store, el, out);
  // By token and not by model: what `render` is given as the model is not what `initialize` was given. Now that it
  // is complete: those who wait for it use it at once.
  const unregister = registerStore(model.get("_token"), store);
  line.tell({ do: "hello", n: store.n, want: store.wants() });
  store.askNow = false;
  return () => {
    model.off("msg:custom", onMessage);
    model.off("change:_key", onKey);
    unwatch();
    unlisten();
    line.lost("this observer was closed");
    unregister();
  };
}

function render({ model, el }) {
  const store = storeOf(model.get("_token"));
  const unmount = PARTS[model.get("_part") || ""](store, el, store.send, model);
  store.viewed(1);
  return () => {
    store.viewed(-1);
    unmount();
  };
}

export default { initialize, render };
