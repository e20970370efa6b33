// One value, an input or an output: what came with the details, and more of it page by page.

import { PAGE, failedNote, page, waitingNote } from "./asking.js";
import { attr, h, shown, text } from "./dom.js";
import { OUTPUTS, boxed, fetched, outputsView, shownAs, wholeOnly } from "./outputs.js";
import { bytes, layOut, plainText } from "./texts.js";

const PAGES_KEPT = 12; // pages in the page at a time
const TEXTUAL = /^text\/|json$|xml$|yaml$|javascript$/;

export class ValueView {
  /** `what` is the value's name: "input" or "output". */
  constructor(what) {
    this.what = what;
    this.told = null;
    this.content = h("div", { class: "wsm-value" });
    this.note = h("span", { class: "wsm-value-note" });
    this.more = h("button", { type: "button", class: "wsm-button", onclick: () => this._more() });
    this.copy = h("button", { type: "button", class: "wsm-button", onclick: () => this._copy() }, "Copy as Python");
    this.line = h("input", { class: "wsm-line", readonly: true, "aria-label": "Python that fetches this value", onkeydown: (event) => event.stopPropagation() });
    this.status = h("div", {});
    this.foot = h("div", { class: "wsm-value-foot" }, this.note, this.more, this.copy, this.line);
    this.el = h("div", {}, this.content, this.status, this.foot);
  }

  /** Show `value`, or with null that there is none; what is shown already stays as it is. */
  show(store, value, cannot) {
    const told = value ? `${value.sha256}|${value.mime}|${value.size}|${(value.text || "").length}` : "";
    this.store = store;
    if (told !== this.told) {
      this.told = told;
      this.value = value;
      this._begin();
    }
    attr(this.more, "disabled", cannot !== "" || this.busy);
    text(this.more, cannot || `Load next ${bytes(Math.min(PAGE, Math.max(0, (value ? value.size : 0) - this.got)))}`);
  }

  _begin() {
    const { value } = this;
    this.busy = false;
    this.status.replaceChildren();
    this.line.hidden = true;
    this.got = 0;
    this.decoder = new TextDecoder();
    shown(this.foot, Boolean(value));
    if (!value) return void this.content.replaceChildren(h("p", { class: "wsm-note" }, `No ${this.what}.`));
    shown(this.copy, Boolean(value.sha256));
    const { mime, size, truncated } = value;
    const words = value.text || "";
    this.got = truncated ? new TextEncoder().encode(words).length : size;
    if (mime === OUTPUTS) {
      this.content.replaceChildren(truncated ? fetched(this.store, value, (_, json) => outputsView(this.store, json)) : outputsView(this.store, words));
    } else if (wholeOnly(mime)) {
      this.content.replaceChildren(truncated ? fetched(this.store, value) : mime === "text/html" ? this._html(words) : shownAs(mime, words));
    } else if (!words && !TEXTUAL.test(mime)) {
      this.content.replaceChildren(h("p", { class: "wsm-note" }, `${bytes(size)} of ${mime}: not text.`));
    } else {
      this.pre = h("pre", { class: "wsm-text", tabindex: "0", "aria-label": this.what });
      this.content.replaceChildren(this.pre);
      this._add(words);
      this._tell();
      return;
    }
    shown(this.more, false);
    text(this.note, `${bytes(size)} · ${mime}`);
    attr(this.note, "data-tone", "dim");
  }

  _html(words) {
    return h("div", {}, boxed(words), h("details", {}, h("summary", {}, "HTML source"), h("pre", { class: "wsm-text", tabindex: "0" }, plainText(words))));
  }

  _add(words) {
    const json = this.value.mime === "application/json" || this.value.mime.endsWith("+json");
    // Later pages of JSON begin in the midst of it: only a first one can be laid out.
    const told = plainText(json && !this.pre.childNodes.length ? layOut(words) : words);
    this.pre.append(h("span", { class: "wsm-page" }, told));
    while (this.pre.childNodes.length > PAGES_KEPT) {
      this.pre.firstChild.remove();
      this.away = true;
    }
  }

  _tell() {
    const { value, got } = this;
    const rest = value.size - got;
    shown(this.more, rest > 0);
    attr(this.note, "data-tone", rest > 0 ? "warn" : "dim");
    text(this.note, (rest > 0 ? `⚠ ${bytes(got)} of ${bytes(value.size)}` : bytes(value.size)) + (this.away ? ", the beginning is put away" : "") + ` · ${value.mime}`);
  }

  _more() {
    const { told, store, value } = this;
    const what = `the next ${bytes(Math.min(PAGE, value.size - this.got))}`;
    const mine = () => this.told === told;
    this.busy = true;
    attr(this.more, "disabled", true);
    const note = (el) => mine() && this.status.replaceChildren(...(el ? [el] : []));
    page(store, value.sha256, this.got, PAGE, (state) => note(state === "queued" ? waitingNote(store, state, what) : null))
      .then((part) => {
        if (!mine()) return;
        if (!part.bytes.length) throw new Error("The server has no more of it.");
        this.got += part.bytes.length;
        // A character may lie across two pages: the decoder keeps its first half.
        this._add(this.decoder.decode(part.bytes, { stream: this.got < value.size }));
        note(null);
        this._tell();
      })
      .catch((error) => note(failedNote(error, what, () => this._more())))
      .finally(() => {
        if (!mine()) return;
        this.busy = false;
        attr(this.more, "disabled", false);
        text(this.more, `Load next ${bytes(Math.min(PAGE, value.size - this.got))}`);
      });
  }

  _copy() {
    const { head } = this.store;
    const name = head && head.session ? head.session.id : head ? head.title : "";
    this.line.value = `wm.watch(${JSON.stringify(name)}).value(${JSON.stringify(this.value.sha256)})`;
    this.line.hidden = false;
    this.line.select();
    const said = (ok) => text(this.copy, ok ? "Copied" : "Copy as Python");
    // Without a secure context there is no clipboard: the line is there, chosen, to be copied by hand.
    if (navigator.clipboard && navigator.clipboard.writeText) navigator.clipboard.writeText(this.line.value).then(() => said(true), () => said(false));
  }
}
