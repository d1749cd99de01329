// The frame of every panel: its title, a place for what an operator does there, and the list of the API behind it.

import { h } from "../dom.js";
import { has, t } from "../i18n.js";

const TAIL = 7; // characters

/** A section. name: its words and its class; api: its list; more: a link to a view of its own; note: beside the title. */
export function panel({ name, api, title = t(name), text, note, more, level = "h2" }, ...body) {
  return h(
    "section",
    { class: `card ${name}`, "aria-labelledby": `title-${name}` },
    h(
      "header",
      { class: "card-head" },
      h(
        "div",
        { class: "card-title" },
        h(level, { id: `title-${name}` }, title),
        note,
        text && h("p", { class: "sub" }, text),
      ),
      h("div", { class: "card-actions" }, more, api && apiLink(api, title)),
    ),
    ...body,
  );
}

/** The link to a panel's list of the API. */
export function apiLink(path, what) {
  return h("a", { class: "api", href: path, "aria-label": t("api_of", { what }) }, t("api"));
}

/** What stands where there is nothing. */
export function nothing(text) {
  return h("p", { class: "nothing" }, text);
}

/** The mark of an order's state. */
export function stateMark(state) {
  return h("span", { class: `state ${state}` }, t(`state_${state}`));
}

/** The link to an order's timeline. */
export function orderLink(id) {
  return h("a", { class: "id", href: `#/orders/${encodeURIComponent(id)}`, title: id }, shortened(id));
}

/** A text that loses its middle where there is no room for all of it: ids differ at their ends. */
function shortened(id) {
  const cut = Math.max(0, id.length - TAIL);
  return [h("span", { class: "id-head" }, id.slice(0, cut)), h("span", { class: "id-tail" }, id.slice(cut))];
}

/** Why a person should look, in words: the saga's own begin with one that is known. */
export function why(text) {
  return text
    .split("; ")
    .map((part) => {
      const [begin, ...rest] = part.split(": ");
      return has(`why_${begin}`) ? [t(`why_${begin}`), ...rest].join(": ") : part;
    })
    .join("; ");
}
