// The quantity of the worst finding under the profile, on the same axis of depth: a bar a slot, from where it is healthy.

import { s } from "./dom.js";
import { level as readOut } from "./format.js";
import { deviation } from "./model.js";

/** What the axis holds, by the kind of the statistic and the band that needs no attention. */
function scaleOf(entry) {
  const [low, high] = entry.band;
  if (entry.kind === "fraction") return { from: 0, to: 1 };
  const middle = (low + high) / 2;
  const reach = Math.max(high - low, 3);
  return { from: middle - reach, to: middle + reach };
}

/**
 * Draws one statistic: `one` is its curve at the slots (axis.js, the worst row of each), `other` that of a second run or
 * null, `marked` the slots that the finding marks.
 */
export function drawQuantity(frame, entry, one, other, marked, title) {
  const height = frame.mini ? 46 : 104;
  const [top, bottom] = frame.mini ? [3, 3] : [8, 8];
  const { from, to } = scaleOf(entry);
  const { base } = entry;
  const y = (level) => top + ((to - Math.max(from, Math.min(to, level))) / (to - from)) * (height - top - bottom);
  const stride = Math.max(1, Math.floor((frame.count * 1.5) / frame.inner));
  const width = Math.max(1, Math.min(26, frame.cell * stride * 0.72));
  const bars = { bad: [], good: [], other: [] };
  const crosses = [];
  for (let first = 0; first < frame.count; first += stride) {
    const i = furthest(entry, one, first, Math.min(frame.count, first + stride));
    const x = frame.x(first + (Math.min(frame.count, first + stride) - first - 1) / 2);
    if (one.broken[i]) {
      const r = frame.mini ? 2.5 : 4;
      crosses.push(`M${x - r} ${top + 1}l${2 * r} ${2 * r}m0 ${-2 * r}l${-2 * r} ${2 * r}`);
    } else if (!Number.isNaN(one.level[i])) bars[deviation(entry, one.level[i]) ? "bad" : "good"].push(bar(x, width, y(base), y(one.level[i])));
    if (other && !Number.isNaN(other.level[i])) bars.other.push(`M${(x - width / 2).toFixed(1)} ${y(other.level[i]).toFixed(1)}h${width.toFixed(1)}`);
  }
  const band = { x: frame.left, width: frame.inner, y: y(Math.min(to, entry.band[1])), height: y(Math.max(from, entry.band[0])) - y(Math.min(to, entry.band[1])) };
  const ticks = entry.kind === "fraction" ? [0, 0.5, 1] : [from, base, to];
  return s(
    "svg",
    { class: frame.mini ? "quantity mini" : "quantity", viewBox: `0 0 ${frame.width} ${height}`, width: frame.width, height, role: "img", "aria-label": title },
    s("rect", { class: "plot", x: frame.left, y: top, width: frame.inner, height: height - top - bottom }),
    s("rect", { class: "band", ...band }),
    marked.length > 0 && !frame.mini && 2 * marked.length <= frame.count && s("g", { class: "fault-at" }, marked.map((i) => s("rect", { x: frame.x(i) - frame.cell / 2, y: top, width: frame.cell, height: height - top - bottom }))),
    !frame.mini && ticks.map((tick) => [s("line", { class: "grid", x1: frame.left, x2: frame.width - frame.right, y1: y(tick), y2: y(tick) }), s("text", { class: "tick", x: frame.left - 8, y: y(tick) + 4, "text-anchor": "end" }, entry.kind === "scale" ? readOut(entry, tick) : entry.kind === "fraction" ? readOut(entry, tick) : String(Number(tick.toFixed(1))))]),
    Object.entries(bars).map(([kind, drawn]) => drawn.length > 0 && s("path", { class: `bar ${kind}`, d: drawn.join("") })),
    crosses.length > 0 && s("path", { class: "cross", d: crosses.join("") }),
    !frame.mini && s("line", { class: "cursor", x1: -9, x2: -9, y1: top, y2: height - bottom }),
  );
}

function bar(x, width, base, end) {
  const high = Math.min(base, end) - (Math.abs(base - end) < 1.5 ? 0.75 : 0);
  const tall = Math.max(1.5, Math.abs(base - end));
  return `M${(x - width / 2).toFixed(1)} ${high.toFixed(1)}h${width.toFixed(1)}v${tall.toFixed(1)}h${(-width).toFixed(1)}z`;
}

function furthest(entry, one, from, to) {
  let [chosen, far] = [from, -1];
  for (let i = from; i < to; i++) {
    const here = one.broken[i] ? Infinity : Number.isNaN(one.level[i]) ? -1 : Math.abs(deviation(entry, one.level[i]));
    if (here > far) [chosen, far] = [i, here];
  }
  return chosen;
}

/** The figure that stands beside the picture: the worst of the slots, read out. */
export function worstFigure(entry, one) {
  const i = furthest(entry, one, 0, one.level.length);
  if (one.broken[i]) return "not finite";
  return Number.isNaN(one.level[i]) ? "–" : readOut(entry, one.level[i]);
}
