// The figures at the top: how much, how fast, how well.

import { h, s, say } from "../dom.js";
import { count, percent, rate, span } from "../format.js";
import { t } from "../i18n.js";

const [WIDTH, HEIGHT] = [132, 34];

export function figuresPanel(scope) {
  const orders = figure("orders_per_second", { unit: t("per_second"), line: true });
  const events = figure("events_per_second", { unit: t("per_second"), line: true });
  const confirmed = figure("confirmed_part");
  const reserved = figure("to_reserved");
  const toConfirmed = figure("to_confirmed");
  const waiting = figure("waiting");
  scope.on("pace", ({ orders: started, events: processed }) => {
    orders.show(rate(started.at(-1) ?? null));
    orders.draw(started);
    events.show(rate(processed.at(-1) ?? null));
    events.draw(processed);
  });
  scope.on("hour", ({ whole }) => {
    confirmed.show(
      percent(whole.conversion),
      whole.opened ? t("confirmed_of", { part: count(whole.confirmed), all: count(whole.opened) }) : t("last_hour"),
    );
  });
  scope.on("steps", ({ recent }) => {
    for (const [shown, step] of [
      [reserved, "reserved"],
      [toConfirmed, "confirmed"],
    ]) {
      const row = recent.find((each) => each.step === step);
      shown.show(span(row?.p50), row ? `${t("p95", { span: span(row.p95) })}` : t("last_15"));
    }
  });
  scope.on("overview", ({ lag }) => waiting.show(count(lag), t("waiting_text", { n: lag })));
  const all = [orders, events, confirmed, reserved, toConfirmed, waiting];
  return h(
    "dl",
    { class: "figures" },
    all.map((each) => each.node),
  );
}

function figure(name, { unit, line } = {}) {
  const number = h("span", { class: "number" }, "–");
  const sub = h("span", { class: "sub" });
  const drawn = s("path", { class: "spark-line" });
  const under = s("path", { class: "spark-area" });
  const picture =
    line &&
    s(
      "svg",
      {
        class: "spark",
        viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
        role: "img",
        "aria-label": t("sparkline"),
        preserveAspectRatio: "none",
      },
      under,
      drawn,
    );
  return {
    node: h(
      "div",
      { class: `figure ${name}` },
      h("dt", {}, t(name)),
      h(
        "dd",
        {},
        h("span", { class: "value" }, number, unit && h("span", { class: "unit" }, unit)),
        picture,
        !line && sub,
      ),
    ),
    show(text, below) {
      say(number, text);
      if (below !== undefined) say(sub, below);
    },
    draw(values) {
      const top = Math.max(1, ...values) * 1.1;
      const step = WIDTH / 89;
      const from = WIDTH - (values.length - 1) * step;
      const points = values.map(
        (value, place) =>
          `${(from + place * step).toFixed(1)} ${(HEIGHT - 2 - (value / top) * (HEIGHT - 4)).toFixed(1)}`,
      );
      if (points.length < 2) return;
      drawn.setAttribute("d", `M${points.join("L")}`);
      under.setAttribute("d", `M${from.toFixed(1)} ${HEIGHT}L${points.join("L")}L${WIDTH} ${HEIGHT}Z`);
    },
  };
}
