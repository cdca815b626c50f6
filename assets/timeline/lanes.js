/* What a timeline shows: a decoded payload (app/timeline_payload.py), the stretch of time in view, and one class a lane.
   A lane draws itself and says what lies under a point; it knows nothing of the page. timeline.js is joined to this
   file (app/ui/timeline.py), so that both are one module and the page's scope stays clean. */

const ABSENT = 65535; // in uint16 arrays: no such value
const MILLI = 1000; // nats and minus log probabilities are sent as thousandths
const GOLDEN_RATIO = 0.6180339887498949;
const MIN_SPAN_S = 0.2; // no closer than ten codec frames
const MIN_ID_WIDTH = 25; // px: from here on an id fits into its cell
const MIN_ID_HEIGHT = 11;
const MIN_STEP_WIDTH = 3; // px: narrower steps of a curve are averaged, or it fills its lane with ink
const DB_PER_NAT = 20 / Math.LN10;
const PITCH_NAMES = ["C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B"];

// The stops of the static figure (audiolm/inspection/figures.py; a test compares them). Mel: matplotlib's magma.
const STOPS = {
  semantic: ["#fdf0d0", "#f0b840", "#e69f00", "#a86400", "#4d2c00"],
  coarse: ["#d9eefa", "#86c6ec", "#56b4e9", "#0072b2", "#002c47"],
  fine: ["#dcf3ea", "#6fcdaa", "#009e73", "#00674b", "#00291e"],
  mel: ["#000004", "#1d1147", "#51127c", "#832681", "#b73779", "#e75263", "#fc8961", "#fec488", "#fcfdbf"],
  doubtOnLight: ["#eceef1", "#f6d9c3", "#f0a36b", "#d55e00", "#6b2400"],
  doubtOnDark: ["#20242c", "#5c2a10", "#b04c00", "#f08a3c", "#ffe3c4"],
};

/* How much a stage doubts a token: `of` reads one token's value, `shade` places it in 0..1 for colouring (1 at `top`),
   `mean` is averaged over levels, and `shown` turns such a mean back into what a reader sees. Ranks are averaged as
   logarithms, or a single far-off token would hide all others. */
const MEASURES = {
  surprisal: {
    unit: "nats",
    top: "8 nats",
    of: (scores, i) => scores.nats[i] / MILLI,
    shade: (nats) => nats / 8,
    mean: (nats) => nats,
    shown: (mean) => mean,
  },
  entropy: {
    unit: "nats",
    top: "7 nats",
    of: (scores, i) => scores.entropy[i] / MILLI,
    shade: (nats) => nats / 7,
    mean: (nats) => nats,
    shown: (mean) => mean,
  },
  rank: {
    unit: "",
    top: "999",
    of: (scores, i) => scores.rank[i],
    shade: (rank) => Math.log10(1 + rank) / 3,
    mean: (rank) => Math.log10(1 + rank),
    shown: (mean) => 10 ** mean - 1,
  },
};

// ---------------------------------------------------------------------------------------------------- small things

/* Base64 of little-endian numbers -> a typed array. */
function decoded(base64, ArrayType) {
  const binary = atob(base64);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return new ArrayType(bytes.buffer);
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

/* The mean of those that are numbers; NaN of none. */
function meanOf(values) {
  let [sum, count] = [0, 0];
  for (const value of values) {
    if (Number.isNaN(value)) continue;
    sum += value;
    count++;
  }
  return count ? sum / count : NaN;
}

function percent(probability) {
  const value = 100 * probability;
  return `${value >= 0.001 || value === 0 ? value.toPrecision(3) : value.toExponential(1)} %`;
}

function seconds(timeS, digits = 2) {
  return `${timeS.toFixed(digits)} s`;
}

function hertz(hz) {
  return hz < 1000 ? `${Math.round(hz)} Hz` : `${(hz / 1000).toPrecision(2)} kHz`;
}

function pitchName(pitch) {
  return `${PITCH_NAMES[pitch % 12]}${Math.floor(pitch / 12) - 1}`;
}

function rgb(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

/* 256 colours between the stops, as a flat array of red, green, blue. */
function ramp(stops) {
  const colours = stops.map(rgb);
  const table = new Uint8ClampedArray(256 * 3);
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (colours.length - 1);
    const below = Math.min(Math.floor(place), colours.length - 2);
    for (let c = 0; c < 3; c++) {
      table[3 * i + c] = colours[below][c] + (place - below) * (colours[below + 1][c] - colours[below][c]);
    }
  }
  return table;
}

const RAMPS = Object.fromEntries(Object.entries(STOPS).map(([name, stops]) => [name, ramp(stops)]));

/* A canvas of width x height pixels; shade(x, y) is 0..1, or NaN where the pixel is to be see-through. Painted once,
   then stretched: panning costs one drawImage a lane, however many tokens there are. */
function painted(width, height, table, shade) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at += 4) {
      const place = shade(x, y);
      if (Number.isNaN(place)) continue;
      const colour = 3 * Math.round(255 * clamp(place, 0, 1));
      image.data[at] = table[colour];
      image.data[at + 1] = table[colour + 1];
      image.data[at + 2] = table[colour + 2];
      image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/* Shade of an id: multiples of the golden ratio, so that neighbouring ids lie far apart. */
function shadeOf(id) {
  return (id * GOLDEN_RATIO) % 1;
}

// ----------------------------------------------------------------------------------------------- the time in view

/* The stretch of time in view, and where it lies on the page: `left` and `width` are CSS pixels. */
class TimeWindow {
  constructor(durationS) {
    this.durationS = durationS;
    this.startS = 0;
    this.spanS = durationS;
    this.left = 0;
    this.width = 1;
  }

  get endS() {
    return this.startS + this.spanS;
  }

  x(timeS) {
    return this.left + ((timeS - this.startS) / this.spanS) * this.width;
  }

  timeAt(x) {
    return clamp(this.startS + ((x - this.left) / this.width) * this.spanS, 0, this.durationS);
  }

  holds(timeS) {
    return timeS >= this.startS && timeS <= this.endS;
  }

  /* Moves the view, as far as the clip goes. True where that changed anything. */
  show(startS, spanS = this.spanS) {
    const span = clamp(spanS, Math.min(MIN_SPAN_S, this.durationS), this.durationS);
    const start = clamp(startS, 0, this.durationS - span);
    const changed = start !== this.startS || span !== this.spanS;
    this.startS = start;
    this.spanS = span;
    return changed;
  }

  /* `factor` > 1 shows more detail; the anchor keeps its place on the screen. */
  zoom(factor, anchorS) {
    const span = clamp(this.spanS / factor, Math.min(MIN_SPAN_S, this.durationS), this.durationS);
    return this.show(anchorS - ((anchorS - this.startS) * span) / this.spanS, span);
  }

  /* Whole steps that are in view: [first, one past the last]. */
  steps(stepS, count, originS = 0) {
    const first = Math.floor((this.startS - originS) / stepS);
    const end = Math.ceil((this.endS - originS) / stepS);
    return [clamp(first, 0, count), clamp(end, 0, count)];
  }
}

// ------------------------------------------------------------------------------------------------------- lanes

/* One band of the timeline, of one or more rows. `stepS` is what an arrow key moves by. */
class Lane {
  constructor(label, height, { numRows = 1, stepS = 0.02 } = {}) {
    this.label = label;
    this.height = height;
    this.numRows = numRows;
    this.stepS = stepS;
    this.top = 0; // set by the page's layout
  }

  get rowHeight() {
    return this.height / this.numRows;
  }

  rowAt(y) {
    return clamp(Math.floor((y - this.top) / this.rowHeight), 0, this.numRows - 1);
  }

  /* The step that holds a time, as [start, end] in seconds. */
  cell(timeS) {
    const index = Math.floor(timeS / this.stepS + 1e-6);
    return [index * this.stepS, (index + 1) * this.stepS];
  }

  /* Marks at the lane's own scale: [[text, y from the lane's top], ...]. */
  ticks() {
    return [];
  }
}

class WaveformLane extends Lane {
  constructor({ step_s: stepS, peaks }) {
    super("waveform", 54);
    this.binS = stepS;
    this.levels = [decoded(peaks, Int8Array)]; // low, high, low, high ...
    this.top8 = Math.max(13, this.levels[0].reduce((loudest, value) => Math.max(loudest, Math.abs(value)), 0));
    while (this.levels.at(-1).length > 512) this.levels.push(WaveformLane.#quarter(this.levels.at(-1)));
  }

  /* Four bins become one: what lies between two pixels is looked up, not walked through. */
  static #quarter(peaks) {
    const quarter = new Int8Array(2 * Math.ceil(peaks.length / 8));
    for (let bin = 0; bin < quarter.length / 2; bin++) {
      let [low, high] = [127, -128];
      for (let at = 8 * bin; at < Math.min(8 * bin + 8, peaks.length); at += 2) {
        low = Math.min(low, peaks[at]);
        high = Math.max(high, peaks[at + 1]);
      }
      quarter[2 * bin] = low;
      quarter[2 * bin + 1] = high;
    }
    return quarter;
  }

  /* Draws into `height` px from `top`; the overview uses it too. */
  trace({ context, window, ratio }, top, height, colour) {
    const pixelS = window.spanS / window.width / ratio;
    const level = clamp(Math.floor(Math.log(pixelS / this.binS) / Math.log(4)), 0, this.levels.length - 1);
    const [peaks, binS] = [this.levels[level], this.binS * 4 ** level];
    const [first, end] = window.steps(binS, peaks.length / 2);
    const [middle, scale] = [top + height / 2, height / 2 / this.top8];
    context.beginPath();
    for (let bin = first; bin < end; bin++) {
      context.lineTo(window.x((bin + 0.5) * binS), middle - scale * Math.max(peaks[2 * bin + 1], 0) - 0.4);
    }
    for (let bin = end - 1; bin >= first; bin--) {
      context.lineTo(window.x((bin + 0.5) * binS), middle - scale * Math.min(peaks[2 * bin], 0) + 0.4);
    }
    context.fillStyle = colour;
    context.fill();
  }

  draw(pen) {
    this.trace(pen, this.top + 2, this.height - 4, pen.theme.wave);
  }

  describe(row, timeS) {
    const [startS, endS] = this.cell(timeS);
    const peaks = this.levels[0].subarray(2 * Math.floor(startS / this.binS), 2 * Math.ceil(endS / this.binS));
    const peak = peaks.reduce((loudest, value) => Math.max(loudest, Math.abs(value)), 0) / 127;
    const level = peak > 0 ? `peak ${(20 * Math.log10(peak)).toFixed(1)} dBFS` : "silent";
    return { name: "waveform", startS, value: level };
  }
}

class MelLane extends Lane {
  constructor({ centres_hz: centres, num_columns: numColumns, step_s: stepS, range_nats: rangeNats, values }) {
    super("mel", 124);
    this.centres = centres;
    this.numColumns = numColumns;
    this.columnS = stepS;
    this.originS = -stepS / 2; // a column is centred on its time
    this.rangeNats = rangeNats;
    this.values = decoded(values, Uint8Array); // [bands, columns], lowest band first
    const top = centres.length - 1;
    this.picture = painted(numColumns, centres.length, RAMPS.mel, (x, y) => this.#at(top - y, x) / 255);
  }

  #at(band, column) {
    return this.values[band * this.numColumns + column];
  }

  draw({ context, window }) {
    const [first, end] = window.steps(this.columnS, this.numColumns, this.originS);
    const [left, right] = [first, end].map((column) => window.x(this.originS + column * this.columnS));
    context.imageSmoothingEnabled = true;
    const [bands, width] = [this.centres.length, end - first];
    context.drawImage(this.picture, first, 0, width, bands, left, this.top, right - left, this.height);
  }

  ticks() {
    return [250, 1000, 4000].map((hz) => {
      const above = this.centres.findIndex((centre) => centre >= hz);
      return [hz < 1000 ? `${hz}` : `${hz / 1000}k`, this.height * (1 - (above + 0.5) / this.centres.length)];
    });
  }

  /* `share` is how far down the lane the pointer is; without one it is the loudest band. */
  describe(row, timeS, share) {
    const column = clamp(Math.round(timeS / this.columnS), 0, this.numColumns - 1);
    let band = share === undefined ? 0 : clamp(Math.floor((1 - share) * this.centres.length), 0, this.centres.length - 1);
    for (let b = 0; share === undefined && b < this.centres.length; b++) {
      if (this.#at(b, column) > this.#at(band, column)) band = b;
    }
    const below = (1 - this.#at(band, column) / 255) * this.rangeNats * DB_PER_NAT;
    const value = `${hertz(this.centres[band])}: ${below.toFixed(0)} dB under the clip's loudest`;
    return { name: share === undefined ? "mel, loudest band" : "mel", startS: this.cell(timeS)[0], value };
  }
}

class RollLane extends Lane {
  constructor({ onset_s: onsets, end_s: ends, pitch, velocity }) {
    super("piano roll, estimated", 104);
    this.notes = onsets.map((onsetS, n) => ({ onsetS, endS: ends[n], pitch: pitch[n], velocity: velocity[n] }));
    const [low, high] = [Math.min(60, ...pitch), Math.max(72, ...pitch)];
    this.low = low - 2;
    this.num = high + 2 - this.low + 1;
  }

  #y(pitch) {
    return this.top + this.height * (1 - (pitch - this.low + 1) / this.num);
  }

  draw({ context, window, theme }) {
    const height = this.height / this.num;
    context.fillStyle = theme.grid;
    for (let c = 12 * Math.ceil(this.low / 12); c < this.low + this.num; c += 12) {
      context.fillRect(window.left, this.#y(c) + height - 0.5, window.width, 1);
    }
    context.fillStyle = theme.roll;
    for (const note of this.notes) {
      if (note.endS < window.startS || note.onsetS > window.endS) continue;
      context.globalAlpha = 0.45 + (0.55 * note.velocity) / 127;
      const [x, thickness] = [window.x(note.onsetS), Math.max(3, height - 0.5)];
      const y = this.#y(note.pitch) + (height - thickness) / 2;
      context.fillRect(x, y, Math.max(2, window.x(note.endS) - x - 0.5), thickness);
    }
    context.globalAlpha = 1;
  }

  ticks() {
    const marks = [];
    for (let c = 12 * Math.ceil(this.low / 12); c < this.low + this.num; c += 12) {
      marks.push([pitchName(c), this.#y(c) - this.top + this.height / this.num / 2]);
    }
    return marks.filter((_, n) => marks.length < 6 || n % 2 === 0);
  }

  describe(row, timeS) {
    const [startS, endS] = this.cell(timeS);
    const sounding = this.notes.filter((note) => note.onsetS < endS && note.endS > startS).map((note) => note.pitch);
    const names = [...new Set(sounding)].sort((a, b) => a - b).map(pitchName);
    return { name: "piano roll, estimated", startS, value: names.length ? names.join(", ") : "no note" };
  }
}

class TokenLane extends Lane {
  constructor(spec) {
    const height = spec.first_level === 0 ? 24 : spec.num_levels * (spec.num_levels > 6 ? 12 : 14);
    super(spec.label, height, { numRows: spec.num_levels, stepS: 1 / spec.rate_hz });
    this.family = spec.family;
    this.firstLevel = spec.first_level;
    this.rateHz = spec.rate_hz;
    this.numFrames = spec.num_frames;
    this.ids = decoded(spec.ids, Uint16Array); // [frames, levels]
    this.scores = spec.scores && {
      nats: decoded(spec.scores.nats, Uint16Array),
      entropy: decoded(spec.scores.entropy, Uint16Array),
      rank: decoded(spec.scores.rank, Uint16Array),
      topIds: decoded(spec.scores.top_ids, Uint16Array), // [frames, levels, alternatives], likeliest first
      topNats: decoded(spec.scores.top_nats, Uint16Array),
      numTop: spec.scores.num_top,
      runNats: spec.scores.run_nats && decoded(spec.scores.run_nats, Uint16Array), // [frames]
    };
    this.colouring = "id";
    this.pictures = new Map();
  }

  /* The value of a measure at [frame, row]; NaN where the stage gave none. */
  measured(measure, frame, row) {
    const at = frame * this.numRows + row;
    return this.scores && this.scores.rank[at] !== ABSENT ? measure.of(this.scores, at) : NaN;
  }

  #shade(frame, row) {
    const id = this.ids[frame * this.numRows + row];
    if (id === ABSENT) return NaN;
    const measure = MEASURES[this.colouring];
    return measure ? measure.shade(this.measured(measure, frame, row)) : shadeOf(id);
  }

  #ramp(theme) {
    return this.colouring === "id" ? RAMPS[this.family] : theme.dark ? RAMPS.doubtOnDark : RAMPS.doubtOnLight;
  }

  #picture(theme) {
    const key = `${this.colouring} ${theme.dark}`;
    if (!this.pictures.has(key)) {
      const shade = (frame, row) => this.#shade(frame, row);
      this.pictures.set(key, painted(this.numFrames, this.numRows, this.#ramp(theme), shade));
    }
    return this.pictures.get(key);
  }

  draw(pen) {
    const { context, window, theme } = pen;
    const [first, end] = window.steps(this.stepS, this.numFrames);
    if (end <= first) return;
    const [left, right] = [window.x(first * this.stepS), window.x(end * this.stepS)];
    const cell = (right - left) / (end - first);
    context.imageSmoothingEnabled = cell * pen.ratio < 1; // several frames a pixel: their mean, not one of them
    const numFrames = end - first;
    context.drawImage(this.#picture(theme), first, 0, numFrames, this.numRows, left, this.top, right - left, this.height);
    context.fillStyle = theme.page;
    for (let row = 1; row < this.numRows; row++) {
      context.fillRect(left, this.top + row * this.rowHeight - 0.5, right - left, 1);
    }
    if (this.rowHeight >= MIN_ID_HEIGHT) this.#drawIds(pen, first, end, cell);
  }

  /* Ids as text, where they fit. A semantic run is labelled once. */
  #drawIds({ context, window, theme, mono }, first, end, cell) {
    const [merge, table] = [this.family === "semantic", this.#ramp(theme)];
    if (!merge && cell < MIN_ID_WIDTH) return;
    context.font = `${Math.min(10.5, this.rowHeight - 2)}px ${mono}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (let row = 0; row < this.numRows; row++) {
      const y = this.top + (row + 0.5) * this.rowHeight + 0.5;
      for (let frame = first, next; frame < end; frame = next) {
        const id = this.ids[frame * this.numRows + row];
        next = frame + 1;
        while (merge && next < end && this.ids[next * this.numRows + row] === id) next++;
        const [left, right] = [Math.max(window.x(frame * this.stepS), window.left), window.x(next * this.stepS)];
        const width = Math.min(right, window.left + window.width) - left;
        if (id === ABSENT || width < MIN_ID_WIDTH) continue;
        const shade = this.#shade(frame, row);
        if (Number.isNaN(shade)) context.fillStyle = theme.ink;
        else {
          const [r, g, b] = table.subarray(3 * Math.round(255 * clamp(shade, 0, 1)));
          context.fillStyle = 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#111418" : "#ffffff";
        }
        context.fillText(String(id), left + width / 2, y);
      }
    }
  }

  ticks() {
    if (this.firstLevel === 0) return [];
    return Array.from({ length: this.numRows }, (_, row) => [`${this.firstLevel + row}`, (row + 0.5) * this.rowHeight]);
  }

  describe(row, timeS) {
    const frame = clamp(Math.floor(timeS / this.stepS + 1e-6), 0, this.numFrames - 1);
    const at = frame * this.numRows + row;
    const [startS, id, level] = [frame / this.rateHz, this.ids[at], this.firstLevel + row];
    const name = level > 0 ? `${this.family}, level ${level}` : this.label;
    if (id === ABSENT) return { name, startS, value: "no token" };
    const selection = { family: this.family, level, id, time_s: startS };
    const said = { name, startS, value: `token ${id}`, selection };
    return Number.isNaN(this.measured(MEASURES.rank, frame, row)) ? said : { ...said, ...this.#doubt(frame, at, id) };
  }

  #doubt(frame, at, id) {
    const { nats, entropy, rank, topIds, topNats, numTop, runNats } = this.scores;
    const alternatives = [];
    for (let n = numTop * at; n < numTop * (at + 1); n++) {
      if (topIds[n] === ABSENT) continue;
      alternatives.push({ id: topIds[n], probability: Math.exp(-topNats[n] / MILLI), taken: topIds[n] === id });
    }
    const probability = percent(Math.exp(-nats[at] / MILLI));
    const place = `rank ${rank[at]}${rank[at] === 0 ? " (likeliest)" : ""}`;
    const inNats = (thousandths) => `${(thousandths / MILLI).toFixed(2)} nats`;
    const doubt = [`surprisal ${inNats(nats[at])}`, `entropy ${inNats(entropy[at])}`];
    if (runNats && runNats[frame] !== ABSENT) doubt.push(`run length ${inNats(runNats[frame])}`);
    return { probability: `probability ${probability} · ${place}`, doubt: doubt.join(" · "), alternatives };
  }
}

/* The chosen measure over time, a line a family: the mean over its levels. Of two semantic lanes it is the first. */
class DoubtLane extends Lane {
  constructor(lanes) {
    super("surprisal", 74);
    const scored = lanes.filter((lane) => lane.scores);
    this.sources = scored.filter(({ family }, n) => scored.findIndex((lane) => lane.family === family) === n);
    this.families = new Set(this.sources.map((lane) => lane.family));
    this.cache = new Map();
    this.measureBy("surprisal");
  }

  measureBy(name) {
    this.label = name;
    this.measure = MEASURES[name];
    if (!this.cache.has(name)) this.cache.set(name, this.sources.map((lane) => this.#series(lane)));
    this.series = this.cache.get(name);
  }

  #series(lane) {
    const means = new Float32Array(lane.numFrames);
    const levels = new Float32Array(lane.numRows);
    for (let frame = 0; frame < lane.numFrames; frame++) {
      for (let row = 0; row < lane.numRows; row++) {
        levels[row] = this.measure.mean(lane.measured(this.measure, frame, row));
      }
      means[frame] = meanOf(levels);
    }
    return means;
  }

  #shown() {
    return this.sources.map((lane, n) => [lane, this.series[n]]).filter(([lane]) => this.families.has(lane.family));
  }

  get #ceiling() {
    const values = this.#shown().flatMap(([, series]) => series.reduce((top, value) => (value > top ? value : top), 0));
    return Math.max(0.5, ...values) * 1.04;
  }

  draw({ context, window, theme }) {
    const [scale, bottom] = [(this.height - 4) / this.#ceiling, this.top + this.height - 2];
    context.fillStyle = theme.grid;
    context.fillRect(window.left, this.top + this.height / 2, window.width, 1);
    context.lineWidth = 1.4;
    context.lineJoin = "round";
    for (const [lane, series] of this.#shown()) {
      const [first, end] = window.steps(lane.stepS, lane.numFrames);
      const bin = Math.max(1, Math.round(MIN_STEP_WIDTH / ((lane.stepS / window.spanS) * window.width)));
      context.strokeStyle = theme[lane.family];
      context.beginPath();
      let pen = "moveTo";
      for (let frame = first - (first % bin); frame < end; frame += bin) {
        const mean = meanOf(series.subarray(frame, frame + bin));
        if (Number.isNaN(mean)) {
          pen = "moveTo";
          continue;
        }
        context[pen](window.x(frame * lane.stepS), bottom - scale * mean);
        context.lineTo(window.x((frame + bin) * lane.stepS), bottom - scale * mean);
        pen = "lineTo";
      }
      context.stroke();
    }
  }

  ticks() {
    const shown = (mean) => Number(this.measure.shown(mean).toPrecision(2)).toString();
    return [
      [shown(this.#ceiling), 7],
      [shown(this.#ceiling / 2), this.height / 2],
      ["0", this.height - 6],
    ];
  }

  describe(row, timeS) {
    const parts = this.#shown().map(([lane, series]) => {
      const mean = series[clamp(Math.floor(timeS / lane.stepS + 1e-6), 0, lane.numFrames - 1)];
      return `${lane.family} ${Number.isNaN(mean) ? "none" : this.measure.shown(mean).toFixed(2)}`;
    });
    const value = parts.length ? `${parts.join(", ")} ${this.measure.unit}`.trim() : "no family chosen";
    return { name: `${this.label}, mean over levels`, startS: this.cell(timeS)[0], value };
  }
}

class DetectorLane extends Lane {
  constructor({ times_s: times, probabilities, threshold }) {
    super("detector", 52, { stepS: times.length > 1 ? times[1] - times[0] : 0.25 });
    this.times = times;
    this.probabilities = probabilities;
    this.threshold = threshold;
  }

  #y(probability) {
    return this.top + 3 + (this.height - 6) * (1 - probability);
  }

  draw({ context, window, theme }) {
    const points = this.times.map((timeS, n) => [window.x(timeS), this.#y(this.probabilities[n])]);
    context.strokeStyle = context.fillStyle = theme.score;
    context.lineWidth = 1.6;
    context.beginPath();
    for (const [x, y] of points) context.lineTo(x, y);
    context.stroke();
    for (const [x, y] of points) {
      if (x > window.left - 3) context.fillRect(x - 1.75, y - 1.75, 3.5, 3.5);
    }
    context.strokeStyle = theme.ink;
    context.lineWidth = 1;
    context.setLineDash([5, 4]);
    context.beginPath();
    context.moveTo(window.left, this.#y(this.threshold));
    context.lineTo(window.left + window.width, this.#y(this.threshold));
    context.stroke();
    context.setLineDash([]);
  }

  /* The segment nearest to a time, as the stretch around its centre. */
  cell(timeS) {
    const n = this.#nearest(timeS);
    return [this.times[n] - this.stepS / 2, this.times[n] + this.stepS / 2];
  }

  #nearest(timeS) {
    return clamp(Math.round((timeS - this.times[0]) / this.stepS), 0, this.times.length - 1);
  }

  ticks() {
    const marks = [["1", this.#y(1) - this.top + 3], ["0", this.#y(0) - this.top - 3]];
    if (this.threshold > 0.25 && this.threshold < 0.75) {
      marks.push([this.threshold.toFixed(2), this.#y(this.threshold) - this.top]);
    }
    return marks;
  }

  describe(row, timeS) {
    const n = this.#nearest(timeS);
    const value = `${percent(this.probabilities[n])} generated, threshold ${percent(this.threshold)}`;
    return { name: "detector", startS: this.times[n], value };
  }
}

/* The lanes of a payload, from top to bottom. */
function lanesOf(payload) {
  const tokens = payload.lanes.filter((lane) => lane.num_frames > 0).map((lane) => new TokenLane(lane));
  const lanes = [new WaveformLane(payload.waveform), new MelLane(payload.mel)];
  if (payload.roll) lanes.push(new RollLane(payload.roll));
  lanes.push(...tokens);
  if (tokens.some((lane) => lane.scores)) lanes.push(new DoubtLane(tokens));
  if (payload.detector) lanes.push(new DetectorLane(payload.detector));
  return lanes;
}
