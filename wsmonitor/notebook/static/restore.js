// `%wsmonitor restore`: what could be given back to which cell, the question, the restoring itself, and its undoing.

import { documentOf } from "./document.js";
import { Line, watchKernel } from "./kernel.js";
import { Restoring } from "./restoring.js";
import { Sheet } from "./sheet.js";

// By token and not by model: what `render` is given as the model is not what `initialize` was given.
const restorings = new Map();

function initialize({ model }) {
  const line = new Line(model);
  const restoring = new Restoring({
    ask: (request) => line.ask(request, { limit: 120_000 }),
    document: () => documentOf(model),
    self: () => model.get("_self"),
    command: () => model.get("_fallback"),
  });
  const token = model.get("_token");
  const onMessage = (message, buffers) => line.receive(message, buffers);
  restorings.set(token, restoring);
  model.on("msg:custom", onMessage);
  const unwatch = watchKernel(model, (why) => {
    line.lost(why);
    restoring.kernelGone(why);
  });
  return () => {
    model.off("msg:custom", onMessage);
    unwatch();
    line.lost("this was closed");
    restorings.delete(token);
  };
}

function render({ model, el }) {
  const restoring = restorings.get(model.get("_token"));
  const sheet = new Sheet(restoring);
  el.append(sheet.el);
  // Each showing is a new question: cells may have been run, edited or moved since the last.
  restoring.look();
  return () => sheet.gone();
}

export default { initialize, render };
