// Makes elements. Text always goes in as text nodes: names of layers and runs are untrusted, and are never markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function s(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** A shape for each verdict and severity: colour is not the only sign. */
const ICONS = {
  bad: "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1M5.3 4.2 8 6.9l2.7-2.7 1.1 1.1L9.1 8l2.7 2.7-1.1 1.1L8 9.1l-2.7 2.7-1.1-1.1L6.9 8 4.2 5.3z",
  warning: "M8 1.2 15.4 14.5H.6zM7.2 6v4.2h1.6V6zm0 5.2v1.6h1.6v-1.6z",
  note: "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1M7.1 3.9h1.8v1.8H7.1zm0 3h1.8v5.2H7.1z",
  healthy: "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1m-.9 10.2L3.9 8 5 6.9l2.1 2.1L11 5.1l1.1 1.1z",
  unknown: "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1M7.1 10.6h1.8v1.8H7.1zm-1.9-4a2.8 2.8 0 1 1 3.7 2.6v.6H7.1V8.2c1-.3 2-.6 2-1.6a1.1 1.1 0 0 0-2.2 0z",
};

export function icon(name) {
  return s("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, s("path", { "fill-rule": "evenodd", d: ICONS[name] ?? ICONS.unknown }));
}

export function chip(verdict) {
  const name = verdict ?? "unknown";
  return h("span", { class: `chip ${name}` }, icon(name), name);
}

/** A button that copies `text`; works without the clipboard permission, which a page on plain http does not get. */
export function copyButton(text, label = "Copy") {
  const button = h("button", { class: "copy", type: "button", title: text, onclick: copy }, label);
  async function copy(event) {
    event.stopPropagation();
    let done = false;
    try {
      await navigator.clipboard.writeText(text);
      done = true;
    } catch {
      const area = h("textarea", { style: "position:fixed;opacity:0" });
      area.value = text;
      document.body.append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
    }
    button.textContent = done ? "Copied" : "Not copied";
    setTimeout(() => (button.textContent = label), 1500);
  }
  return button;
}
