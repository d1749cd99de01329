// All orders that need a person.

import { h } from "../dom.js";
import { attentionPanel } from "../panels/attention.js";

export function attentionView(scope) {
  return h("div", { class: "page" }, attentionPanel(scope, { all: true }));
}
