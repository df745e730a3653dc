// One layer: its histograms over the audits, and its update ratio, with a line at the usual -3.

import { h, s } from "./dom.js";
import { size } from "./format.js";
import { spread, statistic } from "./model.js";

const KINDS = { weights: "Weights", activations: "Activations", gradients: "Weight gradients" };
const WIDTH = 280;
const HEIGHT = 150;

/** Steps lie densest at the start, and so does what matters: the axis of steps is logarithmic from step 1 on. */
const stepAxis = (steps, left, width) => {
  const last = Math.log1p(Math.max(1, steps[steps.length - 1] ?? 1));
  return (step) => left + (Math.log1p(Math.max(0, step)) / last) * width;
};

/** Histograms behind one another, the start at the back, now in front. */
export function drawRidges(kind, histograms) {
  const title = h("h4", null, KINDS[kind]);
  if (!histograms.length) return h("figure", { class: "ridges" }, title, h("p", { class: "quiet" }, "No histograms were logged for this row."));
  const shown = spread(histograms.length, 9).map((i) => histograms[i]);
  const low = Math.min(...shown.map((one) => one.low));
  const high = Math.max(...shown.map((one) => one.high));
  const span = high > low ? high - low : 1;
  const [left, right, top, bottom] = [6, 44, 46, 18];
  const x = (value) => left + (high > low ? (value - low) / span : 0.5) * (WIDTH - left - right);
  const room = (HEIGHT - top - bottom) / Math.max(1, shown.length - 1);
  const ridges = shown.map((one, i) => {
    const base = shown.length > 1 ? top + i * room : HEIGHT - bottom;
    const step = (one.high - one.low) / one.counts.length;
    // densities, so that a narrow histogram does not look like an empty one beside a wide one
    const tallest = Math.max(...one.counts, 1e-30);
    const points = one.counts.map((many, bin) => `L${x(one.low + (bin + 0.5) * step).toFixed(1)} ${(base - (many / tallest) * 40).toFixed(1)}`);
    const d = `M${x(one.low).toFixed(1)} ${base}${points.join("")}L${x(one.high).toFixed(1)} ${base}`;
    const mark = i === 0 || i === shown.length - 1 || room >= 11;
    return [s("path", { class: i === shown.length - 1 ? "ridge now" : "ridge", d }), mark && s("text", { class: "tick", x: WIDTH - right + 6, y: base + 3 }, one.step.toLocaleString("en"))];
  });
  const zero = low < 0 && high > 0 && s("line", { class: "grid", x1: x(0), x2: x(0), y1: 6, y2: HEIGHT - bottom });
  const ends = [s("text", { class: "tick", x: left, y: HEIGHT - 4 }, size(low)), s("text", { class: "tick", x: WIDTH - right, y: HEIGHT - 4, "text-anchor": "end" }, size(high))];
  return h("figure", { class: "ridges" }, title, s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: WIDTH, height: HEIGHT, role: "img", "aria-label": `${KINDS[kind]} over the audits, from ${size(low)} to ${size(high)}` }, zero, ridges, ends));
}

/** The update ratio over the audits. */
export function drawUpdates(steps, ratios) {
  const { name, band } = statistic("update");
  const title = h("h4", null, name);
  const points = steps.map((step, i) => [step, ratios[i]]).filter(([, ratio]) => Number.isFinite(ratio));
  if (!points.length) {
    const still = steps.some((_, i) => ratios[i] === -Infinity);
    return h("figure", { class: "ridges" }, title, h("p", { class: "quiet" }, still ? "The weights do not move: every update is zero." : "No update was measured for this row."));
  }
  const low = Math.min(band[0], Math.floor(Math.min(...points.map(([, ratio]) => ratio))));
  const high = Math.max(0, Math.ceil(Math.max(...points.map(([, ratio]) => ratio))));
  const [left, right, top, bottom] = [30, 10, 8, 18];
  const x = stepAxis(steps, left, WIDTH - left - right);
  const y = (ratio) => top + ((high - ratio) / (high - low)) * (HEIGHT - top - bottom);
  const line = points.map(([step, ratio], i) => `${i ? "L" : "M"}${x(step).toFixed(1)} ${y(ratio).toFixed(1)}`).join("");
  const ticks = [];
  const every = Math.max(1, Math.ceil((high - low) / 6));
  for (let ratio = high; ratio >= low; ratio -= every) ticks.push(s("text", { class: "tick", x: left - 5, y: y(ratio) + 4, "text-anchor": "end" }, String(ratio)));
  return h(
    "figure",
    { class: "ridges" },
    title,
    s(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: WIDTH, height: HEIGHT, role: "img", "aria-label": "Update ratio over the audits; about −3 is usual" },
      s("rect", { class: "band", x: left, width: WIDTH - left - right, y: y(band[1]), height: y(band[0]) - y(band[1]) }),
      s("line", { class: "guide", x1: left, x2: WIDTH - right, y1: y(-3), y2: y(-3) }),
      ticks,
      s("path", { class: "curve now update", d: line }),
      s("g", { class: "points update" }, points.map(([step, ratio]) => s("circle", { cx: x(step), cy: y(ratio), r: 2.5 }))),
      s("text", { class: "tick", x: left, y: HEIGHT - 4 }, `step ${steps[0]}`),
      s("text", { class: "tick", x: WIDTH - right, y: HEIGHT - 4, "text-anchor": "end" }, (steps[steps.length - 1] ?? 0).toLocaleString("en")),
    ),
  );
}

/** What a row is, in a line. */
export function describe(layer) {
  const parts = [layer.kind];
  if (layer.role && layer.role !== "layer") parts.push(layer.role);
  if (layer.activation) parts.push(layer.activation);
  if (layer.initializer) parts.push(layer.initializer);
  if (layer.weight_shape?.length) parts.push(layer.weight_shape.join(" × "));
  if (layer.trainable === false) parts.push("frozen");
  if (layer.shared) parts.push("shared");
  return parts.filter(Boolean).join(" · ");
}

/** The layer's panel; `histograms` is {kind: list}. */
export function drawDetail(layer, steps, ratios, histograms, onClose) {
  return h(
    "section",
    { class: "detail", "aria-label": `Layer ${layer.path}` },
    h("header", null, h("h3", null, layer.path), h("span", { class: "small" }, describe(layer)), h("button", { class: "close", type: "button", "aria-label": "Close the layer", onclick: onClose }, "×")),
    h("div", { class: "figures" }, drawUpdates(steps, ratios), Object.keys(KINDS).map((kind) => drawRidges(kind, histograms[kind] ?? []))),
  );
}
