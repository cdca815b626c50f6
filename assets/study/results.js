/** The owner's page: what a study has found so far, drawn anew while answers come in. The secret stands after the # of the
 * address, which browsers send to nobody; it goes to the server in a header. */

import { make } from "./dom.js";
import { intervalPlot } from "./plots.js";

const [STUDY] = location.pathname.split("/").filter(Boolean).slice(-2);
const SECRET = location.hash.slice(1);
const EVERY_MS = 10_000;

const page = Object.fromEntries(["title", "state", "updated", "main"].map((id) => [id, document.getElementById(id)]));
let shown = ""; // the last answer, as text

async function ask(path, options = {}) {
  const response = await fetch(`api/${path}`, { cache: "no-store", ...options, headers: { Authorization: `Bearer ${SECRET}`, ...options.headers } });
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
    page.updated.textContent = `not updated: ${error.message}`;
    if (shown === "") page.main.replaceChildren(card("These results cannot be shown", make("p", {}, error.message)));
  }
}

// words and numbers

/** How this study's answers are counted: the axis, and values in words. */
function scaleOf(kind) {
  if (kind === "mos") return { from: 1, to: 5, show: (value) => value.toFixed(2), ticks: (value) => value.toFixed(1) };
  if (kind === "mushra") return { from: 0, to: 100, show: (value) => value.toFixed(1), ticks: (value) => value.toFixed(0) };
  return { from: 0, to: 1, show: (value) => `${(100 * value).toFixed(1)} %`, ticks: (value) => `${Math.round(100 * value)} %` };
}

function card(title, ...parts) {
  return make("section", { class: "card" }, make("h2", {}, title), parts.flat().filter(Boolean));
}

function full(section) {
  section.classList.add("full");
  return section;
}

function table(caption, heads, rows) {
  const head = make("thead", {}, make("tr", {}, heads.map((text) => make("th", { scope: "col" }, text))));
  const body = make("tbody", {}, rows.map((cells) => make("tr", {}, cells.map((text, at) => (at ? make("td", {}, text) : make("th", { scope: "row" }, text))))));
  return make("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": caption }, make("table", {}, make("caption", {}, caption), head, body));
}

/** A plot, and the same as a table to open. */
function plotted(title, rows, scale, extra = {}) {
  const plot = make("div");
  intervalPlot(plot, { rows, ...scale, title: `${title}: ${rows.length} rows with 95 % intervals; the table below has the numbers`, ...extra });
  const other = rows.some((row) => row.other !== undefined);
  const cells = rows.map((row) => [row.label, told(row.value, scale), interval(row, scale), ...(other ? [told(row.other ?? null, scale)] : []), String(row.n)]);
  const heads = ["", "value", "95 % interval", ...(other ? ["detector"] : []), "n"];
  return [plot, make("details", {}, make("summary", {}, "As a table"), table(title, heads, cells))];
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
  const kept = page.main.querySelector("#planner");
  page.main.replaceChildren(
    full(counted(results.counts)),
    full(found(results, scale)),
    ...[conditions(results, scale), clips(results, scale), raters(results, scale), left(results.counts)].filter(Boolean),
    kept ?? planner(results),
    methods(results),
    exports(),
    manage(results),
  );
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
    ["Left out of the analysis", counts.excluded],
  ];
  return card("Participants", make("dl", { class: "counts" }, tiles.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value instanceof Node ? value : String(value))))));
}

function found(results, scale) {
  const rows = results.figures.filter(({ value }) => value !== null).map((figure) => ({ ...figure, label: figure.name }));
  if (results.paper) rows.push({ ...results.paper, label: results.paper.name, kind: "paper" });
  const notes = [...results.notes, ...results.figures.filter(({ note }) => note).map(({ name, note }) => `${name}: ${note}`)];
  const tests = results.tests.map((test) =>
    make("li", {}, make("strong", {}, test.decision), make("small", {}, `${test.name}, ${probability(test.p_value)}, n = ${test.n}${test.note ? `. ${test.note}` : ""}`)),
  );
  const legend = results.paper ? make("ul", { class: "legend" }, make("li", {}, "this study"), make("li", { class: "paper" }, "AudioLM, Borsos et al. 2023")) : null;
  return card(
    "Result",
    rows.length ? plotted("Result", rows, scale, guides(results)) : make("p", {}, "No answers yet."),
    rows.length ? legend : null,
    make("ul", { class: "tests" }, tests),
    notes.map((note) => make("p", { class: "note" }, note)),
  );
}

function probability(value) {
  if (value === null) return "no p";
  return value < 0.001 ? "p < 0.001" : `p = ${value.toFixed(3)}`;
}

/** Chance, and the margin within which a study counts as equal to it. */
function guides({ kind, margin }) {
  if (["mos", "mushra"].includes(kind)) return {};
  return { marks: [{ at: 0.5, label: "chance" }], band: { low: 0.5 - margin, high: 0.5 + margin } };
}

function ordered(rows) {
  return [...rows].sort((one, other) => (other.value ?? -1) - (one.value ?? -1));
}

function conditions({ conditions: rows, ...results }, scale) {
  if (rows.length < 2) return null;
  return card("By condition", plotted("By condition", rows.map((row) => ({ ...row, label: row.name })), scale, guides(results)));
}

function clips({ clips: rows, detector, ...results }, scale) {
  if (!rows.length) return null;
  const judged = ordered(rows).map((row) => ({ ...row, label: row.name, other: detector[row.name] }));
  const legend = Object.keys(detector).length ? make("ul", { class: "legend" }, make("li", {}, "listeners"), make("li", { class: "machine" }, "the detector's score")) : null;
  return card("By clip", plotted("By clip", judged, scale, guides(results)), legend);
}

function raters({ raters: rows, ...results }, scale) {
  if (!rows.length) return null;
  const named = ordered(rows).map((row, index) => ({ ...row, label: `Listener ${index + 1}`, kind: row.excluded ? "left-out" : "humans" }));
  const why = [...new Set(rows.map(({ excluded }) => excluded).filter(Boolean))].map((reason) => make("p", { class: "note" }, `Pale: left out (${reason}).`));
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

function planner({ margin }) {
  const fields = { margin: ["Margin, ± points", 100 * margin, 0.5, 45, 0.5], rate: ["Expected rate, %", 50, 1, 99, 1] };
  const inputs = Object.fromEntries(
    Object.entries(fields).map(([name, [, value, min, max, step]]) => [name, make("input", { type: "number", value, min, max, step, on: { input: update } })]),
  );
  const answer = make("p", { role: "status" });
  async function update() {
    const query = new URLSearchParams(Object.entries(inputs).map(([name, input]) => [name, String(Number(input.value) / 100)]));
    try {
      answer.textContent = (await (await ask(`planner?${query}`)).json()).sentence;
    } catch (error) {
      answer.textContent = error.message;
    }
  }
  update();
  const labels = Object.entries(fields).map(([name, [label]]) => make("label", { class: "field" }, label, inputs[name]));
  const section = card("How many ratings?", make("div", { class: "inputs" }, labels), answer);
  section.id = "planner";
  return section;
}

function methods({ methods: text }) {
  const copy = make("button", { type: "button", on: { click: () => navigator.clipboard.writeText(text).then(() => (copy.textContent = "Copied")) } }, "Copy");
  return card("Methods, for a paper", make("p", { class: "methods" }, text), navigator.clipboard ? copy : null);
}

function exports() {
  const withIds = make("input", { type: "checkbox" });
  const save = (name, path) => make("button", { type: "button", on: { click: () => download(name, path()) } }, name);
  const ids = () => (withIds.checked ? "?ids=1" : "");
  const names = ["answers.csv", "sessions.csv", "clips.csv", "results.json", "study.json", "dictionary.csv"];
  return card(
    "Export",
    make("div", { class: "row" }, save("everything.zip", () => `export${ids()}`), names.map((name) => save(name, () => `export/${name}${ids()}`))),
    make("label", { class: "tick" }, withIds, make("span", {}, "With the platform's participant ids (to pay people, not to publish)")),
  );
}

async function download(name, path) {
  const address = URL.createObjectURL(await (await ask(path)).blob());
  make("a", { href: address, download: `${STUDY}-${name}` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

function manage({ closed }) {
  const change = async () => {
    await ask("close", { method: "POST", body: JSON.stringify({ closed: !closed }) });
    await refresh();
  };
  const says = closed ? "Nobody new can take part. Those under way may finish." : "New participants are taken until the target is reached.";
  return card("This study", make("p", {}, says), make("button", { type: "button", on: { click: change } }, closed ? "Open it again" : "Close it"));
}

addEventListener("hashchange", () => location.reload());
document.addEventListener("visibilitychange", refresh);
setInterval(refresh, EVERY_MS);
refresh();
