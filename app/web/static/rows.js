// Lists that the feed keeps up to date: orders that need attention, products that are low, what changed last. A list is
// asked for once, and again only when the feed could not tell everything.

import { get, on, set } from "./state.js";
import { poll } from "./poll.js";

const SHOWN = 50;
const LATEST = 40;
const WITHOUT_FEED = 15; // seconds

/** A list by its API path; `topic` of the feed brings rows, `key` names them, `wanted` tells which belong to it. */
function kept({ name, path, topic, key, wanted, order }) {
  let rows = new Map();
  let more = false;
  const told = () => set(name, { rows: [...rows.values()].sort(order), more });
  const asked = poll(path, WITHOUT_FEED, (page) => {
    rows = new Map(page.items.map((row) => [row[key], row]));
    more = page.nextCursor !== null;
    told();
  });
  asked.needed = () => get("feed") !== "live";
  on("reload", () => asked.now());
  on("feed", () => asked.now());
  on(topic, (came) => {
    let changed = false;
    for (const row of came) {
      if (wanted(row)) changed = Boolean(rows.set(row[key], row));
      else changed = rows.delete(row[key]) || changed;
    }
    if (changed && get(name)) told();
  });
}

/** Begin to keep them. */
export function keepLists() {
  kept({
    name: "attention",
    path: `/api/orders?attention=true&limit=${SHOWN}`,
    topic: "orders",
    key: "orderId",
    wanted: (order) => order.attention !== null,
    order: (a, b) => (a.updatedAt < b.updatedAt ? 1 : -1),
  });
  kept({
    name: "low",
    path: `/api/inventory?low=true&limit=${SHOWN}`,
    topic: "stock",
    key: "productId",
    wanted: (product) => product.low,
    order: (a, b) => a.available - b.available || a.productId.localeCompare(b.productId),
  });
  on("orders", (came) => {
    const rows = new Map((get("latest") ?? []).map((row) => [row.orderId, row]));
    for (const row of came) {
      rows.delete(row.orderId);
      rows.set(row.orderId, row);
    }
    set("latest", [...rows.values()].sort((a, b) => (a.updatedAt < b.updatedAt ? 1 : -1)).slice(0, LATEST));
  });
}
