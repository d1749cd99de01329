// One order: where it stands, its timeline as a picture, what it is of. What an operator does with it stands at the top.

import { h } from "../dom.js";
import { clock, count, moment, money } from "../format.js";
import { t } from "../i18n.js";
import { apiLink, panel, stateMark, why } from "../panels/panel.js";
import { timeline } from "../panels/timeline.js";
import { get } from "../state.js";

const EVERY = 10; // seconds, where there is no feed

export function orderView(scope, { id }) {
  const path = `/api/orders/${encodeURIComponent(id)}`;
  const picture = timeline(scope);
  const head = h("div", { class: "order-head" });
  const facts = h("div", { class: "order-facts" });
  const times = panel({ name: "order_timeline", text: t("order_timeline_text") }, picture.node);
  const node = h(
    "div",
    { class: "page order" },
    h("a", { class: "back", href: "#/" }, "← ", t("back")),
    head,
    h("div", { class: "order-body" }, times, facts),
  );
  const deadline = h("span", { class: "deadline" });
  let order = null;

  const tick = () => {
    const left = order?.deadline ? (Date.parse(order.deadline) - Date.now()) / 1000 : null;
    deadline.textContent = left === null ? "" : t("order_wait", { clock: clock(left) });
    deadline.hidden = left === null;
  };
  const asked = scope.poll(path, EVERY, told, failed);
  asked.needed = () => get("feed") !== "live";
  scope.on("orders", (came) => came.some((each) => each.orderId === id) && asked.now());
  scope.on("feed", (feed) => feed === "live" && asked.now());
  scope.on("reload", () => asked.now());
  scope.every(1000, tick);

  function told(found) {
    order = found;
    times.hidden = facts.hidden = false;
    head.replaceChildren(...heading(order, path, deadline));
    facts.replaceChildren(linesOf(order), paymentsOf(order), factsOf(order));
    picture.show(order.timeline);
    tick();
  }
  function failed(error) {
    if (order) return;
    times.hidden = facts.hidden = true;
    const unknown = error.status === 404;
    head.replaceChildren(
      h("h1", {}, unknown ? t("order_none", { id }) : t("order_of", { id })),
      h(
        "p",
        { class: unknown ? "nothing" : "problem" },
        unknown ? t("order_none_text") : t("trouble", { why: error.problem?.detail || t("away") }),
      ),
    );
  }
  return node;
}

function heading(order, path, deadline) {
  return [
    h(
      "div",
      { class: "order-title" },
      h("h1", {}, h("span", { class: "unseen" }, t("order"), " "), h("span", { class: "id" }, order.orderId)),
      stateMark(order.state),
      deadline,
    ),
    h("div", { class: "order-actions" }, apiLink(path, t("order_of", { id: order.orderId }))),
    h(
      "dl",
      { class: "facts wide" },
      fact("total", money(order.total, order.currency)),
      fact("customer", order.customerId || t("none")),
      fact("units", count(order.units)),
      fact("created", moment(order.createdAt)),
      fact("updated", moment(order.updatedAt)),
    ),
    order.attention && h("p", { class: "callout plum" }, why(order.attention)),
    order.cancelReason &&
      h(
        "p",
        { class: "callout clay" },
        t("cancel_reason"),
        ": ",
        order.cancelReason,
        order.cancelledBy && ` (${t("cancelled_by", { who: order.cancelledBy })})`,
      ),
  ].filter(Boolean);
}

function fact(name, value) {
  return value && h("div", {}, h("dt", {}, t(name)), h("dd", {}, value));
}

function linesOf(order) {
  const status = new Map(order.products.map((product) => [product.productId, product]));
  const rows = order.lines.map((line) =>
    h(
      "li",
      { class: "row line" },
      h("span", { class: "name" }, line.productName || line.productId),
      h(
        "span",
        { class: "sum" },
        t("quantity", { n: count(line.quantity) }),
        " ",
        money(line.unitPrice, order.currency),
      ),
      h(
        "span",
        { class: "sub" },
        [line.productId, status.has(line.productId) && t(`status_${status.get(line.productId).status}`)]
          .filter(Boolean)
          .join(" · "),
      ),
    ),
  );
  return panel({ name: "order_lines" }, h("ul", { class: "rows", role: "list" }, rows));
}

function paymentsOf(order) {
  const rows = order.payments.map((payment) =>
    h(
      "li",
      { class: "row line" },
      h("span", { class: "id", title: payment.paymentId }, payment.paymentId),
      h("span", { class: "sum" }, money(payment.amount, order.currency)),
      payment.refundRequested && h("span", { class: "sub clay" }, t("refund_asked")),
    ),
  );
  const attempts = order.paymentAttempts ? t("payment_attempts", { n: order.paymentAttempts }) : t("none");
  return panel({ name: "order_payments", text: attempts }, h("ul", { class: "rows", role: "list" }, rows));
}

function factsOf(order) {
  return panel(
    { name: "order_facts" },
    h(
      "dl",
      { class: "facts" },
      fact("reserved_until", moment(order.reservedUntil)),
      fact("dialect", order.dialect.toUpperCase()),
      fact("trace", h("code", {}, order.traceId)),
      fact("correlation", order.correlationId && h("code", {}, order.correlationId)),
      order.parkedFacts > 0 && fact("parked_facts", count(order.parkedFacts)),
    ),
  );
}
