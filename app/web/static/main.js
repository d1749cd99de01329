// The page: which view is shown, the bar at the top, and what is said of the connection. Read this first.

import { h, say } from "./dom.js";
import { count, time } from "./format.js";
import { language, onLanguage, speak, t } from "./i18n.js";
import { startFeed } from "./live.js";
import { sum, watchOverview } from "./overview.js";
import { keepLists } from "./rows.js";
import { followSagas } from "./sagas.js";
import { Scope } from "./scope.js";
import { get, on } from "./state.js";
import { nextTheme, theme, wear } from "./theme.js";
import { attentionView } from "./views/attention.js";
import { orderView } from "./views/order.js";
import { ordersView } from "./views/orders.js";
import { overviewView } from "./views/overview.js";
import { stockView } from "./views/stock.js";

const VIEWS = { "": overviewView, orders: ordersView, attention: attentionView, stock: stockView };
const NAMES = { "": "overview", orders: "orders", attention: "attention", stock: "stock" };
const main = document.getElementById("main");
let scope = new Scope();
let bar = new Scope();

// ---- views ---------------------------------------------------------------------------------------------

/** #/orders/ID?x=y as {name, id, query}. */
function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  return {
    name: name in VIEWS ? name : "",
    id: rest.length ? decoded(rest.join("/")) : null,
    query: new URLSearchParams(query),
  };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function show() {
  const { name, id, query } = place();
  scope.end();
  scope = new Scope();
  const view = name === "orders" && id ? orderView : VIEWS[name];
  main.replaceChildren(view(scope, { id, query }));
  document.title = [id ?? t(NAMES[name]), t("title")].join(" · ");
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

addEventListener("hashchange", () => {
  show();
  scrollTo(0, 0);
  main.focus({ preventScroll: true });
});

// ---- the bar -------------------------------------------------------------------------------------------

function drawBar() {
  bar.end();
  bar = new Scope();
  document.documentElement.lang = language();
  say(document.getElementById("skip"), t("skip"));
  const links = Object.entries(NAMES).map(([name, word]) =>
    h("li", {}, h("a", { href: `#/${name}`, "data-view": name }, t(word), name === "attention" && attentionTally())),
  );
  document
    .getElementById("top")
    .replaceChildren(
      h(
        "a",
        { class: "brand", href: "#/" },
        h("img", { src: "/static/icon.svg", width: 30, height: 30, alt: "" }),
        h("span", {}, h("strong", {}, "A4CO"), h("span", { class: "sub" }, t("subtitle"))),
      ),
      h("nav", { "aria-label": t("nav") }, h("ul", { role: "list" }, links)),
      h("div", { class: "tools" }, finder(), connection(), languages(), themes()),
    );
}

function attentionTally() {
  const tally = h("span", { class: "tally plum", hidden: true });
  bar.on("overview", ({ items }) => {
    const number = sum(items, "attention");
    tally.hidden = number === 0;
    say(tally, count(number));
  });
  return tally;
}

function finder() {
  return h(
    "form",
    {
      role: "search",
      class: "finder",
      on: {
        submit(event) {
          event.preventDefault();
          const id = event.target.elements.order.value.trim();
          if (id) location.hash = `#/orders/${encodeURIComponent(id)}`;
        },
      },
    },
    h("input", {
      name: "order",
      type: "search",
      "aria-label": t("find"),
      placeholder: t("find_order"),
      autocomplete: "off",
      spellcheck: "false",
    }),
  );
}

function languages() {
  const button = (name, word) =>
    h(
      "button",
      {
        type: "button",
        lang: name,
        title: word,
        "aria-label": word,
        "aria-pressed": String(language() === name),
        on: { click: () => speak(name) },
      },
      name.toUpperCase(),
    );
  return h(
    "div",
    { class: "switch", role: "group", "aria-label": t("language") },
    button("es", "Español"),
    button("en", "English"),
  );
}

function themes() {
  const button = h(
    "button",
    { type: "button", class: "theme", on: { click: change } },
    h("span", { class: "sun", "aria-hidden": "true" }),
  );
  function named() {
    const text = t("theme", { name: t(`theme_${theme()}`), next: t(`theme_${nextTheme()}`) });
    button.setAttribute("aria-label", text);
    button.title = text;
    button.dataset.now = theme();
  }
  function change() {
    wear(nextTheme());
    named();
    show();
  }
  named();
  return button;
}

// ---- the connection ------------------------------------------------------------------------------------

/** One word for the worker and the feed together. */
function connectionKind() {
  const [server, feed] = [get("server")?.kind, get("feed")];
  if (server === undefined) return "connecting";
  if (server === "away" || server === "not-ready") return server;
  if (server === "stale" || server === "partial") return server;
  return feed === "live" ? "live" : feed === "none" ? "polling" : feed === "away" ? "reconnecting" : "connecting";
}

function connection() {
  const word = h("span", {});
  const at = h("span", { class: "unseen" });
  const node = h("p", { class: "connection" }, h("span", { class: "lamp", "aria-hidden": "true" }), word, at);
  const told = () => {
    const kind = connectionKind();
    document.body.dataset.connection = kind;
    say(word, t(kind));
    const when = get("server")?.at;
    node.title = when ? t("as_of", { at: time(when) }) : "";
  };
  bar.on("server", told);
  bar.on("feed", told);
  told();
  return node;
}

const notices = document.getElementById("notices");

function drawNotices() {
  const server = get("server");
  const kind = connectionKind();
  const found = [];
  const reasons = Object.entries(server?.reasons ?? {}).map(([what, why]) =>
    h("span", { class: "reason" }, t("notice_reason", { what, why: String(why) })),
  );
  if (kind === "away") found.push(notice("clay", t("notice_away", { at: server.at ? time(server.at) : "–" }), reasons));
  if (kind === "not-ready") {
    const percent = /(\d+) ?%/.exec(server.reasons.tables ?? "")?.[1];
    const bar = percent && h("progress", { max: 100, value: percent, "aria-label": t("not-ready") });
    found.push(
      notice("amber", percent ? t("notice_recovering", { percent }) : t("notice_not_ready"), [
        bar,
        percent ? null : reasons,
      ]),
    );
  }
  if (kind === "stale") found.push(notice("amber", t("notice_stale", { lag: count(server.lag) }), reasons));
  if (server?.missing?.length && kind !== "away" && kind !== "not-ready")
    found.push(notice("amber", t("notice_partial", { list: server.missing.join(", ") })));
  if (kind === "polling") found.push(notice("plain", t("notice_no_feed")));
  const text = found.map((each) => each.textContent + (each.querySelector("progress")?.value ?? "")).join();
  if (notices.dataset.said !== text) {
    notices.dataset.said = text;
    notices.replaceChildren(...found);
  }
  main.classList.toggle("old", kind === "away" || kind === "not-ready");
}

function notice(colour, text, more = []) {
  return h("div", { class: `notice ${colour}` }, h("p", {}, text), more);
}

onLanguage(() => {
  drawBar();
  drawNotices();
  show();
});

drawBar();
on("server", drawNotices);
on("feed", drawNotices);
keepLists();
followSagas();
watchOverview();
startFeed();
show();
