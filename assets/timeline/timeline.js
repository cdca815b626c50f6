/* The element <audiolm-timeline>: a clip's lanes (lanes.js) over one time axis, under one playhead.

   A custom element, because the browser then says when it enters and leaves the page: Gradio builds and drops parts of
   the page without a word, and a player that nobody sees would go on playing. Lanes are painted on a canvas; whatever
   moves on its own (playhead, cursor, tooltip) is an element of its own, so that playing repaints nothing. Text that
   comes from outside is only ever set as text. `state` is what tests read. */

const GAP = 7; // px between lanes
const RULER = 42; // px
const RIGHT = 12;
const NARROW = 560; // px: below, the gutter shrinks
const GUTTER = { wide: 112, narrow: 82 };
const CLICK_SLACK = 5; // px that a pointer may stray and still click
const TICK_STEPS_S = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60];
const TICK_EVERY = 76; // px between labels, at least
const SAY_AFTER_MS = 250; // a pointer has to rest before the live region speaks
const ZOOM_STEP = 1.6;
const ICONS = {
  play: "M7 4.5v15l12-7.5z",
  pause: "M6.5 4.5h4v15h-4zM13.5 4.5h4v15h-4z",
  rest: "M4 4.5h2.5v15H4zM9 4.5v15l11-7.5z",
  zoomIn: "M11 5h2v6h6v2h-6v6h-2v-6H5v-2h6z",
  zoomOut: "M5 11h14v2H5z",
  fit: "M3 5h2v14H3zM19 5h2v14h-2zM6 12l4-4v3h4V8l4 4-4 4v-3h-4v3z",
};
const KEYS = [
  ["Space", "play, pause"],
  ["Enter", "play from the cursor, and choose the token under it"],
  ["C", "play the continuation only"],
  ["← →", "cursor to the frame before or after; with Shift, ten frames"],
  ["↑ ↓", "cursor to the row above or below"],
  ["Home End", "cursor to the start or the end"],
  ["P", "cursor to the end of the prompt"],
  ["+ −", "zoom in, zoom out"],
  ["0", "the whole clip"],
  ["Page Up, Page Down", "one screen back or on"],
  ["Esc", "put the cursor away"],
  ["?", "this list"],
];
const GESTURES = [
  ["click, tap", "play from there, and choose the token"],
  ["drag", "move along, where zoomed in"],
  ["Ctrl + wheel, pinch", "zoom at the pointer"],
  ["Shift + wheel", "move along"],
];

/* An element with attributes and children; strings become text. Functions among the attributes are ignored: listeners
   are added with the signal that ends them. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function icon(name) {
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(namespace, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

function button(name, label, text = "") {
  return make("button", { type: "button", title: label, "aria-label": text || label }, icon(name), text);
}

/* A canvas as sharp as the screen; returns its context with one unit a CSS pixel. */
function sharp(canvas, width, height) {
  const ratio = globalThis.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) {
    [canvas.width, canvas.height] = [w, h];
    [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, ratio };
}

// ------------------------------------------------------------------------------------------------------- sound

/* The audio element, and the one animation loop: it runs while sound plays and at no other time. */
class Player {
  #frame = 0;

  constructor(audio, onTick, onState, onError) {
    this.audio = audio;
    this.onTick = onTick;
    this.onState = onState;
    this.onError = onError;
  }

  listen(signal) {
    const loop = () => {
      this.onTick();
      this.#frame = this.playing ? requestAnimationFrame(loop) : 0;
    };
    const start = () => {
      cancelAnimationFrame(this.#frame);
      this.#frame = requestAnimationFrame(loop);
      this.onState();
    };
    const on = (name, action) => this.audio.addEventListener(name, action, { signal });
    on("play", start);
    for (const name of ["pause", "ended", "loadedmetadata"]) on(name, this.onState);
    for (const name of ["seeking", "seeked", "timeupdate"]) on(name, this.onTick);
    on("error", () => this.audio.hasAttribute("src") && this.onError());
    // Only one player at a time: media events do not bubble, but they can be caught on their way down.
    const hush = ({ target }) => target instanceof HTMLMediaElement && target !== this.audio && this.audio.pause();
    document.addEventListener("play", hush, { capture: true, signal });
  }

  get playing() {
    return !this.audio.paused && !this.audio.ended;
  }

  get timeS() {
    return this.audio.currentTime;
  }

  load(url) {
    this.stop();
    this.audio.src = url;
  }

  /* Silence, and no download in the background either. */
  stop() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.audio.pause();
    if (!this.audio.hasAttribute("src")) return;
    this.audio.removeAttribute("src");
    this.audio.load();
  }

  playFrom(timeS) {
    this.audio.currentTime = timeS;
    this.#play();
  }

  toggle() {
    if (this.playing) this.audio.pause();
    else this.#play();
  }

  #play() {
    // Refused where a pause or another source comes in between; a broken file comes as an error event.
    this.audio.play().catch(() => {});
  }
}

// ------------------------------------------------------------------------------------------------------ picture

/* Lays the lanes out and paints them: lane by lane, then the ruler, then the line where the prompt ends. */
class Picture {
  constructor(canvas) {
    this.canvas = canvas;
    this.drawMs = 0;
  }

  /* Places lanes for a width; returns the height of it all. */
  layout(scene, width) {
    const gutter = width < NARROW ? GUTTER.narrow : GUTTER.wide;
    scene.window.left = gutter;
    scene.window.width = Math.max(40, width - gutter - RIGHT);
    this.narrow = width < NARROW;
    this.width = width;
    let top = RULER;
    for (const lane of scene.lanes) {
      lane.top = top;
      top += lane.height + GAP;
    }
    this.height = top;
    return top;
  }

  draw(scene, theme) {
    const began = performance.now();
    const { context, ratio } = sharp(this.canvas, this.width, this.height);
    const pen = { context, ratio, window: scene.window, theme, mono: theme.mono };
    const ticks = this.#ticks(scene.window);
    for (const lane of scene.lanes) {
      context.fillStyle = theme.lane;
      context.fillRect(scene.window.left, lane.top, scene.window.width, lane.height);
      context.fillStyle = theme.grid;
      for (const [x] of ticks) context.fillRect(x - 0.5, lane.top, 1, lane.height);
      this.#inside(pen, lane.top, lane.height, () => lane.draw(pen));
      this.#gutter(pen, lane);
    }
    this.#ruler(pen, ticks);
    if (scene.generated) this.#made(pen, scene);
    if (scene.promptS > 0 && scene.window.holds(scene.promptS)) this.#promptLine(pen, scene);
    this.drawMs = performance.now() - began;
  }

  #inside({ context, window }, top, height, paint) {
    context.save();
    context.beginPath();
    context.rect(window.left, top, window.width, height);
    context.clip();
    paint();
    context.restore();
  }

  /* The lane's name, in as many lines as fit, and its marks beside the plot. */
  #gutter({ context, window, theme }, lane) {
    context.textBaseline = "middle";
    context.textAlign = "right";
    context.font = `9.5px ${theme.sans}`;
    context.fillStyle = theme.subdued;
    const ticks = lane.ticks();
    for (const [text, y] of ticks) context.fillText(text, window.left - 5, lane.top + y + 0.5);
    const room = window.left - (ticks.length ? 32 : 8);
    context.textAlign = "left";
    context.font = `${this.narrow ? 10 : 11.5}px ${theme.sans}`;
    context.fillStyle = theme.ink;
    const lines = this.#wrapped(context, lane.label, room).slice(0, Math.max(1, Math.floor(lane.height / 12)));
    const step = this.narrow ? 11 : 12.5;
    lines.forEach((line, n) => {
      context.fillText(line, 0, lane.top + lane.height / 2 + (n - (lines.length - 1) / 2) * step + 0.5, room);
    });
  }

  #wrapped(context, text, room) {
    const lines = [];
    for (const word of text.split(" ")) {
      const longer = lines.length ? `${lines.at(-1)} ${word}` : word;
      if (lines.length && context.measureText(longer).width <= room) lines[lines.length - 1] = longer;
      else lines.push(word);
    }
    return lines;
  }

  /* The round times in view: [[x, text], ...]. */
  #ticks(window) {
    const step = TICK_STEPS_S.find((s) => (s / window.spanS) * window.width >= TICK_EVERY) ?? TICK_STEPS_S.at(-1);
    const digits = step >= 1 ? 0 : step >= 0.1 ? 1 : 2;
    const ticks = [];
    for (let n = Math.ceil(window.startS / step - 1e-6); n * step <= window.endS + 1e-6; n++) {
      ticks.push([window.x(n * step), (n * step).toFixed(digits)]);
    }
    return ticks;
  }

  #ruler({ context, theme }, ticks) {
    context.font = `10.5px ${theme.sans}`;
    context.fillStyle = theme.subdued;
    context.textBaseline = "alphabetic";
    context.textAlign = "left";
    context.fillText("seconds", 0, RULER - 10);
    context.textAlign = "center";
    for (const [x, text] of ticks) {
      context.fillText(text, x, RULER - 10);
      context.fillRect(x - 0.5, RULER - 6, 1, 6);
    }
  }

  /* What is prompt and what is generated, said above the ticks however far one has zoomed in. */
  #made({ context, window, theme }, scene) {
    const border = clamp(window.x(scene.promptS), window.left, window.left + window.width);
    const end = window.left + window.width;
    context.fillStyle = theme.prompt;
    context.fillRect(window.left, 15, border - window.left, 3);
    context.fillStyle = theme.generated;
    context.fillRect(border, 15, end - border, 3);
    context.font = `600 10px ${theme.sans}`;
    context.textAlign = "left";
    if (end - border > 70) context.fillText("GENERATED", border + 3, 11);
    context.fillStyle = theme.subdued;
    context.textAlign = "right";
    if (border - window.left > 50) context.fillText("PROMPT", border - 6, 11);
  }

  #promptLine({ context, window, theme }, scene) {
    const x = window.x(scene.promptS);
    context.fillStyle = theme.page; // a halo, so that the line stands out on dark and light cells alike
    context.globalAlpha = 0.4;
    context.fillRect(x - 2, RULER, 4, this.height - RULER - GAP);
    context.globalAlpha = 1;
    context.fillStyle = theme.prompt;
    context.fillRect(x - 1, 12, 2, this.height - 12 - GAP);
    if (!scene.seam) return;
    context.fillStyle = scene.seam.seamless ? theme.fine : theme.semantic;
    context.beginPath(); // a wedge where the join is good, a diamond where it stands out
    context.moveTo(x - 5, RULER - 7);
    if (!scene.seam.seamless) context.lineTo(x, RULER - 13);
    context.lineTo(x + 5, RULER - 7);
    context.lineTo(x, RULER);
    context.fill();
  }
}

// ----------------------------------------------------------------------------------------------------- gestures

/* Pointers and wheel on the stage. Plain wheel and vertical swipes are left to the page, so that it still scrolls. */
class Gestures {
  #pointers = new Map();
  #drag = null;

  constructor(stage, target) {
    this.stage = stage;
    this.target = target; // the timeline: window, moved(), hover(), leave(), click()
  }

  listen(signal) {
    const on = (name, action, passive = true) => this.stage.addEventListener(name, action, { signal, passive });
    on("pointerdown", (event) => this.#down(event));
    on("pointermove", (event) => this.#move(event));
    on("pointerup", (event) => this.#up(event, true));
    on("pointercancel", (event) => this.#up(event, false));
    // A finger leaves whenever it is lifted: what it tapped stays in view.
    on("pointerleave", (event) => event.pointerType !== "touch" && this.#pointers.size === 0 && this.target.leave());
    on("wheel", (event) => this.#wheel(event), false);
  }

  #at(event) {
    const box = this.stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  #down(event) {
    const point = this.#at(event);
    if (event.button !== 0 || !this.target.window || point.x < this.target.window.left) return;
    this.#pointers.set(event.pointerId, point);
    this.stage.setPointerCapture(event.pointerId);
    this.#hold(this.#pointers.size > 1);
  }

  /* Takes the present view as the one that fingers pull at. */
  #hold(strayed) {
    const { startS, spanS } = this.target.window;
    const points = [...this.#pointers.values()];
    const middle = points.reduce((sum, { x }) => sum + x, 0) / points.length;
    const spread = points.length > 1 ? Math.max(10, Math.abs(points[0].x - points[1].x)) : 0;
    this.#drag = { startS, spanS, middle, spread, strayed, from: points[0], anchorS: this.target.window.timeAt(middle) };
  }

  #move(event) {
    const point = this.#at(event);
    if (!this.#pointers.has(event.pointerId)) return this.target.hover(point);
    this.#pointers.set(event.pointerId, point);
    const [drag, window] = [this.#drag, this.target.window];
    const points = [...this.#pointers.values()];
    drag.strayed ||= Math.hypot(point.x - drag.from.x, point.y - drag.from.y) > CLICK_SLACK;
    if (!drag.strayed || !window) return undefined; // no window: the value went away under the finger
    this.target.leave();
    const middle = points.reduce((sum, { x }) => sum + x, 0) / points.length;
    const spread = points.length > 1 ? Math.max(10, Math.abs(points[0].x - points[1].x)) : drag.spread;
    const spanS = drag.spread ? (drag.spanS * drag.spread) / spread : drag.spanS;
    if (window.show(drag.anchorS - ((middle - window.left) / window.width) * spanS, spanS)) this.target.moved();
    return undefined;
  }

  #up(event, meant) {
    if (!this.#pointers.delete(event.pointerId)) return;
    if (this.#pointers.size) this.#hold(true);
    else if (meant && !this.#drag.strayed) this.target.click(this.#at(event));
  }

  #wheel(event) {
    const window = this.target.window;
    const unit = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    const along = event.shiftKey ? event.deltaX || event.deltaY : event.deltaX;
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault(); // else the browser zooms the page; a trackpad's pinch comes this way too
      const factor = Math.exp(-clamp(event.deltaY * unit, -60, 60) * 0.008);
      if (window.zoom(factor, window.timeAt(this.#at(event).x))) this.target.moved();
    } else if (Math.abs(along) > (event.shiftKey ? 0 : Math.abs(event.deltaY)) && window.spanS < window.durationS) {
      event.preventDefault(); // else a swipe leaves the page
      if (window.show(window.startS + (along * unit * window.spanS) / window.width)) this.target.moved();
    }
  }
}

/* The whole clip in small under the lanes, with the part in view framed; drag the frame to move. */
class Overview {
  constructor() {
    this.canvas = make("canvas");
    this.frame = make("div", { class: "at-frame" });
    this.element = make("div", { class: "at-overview", "aria-hidden": "true" }, this.canvas, this.frame);
  }

  listen(signal, onMove) {
    const move = (event) => {
      const box = this.element.getBoundingClientRect();
      onMove(clamp((event.clientX - box.left) / box.width, 0, 1));
    };
    const on = (name, action) => this.element.addEventListener(name, action, { signal });
    on("pointerdown", (event) => {
      this.element.setPointerCapture(event.pointerId);
      move(event);
    });
    on("pointermove", (event) => this.element.hasPointerCapture(event.pointerId) && move(event));
  }

  draw(scene, theme) {
    this.element.style.margin = `0 ${RIGHT}px 0 ${scene.window.left}px`;
    const window = new TimeWindow(scene.durationS);
    window.width = scene.window.width;
    const { context, ratio } = sharp(this.canvas, window.width, 24);
    context.fillStyle = theme.lane;
    context.fillRect(0, 0, window.width, 24);
    scene.lanes[0].trace({ context, window, ratio }, 2, 20, theme.wave);
    if (scene.promptS > 0) {
      context.fillStyle = theme.prompt;
      context.fillRect(window.x(scene.promptS) - 1, 0, 2, 24);
    }
  }

  show({ startS, spanS, durationS }) {
    this.frame.style.left = `${(100 * startS) / durationS}%`;
    this.frame.style.width = `${(100 * spanS) / durationS}%`;
  }
}

/* What stands under the pointer or the cursor: a box with text, beside its cell. */
class Tooltip {
  constructor() {
    this.element = make("div", { class: "at-tooltip", "aria-hidden": "true" });
    this.element.hidden = true;
  }

  hide() {
    this.element.hidden = true;
  }

  show(said, x, y, stage) {
    const parts = [make("div", { class: "at-name" }, `${said.name} · ${seconds(said.startS)}`)];
    parts.push(make("div", { class: "at-value" }, said.value));
    for (const text of [said.probability, said.doubt]) if (text) parts.push(make("div", {}, text));
    if (said.alternatives) parts.push(Tooltip.#alternatives(said.alternatives));
    this.element.replaceChildren(...parts);
    this.element.hidden = false;
    const { offsetWidth: width, offsetHeight: height } = this.element;
    const left = x + 16 + width > stage.clientWidth ? x - 16 - width : x + 16;
    this.element.style.left = `${clamp(left, 2, Math.max(2, stage.clientWidth - width - 2))}px`;
    this.element.style.top = `${clamp(y + 14, 2, Math.max(2, stage.clientHeight - height - 2))}px`;
  }

  static #alternatives(alternatives) {
    const list = make("ol", { class: "at-alternatives" });
    for (const { id, probability, taken } of alternatives) {
      const bar = make("i");
      bar.style.width = `${100 * probability}%`;
      const line = make("li", taken ? { class: "at-taken" } : {}, make("b", {}, String(id)), make("span", {}, bar));
      line.append(percent(probability));
      list.append(line);
    }
    return list;
  }

  /* The same as one sentence, for the live region. */
  static sentence(said) {
    const alternatives = said.alternatives?.map(({ id, probability }) => `${id} at ${percent(probability)}`);
    const likeliest = alternatives?.length ? `likeliest: ${alternatives.join(", ")}` : "";
    const parts = [`${said.name}, ${seconds(said.startS)}`, said.value, said.probability, said.doubt, likeliest];
    return `${parts.filter(Boolean).join("; ").replaceAll(" · ", ", ")}.`;
  }
}

// ------------------------------------------------------------------------------------------------------ element

class AudioTimeline extends HTMLElement {
  #value = null; // what show() was last given
  #scene = null; // its lanes, window, prompt
  #theme = null;
  #target = null; // what pointer or cursor stands on: { row, timeS, share, byKeys, x, y }
  #leaving = null; // AbortController: takes every listener away at once
  #drawFrame = 0;
  #sayTimer = 0;
  #followed = true; // the playhead was in view, and is kept there

  connectedCallback() {
    if (!this.stage) this.#build();
    this.#attach();
    this.show(this.#value);
  }

  /* Moved or dropped: nothing may go on, and if the element comes back, connectedCallback starts over. */
  disconnectedCallback() {
    this.#leaving?.abort();
    this.resizes?.disconnect();
    this.themes?.disconnect();
    this.#clear();
  }

  /* The value of the component, as Gradio sends it: { timeline, audio }, or nothing. */
  show(value) {
    this.#value = value || null;
    this.#clear();
    this.hidden = !this.#value;
    if (this.hidden || !this.isConnected) return;
    try {
      this.#scene = this.#open(this.#value.timeline);
    } catch (error) {
      this.#fail("This timeline could not be read.");
      console.error(error);
      return;
    }
    this.#fill();
    const { audio } = this.#value; // a file of Gradio's, or an address
    if (audio) this.player.load(audio.url ?? audio);
    this.#resize();
    this.dataset.ready = "true";
  }

  /* For tests and the curious; changing it changes nothing. */
  get state() {
    const [scene, window] = [this.#scene, this.#scene?.window];
    if (!scene) return Object.freeze({ ready: false });
    return Object.freeze({
      ready: this.dataset.ready === "true",
      durationS: scene.durationS,
      promptS: scene.promptS,
      startS: window.startS,
      endS: window.endS,
      plotLeft: window.left,
      plotWidth: window.width,
      playing: this.player.playing,
      playheadS: this.player.timeS,
      playheadX: this.playhead.offsetLeft + new DOMMatrix(getComputedStyle(this.playhead).transform).m41,
      rows: scene.rows.map(({ lane, row }) => {
        const level = lane instanceof TokenLane ? lane.firstLevel + row : null;
        return { label: lane.label, level, top: lane.top + row * lane.rowHeight, height: lane.rowHeight };
      }),
      cursor: this.#target && { row: this.#target.row, timeS: this.#target.timeS },
      drawMs: this.picture.drawMs,
    });
  }

  // -- building

  #build() {
    const canvas = make("canvas", { "aria-hidden": "true" });
    this.picture = new Picture(canvas);
    this.overview = new Overview();
    this.tooltip = new Tooltip();
    this.playhead = make("div", { class: "at-playhead" });
    this.box = make("div", { class: "at-cell" });
    this.live = make("p", { class: "at-live", role: "status", "aria-live": "polite" });
    this.trouble = make("p", { class: "at-trouble", role: "alert" });
    this.stage = make(
      "div",
      { class: "at-stage", tabindex: "0", role: "application", "aria-roledescription": "timeline" },
      canvas,
      this.playhead,
      this.box,
      this.tooltip.element,
    );
    this.audio = make("audio", { preload: "metadata" });
    this.help = this.#makeHelp();
    this.notes = make("div", { class: "at-notes" });
    const parts = [this.#makeBar(), this.stage, this.overview.element, this.notes, this.help, this.live];
    this.replaceChildren(this.trouble, ...parts, this.audio);
    this.player = new Player(
      this.audio,
      () => this.#tick(),
      () => this.#showState(),
      () => this.#fail("The audio could not be loaded."),
    );
  }

  #makeBar() {
    this.playButton = button("play", "Play");
    this.playButton.className = "at-play";
    this.restButton = button("rest", "Play the continuation only", "Continuation only");
    this.clock = make("span", { class: "at-clock" });
    this.zoomButtons = [button("zoomOut", "Zoom out"), button("zoomIn", "Zoom in"), button("fit", "Whole clip")];
    this.measure = make("select", { "aria-label": "Show the stages' doubt as" });
    for (const name of Object.keys(MEASURES)) this.measure.append(make("option", { value: name }, name));
    this.chips = make("span", { class: "at-chips", role: "group", "aria-label": "Families in the doubt lane" });
    this.colouring = make("input", { type: "checkbox" });
    this.colouredBy = make("span");
    const colouring = make("label", {}, this.colouring, "colour tokens by ", this.colouredBy);
    this.scale = make("span", { class: "at-scale" }, "0", make("i"), make("span"));
    this.doubt = make("span", { class: "at-doubt" }, this.measure, this.chips, colouring, this.scale);
    const zoom = make("span", { class: "at-zoom" }, ...this.zoomButtons);
    return make("div", { class: "at-bar" }, this.playButton, this.restButton, this.clock, zoom, this.doubt);
  }

  #makeHelp() {
    const list = make("dl");
    for (const [keys, what] of [...KEYS, ...GESTURES]) {
      list.append(make("div", {}, make("dt", {}, keys), make("dd", {}, what)));
    }
    return make("details", { class: "at-help" }, make("summary", {}, "Keys and gestures"), list);
  }

  #attach() {
    this.#leaving = new AbortController();
    const { signal } = this.#leaving;
    const on = (element, name, action) => element.addEventListener(name, action, { signal });
    this.player.listen(signal);
    new Gestures(this.stage, this).listen(signal);
    this.overview.listen(signal, (share) => {
      const { spanS, durationS } = this.window;
      if (this.window.show(share * durationS - spanS / 2)) this.moved();
    });
    on(this.stage, "keydown", (event) => this.#key(event));
    on(this.stage, "focus", () => this.stage.matches(":focus-visible") && !this.#target && this.#putCursor());
    on(this.stage, "blur", () => this.#aim(null));
    on(this.playButton, "click", () => this.player.toggle());
    on(this.restButton, "click", () => this.#playRest());
    const zooms = [() => this.#zoom(1 / ZOOM_STEP), () => this.#zoom(ZOOM_STEP), () => this.#fit()];
    this.zoomButtons.forEach((each, n) => on(each, "click", zooms[n]));
    on(this.measure, "change", () => this.#setDoubt());
    on(this.colouring, "change", () => this.#setDoubt());
    on(this.chips, "click", (event) => this.#toggleFamily(event.target.closest("button")));
    this.resizes = new ResizeObserver(() => this.#resize());
    this.resizes.observe(this.stage);
    this.themes = new MutationObserver(() => this.#retheme());
    for (const each of [document.documentElement, document.body]) {
      this.themes.observe(each, { attributes: true, attributeFilter: ["class"] });
    }
  }

  #clear() {
    cancelAnimationFrame(this.#drawFrame);
    clearTimeout(this.#sayTimer);
    this.#drawFrame = 0;
    this.player?.stop();
    this.#aim(null);
    this.#scene = null;
    delete this.dataset.ready;
    if (this.trouble) this.trouble.textContent = this.live.textContent = "";
  }

  #open(payload) {
    const lanes = lanesOf(payload);
    return {
      lanes,
      rows: lanes.flatMap((lane) => Array.from({ length: lane.numRows }, (_, row) => ({ lane, row }))),
      window: new TimeWindow(payload.duration_s),
      durationS: payload.duration_s,
      promptS: payload.prompt_s,
      generated: payload.generated,
      seam: payload.seam,
      notes: payload.notes,
      doubt: lanes.find((lane) => lane instanceof DoubtLane),
    };
  }

  /* Everything about the page that depends on the clip. */
  #fill() {
    const { doubt, durationS, promptS, generated, notes } = this.#scene;
    this.restButton.hidden = !(generated && promptS > 0);
    this.doubt.hidden = !doubt;
    const families = [...new Set(doubt?.sources.map((lane) => lane.family))];
    this.chips.replaceChildren(
      ...families.map((name) => make("button", { type: "button", class: `at-${name}`, "aria-pressed": "true" }, name)),
    );
    if (doubt) this.#setDoubt();
    this.notes.replaceChildren(...notes.map((text) => make("p", {}, text)));
    const made = !generated ? "a recording" : promptS > 0 ? `generated after ${seconds(promptS, 1)}` : "generated";
    const name = this.getAttribute("aria-label") || "Timeline";
    this.stage.setAttribute("aria-label", `${name}: ${seconds(durationS, 1)}, ${made}. Press ? for the keys.`);
    this.#followed = true;
    this.#retheme();
    this.#showState();
  }

  // -- drawing

  #retheme() {
    const style = getComputedStyle(this);
    const read = (name) => style.getPropertyValue(`--at-${name}`).trim();
    const names = ["ink", "subdued", "page", "lane", "grid", "wave", "roll", "score", "prompt", "generated"];
    this.#theme = Object.fromEntries([...names, "semantic", "coarse", "fine"].map((name) => [name, read(name)]));
    this.#theme.dark = this.closest(".dark") !== null;
    const stops = this.#theme.dark ? STOPS.doubtOnDark : STOPS.doubtOnLight;
    this.scale.children[0].style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
    this.#theme.sans = style.fontFamily;
    this.#theme.mono = read("mono");
    this.#redraw(true);
  }

  #resize() {
    const width = this.stage.clientWidth;
    if (!this.#scene || width === 0) return; // in a tab that is not open
    this.stage.style.height = `${this.picture.layout(this.#scene, width)}px`;
    this.toggleAttribute("data-narrow", this.picture.narrow);
    this.#redraw(true);
  }

  /* Once a frame, whatever happened since the last one. */
  #redraw(everything = false) {
    this.stale ||= everything;
    if (!this.#scene || this.#drawFrame) return;
    this.#drawFrame = requestAnimationFrame(() => {
      this.#drawFrame = 0;
      if (!this.picture.width) return;
      this.picture.draw(this.#scene, this.#theme);
      if (this.stale) this.overview.draw(this.#scene, this.#theme);
      this.stale = false;
      this.overview.show(this.window);
      this.#placePlayhead();
      // The view has moved on under a pointer that rests.
      if (this.#target && !this.#target.byKeys) this.#target = this.#under(this.#target);
      this.#placeTarget();
    });
  }

  #placePlayhead() {
    const { window } = this.#scene;
    const timeS = Math.min(this.player.timeS, window.durationS);
    this.playhead.hidden = !window.holds(timeS);
    this.playhead.style.transform = `translateX(${window.x(timeS).toFixed(2)}px)`;
  }

  #tick() {
    if (!this.#scene) return;
    const { window } = this.#scene;
    const timeS = this.player.timeS;
    // Pages on with the sound, unless the reader has gone elsewhere.
    if (this.player.playing && this.#followed && timeS > window.endS - 0.02 * window.spanS) {
      if (window.show(timeS - 0.06 * window.spanS)) this.#redraw();
    }
    this.#followed = window.holds(timeS);
    this.#placePlayhead();
    this.clock.textContent = `${timeS.toFixed(2)} / ${seconds(window.durationS)}`;
  }

  #showState() {
    const playing = this.player.playing;
    this.dataset.playing = String(playing);
    const label = playing ? "Pause" : "Play";
    if (this.playButton.title !== label || !this.playButton.dataset.set) {
      this.playButton.dataset.set = "true";
      this.playButton.title = label;
      this.playButton.setAttribute("aria-label", label);
      this.playButton.replaceChildren(icon(playing ? "pause" : "play"));
    }
    this.#tick();
  }

  #fail(text) {
    this.trouble.textContent = text;
  }

  // -- what the reader does: called by buttons, keys and Gestures

  get window() {
    return this.#scene?.window;
  }

  moved() {
    this.#followed = this.window.holds(this.player.timeS);
    this.#redraw();
  }

  hover(point) {
    this.#aim(this.#under(point));
  }

  leave() {
    if (!this.#target?.byKeys) this.#aim(null);
  }

  click(point) {
    if (!this.#scene) return;
    this.#aim(this.#under(point));
    this.#choose(this.window.timeAt(point.x));
  }

  #playRest() {
    this.#playFrom(this.#scene.promptS);
  }

  #playFrom(timeS) {
    this.player.playFrom(timeS);
    if (!this.window.holds(timeS) && this.window.show(timeS - 0.06 * this.window.spanS)) this.#redraw();
    this.#followed = true;
  }

  #zoom(factor, anchorS) {
    const { window } = this;
    const middle = window.holds(this.player.timeS) ? this.player.timeS : window.startS + window.spanS / 2;
    if (window.zoom(factor, anchorS ?? middle)) this.moved();
  }

  #fit() {
    if (this.window.show(0, this.window.durationS)) this.moved();
  }

  #setDoubt() {
    const { lanes, doubt } = this.#scene;
    doubt.measureBy(this.measure.value);
    this.colouredBy.textContent = this.measure.value;
    this.scale.hidden = !this.colouring.checked;
    this.scale.lastChild.textContent = MEASURES[this.measure.value].top;
    for (const lane of lanes) {
      if (lane instanceof TokenLane) lane.colouring = lane.scores && this.colouring.checked ? this.measure.value : "id";
    }
    this.#redraw();
  }

  #toggleFamily(chip) {
    if (!chip) return;
    const { families } = this.#scene.doubt;
    const shown = !families.delete(chip.textContent);
    if (shown) families.add(chip.textContent);
    chip.setAttribute("aria-pressed", String(shown));
    this.#redraw();
  }

  #key(event) {
    if (!this.#scene || event.ctrlKey || event.metaKey || event.altKey) return;
    const { window } = this;
    const step = event.shiftKey ? 10 : 1;
    const actions = {
      " ": () => this.player.toggle(),
      Enter: () => this.#target && this.#choose(this.#said().startS),
      c: () => !this.restButton.hidden && this.#playRest(),
      ArrowLeft: () => this.#step(-step),
      ArrowRight: () => this.#step(step),
      ArrowUp: () => this.#changeRow(-1),
      ArrowDown: () => this.#changeRow(1),
      Home: () => this.#putCursor(0),
      End: () => this.#putCursor(window.durationS - 1e-3),
      p: () => this.#putCursor(this.#scene.promptS),
      PageUp: () => this.#putCursor((this.#target?.timeS ?? window.startS) - window.spanS),
      PageDown: () => this.#putCursor((this.#target?.timeS ?? window.startS) + window.spanS),
      "+": () => this.#zoom(ZOOM_STEP, this.#target?.timeS),
      "-": () => this.#zoom(1 / ZOOM_STEP, this.#target?.timeS),
      0: () => this.#fit(),
      Escape: () => this.#aim(null),
      "?": () => (this.help.open = !this.help.open),
    };
    const key = { "=": "+", "−": "-", _: "-" }[event.key] ?? (event.key.length === 1 ? event.key.toLowerCase() : event.key);
    if (!Object.hasOwn(actions, key)) return;
    event.preventDefault();
    actions[key]();
  }

  // -- pointer and cursor

  #under({ x, y }) {
    const { window, rows } = this.#scene ?? {};
    if (!window || x < window.left || x > window.left + window.width || y < RULER) return null;
    const row = rows.findIndex(({ lane, row: n }) => {
      const top = lane.top + n * lane.rowHeight;
      return y < top + lane.rowHeight + (n === lane.numRows - 1 ? GAP / 2 : 0);
    });
    if (row < 0) return null;
    const { lane } = rows[row];
    return { row, timeS: window.timeAt(x), share: clamp((y - lane.top) / lane.height, 0, 1), byKeys: false, x, y };
  }

  /* The keyboard cursor: in the row it was, or the first of tokens. */
  #putCursor(timeS = this.player.timeS, row = this.#target?.row) {
    const { rows, window } = this.#scene;
    const first = rows.findIndex(({ lane }) => lane instanceof TokenLane);
    const place = clamp(timeS, 0, window.durationS - 1e-3);
    const margin = 0.1 * window.spanS;
    if (place < window.startS) window.show(place - margin);
    else if (place >= window.endS) window.show(place + margin - window.spanS);
    this.#aim({ row: row ?? Math.max(0, first), timeS: place, byKeys: true });
    this.moved();
  }

  #step(count) {
    if (!this.#target) return this.#putCursor();
    const { lane } = this.#scene.rows[this.#target.row];
    const [startS, endS] = lane.cell(this.#target.timeS);
    return this.#putCursor((startS + endS) / 2 + count * lane.stepS);
  }

  #changeRow(count) {
    if (!this.#target) return this.#putCursor();
    const row = clamp(this.#target.row + count, 0, this.#scene.rows.length - 1);
    return this.#putCursor(this.#target.timeS, row);
  }

  #said() {
    const { row, timeS, share } = this.#target;
    const { lane, row: n } = this.#scene.rows[row];
    return lane.describe(n, timeS, share);
  }

  #aim(target) {
    if (target === null && this.#target === null) return;
    this.#target = target;
    this.#placeTarget();
    clearTimeout(this.#sayTimer);
    if (!target) return;
    const say = () => (this.live.textContent = Tooltip.sentence(this.#said()));
    if (target.byKeys) say();
    else this.#sayTimer = setTimeout(say, SAY_AFTER_MS);
  }

  /* Puts box and tooltip where pointer or cursor stand in the present view. */
  #placeTarget() {
    this.box.hidden = !this.#target;
    if (!this.#target) return this.tooltip.hide();
    const { window, rows } = this.#scene;
    const { lane, row } = rows[this.#target.row];
    const [startS, endS] = lane.cell(this.#target.timeS);
    const end = window.left + window.width;
    const left = clamp(window.x(startS), window.left, end);
    const width = Math.max(3, clamp(window.x(endS), window.left, end) - left);
    const top = lane.top + row * lane.rowHeight;
    this.box.dataset.byKeys = String(this.#target.byKeys);
    Object.assign(this.box.style, { left: `${left}px`, width: `${width}px`, top: `${top}px`, height: `${lane.rowHeight}px` });
    const { x = left + width, y = top + lane.rowHeight } = this.#target;
    return this.tooltip.show(this.#said(), x, y, this.stage);
  }

  /* Plays from a time; a token is chosen besides, for whoever listens. */
  #choose(timeS) {
    this.#playFrom(timeS);
    const selection = this.#target && this.#said().selection;
    if (selection) this.dispatchEvent(new CustomEvent("choose", { detail: selection }));
  }
}

// Gradio may add the page's scripts again when it reloads.
if (!customElements.get("audiolm-timeline")) customElements.define("audiolm-timeline", AudioTimeline);
