// Asks again and again, and shows the last answer until the next one is there. Pauses while nobody sees the page.
import { access, api, NotAnswered, silentSince } from "./api.mjs";
import { Store } from "./store.mjs";
import { useEffect, useRef, useState } from "./vendor/hooks.mjs";

const PROBE_SECONDS = 3;
const refreshed = new Store(0);

// Everything on the page asks at once, as after a click that has changed something.
export function refresh() {
  refreshed.value += 1;
}

export function isVisible() {
  return document.visibilityState !== "hidden";
}

// { data, error, at, reload }: the last answer and when it came, and the error since, if any. `dependencies` name what
// is asked for; when they change the old answer goes away.
export function useLive(ask, dependencies, seconds) {
  const [state, setState] = useState({ data: null, error: null, at: null, of: null });
  const asked = useRef(0);
  const every = useRef(seconds);
  every.current = seconds;
  const of = JSON.stringify(dependencies);

  async function load() {
    const number = ++asked.current;
    try {
      const data = await ask();
      if (number === asked.current) setState({ data, error: null, at: Date.now(), of });
    } catch (error) {
      if (number !== asked.current) return;
      setState((before) => ({ ...(before.of === of ? before : { data: null, at: null }), error, of }));
    }
  }

  useEffect(() => {
    let timer;
    let ended = false;
    const next = async () => {
      clearTimeout(timer);
      if (isVisible() && access.value === "open") await load();
      if (!ended) timer = setTimeout(next, every.current * 1000);
    };
    const now = () => isVisible() && next();
    document.addEventListener("visibilitychange", now);
    const forget = [refreshed.listen(now), access.listen((is) => is === "open" && now())];
    next();
    return () => {
      ended = true;
      asked.current += 1;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", now);
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
