// What changed last. It stands still while somebody looks at it closely: under the pointer, or with the focus in it.

import { attribute, h, list, say } from "../dom.js";
import { ago, money, moment } from "../format.js";
import { t } from "../i18n.js";
import { nothing, orderLink, panel, stateMark } from "./panel.js";

const SHOWN = 9;

export function latestPanel(scope) {
  const rows = h("ul", { class: "rows", role: "list" });
  const empty = nothing(t("latest_none"));
  const held = h("span", { class: "held", hidden: true }, t("latest_paused"));
  const node = panel({ name: "latest", api: "/api/orders", note: held }, rows, empty);
  let latest = [];
  const isHeld = () => rows.matches(":hover, :focus-within");
  const show = () => {
    empty.hidden = latest.length > 0;
    held.hidden = !(isHeld() && latest.length);
    if (!isHeld()) list(rows, latest.slice(0, SHOWN), (order) => order.orderId, orderRow);
  };
  scope.on("latest", (orders) => {
    latest = orders;
    show();
  });
  for (const event of ["pointerenter", "pointerleave", "focusin", "focusout"]) rows.addEventListener(event, () => requestAnimationFrame(show));
  scope.every(1000, show);
  return node;
}

/** A row of an order that changes with it. */
export function orderRow(first) {
  const mark = h("span", { class: "mark" }, stateMark(first.state));
  const sum = h("span", { class: "sum" });
  const at = h("span", { class: "at" });
  const node = h("li", { class: "row" }, orderLink(first.orderId), mark, sum, at);
  let state = first.state;
  return {
    node,
    show(order) {
      if (order.state !== state) {
        state = order.state;
        mark.replaceChildren(stateMark(state));
        node.classList.remove("changed");
        requestAnimationFrame(() => node.classList.add("changed"));
      }
      say(sum, money(order.total, order.currency));
      say(at, ago(order.updatedAt));
      attribute(at, "title", moment(order.updatedAt));
    },
  };
}
