// Products that are low.

import { h } from "../dom.js";
import { lowStockPanel } from "../panels/low_stock.js";

export function stockView(scope) {
  return h("div", { class: "page" }, lowStockPanel(scope, { all: true }));
}
