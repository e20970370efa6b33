// What is asked of the kernel for one place of the page, and what stands there until it has come.

import { h } from "./dom.js";

export const PAGE = 192 * 1024; // bytes of a page of a value: the most that the kernel gives at once

/** An answer's bytes, whatever the front-end made of them. */
function bytesOf(buffer) {
  if (buffer instanceof Uint8Array) return buffer;
  return buffer instanceof ArrayBuffer ? new Uint8Array(buffer) : new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
}

/** The kernel's answer to `request`; a refusal is an error with its words. */
export async function ask(store, request, onState = () => {}) {
  if (typeof store.ask !== "function") throw new Error("This page has no way to ask the kernel.");
  const answer = await store.ask(request, { onState });
  if (answer && answer.ok === false) throw Object.assign(new Error(answer.text || answer.code || "The kernel refused."), { code: answer.code });
  return answer;
}

/** `length` bytes of a value from `offset`, as `{bytes, size, mime}`. */
export async function page(store, sha256, offset, length = PAGE, onState = undefined) {
  const answer = await ask(store, { do: "value", sha256, offset, length: Math.min(length, PAGE) }, onState);
  return { bytes: bytesOf(answer.buffers[0]), size: answer.size, mime: answer.mime };
}

/** A whole value; `onPart(got, size)` after each page. */
export async function whole(store, sha256, size, onPart = () => {}, onState = undefined) {
  const parts = [];
  let got = 0;
  while (got < size) {
    const part = await page(store, sha256, got, PAGE, onState);
    if (!part.bytes.length) throw new Error(`The value ends after ${got} of ${size} bytes.`);
    parts.push(part.bytes);
    got += part.bytes.length;
    onPart(got, size);
  }
  const all = new Uint8Array(got);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Bytes as base64, for a data: address. */
export function base64(data) {
  let binary = "";
  for (let i = 0; i < data.length; i += 0x8000) binary += String.fromCharCode(...data.subarray(i, i + 0x8000));
  return btoa(binary);
}

/** What stands in a place while it is asked for: quiet at first, then that the kernel is busy, and what to do. */
export function waitingNote(store, state, what) {
  if (state !== "queued") return h("p", { class: "wsm-note" }, `Asking the kernel for ${what} …`);
  const name = store.head && store.head.session ? store.head.session.id : store.head ? store.head.title : "SESSION";
  return h("div", { class: "wsm-note", "data-state": "queued" },
    h("p", { "data-tone": "warn" }, h("strong", {}, "◌ queued: kernel busy")),
    h("p", {}, `The kernel runs a cell, and can answer only after it. What is shown of the session goes on meanwhile; for ${what}, look from elsewhere:`),
    h("ul", {}, h("li", {}, "in a terminal: ", h("code", {}, `wsmonitor watch ${name}`)), h("li", {}, "in another notebook: ", h("code", {}, `wm.watch(${JSON.stringify(name)})`))));
}

/** What stands there when it did not come; `again()` tries anew. */
export function failedNote(error, what, again) {
  return h("div", { class: "wsm-note", "data-state": "failed" },
    h("p", { "data-tone": "bad" }, h("strong", {}, `✕ ${what} did not come`)),
    h("p", {}, error.message || String(error)), error.code ? h("p", { class: "wsm-dim" }, `Code: ${error.code}`) : "",
    again ? h("button", { type: "button", class: "wsm-button", onclick: again }, "Try again") : "");
}
