// What may be said about the view at this moment: the one place that decides whether it looks alive. Pure.

import { age, count, duration } from "./format.js";

/** Beyond `due`, in milliseconds: with a sign of life each second, silence is told within 3 s. */
const GRACE = 1200;

/** Milliseconds between two messages from which on a kernel takes it that nobody looks: it then speaks once a minute. */
const RARELY = 30_000;

const ACTIVE_LINK = new Set(["idle", "locating", "connecting", "authenticating"]);

/**
 * The verdict on a store: `{key, tone, icon, word, text, frozen, asOf, reconnect, why}`.
 *
 * `frozen`: what is shown is not known to be current; it is as of `asOf` (milliseconds, or NaN).
 * `why` explains it in whole sentences. `doubt`: the link is good, but the producer is not heard.
 */
export function verdict(store, perf = store.clock.perf()) {
  const now = store.clock.now();
  const head = store.head;
  const link = head ? head.link : null;
  const sub = head ? head.sub : null;
  const seen = head !== null && head.session !== null;
  const lost = (key, icon, word, text, asOf, why, more = {}) => ({
    key, tone: "warn", icon, word, text, frozen: true, asOf, why, reconnect: false, doubt: false, ...more,
  });

  if (store.gone && store.cut) {
    return lost("cut", "◐", "Page offline", store.gone, store.lastAt, [
      "This page does not reach Jupyter: the network between is down, or Jupyter's server has ended. The kernel may go on, and what it watches.",
      "Jupyter tries again by itself. When it is back, this view catches up; if its server was started anew, run the cell again.",
    ]);
  }
  if (store.gone) {
    return lost("gone", "✕", "Kernel gone", store.gone, store.lastAt, [
      `The kernel behind this output is gone: ${store.gone}.`,
      "What you see is the last that it said. Run the cell again to watch anew.",
    ], { tone: "bad" });
  }
  if (store.heardAt === null) {
    return lost("starting", "◌", "Asking the kernel", "", store.lastAt, [
      "The kernel has not spoken yet. If it is gone, run the cell again.",
    ], { tone: "dim" });
  }
  const silence = perf - store.heardAt;
  if (silence > store.due + GRACE) {
    return lost("silent", "◐", "Kernel silent", `for ${age(silence)}`, store.lastAt, [
      `The kernel has said nothing for ${age(silence)}; it was to speak every ${duration(store.due)}.`,
      "It may be blocked by one long call, or gone; or Jupyter's server does not pass on what it says. What you see is the last that was heard.",
    ]);
  }
  if (head === null) {
    return lost("starting", "◌", "Starting", "", NaN, ["The first data is on its way."], { tone: "dim" });
  }

  const asOf = Number.isFinite(store.beat.last) ? store.beat.last : link.lost ?? NaN;
  const because = link.reason ? `The last attempt failed: ${link.reason}` : "No failure was reported.";
  // Not to be seen, and not to be there, look the same from here.
  const covers = (link.covers || []).length ? [`This token shows only sessions that are called ${link.covers.join(" or ")}.`] : [];
  const looked = (link.looked || []).map((place) => `Looked at ${place}`);
  if (link.phase === "waiting") {
    const left = Math.max(0, Math.ceil((link.next - now) / 1000));
    const many = link.attempt + 1;
    const first = !Number.isFinite(asOf) || !seen;
    return lost("waiting", "◐", first ? "Not connected yet" : "Reconnecting",
      left > 0 ? `attempt ${many} in ${left} s` : `attempt ${many} now`, asOf, [
        seen ? `The link to the server was lost ${Number.isFinite(link.lost) ? age(now - link.lost) + " ago" : ""}.`.replace(" .", ".")
          : "There is no server to be reached yet.",
        because, ...(ADVICE[link.code] ? [`Code: ${link.code}. ${ADVICE[link.code]}`] : []), ...looked,
        link.code === "tls_failed" ? "It is tried again every 30 s. What was missed will be fetched and verified."
          : "It is tried again after 1, 2, 4, 8, 16, then every 30 s. What was missed will be fetched and verified.",
      ], { reconnect: true });
  }
  if (link.phase === "failed") {
    return lost("failed", "✕", "Not connected", link.reason || link.code, asOf, [
      because, `Code: ${link.code || "none"}. It is not tried again by itself, because it would fail in the same way.`,
      ...(ADVICE[link.code] ? [ADVICE[link.code]] : []), ...looked,
    ], { tone: "bad", reconnect: true });
  }
  if (link.phase === "closed") {
    return lost("closed", "■", "Closed", "", asOf, ["This observer was closed. Run the cell again to watch anew."], { tone: "dim" });
  }
  if (ACTIVE_LINK.has(link.phase)) {
    const words = { idle: "Connecting", locating: "Looking for a server", connecting: "Connecting", authenticating: "Signing in" };
    const text = link.attempt > 0 ? `attempt ${link.attempt}` : "";
    return lost("connecting", "◌", seen ? "Reconnecting" : words[link.phase], text, asOf, [
      `${words[link.phase]}${link.url ? ": " + link.url : "."}`, ...(link.reason ? [because] : []), ...looked,
    ]);
  }
  if (store.gap !== null) {
    return lost("healing", "◌", "Catching up", "an update was lost on the way to this page", store.lastAt, [
      "The browser missed an update from the kernel. The next key frame, within seconds, brings everything.",
    ]);
  }
  if (sub.phase === "not_available") {
    return lost("not_available", "✕", "Not available", sub.reason, asOf, [
      "The server does not show this session: it was removed, or the token does not cover it.",
      ...covers,
      "A server says the same in both cases, so that nobody can find out what others call their sessions.",
    ], { tone: "bad" });
  }
  if (sub.phase === "syncing" || sub.phase === "waiting") {
    return lost("syncing", "◌", "Syncing", seen ? "what you see is being verified" : "", asOf, [
      "The link is there. The full state is being fetched and checked against the server's digest.",
    ], { tone: "dim" });
  }
  if (sub.phase === "closed") {
    return lost("closed", "■", "Closed", "", asOf, ["This observer was closed."], { tone: "dim" });
  }
  // Before what is said of the server, of which a minute old is all that is known.
  if (store.due >= RARELY) {
    return lost("unheard", "◐", "Once a minute", "the kernel does not hear this page", store.lastAt, [
      "The kernel has had no answer from a page for long, so it takes it that nobody looks, and says how things are once a minute.",
      `What you see is the last that it said${store.behind ? `, but for ${count(store.behind)} ${store.behind === 1 ? "row" : "rows"} that changed since` : ""}.`,
      "It tells everything as soon as it hears this page: at the latest when the running cell has ended.",
    ]);
  }
  if (Number.isFinite(store.beat.due) && now > store.beat.due + link.quiet) {
    return lost("quiet", "◐", "No data", `for ${age(now - store.beat.last)}`, store.beat.last, [
      `The server's heartbeat was due ${age(now - store.beat.due)} ago and has not come.`,
      "The link may be dead. If it stays silent, it is given up and made anew.",
    ], { reconnect: true });
  }
  if (link.degraded && !(head.session && head.session.end)) {
    const { code, reason, since } = link.degraded;
    const from = since ?? NaN;
    return lost("degraded", "◐", "No changes", Number.isFinite(from) ? `for ${age(now - from)}` : "", Number.isFinite(from) ? from : asOf, [
      `The server takes no changes at present: ${reason || code}.`,
      "What you see is what it had stored before. What the programs report since then waits with them, and comes when the server can store it.",
      `Code: ${code}. Whoever runs the server can see more with: wsmonitor status`,
    ]);
  }
  if (sub.phase === "absent") {
    return { key: "absent", tone: "dim", icon: "○", word: "Waiting", text: "no such session yet", frozen: false, asOf: now,
      why: ["The server shows no session with this name or id. As soon as there is one, it appears here.",
        ...covers,
        ...(head.title.includes("~") ? [] : [`A program begins one so: with wm.session(${JSON.stringify(head.title)}) as session: …`])],
      reconnect: false, doubt: false };
  }
  const unheard = silentProducers(head);
  return {
    key: "live", tone: "good", icon: "●", word: "Live", text: "", frozen: false, reconnect: false,
    asOf: unheard.length ? Math.min(...unheard.map((p) => p.since ?? now)) : now,
    doubt: unheard.length > 0,
    why: ["The link to the server is good, and what you see was verified.",
      ...unheard.map((p) => `The program ${p.agent || p.id} is ${p.liveness === "lost" ? "lost" : "not heard"} since ${age(now - p.since)}.`)],
  };
}

/** Whether what `head` says of running steps is not the present: not known, or the session is over. */
export function unsettled(head, v) {
  return v.frozen || v.doubt || Boolean(head && head.session && head.session.end);
}

/** What a reader can do about a link that does not come about by itself. */
const ADVICE = {
  unauthorized: "Give another token: wm.watch(…, token=…), or the environment variable WSMONITOR_TOKEN, and run the cell again.",
  token_expired: "Give a fresh token: wm.watch(…, token=…), best a function that returns one, and run the cell again.",
  token_revoked: "Ask whoever runs the server for another token, and run the cell again with it.",
  forbidden: "Ask whoever runs the server for a token with the role that this needs.",
  unsupported_version: "Upgrade the older of the two, restart this kernel, and run the cell again.",
  tls_failed: "Give what the server's certificate is to be checked against: wm.watch(…, ssl=\"ca.pem\"), or the environment variable WSMONITOR_CA, and run the cell again.",
  configuration: "Correct the setting that is named above, and run the cell again.",
};

/** The open producers that the server does not hear; none once the session has ended. */
export function silentProducers(head) {
  if (!head || !head.session || head.session.end) return [];
  return head.producers.filter((p) => !p.closed && p.liveness !== "live");
}
