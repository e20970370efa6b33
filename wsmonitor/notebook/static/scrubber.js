// The scrubber: moves through a finished session's past, by hand or by playing it.

import { attr, h, text } from "./dom.js";
import { clockTime, duration } from "./format.js";
import { Replay } from "./replay.js";

const SPEEDS = [1, 10, 60, 600];
const WHOLE = 20_000; // milliseconds in which "all in 20 s" plays everything
const NOTCHES = 1000;
const CALM = 500; // milliseconds between two pictures for who wants less motion

export class Scrubber {
  /** `act.leave()` is called when the replay is left. */
  constructor(later, act) {
    this.later = later;
    this.act = act;
    this.replay = null;
    this.playing = null; // a planned animation frame
    this.button = h("button", { type: "button", class: "wsm-button wsm-play", onclick: () => this._play(this.playing === null) });
    this.back = h("button", { type: "button", class: "wsm-button", "aria-label": "To what happened before", title: "To what happened before", onclick: () => this._step(-1) }, "‹");
    this.forth = h("button", { type: "button", class: "wsm-button", "aria-label": "To what happened next", title: "To what happened next", onclick: () => this._step(1) }, "›");
    this.slider = h("input", { type: "range", class: "wsm-slider", min: "0", max: String(NOTCHES), step: "1", "aria-label": "Moment of the session" });
    this.slider.addEventListener("input", () => {
      const { from, to } = this.replay.span;
      const t = from + ((to - from) * Number(this.slider.value)) / NOTCHES;
      this._play(false);
      this._seek(t);
    });
    this.when = h("output", { class: "wsm-when" });
    this.speed = h("select", { class: "wsm-select", "aria-label": "Speed" }, h("option", { value: "0" }, "all in 20 s"), ...SPEEDS.map((n) => h("option", { value: String(n) }, `${n} ×`)));
    this.out = h("button", { type: "button", class: "wsm-button wsm-leave", onclick: () => this.leave() }, "Leave replay");
    this.el = h("div", { class: "wsm-scrubber", role: "group", "aria-label": "Replay of the recorded session" }, this.button, this.back, this.forth, this.slider, this.when, this.speed, this.out);
    this.el.hidden = true;
    this.el.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Escape") this.leave();
      else if (event.key === " " && event.target === this.slider) {
        event.preventDefault();
        this._play(this.playing === null);
      }
    });
  }

  /** Begin to replay what `store` has, at its end. */
  begin(store) {
    this.replay = new Replay(store);
    this.el.hidden = false;
    this.later();
    this._tell();
    this.button.focus();
  }

  /** End it: what is shown is the present again. */
  leave() {
    if (!this.replay) return;
    const inside = this.el.contains(document.activeElement);
    this._play(false);
    this.replay = null;
    this.el.hidden = true;
    this.act.leave(inside);
    this.later();
  }

  /** Leave it when its session is no longer the one that is watched. */
  check(store) {
    const session = store.head && store.head.session;
    if (this.replay && (!session || session.id !== this.replay.session || !session.end)) this.leave();
  }

  stop() {
    this._play(false);
  }

  _step(direction) {
    this._play(false);
    const at = this.replay.next(direction);
    this._seek(at ?? (direction > 0 ? this.replay.span.to : this.replay.span.from));
  }

  _seek(t) {
    this.replay.seek(t);
    this._tell();
    this.later();
  }

  _play(on) {
    if (this.playing !== null) cancelAnimationFrame(this.playing);
    this.playing = null;
    if (on) {
      const { span } = this.replay;
      if (this.replay.at >= span.to) this._seek(span.from);
      const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      let last = performance.now();
      const tick = () => {
        this.playing = requestAnimationFrame(tick);
        const now = performance.now();
        if (calm && now - last < CALM) return;
        const factor = Number(this.speed.value) || (span.to - span.from) / WHOLE;
        const to = this.replay.at + (now - last) * factor;
        last = now;
        this._seek(to);
        if (to >= span.to) this._play(false);
      };
      this.playing = requestAnimationFrame(tick);
    }
    this._tell();
  }

  _tell() {
    if (!this.replay) return;
    const { at, span } = this.replay;
    text(this.button, this.playing === null ? "▶ Play" : "❚❚ Pause");
    const notch = String(Math.round((NOTCHES * (at - span.from)) / Math.max(1, span.to - span.from)));
    if (this.slider.value !== notch) this.slider.value = notch;
    attr(this.slider, "aria-valuetext", `${clockTime(at)}, ${duration(at - span.from)} after the start`);
    text(this.when, `as of ${clockTime(at, span.to - span.from < 20_000)} (from recorded times)`);
  }
}

/** The verdict while an instant of the past is shown. */
export function replayVerdict(v, replay) {
  return {
    ...v, key: "replay", tone: "dim", icon: "↺", word: "Replay", text: `as of ${clockTime(replay.at)}`, frozen: false, doubt: false, reconnect: false,
    asOf: replay.at, replay: true,
    why: ["This is the past of a session that has ended, made again from the times that its steps recorded.",
      "How far a step was at a moment is not recorded, and not shown. Nothing here is live."],
  };
}
