// One order's way as a picture: who said what to whom, from above to below. Long pauses are drawn short, and told.

import { h, s } from "../dom.js";
import { precise, span } from "../format.js";
import { has, t } from "../i18n.js";

const LANES = ["orders", "payments", "saga", "stock", "mail"];
const STOCK = new Set(["Reserve", "Reserved", "Refused", "Release", "Commit", "Return"]);
const MAIL = new Set(["SendMail", "MailDelivered", "MailFailed", "notification.email.sent"]);
const GOOD =
  /^(payment\.succeeded|order\.confirmed|order\.delivered|Reserved|Commit|MailDelivered|inventory\.stock\.reserved)/;
const BAD = /^(payment\.failed|order\.cancelled|Refused|MailFailed|inventory\.out_of_stock)/;
const BACK = /^(Release|Return|payment\.refund|inventory\.stock\.released)/;
const PAUSE = 0.05; // seconds from which on a pause is drawn
const NARROW = 620;

/** A picture of the steps, which `show` changes. */
export function timeline(scope) {
  const node = h("div", { class: "timeline" });
  let steps = [];
  let width = 0;
  const draw = () => width && node.replaceChildren(...picture(steps, width));
  scope.width(node, (now) => {
    width = now;
    draw();
  });
  return {
    node,
    show(now) {
      steps = now;
      draw();
    },
  };
}

function picture(steps, width) {
  const size = sizes(width);
  const rows = laidOut(steps, size);
  const height = (rows.at(-1)?.end ?? size.head) + 8;
  const svg = s("svg", {
    class: "lanes",
    width: size.lanes,
    height,
    viewBox: `0 0 ${size.lanes} ${height}`,
    role: "img",
    "aria-label": t("timeline_label"),
  });
  svg.append(...lifelines(rows, size, height), ...rows.filter((row) => row.step).map((row) => arrow(row, size)));
  const list = h(
    "ol",
    { role: "list", css: { "padding-top": `${size.head}px` } },
    rows.map((row) => textOf(row, size)),
  );
  return [
    h(
      "div",
      { class: `timeline-grid${size.narrow ? " narrow" : ""}`, css: { "--lanes": `${size.lanes}px` } },
      svg,
      list,
    ),
  ];
}

function sizes(width) {
  const narrow = width < NARROW;
  const apart = narrow ? 31 : Math.min(112, (width * 0.5) / LANES.length);
  const edge = narrow ? 14 : 44;
  return {
    narrow,
    edge,
    apart,
    lanes: 2 * edge + apart * (LANES.length - 1),
    head: narrow ? 62 : 40,
    row: narrow ? 50 : 38,
  };
}

/** Rows from above to below: the steps, and the pauses between them. */
function laidOut(steps, { head, row }) {
  const rows = [];
  let y = head;
  let before = null;
  for (const step of steps) {
    const at = Date.parse(step.at) / 1000;
    const pause = before === null ? 0 : at - before;
    if (pause >= PAUSE) {
      const height = Math.min(78, 30 + 12 * Math.log10(pause / PAUSE));
      rows.push({ pause, y, height, end: (y += height) });
    }
    rows.push({ step, y, height: row, end: (y += row), again: before !== null && pause < 0.0005 });
    before = at;
  }
  return rows;
}

function laneOf(what) {
  if (STOCK.has(what)) return "stock";
  if (MAIL.has(what) || what.startsWith("notification.")) return "mail";
  if (what === "DeadlineReached") return "saga";
  return what.startsWith("payment.") || what.startsWith("order.payment") ? "payments" : "orders";
}

function kindOf({ what }) {
  return BAD.test(what)
    ? "bad"
    : BACK.test(what)
      ? "back"
      : GOOD.test(what)
        ? "good"
        : what === "DeadlineReached"
          ? "time"
          : "plain";
}

function placeOf(lane, { edge, apart }) {
  return edge + LANES.indexOf(lane) * apart;
}

function lifelines(rows, size, height) {
  const used = new Set(["saga", ...rows.filter((row) => row.step).map((row) => laneOf(row.step.what))]);
  return LANES.map((lane) => {
    const x = placeOf(lane, size);
    const label = size.narrow
      ? s(
          "text",
          { x, y: size.head - 14, transform: `rotate(-42 ${x} ${size.head - 14})`, class: "lane-name" },
          t(`lane_${lane}`),
        )
      : s("text", { x, y: 18, "text-anchor": "middle", class: "lane-name" }, t(`lane_${lane}`));
    return s(
      "g",
      { class: `lane ${lane}${used.has(lane) ? "" : " unused"}` },
      label,
      s("line", { x1: x, x2: x, y1: size.head - 8, y2: height, class: "lane-line" }),
      rows
        .filter((row) => row.pause)
        .map((row) => s("line", { x1: x, x2: x, y1: row.y + 6, y2: row.end - 6, class: "lane-pause" })),
    );
  });
}

/** From who said it to who heard it. */
function arrow({ step, y, height }, size) {
  const middle = y + height / 2;
  const saga = placeOf("saga", size);
  const lane = laneOf(step.what);
  const other = placeOf(lane, size);
  const kind = kindOf(step);
  if (lane === "saga") {
    return s(
      "g",
      { class: `step ${kind}` },
      s("circle", { cx: saga, cy: middle, r: 7, class: "clock-face" }),
      s("path", { d: `M${saga} ${middle - 4}V${middle}H${saga + 3.5}`, class: "hands" }),
    );
  }
  const [from, to] = step.direction === "in" ? [other, saga] : [saga, other];
  const way = Math.sign(to - from);
  const tip = to - way * 6;
  return s(
    "g",
    { class: `step ${kind} ${step.direction}` },
    s("line", { x1: from, x2: tip - way * 4, y1: middle, y2: middle, class: "arrow" }),
    s("path", {
      d: `M${tip - way * 7} ${middle - 4.5}L${tip} ${middle}L${tip - way * 7} ${middle + 4.5}Z`,
      class: "tip",
    }),
    s("circle", { cx: from, cy: middle, r: 4, class: "from" }),
  );
}

function textOf(row, { narrow }) {
  const css = { height: `${row.height}px` };
  if (row.pause) return h("li", { class: "pause", css }, h("span", {}, t("later", { span: span(row.pause) })));
  const { what, detail, direction, at } = row.step;
  const time = h("time", { datetime: at, class: row.again ? "again" : null }, precise(at));
  return h(
    "li",
    { class: `step ${kindOf(row.step)}`, css },
    !narrow && time,
    h(
      "span",
      { class: "said" },
      h("span", { class: "what" }, has(`what_${what}`) ? t(`what_${what}`) : what),
      h("span", { class: "unseen" }, ` ${t(`step_${direction}`)} `),
      h("span", { class: "detail", title: detail || null }, detail, narrow && [detail && " · ", time]),
    ),
  );
}
