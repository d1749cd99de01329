// Orders of a filter, by id, page by page.

import { ask } from "../api.js";
import { h, list } from "../dom.js";
import { t } from "../i18n.js";
import { orderRow } from "../panels/latest.js";
import { nothing, panel } from "../panels/panel.js";
import { STATES } from "../sagas.js";

const PAGE = 50;
const FIELDS = ["state", "customer", "product", "attention"];

export function ordersView(scope, { query }) {
  const given = new URLSearchParams([...query].filter(([name, value]) => FIELDS.includes(name) && value));
  const path = `/api/orders?${new URLSearchParams([...given, ["limit", PAGE]])}`;
  const rows = h("ul", { class: "rows", role: "list" });
  const head = h(
    "div",
    { class: "row head", "aria-hidden": "true" },
    ["order", "customer", "state", "reason", "total", "updated"].map((name) =>
      h("span", { class: `of-${name}` }, t(name)),
    ),
  );
  const empty = nothing(t("orders_none"));
  const trouble = h("p", { class: "problem", role: "alert", hidden: true });
  const more = h("button", { type: "button", class: "quiet", hidden: true, on: { click: () => next() } }, t("more"));
  const orders = new Map();
  let cursor = null;
  empty.hidden = true;

  const show = () =>
    list(
      rows,
      [...orders.values()],
      (order) => order.orderId,
      (order) => orderRow(order, { wide: true }),
    );
  async function next() {
    more.disabled = true;
    try {
      const { data } = await ask(cursor === null ? path : `${path}&cursor=${encodeURIComponent(cursor)}`);
      if (scope.ended) return;
      for (const order of data.items) orders.set(order.orderId, order);
      cursor = data.nextCursor;
      more.hidden = cursor === null;
      empty.hidden = orders.size > 0 || cursor !== null;
      head.hidden = orders.size === 0;
      trouble.hidden = true;
      show();
    } catch (error) {
      trouble.textContent = t("trouble", { why: error.problem?.detail || t("away") });
      trouble.hidden = false;
      more.hidden = false;
    }
    more.disabled = false;
  }
  next();
  scope.on("orders", (came) => {
    const known = came.filter((order) => orders.has(order.orderId));
    for (const order of known) orders.set(order.orderId, order);
    if (known.length) show();
  });
  return h(
    "div",
    { class: "page" },
    panel(
      { name: "orders", api: path, text: t("orders_all"), level: "h1" },
      filter(given),
      trouble,
      head,
      rows,
      empty,
      more,
    ),
  );
}

function filter(given) {
  const state = h(
    "select",
    { name: "state", id: "by-state" },
    h("option", { value: "" }, t("any_state")),
    STATES.map((each) => h("option", { value: each, selected: given.get("state") === each }, t(`state_${each}`))),
  );
  const text = (name) =>
    h("input", { name, id: `by-${name}`, value: given.get(name), autocomplete: "off", spellcheck: "false" });
  const field = (name, input) => h("label", { for: `by-${name}` }, h("span", {}, t(name)), input);
  const attention = h(
    "label",
    { class: "tick" },
    h("input", { type: "checkbox", name: "attention", value: "true", checked: given.get("attention") === "true" }),
    h("span", {}, t("only_attention")),
  );
  return h(
    "form",
    {
      class: "filter",
      on: {
        submit(event) {
          event.preventDefault();
          const wanted = [...new FormData(event.target)].filter(([, value]) => value.trim());
          location.hash = `#/orders?${new URLSearchParams(wanted)}`;
        },
      },
    },
    field("state", state),
    field("customer", text("customer")),
    field("product", text("product")),
    attention,
    h("button", { type: "submit" }, t("filter")),
  );
}
