// Lists that the feed keeps up to date: orders that need attention, products that are low, what changed last. A list is
// asked for once, and again only when the feed could not tell everything.

import { get, on, set } from "./state.js";
import { poll } from "./poll.js";

const SHOWN = 100;
const MOST = 400; // that are kept of those that come
const LATEST = 40;
const WITHOUT_FEED = 15; // seconds

/** A list by its API path; `topic` of the feed brings rows, `key` names them, `wanted` tells which belong to it. */
function kept({ name, path, topic, key, wanted, order }) {
  let rows = new Map();
  let more = false;
  let since = []; // what the feed told while the list was asked for: the answer may be older
  const told = () => {
    const sorted = [...rows.values()].sort(order);
    for (const row of sorted.splice(MOST)) more = rows.delete(row[key]);
    set(name, { rows: sorted, more });
  };
  const asked = poll(path, WITHOUT_FEED, (page) => {
    rows = new Map(page.items.map((row) => [row[key], row]));
    more = page.nextCursor !== null;
    for (const { row, at } of since) if (at >= asked.began) changed(row);
    since = [];
    told();
  });
  asked.needed = () => get("feed") !== "live";
  on("reload", () => asked.now());
  on("feed", () => asked.now());
  on(topic, (came) => {
    const at = performance.now();
    if (asked.asking) since.push(...came.map((row) => ({ row, at })));
    if (came.filter(changed).length && get(name)) told();
  });

  /** Whether the row changes the list. */
  function changed(row) {
    if (!wanted(row)) return rows.delete(row[key]);
    rows.set(row[key], row);
    return true;
  }
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
