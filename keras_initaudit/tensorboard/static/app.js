// The page: what is chosen, what has been fetched, and who draws it. Every number comes from model.js.

import { fetchColumns, fetchHistograms, fetchRun, fetchRuns } from "./api.js";
import { drawCard } from "./cards.js";
import { forgetColours } from "./colour.js";
import { drawDetail } from "./detail.js";
import { chip, h } from "./dom.js";
import { drawEmpty } from "./empty.js";
import { drawFindings } from "./findings.js";
import { count, DIGITS, num } from "./format.js";
import { drawHeatmap, heatmapLegend } from "./heatmap.js";
import { followTheme, onAddress, onReload, readAddress, writeAddress } from "./host.js";
import { columnsFor, curve, sortRuns, statistic, statisticFor, STATISTICS } from "./model.js";
import { follow, makeTip, reading } from "./pointer.js";
import { drawProfile, frameOf, profileLegend } from "./profile.js";
import { rowsOf, SHOWN } from "./rows.js";
import { drawTable, firstOrder } from "./table.js";

const PROFILE = ["activation", "backward"].map(statistic);
const EMPTY_AGAIN = 5000;
const MANY_RUNS = 6;

/** Everything that is fetched, and everything that is chosen. */
const state = {
  runs: null,
  profiles: new Map(), // run -> {stamp, now, start}
  chosen: null, // {info, table, layers: positions, steps, curves}
  view: { run: null, step: null, stat: null, layer: null, runs: "", filter: "", by: null, descending: false, all: false },
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
    tip: makeTip(),
  };
  parts.search.value = state.view.runs;
  root.append(parts.notice, parts.search, parts.cards, parts.run, parts.tip.box);
  followTheme(() => {
    forgetColours();
    drawRun();
  });
  onReload(() => refresh(false));
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
async function refresh(anew = true) {
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
    setTimeout(() => state.runs.length || refresh(), EMPTY_AGAIN);
    return;
  }
  const wanted = state.runs.find((run) => run.run === state.view.run);
  if (!wanted) state.view.run = (state.runs.find((run) => !run.problem) ?? state.runs[0]).run;
  drawCards();
  await Promise.all([loadRun(anew), ...state.runs.map(loadProfile)]);
  performance.mark("initaudit-drawn");
}

async function loadProfile(run) {
  if (run.problem || String(state.profiles.get(run.run)?.stamp) === String(run.stamp)) return;
  try {
    const table = await fetchColumns(run.run, columnsFor(PROFILE).filter((name) => run.columns.includes(name)), "ends", "layer");
    const last = table.steps.length - 1;
    const at = (step) => ({ activation: curve(table, statistic("activation"), step), backward: curve(table, statistic("backward"), step) });
    state.profiles.set(run.run, { stamp: run.stamp, now: at(last), start: last > 0 ? at(0) : null });
  } catch (error) {
    run.problem = error.message;
  }
  drawCards();
}

/** Fetches the chosen run, unless what is here is still as the log has it; then it is drawn again if `anew`. */
async function loadRun(anew = true) {
  const run = state.runs.find((one) => one.run === state.view.run);
  const mine = ++turn;
  if (!run || run.problem) {
    state.chosen = null;
    drawRun();
    return;
  }
  state.view.stat ??= statisticFor(run.rules);
  const entry = statistic(state.view.stat);
  const columns = columnsFor([...SHOWN.map(statistic), entry]);
  const here = state.chosen;
  if (here?.info.run === run.run && String(here.info.stamp) === String(run.stamp) && columns.every((name) => here.columns.includes(name))) {
    if (anew) drawRun();
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
  else if (before.step !== step) drawRun();
  else {
    parts.table.replaceChildren(table());
    if (before.layer !== layer) drawLayer();
  }
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
  return info.audits.find((one) => one.step === table.steps[step]) ?? { step: table.steps[step], loss: null, findings: null, verdict: null };
}

function findingsAt(step) {
  const { findings } = auditAt(step);
  return findings === null ? null : findings.map((number) => state.chosen.info.findings[number]);
}

/** Draws the chosen run. */
function drawRun() {
  if (!parts.run || state.runs === null || !state.runs.length) return;
  const run = state.runs.find((one) => one.run === state.view.run);
  if (!state.chosen) {
    const problem = run?.problem;
    parts.run.replaceChildren(...(problem ? [h("h2", null, run.label), h("p", { class: "notice" }, `This run cannot be read: ${problem}`)] : []));
    return;
  }
  if (!state.chosen.table.steps.length) {
    parts.run.replaceChildren(h("h2", null, run.label), h("p", { class: "notice" }, "No audit of this run can be read: its tables do not have the shape that its header says."));
    return;
  }
  const { scrollTop } = document.scrollingElement;
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
  document.scrollingElement.scrollTop = scrollTop; // measuring the half-built page has moved it
}

function head(run, step) {
  const { info, table } = state.chosen;
  const audit = auditAt(step);
  const last = step === table.steps.length - 1;
  const facts = [`step ${audit.step.toLocaleString("en")}${last ? " (latest)" : ""}`];
  if (audit.loss !== null) facts.push(`loss ${Number.isNaN(Number(audit.loss)) ? "NaN" : num(Number(audit.loss), DIGITS)}${info.baseline_loss ? ` (uninformed ${num(Number(info.baseline_loss), DIGITS)})` : ""}`);
  if (info.optimizer) facts.push(`${info.optimizer}${info.learning_rate ? ` at ${num(Number(info.learning_rate))}` : ""}`);
  if (info.batch_size) facts.push(count(info.batch_size, "sample"));
  facts.push(count(table.steps.length, "audit"));
  return h(
    "header",
    { class: "run-head" },
    h("h2", { title: info.run }, info.label),
    chip(audit.verdict ?? run?.verdict),
    h("span", { class: "small" }, facts.join(" · ")),
    !last && h("button", { type: "button", class: "link", onclick: () => choose({ step: null }) }, "back to the latest audit"),
  );
}

function pictures(width, step) {
  const { info, layers, table } = state.chosen;
  const entry = statistic(state.view.stat);
  const names = layers.map((row) => info.layers[row].path);
  if (!names.length) return [h("p", { class: "quiet" }, "This audit has no layers to draw.")];
  const frame = frameOf(width, names.length);
  const at = (one) => ({ activation: curves(statistic("activation"))[one], backward: curves(statistic("backward"))[one] });
  const title = `Depth profile of ${info.label} at step ${table.steps[step]}`;
  const profile = h("div", { class: "profile-place" }, drawProfile(frame, at(step), step > 0 ? at(0) : null, title));
  const heat = drawHeatmap(frame, entry, curves(entry), table.steps, names, `${entry.name}: layers from left to right, steps from top to bottom. Arrow keys move, Enter opens the layer, space shows the step.`);
  const picker = h("select", { "aria-label": "Statistic of the heat map", onchange: (event) => choose({ stat: event.target.value }) }, available().map((one) => h("option", { value: one.id, selected: one.id === entry.id }, one.name)));
  const layerAt = (i) => info.layers[layers[i]];
  const read = [...new Set([...PROFILE, entry])];
  follow(frame, profile, heat, parts.tip, {
    step,
    steps: table.steps.length,
    redraw: (one) => profile.replaceChildren(drawProfile(frame, at(one), one > 0 ? at(0) : null, `Depth profile at step ${table.steps[one]}`)),
    read: (i, one) => reading(layerAt(i), i, table.steps[one], read.map((each) => [each, curves(each)[one]])),
    open: (i) => chooseLayer(layerAt(i).path),
    pin: (one) => choose({ step: table.steps[one] }),
  });
  return [
    h("div", { class: "picture-head" }, h("h3", null, "Signal and gradient by depth"), profileLegend(step > 0)),
    profile,
    h("div", { class: "picture-head" }, h("h3", null, "Layer × step"), picker, heatmapLegend(entry)),
    heat.element,
  ];
}

const available = () => STATISTICS.filter((one) => state.chosen.info.columns.includes(one.column));

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
  const entry = statistic(state.view.stat);
  if (!cache.has(key)) cache.set(key, rowsOf(info.layers, numbers, step, findingsAt(step) ?? [], layers, entry, curves(entry)));
  return cache.get(key);
}

/** The panel of the chosen layer, or none. */
async function drawLayer() {
  const { info, table: numbers } = state.chosen;
  const place = parts.detail;
  const index = info.layers.findIndex((layer) => layer.path === state.view.layer);
  if (index < 0) {
    place.replaceChildren();
    return;
  }
  const layer = info.layers[index];
  const steps = numbers.steps;
  const all = numbers.at("update_log10");
  const ratios = steps.map((_, step) => (all ? all[step * numbers.rows.length + index] : NaN));
  const close = () => choose({ layer: null });
  const key = `histograms ${layer.path}`;
  if (!state.chosen.cache.has(key)) {
    place.replaceChildren(drawDetail(layer, steps, ratios, {}, close));
    place.scrollIntoView({ block: "nearest" });
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
