// Asks the plugin's routes. Addresses are relative to this module, so that a path prefix needs no word here.

const BASE = new URL("../", import.meta.url);

async function get(route, parameters) {
  const url = new URL(route, BASE);
  for (const [name, value] of Object.entries(parameters ?? {})) url.searchParams.set(name, value);
  let response;
  try {
    response = await fetch(url);
  } catch {
    throw new Error("TensorBoard does not answer; is it still running?");
  }
  if (!response.ok) {
    const reason = await response.json().then((body) => body.error, () => response.statusText);
    throw new Error(reason || `TensorBoard answers ${response.status}`);
  }
  return response;
}

/** Every run with its verdict. */
export async function fetchRuns() {
  return (await get("runs")).json();
}

/** One run: rows, audits, findings. */
export async function fetchRun(run) {
  return (await get("run", { run })).json();
}

/** Chosen columns: {columns, steps, rows, at(column) -> Float32Array [steps * rows]}; with `line`, the main line too. */
export async function fetchColumns(run, columns, steps = "all", line = false) {
  const buffer = await (await get("columns", { run, columns: columns.join(","), steps, ...(line && { line: 1 }) })).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const size = head.steps.length * head.rows.length;
  const at = (column) => {
    const position = head.columns.indexOf(column);
    return position < 0 ? null : new Float32Array(buffer, 4 + length + 4 * size * position, size);
  };
  return { ...head, at };
}

/** The coordinate check of a run: the cells of its table, and a curve a layer and panel. */
export async function fetchCheck(run) {
  return (await get("coordinates", { run })).json();
}

/** One row's histograms over the audits. */
export async function fetchHistograms(run, row, kind) {
  return (await (await get("histograms", { run, row, kind })).json()).histograms;
}
