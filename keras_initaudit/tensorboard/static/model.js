// What is drawn, as numbers: no element, no colour. A run's table goes in; curves and cells in decades come out.

import { BAND, DRAWN, OF_THE_SIGNAL, QUANTITIES, VERDICTS } from "./constants.js"; // made by the server from the constants of the Python package

/** The one axis of every profile, in decades (log10). What lies outside is marked at the edge. */
export const AXIS = { low: -10, high: 6 };
/** What needs no attention of a scale, in decades around 1. */
const SCALE = { kind: "scale", band: [BAND.low, BAND.high] };
/** What needs no attention of a fraction that should be near 0, where no rule has a limit for it. */
const SMALL = [0, 0.25];

/** A statistic: its kind, where its bars begin, and what needs no attention are those of the report, where that draws it. */
function shownAs(column, rest) {
  const { band, ...drawn } = DRAWN[column];
  const made = { column, ...rest, ...drawn, band: band ?? rest.band };
  return drawn.kind === "fraction" ? { ...made, unit: (1 - (made.band[1] - made.band[0])) / 4 } : made;
}

/**
 * The statistics that can be shown. `kind`: "scale" is drawn as its logarithm, "decades" are one already, "fraction" lies
 * in [0, 1]. `level`: the column of the decades, where they are not those of the measured `column`: the size of a gradient
 * depends on the batch and on the loss; what matters is what becomes of it on its way to the input, and so the server
 * divides it by the gradient at the last hidden layer. `band` is what needs no attention, `unit` the step of the colours
 * outside the band.
 */
export const STATISTICS = [
  { id: "backward", name: "Gradient over the last hidden layer's", column: "backward_rms", level: "backward_level", bad: "backward_nonfinite", ...SCALE },
  { id: "activation", name: "Activation rms", column: "activation_rms", bad: "forward_nonfinite", ...SCALE },
  shownAs("update_log10", { id: "update", name: "Update ÷ weight (log10)", bad: "update_nonfinite", unit: 0.6 }),
  { id: "gradient", name: "Weight gradient over that gradient", column: "gradient_rms", level: "gradient_level", bad: "gradient_nonfinite", ...SCALE },
  { id: "preactivation", name: "Pre-activation rms", column: "preactivation_rms", bad: "preactivation_nonfinite", ...SCALE },
  shownAs("activation_dead", { id: "dead", name: "Dead units", bad: "forward_nonfinite" }),
  shownAs("activation_saturated", { id: "saturated", name: "Saturated", bad: "forward_nonfinite" }),
  shownAs("activation_spread", { id: "collapsed", name: "Sample spread", bad: "forward_nonfinite" }),
  shownAs("weight_identical", { id: "identical", name: "Identical units", bad: "weight_nonfinite", band: SMALL }),
  shownAs("attention_entropy", { id: "entropy", name: "Attention entropy", bad: "forward_nonfinite" }),
  shownAs("attention_logit_max", { id: "logit", name: "Largest attention logit", bad: "forward_nonfinite", band: [-2, 1.3], unit: 0.4 }),
  shownAs("backward_time_log10", { id: "time", name: "Gradient a time step (log10)", bad: "backward_nonfinite", unit: 0.1 }),
  shownAs("update_zero", { id: "unmoved", name: "Weights that an update left as they were", bad: "update_nonfinite", band: SMALL }),
  shownAs("weight_rms", { id: "weight", name: "Weight rms", bad: "weight_nonfinite", band: [-3, 0.5] }),
];

/** The two that every profile draws. */
export const PROFILE = ["activation", "backward"];

export const statistic = (id) => STATISTICS.find((entry) => entry.id === id) ?? STATISTICS[0];

/** The statistic that shows what was found; the gradient where nothing was. */
export function statisticFor(rules) {
  const [column] = QUANTITIES[rules?.[0]] ?? [];
  if (column) return STATISTICS.find((one) => one.column === column).id;
  return OF_THE_SIGNAL.includes(rules?.[0]) ? "activation" : "backward";
}

/** The statistics that are drawn beside the profile, because it does not show what was found. */
export function quantitiesFor(rules, columns) {
  const shown = (QUANTITIES[rules?.[0]] ?? []).filter((column) => columns.includes(column));
  return STATISTICS.filter((one) => shown.includes(one.column) && !PROFILE.includes(one.id));
}

/** Place of a verdict or a severity in the order, worst first; what is no verdict, as a note, stands before "healthy". */
export const severity = (verdict) => (VERDICTS.includes(verdict) ? VERDICTS.indexOf(verdict) : VERDICTS.length - 1.5);

/** Worst first, then by name. */
export function sortRuns(runs) {
  const rank = (run) => (run.problem ? 1 : severity(run.verdict));
  return [...runs].sort((a, b) => rank(a) - rank(b) || a.label.localeCompare(b.label, undefined, { numeric: true }));
}

/**
 * One statistic of one audit: `value` as measured, `level` in decades (or the fraction), `broken` where something was
 * not finite. A level of -Infinity is a zero, NaN is nothing there.
 */
export function curve(table, entry, step) {
  const count = table.rows.length;
  const from = step * count;
  const values = table.at(entry.column);
  const bad = table.at(entry.bad);
  const level = new Float32Array(count).fill(NaN);
  const broken = new Uint8Array(count);
  const sent = entry.level ? (table.at(entry.level) ?? []) : null;
  for (let i = 0; i < count; i++) {
    const value = values ? values[from + i] : NaN;
    if (bad && bad[from + i] > 0) broken[i] = 1;
    if (value === Infinity || value === -Infinity) broken[i] = 1;
    else if (sent) level[i] = value === 0 ? sent[from + i] - Infinity : sent[from + i]; // NaN - Infinity is NaN
    else level[i] = entry.kind === "scale" ? Math.log10(value) : value;
  }
  return { level, broken, value: values ? values.subarray(from, from + count) : level };
}

/** Signed distance from the band in units of the statistic (a decade of a scale): 0 inside. */
export function deviation(entry, level) {
  const [low, high] = entry.band;
  const unit = entry.unit ?? 1;
  if (level < low) return (level - low) / unit;
  if (level > high) return (level - high) / unit;
  return 0;
}

/** The columns that these statistics need. */
export function columnsFor(entries) {
  return [...new Set(entries.flatMap((one) => [one.column, one.level, one.bad].filter(Boolean)))];
}

/** How far a row lies from its bands at one audit, for "worst first": infinite where it is not finite. */
export function trouble(curves, i) {
  let worst = 0;
  for (const [entry, one] of curves) {
    if (one.broken[i]) return Infinity;
    const far = Math.abs(deviation(entry, one.level[i]));
    if (far > worst) worst = far;
  }
  return worst;
}

/** Rows of the table, worst first where there are many: by finding, then by distance from the bands, then by depth. */
export function sortRows(rows, key, descending) {
  const compare = (a, b) => {
    const x = key(a);
    const y = key(b);
    if (typeof x === "string") return x.localeCompare(y, undefined, { numeric: true });
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return descending ? y - x || 0 : x - y || 0;
  };
  return [...rows].sort((a, b) => compare(a, b) || a.index - b.index);
}

/** Positions of at most `most` of `count` items, evenly spread, the first and the last among them. */
export function spread(count, most) {
  if (count <= most) return Array.from({ length: count }, (_, i) => i);
  return Array.from({ length: most }, (_, i) => Math.round((i * (count - 1)) / (most - 1)));
}
