// Orders that a person should look at, and why. What an operator does about one will stand in its row.

import { attribute, h, list, say } from "../dom.js";
import { ago, count, moment, money } from "../format.js";
import { t } from "../i18n.js";
import { sum } from "../overview.js";
import { nothing, orderLink, panel, stateMark, why } from "./panel.js";

const SHOWN = 5;
const LIST = "/api/orders?attention=true";

export function attentionPanel(scope, { all = false } = {}) {
  const rows = h("ul", { class: "rows reasons", role: "list" });
  const empty = nothing(t("attention_none"));
  const number = h("span", { class: "tally plum", hidden: true });
  const searched = h("a", { class: "sub", href: "#/orders?attention=true" }, t("searched"));
  const more = !all && h("a", { class: "more", href: "#/attention" }, t("all_of"));
  const node = panel(
    {
      name: all ? "attention" : "attention_panel",
      api: LIST,
      note: number,
      more,
      text: all && t("attention_text"),
      level: all ? "h1" : "h2",
    },
    rows,
    empty,
    all && searched,
  );
  const show = ({ rows: orders, more: cut }) => {
    empty.hidden = orders.length > 0;
    searched.hidden = !cut;
    list(rows, all ? orders : orders.slice(0, SHOWN), (order) => order.orderId, attentionRow);
  };
  let shown = null;
  scope.on("overview", ({ items }) => {
    const all = sum(items, "attention");
    number.hidden = all === 0;
    say(number, count(all));
  });
  scope.on("attention", (found) => show((shown = found)));
  scope.every(5000, () => shown && show(shown));
  return node;
}

function attentionRow(first) {
  const text = h("p", { class: "why" });
  const mark = h("span", { class: "mark" });
  const sum = h("span", { class: "sum" }, money(first.total, first.currency));
  const at = h("span", { class: "at" });
  return {
    node: h("li", { class: "row two" }, orderLink(first.orderId), mark, sum, at, text),
    show(order) {
      mark.replaceChildren(stateMark(order.state));
      say(text, why(order.attention ?? ""));
      say(at, ago(order.updatedAt));
      attribute(at, "title", moment(order.updatedAt));
    },
  };
}
