// What orders do next by themselves, and when.

import { h, list, say } from "../dom.js";
import { clock, count } from "../format.js";
import { t } from "../i18n.js";
import { nothing, orderLink, panel } from "./panel.js";

const SHOWN = 6;

export function timersPanel(scope) {
  const rows = h("ul", { class: "rows", role: "list" });
  const empty = nothing(t("timers_none"));
  const number = h("span", { class: "tally", hidden: true });
  const due = h("span", { class: "tally clay", hidden: true });
  const path = `/api/timers?limit=${SHOWN}`;
  let items = [];
  const show = () => list(rows, items, (timer) => timer.orderId, timerRow);
  scope.poll(path, 4, ({ items: found, waiting, due: late }) => {
    items = found;
    empty.hidden = items.length > 0;
    number.hidden = !waiting;
    say(number, t("timers_text", { waiting: count(waiting) }));
    due.hidden = !late;
    say(due, t("timers_due", { n: count(late) }));
    show();
  });
  scope.every(1000, show);
  return panel({ name: "timers", api: path, note: [number, due] }, rows, empty);
}

function timerRow(first) {
  const left = h("span", { class: "clock" });
  const what = h("span", { class: "sub" });
  return {
    node: h("li", { class: "row timer" }, left, orderLink(first.orderId), what),
    show(timer) {
      const seconds = (Date.parse(timer.deadline) - Date.now()) / 1000;
      say(left, seconds > 0 ? clock(seconds) : t("due"));
      left.classList.toggle("late", seconds < -5);
      say(what, t(`timer_${timer.state}`));
    },
  };
}
