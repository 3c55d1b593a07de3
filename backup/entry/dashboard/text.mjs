// How times, durations and numbers are written.
import { now } from "./clock.mjs";
import { textOf } from "./exact.mjs";

export const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

const PARTS = new Intl.DateTimeFormat("en-GB", {
  year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit",
  hourCycle: "h23", timeZoneName: "short",
});
const NUMBER = new Intl.NumberFormat("en-GB");
const STEPS = [["y", 31_557_600], ["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];

// 2026-11-29 16:57:03 CET: in the viewer's zone, with the zone.
export function exact(time) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return String(time);
  const of = Object.fromEntries(PARTS.formatToParts(date).map((part) => [part.type, part.value]));
  return `${of.year}-${of.month}-${of.day} ${of.hour}:${of.minute}:${of.second} ${of.timeZoneName}`;
}

export function zoneNow() {
  const short = exact(now()).split(" ").slice(2).join(" ");
  return short === ZONE ? ZONE : `${ZONE} (${short})`;
}

// 2 h 5 min, 3 d 4 h, 41 s, 0.8 s: the two largest units.
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return seconds < 0.001 ? "0 s" : `${Math.max(0.01, seconds).toFixed(seconds < 0.1 ? 2 : 1)} s`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  let left = Math.round(seconds);
  const words = [];
  for (const [unit, size] of STEPS) {
    const many = Math.floor(left / size);
    left -= many * size;
    if (many) words.push(`${many} ${unit}`);
    else if (words.length) break;
    if (words.length === 2) break;
  }
  return words.join(" ");
}

// "3 min ago", "3 h 10 min ago", "in 7 h 2 min".
export function relative(time) {
  const seconds = (now() - new Date(time).getTime()) / 1000;
  const size = Math.abs(seconds);
  if (Number.isNaN(size)) return "at an unknown time";
  if (size < 5) return "now";
  const words = duration(size < 60 ? Math.max(10, Math.round(size)) : 60 * Math.round(size / 60));
  return seconds > 0 ? `${words} ago` : `in ${words}`;
}

export function number(value) {
  return value === null || value === undefined ? "–" : NUMBER.format(value);
}

// "3 records", "1 record", "2,000 records".
export function many(count, noun, plural = `${noun}s`) {
  return `${number(count)} ${count === 1 ? noun : plural}`;
}

// A value of a record, as text. Texts stand as they are; what is no text stands as JSON.
export function shown(value) {
  if (value === undefined) return "";
  return typeof value === "string" ? value : textOf(value);
}

// A key as one reads it: the text of a key of one part, else JSON. In quotes, and with what nobody sees written out, where
// two different keys could look alike or nothing could be seen.
export function keyText(key) {
  const value = Array.isArray(key) && key.length === 1 ? key[0] : key;
  return typeof value === "string" && PLAIN.test(value) && !UNSEEN.test(value) ? value : seen(textOf(value));
}

const PLAIN = /^[^\s"[{](?:.*\S)?$/s;
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cn}\p{Co}\p{Cs}\p{Zl}\p{Zp}\u00a0\u115f\u1160\u2000-\u200a\u2800\u3000\u3164\uffa0]/u;

// The text with \u200b in the place of a character that nobody sees.
const seen = (text) => Array.from(text, (each) => (UNSEEN.test(each) ? `\\u{${each.codePointAt(0).toString(16)}}` : each)).join("");

// A name within a sentence: what it has of another direction does not turn what stands behind it.
export function isolated(name) {
  return /^[ -~]*$/.test(name) ? name : `\u2068${name}\u2069`;
}

// At most so many characters: the beginning and the end, because names that begin alike often differ there.
export function clipped(text, length) {
  const letters = Array.from(text);
  if (letters.length <= length) return text;
  const end = Math.floor(length / 3);
  return `${letters.slice(0, length - end).join("")} … ${letters.slice(-end).join("")}`;
}

// The set that a service is of: what stands before the slash in its name.
export const setOf = (service) => service.split("/")[0];
