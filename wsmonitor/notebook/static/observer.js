// The widget: one store per model, one view per output. anywidget calls `initialize` and `render`.

import { mount } from "./app.js";
import { speaker, watchKernel } from "./kernel.js";
import { Store } from "./store.js";

const SEEN = 10_000; // milliseconds between acknowledgements: they say that somebody may be looking
const ASK = 4_000; // milliseconds with a gap, before the kernel is asked for a key frame

// By token and not by model: what `render` is given as the model is not what `initialize` was given.
const stores = new Map();

function initialize({ model }) {
  const store = new Store();
  const send = speaker(model);
  stores.set(model.get("_token"), store);
  let seenAt = -Infinity;
  let askedAt = -Infinity;
  let views = 0;

  const acknowledge = () => {
    const now = performance.now();
    if (store.gap !== null && now - store.gap.since > ASK && now - askedAt > ASK) {
      askedAt = now;
      send({ do: "hello", n: store.n });
    } else if (views > 0 && now - seenAt > SEEN) {
      seenAt = now;
      send({ do: "seen", n: store.n });
    }
  };
  const onMessage = (message) => {
    store.receive(message);
    acknowledge();
  };
  const onKey = () => {
    store.receiveKey(model.get("_key"));
    acknowledge();
  };
  model.on("msg:custom", onMessage);
  model.on("change:_key", onKey);
  // What the model holds may come from the kernel a moment ago, or from a file written last year.
  store.receiveKey(model.get("_key"), false);
  const unwatch = watchKernel(model, (why) => store.kernelGone(why));
  store.send = send;
  store.viewed = (delta) => { views += delta; };
  send({ do: "hello", n: store.n });
  return () => {
    model.off("msg:custom", onMessage);
    model.off("change:_key", onKey);
    unwatch();
    stores.delete(model.get("_token"));
  };
}

function render({ model, el }) {
  const store = stores.get(model.get("_token"));
  const unmount = mount(store, el, store.send);
  store.viewed(1);
  return () => {
    store.viewed(-1);
    unmount();
  };
}

export default { initialize, render };
