// The way to the kernel: over the control channel where there is one, because it is heard while a cell
// runs; else over the comm. Everything is detected, and nothing is needed: a view without an
// upward path still shows the truth.

const BUSY_LIMIT = 300; // milliseconds within which a control message is answered, or the comm is used

/** The Jupyter kernel connection behind a model, or null where the front-end does not show it. */
function connectionOf(model) {
  try {
    const manager = model.widget_manager;
    return (manager && manager.kernel) || null;
  } catch {
    return null;
  }
}

function uuid() {
  return globalThis.crypto && crypto.randomUUID ? crypto.randomUUID() : `${Date.now()}-${Math.random()}`.replace(".", "");
}

/** A function that tells the kernel `message`, as surely as this front-end allows. */
export function speaker(model) {
  let control = true; // until it is known not to be answered
  return (message) => {
    const kernel = connectionOf(model);
    const viaComm = () => model.send({ ...message, via: "comm" });
    if (!control || !kernel || typeof kernel.sendControlMessage !== "function") return viaComm();
    try {
      const future = kernel.sendControlMessage({
        channel: "control",
        header: {
          msg_id: uuid(), msg_type: "wsmonitor_request", session: kernel.clientId, username: kernel.username || "",
          version: "5.3", date: new Date().toISOString(),
        },
        parent_header: {}, metadata: {}, buffers: [],
        content: { ...message, token: model.get("_token"), via: "control" },
      }, true, true);
      let answered = false;
      future.onReply = (reply) => {
        answered = true;
        // "reconnect" and the others may be done twice without harm.
        if (reply.content && reply.content.status !== "ok") viaComm();
      };
      setTimeout(() => {
        if (answered) return;
        control = false;
        viaComm();
      }, BUSY_LIMIT);
    } catch {
      control = false;
      viaComm();
    }
  };
}

/** Call `gone(why)` when the kernel of `model` dies or restarts, `gone("")` when only the browser's link to it is back. */
export function watchKernel(model, gone) {
  const kernel = connectionOf(model);
  if (!kernel || !kernel.statusChanged) return () => {};
  const words = {
    dead: "the kernel died", restarting: "the kernel was restarted", autorestarting: "the kernel died and was restarted",
    terminating: "the kernel was shut down",
  };
  let forEver = false;
  const onStatus = (_, status) => {
    if (!words[status] || forEver) return;
    forEver = true;
    gone(words[status]);
  };
  const onConnection = (_, status) => {
    if (forEver) return;
    gone(status === "connected" ? "" : "this page has lost its connection to Jupyter");
  };
  const onDisposed = () => {
    if (!forEver) gone("the kernel was shut down");
    forEver = true;
  };
  kernel.statusChanged.connect(onStatus);
  if (kernel.connectionStatusChanged) kernel.connectionStatusChanged.connect(onConnection);
  if (kernel.disposed && kernel.disposed.connect) kernel.disposed.connect(onDisposed);
  return () => {
    kernel.statusChanged.disconnect(onStatus);
    if (kernel.connectionStatusChanged) kernel.connectionStatusChanged.disconnect(onConnection);
    if (kernel.disposed && kernel.disposed.disconnect) kernel.disposed.disconnect(onDisposed);
  };
}
