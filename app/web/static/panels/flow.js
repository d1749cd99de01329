// The saga as a picture: each state with its orders, and ways whose widths follow the traffic. A dot is an order.

import { attribute, h, s, say } from "../dom.js";
import { count, rate } from "../format.js";
import { t } from "../i18n.js";
import { STATES, WAYS } from "../sagas.js";
import { path, shape } from "./flow_shape.js";
import { panel } from "./panel.js";

const RARE = new Set(["parked", "confirming", "cancelling"]); // shown when there is something in them
const MOST_DOTS = 90;
const TRAVEL = 1100; // ms
const SHORT = 44; // pixels of a way beside which there is no room for words
const FRAME = 30; // ms between two steps of the dots: half of the screen's frames are enough
const calm = matchMedia("(prefers-reduced-motion: reduce)");

export function flowPanel(scope) {
  const svg = s("svg", { class: "flow-picture", role: "group", "aria-label": t("flow_label") });
  const legend = ["on", "good", "again", "lost"].map((kind) => h("li", { class: kind }, t(`kind_${kind}`)));
  const node = panel(
    { name: "flow", api: "/api/orders?limit=1", text: t("flow_text") },
    h("div", { class: "flow-frame" }, svg),
    h("ul", { class: "legend", role: "list" }, legend),
  );
  let picture = null;
  const drawn = { counts: null, rates: null };
  scope.width(svg.parentNode, (width) => {
    picture?.end();
    picture = new Picture(svg, width);
    if (drawn.counts) picture.counts(drawn.counts);
    if (drawn.rates) picture.rates(drawn.rates);
  });
  scope.on(
    "overview",
    (overview) => picture?.counts((drawn.counts = overview.orders)) ?? (drawn.counts = overview.orders),
  );
  scope.on("rates", (rates) => picture?.rates((drawn.rates = rates)));
  scope.on("moves", (ways) => picture?.moves(ways));
  scope.finally(() => picture?.end());
  return node;
}

class Picture {
  #ways = new Map();
  #nodes = new Map();
  #dots = [];
  #frame = 0;
  #stepped = 0;
  #counts = {};
  #busy = new Set();

  constructor(svg, width) {
    const where = shape(width);
    attribute(svg, "viewBox", `0 0 ${width} ${where.height}`);
    attribute(svg, "height", where.height);
    this.dots = s("g", { class: "dots", "aria-hidden": "true" });
    for (const way of WAYS) this.#ways.set(way.id, new Way(way, path(way, where), width));
    for (const state of STATES) this.#nodes.set(state, new Node(state, where.nodes[state]));
    svg.replaceChildren(
      ...[...this.#ways.values()].map((way) => way.node),
      this.dots,
      arrival(where.nodes.new),
      ...[...this.#nodes.values()].map((each) => each.node),
      ...[...this.#ways.values()].map((way) => way.label),
    );
    this.#hideRare();
  }

  counts(counts) {
    this.#counts = counts;
    for (const [state, node] of this.#nodes) node.show(counts[state] ?? 0);
    this.#hideRare();
  }

  rates(rates) {
    this.#busy = new Set();
    for (const [id, way] of this.#ways) {
      const now = rates.get(id);
      way.show(now);
      if (now > 0) this.#busy.add(way.from).add(way.to);
    }
    this.#hideRare();
  }

  /** One dot an order, as long as there are not too many to be seen. */
  moves(ways) {
    if (calm.matches || document.hidden) return;
    let room = MOST_DOTS - this.#dots.length;
    const begin = performance.now();
    for (const [place, way] of ways.entries()) {
      if (room-- <= 0) break;
      const circle = s("circle", { class: `dot ${way.kind}`, r: 3.5, visibility: "hidden" });
      this.dots.append(circle);
      this.#dots.push({ circle, path: this.#ways.get(way.id).line, begin: begin + ((place * 37) % 400) });
    }
    if (this.#dots.length && !this.#frame) this.#frame = requestAnimationFrame((now) => this.#step(now));
  }

  #step(now) {
    if (now - this.#stepped < FRAME) {
      this.#frame = requestAnimationFrame((later) => this.#step(later));
      return;
    }
    this.#stepped = now;
    this.#dots = this.#dots.filter((dot) => {
      const part = (now - dot.begin) / TRAVEL;
      if (part >= 1) {
        dot.circle.remove();
        return false;
      }
      if (part >= 0) {
        dot.length ??= dot.path.getTotalLength();
        const { x, y } = dot.path.getPointAtLength(dot.length * part);
        dot.circle.setAttribute("transform", `translate(${x} ${y})`);
        dot.circle.removeAttribute("visibility");
      }
      return true;
    });
    this.#frame = this.#dots.length ? requestAnimationFrame((later) => this.#step(later)) : 0;
  }

  #hideRare() {
    for (const state of RARE) {
      const shown = (this.#counts[state] ?? 0) > 0 || this.#busy.has(state);
      this.#nodes.get(state).node.classList.toggle("rare", !shown);
      for (const way of this.#ways.values()) {
        if (way.from === state || way.to === state) way.hide(!shown);
      }
    }
  }

  end() {
    cancelAnimationFrame(this.#frame);
    this.dots.remove();
  }
}

class Way {
  constructor({ id, from, to, kind }, line, width) {
    Object.assign(this, { from, to, width });
    this.line = s("path", { d: line, class: "way-line" });
    this.band = s("path", { d: line, class: "way-band" });
    this.node = s("g", { class: `way ${kind}`, "data-way": id }, this.band, this.line);
    this.label = s("text", { class: `way-rate ${kind}`, "aria-hidden": "true", "text-anchor": "middle" });
  }

  show(perSecond) {
    this.band.style.setProperty(
      "stroke-width",
      `${perSecond > 0 ? Math.min(30, 3 + 5 * Math.log2(1 + perSecond)) : 0}px`,
    );
    this.node.classList.toggle("busy", perSecond > 0);
    say(this.label, perSecond >= 0.05 ? `${rate(perSecond)}${t("per_second")}` : "");
    if (!this.placed && this.label.textContent) this.#place();
  }

  /** Beside the middle of the line. */
  #place() {
    const length = this.line.getTotalLength();
    const { x, y } = this.line.getPointAtLength(length / 2);
    const before = this.line.getPointAtLength(length / 2 - 2);
    if (length < SHORT) this.label.classList.add("unseen");
    const flat = Math.abs(x - before.x) > Math.abs(y - before.y);
    const left = !flat && x > this.width - 60;
    attribute(this.label, "x", flat ? x : left ? x - 12 : x + 12);
    attribute(this.label, "y", flat ? y - 14 : y + 4);
    if (!flat) attribute(this.label, "text-anchor", left ? "end" : "start");
    this.placed = true;
  }

  hide(hidden) {
    this.node.classList.toggle("rare", hidden);
    this.label.classList.toggle("rare", hidden);
  }
}

class Node {
  constructor(state, { x, y, w, h: height }) {
    this.state = state;
    this.number = s("text", { class: "node-number", x, y: y + height * 0.3, "text-anchor": "middle" }, "–");
    this.link = s(
      "a",
      { href: `#/orders?state=${state}`, class: "node-link" },
      s("rect", { x: x - w / 2, y: y - height / 2, width: w, height, rx: 12 }),
      s("text", { class: "node-name", x, y: y - height * 0.17, "text-anchor": "middle" }, t(`state_${state}`)),
      this.number,
    );
    this.node = s("g", { class: `node ${state}`, "data-state": state }, this.link);
    this.show(null);
  }

  show(number) {
    const text = count(number);
    if (this.number.textContent !== text) say(this.number, text);
    this.node.classList.toggle("none", !number);
    attribute(this.link, "aria-label", t("node_label", { state: t(`state_${this.state}`), n: text }));
  }
}

function arrival({ x, y }) {
  return s("text", { class: "arrival", x, y: y + 5, "text-anchor": "middle" }, t("new"));
}
