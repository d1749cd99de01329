// Orders by minute in the last hour: what came, and how it ended.

import { bars, Chart } from "../charts.js";
import { h } from "../dom.js";
import { count } from "../format.js";
import { t } from "../i18n.js";
import { nothing, panel } from "./panel.js";

const AT_LEAST = 15; // minutes on the picture

export function pacePanel(scope) {
  let rows = [];
  const cell = (name) => (at) => rows[at]?.[name];
  const chart = new Chart(
    scope,
    [
      // Stacked: what is behind is the sum.
      {
        label: t("cancelled"),
        colour: "clay",
        paths: bars,
        fill: 0.75,
        width: 0,
        format: count,
        tells: cell("cancelled"),
      },
      {
        label: t("confirmed"),
        colour: "olive",
        paths: bars,
        fill: 1,
        width: 0,
        format: count,
        tells: cell("confirmed"),
      },
      { label: t("opened"), colour: "ink", width: 1.5, format: count, tells: cell("opened") },
    ],
    {
      scale: { range: (_, __, most) => [0, Math.max(4, most * 1.1)] },
      axis: { values: (_, splits) => splits.map((each) => (Number.isInteger(each) ? count(each) : "")) },
    },
  );
  const empty = nothing(t("chart_none"));
  scope.on("hour", ({ minutes }) => {
    const first = minutes.findIndex((row) => row.opened || row.confirmed || row.cancelled);
    rows = minutes.slice(first < 0 ? 0 : Math.max(0, Math.min(first - 1, minutes.length - AT_LEAST)));
    empty.hidden = first >= 0;
    const data = [
      rows.map((row) => row.timeMs / 1000),
      rows.map((row) => row.confirmed + row.cancelled),
      rows.map((row) => row.confirmed),
      rows.map((row, place) => (place < rows.length - 1 ? row.opened : null)), // the last minute is not over
    ];
    chart.show(
      data,
      t(
        "chart_pace",
        Object.fromEntries(["opened", "confirmed", "cancelled"].map((name) => [name, count(rows.at(-2)?.[name] ?? 0)])),
      ),
    );
  });
  return panel(
    { name: "pace", api: "/api/analytics/orders?bucket=minute", text: t("pace_text") },
    h("div", { class: "chart-frame" }, chart.place, empty),
    chart.legend,
  );
}
