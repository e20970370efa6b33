// The open notebook, reached through the widget manager of JupyterLab and Notebook 7. Other front-ends do not
// show theirs: then there is none, and nothing here is used.

const VIEW = "application/vnd.jupyter.widget-view+json";

/** The notebook that `model` is shown in, or null where the front-end does not give it away. */
export function documentOf(model) {
  try {
    const context = model.widget_manager && model.widget_manager.context;
    const cells = context && context.model && context.model.cells;
    return cells && typeof cells.get === "function" && Number.isInteger(cells.length) ? new OpenNotebook(context) : null;
  } catch {
    return null;
  }
}

/** An open notebook. Cells are the front-end's own models: they stay what they are when cells are moved. */
export class OpenNotebook {
  constructor(context) {
    this.context = context;
  }

  get path() {
    return String(this.context.path || "");
  }

  cells() {
    const { cells } = this.context.model;
    const found = [];
    for (let at = 0; at < cells.length; at += 1) found.push(cells.get(at));
    return found;
  }

  source(cell) {
    return cell.sharedModel && cell.sharedModel.getSource ? cell.sharedModel.getSource() : String(cell.sharedModel.source);
  }

  /** As the kernel wants to be told of it. */
  told(cell) {
    return { id: String(cell.id || ""), source: this.source(cell), code: cell.type === "code" };
  }

  outputs(cell) {
    return cell.type === "code" ? cell.outputs.toJSON() : [];
  }

  running(cell) {
    return cell.executionState === "running";
  }

  /** Whether Jupyter lets all that is in this notebook act: as its status bar counts it. */
  get trusted() {
    return this.cells().every((cell) => cell.type !== "code" || cell.trusted);
  }

  /** Give `cell` other outputs; `trusted` is whether Jupyter is to let them act. */
  put(cell, outputs, count, trusted) {
    if (!trusted && cell.trusted) cell.trusted = false;
    // Not the shared model's setOutputs: where a stream takes a stream's place, JupyterLab 4 shows its text twice.
    cell.outputs.fromJSON(outputs);
    cell.executionCount = count;
    // Last: what was there until now may not act on its way out.
    if (trusted && !cell.trusted) cell.trusted = true;
  }
}

/** Whether some of the outputs is a widget's view; with `id` only that widget's. */
export function showsWidget(outputs, id = null) {
  return outputs.some((output) => {
    const view = output.data && output.data[VIEW];
    return view && (id === null || view.model_id === id);
  });
}

const joined = (value) => (Array.isArray(value) && value.every((line) => typeof line === "string") ? value.join("") : value);

// Sorted keys, so that the order in which they were written does not count.
function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])]));
}

function plain(outputs) {
  const found = [];
  for (const output of outputs) {
    if (output.output_type === "stream") {
      const last = found[found.length - 1];
      const text = joined(output.text);
      if (last && last.stream === output.name) last.text += text;
      else found.push({ stream: output.name, text });
    } else if (output.output_type === "error") {
      found.push({ error: output.ename, value: output.evalue, traceback: output.traceback });
    } else {
      const data = Object.fromEntries(Object.entries(output.data || {}).map(([mime, datum]) => [mime, joined(datum)]));
      found.push({ kind: output.output_type, data, metadata: output.metadata || {} });
    }
  }
  return found;
}

/** Whether two lists of outputs show the same: whatever the number in `Out[ ]`, and however texts are split. */
export function sameOutputs(one, other) {
  return JSON.stringify(sorted(plain(one))) === JSON.stringify(sorted(plain(other)));
}
