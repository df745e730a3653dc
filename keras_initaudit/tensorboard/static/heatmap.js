// The heat map layer x step: the start on top, one column a layer, on the x axis of the profile above it.

import { cellColour } from "./colour.js";
import { h } from "./dom.js";
import { deviation, spread } from "./model.js";

/** The cell that a pixel shows where several share it: the one furthest from the band, so that none is hidden. */
function worst(entry, one, from, to) {
  let chosen = from;
  let far = -1;
  for (let i = from; i < to; i++) {
    const here = one.broken[i] ? Infinity : Math.abs(deviation(entry, one.level[i])) || 0;
    if (here > far) [chosen, far] = [i, here];
  }
  return chosen;
}

/** Paints curves (one a step) into an image of at most `most` columns. */
function image(entry, curves, count, most) {
  const columns = Math.max(1, Math.min(count, most));
  const canvas = h("canvas", { width: columns, height: Math.max(1, curves.length) });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(columns, Math.max(1, curves.length));
  curves.forEach((one, row) => {
    for (let column = 0; column < columns; column++) {
      const from = Math.floor((column * count) / columns);
      const i = worst(entry, one, from, Math.max(from + 1, Math.floor(((column + 1) * count) / columns)));
      pixels.data.set([...cellColour(entry, one.level[i], one.broken[i]), 255], 4 * (row * columns + column));
    }
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** Height of one step's row, so that few steps are easy to hit and many still fit. */
const rowHeight = (steps) => Math.max(1.5, Math.min(22, 300 / Math.max(1, steps)));

/**
 * Draws the heat map: a canvas, the steps at its left, the layers under it.
 *
 * `frame` is the profile's; `names` hold the `path` of each layer and the `name` that fits under it. Returns the element and `at(event)` -> {layer, step}.
 */
export function drawHeatmap(frame, entry, curves, steps, names, title) {
  const height = Math.round(rowHeight(steps.length) * steps.length);
  const ratio = window.devicePixelRatio || 1;
  const canvas = h("canvas", { class: "cells", width: Math.round(frame.inner * ratio), height: Math.round(height * ratio), style: `left:${frame.left}px;width:${frame.inner}px;height:${height}px` });
  const context = canvas.getContext("2d");
  const source = image(entry, curves, frame.count, canvas.width);
  context.imageSmoothingEnabled = false;
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  rule(context, canvas, frame.count, steps.length, ratio);
  cross(context, canvas, curves, frame.count);

  const rows = spread(steps.length, Math.max(2, Math.floor(height / 13)));
  const labels = rows.map((i) => h("span", { class: "step", style: `top:${((i + 0.5) * height) / steps.length}px;width:${frame.left - 8}px` }, steps[i].toLocaleString("en")));
  const box = h("div", { class: "heatmap", tabindex: 0, role: "img", "aria-label": title, style: `height:${height + layerAxis(frame, names).room}px;width:${frame.width}px` }, canvas, h("div", { class: "cell-cursor", hidden: true }), labels, layerAxis(frame, names).labels.map((label) => h("span", { class: label.turned ? "layer turned" : "layer", style: `left:${label.x}px;top:${height + 4}px`, title: label.path, "data-path": label.path }, label.text)));
  const cell = { width: frame.inner / frame.count, height: height / steps.length };
  return {
    element: box,
    at(event) {
      const area = canvas.getBoundingClientRect();
      const inside = (value, size) => Math.max(0, Math.min(size - 1, Math.floor(value)));
      return { layer: inside((event.clientX - area.left) / cell.width, frame.count), step: inside((event.clientY - area.top) / cell.height, steps.length) };
    },
    point(layer, step) {
      const cursor = box.querySelector(".cell-cursor");
      cursor.hidden = layer === null;
      if (layer === null) return;
      cursor.style.cssText = `left:${frame.left + layer * cell.width}px;top:${step * cell.height}px;width:${Math.max(3, cell.width)}px;height:${Math.max(3, cell.height)}px`;
    },
  };
}

/** Thin lines between cells that are large enough to have them. */
function rule(context, canvas, columns, rows, ratio) {
  const [width, height] = [canvas.width / columns, canvas.height / rows];
  const line = Math.max(1, Math.round(ratio));
  if (width >= 8 * ratio) for (let i = 1; i < columns; i++) context.clearRect(Math.round(i * width), 0, line, canvas.height);
  if (height >= 8 * ratio) for (let i = 1; i < rows; i++) context.clearRect(0, Math.round(i * height), canvas.width, line);
}

/** A cross in each cell that is not finite and large enough for one: its colour is not the only sign. */
function cross(context, canvas, curves, columns) {
  const [width, height] = [canvas.width / columns, canvas.height / curves.length];
  const r = Math.min(width, height) / 5;
  if (r < 1.6) return;
  context.strokeStyle = "#ffffff";
  context.lineWidth = Math.max(1, r / 2.5);
  context.beginPath();
  curves.forEach((one, row) => {
    for (let i = 0; i < columns; i++) {
      if (!one.broken[i]) continue;
      const [x, y] = [(i + 0.5) * width, (row + 0.5) * height];
      context.moveTo(x - r, y - r);
      context.lineTo(x + r, y + r);
      context.moveTo(x + r, y - r);
      context.lineTo(x - r, y + r);
    }
  });
  context.stroke();
}

/** The names of the layers where they fit, else their depth now and then. */
function layerAxis(frame, names) {
  const longest = Math.max(...names.map((one) => one.name.length), 1);
  const label = (i, turned) => ({ text: names[i].name, path: names[i].path, x: frame.x(i), turned });
  if (frame.cell >= longest * 6.6 + 8) return { room: 22, labels: names.map((_, i) => label(i, false)) };
  if (frame.cell >= 16) return { room: 18 + longest * 4.6, labels: names.map((_, i) => label(i, true)) };
  const every = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000].find((stride) => stride * frame.cell >= 34) ?? names.length;
  const shown = names.flatMap((_, i) => (i % every ? [] : [i]));
  return { room: 22, labels: shown.map((i) => ({ text: String(i), path: names[i].path, x: frame.x(i) })) };
}

/** A strip of one layer over its audits, the start at the left, for the table. */
export function drawStrip(entry, one) {
  const strip = image(entry, [one], one.level.length, 64);
  strip.className = "strip";
  strip.setAttribute("aria-hidden", "true");
  return strip;
}

/** The scale of the colours in words. */
export function heatmapLegend(entry) {
  const stops = entry.kind === "fraction" ? ["low", "in order", "high"] : ["too small", "in band", "too large"];
  return h(
    "div",
    { class: "legend" },
    h("span", null, h("i", { class: "ramp" }), stops.join(" · ")),
    h("span", null, h("i", { class: "swatch broken" }), "not finite"),
    h("span", null, h("i", { class: "swatch missing" }), "no such quantity"),
  );
}
