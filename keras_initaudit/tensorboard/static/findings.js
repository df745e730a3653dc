// The findings of the shown audit: message, remedy to copy, proof, reference.

import { copyButton, h, icon } from "./dom.js";
import { size } from "./format.js";
import { severity } from "./model.js";

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

function drawFinding(finding, onLayer) {
  return h(
    "li",
    { class: `finding ${finding.severity}` },
    h("p", { class: "rule" }, icon(finding.severity), h("b", null, finding.rule), finding.layer !== null && h("button", { class: "link", type: "button", onclick: () => onLayer(finding.layer) }, finding.layer)),
    h("p", { class: "message" }, finding.message),
    evidence(finding),
    consequences(finding),
    finding.remedy && h("div", { class: "remedy" }, h("div", { class: "remedy-head" }, h("span", null, "Remedy"), copyButton(finding.remedy)), h("pre", null, h("code", null, finding.remedy))),
    finding.proof && h("p", { class: "proof" }, finding.proof),
    finding.reference && h("p", { class: "small" }, finding.reference),
  );
}

/** The findings of one audit, notes last; null where it is not known what was found. */
export function drawFindings(findings, step, onLayer) {
  const notesAlone = findings?.length > 0 && findings.every((finding) => finding.severity === "note");
  const title = `${notesAlone ? "Notes" : "Findings"} at step ${step.toLocaleString("en")}`;
  if (findings === null) return h("section", { class: "findings" }, h("h3", null, title), h("p", { class: "quiet" }, "Not logged with this audit."));
  if (!findings.length) {
    return h("section", { class: "findings" }, h("h3", null, title), h("p", { class: "all-well" }, icon("healthy"), "None: nothing to change."));
  }
  const sorted = [...findings].sort((a, b) => severity(a.severity) - severity(b.severity));
  return h("section", { class: "findings" }, h("h3", null, title), h("ul", null, sorted.map((finding) => drawFinding(finding, onLayer))));
}
