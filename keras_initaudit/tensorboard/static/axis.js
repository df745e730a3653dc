// The axis of depth: one slot a point of the main line. What stands inside a block is drawn as small marks at its place
// in front of the slot at which the block ends; an opened block has a slot for each of its rows.

import { deviation } from "./model.js";

/**
 * `line` are the rows of the main line, `places` where each row stands along it (null: nowhere), `roles` the role of
 * each row, `opened` the row at which the opened block ends, or null.
 */
export function makeAxis(line, places, roles, opened = null) {
  const last = line.length - 1;
  const on = new Set(line);
  const members = line.map(() => []);
  for (let row = 0; row < places.length; row++) {
    const place = places[row];
    if (place === null || on.has(row)) continue;
    members[Math.max(0, Math.min(last, Math.ceil(place)))].push(row);
  }
  for (const rows of members) rows.sort((a, b) => places[a] - places[b] || a - b);
  const at = opened === null ? -1 : line.indexOf(opened);
  const extra = at < 0 ? 0 : members[at].length;
  const slots = line.flatMap((row, i) => {
    if (i === at) return [...members[i], row].map((one) => ({ row: one, members: [], inside: true, block: row }));
    return [{ row, members: members[i], inside: false, block: members[i].some((one) => isLayer(roles[one])) ? row : null }];
  });
  /** Where a row stands, in slots. */
  const place = (row) => (places[row] > at - 1 && at >= 0 ? places[row] + extra : places[row]);
  return {
    slots,
    rows: slots.map((slot) => slot.row),
    marks: slots.flatMap((slot) => slot.members.map((row) => ({ row, x: Math.max(-0.5, Math.min(slots.length - 0.5, place(row))) }))),
    opened: extra ? { from: at, to: at + extra, row: opened } : null,
    slotOf: new Map(slots.flatMap((slot, i) => [slot.row, ...slot.members].map((row) => [row, i]))),
  };
}

const isLayer = (role) => (role ?? "layer") === "layer";

/** A curve of all rows (model.js) at the slots: the rows of the line themselves. */
export function alongLine(axis, one) {
  const count = axis.slots.length;
  const level = new Float32Array(count);
  const broken = new Uint8Array(count);
  const value = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    const row = axis.rows[i];
    level[i] = one.level[row];
    broken[i] = one.broken[row];
    value[i] = one.value[row];
  }
  return { level, broken, value, row: axis.rows };
}

/** The same with the worst row of each slot, that of the line or one inside its block, so that no fault is hidden. */
export function worstOf(axis, entry, one) {
  const found = alongLine(axis, one);
  found.row = [...axis.rows];
  axis.slots.forEach((slot, i) => {
    for (const row of slot.members) {
      if (Number.isNaN(one.level[row]) && !one.broken[row]) continue;
      const here = one.broken[row] ? Infinity : Math.abs(deviation(entry, one.level[row]));
      const known = found.broken[i] ? Infinity : Number.isNaN(found.level[i]) ? -1 : Math.abs(deviation(entry, found.level[i]));
      if (here > known) [found.level[i], found.broken[i], found.value[i], found.row[i]] = [one.level[row], one.broken[row], one.value[row], row];
    }
  });
  return found;
}
