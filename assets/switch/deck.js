/* Sounds of equal length that run in step, one of them heard (switch.js shows them). */

const RATE_HZ = 16000; // of the files: nothing is resampled, and 30 s in 9 versions stay under 20 MB
const FADE_S = 0.012; // from one version to the next
const LEAD_S = 0.04; // from the order to play until all versions start at once

/* At the files' rate, where the browser can; else at its own. */
function makeContext() {
  try {
    return new AudioContext({ sampleRate: RATE_HZ });
  } catch {
    return new AudioContext();
  }
}

/* Buffers of equal length that start together; `chosen` is the one that is heard. */
class Deck {
  #context = null;
  #buffers = null; // a promise of the decoded versions
  #urls = [];
  #sources = [];
  #gains = [];
  #startedAt = 0; // context time at which the sound was at `#offsetS`
  #offsetS = 0;
  playing = false;
  chosen = 0;
  numStarts = 0;

  constructor(onChange) {
    this.onChange = onChange;
  }

  load(urls) {
    this.close();
    [this.#urls, this.#buffers, this.#offsetS, this.chosen] = [urls, null, 0, 0];
  }

  get timeS() {
    const ranS = this.playing ? Math.max(0, this.#context.currentTime - this.#startedAt) : 0;
    return this.#offsetS + ranS;
  }

  get levels() {
    return this.#gains.map((gain) => gain.gain.value);
  }

  /* Browsers let a page sound only after a gesture: the context is made when the first one asks for sound. */
  async #decoded() {
    this.#context ??= makeContext();
    const context = this.#context;
    this.#buffers ??= Promise.all(
      this.#urls.map(async (url) => {
        const answer = await fetch(url);
        if (!answer.ok) throw new Error(`${answer.status} for ${url}`);
        return context.decodeAudioData(await answer.arrayBuffer());
      }),
    );
    const buffers = await this.#buffers;
    await context.resume();
    return context === this.#context ? buffers : null; // null: another value was loaded meanwhile
  }

  async play(fromS = this.timeS) {
    const buffers = await this.#decoded();
    if (!buffers) return;
    this.#halt();
    this.#offsetS = fromS >= buffers[0].duration ? 0 : Math.max(0, fromS);
    this.#startedAt = this.#context.currentTime + LEAD_S;
    buffers.forEach((buffer, n) => {
      const [source, gain] = [this.#context.createBufferSource(), this.#context.createGain()];
      source.buffer = buffer;
      gain.gain.value = n === this.chosen ? 1 : 0;
      source.connect(gain).connect(this.#context.destination);
      source.start(this.#startedAt, this.#offsetS);
      this.#sources.push(source);
      this.#gains.push(gain);
    });
    this.#sources[0].onended = () => this.#ended();
    this.playing = true;
    this.numStarts += 1;
    this.onChange();
  }

  #ended() {
    this.#halt();
    this.#offsetS = 0;
    this.onChange();
  }

  #halt() {
    for (const source of this.#sources) {
      source.onended = null;
      source.stop();
      source.disconnect();
    }
    [this.#sources, this.#gains, this.playing] = [[], [], false];
  }

  pause() {
    const timeS = this.timeS;
    this.#halt();
    this.#offsetS = timeS;
    this.onChange();
  }

  async seek(timeS) {
    if (this.playing) return this.play(timeS);
    this.#offsetS = Math.max(0, timeS);
    this.onChange();
  }

  choose(number) {
    this.chosen = number;
    const now = this.#context?.currentTime ?? 0;
    this.#gains.forEach(({ gain }, n) => {
      gain.cancelScheduledValues(now);
      gain.setValueAtTime(gain.value, now);
      gain.linearRampToValueAtTime(n === number ? 1 : 0, now + FADE_S);
    });
    this.onChange();
  }

  close() {
    this.#halt();
    this.#context?.close();
    [this.#context, this.#buffers] = [null, null];
  }
}
