// A coordinate check: two panels on the same logarithmic axes, a line a layer, and the table of the slopes. What a layer
// does with the width is told by the line's colour, its dashes and the shape of its points.

import { chip, h, icon, s } from "./dom.js";
import { num } from "./format.js";
import { named } from "./names.js";

const SIZE = { width: 520, height: 300, left: 58, right: 16, top: 12, bottom: 42 };

const SHAPES = {
  bad: (x, y) => s("path", { d: `M${x - 5} ${y + 4}h10l-5 -9z` }),
  warning: (x, y) => s("path", { d: `M${x - 5} ${y - 4}h10l-5 9z` }),
  healthy: (x, y) => s("circle", { cx: x, cy: y, r: 3.4 }),
};

/** The numbers of an axis: powers of ten, and twice and five times those where there are few. */
function ticks(low, high) {
  const within = (factors) => {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) for (const factor of factors) found.push(Number(`${factor}e${power}`));
    return found.filter((value) => value >= low && value <= high);
  };
  const few = within([1]);
  return few.length > 2 ? few : within([1, 2, 5]);
}

/** From the least to the largest of the values, at least a factor of two apart, with a little room. */
function range(values) {
  const [low, high] = [Math.log(Math.min(...values)), Math.log(Math.max(...values))];
  const room = Math.max(0.04 * (high - low), (Math.LN2 - (high - low)) / 2);
  return [Math.exp(low - room), Math.exp(high + room)];
}

/** One panel; null where no layer has anything to draw in either. */
function drawPanel(check, panel) {
  const rms = check.rows.flatMap((row) => row.curves.flat().map(([, value]) => value));
  if (!rms.length) return null;
  const { width, height, left, right, top, bottom } = SIZE;
  const [low, high] = range(rms);
  const [narrow, wide] = range(check.widths);
  const part = (value, from, to) => Math.log(value / from) / Math.log(to / from);
  const x = (value) => left + part(value, narrow, wide) * (width - left - right);
  const y = (value) => height - bottom - part(value, low, high) * (height - top - bottom);
  const words = check.rows.map((row) => `${row.cells[0]} ${row.cells[1 + panel]}`);
  const draw = (row) => {
    const points = row.curves[panel].map(([at, value]) => [x(at), y(value)]);
    const line = points.map(([a, b], i) => `${i ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");
    return s("g", { class: `of-layer ${row.verdict}`, "data-row": row.cells[0] }, s("title", null, `${row.cells[0]}: ${row.cells[1 + panel]}, ${row.cells[3]}`), s("path", { class: "line", d: line }), points.map(([a, b]) => SHAPES[row.verdict](a, b)));
  };
  const calm = (row) => (row.verdict === "healthy" ? 0 : 1); // what is wrong is drawn over what is not
  return s(
    "svg",
    { class: "coordinates", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Rms of the ${check.panels[panel]} against the width; slopes: ${words.join("; ")}` },
    s("rect", { class: "plot", x: left, y: top, width: width - left - right, height: height - top - bottom }),
    ticks(low, high).map((value) => [s("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }), s("text", { class: "tick", x: left - 7, y: y(value) + 4, "text-anchor": "end" }, num(value))]),
    check.widths.map((value) => [s("line", { class: "grid", x1: x(value), x2: x(value), y1: top, y2: height - bottom }), s("text", { class: "tick", x: x(value), y: height - bottom + 16, "text-anchor": "middle" }, String(value))]),
    s("text", { class: "axis", x: (left + width - right) / 2, y: height - 7, "text-anchor": "middle" }, "width"),
    s("text", { class: "axis", transform: `translate(13 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, "rms"),
    [...check.rows].sort((a, b) => calm(a) - calm(b)).map(draw),
  );
}

function legend(check) {
  const there = Object.entries(check.meanings).filter(([, verdict]) => check.rows.some((row) => row.verdict === verdict));
  const sample = (verdict) => s("svg", { width: 34, height: 14, "aria-hidden": "true" }, s("g", { class: `of-layer ${verdict}` }, s("path", { class: "line", d: "M1 7H33" }), SHAPES[verdict](17, 7)));
  return h("div", { class: "legend" }, there.map(([meaning, verdict]) => h("span", null, sample(verdict), meaning)));
}

/** The table; a row under the pointer thickens its lines in both panels. */
function drawRows(check, panels) {
  const point = (name, on) => {
    for (const group of panels.querySelectorAll(".of-layer")) group.classList.toggle("here", on && group.dataset.row === name);
  };
  const draw = (row, i) => {
    const [name, start, change, meaning] = row.cells;
    return h(
      "tr",
      { class: row.verdict, onpointerenter: () => point(name, true), onpointerleave: () => point(name, false) },
      h("td", { class: "layer-name" }, named(name, check.names[i])),
      h("td", { class: "number" }, start),
      h("td", { class: "number" }, change),
      h("td", { class: "meaning" }, icon(row.verdict), row.finite ? meaning : `${meaning} (not finite)`),
    );
  };
  const heads = check.headers.map((name, i) => h("th", { scope: "col", class: i === 1 || i === 2 ? "number" : null }, name));
  return h("div", { class: "table-box" }, h("table", { class: "slopes" }, h("caption", { class: "small" }, `Start and change: ${check.legend}.`), h("thead", null, h("tr", null, heads)), h("tbody", null, check.rows.map(draw))));
}

/** The whole of a check. */
export function drawCheck(check) {
  const panels = h("div", { class: "panels" });
  for (const [i, title] of check.panels.entries()) panels.append(h("section", null, h("h3", null, `Rms of the ${title}`), drawPanel(check, i) ?? h("p", { class: "quiet" }, "Nothing that can be drawn.")));
  return [
    h("header", { class: "run-head" }, h("h2", { title: check.run }, check.label), chip(check.verdict), h("span", { class: "small" }, `coordinate check · ${check.check}`), legend(check)),
    h("p", null, check.headline),
    panels,
    drawRows(check, panels),
  ];
}
