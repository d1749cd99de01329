// Asks again and again, while the page is looked at: never in a hidden tab.

import { ask } from "./api.js";

const LONGEST = 15;
const running = new Set();

class Poll {
  constructor(path, seconds, told, failed) {
    Object.assign(this, { path, seconds, told, failed, timer: 0, failures: 0, asking: false, again: false, began: 0 });
    this.stopping = new AbortController();
  }

  /** Whether it has to be asked at the next turn: the feed may tell it. */
  needed() {
    return true;
  }

  #turn() {
    if (this.needed()) this.now();
    else this.#later(this.seconds);
  }

  #later(seconds) {
    clearTimeout(this.timer);
    if (!this.stopping.signal.aborted && !document.hidden) this.timer = setTimeout(() => this.#turn(), seconds * 1000);
  }

  /** Ask now; once more, where an answer is under way that may be older than this moment. */
  async now() {
    clearTimeout(this.timer);
    if (document.hidden || this.stopping.signal.aborted) return;
    this.again = this.asking;
    if (this.asking) return;
    this.asking = true;
    this.began = performance.now();
    try {
      const path = typeof this.path === "function" ? this.path() : this.path;
      const { data, changed } = await ask(path, this.stopping.signal);
      this.failures = 0;
      if (!this.stopping.signal.aborted) this.told(data, changed);
    } catch (error) {
      if (this.stopping.signal.aborted) return;
      this.failures += 1;
      this.failed?.(error);
    } finally {
      this.asking = false;
    }
    if (this.again) return this.now();
    const wait = this.failures ? Math.min(LONGEST, 2 ** Math.min(this.failures - 1, 4)) : this.seconds;
    this.#later(wait);
  }

  stop() {
    clearTimeout(this.timer);
    this.stopping.abort();
    running.delete(this);
  }
}

/** Ask for a path (or what it is each time) every so many seconds. Returns the poll: `now()`, `stop()`. */
export function poll(path, seconds, told, failed) {
  const made = new Poll(path, seconds, told, failed);
  running.add(made);
  made.now();
  return made;
}

/** Ask for everything now. */
export function refresh() {
  for (const each of running) each.now();
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) for (const each of running) clearTimeout(each.timer);
  else refresh();
});
