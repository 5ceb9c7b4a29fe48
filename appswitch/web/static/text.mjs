// Texts of others (names, tags, commands) and numbers, made fit for people's eyes. No DOM here: what uses these puts
// them into the page as text, never as markup.

// What would move or hide the text around it: controls, bidirectional overrides and isolates, zero-width spaces,
// halves of a surrogate pair (Unicode TR 36, section 2.5). They are shown as U+FFFD.
const INVISIBLE = /[\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]|\p{Surrogate}/gu;

const LONGEST = 300; // letters that any place has room for

/** A text of anybody's as one line without tricks. */
export function plain(text) {
  return String(text ?? "").replace(INVISIBLE, "\ufffd");
}

/** `text`, cut at its end so that `measure(text)` is at most `width`. A letter and its accents stay together. */
export function fit(text, width, measure) {
  const start = text.slice(0, LONGEST);
  if (start === text && measure(text) <= width) return text;
  const letters = Array.from(new Intl.Segmenter().segment(start), (part) => part.segment);
  let [fits, over] = [0, letters.length];
  while (over - fits > 1) {
    const middle = (fits + over) >> 1;
    if (measure(letters.slice(0, middle).join("") + "…") <= width) fits = middle;
    else over = middle;
  }
  return letters.slice(0, fits).join("") + "…";
}

/** 12345.6 as "12.3k"; small numbers with one decimal unless they are whole. */
export function short(number) {
  const value = Number(number) || 0;
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (value >= size) return `${trim(value / size)}${unit}`;
  }
  return value && value < 0.1 ? "<0.1" : trim(value);
}

function trim(value) {
  return value >= 100 ? String(Math.round(value)) : String(Math.round(value * 10) / 10);
}

/** A rate of connects, "4.2/s". */
export function perSecond(rate) {
  return `${short(rate)}/s`;
}

/** "1 client", "3 clients". */
export function several(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/** ADDRESS:PORT, an IPv6 address in brackets (RFC 3986, section 3.2.2). */
export function endpoint(address, port) {
  const host = plain(address);
  if (port == null) return host;
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** How long ago: "3 s", "5 min", "2 h". */
export function ago(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}
