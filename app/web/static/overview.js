// The one poll that tells how all is: orders by state, workers, what waits; and from one answer to the next, how fast.

import { ask } from "./api.js";
import { hurry } from "./live.js";
import { poll } from "./poll.js";
import { get, set } from "./state.js";

const EVERY = 2; // seconds
const KEPT = 90; // samples
const WEIGHT = 0.45; // of the newest in what is shown

let before = null;
let pace = { orders: [], events: [] };

/** Begin. Topics: `overview`; `pace`: orders and events a second; `server`: {kind, reasons} and when it last answered. */
export function watchOverview() {
  poll("/api/overview", EVERY, answered, failed);
}

async function answered(overview) {
  const was = get("server")?.kind;
  count(overview);
  set("overview", overview);
  const kind = overview.stale ? "stale" : overview.partial ? "partial" : "well";
  set("server", {
    kind,
    reasons: overview.stale ? await reasons() : {},
    lag: overview.lag,
    missing: overview.missingPartitions,
    at: new Date(),
  });
  if (was !== undefined && was !== kind && (was === "away" || was === "not-ready")) hurry();
}

async function failed(error) {
  before = null;
  const at = get("server")?.at ?? null;
  if (error.status === 503)
    set("server", { kind: "not-ready", reasons: { ...(await reasons(error.problem.reasons)) }, at });
  else if (error.status === 0) set("server", { kind: "away", reasons: {}, at });
  else set("server", { kind: "away", reasons: { status: error.message }, at });
}

/** Why the worker is not ready, as it says itself. */
async function reasons(known = {}) {
  try {
    await ask("/ready");
    return known;
  } catch (error) {
    return error.problem?.reasons ?? known;
  }
}

/** A worker that began anew counts from 0 again; one that is new has not done all of it since the last answer. */
function count(overview) {
  const now = performance.now();
  const workers = new Map(overview.items.map((worker) => [`${worker.worker} ${worker.startedAt}`, worker]));
  if (before && now - before.at > 300) {
    const seconds = (now - before.at) / 1000;
    const done = (name) =>
      [...workers].reduce(
        (sum, [key, worker]) => sum + (before.workers.has(key) ? worker[name] - before.workers.get(key)[name] : 0),
        0,
      );
    pace = {
      orders: added(pace.orders, done("started") / seconds),
      events: added(pace.events, done("processed") / seconds),
    };
    set("pace", pace);
  }
  if (!before || now - before.at > 300) before = { at: now, workers };
}

/** What the workers have of it together. */
export function sum(workers, name) {
  return workers.reduce((total, worker) => total + worker[name], 0);
}

function added(samples, sample) {
  const last = samples.at(-1) ?? sample;
  const next = last * (1 - WEIGHT) + sample * WEIGHT;
  return [...samples, next < 0.05 ? 0 : next].slice(-KEPT);
}
