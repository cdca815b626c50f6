/** The owner's page: what a study has found so far, drawn anew while answers come in. The secret stands after the # of
 * the address, which browsers send to nobody; it goes to the server in a header. */

import { card, make } from "./dom.js";
import { planner } from "./planner.js";
import { intervalPlot } from "./plots.js";

const [STUDY] = location.pathname.split("/").filter(Boolean).slice(-2);
const SECRET = location.hash.slice(1);
const EVERY_MS = 10_000;

const page = Object.fromEntries(["title", "state", "updated", "main"].map((id) => [id, document.getElementById(id)]));
let shown = ""; // the last answer, as text

async function ask(path, options = {}) {
  const response = await fetch(`api/${path}`, {
    cache: "no-store",
    ...options,
    headers: { Authorization: `Bearer ${SECRET}`, ...options.headers },
  });
  if (!response.ok) {
    const told = await response.json().catch(() => ({}));
    throw new Error(told.detail ?? `The server says ${response.status}.`);
  }
  return response;
}

async function refresh() {
  if (document.hidden) return;
  try {
    const text = await (await ask("results")).text();
    if (text !== shown) show(JSON.parse(text));
    shown = text;
    page.updated.textContent = `as of ${new Date().toLocaleTimeString()}`;
  } catch (error) {
    if (shown === "") page.main.replaceChildren(card("These results cannot be shown", make("p", {}, error.message)));
    else page.updated.textContent = `not updated: ${error.message}`;
  }
}

// words and numbers

function asksScores({ kind }) {
  return ["mos", "mushra"].includes(kind);
}

/** How this study's answers are counted: the axis, and values in words. */
function scaleOf(kind) {
  if (kind === "mos") return { from: 1, to: 5, show: (value) => value.toFixed(2), tick: (value) => value.toFixed(1) };
  if (kind === "mushra")
    return { from: 0, to: 100, show: (value) => value.toFixed(1), tick: (value) => value.toFixed(0) };
  return {
    from: 0,
    to: 1,
    show: (value) => `${(100 * value).toFixed(1)} %`,
    tick: (value) => `${Math.round(100 * value)} %`,
  };
}

function table(caption, heads, rows) {
  const head = make(
    "thead",
    {},
    make(
      "tr",
      {},
      heads.map((text) => make("th", { scope: "col" }, text)),
    ),
  );
  const body = make(
    "tbody",
    {},
    rows.map((cells) =>
      make(
        "tr",
        {},
        cells.map((text, at) => (at ? make("td", {}, text) : make("th", { scope: "row" }, text))),
      ),
    ),
  );
  return make(
    "div",
    { class: "scroll", tabIndex: 0, role: "region", "aria-label": caption },
    make("table", {}, make("caption", {}, caption), head, body),
  );
}

/** A plot with the `keys` of its legend, and the same as a table to open. */
function plotted(title, rows, scale, extra = {}, keys = []) {
  const plot = make("div");
  intervalPlot(plot, {
    rows,
    ...scale,
    title: `${title}: ${rows.length} rows with 95 % intervals; the table below has the numbers`,
    ...extra,
  });
  const other = rows.some((row) => row.other !== undefined);
  const cells = rows.map((row) => [
    row.label,
    told(row.value, scale),
    interval(row, scale),
    ...(other ? [told(row.other ?? null, scale)] : []),
    String(row.n),
  ]);
  const heads = ["", "value", "95 % interval", ...(other ? ["detector"] : []), "n"];
  const asTable = make("details", {}, make("summary", {}, "As a table"), table(title, heads, cells));
  return [plot, keys.length ? legend(keys) : null, asTable];
}

function told(value, scale) {
  return value === null ? "–" : scale.show(value);
}

function interval({ low, high }, scale) {
  return low === null || low === undefined ? "–" : `${scale.show(low)} to ${scale.show(high)}`;
}

// the page

function show(results) {
  document.title = page.title.textContent = results.title;
  page.state.hidden = false;
  page.state.textContent = results.closed ? "closed" : "open";
  page.state.classList.toggle("closed", results.closed);
  const scale = scaleOf(results.kind);
  const planned = asksScores(results) ? null : (page.main.querySelector("#planner") ?? planner(results.margin, ask));
  const open = new Set([...page.main.querySelectorAll("details[open]")].map(nameOf));
  page.main.replaceChildren(
    counted(results.counts),
    found(results, scale),
    make(
      "div",
      { class: "cards" },
      [conditions(results, scale), clips(results, scale), raters(results, scale), left(results.counts)].filter(Boolean),
    ),
    make("div", { class: "cards" }, [planned, methods(results), page.main.querySelector("#exporting") ?? exports(), manage(results)].filter(Boolean)),
  );
  for (const details of page.main.querySelectorAll("details")) details.open = open.has(nameOf(details));
}

/** What a part to open is called, so that it stays open when the page is drawn anew. */
function nameOf(details) {
  const title = details.closest("section").querySelector("h2").textContent;
  return `${title}: ${details.querySelector("summary").textContent}`;
}

function counted(counts) {
  const tiles = [
    ["Complete", make("span", {}, String(counts.complete), make("small", {}, ` of ${counts.target}`))],
    ["Ratings", counts.ratings],
    ["Under way", counts.running],
    ["Screened out", counts.screened_out],
    ["Dropped out", counts.lapsed],
    ["Did not agree", counts.declined],
    ["Withdrawn", counts.withdrawn],
    ["Failed the checks", counts.excluded],
  ];
  return card(
    "Participants",
    make(
      "dl",
      { class: "counts" },
      tiles.map(([name, value]) =>
        make("div", {}, make("dt", {}, name), make("dd", {}, value instanceof Node ? value : String(value))),
      ),
    ),
  );
}

const OFF_SCALE = /^d'$| minus /; // sensitivity and differences are no rates or scores

function found(results, scale) {
  const drawn = results.figures
    .filter(({ name, value }) => value !== null && !OFF_SCALE.test(name))
    .map((figure) => ({ ...figure, label: figure.name }));
  if (!drawn.length) return card("Result", make("p", {}, "No ratings yet: only those of people who finished, and passed the checks, count."));
  const keys = [["", "this study"]];
  if (results.paper) {
    drawn.push({ ...results.paper, label: results.paper.name, kind: "paper" });
    keys.push(["paper", results.paper.name]);
  }
  if (guides(results).band) keys.push(["near", `within ${100 * results.margin} points of chance`]);
  const fit = make("button", { type: "button", on: { click: withMixed } }, "Fit the mixed-effects model");
  return card(
    "Result",
    headline(results, drawn[0], scale),
    plotted("Result", drawn, scale, guides(results), keys),
    make("ul", { class: "tests" }, results.tests.map(tested)),
    everyFigure(results),
    results.notes.map((note) => make("p", { class: "note" }, note)),
    results.mixed ? null : fit,
  );
}

function headline(results, first, scale) {
  if (asksScores(results)) return make("p", {}, `Mean scores with 95 % intervals, of ${results.counts.ratings} ratings.`);
  const known = first.low === null ? "too few listeners or clips for an interval" : `95 % interval ${interval(first, scale)}`;
  const rest = ` ${first.name}, ${known}, ${first.n} ratings`;
  return make("p", { class: "headline" }, make("b", {}, scale.show(first.value)), rest);
}

function tested({ name, p_value: p, n, decision, note }) {
  const shown = p < 0.001 ? "p < 0.001" : `p = ${p.toFixed(3)}`;
  return make("li", {}, make("strong", {}, decision), make("small", {}, `${name}: ${shown}, n = ${n}; ${note}`));
}

/** [class, words] of every sign in a plot. */
function legend(keys) {
  const items = keys.map(([kind, words]) => make("li", { class: kind }, words));
  return make("ul", { class: "legend" }, items);
}

function everyFigure({ figures }) {
  const number = (value) => (value === null ? "–" : value.toFixed(3));
  const rows = figures.map(({ name, value, low, high, n, note }) => [
    name,
    number(value),
    low === null ? "–" : `${number(low)} to ${number(high)}`,
    String(n),
    note,
  ]);
  return make(
    "details",
    {},
    make("summary", {}, "Every figure, and how it was made"),
    table("Every figure", ["", "value", "95 % interval", "n", "how"], rows),
  );
}

/** The model takes seconds: it is fitted when asked for, and stays until the results change. */
async function withMixed(event) {
  event.target.disabled = true;
  event.target.textContent = "Fitting…";
  show(await (await ask("results?mixed=true")).json());
}

/** Chance, and the margin within which a study counts as equal to it. */
function guides(results) {
  if (asksScores(results)) return {};
  const { margin } = results;
  return { marks: [{ at: 0.5, label: "chance" }], band: { low: 0.5 - margin, high: 0.5 + margin } };
}

function ordered(rows) {
  return [...rows].sort((one, other) => (other.value ?? -1) - (one.value ?? -1));
}

function conditions({ conditions: rows, ...results }, scale) {
  if (rows.length < 2) return null;
  return card(
    "By condition",
    plotted(
      "By condition",
      rows.map((row) => ({ ...row, label: row.name })),
      scale,
      guides(results),
    ),
  );
}

/** For real-or-synthetic, how often a clip was called generated, beside the detector's probability of the same. */
function clips({ clips: rows, clip_facts: facts, ...results }, scale) {
  if (!rows.length) return null;
  const asksOrigin = ["real_or_synthetic", "human_against_detector"].includes(results.kind);
  const alike = new Set(rows.map(({ group }) => group)).size === 1;
  const shown = rows.map((row) => {
    const { item, generated, probability } = facts[row.name];
    const turned = asksOrigin && !generated ? { value: 1 - row.value, low: 1 - row.high, high: 1 - row.low } : {};
    const other = asksOrigin && probability !== null ? { other: probability } : {};
    return { ...row, ...turned, ...other, label: alike ? item : `${item}, ${row.group}` };
  });
  const title = asksOrigin ? "By clip: called generated" : "By clip";
  const judged = shown.some(({ other }) => other !== undefined);
  const keys = [
    ["", "listeners"],
    ["machine", "the detector's score"],
  ];
  return card(title, plotted(title, shown, scale, asksOrigin ? {} : guides(results), judged ? keys : []));
}

function raters({ raters: rows, ...results }, scale) {
  if (!rows.length) return null;
  const named = ordered(rows).map((row, index) => ({
    ...row,
    label: `Listener ${index + 1}`,
    kind: row.excluded ? "left-out" : "humans",
  }));
  const why = [...new Set(rows.map(({ excluded }) => excluded).filter(Boolean))].map((reason) =>
    make("p", { class: "note" }, `Pale: left out (${reason}).`),
  );
  return card("By listener", plotted("By listener", named, scale, guides(results)), why);
}

function left({ drop_out_by_step: steps }) {
  const most = Math.max(...steps, 0);
  if (most === 0) return null;
  const bars = steps.map((count, step) => {
    const bar = make("div", { class: "bar" });
    bar.style.width = `${(100 * count) / most}%`;
    return count ? [make("span", {}, `after ${step}`), make("div", {}, bar), make("span", {}, String(count))] : null;
  });
  return card("Not complete, by answers given", make("div", { class: "bars" }, bars.flat().filter(Boolean)));
}

function methods({ methods: text }) {
  return card("Methods, for a paper", make("p", { class: "methods" }, text));
}

function exports() {
  const withIds = make("input", { type: "checkbox" });
  const save = (name, path) => make("button", { type: "button", on: { click: () => download(name, path()) } }, name);
  const ids = () => (withIds.checked ? "?ids=1" : "");
  const names = ["answers.csv", "sessions.csv", "clips.csv", "results.json", "study.json", "dictionary.csv", "methods.txt"];
  const box = card(
    "Export",
    make(
      "div",
      { class: "row" },
      save("everything.zip", () => `export${ids()}`),
      names.map((name) => save(name, () => `export/${name}${ids()}`)),
    ),
    make(
      "label",
      { class: "tick" },
      withIds,
      make("span", {}, "With the platform's participant ids (to pay people, not to publish)"),
    ),
  );
  box.id = "exporting";
  return box;
}

async function download(name, path) {
  const address = URL.createObjectURL(await (await ask(path)).blob());
  make("a", { href: address, download: `${STUDY}-${name}` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

async function post(path, body) {
  const answer = await (await ask(path, { method: "POST", body: JSON.stringify(body) })).json();
  await refresh();
  return answer;
}

function manage({ closed }) {
  const says = closed
    ? "Nobody new can take part. Those under way may finish."
    : "New participants are taken until the target is reached.";
  const change = () => post("close", { closed: !closed });
  const toggle = make("button", { type: "button", on: { click: change } }, closed ? "Open it again" : "Close it");
  return card("This study", make("p", {}, says), toggle, page.main.querySelector("#erasing") ?? erasing());
}

/** For people who ask, after they have left, for what is stored of them to be erased. */
function erasing() {
  const id = make("input", { type: "text", autocomplete: "off" });
  const told = make("p", { role: "status" });
  const erase = async () => {
    const participant = id.value.trim();
    if (!participant || !confirm(`Erase everything that is stored of ${participant}?`)) return;
    const answer = await post("erase", { participant }).catch((error) => ({ error }));
    told.textContent = answer.error?.message ?? (answer.erased ? "Erased." : "Nobody of that id has taken part.");
  };
  const label = make("label", { class: "field" }, "Erase a participant: their id on the recruiting platform", id);
  return make("div", { id: "erasing" }, label, make("button", { type: "button", on: { click: erase } }, "Erase"), told);
}

addEventListener("hashchange", () => location.reload());
document.addEventListener("visibilitychange", refresh);
setInterval(refresh, EVERY_MS);
refresh();
