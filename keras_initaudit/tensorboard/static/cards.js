// One card a run, all on identical axes: coloured edge, verdict in icon and word, one line, the profile in small, and
// what was found: the quantity of the worst finding, and the trial.

import { worstOf } from "./axis.js";
import { chip, h } from "./dom.js";
import { count } from "./format.js";
import { breakable } from "./names.js";
import { drawProfile, frameOf } from "./profile.js";
import { drawQuantity, worstFigure } from "./quantity.js";
import { drawTrial } from "./trial.js";

const WIDTH = 268;

function headline(run) {
  if (run.problem) return run.problem;
  if (run.headline) return run.headline;
  if (run.verdict === "healthy" && run.notes) return `Nothing found, ${count(run.notes, "note")}.`;
  if (run.verdict === "healthy") return "Nothing found: the signal and the gradient reach every layer.";
  return "No findings were logged with the last audit.";
}

function history(run) {
  if (run.problem) return "cannot be read";
  if (run.check) return run.check;
  const seen = `${count(run.layers, "layer")}, step ${run.step?.toLocaleString("en") ?? "–"}`;
  const changed = run.first_verdict && run.first_verdict !== run.verdict;
  return changed ? `${seen}; ${run.first_verdict} at step ${run.first_step}` : seen;
}

/** A trial in a line: how many updates each start needed to come half of the way. */
function needed(trial) {
  const words = trial.curves.map((curve) => `${curve.needed ?? `over ${curve.made}`} ${curve.name}`);
  return `updates needed: ${words.join(", ")}`;
}

function pictures(run, drawn) {
  const { axis, now, start, quantities } = drawn;
  const frame = frameOf(WIDTH, axis.slots.length, true);
  const marked = marks(axis, run.marked ?? []);
  const made = [drawProfile(frame, axis, { now, start, marked }, `Profile of ${run.label}`)];
  for (const [entry, one] of quantities) {
    const here = worstOf(axis, entry, one);
    const figure = worstFigure(entry, here);
    made.push(h("span", { class: "picture-name" }, entry.name, h("b", null, figure)), drawQuantity(frame, entry, here, null, marked, `${entry.name} of ${run.label}, at the worst ${figure}`));
  }
  const trial = run.trial && drawTrial(run.trial, WIDTH, 58, true);
  if (trial) made.push(h("span", { class: "picture-name" }, needed(run.trial)), trial);
  return made;
}

/** The slots at which some rows stand; none where that is all of them, which would mark nothing. */
export function marks(axis, rows) {
  return [...new Set(rows.map((row) => axis.slotOf.get(row)).filter((slot) => slot !== undefined))];
}

/** The card of a run; `drawn` holds its axis and curves (app.js), or is null while they are on their way. */
export function drawCard(run, drawn, selected, onSelect) {
  const verdict = run.problem ? "unknown" : (run.verdict ?? "unknown");
  return h(
    "button",
    { class: `card ${verdict}`, type: "button", "aria-pressed": String(selected), "data-run": run.run, onclick: () => onSelect(run.run) },
    h("span", { class: "card-head" }, chip(verdict), h("span", { class: "name", title: run.run }, breakable(run.name))),
    run.check ? h("span", { class: "picture-name" }, "coordinate check") : drawn ? pictures(run, drawn) : h("span", { class: "profile mini waiting" }),
    h("span", { class: "headline", title: headline(run) }, headline(run)),
    h("span", { class: "small" }, history(run)),
    run.newer && h("span", { class: "small" }, `log format ${run.newer}: newer than this TensorBoard side knows`),
  );
}
