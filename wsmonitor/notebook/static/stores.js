// The stores of this page, by the token of the observer that they belong to. They hang on the page and not on this
// module: each model may have been given a copy of the module of its own.

const REGISTRY = Symbol.for("wsmonitor");

function registry() {
  if (!globalThis[REGISTRY]) globalThis[REGISTRY] = { stores: new Map(), waiting: new Map() };
  return globalThis[REGISTRY];
}

/** Let parts find `store`. Returns the function that takes it away again. */
export function registerStore(token, store) {
  const { stores, waiting } = registry();
  stores.set(token, store);
  for (const fn of [...(waiting.get(token) || [])]) fn(store);
  return () => {
    if (stores.get(token) !== store) return; // a newer one of the same observer has taken its place
    stores.delete(token);
    for (const fn of [...(waiting.get(token) || [])]) fn(null);
  };
}

/** The store of the observer with this token, if it is there now. */
export function storeOf(token) {
  return registry().stores.get(token) || null;
}

/**
 * Call `fn(store)` now if the store is there, and else when it comes; `fn(null)` when it goes.
 * Returns the function that stops it.
 */
export function withStore(token, fn) {
  const { stores, waiting } = registry();
  if (!waiting.has(token)) waiting.set(token, new Set());
  waiting.get(token).add(fn);
  if (stores.has(token)) fn(stores.get(token));
  return () => {
    const set = waiting.get(token);
    if (!set) return;
    set.delete(fn);
    if (!set.size) waiting.delete(token);
  };
}
