// JSON whose numbers stay as they are written: a number of JavaScript would round the ids of many databases.
const MARK = `exact ${crypto.getRandomValues(new Uint32Array(4)).join("-")}`;
const LONG = /[\d.]{16}/;
const MARKED = new RegExp(`\\{"${MARK}":"([^"]*)"\\}`, "g");

// A number of which JavaScript's own number would be another.
class Exact {
  constructor(written) {
    this.written = written;
  }

  toJSON() {
    return { [MARK]: this.written };
  }

  toString() {
    return this.written;
  }
}

export function parseExactly(text) {
  if (!LONG.test(text)) return JSON.parse(text);
  return JSON.parse(marked(text), (_, value) => (value !== null && typeof value === "object" && MARK in value ? new Exact(value[MARK]) : value));
}

// What `parseExactly` has read, written with the same numbers.
export const textOf = (value) => JSON.stringify(value).replace(MARKED, "$1");

const isRounded = (number) => (/^-?\d+$/.test(number) ? !Number.isSafeInteger(Number(number)) : number.replace(/[eE].*|\D/g, "").replace(/^0+/, "").length > 17);

// The text, with an object in the place of each number that would be rounded. An expression for whole texts in quotes
// would run out of memory at long ones.
function marked(text) {
  const next = /"|-?\d[\d.eE+-]*/g;
  const parts = [];
  let from = 0;
  for (let match = next.exec(text); match; match = next.exec(text)) {
    if (match[0] === '"') {
      next.lastIndex = endOf(text, match.index);
    } else if (isRounded(match[0])) {
      parts.push(text.slice(from, match.index), `{"${MARK}":"${match[0]}"}`);
      from = next.lastIndex;
    }
  }
  return parts.join("") + text.slice(from);
}

// Where the text in quotes ends that begins at `start`.
function endOf(text, start) {
  let end = start;
  let isEscaped;
  do {
    end = text.indexOf('"', end + 1);
    if (end < 0) return text.length;
    let before = end - 1;
    while (text[before] === "\\") before -= 1;
    isEscaped = (end - before) % 2 === 0;
  } while (isEscaped);
  return end + 1;
}
