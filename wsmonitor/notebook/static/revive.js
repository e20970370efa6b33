// Makes the live widgets that this page lacks, while the kernel is too busy to be asked for them: see
// notebook/revival.py. A module of its own, and small: it is sent to every page that the kernel has.

const PROTOCOL = "2.1.0"; // of ipywidgets' messages; its first number is what front-ends look at

/** A comm as the widget manager wants it, around one of the kernel connection. */
class Wrapped {
  constructor(comm) {
    this.comm = comm;
  }

  get comm_id() { return this.comm.commId; }

  get target_name() { return this.comm.targetName; }

  open(data, callbacks, metadata, buffers) { return this._told(this.comm.open(data, metadata, buffers), callbacks); }

  send(data, callbacks, metadata, buffers) { return this._told(this.comm.send(data, metadata, buffers), callbacks); }

  close(data, callbacks, metadata, buffers) { return this._told(this.comm.close(data, metadata, buffers), callbacks); }

  on_msg(callback) { this.comm.onMsg = callback; }

  on_close(callback) { this.comm.onClose = callback; }

  _told(future, callbacks) {
    if (!future) return "";
    const iopub = callbacks && callbacks.iopub;
    if (iopub) {
      future.onIOPub = (message) => {
        const type = message.header.msg_type;
        const one = { status: iopub.status, clear_output: iopub.clear_output, display_data: iopub.output,
          execute_result: iopub.output, stream: iopub.output, error: iopub.output }[type];
        if (one) one(message);
      };
    }
    return future.msg.header.msg_id;
  }
}

async function initialize({ model }) {
  const manager = model.widget_manager;
  const kernel = manager && manager.kernel;
  const able = kernel && ["createComm", "hasComm"].every((name) => typeof kernel[name] === "function")
    && ["has_model", "get_model", "handle_comm_open"].every((name) => typeof manager[name] === "function");
  if (!able) return;
  const texts = model.get("_texts") || [];
  const made = [];
  for (const { id, state } of model.get("_models") || []) {
    // Both at once with the making of the comm: the page's own restoring must not come between.
    if (manager.has_model(id) || kernel.hasComm(id)) continue;
    const whole = { ...state };
    for (const name of ["_esm", "_css"]) if (whole[name]) whole[name] = texts[whole[name].text];
    const opened = manager.handle_comm_open(new Wrapped(kernel.createComm("jupyter.widget", id)), {
      content: { data: { state: whole, buffer_paths: [] } }, metadata: { version: PROTOCOL }, buffers: [],
    });
    made.push(opened);
  }
  if (!made.length) return;
  await Promise.allSettled(made);
  // Outputs that have given up waiting try again at this signal.
  if (manager.restored && typeof manager.restored.emit === "function") manager.restored.emit(undefined);
}

export default { initialize };
