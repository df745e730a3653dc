// The depth profile: signal and gradient along the main line on one fixed log axis. The two-second picture.
// Flat within the band is good, a slope is bad. Dashed is the start, or another run; solid is now, a cross is not finite.

import { alongLine } from "./axis.js";
import { h, s } from "./dom.js";
import { power } from "./format.js";
import { BAND } from "./constants.js";
import { AXIS } from "./model.js";

const SERIES = ["backward", "activation"]; // the later is drawn on top

/** Where things stand; shared with the heat map under it. */
export function frameOf(width, count, mini = false) {
  const frame = mini
    ? { width, height: 84, left: 6, right: 6, top: 6, bottom: 6 }
    : { width, height: Math.max(260, Math.min(340, width * 0.36)), left: 58, right: width > 520 ? 96 : 14, top: 22, bottom: 12 };
  const inner = frame.width - frame.left - frame.right;
  const cell = inner / Math.max(1, count);
  const decades = (frame.height - frame.top - frame.bottom) / (AXIS.high - AXIS.low);
  return {
    ...frame,
    count,
    mini,
    inner,
    cell,
    x: (i) => frame.left + (i + 0.5) * cell,
    y: (level) => frame.top + (AXIS.high - Math.max(AXIS.low, Math.min(AXIS.high, level))) * decades,
    at: (x) => Math.max(0, Math.min(count - 1, Math.floor((x - frame.left) / cell))),
  };
}

/** The path of one curve; a gap where there is nothing, one vertical stroke a pixel where layers share pixels. */
function path(frame, one) {
  const text = [];
  let open = false;
  const stride = Math.max(1, Math.floor(frame.count / frame.inner));
  for (let i = 0; i < frame.count; i += stride) {
    let low = Infinity;
    let high = -Infinity;
    for (let j = i; j < Math.min(frame.count, i + stride); j++) {
      if (Number.isNaN(one.level[j]) || one.broken[j]) continue;
      low = Math.min(low, one.level[j]);
      high = Math.max(high, one.level[j]);
    }
    if (low > high) {
      open = false;
      continue;
    }
    const x = frame.x(i).toFixed(1);
    text.push(`${open ? "L" : "M"}${x} ${frame.y(low).toFixed(1)}`);
    if (high > low) text.push(`L${x} ${frame.y(high).toFixed(1)}`);
    open = true;
  }
  return text.join("");
}

/** Marks where the curve leaves the axis or is not finite, and the points where there is room for them. */
function marks(frame, name, one, solid) {
  const points = [];
  const crosses = [];
  const edges = [];
  const r = frame.mini ? 2.5 : 4.5;
  const stride = Math.max(1, Math.floor((frame.count * 3) / frame.inner));
  for (let i = 0; i < frame.count; i++) {
    const x = frame.x(i);
    const level = one.level[i];
    if (one.broken[i]) {
      if (i % stride) continue;
      const y = name === "activation" ? frame.y(AXIS.high) + r + 1 : frame.y(AXIS.low) - r - 1;
      crosses.push(`M${x - r} ${y - r}l${2 * r} ${2 * r}m0 ${-2 * r}l${-2 * r} ${2 * r}`);
    } else if (level < AXIS.low || level > AXIS.high) {
      if (i % stride) continue;
      const sign = level > AXIS.high ? 1 : -1;
      edges.push(`M${x - r} ${frame.y(level) + sign * (r + 1)}h${2 * r}l${-r} ${-sign * (r + 3)}z`);
    } else if (solid && !frame.mini && frame.cell >= 7 && !Number.isNaN(level)) {
      points.push(
        name === "activation"
          ? s("circle", { cx: x, cy: frame.y(level), r: 3 })
          : s("rect", { x: x - 2.7, y: frame.y(level) - 2.7, width: 5.4, height: 5.4 }),
      );
    }
  }
  return [
    points.length && s("g", { class: `points ${name}` }, points),
    edges.length && s("path", { class: `edge ${name}`, d: edges.join("") }),
    crosses.length && s("path", { class: "cross", d: crosses.join("") }),
  ];
}

function axes(frame) {
  const parts = [];
  for (let decade = AXIS.low; decade <= AXIS.high; decade += 2) {
    const y = frame.y(decade);
    parts.push(s("line", { class: "grid", x1: frame.left, x2: frame.width - frame.right, y1: y, y2: y }));
    parts.push(s("text", { class: "tick", "data-decade": decade, x: frame.left - 8, y: y + 4, "text-anchor": "end" }, power(decade)));
  }
  // beside the plot, where no curve is drawn over them
  const zones = [["exploding", BAND.high, AXIS.high, "zone"], ["healthy", BAND.low, BAND.high, "zone good"], ["vanishing", AXIS.low, BAND.low, "zone"]];
  for (const [text, low, high, name] of zones) {
    const middle = (frame.y(low) + frame.y(high)) / 2;
    parts.push(s("text", { class: name, x: 0, y: 0, transform: `translate(13 ${middle}) rotate(-90)`, "text-anchor": "middle" }, text));
  }
  return parts;
}

/** Names at the right end of the curves, moved apart where they would overlap. */
function endLabels(frame, now) {
  if (frame.right < 60) return [];
  const names = { activation: "activation →", backward: "← gradient" };
  const labels = SERIES.map((name) => {
    let i = frame.count - 1;
    while (i > 0 && (Number.isNaN(now[name].level[i]) || now[name].broken[i])) i--;
    const level = now[name].level[i];
    return { name, y: Number.isNaN(level) ? frame.y(name === "activation" ? AXIS.high : AXIS.low) : frame.y(level) };
  }).sort((a, b) => a.y - b.y);
  if (labels[1].y - labels[0].y < 16) {
    const centre = Math.max(frame.top + 12, Math.min(frame.height - frame.bottom - 12, (labels[0].y + labels[1].y) / 2));
    labels[0].y = centre - 8;
    labels[1].y = centre + 8;
  }
  return labels.map(({ name, y }) => s("text", { class: `end ${name}`, x: frame.width - frame.right + 8, y: y + 4 }, names[name]));
}

/** What stands inside the blocks, small, at its depth; on a card only what lies outside of the band. */
function inside(frame, name, all, placed) {
  const r = frame.mini ? 1.4 : 1.9;
  const dots = [];
  const crosses = [];
  for (const { row, x } of placed) {
    const level = all.level[row];
    const at = frame.left + (x + 0.5) * frame.cell;
    if (all.broken[row]) crosses.push(`M${at - r} ${frame.y(AXIS.high) + 2}l${2 * r} ${2 * r}m0 ${-2 * r}l${-2 * r} ${2 * r}`);
    else if (!Number.isNaN(level) && !(frame.mini && level >= BAND.low && level <= BAND.high)) dots.push(`M${(at - r).toFixed(1)} ${frame.y(level).toFixed(1)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`);
  }
  return [dots.length > 0 && s("path", { class: `inside ${name}`, d: dots.join("") }), crosses.length > 0 && s("path", { class: "cross", d: crosses.join("") })];
}

/** The slots that a finding marks: a bar at the foot, and shaded where that is no more than half of them. */
function faults(frame, marked) {
  const bottom = frame.height - frame.bottom;
  const foot = frame.mini ? 4 : 6;
  const few = !frame.mini && 2 * marked.length <= frame.count;
  const runs = [];
  for (const i of [...marked].sort((a, b) => a - b)) {
    if (runs.length && runs.at(-1)[1] === i - 1) runs.at(-1)[1] = i;
    else runs.push([i, i]);
  }
  return s("g", { class: "fault-at" }, runs.map(([from, to]) => {
    const area = { x: frame.left + from * frame.cell, width: Math.max(1.5, (to - from + 1) * frame.cell) };
    return [few && s("rect", { ...area, y: frame.top, height: bottom - frame.top }), s("rect", { class: "foot", ...area, y: bottom - foot, height: foot })];
  }));
}

/**
 * Draws a profile along an axis (axis.js).
 *
 * `now`, `start` and `other` hold a curve of all rows (model.js) for "activation" and "backward": of the shown audit, of
 * the first one, of the run that it is compared with; the last two may be null. `marked` are the slots with the fault.
 */
export function drawProfile(frame, axis, { now, start = null, other = null, marked = [] }, title) {
  const band = { x: frame.left, width: frame.inner, y: frame.y(BAND.high), height: frame.y(BAND.low) - frame.y(BAND.high) };
  const along = (curves) => curves && Object.fromEntries(SERIES.map((name) => [name, alongLine(axis, curves[name])]));
  const here = along(now);
  const curves = [];
  for (const [kind, one] of [["start", along(other ? null : start)], ["other", along(other)]]) {
    for (const name of one ? SERIES : []) curves.push(s("path", { class: `curve ${kind} ${name}`, d: path(frame, one[name]) }));
  }
  for (const name of SERIES) {
    curves.push(inside(frame, name, now[name], axis.marks));
    curves.push(s("path", { class: `curve now ${name}`, d: path(frame, here[name]) }));
    curves.push(marks(frame, name, here[name], true));
  }
  const { opened } = axis;
  return s(
    "svg",
    { class: frame.mini ? "profile mini" : "profile", viewBox: `0 0 ${frame.width} ${frame.height}`, width: frame.width, height: frame.height, role: "img", "aria-label": title },
    s("rect", { class: "plot", x: frame.left, y: frame.top, width: frame.inner, height: frame.height - frame.top - frame.bottom }),
    opened && s("rect", { class: "opened", x: frame.left + opened.from * frame.cell, width: (opened.to - opened.from + 1) * frame.cell, y: frame.top, height: frame.height - frame.top - frame.bottom }),
    s("rect", { class: "band", ...band }),
    marked.length > 0 && faults(frame, marked),
    frame.mini ? s("line", { class: "one", x1: frame.left, x2: frame.width - frame.right, y1: frame.y(0), y2: frame.y(0) }) : axes(frame),
    curves,
    frame.mini ? null : endLabels(frame, here),
    frame.mini ? null : s("line", { class: "cursor", x1: -9, x2: -9, y1: frame.top, y2: frame.height - frame.bottom }),
  );
}

/** What the lines mean; `has` says which of them are there. */
export function profileLegend(has) {
  const sample = (name, kind) =>
    s("svg", { width: 30, height: 12, "aria-hidden": "true" }, s("path", { class: `curve ${kind} ${name}`, d: "M1 6H29" }), kind === "now" && (name === "activation" ? s("g", { class: `points ${name}` }, s("circle", { cx: 15, cy: 6, r: 3 })) : s("g", { class: `points ${name}` }, s("rect", { x: 12.3, y: 3.3, width: 5.4, height: 5.4 }))));
  const dots = s("svg", { width: 16, height: 12, "aria-hidden": "true" }, s("path", { class: "inside activation", d: "M2 6a2 2 0 1 0 4 0a2 2 0 1 0 -4 0M10 4a2 2 0 1 0 4 0a2 2 0 1 0 -4 0" }));
  return h(
    "div",
    { class: "legend" },
    h("span", null, sample("activation", "now"), "activation rms"),
    h("span", { title: "Norm of dL/d(activation) of one sample at each layer's output, divided by that at the last hidden layer it leads to" }, sample("backward", "now"), "gradient over the last hidden layer's"),
    has.other ? h("span", null, sample("activation", "other"), `in ${has.other}`) : has.start && h("span", null, sample("activation", "start"), "at the start"),
    has.inside && h("span", null, dots, "inside a block: click to open it"),
    has.marked && h("span", null, h("i", { class: "swatch fault" }), "has the fault"),
    h("span", null, s("svg", { width: 12, height: 12, "aria-hidden": "true" }, s("path", { class: "cross", d: "M2 2l8 8m0 -8l-8 8" })), "not finite"),
  );
}
