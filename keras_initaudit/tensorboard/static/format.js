// Numbers as text.

const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

/** 10 to a whole power, as on an axis. */
export function power(exponent) {
  if (exponent === 0) return "1";
  return `10${[...String(exponent)].map((digit) => RAISED[digit]).join("")}`;
}

/** A size, to two or three digits. */
export function size(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === Infinity || value === -Infinity) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const magnitude = Math.abs(value);
  const text = magnitude >= 0.000995 && magnitude < 10000 ? String(Number(value.toPrecision(3))) : value.toExponential(1).replace("e+", "e");
  return text.replace("-", "−").replace("e-", "e−");
}

export function percent(value) {
  return Number.isNaN(value) ? "–" : `${Number((100 * value).toPrecision(2))} %`;
}

/** A level of a statistic (see model.js) as it is read out. */
export function level(entry, value) {
  if (Number.isNaN(value)) return "–";
  if (entry.kind === "fraction") return percent(value);
  if (entry.kind === "log") return Number.isFinite(value) ? value.toFixed(2).replace("-", "−") : "–";
  return value === -Infinity ? "0" : size(10 ** value);
}

export function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}
