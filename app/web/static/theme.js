// Light, dark, or as the system has it; and the colours as a canvas needs them.

const KEPT = "a4co.theme";
const THEMES = ["auto", "light", "dark"];
const dark = matchMedia("(prefers-color-scheme: dark)");

/** auto, light or dark. */
export function theme() {
  return document.documentElement.dataset.theme ?? "auto";
}

/** The theme that the switch goes to next. */
export function nextTheme() {
  return THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
}

/** Take a theme, from now on. */
export function wear(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  try {
    if (name === "auto") localStorage.removeItem(KEPT);
    else localStorage.setItem(KEPT, name);
  } catch {
    // It lasts as long as the page.
  }
}

/** Hear when the system's theme changes. */
export function onSystemTheme(listener) {
  dark.addEventListener("change", listener);
}

/** The colour that a variable of the style sheet is now. */
export function colour(name, alpha = 1) {
  const probe = document.createElement("span");
  probe.style.color = `color-mix(in srgb, var(--${name}) ${alpha * 100}%, transparent)`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
