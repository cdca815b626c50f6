/** Sounds that are fetched whole, and played one at a time from the start or, in a loop, from where another one was. */

let context = null;

function audioContext() {
  if (context === null) {
    if (navigator.audioSession) navigator.audioSession.type = "playback"; // or a telephone's mute switch silences it
    context = new AudioContext();
  }
  return context;
}

/** A sound, and what was heard of it: times begun, seconds in all, and the most seconds in one go. */
export class Sound {
  constructor(buffer) {
    this.buffer = buffer;
    this.plays = 0;
    this.listenedS = 0;
    this.longestS = 0;
  }

  static async of(bytes) {
    return new Sound(await audioContext().decodeAudioData(bytes));
  }

  get durationS() {
    return this.buffer.duration;
  }
}

export class Player {
  #source = null;
  #sound = null;
  #beganS = 0;
  #offsetS = 0;
  #wake = 0;

  /** `onChange()` is called when something begins or stops, `onTick()` while it plays. */
  constructor(onChange, onTick) {
    this.onChange = onChange;
    this.onTick = onTick;
  }

  get sound() {
    return this.#sound;
  }

  /** Seconds into the sound that plays. */
  get positionS() {
    if (this.#sound === null) return 0;
    return (this.#offsetS + audioContext().currentTime - this.#beganS) % this.#sound.durationS;
  }

  /** Seconds of the sound that plays which were heard since it began. */
  get runS() {
    return this.#sound === null ? 0 : audioContext().currentTime - this.#beganS;
  }

  async play(sound, { loop = false, fromS = 0 } = {}) {
    this.stop();
    const wake = ++this.#wake;
    await audioContext().resume();
    if (wake !== this.#wake) return; // another press came first
    const source = audioContext().createBufferSource();
    source.buffer = sound.buffer;
    source.loop = loop;
    source.connect(audioContext().destination);
    source.addEventListener("ended", () => {
      if (this.#source === source) this.#end(true);
    });
    source.start(0, fromS);
    sound.plays += 1;
    [this.#source, this.#sound, this.#offsetS, this.#beganS] = [source, sound, fromS, audioContext().currentTime];
    this.onChange();
    const tick = () => {
      if (this.#source !== source) return;
      this.onTick();
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  stop() {
    this.#wake += 1;
    if (this.#source !== null) this.#end(false);
  }

  #end(whole) {
    const [source, sound] = [this.#source, this.#sound];
    const heardS = whole ? sound.durationS - this.#offsetS : this.runS;
    sound.listenedS += heardS;
    sound.longestS = Math.max(sound.longestS, heardS);
    [this.#source, this.#sound] = [null, null];
    source.disconnect();
    if (!whole) source.stop();
    this.onChange();
  }
}
