// Names that fit: long paths are cut so that rows stay distinguishable; the whole one is in the tooltip and on copying.

import { h } from "./dom.js";

/** Each name within `width` characters where that leaves all of them different; what would not, stays whole. */
export function shorten(names, width) {
  const made = names.map((name) => cut(name, width));
  const groups = new Map();
  made.forEach((text, i) => groups.set(text, [...(groups.get(text) ?? []), i]));
  for (const same of groups.values()) {
    const distinct = [...new Set(same.map((i) => names[i]))];
    if (distinct.length < 2) continue;
    const texts = around(distinct, width);
    for (const i of same) made[i] = texts[distinct.indexOf(names[i])];
  }
  const seen = new Map();
  made.forEach((text, i) => seen.set(text, (seen.get(text) ?? new Set()).add(names[i])));
  return made.map((text, i) => (seen.get(text).size > 1 ? names[i] : text));
}

/** The end of a path says most: it is kept, with the beginning. */
function cut(name, width) {
  if (name.length <= width) return name;
  const end = Math.ceil((width - 1) * 0.65);
  return `${name.slice(0, width - 1 - end)}…${name.slice(-end)}`;
}

/** Names that differ where the cut goes through: what all have in common is left out, and not what differs. */
function around(names, width) {
  const [first] = names;
  const shortest = Math.min(...names.map((name) => name.length));
  let head = 0;
  while (head < shortest && names.every((name) => name[head] === first[head])) head++;
  let tail = 0;
  while (tail < shortest - head && names.every((name) => name.at(-1 - tail) === first.at(-1 - tail))) tail++;
  return names.map((name) => {
    const middle = name.slice(head, name.length - tail);
    const room = width - 2 - middle.length;
    if (room < 2) return name;
    const before = Math.min(head, Math.ceil(room / 2));
    const after = Math.min(tail, room - before);
    const from = head - before;
    const to = name.length - tail + after;
    return `${from > 0 ? "…" : ""}${name.slice(from, to)}${to < name.length ? "…" : ""}`;
  });
}

/** A cut name as an element: the whole path is its tooltip, and what a copied selection holds. */
export const named = (path, text = path) => h("span", { class: "path", title: path, "data-path": text === path ? null : path }, text);

/** A name that may be broken behind its separators. */
export const breakable = (name) => name.split(/(?<=[_/-])/).flatMap((part, i) => (i ? [h("wbr"), part] : [part]));

/** Whoever copies a cut name gets the whole path. */
export function copyWholeNames() {
  document.addEventListener("copy", (event) => {
    const selection = document.getSelection();
    if (!selection.rangeCount || selection.isCollapsed) return;
    const range = selection.getRangeAt(0);
    const inside = range.commonAncestorContainer;
    const holder = (inside.nodeType === 1 ? inside : inside.parentElement)?.closest("[data-path]");
    if (holder) event.clipboardData.setData("text/plain", holder.dataset.path);
    else {
      const cut = [...(inside.querySelectorAll?.("[data-path]") ?? [])].filter((one) => range.intersectsNode(one));
      if (!cut.length) return;
      let text = selection.toString();
      for (const one of cut) text = text.replace(one.textContent, () => one.dataset.path);
      event.clipboardData.setData("text/plain", text);
    }
    event.preventDefault();
  });
}
