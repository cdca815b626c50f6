/* The element <audiolm-switch>: versions of one sound under each other. All of them run at once and one is let through,
   so a click changes what is heard at the same instant, without a gap. Value: {rows: [{label, generated, figures, note,
   picture, alt, audio}], prompt_s, duration_s}. Text that comes from outside is only ever set as text. `state` is what
   tests read. */

const JUMP_S = 1;
const PLAYS = "audiolm-plays"; // an event on the document: somebody else has started to play

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const clock = (timeS) => `${Math.floor(timeS / 60)}:${(timeS % 60).toFixed(1).padStart(4, "0")}`;

class Switch extends HTMLElement {
  #value = null;
  #frame = 0;
  #signal = null;
  #deck = new Deck(() => this.#changed());

  connectedCallback() {
    this.setAttribute("role", "group");
    this.#signal = new AbortController();
    const options = { signal: this.#signal.signal, capture: true };
    document.addEventListener("play", () => this.#deck.playing && this.#deck.pause(), options);
    document.addEventListener(PLAYS, ({ detail }) => detail !== this && this.#deck.playing && this.#deck.pause(), options);
    if (this.#value) this.#build();
  }

  disconnectedCallback() {
    this.#signal?.abort();
    cancelAnimationFrame(this.#frame);
    this.#deck.close();
  }

  get state() {
    const { playing, timeS, chosen, levels, numStarts } = this.#deck;
    return { playing, timeS, chosen, levels, numStarts, count: this.#value?.rows.length ?? 0 };
  }

  /* Shows a value, or nothing. */
  show(value) {
    this.#value = value?.rows?.length ? value : null;
    this.#deck.load(this.#value ? this.#value.rows.map((row) => row.audio.url) : []);
    this.#build();
  }

  #build() {
    this.replaceChildren();
    this.hidden = !this.#value;
    if (!this.#value) return;
    this.playButton = make("button", { type: "button", class: "as-play" });
    this.position = make("input", {
      type: "range", min: "0", max: String(this.#value.duration_s), step: "0.01", value: "0", "aria-label": "Position",
    });
    this.clock = make("span", { class: "as-clock" });
    this.message = make("p", { class: "as-message", role: "alert", hidden: "" });
    const hint = make("p", { class: "as-hint" },
      "Click a version to hear it from the same instant. Keys: 1–9 and ↑ ↓ switch, Space plays, ← → move by a second.");
    this.rows = this.#value.rows.map((row, n) => this.#row(row, n));
    const group = make("div", { role: "radiogroup", class: "as-rows", "aria-label": this.getAttribute("aria-label") ?? "Versions" },
      ...this.rows);
    this.append(make("div", { class: "as-bar" }, this.playButton, this.position, this.clock), hint, this.message, group);
    this.playButton.addEventListener("click", () => this.#toggle());
    this.position.addEventListener("input", () => this.#try(this.#deck.seek(Number(this.position.value))));
    this.onkeydown = (event) => this.#key(event);
    this.#changed();
  }

  #row(row, n) {
    const title = make("div", { class: "as-title" }, make("span", { class: "as-number", "aria-hidden": "true" }, String(n + 1)),
      make("strong", {}, row.label));
    if (row.generated) title.append(make("span", { class: "generated-label" }, "GENERATED"));
    for (const figure of row.figures) title.append(make("span", { class: "as-figure" }, figure));
    const picture = make("div", { class: "as-picture" }, make("img", { src: row.picture, alt: row.alt, draggable: "false" }),
      make("i", { class: "as-head" }));
    if (this.#value.prompt_s > 0) {
      const mark = make("i", { class: "as-prompt" });
      mark.style.left = `${(100 * this.#value.prompt_s) / this.#value.duration_s}%`;
      picture.append(mark);
    }
    const choice = make("div", { role: "radio", tabindex: "-1", class: "as-row" }, title, picture);
    if (row.note) choice.append(make("p", { class: "as-note" }, row.note));
    title.addEventListener("click", () => this.#hear(n));
    picture.addEventListener("click", (event) => {
      const box = picture.getBoundingClientRect();
      const timeS = ((event.clientX - box.left) / box.width) * this.#value.duration_s;
      this.#deck.choose(n);
      this.#play(timeS);
    });
    choice.addEventListener("focus", () => n !== this.#deck.chosen && this.#deck.choose(n));
    const link = make("a", { class: "as-file", href: row.audio.url, download: row.audio.orig_name ?? "", title: `Download ${row.label}` }, "WAV");
    return make("div", { class: "as-line" }, choice, link);
  }

  /* A click on a version: hear it, from where the others are. */
  #hear(n) {
    this.#deck.choose(n);
    if (!this.#deck.playing) this.#play();
  }

  #toggle() {
    if (this.#deck.playing) this.#deck.pause();
    else this.#play();
  }

  #play(fromS) {
    for (const media of document.querySelectorAll("audio, video")) media.pause();
    document.dispatchEvent(new CustomEvent(PLAYS, { detail: this }));
    this.#try(this.#deck.play(fromS));
  }

  async #try(promise) {
    try {
      await promise;
      this.message.hidden = true;
    } catch {
      this.message.textContent = "The sound could not be loaded. It is kept on the server for an hour: run this again.";
      this.message.hidden = false;
    }
  }

  #key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target instanceof HTMLAnchorElement) return;
    const { chosen, timeS } = this.#deck;
    const last = this.rows.length - 1;
    const onRange = event.target === this.position;
    const number = Number(event.key);
    if (event.key === " " && event.target !== this.playButton) this.#toggle();
    else if (number >= 1 && number <= last + 1) this.#choose(number - 1);
    else if (event.key === "ArrowDown" && !onRange) this.#choose(chosen === last ? 0 : chosen + 1);
    else if (event.key === "ArrowUp" && !onRange) this.#choose(chosen === 0 ? last : chosen - 1);
    else if (event.key === "ArrowLeft") this.#try(this.#deck.seek(timeS - JUMP_S));
    else if (event.key === "ArrowRight") this.#try(this.#deck.seek(Math.min(timeS + JUMP_S, this.#value.duration_s)));
    else if (event.key === "Home") this.#try(this.#deck.seek(0));
    else return;
    event.preventDefault();
  }

  #choose(n) {
    this.#deck.choose(n);
    this.rows[n].firstChild.focus({ preventScroll: false });
  }

  #changed() {
    if (!this.#value || !this.rows) return;
    const { playing, chosen } = this.#deck;
    this.dataset.playing = String(playing);
    this.playButton.setAttribute("aria-label", playing ? "Pause" : "Play");
    this.rows.forEach((line, n) => {
      line.firstChild.setAttribute("aria-checked", String(n === chosen));
      line.firstChild.tabIndex = n === chosen ? 0 : -1;
    });
    cancelAnimationFrame(this.#frame);
    this.#tick();
  }

  #tick() {
    const timeS = Math.min(this.#deck.timeS, this.#value.duration_s);
    this.style.setProperty("--as-place", String(timeS / this.#value.duration_s));
    this.position.value = String(timeS);
    this.clock.textContent = `${clock(timeS)} / ${clock(this.#value.duration_s)}`;
    this.position.setAttribute("aria-valuetext", `${timeS.toFixed(1)} seconds`);
    if (this.#deck.playing) this.#frame = requestAnimationFrame(() => this.#tick());
  }
}

/* The element <audiolm-snippets>: buttons, each of which plays a stretch of one file. Value: {audio, items: [{label,
   start_s, end_s}]}. */
class Snippets extends HTMLElement {
  #audio = new Audio();
  #endS = 0;

  connectedCallback() {
    this.setAttribute("role", "group");
    this.#audio.ontimeupdate = () => this.#audio.currentTime >= this.#endS && this.#audio.pause();
    this.append(this.#audio);
  }

  disconnectedCallback() {
    this.#audio.pause();
  }

  show(value) {
    this.#audio.pause();
    this.replaceChildren(this.#audio);
    if (!value?.items?.length) return;
    this.#audio.src = value.audio.url;
    for (const item of value.items) {
      const play = make("button", { type: "button" }, item.label);
      play.addEventListener("click", () => {
        document.dispatchEvent(new CustomEvent(PLAYS, { detail: this }));
        this.#endS = item.end_s;
        this.#audio.currentTime = item.start_s;
        this.#audio.play().catch(() => {});
      });
      this.append(play);
    }
  }
}

customElements.define("audiolm-switch", Switch);
customElements.define("audiolm-snippets", Snippets);
