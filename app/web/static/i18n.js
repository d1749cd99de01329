// The words of the page, in the language that was chosen, or else the browser's.

import en from "./words_en.js";
import es from "./words_es.js";

const WORDS = { en, es };
const KEPT = "a4co.language";
const told = new Set();
let chosen = remembered() ?? (navigator.language?.toLowerCase().startsWith("es") ? "es" : "en");

function remembered() {
  try {
    const kept = localStorage.getItem(KEPT);
    return kept in WORDS ? kept : null;
  } catch {
    return null;
  }
}

/** en or es. */
export function language() {
  return chosen;
}

/** Hear of another language. */
export function onLanguage(listener) {
  told.add(listener);
}

/** Speak another language, from now on. */
export function speak(name) {
  chosen = name;
  try {
    localStorage.setItem(KEPT, name);
  } catch {
    // It lasts as long as the page.
  }
  for (const listener of told) listener(name);
}

/** A sentence by its key; {name} in it is what `params` says. One with forms is chosen by params.n. */
export function t(key, params = {}) {
  let words = WORDS[chosen][key] ?? key;
  if (typeof words === "object")
    words = words[new Intl.PluralRules(chosen).select(params.number ?? params.n)] ?? words.other;
  return words.replace(/\{(\w+)\}/g, (_, name) => String(params[name] ?? ""));
}

/** Whether there are words for the key. */
export function has(key) {
  return key in WORDS[chosen];
}
