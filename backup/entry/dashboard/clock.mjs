// The server's clock, of which all times in its answers are. That of this computer may be hours off.
import { Store } from "./store.mjs";

const TOLERATED_MS = 90_000; // the header has whole seconds, and an answer may have been on its way for half a minute

// By how many milliseconds the clock of this computer is ahead of the server's: 0 where they agree.
export const ahead = new Store(0);

// Compares the clocks by the header Date of an answer that has just come.
export function hear(date) {
  const by = Date.now() - Date.parse(date ?? "");
  if (Number.isNaN(by)) return;
  if (Math.abs(by) <= TOLERATED_MS) ahead.value = 0;
  else if (Math.abs(by - ahead.value) > TOLERATED_MS) ahead.value = by;
}

// Milliseconds since 1970, by the server's clock.
export const now = () => Date.now() - ahead.value;
