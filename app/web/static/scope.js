// What lives as long as a view is shown: what it hears, asks for and measures. It all ends with the view.

import { poll } from "./poll.js";
import { on } from "./state.js";

export class Scope {
  #ends = [];
  ended = false;

  /** Hear of a topic. */
  on(topic, listener) {
    this.#ends.push(on(topic, listener));
  }

  /** Ask again and again. */
  poll(path, seconds, told, failed) {
    const made = poll(path, seconds, told, failed);
    this.#ends.push(() => made.stop());
    return made;
  }

  /** Do it every so many milliseconds, while the page is looked at. */
  every(milliseconds, act) {
    const timer = setInterval(() => document.hidden || act(), milliseconds);
    this.#ends.push(() => clearInterval(timer));
  }

  /** Hear how wide an element is, now and whenever that changes. */
  width(node, told) {
    let before = 0;
    const observer = new ResizeObserver(([entry]) => {
      const width = Math.round(entry.contentRect.width);
      if (width && width !== before) told((before = width));
    });
    observer.observe(node);
    this.#ends.push(() => observer.disconnect());
  }

  /** Do it at the end. */
  finally(act) {
    this.#ends.push(act);
  }

  end() {
    this.ended = true;
    for (const end of this.#ends.splice(0)) end();
  }
}
