// Who works, and who has which partition of each table.

import { h, list, say } from "../dom.js";
import { count, since } from "../format.js";
import { t } from "../i18n.js";
import { panel } from "./panel.js";

const COLOURS = 6;

export function workersPanel(scope) {
  const workers = h("ul", { class: "rows", role: "list" });
  const tables = h("div", { class: "tables" });
  scope.on("overview", ({ items, partitions }) => {
    list(
      workers,
      items.map((worker, place) => ({ ...worker, place })),
      (worker) => `${worker.worker} ${worker.place}`,
      workerRow,
    );
    list(
      tables,
      Object.entries(partitions).map(([table, total]) => ({ table, total, items })),
      ({ table }) => table,
      tableRow,
    );
  });
  return panel({ name: "workers", api: "/api/overview" }, workers, tables);
}

function workerRow({ worker, place, startedAt }) {
  const rows = h("span", { class: "at" });
  return {
    node: h(
      "li",
      { class: "row worker" },
      h("span", { class: `swatch worker-${place % COLOURS}` }, String(place + 1)),
      h("span", { class: "name" }, worker),
      rows,
      h("span", { class: "sub" }, t("worker_since", { at: since(startedAt) })),
    ),
    show(now) {
      const total = Object.values(now.rows).reduce((sum, each) => sum + each, 0);
      say(rows, t("rows", { n: count(total), number: total }));
    },
  };
}

function tableRow({ table }) {
  const squares = h("ol", { class: "squares", role: "list" });
  return {
    node: h("div", { class: "table-row" }, h("span", { class: "name" }, t(`table_${table}`)), squares),
    show({ total, items }) {
      const owner = (partition) => items.findIndex((worker) => worker.partitions[table]?.includes(partition));
      const found = Array.from({ length: total }, (_, partition) => ({ partition, place: owner(partition) }));
      list(
        squares,
        found,
        ({ partition, place }) => `${partition} ${place}`,
        ({ partition, place }) => {
          const text =
            place < 0
              ? t("partition_nobody", { n: partition })
              : t("partition_of", { n: partition, worker: items[place].worker });
          const kind = place < 0 ? "nobody" : `worker-${place % COLOURS}`;
          return {
            node: h(
              "li",
              { class: `square ${kind}`, title: text },
              h("span", { class: "unseen" }, text),
              h("span", { "aria-hidden": "true" }, place < 0 ? "?" : String(place + 1)),
            ),
          };
        },
      );
    },
  };
}
