// The live feed: changes of rows as they are committed. It comes back by itself at the place where it was, rests while
// the page is not looked at, and tells what came once a frame. Without a feed the page lives by its polls.

import { get, set, tell } from "./state.js";

const KINDS = { order: "orders", stock: "stock", "dead-letter": "letters" };
const RESTS_AFTER = 20_000; // ms in a hidden tab
const LONGEST = 15_000;
const WITHOUT = 60_000; // ms until a worker without a feed, or with too many clients, is asked again

let source = null;
let last = null;
let failures = 0;
let timer = 0;
let frame = 0;
const waiting = { orders: [], stock: [], letters: [] };

/** Connect, and stay so. Topic `feed`: connecting, live, away, none. Topic `reload`: more changed than was told. */
export function startFeed() {
  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(close, RESTS_AFTER);
    else if (!source) connect();
  });
  connect();
}

function connect() {
  clearTimeout(timer);
  close();
  if (document.hidden) return;
  if (get("feed") !== "live") set("feed", "connecting");
  const query = last === null ? "" : `?after=${encodeURIComponent(last)}`;
  source = new EventSource(`/api/live${query}`);
  source.addEventListener("hello", (event) => {
    failures = 0;
    remember(event);
    set("feed", "live");
    if (last === null || !JSON.parse(event.data).resumed) tell("reload");
  });
  for (const [kind, topic] of Object.entries(KINDS)) {
    source.addEventListener(kind, (event) => {
      remember(event);
      waiting[topic].push(JSON.parse(event.data));
      if (!frame) frame = requestAnimationFrame(tellWaiting);
    });
  }
  source.addEventListener("restart", (event) => {
    last = null;
    remember(event);
    tell("reload");
  });
  source.addEventListener("dropped", () => again(2_000));
  source.addEventListener("error", () => {
    // By itself a browser comes back to a stream that ended, and not to one that was refused.
    if (source?.readyState === EventSource.CLOSED) refused();
    else again(500);
  });
}

/** An answer that is no stream: no worker, or one that has no feed (for us). */
async function refused() {
  close();
  const answer = await fetch("/health", { cache: "no-store" }).catch(() => null);
  if (answer === null) again(1_000);
  else if (failures < 2) again(1_000);
  else {
    set("feed", "none");
    timer = setTimeout(connect, WITHOUT);
  }
}

function again(least) {
  close();
  set("feed", "away");
  failures += 1;
  const wait = Math.min(LONGEST, least * 2 ** Math.min(failures - 1, 5));
  timer = setTimeout(connect, wait * (0.75 + Math.random() / 2));
}

/** Come back at once, where it waits to: the worker answers again. */
export function hurry() {
  if (source) return;
  failures = 0;
  connect();
}

function remember(event) {
  if (event.lastEventId) last = event.lastEventId;
}

function tellWaiting() {
  frame = 0;
  for (const topic of Object.keys(waiting)) {
    const came = waiting[topic];
    if (!came.length) continue;
    waiting[topic] = [];
    tell(topic, came);
  }
}

function close() {
  source?.close();
  source = null;
}
