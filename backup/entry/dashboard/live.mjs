// Asks again and again, and shows the last answer until the next one is there. Pauses while nobody sees the page.
import { access, api, NotAnswered, silentSince } from "./api.mjs";
import { now } from "./clock.mjs";
import { Store } from "./store.mjs";
import { useEffect, useRef, useState } from "./vendor/hooks.mjs";

const PROBE_SECONDS = 3;
const CALM_MS = 5_000;
const refreshed = new Store(0);

// Everything on the page asks at once, as after a click that has changed something.
export function refresh() {
  refreshed.value += 1;
}

// The same for what happens by itself, such as the end of a job: not more often than every few seconds, however often.
let calmUntil = 0;
let waiting;
export function refreshCalmly() {
  clearTimeout(waiting);
  const wait = calmUntil - performance.now();
  if (wait > 0) {
    waiting = setTimeout(refreshCalmly, wait);
    return;
  }
  calmUntil = performance.now() + CALM_MS;
  refresh();
}

export function isVisible() {
  return document.visibilityState !== "hidden";
}

// { data, error, at, reload }: the last answer and when it came, and the error since, if any. `dependencies` name what
// is asked for; when they change the old answer goes away. However slow answers are, one question waits for the other,
// and each answer is shown unless that of a later question was there before.
export function useLive(ask, dependencies, seconds) {
  const [state, setState] = useState({ data: null, error: null, at: null, of: null });
  const asked = useRef(0);
  const shown = useRef(0);
  const every = useRef(seconds);
  every.current = seconds;
  const of = JSON.stringify(dependencies);

  async function load() {
    const number = ++asked.current;
    const show = (change) => {
      if (number <= shown.current) return;
      shown.current = number;
      setState(change);
    };
    try {
      const data = await ask();
      show({ data, error: null, at: now(), of });
    } catch (error) {
      show((before) => ({ ...(before.of === of ? before : { data: null, at: null }), error, of }));
    }
  }

  useEffect(() => {
    let timer;
    let ended = false;
    let asks = false;
    let again = false;
    const next = async () => {
      again = asks;
      if (asks) return;
      asks = true;
      clearTimeout(timer);
      do {
        again = false;
        if (isVisible() && access.value === "open") await load();
      } while (again && !ended);
      asks = false;
      if (!ended) timer = setTimeout(next, every.current * 1000);
    };
    const atOnce = () => isVisible() && next();
    document.addEventListener("visibilitychange", atOnce);
    const forget = [refreshed.listen(atOnce), access.listen((is) => is === "open" && atOnce())];
    next();
    return () => {
      ended = true;
      shown.current = asked.current; // what was asked for is not wanted any more
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", atOnce);
      for (const each of forget) each();
    };
  }, [of]);

  const current = state.of === of ? state : { data: null, error: null, at: null };
  return { ...current, reload: load };
}

// While the server is silent, asks whether it is back, and then has everything asked anew.
export function watchSilence() {
  let timer;
  const probe = async () => {
    clearTimeout(timer);
    if (silentSince.value === null) return;
    if (isVisible()) {
      try {
        await api.isUp();
        refresh();
        return;
      } catch (error) {
        if (!(error instanceof NotAnswered)) return;
      }
    }
    timer = setTimeout(probe, PROBE_SECONDS * 1000);
  };
  silentSince.listen((since) => {
    clearTimeout(timer);
    if (since !== null) timer = setTimeout(probe, PROBE_SECONDS * 1000);
  });
}
