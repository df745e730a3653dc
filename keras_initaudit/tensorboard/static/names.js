// Names that fit: the server cuts long paths so that rows stay distinguishable (names.py); the whole one is in the tooltip
// and on copying.

import { h } from "./dom.js";

/** The name of a row at a place of the page: "turned" under the heat map, in a "list", in the "table". */
export const nameOf = (info, place, row) => info.names[place][row] ?? info.layers[row].path;

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
