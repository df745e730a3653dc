// Which row of one run is which row of another: two runs of one architecture are laid over each other row by row.

/** Of each row, the row of the other run: of the same path, else, where the kinds are the same all along, by position. */
export function pairRows(layers, others) {
  const position = new Map(others.map((layer, row) => [layer.path, row]));
  const pairs = layers.map((layer) => position.get(layer.path) ?? -1);
  const inner = (rows) => rows.filter((layer) => !["input", "target"].includes(layer.role));
  const [mine, theirs] = [inner(layers), inner(others)];
  const found = mine.filter((layer) => position.has(layer.path)).length;
  if (2 * found >= mine.length) return pairs;
  const alike = layers.length === others.length && layers.every((layer, row) => layer.kind === others[row].kind && layer.role === others[row].role);
  if (alike) return layers.map((_, row) => row);
  return found ? pairs : null;
}
