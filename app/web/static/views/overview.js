// Everything at a glance.

import { h } from "../dom.js";
import { t } from "../i18n.js";
import { attentionPanel } from "../panels/attention.js";
import { bridgePanel } from "../panels/bridge.js";
import { figuresPanel } from "../panels/figures.js";
import { flowPanel } from "../panels/flow.js";
import { latencyPanel } from "../panels/latency.js";
import { latestPanel } from "../panels/latest.js";
import { lettersPanel } from "../panels/letters.js";
import { lowStockPanel } from "../panels/low_stock.js";
import { pacePanel } from "../panels/pace.js";
import { timersPanel } from "../panels/timers.js";
import { workersPanel } from "../panels/workers.js";
import { get, set } from "../state.js";

const HOUR = 15; // seconds between two looks at what is counted by minute
const RECENT = 15 * 60_000;

export function overviewView(scope) {
  scope.poll("/api/analytics/orders?bucket=minute", HOUR, ({ items }) =>
    set("hour", { minutes: items, whole: whole(items) }),
  );
  scope.poll("/api/analytics/steps?bucket=minute", HOUR, ({ items }) => set("steps", { ...counted(), minutes: items }));
  scope.poll(
    () => `/api/analytics/steps?bucket=total&from=${Math.floor((Date.now() - RECENT) / 60_000) * 60_000}`,
    HOUR,
    ({ items }) => set("steps", { ...counted(), recent: items }),
  );
  return h(
    "div",
    { class: "board" },
    h("h1", { class: "unseen" }, t("overview")),
    figuresPanel(scope),
    welcome(scope),
    flowPanel(scope),
    pacePanel(scope),
    latencyPanel(scope),
    attentionPanel(scope),
    lowStockPanel(scope),
    latestPanel(scope),
    timersPanel(scope),
    lettersPanel(scope),
    bridgePanel(scope),
    workersPanel(scope),
  );
}

function counted() {
  return get("steps") ?? { minutes: [], recent: [] };
}

function whole(minutes) {
  const sum = (name) => minutes.reduce((total, row) => total + row[name], 0);
  const [opened, confirmed] = [sum("opened"), sum("confirmed")];
  return { opened, confirmed, conversion: opened ? confirmed / opened : null };
}

/** What to do where nothing has happened yet. */
function welcome(scope) {
  const order =
    `nats pub order.created '{"eventId":"by-hand-1","eventType":"OrderCreatedEvent","aggregateId":"order_by_hand",` +
    `"eventData":{"customerId":"you","customerEmail":"you@jaen.example","totalAmount":12.5,` +
    `"items":[{"productId":"product_aceite_picual","quantity":1,"unitPrice":12.5}]}}'`;
  const node = h(
    "section",
    { class: "card welcome", "aria-labelledby": "title-welcome" },
    h("h2", { id: "title-welcome" }, t("empty_title")),
    h("p", {}, t("empty_text")),
    h("pre", { tabindex: "0" }, h("code", {}, "make demo")),
    h("p", {}, t("empty_or")),
    h("pre", { tabindex: "0" }, h("code", {}, order)),
  );
  node.hidden = true;
  scope.on(
    "overview",
    ({ orders, partial }) => (node.hidden = partial || Object.values(orders).some((number) => number > 0)),
  );
  return node;
}
