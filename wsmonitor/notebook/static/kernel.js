// The way to the kernel: over the control channel where there is one, because it is heard while a cell
// runs; else over the comm. Everything is detected, and nothing is needed: a view without an
// upward path still shows the truth.

const BUSY = 300; // milliseconds within which a request is acknowledged, or another way is tried too
const SAY_AGAIN = [3_000, 10_000]; // the answer may have been lost: the kernel repeats it and does nothing twice
const LIMIT = 30_000; // milliseconds after which a request is given up
const FAILURES = 3; // control messages without any answer ever, after which no more are sent

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

function refusal(code, text) {
  return Object.assign(new Error(text), { code });
}

/** One model's line to its kernel. */
export class Line {
  constructor(model) {
    this.model = model;
    this.asked = new Map(); // id: what waits for its answer
    this.works = null; // whether the control channel is answered; null while it is not known
    this.failures = 0;
    this.gone = "";
  }

  /** Tell the kernel `message`, as surely as this front-end allows. It may arrive twice. */
  tell(message) {
    this._send(message, () => {});
  }

  /**
   * Ask the kernel for something. A promise of the answer: the message, with its binary `buffers`. It is rejected
   * with an `Error` whose text is for people, and whose `code` is for programs.
   *
   * `onState("sent")`: the kernel has it. `onState("queued")`: it did not answer in time; it has the request
   * before it, for when the running cell has ended. The kernel carries out one id once, whatever is said again.
   */
  ask(request, { onState = () => {}, limit = LIMIT } = {}) {
    const message = { ...request, id: request.id || uuid() };
    if (this.gone) return Promise.reject(refusal("kernel_gone", `not asked: ${this.gone}`));
    return new Promise((resolve, reject) => {
      const entry = { resolve, reject, onState, state: "", timers: [] };
      this.asked.set(message.id, entry);
      const send = () => this._send(message, () => this._state(message.id, "sent"));
      const after = (ms, fn) => entry.timers.push(setTimeout(fn, ms));
      after(2 * BUSY, () => this._state(message.id, "queued"));
      for (const ms of SAY_AGAIN) if (ms < limit) after(ms, send);
      after(limit, () => {
        const why = entry.state === "queued"
          ? "the kernel is busy and has not answered: it may still do this when the running cell has ended"
          : "the kernel has not answered";
        this._end(message.id, () => reject(refusal("no_answer", why)));
      });
      send();
    });
  }

  /** Take a custom message. Returns whether it was for this line. */
  receive(message, buffers) {
    if (message.type === "received") {
      this._state(message.to, "sent");
      return true;
    }
    if (message.type !== "answer") return false;
    const entry = this.asked.get(message.to);
    // Without an entry it is a repeated answer, or one for another page.
    if (entry) {
      this._end(message.to, () => {
        if (message.ok) entry.resolve({ ...message, buffers: buffers || [] });
        else entry.reject(refusal(message.code, message.text));
      });
    }
    return true;
  }

  /** The kernel is gone for good (`why` in words): nothing will be answered. "" when it is there again. */
  lost(why) {
    this.gone = why;
    if (!why) return;
    for (const [id, entry] of [...this.asked]) this._end(id, () => entry.reject(refusal("kernel_gone", `no answer: ${why}`)));
  }

  _state(id, state) {
    const entry = this.asked.get(id);
    if (!entry || entry.state === state || (entry.state === "sent" && state === "queued")) return;
    entry.state = state;
    entry.onState(state);
  }

  _end(id, settle) {
    const entry = this.asked.get(id);
    if (!entry) return;
    this.asked.delete(id);
    for (const timer of entry.timers) clearTimeout(timer);
    settle();
  }

  /** Send by the best way; `received` is called when the kernel has it for certain. */
  _send(message, received) {
    const kernel = connectionOf(this.model);
    const viaComm = () => {
      try {
        this.model.send({ ...message, via: "comm" });
      } catch {
        // The comm is closed: the request's own time limit tells it.
      }
    };
    const unheard = this.works === null && this.failures >= FAILURES;
    if (unheard || !kernel || typeof kernel.sendControlMessage !== "function") return viaComm();
    try {
      const future = kernel.sendControlMessage({
        channel: "control",
        header: {
          msg_id: uuid(), msg_type: "wsmonitor_request", session: kernel.clientId, username: kernel.username || "",
          version: "5.3", date: new Date().toISOString(),
        },
        parent_header: {}, metadata: {}, buffers: [],
        content: { ...message, token: this.model.get("_token"), via: "control" },
      }, true, true);
      let answered = false;
      let spoken = false;
      const alsoByComm = () => {
        if (!spoken) viaComm();
        spoken = true;
      };
      future.onReply = (reply) => {
        answered = true;
        this.works = true;
        if (reply.content && reply.content.status === "ok") received();
        else alsoByComm();
        // The kernel publishes no status for it (see kernel_channel.py), and the front-end would wait for one.
        setTimeout(() => future.dispose && future.dispose(), 0);
      };
      // Where it went unanswered the last time, both ways are used at once: nothing is done twice.
      if (this.works === false) alsoByComm();
      setTimeout(() => {
        if (answered) return;
        if (this.works === null) this.failures += 1;
        else this.works = false;
        alsoByComm();
      }, BUSY);
    } catch {
      viaComm();
    }
  }
}

/** Call `gone(why, cut)` when the kernel of `model` cannot be heard: for good, or, with `cut`, until `gone("")`. */
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
    gone(status === "connected" ? "" : "this page has lost its connection to Jupyter", status !== "connected");
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
