// The colours of the heat map, as numbers for a canvas. The names are in style.css; both themes are read from there.

import { deviation } from "./model.js";

let palette = null;

/** Forgets the colours: the theme has changed. */
export function forgetColours() {
  palette = null;
}

function read() {
  const style = getComputedStyle(document.documentElement);
  const parse = (name) => {
    const hex = style.getPropertyValue(name).trim().replace("#", "");
    return [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));
  };
  return { neutral: parse("--heat-neutral"), low: [parse("--heat-low"), parse("--heat-lowest")], high: [parse("--heat-high"), parse("--heat-highest")], broken: parse("--broken"), missing: parse("--heat-missing") };
}

const mix = (a, b, t) => a.map((from, i) => Math.round(from + (b[i] - from) * t));

/** [r, g, b] of one cell. Neutral inside the band, deeper with each unit outside it, to four. */
export function cellColour(entry, level, broken) {
  palette ??= read();
  if (broken) return palette.broken;
  if (Number.isNaN(level)) return palette.missing;
  const far = deviation(entry, level);
  if (far === 0) return palette.neutral;
  const [near, end] = far > 0 ? palette.high : palette.low;
  const depth = Math.min(1, Math.abs(far) / 4);
  return depth < 0.3 ? mix(palette.neutral, near, depth / 0.3) : mix(near, end, (depth - 0.3) / 0.7);
}

export const css = ([r, g, b]) => `rgb(${r},${g},${b})`;
