// The rows of the table at one audit, as numbers and words: what table.js draws and sorts.

import { describe } from "./detail.js";
import { curve, severity, statistic, trouble } from "./model.js";

/** The statistics whose curves the table reads. */
export const SHOWN = ["activation", "gradient", "update", "backward"];

/**
 * `numbers` is the run's table and `over` its curves of the chosen statistic, one an audit; `beside` gives the curve of a
 * statistic in the run that it is compared with, or is null. `rank` is what "worst first" sorts by: findings, then the
 * distance from the bands.
 */
export function rowsOf(layers, numbers, step, findings, entry, over, beside = null) {
  const one = Object.fromEntries(SHOWN.map((id) => [id, curve(numbers, statistic(id), step)]));
  const judged = ["activation", "backward"].map((id) => [statistic(id), one[id]]);
  const about = findings.map((finding) => ({ ...finding, rows: new Set(finding.rows) }));
  const two = beside && Object.fromEntries(SHOWN.map((id) => [id, beside(statistic(id))]));
  const apart = (id, i) => Math.abs(one[id].level[i] - two[id].level[i]);
  return layers.flatMap((layer, index) => {
    if (["input", "target"].includes(layer.role)) return [];
    const found = about.filter((finding) => finding.rows.has(index)).sort((a, b) => severity(a.severity) - severity(b.severity));
    const read = (of, id) => ({ value: of[id].value[index], level: of[id].level[index], broken: of[id].broken[index] });
    const pick = (id) => ({ ...read(one, id), other: two && read(two, id) });
    const far = trouble(judged, index);
    const words = describe(layer);
    return {
      index,
      layer,
      about: words,
      findings: found,
      rank: (found.length ? severity(found[0].severity) - 2 : 1) * 1e6 - (Number.isFinite(far) ? far : 1e5),
      search: `${layer.path} ${words} ${found.map((finding) => `${finding.rule} ${finding.severity}`).join(" ")}`.toLowerCase(),
      activation: pick("activation"),
      gradient: pick("gradient"),
      update: pick("update"),
      stripEntry: entry,
      strip: { level: over.map((a) => a.level[index]), broken: over.map((a) => a.broken[index]) },
      difference: two ? Math.max(...SHOWN.map((id) => apart(id, index)).filter((far) => !Number.isNaN(far)), -1) : NaN,
    };
  });
}
