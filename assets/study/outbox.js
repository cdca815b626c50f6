/** Requests of one participant's session. What changes something is kept in the browser until the server says that it
 * is stored, and sent again, with the same key, for as long as it takes: over a lost connection, a restarted server or
 * a reloaded page. */

import { randomKey } from "./dom.js";

const WAITS_MS = [500, 1000, 2000, 4000, 8000];

/** The server understood and said no: asking again is of no use. */
export class Refused extends Error {
  /** `told` is the server's JSON. */
  constructor(status, told) {
    super(String(told.detail ?? `The server says ${status}.`));
    this.status = status;
    this.told = told;
  }
}

/** The browser's storage, or this page's memory where the browser gives none (frames of other sites). */
class Memory {
  #kept = new Map();

  constructor(prefix) {
    this.prefix = prefix;
  }

  get(name) {
    if (this.#kept.has(name)) return this.#kept.get(name);
    try {
      return JSON.parse(localStorage.getItem(this.prefix + name));
    } catch {
      return null;
    }
  }

  /** Removes a value, unless another one has taken its place since, from this page or from another tab. */
  drop(name, value) {
    const same = JSON.stringify(value);
    if (JSON.stringify(this.#kept.get(name)) === same) this.#kept.delete(name);
    if (JSON.stringify(this.get(name)) === same) this.set(name, null);
  }

  set(name, value) {
    this.#kept.set(name, value);
    try {
      if (value === null) localStorage.removeItem(this.prefix + name);
      else localStorage.setItem(this.prefix + name, JSON.stringify(value));
    } catch {
      // kept in the page alone
    }
  }
}

export class Outbox {
  /**
   * `api` ends in a slash. `who` tells participants of one browser apart. `onWait(tries)` hears of every failed try to
   * send, and of success as `onWait(0)`.
   */
  constructor(api, who, onWait) {
    this.api = api;
    this.onWait = onWait;
    this.memory = new Memory(`listening-study ${api} ${who} `);
  }

  get token() {
    return this.memory.get("token");
  }

  set token(value) {
    this.memory.set("token", value);
  }

  /** One key in all tabs, by which who comes without an id is one participant in all of them. */
  get browserKey() {
    const key = this.memory.get("browser") ?? randomKey();
    this.memory.set("browser", key);
    return key;
  }

  /** Everything of this participant that the browser keeps is gone. */
  forget() {
    for (const name of ["token", "pending", "single keys", "browser"]) this.memory.set(name, null);
  }

  /** Sends what an earlier page left unsent, and returns the path of it, "" where there was nothing. */
  async flush() {
    const pending = this.memory.get("pending");
    if (pending === null) return "";
    try {
      await this.#deliver(pending);
    } catch (error) {
      if (!(error instanceof Refused)) throw error; // refused: the step that the server shows next says where we are
    }
    return pending.path;
  }

  /** The answer to a POST of `body`, however long it takes. Raises Refused. */
  send(path, body = {}) {
    const pending = { path, body: { key: randomKey(), ...body } };
    this.memory.set("pending", pending);
    return this.#deliver(pending);
  }

  /** The JSON at a path. Raises Refused. */
  read(path) {
    return this.#again(
      () => this.#fetch(path),
      (response) => response.json(),
    );
  }

  /** The bytes at a path. Raises Refused. */
  bytes(path) {
    return this.#again(
      () => this.#fetch(path),
      (response) => response.arrayBuffer(),
    );
  }

  async #deliver(pending) {
    const options = {
      method: "POST",
      body: JSON.stringify(pending.body),
      headers: { "Content-Type": "application/json" },
    };
    try {
      const step = await this.#again(
        () => this.#fetch(pending.path, options),
        (response) => response.json(),
      );
      if (step.token) this.token = step.token;
      return step;
    } finally {
      this.memory.drop("pending", pending);
    }
  }

  #fetch(path, options = {}) {
    const headers = { ...options.headers, ...(this.token ? { Authorization: `Bearer ${this.token}` } : {}) };
    return fetch(this.api + path, { cache: "no-store", ...options, headers });
  }

  async #again(request, read) {
    for (let tries = 1; ; tries += 1) {
      try {
        const response = await request();
        if (response.ok) {
          const value = await read(response);
          this.onWait(0);
          return value;
        }
        if (response.status < 500 && response.status !== 429) {
          this.onWait(0);
          throw new Refused(response.status, await response.json().catch(() => ({})));
        }
      } catch (error) {
        if (error instanceof Refused) throw error;
      }
      this.onWait(tries);
      await this.#pause(WAITS_MS[Math.min(tries, WAITS_MS.length) - 1]);
    }
  }

  /** Waits, or until the browser says that it is online again. */
  #pause(milliseconds) {
    return new Promise((done) => {
      const timer = setTimeout(finish, milliseconds);
      function finish() {
        clearTimeout(timer);
        removeEventListener("online", finish);
        done();
      }
      addEventListener("online", finish);
    });
  }
}
