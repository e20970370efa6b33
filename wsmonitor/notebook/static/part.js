// A small widget that shows one piece of an observer. It has no data: it finds the observer's store on the
// page, and lets that draw the piece. anywidget calls `render`.

import { h, text } from "./dom.js";
import { Line } from "./kernel.js";
import { withStore } from "./stores.js";

const PATIENCE = 4_000; // milliseconds after which an observer that has not come is missed

function render({ model, el }) {
  const line = new Line(model);
  const by = `${Date.now()}-${Math.random()}`;
  let n = 0;
  let unmount = null;
  el.classList.add("wsm-host");
  const note = h("p", { class: "wsm-missing", role: "status" });
  el.append(note);

  const out = {
    /** Tell other widgets of this page. The kernel has a copy of its own, from the same source. */
    mirror: (name, value) => {
      if (model.get(name) !== value) model.set(name, value);
    },
    /** The reader has chosen a row. */
    choose: (row) => {
      if (model.get("selected") === row) return;
      model.set("selected", row);
      n += 1;
      line.tell({ do: "select", row, by, n });
    },
    /** What is chosen, and being told when somebody else chooses. Returns what ends that. */
    chosen: (fn) => {
      const changed = () => fn(model.get("selected") || "");
      model.on("change:selected", changed);
      changed();
      return () => model.off("change:selected", changed);
    },
  };
  const leave = withStore(model.get("_of"), (store) => {
    if (unmount) unmount();
    unmount = store ? store.piece(model.get("_piece"), el, out) : null;
    text(note, store ? "" : "The observer that this belongs to was closed. Run the cell again.");
  });
  // On a page that was loaded again, nobody may have asked for the observer's model yet.
  const id = model.get("_observer_model");
  if (unmount === null && id && model.widget_manager) model.widget_manager.get_model(id).catch(() => {});
  const timer = setTimeout(() => {
    if (unmount === null) text(note, "The observer that this belongs to is not in this page: run the cell again.");
  }, PATIENCE);
  return () => {
    clearTimeout(timer);
    leave();
    if (unmount) unmount();
    note.remove();
  };
}

export default { render };
