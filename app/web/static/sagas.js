// How orders move through the saga, as far as the feed tells: which way an order took since it was seen last, and how
// many take each way in a second.

import { get, on, tell } from "./state.js";

/** The ways between states. kind: how it is drawn. */
export const WAYS = [
  { from: "new", to: "reserving", kind: "on" },
  { from: "parked", to: "reserving", kind: "on" },
  { from: "reserving", to: "awaiting_payment", kind: "on" },
  { from: "awaiting_payment", to: "payment_retry", kind: "again" },
  { from: "payment_retry", to: "awaiting_payment", kind: "again" },
  { from: "awaiting_payment", to: "confirming", kind: "on" },
  { from: "confirming", to: "confirmed", kind: "good" },
  { from: "awaiting_payment", to: "confirmed", kind: "good" },
  { from: "confirmed", to: "completed", kind: "good" },
  { from: "reserving", to: "cancelled", kind: "lost" },
  { from: "awaiting_payment", to: "cancelled", kind: "lost" },
  { from: "payment_retry", to: "cancelled", kind: "lost" },
  { from: "awaiting_payment", to: "cancelling", kind: "lost" },
  { from: "cancelling", to: "cancelled", kind: "lost" },
  { from: "completed", to: "cancelled", kind: "lost" },
  { from: "cancelled", to: "closed", kind: "lost" },
].map((way) => ({ ...way, id: `${way.from}-${way.to}` }));

export const STATES = [
  "parked",
  "reserving",
  "awaiting_payment",
  "payment_retry",
  "confirming",
  "confirmed",
  "completed",
  "cancelling",
  "cancelled",
  "closed",
];

const KEPT = 20_000; // orders whose state is remembered
const SECONDS = 6; // over which a rate is an average
const TICK = 500; // ms

const routes = shortest();
const seen = new Map();
const counts = new Map(WAYS.map((way) => [way.id, 0]));
export const rates = new Map(WAYS.map((way) => [way.id, 0]));

/** For each pair of states, the ways that lead from one to the other; of several, the fewest. */
function shortest() {
  const found = new Map();
  for (const start of ["new", ...STATES]) {
    const paths = new Map([[start, []]]);
    for (const [place, path] of paths) {
      for (const way of WAYS) if (way.from === place && !paths.has(way.to)) paths.set(way.to, [...path, way]);
    }
    for (const [end, path] of paths) found.set(`${start}-${end}`, path);
  }
  return found;
}

/** The ways that an order took to `state`, since it was seen last. A page that has just come may not have seen it. */
function taken(order) {
  const before =
    seen.get(order.orderId) ?? (Date.parse(order.updatedAt) - Date.parse(order.createdAt) < 2000 ? "new" : null);
  if (before === null || before === order.state) return [];
  return routes.get(`${before}-${order.state}`) ?? [];
}

/** Follow the feed. Topic `moves`: the ways that orders took just now; topic `rates`: how many a second. */
export function followSagas() {
  on("orders", (orders) => {
    const moves = [];
    for (const order of orders) {
      for (const way of taken(order)) {
        counts.set(way.id, counts.get(way.id) + 1);
        moves.push(way);
      }
      seen.delete(order.orderId);
      seen.set(order.orderId, order.state);
      if (seen.size > KEPT) seen.delete(seen.keys().next().value);
    }
    if (moves.length) tell("moves", moves);
  });
  const weight = 1 - Math.exp(-TICK / 1000 / SECONDS);
  const sums = new Map(WAYS.map((way) => [way.id, 0]));
  let known = 0; // how much of a whole average the ticks so far are
  setInterval(() => {
    if (get("feed") !== "live" && !known) return;
    known += (1 - known) * weight;
    for (const way of WAYS) {
      const now = (counts.get(way.id) * 1000) / TICK;
      const next = sums.get(way.id) * (1 - weight) + now * weight;
      sums.set(way.id, next);
      rates.set(way.id, next / known < 0.02 ? 0 : next / known);
      counts.set(way.id, 0);
    }
    if (!document.hidden) tell("rates", rates);
  }, TICK);
}
