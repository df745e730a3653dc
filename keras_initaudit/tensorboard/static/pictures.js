// The large pictures of the chosen run, all on one axis of depth: profile, the quantity that was found, heat map.

import { alongLine, worstOf } from "./axis.js";
import { marks } from "./cards.js";
import { h } from "./dom.js";
import { count, level as readOut } from "./format.js";
import { drawHeatmap, heatmapLegend } from "./heatmap.js";
import { PROFILE, statistic, STATISTICS } from "./model.js";
import { nameOf } from "./names.js";
import { follow, reading } from "./pointer.js";
import { drawProfile, frameOf, profileLegend } from "./profile.js";
import { drawQuantity, worstFigure } from "./quantity.js";

/**
 * Draws the pictures; returns elements.
 *
 * `shown` has: `info` and `table` of the run, `axis`, `step` (a position), `stat` (the heat map's), `quantities`,
 * `rows` (those that the worst finding marks), `curves(entry)` (one a step, of all rows), `other` ({label, curve(entry)}
 * of the run that it is compared with, or null), `tip`, and what to call: `onStat`, `onStep`, `onLayer`, `onBlock`.
 */
export function drawPictures(width, shown) {
  const { info, table, axis, step, curves, other } = shown;
  const entry = statistic(shown.stat);
  if (!axis.slots.length) return [h("p", { class: "quiet" }, "This audit has no layers to draw.")];
  const frame = frameOf(width, axis.slots.length);
  const marked = marks(axis, shown.rows);
  const of = (one) => Object.fromEntries(PROFILE.map((id) => [id, curves(statistic(id))[one]]));
  const beside = other && Object.fromEntries(PROFILE.map((id) => [id, other.curve(statistic(id))]));
  const draw = (one) => [
    drawProfile(frame, axis, { now: of(one), start: one > 0 ? of(0) : null, other: beside, marked }, `Depth profile of ${info.label} at step ${table.steps[one]}`),
    ...shown.quantities.map((each) => quantity(frame, axis, each, curves(each)[one], other && worstOf(axis, each, other.curve(each)), marked)),
  ];
  const profile = h("div", { class: "profile-place" }, draw(step));
  const worst = (each) => curves(each).map((one) => worstOf(axis, each, one));
  const overTime = axis.marks.length ? worst(entry) : curves(entry).map((one) => alongLine(axis, one));
  const heat = drawHeatmap(frame, entry, overTime, table.steps, axis.rows.map((row) => ({ path: info.layers[row].path, name: nameOf(info, "turned", row) })), `${entry.name}: layers from left to right, steps from top to bottom. Arrow keys move, Enter opens the block or the layer, space shows the step.`);
  const picker = h("select", { "aria-label": "Statistic of the heat map", onchange: (event) => shown.onStat(event.target.value) }, available(info).map((one) => h("option", { value: one.id, selected: one.id === entry.id }, one.name)));
  const read = [...new Set([...PROFILE.map(statistic), ...shown.quantities, entry])];
  follow(frame, profile, heat, shown.tip, {
    step,
    steps: table.steps.length,
    redraw: (one) => profile.replaceChildren(...draw(one)),
    read: (i, one) => {
      const { row, members } = axis.slots[i];
      const here = overTime[one];
      const more = members.length && here.row?.[i] !== row && !Number.isNaN(here.level[i]) ? `inside, ${entry.name.toLowerCase()} at the worst ${here.broken[i] ? "not finite" : readOut(entry, here.level[i])}: ${info.layers[here.row[i]].path}` : null;
      return reading(info.layers[row], row, table.steps[one], read.map((each) => [each, curves(each)[one]]), more);
    },
    open: (i) => {
      const { row, block, inside } = axis.slots[i];
      if (block !== null && !inside) shown.onBlock(info.layers[block].path);
      else shown.onLayer(info.layers[row].path);
    },
    pin: (one) => shown.onStep(table.steps[one]),
  });
  const has = { start: step > 0, other: other?.label, inside: axis.marks.length > 0, marked: marked.length > 0 };
  return [
    h("div", { class: "picture-head" }, h("h3", null, "Signal and gradient by depth"), blockTools(shown), profileLegend(has)),
    profile,
    h("div", { class: "picture-head" }, h("h3", null, "Layer × step"), picker, heatmapLegend(entry)),
    heat.element,
  ];
}

function quantity(frame, axis, entry, one, other, marked) {
  const here = worstOf(axis, entry, one);
  const figure = worstFigure(entry, here);
  return h("div", { class: "quantity-place" }, h("h4", null, `${entry.name}, at the worst `, h("b", null, figure)), drawQuantity(frame, entry, here, other, marked, `${entry.name} by depth, at the worst ${figure}`));
}

const available = (info) => STATISTICS.filter((one) => info.columns.includes(one.column));

/** The blocks of the main line, to open one from the keyboard, and to close it. */
function blockTools({ info, axis, onBlock }) {
  const blocks = axis.slots.filter((slot) => slot.block !== null && !slot.inside);
  const { opened } = axis;
  if (!blocks.length && !opened) return null;
  const rows = [...new Set([...blocks.map((slot) => slot.block), ...(opened ? [opened.row] : [])])].sort((a, b) => a - b);
  const options = rows.map((row) => h("option", { value: info.layers[row].path, selected: row === opened?.row }, nameOf(info, "list", row)));
  return h("select", { class: "blocks", "aria-label": "Block to open", onchange: (event) => onBlock(event.target.value || null) }, h("option", { value: "" }, opened ? "close the block" : `${count(blocks.length, "block")}, all closed`), options);
}
