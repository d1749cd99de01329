// uPlot in the page's colours and words. What a chart shows is decided by its panel.

import uPlot from "./vendor/uplot-1.6.32/uPlot.esm.js";
import { h, say } from "./dom.js";
import { minute } from "./format.js";
import { colour, onSystemTheme } from "./theme.js";

const HEIGHT = 210;
const QUARTER = 14 * 60;
const systemThemes = new Set();
onSystemTheme(() => systemThemes.forEach((redraw) => redraw()));

/**
 * A chart over time with a legend that tells the figures under the pointer, or else the last ones.
 * series: [{label, colour, format, ...uPlot's own}]; y: options of its axis and scale.
 */
export class Chart {
  constructor(scope, series, { axis, scale }) {
    this.series = series;
    this.options = { axis, scale };
    this.data = null;
    this.place = h("div", { class: "chart", role: "img" });
    this.values = series.map(() => h("span", { class: "value" }, "–"));
    this.legend = h(
      "ul",
      { class: "legend", role: "list" },
      (this.at = h("li", { class: "at" })),
      series.map((each, place) => h("li", { class: each.colour }, each.label, " ", this.values[place])),
    );
    scope.width(this.place, (width) => (this.plot ? this.plot.setSize({ width, height: HEIGHT }) : this.#make(width)));
    const again = () => this.plot && this.#make(this.plot.width);
    systemThemes.add(again);
    scope.finally(() => {
      systemThemes.delete(again);
      this.plot?.destroy();
    });
  }

  /** [times in seconds, values of each series ...]; `label` says it in words. */
  show(data, label) {
    this.data = data;
    this.place.setAttribute("aria-label", label);
    this.plot?.setData(data);
    this.#tell(null);
  }

  #make(width) {
    this.plot?.destroy();
    const [soft, line] = [colour("soft"), colour("line")];
    const font = '12px system-ui, "Segoe UI", Roboto, sans-serif';
    const axis = { stroke: soft, font, ticks: { show: false }, grid: { stroke: line, width: 1 } };
    this.plot = new uPlot(
      {
        width,
        height: HEIGHT,
        legend: { show: false },
        padding: [10, 16, 0, 0],
        cursor: { y: false, points: { size: 6 }, drag: { setScale: false, x: false, y: false } },
        hooks: { setCursor: [(plot) => this.#tell(plot.cursor.idx)] },
        scales: { x: { time: true, range: () => atLeast(this.data?.[0] ?? []) }, y: this.options.scale },
        axes: [
          { ...axis, grid: { show: false }, values: (_, splits) => splits.map(minute), space: 64, size: 30 },
          { ...axis, size: 56, gap: 8, ...this.options.axis },
        ],
        series: [
          {},
          ...this.series.map((each) => ({
            width: 2,
            points: { show: false },
            ...each,
            stroke: colour(each.colour),
            fill: each.fill ? colour(each.colour, each.fill) : undefined,
          })),
        ],
      },
      this.data ?? [[], ...this.series.map(() => [])],
      this.place,
    );
  }

  #tell(place) {
    if (!this.data) return;
    const at = place ?? this.data[0].length - 1;
    for (const [number, each] of this.series.entries()) {
      const row = each.tells ? each.tells(at) : this.data[number + 1][at];
      say(this.values[number], each.format(row));
    }
    say(this.at, at >= 0 && this.data[0].length ? minute(this.data[0][at]) : "");
  }
}

/** From the first to the last of the times, at least a quarter of an hour, and half a minute on either side. */
function atLeast(times) {
  const last = times.at(-1) ?? Date.now() / 1000;
  return [Math.min(times[0] ?? last, last - QUARTER) - 30, last + 30];
}

export const bars = uPlot.paths.bars({ size: [0.72, 26], radius: 0.15 });
export const smooth = uPlot.paths.spline();
