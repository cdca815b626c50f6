/** One trial on the page: clips to hear, and what is asked of them once enough of each has been heard. */

import { make } from "./dom.js";
import { Player, Sound } from "./player.js";

const SLACK_S = 0.01;
const BANDS = ["Bad", "Poor", "Fair", "Good", "Excellent"];

/**
 * A trial as an element. `onReady(ready)` hears whether everything has been heard and answered. `answer()` is what the
 * server is told. `keys` maps single keys to what they do.
 */
export class Trial {
  #begun = performance.now();

  /** `trial` as the server describes it; `buffers` are its sounds: the clips', then the reference's. */
  constructor(trial, buffers, onReady) {
    this.trial = trial;
    this.onReady = onReady;
    this.keys = new Map();
    this.player = new Player(
      () => this.#show(),
      () => this.#follow(),
    );
    const given = [...trial.clips, ...(trial.reference ? [trial.reference] : [])];
    this.clips = given.map((clip, index) => this.#clip(clip, new Sound(buffers[index])));
    if (trial.scores) this.clips.forEach((clip, index) => index < trial.clips.length && this.#slide(clip));
    this.gate = make("p", { class: "gate", id: "gate" });
    const shown = trial.reference ? [this.clips.at(-1), ...this.clips.slice(0, -1)] : this.clips;
    const list = make(
      "div",
      { class: "clips" },
      shown.map((clip) => clip.element),
    );
    const legend = make("legend", {}, trial.question);
    const options = trial.scores ? list : this.#choices();
    const beeps = trial.beeps
      ? make("div", { class: "choices apart" }, this.#option({ value: "beeps", label: "I heard beeps" }, "0"))
      : "";
    const inside = [this.gate, options, beeps];
    this.question = make("fieldset", { "aria-describedby": "gate" }, legend, inside);
    this.element = make("div", {}, trial.scores ? [] : [list], this.question);
    this.#show();
  }

  get ready() {
    if (!this.clips.every(({ sound }) => this.#heard(sound))) return false;
    if (this.#chosen) return true;
    return this.trial.scores && this.clips.every(({ slider }) => !slider || slider.dataset.moved);
  }

  /** JSON: the answer, and for every sound how it was listened to. */
  answer() {
    this.player.stop();
    const sounds = this.clips.map(({ sound }) => sound);
    const sliders = this.clips.filter(({ slider }) => slider).map(({ slider }) => Number(slider.value));
    return {
      ...(this.#chosen ? { value: this.#chosen.value } : { scores: sliders }),
      plays: sounds.map(({ plays }) => plays),
      listened_s: sounds.map(({ listenedS }) => Number(listenedS.toFixed(3))),
      response_s: Number(((performance.now() - this.#begun) / 1000).toFixed(3)),
    };
  }

  stop() {
    this.player.stop();
  }

  get #chosen() {
    return this.question.querySelector("input:checked");
  }

  /** Versions that are compared loop, and add up; one clip has to be heard in one go. */
  #heard(sound) {
    const now = this.player.sound === sound ? this.player.runS : 0;
    const heardS = this.trial.scores ? sound.listenedS + now : Math.max(sound.longestS, now);
    return sound.plays > 0 && heardS >= this.trial.must_play * sound.durationS - SLACK_S;
  }

  #clip({ label }, sound) {
    const name = nameOf(label);
    const button = make("button", { type: "button", on: { click: () => this.#toggle(sound) } });
    const fill = make("span");
    const heard = make("span", { class: "heard", "aria-hidden": "true" });
    const track = make("div", { class: "track", "aria-hidden": "true" }, fill);
    const element = make("div", { class: "clip", role: "group", "aria-label": name }, button, track, heard);
    const key = label ? label[0].toLowerCase() : "p";
    this.keys.set(key, () => this.#toggle(sound));
    return { name, key, sound, button, fill, heard, element };
  }

  #slide(clip) {
    const given = make("output", { class: "given" }, "–");
    clip.slider = make("input", {
      type: "range",
      min: 0,
      max: 100,
      value: 50,
      disabled: true,
      "aria-label": `Score of ${clip.name}`,
    });
    clip.slider.addEventListener("input", () => {
      clip.slider.dataset.moved = "1";
      given.textContent = clip.slider.value;
      this.#tell();
    });
    const bands = make(
      "div",
      { class: "bands", "aria-hidden": "true" },
      BANDS.map((band) => make("span", {}, band)),
    );
    clip.element.append(make("div", { class: "scale" }, clip.slider, given, bands));
  }

  #choices() {
    const few = this.trial.options.length === 2 ? "choices few" : "choices";
    return make(
      "div",
      { class: few },
      this.trial.options.map((option, index) => this.#option(option, String(index + 1))),
    );
  }

  #option({ value, label }, key) {
    const type = this.trial.scores ? "checkbox" : "radio";
    const input = make("input", { type, name: "answer", value, on: { change: () => this.#tell() } });
    this.keys.set(key, () => input.click());
    return make(
      "label",
      { class: "choice" },
      input,
      make("span", {}, label),
      make("kbd", { "aria-hidden": "true" }, key),
    );
  }

  #toggle(sound) {
    if (this.player.sound === sound) this.player.stop();
    else if (this.trial.scores) this.player.play(sound, { loop: true, fromS: this.player.positionS });
    else this.player.play(sound);
  }

  /** While something plays. */
  #follow() {
    const clip = this.clips.find(({ sound }) => sound === this.player.sound);
    clip.fill.style.width = `${(100 * this.player.positionS) / clip.sound.durationS}%`;
    this.#tell();
  }

  /** When something began or stopped. */
  #show() {
    for (const { sound, button, fill, element, name } of this.clips) {
      const playing = this.player.sound === sound;
      const sign = make("span", { "aria-hidden": "true" }, playing ? "■" : "▶");
      button.replaceChildren(sign, `${playing ? "Stop" : sound.plays ? "Replay" : "Play"} ${name}`);
      element.classList.toggle("playing", playing);
      if (!playing) fill.style.width = "0";
    }
    this.#tell();
  }

  /** Opens what may be answered, and says what is missing. */
  #tell() {
    const missing = this.clips.filter(({ sound }) => !this.#heard(sound));
    for (const clip of this.clips) {
      const heard = !missing.includes(clip);
      clip.heard.textContent = heard ? "✓ heard" : "";
      if (clip.slider) clip.slider.disabled = !heard;
    }
    for (const input of this.question.querySelectorAll("[name=answer]")) input.disabled = missing.length > 0;
    const wanted = this.trial.scores && !this.ready ? "Now move every slider." : "";
    const share = this.trial.must_play < 1 ? `at least ${Math.round(100 * this.trial.must_play)} %` : "to the end";
    const text = missing.length ? `First listen to ${listed(missing.map(({ name }) => name))}, ${share}.` : wanted;
    if (this.gate.textContent !== text) this.gate.textContent = text;
    this.onReady(this.ready);
  }
}

function nameOf(label) {
  if (label === "Reference") return "the reference";
  return label.length < 3 ? `clip ${label}`.replace(/^clip $/, "the clip") : `the ${label.toLowerCase()} clip`;
}

function listed(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}
