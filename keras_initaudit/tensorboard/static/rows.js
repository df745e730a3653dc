// The rows of the table at one audit, as numbers and words: what table.js draws and sorts.

import { describe } from "./detail.js";
import { curve, severity, statistic, trouble } from "./model.js";

/** The statistics whose curves the table reads. */
export const SHOWN = ["activation", "gradient", "update", "backward"];

/**
 * `numbers` is the run's table, `place` the rows that the profile has, in its order, and `over` their curves of the
 * chosen statistic, one an audit. `rank` is what "worst first" sorts by: findings, then the distance from the bands.
 */
export function rowsOf(layers, numbers, step, findings, place, entry, over) {
  const one = Object.fromEntries(SHOWN.map((id) => [id, curve(numbers, statistic(id), step)]));
  const judged = ["activation", "backward"].map((id) => [statistic(id), one[id]]);
  const about = findings.map((finding) => ({ ...finding, rows: new Set(finding.rows) }));
  const positions = new Map(place.map((row, position) => [row, position]));
  return layers.flatMap((layer, index) => {
    if (["input", "target"].includes(layer.role)) return [];
    const found = about.filter((finding) => finding.rows.has(index)).sort((a, b) => severity(a.severity) - severity(b.severity));
    const pick = (id) => ({ value: one[id].value[index], level: one[id].level[index], broken: one[id].broken[index] });
    const position = positions.get(index);
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
      strip: position === undefined ? null : { level: over.map((a) => a.level[position]), broken: over.map((a) => a.broken[position]) },
    };
  });
}
