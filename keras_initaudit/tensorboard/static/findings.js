// The findings of the shown audit: what, how severe, how that was come by, the remedy to copy, the trial, the reference.

import { copyButton, h, icon } from "./dom.js";
import { count, size } from "./format.js";
import { severity } from "./model.js";
import { named, nameOf } from "./names.js";
import { trialFigure } from "./trial.js";

/** How the severity was come by: by the trial, by the plain limits of the rules, or because it is so whatever happens. */
const BASIS = { measured: "measured", judged: "judged by limits", seen: "seen directly" };

function evidence(finding) {
  const shown = Object.entries(finding.evidence ?? {}).filter(([name, value]) => ["observed", "expected", "threshold"].includes(name) && value !== null);
  if (!shown.length) return null;
  const text = (value) => (typeof value === "number" ? size(value) : Array.isArray(value) ? value.map(text).join(" to ") : String(value));
  const { unit } = finding.evidence;
  return h("p", { class: "evidence" }, shown.map(([name, value]) => h("span", null, `${name} `, h("b", null, text(value)))), typeof unit === "string" && h("span", null, unit));
}

/** What follows from the cause: shown with it, not as further findings. */
function consequences(finding) {
  const rules = [...new Set((finding.evidence?.consequences ?? []).map((one) => one?.rule).filter(Boolean))];
  return rules.length ? h("p", { class: "small" }, `It leads to ${rules.join(", ")}.`) : null;
}

/** A reference; the server has split it where an address begins or ends. */
function reference(parts) {
  return h("p", { class: "small reference" }, parts.map(([text, address]) => (address ? h("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, text) : text)));
}

/** The same finding at several blocks is one: its words differ in names and numbers alone. */
export function grouped(findings) {
  const groups = new Map();
  for (const finding of findings) {
    const words = finding.layer === null ? finding.message : finding.message.split(finding.layer).join("");
    const key = [finding.rule, finding.severity, finding.remedy, words.replace(/[\d.]+(e-?\d+)?/g, "#").replace(/[\w/]*#[\w/#]*/g, "#")].join("\n");
    groups.set(key, [...(groups.get(key) ?? []), finding]);
  }
  return [...groups.values()];
}

function places(group, info, onLayer) {
  const layers = group.map((finding) => finding.layer).filter((layer) => layer !== null);
  if (!layers.length) return null;
  const rows = new Map(info.layers.map((layer, row) => [layer.path, row]));
  const names = layers.map((layer) => (rows.has(layer) ? nameOf(info, "list", rows.get(layer)) : layer));
  const links = layers.map((layer, i) => h("button", { class: "link", type: "button", onclick: () => onLayer(layer) }, named(layer, names[i])));
  if (links.length === 1) return links;
  return h("details", { class: "places" }, h("summary", null, `at ${count(links.length, "place")}, first ${names[0]}`), h("ul", { class: "plain" }, links.map((link) => h("li", null, link))));
}

function drawFinding(group, info, drawnTrials, onLayer) {
  const [finding] = group;
  const trial = finding.trial === null ? null : info.trials.find((one) => one.step === finding.trial);
  const figure = trial && !drawnTrials.has(trial.step) && finding.severity !== "note" ? trialFigure(trial) : null;
  if (figure) drawnTrials.add(trial.step);
  const shared = finding.proof && drawnTrials.has(finding.proof);
  drawnTrials.add(finding.proof);
  return h(
    "li",
    { class: `finding ${finding.severity}` },
    h("div", { class: "rule" }, icon(finding.severity), h("span", { class: "hidden-word" }, finding.severity), h("b", null, finding.rule), h("span", { class: `basis ${finding.basis}`, title: finding.why_judged ?? null }, BASIS[finding.basis] ?? ""), places(group, info, onLayer)),
    h("p", { class: "message" }, finding.message),
    evidence(finding),
    consequences(finding),
    finding.remedy && h("div", { class: "remedy" }, h("div", { class: "remedy-head" }, h("span", null, "Remedy"), copyButton(finding.remedy)), h("pre", { tabindex: 0 }, h("code", null, finding.remedy))),
    finding.proof && h("p", { class: "proof" }, shared ? "The trial above measured it, too." : finding.proof),
    figure,
    finding.why_judged && h("p", { class: "small" }, `Judged by the limits, not measured: ${finding.why_judged}.`),
    finding.reference_parts.length > 0 && reference(finding.reference_parts),
  );
}

/** The findings of one audit, notes last; null where it is not known what was found. */
export function drawFindings(findings, info, step, onLayer) {
  const notesAlone = findings?.length > 0 && findings.every((finding) => finding.severity === "note");
  const title = `${notesAlone ? "Notes" : "Findings"} at step ${step.toLocaleString("en")}`;
  if (findings === null) return h("section", { class: "findings" }, h("h3", null, title), h("p", { class: "quiet" }, "Not logged with this audit."));
  if (!findings.length) {
    return h("section", { class: "findings" }, h("h3", null, title), h("p", { class: "all-well" }, icon("healthy"), "None: nothing to change."));
  }
  const sorted = [...findings].sort((a, b) => severity(a.severity) - severity(b.severity));
  const drawnTrials = new Set();
  return h("section", { class: "findings" }, h("h3", null, title), h("ul", null, grouped(sorted).map((group) => drawFinding(group, info, drawnTrials, onLayer))));
}
