// The bridge: whether it runs, what waits on either side, and the ledger of what crossed.

import { h, list, say } from "../dom.js";
import { count } from "../format.js";
import { t } from "../i18n.js";
import { nothing, panel } from "./panel.js";

const PARTS = ["mirrored", "repeated", "dead", "ignored"];
const REST = ["gone", "unaccounted"];

export function bridgePanel(scope) {
  const place = h("span", { class: "tally", hidden: true });
  const problem = h("p", { class: "problem" });
  const inward = side("bridge_in");
  const outward = side("bridge_out");
  const ledgers = h("div", { class: "ledgers" });
  const empty = nothing(t("bridge_nothing"));
  scope.poll("/api/bridge", 4, (bridge) => {
    place.hidden = false;
    say(place, t(bridge.here ? "bridge_here" : "bridge_elsewhere"));
    problem.hidden = !bridge.problem;
    say(problem, bridge.problem ?? "");
    inward.show(bridge.lagIn);
    outward.show(bridge.lagOut);
    const sources = bridge.sources.filter((source) => source.read || source.waiting);
    empty.hidden = sources.length > 0;
    list(ledgers, sources, (source) => source.source, ledger);
  });
  return panel(
    { name: "bridge", api: "/api/bridge", note: place },
    problem,
    h("dl", { class: "sides" }, inward.node, outward.node),
    ledgers,
    empty,
  );
}

function side(name) {
  const number = h("span", { class: "number" }, "–");
  return {
    node: h("div", {}, h("dt", {}, t(name)), h("dd", {}, number)),
    show: (waiting) => say(number, count(waiting)),
  };
}

/** read = mirrored + repeated + dead letters + ignored, as one bar and in figures. */
function ledger(first) {
  const numbers = Object.fromEntries(["read", ...PARTS, ...REST].map((part) => [part, h("td", { class: "number" })]));
  const bars = Object.fromEntries(PARTS.map((part) => [part, h("span", { class: `part ${part}` })]));
  const verdict = h("span", { class: "verdict" });
  const row = (part) => h("tr", { class: part }, h("th", { scope: "row" }, t(part)), numbers[part]);
  const rest = REST.map(row);
  return {
    node: h(
      "div",
      { class: "ledger" },
      h(
        "div",
        { class: "stack", "aria-hidden": "true" },
        PARTS.map((part) => bars[part]),
      ),
      h(
        "table",
        {},
        h("caption", {}, h("span", { class: "source" }, first.source), verdict),
        h("tbody", {}, row("read"), PARTS.map(row), rest),
      ),
    ),
    show(source) {
      const total = (outcome) => Object.values(source.routes).reduce((sum, route) => sum + (route[outcome] ?? 0), 0);
      const found = {
        read: source.read,
        mirrored: total("mirrored"),
        repeated: total("repeated"),
        dead: total("dead-lettered"),
        ignored: source.ignored,
        gone: source.gone,
        unaccounted: source.unaccounted,
      };
      for (const [part, node] of Object.entries(numbers)) say(node, count(found[part]));
      for (const part of PARTS) bars[part].style.setProperty("flex-grow", String(found[part]));
      for (const [place, part] of REST.entries()) rest[place].hidden = found[part] === 0;
      say(verdict, source.unaccounted === 0 ? t("balanced") : "");
    },
  };
}
