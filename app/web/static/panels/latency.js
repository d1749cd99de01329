// How long orders took, by minute: from created to reserved and to confirmed.

import { Chart, smooth } from "../charts.js";
import { h } from "../dom.js";
import { span } from "../format.js";
import { t } from "../i18n.js";
import { nothing, panel } from "./panel.js";

const SPLITS = [0.001, 0.01, 0.1, 1, 10, 60, 600];

export function latencyPanel(scope) {
  const chart = new Chart(
    scope,
    [
      { label: t("confirmed_p95"), colour: "amber", paths: smooth, format: span, dash: [5, 4] },
      { label: t("confirmed_p50"), colour: "olive", paths: smooth, format: span },
      { label: t("reserved_p50"), colour: "sky", paths: smooth, format: span },
    ].map((each) => ({ ...each, spanGaps: true, points: { show: true, size: 5, width: 1 } })),
    {
      scale: {
        distr: 3,
        range: (_, least, most) => [
          10 ** Math.floor(Math.log10(Math.max(0.001, least ?? 0.001))),
          10 ** Math.ceil(Math.log10(Math.max(0.1, (most ?? 0.1) * 1.05))),
        ],
      },
      axis: {
        splits: (_, __, least, most) => SPLITS.filter((each) => each >= least && each <= most),
        values: (_, splits) => splits.map(span),
      },
    },
  );
  const empty = nothing(t("chart_none"));
  scope.on("steps", ({ minutes }) => {
    const times = [...new Set(minutes.map((row) => row.timeMs))].sort((a, b) => a - b);
    const found = new Map(minutes.map((row) => [`${row.timeMs} ${row.step}`, row]));
    const of = (step, part) => times.map((at) => found.get(`${at} ${step}`)?.[part] ?? null);
    empty.hidden = times.length > 0;
    const [p95, p50, reserved] = [of("confirmed", "p95"), of("confirmed", "p50"), of("reserved", "p50")];
    chart.show(
      [times.map((at) => at / 1000), p95, p50, reserved],
      t("chart_latency", { reserved: span(reserved.at(-1)), confirmed: span(p50.at(-1)) }),
    );
  });
  return panel(
    { name: "latency", api: "/api/analytics/steps?bucket=minute", text: t("latency_text") },
    h("div", { class: "chart-frame" }, chart.place, empty),
    chart.legend,
  );
}
