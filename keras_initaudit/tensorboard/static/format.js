// Numbers as text. `num`, `percent` and `count` write what numerals.py writes; a test compares them.

const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
const UP = 1 + 2 ** -40; // a tie, as 0.125, becomes none: Python would round it to the even digit

/** Of a number in a table, as in the report; a sentence has two. */
export const DIGITS = 3;

/** 10 to a whole power, as on an axis. */
export function power(exponent) {
  if (exponent === 0) return "1";
  return `10${[...String(exponent)].map((digit) => RAISED[digit]).join("")}`;
}

/** A number with so many significant digits; with an exponent and two digits below 0.01 and from 1e4 on. */
export function num(value, digits = 2) {
  if (!Number.isFinite(value)) return "not finite";
  if (value === 0) return "0";
  const raised = Math.abs(value) < 1e308 ? value * UP : value; // the largest floats have no room above them
  const [mantissa, power] = raised.toExponential(1).split("e");
  if (power < -2 || Math.abs(value) >= 1e4) return `${mantissa.replace(/\.0$/, "")}e${Number(power)}`;
  const exponent = Number(raised.toExponential(digits - 1).split("e")[1]);
  const text = raised.toFixed(Math.max(0, digits - 1 - exponent));
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** A fraction as a percentage that says 100 % only when it is all of it. */
export function percent(fraction) {
  const text = num(100 * fraction);
  return text === "100" && fraction < 1 ? "over 99 %" : `${text} %`;
}

export function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

/** A measured number in the table; a dash where the row has no such quantity. */
export function size(value) {
  return Number.isNaN(value) ? "–" : num(value, DIGITS);
}

/** A level of a statistic (see model.js) as it is read out. */
export function level(entry, value) {
  if (Number.isNaN(value)) return "–";
  if (entry.kind === "fraction") return percent(value);
  if (entry.kind === "scale" && value === -Infinity) return "0";
  return entry.kind === "decades" && !Number.isFinite(value) ? "–" : size(entry.kind === "decades" ? value : 10 ** value);
}
