// The page: what is chosen, what has been fetched, and who draws it. Every number comes from model.js.

import { fetchColumns, fetchHistograms, fetchRun, fetchRuns } from "./api.js";
import { drawCard } from "./cards.js";
import { forgetColours } from "./colour.js";
import { describe, drawDetail } from "./detail.js";
import { chip, h } from "./dom.js";
import { drawEmpty } from "./empty.js";
import { drawFindings, layersOf } from "./findings.js";
import { count, level as readOut, size } from "./format.js";
import { drawHeatmap, heatmapLegend } from "./heatmap.js";
import { followTheme, onAddress, onReload, readAddress, writeAddress } from "./host.js";
import { columnsFor, curve, severity, sortRuns, statistic, statisticFor, STATISTICS, trouble } from "./model.js";
import { drawProfile, frameOf, profileLegend } from "./profile.js";
import { drawTable, firstOrder } from "./table.js";

const PROFILE_COLUMNS = columnsFor(statistic("backward"));
const TABLE_COLUMNS = ["activation_rms", "forward_nonfinite", "gradient_rms", "gradient_nonfinite", "update_log10", "update_nonfinite", "backward_rms", "backward_nonfinite"];
const EMPTY_AGAIN = 5000;
const MANY_RUNS = 6;

/** Everything that is fetched, and everything that is chosen. */
const state = {
  runs: null,
  profiles: new Map(), // run -> {stamp, now, start}
  chosen: null, // {info, table, layers: positions, steps, curves}
  view: { run: null, step: null, stat: null, layer: null, runs: "", filter: "", by: null, descending: false, all: false },
  trouble: null,
};

let root = null;
let parts = {};
let turn = 0; // of the fetching, so that a slow answer for another choice is dropped

export function start(element) {
  root = element;
  Object.assign(state.view, viewOf(readAddress()));
  parts = {
    notice: h("p", { class: "notice", role: "status", hidden: true }),
    cards: h("nav", { class: "cards", "aria-label": "Runs" }),
    search: h("input", { type: "search", class: "search", placeholder: "Filter runs", "aria-label": "Filter runs", hidden: true, oninput: onSearch }),
    run: h("article", { class: "run" }),
    tip: h("div", { class: "tip", hidden: true, role: "status" }),
  };
  parts.search.value = state.view.runs;
  root.append(parts.notice, parts.search, parts.cards, parts.run, parts.tip);
  followTheme(() => {
    forgetColours();
    drawRun();
  });
  onReload(refresh);
  onAddress((given) => {
    if (!given.run) return; // another tab, or ours as the bar opens it
    Object.assign(state.view, { step: null, layer: null, stat: null, filter: "" }, viewOf(given));
    refresh();
  });
  new ResizeObserver(debounce(() => root.clientWidth !== state.width && drawRun(), 80)).observe(root);
  refresh();
}

/** What an address asks for, as far as it makes sense. */
function viewOf(given) {
  const view = {};
  for (const name of ["run", "stat", "layer", "filter", "runs"]) if (given[name]) view[name] = given[name];
  if (/^-?\d+$/.test(given.step ?? "")) view.step = Number(given.step);
  return view;
}

function debounce(call, wait) {
  let timer = null;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(call, wait);
  };
}

function say(text) {
  parts.notice.hidden = !text;
  parts.notice.textContent = text ?? "";
}

/** Fetches what has changed and draws it; an error leaves the picture that stands. */
async function refresh() {
  try {
    const { runs } = await fetchRuns();
    state.runs = sortRuns(runs);
    say(null);
  } catch (error) {
    say(error.message);
    return;
  }
  if (!state.runs.length) {
    parts.run.replaceChildren(drawEmpty());
    parts.cards.replaceChildren();
    setTimeout(refresh, EMPTY_AGAIN);
    return;
  }
  const wanted = state.runs.find((run) => run.run === state.view.run);
  if (!wanted) state.view.run = (state.runs.find((run) => !run.problem) ?? state.runs[0]).run;
  drawCards();
  await Promise.all([loadRun(), ...state.runs.map(loadProfile)]);
  performance.mark("initaudit-drawn");
}

async function loadProfile(run) {
  if (run.problem || String(state.profiles.get(run.run)?.stamp) === String(run.stamp)) return;
  try {
    const table = await fetchColumns(run.run, PROFILE_COLUMNS, "ends", "layer");
    const last = table.steps.length - 1;
    const at = (step) => ({ activation: curve(table, statistic("activation"), step), backward: curve(table, statistic("backward"), step) });
    state.profiles.set(run.run, { stamp: run.stamp, now: at(last), start: last > 0 ? at(0) : null });
  } catch (error) {
    run.problem = error.message;
  }
  drawCards();
}

/** Fetches the chosen run, unless what is here is still as the log has it. */
async function loadRun() {
  const run = state.runs.find((one) => one.run === state.view.run);
  const mine = ++turn;
  if (!run || run.problem) {
    state.chosen = null;
    drawRun();
    return;
  }
  state.view.stat ??= statisticFor(run.rules);
  const entry = statistic(state.view.stat);
  const columns = [...new Set([...columnsFor(entry), ...TABLE_COLUMNS])];
  const here = state.chosen;
  if (here?.info.run === run.run && String(here.info.stamp) === String(run.stamp) && columns.every((name) => here.columns.includes(name))) {
    drawRun();
    return;
  }
  try {
    const known = columns.filter((name) => run.columns.includes(name));
    const [info, table] = await Promise.all([fetchRun(run.run), fetchColumns(run.run, known)]);
    if (mine !== turn) return;
    state.chosen = { info, table, columns, layers: positions(info.layers), cache: new Map() };
    state.chosen.profile = narrowed(table, state.chosen.layers);
    if (state.view.by === null) Object.assign(state.view, firstOrder(info.layers.length));
    say(null);
  } catch (error) {
    if (mine !== turn) return;
    say(error.message);
    return;
  }
  drawRun();
}

const positions = (layers) => layers.flatMap((layer, row) => ((layer.role ?? "layer") === "layer" ? [row] : []));

/** The table with the rows of the profile alone: the layers, without their parts and without the batch. */
function narrowed(table, rows) {
  const made = new Map();
  const at = (column) => {
    if (!made.has(column)) {
      const whole = table.at(column);
      const kept = whole && new Float32Array(table.steps.length * rows.length);
      if (whole) for (let step = 0, out = 0; step < table.steps.length; step++) for (const row of rows) kept[out++] = whole[step * table.rows.length + row];
      made.set(column, kept);
    }
    return made.get(column);
  };
  return { ...table, rows, at };
}

/** A statistic's curves, one a step, of the profile's rows; kept until the run is fetched again. */
function curves(entry) {
  const { cache, profile } = state.chosen;
  if (!cache.has(entry.id)) cache.set(entry.id, profile.steps.map((_, step) => curve(profile, entry, step)));
  return cache.get(entry.id);
}

// --- choosing ---------------------------------------------------------------------------------------------------

function choose(change) {
  const before = { ...state.view };
  Object.assign(state.view, change);
  const { run, step, stat, layer, filter, runs } = state.view;
  writeAddress({ run, step, stat, layer, filter, runs });
  if (before.run !== run) {
    Object.assign(state.view, { step: null, layer: null, stat: null, by: null, all: false });
    drawCards();
    loadRun();
  } else if (before.stat !== stat) loadRun();
  else drawRun(before.layer !== layer || before.step !== step ? undefined : "table");
}

function onSearch(event) {
  state.view.runs = event.target.value;
  choose({});
  drawCards();
}

const chooseLayer = (path) => choose({ layer: state.view.layer === path ? null : path });

/** The position of the shown audit: the chosen step, else the last. */
function shownStep() {
  const { steps } = state.chosen.table;
  const found = steps.indexOf(state.view.step);
  return found < 0 ? steps.length - 1 : found;
}

// --- drawing ----------------------------------------------------------------------------------------------------

function drawCards() {
  const wanted = state.view.runs.toLowerCase();
  parts.search.hidden = state.runs.length <= MANY_RUNS && !wanted;
  const shown = state.runs.filter((run) => !wanted || `${run.run} ${run.verdict} ${run.rules?.join(" ")}`.toLowerCase().includes(wanted));
  const focused = document.activeElement?.dataset?.run;
  parts.cards.replaceChildren(...shown.map((run) => drawCard(run, state.profiles.get(run.run) ?? null, run.run === state.view.run, (name) => choose({ run: name }))));
  if (!shown.length) parts.cards.append(h("p", { class: "quiet" }, "No run matches the filter."));
  if (focused) [...parts.cards.children].find((card) => card.dataset.run === focused)?.focus();
}

function auditAt(step) {
  const { info, table } = state.chosen;
  return info.audits.find((one) => one.step === table.steps[step]) ?? { step: table.steps[step], loss: null, findings: null };
}

function findingsAt(step) {
  const { findings } = auditAt(step);
  return findings === null ? null : findings.map((number) => state.chosen.info.findings[number]);
}

/** Draws the chosen run: all of it, or its table alone (a key in the filter must not redraw the pictures). */
function drawRun(what) {
  if (!parts.run || state.runs === null || !state.runs.length) return;
  const run = state.runs.find((one) => one.run === state.view.run);
  if (!state.chosen) {
    const problem = run?.problem;
    parts.run.replaceChildren(...(problem ? [h("h2", null, run.label), h("p", { class: "notice" }, `This run cannot be read: ${problem}`)] : []));
    return;
  }
  if (what === "table" && parts.table) {
    parts.table.replaceChildren(table());
    return;
  }
  state.width = root.clientWidth;
  const step = shownStep();
  const box = h("div", { class: "pictures" });
  const found = findingsAt(step);
  const side = drawFindings(found, state.chosen.table.steps[step], chooseLayer);
  parts.detail = h("div", { class: "detail-place" });
  parts.table = h("div", null, table());
  parts.run.replaceChildren(head(run, step), h("div", { class: "upper" }, found?.length ? [box, side] : [side, box]), parts.detail, tools(), parts.table);
  box.append(...pictures(box.clientWidth, step));
  drawLayer();
}

function head(run, step) {
  const { info, table } = state.chosen;
  const audit = auditAt(step);
  const last = step === table.steps.length - 1;
  const facts = [`step ${audit.step.toLocaleString("en")}${last ? " (latest)" : ""}`];
  if (audit.loss !== null) facts.push(`loss ${Number.isNaN(Number(audit.loss)) ? "NaN" : size(Number(audit.loss))}${info.baseline_loss ? ` (uninformed ${size(Number(info.baseline_loss))})` : ""}`);
  if (info.optimizer) facts.push(`${info.optimizer}${info.learning_rate ? ` at ${size(Number(info.learning_rate))}` : ""}`);
  if (info.batch_size) facts.push(count(info.batch_size, "sample"));
  facts.push(count(table.steps.length, "audit"));
  return h(
    "header",
    { class: "run-head" },
    h("h2", { title: info.run }, info.label),
    chip(verdictOf(findingsAt(step)) ?? run?.verdict),
    h("span", { class: "small" }, facts.join(" · ")),
    !last && h("button", { type: "button", class: "link", onclick: () => choose({ step: null }) }, "back to the latest audit"),
  );
}

function verdictOf(findings) {
  if (findings === null) return null;
  return findings.some((one) => one.severity === "bad") ? "bad" : findings.length ? "warning" : "healthy";
}

function pictures(width, step) {
  const { info, layers, table } = state.chosen;
  const entry = statistic(state.view.stat);
  const names = layers.map((row) => info.layers[row].path);
  if (!names.length || !table.steps.length) return [h("p", { class: "quiet" }, "This audit has no layers to draw.")];
  const frame = frameOf(width, names.length);
  const at = (one) => ({ activation: curves(statistic("activation"))[one], backward: curves(statistic("backward"))[one] });
  const title = `Depth profile of ${info.label} at step ${table.steps[step]}`;
  const profile = h("div", { class: "profile-place" }, drawProfile(frame, at(step), step > 0 ? at(0) : null, title));
  const heat = drawHeatmap(frame, entry, curves(entry), table.steps, names, `${entry.name}: layers from left to right, steps from top to bottom. Arrow keys move, Enter opens the layer, space shows the step.`);
  const picker = h("select", { "aria-label": "Statistic of the heat map", onchange: (event) => choose({ stat: event.target.value }) }, available().map((one) => h("option", { value: one.id, selected: one.id === entry.id }, one.name)));
  follow(frame, profile, heat, entry, at, step);
  return [
    h("div", { class: "picture-head" }, h("h3", null, "Signal and gradient by depth"), profileLegend(step > 0)),
    profile,
    h("div", { class: "picture-head" }, h("h3", null, "Layer × step"), picker, heatmapLegend(entry)),
    heat.element,
  ];
}

const available = () => STATISTICS.filter((one) => state.chosen.info.columns.includes(one.column));

/** The pointer and the keys on both pictures: a read-out, a cursor in both, and the profile of the step under it. */
function follow(frame, profile, heat, entry, at, step) {
  const { info, layers, table } = state.chosen;
  let here = null;
  let drawn = step;
  const show = (layer, row, x, y) => {
    here = layer === null ? null : { layer, step: row };
    heat.point(layer, row);
    if (drawn !== (row ?? step)) {
      drawn = row ?? step;
      profile.replaceChildren(drawProfile(frame, at(drawn), drawn > 0 ? at(0) : null, `Depth profile at step ${table.steps[drawn]}`));
    }
    const cursor = profile.querySelector(".cursor");
    const at_x = layer === null ? -9 : frame.x(layer);
    cursor.setAttribute("x1", at_x);
    cursor.setAttribute("x2", at_x);
    tip(layer === null ? null : reading(info.layers[layers[layer]], layer, drawn, entry), x, y);
  };
  const leave = () => show(null, null);
  profile.addEventListener("pointermove", (event) => {
    const x = event.clientX - profile.getBoundingClientRect().left;
    if (x < frame.left || x > frame.width - frame.right) leave();
    else show(frame.at(x), step, event.clientX, event.clientY);
  });
  profile.addEventListener("pointerleave", leave);
  profile.addEventListener("click", () => here && chooseLayer(info.layers[layers[here.layer]].path));
  const cells = heat.element.querySelector("canvas.cells");
  cells.addEventListener("pointermove", (event) => {
    const cell = heat.at(event);
    show(cell.layer, cell.step, event.clientX, event.clientY);
  });
  cells.addEventListener("pointerleave", leave);
  cells.addEventListener("click", () => here && chooseLayer(info.layers[layers[here.layer]].path));
  cells.addEventListener("dblclick", () => here && choose({ step: table.steps[here.step] }));
  heat.element.addEventListener("blur", leave);
  heat.element.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const now = here ?? { layer: 0, step };
    if (moves[event.key]) {
      const [sideways, down] = moves[event.key];
      const layer = Math.max(0, Math.min(frame.count - 1, now.layer + (here ? sideways : 0)));
      const row = Math.max(0, Math.min(table.steps.length - 1, now.step + (here ? down : 0)));
      const area = cells.getBoundingClientRect();
      show(layer, row, area.left + (layer + 0.5) * frame.cell, area.top + ((row + 0.5) * area.height) / table.steps.length);
    } else if (event.key === "Enter" && here) chooseLayer(info.layers[layers[here.layer]].path);
    else if (event.key === " " && here) choose({ step: table.steps[here.step] });
    else if (event.key === "Escape") leave();
    else return;
    event.preventDefault();
  });
}

function reading(layer, i, step, entry) {
  const { table } = state.chosen;
  const line = (one) => {
    const drawn = curves(one)[step];
    const value = drawn.broken[i] ? "not finite" : readOut(one, drawn.level[i]);
    const measured = one.relative && !drawn.broken[i] ? ` (${size(drawn.value[i])})` : "";
    return h("div", null, `${one.name}: `, h("b", null, value), measured);
  };
  const lines = [...new Set([statistic("activation"), statistic("backward"), entry])];
  return [h("div", { class: "tip-head" }, layer.path), h("div", { class: "small" }, `${layer.kind ?? ""} · step ${table.steps[step].toLocaleString("en")}`), ...lines.map(line)];
}

function tip(content, x, y) {
  parts.tip.hidden = content === null;
  if (content === null) return;
  parts.tip.replaceChildren(...content);
  const { width, height } = parts.tip.getBoundingClientRect();
  parts.tip.style.left = `${Math.max(4, Math.min(x + 16, window.innerWidth - width - 8))}px`;
  parts.tip.style.top = `${Math.max(4, y + height + 24 > window.innerHeight ? y - height - 12 : y + 18)}px`;
}

// --- the table and the layer ------------------------------------------------------------------------------------

function tools() {
  const filter = h("input", { type: "search", placeholder: "Filter layers, rules, kinds", "aria-label": "Filter layers", oninput: (event) => choose({ filter: event.target.value, all: false }) });
  filter.value = state.view.filter;
  const orders = h("button", { type: "button", class: "link", onclick: () => choose({ by: state.view.by === "worst" ? "depth" : "worst", descending: false }) }, state.view.by === "worst" ? "Sort by depth" : "Sort worst first");
  return h("div", { class: "picture-head" }, h("h3", null, "Layers"), filter, orders);
}

function table() {
  const order = (part) => choose(part);
  return drawTable(tableRows(), { ...state.view, by: state.view.by ?? "depth" }, state.view.layer, order, chooseLayer);
}

/** Rows of the table at the shown audit; kept, because a key in the filter asks for them again. */
function tableRows() {
  const { info, table: numbers, cache, layers } = state.chosen;
  const step = shownStep();
  const key = `rows ${step} ${state.view.stat}`;
  if (cache.has(key)) return cache.get(key);
  const one = Object.fromEntries(["activation", "gradient", "update", "backward"].map((id) => [id, curve(numbers, statistic(id), step)]));
  const judged = [[statistic("activation"), one.activation], [statistic("backward"), one.backward]];
  const found = (findingsAt(step) ?? []).map((finding) => ({ ...finding, layers: layersOf(finding) }));
  const entry = statistic(state.view.stat);
  const over = curves(entry);
  const place = new Map(layers.map((row, position) => [row, position]));
  const rows = info.layers.flatMap((layer, index) => {
    if (["input", "target"].includes(layer.role)) return [];
    const findings = found.filter((finding) => finding.layers.has(layer.path)).sort((a, b) => severity(a.severity) - severity(b.severity));
    const pick = (id) => ({ value: one[id].value[index], level: one[id].level[index], broken: one[id].broken[index] });
    const about = describe(layer);
    const position = place.get(index);
    const far = trouble(judged, index);
    return {
      index,
      layer,
      about,
      findings,
      rank: (findings.length ? severity(findings[0].severity) - 2 : 1) * 1e6 - (Number.isFinite(far) ? far : 1e5),
      search: `${layer.path} ${about} ${findings.map((finding) => `${finding.rule} ${finding.severity}`).join(" ")}`.toLowerCase(),
      activation: pick("activation"),
      gradient: { ...pick("gradient") },
      update: pick("update"),
      stripEntry: entry,
      strip: position === undefined ? null : { level: over.map((a) => a.level[position]), broken: over.map((a) => a.broken[position]) },
    };
  });
  cache.set(key, rows);
  return rows;
}

/** The panel of the chosen layer, or none. */
async function drawLayer() {
  const { info, table: numbers } = state.chosen;
  const place = parts.detail;
  const index = info.layers.findIndex((layer) => layer.path === state.view.layer);
  if (index < 0) return;
  const layer = info.layers[index];
  const steps = numbers.steps;
  const all = numbers.at("update_log10");
  const ratios = steps.map((_, step) => (all ? all[step * numbers.rows.length + index] : NaN));
  const close = () => choose({ layer: null });
  const key = `histograms ${layer.path}`;
  if (!state.chosen.cache.has(key)) {
    place.replaceChildren(drawDetail(layer, steps, ratios, {}, close));
    const kinds = ["weights", "activations", "gradients"];
    const { cache } = state.chosen;
    try {
      const lists = await Promise.all(kinds.map((kind) => fetchHistograms(info.run, layer.path, kind)));
      cache.set(key, Object.fromEntries(kinds.map((kind, i) => [kind, lists[i]])));
    } catch (error) {
      say(error.message);
      return;
    }
    if (place !== parts.detail || state.view.layer !== layer.path) return;
  }
  place.replaceChildren(drawDetail(layer, steps, ratios, state.chosen.cache.get(key), close));
}
