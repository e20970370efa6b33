// A recorded cell's outputs, shown safely: text as text, pictures as pictures, HTML in a box that runs nothing.

import { base64, failedNote, waitingNote, whole } from "./asking.js";
import { h } from "./dom.js";
import { bytes, layOut, plainText } from "./texts.js";

export const OUTPUTS = "application/vnd.wsmonitor.outputs+json";
const PICTURES = ["image/png", "image/jpeg", "image/gif", "image/webp"];
const BEST = [...PICTURES, "image/svg+xml", "text/html", "application/json", "text/markdown", "text/latex", "text/plain"];
const EAGER = 1024 * 1024; // bytes of a picture that is fetched without being asked for
const LONGEST = 400_000; // characters of one text in the page
// The box has no scripts, no network, no forms; nothing in it can reach the page around it.
const POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:; form-action 'none'; base-uri 'none'";

const joined = (text) => (Array.isArray(text) ? text.join("") : String(text ?? ""));

function pre(words, tone = null) {
  const told = plainText(words);
  const cut = told.length > LONGEST;
  const box = h("pre", { class: "wsm-text", "data-tone": tone, tabindex: "0" }, cut ? told.slice(0, LONGEST) : told);
  return cut ? h("div", {}, box, h("p", { class: "wsm-dim" }, `… and ${(told.length - LONGEST).toLocaleString()} more characters, not shown here`)) : box;
}

/** A picture of `mime`; `data` is base64, or the text of an SVG, which as a picture runs no scripts. */
function picture(mime, data, alt) {
  const src = mime === "image/svg+xml" ? `data:image/svg+xml;charset=utf-8,${encodeURIComponent(data)}` : `data:${mime};base64,${data.replace(/\s+/g, "")}`;
  return h("img", { class: "wsm-picture", src, alt });
}

/** HTML of others in a box of its own. */
export function boxed(html) {
  const head = `<!doctype html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="${POLICY}">`
    + "<style>html{color-scheme:light;background:#fff;color:#1b1f24;font:13px/1.5 system-ui,sans-serif}a{color:#0b57a4}img,svg{max-width:100%}"
    + "table{border:0;border-collapse:collapse;font-size:12px}td,th{border:0;padding:4px 8px;text-align:right;overflow-wrap:normal}"
    + "thead{border-bottom:1px solid #8b939e}tbody tr:nth-child(odd){background:#f5f6f8}</style>";
  // About as high as what is in it: of a sealed box nothing can be measured.
  const lines = (html.match(/<(?:tr|p|li|br|h[1-6])\b/gi) || []).length;
  const height = Math.min(420, Math.max(64, 40 + 27 * lines));
  return h("iframe", { class: "wsm-html", sandbox: "", referrerpolicy: "no-referrer", title: "HTML, without scripts and network", height, srcdoc: head + html });
}

/** One datum of a MIME type that is all there. */
export function shownAs(mime, data) {
  if (PICTURES.includes(mime)) return picture(mime, joined(data), "picture");
  if (mime === "image/svg+xml") return picture(mime, joined(data), "drawing");
  if (mime === "text/html") return boxed(joined(data));
  if (mime === "application/json" || mime.endsWith("+json")) return pre(layOut(typeof data === "string" ? data : JSON.stringify(data)));
  return pre(joined(data));
}

/** Whether this type can be shown only as a whole. */
export function wholeOnly(mime) {
  return PICTURES.includes(mime) || mime === "image/svg+xml" || mime === "text/html" || mime === OUTPUTS;
}

/** A value that is fetched whole, and then shown as its type asks for: at once if it is small. */
export function fetched(store, { sha256, size, mime }, show = shownAs) {
  const place = h("div", { class: "wsm-fetched" });
  const load = () => {
    const what = `${bytes(size)} of ${mime}`;
    place.replaceChildren(waitingNote(store, "sent", what));
    whole(store, sha256, size, (got) => place.replaceChildren(h("p", { class: "wsm-note" }, `${bytes(got)} of ${bytes(size)} …`)),
      (state) => place.replaceChildren(waitingNote(store, state, what)))
      .then((data) => place.replaceChildren(show(mime, PICTURES.includes(mime) ? base64(data) : new TextDecoder().decode(data))))
      .catch((error) => place.replaceChildren(failedNote(error, what, load)));
  };
  if (size <= EAGER) load();
  else place.append(h("button", { type: "button", class: "wsm-button", onclick: load }, `Show ${mime}, ${bytes(size)}`));
  return place;
}

function datum(store, mime, data) {
  const handle = data && typeof data === "object" && !Array.isArray(data) ? data.$value : null;
  return handle ? fetched(store, { ...handle, mime: handle.mime || mime }) : shownAs(mime, data);
}

function one(store, output) {
  if (output.output_type === "stream") {
    const error = output.name === "stderr";
    const text = output.text && output.text.$value ? fetched(store, { mime: "text/plain", ...output.text.$value }) : pre(joined(output.text));
    return h("div", { class: "wsm-output", "data-stream": error ? "stderr" : "stdout" }, text);
  }
  if (output.output_type === "error") {
    const told = (output.traceback || []).length ? output.traceback.join("\n") : `${output.ename}: ${output.evalue}`;
    return h("div", { class: "wsm-output", "data-stream": "error" },
      h("p", { "data-tone": "bad" }, h("strong", {}, plainText(`✕ ${output.ename}`)), plainText(`: ${output.evalue}`)), pre(told));
  }
  const data = output.data || {};
  const mime = BEST.find((type) => data[type] !== undefined) || Object.keys(data)[0];
  if (mime === undefined) return h("p", { class: "wsm-note" }, "an output without data");
  const el = h("div", { class: "wsm-output" }, datum(store, mime, data[mime]));
  if (data["application/vnd.jupyter.widget-view+json"]) el.prepend(h("p", { class: "wsm-dim" }, "a widget: it lives in the notebook that was recorded"));
  return el;
}

/** The outputs that `json` (a text of the type OUTPUTS) holds. */
export function outputsView(store, json) {
  let told;
  try {
    told = JSON.parse(json);
  } catch {
    return pre(json);
  }
  const el = h("div", { class: "wsm-outputs" });
  const outputs = Array.isArray(told.outputs) ? told.outputs : [];
  for (const output of outputs) el.append(one(store, output || {}));
  if (!outputs.length) el.append(h("p", { class: "wsm-note" }, "This cell has put out nothing."));
  const dropped = Object.entries(told.dropped || {}).filter(([, n]) => n);
  if (dropped.length) {
    el.append(h("p", { "data-tone": "warn" }, `⚠ not kept: ${dropped.map(([what, n]) => `${Number(n).toLocaleString()} ${what.replaceAll("_", " ")}`).join(", ")}`));
  }
  return el;
}
