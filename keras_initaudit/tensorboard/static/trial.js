// The trial: the loss of the start as it is, and with the remedy, on one batch. The line across is the loss of the best
// constant answer: a start that does not come below it learns nothing from its inputs.

import { h, s } from "./dom.js";
import { num, percent } from "./format.js";

const HIGHEST = 2; // what is higher is cut off by the server

/** The loss at which this part of the way is left; a percentage where the two starts have ends of their own. */
function label(trial, part) {
  if (!trial.ends) return percent(part);
  const [constant, targets] = trial.ends.map(Number);
  const loss = targets + part * (constant - targets);
  return Math.abs(loss) > 1e-3 * Math.abs(constant - targets) ? num(loss) : "0";
}

/** Draws the curves, small for a card; null where the trial has none. */
export function drawTrial(trial, width, height, mini = false) {
  if (!trial?.curves?.length) return null;
  const [left, right, top, bottom] = mini ? [3, 3, 4, 4] : [44, 12, 12, 34];
  const points = trial.curves.flatMap((curve) => curve.points);
  const high = Math.min(HIGHEST, Math.max(1.12, ...points.map(([, part]) => part ?? 0)) * 1.02);
  const longest = Math.max(1, ...points.map(([i]) => i));
  const x = (i) => left + (i / longest) * (width - left - right);
  const y = (part) => top + ((high - Math.min(high, part)) / high) * (height - top - bottom);
  const curves = [...trial.curves].reverse().map((curve) => {
    const known = curve.points.filter(([, part]) => part !== null);
    const lost = curve.points.filter(([, part]) => part === null);
    const r = mini ? 2.5 : 4;
    const [i, part] = known.at(-1) ?? [0, 1];
    return [
      known.length > 0 && s("path", { class: `loss ${curve.kind}`, d: known.map(([i, part], n) => `${n ? "L" : "M"}${x(i).toFixed(1)} ${y(part).toFixed(1)}`).join("") }),
      lost.length > 0 && s("path", { class: "cross", d: lost.map(([i]) => `M${x(i) - r} ${top}l${2 * r} ${2 * r}m0 ${-2 * r}l${-2 * r} ${2 * r}`).join("") }),
      known.length > 0 && s(curve.kind === "as-is" ? "rect" : "circle", curve.kind === "as-is" ? { class: `loss-end ${curve.kind}`, x: x(i) - 3, y: y(part) - 3, width: 6, height: 6 } : { class: `loss-end ${curve.kind}`, cx: x(i), cy: y(part), r: 3.2 }),
    ];
  });
  const words = trial.curves.map((curve) => `loss ${curve.name} from ${num(Number(curve.first), 3)} to ${num(Number(curve.last), 3)} after ${curve.made} updates`);
  return s(
    "svg",
    { class: mini ? "trial mini" : "trial", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `Trial: ${words.join("; ")}` },
    s("rect", { class: "plot", x: left, y: top, width: width - left - right, height: height - top - bottom }),
    s("line", { class: "constant", x1: left, x2: width - right, y1: y(1), y2: y(1) }),
    !mini && [
      s("text", { class: "tick", x: left - 6, y: y(1) + 4, "text-anchor": "end" }, label(trial, 1)),
      s("text", { class: "tick", x: left - 6, y: y(0) + 4, "text-anchor": "end" }, label(trial, 0)),
      s("text", { class: "tick", x: width - right - 4, y: y(1) - 5, "text-anchor": "end" }, "best constant answer"),
      s("text", { class: "tick", x: left, y: height - 20, "text-anchor": "middle" }, "0"),
      s("text", { class: "tick", x: width - right, y: height - 20, "text-anchor": "end" }, String(longest)),
      s("text", { class: "tick", x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, "updates on this batch"),
    ],
    curves,
  );
}

/** What the lines of a trial mean. */
export function trialLegend(trial) {
  const sample = (kind) => s("svg", { width: 30, height: 12, "aria-hidden": "true" }, s("path", { class: `loss ${kind}`, d: "M1 6H29" }), kind === "as-is" ? s("rect", { class: `loss-end ${kind}`, x: 24, y: 3, width: 6, height: 6 }) : s("circle", { class: `loss-end ${kind}`, cx: 26.5, cy: 6, r: 3.2 }));
  return h("div", { class: "legend" }, trial.curves.map((curve) => h("span", null, sample(curve.kind), `loss ${curve.name}`)));
}

/** The trial with its sentence, for the place beside a finding. */
export function trialFigure(trial) {
  const drawn = drawTrial(trial, 420, 190);
  if (!drawn) return null;
  return h("figure", { class: "trial-figure" }, trialLegend(trial), drawn, trial.budget && h("figcaption", { class: "small" }, trial.budget));
}
