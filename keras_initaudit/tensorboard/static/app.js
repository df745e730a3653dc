// The page: what is chosen, what has been fetched, and who draws it. Every number comes from model.js.

import { fetchCheck, fetchColumns, fetchHistograms, fetchRun, fetchRuns } from "./api.js";
import { makeAxis } from "./axis.js";
import { drawCard } from "./cards.js";
import { pairRows } from "./compare.js";
import { forgetColours } from "./colour.js";
import { drawCheck } from "./coordinates.js";
import { drawDetail } from "./detail.js";
import { chip, h } from "./dom.js";
import { drawEmpty } from "./empty.js";
import { drawFindings } from "./findings.js";
import { count, DIGITS, num } from "./format.js";
import { followTheme, onAddress, onReload, readAddress, writeAddress } from "./host.js";
import { columnsFor, curve, PROFILE, quantitiesFor, sortRuns, statistic, statisticFor } from "./model.js";
import { copyWholeNames } from "./names.js";
import { drawPictures } from "./pictures.js";
import { makeTip } from "./pointer.js";
import { rowsOf, SHOWN } from "./rows.js";
import { drawTable, firstOrder } from "./table.js";

const EMPTY_AGAIN = 5000;
const MANY_RUNS = 6;

/** Everything that is fetched, and everything that is chosen. */
const state = {
  runs: null,
  profiles: new Map(), // run -> {stamp, axis, now, start, quantities}
  chosen: null, // {info, table, columns, cache}
  check: null, // the coordinate check that is chosen in its place, or null
  other: null, // the same of the run that the chosen one is compared with, with `pairs`, or null
  view: { run: null, step: null, stat: null, layer: null, block: null, with: null, runs: "", filter: "", by: null, descending: false, all: false },
};

let root = null;
let parts = {};
let turn = 0; // of the fetching, so that a slow answer for another choice is dropped

export function start(element) {
  root = element;
  Object.assign(state.view, viewOf(readAddress()));
  parts = {
    notice: h("p", { class: "notice", role: "status", hidden: true }),
    title: h("h1", { class: "hidden-word" }, "Init Audit"),
    cards: h("nav", { class: "cards", "aria-label": "Runs" }),
    search: h("input", { type: "search", class: "search", placeholder: "Filter runs", "aria-label": "Filter runs", hidden: true, oninput: onSearch }),
    run: h("article", { class: "run" }),
    tip: makeTip(),
  };
  parts.search.value = state.view.runs;
  root.append(parts.title, parts.notice, parts.search, parts.cards, parts.run, parts.tip.box);
  copyWholeNames();
  followTheme(() => {
    forgetColours();
    drawRun();
  });
  onReload(() => refresh(false));
  onAddress((given) => {
    if (!given.run) return; // another tab, or ours as the bar opens it
    Object.assign(state.view, { step: null, layer: null, stat: null, block: null, with: null, filter: "" }, viewOf(given));
    refresh();
  });
  new ResizeObserver(debounce(() => root.clientWidth !== state.width && drawRun(), 80)).observe(root);
  refresh();
}

/** What an address asks for, as far as it makes sense. */
function viewOf(given) {
  const view = {};
  for (const name of ["run", "stat", "layer", "block", "with", "filter", "runs"]) if (given[name]) view[name] = given[name];
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
  if (run.problem || run.check || String(state.profiles.get(run.run)?.stamp) === String(run.stamp)) return;
  try {
    const shown = run.rules ? quantitiesFor(run.rules, run.columns) : [];
    const columns = columnsFor([...PROFILE.map(statistic), ...shown]).filter((name) => run.columns.includes(name));
    const table = await fetchColumns(run.run, columns, "ends", true);
    const last = table.steps.length - 1;
    const at = (step) => Object.fromEntries(PROFILE.map((id) => [id, curve(table, statistic(id), step)]));
    const quantities = shown.map((entry) => [entry, curve(table, entry, last)]);
    const axis = makeAxis(table.line, table.places, table.places.map(() => "layer"));
    state.profiles.set(run.run, { stamp: run.stamp, axis, now: at(last), start: last > 0 ? at(0) : null, quantities });
  } catch (error) {
    run.problem = error.message;
  }
  const stands = [...parts.cards.children].find((card) => card.dataset.run === run.run);
  if (!stands) return;
  const focused = stands === document.activeElement;
  const made = cardOf(run);
  stands.replaceWith(made);
  if (focused) made.focus();
}

const comparable = (run) => !run.problem && !run.check;

/** What the pictures of the chosen run need. */
const wantedColumns = (run) => columnsFor([...SHOWN, state.view.stat].map(statistic).concat(quantitiesFor(run.rules, run.columns)));

/** A run with its numbers, unless what is here is still as the log has it. */
async function fetchWhole(run, columns, here) {
  if (here?.info.run === run.run && String(here.info.stamp) === String(run.stamp) && columns.every((name) => here.columns.includes(name))) return here;
  const known = columns.filter((name) => run.columns.includes(name));
  const [info, table] = await Promise.all([fetchRun(run.run), fetchColumns(run.run, known)]);
  return { info, table, columns, cache: new Map() };
}

/** Fetches the chosen coordinate check and draws it, or why there is nothing to draw. */
async function loadCheck(run, mine, anew) {
  const known = state.check?.run === run?.run && String(state.check?.stamp) === String(run?.stamp);
  try {
    const check = !run?.check || run.problem ? null : known ? state.check : await fetchCheck(run.run);
    if (mine !== turn || (check && known && !anew)) return;
    Object.assign(state, { chosen: null, other: null, check });
    say(null);
    drawRun();
  } catch (error) {
    if (mine === turn) say(error.message);
  }
}

/** Fetches the chosen run and the one beside it, where the log has them anew; draws them then, and if `anew`. */
async function loadRun(anew = true) {
  const run = state.runs.find((one) => one.run === state.view.run);
  const mine = ++turn;
  if (!run || !comparable(run)) return loadCheck(run, mine, anew);
  state.view.stat ??= statisticFor(run.rules);
  const beside = state.runs.find((one) => one.run === state.view.with && one !== run && comparable(one)) ?? null;
  const columns = wantedColumns(run);
  const before = [state.chosen, state.other];
  try {
    const [chosen, other] = await Promise.all([fetchWhole(run, columns, state.chosen), beside && fetchWhole(beside, columns, state.other)]);
    if (mine !== turn) return;
    if (chosen !== state.chosen && state.view.by === null) Object.assign(state.view, firstOrder(chosen.info.layers.length));
    state.chosen = chosen;
    state.other = other && { ...other, pairs: pairRows(chosen.info.layers, other.info.layers) };
    if (other && !state.other.pairs) say(`${other.info.label} has other layers than ${chosen.info.label}: nothing can be compared.`);
    else say(null);
  } catch (error) {
    if (mine !== turn) return;
    say(error.message);
    return;
  }
  if (anew || state.chosen !== before[0] || state.other?.table !== before[1]?.table) drawRun();
}

/** A statistic's curves, one a step, of all rows; kept until the run is fetched again. */
function curves(entry) {
  const { cache, table } = state.chosen;
  if (!cache.has(entry.id)) cache.set(entry.id, table.steps.map((_, step) => curve(table, entry, step)));
  return cache.get(entry.id);
}

/** The curve of the run beside the chosen one, at its rows, at the shown step or the last one before it. */
function besides(entry) {
  const { table, pairs } = state.other;
  const wanted = state.chosen.table.steps[shownStep()];
  const at = Math.max(0, table.steps.findLastIndex((step) => step <= wanted));
  const one = curve(table, entry, at);
  const take = (values, none) => Float32Array.from(pairs, (row) => (row < 0 ? none : values[row]));
  return { level: take(one.level, NaN), value: take(one.value, NaN), broken: take(one.broken, 0) };
}

// --- choosing ---------------------------------------------------------------------------------------------------

function choose(change) {
  const before = { ...state.view };
  Object.assign(state.view, change);
  if (before.run !== state.view.run) Object.assign(state.view, { step: null, layer: null, stat: null, block: null, by: null, all: false });
  const { run, step, stat, layer, block, with: other, filter, runs } = state.view;
  writeAddress({ run, step, stat, layer, block, with: other, filter, runs });
  if (before.run !== run) {
    drawCards();
    loadRun();
  } else if (before.stat !== stat || before.with !== other) loadRun();
  else if (before.step !== step || before.block !== block) drawRun();
  else if (state.chosen) {
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
const chooseBlock = (path) => choose({ block: state.view.block === path ? null : path });

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
  parts.cards.replaceChildren(...shown.map(cardOf));
  if (!shown.length) parts.cards.append(h("p", { class: "quiet" }, "No run matches the filter."));
  if (focused) [...parts.cards.children].find((card) => card.dataset.run === focused)?.focus();
}

const cardOf = (run) => drawCard(run, state.profiles.get(run.run) ?? null, run.run === state.view.run, (name) => choose({ run: name }));

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
  state.width = root.clientWidth;
  if (!state.chosen) {
    const problem = run?.problem;
    if (state.check) parts.run.replaceChildren(...drawCheck(state.check));
    else parts.run.replaceChildren(...(problem ? [h("h2", null, run.label), h("p", { class: "notice" }, `This run cannot be read: ${problem}`)] : []));
    return;
  }
  if (!state.chosen.table.steps.length) {
    parts.run.replaceChildren(h("h2", null, run.label), h("p", { class: "notice" }, "No audit of this run can be read: its tables do not have the shape that its header says."));
    return;
  }
  const { scrollTop } = document.scrollingElement;
  const step = shownStep();
  const box = h("div", { class: "pictures" });
  const found = findingsAt(step);
  const side = drawFindings(found, state.chosen.info, state.chosen.table.steps[step], chooseLayer);
  parts.detail = h("div", { class: "detail-place" });
  parts.table = h("div", null, table());
  parts.run.replaceChildren(head(run, step), h("div", { class: "upper" }, found?.length ? [box, side] : [side, box]), parts.detail, tools(), parts.table);
  box.append(...pictures(box.clientWidth, step, found ?? []));
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
    comparing(),
    !last && h("button", { type: "button", class: "link", onclick: () => choose({ step: null }) }, "back to the latest audit"),
  );
}

/** The choice of the run to compare with. */
function comparing() {
  const others = state.runs.filter((run) => run.run !== state.view.run && comparable(run));
  if (!others.length) return null;
  const options = others.map((run) => h("option", { value: run.run, selected: run.run === state.view.with }, run.label));
  return h("label", { class: "small comparing" }, "compare with ", h("select", { onchange: (event) => choose({ with: event.target.value || null }) }, h("option", { value: "" }, "no other run"), options));
}

function pictures(width, step, found) {
  const { info, table } = state.chosen;
  const faults = found.filter((finding) => finding.severity !== "note");
  const opened = info.layers.findIndex((layer) => layer.path === state.view.block);
  return drawPictures(width, {
    info,
    table,
    step,
    axis: makeAxis(info.line, info.places, info.layers.map((layer) => layer.role), opened < 0 ? null : opened),
    stat: state.view.stat,
    quantities: quantitiesFor(faults.map((finding) => finding.rule), info.columns).filter((entry) => table.at(entry.column)),
    rows: faults[0]?.rows ?? [],
    curves,
    other: state.other?.pairs ? { label: state.other.info.label, curve: besides } : null,
    tip: parts.tip,
    onStat: (stat) => choose({ stat }),
    onStep: (at) => choose({ step: at }),
    onLayer: chooseLayer,
    onBlock: chooseBlock,
  });
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
  return drawTable(state.chosen.info, tableRows(), { ...state.view, by: state.view.by ?? "depth" }, state.view.layer, order, chooseLayer);
}

/** Rows of the table at the shown audit; kept, because a key in the filter asks for them again. */
function tableRows() {
  const { info, table: numbers, cache } = state.chosen;
  const step = shownStep();
  const other = state.other?.pairs ? state.other : null;
  const key = `rows ${step} ${state.view.stat} ${other?.info.run} ${other?.info.stamp}`;
  const entry = statistic(state.view.stat);
  if (!cache.has(key)) cache.set(key, rowsOf(info.layers, numbers, step, findingsAt(step) ?? [], entry, curves(entry), other && besides));
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
