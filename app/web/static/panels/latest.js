// What changed last. It stands still while somebody looks at it closely: under the pointer, or with the focus in it.

import { attribute, h, list, say } from "../dom.js";
import { ago, money, moment } from "../format.js";
import { t } from "../i18n.js";
import { nothing, orderLink, panel, stateMark, why } from "./panel.js";

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
  for (const event of ["pointerenter", "pointerleave", "focusin", "focusout"])
    rows.addEventListener(event, () => requestAnimationFrame(show));
  scope.every(1000, show);
  return node;
}

/** A row of an order that changes with it. `wide`: with its customer, and why it was cancelled or needs a person. */
export function orderRow(first, { wide = false } = {}) {
  const mark = h("span", { class: "mark" }, stateMark(first.state));
  const sum = h("span", { class: "sum" });
  const at = h("span", { class: "at" });
  const note = wide && h("span", { class: "note" });
  const who = wide && h("span", { class: "who", title: first.customerId }, first.customerId);
  const node = h("li", { class: "row" }, orderLink(first.orderId), who, mark, note, sum, at);
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
      if (!wide) return;
      say(note, order.attention ? why(order.attention) : (order.cancelReason ?? ""));
      note.classList.toggle("plum", order.attention !== null);
      attribute(note, "title", note.textContent);
    },
  };
}
