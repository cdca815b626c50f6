/** Plots of estimates with their intervals, as SVG drawn anew for every width; the colours are the style sheet's. */

const SVG = "http://www.w3.org/2000/svg";
const ROW = 30;
const STACKED_ROW = 46; // narrow: the label stands above its line
const AXIS = 34;
const LETTER = 7.4;

function draw(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

/**
 * Rows of `{label, value, low, high, kind, other}`: a dot with a whisker each, and where given a diamond at `other`.
 * `from` and `to` are the axis's ends, `show(value)` and, shorter, `tick(value)` its words; `marks` are dashed lines
 * `{at, label}`, `band` a shaded stretch `{low, high}`; `title` is what a screen reader says of the whole.
 */
export function intervalPlot(container, plot) {
  const paint = () => container.replaceChildren(picture(plot, Math.max(container.clientWidth, 240)));
  new ResizeObserver(paint).observe(container);
}

function picture({ rows, from, to, show, tick, marks = [], band = null, title }, width) {
  const wanted = Math.max(...rows.map(({ label }) => label.length), 4) * LETTER + 16;
  const stacked = wanted > width * 0.38;
  const [left, step] = stacked ? [10, STACKED_ROW] : [wanted, ROW];
  const top = marks.length ? 24 : 8;
  const bottom = top + rows.length * step;
  const x = (value) => left + ((Math.min(Math.max(value, from), to) - from) / (to - from)) * (width - left - 22);
  const svg = draw("svg", { class: "plot", width, height: bottom + AXIS, role: "img", "aria-label": title });
  if (band)
    svg.append(
      draw("rect", { class: "band", x: x(band.low), y: top, width: x(band.high) - x(band.low), height: bottom - top }),
    );
  for (const value of ticks(from, to, width < 420 ? 4 : 6)) {
    svg.append(draw("line", { class: "grid", x1: x(value), x2: x(value), y1: top, y2: bottom }));
    svg.append(draw("text", { class: "tick", x: x(value), y: bottom + 18, "text-anchor": "middle" }, tick(value)));
  }
  for (const { at, label } of marks) {
    svg.append(draw("line", { class: "mark", x1: x(at), x2: x(at), y1: top - 4, y2: bottom }));
    const anchor = x(at) > width - 80 ? "end" : "middle";
    svg.append(draw("text", { class: "tick", x: x(at), y: top - 9, "text-anchor": anchor }, label));
  }
  rows.forEach((row, index) => {
    const y = top + (index + (stacked ? 0.75 : 0.5)) * step;
    const label = stacked
      ? { x: 0, y: y - 15, "text-anchor": "start" }
      : { x: left - 10, y: y + 4, "text-anchor": "end" };
    svg.append(line(row, y, x, label, show));
  });
  return svg;
}

function line(row, y, x, label, show) {
  const group = draw("g", { class: row.kind ?? "humans" });
  group.append(draw("text", { class: "label", ...label }, row.label));
  if (row.low !== undefined && row.low !== null) {
    group.append(draw("line", { class: "whisker", x1: x(row.low), x2: x(row.high), y1: y, y2: y }));
    for (const end of [row.low, row.high])
      group.append(draw("line", { class: "whisker", x1: x(end), x2: x(end), y1: y - 5, y2: y + 5 }));
  }
  if (row.value !== null) group.append(draw("circle", { class: "dot", cx: x(row.value), cy: y, r: 5.5 }));
  if (row.other !== undefined && row.other !== null) {
    group.append(draw("path", { class: "diamond", d: `M${x(row.other)} ${y - 7}l7 7l-7 7l-7-7z` }));
  }
  const interval = row.low === undefined || row.low === null ? "" : ` (${show(row.low)} to ${show(row.high)})`;
  group.append(draw("title", {}, `${row.label}: ${row.value === null ? "none yet" : show(row.value)}${interval}`));
  return group;
}

function ticks(from, to, most) {
  const rough = (to - from) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let value = Math.ceil(from / step) * step; value <= to + 1e-9; value += step) found.push(value);
  return found;
}
