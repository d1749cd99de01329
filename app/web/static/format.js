// Numbers, money, moments and spans of time as the chosen language writes them.

import { language, onLanguage, t } from "./i18n.js";

const DASH = "–";
let made = new Map();
onLanguage(() => (made = new Map()));

function formatter(kind, options) {
  const key = `${kind.name}${JSON.stringify(options)}`;
  if (!made.has(key)) made.set(key, new kind(language(), options));
  return made.get(key);
}

/** 12,345 */
export function count(number) {
  return number === null || number === undefined
    ? DASH
    : formatter(Intl.NumberFormat, { useGrouping: "min2" }).format(number);
}

/** 12.3 below 100, 123 from there on. */
export function rate(number) {
  if (number === null || number === undefined) return DASH;
  const digits = number < 99.95 && number > 0 ? 1 : 0;
  return formatter(Intl.NumberFormat, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(number);
}

/** 83 % */
export function percent(part, digits = 0) {
  return part === null || part === undefined
    ? DASH
    : formatter(Intl.NumberFormat, { style: "percent", maximumFractionDigits: digits }).format(part);
}

/** 25.00 € */
export function money(amount, currency) {
  try {
    return formatter(Intl.NumberFormat, { style: "currency", currency }).format(amount);
  } catch {
    return `${count(amount)} ${currency}`; // not a currency that there is
  }
}

/** 4.8 ms, 2.1 s, 5 min: seconds with the unit that fits. */
export function span(seconds) {
  const [number, unit] = scaled(seconds);
  return number === null ? DASH : spelled(number, unit);
}

function scaled(seconds) {
  if (seconds === null || seconds === undefined) return [null, ""];
  if (seconds < 0.9995) return [seconds * 1000, "ms"];
  if (seconds < 99.5) return [seconds, "s"];
  if (seconds < 5970) return [seconds / 60, "min"];
  return seconds < 172_000 ? [seconds / 3600, "h"] : [seconds / 86400, "d"];
}

function spelled(number, unit) {
  const digits = number < 9.95 && unit !== "d" && number !== Math.round(number) ? 1 : 0;
  return `${formatter(Intl.NumberFormat, { maximumFractionDigits: digits }).format(number)}\u202f${unit}`;
}

/** 1:04:09, 4:09, 0:09: what is left of a time. */
export function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** 3 minutes ago, now. */
export function ago(iso, now = Date.now()) {
  const seconds = Math.max(0, (now - Date.parse(iso)) / 1000);
  if (seconds < 2) return t("now");
  const [divisor, unit] =
    seconds < 60 ? [1, "second"] : seconds < 3600 ? [60, "minute"] : seconds < 86400 ? [3600, "hour"] : [86400, "day"];
  return formatter(Intl.RelativeTimeFormat, { style: "narrow", numeric: "always" }).format(
    -Math.floor(seconds / divisor),
    unit,
  );
}

/** 28 Nov, 17:41:32 */
export function moment(iso) {
  const at = iso ? new Date(iso) : null;
  return at ? formatter(Intl.DateTimeFormat, { dateStyle: "medium", timeStyle: "medium" }).format(at) : DASH;
}

/** 17:41:32 where that was today, else with its date. */
export function since(iso) {
  const at = new Date(iso);
  return at.toDateString() === new Date().toDateString() ? time(at) : moment(iso);
}

/** 17:41:32.123 */
export function precise(iso) {
  const options = {
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    fractionalSecondDigits: 3,
    hourCycle: "h23",
  };
  return formatter(Intl.DateTimeFormat, options).format(new Date(iso));
}

/** 17:41 of seconds since the epoch. */
export function minute(seconds) {
  return formatter(Intl.DateTimeFormat, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }).format(
    seconds * 1000,
  );
}

/** 17:41:32 of a date. */
export function time(date) {
  const options = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
  return formatter(Intl.DateTimeFormat, options).format(date);
}
