// Messages that could not be used: how many are open, and why.

import { h, list, say } from "../dom.js";
import { ago, count } from "../format.js";
import { t } from "../i18n.js";
import { nothing, panel } from "./panel.js";

const LIST = "/api/dead-letters?state=open&limit=4";

export function lettersPanel(scope) {
  const rows = h("ul", { class: "rows", role: "list" });
  const reasons = h("ul", { class: "reasons-count", role: "list" });
  const empty = nothing(t("letters_none"));
  const number = h("span", { class: "tally clay", hidden: true });
  const asked = scope.poll(LIST, 10, (page) => {
    const open = page.states.open ?? 0;
    empty.hidden = open > 0;
    number.hidden = open === 0;
    say(number, t("letters_open", { n: open }));
    list(reasons, Object.entries(page.reasons).slice(0, 4), ([reason]) => reason, reasonRow);
    list(rows, page.items, (letter) => letter.id, letterRow);
  });
  scope.on("letters", () => asked.now());
  return panel({ name: "letters", api: LIST, note: number }, reasons, rows, empty);
}

function reasonRow([reason]) {
  const number = h("span", { class: "number" });
  return { node: h("li", {}, number, " ", reason), show: ([, many]) => say(number, count(many)) };
}

function letterRow(letter) {
  const at = h("span", { class: "at" });
  return {
    node: h(
      "li",
      { class: "row letter" },
      h(
        "a",
        { class: "id", href: `/api/dead-letters/${encodeURIComponent(letter.id)}`, title: letter.error },
        letter.subject || letter.topic,
      ),
      at,
      h("span", { class: "sub" }, letter.error),
    ),
    show: () => say(at, ago(letter.at)),
  };
}
