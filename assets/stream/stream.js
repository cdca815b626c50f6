/* The element <audiolm-stream>: plays the continuations of a run while they are made.

   Chunks of 16 kHz int16 come in the values of the page's updates; each update repeats the last few, so that none is
   lost where the browser shows only the later of two. Every chunk starts where the one before it ends, counted in
   samples, so there is no gap unless the next one is not there yet. A chunk of the coarse levels alone is replaced by
   its fine version where that comes before its turn; the change from one kind to the other is faded. `state` is what
   tests read. */

const STREAM_RATE_HZ = 16000;
const STREAM_FADE = 320; // samples, 20 ms: from a preview to the fine version
const STREAM_LEAD_S = 0.06; // from the order to play until the first sample
const STREAM_AHEAD_S = 0.35; // chunks are chosen this long before they sound: later versions come too late
const STREAM_TICK_MS = 80;
const STREAM_KEY = "audiolm-stream-play";

function streamSamples(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return Float32Array.from(new Int16Array(bytes.buffer), (value) => value / 32767);
}

class AudioLMStream extends HTMLElement {
  #context = null;
  #timer = 0;
  #sources = new Set();
  #rows = [];
  #row = 0;
  #next = 0; // chunk
  #endS = 0; // context time at which what is scheduled ends
  #lastStage = "";
  #parts = {};
  #wanted = true;
  state = null;

  show(value) {
    if (!value) {
      this.#reset(null);
      return;
    }
    if (this.state?.run !== value.run) this.#reset(value);
    for (const [row, chunk, stage, text] of value.chunks) this.#take(row, chunk, stage, text);
    this.#paint();
    if (this.#wanted) this.#tick();
  }

  disconnectedCallback() {
    this.#stop();
    this.#context?.close();
    this.#context = null;
  }

  #reset(value) {
    this.#stop();
    this.#rows = [];
    this.#row = this.#next = 0;
    this.replaceChildren();
    this.state = null;
    if (!value) return;
    this.#rows = Array.from({ length: value.num_rows }, () => ({ coarse: [], fine: [], arrived: [] }));
    this.state = { run: value.run, numChunks: value.num_chunks, played: [], gaps: 0, firstSoundAt: null };
    this.#wanted = localStorage.getItem(STREAM_KEY) !== "no";
    this.#build(value);
  }

  #take(row, chunk, stage, text) {
    const { coarse, fine, arrived } = this.#rows[row];
    if (!coarse[chunk] && !fine[chunk]) arrived.push(performance.now());
    if (!this.#rows[row][stage][chunk]) this.#rows[row][stage][chunk] = streamSamples(text);
  }

  received(row, stage) {
    return this.#rows[row][stage];
  }

  #build(value) {
    const make = (tag, name, text = "") => Object.assign(document.createElement(tag), { className: name, textContent: text });
    const label = make("span", "generated-label", "GENERATED");
    const play = make("button", "stream-play");
    const choice = make("div", "stream-choice");
    const strip = make("div", "stream-strip");
    const note = make("span", "stream-note");
    play.type = "button";
    play.addEventListener("click", () => this.#toggle());
    for (let row = 0; row < value.num_rows && value.num_rows > 1; row++) {
      const button = make("button", "stream-row", `${row + 1}`);
      button.type = "button";
      button.setAttribute("aria-label", `Listen to continuation ${row + 1}`);
      button.addEventListener("click", () => this.#choose(row));
      choice.append(button);
    }
    for (let chunk = 0; chunk < value.num_chunks; chunk++) strip.append(make("i", "none"));
    strip.setAttribute("aria-hidden", "true");
    note.setAttribute("role", "status");
    this.#parts = { play, choice, strip, note };
    this.append(label, play, choice, strip, note);
  }

  #paint() {
    const { play, choice, strip, note } = this.#parts;
    const { coarse, fine } = this.#rows[this.#row];
    const told = fine.filter(Boolean).length;
    const over = told === this.state.numChunks && !this.#sources.size && this.#next >= told;
    play.textContent = over ? "Listen again" : this.#wanted ? "Stop the sound" : "Listen as it is made";
    [...choice.children].forEach((button, row) => button.setAttribute("aria-pressed", `${row === this.#row}`));
    [...strip.children].forEach((cell, chunk) => {
      const sounding = this.#sources.size && chunk === this.#next - 1 ? " now" : "";
      cell.className = (fine[chunk] ? "fine" : coarse[chunk] ? "coarse" : "none") + sounding;
    });
    const text = told < this.state.numChunks ? `${told} of ${this.state.numChunks} s are made` : "";
    if (note.textContent !== text) note.textContent = text;
  }

  #toggle() {
    const over = this.#next >= this.state.numChunks && !this.#sources.size;
    if (!over) this.#wanted = !this.#wanted;
    localStorage.setItem(STREAM_KEY, this.#wanted ? "yes" : "no");
    if (!this.#wanted) this.#stop();
    else {
      if (over) [this.#next, this.#endS, this.#lastStage] = [0, 0, ""];
      this.#tick();
    }
    this.#paint();
  }

  #choose(row) {
    this.#stop();
    this.#row = row;
    this.#next = 0;
    this.#wanted = true;
    this.#tick();
    this.#paint();
  }

  #stop() {
    clearTimeout(this.#timer);
    for (const source of this.#sources) source.stop();
    this.#sources.clear();
    this.#endS = 0;
    this.#lastStage = "";
  }

  /* The chunk as it is played now: fine where it is there, faded in where a preview was heard before it. */
  #chunk(number) {
    const { coarse, fine } = this.#rows[this.#row];
    if (!fine[number]) return [coarse[number], "coarse"];
    if (this.#lastStage !== "coarse" || !coarse[number]) return [fine[number], "fine"];
    const faded = fine[number].slice();
    for (let n = 0; n < Math.min(STREAM_FADE, faded.length, coarse[number].length); n++) {
      const share = (n + 1) / (STREAM_FADE + 1);
      faded[n] = share * faded[n] + (1 - share) * coarse[number][n];
    }
    return [faded, "fine"];
  }

  /* After a pause: whether so much is there that, at the pace of the chunks so far, there will be no other one. */
  #enough() {
    const { coarse, fine, arrived } = this.#rows[this.#row];
    let ready = this.#next;
    while (coarse[ready] || fine[ready]) ready += 1;
    const paceS = arrived.length > 1 ? (arrived.at(-1) - arrived[0]) / 1000 / (arrived.length - 1) : 0;
    return ready - this.#next >= (this.state.numChunks - ready) * (paceS - 1);
  }

  #tick() {
    clearTimeout(this.#timer);
    this.#context ??= new AudioContext({ sampleRate: STREAM_RATE_HZ });
    if (this.#context.state === "suspended") this.#context.resume();
    while (this.#next < this.state.numChunks && this.#endS - this.#context.currentTime < STREAM_AHEAD_S) {
      const [samples, stage] = this.#chunk(this.#next);
      const paused = this.#next > 0 && this.#endS < this.#context.currentTime;
      if (!samples || (paused && !this.#enough())) break;
      this.#schedule(samples, stage);
    }
    if (this.#next < this.state.numChunks) this.#timer = setTimeout(() => this.#tick(), STREAM_TICK_MS);
    this.#paint();
  }

  #schedule(samples, stage) {
    const context = this.#context;
    const soonest = context.currentTime + (this.#next ? 0 : STREAM_LEAD_S);
    const late = this.#endS < soonest;
    if (late && this.#next) this.state.gaps += 1;
    const startS = late ? Math.ceil(soonest * STREAM_RATE_HZ) / STREAM_RATE_HZ : this.#endS;
    const buffer = context.createBuffer(1, samples.length, STREAM_RATE_HZ);
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(context.destination);
    source.addEventListener("ended", () => {
      this.#sources.delete(source);
      if (this.state) this.#paint();
    });
    source.start(startS);
    this.#sources.add(source);
    if (this.state.firstSoundAt === null) {
      this.state.firstSoundAt = performance.timeOrigin + performance.now() + 1000 * (startS - context.currentTime);
    }
    this.state.played.push({ row: this.#row, chunk: this.#next, stage, startS, samples: samples.length });
    this.#endS = startS + samples.length / STREAM_RATE_HZ;
    this.#lastStage = stage;
    this.#next += 1;
  }
}

customElements.define("audiolm-stream", AudioLMStream);
