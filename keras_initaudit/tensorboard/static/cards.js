// One card a run, all on identical axes: coloured edge, verdict in icon and word, one line, the profile in small.

import { chip, h } from "./dom.js";
import { count } from "./format.js";
import { drawProfile, frameOf } from "./profile.js";

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
  const seen = `${count(run.layers, "layer")}, step ${run.step?.toLocaleString("en") ?? "–"}`;
  const changed = run.first_verdict && run.first_verdict !== run.verdict;
  return changed ? `${seen}; ${run.first_verdict} at step ${run.first_step}` : seen;
}

/** The card of a run; `profile` holds its curves {now, start}, or is null while they are on their way. */
export function drawCard(run, profile, selected, onSelect) {
  const verdict = run.problem ? "unknown" : (run.verdict ?? "unknown");
  return h(
    "button",
    { class: `card ${verdict}`, type: "button", "aria-pressed": String(selected), "data-run": run.run, onclick: () => onSelect(run.run) },
    h("span", { class: "card-head" }, chip(verdict), h("span", { class: "name", title: run.run }, run.label)),
    profile
      ? drawProfile(frameOf(WIDTH, profile.now.activation.level.length, true), profile.now, profile.start, `Profile of ${run.label}`)
      : h("span", { class: "profile mini waiting" }),
    h("span", { class: "headline", title: headline(run) }, headline(run)),
    h("span", { class: "small" }, history(run)),
    run.newer && h("span", { class: "small" }, `log format ${run.newer}: newer than this TensorBoard side knows`),
  );
}
