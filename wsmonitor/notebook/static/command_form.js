// What is asked before a command goes: its arguments, and whether it is meant where it destroys.

import { attr, h, text } from "./dom.js";

/** "cancel" is "Cancel", "set_rate" is "Set rate". */
export function wordsOf(name) {
  const words = name.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** The field of one argument: `{el, read()}`; `read` gives a value, undefined for none, or throws what is wrong. */
function field(arg) {
  const label = h("span", { class: "wsm-field-name" }, wordsOf(arg.name), arg.required ? " (required)" : "");
  let input;
  if (arg.choices.length) {
    input = h("select", { class: "wsm-select" }, ...(arg.required ? [] : [h("option", { value: "" }, "–")]), ...arg.choices.map((choice) => h("option", { value: choice }, choice)));
  } else if (arg.type === "boolean") {
    input = arg.required ? h("input", { type: "checkbox" }) : h("select", { class: "wsm-select" }, h("option", { value: "" }, "–"), h("option", { value: "true" }, "yes"), h("option", { value: "false" }, "no"));
  } else {
    input = h("input", { type: "text", class: "wsm-input", inputmode: arg.type === "integer" ? "numeric" : arg.type === "number" ? "decimal" : null, autocomplete: "off" });
  }
  const wrong = h("span", { class: "wsm-wrong", "data-tone": "bad", role: "alert" });
  const read = () => {
    const told = input.type === "checkbox" ? String(input.checked) : arg.type === "string" ? input.value : input.value.trim();
    let problem = "";
    let value = told;
    if (told === "") {
      value = undefined;
      if (arg.required) problem = "needed";
    } else if (arg.type === "integer") {
      value = Number(told);
      if (!/^[+-]?\d+$/.test(told) || !Number.isSafeInteger(value)) problem = "a whole number, please";
    } else if (arg.type === "number") {
      value = Number(told);
      if (!Number.isFinite(value)) problem = "a number, please";
    } else if (arg.type === "boolean") value = told === "true";
    text(wrong, problem);
    attr(input, "aria-invalid", problem !== "");
    if (problem) input.focus();
    return { problem, value };
  };
  return { name: arg.name, read, el: h("label", { class: "wsm-field", title: arg.description || null }, label, input, wrong, arg.description ? h("span", { class: "wsm-dim" }, arg.description) : "") };
}

/** The form of a command; `go(args)` when it is confirmed, `back()` when it is not. */
export function form({ offer, targetWords }, go, back) {
  const fields = offer.args.map(field);
  const verb = wordsOf(offer.name);
  const question = offer.destructive ? `${verb} ${targetWords}? This cannot be taken back.` : `${verb} ${targetWords}`;
  const el = h("form", { class: "wsm-confirm", "data-destructive": offer.destructive, "aria-label": question },
    h("strong", {}, question), offer.description ? h("span", { class: "wsm-dim" }, offer.description) : "", ...fields.map((f) => f.el),
    h("span", { class: "wsm-confirm-acts" },
      h("button", { type: "submit", class: "wsm-button", "data-tone": offer.destructive ? "bad" : "run" }, offer.destructive ? `Yes, ${verb.toLowerCase()} ${targetWords}` : verb),
      h("button", { type: "button", class: "wsm-quiet", onclick: back }, "No, leave it")));
  el.addEventListener("submit", (event) => {
    event.preventDefault();
    const args = {};
    for (const f of fields) {
      const { problem, value } = f.read();
      if (problem) return;
      if (value !== undefined) args[f.name] = value;
    }
    go(args);
  });
  return el;
}
