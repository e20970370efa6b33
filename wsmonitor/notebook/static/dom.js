// The only place that makes elements. Untrusted text is text: nothing here, or anywhere, parses markup.

/** An element: `h("button", {class: "x", onclick: fn, "aria-label": "…"}, "text", child)`. */
export function h(tag, props = {}, ...children) {
  const el = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) el.addEventListener(key.slice(2), value);
    else el.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children) el.append(child);
  return el;
}

/** Set the text of `el`; touch the page only if it is another. */
export function text(el, value) {
  if (el.textContent !== value) el.textContent = value;
}

/** Set or (with null or false) remove an attribute; touch the page only if it changes. */
export function attr(el, name, value) {
  if (value === null || value === undefined || value === false) {
    if (el.hasAttribute(name)) el.removeAttribute(name);
  } else if (el.getAttribute(name) !== String(value)) {
    el.setAttribute(name, String(value));
  }
}

/** Show or hide. */
export function shown(el, visible) {
  if (el.hidden === visible) el.hidden = !visible;
}
