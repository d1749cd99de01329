// Products at or below their threshold, the emptiest first.

import { h, list, say } from "../dom.js";
import { count } from "../format.js";
import { t } from "../i18n.js";
import { sum } from "../overview.js";
import { nothing, panel } from "./panel.js";

const SHOWN = 6;
const LIST = "/api/inventory?low=true";

export function lowStockPanel(scope, { all = false } = {}) {
  const rows = h("ul", { class: "rows shelves", role: "list" });
  const empty = nothing(t("low_none"));
  const number = h("span", { class: "tally amber", hidden: true });
  const searched = h("p", { class: "sub" }, t("searched"));
  const more = !all && h("a", { class: "more", href: "#/stock" }, t("all_of"));
  const node = panel(
    { name: "low", api: LIST, note: number, more, text: all && t("low_text"), level: all ? "h1" : "h2" },
    rows,
    empty,
    all && searched,
  );
  scope.on("overview", ({ items }) => {
    const all = sum(items, "lowProducts");
    number.hidden = all === 0;
    say(number, count(all));
  });
  scope.on("low", ({ rows: products, more: cut }) => {
    empty.hidden = products.length > 0;
    searched.hidden = !cut;
    list(rows, all ? products : products.slice(0, SHOWN), (product) => product.productId, shelfRow);
  });
  return node;
}

/** A product with what is left of it, as a bar whose whole length is twice the threshold. */
export function shelfRow(first) {
  const left = h("span", { class: "left" });
  const bar = h("span", { class: "bar-fill" });
  const more = h("span", { class: "sub" });
  return {
    node: h(
      "li",
      { class: "row shelf", "data-product": first.productId },
      h("span", { class: "name", title: first.productId }, first.name || first.productId),
      left,
      h("span", { class: "bar", "aria-hidden": "true" }, bar, h("span", { class: "bar-mark" })),
      more,
    ),
    show(product) {
      const { available, threshold, reserved } = product;
      say(left, available > 0 ? t("low_left", { available: count(available) }) : t("low_sold_out"));
      left.classList.toggle("out", available <= 0);
      bar.style.setProperty("width", `${Math.min(100, (100 * available) / Math.max(1, 2 * threshold))}%`);
      bar.classList.toggle("fine", !product.low);
      const parts = [
        t("low_threshold", { n: count(threshold) }),
        reserved && t("low_reserved", { n: count(reserved) }),
      ];
      say(more, parts.filter(Boolean).join(" · "));
    },
  };
}
