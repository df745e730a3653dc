// The table of layers at the shown audit: worst first where there are many, with a filter, and the remedy to copy.

import { copyButton, h, icon } from "./dom.js";
import { level as readOut, size } from "./format.js";
import { drawStrip } from "./heatmap.js";
import { deviation, sortRows, statistic } from "./model.js";
import { named, nameOf } from "./names.js";

const MANY = 40;
const SHOWN = 100;

const COLUMNS = [
  { id: "worst", name: "", title: "Worst first", key: (row) => row.rank },
  { id: "depth", name: "Depth", key: (row) => row.layer.depth },
  { id: "layer", name: "Layer", key: (row) => row.layer.path },
  { id: "strip", name: "Over time", title: "The chosen statistic, from the start (left) to now" },
  { id: "activation", name: "Activation rms", key: (row) => row.activation.value },
  { id: "gradient", name: "Gradient rms", title: "Of dL/d(weight)", key: (row) => row.gradient.value },
  { id: "update", name: "Update (log10)", title: "log10 of rms(change over the next step) / rms(weight); about −3 is usual", key: (row) => row.update.value },
  { id: "difference", name: "Apart", title: "Largest distance between the two runs, in decades", key: (row) => row.difference },
  { id: "finding", name: "Finding", key: (row) => row.rank },
];

/** The first order of the rows: by depth, or worst first where there are many. */
export const firstOrder = (count) => (count > MANY ? { by: "worst", descending: false } : { by: "depth", descending: false });

function cell(entry, one) {
  const other = one.other && h("span", { class: "in-other" }, one.other.broken ? "not finite" : entry.kind === "scale" ? size(one.other.value) : readOut(entry, one.other.value));
  if (one.broken) return h("td", { class: "number off" }, icon("bad"), "not finite", other);
  const off = one.level !== undefined && deviation(entry, one.level) !== 0;
  const shown = entry.kind === "scale" ? size(one.value) : readOut(entry, one.value);
  return h("td", { class: off ? "number off" : "number", title: off ? `outside the band: ${readOut(entry, one.level)}` : null }, off ? (deviation(entry, one.level) < 0 ? "↓ " : "↑ ") : "", shown, other);
}

function drawRow(row, name, selected, onLayer) {
  const [worst] = row.findings;
  return h(
    "tr",
    { class: worst?.severity ?? "", "aria-selected": String(selected), "data-row": row.layer.path, onclick: () => onLayer(row.layer.path) },
    h("td", { class: "mark" }, worst && icon(worst.severity)),
    h("td", { class: "number" }, row.layer.depth < 0 ? "" : row.layer.depth),
    h("td", { class: "layer-name" }, h("button", { class: "link", type: "button" }, named(row.layer.path, name)), h("span", { class: "small" }, row.about)),
    h("td", { class: "strip-cell" }, drawStrip(row.stripEntry, row.strip)),
    cell(statistic("activation"), row.activation),
    cell(statistic("gradient"), row.gradient),
    cell(statistic("update"), row.update),
    !Number.isNaN(row.difference) && h("td", { class: "number" }, row.difference < 0 ? "–" : size(row.difference)),
    h("td", { class: "finding-cell" }, row.findings.map((finding) => h("span", { class: "rule", title: finding.message }, finding.rule)), worst?.remedy && copyButton(worst.remedy, "Copy remedy")),
  );
}

/**
 * Draws the table; `info` is the run.
 *
 * `view` is {by, descending, filter, all}; `change(part)` is called with what the user changes of it.
 */
export function drawTable(info, rows, view, selected, change, onLayer) {
  const wanted = view.filter.toLowerCase();
  const found = rows.filter((row) => !wanted || row.search.includes(wanted));
  const column = COLUMNS.find((one) => one.id === view.by) ?? COLUMNS[1];
  const sorted = sortRows(found, column.key, view.descending);
  const shown = view.all ? sorted : sorted.slice(0, SHOWN);
  const columns = COLUMNS.filter((one) => one.id !== "difference" || rows.some((row) => !Number.isNaN(row.difference)));
  const heads = columns.map((one) => {
    const active = one.id === view.by;
    const sort = active ? (view.descending ? "descending" : "ascending") : "none";
    const click = () => change({ by: one.id, descending: active && !view.descending });
    return h("th", { scope: "col", class: `col-${one.id}`, "aria-sort": one.key ? sort : null, title: one.title }, one.key && one.name ? h("button", { type: "button", class: "sort", onclick: click }, one.name, active ? (view.descending ? " ↓" : " ↑") : "") : one.name || h("span", { class: "hidden-word" }, one.title));
  });
  return h(
    "div",
    { class: "table-box" },
    h("table", null, h("thead", null, h("tr", null, heads)), h("tbody", null, shown.map((row) => drawRow(row, nameOf(info, "table", row.index), row.layer.path === selected, onLayer)))),
    !found.length && h("p", { class: "quiet" }, "No layer matches the filter."),
    shown.length < sorted.length && h("button", { class: "more", type: "button", onclick: () => change({ all: true }) }, `Show all ${sorted.length.toLocaleString("en")} layers`),
  );
}
