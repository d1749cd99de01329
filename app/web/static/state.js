// What the page knows, by topic, and who wants to hear of it. It decides nothing.

const known = new Map();
const listeners = new Map();

/** The newest value of a topic; undefined: nothing is known yet. */
export function get(topic) {
  return known.get(topic);
}

/** Remember a value and tell it. */
export function set(topic, value) {
  known.set(topic, value);
  tell(topic, value);
}

/** Tell something that happened, and is not remembered. */
export function tell(topic, value) {
  for (const listener of [...(listeners.get(topic) ?? [])]) listener(value);
}

/** Hear of a topic, at once where something is known. Returns how to hear no more. */
export function on(topic, listener) {
  if (!listeners.has(topic)) listeners.set(topic, new Set());
  listeners.get(topic).add(listener);
  if (known.has(topic)) listener(known.get(topic));
  return () => listeners.get(topic).delete(listener);
}
